//! Calls that kept workers run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::client::{Exchange, Limits, NotExchanged, exchange};
use super::super::parameters::Parameters;
use super::super::records::{AfterAnswer, Begin};
use super::fate::{Fate, Obituary};
use super::lease::{Asked, Lease, Place, ask};
use super::{WorkerSettings, Workers};
use crate::application::{Application, Replies};
use crate::call::Call;
use crate::deadline::Deadline;
use crate::error::{ApplicationFault, CallError, EnvironmentFault};

/// The application that kept workers run. One per shard.
#[derive(Debug)]
pub struct KeptFastCgi {
    workers: Arc<Workers>,
    parameters: Parameters,
    limits: Limits,
}

impl KeptFastCgi {
    /// Calls for these workers.
    #[must_use]
    pub fn new(workers: Arc<Workers>) -> Self {
        let WorkerSettings { process, script, parameters, first_byte_timeout, .. } = &*workers.settings;
        let parameters = match script {
            Some(script) => Parameters::of_script(&super::super::absolute(script), parameters),
            None => Parameters::of_program(parameters),
        };
        let limits = Limits {
            first_byte_timeout: *first_byte_timeout,
            timeout: process.timeout,
            max_output_bytes: process.max_output_bytes,
            reply: process.reply,
            frame: process.frame,
        };
        Self { workers, parameters, limits }
    }

    /// A worker, within the time for that.
    async fn lease(&self, since: Instant) -> Result<Lease, CallError> {
        match ask(&self.workers.pool) {
            Asked::Lease(lease) => Ok(lease),
            Asked::Place(place) => self.wait(place, since).await,
            Asked::Stopped => Err(self.stopped()),
        }
    }

    async fn wait(&self, mut place: Place, since: Instant) -> Result<Lease, CallError> {
        loop {
            let looks_again_in = self.patience(since)?;
            match tokio::time::timeout(looks_again_in, place.turn()).await {
                Ok(Some(lease)) => return Ok(lease),
                Ok(None) => return Err(self.stopped()),
                Err(_late) => {}
            }
        }
    }

    /// How long this call may wait from now on, at least until somebody looks again.
    fn patience(&self, since: Instant) -> Result<Duration, CallError> {
        let (timeout, connect_timeout) = (self.limits.timeout, self.workers.settings.connect_timeout);
        let waited = since.elapsed();
        let is_over = |limit: Duration| !limit.is_zero() && waited >= limit;
        if is_over(timeout) || is_over(connect_timeout) {
            if let Some(what) = self.workers.trouble() {
                return Err(self.no_worker(what));
            }
            if is_over(timeout) {
                return Err(self.all_busy());
            }
        }
        // Far enough away for a call that has no limits.
        let left = |limit: Duration| if limit.is_zero() { Duration::from_secs(1) } else { limit - waited.min(limit) };
        let soon = left(timeout).min(left(connect_timeout).max(Duration::from_millis(100)));
        Ok(soon.max(Duration::from_millis(1)))
    }

    fn no_worker(&self, what: String) -> CallError {
        let source = std::io::Error::other(what);
        let remedy = "the log has what it printed";
        EnvironmentFault::Unreachable { server: self.name(), source, remedy }.into()
    }

    fn all_busy(&self) -> CallError {
        let why = "all were busy for as long as a call may wait \
                   (raise application.fastcgi.workers, or lower application.limits.max_running)";
        EnvironmentFault::Refused { server: self.name(), why }.into()
    }

    fn stopped(&self) -> CallError {
        EnvironmentFault::Refused { server: self.name(), why: "they are being ended" }.into()
    }

    fn name(&self) -> String {
        let command = self
            .workers
            .settings
            .process
            .command
            .first()
            .map_or_else(Default::default, |name| name.display().to_string());
        format!("the pool of workers ({command})")
    }
}

impl Application for KeptFastCgi {
    /// # Cancel safety
    /// Dropped, its worker gets the next call once it is done with this one, and is ended when it is not within the grace.
    async fn call(&self, call: Call, replies: &mut Replies) -> Result<(), CallError> {
        let since = Instant::now();
        loop {
            let mut lease = self.lease(since).await?;
            let name = lease.name();
            let Ok(connection) = lease.connect() else {
                lease.refused().await;
                continue;
            };
            let request = Exchange {
                call: &call,
                parameters: &self.parameters,
                after: AfterAnswer::Close,
                // A worker that dies before it takes the request has run nothing: the next one gets it.
                begin: Begin::WhenTaken,
                limits: &self.limits,
                server: &name,
                since,
            };
            // From now: a worker is not to blame for the time before it had the call.
            let mut deadline = Deadline::after(self.limits.timeout);
            return match exchange(connection, &request, &mut deadline, replies).await {
                Ok(_) => {
                    lease.answered();
                    Ok(())
                }
                // Nothing of it has left, so nothing can be run twice.
                Err(NotExchanged::NotBegun(_)) => {
                    lease.refused().await;
                    continue;
                }
                Err(NotExchanged::Failed(error)) => Err(failed(lease, error).await),
            };
        }
    }
}

/// Gives back the worker of a call that failed, and says why it did.
async fn failed(mut lease: Lease, error: CallError) -> CallError {
    match error {
        CallError::Application { fault: ApplicationFault::TimedOut(_) | ApplicationFault::Silent(_), .. } => {
            lease.hung();
            error
        }
        CallError::Application { fault: ApplicationFault::BadAnswer { server, what }, stderr } => {
            match lease.death().await {
                Some(obituary) => died(server, obituary, stderr),
                None => {
                    let fault = ApplicationFault::BadAnswer { server, what };
                    lease.failed(fault.to_string());
                    CallError::Application { fault, stderr }
                }
            }
        }
        CallError::Application { ref fault, .. } => {
            lease.failed(fault.to_string());
            error
        }
        CallError::NotStarted(_) | CallError::Environment(_) | CallError::Gone(_) => error,
    }
}

/// What is told about a call whose worker died while it had it.
fn died(server: String, obituary: Obituary, said: String) -> CallError {
    let Obituary { fate, stderr } = obituary;
    if fate == Fate::SpawnerDied {
        return EnvironmentFault::SpawnerDied.into();
    }
    let what = format!("died before the end of its answer: {fate}");
    let stderr = if said.is_empty() { stderr } else { said };
    CallError::Application { fault: ApplicationFault::BadAnswer { server, what }, stderr }
}
