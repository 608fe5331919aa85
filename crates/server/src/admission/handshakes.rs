//! The sockets of one shard that have not sent a whole request, or are still taking their refusal: bounded, and the oldest goes first.
//!
//! An honest handshake is whole within a round trip, so the oldest ones are those of silent peers. However many of these there are, a browser
//! that comes now is let in, and none of them takes a connection's place.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How often the log says that there are too many.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// The unfinished handshakes of one shard, by age.
#[derive(Debug)]
pub(crate) struct Handshakes {
    room: usize,
    next: Cell<u64>,
    unfinished: RefCell<BTreeMap<u64, Rc<Notify>>>,
    said: Cell<Option<Instant>>,
}

/// One of them; it is finished when this is dropped.
#[derive(Debug)]
pub(crate) struct Unfinished<'h> {
    handshakes: &'h Handshakes,
    number: u64,
    eviction: Rc<Notify>,
}

impl Handshakes {
    /// Room for this many of a server that has so many shards.
    pub(crate) fn new(max_handshakes: usize, shards: usize) -> Self {
        let room = max_handshakes.div_ceil(shards.max(1)).max(1);
        Self { room, next: Cell::new(0), unfinished: RefCell::default(), said: Cell::new(None) }
    }

    /// Begins one. Where there is no room the oldest has to go.
    pub(crate) fn begin(&self) -> Unfinished<'_> {
        let mut unfinished = self.unfinished.borrow_mut();
        if unfinished.len() >= self.room
            && let Some((_, oldest)) = unfinished.pop_first()
        {
            oldest.notify_one();
            self.say();
        }
        let number = self.next.replace(self.next.get() + 1);
        let eviction = Rc::new(Notify::new());
        unfinished.insert(number, Rc::clone(&eviction));
        drop(unfinished);
        Unfinished { handshakes: self, number, eviction }
    }

    fn say(&self) {
        if self.said.get().is_none_or(|said| said.elapsed() > SAY_EVERY) {
            self.said.set(Some(Instant::now()));
            tracing::warn!("more unfinished handshakes than limits.max_handshakes: the oldest ones are closed");
        }
    }
}

impl Unfinished<'_> {
    /// Waits until this one has to go.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn evicted(&self) {
        self.eviction.notified().await;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.handshakes.unfinished.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Waker};

    fn is_evicted(unfinished: &Unfinished<'_>) -> bool {
        pin!(unfinished.evicted()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_oldest_goes_when_there_is_no_room_and_finished_ones_take_none() {
        let handshakes = Handshakes::new(3, 2);
        let first = handshakes.begin();
        drop(handshakes.begin());
        let second = handshakes.begin();
        assert!(!is_evicted(&first));
        let third = handshakes.begin();
        assert_eq!([&first, &second, &third].map(is_evicted), [true, false, false]);
        drop((first, second, third));
        assert!(handshakes.unfinished.borrow().is_empty());
    }
}
