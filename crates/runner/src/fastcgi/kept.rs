//! Connections that are kept after an answer, for the next request.
//!
//! A php-fpm worker that holds a kept connection serves nobody else, so there are never more than were asked for, and none for longer
//! than `keep_idle` without use. A connection is kept only while all that are open are no more than that: with more calls than
//! kept connections some wait in the backlog for a worker, and a worker that is held by an idle connection would never serve them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::connect::Connection;

/// The idle connections of one shard. The lock is never waited for but by the task that closes what is idle for too long.
#[derive(Debug)]
pub(super) struct Kept {
    pool: Arc<Mutex<Pool>>,
    most: usize,
    idle_timeout: Duration,
}

#[derive(Debug, Default)]
struct Pool {
    /// The one that was used last is the last.
    idle: Vec<Idle>,
    /// Calls under way, each with a connection or on the way to one.
    calls: usize,
    /// Whether a task waits to close idle ones.
    watched: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

impl Kept {
    pub(super) fn new(most: usize, idle_timeout: Duration) -> Self {
        Self { pool: Arc::default(), most, idle_timeout }
    }

    /// Counts a call until its end.
    pub(super) fn begin(&self) -> Underway<'_> {
        lock(&self.pool).calls += 1;
        Underway { kept: self }
    }
}

/// A call under way.
#[derive(Debug)]
pub(super) struct Underway<'k> {
    kept: &'k Kept,
}

impl Underway<'_> {
    /// The connection that was used last among those that are still open.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut pool = lock(&self.kept.pool);
        while let Some(idle) = pool.idle.pop() {
            if idle.connection.is_quiet() {
                return Some(idle.connection);
            }
        }
        None
    }

    /// Keeps a connection where there is room, else closes it.
    pub(super) fn put(&self, connection: Connection) {
        let Kept { pool: shared, most, idle_timeout } = self.kept;
        let mut pool = lock(shared);
        if pool.idle.len() + pool.calls > *most {
            return;
        }
        pool.idle.push(Idle { connection, since: Instant::now() });
        if !pool.watched {
            pool.watched = true;
            tokio::spawn(close_idle(Arc::downgrade(shared), *idle_timeout));
        }
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        lock(&self.kept.pool).calls -= 1;
    }
}

/// Closes what was idle for too long, until nothing is left.
async fn close_idle(pool: Weak<Mutex<Pool>>, idle_timeout: Duration) {
    while let Some(shared) = pool.upgrade() {
        let next = {
            let mut pool = lock(&shared);
            pool.idle.retain(|idle| idle.since.elapsed() < idle_timeout);
            let Some(oldest) = pool.idle.first() else {
                pool.watched = false;
                return;
            };
            oldest.since + idle_timeout
        };
        drop(shared);
        tokio::time::sleep_until(next.into()).await;
    }
}

fn lock(pool: &Mutex<Pool>) -> MutexGuard<'_, Pool> {
    // Nothing that holds the lock leaves the pool half changed.
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}
