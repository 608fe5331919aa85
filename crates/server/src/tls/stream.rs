//! A socket with TLS above it.
//!
//! Laws of this file:
//! - Nothing is made for a peer that says nothing: keys begin with its first byte, and buffers belong to the thread.
//! - What is to be sent is encrypted only when the socket has taken what was encrypted before, so that a reader who is slow
//!   never holds more than [`MAX_ENCRYPTED_BYTES`] of it.
//! - However it ends, `close_notify` is the last that is said, as far as the socket takes it.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::mem;
use std::task::{Context, Poll, ready};

use wootz_tls::{Alpn, TlsAcceptor, TlsConnection, TlsError, Transmit};

use crate::listener::{ReadBuffer, Sent, Transport};

/// Plaintext that is encrypted for one system call.
const MAX_ENCRYPTED_BYTES: usize = 64 * 1024;

/// Frames that are encrypted together. An outbox gives no more at once.
const MAX_SLICES: usize = 64;

thread_local! {
    /// Where a thread encrypts. A shard is a thread, and what the socket does not take at once is copied.
    static CIPHERTEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One browser, or the proxy before it, behind TLS.
#[derive(Debug)]
pub(crate) struct TlsStream {
    socket: Transport,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Not one byte came. What the reader of a PROXY header found behind it waits here.
    New { acceptor: TlsAcceptor, first: Vec<u8> },
    /// From the first byte to the last.
    Begun { tls: TlsConnection, end: End },
}

/// Whether more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    /// The peer said that nothing comes any more.
    Said,
}

/// Why a read failed, if TLS is why.
pub(crate) fn failure_of(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref()
}

fn failed(error: TlsError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl TlsStream {
    pub(crate) fn new(socket: Transport, acceptor: TlsAcceptor) -> Self {
        Self { socket, state: State::New { acceptor, first: Vec::new() } }
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.socket
    }

    pub(crate) fn transport_mut(&mut self) -> &mut Transport {
        &mut self.socket
    }

    /// Takes what somebody else read from the socket, before anything else is done.
    pub(crate) fn begin_with(&mut self, bytes: Vec<u8>) {
        if let State::New { first, .. } = &mut self.state {
            *first = bytes;
        }
    }

    /// Whether nothing can be sent: the handshake is not over, or has failed.
    pub(crate) fn is_handshaking(&self) -> bool {
        match &self.state {
            State::New { .. } => true,
            State::Begun { tls, .. } => tls.is_handshaking(),
        }
    }

    /// Whether HTTP/2 was agreed on.
    pub(crate) fn speaks_http2(&self) -> bool {
        matches!(&self.state, State::Begun { tls, .. } if tls.alpn() == Some(Alpn::Http2))
    }

    /// Reads until there is plaintext. The runtime's budget ends the turn of a peer that sends records without any.
    pub(crate) fn poll_receive<'b>(
        &mut self,
        context: &mut Context<'_>,
        buffer: &'b mut ReadBuffer,
    ) -> Poll<io::Result<&'b mut [u8]>> {
        let ReadBuffer { bytes, plaintext } = buffer;
        plaintext.clear();
        self.receive_first(plaintext)?;
        while plaintext.is_empty() {
            if matches!(self.state, State::Begun { end: End::Said, .. }) {
                break;
            }
            let received = ready!(self.socket.poll_read(context, bytes))?;
            if received.is_empty() {
                break;
            }
            self.receive(received, plaintext)?;
        }
        Poll::Ready(Ok(plaintext.as_mut_slice()))
    }

    fn receive_first(&mut self, plaintext: &mut Vec<u8>) -> io::Result<()> {
        let State::New { first, .. } = &mut self.state else { return Ok(()) };
        let mut first = mem::take(first);
        if first.is_empty() { Ok(()) } else { self.receive(&mut first, plaintext) }
    }

    fn receive(&mut self, received: &mut [u8], plaintext: &mut Vec<u8>) -> io::Result<()> {
        if let State::New { acceptor, .. } = &self.state {
            self.state = State::Begun { tls: acceptor.accept().map_err(failed)?, end: End::NotYet };
        }
        let State::Begun { tls, end } = &mut self.state else { return Ok(()) };
        let progress = tls.receive(received, plaintext);
        if tls.transmit() == Transmit::Now {
            // What the socket does not take is the writer's to send. A dead socket says so when it is read.
            let _ = send_encrypted(&self.socket, tls, what_waits);
        }
        if progress.map_err(failed)?.closed_by_peer {
            *end = End::Said;
        }
        Ok(())
    }

    /// Sends what waits, and where nothing does, as much of `slices` as fits into one system call.
    pub(crate) fn try_send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        let State::Begun { tls, .. } = &mut self.state else { return Ok(Sent::default()) };
        let mut sent = Sent::default();
        if tls.transmit() == Transmit::Now {
            sent.left = send_encrypted(&self.socket, tls, what_waits)?.left;
            if tls.transmit() == Transmit::Now {
                return if sent.left == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(sent) };
            }
        }
        if slices.is_empty() {
            return Ok(sent);
        }
        let more = send_encrypted(&self.socket, tls, |tls, out| encrypt(tls, slices, out))?;
        Ok(Sent { taken: more.taken, left: sent.left + more.left })
    }

    pub(crate) fn has_unsent(&self) -> bool {
        matches!(&self.state, State::Begun { tls, .. } if tls.transmit() == Transmit::Now)
    }

    /// Says that nothing comes any more, then ends the writing side.
    pub(crate) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let State::Begun { tls, .. } = &mut self.state {
            send_encrypted(&self.socket, tls, the_end)?;
            while tls.transmit() == Transmit::Now {
                ready!(self.socket.poll_write_ready(context))?;
                send_encrypted(&self.socket, tls, what_waits)?;
            }
        }
        self.socket.poll_shutdown(context)
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        if let State::Begun { tls, .. } = &mut self.state {
            let _ = send_encrypted(&self.socket, tls, the_end);
        }
    }
}

fn encrypt(tls: &mut TlsConnection, slices: &[IoSlice<'_>], out: &mut Vec<u8>) -> Result<usize, TlsError> {
    let mut parts: [&[u8]; MAX_SLICES] = [&[]; MAX_SLICES];
    let (mut filled, mut room) = (0, MAX_ENCRYPTED_BYTES);
    for (part, slice) in parts.iter_mut().zip(slices) {
        *part = &slice[..slice.len().min(room)];
        filled += 1;
        room -= part.len();
        if room == 0 {
            break;
        }
    }
    tls.encrypt(&parts[..filled], out)
}

fn what_waits(tls: &mut TlsConnection, out: &mut Vec<u8>) -> Result<usize, TlsError> {
    tls.poll_transmit(out);
    Ok(0)
}

fn the_end(tls: &mut TlsConnection, out: &mut Vec<u8>) -> Result<usize, TlsError> {
    tls.close(out);
    Ok(0)
}

/// Sends what `fill` appends to the thread's buffer; the connection keeps what the socket does not take. `fill` gives how many bytes
/// of the plaintext it took.
fn send_encrypted(
    socket: &Transport,
    tls: &mut TlsConnection,
    fill: impl FnOnce(&mut TlsConnection, &mut Vec<u8>) -> Result<usize, TlsError>,
) -> io::Result<Sent> {
    CIPHERTEXT.with_borrow_mut(|out| {
        out.clear();
        let filled = fill(tls, out);
        let mut left = 0;
        while left < out.len() {
            match socket.try_write(&out[left..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => left += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        tls.keep(&out[left..]);
        Ok(Sent { taken: filled.map_err(failed)?, left })
    })
}
