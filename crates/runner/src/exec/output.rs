//! This process's ends of a call's pipes, read and written without waiting.
//!
//! Reads go to one buffer per thread: a call holds no buffer of its own while it prints nothing.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustix::io::{Errno, ioctl_fionbio, ioctl_fionread};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

/// As much as a pipe holds.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// What an empty pipe takes without waiting, even where a user has so many pipes that new ones are small.
const PIPE_BYTES_AT_LEAST: usize = 4 * 1024;

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice());
}

/// A pipe that the application writes and this process reads. `None`: closed by one of them.
#[derive(Debug)]
pub(crate) struct ReadEnd(Option<pipe::Receiver>);

impl ReadEnd {
    /// The pipe: this process's end, and the application's.
    pub(crate) fn pipe() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        // Not by the flags of the pipe: an application does not expect an output that says EAGAIN.
        ioctl_fionbio(&ours, true)?;
        Ok((Self(Some(pipe::Receiver::from_owned_fd_unchecked(ours)?)), theirs))
    }

    /// Waits for bytes, and gives them to `take`. Pending for ever once the application has closed its end.
    pub(crate) fn poll_read<T>(&mut self, cx: &mut Context<'_>, take: impl FnOnce(&[u8]) -> T) -> Poll<T> {
        let Some(pipe) = &mut self.0 else { return Poll::Pending };
        let read = READ_BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            let read = ready!(Pin::new(pipe).poll_read(cx, &mut buffer));
            let bytes = buffer.filled();
            Poll::Ready((read.is_ok() && !bytes.is_empty()).then(|| take(bytes)))
        });
        match ready!(read) {
            Some(taken) => Poll::Ready(taken),
            None => {
                self.0 = None;
                Poll::Pending
            }
        }
    }

    /// Closes this end: whoever writes learns that nobody reads.
    pub(crate) fn close(&mut self) {
        self.0 = None;
    }

    /// Takes what is in the pipe at this moment, and no more: others may go on writing it for ever.
    pub(crate) fn drain<E>(&mut self, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let Some(pipe) = self.0.take() else { return Ok(()) };
        let mut left = ioctl_fionread(&pipe).map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        READ_BUFFER.with_borrow_mut(|buffer| {
            while left > 0 {
                let room = left.min(buffer.len());
                match rustix::io::read(&pipe, &mut buffer[..room]) {
                    Ok(0) => break,
                    Ok(length) => {
                        left -= length;
                        take(&buffer[..length])?;
                    }
                    Err(Errno::INTR) => {}
                    Err(_) => break,
                }
            }
            Ok(())
        })
    }
}

/// A pipe that this process writes and the application reads: its standard input.
#[derive(Debug)]
pub(super) struct Input {
    /// `None`: all is written, or the application does not read it.
    pipe: Option<pipe::Sender>,
    message: Bytes,
}

impl Input {
    /// The application's end of a pipe with the message in it, as far as it fits; the rest is written by [`Input::poll_write`].
    pub(super) fn pipe(mut message: Bytes) -> io::Result<(Self, OwnedFd)> {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        let fits = message.len() <= PIPE_BYTES_AT_LEAST;
        if !fits {
            ioctl_fionbio(&ours, true)?;
        }
        if !message.is_empty() {
            match rustix::io::write(&ours, &message) {
                Ok(written) => message.advance(written),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let pipe = if message.is_empty() { None } else { Some(pipe::Sender::from_owned_fd(ours)?) };
        Ok((Self { pipe, message }, theirs))
    }

    /// Writes while there is room, then closes. Nobody waits for it, so it has no result.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) {
        while let Some(pipe) = &mut self.pipe {
            match Pin::new(pipe).poll_write(cx, &self.message) {
                Poll::Pending => return,
                Poll::Ready(Ok(written)) => {
                    self.message.advance(written);
                    if self.message.is_empty() {
                        self.pipe = None;
                    }
                }
                // EPIPE: an application need not read its input.
                Poll::Ready(Err(_)) => self.pipe = None,
            }
        }
    }
}
