//! The socket to an HTTP server: TCP or Unix, with a count of what went over it.
//!
//! A server may answer and close before it has read the whole request. Then writing fails while the answer waits to be read; so a failed write
//! is no end here, and reading tells how things are.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::url::Server;

/// The longest pause between two tries at a socket whose backlog is full.
const MAX_BACKLOG_PAUSE: Duration = Duration::from_millis(50);

/// So much may be read before there is the head of an answer, with all interim answers (1xx) and what of the body comes along. A server that
/// sends more fails its call: it would be parsed for ever.
const MAX_BEFORE_HEAD_BYTES: u64 = 512 * 1024;

/// What went over a stream since [`Meter::begin`].
#[derive(Debug, Default)]
pub(super) struct Meter {
    written_bytes: Cell<u64>,
    read_bytes: Cell<u64>,
    awaiting_head: Cell<bool>,
    probing: Cell<bool>,
}

impl Meter {
    /// A request begins.
    pub(super) fn begin(&self) {
        self.written_bytes.set(0);
        self.read_bytes.set(0);
        self.awaiting_head.set(true);
    }

    /// The head of its answer is there.
    pub(super) fn head_came(&self) {
        self.awaiting_head.set(false);
    }

    /// Whether the server can have seen any of the request.
    pub(super) fn has_written(&self) -> bool {
        self.written_bytes.get() != 0
    }

    /// Whether any of an answer came.
    pub(super) fn has_read(&self) -> bool {
        self.read_bytes.get() != 0
    }

    /// While this is on, a read asks the kernel itself whether the peer has closed, and takes nothing. The runtime would know only after it has
    /// looked at its sockets again.
    pub(super) fn set_probing(&self, probing: bool) {
        self.probing.set(probing);
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// One connection to a server.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    meter: Rc<Meter>,
}

impl Stream {
    pub(super) async fn connect(server: &Server) -> io::Result<Self> {
        let socket = match server {
            Server::Tcp(host, port) => {
                let socket = TcpStream::connect((host.as_str(), *port)).await?;
                // A request is written in one piece; nothing is gained by waiting for more.
                socket.set_nodelay(true)?;
                Socket::Tcp(socket)
            }
            Server::Unix(path) => {
                let mut pause = Duration::from_millis(1);
                loop {
                    match UnixStream::connect(path).await {
                        // The server's backlog is full, and the kernel does not queue us as it would with TCP.
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            tokio::time::sleep(pause).await;
                            pause = (pause * 2).min(MAX_BACKLOG_PAUSE);
                        }
                        connected => break Socket::Unix(connected?),
                    }
                }
            }
        };
        Ok(Self { socket, meter: Rc::default() })
    }

    pub(super) fn meter(&self) -> Rc<Meter> {
        Rc::clone(&self.meter)
    }

    /// Nothing to read is the only good news.
    fn probe(&self) -> Poll<io::Result<()>> {
        match recv(&self.socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Poll::Pending,
            Ok((_, 0)) => Poll::Ready(Ok(())),
            Ok(_) => Poll::Ready(Err(io::Error::other("bytes that nobody asked for"))),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    fn written(&self, written: Poll<io::Result<usize>>, all_bytes: usize) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => self.meter.written_bytes.update(|count| count + bytes as u64),
            Poll::Ready(Err(error)) if is_closed(&error) => return Poll::Ready(Ok(all_bytes)),
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
        written
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.meter.probing.get() {
            return self.probe();
        }
        if self.meter.awaiting_head.get() && self.meter.read_bytes.get() > MAX_BEFORE_HEAD_BYTES {
            let what = format!("no end of its head in {MAX_BEFORE_HEAD_BYTES} bytes");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        let before = buffer.filled().len();
        let read = match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
            Socket::Unix(socket) => Pin::new(socket).poll_read(cx, buffer),
        };
        let bytes = buffer.filled().len() - before;
        self.meter.read_bytes.update(|count| count + bytes as u64);
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Socket::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
        };
        self.written(written, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Socket::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
        };
        self.written(written, slices.iter().map(|slice| slice.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets have no buffer of their own on this side.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Dropping closes both ways.
        Poll::Ready(Ok(()))
    }
}
