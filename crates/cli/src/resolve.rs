//! What the settings mean: from [`Settings`] to the server's `Config`, the settings of one runner and the log.
//!
//! Here values meet the machine: programs, directories, users and groups have to exist. Every mistake is reported; one that
//! only follows from another is not.

mod accounts;
mod application;
mod control;
mod identity;
mod listen;
mod origin;
mod runner;
#[cfg(test)]
mod tests;
mod tls;

use std::ffi::OsString;

use tracing::level_filters::LevelFilter;
use wootz_server::config::{Config, Control, Framing, Limits, Mode, Pipes, TextPing};

pub(crate) use self::control::control_socket;
pub(crate) use self::runner::Runner;
use crate::log::{Format, Log};
use crate::problem::Problems;
use crate::settings::{Dev, FileState, Settings};

/// What `serve` needs.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) config: Config,
    pub(crate) runner: Runner,
    pub(crate) log: Log,
    /// What need not be a mistake: a server that may be started later.
    pub(crate) warnings: Problems,
}

/// The environment of this process, as far as it matters here.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Resolves all settings. Where `problems` gets an entry the result, if there is one at all, is not fit to be served.
pub(crate) fn resolve(
    settings: &Settings,
    dev: Dev,
    environment: Environment<'_>,
    problems: &mut Problems,
) -> Option<Resolved> {
    let mut resolver = Resolver { settings, dev, environment, problems, warnings: Problems::default() };
    let runner = resolver.runner();
    let config = Config {
        listen: resolver.listen(),
        tls: resolver.tls(),
        identity: resolver.identity(),
        calls: resolver.calls(),
        pipes: resolver.pipes(),
        control: Some(resolver.control()),
        limits: resolver.limits(),
        mode: match dev {
            Dev::Yes => Mode::Development,
            Dev::No => Mode::Production,
        },
    };
    let warnings = resolver.warnings;
    runner.map(|runner| Resolved { config, runner, log: log(settings), warnings })
}

/// The log is resolved alone too: it is needed before anything else can be said.
fn log(settings: &Settings) -> Log {
    Log {
        level: match settings.text("log.level") {
            "error" => LevelFilter::ERROR,
            "warn" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            "trace" => LevelFilter::TRACE,
            other => not_in_the_table(other),
        },
        format: match settings.text("log.format") {
            "text" => Format::Text,
            "json" => Format::Json,
            other => not_in_the_table(other),
        },
    }
}

/// The settings accept only the words of their row, and a test resolves each of them.
fn not_in_the_table(word: &str) -> ! {
    unreachable!("no choice of the table is called {word}")
}

struct Resolver<'a> {
    settings: &'a Settings,
    dev: Dev,
    environment: Environment<'a>,
    problems: &'a mut Problems,
    warnings: Problems,
}

impl Resolver<'_> {
    /// Reports a mistake in the value of `key`, unless it only follows from an earlier one: what was written could not be
    /// read, or what the file says is not known.
    fn problem(&mut self, key: &str, text: &str) {
        let unread = self.settings.file_state == FileState::Unknown && self.settings.is_default(key);
        if !self.settings.is_broken(key) && !unread {
            self.problems.add(self.settings.origin(key).clone(), format!("{key} {text}"));
        }
    }

    /// A size for this machine's memory; `usize` holds it on every 64-bit Linux.
    fn bytes(&self, key: &str) -> usize {
        usize::try_from(self.settings.size(key)).unwrap_or(usize::MAX)
    }

    fn number(&self, key: &str) -> usize {
        self.settings.count(key) as usize
    }

    fn pipes(&mut self) -> Option<Pipes> {
        let pipes = Pipes {
            directory: self.settings.text("pipes.directory").into(),
            global: self.settings.flag("pipes.global"),
            requests: self.settings.flag("pipes.requests"),
            framing: match self.settings.text("pipes.framing") {
                "lines" => Framing::Lines,
                "carbonphp" => Framing::CarbonPhp,
                "length" => Framing::Length,
                other => not_in_the_table(other),
            },
            group: self.own_group("pipes.group"),
            mode: self.settings.mode("pipes.mode"),
            max_record_bytes: self.bytes("pipes.max_record"),
        };
        let wanted = !pipes.directory.as_os_str().is_empty() && (pipes.global || pipes.requests);
        wanted.then_some(pipes)
    }

    fn control(&mut self) -> Control {
        let socket = control_socket(self.settings, self.environment);
        if let Err(why) = control::check(&socket) {
            self.problem("control.socket", &why);
        }
        let (mode, group) = (self.settings.mode("control.mode"), self.own_group("control.group"));
        Control { socket, mode, group, http: self.http_door() }
    }

    fn limits(&self) -> Limits {
        Limits {
            max_connections: self.number("limits.max_connections"),
            per_address: self.number("limits.per_address"),
            per_user: self.number("limits.per_user"),
            handshakes_per_second: self.settings.count("limits.handshakes_per_second"),
            handshake_burst: self.settings.count("limits.handshake_burst"),
            max_handshakes: self.number("limits.max_handshakes"),
            handshake_timeout: self.settings.duration("limits.handshake_timeout"),
            max_head_bytes: self.bytes("limits.max_head"),
            max_message_bytes: self.bytes("limits.max_message"),
            max_frames: self.settings.count("limits.max_frames"),
            outbox_bytes: self.bytes("limits.outbox"),
            ping_interval: self.settings.duration("limits.ping_interval"),
            pong_timeout: self.settings.duration("limits.pong_timeout"),
            drain_timeout: self.settings.duration("limits.drain_timeout"),
            max_channels: self.number("limits.max_channels"),
            channels_per_connection: self.number("limits.channels_per_connection"),
            text_ping: if self.settings.flag("limits.text_ping") { TextPing::Answer } else { TextPing::Call },
        }
    }

    /// A group that files of wootz itself get.
    fn own_group(&mut self, key: &str) -> Option<u32> {
        let name = self.settings.text(key);
        let group = match name {
            "" => return None,
            name => accounts::group(name).and_then(accounts::may_give_files_to),
        };
        group.map_err(|why| self.problem(key, &why)).ok()
    }
}
