//! The deadline of a call, one timer of the runtime.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

/// When the call must have ended.
#[derive(Debug)]
pub(crate) struct Deadline(Option<Pin<Box<Sleep>>>);

/// The time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Late;

impl Deadline {
    /// So long from now; zero is never.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self((!timeout.is_zero()).then(|| Box::pin(tokio::time::sleep(timeout))))
    }

    /// Waits for it; pending for ever where there is none.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Late> {
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().poll(cx).map(|()| Late),
            None => Poll::Pending,
        }
    }

    /// The output of a future that is done before the deadline.
    pub(crate) async fn before<F: Future>(&mut self, future: F) -> Result<F::Output, Late> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll(cx).map(Err),
        })
        .await
    }
}
