//! What comes in from outside, whatever door it takes: one type, executed in one place.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use wootz_hub::{Receipt, Target, Watch};
use wootz_runner::Message;

use super::once::{Claims, Outcome};
use super::receipt::{Part, Tally};
use crate::connection::{Pushed, Room, encode};
use crate::shard::Shard;

/// Something pushed.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    /// Sends a message to connections.
    Publish { to: Target, message: Message },
    /// Runs a request as the user of each connection; what it prints goes to that connection.
    Request { to: Target, message: Message, runs: Runs },
}

/// How often a request runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runs {
    /// Once for each connection.
    PerConnection,
    /// Once for each user; what it prints goes to all connections of theirs that the target names. Guests are nobody: each of
    /// their connections is one.
    PerUser,
}

/// Whether a receipt has to wait until everything was written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    UntilQueued,
    UntilWritten,
}

/// A command on its way to the shards: a message is encoded once, for all of them.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(super) what: What,
    /// `None` where nobody wants to know.
    pub(super) tally: Option<Arc<Tally>>,
    pub(super) wait: Wait,
}

/// What is pushed at the same time, as a shard gets it: in this order.
#[derive(Debug)]
pub(crate) struct Deliveries {
    pub(crate) deliveries: Arc<[Delivery]>,
    /// Says that this shard has taken all of them.
    pub(super) taken: oneshot::Sender<()>,
}

impl Deliveries {
    /// This shard has taken all of them, and lets go of them.
    pub(crate) fn taken(self) {
        drop(self.deliveries);
        // Whoever pushed them may have ended.
        let _ = self.taken.send(());
    }
}

#[derive(Debug)]
pub(super) enum What {
    Publish {
        to: Target,
        frame: Bytes,
    },
    Request {
        to: Target,
        message: Message,
    },
    RequestOnce {
        to: Target,
        message: Message,
        claims: Claims,
    },
    /// A frame that a request printed which was run once for its user.
    Output {
        to: Target,
        user: Arc<str>,
        frame: Bytes,
    },
    /// The same request has ended: who watches is told when its output has left.
    OutputEnd {
        to: Target,
        user: Arc<str>,
        watchers: Vec<Arc<dyn Watch>>,
    },
}

/// Text where it is valid UTF-8, else binary: a pipe can't say which it means.
pub(crate) fn message_of(record: Bytes) -> Message {
    match record.try_into() {
        Ok(text) => Message::Text(text),
        Err(bytes) => Message::Binary(bytes),
    }
}

impl Command {
    pub(crate) fn into_delivery(self, tally: Option<Arc<Tally>>, wait: Wait) -> Delivery {
        let what = match self {
            Self::Publish { to, message } => What::Publish { to, frame: encode(&message) },
            Self::Request { to, message, runs: Runs::PerConnection } => What::Request { to, message },
            Self::Request { to, message, runs: Runs::PerUser } => {
                What::RequestOnce { to, message, claims: Claims::default() }
            }
        };
        Delivery { what, tally, wait }
    }
}

/// Executes a command on one shard's connections, and gives the bytes that each of them was given.
pub(crate) fn execute(shard: &Rc<Shard>, delivery: &Delivery) -> usize {
    let limit_bytes = shard.config.limits.outbox_bytes;
    let (receipt, pushed_bytes) = match &delivery.what {
        What::Publish { to, frame } => {
            let watch = delivery.watch();
            (shard.hub.borrow().publish(to, frame, limit_bytes, watch.as_ref()), frame.len())
        }
        What::Request { to, message } => (request_each(shard, to, message, delivery), 0),
        What::RequestOnce { to, message, claims } => (request_once(shard, to, message, claims, delivery), 0),
        What::Output { to, user, frame } => {
            shard.counters.pushed(shard.hub.borrow().publish_to_user(to, user, frame, limit_bytes));
            return frame.len();
        }
        What::OutputEnd { to, user, watchers } => {
            shard.hub.borrow().visit(to, |view| {
                if view.user == Some(user) {
                    watchers.iter().for_each(|watch| view.mailbox.outbox().watch(Arc::clone(watch)));
                }
            });
            return 0;
        }
    };
    shard.counters.pushed(receipt);
    if let Some(tally) = &delivery.tally {
        tally.add(receipt);
    }
    pushed_bytes
}

impl Delivery {
    fn watch(&self) -> Option<Arc<dyn Watch>> {
        let tally = self.waiting_tally()?;
        Some(tally as Arc<dyn Watch>)
    }

    fn waiting_tally(&self) -> Option<Arc<Tally>> {
        self.tally.clone().filter(|_| self.wait == Wait::UntilWritten)
    }
}

const QUEUED: Receipt = Receipt { reached: 1, queued: 1, dropped: 0, joined: 0 };
const JOINED: Receipt = Receipt { reached: 1, queued: 0, dropped: 0, joined: 1 };
const DROPPED: Receipt = Receipt { reached: 1, queued: 0, dropped: 1, joined: 0 };

fn request_each(shard: &Rc<Shard>, to: &Target, message: &Message, delivery: &Delivery) -> Receipt {
    let mut receipt = Receipt::default();
    shard.hub.borrow().visit(to, |view| receipt += leave_request(shard, view.mailbox, message, delivery));
    receipt
}

fn leave_request(
    shard: &Shard,
    mailbox: &crate::connection::Mailbox,
    message: &Message,
    delivery: &Delivery,
) -> Receipt {
    if mailbox.join_waiting(message, delivery.waiting_tally()) {
        return JOINED;
    }
    let Some(place) = shard.turns.reserve_place(message.payload().len()) else { return DROPPED };
    let tally = delivery.waiting_tally().map(|tally| (tally, Part::Queued));
    match mailbox.push_request(Pushed::new(message.clone(), Some(place), tally), Room::Waiting) {
        Ok(()) => QUEUED,
        // It was never counted as queued.
        Err(pushed) => {
            pushed.settle();
            DROPPED
        }
    }
}

fn request_once(shard: &Rc<Shard>, to: &Target, message: &Message, claims: &Claims, delivery: &Delivery) -> Receipt {
    let mut receipt = Receipt::default();
    let mut begun = Vec::new();
    shard.hub.borrow().visit(to, |view| {
        let Some(user) = view.user else {
            receipt += leave_request(shard, view.mailbox, message, delivery);
            return;
        };
        if view.mailbox.is_ending() {
            receipt += DROPPED;
            return;
        }
        let tally = || delivery.waiting_tally();
        match claims.claim(&shard.pusher.once, &shard.turns, user, to, message, tally) {
            Outcome::Begun(waiting) => {
                receipt += QUEUED;
                begun.push((view.mailbox.caller(), waiting));
            }
            Outcome::Shared => receipt += JOINED,
            Outcome::NoRoom => receipt += DROPPED,
        }
    });
    for (caller, waiting) in begun {
        shard.spawn(super::once::run(Rc::clone(shard), caller, waiting));
    }
    receipt
}

/// Leaves a record of a connection's pipe as a request. `Err` gives it back: there is no room for it now.
///
/// Its writer waits where there is no room, and counts on every record being run: none is shared with an equal one.
pub(crate) fn request_from_pipe(shard: &Shard, connection: u128, message: Message) -> Result<(), Message> {
    let mailbox = shard.hub.borrow().find(connection).cloned();
    let Some(mailbox) = mailbox else { return Ok(()) };
    let pushed = Pushed::new(message, None, None);
    mailbox.push_request(pushed, Room::Mailbox).map_err(|pushed| pushed.message().clone())?;
    shard.counters.pushed(QUEUED);
    Ok(())
}
