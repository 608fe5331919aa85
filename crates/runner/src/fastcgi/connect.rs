//! The way to a FastCGI server: one attempt after another while waiting may help.
//!
//! A server that restarts is gone for a moment, and one whose workers are all busy lets its backlog run full: both are waited for, as long
//! as `connect_timeout`. What will be the same in a second is told at once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::address::Address;
use super::client::Transport;
use super::unix::UnixSocket;
use crate::error::EnvironmentFault;

/// The pauses between two attempts: the first, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(32);

/// A server that makes its socket gives it owner and mode a moment later.
const PERMISSION_PATIENCE: Duration = Duration::from_millis(250);

/// A connection to a FastCGI server.
#[derive(Debug)]
pub(super) enum Connection {
    Unix(UnixSocket),
    Tcp(TcpStream),
}

impl Connection {
    async fn open_tcp(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    /// Whether an idle connection is still open, with nothing to read.
    pub(super) fn is_quiet(&self) -> bool {
        is_quiet(self)
    }
}

/// Writes what there is room for at this moment. `None`: there is none.
pub(super) fn write_now(socket: impl AsFd, bytes: &[u8]) -> Option<io::Result<usize>> {
    match rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(length) => Some(Ok(length)),
        Err(Errno::AGAIN | Errno::INTR) => None,
        Err(error) => Some(Err(error.into())),
    }
}

impl Transport for Connection {
    /// Of TCP only the other machine's kernel would know.
    fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Unix(socket) => socket.poll_taken(cx),
            Self::Tcp(_) => Poll::Ready(()),
        }
    }

    fn end_of_requests(&mut self) {
        match self {
            Self::Unix(socket) => socket.end_of_requests(),
            Self::Tcp(stream) => {
                // An error means a socket that is gone, which the next read says better.
                let _ = rustix::net::shutdown(stream, Shutdown::Write);
            }
        }
    }
}

/// Whether a socket is open, with nothing to read. Asked of the kernel, because the runtime may not have heard yet.
pub(super) fn is_quiet(socket: impl AsFd) -> bool {
    let mut byte = [0];
    let peeked = rustix::net::recv(socket, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    matches!(peeked, Err(Errno::AGAIN))
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(socket) => socket.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(socket) => socket.poll_read(cx, buffer),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    /// Tries before it asks the runtime, which has not heard yet that a new socket can be written: nearly every request fits at once.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(written) = write_now(&*self, bytes) {
            return Poll::Ready(written);
        }
        match self.get_mut() {
            Self::Unix(socket) => socket.poll_write(cx, bytes),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// A socket has no buffer on this side.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Dropping closes both ways.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The attempts of one call to get a connection.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    address: &'a Address,
    server: &'a str,
    began: Instant,
    /// Zero: as long as the call may take.
    timeout: Duration,
    pause: Duration,
    /// Why the last one failed.
    failed: Option<io::Error>,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(address: &'a Address, server: &'a str, timeout: Duration) -> Self {
        Self { address, server, began: Instant::now(), timeout, pause: FIRST_PAUSE, failed: None }
    }

    /// A connection, after as many attempts as there is time for.
    pub(super) async fn connect(&mut self) -> Result<Connection, EnvironmentFault> {
        loop {
            let error = match self.one().await {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            self.pause_after(error).await?;
        }
    }

    async fn one(&self) -> io::Result<Connection> {
        let opening = match self.address {
            Address::Unix(path) => return UnixSocket::connect(path).map(Connection::Unix),
            // It would make the future of every call larger than all else in it.
            Address::Tcp(address) => Box::pin(Connection::open_tcp(address)),
        };
        if self.timeout.is_zero() {
            return opening.await;
        }
        let left = self.timeout.saturating_sub(self.began.elapsed());
        tokio::time::timeout(left, opening).await.unwrap_or_else(|_late| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Waits a moment after an attempt that failed, on the way there or before a byte of the request had left.
    ///
    /// # Errors
    /// It is of no use to wait, or the time is over.
    pub(super) async fn pause_after(&mut self, error: io::Error) -> Result<(), EnvironmentFault> {
        let patience = match patience(&error) {
            Patience::WhileItTakes if self.timeout.is_zero() => Duration::MAX,
            Patience::WhileItTakes => self.timeout,
            Patience::Briefly => PERMISSION_PATIENCE,
            Patience::None => Duration::ZERO,
        };
        self.failed = Some(error);
        let left = patience.saturating_sub(self.began.elapsed());
        if left.is_zero() {
            return Err(self.unreachable());
        }
        tokio::time::sleep(self.pause.min(left)).await;
        self.pause = LAST_PAUSE.min(self.pause * 2);
        Ok(())
    }

    /// Why there is no connection, now that nobody waits for one any more.
    pub(super) fn unreachable(&mut self) -> EnvironmentFault {
        let source = self.failed.take().unwrap_or_else(|| io::ErrorKind::TimedOut.into());
        let remedy = remedy(&source);
        EnvironmentFault::Unreachable { server: self.server.to_owned(), source, remedy }
    }
}

/// How long waiting may help.
enum Patience {
    WhileItTakes,
    Briefly,
    None,
}

fn patience(error: &io::Error) -> Patience {
    match error.raw_os_error() {
        Some(
            libc::ENOENT
            | libc::ECONNREFUSED
            | libc::EAGAIN
            | libc::ECONNRESET
            | libc::ECONNABORTED
            | libc::EPIPE
            | libc::EINTR
            | libc::ETIMEDOUT
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EADDRNOTAVAIL,
        ) => Patience::WhileItTakes,
        Some(libc::EACCES) => Patience::Briefly,
        Some(_) | None => Patience::None,
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOENT) => "no such socket: is php-fpm running, and does \"listen\" of its pool name this socket?",
        Some(libc::ECONNREFUSED) => "nobody listens there: is php-fpm running?",
        Some(libc::EAGAIN) => {
            "all workers are busy and their backlog is full: raise pm.max_children or listen.backlog of the pool, \
             or lower application.limits.max_running"
        }
        Some(libc::EACCES) => {
            "wootz may not open the socket: see listen.owner, listen.group and listen.mode of the pool"
        }
        Some(libc::ECONNRESET | libc::ECONNABORTED | libc::EPIPE) => {
            "it closes connections at once: see its log, and listen.allowed_clients of the pool"
        }
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files: ulimit -n",
        Some(libc::EADDRNOTAVAIL) => "no free port on this side: use a Unix socket, or keep connections",
        Some(_) | None => "is application.fastcgi.address right?",
    }
}
