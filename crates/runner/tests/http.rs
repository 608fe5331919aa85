//! HTTP servers, good and bad: each is answered or fails by itself, in its time, with the reason in words.

mod support;

use std::future::Future;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use support::{Browser, PATIENCE, Ran, call_with, until};
use wootz_runner::http::{Http, HttpSettings};
use wootz_runner::{
    Application, ApplicationFault, Call, CallError, CallEvent, Fault, FrameMode, Message, Replies, ReplyMode, ReplySink,
};

/// Runs a test on a runtime like a shard's, with a limit of time.
fn on_a_shard(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let whole = async { tokio::time::timeout(3 * PATIENCE, test).await };
    runtime.block_on(whole).expect("the test should end");
}

/// A server that does with each of its connections what a test says; each has a thread and a number, the first is 0.
struct Server {
    url: String,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn start(serve: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (number, serve) = (counted.fetch_add(1, SeqCst), Arc::clone(&serve));
                let stream = stream.expect("a connection");
                std::thread::spawn(move || serve(number, stream));
            }
        });
        Self { url, connections }
    }

    /// Reads one request of each connection, answers it with these bytes and closes.
    fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_, mut stream| {
            read_request(&mut stream).expect("a request");
            // A peer that does not like it may be gone already.
            let _ = stream.write_all(&answer);
        })
    }

    fn settings(&self) -> HttpSettings {
        settings(&self.url)
    }

    fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// One call of a server with these settings.
    async fn ask(&self, change: impl FnOnce(&mut HttpSettings)) -> Ran {
        let mut settings = self.settings();
        change(&mut settings);
        run(&http(settings), call_with(Message::text("/uri")), &Rc::default()).await
    }
}

fn settings(url: &str) -> HttpSettings {
    HttpSettings { timeout: PATIENCE, ..HttpSettings::new(url.parse().expect("an address")) }
}

fn http(settings: HttpSettings) -> Http {
    Http::new(Arc::new(settings))
}

async fn run(http: &Http, call: Call, browser: &Rc<Browser>) -> Ran {
    let since = Instant::now();
    let mut replies = Replies::new(Rc::clone(browser) as Rc<dyn ReplySink>);
    let result = http.call(call, &mut replies).await;
    let outcome = replies.outcome().cloned();
    Ran { result, replies: browser.texts(), outcome, took: since.elapsed() }
}

/// Head and body of the next request; `None` when the client has closed.
fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Ok(_) | Err(_) => return None,
        }
    }
    let head = String::from_utf8(head).expect("a head in ASCII");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
    stream.read_exact(&mut body).expect("the whole body");
    Some((head, body))
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Answers `ok` to all requests of a connection until it is closed.
fn keep_answering(stream: &mut TcpStream) {
    while read_request(stream).is_some() {
        stream.write_all(ok("ok").as_bytes()).expect("the client is there");
    }
}

/// Closes with a reset instead of an end.
fn reset(stream: TcpStream) {
    let socket = socket2::Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).expect("a socket option");
}

fn fault(error: &CallError) -> &ApplicationFault {
    match error {
        CallError::Application { fault, .. } => fault,
        other => panic!("the application's fault, not: {other}"),
    }
}

#[test]
fn answers_of_every_form_are_replies() {
    on_a_shard(async {
        for (form, answer) in [
            ("with a length", ok("hello")),
            (
                "in chunks",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: 1\r\n\r\n"
                    .into(),
            ),
            ("without a length", "HTTP/1.1 200 OK\r\n\r\nhello".into()),
            ("by HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\nhello".into()),
            (
                "after 1xx",
                format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{}", ok("hello")),
            ),
            ("without a reason", "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello".into()),
            ("with more after it", ok("hello") + &ok("of somebody else")),
        ] {
            let ran = Server::answering(answer).ask(|_| ()).await;
            assert!(ran.result.is_ok(), "{form}: {:?}", ran.result);
            let outcome = ran.outcome.expect("a report");
            assert_eq!((ran.replies, outcome.output_bytes), (vec!["hello".to_owned()], 5), "{form}");
        }
    });
}

#[test]
fn what_is_no_answer_fails_and_names_the_server() {
    on_a_shard(async {
        let long_head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1_000_000));
        for (answer, part) in [
            ("", "closed the connection before it answered"),
            ("HTTP/1.1 200 OK\r\nContent-Le", "closed the connection before it answered"),
            ("SSH-2.0-OpenSSH_9.2\r\n", "no HTTP/1.1 answer"),
            ("HTTP/1.1 200 OK\r\nbroken header\r\n\r\n", "no HTTP/1.1 answer"),
            ("HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", "no HTTP/1.1 answer"),
            ("HTTP/1.1 2000 OK\r\n\r\n", "no HTTP/1.1 answer"),
            ("HTTP/3.0 200 OK\r\n\r\n", "no HTTP/1.1 answer"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "no HTTP/1.1 answer"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "no HTTP/1.1 answer"),
            (&long_head, "no HTTP/1.1 answer"),
            (
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
                "another protocol",
            ),
        ] {
            let server = Server::answering(answer);
            let ran = server.ask(|_| ()).await;
            assert!(ran.replies.is_empty() && ran.result.is_err(), "{answer:.40}: {:?}", ran.replies);
            let error = ran.error();
            assert!(matches!(fault(&error), ApplicationFault::BadAnswer { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.starts_with(&server.url) && text.contains(part), "{answer:.40}: {text}");
        }
    });
}

#[test]
fn half_an_answer_is_never_sent() {
    on_a_shard(async {
        for (answer, part) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "closed the connection in the middle"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
                "closed the connection in the middle",
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", "closed the connection in the middle"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n", "broken"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", "broken"),
        ] {
            let server = Server::answering(answer);
            let ran = server.ask(|_| ()).await;
            assert!(ran.replies.is_empty());
            let text = ran.error().to_string();
            assert!(text.starts_with(&server.url) && text.contains(part), "{answer:?}: {text}");
        }
    });
}

#[test]
fn a_reset_is_told_before_and_in_an_answer() {
    on_a_shard(async {
        for (answer, part) in [
            ("", "reset the connection before it answered"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "reset the connection in the middle"),
        ] {
            let server = Server::start(move |_, mut stream| {
                read_request(&mut stream).expect("a request");
                stream.write_all(answer.as_bytes()).expect("the client is there");
                if !answer.is_empty() {
                    // Until the client has taken it; what waits in a socket that is reset is lost.
                    while pending_bytes(&stream) != 0 {
                        std::thread::yield_now();
                    }
                }
                reset(stream);
            });
            let text = server.ask(|_| ()).await.error().to_string();
            assert!(text.starts_with(&server.url) && text.contains(part), "{text}");
        }
    });
}

/// Bytes that were written and that the peer's kernel has not taken yet.
fn pending_bytes(stream: &TcpStream) -> u64 {
    let own = stream.local_addr().expect("an address");
    let line = std::fs::read_to_string("/proc/net/tcp").expect("/proc");
    let port = format!(":{:04X}", own.port());
    let peer = format!(":{:04X}", stream.peer_addr().expect("an address").port());
    // The client's own row: what it has not read is in its receive queue.
    let row = line.lines().find(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&peer))
            && fields.next().is_some_and(|there| there.ends_with(&port))
    });
    let queue = row.and_then(|row| row.split_whitespace().nth(4)?.split_once(':')).expect("a row with queues").1;
    u64::from_str_radix(queue, 16).expect("a number")
}

#[test]
fn statuses_are_replies_or_failures_as_documented() {
    on_a_shard(async {
        for (status, reply) in
            [(200, "body"), (201, "body"), (299, "body"), (400, "body"), (404, "body"), (451, "body")]
        {
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 4\r\n\r\nbody");
            assert_eq!(Server::answering(answer).ask(|_| ()).await.reply(), reply, "{status}");
        }
        for status in [204, 304] {
            let ran = Server::answering(format!("HTTP/1.1 {status} X\r\n\r\n")).ask(|_| ()).await;
            assert!(ran.result.is_ok() && ran.replies.is_empty(), "{status}: {:?}", ran.result);
        }
        for status in [500, 502, 503, 599] {
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 4\r\n\r\nbody");
            let ran = Server::answering(answer).ask(|settings| settings.reply = ReplyMode::Stream).await;
            assert!(ran.replies.is_empty());
            assert_eq!(fault(&ran.error()), &ApplicationFault::Status(status));
        }
    });
}

#[test]
fn a_redirect_is_not_followed_and_its_query_is_not_told() {
    on_a_shard(async {
        for (location, told) in [
            (
                "Location: https://example.com/login?token=secret#x\r\n",
                "redirected to https://example.com/login with status 302",
            ),
            ("", "redirected to nowhere with status 302"),
        ] {
            let server = Server::answering(format!("HTTP/1.1 302 Found\r\n{location}Content-Length: 0\r\n\r\n"));
            let error = server.ask(|_| ()).await.error().to_string();
            assert!(error.contains(told) && !error.contains("secret"), "{error}");
            assert_eq!(server.connections(), 1);
        }
    });
}

#[test]
fn only_success_says_who_somebody_is() {
    on_a_shard(async {
        let validate = |server: Server| async move {
            let call = Call { event: CallEvent::Validate, ..call_with(Message::empty()) };
            run(&http(server.settings()), call, &Rc::default()).await
        };
        assert_eq!(validate(Server::answering(ok("42"))).await.reply(), "42");
        for status in [400, 401, 403, 404, 500] {
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 9\r\n\r\nNot Found");
            let ran = validate(Server::answering(answer)).await;
            assert!(ran.replies.is_empty());
            assert_eq!(fault(&ran.error()), &ApplicationFault::Status(status));
        }
        for status in [301, 304] {
            let ran = validate(Server::answering(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"))).await;
            assert!(matches!(fault(&ran.error()), ApplicationFault::BadAnswer { .. }), "{status}");
        }
    });
}

#[test]
fn a_packed_answer_and_one_that_is_too_long_fail() {
    on_a_shard(async {
        let packed = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x08";
        let error = Server::answering(packed).ask(|_| ()).await.error().to_string();
        assert!(error.contains("packed its answer (gzip)"), "{error}");
        let ran = Server::answering(ok(&"x".repeat(11))).ask(|settings| settings.max_output_bytes = 10).await;
        assert!(ran.replies.is_empty());
        assert_eq!(fault(&ran.error()), &ApplicationFault::TooMuchOutput(10));
        let latin = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\xfc".to_vec();
        let ran = Server::answering(latin).ask(|settings| settings.frame = FrameMode::Text).await;
        assert_eq!(fault(&ran.error()), &ApplicationFault::NotUtf8);
    });
}

#[test]
fn an_answer_without_an_end_is_cut_at_the_limit() {
    on_a_shard(async {
        let (ended, end) = mpsc::channel();
        let server = Server::start(move |_, mut stream| {
            read_request(&mut stream).expect("a request");
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("the client is there");
            while stream.write_all(&[b'x'; 65536]).is_ok() {}
            ended.send(()).expect("the test waits");
        });
        let error = server.ask(|settings| settings.max_output_bytes = 1 << 20).await.error();
        assert_eq!(fault(&error), &ApplicationFault::TooMuchOutput(1 << 20));
        end.recv_timeout(PATIENCE).expect("the server's connection was closed");
    });
}

#[test]
fn each_chunk_is_sent_at_once_where_replies_are_streamed() {
    on_a_shard(async {
        let (go_on, gate) = mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let server = Server::start(move |_, mut stream| {
            read_request(&mut stream).expect("a request");
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n").expect("written");
            gate.lock().expect("one reader").recv().expect("the test goes on");
            stream.write_all(b"4\r\ntwo\n\r\n0\r\n\r\n").expect("written");
        });
        for (mode, replies) in [(ReplyMode::Lines, ["one", "two"]), (ReplyMode::Stream, ["one\n", "two\n"])] {
            let http = http(HttpSettings { reply: mode, ..server.settings() });
            let browser: Rc<Browser> = Rc::default();
            let first_then_go = async {
                until("the first reply", || browser.messages.borrow().len() == 1).await;
                go_on.send(()).expect("the server waits");
            };
            let (ran, ()) = tokio::join!(run(&http, call_with(Message::text("/")), &browser), first_then_go);
            ran.result.expect("success");
            assert_eq!(ran.replies, replies);
        }
    });
}

#[test]
fn a_browser_without_room_makes_the_server_wait_and_loses_nothing() {
    on_a_shard(async {
        const BYTES: usize = 32 << 20;
        let server = Server::start(|_, mut stream| {
            read_request(&mut stream).expect("a request");
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n").expect("written");
            stream.write_all(&vec![b'x'; BYTES]).expect("all was taken in the end");
        });
        let limits = HttpSettings { reply: ReplyMode::Stream, max_output_bytes: BYTES, ..server.settings() };
        let (http, browser) = (http(limits), Browser::without_room());
        let room = async {
            until("the request", || server.connections() == 1).await;
            assert!(browser.messages.borrow().is_empty());
            browser.make_room();
        };
        let (ran, ()) = tokio::join!(run(&http, call_with(Message::text("/")), &browser), room);
        ran.result.expect("success");
        let received: usize = browser.messages.borrow().iter().map(|message| message.payload().len()).sum();
        assert_eq!(received, BYTES);
    });
}

#[test]
fn a_server_that_answers_before_it_has_read_is_heard() {
    on_a_shard(async {
        let server = Server::start(|_, mut stream| {
            let mut some = [0; 100];
            stream.read_exact(&mut some).expect("the beginning of a request");
            stream
                .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo long")
                .expect("written");
            // What is unread when a socket is closed resets it.
            stream.shutdown(Shutdown::Write).expect("still open");
        });
        let message = Message::binary(vec![7; 16 << 20]);
        for _ in 0..20 {
            let ran = run(&http(server.settings()), call_with(message.clone()), &Rc::default()).await;
            assert_eq!(ran.reply(), "too long");
        }
    });
}

#[test]
fn a_server_that_never_answers_is_given_up_in_time() {
    on_a_shard(async {
        let short = Duration::from_millis(50);
        let (closed, close) = mpsc::channel();
        let server = Server::start(move |_, mut stream| {
            while read_request(&mut stream).is_some() {}
            closed.send(()).expect("the test waits");
        });
        let error = server.ask(|settings| settings.first_byte_timeout = short).await.error();
        assert_eq!(fault(&error), &ApplicationFault::Silent(short));
        let error = server.ask(|settings| settings.timeout = short).await.error();
        assert_eq!(fault(&error), &ApplicationFault::TimedOut(short));
        for _ in 0..2 {
            close.recv_timeout(PATIENCE).expect("the connection was closed");
        }
    });
}

#[test]
fn an_answer_of_tiny_chunks_without_an_end_is_given_up_in_time() {
    on_a_shard(async {
        let server = Server::start(|_, mut stream| {
            read_request(&mut stream).expect("a request");
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").expect("written");
            while stream.write_all(&b"1\r\nx\r\n".repeat(10_000)).is_ok() {}
        });
        let short = Duration::from_millis(100);
        let ran = server.ask(|settings| (settings.timeout, settings.max_output_bytes) = (short, usize::MAX)).await;
        let took = ran.took;
        assert_eq!(fault(&ran.error()), &ApplicationFault::TimedOut(short));
        assert!(took < PATIENCE / 10, "{took:?}");
    });
}

#[test]
fn interim_answers_without_an_end_are_no_answer() {
    on_a_shard(async {
        let server = Server::start(|_, mut stream| {
            read_request(&mut stream).expect("a request");
            while stream.write_all(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000)).is_ok() {}
        });
        let error = server.ask(|_| ()).await.error();
        assert!(error.to_string().contains("no end of its head in 524288 bytes"), "{error}");
    });
}

#[test]
fn nobody_there_is_the_environments_fault_with_a_remedy() {
    on_a_shard(async {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let directory = tempfile::tempdir().expect("a directory");
        let missing = format!("unix:{}", directory.path().join("none.sock").display());
        let file = directory.path().join("file");
        std::fs::write(&file, "").expect("written");
        for (url, part) in [
            (format!("http://127.0.0.1:{port}"), "is it running, and does it listen there?"),
            (missing, "there is no such socket: is it running?"),
            (format!("unix:{}", file.display()), "is it running, and does it listen there?"),
            ("http://name.invalid:80".to_owned(), "application.http.url"),
        ] {
            let error = run(&http(settings(&url)), call_with(Message::text("/")), &Rc::default()).await.error();
            assert_eq!(error.fault(), Fault::Environment);
            let text = error.to_string();
            assert!(text.starts_with(&url) && text.contains(part), "{text}");
        }
    });
}

#[test]
fn a_full_backlog_is_waited_for_and_given_up_in_time() {
    on_a_shard(async {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("application.sock");
        let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a socket");
        listener.bind(&socket2::SockAddr::unix(&path).expect("a short path")).expect("bound");
        listener.listen(0).expect("listening");
        // With a backlog of 0 one waits, and a second one finds no room.
        let first = std::os::unix::net::UnixStream::connect(&path).expect("room for one");
        let url = format!("unix:{}", path.display());
        let short = HttpSettings { connect_timeout: Duration::from_millis(50), ..settings(&url) };
        let text = run(&http(short), call_with(Message::text("/")), &Rc::default()).await.error().to_string();
        assert!(text.starts_with(&url) && text.contains("overloaded"), "{text}");

        let (http, browser) = (http(settings(&url)), Rc::default());
        let call = run(&http, call_with(Message::text("/")), &browser);
        let accept = std::thread::spawn(move || {
            let listener = std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(listener));
            drop(listener.accept().expect("the first"));
            let (mut stream, _) = listener.accept().expect("the one that waited");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a head");
                head.push(byte[0]);
            }
            stream.write_all(ok("by socket").as_bytes()).expect("written");
        });
        assert_eq!(call.await.reply(), "by socket");
        drop(first);
        accept.join().expect("the server ends");
    });
}

#[test]
fn many_calls_go_over_one_kept_connection() {
    on_a_shard(async {
        let server = Server::start(|_, mut stream| keep_answering(&mut stream));
        let http = http(server.settings());
        for number in 0..200 {
            let message = if number % 2 == 0 { Message::text("/uri") } else { Message::text("a b") };
            assert_eq!(run(&http, call_with(message), &Rc::default()).await.reply(), "ok");
        }
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn no_more_connections_are_kept_than_told() {
    on_a_shard(async {
        let closed = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&closed);
        let (arrived, arrivals) = (Arc::new(AtomicUsize::new(0)), 10);
        let server = Server::start(move |_, mut stream| {
            read_request(&mut stream).expect("a request");
            // Answered when all are here, so that each has a connection.
            arrived.fetch_add(1, SeqCst);
            while arrived.load(SeqCst) < arrivals {
                std::thread::yield_now();
            }
            stream.write_all(ok("ok").as_bytes()).expect("written");
            assert!(read_request(&mut stream).is_none());
            counted.fetch_add(1, SeqCst);
        });
        let http = Rc::new(http(HttpSettings { keep: 3, ..server.settings() }));
        let local = tokio::task::LocalSet::new();
        let calls = (0..arrivals).map(|_| {
            let http = Rc::clone(&http);
            local.spawn_local(async move { run(&http, call_with(Message::text("/")), &Rc::default()).await.reply() })
        });
        let calls: Vec<_> = calls.collect();
        local
            .run_until(async {
                for call in calls {
                    assert_eq!(call.await.expect("no panic"), "ok");
                }
                until("all but three closed", || closed.load(SeqCst) == arrivals - 3).await;
            })
            .await;
        drop((local, http));
        until("the kept ones closed with their owner", || closed.load(SeqCst) == arrivals).await;
    });
}

#[test]
fn a_kept_connection_that_was_closed_meanwhile_is_replaced_in_silence() {
    on_a_shard(async {
        for message in [Message::text("/uri"), Message::text("a b")] {
            let (closed, close) = mpsc::channel();
            let server = Server::start(move |number, mut stream| {
                read_request(&mut stream).expect("one request, never none");
                stream.write_all(ok(&format!("connection {number}")).as_bytes()).expect("written");
                drop(stream);
                closed.send(()).expect("the test waits");
            });
            let http = http(server.settings());
            for number in 0..3 {
                let ran = run(&http, call_with(message.clone()), &Rc::default()).await;
                assert_eq!(ran.reply(), format!("connection {number}"));
                close.recv_timeout(PATIENCE).expect("closed");
            }
        }
    });
}

#[test]
fn a_get_that_crosses_the_close_is_sent_once_more_and_a_post_never() {
    on_a_shard(async {
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        let server = Server::start(move |number, mut stream| {
            let mut answers = if number == 0 || number == 2 { 1 } else { usize::MAX };
            while read_request(&mut stream).is_some() {
                counted.fetch_add(1, SeqCst);
                if answers == 0 {
                    return;
                }
                answers -= 1;
                stream.write_all(ok(&format!("connection {number}")).as_bytes()).expect("written");
            }
        });
        let one = http(server.settings());
        let get = || call_with(Message::text("/uri"));
        assert_eq!(run(&one, get(), &Rc::default()).await.reply(), "connection 0");
        assert_eq!(run(&one, get(), &Rc::default()).await.reply(), "connection 1");
        assert_eq!(requests.load(SeqCst), 3);

        let other = http(server.settings());
        let post = || call_with(Message::text("a b"));
        assert_eq!(run(&other, post(), &Rc::default()).await.reply(), "connection 2");
        let error = run(&other, post(), &Rc::default()).await.error().to_string();
        assert!(error.contains("closed the connection before it answered"), "{error}");
        assert_eq!(requests.load(SeqCst), 5);
    });
}

#[test]
fn nothing_that_follows_an_answer_becomes_the_answer_of_another_call() {
    on_a_shard(async {
        let server = Server::start(|number, mut stream| {
            read_request(&mut stream).expect("a request");
            let answer = ok(&format!("connection {number}")) + &ok("smuggled");
            stream.write_all(answer.as_bytes()).expect("written");
            while read_request(&mut stream).is_some() {}
        });
        let http = http(server.settings());
        for number in 0..3 {
            let ran = run(&http, call_with(Message::text("/")), &Rc::default()).await;
            assert_eq!(ran.reply(), format!("connection {number}"));
        }
    });
}

#[test]
fn a_connection_is_not_kept_against_the_servers_word() {
    on_a_shard(async {
        for word in ["Connection: close", "Keep-Alive: timeout=1"] {
            let answer = format!("HTTP/1.1 200 OK\r\n{word}\r\nContent-Length: 2\r\n\r\nok");
            let server = Server::start(move |_, mut stream| {
                while read_request(&mut stream).is_some() {
                    stream.write_all(answer.as_bytes()).expect("written");
                }
            });
            let http = http(server.settings());
            for _ in 0..3 {
                assert_eq!(run(&http, call_with(Message::text("/")), &Rc::default()).await.reply(), "ok");
            }
            assert_eq!(server.connections(), 3, "{word}");
        }
    });
}

#[test]
fn a_browser_that_is_gone_closes_the_requests_connection() {
    on_a_shard(async {
        for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"] {
            let (seen, events) = mpsc::channel();
            let server = Server::start(move |_, mut stream| {
                read_request(&mut stream).expect("a request");
                stream.write_all(answer.as_bytes()).expect("written");
                seen.send("asked").expect("the test waits");
                assert!(read_request(&mut stream).is_none());
                seen.send("closed").expect("the test waits");
            });
            let (http, browser) = (http(server.settings()), Rc::default());
            let mut heard = Vec::new();
            {
                let call = run(&http, call_with(Message::text("/")), &browser);
                tokio::select! {
                    _ = call => panic!("there was no answer"),
                    () = until("the request", || { heard.extend(events.try_recv()); !heard.is_empty() }) => {}
                }
            }
            assert_eq!(heard, ["asked"]);
            assert_eq!(events.recv_timeout(PATIENCE), Ok("closed"));
        }
    });
}

#[test]
fn a_browser_that_leaves_ends_a_streamed_call() {
    on_a_shard(async {
        let server = Server::start(|_, mut stream| {
            read_request(&mut stream).expect("a request");
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("written");
            while stream.write_all(b"line\n").is_ok() {}
        });
        let http = http(HttpSettings { reply: ReplyMode::Lines, max_output_bytes: usize::MAX, ..server.settings() });
        let browser = Browser::without_room();
        let leave = async {
            until("the request", || server.connections() == 1).await;
            browser.leave();
        };
        let (ran, ()) = tokio::join!(run(&http, call_with(Message::text("/")), &browser), leave);
        assert_eq!(ran.error().fault(), Fault::Browser);
    });
}

#[test]
fn a_request_is_what_the_documentation_says() {
    on_a_shard(async {
        let server = Server::start(|_, mut stream| {
            while let Some((head, body)) = read_request(&mut stream) {
                let both = format!("{head}{}", String::from_utf8_lossy(&body));
                stream.write_all(ok(&both).as_bytes()).expect("written");
            }
        });
        let http = http(server.settings());
        let http = &http;
        let ask = |message| async move { run(http, call_with(Message::text(message)), &Rc::default()).await.reply() };
        let (get, post) = (ask("cart?x=1").await, ask("two words").await);
        assert!(get.starts_with("GET /cart?x=1 HTTP/1.1\r\nhost: ") && get.ends_with("\r\n"), "{get}");
        assert!(post.starts_with("POST /chat?room=1 HTTP/1.1\r\nhost: "), "{post}");
        assert!(post.ends_with("\r\n\r\ntwo words") && post.contains("\r\ncontent-length: 9\r\n"), "{post}");
        for field in ["cookie: PHPSESSID=abc", "x-forwarded-for: 192.0.2.7", "wootz-event: message"] {
            assert!(get.contains(&format!("\r\n{field}\r\n")) && post.contains(&format!("\r\n{field}\r\n")), "{field}");
        }
        let id = |request: &str| {
            let (_, after) = request.split_once("x-request-id: ").expect("an id");
            after[..32].to_owned()
        };
        assert_ne!(id(&get), id(&post));
    });
}
