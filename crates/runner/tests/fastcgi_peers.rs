//! FastCGI servers, good and bad: each is answered or fails by itself, in its time, with the reason in words.

mod fastcgi_support;
mod support;

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use fastcgi_support::*;
use rustix::net::{RecvFlags, recv};
use support::{Browser, PATIENCE, call_with, caller, until};
use wootz_runner::fastcgi::{Address, FastCgi, FastCgiSettings};
use wootz_runner::{
    ApplicationFault, Call, CallError, CallEvent, EnvironmentFault, Fault, Message, MessageMode, ReplyMode,
};

const HEAD: &str = "Content-Type: text/plain\r\n\r\n";

fn fault(error: &CallError) -> &ApplicationFault {
    match error {
        CallError::Application { fault, .. } => fault,
        other => panic!("the application's fault, not: {other}"),
    }
}

/// The error of a call to a server that reads a request, sends these bytes and closes, without the server's name.
async fn error_after(bytes: Vec<u8>) -> String {
    let peer = Peer::sending(bytes);
    let ran = ask(&peer.application()).await;
    assert_eq!(ran.replies, [""; 0], "nothing half is sent");
    let error = ran.error();
    assert_eq!(error.fault(), Fault::Application);
    let text = error.to_string();
    text.strip_prefix(&format!("{} ", peer.name())).unwrap_or_else(|| panic!("{text} names the server")).to_owned()
}

#[test]
fn what_is_printed_behind_the_header_block_is_the_reply_without_one_final_newline() {
    on_a_shard(async {
        let peer = Peer::printing("Content-Type: text/plain\r\nSet-Cookie: a=b\r\n\r\nhello\n\n");
        assert_eq!(ask(&peer.application()).await.reply(), "hello\n");
        let peer = Peer::printing(HEAD);
        assert_eq!(ask(&peer.application()).await.replies, [""; 0]);
    });
}

#[test]
fn a_request_has_the_variables_of_the_call_and_of_the_script_each_once() {
    on_a_shard(async {
        let (seen, requests) = mpsc::channel();
        let peer = Peer::new(move |connection, _| {
            seen.send(connection.request().expect("a request")).expect("the test waits");
            connection.write(&answer(HEAD));
        });
        let environment =
            [("APP_ENV", "test"), ("REQUEST_METHOD", "PUT"), ("DOCUMENT_ROOT", "/srv"), ("APP_ENV", "prod")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let application = FastCgi::new(Arc::new(FastCgiSettings { environment, ..peer.settings() }));
        run(&application, call_with(Message::text("/cart?x=1")), &Rc::default()).await.result.expect("success");
        let request = requests.recv().expect("the request");
        for (name, value) in [
            ("SCRIPT_FILENAME", "/srv/site/index.php"),
            ("SCRIPT_NAME", "/index.php"),
            ("DOCUMENT_URI", "/index.php"),
            ("DOCUMENT_ROOT", "/srv"),
            ("REDIRECT_STATUS", "200"),
            ("REQUEST_METHOD", "GET"),
            ("REQUEST_URI", "/cart?x=1"),
            ("QUERY_STRING", "x=1"),
            ("CONTENT_LENGTH", "9"),
            ("HTTP_COOKIE", "PHPSESSID=abc"),
            ("WOOTZ_EVENT", "message"),
            ("APP_ENV", "prod"),
        ] {
            assert_eq!(request.parameters.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!((request.keep, request.stdin), (false, b"/cart?x=1".to_vec()));
    });
}

#[test]
fn a_message_of_one_mebibyte_arrives_byte_for_byte() {
    on_a_shard(async {
        let message: Vec<u8> = (0..1024 * 1024u32).map(|n| (n.wrapping_mul(2654435761) >> 24) as u8).collect();
        let sent = message.clone();
        let peer = Peer::new(move |connection, _| {
            let request = connection.request().expect("a request");
            let same = request.stdin == sent && request.parameters["CONTENT_LENGTH"] == sent.len().to_string();
            connection.write(&answer(&format!("{HEAD}{same}")));
        });
        let ran = run(&peer.application(), call_with(Message::binary(message)), &Rc::default()).await;
        assert_eq!(ran.reply(), "true");
    });
}

#[test]
fn a_server_that_answers_before_it_has_read_is_answered_for() {
    on_a_shard(async {
        let message = Message::binary(vec![7; 1024 * 1024]);
        // It writes more than any socket holds, and only then reads: both must flow at once.
        let peer = Peer::new(|connection, _| {
            connection.write(&stdout(HEAD));
            for _ in 0..64 {
                connection.write(&stdout(&"x".repeat(32 * 1024)));
            }
            assert_eq!(connection.request().expect("a request").stdin.len(), 1024 * 1024);
            connection.write(&end(0, 0));
        });
        let reply = run(&peer.application(), call_with(message.clone()), &Rc::default()).await.reply();
        assert_eq!(reply.len(), 64 * 32 * 1024);
        // It never reads at all.
        let peer = Peer::new(|connection, _| connection.write(&answer(&format!("{HEAD}done"))));
        assert_eq!(run(&peer.application(), call_with(message), &Rc::default()).await.reply(), "done");
    });
}

#[test]
fn an_answer_may_come_byte_by_byte() {
    on_a_shard(async {
        let peer = Peer::new(|connection, _| {
            connection.request();
            for byte in [stderr("careful"), answer(&format!("{HEAD}grüß dich"))].concat() {
                connection.write(&[byte]);
            }
        });
        let ran = ask(&peer.application()).await;
        let outcome = ran.outcome.clone().expect("a report");
        assert_eq!((outcome.stderr.as_str(), outcome.output_bytes), ("careful", 11));
        assert_eq!(ran.reply(), "grüß dich");
    });
}

#[test]
fn an_answer_that_is_cut_off_fails_and_says_where() {
    on_a_shard(async {
        let whole = answer(&format!("{HEAD}hello"));
        let within = "closed the connection within a record of its answer";
        assert_eq!(error_after(whole[..20].to_vec()).await, within);
        assert_eq!(error_after(whole[..3].to_vec()).await, within);
        assert_eq!(error_after(whole[..whole.len() - 1].to_vec()).await, within);
        let before = error_after(stdout(&format!("{HEAD}hello"))).await;
        assert_eq!(before, "closed the connection before the end of its answer");
        let nothing = error_after(Vec::new()).await;
        assert_eq!(nothing, "closed the connection without an answer (did its worker die? see its log)");
    });
}

#[test]
fn what_is_no_fastcgi_answer_fails_and_says_why() {
    on_a_shard(async {
        let mut other_request = stdout(HEAD);
        other_request[3] = 7;
        for (bytes, words) in [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "sent a record of version 72, not of FastCGI's 1"),
            (record(10, b""), "sent a record of type 10, which no answer has"),
            (record(77, b"x"), "sent a record of type 77, which no answer has"),
            (other_request, "sent an answer to request 7, and was asked request 1"),
            ([answer(HEAD), end(0, 0)].concat(), "sent more after its END_REQUEST"),
            ([answer(HEAD), stdout("late")].concat(), "sent more after its END_REQUEST"),
            (record(3, &[0; 4]), "sent an END_REQUEST of 4 bytes instead of 8"),
        ] {
            let error = error_after(bytes).await;
            assert!(error.starts_with(words), "{error}");
        }
    });
}

#[test]
fn an_answer_without_a_proper_header_block_is_never_sent() {
    on_a_shard(async {
        let long = [stdout(&format!("A: {}\n", "x".repeat(60_000))), stdout(&"B: x\n".repeat(8000))].concat();
        for (bytes, words) in [
            (answer("hello\n"), "sent no header block"),
            (answer("hello"), "sent no header block"),
            (answer("<br />\nWarning: x\nContent-Type: text/plain\n\nhello"), "sent no header block"),
            (answer("A: b\nhello\n\nx"), "sent a header block whose line 2 is no header field"),
            (answer("Content-Type: text/plain\n"), "ended its answer within the header block"),
            (answer(""), "ended its answer without a header block"),
            (end(0, 0), "ended its answer without a header block"),
            (long, "sent a header block longer than 65536 bytes"),
        ] {
            let error = error_after(bytes).await;
            assert!(error.starts_with(words), "{error}");
        }
    });
}

#[test]
fn a_status_from_500_fails_with_standard_error_and_lower_ones_are_replies() {
    on_a_shard(async {
        for (status, body) in [("404 Not Found", "no such page"), ("302 Found", "moved"), ("204", "")] {
            let bytes = answer(&format!("Status: {status}\r\nLocation: /x\r\n\r\n{body}"));
            let ran = ask(&Peer::sending(bytes).application()).await;
            ran.result.expect("a reply");
            assert_eq!(ran.replies.concat(), body);
        }
        for reply in [ReplyMode::Whole, ReplyMode::Lines, ReplyMode::Stream] {
            let bytes = [stderr("PHP Fatal error"), answer("Status: 500 Oops\r\n\r\nline\nline\n")].concat();
            let peer = Peer::sending(bytes);
            let ran = ask(&FastCgi::new(Arc::new(FastCgiSettings { reply, ..peer.settings() }))).await;
            assert_eq!(ran.replies, [""; 0]);
            let error = ran.error();
            assert_eq!((fault(&error), error.stderr()), (&ApplicationFault::Status(500), "PHP Fatal error"));
        }
    });
}

#[test]
fn only_success_says_who_somebody_is() {
    on_a_shard(async {
        for (status, expected) in [(200, None), (204, None), (302, Some(302)), (401, Some(401)), (404, Some(404))] {
            let peer = Peer::sending(answer(&format!("Status: {status}\r\n\r\nann")));
            let (caller, mode) = (Arc::new(caller()), MessageMode::Uri);
            let call = Call { event: CallEvent::Validate, message: Message::empty(), caller, mode, capability: None };
            let ran = run(&peer.application(), call, &Rc::default()).await;
            match expected {
                None => assert_eq!(ran.reply(), "ann"),
                Some(status) => assert_eq!(fault(&ran.error()), &ApplicationFault::Status(status)),
            }
        }
    });
}

#[test]
fn an_exit_status_that_is_not_0_fails_and_sends_nothing_half() {
    on_a_shard(async {
        let bytes = [stderr("why"), stdout(&format!("{HEAD}one\ntwo\nhal")), end(3, 0)].concat();
        let peer = Peer::sending(bytes);
        let ran = ask(&peer.application()).await;
        assert_eq!(ran.replies, [""; 0]);
        let error = ran.error();
        assert_eq!((fault(&error), error.stderr()), (&ApplicationFault::Exit(3), "why"));
        let settings = FastCgiSettings { reply: ReplyMode::Lines, ..peer.settings() };
        let ran = ask(&FastCgi::new(Arc::new(settings))).await;
        assert_eq!(ran.replies, ["one", "two"]);
        assert_eq!(fault(&ran.error()), &ApplicationFault::Exit(3));
    });
}

#[test]
fn a_server_that_refuses_the_request_is_the_environments_fault() {
    on_a_shard(async {
        for (status, words) in [(1, "can't multiplex"), (2, "is overloaded"), (3, "is no responder")] {
            let error = ask(&Peer::sending(end(0, status)).application()).await.error();
            assert!(error.to_string().contains(words), "{error}");
            assert!(matches!(error, CallError::Environment(EnvironmentFault::Refused { .. })));
        }
    });
}

#[test]
fn a_script_that_the_server_does_not_find_is_the_operators_fault() {
    on_a_shard(async {
        let bytes =
            [stderr("Primary script unknown"), answer("Status: 404 Not Found\r\n\r\nFile not found.\n")].concat();
        let ran = ask(&Peer::sending(bytes).application()).await;
        assert_eq!(ran.replies, [""; 0]);
        let error = ran.error();
        assert_eq!(error.fault(), Fault::Operator);
        assert!(error.to_string().contains("can't run /srv/site/index.php"), "{error}");
    });
}

#[test]
fn an_answer_without_end_is_given_up_at_the_limit_and_its_server_learns_it() {
    on_a_shard(async {
        for head in ["Content-Type: x\r\n\r\n", "Status: 500\r\n\r\n"] {
            let peer = Peer::new(move |connection, _| {
                connection.request();
                connection.write(&stdout(head));
                connection.write_for_ever(&stdout(&"x".repeat(60_000)));
            });
            let settings = FastCgiSettings { max_output_bytes: 1 << 20, ..peer.settings() };
            let error = ask(&FastCgi::new(Arc::new(settings))).await.error();
            let expected = if head.starts_with("Status") {
                ApplicationFault::Status(500)
            } else {
                ApplicationFault::TooMuchOutput(1 << 20)
            };
            assert_eq!(fault(&error), &expected);
            peer.next_done().await;
        }
    });
}

#[test]
fn standard_error_without_end_is_given_up_in_time_and_its_last_words_are_kept() {
    on_a_shard(async {
        let peer = Peer::new(|connection, _| {
            connection.request();
            connection.write_for_ever(&stderr(&"over and ".repeat(1000)));
        });
        let timeout = Duration::from_millis(200);
        let error = ask(&FastCgi::new(Arc::new(FastCgiSettings { timeout, ..peer.settings() }))).await.error();
        assert_eq!(fault(&error), &ApplicationFault::TimedOut(timeout));
        assert!(error.stderr().contains("over and over") && error.stderr().len() <= 4096);
        peer.next_done().await;
    });
}

#[test]
fn a_silent_server_is_given_up_in_time() {
    on_a_shard(async {
        let peer = Peer::new(|connection, _| connection.wait_for_close());
        let (short, long) = (Duration::from_millis(50), PATIENCE);
        let settings = FastCgiSettings { first_byte_timeout: short, timeout: long, ..peer.settings() };
        let error = ask(&FastCgi::new(Arc::new(settings))).await.error();
        assert_eq!(fault(&error), &ApplicationFault::Silent(short));
        peer.next_done().await;
        let settings = FastCgiSettings { first_byte_timeout: long, timeout: short, ..peer.settings() };
        let error = ask(&FastCgi::new(Arc::new(settings))).await.error();
        assert_eq!(fault(&error), &ApplicationFault::TimedOut(short));
        peer.next_done().await;
    });
}

#[test]
fn a_server_that_never_closes_after_the_end_is_closed_on() {
    on_a_shard(async {
        let peer = Peer::new(|connection, _| {
            connection.request();
            connection.write(&answer(&format!("{HEAD}done")));
            connection.wait_for_close();
        });
        assert_eq!(ask(&peer.application()).await.reply(), "done");
        peer.next_done().await;
    });
}

#[test]
fn a_call_that_nobody_waits_for_closes_its_connection() {
    on_a_shard(async {
        let peer = Peer::new(|connection, _| {
            connection.request();
            connection.wait_for_close();
        });
        let application = peer.application();
        tokio::select! {
            _ = ask(&application) => panic!("nobody answers"),
            () = until("a connection", || peer.accepted() == 1) => {}
        }
        peer.next_done().await;
    });
}

#[test]
fn lines_and_flushes_are_sent_while_the_application_runs() {
    on_a_shard(async {
        for (reply, pieces) in
            [(ReplyMode::Lines, ["one\n", "two\n", "three"]), (ReplyMode::Stream, ["one", "two", "three"])]
        {
            let (go_on, gate) = mpsc::channel::<()>();
            let gate = Mutex::new(gate);
            let peer = Peer::new(move |connection, _| {
                connection.request();
                connection.write(&stdout(HEAD));
                for piece in pieces {
                    connection.write(&stdout(piece));
                    gate.lock().expect("one connection").recv().expect("the test goes on");
                }
                connection.write(&end(0, 0));
            });
            let browser = Rc::new(Browser::default());
            let application = FastCgi::new(Arc::new(FastCgiSettings { reply, ..peer.settings() }));
            let watch = async {
                for count in 1..=3 {
                    // The last line has no newline, so it is known to be one only at the end.
                    if reply == ReplyMode::Stream || count < 3 {
                        until("a piece", || browser.messages.borrow().len() == count).await;
                    }
                    go_on.send(()).expect("the peer waits");
                }
            };
            let (ran, ()) = tokio::join!(run(&application, call_with(Message::text("x")), &browser), watch);
            ran.result.expect("success");
            assert_eq!(ran.replies, ["one", "two", "three"]);
        }
    });
}

#[test]
fn a_server_that_is_no_php_fpm_sees_no_end_before_it_has_answered() {
    on_a_shard(async {
        let (tell, told) = mpsc::channel();
        let (go_on, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let peer = Peer::new(move |connection, _| {
            connection.request();
            connection.write(&[stdout(HEAD), stdout("one\n")].concat());
            // By now the client has said all that it has to say.
            gate.lock().expect("one connection").recv().expect("the test goes on");
            let mut byte = [0];
            let peeked =
                recv(&connection.0, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT).map(|(length, _)| length);
            tell.send(peeked).expect("the test waits");
            connection.write(&end(0, 0));
        });
        let browser = Rc::new(Browser::default());
        let settings = FastCgiSettings { reply: ReplyMode::Lines, ..peer.settings() };
        let application = FastCgi::new(Arc::new(settings));
        let watch = async {
            until("a line", || !browser.messages.borrow().is_empty()).await;
            go_on.send(()).expect("the peer waits");
        };
        let (ran, ()) = tokio::join!(run(&application, call_with(Message::text("x")), &browser), watch);
        ran.result.expect("success");
        assert_eq!(told.recv(), Ok(Err(rustix::io::Errno::AGAIN)), "the connection is open both ways");
    });
}

#[test]
fn a_slow_reader_stops_its_application_and_gets_everything() {
    on_a_shard(async {
        let written = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&written);
        let peer = Peer::new(move |connection, _| {
            connection.request();
            connection.write(&stdout(HEAD));
            for _ in 0..1000 {
                connection.write(&stdout(&"0123456789abcdef\n".repeat(1000)));
                counter.fetch_add(1, Ordering::SeqCst);
            }
            connection.write(&end(0, 0));
        });
        let browser = Browser::without_room();
        let settings = FastCgiSettings { reply: ReplyMode::Stream, max_output_bytes: 1 << 30, ..peer.settings() };
        let application = FastCgi::new(Arc::new(settings));
        let watch = async {
            // As many turns of the runtime as it likes: the application may fill the socket, and no more.
            until("something to send", || written.load(Ordering::SeqCst) > 0).await;
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            assert!(written.load(Ordering::SeqCst) < 500);
            browser.make_room();
        };
        let (ran, ()) = tokio::join!(run(&application, call_with(Message::text("x")), &browser), watch);
        ran.result.expect("success");
        assert_eq!(ran.replies.concat().len(), 17_000_000);
    });
}

#[test]
fn a_server_that_is_not_there_is_waited_for_and_found_when_it_comes() {
    on_a_shard(async {
        let directory = tempfile::tempdir().expect("a directory");
        let path = no_socket(&directory);
        let application =
            FastCgi::new(Arc::new(FastCgiSettings::new(Address::Unix(path.clone()), "/srv/site/index.php")));
        let start = async {
            tokio::task::yield_now().await;
            let listener = UnixListener::bind(&path).expect("a socket");
            std::thread::spawn(move || {
                let (stream, _) = listener.accept().expect("a connection");
                let mut connection = Connection(stream);
                connection.request().expect("a request");
                connection.write(&answer(&format!("{HEAD}here")));
            });
        };
        let (ran, ()) = tokio::join!(ask(&application), start);
        assert_eq!(ran.reply(), "here");
    });
}

#[test]
fn a_server_that_does_not_come_is_told_with_a_remedy_after_the_time_for_it() {
    on_a_shard(async {
        let directory = tempfile::tempdir().expect("a directory");
        let (missing, dead) = (no_socket(&directory), directory.path().join("dead.sock"));
        drop(UnixListener::bind(&dead).expect("a socket"));
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
        for (address, words) in [
            (Address::Unix(missing), "no such socket: is php-fpm running"),
            (Address::Unix(dead), "nobody listens there: is php-fpm running?"),
            (Address::Tcp(tcp.to_string()), "nobody listens there: is php-fpm running?"),
        ] {
            let connect_timeout = Duration::from_millis(60);
            let settings = FastCgiSettings { connect_timeout, ..FastCgiSettings::new(address.clone(), "/x.php") };
            let ran = ask(&FastCgi::new(Arc::new(settings))).await;
            assert!(ran.took >= connect_timeout && ran.took < PATIENCE, "{:?}", ran.took);
            let error = ran.error();
            let text = error.to_string();
            assert!(text.contains(words) && text.contains(&address.to_string()), "{text}");
            assert_eq!(error.fault(), Fault::Environment);
            // The limit of the whole call counts as well.
            let settings = FastCgiSettings {
                connect_timeout: Duration::ZERO,
                timeout: connect_timeout,
                ..FastCgiSettings::new(address, "/x.php")
            };
            let error = ask(&FastCgi::new(Arc::new(settings))).await.error();
            assert!(error.to_string().contains(words), "{error}");
        }
    });
}

#[test]
fn a_full_backlog_is_waited_for() {
    on_a_shard(async {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, accept, bind, listen, socket};
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("full.sock");
        let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
        bind(&listener, &SocketAddrUnix::new(&path).expect("a short path")).expect("bound");
        listen(&listener, 0).expect("listening");
        // A backlog of 0 holds one connection.
        let first = std::os::unix::net::UnixStream::connect(&path).expect("the one that fills it");
        let settings = FastCgiSettings {
            connect_timeout: Duration::from_millis(50),
            ..FastCgiSettings::new(Address::Unix(path.clone()), "/x.php")
        };
        let error = ask(&FastCgi::new(Arc::new(settings.clone()))).await.error();
        assert!(error.to_string().contains("backlog is full: raise pm.max_children"), "{error}");

        let settings = FastCgiSettings { connect_timeout: PATIENCE, ..settings };
        let application = FastCgi::new(Arc::new(settings));
        let make_room = async {
            tokio::task::yield_now().await;
            std::thread::spawn(move || {
                drop(accept(&listener).expect("the first"));
                let mut connection = Connection(accept(&listener).expect("the call").into());
                connection.request().expect("a request");
                connection.write(&answer(&format!("{HEAD}at last")));
            });
        };
        let (ran, ()) = tokio::join!(ask(&application), make_room);
        assert_eq!(ran.reply(), "at last");
        drop(first);
    });
}

#[test]
fn a_server_may_be_reached_by_tcp_and_by_name() {
    on_a_shard(async {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        std::thread::spawn(move || {
            use std::io::Write;
            for stream in listener.incoming() {
                let mut stream = stream.expect("accepted");
                let mut buffer = [0; 4096];
                // The empty STDIN record ends the request.
                let mut seen = Vec::new();
                while !seen.ends_with(&record(5, b"")) {
                    let length = stream.read(&mut buffer).expect("a request");
                    seen.extend_from_slice(&buffer[..length]);
                }
                stream.write_all(&answer(&format!("{HEAD}by tcp"))).expect("written");
            }
        });
        for host in ["127.0.0.1", "localhost"] {
            let address = format!("{host}:{port}").parse().expect("an address");
            let application = FastCgi::new(Arc::new(FastCgiSettings::new(address, "/x.php")));
            assert_eq!(ask(&application).await.reply(), "by tcp", "{host}");
        }
    });
}

#[test]
fn without_keep_each_call_has_a_connection_of_its_own() {
    on_a_shard(async {
        let peer = Peer::printing("Content-Type: x\r\n\r\nyes");
        let application = peer.application();
        for _ in 0..3 {
            assert_eq!(ask(&application).await.reply(), "yes");
        }
        assert_eq!(peer.accepted(), 3);
    });
}

fn keeping(peer: &Peer, keep: usize) -> FastCgi {
    FastCgi::new(Arc::new(FastCgiSettings { keep, keep_idle: 10 * PATIENCE, ..peer.settings() }))
}

#[test]
fn a_kept_connection_carries_one_call_after_another() {
    on_a_shard(async {
        let peer = Peer::printing("Content-Type: x\r\n\r\nyes");
        let application = keeping(&peer, 1);
        for _ in 0..5 {
            assert_eq!(ask(&application).await.reply(), "yes");
        }
        assert_eq!(peer.accepted(), 1);
        // Dropped with the application.
        drop(application);
        assert_eq!(peer.next_done().await, 0);
    });
}

#[test]
fn never_more_connections_are_kept_than_told_and_none_while_more_are_open() {
    on_a_shard(async {
        let peer = Peer::printing("Content-Type: x\r\n\r\nyes");
        let application = keeping(&peer, 2);
        let (a, b, c) = tokio::join!(ask(&application), ask(&application), ask(&application));
        for ran in [a, b, c] {
            assert_eq!(ran.reply(), "yes");
        }
        // At least the first of the three to end was closed, because two others were open.
        peer.next_done().await;
        let accepted = peer.accepted();
        let (a, b) = tokio::join!(ask(&application), ask(&application));
        assert_eq!((a.reply(), b.reply()), ("yes".to_owned(), "yes".to_owned()));
        assert!(peer.accepted() <= accepted + 1, "one of the others at least was kept");
    });
}

#[test]
fn a_kept_connection_that_was_closed_meanwhile_is_replaced_in_silence_and_nothing_runs_twice() {
    on_a_shard(async {
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let peer = Peer::new(move |connection, _| {
            connection.request();
            counter.fetch_add(1, Ordering::SeqCst);
            connection.write(&answer(&format!("{HEAD}yes")));
        });
        let application = keeping(&peer, 1);
        for number in 1..=5 {
            assert_eq!(ask(&application).await.reply(), "yes");
            peer.next_done().await;
            assert_eq!(requests.load(Ordering::SeqCst), number);
        }
    });
}

/// A server whose first worker answers once and then leaves, in its way, when the next request is there already.
fn leaving(leave: impl Fn(&mut Connection) + Send + Sync + 'static) -> Peer {
    Peer::new(move |connection, number| {
        while connection.request().is_some() {
            connection.write(&answer(&format!("{HEAD}{number}")));
            if number == 0 {
                let mut byte = [0];
                recv(&connection.0, &mut byte[..], RecvFlags::PEEK).expect("the next request");
                return leave(connection);
            }
        }
    })
}

#[test]
fn a_request_to_a_worker_that_leaves_is_taken_by_another() {
    on_a_shard(async {
        let unread = leaving(|_| {});
        // As php-fpm does it.
        let thrown_away = leaving(|connection| {
            connection.0.shutdown(std::net::Shutdown::Write).expect("shut");
            connection.wait_for_close();
        });
        let half_read = leaving(|connection| {
            connection.0.read_exact(&mut [0; 20]).expect("a part");
        });
        for peer in [unread, thrown_away, half_read] {
            let application = keeping(&peer, 1);
            assert_eq!(ask(&application).await.reply(), "0");
            assert_eq!(ask(&application).await.reply(), "1");
            assert_eq!(ask(&application).await.reply(), "1");
            assert_eq!(peer.accepted(), 2);
        }
    });
}

#[test]
fn a_worker_that_takes_its_time_gets_the_rest_of_a_request_when_it_has_read_the_beginning() {
    on_a_shard(async {
        let peer = Peer::new(|connection, _| {
            while connection.request_by_bytes().is_some() {
                connection.write(&answer(&format!("{HEAD}slowly")));
            }
        });
        let application = keeping(&peer, 1);
        for _ in 0..200 {
            assert_eq!(ask(&application).await.reply(), "slowly");
        }
        assert_eq!(peer.accepted(), 1);
    });
}

#[test]
fn a_kept_connection_that_says_something_unasked_is_not_used_again() {
    on_a_shard(async {
        let (spoken, hear) = mpsc::channel();
        let peer = Peer::new(move |connection, number| {
            connection.request();
            connection.write(&answer(&format!("{HEAD}{number}")));
            // Wait for the next look, then speak out of turn.
            connection.write(&stdout("ghost"));
            spoken.send(()).expect("the test waits");
            connection.wait_for_close();
        });
        let application = keeping(&peer, 1);
        for number in 0..2 {
            // Where the ghost comes with the answer it fails the call; where it comes later it costs the connection.
            match ask(&application).await.result {
                Ok(()) => {}
                Err(error) => assert!(error.to_string().contains("sent more after its END_REQUEST"), "{error}"),
            }
            hear.recv_timeout(PATIENCE).expect("spoken");
            assert_eq!(peer.accepted(), number + 1);
        }
    });
}

#[test]
fn a_request_that_may_have_been_read_is_not_sent_again() {
    on_a_shard(async {
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let peer = Peer::new(move |connection, _| {
            connection.request();
            counter.fetch_add(1, Ordering::SeqCst);
            connection.write(&answer(&format!("{HEAD}yes")));
            if connection.request().is_some() {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        let application = keeping(&peer, 1);
        assert_eq!(ask(&application).await.reply(), "yes");
        let error = ask(&application).await.error().to_string();
        assert!(error.contains("closed the connection without an answer"), "{error}");
        peer.next_done().await;
        assert_eq!((requests.load(Ordering::SeqCst), peer.accepted()), (2, 1));
    });
}

#[test]
fn an_idle_kept_connection_is_closed_after_a_while() {
    on_a_shard(async {
        let peer = Peer::printing("Content-Type: x\r\n\r\nyes");
        let settings = FastCgiSettings { keep: 1, keep_idle: Duration::from_millis(20), ..peer.settings() };
        let application = FastCgi::new(Arc::new(settings));
        for number in 0..2 {
            assert_eq!(ask(&application).await.reply(), "yes");
            assert_eq!(peer.next_done().await, number);
        }
    });
}

#[test]
fn a_connection_whose_request_was_not_read_to_its_end_is_not_kept() {
    on_a_shard(async {
        let (answered, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let peer = Peer::new(move |connection, _| {
            connection.write(&answer(&format!("{HEAD}early")));
            gate.lock().expect("one connection").recv().expect("the test goes on");
            connection.wait_for_close();
        });
        let application = keeping(&peer, 1);
        // More than any socket holds.
        let message = Message::binary(vec![7; 4 << 20]);
        assert_eq!(run(&application, call_with(message), &Rc::default()).await.reply(), "early");
        answered.send(()).expect("the peer waits");
        assert_eq!(peer.next_done().await, 0);
    });
}

#[test]
fn two_hundred_calls_at_once_are_all_answered() {
    on_a_shard(async {
        let peer = Peer::new(|connection, _| {
            let stdin = connection.request().expect("a request").stdin;
            connection.write(&answer(&format!("{HEAD}{}", String::from_utf8_lossy(&stdin))));
        });
        let application = Rc::new(peer.application());
        let local = tokio::task::LocalSet::new();
        let calls: Vec<_> = (0..200)
            .map(|number| {
                let application = Rc::clone(&application);
                local.spawn_local(async move {
                    let message = Message::text(format!("call {number}"));
                    run(&application, call_with(message), &Rc::default()).await.reply()
                })
            })
            .collect();
        local
            .run_until(async {
                for (number, call) in calls.into_iter().enumerate() {
                    assert_eq!(call.await.expect("no panic"), format!("call {number}"));
                }
            })
            .await;
    });
}
