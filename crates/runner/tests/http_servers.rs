//! HTTP servers that others wrote: Node's, and Python's by HTTP/1.0 and HTTP/1.1.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use support::{Browser, PATIENCE, caller, until};
use wootz_runner::http::{Http, HttpSettings};
use wootz_runner::{
    Application, Call, CallError, CallEvent, Caller, Message, MessageMode, Replies, ReplyMode, ReplySink,
};

/// Answers with what it was asked, streams, and ends by itself after a while without requests.
const NODE: &str = r"
const http = require('http');
let connections = 0;
const server = http.createServer(async (request, response) => {
    let body = '';
    for await (const part of request) body += part;
    if (request.url === '/stream') { response.write('one\n'); setTimeout(() => response.end('two\n'), 20); return; }
    if (request.url === '/hang') { request.socket.on('close', () => console.log('closed')); console.log('hangs'); return; }
    if (request.url === '/throw') { response.statusCode = 500; response.end('Error: secret'); return; }
    const { 'remote-user': user, 'wootz-event': event, cookie } = request.headers;
    response.end([request.method, request.url, user, event, cookie, body, connections].join(' '));
});
server.on('connection', () => { connections += 1; });
server.listen(process.argv[1] || 0, '127.0.0.1', () => console.log(server.address().port));
";

const PYTHON: &str = r"
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = sys.argv[1]
    def answer(self):
        body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        body = ' '.join([self.command, self.path, self.headers['Wootz-Event'], body.decode()]).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = answer
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
";

/// A server of another program, killed at the end of its test.
struct Server {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
    port: u16,
}

impl Server {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap_or_else(|error| panic!("{program} must be installed: {error}"));
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let mut server = Self { process, output, port: 0 };
        server.port = server.line().parse().expect("the server tells its port");
        server
    }

    fn node(port: &str) -> Self {
        Self::start("node", &["-e", NODE, "--", port])
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the server's output");
        line.trim_end().to_owned()
    }

    fn settings(&self) -> HttpSettings {
        let url = format!("http://127.0.0.1:{}", self.port).parse().expect("an address");
        HttpSettings { timeout: PATIENCE, ..HttpSettings::new(url) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A process that has ended already can't be killed, and need not be.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn on_a_shard(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let whole = async { tokio::time::timeout(3 * PATIENCE, test).await };
    runtime.block_on(whole).expect("the test should end");
}

async fn ask(http: &Http, caller: Caller, message: Message) -> (Result<(), CallError>, Vec<String>) {
    let call =
        Call { event: CallEvent::Message, message, caller: Arc::new(caller), mode: MessageMode::Uri, capability: None };
    let browser: Rc<Browser> = Rc::default();
    let result = http.call(call, &mut Replies::new(Rc::clone(&browser) as Rc<dyn ReplySink>)).await;
    (result, browser.texts())
}

async fn reply(http: &Http, message: impl Into<wootz_runner::Utf8Bytes>) -> String {
    let (result, mut replies) = ask(http, caller(), Message::text(message)).await;
    result.expect("success");
    assert_eq!(replies.len(), 1);
    replies.remove(0)
}

#[test]
fn node_runs_many_calls_over_one_connection() {
    on_a_shard(async {
        let server = Server::node("0");
        let http = Http::new(Arc::new(server.settings()));
        for number in 0..100 {
            let expected = format!("GET /page/{number}  message PHPSESSID=abc  1");
            assert_eq!(reply(&http, format!("/page/{number}")).await, expected);
            let expected = format!("POST /chat?room=1  message PHPSESSID=abc number {number} 1");
            assert_eq!(reply(&http, format!("number {number}")).await, expected);
        }
        let user = Caller::builder(wootz_runner::ConnectionId(1), "/").user(Some("42".into())).build();
        let (result, replies) = ask(&http, user, Message::text("/me")).await;
        result.expect("success");
        assert_eq!(replies, ["GET /me 42 message   1"]);
    });
}

#[test]
fn node_streams_takes_a_mebibyte_and_fails_without_a_word() {
    on_a_shard(async {
        let server = Server::node("0");
        let http = Http::new(Arc::new(HttpSettings { reply: ReplyMode::Lines, ..server.settings() }));
        let (result, replies) = ask(&http, caller(), Message::text("/stream")).await;
        result.expect("success");
        assert_eq!(replies, ["one", "two"]);
        let long = "a ".repeat(1 << 19);
        let answer = reply(&http, long.clone()).await;
        assert!(answer.contains(&long));
        let (result, replies) = ask(&http, caller(), Message::text("/throw")).await;
        assert_eq!(result.expect_err("status 500").to_string(), "answered with status 500");
        assert_eq!(replies, [""; 0]);
    });
}

#[test]
fn node_sees_its_request_closed_when_the_browser_is_gone() {
    on_a_shard(async {
        let mut server = Server::node("0");
        let http = Http::new(Arc::new(server.settings()));
        let mut told = None;
        {
            let call = ask(&http, caller(), Message::text("/hang"));
            // The server's word comes while the call is waiting: it is read on another thread.
            let (sender, mut heard) = tokio::sync::oneshot::channel();
            let reader = std::thread::spawn(move || {
                sender.send(server.line()).expect("the test waits");
                server
            });
            let hangs = until("the request", || {
                told = heard.try_recv().ok();
                told.is_some()
            });
            tokio::select! {
                _ = call => panic!("there is no answer"),
                () = hangs => {}
            }
            server = reader.join().expect("it ends");
        }
        assert_eq!(told.as_deref(), Some("hangs"));
        assert_eq!(server.line(), "closed");
    });
}

#[test]
fn a_node_server_that_was_restarted_is_found_again_at_once() {
    on_a_shard(async {
        let server = Server::node("0");
        let (port, http) = (server.port.to_string(), Http::new(Arc::new(server.settings())));
        assert!(reply(&http, "two words").await.ends_with("two words 1"));
        drop(server);
        let (result, _) = ask(&http, caller(), Message::text("two words")).await;
        let error = result.expect_err("nobody is there").to_string();
        assert!(error.contains("is it running"), "{error}");
        let _server = Server::node(&port);
        assert!(reply(&http, "two words").await.ends_with("two words 1"));
    });
}

#[test]
fn python_is_understood_by_http_1_0_and_1_1() {
    on_a_shard(async {
        for version in ["HTTP/1.0", "HTTP/1.1"] {
            let server = Server::start("python3", &["-c", PYTHON, version]);
            let http =
                Http::new(Arc::new(HttpSettings { first_byte_timeout: Duration::from_secs(10), ..server.settings() }));
            for _ in 0..20 {
                assert_eq!(reply(&http, "/a?b").await, "GET /a?b message ");
                assert_eq!(reply(&http, "two words").await, "POST /chat?room=1 message two words");
            }
        }
    });
}
