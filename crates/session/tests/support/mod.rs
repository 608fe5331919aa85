//! Real PHP and real servers for the tests of the stores, each in a directory of its own and ended with its test.
// Every test file is a program of its own and uses its own part of this.
#![allow(dead_code, unreachable_pub)]

use std::cell::Cell;
use std::fmt::Debug;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use wootz_session::SessionId;
use wootz_session::store::{Recheck, Record, Store, StoreError, StoreOptions, StoreSettings, Version};

/// The longest that anything here waits. Machines that run tests may be busy.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until there is something to be seen.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < DEADLINE, "waited {DEADLINE:?} for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The id of a session, as no error may have it.
pub fn id(text: &str) -> SessionId {
    SessionId::parse(text.as_bytes()).expect("an id")
}

/// Options under which nothing is given up before the test is.
pub fn patient() -> StoreOptions {
    StoreOptions { deadline: DEADLINE, ..StoreOptions::default() }
}

/// Options under which nobody waits for long.
pub fn impatient() -> StoreOptions {
    StoreOptions { deadline: Duration::from_millis(300), ..StoreOptions::default() }
}

/// A store as a site's operator writes it.
pub fn store(settings: &str, options: StoreOptions) -> Store {
    let settings = StoreSettings::parse(settings).unwrap_or_else(|error| panic!("{settings}: {error}"));
    Store::new(settings, options).expect("a store")
}

/// What is said where something can't be read: never an id or a secret, always the setting or what to do.
pub fn said(error: &StoreError) -> String {
    let said = error.to_string();
    for secret in ["5e55104", "s3cret", "alice"] {
        assert!(!said.contains(secret), "{said}");
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
    }
    said
}

/// The error of a read.
pub fn refused<T: Debug>(result: Result<T, StoreError>) -> StoreError {
    let error = result.expect_err("should have been refused");
    said(&error);
    error
}

/// The session of this id, which is there.
pub async fn record(store: &Store, id: &SessionId) -> Record {
    store.read(id).await.unwrap_or_else(|error| panic!("{error}")).expect("a session")
}

/// The data of the session of this id, which is text.
pub async fn text(store: &Store, id: &SessionId) -> String {
    String::from_utf8(record(store, id).await.data.to_vec()).expect("UTF-8")
}

/// Reads until the store answers again.
pub async fn text_at_last(store: &Store, id: &SessionId) -> String {
    let began = Instant::now();
    loop {
        match store.read(id).await {
            Ok(found) => return String::from_utf8(found.expect("a session").data.to_vec()).expect("UTF-8"),
            Err(error) => assert!(error.is_temporary() && began.elapsed() < DEADLINE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What has become of one session.
pub async fn recheck(store: &Store, id: &SessionId, version: Version) -> Recheck {
    let mut found = store.recheck(&[(id.clone(), version)]).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found.len(), 1);
    found.remove(0)
}

/// Runs a program to its end, which is a good one.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}, which tests/run installs: {error}"));
    succeeded(command, output)
}

fn succeeded(command: &Command, output: Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// PHP's command line, with these settings.
pub fn php(settings: &[(&str, &str)], code: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("php");
    let fixed = [
        ("display_errors", "stderr"),
        ("session.use_cookies", "0"),
        ("session.cache_limiter", ""),
        ("session.gc_probability", "0"),
    ];
    for (name, value) in fixed.iter().chain(settings) {
        command.arg("-d").arg(format!("{name}=\"{value}\""));
    }
    // A warning is a failure here.
    let strict = "set_error_handler(function ($n, $text) { fwrite(STDERR, $text); exit(1); });";
    command.arg("-r").arg(format!("{strict} {code}")).arg("--").args(arguments);
    command
}

/// A program that runs beside the test and is spoken to by lines. Dropped, it is killed.
pub struct Beside {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Beside {
    /// Starts it and waits for its first line.
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().expect("piped")));
        let mut beside = Self { child, input, output };
        beside.line();
        beside
    }

    /// Its next line.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a pipe");
        assert!(!line.is_empty(), "it ended: {:?}", self.child.try_wait());
        line
    }

    /// Tells it something.
    pub fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().expect("not closed yet");
        writeln!(input, "{line}").and_then(|()| input.flush()).expect("a pipe");
    }

    /// Lets it go on, and waits for its end.
    pub fn end(mut self) {
        self.input = None;
        let status = self.child.wait().expect("a child of ours");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A server. Dropped, it is ended.
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
    end: Signal,
}

impl Daemon {
    /// Starts a server and waits until it says these words. `None`: it ended before.
    fn try_start(mut command: Command, ready: &str, end: Signal) -> Result<Self, String> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}, which tests/run installs: {error}"));
        let log = Arc::new(Mutex::new(String::new()));
        follow(child.stdout.take().expect("piped"), Arc::clone(&log));
        follow(child.stderr.take().expect("piped"), Arc::clone(&log));
        let mut daemon = Self { child, log, end };
        let is_ready = wait_until(ready, || {
            let has_ended = daemon.child.try_wait().expect("a child of ours").is_some();
            let is_ready = daemon.log().contains(ready);
            (is_ready || has_ended).then_some(is_ready && !has_ended)
        });
        if is_ready { Ok(daemon) } else { Err(daemon.log()) }
    }

    /// Starts a server and waits until it says these words.
    pub fn start(command: Command, ready: &str, end: Signal) -> Self {
        Self::try_start(command, ready, end).unwrap_or_else(|log| panic!("it ended: {log}"))
    }

    /// Starts a server on a port that nobody else has.
    pub fn start_on_port(command: impl Fn(u16) -> Command, ready: &str, end: Signal) -> (Self, u16) {
        let mut last = String::new();
        for _ in 0..5 {
            let port = free_port();
            match Self::try_start(command(port), ready, end) {
                Ok(daemon) => return (daemon, port),
                Err(log) => last = log,
            }
        }
        panic!("it ended five times: {last}");
    }

    fn log(&self) -> String {
        self.log.lock().expect("nobody panics with it").clone()
    }

    /// Stops it for a while; it keeps its connections and answers nobody.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).expect("a child of ours");
    }

    fn finish(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // One that was stopped must go on to obey.
            for signal in [self.end, Signal::CONT] {
                rustix::process::kill_process(Pid::from_child(&self.child), signal).ok();
            }
        }
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < DEADLINE {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.finish();
        if std::thread::panicking() {
            eprintln!("--- a server said:\n{}\n---", self.log());
        }
    }
}

fn follow(mut from: impl Read + Send + 'static, log: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            log.lock().expect("nobody panics with it").push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    });
}

/// A port that nobody listens on, below those that the kernel gives to connections: so a server that is stopped finds it free
/// again.
pub fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 16_000;
    const COUNT: u16 = 16_000;
    thread_local!(static SEED: Cell<u16> = const { Cell::new(0) });
    let seed = u16::try_from(std::process::id() % u32::from(COUNT)).expect("below u16::MAX");
    (0..1000)
        .map(|_| FIRST + (u32::from(seed) * 7 + u32::from(TRIED.fetch_add(1, Ordering::Relaxed))) as u16 % COUNT)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// Whether the tests are run by root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A directory that everybody may look into.
pub fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    set_mode(directory.path(), 0o755);
    directory
}

/// Changes the rights of a file.
pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a file of the test");
}

/// The first of these programs that exists.
pub fn program(candidates: &[&str]) -> PathBuf {
    let found = candidates.iter().map(PathBuf::from).find(|path| path.exists());
    found.unwrap_or_else(|| PathBuf::from(candidates[candidates.len() - 1]))
}
