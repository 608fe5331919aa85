//! One user's flood delays nobody else: users take turns, whatever each of them has waiting.
//!
//! The bounds are generous, as server and clients share a small machine; what they catch is waiting behind somebody else.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::client::Client;
use support::daemon::PhpFpm;
use support::{Setup, Wootz, wait_until};

/// The script takes a moment, as a page does, and says who it is for; everybody is whom their cookie names.
const SCRIPT: &str = "if (($_SERVER['WOOTZ_EVENT'] ?? '') === 'validate') exit($_COOKIE['who'] ?? ''); usleep(3000); echo $_SERVER['REMOTE_USER'];";

/// Settings under which one user could fill the house, if turns were not shared.
const SETTINGS: &str = "identity.provider = \"application\"\napplication.limits.max_running = 4\napplication.limits.per_user = 4\n\
                        application.limits.per_connection = 4\napplication.limits.max_wait = \"60s\"\napplication.busy_reply = \"busy\"";

fn served_by(fpm: &PhpFpm, settings: &str) -> Wootz {
    let script = fpm.script("index.php", SCRIPT);
    Setup::fastcgi(&fpm.address(), &script).settings(SETTINGS).settings(settings).start()
}

/// The slowest of so many calls, one each 100 ms.
fn slowest(client: &mut Client, count: u32) -> Duration {
    let begin = Instant::now();
    let mut slowest = Duration::ZERO;
    for number in 0..count {
        let due = begin + Duration::from_millis(100) * number;
        while let Some(early) = due.checked_duration_since(Instant::now()).filter(|early| !early.is_zero()) {
            std::thread::park_timeout(early);
        }
        let began = Instant::now();
        assert_eq!(client.ask("/now"), "bob");
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

fn bearable(alone: Duration) -> Duration {
    alone * 5 + Duration::from_millis(50)
}

#[test]
fn flood_of_a_thousand_messages_delays_no_other_user() {
    let fpm = PhpFpm::start(4, "");
    let wootz = served_by(&fpm, "");
    let mut bob = wootz.connect_as("who=bob");
    slowest(&mut bob, 3);
    let alone = slowest(&mut bob, 15);

    let mut alice: Vec<Client> = (0..4).map(|_| wootz.connect_as("who=alice")).collect();
    let flooding = AtomicBool::new(true);
    let flooded = std::thread::scope(|scope| {
        let floods: Vec<_> = alice
            .iter_mut()
            .map(|client| {
                let flooding = &flooding;
                scope.spawn(move || {
                    // A thousand between the four, and as many again for as long as he measures.
                    let mut answered = 0;
                    while flooding.load(Ordering::Relaxed) {
                        client.send_all(std::iter::repeat_n("/flood", 250));
                        for _ in 0..250 {
                            assert_eq!(client.text(), "alice");
                        }
                        answered += 250;
                    }
                    answered
                })
            })
            .collect();
        wait_until("her calls wait", || (wootz.status()["calls"]["waiting"].as_u64() > Some(10)).then_some(()));
        let flooded = slowest(&mut bob, 15);
        flooding.store(false, Ordering::Relaxed);
        let answered: u32 = floods.into_iter().map(|flood| flood.join().expect("the flood")).sum();
        assert!(answered >= 1000, "{answered}");
        flooded
    });
    println!("slowest of 15 alone {alone:?}, in the flood {flooded:?}");
    assert!(flooded <= bearable(alone), "slowest of 15 alone {alone:?}, in the flood {flooded:?}");
    assert_eq!(wootz.status()["calls"]["refused"], 0);
}

#[test]
fn flood_that_has_filled_the_house_refuses_the_flooder_first() {
    let fpm = PhpFpm::start(4, "");
    let wootz = served_by(&fpm, "application.limits.max_waiting = 40");
    let mut bob = wootz.connect_as("who=bob");
    let mut alice: Vec<Client> = (0..20).map(|_| wootz.connect_as("who=alice")).collect();
    let flooding = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let floods: Vec<_> = alice
            .chunks_mut(5)
            .map(|clients| {
                let flooding = &flooding;
                scope.spawn(move || {
                    let mut busy = 0;
                    while flooding.load(Ordering::Relaxed) {
                        for client in &mut *clients {
                            client.send_all(["/flood"; 4]);
                        }
                        for client in &mut *clients {
                            busy += (0..4).filter(|_| client.text() == "busy").count();
                        }
                    }
                    busy
                })
            })
            .collect();
        wait_until("the house is full", || (wootz.status()["calls"]["refused"].as_u64() > Some(0)).then_some(()));
        for _ in 0..10 {
            assert_eq!(bob.ask("/now"), "bob", "there is room for who has nothing waiting");
        }
        flooding.store(false, Ordering::Relaxed);
        let busy: usize = floods.into_iter().map(|flood| flood.join().expect("the flood")).sum();
        assert!(busy > 0);
    });
}

#[test]
fn message_does_not_wait_for_all_that_was_pushed() {
    const USERS: usize = 20;
    const PUSHES: usize = 20;
    let fpm = PhpFpm::start(4, "");
    let script = fpm.script("index.php", &format!("if ($_SERVER['WOOTZ_EVENT'] === 'push') usleep(20000); {SCRIPT}"));
    let wootz = Setup::fastcgi(&fpm.address(), &script).settings(SETTINGS).start();
    let mut bob = wootz.connect_as("who=bob");
    let mut others: Vec<Client> = (0..USERS).map(|user| wootz.connect_as(&format!("who=user-{user}"))).collect();
    let pipes: Vec<_> = others.iter().map(|other| wootz.path("tmp/fifo").join(wootz.pipe_of(other.port()))).collect();
    for pipe in &pipes {
        support::write_pipe(pipe, "/pushed\n".repeat(PUSHES).as_bytes());
    }
    wait_until("pushes wait", || (wootz.status()["calls"]["waiting"].as_u64() > Some(10)).then_some(()));
    for _ in 0..5 {
        assert_eq!(bob.ask("/now"), "bob");
    }
    let calls = wootz.status()["calls"].clone();
    let done = calls["succeeded"].as_u64().expect("a number");
    // Who connects is asked too; those are over.
    let asked = USERS as u64 + 1;
    assert!(done < asked + 5 + (USERS * PUSHES / 2) as u64, "his five waited for most of the pushes: {calls:#}");
    for (user, other) in others.iter_mut().enumerate() {
        for _ in 0..PUSHES {
            assert_eq!(other.text(), format!("user-{user}"));
        }
    }
}
