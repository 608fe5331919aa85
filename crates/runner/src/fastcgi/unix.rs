//! A Unix socket to a FastCGI server, watched for no more than is waited for.
//!
//! Whoever watches a socket for room to write is woken by each read of the other side. Nearly every request fits at once, so a socket is first
//! watched when its answer is waited for, for that alone, and for room only once there was none.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Pid;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};

use super::connect::{is_quiet, write_now};
use super::unread::has_unread;

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// A connected socket.
#[derive(Debug)]
pub(super) struct UnixSocket {
    /// What the runtime tells of it.
    watch: Option<Watch>,
    socket: Arc<OwnedFd>,
}

#[derive(Debug)]
struct Watch {
    socket: AsyncFd<Arc<OwnedFd>>,
    interest: Interest,
}

impl UnixSocket {
    /// Connects at once or not at all, so there is nothing to wait for.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { watch: None, socket: Arc::new(socket) })
    }

    /// The socket, watched by nobody.
    pub(super) fn into_std(self) -> UnixStream {
        drop(self.watch);
        Arc::into_inner(self.socket).expect("only the watch had it too").into()
    }

    /// Waits until the server has read all that was written, and did not close. Pending, without a later waking, where there is something to
    /// read.
    ///
    /// A Unix socket is told that it can be written whenever its peer has read something, and how much is left can be asked. A worker
    /// that closes for good says so before it reads what is left, and throws that away.
    pub(super) fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // An error means a socket that is gone, which the next read says better.
        while has_unread(&*self).unwrap_or(false) {
            let Ok(watched) = watched(&mut self.watch, &self.socket, BOTH) else { return Poll::Pending };
            // Forget that it can be written, to hear it again.
            match ready!(watched.poll_write_ready(cx)) {
                Ok(mut ready) => ready.clear_ready(),
                Err(_runtime_ends) => return Poll::Pending,
            }
        }
        if is_quiet(&*self) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ends the sending half.
    pub(super) fn end_of_requests(&self) {
        // An error means a socket that is gone, which the next read says better.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let watched = watched(&mut self.watch, &self.socket, Interest::READABLE)?;
            let mut ready = ready!(watched.poll_read_ready(cx))?;
            match rustix::net::recv(&self.socket, buffer.initialize_unfilled(), RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    // Less than there is room for was all: more will be told.
                    if (1..buffer.remaining()).contains(&length) {
                        ready.clear_ready();
                    }
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            if let Some(written) = write_now(&*self, bytes) {
                return Poll::Ready(written);
            }
            let watched = watched(&mut self.watch, &self.socket, BOTH)?;
            ready!(watched.poll_write_ready(cx))?.clear_ready();
        }
    }
}

/// Who listens at the address of all connections, as far as that matters here: whether it is php-fpm, by the name of its process.
///
/// A worker of php-fpm that is told that no request follows goes on to its next one as soon as it has answered, and does not wait for our close,
/// to be woken by each read of its answer before. To other servers (Go's, flup's) a half-closed connection is an aborted one.
#[derive(Debug, Default)]
pub(super) struct Listener(Cell<Option<Look>>);

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    process: Pid,
    is_php_fpm: bool,
}

/// How long what was seen is believed: too short for php-fpm to give its place to a server of another kind.
const LOOK_HOLDS: Duration = Duration::from_millis(100);

impl Listener {
    /// Looks at the other end of this connection, or knows.
    pub(super) fn is_php_fpm(&self, connection: &UnixSocket, now: Instant) -> bool {
        let last = self.0.get();
        if let Some(look) = last
            && now.saturating_duration_since(look.at) < LOOK_HOLDS
        {
            return look.is_php_fpm;
        }
        // A process of another namespace has no number here, and no name.
        let Ok(credentials) = rustix::net::sockopt::socket_peercred(&connection.socket) else { return false };
        let process = credentials.pid;
        let is_php_fpm = match last {
            Some(look) if look.process == process => look.is_php_fpm,
            Some(_) | None => is_named_php_fpm(process),
        };
        self.0.set(Some(Look { at: now, process, is_php_fpm }));
        is_php_fpm
    }
}

fn is_named_php_fpm(process: Pid) -> bool {
    let name = std::fs::read(format!("/proc/{}/comm", process.as_raw_nonzero()));
    name.is_ok_and(|name| name.starts_with(b"php-fpm"))
}

/// The socket, watched for these things at least.
fn watched<'w>(
    watch: &'w mut Option<Watch>,
    socket: &Arc<OwnedFd>,
    wanted: Interest,
) -> io::Result<&'w AsyncFd<Arc<OwnedFd>>> {
    if watch.as_ref().is_none_or(|watch| (watch.interest | wanted) != watch.interest) {
        // It can't be watched twice. What has happened meanwhile is told to the new one.
        *watch = None;
        #[expect(
            deprecated,
            reason = "what it asks of its caller, an owned descriptor promises by itself; its successor is unsafe"
        )]
        let socket = AsyncFd::with_interest(Arc::clone(socket), wanted)?;
        *watch = Some(Watch { socket, interest: wanted });
    }
    Ok(&watch.as_ref().expect("watched by now").socket)
}

impl AsFd for UnixSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Both ends of a connection, and a runtime to drive ours.
    fn connected() -> (tokio::runtime::Runtime, UnixSocket, UnixStream) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).expect("a listener");
        let ours = UnixSocket::connect(&path).expect("a backlog with room");
        let (theirs, _) = listener.accept().expect("a connection");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        (runtime, ours, theirs)
    }

    #[test]
    fn this_process_is_no_php_fpm_and_is_looked_at_again_after_a_while() {
        let (_runtime, ours, _theirs) = connected();
        let (listener, now) = (Listener::default(), Instant::now());
        assert!(!listener.is_php_fpm(&ours, now));
        let seen = listener.0.get().expect("a look");
        assert_eq!(seen.process, rustix::process::getpid());
        listener.0.set(Some(Look { is_php_fpm: true, ..seen }));
        assert!(listener.is_php_fpm(&ours, now + LOOK_HOLDS / 2), "known");
        // The same process still has the same name; another one is asked for it.
        assert!(listener.is_php_fpm(&ours, now + LOOK_HOLDS));
        listener.0.set(Some(Look { is_php_fpm: true, process: Pid::INIT, ..seen }));
        assert!(!listener.is_php_fpm(&ours, now + LOOK_HOLDS));
    }

    async fn read(socket: &mut UnixSocket) -> Vec<u8> {
        let mut bytes = [0; 16];
        let mut buffer = ReadBuf::new(&mut bytes);
        poll_fn(|cx| socket.poll_read(cx, &mut buffer)).await.expect("an open socket");
        buffer.filled().to_vec()
    }

    #[test]
    fn what_comes_before_and_after_the_watch_begins_is_read_up_to_the_end() {
        let (runtime, mut ours, mut theirs) = connected();
        theirs.write_all(b"before").expect("room");
        runtime.block_on(async {
            assert_eq!(read(&mut ours).await, b"before");
            let writer = std::thread::spawn(move || {
                theirs.write_all(&[b'x'; 40]).expect("room");
                theirs
            });
            let mut later = Vec::new();
            while later.len() < 40 {
                later.extend(read(&mut ours).await);
            }
            assert_eq!(later, [b'x'; 40]);
            drop(writer.join().expect("written"));
            assert_eq!(read(&mut ours).await, b"");
        });
    }

    #[test]
    fn a_request_without_room_is_written_when_there_is_some_and_its_answer_is_read() {
        const LENGTH: usize = 4 * 1024 * 1024;
        let (runtime, mut ours, mut theirs) = connected();
        let peer = std::thread::spawn(move || {
            theirs.write_all(b"early").expect("room");
            theirs.read_exact(&mut vec![0; LENGTH]).expect("all of it");
            theirs.write_all(b"answer").expect("room");
            theirs
        });
        runtime.block_on(async {
            assert_eq!(read(&mut ours).await, b"early");
            let request = vec![b'r'; LENGTH];
            let mut written = 0;
            while written < LENGTH {
                written += poll_fn(|cx| ours.poll_write(cx, &request[written..])).await.expect("an open socket");
            }
            assert_eq!(read(&mut ours).await, b"answer");
        });
        drop((peer.join().expect("answered"), ours.into_std()));
    }

    #[test]
    fn what_was_written_is_taken_once_it_was_read() {
        let (runtime, mut ours, mut theirs) = connected();
        runtime.block_on(async {
            poll_fn(|cx| ours.poll_taken(cx)).await;
            poll_fn(|cx| ours.poll_write(cx, b"head")).await.expect("room");
            let mut first = true;
            let reader = poll_fn(|cx| {
                let taken = ours.poll_taken(cx);
                if std::mem::take(&mut first) {
                    assert!(taken.is_pending(), "nobody has read it");
                    theirs.read_exact(&mut [0; 4]).expect("the head");
                }
                taken
            });
            reader.await;
        });
    }
}
