//! How a command ends when it does not end well, and with which exit code.

use std::fmt;
use std::process::ExitCode;

use crate::problem::Problems;

/// Whose fault it was that a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The operator's: mistakes in the configuration.
    Configuration(Problems),
    /// The operator's: a command without what it needs.
    Usage(String),
    /// Somebody else holds the address.
    AddressInUse(String),
    /// The environment's, at run time.
    Failed(anyhow::Error),
}

impl Failure {
    /// The exit code, part of the interface.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Configuration(_) | Self::Usage(_) => 2,
            Self::AddressInUse(_) => 18,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(problems) => problems.fmt(f),
            Self::AddressInUse(text) | Self::Usage(text) => write!(f, "wootz: {text}"),
            // With its causes.
            Self::Failed(error) => write!(f, "wootz: {error:#}"),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
