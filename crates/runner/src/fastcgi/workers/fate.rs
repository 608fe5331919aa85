//! How a worker came to its end.

use std::fmt;

use crate::exec;

/// Why a worker is not there any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It ran and ended.
    Ended(exec::Ended),
    /// It never became the program, for this reason.
    NotStarted(String),
    /// It was killed with its spawner.
    SpawnerDied,
}

/// What a call whose worker died is told.
#[derive(Debug, Clone)]
pub(super) struct Obituary {
    pub(super) fate: Fate,
    /// The end of the worker's own standard error.
    pub(super) stderr: String,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(exec::Ended::Exit(status)) => write!(f, "exit status {status}"),
            Self::Ended(exec::Ended::Signal(signal)) => {
                write!(f, "{}", crate::error::ApplicationFault::Signal(*signal))
            }
            Self::NotStarted(why) => f.write_str(why),
            Self::SpawnerDied => f.write_str("the spawner process died"),
        }
    }
}
