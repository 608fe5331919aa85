//! The connections of one shard by their id, user, session and channels, each with a bounded queue.
//!
//! The hub knows ids, names and queues, never sockets, frames' meaning or calls. It belongs to one thread: nothing here locks. A
//! name is matched whole, byte for byte; nothing is a pattern. A name that nobody has any more is forgotten.

mod group;
mod outbox;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;

use group::Index;
pub use outbox::{Outbox, Queued, Watch};

/// Where a connection stands in its hub; good until it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(usize);

/// Who something published is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Every connection.
    All,
    /// All connections of a user, by the exact id.
    User(Arc<str>),
    /// All connections of a session, by its exact id.
    Session(Arc<str>),
    /// One connection, by its id.
    Connection(u128),
    /// The connections in a channel, by its exact name.
    Channel(Arc<str>),
}

/// What became of something published. `reached` is the sum of the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Connections that the target named.
    pub reached: u64,
    /// Of those, the ones that took it.
    pub queued: u64,
    /// Of those, the ones that were too slow, closing, or had no room.
    pub dropped: u64,
    /// Of those, the ones that had the same waiting already, and share it.
    pub joined: u64,
}

impl std::ops::AddAssign for Receipt {
    fn add_assign(&mut self, other: Self) {
        self.reached += other.reached;
        self.queued += other.queued;
        self.dropped += other.dropped;
        self.joined += other.joined;
    }
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
    users: Index,
    sessions: Index,
    channels: Index,
    /// Members whose queue got its first frame, until somebody writes it out. Keys of members that left may be among them.
    unwritten: RefCell<Vec<usize>>,
}

#[derive(Debug)]
struct Member<M> {
    id: u128,
    user: Option<Arc<str>>,
    session: Option<Arc<str>>,
    mailbox: Rc<M>,
    /// A connection in no channel owns no list.
    #[expect(clippy::box_collection, reason = "one word while it is in none, which is mostly so")]
    channels: Option<Box<Vec<Arc<str>>>>,
}

/// A connection as others may see it.
#[derive(Debug, Clone, Copy)]
pub struct View<'h, M> {
    /// Its id.
    pub id: u128,
    /// Its user; `None` is a guest.
    pub user: Option<&'h Arc<str>>,
    /// What the shard keeps for it.
    pub mailbox: &'h Rc<M>,
    /// The channels that it is in, in the order in which it joined.
    pub channels: &'h [Arc<str>],
}

/// What became of the wish to put a connection into a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// It is in now.
    Now,
    /// It was in already.
    Before,
    /// It is in as many channels as it may be.
    TooMany,
    /// There is no such connection.
    Gone,
}

/// What became of the wish to take a connection out of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It is out now.
    Now,
    /// It was not in.
    Before,
    /// There is no such connection.
    Gone,
}

impl<M> Default for Hub<M> {
    fn default() -> Self {
        Self {
            members: Slab::new(),
            by_id: HashMap::new(),
            users: Index::default(),
            sessions: Index::default(),
            channels: Index::default(),
            unwritten: RefCell::default(),
        }
    }
}

impl<M: Mailbox> Hub<M> {
    /// Takes a connection in.
    pub fn join(&mut self, id: u128, user: Option<Arc<str>>, session: Option<Arc<str>>, mailbox: Rc<M>) -> Key {
        let key = self.members.insert(Member { id, user: None, session: None, mailbox, channels: None });
        self.by_id.insert(id, key);
        self.identify(Key(key), user, session);
        Key(key)
    }

    /// Gives a connection another user and another session from now on. Its channels stay. Does nothing when it has left.
    pub fn identify(&mut self, key: Key, user: Option<Arc<str>>, session: Option<Arc<str>>) {
        let Some(member) = self.members.get_mut(key.0) else { return };
        self.users.replace(std::mem::replace(&mut member.user, user.clone()), user, key.0);
        self.sessions.replace(std::mem::replace(&mut member.session, session.clone()), session, key.0);
    }

    /// Lets a connection go, and gives the channels that it was in. Does nothing when it has gone already.
    pub fn leave(&mut self, key: Key) -> Vec<Arc<str>> {
        let Some(member) = self.members.try_remove(key.0) else { return Vec::new() };
        self.by_id.remove(&member.id);
        self.users.replace(member.user, None, key.0);
        self.sessions.replace(member.session, None, key.0);
        let channels = member.channels.map_or_else(Vec::new, |channels| *channels);
        for channel in &channels {
            self.channels.remove(channel, key.0);
        }
        channels
    }

    /// Puts a connection into a channel, unless it is in `at_most` already.
    pub fn join_channel(&mut self, id: u128, channel: &Arc<str>, at_most: usize) -> Joined {
        let Some(&key) = self.by_id.get(&id) else { return Joined::Gone };
        let channels = &mut self.members[key].channels;
        let of_member = channels.as_ref().map_or(&[][..], |channels| channels);
        if of_member.contains(channel) {
            return Joined::Before;
        }
        if of_member.len() >= at_most {
            return Joined::TooMany;
        }
        channels.get_or_insert_default().push(Arc::clone(channel));
        self.channels.insert(channel, key);
        Joined::Now
    }

    /// Takes a connection out of a channel.
    pub fn leave_channel(&mut self, id: u128, channel: &str) -> Left {
        let Some(&key) = self.by_id.get(&id) else { return Left::Gone };
        let channels = &mut self.members[key].channels;
        let place = channels.as_ref().and_then(|channels| channels.iter().position(|name| **name == *channel));
        let (Some(list), Some(place)) = (channels.as_mut(), place) else { return Left::Before };
        list.remove(place);
        if list.is_empty() {
            *channels = None;
        }
        self.channels.remove(channel, key);
        Left::Now
    }

    /// Whether somebody is in this channel.
    pub fn has_channel(&self, channel: &str) -> bool {
        self.channels.get(channel).is_some()
    }

    /// Channels that somebody is in, with how many connections are.
    pub fn channels(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.channels.iter()
    }

    /// Queues one frame, encoded once and shared, for each connection of the target.
    ///
    /// Nothing is written yet: several publications that come together leave together, see [`Hub::take_unwritten`]. `watch` is
    /// told for each connection when the frame has left.
    pub fn publish(
        &self,
        target: &Target,
        frame: &Bytes,
        limit_bytes: usize,
        watch: Option<&Arc<dyn Watch>>,
    ) -> Receipt {
        let mut receipt = Receipt::default();
        self.for_each(target, |key, _| receipt += self.give(key, frame, limit_bytes, watch));
        receipt
    }

    /// The same for those connections of the target that are this user's.
    pub fn publish_to_user(&self, target: &Target, user: &str, frame: &Bytes, limit_bytes: usize) -> Receipt {
        let mut receipt = Receipt::default();
        self.for_each(target, |key, member| {
            if member.user.as_deref() == Some(user) {
                receipt += self.give(key, frame, limit_bytes, None);
            }
        });
        receipt
    }

    fn give(&self, key: usize, frame: &Bytes, limit_bytes: usize, watch: Option<&Arc<dyn Watch>>) -> Receipt {
        let outbox = self.members[key].mailbox.outbox();
        let queued = outbox.push(frame.clone(), limit_bytes);
        match queued {
            Queued::First | Queued::Behind => {
                if let Some(watch) = watch {
                    outbox.watch(Arc::clone(watch));
                }
                if queued == Queued::First {
                    self.unwritten.borrow_mut().push(key);
                }
                Receipt { reached: 1, queued: 1, ..Receipt::default() }
            }
            Queued::Overflowed | Queued::Closed => Receipt { reached: 1, dropped: 1, ..Receipt::default() },
        }
    }

    fn for_each(&self, target: &Target, mut visit: impl FnMut(usize, &Member<M>)) {
        let group = match target {
            Target::All => return self.members.iter().for_each(|(key, member)| visit(key, member)),
            Target::Connection(id) => {
                return self.by_id.get(id).into_iter().for_each(|&key| visit(key, &self.members[key]));
            }
            Target::User(user) => self.users.get(user),
            Target::Session(session) => self.sessions.get(session),
            Target::Channel(channel) => self.channels.get(channel),
        };
        group.into_iter().for_each(|group| group.for_each(|key| visit(key, &self.members[key])));
    }

    /// The connections of a target, as others may see them.
    pub fn visit(&self, target: &Target, mut visit: impl FnMut(View<'_, M>)) {
        self.for_each(target, |_, member| visit(member.view()));
    }

    /// The connection of this id, as others may see it.
    pub fn view(&self, id: u128) -> Option<View<'_, M>> {
        self.by_id.get(&id).map(|&key| self.members[key].view())
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
        self.users.iter()
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

impl<M> Member<M> {
    fn view(&self) -> View<'_, M> {
        let channels = self.channels.as_ref().map_or(&[][..], |channels| channels);
        View { id: self.id, user: self.user.as_ref(), mailbox: &self.mailbox, channels }
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
                (hub.join(id as u128, user.map(Arc::from), None, Rc::clone(&queue)), queue)
            })
            .collect();
        (hub, members)
    }

    #[test]
    fn a_push_to_all_reaches_every_connection_once() {
        let (hub, members) = hub_of(&[None, Some("1"), Some("12")]);
        let receipt = hub.publish(&Target::All, &Bytes::from_static(b"hi"), 100, None);
        assert_eq!(receipt, Receipt { reached: 3, queued: 3, ..Receipt::default() });
        assert!(members.iter().all(|(_, queue)| queue.0.queued_bytes() == 2));
    }

    #[test]
    fn a_push_to_a_connection_reaches_only_that_one() {
        let (hub, members) = hub_of(&[None, None]);
        let receipt = hub.publish(&Target::Connection(1), &Bytes::from_static(b"hi"), 100, None);
        assert_eq!((receipt.reached, members[0].1.0.queued_bytes()), (1, 0));
        assert_eq!(hub.publish(&Target::Connection(7), &Bytes::from_static(b"hi"), 100, None), Receipt::default());
    }

    #[test]
    fn every_queue_that_was_empty_is_to_be_written_out_once() {
        let (mut hub, members) = hub_of(&[None, None, None]);
        hub.publish(&Target::All, &Bytes::from_static(b"one"), 100, None);
        hub.publish(&Target::All, &Bytes::from_static(b"two"), 100, None);
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
        let receipt = hub.publish(&Target::All, &Bytes::from_static(&[0; 20]), 100, None);
        assert_eq!(receipt, Receipt { reached: 2, queued: 1, dropped: 1, joined: 0 });
        assert!(members[0].1.0.is_overflowed());
        assert!(!members[1].1.0.is_overflowed());
    }

    fn queued(members: &[(Key, Rc<Queue>)]) -> Vec<usize> {
        members.iter().map(|(_, queue)| queue.0.queued_bytes()).collect()
    }

    #[test]
    fn a_name_reaches_exactly_those_that_have_it_and_no_name_is_a_pattern() {
        let (mut hub, members) = hub_of(&[Some("1"), Some("12"), Some("*"), Some("[1]"), Some("../1"), None]);
        let hi = Bytes::from_static(b"hi");
        assert_eq!(hub.publish(&Target::User("1".into()), &hi, 100, None).reached, 1);
        assert_eq!(queued(&members), [2, 0, 0, 0, 0, 0]);
        assert_eq!(hub.publish(&Target::User("*".into()), &hi, 100, None).reached, 1);
        for nobody in ["", "?", "1*", "01", "1 ", "../", "None"] {
            assert_eq!(hub.publish(&Target::User(nobody.into()), &hi, 100, None), Receipt::default(), "{nobody}");
        }
        hub.identify(members[5].0, None, Some("1".into()));
        assert_eq!(hub.publish(&Target::Session("1".into()), &hi, 100, None).reached, 1);
        assert_eq!(queued(&members), [2, 0, 2, 0, 0, 2]);
    }

    #[test]
    fn a_connection_whose_user_changes_is_found_under_the_new_one_only() {
        let (mut hub, members) = hub_of(&[Some("1"), Some("1")]);
        hub.identify(members[0].0, Some("2".into()), Some("s".into()));
        let hi = Bytes::from_static(b"hi");
        for (target, reached) in
            [(Target::User("1".into()), 1), (Target::User("2".into()), 1), (Target::Session("s".into()), 1)]
        {
            assert_eq!(hub.publish(&target, &hi, 100, None).reached, reached, "{target:?}");
        }
        hub.leave(members[0].0);
        assert_eq!(hub.publish(&Target::Session("s".into()), &hi, 100, None).reached, 0);
        assert_eq!(hub.users().count(), 1);
    }

    #[test]
    fn a_channel_is_there_as_long_as_somebody_is_in_it() {
        let (mut hub, members) = hub_of(&[None, Some("1"), Some("1")]);
        let news: Arc<str> = "news".into();
        assert_eq!(hub.join_channel(0, &news, 2), Joined::Now);
        assert_eq!(hub.join_channel(0, &news, 2), Joined::Before);
        assert_eq!(hub.join_channel(1, &news, 2), Joined::Now);
        assert_eq!(hub.join_channel(0, &"b".into(), 2), Joined::Now);
        assert_eq!(hub.join_channel(0, &"c".into(), 2), Joined::TooMany);
        assert_eq!(hub.join_channel(9, &news, 2), Joined::Gone);
        assert_eq!(hub.publish(&Target::Channel(news), &Bytes::from_static(b"hi"), 100, None).reached, 2);
        assert_eq!(queued(&members), [2, 2, 0]);
        assert_eq!(hub.leave_channel(1, "news"), Left::Now);
        assert_eq!(hub.leave_channel(1, "news"), Left::Before);
        assert_eq!(hub.leave_channel(9, "news"), Left::Gone);
        assert_eq!(hub.leave(members[0].0).len(), 2);
        assert_eq!(hub.channels().count(), 0);
    }

    #[test]
    fn output_for_one_user_reaches_only_those_of_the_target_that_are_theirs() {
        let (mut hub, members) = hub_of(&[Some("1"), Some("1"), Some("2")]);
        let news: Arc<str> = "news".into();
        for id in [0, 2] {
            hub.join_channel(id, &news, 2);
        }
        let receipt = hub.publish_to_user(&Target::Channel(news), "1", &Bytes::from_static(b"hi"), 100);
        assert_eq!((receipt.reached, queued(&members)), (1, vec![2, 0, 0]));
    }
}
