//! FastCGI workers that wootz starts and keeps: each is a process with a listening socket of its own as descriptor 0.
//!
//! A thread of its own starts, watches, replaces and ends them through the spawner; shards lease one for each call. Laws: a worker has one
//! call at a time; a call that has begun is never run by another worker; a worker is never younger than its socket, which accepts at once.

mod calls;
mod directory;
mod fate;
mod keeper;
mod lease;
mod lines;
mod memory;
mod pool;
mod reload;
mod worker;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

pub use calls::KeptFastCgi;
pub use pool::WorkerState;

use crate::exec::{ExecSettings, Spawner};
use pool::{Rules, State};

/// How workers are kept, and calls run by them.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// How a worker is started: command, directory, variables, limits, user, grace. Limits hold for the whole life of a worker. And how calls are
    /// answered: `reply`, `frame`, `max_output_bytes`, and `timeout`, which counts from when a worker has the call; a worker that is slower is
    /// ended. A call that finds no free worker waits for one as long.
    pub process: ExecSettings,
    /// `SCRIPT_FILENAME`, for a worker that runs scripts, like `php-cgi`. A relative path is meant from the working directory.
    pub script: Option<PathBuf>,
    /// Parameters of every call, besides those of CGI, which win.
    pub parameters: Vec<(String, String)>,
    /// How long a call waits while no worker can be kept alive. Zero: as long as `timeout`.
    pub connect_timeout: Duration,
    /// How long a worker may say nothing to a call; one that says nothing for longer is ended. Zero: only `timeout` counts.
    pub first_byte_timeout: Duration,
    /// How many workers there are; at least 1. Calls beyond that wait in the order in which they came.
    pub workers: usize,
    /// A worker is replaced after about so many calls, and never runs more. 0: no limit.
    pub max_calls: u64,
    /// A worker that had no call for so long is ended, but for the last one; it is started again when calls wait. Zero: never.
    pub max_idle: Duration,
    /// A worker is replaced when it and its children have more resident memory after a call. 0: no limit.
    pub max_memory_bytes: u64,
    /// Whether changed files bring fresh workers.
    pub reload: Reload,
}

/// One worker, 1000 calls, 60 s, 256 MiB; 5 s to wait for one.
impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            process: ExecSettings::default(),
            script: None,
            parameters: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::ZERO,
            workers: 1,
            max_calls: 1000,
            max_idle: Duration::from_secs(60),
            max_memory_bytes: 256 << 20,
            reload: Reload::Never,
        }
    }
}

/// Whether workers are replaced when files of the application change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reload {
    /// They are not watched.
    #[default]
    Never,
    /// A change below the working directory of the workers replaces them, one by one.
    OnChange,
}

/// A worker as it is at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Its process.
    pub pid: u32,
    /// What it is doing.
    pub state: WorkerState,
    /// How long it runs.
    pub age: Duration,
    /// Calls that it has had.
    pub calls: u64,
    /// Resident memory of it and its children.
    pub memory_bytes: u64,
    /// Why the last of its calls that failed did.
    pub last_failure: Option<String>,
}

/// The kept workers of one application. Dropped, all are ended.
#[derive(Debug)]
pub struct Workers {
    settings: Arc<WorkerSettings>,
    pool: Arc<Pool>,
    /// Until they are stopped.
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// What the keeper and the shards share.
#[derive(Debug)]
struct Pool {
    state: Mutex<State>,
    /// Rung when the keeper has something to do.
    changed: Notify,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workers {
    /// Starts the keeper's thread, which starts the workers; does not wait for them.
    ///
    /// # Errors
    /// The command is missing or can't be run; there is no spawner, no thread, or no place for the sockets.
    pub fn start(settings: WorkerSettings, spawner: Arc<Spawner>) -> io::Result<Arc<Self>> {
        let rules = Rules {
            workers: settings.workers.max(1),
            max_calls: settings.max_calls,
            max_idle: settings.max_idle,
            max_memory_bytes: settings.max_memory_bytes,
            grace: settings.process.grace,
        };
        let settings = Arc::new(settings);
        let state = Mutex::new(State::new(rules, Instant::now()));
        let pool = Arc::new(Pool { state, changed: Notify::new() });
        let (tell, begun) = mpsc::channel();
        let (shared, of_keeper) = (Arc::clone(&pool), Arc::clone(&settings));
        let keeper = std::thread::Builder::new()
            .name("wootz-workers".to_owned())
            .spawn(move || keeper::run(&shared, &of_keeper, spawner, |result| drop(tell.send(result))))?;
        match begun.recv() {
            Ok(Ok(())) => Ok(Arc::new(Self { settings, pool, keeper: Mutex::new(Some(keeper)) })),
            Ok(Err(error)) => {
                let _ = keeper.join();
                Err(error)
            }
            Err(_ended) => Err(io::Error::other("the thread that keeps the workers ended at once")),
        }
    }

    /// All workers, in the order in which they were started.
    #[must_use]
    pub fn status(&self) -> Vec<WorkerStatus> {
        let now = Instant::now();
        let mut status: Vec<WorkerStatus> = {
            let state = self.pool.lock();
            let of_worker = |worker: &pool::Worker| {
                Some(WorkerStatus {
                    pid: worker.pid?,
                    state: worker.state,
                    age: now.saturating_duration_since(worker.since),
                    calls: worker.calls,
                    memory_bytes: 0,
                    last_failure: worker.last_failure.clone(),
                })
            };
            state.workers().filter_map(of_worker).collect()
        };
        for worker in &mut status {
            worker.memory_bytes = memory::resident_bytes(worker.pid);
        }
        status
    }

    /// Why no worker can be kept alive, where that is so.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.pool.lock().trouble().map(|trouble| trouble.what.clone())
    }

    /// Ends all workers and waits until they have ended: those without a call at once, others after their call or the grace; by KILL after the
    /// grace of that. No call is taken any more. Blocks for as long; a second call does nothing.
    pub fn stop(&self) {
        let Some(keeper) = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        self.pool.lock().stop(Instant::now());
        self.pool.changed.notify_one();
        // It has said in the log why, if it panicked.
        let _ = keeper.join();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}
