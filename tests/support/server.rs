//! A running server: what it says, what it has, and what it leaves.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::api::Api;
use super::client::Client;
use super::log::Log;
use super::raw::Raw;
use super::setup::{MARK, address_in, wootz};
use super::{DEADLINE, process, wait_or_give_up, wait_until, write_pipe};

/// A running server.
pub struct Wootz {
    child: Child,
    directory: TempDir,
    address: SocketAddr,
    log: Log,
    mark: String,
    own: Processes,
    /// What was in the directory of pipes before the server.
    foreign: BTreeSet<OsString>,
    ended: Option<ExitStatus>,
    /// Every process that was ever seen as a child of the server: its spawners, which clear their environment.
    children: RefCell<BTreeSet<u32>>,
}

/// Whose the processes of the application are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Processes {
    /// The server starts them.
    Own,
    /// They run already.
    OfOthers,
}

/// How the process that starts the calls is called.
pub const SPAWNER: &str = "wootz-spawner";

impl Wootz {
    /// Starts this command in this directory and waits until it says where it listens. All its processes have the mark.
    pub(super) fn start(mut command: Command, directory: TempDir, mark: String, own: Processes) -> Self {
        let foreign = pipes_in(&directory.path().join("tmp/fifo"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the wootz binary");
        let log = Log::default();
        log.follow(child.stdout.take().expect("piped"));
        log.follow(child.stderr.take().expect("piped"));
        let (address, ended, children) = (([0, 0, 0, 0], 0).into(), None, RefCell::default());
        let mut wootz = Self { child, directory, address, log, mark, own, foreign, ended, children };
        wootz.address = wait_until("the server says where it listens", || {
            let ended = wootz.child.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "wootz did not start: {ended:?}");
            address_in(&wootz.log.text())
        });
        wootz
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The server's directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A path in the server's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a file, which lets a call go on that waits for it.
    pub fn release(&self, name: &str) {
        File::create(self.path(name)).expect("a file of the test");
    }

    /// Waits until a file of this name has something in it.
    pub fn wait_for_file(&self, name: &str) -> String {
        wait_until(&format!("a file {name} with a line in it"), || {
            fs::read_to_string(self.path(name)).ok().filter(|text| text.ends_with('\n'))
        })
    }

    /// Waits until a file of this name has so many lines.
    pub fn wait_for_lines(&self, name: &str, count: usize) -> Vec<String> {
        wait_until(&format!("{count} lines in the file {name}"), || {
            let text = fs::read_to_string(self.path(name)).unwrap_or_default();
            (text.lines().count() >= count).then(|| text.lines().map(str::to_owned).collect())
        })
    }

    /// What a file has now; nothing where there is none.
    pub fn content(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// All that the server has said until now.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until the log has this text.
    pub fn wait_for_log(&self, text: &str) {
        assert!(self.log.wait_for(|log| log.contains(text)), "the log never said {text:?}");
    }

    /// Waits until the log has a line with all of these.
    pub fn wait_for_log_line(&self, texts: &[&str]) -> String {
        let of = |log: &str| {
            let mut lines = log.lines();
            lines.find(|line| texts.iter().all(|text| line.contains(text))).map(str::to_owned)
        };
        assert!(self.log.wait_for(|log| of(log).is_some()), "the log never had a line with {texts:?}");
        of(&self.log()).expect("just seen")
    }

    /// A well-behaved browser, as a guest, on path `/`.
    pub fn connect(&self) -> Client {
        Client::connect(self.address, "/", &[])
    }

    /// A well-behaved browser with a cookie.
    pub fn connect_as(&self, cookie: &str) -> Client {
        Client::connect(self.address, "/", &[("Cookie", cookie)])
    }

    /// A TCP connection on which nothing was said.
    pub fn raw(&self) -> Raw {
        Raw::connect(self.address)
    }

    /// A WebSocket whose bytes the test writes itself.
    pub fn open(&self) -> Raw {
        Raw::open(self.address)
    }

    /// Runs another command of the binary in the server's directory.
    pub fn run(&self, arguments: &[&str]) -> Output {
        wootz(self.directory()).args(arguments).output().expect("the wootz binary")
    }

    /// A client of the operator's API on the control socket.
    pub fn api(&self) -> Api {
        Api::unix(&self.path("wootz.sock"))
    }

    /// The id of the connection from this port.
    pub fn id_of(&self, port: u16) -> String {
        let end = format!(":{port}");
        wait_until(&format!("a connection from {end}"), || {
            let body = self.api().get("/v1/connections");
            let rows = body["connections"].as_array().expect("a list");
            let row = rows.iter().find(|row| row["address"].as_str().is_some_and(|address| address.ends_with(&end)));
            row.map(|row| row["id"].as_str().expect("an id").to_owned())
        })
    }

    /// What `GET /v1/status` says on the control socket.
    pub fn status(&self) -> serde_json::Value {
        let mut socket = std::os::unix::net::UnixStream::connect(self.path("wootz.sock")).expect("the control socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
        socket.write_all(b"GET /v1/status HTTP/1.1\r\nHost: wootz\r\nConnection: close\r\n\r\n").expect("a request");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// Sends a signal to the server.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).expect("a child of ours");
    }

    /// Waits for the end of the server.
    pub fn wait(&mut self) -> ExitStatus {
        if self.ended.is_none() {
            self.ended = wait_or_give_up(|| self.child.try_wait().expect("a child of ours"));
        }
        self.ended.expect("the server should have ended")
    }

    /// All processes of this server but itself: spawner, calls, and what they started.
    pub fn processes(&self) -> Vec<process::Process> {
        let mut children = self.children.borrow_mut();
        children.extend(process::children_of(self.pid()));
        let spawners = children.iter().map(|pid| process::Process::of(*pid));
        let spawners = spawners.filter(|process| process.command.starts_with(SPAWNER) && process::runs(process.pid));
        let calls = process::with_variable(MARK, &self.mark);
        let calls = calls.into_iter().filter(|process| process.pid != self.pid() && !children.contains(&process.pid));
        calls.chain(spawners).collect()
    }

    /// Waits until nothing of this server runs any more.
    pub fn wait_for_no_process(&self) {
        wait_until("every process of the server has ended", || self.processes().is_empty().then_some(()));
    }

    /// Waits until the server has no zombie. One that is being reaped right now is none.
    pub fn wait_for_no_zombie(&self) {
        wait_until("no zombie", || process::zombies_below(self.pid()).is_empty().then_some(()));
    }

    /// The names of all pipes that there are now, those that were there before the server left out.
    pub fn pipes(&self) -> Vec<String> {
        let now = pipes_in(&self.path("tmp/fifo"));
        now.difference(&self.foreign).map(|name| name.to_str().expect("UTF-8").to_owned()).collect()
    }

    /// The pipe of everybody.
    pub fn global_pipe(&self) -> PathBuf {
        self.path("tmp/fifo/global_pipe.fifo")
    }

    /// The name of the pipe of the connection from this port, as soon as there is one.
    pub fn pipe_of(&self, port: u16) -> String {
        let end = format!(":{port}.fifo");
        wait_until(&format!("a pipe {end}"), || self.pipes().into_iter().find(|name| name.ends_with(&end)))
    }

    /// Pushes bytes to everybody in one write.
    pub fn push(&self, bytes: impl AsRef<[u8]>) {
        write_pipe(&self.global_pipe(), bytes.as_ref());
    }

    /// Ends the server by TERM and looks at what it leaves.
    pub fn stop(self) {
        drop(self);
    }

    fn check_end(&mut self) {
        if self.ended.is_none() {
            self.wait_for_no_zombie();
            let spawner = self.own == Processes::OfOthers || !self.processes().is_empty();
            assert!(spawner, "a server that starts processes has a spawner");
            self.signal(Signal::TERM);
            let status = self.wait();
            assert_eq!(status.code(), Some(0), "TERM ends the server with 0, not {status:?}");
        }
        self.wait_for_no_process();
        if self.ended.is_some_and(|status| status.code() == Some(0)) {
            assert_eq!(self.pipes(), Vec::<String>::new(), "no pipe is left");
            assert!(!self.path("wootz.sock").exists(), "no control socket is left");
        }
    }
}

impl Drop for Wootz {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.check_end()));
            let Err(failure) = checked else { return };
            self.give_up();
            std::panic::resume_unwind(failure);
        }
        self.give_up();
    }
}

impl Wootz {
    /// After a failure: no process may stay, and whoever reads the failure wants to see the log.
    fn give_up(&mut self) {
        for process in self.processes() {
            process.kill();
        }
        self.child.kill().ok();
        self.child.wait().ok();
        let log = self.log();
        // The end is what matters, and a flood would hide the failure itself.
        let start = log.char_indices().rev().nth(8000).map_or(0, |(at, _)| at);
        eprintln!("--- the server said:\n{}\n---", &log[start..]);
    }
}

/// The names in a directory of pipes.
fn pipes_in(directory: &Path) -> BTreeSet<OsString> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeSet::new() };
    entries.map(|entry| entry.expect("an entry").file_name()).collect()
}
