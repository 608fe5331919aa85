//! What the server counts, per shard, and what `wootz status` makes of it.
//!
//! Each shard writes only its own counters, so counting costs no contention; a status adds them up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::tls::CertificateStatus;
use serde::Serialize;
use wootz_runner::{ApplicationFault, CallError};

/// The counters of one shard. Only its own thread writes them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
    refused_by: [AtomicU64; REFUSED_BY],
    opened: AtomicU64,
    opened_over_http2: AtomicU64,
    closed: AtomicU64,
    messages: AtomicU64,
    calls_succeeded: AtomicU64,
    calls_failed: [AtomicU64; FAILURE_KINDS],
    calls_abandoned: AtomicU64,
    calls_refused: AtomicU64,
    waited_us: AtomicU64,
    ran_us: AtomicU64,
    pushed_queued: AtomicU64,
    pushed_dropped: AtomicU64,
    pushed_joined: AtomicU64,
    pushed_given_up: AtomicU64,
    slow_readers: AtomicU64,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallEnd {
    Succeeded,
    Failed(FailureKind),
    Abandoned,
}

/// Kinds of failure that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// The application ended with an error of its own.
    Application,
    /// It was ended: it took too long.
    TimedOut,
    /// It was ended, or its output thrown away: too much, or not what was asked for.
    Output,
    /// It can't be started as it is configured.
    NotStarted,
    /// It can't be reached, or this machine is short of something.
    Unreachable,
}

const FAILURE_KINDS: usize = 5;

/// The setting by which a browser is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusedBy {
    MaxConnections,
    PerAddress,
    PerUser,
    HandshakesPerSecond,
    MaxHandshakes,
    ProxyProtocol,
    AllowedOrigins,
    Guests,
    VerifyIp,
    Session,
    Jwt,
    Application,
}

const REFUSED_BY: usize = 12;

impl CallEnd {
    /// In one word, for operators who listen.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Abandoned => "abandoned",
            Self::Failed(FailureKind::Application) => "failed",
            Self::Failed(FailureKind::TimedOut) => "timed_out",
            Self::Failed(FailureKind::Output) => "output",
            Self::Failed(FailureKind::NotStarted) => "not_started",
            Self::Failed(FailureKind::Unreachable) => "unreachable",
        }
    }

    pub(crate) fn of(result: &Result<(), CallError>) -> Self {
        Self::Failed(match result {
            Ok(()) => return Self::Succeeded,
            Err(CallError::Gone(_)) => return Self::Abandoned,
            Err(CallError::NotStarted(_)) => FailureKind::NotStarted,
            Err(CallError::Environment(_)) => FailureKind::Unreachable,
            Err(CallError::Application { fault, .. }) => match fault {
                ApplicationFault::TimedOut(_) | ApplicationFault::Silent(_) => FailureKind::TimedOut,
                ApplicationFault::TooMuchOutput(_) | ApplicationFault::NotUtf8 | ApplicationFault::BadAnswer { .. } => {
                    FailureKind::Output
                }
                ApplicationFault::Exit(_)
                | ApplicationFault::Signal(_)
                | ApplicationFault::Status(_)
                | ApplicationFault::Other(_) => FailureKind::Application,
            },
        })
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

    pub(crate) fn refused_by(&self, setting: RefusedBy) {
        add(&self.refused_by[setting as usize], 1);
    }

    pub(crate) fn opened(&self) {
        add(&self.opened, 1);
    }

    pub(crate) fn opened_over_http2(&self) {
        add(&self.opened_over_http2, 1);
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
                CallEnd::Failed(kind) => &self.calls_failed[kind as usize],
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
        add(&self.pushed_joined, receipt.joined);
    }

    /// A pushed request was counted as queued, and no turn came for it.
    pub(crate) fn push_given_up(&self) {
        add(&self.pushed_given_up, 1);
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
    pub listen: Vec<String>,
    /// Threads that serve connections.
    pub shards: usize,
    /// The certificates that browsers are shown; empty without TLS.
    pub certificates: Vec<CertificateStatus>,
    /// The living connections, and those there were.
    pub connections: ConnectionStatus,
    /// Users with at least one connection; guests are no users.
    pub users: usize,
    /// Channels that somebody is in.
    pub channels: usize,
    /// The calls.
    pub calls: CallStatus,
    /// What runs the calls.
    pub runner: RunnerStatus,
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
    /// Of these, as streams of HTTP/2 (RFC 8441).
    pub opened_over_http2: u64,
    /// Accepted sockets since the start, whatever became of them.
    pub accepted: u64,
    /// Handshakes answered with an error.
    pub refused: u64,
    /// Browsers that were not let in by a limit, as no proxy or for who they are, by the setting.
    pub refused_by: RefusalStatus,
    /// Closed because they read too slowly (1013).
    pub slow_readers: u64,
    /// Messages received.
    pub messages: u64,
}

/// The refused browsers of a [`ConnectionStatus`], by the setting that refused them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RefusalStatus {
    /// `limits.max_connections`: 503.
    pub max_connections: u64,
    /// `limits.per_address`: 429.
    pub per_address: u64,
    /// `limits.per_user`: 429.
    pub per_user: u64,
    /// `limits.handshakes_per_second`: 429.
    pub handshakes_per_second: u64,
    /// `limits.max_handshakes`: closed, as the oldest without a whole request.
    pub max_handshakes: u64,
    /// `listen.proxy_protocol`: closed, as no trusted proxy or without a right header.
    pub proxy_protocol: u64,
    /// `identity.allowed_origins`: 403.
    pub allowed_origins: u64,
    /// `identity.guests`: 401.
    pub guests: u64,
    /// `identity.verify_ip`: 403.
    pub verify_ip: u64,
    /// `identity.session`: 503, the store could not be asked or the session not be read.
    pub session: u64,
    /// `identity.jwt`: 401, a token that is not valid.
    pub jwt: u64,
    /// `identity.provider = "application"`: 403, it said no, or 503, it could not say.
    pub application: u64,
}

impl RefusalStatus {
    /// Each with the setting that it is for.
    pub(crate) fn by_setting(&self) -> [(&'static str, u64); 12] {
        [
            ("limits.max_connections", self.max_connections),
            ("limits.per_address", self.per_address),
            ("limits.per_user", self.per_user),
            ("limits.handshakes_per_second", self.handshakes_per_second),
            ("limits.max_handshakes", self.max_handshakes),
            ("listen.proxy_protocol", self.proxy_protocol),
            ("identity.allowed_origins", self.allowed_origins),
            ("identity.guests", self.guests),
            ("identity.verify_ip", self.verify_ip),
            ("identity.session", self.session),
            ("identity.jwt", self.jwt),
            ("identity.provider", self.application),
        ]
    }
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
    /// The same by kind.
    pub failures: FailureStatus,
    /// Ended because their browser went.
    pub abandoned: u64,
    /// Answered as busy.
    pub refused: u64,
    /// Mean wait for a turn, in milliseconds.
    pub mean_wait_ms: f64,
    /// Mean run time, in milliseconds.
    pub mean_run_ms: f64,
}

/// The failed calls of a [`CallStatus`] by kind.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FailureStatus {
    /// The application ended with an error of its own: exit status, signal, HTTP status.
    pub application: u64,
    /// It ran longer than `application.limits.timeout`.
    pub timed_out: u64,
    /// It printed too much, or bytes that could not be sent.
    pub output: u64,
    /// It could not be started as it is configured.
    pub not_started: u64,
    /// It could not be reached.
    pub unreachable: u64,
}

/// What runs the calls, as a [`Status`] shows it. Made by whoever makes the applications: [`Server::runner_status`].
///
/// [`Server::runner_status`]: crate::Server::runner_status
#[derive(Debug, Clone, Default, Serialize)]
pub struct RunnerStatus {
    /// `exec`, `fastcgi`, `http`, or a program's own word.
    pub runner: String,
    /// The command, or the address.
    pub target: String,
    /// Why calls are answered as busy without being tried, or why no process can be kept; absent while all is well.
    pub left_alone: Option<String>,
    /// Processes that are kept; empty where none are.
    pub workers: Vec<WorkerStatus>,
}

/// One kept process of a [`RunnerStatus`].
#[derive(Debug, Clone, Default, Serialize)]
pub struct WorkerStatus {
    /// Its process id.
    pub pid: u32,
    /// `starting`, `idle`, `busy` or `ending`.
    pub state: String,
    /// Since it was started.
    pub age_seconds: u64,
    /// Calls it has answered.
    pub calls: u64,
    /// Its resident memory.
    pub memory_bytes: u64,
    /// The last thing that went wrong in its place, if anything did.
    pub last_failure: Option<String>,
}

/// The pushes of a [`Status`].
#[derive(Debug, Clone, Default, Serialize)]
pub struct PushStatus {
    /// Frames and requests that connections took.
    pub queued: u64,
    /// Those that a slow, closing or full connection did not take.
    pub dropped: u64,
    /// Requests that were not run again because an equal one waited already.
    pub joined: u64,
    /// Requests among the queued ones that no turn came for (`application.limits.max_wait`).
    pub given_up: u64,
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
        opened_over_http2: total(|shard| &shard.opened_over_http2),
        accepted: total(|shard| &shard.accepted),
        refused: total(|shard| &shard.refused),
        refused_by: RefusalStatus {
            max_connections: total(|shard| &shard.refused_by[RefusedBy::MaxConnections as usize]),
            per_address: total(|shard| &shard.refused_by[RefusedBy::PerAddress as usize]),
            per_user: total(|shard| &shard.refused_by[RefusedBy::PerUser as usize]),
            handshakes_per_second: total(|shard| &shard.refused_by[RefusedBy::HandshakesPerSecond as usize]),
            max_handshakes: total(|shard| &shard.refused_by[RefusedBy::MaxHandshakes as usize]),
            proxy_protocol: total(|shard| &shard.refused_by[RefusedBy::ProxyProtocol as usize]),
            allowed_origins: total(|shard| &shard.refused_by[RefusedBy::AllowedOrigins as usize]),
            guests: total(|shard| &shard.refused_by[RefusedBy::Guests as usize]),
            verify_ip: total(|shard| &shard.refused_by[RefusedBy::VerifyIp as usize]),
            session: total(|shard| &shard.refused_by[RefusedBy::Session as usize]),
            jwt: total(|shard| &shard.refused_by[RefusedBy::Jwt as usize]),
            application: total(|shard| &shard.refused_by[RefusedBy::Application as usize]),
        },
        slow_readers: total(|shard| &shard.slow_readers),
        messages: total(|shard| &shard.messages),
    };
    let failures = FailureStatus {
        application: total(|shard| &shard.calls_failed[FailureKind::Application as usize]),
        timed_out: total(|shard| &shard.calls_failed[FailureKind::TimedOut as usize]),
        output: total(|shard| &shard.calls_failed[FailureKind::Output as usize]),
        not_started: total(|shard| &shard.calls_failed[FailureKind::NotStarted as usize]),
        unreachable: total(|shard| &shard.calls_failed[FailureKind::Unreachable as usize]),
    };
    let mut calls = CallStatus {
        succeeded: total(|shard| &shard.calls_succeeded),
        failed: failures.application
            + failures.timed_out
            + failures.output
            + failures.not_started
            + failures.unreachable,
        failures,
        abandoned: total(|shard| &shard.calls_abandoned),
        refused: total(|shard| &shard.calls_refused),
        ..CallStatus::default()
    };
    let ended = calls.succeeded + calls.failed + calls.abandoned;
    if ended > 0 {
        calls.mean_wait_ms = total(|shard| &shard.waited_us) as f64 / ended as f64 / 1000.0;
        calls.mean_run_ms = total(|shard| &shard.ran_us) as f64 / ended as f64 / 1000.0;
    }
    let pushes = PushStatus {
        queued: total(|shard| &shard.pushed_queued),
        dropped: total(|shard| &shard.pushed_dropped),
        joined: total(|shard| &shard.pushed_joined),
        given_up: total(|shard| &shard.pushed_given_up),
    };
    (connections, calls, pushes)
}

/// Resident memory of this process.
pub(crate) fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()));
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
