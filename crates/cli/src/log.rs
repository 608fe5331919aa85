//! The log: lines on standard error, as text or as JSON.

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// What is logged, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) level: LevelFilter,
    pub(crate) format: Format,
}

/// Form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// Starts the log of this process. Once, before anything is logged.
pub(crate) fn start(log: Log) {
    // Everything of ours begins with this name. What libraries have to say below WARN is about their inside.
    let targets = Targets::new().with_default(log.level.min(LevelFilter::WARN)).with_target("wootz", log.level);
    // It warns of what peers do. We say that ourselves, once for a connection.
    let targets = targets.with_target("h2", log.level.min(LevelFilter::ERROR));
    // A reader of the log that went away is no reason to end: what can't be written is dropped, not reported by a panic.
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(wants_colour()).log_internal_errors(false);
    let lines = match log.format {
        Format::Json => lines.json().flatten_event(true).boxed(),
        Format::Text => lines.boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(targets)).init();
}

fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !refused
}
