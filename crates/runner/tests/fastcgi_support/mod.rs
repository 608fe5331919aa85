//! What the tests of `fastcgi` share: FastCGI servers that do as a test says, byte by byte.
#![allow(dead_code, unreachable_pub, reason = "a module of several test programs, each of which uses its part")]

use std::collections::HashMap;
use std::future::Future;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use tempfile::TempDir;
use wootz_runner::fastcgi::{Address, FastCgi, FastCgiSettings};
use wootz_runner::{Application, Call, Message, Replies, ReplySink};

use crate::support::{Browser, PATIENCE, Ran, call_with};

/// Runs a test on a runtime like a shard's, with a limit of time.
pub fn on_a_shard<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let whole = async { tokio::time::timeout(3 * PATIENCE, test).await };
    runtime.block_on(whole).expect("the test should end");
}

pub async fn run(application: &FastCgi, call: Call, browser: &Rc<Browser>) -> Ran {
    let since = Instant::now();
    let mut replies = Replies::new(Rc::clone(browser) as Rc<dyn ReplySink>);
    let result = application.call(call, &mut replies).await;
    let outcome = replies.outcome().cloned();
    Ran { result, replies: browser.texts(), outcome, took: since.elapsed() }
}

/// One call with the text message `hello`.
pub async fn ask(application: &FastCgi) -> Ran {
    run(application, call_with(Message::text("hello")), &Rc::default()).await
}

/// A FastCGI server in a thread. Each of its connections has a thread, which does what the test says and then closes.
pub struct Peer {
    pub address: Address,
    accepted: Arc<AtomicUsize>,
    closed: mpsc::Receiver<usize>,
    _directory: TempDir,
}

impl Peer {
    /// `serve` gets each connection with its number, from 0.
    pub fn new(serve: impl Fn(&mut Connection, usize) + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("fastcgi.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let (accepted, (close, closed)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel());
        accept_all(listener, Arc::clone(&accepted), Arc::new(serve), close);
        Self { address: Address::Unix(path), accepted, closed, _directory: directory }
    }

    /// A server that answers every request with this STDOUT, and keeps connections as it is asked to.
    pub fn printing(stdout: &'static str) -> Self {
        Self::new(move |connection, _| {
            while let Some(request) = connection.request() {
                connection.write(&answer(stdout));
                if !request.keep {
                    break;
                }
            }
        })
    }

    /// A server that reads a whole request, and then sends these bytes and closes.
    pub fn sending(bytes: Vec<u8>) -> Self {
        Self::new(move |connection, _| {
            connection.request();
            connection.write(&bytes);
        })
    }

    pub fn settings(&self) -> FastCgiSettings {
        FastCgiSettings { timeout: PATIENCE, ..FastCgiSettings::new(self.address.clone(), "/srv/site/index.php") }
    }

    pub fn application(&self) -> FastCgi {
        FastCgi::new(Arc::new(self.settings()))
    }

    /// How its name stands in errors.
    pub fn name(&self) -> String {
        format!("the FastCGI server at {}", self.address)
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Waits until this peer has done what it does on one more connection; its number.
    pub async fn next_done(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(number) = self.closed.try_recv() {
                return number;
            }
            assert!(Instant::now() < deadline, "waited in vain for the peer");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

type Serve = dyn Fn(&mut Connection, usize) + Send + Sync;

fn accept_all(listener: UnixListener, accepted: Arc<AtomicUsize>, serve: Arc<Serve>, close: mpsc::Sender<usize>) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let number = accepted.fetch_add(1, Ordering::SeqCst);
            let (serve, close) = (Arc::clone(&serve), close.clone());
            std::thread::spawn(move || {
                let mut connection = Connection(stream.expect("accepted"));
                serve(&mut connection, number);
                drop(connection);
                let _ = close.send(number);
            });
        }
    });
}

/// The server's end of a connection.
pub struct Connection(pub UnixStream);

/// A request as a server reads it.
pub struct Request {
    pub keep: bool,
    pub parameters: HashMap<String, String>,
    pub stdin: Vec<u8>,
}

impl Connection {
    /// Reads a whole request; `None` when the connection is closed instead.
    pub fn request(&mut self) -> Option<Request> {
        let (kind, begin) = self.record()?;
        assert_eq!((kind, begin[..2].to_vec()), (1, vec![0, 1]), "BEGIN_REQUEST of a responder");
        let parameters = parameters_of(&self.stream(4)?);
        Some(Request { keep: begin[2] & 1 == 1, parameters, stdin: self.stream(5)? })
    }

    /// The same as [`request`](Self::request), a byte at a time and with other threads in between.
    pub fn request_by_bytes(&mut self) -> Option<()> {
        let mut seen = Vec::new();
        while !seen.ends_with(&record(5, b"")) {
            let mut byte = [0];
            self.0.read_exact(&mut byte).ok()?;
            seen.extend(byte);
            std::thread::yield_now();
        }
        Some(())
    }

    /// All of one stream, up to its empty record.
    fn stream(&mut self, expected: u8) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let (kind, content) = self.record()?;
            assert_eq!(kind, expected);
            if content.is_empty() {
                return Some(bytes);
            }
            bytes.extend(content);
        }
    }

    fn record(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 8];
        self.0.read_exact(&mut header).ok()?;
        assert_eq!((header[0], &header[2..4]), (1, &[0, 1][..]), "version and request id");
        let mut content = vec![0; usize::from(header[4]) << 8 | usize::from(header[5])];
        self.0.read_exact(&mut content).ok()?;
        let mut padding = vec![0; header[6].into()];
        self.0.read_exact(&mut padding).ok()?;
        Some((header[1], content))
    }

    /// Writes; the client may be gone.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Writes the same again and again until the client closes.
    pub fn write_for_ever(&mut self, bytes: &[u8]) -> io::Error {
        loop {
            if let Err(error) = self.0.write_all(bytes) {
                return error;
            }
        }
    }

    /// Reads until the client closes.
    pub fn wait_for_close(&mut self) {
        let mut buffer = [0; 4096];
        while matches!(self.0.read(&mut buffer), Ok(1..)) {}
    }
}

fn parameters_of(mut bytes: &[u8]) -> HashMap<String, String> {
    let mut parameters = HashMap::new();
    while !bytes.is_empty() {
        let (name_bytes, value_bytes) = (length_of(&mut bytes), length_of(&mut bytes));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (name, value) = (text(&bytes[..name_bytes]), text(&bytes[name_bytes..name_bytes + value_bytes]));
        bytes = &bytes[name_bytes + value_bytes..];
        assert_eq!(parameters.insert(name.clone(), value), None, "{name} comes once");
    }
    parameters
}

fn length_of(bytes: &mut &[u8]) -> usize {
    let (length, taken) = match bytes[0] {
        short @ ..128 => (short.into(), 1),
        first => (u32::from_be_bytes([first & 0x7f, bytes[1], bytes[2], bytes[3]]) as usize, 4),
    };
    *bytes = &bytes[taken..];
    length
}

/// One record of request 1.
pub fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("one record").to_be_bytes();
    [&[1, kind, 0, 1, length[0], length[1], 0, 0], content].concat()
}

pub fn stdout(content: &str) -> Vec<u8> {
    record(6, content.as_bytes())
}

pub fn stderr(content: &str) -> Vec<u8> {
    record(7, content.as_bytes())
}

pub fn end(app_status: u8, protocol_status: u8) -> Vec<u8> {
    record(3, &[0, 0, 0, app_status, protocol_status, 0, 0, 0])
}

/// A whole answer of success.
pub fn answer(content: &str) -> Vec<u8> {
    [stdout(content), stdout(""), end(0, 0)].concat()
}

/// A path for a socket that is not there.
pub fn no_socket(directory: &TempDir) -> PathBuf {
    directory.path().join("later.sock")
}
