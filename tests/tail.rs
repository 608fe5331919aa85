//! Events: what happens is told to those who listen, without payloads unless they ask, and nobody waits for a slow one.

mod support;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use support::api::EventLines;
use support::client::Client;
use support::daemon::Daemon;
use support::{Setup, Wootz, run, wait_until};

const APPLICATION: &str = r#"
[ "$WOOTZ_EVENT" = validate ] && { printf '%s' "${HTTP_COOKIE#user=}"; exit; }
case $REQUEST_URI in /fail) exit 1;; *) printf 'secret reply';; esac"#;

fn application() -> Setup {
    Setup::sh(APPLICATION).settings("identity.provider = \"application\"\nlisten.shards = 2")
}

#[test]
fn life_of_a_connection_is_told_in_its_order_and_without_a_payload() {
    let wootz = application().start();
    let mut events = EventLines::listen(wootz.api(), "?user=42");
    let mut other = wootz.connect_as("user=4");
    let mut client = wootz.connect_as("user=42");
    assert_eq!(other.ask("/secret"), "secret reply");
    assert_eq!(client.ask("/secret"), "secret reply");
    wootz.api().push(json!({"to": {"user": "42"}, "text": "secret push"}));
    assert_eq!(client.text(), "secret push");
    client.leave();
    let mut seen = Vec::new();
    loop {
        let event = events.event();
        assert!(!event.to_string().contains("secret"), "{event}");
        assert!(event["user"] == "42" || event["to"] == json!({"user": "42"}), "{event}");
        seen.push(event);
        if seen.last().is_some_and(|event| event["event"] == "closed") {
            break;
        }
    }
    let names: Vec<&str> = seen.iter().map(|event| event["event"].as_str().expect("a name")).collect();
    assert_eq!(names, ["opened", "message", "reply", "call", "push", "closed"]);
    let address = seen[0]["address"].as_str().expect("an address");
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    assert_eq!((&seen[1]["type"], &seen[1]["bytes"]), (&json!("text"), &json!(7)));
    assert_eq!(seen[2]["bytes"], 12);
    assert_eq!((&seen[3]["call"], &seen[3]["end"]), (&json!("message"), &json!("succeeded")));
    assert!(seen[3]["ran_ms"].as_f64() > Some(0.0), "{}", seen[3]);
    assert_eq!((&seen[4]["reached"], &seen[4]["queued"], &seen[4]["dropped"]), (&json!(1), &json!(1), &json!(0)));
    assert_eq!(seen[5]["code"], Value::Null, "the browser's Close had none");
    for event in &seen {
        let time = event["time"].as_str().expect("a time");
        assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    }
}

#[test]
fn payloads_are_told_to_those_who_ask_for_them() {
    let wootz = application().start();
    let mut events = EventLines::listen(wootz.api(), "?payload=1");
    let mut client = wootz.connect_as("user=42");
    client.ask("/secret");
    assert_eq!(events.event_named("message")["text"], "/secret");
    assert_eq!(events.event_named("reply")["text"], "secret reply");
    assert_eq!(events.event_named("call")["end"], "succeeded");
    wootz.api().push(json!({"to": {"all": true}, "binary": "AP8="}));
    let push = events.event_named("push");
    assert_eq!((&push["binary"], &push["to"]), (&json!("AP8="), &json!({"all": true})));
    client.send("/fail");
    assert_eq!(events.event_named("call")["end"], "failed");
    wootz.api().push(json!({"to": {"user": "42"}, "request": "/x", "once": true}));
    let push = events.event_named("push");
    assert_eq!((&push["request"], &push["once"]), (&json!(true), &json!(true)));
}

#[test]
fn slow_listener_is_told_how_many_events_it_lost_and_nobody_waits_for_it() {
    let wootz = application().start();
    let mut client = wootz.connect();
    let mut slow = EventLines::listen(wootz.api(), "?payload=1");
    let text = "x".repeat(8000);
    let mut api = wootz.api();
    for _ in 0..1500 {
        assert_eq!(api.push(json!({"to": {"all": true}, "text": text}))["queued"], 1);
        assert_eq!(client.text(), text);
    }
    let lost = slow.event_named("lost");
    assert!(lost["events"].as_u64() > Some(0), "{lost}");
    let events = &mut slow;
    let mut told = 0;
    // What it was told and what it lost are all of them, sooner or later.
    while told < 100 {
        assert_eq!(events.event_named("push")["bytes"], 8000);
        told += 1;
    }
}

#[test]
fn listeners_are_bounded_and_their_places_are_given_back() {
    let wootz = application().start();
    let listeners: Vec<EventLines> = (0..16).map(|_| EventLines::listen(wootz.api(), "")).collect();
    let refused = wootz.api().ask("GET", "/v1/events");
    assert_eq!((refused.status, refused.code().as_str()), (503, "too_many_listeners"));
    drop(listeners);
    wait_until("there is room again", || {
        let mut api = wootz.api();
        api.send("GET", "/v1/events");
        api.head().starts_with("HTTP/1.1 200 ").then_some(())
    });
}

/// A browser of user 42 that asks again and again, as long as the test looks at something.
fn while_somebody_asks<T>(wootz: &Wootz, look: impl FnOnce() -> T) -> T {
    struct Stop<'s>(&'s AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (stopped, address) = (AtomicBool::new(false), wootz.address());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::connect(address, "/", &[("Cookie", "user=42")]);
            while !stopped.load(Ordering::Relaxed) {
                client.ask("/hello");
            }
        });
        // Also where the look fails: the scope waits for the one who asks.
        let _stop = Stop(&stopped);
        look()
    })
}

fn tail(wootz: &Wootz, arguments: &[&str]) -> Daemon {
    Daemon::start(support::wootz(wootz.directory()).arg("tail").args(arguments))
}

#[test]
fn command_prints_a_line_per_event_for_people_or_as_json() {
    let wootz = application().start();
    let (people, json) = (tail(&wootz, &[]), tail(&wootz, &["--json", "--payload", "--user", "42"]));
    let has = |daemon: &Daemon, part: &str| {
        let log = daemon.log();
        log.lines().find(|line| line.contains(part)).map(str::to_owned)
    };
    let (line, reply) = while_somebody_asks(&wootz, || {
        let line = wait_until("a line for people", || has(&people, "  reply  "));
        (line, wait_until("a line of JSON", || has(&json, "\"event\":\"reply\"")))
    });
    let words: Vec<&str> = line.split_whitespace().collect();
    assert!(words[0].len() == 12 && words[2].len() == 8 && words[3] == "42", "{line}");
    let log = people.log();
    assert!(!log.contains("/hello") && !log.contains("secret"), "{log}");
    let reply: Value = serde_json::from_str(&reply).expect("JSON");
    assert_eq!((&reply["text"], &reply["user"]), (&json!("secret reply"), &json!("42")));
}

#[test]
fn command_ends_quietly_when_nobody_reads_any_more() {
    let wootz = application().start();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(r#"{ "$0" tail --json; echo "it ended with $?" >ended; } | head -n 1"#);
    shell.arg(env!("CARGO_BIN_EXE_wootz")).current_dir(wootz.directory());
    let printed = while_somebody_asks(&wootz, || run(&mut shell));
    assert_eq!(printed.lines().count(), 1, "{printed}");
    assert_eq!(wootz.content("ended"), "it ended with 0\n");
}

#[test]
fn command_ends_with_the_server() {
    let mut wootz = application().start();
    let mut events = tail(&wootz, &["--json"]);
    while_somebody_asks(&wootz, || wait_until("it listens", || (!events.log().is_empty()).then_some(())));
    wootz.signal(rustix::process::Signal::TERM);
    assert_eq!(wootz.wait().code(), Some(0));
    wait_until("it ends with the server", || events.has_ended().then_some(()));
}
