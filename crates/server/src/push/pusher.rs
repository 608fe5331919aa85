//! Gives commands to all shards, in the order in which each door brings them.

use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::channels::ChannelNames;
use super::command::{Command, Deliveries, Delivery, Runs, Wait, What};
use super::once::OnceCalls;
use super::receipt::{Completeness, Outcome, Tally};
use crate::events::{Events, Happening, Kind};
use crate::shard::{Errand, Shard, ShardCommand};

/// A shard that takes nothing for so long is stuck.
const DEADLINE: Duration = Duration::from_secs(10);

/// Reaches all shards, from any thread.
#[derive(Debug, Clone)]
pub(crate) struct Pusher {
    shards: Arc<[mpsc::Sender<ShardCommand>]>,
    pub(crate) events: Arc<Events>,
    pub(crate) once: Arc<OnceCalls>,
    pub(crate) names: Arc<ChannelNames>,
    batch: Arc<Batch>,
}

/// Why a push has no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PushError {
    #[error("the server has not taken the push for {} s, and nothing was sent; try again", DEADLINE.as_secs())]
    Busy,
    #[error("the push was taken, but the server has not said for {} s what became of it", DEADLINE.as_secs())]
    Unanswered,
}

impl Pusher {
    pub(crate) fn new(shards: Arc<[mpsc::Sender<ShardCommand>]>) -> Self {
        Self { shards, events: Arc::default(), once: Arc::default(), names: Arc::default(), batch: Arc::default() }
    }

    /// Pushes, and waits for the receipt: at most `patience` for what is to be written, and then tells how far it is.
    ///
    /// # Cancel safety
    /// A push that has begun is done to its end.
    pub(crate) async fn push(&self, command: Command, wait: Wait, patience: Duration) -> Result<Outcome, PushError> {
        let happening = self.happening(&command);
        let (tally, awaited) = Tally::new();
        let delivery = command.into_delivery(Some(tally), wait);
        if let Some(delivery) = self.give_now(delivery) {
            let given = Box::pin(tokio::time::timeout(DEADLINE, self.give_later(delivery)));
            given.await.map_err(|_elapsed| PushError::Busy)?;
        }
        let outcome = match wait {
            Wait::UntilQueued => awaited.outcome(DEADLINE).await,
            Wait::UntilWritten => awaited.outcome(patience).await,
        };
        if let Some((events, happening)) = happening {
            events.emit(|| happening.with_receipt(outcome.receipt));
        }
        if wait == Wait::UntilQueued && outcome.completeness == Completeness::SoFar {
            return Err(PushError::Unanswered);
        }
        Ok(outcome)
    }

    /// Pushes, and waits where a shard is behind: whoever pushes faster than the shards deliver has to wait.
    pub(crate) async fn push_unasked(&self, command: Command) {
        let happening = self.happening(&command);
        self.give(command.into_delivery(None, Wait::UntilQueued)).await;
        if let Some((events, happening)) = happening {
            events.emit(|| happening);
        }
    }

    /// The rest of a request that was run once: output for one user's connections.
    pub(super) async fn give_output(&self, what: What) {
        self.give(Delivery { what, tally: None, wait: Wait::UntilQueued }).await;
    }

    /// Either all shards get it or none. Shards that have ended are passed over.
    async fn give(&self, delivery: Delivery) {
        if let Some(delivery) = self.give_now(delivery) {
            self.give_later(delivery).await;
        }
    }

    /// The same when all shards have room.
    async fn give_later(&self, delivery: Delivery) {
        let mut permits = Vec::with_capacity(self.shards.len());
        for shard in &*self.shards {
            permits.extend(shard.clone().reserve_owned().await.ok());
        }
        self.add(permits, delivery);
    }

    /// The same if all shards have room now, as they have nearly always; else it comes back.
    fn give_now(&self, delivery: Delivery) -> Option<Delivery> {
        let mut permits = Vec::with_capacity(self.shards.len());
        for shard in &*self.shards {
            match shard.clone().try_reserve_owned() {
                Ok(permit) => permits.push(permit),
                Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full(_)) => return Some(delivery),
            }
        }
        self.add(permits, delivery);
        None
    }

    /// Has it sent with all that is pushed until this thread has nothing else to do: each that were sent alone would wake the shards' threads, and
    /// each receipt this one.
    fn add(&self, permits: Vec<OwnedPermit<ShardCommand>>, delivery: Delivery) {
        let mut batch = lock(&self.batch);
        batch.push((permits, delivery));
        if batch.len() == 1 {
            tokio::spawn(send_all(Arc::clone(&self.batch)));
        }
    }

    /// Does something on every shard in turn, and gives what came of it. A shard that has ended, or is stuck, gives nothing.
    ///
    /// # Cancel safety
    /// What was begun on a shard is done to its end.
    pub(crate) async fn ask<R: Send + 'static>(
        &self,
        errand: impl Fn(&Rc<Shard>) -> R + Clone + Send + 'static,
    ) -> Vec<R> {
        let mut answers = Vec::with_capacity(self.shards.len());
        for shard in 0..self.shards.len() {
            let errand = errand.clone();
            answers.extend(self.ask_one(shard, move |shard| errand(shard)).await);
        }
        answers
    }

    /// The same on one of [`Pusher::shards`].
    pub(crate) async fn ask_one<R: Send + 'static>(
        &self,
        shard: usize,
        errand: impl FnOnce(&Rc<Shard>) -> R + Send + 'static,
    ) -> Option<R> {
        let (answer, answered) = oneshot::channel();
        let errand: Errand = Box::new(move |shard| {
            // Whoever asked may have gone.
            let _ = answer.send(errand(shard));
        });
        let asked = async {
            self.shards[shard].send(ShardCommand::Run(errand)).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout(DEADLINE, asked).await.ok().flatten()
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    fn happening(&self, command: &Command) -> Option<(&Events, Happening)> {
        if !self.events.is_watched() {
            return None;
        }
        let (to, message, request, once) = match command {
            Command::Publish { to, message } => (to, message, false, false),
            Command::Request { to, message, runs } => (to, message, true, *runs == Runs::PerUser),
        };
        let (to, message) = (to.clone(), message.clone());
        Some((&self.events, Happening::new(None, None, Kind::Push { to, message, request, once, receipt: None })))
    }
}

/// What is to be sent next, each with a place in every shard's inbox, so that there are never more than those are long.
type Batch = Mutex<Vec<(Vec<OwnedPermit<ShardCommand>>, Delivery)>>;

fn lock<T>(batch: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds the lock can fail half-way.
    batch.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends the batch in one place of each inbox, and lets go of it here when all shards have: the last to let go of a tally wakes its owner, which is
/// cheap on the owner's thread.
async fn send_all(batch: Arc<Batch>) {
    let (places, deliveries): (Vec<_>, Vec<_>) = std::mem::take(&mut *lock(&batch)).into_iter().unzip();
    let deliveries: Arc<[Delivery]> = deliveries.into();
    let mut done = Vec::new();
    // The other places are given back.
    for permit in places.into_iter().next().unwrap_or_default() {
        let (taken, all_taken) = oneshot::channel();
        permit.send(ShardCommand::Deliver(Deliveries { deliveries: Arc::clone(&deliveries), taken }));
        done.push(all_taken);
    }
    for all_taken in done {
        // A shard that has ended takes nothing, and holds nothing.
        let _ = all_taken.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wootz_hub::{Receipt, Target};
    use wootz_runner::Message;

    fn command() -> Command {
        Command::Publish { to: Target::All, message: Message::text("hi") }
    }

    fn pusher(shards: usize, room: usize) -> (Pusher, Vec<mpsc::Receiver<ShardCommand>>) {
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::channel(room)).unzip();
        (Pusher::new(senders.into()), inboxes)
    }

    fn delivery(inbox: &mut mpsc::Receiver<ShardCommand>) -> Option<Deliveries> {
        match inbox.try_recv() {
            Ok(ShardCommand::Deliver(deliveries)) => Some(deliveries),
            _ => None,
        }
    }

    /// What a shard does with a batch that has one push.
    fn count(deliveries: Deliveries, receipt: Receipt) {
        let [delivery] = &*deliveries.deliveries else { panic!("one") };
        delivery.tally.as_ref().expect("somebody wants to know").add(receipt);
        deliveries.taken();
    }

    fn paused(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(test);
    }

    const ONE: Receipt = Receipt { reached: 1, queued: 1, dropped: 0, joined: 0 };

    #[test]
    fn a_receipt_adds_up_what_all_shards_say_and_one_that_has_ended_is_passed_over() {
        paused(async {
            let (pusher, mut inboxes) = pusher(3, 4);
            drop(inboxes.remove(1));
            let serving = async {
                for inbox in &mut inboxes {
                    let Some(ShardCommand::Deliver(delivery)) = inbox.recv().await else { panic!("a delivery") };
                    count(delivery, ONE);
                }
            };
            let (outcome, ()) = tokio::join!(pusher.push(command(), Wait::UntilQueued, DEADLINE), serving);
            assert_eq!(outcome.expect("a receipt").receipt, Receipt { reached: 2, queued: 2, ..Receipt::default() });
        });
    }

    #[test]
    fn what_is_pushed_together_takes_one_place_of_an_inbox_in_its_order_and_each_has_its_own_receipt() {
        paused(async {
            let (pusher, mut inboxes) = pusher(2, 3);
            let texts = ["a", "b", "c"];
            let push = |text: &'static str| {
                let command = Command::Publish { to: Target::All, message: Message::text(text) };
                pusher.push(command, Wait::UntilQueued, DEADLINE)
            };
            let serving = async {
                for inbox in &mut inboxes {
                    let Some(ShardCommand::Deliver(together)) = inbox.recv().await else { panic!("a delivery") };
                    assert_eq!(together.deliveries.len(), texts.len());
                    for (number, (delivery, text)) in together.deliveries.iter().zip(texts).enumerate() {
                        let What::Publish { frame, .. } = &delivery.what else { panic!("a publication") };
                        assert!(frame.ends_with(text.as_bytes()));
                        let reached = number as u64;
                        delivery.tally.as_ref().expect("awaited").add(Receipt { reached, ..Receipt::default() });
                    }
                    together.taken();
                    assert!(inbox.try_recv().is_err(), "no more");
                    assert_eq!(inbox.capacity(), 3, "all places are free again");
                }
            };
            let (a, b, c, ()) = tokio::join!(push("a"), push("b"), push("c"), serving);
            assert_eq!([a, b, c].map(|outcome| outcome.expect("a receipt").receipt.reached), [0, 2, 4]);
        });
    }

    #[test]
    fn a_push_that_a_stuck_shard_does_not_take_is_given_to_nobody() {
        paused(async {
            let (pusher, mut inboxes) = pusher(2, 1);
            pusher.push_unasked(command()).await;
            tokio::task::yield_now().await;
            assert!(delivery(&mut inboxes[0]).is_some());
            // The second shard takes nothing any more.
            let busy = pusher.push(command(), Wait::UntilQueued, DEADLINE).await;
            assert_eq!(busy.err(), Some(PushError::Busy));
            assert!(delivery(&mut inboxes[0]).is_none(), "the first shard was given nothing");
        });
    }

    #[test]
    fn a_shard_that_takes_a_push_and_says_nothing_is_an_error_and_a_waiting_receipt_tells_how_far_it_is() {
        paused(async {
            let (pusher, mut inboxes) = pusher(1, 4);
            let unanswered = pusher.push(command(), Wait::UntilQueued, DEADLINE).await;
            assert_eq!(unanswered.err(), Some(PushError::Unanswered));
            drop(delivery(&mut inboxes[0]));
            let serving = async {
                let Some(ShardCommand::Deliver(delivery)) = inboxes[0].recv().await else { panic!("a delivery") };
                let still_to_be_written_to = delivery.deliveries[0].tally.clone();
                count(delivery, ONE);
                tokio::time::sleep(DEADLINE).await;
                drop(still_to_be_written_to);
            };
            let waiting = pusher.push(command(), Wait::UntilWritten, Duration::from_secs(1));
            let (outcome, ()) = tokio::join!(waiting, serving);
            let outcome = outcome.expect("a receipt");
            assert_eq!((outcome.receipt, outcome.written, outcome.completeness), (ONE, 0, Completeness::SoFar));
        });
    }
}
