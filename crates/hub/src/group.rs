//! Names with the connections that have them. A name that one connection has, as nearly every user does, costs one word for it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Every name that a connection has.
#[derive(Debug, Default)]
pub(crate) struct Index {
    groups: HashMap<Arc<str>, Group>,
}

/// The keys of the connections that have one name; at least one.
#[derive(Debug)]
pub(crate) enum Group {
    One(usize),
    /// A set, because one of a hundred thousand must be found to leave.
    #[expect(clippy::box_collection, reason = "one word for the many that are alone")]
    Many(Box<HashSet<usize>>),
}

impl Index {
    pub(crate) fn get(&self, name: &str) -> Option<&Group> {
        self.groups.get(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.groups.iter().map(|(name, group)| (name, group.len()))
    }

    pub(crate) fn insert(&mut self, name: &Arc<str>, key: usize) {
        match self.groups.get_mut(name) {
            None => {
                self.groups.insert(Arc::clone(name), Group::One(key));
            }
            Some(group) => group.insert(key),
        }
    }

    pub(crate) fn remove(&mut self, name: &str, key: usize) {
        let Some(group) = self.groups.get_mut(name) else { return };
        match group {
            Group::One(only) if *only == key => {
                self.groups.remove(name);
                self.give_back();
            }
            Group::One(_) => {}
            Group::Many(keys) => {
                keys.remove(&key);
                if keys.len() == 1 {
                    *group = Group::One(keys.iter().copied().next().expect("the length was seen"));
                }
            }
        }
    }

    /// Moves a connection from one name to another.
    pub(crate) fn replace(&mut self, old: Option<Arc<str>>, new: Option<Arc<str>>, key: usize) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.remove(&old, key);
        }
        if let Some(new) = new {
            self.insert(&new, key);
        }
    }

    /// A crowd that has gone leaves no memory behind.
    fn give_back(&mut self) {
        if self.groups.capacity() > 64 && self.groups.len() < self.groups.capacity() / 8 {
            self.groups.shrink_to(self.groups.len() * 2);
        }
    }
}

impl Group {
    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(keys) => keys.len(),
        }
    }

    fn insert(&mut self, key: usize) {
        match self {
            Self::One(only) => *self = Self::Many(Box::new(HashSet::from([*only, key]))),
            Self::Many(keys) => {
                keys.insert(key);
            }
        }
    }

    pub(crate) fn for_each(&self, visit: impl FnMut(usize)) {
        match self {
            Self::One(key) => std::iter::once(*key).for_each(visit),
            Self::Many(keys) => keys.iter().copied().for_each(visit),
        }
    }
}
