//! An accepted socket, whatever its kind: the driver reads and writes all of them alike.
//!
//! An enum and no trait object: a read or a write is a branch and no call through a table, and an idle connection pays one word. TLS will be one
//! more kind, above the socket; who uses this need not know.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// The bytes of one browser, or of the proxy before it.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Does the same with the socket of each kind.
macro_rules! with_each {
    ($stream:expr, $socket:ident => $act:expr) => {
        match $stream {
            Stream::Tcp($socket) => $act,
            Stream::Unix($socket) => $act,
        }
    };
}

impl Stream {
    /// Writes what the socket takes now.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        with_each!(self, socket => socket.try_write(bytes))
    }

    /// Writes what the socket takes now, in one system call.
    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        with_each!(self, socket => socket.try_write_vectored(slices))
    }

    /// Whether the socket takes bytes; else whoever asks is woken when it does.
    pub(crate) fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_each!(self, socket => socket.poll_write_ready(context))
    }

    /// This end's address and port. `None`: it has none.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Waits until the peer has gone. One that already sends more is not watched.
    ///
    /// # Cancel safety
    /// Nothing is read, so nothing is lost.
    pub(crate) async fn hung_up(&self) {
        loop {
            let ready = with_each!(self, socket => socket.ready(Interest::READABLE).await);
            let looked = ready.and_then(|_| {
                let look = || Ok(rustix::net::recv(self, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT)?.0);
                with_each!(self, socket => socket.try_io(Interest::READABLE, look))
            });
            match looked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return,
                Ok(_) => std::future::pending().await,
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        with_each!(self.get_mut(), socket => Pin::new(socket).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        with_each!(self.get_mut(), socket => Pin::new(socket).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_each!(self.get_mut(), socket => Pin::new(socket).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_each!(self.get_mut(), socket => Pin::new(socket).poll_shutdown(context))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        with_each!(self, socket => socket.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_cost_an_idle_connection_one_word() {
        assert!(size_of::<Option<Stream>>() <= size_of::<TcpStream>() + size_of::<usize>());
    }
}
