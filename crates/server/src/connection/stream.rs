//! What carries one WebSocket: a socket of its own, or a stream of HTTP/2 beside others. The driver reads and writes them alike.
//!
//! An enum and no trait object, for the reason that [`Socket`] is one; HTTP/2 is behind a pointer, so that nobody else pays for it.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use crate::http2::Http2Stream;
use crate::listener::{ReadBuffer, Sent, Socket};

/// The bytes of one WebSocket.
#[derive(Debug)]
pub(crate) enum Stream {
    Socket(Socket),
    Http2(Box<Http2Stream>),
}

impl Stream {
    /// Reads what is there, as the peer meant it. An empty slice is the end.
    pub(crate) fn poll_receive<'b>(
        &mut self,
        context: &mut Context<'_>,
        buffer: &'b mut ReadBuffer,
    ) -> Poll<io::Result<&'b mut [u8]>> {
        match self {
            Self::Socket(socket) => socket.poll_receive(context, buffer),
            Self::Http2(stream) => stream.poll_receive(context, buffer),
        }
    }

    /// Writes what the peer, or the way to it, takes now; without slices only what waits of before.
    ///
    /// # Errors
    /// `WouldBlock` where it takes nothing.
    pub(crate) fn try_send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        match self {
            Self::Socket(socket) => socket.try_send(slices),
            Self::Http2(stream) => stream.try_send(slices),
        }
    }

    /// Whether something waits here for a socket of its own to take it.
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            Self::Socket(socket) => socket.has_unsent(),
            // What it took is its connection's to send.
            Self::Http2(_) => false,
        }
    }

    /// Whether bytes can be written; else whoever asks is woken when they can.
    pub(crate) fn poll_write_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(socket) => socket.poll_write_ready(context),
            Self::Http2(stream) => stream.poll_write_ready(context),
        }
    }

    /// Ends the writing side. It waits only where TLS has to say so and the socket is full.
    pub(crate) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(socket) => socket.poll_shutdown(context),
            Self::Http2(stream) => {
                stream.end();
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Ends in good order what has sent its last frame and is dropped next. A socket does so by itself.
    pub(crate) fn end(&mut self) {
        match self {
            Self::Socket(_) => {}
            // What the peer still sends is then answered with NO_ERROR, at which nobody may forget what was sent before (RFC 9113, 8.1).
            Self::Http2(stream) => stream.end(),
        }
    }

    /// The number of the stream, where the WebSocket has no connection of its own.
    pub(crate) fn http2_stream(&self) -> Option<u32> {
        match self {
            Self::Socket(_) => None,
            Self::Http2(stream) => Some(stream.number()),
        }
    }

    /// Whether the peer has closed its side, seen without reading what it sent before.
    pub(crate) fn has_hung_up(&mut self, context: &mut Context<'_>) -> bool {
        match self {
            Self::Socket(socket) => socket.has_hung_up(),
            Self::Http2(stream) => stream.has_hung_up(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[test]
    fn the_kinds_cost_an_idle_connection_one_word() {
        assert!(size_of::<Option<Stream>>() <= size_of::<TcpStream>() + size_of::<usize>());
    }
}
