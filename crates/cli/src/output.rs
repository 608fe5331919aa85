//! Standard output that may go away: `wootz config | head -1` ends quietly.

use std::io::{self, Write};

use anyhow::Context as _;

use crate::failure::Failure;

/// Prints `text` and a newline where it has none. A reader that has gone is no failure: it has what it wanted.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{newline}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result.context("can't write to standard output")?),
    }
}
