//! Starts the real binary in a directory of its own, talks to it, and looks at what it leaves behind.
//!
//! Every [`Wootz`] that a test drops is ended by TERM, and the test fails unless it exits with 0 and leaves no
//! process, no zombie, no pipe and no socket. Nothing here waits without [`DEADLINE`].
// Every test file is a program of its own and uses its own part of this.
#![allow(dead_code, unreachable_pub, unused_imports)]

pub mod api;
pub mod authority;
pub mod client;
pub mod daemon;
pub mod doctor;
mod log;
pub mod process;
pub mod proxies;
pub mod raw;
mod server;
mod setup;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use log::Log;
pub use server::{SPAWNER, Wootz};
pub use setup::{Setup, wootz};

/// How long anything may take before a test gives up. Generous: the machine may be small and busy.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `found` gives something, and gives it back.
pub fn wait_until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository is there")
}

/// A tool that `tests/run` installs; a test that needs it fails without it.
pub fn installed(path: &str) -> PathBuf {
    let path = repository().join(path);
    assert!(path.exists(), "{} is missing: `tests/run` installs it", path.display());
    path
}

/// As [`wait_until`], but leaves the failing to the caller, who has something to clean up.
fn wait_or_give_up<T>(mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let value = found();
        if value.is_some() || Instant::now() > deadline {
            return value;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Writes bytes into a pipe in one write, after a look whether anybody reads it.
pub fn write_pipe(path: &Path, bytes: &[u8]) {
    let not_blocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let probe = OpenOptions::new().write(true).custom_flags(not_blocking).open(path);
    let _reader = probe.unwrap_or_else(|error| panic!("nobody reads {}: {error}", path.display()));
    let mut pipe = OpenOptions::new().write(true).open(path).expect("a pipe with a reader");
    pipe.write_all(bytes).expect("room in the pipe");
}

/// The permission bits of a path.
pub fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o7777
}

/// A command that only root may run. Where the tests are not root, sudo must let them without a password.
pub fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("-n").arg(program);
    command
}

/// Runs a command of somebody else's and gives what it printed; it must succeed within the deadline.
pub fn run(command: &mut Command) -> String {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let log = Log::default();
    log.follow(child.stderr.take().expect("piped"));
    let output = Log::default();
    output.follow(child.stdout.take().expect("piped"));
    let ended = wait_or_give_up(|| child.try_wait().expect("a child of ours"));
    if ended.is_none() {
        child.kill().ok();
        child.wait().ok();
    }
    let complete = log.wait_for_end() && output.wait_for_end();
    assert!(complete, "{command:?} left somebody behind who holds its output");
    assert!(ended.is_some_and(|status| status.success()), "{command:?}: {ended:?}\n{}\n{}", output.text(), log.text());
    output.text()
}
