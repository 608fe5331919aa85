//! The pipes: any program that can write a file can push.
//!
//! A reader never blocks and never delivers half a record. It reads only while there is room behind it, so a writer that is
//! too fast waits in its own `write`, as with any pipe.

use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe::Receiver;
use wootz_hub::Target;
use wootz_runner::{Caller, ConnectionId, Message};

use super::command::{Command, message_of, request_from_pipe};
use super::fifo::{Directory, Fifo, FifoError};
use super::pusher::Pusher;
use super::records::{Record, Records};
use crate::connection::Mailbox;
use crate::shard::Shard;

/// A record that has begun and got no further byte for so long is dropped: its writer died, or forgot the end.
const UNFINISHED_FOR: Duration = Duration::from_secs(5);

/// Read at once from a pipe of one connection; those are many and mostly empty.
const READ_BYTES: usize = 16 * 1024;

/// A pipe and what of a record it has brought so far.
#[derive(Debug)]
struct Source {
    // The name goes before the reading end: no writer finds a pipe that nobody reads.
    fifo: Fifo,
    receiver: Receiver,
    records: Records,
    last_read: Option<Instant>,
}

impl Source {
    fn open(directory: &Directory, name: String) -> Result<Self, FifoError> {
        let (fifo, receiver) = directory.create(name)?;
        let settings = directory.settings();
        let records = Records::new(settings.framing, settings.max_record_bytes);
        Ok(Self { fifo, receiver, records, last_read: None })
    }

    /// The next whole record. A pipe that can't be read any more (no system does that) is as one that brings nothing.
    fn poll_record(&mut self, context: &mut Context<'_>) -> Poll<bytes::Bytes> {
        loop {
            match self.records.next_record() {
                Some(Record::Whole(record)) => return Poll::Ready(record),
                Some(Record::TooLong) => {
                    tracing::warn!(pipe = %self.fifo.path().display(), "a record over pipes.max_record was dropped");
                }
                None => {
                    // Most looks find an empty pipe: nothing is cleared for them.
                    let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
                    let mut read = ReadBuf::uninit(&mut buffer);
                    match Pin::new(&mut self.receiver).poll_read(context, &mut read) {
                        Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                            self.records.receive(read.filled());
                            self.last_read = Some(Instant::now());
                        }
                        Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
                        Poll::Ready(Err(error)) => {
                            tracing::error!(pipe = %self.fifo.path().display(), %error, "the pipe can't be read");
                            return Poll::Pending;
                        }
                    }
                }
            }
        }
    }

    /// When a record that has begun is given up.
    fn stale_at(&self) -> Option<Instant> {
        let last_read = self.last_read.filter(|_| self.records.unfinished_bytes() > 0)?;
        Some(last_read + UNFINISHED_FOR)
    }

    fn drop_stale(&mut self, now: Instant) {
        if self.stale_at().is_some_and(|stale_at| stale_at <= now) {
            let bytes = self.records.unfinished_bytes();
            tracing::warn!(pipe = %self.fifo.path().display(), bytes, "a record without an end was dropped (pipes.framing says how records end)");
            self.records.discard_unfinished();
        }
    }
}

/// The pipe whose records go to everybody.
#[derive(Debug)]
pub(crate) struct GlobalPipe {
    source: Source,
}

impl GlobalPipe {
    /// Opens the pipe. Must be called inside the runtime that will run it.
    pub(crate) fn open(directory: &Directory) -> Result<Self, FifoError> {
        Source::open(directory, super::fifo::GLOBAL_NAME.to_owned()).map(|source| Self { source })
    }

    /// Pushes each record to every shard, for ever.
    ///
    /// # Cancel safety
    /// A record that was read and not yet given to every shard is lost for the others.
    pub(crate) async fn run(mut self, pusher: Pusher) {
        loop {
            let record = match self.source.stale_at() {
                None => self.next_record().await,
                Some(stale_at) => match tokio::time::timeout_at(stale_at.into(), self.next_record()).await {
                    Ok(record) => record,
                    Err(_elapsed) => {
                        self.source.drop_stale(Instant::now());
                        continue;
                    }
                },
            };
            pusher.push_unasked(Command::Publish { to: Target::All, message: message_of(record) }).await;
        }
    }

    async fn next_record(&mut self) -> bytes::Bytes {
        std::future::poll_fn(|context| self.source.poll_record(context)).await
    }
}

/// The pipe of one connection: each record is a request of its user.
#[derive(Debug)]
pub(crate) struct RequestPipe {
    source: Source,
    /// A record that its connection had no room for.
    held: Option<Message>,
}

impl RequestPipe {
    pub(crate) fn open(directory: &Directory, name: String) -> Result<Self, FifoError> {
        Ok(Self { source: Source::open(directory, name)?, held: None })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.source.fifo.path()
    }

    /// Takes records as long as the connection has room for requests.
    pub(crate) fn poll(&mut self, shard: &Shard, connection: ConnectionId, context: &mut Context<'_>) {
        loop {
            let message = match self.held.take() {
                Some(message) => message,
                None => match self.source.poll_record(context) {
                    Poll::Ready(record) => message_of(record),
                    Poll::Pending => return,
                },
            };
            if let Err(message) = request_from_pipe(shard, connection.0, message) {
                self.held = Some(message);
                return;
            }
        }
    }

    /// When a record that has begun is given up.
    pub(crate) fn stale_at(&self) -> Option<Instant> {
        self.source.stale_at()
    }

    pub(crate) fn drop_stale(&mut self, now: Instant) {
        self.source.drop_stale(now);
    }
}

impl Shard {
    /// Opens the request pipe of a connection. A connection without one works; the log says why it has none.
    pub(crate) fn open_request_pipe(&self, caller: &Caller, mailbox: &Mailbox) -> Option<Box<RequestPipe>> {
        let directory = self.directory.as_ref().filter(|directory| directory.settings().requests)?;
        let user = caller.user.as_deref().unwrap_or_default();
        let name = super::fifo::request_pipe_name(user, caller.remote?, mailbox.http2_stream());
        match RequestPipe::open(directory, name) {
            Ok(pipe) => Some(Box::new(pipe)),
            Err(error) => {
                tracing::error!(connection = %caller.id, %error, "no request pipe for this connection");
                None
            }
        }
    }
}
