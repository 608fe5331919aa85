//! Requests that run once for each user, whatever shard their connections are on, and whose output goes to all of those.
//!
//! Such a call belongs to the user, not to a connection: it goes on when the connection closes that lent it its facts.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use wootz_hub::{Target, Watch};
use wootz_runner::{Call, CallEvent, Caller, Gone, Message, Replies, ReplySink};

use super::command::What;
use super::receipt::{Part, Tally};
use crate::connection::{CountedCall, encode, log_failure};
use crate::dispatch::{Place, Turns, Waits};
use crate::shard::Shard;

/// What makes two calls equal: then the second need not run while the first waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    user: Arc<str>,
    to: Target,
    payload: bytes::Bytes,
    is_text: bool,
}

type Tallies = Vec<(Arc<Tally>, Part)>;

/// The calls of all shards that wait for their turn, with those who wait for them.
#[derive(Debug, Default)]
pub(crate) struct OnceCalls {
    waiting: Mutex<HashMap<Key, Tallies>>,
}

/// The users that one push has met so far, and what became of its request for them.
#[derive(Debug, Default)]
pub(super) struct Claims {
    users: Mutex<HashMap<Arc<str>, Claimed>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claimed {
    Taken,
    NoRoom,
}

/// What one more connection of a user means.
pub(super) enum Outcome {
    /// The call is to be run.
    Begun(Waiting),
    /// Another connection's call is also this one's.
    Shared,
    NoRoom,
}

/// A call that waits. Dropped before it has begun, it is given up.
pub(super) struct Waiting {
    key: Key,
    message: Message,
    once: Arc<OnceCalls>,
    _place: Place,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is a single operation on a map.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Claims {
    pub(super) fn claim(
        &self,
        once: &Arc<OnceCalls>,
        turns: &Arc<Turns>,
        user: &Arc<str>,
        to: &Target,
        message: &Message,
        tally: impl Fn() -> Option<Arc<Tally>>,
    ) -> Outcome {
        let mut users = lock(&self.users);
        match users.get(user) {
            Some(Claimed::Taken) => return Outcome::Shared,
            Some(Claimed::NoRoom) => return Outcome::NoRoom,
            None => {}
        }
        let is_text = matches!(message, Message::Text(_));
        let key = Key { user: Arc::clone(user), to: to.clone(), payload: message.payload().clone(), is_text };
        let mut waiting = lock(&once.waiting);
        if let Some(tallies) = waiting.get_mut(&key) {
            tallies.extend(tally().map(|tally| (tally, Part::Joined)));
            users.insert(Arc::clone(user), Claimed::Taken);
            return Outcome::Shared;
        }
        let Some(place) = turns.reserve_place(message.payload().len()) else {
            users.insert(Arc::clone(user), Claimed::NoRoom);
            return Outcome::NoRoom;
        };
        waiting.insert(key.clone(), tally().map(|tally| (tally, Part::Queued)).into_iter().collect());
        users.insert(Arc::clone(user), Claimed::Taken);
        Outcome::Begun(Waiting { key, message: message.clone(), once: Arc::clone(once), _place: place })
    }
}

impl Waiting {
    /// It runs now: an equal push from here on is another call.
    fn begin(&self) -> Tallies {
        lock(&self.once.waiting).remove(&self.key).unwrap_or_default()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        for (tally, part) in self.begin() {
            tally.give_up(part);
        }
    }
}

/// Runs the call from its wait for a turn to the end of its output.
pub(super) async fn run(shard: Rc<Shard>, caller: Arc<Caller>, waiting: Waiting) {
    let turn = match shard.acquire_turn(&caller, CallEvent::Push, Waits::InItsPlace).await {
        Ok(turn) => turn,
        Err(busy) => {
            tracing::warn!(connection = %caller.id, reason = %busy, "pushed request dropped: busy");
            shard.counters.call_refused();
            return shard.counters.push_given_up();
        }
    };
    let tallies = waiting.begin();
    let (to, user, message) = (waiting.key.to.clone(), Arc::clone(&waiting.key.user), waiting.message.clone());
    drop(waiting);
    let connection = caller.id;
    let counted = CountedCall::new(&shard, &caller, CallEvent::Push, turn.waited(), Instant::now());
    let call = Call { event: CallEvent::Push, message, caller, mode: shard.config.calls.message, capability: None };
    let relay = Rc::new(Relay::default());
    let calling = async {
        let result = shard.application.call_dyn(call, &mut Replies::new(Rc::clone(&relay) as Rc<dyn ReplySink>)).await;
        drop(turn);
        counted.end(&result);
        relay.end();
        result
    };
    let relaying = async {
        while let Some(reply) = std::future::poll_fn(|context| relay.poll_next(context)).await {
            let (to, user) = (to.clone(), Arc::clone(&user));
            shard.pusher.give_output(What::Output { to, user, frame: encode(&reply) }).await;
        }
    };
    let (result, ()) = tokio::join!(calling, relaying);
    match result {
        Ok(()) if tallies.is_empty() => {}
        Ok(()) => {
            let watchers = tallies.into_iter().map(|(tally, _)| tally as Arc<dyn Watch>).collect();
            shard.pusher.give_output(What::OutputEnd { to, user, watchers }).await;
        }
        Err(error) => log_failure(connection, CallEvent::Push, &error),
    }
}

/// Between a call that replies and the shards: holds one reply, and lets the call wait for the next.
#[derive(Default)]
struct Relay {
    held: RefCell<Option<Message>>,
    ended: Cell<bool>,
    call: RefCell<Option<Waker>>,
    pump: RefCell<Option<Waker>>,
}

impl Relay {
    fn end(&self) {
        self.ended.set(true);
        wake(&self.pump);
    }

    fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Message>> {
        match self.held.take() {
            Some(message) => {
                wake(&self.call);
                Poll::Ready(Some(message))
            }
            None if self.ended.get() => Poll::Ready(None),
            None => {
                self.pump.replace(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

fn wake(slot: &RefCell<Option<Waker>>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}

impl ReplySink for Relay {
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.held.borrow().is_none() {
            return Poll::Ready(Ok(()));
        }
        self.call.replace(Some(context.waker().clone()));
        Poll::Pending
    }

    fn send(&self, message: Message) {
        self.held.replace(Some(message));
        wake(&self.pump);
    }
}
