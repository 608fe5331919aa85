//! From a resolved runner to the applications of the shards, one each, and to what `wootz status` says about them.

use std::ffi::OsString;
use std::sync::Arc;

use anyhow::Context as _;
use wootz_runner::exec::{Exec, ExecSettings, Spawner};
use wootz_runner::fastcgi::{FastCgi, FastCgiSettings, KeptFastCgi, WorkerState, Workers};
use wootz_runner::http::{Http, HttpSettings};
use wootz_server::config::Config;
use wootz_server::{RunnerStatus, Server, WorkerStatus};

use crate::resolve::Runner;

/// What the applications of all shards share. Dropped, it ends what it has started, and waits for that.
pub(crate) enum Applications {
    Exec(Arc<ExecSettings>, Arc<Spawner>),
    FastCgi(Arc<FastCgiSettings>),
    Workers { workers: Arc<Workers>, program: String },
    Http(Arc<HttpSettings>),
}

impl Applications {
    /// Starts what runs beside the shards. While this process is small and has one thread: the spawner is a fork of it.
    ///
    /// # Errors
    /// A process can't be started.
    pub(crate) fn start(runner: Runner) -> anyhow::Result<Self> {
        Ok(match runner {
            Runner::Exec(settings) => Self::Exec(Arc::new(settings), spawner()?),
            Runner::FastCgi(settings) => Self::FastCgi(Arc::new(settings)),
            Runner::Workers(settings) => {
                let program = program(&settings.process.command);
                let workers = Workers::start(settings, spawner()?).context("the workers can't be started")?;
                Self::Workers { workers, program }
            }
            Runner::Http(settings) => Self::Http(Arc::new(settings)),
        })
    }

    /// The server whose shards run them.
    pub(crate) fn server(&self, config: Config) -> Server {
        let server = match self {
            Self::Exec(settings, spawner) => {
                let (settings, spawner) = (Arc::clone(settings), Arc::clone(spawner));
                Server::new(config, move || Exec::new(Arc::clone(&settings), Arc::clone(&spawner)))
            }
            Self::FastCgi(settings) => {
                let settings = Arc::clone(settings);
                Server::new(config, move || Ok(FastCgi::new(Arc::clone(&settings))))
            }
            Self::Workers { workers, .. } => {
                let workers = Arc::clone(workers);
                Server::new(config, move || Ok(KeptFastCgi::new(Arc::clone(&workers))))
            }
            Self::Http(settings) => {
                let settings = Arc::clone(settings);
                Server::new(config, move || Ok(Http::new(Arc::clone(&settings))))
            }
        };
        let status = self.status();
        match self {
            Self::Workers { workers, .. } => {
                let workers = Arc::clone(workers);
                server.runner_status(move || RunnerStatus {
                    workers: states(&workers),
                    left_alone: workers.trouble(),
                    ..status.clone()
                })
            }
            Self::Exec(..) | Self::FastCgi(_) | Self::Http(_) => server.runner_status(move || status.clone()),
        }
    }

    /// Which runner it is, and where the application is, without its workers.
    pub(crate) fn status(&self) -> RunnerStatus {
        let (runner, target) = match self {
            Self::Exec(settings, _) => ("exec", program(&settings.command)),
            Self::FastCgi(settings) => ("fastcgi", settings.address.to_string()),
            Self::Workers { program, .. } => ("fastcgi", program.clone()),
            Self::Http(settings) => ("http", settings.url.to_string()),
        };
        RunnerStatus { runner: runner.to_owned(), target, ..RunnerStatus::default() }
    }
}

impl Drop for Applications {
    fn drop(&mut self) {
        match self {
            // Handles of the server, which signals hold to the end, keep them from being dropped.
            Self::Workers { workers, .. } => workers.stop(),
            Self::Exec(..) | Self::FastCgi(_) | Self::Http(_) => {}
        }
    }
}

/// The workers as the status shows them.
fn states(workers: &Workers) -> Vec<WorkerStatus> {
    let shown = |worker: wootz_runner::fastcgi::WorkerStatus| WorkerStatus {
        pid: worker.pid,
        state: match worker.state {
            WorkerState::Starting => "starting",
            WorkerState::Idle => "idle",
            WorkerState::Busy => "busy",
            WorkerState::Ending => "ending",
        }
        .to_owned(),
        age_seconds: worker.age.as_secs(),
        calls: worker.calls,
        memory_bytes: worker.memory_bytes,
        last_failure: worker.last_failure,
    };
    workers.status().into_iter().map(shown).collect()
}

fn spawner() -> anyhow::Result<Arc<Spawner>> {
    Spawner::start().context("the process that starts calls can't be started")
}

/// The program alone: its arguments may hold what a log should not.
fn program(command: &[OsString]) -> String {
    command.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default()
}
