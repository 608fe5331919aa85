//! What is wrong with a configuration, and where it was written.
//!
//! Problems are collected, never thrown at the first one: an operator with five mistakes sees five lines.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a value was written. Ordered as problems are shown: the file by line, then variables, then flags.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// A line of a file; no line where the whole file is meant.
    File { path: Arc<Path>, line: Option<usize> },
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command line, or the command after `--`.
    Flag(String),
    /// Nowhere: it is the default.
    Default,
}

impl Origin {
    /// The flag of this name.
    pub(crate) fn flag(name: &str) -> Self {
        Self::Flag(format!("--{name}"))
    }

    /// Whether what is written there wins over what is written in `other`, both being given.
    pub(crate) const fn wins_over(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File { .. } => 1,
            Self::Variable(_) => 2,
            Self::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One mistake of the operator: where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    origin: Origin,
    text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            // A default has no place to look at; the text names the key.
            Origin::Default => f.write_str(&self.text),
            _ => write!(f, "{}: {}", self.origin, self.text),
        }
    }
}

/// All mistakes found so far.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    /// Adds one.
    pub(crate) fn add(&mut self, origin: Origin, text: impl Into<String>) {
        self.0.push(Problem { origin, text: text.into() });
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them, in the order in which they were found.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// Takes those of `other` too.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }
}

impl fmt::Display for Problems {
    /// One line each, in the order in which an operator reads the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Problem> = self.0.iter().collect();
        sorted.sort();
        for (index, problem) in sorted.into_iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}
