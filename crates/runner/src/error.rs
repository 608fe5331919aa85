//! Why a call did not come to its end, sorted by whose fault that is.
//!
//! `Display` is one line for the log and, in development, for the browser: what happened, where, and what to do about it. The
//! end of standard error is not part of it, but beside it: [`CallError::stderr`].

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::reply::ReplyError;

/// Nobody is there to read a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the browser is gone")]
pub struct Gone;

/// Whose fault a failed call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The application's: its author can mend it.
    Application,
    /// The operator's: the command can't be started as it is configured.
    Operator,
    /// This machine's or this server's: the next call may succeed.
    Environment,
    /// Nobody's: the browser left.
    Browser,
}

/// Why a call did not come to its end.
#[derive(Debug, Error)]
pub enum CallError {
    /// The application ran, and failed.
    #[error("{fault}")]
    Application {
        /// How.
        fault: ApplicationFault,
        /// The end of what it printed on standard error, at most 4 KiB.
        stderr: String,
    },
    /// The application could not be started as it is configured.
    #[error(transparent)]
    NotStarted(#[from] StartError),
    /// The application could not be run here and now.
    #[error(transparent)]
    Environment(#[from] EnvironmentFault),
    /// The browser left before the end.
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl CallError {
    /// The error of an application inside this process, in its own words.
    pub fn application(reason: impl fmt::Display) -> Self {
        Self::Application { fault: ApplicationFault::Other(reason.to_string()), stderr: String::new() }
    }

    /// Whose fault it is.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Application { .. } => Fault::Application,
            Self::NotStarted(_) => Fault::Operator,
            Self::Environment(_) => Fault::Environment,
            Self::Gone(_) => Fault::Browser,
        }
    }

    /// The end of what the application printed on standard error; empty where it printed nothing.
    #[must_use]
    pub fn stderr(&self) -> &str {
        match self {
            Self::Application { stderr, .. } => stderr,
            Self::NotStarted(_) | Self::Environment(_) | Self::Gone(_) => "",
        }
    }
}

/// How an application failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApplicationFault {
    /// It ended with a status that is not 0.
    #[error("exit status {0}")]
    Exit(i32),
    /// A signal ended it.
    #[error("ended by {}", SignalName(*.0))]
    Signal(i32),
    /// It ran longer than it may.
    #[error("ran longer than {}: it was ended (application.limits.timeout)", Seconds(*.0))]
    TimedOut(Duration),
    /// It printed more than it may.
    #[error("printed more than {0} bytes: it was ended (application.limits.max_output)")]
    TooMuchOutput(usize),
    /// It printed bytes that are no UTF-8 where only text may be sent.
    #[error("printed bytes that are no UTF-8, and application.frame is \"text\"")]
    NotUtf8,
    /// It answered with a status that is a failure: 500 or more, and where it was asked who somebody is any but success.
    #[error("answered with status {0}")]
    Status(u16),
    /// Its server took the request and sent nothing for so long.
    #[error("sent nothing for {}: the request was given up", Seconds(*.0))]
    Silent(Duration),
    /// Its server sent what is no answer, or a part of one.
    #[error("{server} {what}")]
    BadAnswer {
        /// Where it is.
        server: String,
        /// What it did, beginning with a verb.
        what: String,
    },
    /// What an application inside this process says.
    #[error("{0}")]
    Other(String),
}

impl From<ReplyError> for ApplicationFault {
    fn from(error: ReplyError) -> Self {
        match error {
            ReplyError::TooMuchOutput(max_bytes) => Self::TooMuchOutput(max_bytes),
            ReplyError::NotUtf8 => Self::NotUtf8,
        }
    }
}

/// Why the application could not be started as it is configured.
#[derive(Debug, Error)]
pub enum StartError {
    /// There is no such program, or it can't be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A step between the fork and the program failed.
    #[error("could not start {}: {step}: {source}{}", .program.display(), .step.remedy(.source))]
    Step {
        /// The program.
        program: PathBuf,
        /// What failed.
        step: StartStep,
        /// Why.
        source: io::Error,
    },
    /// The variables, arguments and paths of a call don't fit into one request to the spawner.
    #[error(
        "arguments and variables of the call are {bytes} bytes long, more than {max_bytes}: \
         shorten application.environment or the browser's header fields (limits.max_head)"
    )]
    TooLarge {
        /// What they are.
        bytes: usize,
        /// What they may be.
        max_bytes: usize,
    },
    /// The application's server can't run the script.
    #[error("{server} can't run {}: {what}", .script.display())]
    Script {
        /// Where it is.
        server: String,
        /// The script, as it was asked for.
        script: PathBuf,
        /// Why, and what to do about it.
        what: &'static str,
    },
    /// A value that no process can be given.
    #[error("{0} holds a NUL byte, which no process can be given")]
    Nul(String),
    /// A part of the call that no HTTP request can hold.
    #[error("the call can't be sent as an HTTP request: {0}")]
    Unsendable(String),
}

/// Why a program can't be run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProgramError {
    /// The command is empty.
    #[error("application.command is empty")]
    Empty,
    /// A name without a slash is in no directory of `PATH`.
    #[error("{} is in no directory of PATH ({})", .name.display(), .path.display())]
    NotInPath {
        /// The name.
        name: OsString,
        /// The `PATH` that was searched.
        path: OsString,
    },
    /// There is no such file.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// It is a directory.
    #[error("{} is a directory, not a program", .0.display())]
    Directory(PathBuf),
    /// It may not be executed.
    #[error("{} is not executable (chmod +x?)", .0.display())]
    NotExecutable(PathBuf),
}

/// A step between the fork and the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StartStep {
    /// A new process.
    Fork = 1,
    /// Its process group, or session.
    Group = 2,
    /// Its standard input, output and error.
    Descriptors = 3,
    /// Its resource limits.
    Limits = 4,
    /// Its user and groups.
    User = 5,
    /// Its end with the spawner's.
    DeathSignal = 6,
    /// Its working directory.
    Directory = 7,
    /// The program itself.
    Execute = 8,
}

impl StartStep {
    /// The step of this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Fork,
            2 => Self::Group,
            3 => Self::Descriptors,
            4 => Self::Limits,
            5 => Self::User,
            6 => Self::DeathSignal,
            7 => Self::Directory,
            8 => Self::Execute,
            _ => return None,
        })
    }

    /// What to do about it, to be put behind the error.
    fn remedy(self, error: &io::Error) -> &'static str {
        match (self, error.raw_os_error()) {
            (Self::Fork, Some(libc::EAGAIN)) => {
                " (too many processes: application.limits.max_running, or the system's limit)"
            }
            (Self::Execute, Some(libc::ENOEXEC)) => " (a script begins with #! and its interpreter)",
            (Self::Execute, Some(libc::ENOENT)) => " (the program, or the interpreter in its first line, is missing)",
            (Self::Execute, Some(libc::EACCES)) => {
                " (chmod +x, or a directory above it that the application's user may not enter)"
            }
            (Self::Execute, Some(libc::E2BIG)) => " (arguments or variables too long)",
            (Self::Directory, _) => " (application.directory)",
            (Self::Limits, _) => " (application.limits)",
            (Self::User, _) => " (application.limits.user and group need root)",
            (Self::Fork | Self::Group | Self::Descriptors | Self::DeathSignal | Self::Execute, _) => "",
        }
    }
}

impl fmt::Display for StartStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fork => "new process",
            Self::Group => "process group",
            Self::Descriptors => "standard input, output and error",
            Self::Limits => "resource limits",
            Self::User => "user and groups",
            Self::DeathSignal => "death signal",
            Self::Directory => "working directory",
            Self::Execute => "execute",
        })
    }
}

/// Why the application could not be run here and now.
#[derive(Debug, Error)]
pub enum EnvironmentFault {
    /// The process that starts calls died while the call ran.
    #[error("the spawner process died; the next call starts another")]
    SpawnerDied,
    /// The process that starts calls can't be started.
    #[error("the spawner process can't be started: {0}")]
    NoSpawner(#[source] io::Error),
    /// There is no connection to the application's server.
    #[error("{server} can't be reached: {source} ({remedy})")]
    Unreachable {
        /// Where it should be.
        server: String,
        /// Why not.
        source: io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The application's server takes no request now.
    #[error("{server} refused the request: {why}")]
    Refused {
        /// Where it is.
        server: String,
        /// In its own words.
        why: &'static str,
    },
    /// A system call of this server failed.
    #[error("{what}: {source}{}", descriptors_remedy(.source))]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

fn descriptors_remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ETOOMANYREFS) => " (raise the limit of open files: ulimit -n)",
        _ => "",
    }
}

/// A signal by its name, as far as applications die by it.
struct SignalName(i32);

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match nix::sys::signal::Signal::try_from(self.0) {
            Ok(signal) => write!(f, "signal {} ({})", self.0, signal.as_str()),
            Err(_) => write!(f, "signal {}", self.0),
        }
    }
}

/// A duration as people write it: `30 s`, `1.5 s`.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_secs_f64())
    }
}
