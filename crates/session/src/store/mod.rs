//! Where a site keeps its sessions. They are read, and never created, changed, prolonged or kept locked.
//!
//! A [`Store`] belongs to one thread. It connects with the first read and not before, so a store that is down when wootz
//! starts is no reason not to start. Every wait ends by [`StoreOptions::deadline`], and dropping any future is safe:
//! locks are given back with the file, and a connection in the middle of an answer is closed with it.

mod error;
mod files;
#[cfg(any(feature = "redis", feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod gate;
mod query;
#[cfg(feature = "redis")]
mod redis;
mod settings;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod sql;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use bytes::Bytes;

pub use error::StoreError;
pub use query::Query;
pub use settings::{Database, FilesSettings, RedisAddress, RedisSettings, SqlSettings, StoreSettings};

use crate::SessionId;

/// How a store is read.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// How long a session lives that nobody uses: PHP's `session.gc_maxlifetime`. Files and Laravel's table need it;
    /// Redis and the other tables say themselves when a session ends. 24 minutes.
    pub max_age: Duration,
    /// The largest session that is read. A larger one is an error of its own, [`StoreError::TooLarge`]. 1 MiB.
    pub max_bytes: usize,
    /// The longest that a read waits: for PHP's lock, a connection, an answer. Two seconds.
    pub deadline: Duration,
    /// How a database is asked. [`Query::CarbonPhp`].
    pub query: Query,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(24 * 60),
            max_bytes: 1024 * 1024,
            deadline: Duration::from_secs(2),
            query: Query::CarbonPhp,
        }
    }
}

/// What a store keeps of one session.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// The session, serialized as the site does it. Empty for a session in which nothing was stored.
    pub data: Bytes,
    /// The user, where a table has a column for it; `None` also for an empty one and 0.
    pub user: Option<String>,
    /// The browser's address, where a table has a column for it.
    pub address: Option<String>,
    /// What [`Store::recheck`] compares.
    pub version: Version,
}

/// Never the session itself: a log must not have it.
impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({} bytes)", self.data.len())
    }
}

/// Which state of a session was read. It means something to the store that gave it only, and is not worth keeping longer
/// than that store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(u64);

impl Version {
    /// Equal to no state: what was read may have been changed since without leaving a trace.
    const UNSETTLED: Self = Self(0);

    fn is(self, other: Self) -> bool {
        self != Self::UNSETTLED && self == other
    }
}

/// What has become of a session.
#[derive(Debug, Clone)]
pub enum Recheck {
    /// It is as it was.
    Same,
    /// It was destroyed or has expired.
    Gone,
    /// It was written to. What is in it may still be the same.
    Changed(Record),
    /// It can't be read now; [`StoreError::is_temporary`] says whether to ask again.
    Unreadable(StoreError),
}

impl Recheck {
    fn of(found: Result<Option<Record>, StoreError>, known: Version) -> Self {
        match found {
            Ok(Some(record)) if known.is(record.version) => Self::Same,
            Ok(Some(record)) => Self::Changed(record),
            Ok(None) => Self::Gone,
            Err(error) => Self::Unreadable(error),
        }
    }
}

/// Sessions, as one thread reads them.
#[derive(Debug)]
pub struct Store {
    backend: Backend,
}

#[derive(Debug)]
enum Backend {
    Files(files::Files),
    #[cfg(feature = "redis")]
    Redis(Box<redis::Redis>),
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    Sql(Box<sql::Sql>),
}

impl Store {
    /// A store that has not been asked anything yet. It opens and connects nothing.
    ///
    /// # Errors
    /// The settings can't work: a certificate that can't be read, a URL that the database's client refuses, a database
    /// that this build can't ask.
    pub fn new(settings: StoreSettings, options: StoreOptions) -> Result<Self, StoreError> {
        let backend = match settings {
            StoreSettings::Files(settings) => Backend::Files(files::Files::new(settings, &options)),
            #[cfg(feature = "redis")]
            StoreSettings::Redis(settings) => Backend::Redis(Box::new(redis::Redis::new(&settings, &options)?)),
            #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
            StoreSettings::Sql(settings) => Backend::Sql(Box::new(sql::Sql::new(&settings, &options)?)),
            #[cfg(not(all(feature = "redis", any(feature = "mysql", feature = "postgres", feature = "sqlite"))))]
            _ => return Err(StoreError::Settings("this build of wootz can't read such a store".to_owned())),
        };
        Ok(Self { backend })
    }

    /// Reads a session. `None`: there is none of this id, or it has expired.
    ///
    /// # Errors
    /// Whatever stands between wootz and the session; it says nothing about whether there is one.
    ///
    /// # Cancel safety
    /// Dropping the future gives back locks and connections.
    pub async fn read(&self, id: &SessionId) -> Result<Option<Record>, StoreError> {
        match &self.backend {
            Backend::Files(files) => files.read(id).await,
            #[cfg(feature = "redis")]
            Backend::Redis(redis) => redis.read(id).await,
            #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
            Backend::Sql(sql) => sql.read(id).await,
        }
    }

    /// Looks again at sessions that were read: one answer for each, in this order. A file that was not written to costs
    /// one `statx`; other stores are asked for many at once. Files that PHP has locked right now are not waited for.
    ///
    /// The thread is given to others between batches, so the list may be long; a database or Redis that is slow may take
    /// the deadline for each batch of a hundred and more.
    ///
    /// # Errors
    /// Those of the store as a whole: nothing is known about any of the sessions. What concerns one of them is
    /// [`Recheck::Unreadable`].
    ///
    /// # Cancel safety
    /// As [`read`](Self::read).
    pub async fn recheck(&self, known: &[(SessionId, Version)]) -> Result<Vec<Recheck>, StoreError> {
        match &self.backend {
            Backend::Files(files) => files.recheck(known).await,
            #[cfg(feature = "redis")]
            Backend::Redis(redis) => redis.recheck(known).await,
            #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
            Backend::Sql(sql) => sql.recheck(known).await,
        }
    }
}

/// Makes versions. The key is this store's own, so nobody can write a session that looks like another.
#[derive(Debug, Default)]
struct Versions(RandomState);

impl Versions {
    fn of(&self, state: impl std::hash::Hash) -> Version {
        Version(self.0.hash_one(state).max(1))
    }
}
