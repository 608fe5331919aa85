//! The faults of the server that wootz descends from, each measured there once: here none may return. One test a fault.

mod support;

use std::fs;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::client::Client;
use support::raw::{self, FIN, PING, PONG, Raw, TEXT, frame};
use support::{Setup, mode, wait_until, write_pipe};

/// An application that says what it was asked, waits on `/hold`, and fails on `/fail`.
fn application() -> Setup {
    let script = r#"case $REQUEST_URI in /hold) echo up >>held; wait_for go;; /fail) kill -SEGV $$;; esac; cat"#;
    Setup::sh(script)
}

#[test]
fn server_does_not_end_after_its_first_application_message() {
    let wootz = application().start();
    let mut client = wootz.connect();
    for number in 0..10 {
        assert_eq!(client.ask(&format!("/{number}")), format!("/{number}"));
    }
    client.leave();
    assert_eq!(wootz.connect().ask("/next"), "/next");
}

#[test]
fn binary_frame_does_not_kill_the_server() {
    let wootz = application().start();
    let mut client = wootz.connect();
    client.send_binary(b"\0\xff\xfe");
    assert_eq!(client.binary(), b"\0\xff\xfe");
    assert_eq!(wootz.connect().ask("/next"), "/next");
}

#[test]
fn bad_call_does_not_kill_the_server() {
    let wootz = application().start();
    let mut client = wootz.connect();
    client.send("/fail");
    assert_eq!(client.ask("/next"), "/next");
    assert_eq!(wootz.connect().ask("/others"), "/others");
}

#[test]
fn odd_header_does_not_kill_the_server() {
    let wootz = application().start();
    for odd in [
        ":\r\n",
        "X\r\n",
        "X: \r\n",
        "Cookie\r\n",
        "Cookie: \x01\r\n",
        "\x7f: a\r\n",
        "Sec-WebSocket-Key: \r\n",
        "X: \u{ff}\u{20ac}\r\n",
    ] {
        let mut odd_one = wootz.raw();
        odd_one.write(raw::handshake(wootz.address(), "/", odd));
        let head = odd_one.head();
        assert!(["HTTP/1.1 101", "HTTP/1.1 400"].iter().any(|status| head.starts_with(status)), "{odd:?}: {head}");
        assert_eq!(wootz.connect().ask("/next"), "/next");
    }
}

#[test]
fn silent_connection_stops_nobody() {
    let wootz = application().start();
    let _silent: Vec<Raw> = (0..10).map(|_| wootz.raw()).collect();
    let mut half = wootz.raw();
    half.write("GET / HTTP/1.1\r\nHost:");
    let mut within_a_frame = wootz.open();
    within_a_frame.write([TEXT]);
    assert_eq!(wootz.connect().ask("/next"), "/next");
}

#[test]
fn slow_call_stops_nobody() {
    let wootz = application().start();
    let mut slow = wootz.connect();
    slow.send("/hold");
    wootz.wait_for_lines("held", 1);
    assert_eq!(wootz.connect().ask("/next"), "/next");
    slow.nothing_waits();
    wootz.release("go");
    assert_eq!(slow.text(), "/hold");
}

#[test]
fn slow_reader_is_closed_with_1013_and_others_notice_nothing() {
    let wootz = application().settings("limits.outbox = \"256KiB\"\nlisten.shards = 1").start();
    let mut slow = wootz.open();
    rustix::net::sockopt::set_socket_recv_buffer_size(slow.stream(), 64 * 1024).expect("a socket");
    let mut other = wootz.connect();
    let push = "x".repeat(60_000);
    let longest = (0..200)
        .map(|_| {
            let begin = Instant::now();
            wootz.push(format!("{push}\n"));
            assert_eq!(other.text().len(), push.len());
            begin.elapsed()
        })
        .max();
    assert!(longest.is_some_and(|longest| longest < Duration::from_secs(5)), "{longest:?}");
    // What was on its way arrives, then the Close.
    let is_push = |frame: &raw::Frame| frame.first == TEXT && frame.payload.len() == push.len();
    let close = std::iter::repeat_with(|| slow.frame()).find(|frame| !is_push(frame)).expect("endless");
    assert_eq!((close.first, &close.payload[..2]), (raw::CLOSE, &1013_u16.to_be_bytes()[..]));
}

#[test]
fn more_than_509_connections_are_served() {
    let wootz = application().start();
    let mut clients: Vec<Client> = (0..1500).map(|_| wootz.connect()).collect();
    for client in clients.iter_mut().step_by(100) {
        assert_eq!(client.ask("/one-of-many"), "/one-of-many");
    }
    wootz.push("to all\n");
    for client in &mut clients {
        assert_eq!(client.text(), "to all");
    }
}

#[test]
fn term_is_not_ignored() {
    let mut wootz = application().start();
    let mut client = wootz.connect();
    wootz.signal(Signal::TERM);
    assert_eq!(client.closed(), 1001);
    drop(client);
    assert_eq!(wootz.wait().code(), Some(0));
}

#[test]
fn anybody_can_be_refused() {
    let refuse = "[ \"$WOOTZ_EVENT\" = validate ] && exit 1; cat";
    let wootz = Setup::sh(refuse).settings("identity.provider = \"application\"").start();
    let Err(answer) = Client::try_connect(wootz.address(), "/", &[]) else { panic!("nobody was refused") };
    assert_eq!(answer.status(), 403);
}

#[test]
fn cookie_of_one_user_is_not_seen_by_the_call_of_another() {
    let wootz = Setup::sh("echo \"$HTTP_COOKIE\"").start();
    let mut ann = wootz.connect_as("id=ann");
    assert_eq!(ann.ask("/"), "id=ann");
    let mut guest = wootz.connect();
    let mut bob = wootz.connect_as("id=bob");
    assert_eq!(guest.ask("/"), "");
    assert_eq!([bob.ask("/"), ann.ask("/")], ["id=bob", "id=ann"]);
}

#[test]
fn message_cut_off_on_the_way_is_not_executed() {
    let wootz = Setup::sh("echo \"$REQUEST_URI\" >>calls; echo ok").start();
    let whole = raw::text("/delete?id=1234");
    for cut in 0..whole.len() {
        let mut raw = wootz.open();
        raw.write(&whole[..cut]);
        if cut % 2 == 0 {
            raw.shut_down();
            raw.rest();
        }
    }
    let mut first_fragment = wootz.open();
    first_fragment.write(frame(0x01, "/delete?id=1"));
    drop(first_fragment);
    assert_eq!(wootz.connect().ask("/last"), "ok");
    assert_eq!(wootz.content("calls"), "/last\n");
}

#[test]
fn every_fragment_of_a_message_is_executed_not_only_the_first() {
    let wootz = Setup::sh("echo \"$REQUEST_URI\" >>calls; cat").start();
    let mut raw = wootz.open();
    raw.write([frame(0x01, "/one"), frame(0, "/two"), frame(FIN, "/three")].concat());
    assert_eq!(raw.frame().text(), "/one/two/three");
    assert_eq!(wootz.content("calls"), "/one/two/three\n");
}

#[test]
fn pong_never_lands_inside_another_frame() {
    let wootz = Setup::sh("head -c 4000000 /dev/zero | tr '\\0' a").settings("limits.outbox = \"8MiB\"").start();
    let mut raw = wootz.open();
    raw.write(raw::text("/big"));
    // Once the reply is on its way, pings come while it is half written.
    assert!(raw.speaks_within(support::DEADLINE));
    raw.write(frame(PING, "now").repeat(100));
    let reply = raw.frame();
    assert!(reply.payload.len() == 4_000_000 && reply.payload.iter().all(|byte| *byte == b'a'));
    for _ in 0..100 {
        assert_eq!(raw.frame(), raw::Frame { first: PONG, payload: b"now".to_vec() });
    }
}

#[test]
fn replies_keep_the_order_of_the_messages() {
    // The earlier a message, the longer its call.
    let wootz = Setup::sh("sleep 0.$((9 - ${REQUEST_URI#/})); cat")
        .settings("application.limits.per_connection = 10\napplication.limits.per_user = 10")
        .start();
    let mut client = wootz.connect();
    let messages: Vec<String> = (0..10).map(|number| format!("/{number}")).collect();
    client.send_all(messages.iter().map(String::as_str));
    let replies: Vec<String> = messages.iter().map(|_| client.text()).collect();
    assert_eq!(replies, messages);
}

#[test]
fn push_to_user_1_does_not_reach_user_12() {
    let script =
        "[ \"$WOOTZ_EVENT\" = validate ] && { echo \"${HTTP_COOKIE#user=}\"; exit; }; echo \"$REMOTE_USER $(cat)\"";
    let wootz = Setup::sh(script).settings("identity.provider = \"application\"").start();
    let mut users: Vec<Client> =
        ["1", "12", "112", "1:127"].map(|user| wootz.connect_as(&format!("user={user}"))).into();
    write_pipe(&wootz.path("tmp/fifo").join(wootz.pipe_of(users[0].port())), b"/for-one\n");
    assert_eq!(users[0].text(), "1 /for-one");
    // Their calls would come after that push.
    for user in &mut users[1..] {
        assert!(user.ask("/own").ends_with(" /own"));
    }
}

#[test]
fn pipes_are_not_writable_by_anyone_whatever_the_umask() {
    let wootz = application().umask("000").start();
    let client = wootz.connect();
    let own = wootz.path("tmp/fifo").join(wootz.pipe_of(client.port()));
    for path in [wootz.global_pipe(), own, wootz.path("wootz.sock")] {
        wait_until("mode 0660", || (mode(&path) == 0o660).then_some(()));
    }
    assert_eq!(mode(&wootz.path("tmp/fifo")) & 0o007, 0);
}

#[test]
fn records_over_4096_bytes_are_not_torn() {
    let wootz = application().start();
    let mut client = wootz.connect();
    for length in [4095, 4096, 4097, 8193, 100_000] {
        wootz.push(format!("{}\n", "x".repeat(length)));
        assert_eq!(client.text().len(), length);
    }
}

#[test]
fn payloads_and_cookies_are_in_no_log_and_in_no_file_that_anyone_may_read() {
    let wootz = application().settings("log.level = \"debug\"").start();
    let mut client = wootz.connect_as("PHPSESSID=very-secret-cookie");
    assert_eq!(client.ask("/very-secret-uri"), "/very-secret-uri");
    client.send("/fail");
    wootz.push("very-secret-push\n");
    assert_eq!(client.text(), "very-secret-push");
    wootz.wait_for_log("signal 11");
    assert!(!wootz.log().contains("very-secret"), "{}", wootz.log());
    let own = ["wootz.toml", "application.sh", "tmp", "wootz.sock"];
    let written = fs::read_dir(wootz.directory()).expect("a directory").map(|entry| entry.expect("an entry"));
    let foreign = |entry: &fs::DirEntry| !own.iter().any(|own| entry.file_name() == *own);
    let foreign: Vec<_> = written.filter(foreign).map(|entry| entry.path()).collect();
    assert!(foreign.is_empty(), "the server wrote {foreign:?}");
}

#[test]
fn calls_and_their_children_do_not_hold_the_listening_socket() {
    let mut wootz = Setup::sh("setsid sleep 3 >/dev/null 2>&1 & ls -l /proc/$!/fd; ls -l /proc/$$/fd").start();
    let printed = wootz.connect().ask("/");
    assert!(printed.contains("->") && !printed.contains("socket:"), "{printed}");
    wootz.signal(Signal::TERM);
    assert_eq!(wootz.wait().code(), Some(0));
    // The child that outlives its call holds no port.
    let again = application().setting("listen.address", format!("{:?}", wootz.address().to_string())).start();
    assert_eq!(again.connect().ask("/again"), "/again");
}

#[test]
fn pings_are_answered_with_their_payload() {
    let wootz = application().start();
    let mut raw = wootz.open();
    for payload in ["", "a", "longer than that \u{20ac}"] {
        raw.write(frame(PING, payload));
        assert_eq!(raw.frame(), raw::Frame { first: PONG, payload: payload.as_bytes().to_vec() });
    }
}
