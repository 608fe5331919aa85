//! The thread that keeps the workers: it does what the pool's plan says, and sleeps until something happens.

use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use super::directory::{Owner, SocketDirectory};
use super::pool::{Returned, WorkerId};
use super::{Pool, Reload, WorkerSettings, memory, reload, worker};
use crate::exec::{Launcher, Spawner};

/// What all workers of the pool share.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) pool: Arc<Pool>,
    pub(super) launcher: Launcher,
    pub(super) directory: SocketDirectory,
    /// The command, as the log shows it.
    pub(super) command: String,
    /// How long a worker may take to be done with a call that nobody waits for.
    grace: Duration,
}

/// Runs until the workers are stopped. `tell` is told once whether they are kept.
pub(super) fn run(
    pool: &Arc<Pool>,
    settings: &Arc<WorkerSettings>,
    spawner: Arc<Spawner>,
    tell: impl FnOnce(io::Result<()>),
) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return tell(Err(error)),
    };
    runtime.block_on(async {
        match Keeper::new(Arc::clone(pool), settings, spawner) {
            Ok(keeper) => {
                let _watcher = watch(&keeper, settings.reload);
                tell(Ok(()));
                Rc::new(keeper).keep().await;
            }
            Err(error) => tell(Err(error)),
        }
    });
}

fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

/// Without the watch, workers are kept all the same.
fn watch(keeper: &Keeper, how: Reload) -> Option<reload::Watcher> {
    match how {
        Reload::Never => None,
        Reload::OnChange => {
            let directory = keeper.launcher.directory();
            reload::watch(directory, Arc::clone(&keeper.pool))
                .inspect_err(|error| {
                    tracing::warn!(directory = %directory.display(), %error, "changes of files bring no fresh workers");
                })
                .ok()
        }
    }
}

impl Keeper {
    fn new(pool: Arc<Pool>, settings: &WorkerSettings, spawner: Arc<Spawner>) -> io::Result<Self> {
        let process = &settings.process;
        let launcher = Launcher::new(Arc::new(process.clone()), spawner)?;
        launcher.program().map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
        let directory = SocketDirectory::new(Owner { user: process.user, group: process.group })?;
        let command = process.command.join(&OsString::from(" ")).display().to_string();
        Ok(Self { pool, launcher, directory, command, grace: process.grace })
    }

    async fn keep(self: Rc<Self>) {
        loop {
            self.measure();
            let now = Instant::now();
            let (plan, abandoned) = {
                let mut state = self.pool.lock();
                if state.is_over(now) {
                    return;
                }
                (state.plan(now), state.take_abandoned())
            };
            for (id, end) in plan.start {
                tokio::task::spawn_local(worker::run(Rc::clone(&self), id, end));
            }
            for (id, connection) in abandoned {
                tokio::task::spawn_local(Rc::clone(&self).finish(id, connection));
            }
            let next = async {
                match plan.next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.pool.changed.notified() => {}
                () = next => {}
            }
        }
    }

    fn measure(&self) {
        let workers = self.pool.lock().due_for_measuring(Instant::now());
        for (id, pid) in workers {
            let memory_bytes = memory::resident_bytes(pid);
            self.pool.lock().measured(id, memory_bytes);
        }
    }

    /// Waits until a worker is done with a call that was given up: it has closed the connection. One that is not, is ended.
    async fn finish(self: Rc<Self>, id: WorkerId, connection: StdUnixStream) {
        let closed = tokio::time::timeout(self.grace, read_to_end(connection)).await;
        let returned = match closed {
            Ok(()) => Returned::Finished,
            Err(_late) => Returned::Hung("it went on with a call that had been given up"),
        };
        self.pool.lock().take_back(id, returned, Instant::now());
        self.pool.changed.notify_one();
    }
}

async fn read_to_end(connection: StdUnixStream) {
    let Ok(mut connection) = UnixStream::from_std(connection) else { return };
    let mut unwanted = vec![0; 16 * 1024];
    while let Ok(1..) = connection.read(&mut unwanted).await {}
}
