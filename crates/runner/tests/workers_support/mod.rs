//! What the tests of kept workers share: a worker in Python that does as it is told, and a pool of them.
#![allow(dead_code, unreachable_pub, reason = "a module of several test programs, each of which uses its part")]

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wootz_runner::exec::{ExecSettings, Spawner};
use wootz_runner::fastcgi::{KeptFastCgi, WorkerSettings, WorkerState, WorkerStatus, Workers};
use wootz_runner::{Application, Message, Replies, ReplySink};

use crate::support::{Browser, PATIENCE, Ran, call_with, until};

pub fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workers_support/worker.py")
}

/// A pool with these settings, whose calls and ends don't take long.
pub fn settings(command: &[&str]) -> WorkerSettings {
    WorkerSettings {
        process: ExecSettings {
            command: command.iter().map(Into::into).collect(),
            timeout: PATIENCE,
            grace: Duration::from_millis(200),
            ..ExecSettings::default()
        },
        max_idle: Duration::ZERO,
        ..WorkerSettings::default()
    }
}

pub fn in_python() -> WorkerSettings {
    settings(&["/usr/bin/python3", python().to_str().expect("UTF-8")])
}

pub fn in_shell(script: &str) -> WorkerSettings {
    settings(&["/bin/sh", "-c", script])
}

pub struct Pool {
    pub workers: Arc<Workers>,
    pub application: Rc<KeptFastCgi>,
}

impl Pool {
    pub fn new(settings: WorkerSettings, spawner: &Arc<Spawner>) -> Self {
        let workers = Workers::start(settings, Arc::clone(spawner)).expect("workers are kept");
        let application = Rc::new(KeptFastCgi::new(Arc::clone(&workers)));
        Self { workers, application }
    }

    /// One call with this text message.
    pub async fn ask(&self, message: &str) -> Ran {
        ask(&self.application, message).await
    }

    /// The pid in the reply to this message.
    pub async fn pid(&self, message: &str) -> u32 {
        self.ask(message).await.reply().parse().expect("a pid")
    }

    /// The pids of those that are not ending.
    pub fn pids(&self) -> Vec<u32> {
        self.living().iter().map(|worker| worker.pid).collect()
    }

    pub fn living(&self) -> Vec<WorkerStatus> {
        let mut status = self.workers.status();
        status.retain(|worker| worker.state != WorkerState::Ending);
        status
    }

    pub async fn until_idle(&self, count: usize) {
        until("so many idle workers", || {
            let status = self.workers.status();
            status.len() == count && status.iter().all(|worker| worker.state == WorkerState::Idle)
        })
        .await;
    }
}

pub async fn ask(application: &KeptFastCgi, message: &str) -> Ran {
    let since = Instant::now();
    let browser = Rc::new(Browser::default());
    let mut replies = Replies::new(Rc::clone(&browser) as Rc<dyn ReplySink>);
    let result = application.call(call_with(Message::text(message)), &mut replies).await;
    let outcome = replies.outcome().cloned();
    Ran { result, replies: browser.texts(), outcome, took: since.elapsed() }
}
