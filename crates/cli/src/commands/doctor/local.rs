//! A wootz on this machine: whether one runs, and whether it has run out of open files.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A running server, as its control socket and `/proc` show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Local {
    pub(super) pid: u32,
    /// Descriptors in use and the most that there may be, where `/proc` tells us.
    pub(super) files: Option<(usize, usize)>,
}

impl Local {
    /// Who listens on this control socket. The kernel says so also of a server that can accept nothing more.
    pub(super) fn at(socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket).ok()?;
        let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
        let pid = u32::try_from(peer.pid.as_raw_nonzero().get()).ok()?;
        Some(Self { pid, files: files(pid) })
    }

    /// Whether it has no descriptor left for another connection, but for a few.
    pub(super) fn is_out_of_files(&self) -> bool {
        self.files.is_some_and(|(used, limit)| used + SPARE >= limit)
    }
}

/// A server that accepts and refuses at its limit has one free now and then.
const SPARE: usize = 2;

fn files(pid: u32) -> Option<(usize, usize)> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let limit = line.split_whitespace().next()?.parse().ok()?;
    Some((fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(), limit))
}
