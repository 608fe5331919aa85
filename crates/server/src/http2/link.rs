//! What the streams of one HTTP/2 connection, and the socket below them, share: who still uses it, and what the peer has cost.
//!
//! Laws of this file:
//! - A peer pays for what it makes us do. Frames that carry nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, CONTINUATION) are a debt, messages and time
//!   pay it back, and who owes too much has to go.
//! - A connection that nobody uses has a deadline.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::admission::Handshakes;

/// Plaintext that a peer may have read in one turn; then the other connections of the thread have theirs.
const TURN_BYTES: usize = 64 * 1024;

/// What a peer may owe. At it: GOAWAY with `ENHANCE_YOUR_CALM`.
const MAX_DEBT: i64 = 1024 * 1024;

/// What can be paid in advance: a peer that was sent many small messages may say for all of them later that they have come.
const MAX_CREDIT: i64 = 4 * 1024 * 1024;

/// Bytes of debt that a second pays.
const PAID_PER_SECOND: i64 = 64 * 1024;

/// What a frame of a message pays beside its content: for its head, and for what the other end says about its window.
const PAID_PER_FRAME: i64 = 64;

/// What a request pays.
const PAID_PER_REQUEST: i64 = 16 * 1024;

/// Requests one after the other that came to nothing: refused, reset, or a WebSocket that was gone before it said anything. At it: GOAWAY with
/// `ENHANCE_YOUR_CALM`.
const MAX_FRUITLESS: u32 = 100;

/// How long a connection that is told to go may take over it.
const LEAVING_TIME: Duration = Duration::from_secs(2);

/// Shared by one connection and its streams, all on one thread.
#[derive(Debug)]
pub(crate) struct Link {
    /// Requests and WebSockets that use the connection.
    held: Cell<usize>,
    /// Since when nobody does; also the connection's beginning.
    idle_since: Cell<Instant>,
    /// Since when the connection has to go.
    leaving_since: Cell<Option<Instant>>,
    /// Whether its socket is being closed.
    closing: Cell<bool>,
    changed: Notify,
    turn_bytes: Cell<usize>,
    debt: Cell<i64>,
    paid_until: Cell<Instant>,
    fruitless: Cell<u32>,
}

/// Somebody uses the connection as long as this lives.
#[derive(Debug)]
pub(crate) struct Held(Rc<Link>);

/// Why a connection has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nobody uses it.
    Unused,
    /// The same, and too many others wait.
    Evicted,
    /// It was told to go, and had time to.
    Left,
}

impl Link {
    pub(crate) fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self {
            held: Cell::new(0),
            idle_since: Cell::new(now),
            leaving_since: Cell::new(None),
            closing: Cell::new(false),
            changed: Notify::new(),
            turn_bytes: Cell::new(0),
            debt: Cell::new(0),
            paid_until: Cell::new(now),
            fruitless: Cell::new(0),
        })
    }

    /// A request has come.
    pub(crate) fn hold(self: &Rc<Self>) -> Held {
        self.pay(PAID_PER_REQUEST);
        self.held.set(self.held.get() + 1);
        self.changed.notify_one();
        Held(Rc::clone(self))
    }

    /// The connection has to go, as soon as nobody uses it.
    pub(crate) fn leave(&self, now: Instant) {
        if self.leaving_since.get().is_none() {
            self.leaving_since.set(Some(now));
            self.changed.notify_one();
        }
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving_since.get().is_some()
    }

    /// The socket is being closed, whatever the reason.
    pub(crate) fn close(&self, now: Instant) {
        self.closing.set(true);
        self.leave(now);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.get() > 0
    }

    /// A request came to nothing.
    pub(crate) fn fruitless(&self) {
        self.fruitless.set(self.fruitless.get() + 1);
        self.changed.notify_one();
    }

    /// Waits until the connection has to go, because nobody has used it for `timeout`, or because it was told to. As long as nobody uses it, it is one of
    /// the unfinished handshakes, and the oldest of too many goes at once.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn due(&self, handshakes: &Handshakes, timeout: Duration) -> Due {
        loop {
            let changed = self.changed.notified();
            let (since, time, due) = match (self.held.get(), self.leaving_since.get()) {
                (0, None) => (self.idle_since.get(), timeout, Due::Unused),
                (0, Some(leaving)) => (leaving.max(self.idle_since.get()), LEAVING_TIME, Due::Left),
                (_, _) => {
                    changed.await;
                    continue;
                }
            };
            let unfinished = handshakes.begin();
            tokio::select! {
                () = tokio::time::sleep_until((since + time).into()) => return due,
                () = unfinished.evicted() => return Due::Evicted,
                () = changed => {}
            }
        }
    }

    /// The others of the thread have their turn.
    pub(crate) fn end_turn(&self) {
        self.turn_bytes.set(0);
    }

    pub(crate) fn has_turn(&self) -> bool {
        self.turn_bytes.get() < TURN_BYTES
    }

    /// So many bytes came.
    pub(crate) fn read(&self, bytes: usize, now: Instant) {
        self.turn_bytes.set(self.turn_bytes.get() + bytes);
        let elapsed = now.saturating_duration_since(self.paid_until.replace(now));
        // Time pays debts and makes nobody rich: it is no message.
        let by_time =
            i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX).saturating_mul(PAID_PER_SECOND) / 1_000_000;
        let debt = self.debt.get();
        let debt = if debt > 0 { (debt - by_time).max(0) } else { debt };
        self.debt.set(debt.saturating_add(amount(bytes)));
    }

    /// So many of them were a message's.
    pub(crate) fn delivered(&self, bytes: usize) {
        self.fruitless.set(0);
        self.pay(amount(bytes) + PAID_PER_FRAME);
    }

    /// So many bytes of messages were sent, for which the peer answers now and then.
    pub(crate) fn sent(&self, bytes: usize) {
        self.pay(amount(bytes) / 128 + PAID_PER_FRAME);
    }

    fn pay(&self, amount: i64) {
        self.debt.set((self.debt.get() - amount).max(-MAX_CREDIT));
    }

    /// Whether the peer has made work for nothing for too long.
    pub(crate) fn is_flooded(&self) -> bool {
        self.debt.get() >= MAX_DEBT || self.fruitless.get() >= MAX_FRUITLESS
    }
}

fn amount(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Held {
    pub(crate) fn link(&self) -> &Link {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.set(self.0.held.get() - 1);
        if self.0.held.get() == 0 {
            self.0.idle_since.set(Instant::now());
            self.0.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING_BYTES: usize = 17;

    /// Whether it is a flood that each second brings so many of these.
    fn is_flood(per_second: usize, seconds: u64, one: impl Fn(&Link, Instant)) -> bool {
        let begin = Instant::now();
        let link = Link::new(begin);
        for second in 0..seconds {
            for _ in 0..per_second {
                one(&link, begin + Duration::from_secs(second));
            }
        }
        link.is_flooded()
    }

    #[test]
    fn pings_alone_are_a_flood_and_pings_now_and_then_are_none() {
        let ping = |link: &Link, now| link.read(PING_BYTES, now);
        assert!(is_flood(62_000, 1, ping));
        assert!(!is_flood(1_000, 3_600, ping));
        assert!(is_flood(10_000, 60, ping), "slower, and for ever");
    }

    #[test]
    fn messages_are_no_flood_however_many_and_small_they_are() {
        let received = |link: &Link, now| {
            link.read(9 + 7, now);
            link.delivered(7);
        };
        assert!(!is_flood(200_000, 10, received));
        let sent = |link: &Link, now| {
            link.sent(20);
            link.read(2 * 13, now);
        };
        assert!(!is_flood(200_000, 10, sent));
    }

    #[test]
    fn what_was_sent_may_be_acknowledged_later() {
        let (begin, frames) = (Instant::now(), 60_000);
        let link = Link::new(begin);
        (0..frames).for_each(|_| link.sent(130));
        (0..frames).for_each(|_| link.read(2 * 13, begin));
        assert!(!link.is_flooded());
    }

    #[test]
    fn requests_that_come_to_nothing_are_a_flood_and_a_message_makes_up_for_them() {
        let link = Link::new(Instant::now());
        (1..MAX_FRUITLESS).for_each(|_| link.fruitless());
        assert!(!link.is_flooded());
        link.delivered(7);
        link.fruitless();
        assert!(!link.is_flooded());
        (1..MAX_FRUITLESS).for_each(|_| link.fruitless());
        assert!(link.is_flooded());
    }

    #[tokio::test(start_paused = true)]
    async fn connection_is_due_when_nobody_has_used_it_for_a_while_and_sooner_when_it_was_told_to_go() {
        let timeout = Duration::from_secs(10);
        let handshakes = Handshakes::new(2, 1);
        // The runtime's clock stands still, and real time does not: what has begun by the first is due by it.
        let link = Link::new(tokio::time::Instant::now().into_std());
        let held = link.hold();
        assert!(tokio::time::timeout(timeout * 100, link.due(&handshakes, timeout)).await.is_err(), "it is used");
        drop(held);
        assert_eq!(link.due(&handshakes, timeout).await, Due::Unused);
        link.leave(tokio::time::Instant::now().into_std());
        let told = tokio::time::Instant::now();
        assert_eq!(link.due(&handshakes, timeout).await, Due::Left);
        assert!(told.elapsed() <= LEAVING_TIME + Duration::from_millis(1));
        let link = Link::new(tokio::time::Instant::now().into_std());
        let younger = async {
            tokio::task::yield_now().await;
            [handshakes.begin(), handshakes.begin()]
        };
        assert_eq!(tokio::join!(link.due(&handshakes, timeout), younger).0, Due::Evicted);
    }
}
