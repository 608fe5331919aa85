//! The runner `fastcgi`: each call is a request to a FastCGI server, like php-fpm.
//!
//! One connection carries one request at a time, and by default only one: php-fpm gives a connection one of its workers for as long as
//! it is open. What the server prints behind its header block is the reply.

mod address;
mod client;
mod connect;
mod kept;
mod parameters;
mod records;
mod response;
mod unix;
mod unread;
mod workers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use address::{Address, AddressError};
pub use workers::{KeptFastCgi, Reload, WorkerSettings, WorkerState, WorkerStatus, Workers};

use crate::application::{Application, Replies};
use crate::call::Call;
use crate::deadline::{Deadline, Late};
use crate::error::CallError;
use crate::reply::{FrameMode, ReplyMode};
use client::{Exchange, Exchanged, Limits, NotExchanged, exchange};
use connect::{Attempts, Connection};
use kept::Kept;
use parameters::Parameters;
use records::{AfterAnswer, Begin};
use unix::Listener;

/// How calls are run by a FastCGI server.
#[derive(Debug, Clone)]
pub struct FastCgiSettings {
    /// Where it listens.
    pub address: Address,
    /// The script that answers all calls, as the server sees it: `SCRIPT_FILENAME`. A relative path is meant from the working directory.
    /// Its directory is `DOCUMENT_ROOT`, its name there `SCRIPT_NAME`.
    pub script: PathBuf,
    /// Parameters of every call, besides those of CGI, which win. `SCRIPT_NAME` and `DOCUMENT_ROOT` may be set here for a script that lies
    /// deeper.
    pub environment: Vec<(String, String)>,
    /// How many idle connections are kept, per shard. Zero: each call has one of its own. A kept one holds a worker of php-fpm: all shards
    /// together, and whoever else uses the pool, must leave some of `pm.max_children` free.
    pub keep: usize,
    /// A kept connection that was not used for so long is closed.
    pub keep_idle: Duration,
    /// How long a server that is gone, restarting or full is waited for. Zero: as long as `timeout`.
    pub connect_timeout: Duration,
    /// How long a server may take the request and say nothing. Zero, or more than `timeout`: only that counts.
    pub first_byte_timeout: Duration,
    /// A call that takes longer, all in all, is given up and fails. Zero: no limit.
    pub timeout: Duration,
    /// An answer with a longer body is given up and fails.
    pub max_output_bytes: usize,
    /// When replies are sent.
    pub reply: ReplyMode,
    /// Text or binary.
    pub frame: FrameMode,
}

impl FastCgiSettings {
    /// This script by this server, with a connection per call: 5 s to connect, 30 s for all, 8 MiB, `whole` and `auto`.
    #[must_use]
    pub fn new(address: Address, script: impl Into<PathBuf>) -> Self {
        Self {
            address,
            script: script.into(),
            environment: Vec::new(),
            keep: 0,
            keep_idle: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::ZERO,
            timeout: Duration::from_secs(30),
            max_output_bytes: 8 * 1024 * 1024,
            reply: ReplyMode::Whole,
            frame: FrameMode::Auto,
        }
    }
}

/// The application that a FastCGI server runs. One per shard.
#[derive(Debug)]
pub struct FastCgi {
    settings: Arc<FastCgiSettings>,
    parameters: Parameters,
    limits: Limits,
    /// The server by its name in errors.
    server: String,
    kept: Kept,
    listener: Listener,
}

impl FastCgi {
    /// Connects to nothing yet: the server may come and go.
    #[must_use]
    pub fn new(settings: Arc<FastCgiSettings>) -> Self {
        let script = absolute(&settings.script);
        let parameters = Parameters::of_script(&script, &settings.environment);
        let limits = Limits {
            first_byte_timeout: settings.first_byte_timeout,
            timeout: settings.timeout,
            max_output_bytes: settings.max_output_bytes,
            reply: settings.reply,
            frame: settings.frame,
        };
        let server = format!("the FastCGI server at {}", settings.address);
        let kept = Kept::new(settings.keep, settings.keep_idle);
        Self { settings, parameters, limits, server, kept, listener: Listener::default() }
    }

    fn attempts(&self) -> Attempts<'_> {
        Attempts::new(&self.settings.address, &self.server, self.settings.connect_timeout)
    }

    fn after_answer(&self, connection: &Connection, now: Instant) -> AfterAnswer {
        match connection {
            _ if self.settings.keep > 0 => AfterAnswer::Keep,
            Connection::Unix(socket) if self.listener.is_php_fpm(socket, now) => AfterAnswer::HalfClose,
            // Whose process listens at a port can't be known.
            Connection::Unix(_) | Connection::Tcp(_) => AfterAnswer::Close,
        }
    }

    /// A new connection, within the time for that.
    async fn connect(&self, attempts: &mut Attempts<'_>, deadline: &mut Deadline) -> Result<Connection, CallError> {
        match deadline.before(attempts.connect()).await {
            Ok(connection) => Ok(connection?),
            // The application has not begun, so it was not the one that took too long.
            Err(Late) => Err(attempts.unreachable().into()),
        }
    }
}

impl Application for FastCgi {
    /// # Cancel safety
    /// Dropped, the connection is closed. PHP ends a script whose connection is closed when it next prints something.
    async fn call(&self, call: Call, replies: &mut Replies) -> Result<(), CallError> {
        let settings = &*self.settings;
        let since = Instant::now();
        let mut deadline = Deadline::after(settings.timeout);
        let underway = self.kept.begin();
        let mut attempts = None;
        loop {
            let (mut connection, begin) = match underway.take() {
                Some(kept) => (kept, Begin::WhenTaken),
                None => {
                    let attempts = attempts.get_or_insert_with(|| self.attempts());
                    (self.connect(attempts, &mut deadline).await?, Begin::AtOnce)
                }
            };
            let request = Exchange {
                call: &call,
                parameters: &self.parameters,
                after: self.after_answer(&connection, since),
                begin,
                limits: &self.limits,
                server: &self.server,
                since,
            };
            let error = match exchange(&mut connection, &request, &mut deadline, replies).await {
                Ok(Exchanged::Reusable) => {
                    underway.put(connection);
                    return Ok(());
                }
                Ok(Exchanged::Spent) => return Ok(()),
                Err(NotExchanged::Failed(error)) => return Err(error),
                Err(NotExchanged::NotBegun(error)) => error,
            };
            // The worker of a kept connection has left, and did not begin: the next one may still be there.
            if begin == Begin::AtOnce
                && let Some(attempts) = &mut attempts
            {
                match deadline.before(attempts.pause_after(error)).await {
                    Ok(paused) => paused?,
                    Err(Late) => return Err(attempts.unreachable().into()),
                }
            }
        }
    }
}

/// The server may see another file system, so nothing is asked of this one but the working directory.
fn absolute(script: &Path) -> PathBuf {
    std::path::absolute(script).unwrap_or_else(|_| script.to_owned())
}
