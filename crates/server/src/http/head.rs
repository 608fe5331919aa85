//! Reads the head of a request: bounded, through the shard's one buffer, nothing owned before the first byte.

use std::cell::RefCell;
use std::task::{Context, Poll};

use wootz_protocol::handshake::{self, HeadLimits, Parsed, Refusal, Request};

use wootz_tls::TlsError;

use crate::listener::{ReadBuffer, Socket, Transport};
use crate::tls;

/// A whole request head, and what came behind it.
#[derive(Debug)]
pub(crate) struct Head {
    bytes: Vec<u8>,
    head_bytes: usize,
    limits: HeadLimits,
}

/// What came first.
#[derive(Debug)]
pub(crate) enum Received {
    Head(Head),
    /// The peer asked for HTTP/2, and these are the first bytes of it.
    Http2(Vec<u8>),
}

/// Why there is no head.
#[derive(Debug)]
pub(crate) enum HeadError {
    Refused(Refusal),
    /// The client speaks TLS, where it is not spoken.
    SpeaksTls,
    /// The client speaks no TLS, or another than this, where it is spoken. It was told.
    NoTls(TlsError),
    /// The client closed, or the socket failed.
    Gone,
}

impl Head {
    /// Reads until the head is whole, or until it is known that none of HTTP/1.1 comes. `bytes` are those that were read already.
    ///
    /// # Cancel safety
    /// What was read is lost; the socket is of no more use then.
    pub(crate) async fn read(
        socket: &mut Socket,
        buffer: &RefCell<ReadBuffer>,
        max_head_bytes: usize,
        mut bytes: Vec<u8>,
    ) -> Result<Received, HeadError> {
        let limits = HeadLimits { max_head_bytes, ..HeadLimits::default() };
        let mut searched = 0;
        loop {
            if bytes.len() == searched {
                read_some(socket, buffer, &mut bytes).await?;
            }
            if searched == 0 && matches!(socket, Socket::Plain(_)) && wootz_tls::looks_like_client_hello(&bytes) {
                return Err(HeadError::SpeaksTls);
            }
            if socket.speaks_http2() {
                return Ok(Received::Http2(bytes));
            }
            let before = std::mem::replace(&mut searched, bytes.len());
            // A head that comes byte by byte is not parsed again for each of them.
            if before > 0 && bytes.len() <= max_head_bytes && !may_be_whole(&bytes, before) {
                continue;
            }
            match handshake::parse(&bytes, &limits).map_err(HeadError::Refused)? {
                Parsed::Complete { length, .. } => {
                    return Ok(Received::Head(Self { head_bytes: length, bytes, limits }));
                }
                Parsed::Partial => {}
            }
        }
    }

    /// The request.
    ///
    /// # Panics
    /// Never: the same bytes were parsed when the head was read.
    pub(crate) fn request(&self) -> Request<'_> {
        match handshake::parse(&self.bytes[..self.head_bytes], &self.limits) {
            Ok(Parsed::Complete { request, .. }) => request,
            other => unreachable!("a head that was whole is {other:?}"),
        }
    }

    /// What came behind the head.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.head_bytes..]
    }
}

/// Reads what is there, at least one byte.
async fn read_some(socket: &mut Socket, buffer: &RefCell<ReadBuffer>, bytes: &mut Vec<u8>) -> Result<(), HeadError> {
    std::future::poll_fn(|context| take(socket.poll_receive(context, &mut buffer.borrow_mut()), bytes)).await
}

/// The same for what comes before TLS.
///
/// # Errors
/// [`HeadError::Gone`] only.
pub(crate) async fn read_before_tls(
    transport: &mut Transport,
    buffer: &RefCell<ReadBuffer>,
    bytes: &mut Vec<u8>,
) -> Result<(), HeadError> {
    let read = |context: &mut Context<'_>| take(transport.poll_read(context, &mut buffer.borrow_mut().bytes), bytes);
    std::future::poll_fn(read).await
}

fn take(read: Poll<std::io::Result<&mut [u8]>>, bytes: &mut Vec<u8>) -> Poll<Result<(), HeadError>> {
    read.map(|read| match read {
        Ok([]) => Err(HeadError::Gone),
        Ok(read) => {
            bytes.extend_from_slice(read);
            Ok(())
        }
        Err(error) => Err(tls::failure_of(&error).cloned().map_or(HeadError::Gone, HeadError::NoTls)),
    })
}

/// Whether an empty line may end in the bytes from `searched` on.
fn may_be_whole(bytes: &[u8], searched: usize) -> bool {
    let fresh = &bytes[searched.saturating_sub(3)..];
    fresh.windows(2).any(|pair| pair == b"\n\n") || fresh.windows(3).any(|triple| triple == b"\n\r\n")
}
