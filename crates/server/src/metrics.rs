//! What the server counts, per shard, and what `wootz status` makes of it.
//!
//! Each shard writes only its own counters, so counting costs no contention; a status adds them up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use wootz_runner::{CallError, Fault};

/// The counters of one shard. Only its own thread writes them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
    opened: AtomicU64,
    closed: AtomicU64,
    messages: AtomicU64,
    calls_succeeded: AtomicU64,
    calls_failed: AtomicU64,
    calls_abandoned: AtomicU64,
    calls_refused: AtomicU64,
    waited_us: AtomicU64,
    ran_us: AtomicU64,
    pushed_queued: AtomicU64,
    pushed_dropped: AtomicU64,
    slow_readers: AtomicU64,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallEnd {
    Succeeded,
    Failed,
    Abandoned,
}

impl CallEnd {
    pub(crate) fn of(result: &Result<(), CallError>) -> Self {
        match result.as_ref().map_err(CallError::fault) {
            Ok(()) => Self::Succeeded,
            Err(Fault::Browser) => Self::Abandoned,
            Err(Fault::Application | Fault::Operator | Fault::Environment) => Self::Failed,
        }
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    // One writer: a load and a store, without a locked instruction.
    counter.store(counter.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Counters {
    pub(crate) fn accepted(&self) {
        add(&self.accepted, 1);
    }

    pub(crate) fn refused(&self) {
        add(&self.refused, 1);
    }

    pub(crate) fn opened(&self) {
        add(&self.opened, 1);
    }

    pub(crate) fn closed(&self) {
        add(&self.closed, 1);
    }

    pub(crate) fn message(&self) {
        add(&self.messages, 1);
    }

    pub(crate) fn slow_reader(&self) {
        add(&self.slow_readers, 1);
    }

    pub(crate) fn call_refused(&self) {
        add(&self.calls_refused, 1);
    }

    pub(crate) fn call_ended(&self, end: CallEnd, waited: Duration, ran: Duration) {
        add(
            match end {
                CallEnd::Succeeded => &self.calls_succeeded,
                CallEnd::Failed => &self.calls_failed,
                CallEnd::Abandoned => &self.calls_abandoned,
            },
            1,
        );
        add(&self.waited_us, micros(waited));
        add(&self.ran_us, micros(ran));
    }

    pub(crate) fn pushed(&self, receipt: wootz_hub::Receipt) {
        add(&self.pushed_queued, receipt.queued);
        add(&self.pushed_dropped, receipt.dropped);
    }
}

/// A server at one moment, as `wootz status` and `GET /v1/status` show it.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Version of the server.
    pub version: &'static str,
    /// Process id.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// `running` or `draining`.
    pub state: &'static str,
    /// Where browsers connect.
    pub listen: String,
    /// Threads that serve connections.
    pub shards: usize,
    /// The living connections, and those there were.
    pub connections: ConnectionStatus,
    /// Users with at least one connection; guests are no users.
    pub users: usize,
    /// The calls.
    pub calls: CallStatus,
    /// What was pushed.
    pub pushes: PushStatus,
    /// Resident memory of the server process in bytes, without calls and spawner.
    pub memory_bytes: u64,
}

/// The connections of a [`Status`].
#[derive(Debug, Clone, Default, Serialize)]
pub struct ConnectionStatus {
    /// Open now.
    pub open: u64,
    /// Opened since the start.
    pub opened: u64,
    /// Accepted sockets since the start, whatever became of them.
    pub accepted: u64,
    /// Handshakes answered with an error.
    pub refused: u64,
    /// Closed because they read too slowly (1013).
    pub slow_readers: u64,
    /// Messages received.
    pub messages: u64,
}

/// The calls of a [`Status`].
#[derive(Debug, Clone, Default, Serialize)]
pub struct CallStatus {
    /// Running now.
    pub running: usize,
    /// Waiting for their turn now.
    pub waiting: usize,
    /// Ended well.
    pub succeeded: u64,
    /// Failed: the log says why.
    pub failed: u64,
    /// Ended because their browser went.
    pub abandoned: u64,
    /// Answered as busy.
    pub refused: u64,
    /// Mean wait for a turn, in milliseconds.
    pub mean_wait_ms: f64,
    /// Mean run time, in milliseconds.
    pub mean_run_ms: f64,
}

/// The pushes of a [`Status`].
#[derive(Debug, Clone, Default, Serialize)]
pub struct PushStatus {
    /// Frames queued for connections.
    pub queued: u64,
    /// Frames that a slow or closing connection did not take.
    pub dropped: u64,
}

/// Adds the shards' counters up.
pub(crate) fn sum<'c>(
    counters: impl Iterator<Item = &'c Counters> + Clone,
) -> (ConnectionStatus, CallStatus, PushStatus) {
    let total = |field: fn(&Counters) -> &AtomicU64| -> u64 {
        counters.clone().map(|shard| field(shard).load(Ordering::Relaxed)).sum()
    };
    let opened = total(|shard| &shard.opened);
    let connections = ConnectionStatus {
        open: opened.saturating_sub(total(|shard| &shard.closed)),
        opened,
        accepted: total(|shard| &shard.accepted),
        refused: total(|shard| &shard.refused),
        slow_readers: total(|shard| &shard.slow_readers),
        messages: total(|shard| &shard.messages),
    };
    let mut calls = CallStatus {
        succeeded: total(|shard| &shard.calls_succeeded),
        failed: total(|shard| &shard.calls_failed),
        abandoned: total(|shard| &shard.calls_abandoned),
        refused: total(|shard| &shard.calls_refused),
        ..CallStatus::default()
    };
    let ended = calls.succeeded + calls.failed + calls.abandoned;
    if ended > 0 {
        calls.mean_wait_ms = total(|shard| &shard.waited_us) as f64 / ended as f64 / 1000.0;
        calls.mean_run_ms = total(|shard| &shard.ran_us) as f64 / ended as f64 / 1000.0;
    }
    let pushes =
        PushStatus { queued: total(|shard| &shard.pushed_queued), dropped: total(|shard| &shard.pushed_dropped) };
    (connections, calls, pushes)
}

/// Resident memory of this process.
pub(crate) fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()));
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
