//! What the operator's signals do: TERM and INT end the server in peace, a second one at once; USR1 writes the status to
//! the log; HUP reads the certificates again, and says that nothing else is.

use std::io;
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use wootz_server::Handle;

/// A server that has no status after so long is stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// The signals that wootz handles, caught from the moment on in which this exists.
pub(crate) struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    status: Signal,
    hangup: Signal,
}

/// How far the end has come.
#[derive(Debug, Clone, Copy)]
enum Ending {
    NotAsked,
    Draining,
}

impl Signals {
    /// Catches them. They wait until [`Signals::serve`], so that none is lost while the server starts.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn catch() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let guard = runtime.enter();
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let status = signal(SignalKind::user_defined1())?;
        let hangup = signal(SignalKind::hangup())?;
        drop(guard);
        Ok(Self { runtime, terminate, interrupt, status, hangup })
    }

    /// Acts on them from a thread of its own, as long as the process lives.
    ///
    /// # Errors
    /// The thread can't be started.
    pub(crate) fn serve(self, server: Handle) -> io::Result<()> {
        thread::Builder::new().name("signals".to_owned()).spawn(move || self.run(&server)).map(drop)
    }

    fn run(mut self, server: &Handle) {
        let mut ending = Ending::NotAsked;
        self.runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = self.terminate.recv() => ending = end(server, ending, "SIGTERM"),
                    _ = self.interrupt.recv() => ending = end(server, ending, "SIGINT"),
                    _ = self.status.recv() => drop(tokio::spawn(log_status(server.clone()))),
                    _ = self.hangup.recv() => {
                        if server.reload_certificates() {
                            tracing::info!("SIGHUP: the certificates' files were read again; the configuration was not, restart for that");
                        } else {
                            tracing::warn!("SIGHUP: this version does not reload its configuration; nothing has changed, restart it");
                        }
                    }
                }
            }
        });
    }
}

fn end(server: &Handle, ending: Ending, signal: &'static str) -> Ending {
    match ending {
        Ending::NotAsked => {
            tracing::info!(
                signal,
                "stopping: no new connections, running calls may end; a second signal stops at once"
            );
            server.drain();
        }
        Ending::Draining => {
            tracing::info!(signal, "stopping at once");
            server.stop();
        }
    }
    Ending::Draining
}

/// Asks on the side: a shard that is busy must not delay the next signal.
async fn log_status(server: Handle) {
    let Ok(status) = tokio::time::timeout(PATIENCE, server.status()).await else {
        return tracing::error!("no status: a thread has not answered for {} s", PATIENCE.as_secs());
    };
    match serde_json::to_string(&status) {
        Ok(status) => tracing::info!(%status, "status"),
        Err(error) => tracing::error!(%error, "the status can't be written as JSON"),
    }
}
