//! The deadlines of a shard's connections, coarse and cheap: one number per connection, no timer of the runtime's.
//!
//! A connection arms the earliest of its deadlines. When that tick comes it is woken, looks what is due, and arms again; a
//! deadline that moved later meanwhile (every message moves the next ping) costs nothing until then.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use wootz_hub::Key;

/// How late a deadline may be noticed.
const TICK: Duration = Duration::from_millis(50);

/// A moment, counted in ticks since the shard began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u32);

/// The armed deadlines of one shard.
#[derive(Debug)]
pub(crate) struct Timers {
    began: Instant,
    armed: RefCell<BTreeMap<Tick, Vec<Key>>>,
    earlier: Notify,
}

impl Timers {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, armed: RefCell::default(), earlier: Notify::new() }
    }

    /// The first tick at which this deadline has passed.
    pub(crate) fn tick_of(&self, deadline: Instant) -> Tick {
        let ticks = deadline.saturating_duration_since(self.began).as_nanos() / TICK.as_nanos() + 1;
        Tick(u32::try_from(ticks).unwrap_or(u32::MAX))
    }

    /// Wakes this connection at this tick.
    pub(crate) fn arm(&self, tick: Tick, key: Key) {
        let mut armed = self.armed.borrow_mut();
        let is_earliest = armed.first_key_value().is_none_or(|(first, _)| tick < *first);
        armed.entry(tick).or_default().push(key);
        if is_earliest {
            self.earlier.notify_one();
        }
    }

    /// The connections whose tick has come.
    pub(crate) fn take_due(&self, now: Instant) -> Vec<Key> {
        let mut armed = self.armed.borrow_mut();
        let mut due = Vec::new();
        while let Some(entry) = armed.first_entry() {
            if self.instant_of(*entry.key()) > now {
                break;
            }
            due.append(&mut entry.remove());
        }
        due
    }

    /// Waits until a tick has come.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn wait(&self) {
        loop {
            let first = self.armed.borrow().first_key_value().map(|(tick, _)| self.instant_of(*tick));
            let Some(first) = first else {
                self.earlier.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(first.into()) => return,
                () = self.earlier.notified() => {}
            }
        }
    }

    fn instant_of(&self, tick: Tick) -> Instant {
        self.began + TICK * tick.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_due_at_its_tick_and_never_before() {
        let began = Instant::now();
        let timers = Timers::new(began);
        let mut hub = wootz_hub::Hub::<Queue>::default();
        let (early, late) = (hub.join(1, None, None, Default::default()), hub.join(2, None, None, Default::default()));
        for (deadline, key) in [(120, early), (5000, late)] {
            let deadline = began + Duration::from_millis(deadline);
            timers.arm(timers.tick_of(deadline), key);
        }
        assert_eq!(timers.take_due(began + Duration::from_millis(119)), []);
        assert_eq!(timers.take_due(began + Duration::from_millis(170)), [early]);
        assert_eq!(timers.take_due(began + Duration::from_millis(6000)), [late]);
    }

    #[derive(Default)]
    struct Queue(wootz_hub::Outbox);

    impl wootz_hub::Mailbox for Queue {
        fn outbox(&self) -> &wootz_hub::Outbox {
            &self.0
        }
    }
}
