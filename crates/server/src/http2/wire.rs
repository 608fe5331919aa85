//! A TLS socket as HTTP/2 reads and writes it.
//!
//! It is read through the thread's one buffer, as every socket is. What HTTP/2 does not take at once is kept, once and no more than that buffer holds.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::link::Link;
use crate::shard::Shard;
use crate::tls::TlsStream;

/// What a peer that is told to go may still send before its socket is closed.
const LAST_BYTES: usize = 8 * 1024 * 1024;

/// A socket of one HTTP/2 connection.
pub(crate) struct Wire {
    tls: TlsStream,
    shard: Rc<Shard>,
    link: Rc<Link>,
    /// Received, and not taken yet.
    unread: Vec<u8>,
    taken: usize,
    end: End,
}

/// How far the end of the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    /// Nothing is written any more, and so much was read since.
    Ours {
        read: usize,
    },
}

impl Wire {
    /// `first` was read already.
    pub(crate) fn new(tls: TlsStream, shard: Rc<Shard>, link: Rc<Link>, first: Vec<u8>) -> Self {
        link.read(first.len(), Instant::now());
        Self { tls, shard, link, unread: first, taken: 0, end: End::NotYet }
    }

    fn take_unread(&mut self, into: &mut ReadBuf<'_>) {
        let rest = &self.unread[self.taken..];
        let taken = rest.len().min(into.remaining());
        into.put_slice(&rest[..taken]);
        self.taken += taken;
        if self.taken == self.unread.len() {
            (self.unread, self.taken) = (Vec::new(), 0);
        }
    }

    /// Waits until the socket takes bytes, unless it took some just now.
    fn poll_send(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            match self.tls.try_send(slices) {
                Ok(sent) if sent.taken > 0 || slices.is_empty() => return Poll::Ready(Ok(sent.taken)),
                // What waited before has left.
                Ok(sent) if sent.left > 0 => {}
                Ok(_) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tls.transport().poll_write_ready(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Reads what the peer still sends, because what is unread when a socket is closed resets it, and destroys our last words on their way.
    fn poll_last(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let End::Ours { read } = &mut self.end else { return Poll::Ready(Ok(())) };
        while *read < LAST_BYTES {
            if !self.link.has_turn() {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            match ready!(self.tls.poll_receive(context, &mut self.shard.read_buffer.borrow_mut())) {
                Ok([]) | Err(_) => break,
                Ok(received) => {
                    *read += received.len();
                    self.link.read(received.len(), Instant::now());
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if wire.unread.is_empty() {
            if !wire.link.has_turn() {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut buffer = wire.shard.read_buffer.borrow_mut();
            let received = &*ready!(wire.tls.poll_receive(context, &mut buffer))?;
            wire.link.read(received.len(), Instant::now());
            let (now, later) = received.split_at(received.len().min(into.remaining()));
            into.put_slice(now);
            wire.unread.extend_from_slice(later);
        } else {
            wire.take_unread(into);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        while wire.tls.has_unsent() {
            ready!(wire.poll_send(context, &[]))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        wire.link.close(Instant::now());
        if wire.end == End::NotYet {
            ready!(wire.tls.poll_shutdown(context))?;
            wire.end = End::Ours { read: 0 };
        }
        wire.poll_last(context)
    }
}
