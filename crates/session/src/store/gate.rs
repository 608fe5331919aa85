//! One attempt to connect at a time, and a pause after each that failed, in which nobody waits for what will not come.

use std::cell::RefCell;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout_at};

use super::StoreError;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Gate {
    attempt: Mutex<()>,
    failure: RefCell<Option<Failure>>,
}

#[derive(Debug)]
struct Failure {
    reason: StoreError,
    pause: Duration,
    until: Instant,
}

impl Gate {
    /// Refuses during a pause, with the reason for it.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match &*self.failure.borrow() {
            Some(failure) if Instant::now() < failure.until => Err(failure.reason.clone()),
            Some(_) | None => Ok(()),
        }
    }

    /// The right to connect. Who got it must look first whether there is a connection now.
    pub(super) async fn enter(&self, deadline: Instant) -> Result<MutexGuard<'_, ()>, StoreError> {
        self.check()?;
        let entered = timeout_at(deadline, self.attempt.lock()).await;
        self.check()?;
        entered.map_err(|_| {
            StoreError::Slow("other reads are still connecting to what identity.session.store names".to_owned())
        })
    }

    /// A failure: the pause begins, longer each time.
    pub(super) fn failed(&self, reason: &StoreError) {
        let mut failure = self.failure.borrow_mut();
        let pause = failure.as_ref().map_or(FIRST_PAUSE, |failure| (failure.pause * 2).min(LONGEST_PAUSE));
        *failure = Some(Failure { reason: reason.clone(), pause, until: Instant::now() + pause });
    }

    /// An answer: the next failure is the first one again.
    pub(super) fn succeeded(&self) {
        self.failure.replace(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_grows_with_each_failure_up_to_two_seconds_and_an_answer_ends_it() {
        let gate = Gate::default();
        let reason = StoreError::Unreachable("down".to_owned());
        for pause in [250, 500, 1000, 2000, 2000] {
            gate.failed(&reason);
            assert_eq!(gate.check(), Err(reason.clone()));
            tokio::time::advance(Duration::from_millis(pause - 1)).await;
            assert_eq!(gate.check(), Err(reason.clone()), "after {} ms", pause - 1);
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(gate.check(), Ok(()), "after {pause} ms");
        }
        gate.succeeded();
        gate.failed(&reason);
        tokio::time::advance(FIRST_PAUSE).await;
        assert_eq!(gate.check(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_anothers_attempt_fails_with_it() {
        let gate = Gate::default();
        let deadline = Instant::now() + Duration::from_secs(2);
        let reason = StoreError::Unreachable("down".to_owned());
        let attempt = gate.enter(deadline).await.expect("nobody else");
        let (others, ()) = tokio::join!(gate.enter(deadline), async {
            tokio::task::yield_now().await;
            gate.failed(&reason);
            drop(attempt);
        });
        assert_eq!(others.err(), Some(reason));
    }
}
