//! What a call by php-fpm costs: through `FastCgi`, against a bare blocking FastCGI client, in turns in one run with the same pool and
//! script. First one after another, with a connection each and with a kept one; then 64 at once on 4 workers.
//!
//! `cargo run --release -p wootz-runner --example fastcgi_cost [CALLS]` (needs php-fpm)

#[path = "../tests/fastcgi_support/php.rs"]
mod php;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use php::PhpFpm;
use wootz_runner::fastcgi::{FastCgi, FastCgiSettings};
use wootz_runner::{
    Application, Call, CallEvent, Caller, ConnectionId, Gone, Message, MessageMode, Replies, ReplySink,
};

const WORKERS: usize = 4;
const AT_ONCE: usize = 64;
const ROUNDS: usize = 20;

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
    let calls = std::env::args().nth(1).map(|number| number.parse::<usize>()).transpose()?.unwrap_or(5000);
    let fpm = PhpFpm::start(WORKERS, "php_admin_value[opcache.enable] = 1");
    let script = fpm.script("index.php", "echo file_get_contents('php://input');");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for (what, keep) in [("a connection per call", 0), ("a kept connection", 1)] {
        let application = FastCgi::new(Arc::new(FastCgiSettings { keep, ..fpm.settings(&script) }));
        one_after_another(what, calls, &runtime, &application, &mut Bare::new(&fpm.path("fpm.sock"), &script, keep))?;
    }
    many_at_once(calls, &fpm.settings(&script), &fpm.path("fpm.sock"), &script)?;
    Ok(())
}

fn one_after_another(
    what: &str,
    calls: usize,
    runtime: &tokio::runtime::Runtime,
    application: &FastCgi,
    bare: &mut Bare,
) -> std::io::Result<()> {
    let (mut ours, mut theirs) = (Vec::with_capacity(calls), Vec::with_capacity(calls));
    for _ in 0..calls {
        let since = Instant::now();
        runtime.block_on(call(application));
        ours.push(since.elapsed());
        let since = Instant::now();
        bare.call()?;
        theirs.push(since.elapsed());
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("{what}: FastCgi {ours:?}, bare {theirs:?}, {:?} more", ours.saturating_sub(theirs));
    Ok(())
}

/// Many short rounds in turns: the machine may be busy with something else for some of them.
fn many_at_once(calls: usize, settings: &FastCgiSettings, socket: &Path, script: &Path) -> std::io::Result<()> {
    let each = calls.div_ceil(AT_ONCE * ROUNDS);
    let (mut ours, mut theirs) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        let since = Instant::now();
        shards(settings, each);
        ours.push(since.elapsed());
        let since = Instant::now();
        threads(socket, script, each)?;
        theirs.push(since.elapsed());
    }
    let rate = |took: Duration| (each * AT_ONCE) as f64 / took.as_secs_f64();
    let (ours, theirs) = (rate(median(ours)), rate(median(theirs)));
    println!("{AT_ONCE} at once: FastCgi {ours:.0}/s, bare threads {theirs:.0}/s, ratio {:.2}", ours / theirs);
    Ok(())
}

/// As the server does it: a thread per core, each with its share of the clients.
fn shards(settings: &FastCgiSettings, each: usize) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for shard in 0..cores {
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                let application = Rc::new(FastCgi::new(Arc::new(settings.clone())));
                let clients = tokio::task::LocalSet::new();
                for _ in (shard..AT_ONCE).step_by(cores) {
                    let application = Rc::clone(&application);
                    clients.spawn_local(async move {
                        for _ in 0..each {
                            call(&application).await;
                        }
                    });
                }
                runtime.block_on(clients);
            });
        }
    });
}

fn threads(socket: &Path, script: &Path, each: usize) -> std::io::Result<()> {
    std::thread::scope(|scope| {
        let client = || {
            let mut bare = Bare::new(socket, script, 0);
            (0..each).try_for_each(|_| bare.call())
        };
        let clients: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(client)).collect();
        clients.into_iter().try_for_each(|client| client.join().expect("no panic"))
    })
}

async fn call(application: &FastCgi) {
    let caller = Arc::new(Caller::builder(ConnectionId(1), "/").build());
    let call = Call {
        event: CallEvent::Message,
        message: Message::text("hello"),
        caller,
        mode: MessageMode::Uri,
        capability: None,
    };
    application.call(call, &mut Replies::new(Rc::new(Nobody))).await.expect("php answers");
}

/// The least that a FastCGI client can do: the same request each time, written and read by blocking calls.
struct Bare {
    socket: PathBuf,
    keep: bool,
    request: Vec<u8>,
    kept: Option<UnixStream>,
}

impl Bare {
    fn new(socket: &Path, script: &Path, keep: usize) -> Self {
        let mut parameters = Vec::new();
        let script = script.to_str().expect("a path of text");
        let pairs = [("SCRIPT_FILENAME", script), ("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "5")];
        for (name, value) in pairs {
            parameters.extend([name.len() as u8, value.len() as u8]);
            parameters.extend([name.as_bytes(), value.as_bytes()].concat());
        }
        let begin = [0, 1, u8::from(keep > 0), 0, 0, 0, 0, 0];
        let records: [(u8, &[u8]); 5] = [(1, &begin), (4, &parameters), (4, b""), (5, b"hello"), (5, b"")];
        let record = |&(kind, content): &(u8, &[u8])| {
            let length = (content.len() as u16).to_be_bytes();
            [&[1, kind, 0, 1, length[0], length[1], 0, 0], content].concat()
        };
        let request = records.iter().flat_map(record).collect();
        Self { socket: socket.to_owned(), keep: keep > 0, request, kept: None }
    }

    fn call(&mut self) -> std::io::Result<()> {
        let mut stream = match self.kept.take() {
            Some(stream) => stream,
            None => UnixStream::connect(&self.socket)?,
        };
        stream.write_all(&self.request)?;
        let mut header = [0; 8];
        let mut content = Vec::new();
        loop {
            stream.read_exact(&mut header)?;
            content.resize((usize::from(header[4]) << 8 | usize::from(header[5])) + usize::from(header[6]), 0);
            stream.read_exact(&mut content)?;
            if header[1] == 3 {
                break;
            }
            assert!(content[..content.len() - usize::from(header[6])].ends_with(b"hello"));
        }
        if self.keep {
            self.kept = Some(stream);
        }
        Ok(())
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
