//! What a server of a test is started with.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::server::{Processes, Wootz};
use super::wait_or_give_up;

/// What every shell application of the tests begins with.
const PRELUDE: &str = r#"# Waits until a file is there: how a test holds a call, and lets it go on.
wait_for() { while [ ! -e "$1" ]; do sleep 0.02; done; }
"#;

/// The variable by which every process of one test's server is known.
pub const MARK: &str = "BLACK_BOX_TEST";

/// The binary, with a clean environment, in this directory.
pub fn wootz(directory: &Path) -> Command {
    in_clean_environment(env!("CARGO_BIN_EXE_wootz"), directory)
}

fn in_clean_environment(program: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).stdin(Stdio::null()).env_clear();
    command.env("PATH", std::env::var_os("PATH").expect("a PATH"));
    command
}

/// The address after the first `ws://` or `wss://` in what the server said.
pub fn address_in(text: &str) -> Option<SocketAddr> {
    let behind = |scheme: &str| text.find(scheme).map(|at| at + scheme.len());
    let rest = &text[["ws://", "wss://"].into_iter().filter_map(behind).min()?..];
    let end = rest.find(|c: char| !matches!(c, '0'..='9' | 'a'..='f' | '.' | ':' | '[' | ']'))?;
    rest[..end].parse().ok()
}

/// What a server will be started with.
pub struct Setup {
    directory: TempDir,
    settings: BTreeMap<String, String>,
    arguments: Vec<String>,
    environment: Vec<(OsString, OsString)>,
    mask: Option<&'static str>,
}

impl Setup {
    /// A server whose application is this program. It has a directory of its own, which is the current one of the
    /// server and of its calls.
    pub fn command(command: &[&str]) -> Self {
        let setup = Self::without_application();
        setup.setting("application.command", format!("{command:?}"))
    }

    /// A server whose application is this shell script.
    pub fn sh(script: &str) -> Self {
        let setup = Self::command(&["sh", "application.sh"]);
        setup.file("application.sh", &format!("{PRELUDE}{script}\n"))
    }

    /// A server whose application is this script, run by the FastCGI server at this address.
    pub fn fastcgi(address: &str, script: &Path) -> Self {
        let setup = Self::without_application().argument("--fastcgi").argument(address);
        setup.argument("--script").argument(script.to_str().expect("UTF-8"))
    }

    /// A server whose application is the HTTP server at this URL.
    pub fn http(url: &str) -> Self {
        Self::without_application().argument("--http").argument(url)
    }

    /// A server that keeps FastCGI workers, each started by this command.
    pub fn workers(command: &[&str]) -> Self {
        Self::command(command).setting("application.runner", "\"fastcgi\"")
    }

    /// A server with no application.
    pub fn without_application() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (settings, arguments, environment) = Default::default();
        let setup = Self { directory, settings, arguments, environment, mask: None };
        setup.setting("listen.address", "\"127.0.0.1:0\"").setting("limits.drain_timeout", "\"2s\"")
    }

    /// Writes a file into the server's directory.
    pub fn file(self, name: &str, content: &str) -> Self {
        fs::write(self.path(name), content).expect("a file of the test");
        self
    }

    /// Sets one key to a value written in TOML.
    pub fn setting(mut self, key: &str, value: impl Into<String>) -> Self {
        self.settings.insert(key.to_owned(), value.into());
        self
    }

    /// Sets keys, one `key = value` a line.
    pub fn settings(mut self, lines: &str) -> Self {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (key, value) = line.split_once('=').expect("key = value");
            self = self.setting(key.trim(), value.trim());
        }
        self
    }

    /// With `--dev`.
    pub fn dev(self) -> Self {
        self.argument("--dev")
    }

    /// With another argument after `serve`.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// With a variable in the server's environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// With this file mode creation mask.
    pub fn umask(mut self, mask: &'static str) -> Self {
        self.mask = Some(mask);
        self
    }

    /// A path in the server's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes `wootz.toml` and gives the command that would serve it.
    fn prepare(&self, mark: &str) -> Command {
        let mut toml = String::new();
        if self.starts_processes() {
            toml += &format!("application.environment.{MARK} = {mark:?}\n");
        }
        for (key, value) in &self.settings {
            toml += &format!("{key} = {value}\n");
        }
        fs::write(self.path("wootz.toml"), toml).expect("wootz.toml");
        let mut command = match self.mask {
            None => wootz(self.directory.path()),
            Some(mask) => {
                // Only the process itself can set its mask.
                let mut shell = in_clean_environment("sh", self.directory.path());
                shell.arg("-c").arg(format!("umask {mask}; exec \"$0\" \"$@\"")).arg(env!("CARGO_BIN_EXE_wootz"));
                shell
            }
        };
        command.arg("serve").args(&self.arguments).env(MARK, mark);
        command.envs(self.environment.iter().cloned());
        command
    }

    /// Whether the application is a command of the server's own.
    fn starts_processes(&self) -> bool {
        self.settings.contains_key("application.command") || self.arguments.iter().any(|argument| argument == "--")
    }

    /// Starts the server and waits until it says where it listens.
    pub fn start(self) -> Wootz {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let command = self.prepare(&mark);
        let processes = if self.starts_processes() { Processes::Own } else { Processes::OfOthers };
        Wootz::start(command, self.directory, mark, processes)
    }

    /// Starts a server that is expected to refuse, and waits for its end.
    pub fn refused(&self) -> Output {
        let mut command = self.prepare("refused");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the wootz binary");
        let ended = wait_or_give_up(|| child.try_wait().expect("a child of ours"));
        if ended.is_none() {
            child.kill().expect("a child of ours");
        }
        let output = child.wait_with_output().expect("a child of ours");
        assert!(ended.is_some(), "wootz started, and should have refused: {output:?}");
        output
    }
}
