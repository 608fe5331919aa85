//! slowhttptest, which holds on to a server by being slow in all the ways it knows, while browsers are served as if it were not there.

mod support;

use std::process::Command;

use rustix::process::Signal;
use support::authority::{Authority, Secure};
use support::client::Client;
use support::daemon::Daemon;
use support::{Setup, Wootz, process, wait_until};

/// How many slow clients there are of each kind.
const SLOW: usize = 200;

/// A server that has a page to be read slowly. Time enough for an honest handshake, also on a busy machine.
fn patient() -> Setup {
    Setup::command(&["cat"]).dev().setting("limits.handshake_timeout", "\"5s\"")
}

/// Starts it: `way` is one of its kinds of attack. It ends when nobody is left whom the server would listen to, or is ended by the test.
fn slowhttptest(url: &str, way: &str) -> Daemon {
    let clients = SLOW.to_string();
    let mut command = Command::new("slowhttptest");
    // So many at once, a few bytes each second, for at most two minutes. The server counts as gone after 20 s without an answer.
    command.args([way, "-c", &clients, "-r", &clients, "-i", "1", "-x", "24", "-l", "120", "-p", "20", "-u", url]);
    // Of slow reading: small windows, and a byte every five seconds.
    if way == "-X" {
        command.args(["-w", "10", "-y", "20", "-n", "5", "-z", "1"]);
    }
    Daemon::start(&mut command)
}

/// What it found in the end, without the colours.
fn verdict(slow: &Daemon) -> Vec<String> {
    wait_until("slowhttptest says how it ended", || slow.log().contains("Exit status").then_some(()));
    let log = slow.log();
    let mut lines = Vec::new();
    for line in log.lines() {
        let mut plain = String::new();
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('\x1b') {
            plain += before;
            rest = after.split_once(|end: char| end.is_ascii_alphabetic()).map_or("", |(_, rest)| rest);
        }
        lines.push(plain + rest);
    }
    lines
}

/// It has looked, and has always found the server there.
fn assert_always_available(slow: &Daemon) {
    let said = verdict(slow);
    let mut looked = said.iter().filter_map(|line| line.split_once("service available:")).peekable();
    assert!(looked.peek().is_some(), "{said:#?}");
    assert!(looked.all(|(_, found)| found.trim() == "YES"), "{said:#?}");
}

/// Runs all kinds of slowness at once, and `serve` again and again meanwhile, until the server has ended them all.
fn attack(wootz: &Wootz, url: &str, mut serve: impl FnMut()) {
    serve();
    let before = process::descriptors(wootz.pid());
    let mut slow_heads = slowhttptest(url, "-H");
    let mut slow_bodies = slowhttptest(url, "-B");
    let mut slow_readers = slowhttptest(url, "-X");
    wait_until("they have come", || {
        serve();
        (wootz.status()["connections"]["accepted"].as_u64() >= Some(3 * SLOW as u64)).then_some(())
    });
    // The first two end by themselves, as nobody is left to be slow with.
    wait_until("the server has ended those who send slowly", || {
        serve();
        (slow_heads.has_ended() && slow_bodies.has_ended()).then_some(())
    });
    wait_until("the server has let go of those who read slowly", || {
        serve();
        // A newcomer may still be leaving.
        (process::descriptors(wootz.pid()) < before + SLOW / 10).then_some(())
    });
    assert!(!slow_readers.has_ended(), "the slow readers have gone by themselves");
    slow_readers.signal(Signal::INT);
    wait_until("slowhttptest ends", || slow_readers.has_ended().then_some(()));
    for slow in [&slow_heads, &slow_bodies] {
        assert_always_available(slow);
        assert!(slow.log().contains("No open connections left"), "{:#?}", verdict(slow));
    }
    assert_always_available(&slow_readers);
    wootz.wait_for_log_line(&["408", "limits.handshake_timeout"]);
    let ended = wootz.log().lines().filter(|line| line.contains("limits.handshake_timeout")).count();
    assert!(ended >= SLOW, "{ended} were ended for their slowness");
    serve();
}

#[test]
fn slow_heads_bodies_and_readers_are_ended_and_browsers_are_served_meanwhile() {
    let wootz = patient().start();
    let mut open: Vec<Client> = (0..3).map(|_| wootz.connect()).collect();
    attack(&wootz, &format!("http://{}/", wootz.address()), || {
        for browser in &mut open {
            assert_eq!(browser.ask("ping"), "pong");
        }
        assert_eq!(wootz.connect().ask("/newcomer"), "/newcomer");
    });
}

#[test]
fn slow_heads_bodies_and_readers_behind_tls_are_ended_and_browsers_are_served_meanwhile() {
    let authority = Authority::new("Test");
    authority.issue("localhost", "localhost");
    let [cert, key] = ["pem", "key"].map(|end| format!("{:?}", authority.path(&format!("localhost.{end}"))));
    let wootz = patient().setting("tls.cert", cert).setting("tls.key", key).start();
    let mut open: Vec<Secure> = (0..3).map(|_| authority.open(wootz.address())).collect();
    attack(&wootz, &format!("https://{}/", wootz.address()), || {
        for browser in &mut open {
            assert_eq!(browser.ask("ping"), "pong");
        }
        assert_eq!(authority.open(wootz.address()).ask("/newcomer"), "/newcomer");
    });
}
