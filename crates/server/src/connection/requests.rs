//! Requests that were pushed to one connection and have not begun to run.
//!
//! An equal one that comes meanwhile is not run again: what it would print is about to be printed anyhow. From the moment in which
//! a request runs, the next equal one is another.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use wootz_hub::Watch;
use wootz_runner::Message;

use crate::dispatch::Place;
use crate::push::{Part, Tally};

/// Requests that may wait in a mailbox until the driver looks: a pipe is read only while there is room for more.
const MAX_UNSEEN: usize = 16;

/// Different requests that may wait for one connection, seen by the driver or not.
const MAX_WAITING: usize = 64;

/// How much room a door asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// As much as a connection has: what does not fit is counted as dropped.
    Waiting,
    /// Less: the door waits itself.
    Mailbox,
}

/// One pushed request from its push to its end.
#[derive(Debug)]
pub(crate) struct Pushed {
    message: Message,
    /// Its place among all that wait, until it runs.
    place: RefCell<Option<Place>>,
    /// Those who want to know when its output is out.
    tallies: RefCell<Vec<(Arc<Tally>, Part)>>,
}

impl Pushed {
    pub(crate) fn new(message: Message, place: Option<Place>, tally: Option<(Arc<Tally>, Part)>) -> Rc<Self> {
        let tallies = tally.into_iter().collect();
        Rc::new(Self { message, place: RefCell::new(place), tallies: RefCell::new(tallies) })
    }

    pub(crate) fn message(&self) -> &Message {
        &self.message
    }

    pub(crate) fn has_place(&self) -> bool {
        self.place.borrow().is_some()
    }

    /// It has ended, or was never counted: nobody is told anything more.
    pub(crate) fn settle(&self) {
        self.tallies.borrow_mut().clear();
    }

    /// Those who are to be told when its output has left.
    pub(crate) fn take_watchers(&self) -> impl Iterator<Item = Arc<dyn Watch>> {
        self.tallies.take().into_iter().map(|(tally, _)| tally as Arc<dyn Watch>)
    }
}

/// One that has not run to its end is counted as dropped.
impl Drop for Pushed {
    fn drop(&mut self) {
        for (tally, part) in self.tallies.take() {
            tally.give_up(part);
        }
    }
}

/// The pushed requests of one connection. A connection without any owns none of this.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    unseen: VecDeque<Rc<Pushed>>,
    waiting: Vec<Rc<Pushed>>,
}

impl Requests {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn has_unseen(&self) -> bool {
        !self.unseen.is_empty()
    }

    /// Lets a push share a request that waits already.
    pub(crate) fn join(&self, message: &Message, tally: Option<Arc<Tally>>) -> bool {
        let Some(equal) = self.waiting.iter().find(|pushed| pushed.message == *message) else { return false };
        equal.tallies.borrow_mut().extend(tally.map(|tally| (tally, Part::Joined)));
        true
    }

    pub(crate) fn push(&mut self, pushed: Rc<Pushed>, room: Room) -> Result<(), Rc<Pushed>> {
        let most_unseen = match room {
            Room::Waiting => MAX_WAITING,
            Room::Mailbox => MAX_UNSEEN,
        };
        if self.unseen.len() >= most_unseen || self.waiting.len() >= MAX_WAITING {
            return Err(pushed);
        }
        self.waiting.push(Rc::clone(&pushed));
        self.unseen.push_back(pushed);
        Ok(())
    }

    pub(crate) fn take_unseen(&mut self) -> Option<Rc<Pushed>> {
        self.unseen.pop_front()
    }

    /// It runs, or never will: nobody can share it any more, and its place is free.
    pub(crate) fn forget(&mut self, begun: &Rc<Pushed>) {
        begun.place.replace(None);
        self.waiting.retain(|waiting| !Rc::ptr_eq(waiting, begun));
    }
}
