//! A back end that can't be reached is left alone for a moment: calls are answered at once instead of each waiting for the
//! same failure, and the back end gets time to come back.
//!
//! Only failures of the way count (nobody listens, no process can be started), never an application that ran and failed: its
//! next call may be another user's good one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wootz_runner::{CallError, Fault};

/// Failures in a row after which the back end is left alone.
const FAILURES: u32 = 5;

/// How long, first and at most. It doubles with each call that is let through and fails.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Whether calls are let through; one for the whole server.
#[derive(Debug, Default)]
pub(crate) struct Circuit {
    /// Zero nearly always: a call that succeeds then has nothing to lock.
    failures: AtomicU32,
    open: Mutex<Option<Open>>,
}

#[derive(Debug, Clone)]
struct Open {
    until: Instant,
    pause: Duration,
    reason: String,
}

impl Circuit {
    /// Whether a call may be tried now. When the pause is over one call is let through; the others wait for its outcome.
    pub(crate) fn admits(&self, clock: impl FnOnce() -> Instant) -> bool {
        if self.failures.load(Ordering::Relaxed) < FAILURES {
            return true;
        }
        let now = clock();
        let mut open = self.lock();
        match &mut *open {
            Some(open) if now < open.until => false,
            Some(open) => {
                open.until = now + open.pause;
                true
            }
            None => true,
        }
    }

    /// Learns how a call ended.
    pub(crate) fn record(&self, result: Result<(), &CallError>, now: Instant) {
        match result {
            Err(error) if error.fault() == Fault::Environment => self.failed(error, now),
            Ok(()) | Err(_) => self.reached(),
        }
    }

    /// Why calls are not let through, if they are not.
    pub(crate) fn reason(&self) -> Option<String> {
        if self.failures.load(Ordering::Relaxed) < FAILURES {
            return None;
        }
        self.lock().as_ref().map(|open| open.reason.clone())
    }

    fn failed(&self, error: &CallError, now: Instant) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures < FAILURES {
            return;
        }
        let mut open = self.lock();
        let pause = open.as_ref().map_or(FIRST_PAUSE, |open| (open.pause * 2).min(MAX_PAUSE));
        if open.is_none() {
            tracing::error!(reason = %error, ?pause, "the application can't be reached: calls are answered as busy until it can");
        }
        *open = Some(Open { until: now + pause, pause, reason: error.to_string() });
    }

    fn reached(&self) {
        if self.failures.load(Ordering::Relaxed) == 0 {
            return;
        }
        self.failures.store(0, Ordering::Relaxed);
        if self.lock().take().is_some() {
            tracing::info!("the application can be reached again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wootz_runner::EnvironmentFault;

    fn unreachable() -> CallError {
        CallError::Environment(EnvironmentFault::SpawnerDied)
    }

    #[test]
    fn failures_of_the_way_open_it_and_one_success_closes_it() {
        let (circuit, now) = (Circuit::default(), Instant::now());
        for _ in 0..FAILURES {
            assert!(circuit.admits(|| now));
            circuit.record(Err(&unreachable()), now);
        }
        assert!(!circuit.admits(|| now + FIRST_PAUSE / 2));
        assert!(circuit.reason().is_some());
        let later = now + FIRST_PAUSE;
        assert!(circuit.admits(|| later), "one is let through");
        assert!(!circuit.admits(|| later), "the others wait for its outcome");
        circuit.record(Err(&unreachable()), later);
        assert!(!circuit.admits(|| later + FIRST_PAUSE), "the pause has doubled");
        assert!(circuit.admits(|| later + FIRST_PAUSE * 2));
        circuit.record(Ok(()), later + FIRST_PAUSE * 2);
        assert!(circuit.admits(|| later + FIRST_PAUSE * 2) && circuit.reason().is_none());
    }

    #[test]
    fn an_application_that_runs_and_fails_is_never_left_alone() {
        let (circuit, now) = (Circuit::default(), Instant::now());
        for _ in 0..FAILURES * 3 {
            circuit.record(Err(&CallError::application("no route")), now);
            assert!(circuit.admits(|| now));
        }
    }
}
