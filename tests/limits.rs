//! How many may connect and how fast: who is one too many gets a status that says so, and nobody else notices.

mod support;

use std::process::Command;

use support::daemon::{Daemon, free_address};
use support::raw::{Answer, Raw, handshake};
use support::{Setup, Wootz, wait_until};

fn echo(settings: &str) -> Wootz {
    Setup::command(&["cat"]).settings(settings).settings("listen.trusted_proxies = [\"127.0.0.1\"]").start()
}

/// A browser of this address, or the answer that refuses it.
fn try_open(wootz: &Wootz, address: &str, cookie: &str) -> Result<Raw, Answer> {
    let mut raw = wootz.raw();
    let fields = format!("X-Forwarded-For: {address}\r\nCookie: {cookie}\r\n");
    raw.write(handshake(wootz.address(), "/", &fields));
    let head = raw.head();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    if status == 101 { Ok(raw) } else { Err(Answer { status, head, body: String::new() }) }
}

fn open(wootz: &Wootz, address: &str) -> Raw {
    try_open(wootz, address, "").unwrap_or_else(|answer| panic!("{address}: {}", answer.status))
}

/// The status of a refusal, which has to say when to come again.
fn refusal(wootz: &Wootz, address: &str, cookie: &str) -> u16 {
    let Err(answer) = try_open(wootz, address, cookie) else { panic!("{address} {cookie} was let in") };
    let seconds: u64 = answer.field("Retry-After").expect("Retry-After").parse().expect("seconds");
    assert!((1..=60).contains(&seconds), "{answer:?}");
    answer.status
}

fn refused_by(wootz: &Wootz, setting: &str) -> u64 {
    wootz.status()["connections"]["refused_by"][setting].as_u64().expect("a number")
}

/// Waits until this browser is let in again.
fn wait_for_room(wootz: &Wootz, address: &str, cookie: &str) -> Raw {
    wait_until("there is room", || try_open(wootz, address, cookie).ok())
}

#[test]
fn full_server_answers_503_until_somebody_leaves() {
    let wootz = echo("limits.max_connections = 2\nlisten.shards = 2");
    let first = open(&wootz, "192.0.2.1");
    let mut second = open(&wootz, "192.0.2.2");
    assert_eq!(refusal(&wootz, "192.0.2.3", ""), 503);
    wootz.wait_for_log_line(&["handshake refused", "limits.max_connections", "192.0.2.3"]);
    assert_eq!(refused_by(&wootz, "max_connections"), 1);
    drop(first);
    let mut third = wait_for_room(&wootz, "192.0.2.3", "");
    assert_eq!((second.ask("a b"), third.ask("a b")), ("a b".to_owned(), "a b".to_owned()));
    let printed = wootz.run(&["status"]);
    let printed = String::from_utf8(printed.stdout).expect("UTF-8");
    for setting in
        ["max connections", "per address", "per user", "handshakes per second", "max handshakes", "proxy protocol"]
    {
        assert!(printed.contains(setting), "{setting} in {printed}");
    }
}

#[test]
fn silent_sockets_and_refused_requests_take_nobodys_place() {
    let wootz = echo("limits.max_connections = 1");
    let silent: Vec<Raw> = (0..50).map(|_| wootz.raw()).collect();
    let half: Vec<Raw> = silent
        .into_iter()
        .map(|mut raw| {
            raw.write("GET / HTTP/1.1\r\n");
            raw
        })
        .collect();
    for _ in 0..5 {
        assert_eq!(wootz.raw().refusal("/", "Origin: http://evil.example\r\n").status, 403);
    }
    assert_eq!(open(&wootz, "192.0.2.1").ask("a b"), "a b");
    drop(half);
}

#[test]
fn browser_whose_identity_is_being_settled_has_its_place() {
    let script = "if [ \"$WOOTZ_EVENT\" = validate ]; then : >asked; wait_for go; fi; cat";
    let setup = Setup::sh(script).settings("identity.provider = \"application\"\nlimits.max_connections = 1");
    let wootz = setup.start();
    let mut waiting = wootz.raw();
    waiting.write(handshake(wootz.address(), "/", ""));
    wait_until("the application is asked", || wootz.path("asked").exists().then_some(()));
    assert_eq!(refusal(&wootz, "192.0.2.1", ""), 503);
    // One that goes meanwhile gives its place back.
    drop(waiting);
    wootz.release("go");
    wait_for_room(&wootz, "192.0.2.1", "");
}

#[test]
fn address_has_its_share_and_ipv6_is_counted_by_its_network() {
    let wootz = echo("limits.per_address = 2\nlisten.shards = 2");
    for (mine, too, others) in
        [("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"), ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1")]
    {
        let (first, _second) = (open(&wootz, mine), open(&wootz, too));
        assert_eq!(refusal(&wootz, mine, ""), 429);
        assert_eq!(refusal(&wootz, too, ""), 429);
        let _other = open(&wootz, others);
        drop(first);
        wait_for_room(&wootz, too, "");
    }
    wootz.wait_for_log_line(&["handshake refused", "limits.per_address", "429"]);
    assert!(refused_by(&wootz, "per_address") >= 4);
}

#[test]
fn user_has_a_share_over_all_addresses_and_guests_are_no_user() {
    let script = "if [ \"$WOOTZ_EVENT\" = validate ]; then printf %s \"$HTTP_COOKIE\"; else cat; fi";
    let settings = "identity.provider = \"application\"\nlimits.per_user = 2\nlisten.trusted_proxies = [\"127.0.0.1\"]\nlisten.shards = 2";
    let wootz = Setup::sh(script).settings(settings).start();
    let open =
        |address: &str, cookie: &str| try_open(&wootz, address, cookie).unwrap_or_else(|answer| panic!("{answer:?}"));
    let (first, _second) = (open("192.0.2.1", "ann"), open("192.0.2.2", "ann"));
    assert_eq!(refusal(&wootz, "192.0.2.3", "ann"), 429);
    wootz.wait_for_log_line(&["handshake refused", "limits.per_user"]);
    let _others = [open("192.0.2.1", "bob"), open("192.0.2.1", ""), open("192.0.2.1", ""), open("192.0.2.1", "")];
    drop(first);
    wait_for_room(&wootz, "192.0.2.3", "ann");
    assert!(refused_by(&wootz, "per_user") >= 1);
    assert!(!wootz.log().contains("ann"), "a cookie is in no log");
}

#[test]
fn address_that_comes_too_fast_gets_429_and_others_do_not() {
    let wootz = echo("limits.handshakes_per_second = 1\nlimits.handshake_burst = 3\nlisten.shards = 2");
    let mut let_in = 0;
    let refused = wait_until("one is too many", || match try_open(&wootz, "192.0.2.1", "") {
        Ok(_) => {
            let_in += 1;
            None
        }
        Err(answer) => Some(answer),
    });
    assert!(let_in >= 3, "{let_in} of a burst of 3");
    assert_eq!(refused.status, 429);
    assert!(refused.field("Retry-After").is_some(), "{refused:?}");
    wootz.wait_for_log_line(&["handshake refused", "limits.handshakes_per_second"]);
    assert!(refused_by(&wootz, "handshakes_per_second") >= 1);
    open(&wootz, "192.0.2.2");
    wait_for_room(&wootz, "192.0.2.1", "");
}

#[test]
fn flood_of_silent_sockets_shuts_nobody_out_and_the_oldest_of_them_go() {
    let wootz = echo("limits.max_handshakes = 20\nlisten.shards = 2");
    let mut flood: Vec<Raw> = (0..300).map(|_| wootz.raw()).collect();
    for raw in &mut flood {
        // Those that went are reset meanwhile.
        raw.try_write("GET / HTTP/1.1\r\nX: ").ok();
    }
    let mut browser = open(&wootz, "192.0.2.1");
    assert_eq!(browser.ask("a b"), "a b");
    wait_until("all but 20 are closed", || (refused_by(&wootz, "max_handshakes") >= 280).then_some(()));
    flood[0].ends();
    assert_eq!(browser.ask("c d"), "c d");
    wootz.wait_for_log("limits.max_handshakes");
}

#[test]
fn limit_of_open_files_is_raised_and_one_that_is_too_low_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (limits, arguments, said) in [
        ("ulimit -n 2000; ulimit -Sn 100", &[][..], Some("sets no limit")),
        (
            "ulimit -n 2000; ulimit -Sn 100",
            &["--set", "limits.max_connections=5000"],
            Some("limits.max_connections = 5000"),
        ),
        ("ulimit -n 2000; ulimit -Sn 100", &["--set", "limits.max_connections=100"], None),
    ] {
        let address = free_address();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limits}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_wootz"), "serve"]);
        command
            .args(["--listen", &address.to_string()])
            .args(arguments)
            .args(["--", "cat"])
            .current_dir(directory.path());
        command.env_remove("XDG_RUNTIME_DIR").env_remove("RUNTIME_DIRECTORY");
        let daemon = Daemon::start(&mut command);
        wait_until("it serves", || daemon.log().contains("ws://").then_some(()));
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).expect("it runs");
        let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("the line");
        assert_eq!(line.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["2000", "2000"]);
        let warned = daemon.log().contains("LimitNOFILE=");
        assert_eq!(warned, said.is_some(), "{}", daemon.log());
        assert!(said.is_none_or(|said| daemon.log().contains(said)), "{}", daemon.log());
        let mut raw = Raw::connect(address);
        raw.shake_hands("/", "");
        assert_eq!(raw.ask("a b"), "a b");
    }
}
