//! The runner `exec`: each call is a fresh process.
//!
//! The server never forks. A small spawner process ([`Spawner`]), started before the server has threads or memory, starts
//! the calls; each shard talks to it over a Unix socket of its own and keeps only the ends of three pipes per call.
//!
//! A program that uses this must leave `SIGPIPE` ignored, as Rust's runtime does: an application need not read its input.

mod client;
mod launcher;
mod output;
mod process;
mod program;
mod run;
mod spawner;
mod supervisor;
mod wire;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub use client::SpawnerClient;
pub(crate) use client::{End, Process};
pub(crate) use launcher::{Launched, Launcher, Program};
pub(crate) use output::ReadEnd;
pub use program::find_program;
pub use run::Exec;
pub use supervisor::{Spawner, run_if_spawner};
pub(crate) use wire::Ended;

use crate::reply::{FrameMode, ReplyMode};

/// How calls are run as processes.
#[derive(Debug, Clone)]
pub struct ExecSettings {
    /// The program and its arguments. A program without a slash is looked for in the `PATH` that the call gets; one with a slash
    /// is relative to `directory`.
    pub command: Vec<OsString>,
    /// Working directory of the calls; a relative one is meant from the server's own.
    pub directory: PathBuf,
    /// Variables of every call, besides those of CGI, which win.
    pub environment: Vec<(OsString, OsString)>,
    /// Variables of the server that are passed on, with the values that they have at the start.
    pub pass_environment: Vec<String>,
    /// When replies are sent.
    pub reply: ReplyMode,
    /// Text or binary.
    pub frame: FrameMode,
    /// A call that runs longer is ended and fails. Zero: no limit.
    pub timeout: Duration,
    /// A call that prints more on standard output is ended and fails.
    pub max_output_bytes: usize,
    /// From TERM to KILL.
    pub grace: Duration,
    /// Whether a call gets a session of its own.
    pub session: NewSession,
    /// Resource limits of each call.
    pub limits: ProcessLimits,
    /// The user that calls run as. `None`: the server's own. Needs root.
    pub user: Option<u32>,
    /// The group that calls run as. `None`: the server's own. Needs root.
    pub group: Option<u32>,
    /// Supplementary groups, set where `user` or `group` is.
    pub groups: Vec<u32>,
}

/// An empty command, `whole` and `auto`, 30 s, 8 MiB, 2 s of grace, no limits.
impl Default for ExecSettings {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            directory: PathBuf::from("."),
            environment: Vec::new(),
            pass_environment: ["PATH", "LANG", "TZ"].map(str::to_owned).to_vec(),
            reply: ReplyMode::Whole,
            frame: FrameMode::Auto,
            timeout: Duration::from_secs(30),
            max_output_bytes: 8 * 1024 * 1024,
            grace: Duration::from_secs(2),
            session: NewSession::No,
            limits: ProcessLimits::default(),
            user: None,
            group: None,
            groups: Vec::new(),
        }
    }
}

/// Whether a call gets a session of its own (`setsid`), or only a process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NewSession {
    /// A process group of its own, in the server's session.
    #[default]
    No,
    /// A session of its own: no controlling terminal.
    Yes,
}

/// Resource limits of one call, soft and hard. `None`: the server's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessLimits {
    /// Address space (`RLIMIT_AS`).
    pub memory_bytes: Option<u64>,
    /// Processor time (`RLIMIT_CPU`).
    pub cpu_seconds: Option<u64>,
    /// Processes of the call's user (`RLIMIT_NPROC`); not enforced for root.
    pub processes: Option<u64>,
    /// Open files (`RLIMIT_NOFILE`).
    pub open_files: Option<u64>,
}
