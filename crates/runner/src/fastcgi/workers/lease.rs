//! A call's hold on a worker: nobody else has it in the meantime, and it comes back whatever becomes of the call.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;
use tokio::sync::oneshot;

use super::super::connect::Connection;
use super::super::unix::UnixSocket;
use super::Pool;
use super::fate::Obituary;
use super::pool::{Address, Returned};

/// How long the end of a worker may take to be known after the end of its connection.
const NEWS_OF_DEATH: Duration = Duration::from_millis(250);

/// A worker that this call has. Dropped, it goes back: unused, or after it is done with what the call has begun.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Arc<Pool>,
    address: Address,
    connection: Option<Connection>,
    held: Held,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Yes,
    GivenBack,
}

/// A place in the queue for a worker. Dropped, it is left, and a worker that was given to it a moment ago goes back.
#[derive(Debug)]
pub(super) struct Place {
    pool: Arc<Pool>,
    wait: oneshot::Receiver<Address>,
}

/// What a call gets that asks for a worker.
#[derive(Debug)]
pub(super) enum Asked {
    Lease(Lease),
    Place(Place),
    /// All are being stopped.
    Stopped,
}

pub(super) fn ask(pool: &Arc<Pool>) -> Asked {
    let asked = pool.lock().lease();
    match asked {
        None => Asked::Stopped,
        Some(Ok(address)) => Asked::Lease(Lease::new(pool, address)),
        Some(Err(wait)) => {
            // More workers may be started.
            pool.changed.notify_one();
            Asked::Place(Place { pool: Arc::clone(pool), wait })
        }
    }
}

impl Place {
    /// Waits for its turn; `None` when all are stopped.
    ///
    /// # Cancel safety
    /// The place is kept.
    pub(super) async fn turn(&mut self) -> Option<Lease> {
        let address = (&mut self.wait).await.ok()?;
        Some(Lease::new(&self.pool, address))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.wait.close();
        if let Ok(address) = self.wait.try_recv() {
            give_back(&self.pool, &address, Returned::Unused);
        }
    }
}

fn give_back(pool: &Pool, address: &Address, returned: Returned) {
    let keeper_is_needed = pool.lock().take_back(address.id, returned, Instant::now());
    if keeper_is_needed {
        pool.changed.notify_one();
    }
}

impl Lease {
    fn new(pool: &Arc<Pool>, address: Address) -> Self {
        Self { pool: Arc::clone(pool), address, connection: None, held: Held::Yes }
    }

    /// The worker by its name in errors.
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.address.name)
    }

    /// Connects to the worker; at once, because its socket accepts for it.
    pub(super) fn connect(&mut self) -> io::Result<&mut Connection> {
        let connection = UnixSocket::connect(&self.address.socket)?;
        Ok(self.connection.insert(Connection::Unix(connection)))
    }

    /// The worker has answered.
    pub(super) fn answered(mut self) {
        // Closed first: the next call may be there at once.
        self.connection = None;
        self.give_back(Returned::Answered);
    }

    /// The worker is not done with the call in the time that it has.
    pub(super) fn hung(mut self) {
        self.give_back(Returned::Hung("a call took too long"));
    }

    /// The worker took no connection. It has died, or does not listen.
    pub(super) async fn refused(mut self) {
        self.connection = None;
        if self.obituary().await.is_none() {
            self.give_back(Returned::Deaf);
        }
    }

    /// A call has failed, for this reason; the worker may go on once it is done with it.
    pub(super) fn failed(self, what: String) {
        self.pool.lock().note_failure(self.address.id, what);
    }

    /// How the worker died, when it has closed the connection because of that.
    pub(super) async fn death(&mut self) -> Option<Obituary> {
        let is_open = self.connection.as_ref().is_some_and(is_open);
        if is_open { None } else { self.obituary().await }
    }

    async fn obituary(&mut self) -> Option<Obituary> {
        let news = self.address.fate.wait_for(Option::is_some);
        tokio::time::timeout(NEWS_OF_DEATH, news).await.ok()?.ok()?.clone()
    }

    fn give_back(&mut self, returned: Returned) {
        self.held = Held::GivenBack;
        give_back(&self.pool, &self.address, returned);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.held == Held::GivenBack {
            return;
        }
        let Some(Connection::Unix(connection)) = self.connection.take() else {
            return self.give_back(Returned::Unused);
        };
        self.pool.lock().abandon(self.address.id, connection.into_std());
        self.pool.changed.notify_one();
    }
}

/// Whether there is something to read, or may be later.
fn is_open(connection: &Connection) -> bool {
    let mut byte = [0];
    match rustix::net::recv(connection, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((length, _)) => length > 0,
        Err(error) => error == rustix::io::Errno::AGAIN,
    }
}
