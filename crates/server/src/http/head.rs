//! Reads the head of a request: bounded, through the shard's one buffer, nothing owned before the first byte.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::Poll;

use tokio::io::{AsyncRead, ReadBuf};
use wootz_protocol::handshake::{self, HeadLimits, Parsed, Refusal, Request};

use crate::listener::Stream;

/// A whole request head, and what came behind it.
#[derive(Debug)]
pub(crate) struct Head {
    bytes: Vec<u8>,
    head_bytes: usize,
    limits: HeadLimits,
}

/// Why there is no head.
#[derive(Debug)]
pub(crate) enum HeadError {
    Refused(Refusal),
    /// The client closed, or the socket failed.
    Gone,
}

impl Head {
    /// Reads until the head is whole. `bytes` are those that were read already.
    ///
    /// # Cancel safety
    /// What was read is lost; the socket is of no more use then.
    pub(crate) async fn read(
        stream: &mut Stream,
        buffer: &RefCell<Box<[u8]>>,
        max_head_bytes: usize,
        mut bytes: Vec<u8>,
    ) -> Result<Self, HeadError> {
        let limits = HeadLimits { max_head_bytes, ..HeadLimits::default() };
        let mut searched = 0;
        loop {
            if bytes.len() == searched {
                read_some(stream, buffer, &mut bytes).await?;
            }
            let before = std::mem::replace(&mut searched, bytes.len());
            // A head that comes byte by byte is not parsed again for each of them.
            if before > 0 && bytes.len() <= max_head_bytes && !may_be_whole(&bytes, before) {
                continue;
            }
            match handshake::parse(&bytes, &limits).map_err(HeadError::Refused)? {
                Parsed::Complete { length, .. } => return Ok(Self { head_bytes: length, bytes, limits }),
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
///
/// # Errors
/// [`HeadError::Gone`] only.
pub(crate) async fn read_some(
    stream: &mut Stream,
    buffer: &RefCell<Box<[u8]>>,
    bytes: &mut Vec<u8>,
) -> Result<(), HeadError> {
    std::future::poll_fn(|context| {
        let mut buffer = buffer.borrow_mut();
        let mut read = ReadBuf::new(&mut buffer);
        match Pin::new(&mut *stream).poll_read(context, &mut read) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                bytes.extend_from_slice(read.filled());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(()) | Err(_)) => Poll::Ready(Err(HeadError::Gone)),
        }
    })
    .await
}

/// Whether an empty line may end in the bytes from `searched` on.
fn may_be_whole(bytes: &[u8], searched: usize) -> bool {
    let fresh = &bytes[searched.saturating_sub(3)..];
    fresh.windows(2).any(|pair| pair == b"\n\n") || fresh.windows(3).any(|triple| triple == b"\n\r\n")
}
