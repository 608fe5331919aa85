//! One WebSocket on a stream of HTTP/2: the driver reads and writes it as it does a socket.
//!
//! Laws of this file:
//! - What the WebSocket does not read is not acknowledged, so that the peer stops to send on this stream, and on no other.
//! - No more is handed on than the peer's window takes: what waits beyond [`MAX_SEND_BYTES`] waits in the outbox, where it is bounded and can be thrown away.
//! - An orderly end is END_STREAM. A stream that is dropped before it is reset with CANCEL, as section 5 of RFC 8441 says for a broken connection.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream};

use super::MAX_SEND_BYTES;
use super::link::Held;
use crate::listener::{ReadBuffer, Sent};

/// Bytes of messages that are read at once; then the stream's WebSocket handles them.
const READ_AT_ONCE: usize = 32 * 1024;

/// A stream whose request was answered with 200.
#[derive(Debug)]
pub(crate) struct Http2Stream {
    receive: RecvStream,
    send: SendStream<Bytes>,
    held: Held,
    end: End,
    peer: Peer,
}

/// Whether the peer has used the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Silent,
    HasSpoken,
}

/// Whether more is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    Said,
}

impl Http2Stream {
    pub(crate) fn new(receive: RecvStream, send: SendStream<Bytes>, held: Held) -> Self {
        Self { receive, send, held, end: End::NotYet, peer: Peer::Silent }
    }

    /// Which stream of its connection it is.
    pub(crate) fn number(&self) -> u32 {
        self.send.stream_id().as_u32()
    }

    /// Reads what is there. An empty slice is the end: the peer said so, has reset the stream, or its connection is gone.
    pub(crate) fn poll_receive<'b>(
        &mut self,
        context: &mut Context<'_>,
        buffer: &'b mut ReadBuffer,
    ) -> Poll<io::Result<&'b mut [u8]>> {
        let plaintext = &mut buffer.plaintext;
        plaintext.clear();
        while plaintext.len() < READ_AT_ONCE {
            let data = match self.receive.poll_data(context) {
                Poll::Ready(Some(Ok(data))) => data,
                Poll::Pending if plaintext.is_empty() => return Poll::Pending,
                // It will be said again.
                Poll::Pending | Poll::Ready(None | Some(Err(_))) => break,
            };
            plaintext.extend_from_slice(&data);
            if !data.is_empty() {
                self.peer = Peer::HasSpoken;
                self.held.link().delivered(data.len());
            }
            // It fails where the stream is closed, and then nobody waits for it.
            let _ = self.receive.flow_control().release_capacity(data.len());
        }
        Poll::Ready(Ok(plaintext.as_mut_slice()))
    }

    /// Hands on what the windows of the peer take now.
    ///
    /// # Errors
    /// `WouldBlock` where they take nothing.
    pub(crate) fn try_send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        let wanted = slices.iter().map(|slice| slice.len()).sum::<usize>().min(MAX_SEND_BYTES);
        if wanted == 0 {
            return Ok(Sent::default());
        }
        if self.send.capacity() < wanted {
            self.send.reserve_capacity(wanted);
        }
        let room = self.send.capacity().min(wanted);
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.send.send_data(joined(slices, room), false).map_err(broken)?;
        self.held.link().sent(room);
        Ok(Sent { taken: room, left: room })
    }

    /// Whether bytes can be handed on; else whoever asks is woken when they can.
    pub(crate) fn poll_write_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.send.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.send.poll_capacity(context)) {
            Some(Ok(_)) => Poll::Ready(Ok(())),
            Some(Err(error)) => Poll::Ready(Err(broken(error))),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Says that nothing more is sent, behind what was handed on.
    pub(crate) fn end(&mut self) {
        if self.end == End::NotYet {
            self.end = End::Said;
            // It fails where the stream is closed already.
            let _ = self.send.send_data(Bytes::new(), true);
        }
    }

    /// Whether the peer has gone, seen without reading what it sent before: its connection is closed, it has reset the stream, or ended it with
    /// nothing before that is unread.
    pub(crate) fn has_hung_up(&mut self, context: &mut Context<'_>) -> bool {
        self.receive.is_end_stream() || self.send.poll_reset(context).is_ready()
    }
}

/// A WebSocket that was opened and never used is what a rapid reset leaves.
impl Drop for Http2Stream {
    fn drop(&mut self) {
        if self.peer == Peer::Silent && self.end == End::NotYet {
            self.held.link().fruitless();
        }
    }
}

fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}

/// The first `bytes` of all slices. They are given on for good, and the slices are the outbox's.
fn joined(slices: &[IoSlice<'_>], bytes: usize) -> Bytes {
    let mut joined = BytesMut::with_capacity(bytes);
    for slice in slices {
        let room = bytes - joined.len();
        if room == 0 {
            break;
        }
        joined.extend_from_slice(&slice[..slice.len().min(room)]);
    }
    joined.freeze()
}
