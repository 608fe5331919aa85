//! A php-fpm of one's own: its configuration, socket and pool in a directory that goes with it.
#![allow(dead_code, unreachable_pub, reason = "a module of several programs, each of which uses its part")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wootz_runner::fastcgi::{Address, FastCgi, FastCgiSettings};

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A master of php-fpm with one pool. Dropped, it is ended with its workers.
pub struct PhpFpm {
    pub directory: TempDir,
    master: Option<Child>,
}

impl PhpFpm {
    /// Starts a pool with so many workers and these further lines of configuration.
    pub fn start(workers: usize, pool: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        // Its workers are another user where this is root.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
        let user = if rustix::process::geteuid().is_root() { "user = www-data\ngroup = www-data\n" } else { "" };
        let here = directory.path().display();
        let configuration = format!(
            "[global]\nerror_log = {here}/fpm.log\ndaemonize = no\nprocess_control_timeout = 10s\n\
             [pool]\n{user}listen = {here}/fpm.sock\npm = static\npm.max_children = {workers}\n\
             php_admin_value[session.save_path] = {here}\nphp_admin_value[opcache.enable] = 0\n\
             env[HERE] = {here}\n{pool}\n"
        );
        fs::write(directory.path().join("fpm.conf"), configuration).expect("written");
        let mut fpm = Self { directory, master: None };
        fpm.start_again();
        fpm
    }

    /// Starts it after [`stop`](Self::stop).
    pub fn start_again(&mut self) {
        let mut command = Command::new(program());
        command.args(["--nodaemonize", "--fpm-config"]).arg(self.path("fpm.conf"));
        let master = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.master = Some(master.expect("php-fpm starts"));
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(self.path("fpm.sock")).is_err() {
            assert!(Instant::now() < deadline, "php-fpm does not listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it as a service manager does, and waits for that.
    pub fn stop(&mut self) {
        if let Some(mut master) = self.master.take() {
            self.signal_to(&master, rustix::process::Signal::TERM);
            master.wait().expect("our child");
        }
    }

    /// Has it replace all its workers, as after a change of the site.
    pub fn reload(&self) {
        self.signal_to(self.master.as_ref().expect("running"), rustix::process::Signal::USR2);
    }

    fn signal_to(&self, master: &Child, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(master);
        rustix::process::kill_process(pid, signal).expect("the master runs");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("fpm.log")).unwrap_or_default()
    }

    /// A script in its directory.
    pub fn script(&self, name: &str, code: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, format!("<?php {code}")).expect("written");
        path
    }

    pub fn settings(&self, script: &Path) -> FastCgiSettings {
        FastCgiSettings { timeout: PATIENCE, ..FastCgiSettings::new(Address::Unix(self.path("fpm.sock")), script) }
    }

    /// An application that is this code.
    pub fn application(&self, code: &str) -> FastCgi {
        FastCgi::new(Arc::new(self.settings(&self.script("index.php", code))))
    }
}

impl Drop for PhpFpm {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Debian puts the version into its name, and it is in no ordinary user's PATH.
fn program() -> PathBuf {
    let is_fpm = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix("php-fpm").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
    };
    let files =
        ["/usr/sbin", "/usr/local/sbin", "/usr/bin"].into_iter().filter_map(|directory| fs::read_dir(directory).ok());
    let found = files.flatten().filter_map(|entry| Some(entry.ok()?.path())).find(is_fpm);
    found.expect("php-fpm is installed (apt-get install php-fpm)")
}
