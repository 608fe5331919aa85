//! What comes in from outside, whatever door it takes: one type, executed in one place.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use wootz_hub::{Receipt, Target};
use wootz_runner::Message;

use crate::connection::encode;
use crate::shard::{Shard, ShardCommand};

/// Something pushed.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    /// Sends a message to connections.
    Publish { to: Target, message: Message },
    /// Runs a request as the user of one connection; what it prints goes to that connection.
    Request { connection: u128, message: Message },
}

/// A command on its way to the shards: a message is encoded once, for all of them.
#[derive(Debug, Clone)]
pub(crate) enum Delivery {
    Publish { to: Target, frame: Bytes },
    Request { connection: u128, message: Message },
}

/// Text where it is valid UTF-8, else binary: a pipe can't say which it means.
pub(crate) fn message_of(record: Bytes) -> Message {
    match record.try_into() {
        Ok(text) => Message::Text(text),
        Err(bytes) => Message::Binary(bytes),
    }
}

impl Command {
    pub(crate) fn into_delivery(self) -> Delivery {
        match self {
            Command::Publish { to, message } => Delivery::Publish { to, frame: encode(&message) },
            Command::Request { connection, message } => Delivery::Request { connection, message },
        }
    }
}

/// Gives a command to every shard, and waits where one is behind: whoever pushes faster than the shards deliver has to wait.
///
/// Shards that have ended are passed over.
pub(crate) async fn broadcast(shards: &[mpsc::Sender<ShardCommand>], command: Command) {
    let delivery = Arc::new(command.into_delivery());
    for shard in shards {
        let _ = shard.send(ShardCommand::Deliver(Arc::clone(&delivery))).await;
    }
}

/// Executes a command on one shard's connections.
///
/// `Err` gives back a request whose connection has no room for it now; a connection that is gone takes it and drops it.
pub(crate) fn execute(shard: &Shard, delivery: &Delivery) -> Result<Receipt, Message> {
    let receipt = match delivery {
        Delivery::Publish { to, frame } => shard.hub.borrow().publish(to, frame, shard.config.limits.outbox_bytes),
        Delivery::Request { connection, message } => {
            let mailbox = shard.hub.borrow().find(*connection).cloned();
            let Some(mailbox) = mailbox else { return Ok(Receipt::default()) };
            mailbox.push_request(message.clone())?;
            Receipt { reached: 1, queued: 1, dropped: 0 }
        }
    };
    shard.counters.pushed(receipt);
    Ok(receipt)
}
