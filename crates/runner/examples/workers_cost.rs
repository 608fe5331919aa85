//! What a call by a kept worker costs: through `KeptFastCgi`, against a bare blocking FastCGI client of another `php-cgi`, in turns.
//!
//! `cargo run --release -p wootz-runner --example workers_cost [CALLS]` (needs php-cgi)

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use wootz_runner::exec::{ExecSettings, Spawner};
use wootz_runner::fastcgi::{KeptFastCgi, WorkerSettings, Workers};
use wootz_runner::{
    Application, Call, CallEvent, Caller, ConnectionId, Gone, Message, MessageMode, Replies, ReplySink,
};

struct Nobody;

impl ReplySink for Nobody {
    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn send(&self, message: Message) {
        assert_eq!(message, Message::text("hello"));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    wootz_runner::exec::run_if_spawner();
    let calls = std::env::args().nth(1).map(|number| number.parse::<usize>()).transpose()?.unwrap_or(5000);
    let spawner = Spawner::start()?;
    let directory = tempfile::tempdir()?;
    let script = directory.path().join("index.php");
    std::fs::write(&script, "<?php echo file_get_contents('php://input');")?;
    let bare = Bare::start(&directory.path().join("bare.sock"), &script)?;
    let settings = WorkerSettings {
        process: ExecSettings { command: vec!["php-cgi".into()], ..ExecSettings::default() },
        script: Some(script),
        max_calls: 0,
        ..WorkerSettings::default()
    };
    let application = KeptFastCgi::new(Workers::start(settings, spawner)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut ours, mut theirs) = (Vec::with_capacity(calls), Vec::with_capacity(calls));
    for _ in 0..calls {
        let since = Instant::now();
        runtime.block_on(call(&application));
        ours.push(since.elapsed());
        let since = Instant::now();
        bare.call()?;
        theirs.push(since.elapsed());
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("KeptFastCgi {ours:?}, bare {theirs:?}, {:?} more", ours.saturating_sub(theirs));
    Ok(())
}

async fn call(application: &KeptFastCgi) {
    let call = Call {
        event: CallEvent::Message,
        message: Message::text("hello"),
        caller: Arc::new(Caller::builder(ConnectionId(1), "/").build()),
        mode: MessageMode::Uri,
        capability: None,
    };
    let mut replies = Replies::new(Rc::new(Nobody));
    application.call(call, &mut replies).await.expect("the call should succeed");
    assert_eq!(replies.sent(), 1);
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// A `php-cgi`, and a request that is always the same.
struct Bare {
    process: Child,
    socket: std::path::PathBuf,
    request: Vec<u8>,
}

impl Bare {
    fn start(socket: &Path, script: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let process = Command::new("php-cgi")
            .env("PHP_FCGI_MAX_REQUESTS", "0")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
            .spawn()?;
        let script = script.to_str().ok_or(io::ErrorKind::InvalidInput)?;
        let parameters: Vec<u8> = [
            ("SCRIPT_FILENAME", script),
            ("REQUEST_METHOD", "POST"),
            ("CONTENT_TYPE", "text/plain"),
            ("CONTENT_LENGTH", "5"),
            ("REDIRECT_STATUS", "200"),
        ]
        .into_iter()
        .flat_map(|(name, value)| {
            [&[name.len() as u8, value.len() as u8][..], name.as_bytes(), value.as_bytes()].concat()
        })
        .collect();
        let request = [
            record(1, &[0, 1, 0, 0, 0, 0, 0, 0]),
            record(4, &parameters),
            record(4, b""),
            record(5, b"hello"),
            record(5, b""),
        ]
        .concat();
        Ok(Self { process, socket: socket.to_owned(), request })
    }

    fn call(&self) -> io::Result<()> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(&self.request)?;
        let (mut answer, mut at) = ([0; 4096], 0);
        // The last record is END_REQUEST: 8 bytes and its header.
        while at < 16 || answer[at - 16..at - 14] != [1, 3] {
            match stream.read(&mut answer[at..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => at += length,
            }
        }
        Ok(())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u16).to_be_bytes();
    [&[1, kind, 0, 1, length[0], length[1], 0, 0], content].concat()
}
