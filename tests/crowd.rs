//! Thousands of badly behaved connections at once, while others are served as if there were none.
//!
//! The limits are generous, as client and server share a small machine; what they catch is waiting for each other.

mod support;

use std::time::{Duration, Instant};

use support::client::Client;
use support::raw::{self, PING, Raw, TEXT, frame, text};
use support::{Setup, Wootz, process, wait_until};

/// The server of a crowd: no descriptor is spent on pipes of connections.
fn crowded(setup: Setup) -> Wootz {
    setup.settings("pipes.requests = false\nlimits.handshake_timeout = \"10m\"").start()
}

/// The slowest of all but one in a hundred.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

/// As much as a test may be slower on a machine that has other things to do.
fn bearable(alone: Duration) -> Duration {
    alone * 10 + Duration::from_millis(100)
}

/// How long each message takes to be answered.
fn measure(clients: &mut [Client], message: &str, reply: &str) -> Vec<Duration> {
    let ask = |client: &mut Client| {
        let begin = Instant::now();
        assert_eq!(client.ask(message), reply);
        begin.elapsed()
    };
    clients.iter_mut().map(ask).collect()
}

/// How many ways there are to be a nuisance. The first few stay connected; the server ends the others.
const NUISANCES: usize = 10;
/// Those who stay: they have said too little to be wrong.
const STAYING: usize = 5;

/// A new connection that is a nuisance of this kind, and reads nothing.
fn nuisance(wootz: &Wootz, kind: usize) -> Raw {
    let request = raw::handshake(wootz.address(), "/", "");
    let unfinished = |length: usize| {
        let mut raw = wootz.raw();
        raw.write(&request[..length]);
        raw
    };
    let opened = |bytes: &[u8]| {
        let mut raw = wootz.open();
        raw.try_write(bytes).ok();
        raw
    };
    match kind {
        0 => wootz.raw(),
        1 => unfinished(1),
        2 => unfinished(request.len() / 2),
        3 => unfinished(request.len() - 1),
        4 => opened(&frame(TEXT, [b'a'; 100])[..30]),
        5 => opened(b"\x81\x05hello"),
        6 => opened(&frame(0x83, "a")),
        7 => opened(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        8 => opened(&[raw::close(1000, b""), text("/after")].concat()),
        _ => opened(&frame(0x01, b"\xff")),
    }
}

#[test]
fn five_thousand_nuisances_at_once_delay_nobody() {
    let wootz = crowded(Setup::command(&["cat"]));
    let mut served: Vec<Client> = (0..10).map(|_| wootz.connect()).collect();
    let alone = p99((0..10).flat_map(|_| measure(&mut served, "/call", "/call")).collect());
    let mut crowd: Vec<Raw> = Vec::with_capacity(5000);
    let mut times = Vec::new();
    for number in 0..5000 {
        crowd.push(nuisance(&wootz, number % NUISANCES));
        if number % 50 == 0 {
            times.extend(measure(&mut served[..1], "/call", "/call"));
        }
    }
    times.extend((0..10).flat_map(|_| measure(&mut served, "/call", "/call")).collect::<Vec<_>>());
    let crowded = p99(times);
    println!("p99 of a call alone {alone:?}, among 5,000 nuisances {crowded:?}");
    assert!(crowded <= bearable(alone), "p99 alone {alone:?}, in the crowd {crowded:?}");
    assert_eq!(wootz.connect().ask("/newcomer"), "/newcomer");
    let memory = process::peak_memory_bytes(wootz.pid());
    assert!(memory < 150 << 20, "{memory} bytes of memory");
    for (number, raw) in crowd.iter_mut().enumerate().step_by(97) {
        let stays = number % NUISANCES < STAYING;
        assert!(!stays || !raw.ended_within(Duration::from_millis(1)), "{number} was thrown out early");
    }
    drop(crowd);
    wait_until("the descriptors of the crowd are closed", || (process::descriptors(wootz.pid()) < 200).then_some(()));
}

/// One of the thousand who misbehave: each round it does the next bad thing, and never reads.
fn misbehave(raw: &mut Raw, kind: usize, round: usize) {
    // A connection that the server has closed already is no concern of this test.
    let bytes = match kind {
        // Reads nothing of the large replies that it asks for.
        0 => text("/big"),
        // Half a frame, continued by a byte each round.
        1 if round == 0 => frame(TEXT, [b'a'; 100])[..30].to_vec(),
        1 => vec![b'a'],
        // A flood of messages in one write, answered without a call.
        2 => text("ping").repeat(100),
        // A flood of pings.
        _ => frame(PING, [b'p'; 100]).repeat(100),
    };
    raw.try_write(bytes).ok();
}

#[test]
fn thousand_who_behave_see_the_same_p99_with_and_without_a_thousand_who_do_not() {
    // Large for the outbox, so that a slow reader is one at once; small for the machine.
    let setup = Setup::sh("case $REQUEST_URI in /big) exec cat big;; *) exec cat;; esac");
    let wootz = crowded(setup.file("big", &"a".repeat(300_000)).settings("limits.outbox = \"64KiB\""));
    let mut good: Vec<Client> = (0..1000).map(|_| wootz.connect()).collect();
    measure(&mut good, "ping", "pong");
    let alone = p99((0..5).flat_map(|_| measure(&mut good, "ping", "pong")).collect());
    let calls_alone = p99(measure(&mut good[..100], "/call", "/call"));

    let mut bad: Vec<Raw> = (0..1000).map(|_| wootz.open()).collect();
    for raw in &bad {
        rustix::net::sockopt::set_socket_recv_buffer_size(raw.stream(), 4096).expect("a socket");
        // What a bad one can't write, it leaves: it must not hold up the test.
        raw.stream().set_nonblocking(true).expect("a socket");
    }
    let (mut times, mut call_times) = (Vec::new(), Vec::new());
    for round in 0..10 {
        for (kind, quarter) in bad.chunks_mut(250).enumerate() {
            for (at, raw) in quarter.iter_mut().enumerate() {
                // The slow readers cost the machine a process each: some of them each round.
                if kind > 0 || at % 10 == round {
                    misbehave(raw, kind, round);
                }
            }
            times.extend(measure(&mut good[250 * kind..][..250], "ping", "pong"));
            call_times.extend(measure(&mut good[25 * kind..][..5], "/call", "/call"));
        }
    }
    let crowded = p99(times);
    let calls_crowded = p99(call_times);
    println!(
        "p99 of a message alone {alone:?}, in the crowd {crowded:?}; of a call {calls_alone:?}, {calls_crowded:?}"
    );
    assert!(crowded <= bearable(alone), "p99 of a message alone {alone:?}, in the crowd {crowded:?}");
    assert!(
        calls_crowded <= bearable(calls_alone),
        "p99 of a call alone {calls_alone:?}, in the crowd {calls_crowded:?}"
    );
    wootz.push("to all\n");
    for client in &mut good {
        assert_eq!(client.text(), "to all");
    }
    let memory = process::peak_memory_bytes(wootz.pid());
    assert!(memory < 250 << 20, "{memory} bytes of memory");
}

#[test]
fn thousands_who_come_and_go_leave_nothing_behind() {
    let wootz = crowded(Setup::command(&["cat"]));
    assert_eq!(wootz.connect().ask("/first"), "/first");
    let before = process::descriptors(wootz.pid());
    for _ in 0..20 {
        let mut clients: Vec<Raw> = (0..100).map(|_| wootz.open()).collect();
        for client in &mut clients {
            client.write(text("ping"));
        }
        for client in &mut clients[..50] {
            assert_eq!(client.frame().text(), "pong");
        }
    }
    wait_until("every descriptor is closed again", || (process::descriptors(wootz.pid()) <= before).then_some(()));
    let status = wootz.status();
    assert_eq!(status["connections"]["open"], serde_json::json!(0), "{status:#}");
}
