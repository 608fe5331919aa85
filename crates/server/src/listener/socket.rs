//! An accepted socket, whatever its kind, and TLS above it: both are read and written alike.
//!
//! An enum and no trait object: a read or a write is a branch and no call through a table, and an idle connection pays one word. TLS is behind
//! a pointer, so that a connection without it pays nothing for it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::tls::TlsStream;

/// As much as one system call brings from a busy socket.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// The bytes of one browser, or of the proxy before it.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(Transport),
    Tls(Box<TlsStream>),
}

/// What the system reads and writes.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What a thread reads into. One is enough: what is not consumed at once is copied.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    pub(crate) bytes: Box<[u8]>,
    /// What TLS found in the bytes.
    pub(crate) plaintext: Vec<u8>,
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self { bytes: vec![0; READ_BUFFER_BYTES].into_boxed_slice(), plaintext: Vec::new() }
    }
}

/// What became of bytes that were to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sent {
    /// So many need not be given again. Of TLS some of them may wait encrypted.
    pub(crate) taken: usize,
    /// So many left, as the socket counts them.
    pub(crate) left: usize,
}

/// Does the same with the socket of each kind.
macro_rules! with_each {
    ($socket:expr, $kind:ident => $act:expr) => {
        match $socket {
            Transport::Tcp($kind) => $act,
            Transport::Unix($kind) => $act,
        }
    };
}

impl Transport {
    /// Reads what is there. An empty slice is the end.
    pub(crate) fn poll_read<'b>(
        &mut self,
        context: &mut Context<'_>,
        buffer: &'b mut [u8],
    ) -> Poll<io::Result<&'b mut [u8]>> {
        let mut read = ReadBuf::new(buffer);
        ready!(with_each!(self, socket => Pin::new(socket).poll_read(context, &mut read)))?;
        let length = read.filled().len();
        Poll::Ready(Ok(&mut buffer[..length]))
    }

    /// Writes what the socket takes now.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        with_each!(self, socket => socket.try_write(bytes))
    }

    /// Whether the socket takes bytes; else whoever asks is woken when it does.
    pub(crate) fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_each!(self, socket => socket.poll_write_ready(context))
    }

    /// Ends the writing side. It does not wait: it is one system call.
    pub(crate) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_each!(self, socket => Pin::new(socket).poll_shutdown(context))
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        with_each!(self, socket => socket.as_fd())
    }
}

impl Socket {
    pub(crate) fn transport(&self) -> &Transport {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.transport(),
        }
    }

    /// The socket itself, for what comes before TLS.
    pub(crate) fn transport_mut(&mut self) -> &mut Transport {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.transport_mut(),
        }
    }

    /// Takes what was read of the transport behind what came before TLS. What is no TLS comes back.
    pub(crate) fn begin_with(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Plain(_) => bytes,
            Self::Tls(tls) => {
                tls.begin_with(bytes);
                Vec::new()
            }
        }
    }

    /// Whether the peer could understand what is sent: TLS has to be agreed on first.
    pub(crate) fn can_send(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(tls) => !tls.is_handshaking(),
        }
    }

    /// Whether the peer asked for HTTP/2, and gets it. It is known as soon as something was read.
    pub(crate) fn speaks_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.speaks_http2(),
        }
    }

    /// Reads what is there, as the peer meant it. An empty slice is the end.
    pub(crate) fn poll_receive<'b>(
        &mut self,
        context: &mut Context<'_>,
        buffer: &'b mut ReadBuffer,
    ) -> Poll<io::Result<&'b mut [u8]>> {
        match self {
            Self::Plain(socket) => socket.poll_read(context, &mut buffer.bytes),
            Self::Tls(tls) => tls.poll_receive(context, buffer),
        }
    }

    /// Writes what the socket takes now, in one system call; without slices only what waits of before.
    ///
    /// # Errors
    /// `WouldBlock` where it takes nothing.
    pub(crate) fn try_send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        let bytes = match (self, slices) {
            (Self::Tls(tls), slices) => return tls.try_send(slices),
            (Self::Plain(_), []) => 0,
            // Cheaper than a vector of one.
            (Self::Plain(socket), [one]) => socket.try_write(one)?,
            (Self::Plain(socket), many) => with_each!(socket, socket => socket.try_write_vectored(many))?,
        };
        Ok(Sent { taken: bytes, left: bytes })
    }

    /// Whether something waits here for the socket to take it.
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.has_unsent(),
        }
    }

    /// Whether the socket takes bytes; else whoever asks is woken when it does.
    pub(crate) fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport().poll_write_ready(context)
    }

    /// Ends the writing side. It waits only where TLS has to say so and the socket is full.
    pub(crate) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_shutdown(context),
            Self::Tls(tls) => tls.poll_shutdown(context),
        }
    }

    /// Sends all of it, then ends the writing side.
    ///
    /// # Cancel safety
    /// A part may have been sent; the stream is of no more use then.
    pub(crate) async fn send_last(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        std::future::poll_fn(|context| {
            while !bytes.is_empty() {
                match self.try_send(&[IoSlice::new(bytes)]) {
                    Ok(Sent { taken: 0, .. }) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Ok(sent) => bytes = &bytes[sent.taken..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_write_ready(context))?,
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            self.poll_shutdown(context)
        })
        .await
    }

    /// This end's address and port. `None`: it has none.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match self.transport() {
            Transport::Tcp(socket) => socket.local_addr().ok(),
            Transport::Unix(_) => None,
        }
    }

    /// Whether the peer has closed its side, seen without reading what it sent before.
    pub(crate) fn has_hung_up(&self) -> bool {
        let mut descriptors = [PollFd::new(self.transport(), PollFlags::RDHUP)];
        let looked = poll(&mut descriptors, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        looked.is_ok() && descriptors[0].revents().intersects(gone)
    }

    /// Waits until the peer has gone. One that already sends more is not watched.
    ///
    /// # Cancel safety
    /// Nothing is read, so nothing is lost.
    pub(crate) async fn hung_up(&self) {
        let socket = self.transport();
        loop {
            let ready = with_each!(socket, socket => socket.ready(Interest::READABLE).await);
            let looked = ready.and_then(|_| {
                let look = || Ok(rustix::net::recv(socket, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT)?.0);
                with_each!(socket, socket => socket.try_io(Interest::READABLE, look))
            });
            match looked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return,
                Ok(_) => std::future::pending().await,
            }
        }
    }
}
