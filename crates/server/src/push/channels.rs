//! Channels: what a name may be, and how many names there may be at once on all shards together.
//!
//! Who is in a channel is the hubs' to know. Here is one entry for each name that somebody has, so that the bound holds for the whole
//! server; the lock is taken only when the first connection of a shard joins a channel or the last one leaves it.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wootz_hub::{Joined, Left};
use wootz_runner::Caller;

use crate::events::Kind;
use crate::shard::Shard;

/// Longest name of a channel, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 128;

/// The names that are in use, each with on how many shards.
#[derive(Debug, Default)]
pub(crate) struct ChannelNames {
    names: Mutex<HashMap<Arc<str>, usize>>,
}

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadName {
    #[error("the name of a channel is not empty")]
    Empty,
    #[error("the name of a channel has at most {MAX_NAME_BYTES} bytes")]
    TooLong,
    #[error("the name of a channel has no control characters")]
    Control,
}

/// A name that a channel may have.
pub(crate) fn name(text: &str) -> Result<Arc<str>, BadName> {
    match text {
        "" => Err(BadName::Empty),
        _ if text.len() > MAX_NAME_BYTES => Err(BadName::TooLong),
        _ if text.chars().any(char::is_control) => Err(BadName::Control),
        _ => Ok(Arc::from(text)),
    }
}

/// Why a connection can't be put into a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JoinError {
    #[error("there is no such connection")]
    Gone,
    #[error("the connection is in as many channels as it may be (limits.channels_per_connection)")]
    TooManyOfConnection,
    #[error("there are as many channels as there may be (limits.max_channels)")]
    TooManyInAll,
}

impl ChannelNames {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many names are in use.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// One more shard has this name. Gives the one text of it that all shards share.
    fn enter(&self, name: &Arc<str>, at_most: usize) -> Option<Arc<str>> {
        let mut names = self.lock();
        if let Some((known, _)) = names.get_key_value(name) {
            let known = Arc::clone(known);
            names.entry(Arc::clone(&known)).and_modify(|shards| *shards += 1);
            return Some(known);
        }
        if names.len() >= at_most {
            return None;
        }
        names.insert(Arc::clone(name), 1);
        Some(Arc::clone(name))
    }

    fn exit(&self, name: &str) {
        let mut names = self.lock();
        let Some(shards) = names.get_mut(name) else { return };
        *shards -= 1;
        if *shards == 0 {
            names.remove(name);
            if names.capacity() > 1024 && names.len() < names.capacity() / 8 {
                names.shrink_to_fit();
            }
        }
    }
}

impl Shard {
    /// Puts a connection of this shard into a channel.
    pub(crate) fn join_channel(&self, connection: u128, channel: &Arc<str>) -> Result<(), JoinError> {
        let limits = &self.config.limits;
        let mut hub = self.hub.borrow_mut();
        let caller = match hub.find(connection) {
            Some(mailbox) if !mailbox.is_ending() => mailbox.caller(),
            Some(_) | None => return Err(JoinError::Gone),
        };
        let is_new = !hub.has_channel(channel);
        let shared = if is_new {
            self.pusher.names.enter(channel, limits.max_channels).ok_or(JoinError::TooManyInAll)?
        } else {
            Arc::clone(channel)
        };
        let joined = hub.join_channel(connection, &shared, limits.channels_per_connection);
        drop(hub);
        if is_new && joined != Joined::Now {
            self.pusher.names.exit(&shared);
        }
        match joined {
            Joined::Now => {
                self.tell(&caller, || Kind::Joined { channel: shared });
                Ok(())
            }
            Joined::Before => Ok(()),
            Joined::TooMany => Err(JoinError::TooManyOfConnection),
            Joined::Gone => Err(JoinError::Gone),
        }
    }

    /// Takes a connection of this shard out of a channel. `Err`: there is no such connection.
    pub(crate) fn leave_channel(&self, connection: u128, channel: &Arc<str>) -> Result<(), JoinError> {
        let mut hub = self.hub.borrow_mut();
        let caller = hub.find(connection).map(Rc::clone).ok_or(JoinError::Gone)?.caller();
        let left = hub.leave_channel(connection, channel);
        drop(hub);
        match left {
            Left::Now => {
                self.left_channels(&caller, vec![Arc::clone(channel)]);
                Ok(())
            }
            Left::Before => Ok(()),
            Left::Gone => Err(JoinError::Gone),
        }
    }

    /// After a connection has left these channels: those that are empty now are forgotten.
    pub(crate) fn left_channels(&self, caller: &Caller, channels: Vec<Arc<str>>) {
        for channel in channels {
            if !self.hub.borrow().has_channel(&channel) {
                self.pusher.names.exit(&channel);
            }
            self.tell(caller, || Kind::Left { channel });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_text_of_bounded_length_without_control_characters() {
        for good in ["a", "news", "room 1", "größe/*", &"x".repeat(MAX_NAME_BYTES)] {
            assert_eq!(name(good).as_deref(), Ok(good));
        }
        let cases = [("", BadName::Empty), ("a\nb", BadName::Control), ("\u{85}", BadName::Control)];
        for (bad, why) in cases {
            assert_eq!(name(bad), Err(why), "{bad:?}");
        }
        assert_eq!(name(&"x".repeat(MAX_NAME_BYTES + 1)), Err(BadName::TooLong));
    }

    #[test]
    fn names_are_counted_once_for_all_shards_and_forgotten_when_the_last_shard_has_none() {
        let names = ChannelNames::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        assert!(names.enter(&a, 1).is_some());
        assert!(names.enter(&Arc::from("a"), 1).is_some_and(|shared| Arc::ptr_eq(&shared, &a)), "one text for all");
        assert!(names.enter(&b, 1).is_none());
        names.exit("a");
        assert!(names.enter(&b, 1).is_none());
        names.exit("a");
        assert!(names.enter(&b, 1).is_some());
        assert_eq!(names.lock().len(), 1);
    }
}
