//! The connections of one shard by their id and by their user, each with a bounded queue.
//!
//! The hub knows ids and queues, never sockets, frames' meaning or calls. It belongs to one thread: nothing here locks.

mod outbox;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;

pub use outbox::{Outbox, Queued};

/// Where a connection stands in its hub; good until it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(usize);

/// Who a published frame is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every connection.
    All,
    /// One connection, by its id.
    Connection(u128),
}

/// What became of a published frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Connections that the target named.
    pub reached: u64,
    /// Of those, the ones whose queue took the frame.
    pub queued: u64,
    /// Of those, the ones that were too slow or closing.
    pub dropped: u64,
}

/// The part of a connection that a hub holds: it can be given frames.
pub trait Mailbox {
    /// The queue of frames.
    fn outbox(&self) -> &Outbox;
}

/// The connections of one shard. `M` is what the shard keeps for each of them.
#[derive(Debug)]
pub struct Hub<M> {
    members: Slab<Member<M>>,
    by_id: HashMap<u128, usize>,
    users: HashMap<Arc<str>, usize>,
    /// Members whose queue got its first frame, until somebody writes it out. Keys of members that left may be among them.
    unwritten: RefCell<Vec<usize>>,
}

#[derive(Debug)]
struct Member<M> {
    id: u128,
    user: Option<Arc<str>>,
    mailbox: Rc<M>,
}

impl<M> Default for Hub<M> {
    fn default() -> Self {
        Self { members: Slab::new(), by_id: HashMap::new(), users: HashMap::new(), unwritten: RefCell::default() }
    }
}

impl<M: Mailbox> Hub<M> {
    /// Takes a connection in.
    pub fn join(&mut self, id: u128, user: Option<Arc<str>>, mailbox: Rc<M>) -> Key {
        if let Some(user) = &user {
            *self.users.entry(Arc::clone(user)).or_default() += 1;
        }
        let key = self.members.insert(Member { id, user, mailbox });
        self.by_id.insert(id, key);
        Key(key)
    }

    /// Lets a connection go. Does nothing when it has gone already.
    pub fn leave(&mut self, key: Key) {
        let Some(member) = self.members.try_remove(key.0) else { return };
        self.by_id.remove(&member.id);
        if let Some(user) = member.user {
            self.forget_one(&user);
        }
    }

    fn forget_one(&mut self, user: &str) {
        if let Some(connections) = self.users.get_mut(user) {
            *connections -= 1;
            if *connections == 0 {
                self.users.remove(user);
            }
        }
    }

    /// The connection is another user's from now on.
    pub fn change_user(&mut self, key: Key, user: Option<Arc<str>>) {
        let Some(member) = self.members.get_mut(key.0) else { return };
        let before = std::mem::replace(&mut member.user, user.clone());
        if let Some(user) = user {
            *self.users.entry(user).or_default() += 1;
        }
        if let Some(user) = before {
            self.forget_one(&user);
        }
    }

    /// Queues one frame, encoded once and shared, for each connection of the target.
    ///
    /// Nothing is written yet: several publications that come together leave together, see [`Hub::take_unwritten`].
    pub fn publish(&self, target: &Target, frame: &Bytes, limit_bytes: usize) -> Receipt {
        let mut receipt = Receipt::default();
        let mut unwritten = self.unwritten.borrow_mut();
        let mut deliver = |key: usize, member: &Member<M>| {
            receipt.reached += 1;
            match member.mailbox.outbox().push(frame.clone(), limit_bytes) {
                Queued::First => {
                    unwritten.push(key);
                    receipt.queued += 1;
                }
                Queued::Behind => receipt.queued += 1,
                Queued::Overflowed | Queued::Closed => receipt.dropped += 1,
            }
        };
        match target {
            Target::All => self.members.iter().for_each(|(key, member)| deliver(key, member)),
            Target::Connection(id) => {
                if let Some(&key) = self.by_id.get(id) {
                    deliver(key, &self.members[key]);
                }
            }
        }
        receipt
    }

    /// Takes up to `at_most` connections whose queue was empty before something was published to them: nobody else will
    /// write it out.
    pub fn take_unwritten(&self, at_most: usize) -> Vec<Rc<M>> {
        let mut unwritten = self.unwritten.borrow_mut();
        let rest = unwritten.len().saturating_sub(at_most);
        let taken = unwritten.drain(rest..).filter_map(|key| self.members.get(key));
        taken.map(|member| Rc::clone(&member.mailbox)).collect()
    }

    /// Whether [`Hub::take_unwritten`] has more to give.
    pub fn has_unwritten(&self) -> bool {
        !self.unwritten.borrow().is_empty()
    }

    /// The connection of this id.
    pub fn find(&self, id: u128) -> Option<&Rc<M>> {
        self.by_id.get(&id).map(|&key| &self.members[key].mailbox)
    }

    /// The connection that joined with this key, or, when it has left, the one that has its place now.
    pub fn at(&self, key: Key) -> Option<&Rc<M>> {
        self.members.get(key.0).map(|member| &member.mailbox)
    }

    /// All connections, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<M>> {
        self.members.iter().map(|(_, member)| &member.mailbox)
    }

    /// Users with at least one connection, with how many each has.
    pub fn users(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.users.iter().map(|(user, connections)| (user, *connections))
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Queue(Outbox);

    impl Mailbox for Queue {
        fn outbox(&self) -> &Outbox {
            &self.0
        }
    }

    fn hub_of(users: &[Option<&str>]) -> (Hub<Queue>, Vec<(Key, Rc<Queue>)>) {
        let mut hub = Hub::default();
        let members = (users.iter().enumerate())
            .map(|(id, user)| {
                let queue = Rc::new(Queue::default());
                (hub.join(id as u128, user.map(Arc::from), Rc::clone(&queue)), queue)
            })
            .collect();
        (hub, members)
    }

    #[test]
    fn a_push_to_all_reaches_every_connection_once() {
        let (hub, members) = hub_of(&[None, Some("1"), Some("12")]);
        let receipt = hub.publish(&Target::All, &Bytes::from_static(b"hi"), 100);
        assert_eq!(receipt, Receipt { reached: 3, queued: 3, dropped: 0 });
        assert!(members.iter().all(|(_, queue)| queue.0.queued_bytes() == 2));
    }

    #[test]
    fn a_push_to_a_connection_reaches_only_that_one() {
        let (hub, members) = hub_of(&[None, None]);
        let receipt = hub.publish(&Target::Connection(1), &Bytes::from_static(b"hi"), 100);
        assert_eq!((receipt.reached, members[0].1.0.queued_bytes()), (1, 0));
        assert_eq!(hub.publish(&Target::Connection(7), &Bytes::from_static(b"hi"), 100), Receipt::default());
    }

    #[test]
    fn every_queue_that_was_empty_is_to_be_written_out_once() {
        let (mut hub, members) = hub_of(&[None, None, None]);
        hub.publish(&Target::All, &Bytes::from_static(b"one"), 100);
        hub.publish(&Target::All, &Bytes::from_static(b"two"), 100);
        hub.leave(members[1].0);
        let mut bytes: Vec<usize> = hub.take_unwritten(2).iter().map(|queue| queue.0.queued_bytes()).collect();
        bytes.extend(hub.take_unwritten(2).iter().map(|queue| queue.0.queued_bytes()));
        assert_eq!(bytes, [6, 6]);
        assert!(hub.take_unwritten(2).is_empty());
    }

    #[test]
    fn a_user_is_present_as_long_as_one_connection_is() {
        let (mut hub, members) = hub_of(&[Some("1"), Some("1"), Some("12")]);
        hub.leave(members[0].0);
        hub.leave(members[0].0);
        assert_eq!(hub.users().find(|(user, _)| &***user == "1").map(|(_, count)| count), Some(1));
        hub.leave(members[1].0);
        assert_eq!(hub.users().count(), 1);
        assert_eq!(hub.len(), 1);
    }

    #[test]
    fn a_slow_reader_is_counted_as_dropped_and_others_are_not() {
        let (hub, members) = hub_of(&[None, None]);
        members[0].1.0.push(Bytes::from_static(&[0; 90]), 100);
        let receipt = hub.publish(&Target::All, &Bytes::from_static(&[0; 20]), 100);
        assert_eq!(receipt, Receipt { reached: 2, queued: 1, dropped: 1 });
        assert!(members[0].1.0.is_overflowed());
        assert!(!members[1].1.0.is_overflowed());
    }
}
