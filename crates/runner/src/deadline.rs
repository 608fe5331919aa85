//! The deadline of a call, one timer of the runtime.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop::unconstrained;
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
            // Whoever always has something to read uses the task's budget up, and a timer that has to pay for its look too
            // would never be seen.
            Some(sleep) => pin!(unconstrained(sleep.as_mut())).poll(cx).map(|()| Late),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tokio::task::coop::poll_proceed;

    #[test]
    fn somebody_who_is_always_ready_does_not_outrun_the_deadline() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let mut deadline = Deadline::after(Duration::from_millis(50));
            let began = Instant::now();
            // Ready whenever the task has budget left, as a socket is that always has bytes.
            let always = || poll_fn(|cx| poll_proceed(cx).map(|budget| budget.made_progress()));
            while deadline.before(always()).await.is_ok() {
                assert!(began.elapsed() < Duration::from_secs(10), "the deadline was never seen");
            }
        });
    }
}
