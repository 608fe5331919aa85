//! What a call by HTTP costs: `Http` against a bare client over one kept connection, in turns in one run.
//!
//! `cargo run --release -p wootz-runner --example http_cost [CALLS [URL]]`; without a URL a ten-line Node server is started.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use wootz_runner::http::{Http, HttpSettings};
use wootz_runner::{
    Application, Call, CallEvent, Caller, ConnectionId, Gone, Message, MessageMode, Replies, ReplySink,
};

const SERVER: &str = "
const server = require('http').createServer((request, response) => {
    request.resume();
    request.on('end', () => response.end('hello'));
});
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
";

struct Nobody;

impl ReplySink for Nobody {
    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn send(&self, message: Message) {
        assert!(!message.payload().is_empty());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let calls = arguments.next().map_or(Ok(5000), |calls| calls.parse::<usize>())?;
    let (url, server) = match arguments.next() {
        Some(url) => (url, None),
        None => {
            let (url, server) = node()?;
            (url, Some(server))
        }
    };
    let measured = measure(&url, calls);
    if let Some(mut server) = server {
        server.kill()?;
        server.wait()?;
    }
    measured
}

fn node() -> Result<(String, Child), Box<dyn std::error::Error>> {
    let mut server = Command::new("node").args(["-e", SERVER]).stdout(Stdio::piped()).spawn()?;
    let mut url = String::new();
    BufReader::new(server.stdout.take().expect("piped")).read_line(&mut url)?;
    Ok((url.trim_end().to_owned(), server))
}

fn measure(url: &str, calls: usize) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let http = Http::new(Arc::new(HttpSettings::new(url.parse()?)));
    let mut bare = TcpStream::connect(url.trim_start_matches("http://"))?;
    bare.set_nodelay(true)?;
    for (what, message) in [("GET", "/hello"), ("POST", "hello there")] {
        let (mut by_http, mut by_bare) = (Vec::with_capacity(calls), Vec::with_capacity(calls));
        // The first ones pay for what is compiled and allocated late.
        for number in 0..calls + 500 {
            let since = Instant::now();
            runtime.block_on(call(&http, message));
            let ours = since.elapsed();
            let since = Instant::now();
            exchange(&mut bare, what, message)?;
            let theirs = since.elapsed();
            if number >= 500 {
                by_http.push(ours);
                by_bare.push(theirs);
            }
        }
        let (by_http, by_bare) = (median(by_http), median(by_bare));
        println!("{what}: Http {by_http:?}, bare client {by_bare:?}, {:?} more", by_http.saturating_sub(by_bare));
    }
    Ok(())
}

async fn call(http: &Http, message: &str) {
    let caller = Caller::builder(ConnectionId(1), "/chat")
        .remote(([192, 0, 2, 1], 40000).into())
        .header("Host", b"example.com")
        .header("User-Agent", b"Mozilla/5.0 (X11; Linux x86_64)")
        .header("Accept-Language", b"en")
        .header("Cookie", b"session=0123456789abcdef");
    let caller = Arc::new(caller.build());
    let call = Call {
        event: CallEvent::Message,
        message: Message::text(message),
        caller,
        mode: MessageMode::Uri,
        capability: None,
    };
    http.call(call, &mut Replies::new(Rc::new(Nobody))).await.expect("the server answers");
}

/// One request and its answer, whose body has a length or is one chunk, as small answers are.
fn exchange(stream: &mut TcpStream, method: &str, message: &str) -> std::io::Result<()> {
    let (target, body) = if method == "GET" { (message, "") } else { ("/chat", message) };
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
         Accept-Language: en\r\nCookie: session=0123456789abcdef\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = stream.read(&mut buffer)?;
        assert_ne!(read, 0, "the server closed");
        answer.extend_from_slice(&buffer[..read]);
        if is_whole(&answer) {
            return Ok(());
        }
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    length.map_or(body.ends_with("0\r\n\r\n"), |length: usize| body.len() >= length)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
