//! Who a browser is, settled by the application before the 101: a refusal is an HTTP status.

mod support;

use support::client::Client;
use support::{Setup, Wootz};

/// The cookie `user=…` decides. Every other call says who it runs as.
const BY_COOKIE: &str = r#"
cookie=${HTTP_COOKIE#user=}
case $WOOTZ_EVENT:$cookie in
validate:fail) echo ann; echo the session store is away >&2; exit 1;;
validate:slow) echo "$REMOTE_PORT" >>validating; wait_for go; echo slow;;
validate:json) echo '{"user": "ann", "expires": 3600}';;
validate:json-guest) echo '{"user": null}';;
validate:short) echo '{"user": "ann", "expires": 1}';;
validate:broken) echo '{"user": ';;
validate:long) head -c 100000 /dev/zero | tr '\0' a;;
validate:control) printf 'ann\001\n';;
validate:lines) printf 'ann\nbob\n';;
validate:binary) printf '\377\376';;
validate:*) echo "$cookie";;
*) echo "$WOOTZ_EVENT|${REMOTE_USER-guest}|$HTTP_COOKIE|$REQUEST_URI";;
esac"#;

fn by_cookie() -> Setup {
    Setup::sh(BY_COOKIE).settings("identity.provider = \"application\"")
}

/// The status of a refusal, or 101.
fn status(wootz: &Wootz, cookie: Option<&str>) -> u16 {
    let cookie = cookie.map(|cookie| format!("user={cookie}"));
    let fields: Vec<(&str, &str)> = cookie.iter().map(|cookie| ("Cookie", cookie.as_str())).collect();
    match Client::try_connect(wootz.address(), "/", &fields) {
        Ok(_) => 101,
        Err(answer) => answer.status().as_u16(),
    }
}

#[test]
fn application_says_who_the_user_is_and_calls_run_as_that_user() {
    let wootz = by_cookie().start();
    for (cookie, user) in [
        ("42", "42"),
        ("ann@example.com", "ann@example.com"),
        ("b/../c.d", "b/../c.d"),
        ("j\u{fc}rgen", "j\u{fc}rgen"),
        ("json", "ann"),
        ("json-guest", "guest"),
        ("", "guest"),
    ] {
        let cookie = format!("user={cookie}");
        let mut client = wootz.connect_as(&cookie);
        assert_eq!(client.ask("/who"), format!("message|{user}|{cookie}|/who"));
    }
}

#[test]
fn user_whom_the_application_refuses_gets_403_and_one_who_remains_unclear_503() {
    let wootz = by_cookie().start();
    assert_eq!(status(&wootz, Some("fail")), 403);
    wootz.wait_for_log("the session store is away");
    for cookie in ["broken", "binary", "control", "lines", "long", &"u".repeat(129)] {
        assert_eq!(status(&wootz, Some(cookie)), 503, "{cookie}");
    }
    assert_eq!(status(&wootz, Some("ann")), 101);
}

#[test]
fn guest_is_refused_with_401_where_the_file_says_so() {
    let wootz = by_cookie().settings("identity.guests = \"refuse\"").start();
    assert_eq!(status(&wootz, None), 401);
    assert_eq!(status(&wootz, Some("")), 401);
    assert_eq!(status(&wootz, Some("json-guest")), 401);
    assert_eq!(status(&wootz, Some("ann")), 101);
    let wootz = Setup::command(&["cat"]).settings("identity.guests = \"refuse\"").start();
    assert_eq!(status(&wootz, Some("ann")), 401, "without a provider everybody is a guest");
}

#[test]
fn validation_that_is_slow_delays_nobody_and_an_open_connection_least_of_all() {
    let wootz = by_cookie().settings("application.limits.max_running = 4\nlisten.shards = 1").start();
    let address = wootz.address();
    let slow: Vec<_> = (0..3)
        .map(|_| std::thread::spawn(move || Client::connect(address, "/", &[("Cookie", "user=slow")]).ask("/")))
        .collect();
    wootz.wait_for_lines("validating", 3);
    let mut fast = wootz.connect_as("user=fast");
    assert_eq!(fast.ask("/"), "message|fast|user=fast|/");
    wootz.release("go");
    for thread in slow {
        assert_eq!(thread.join().expect("no panic"), "message|slow|user=slow|/");
    }
}

#[test]
fn validation_that_never_ends_lets_nobody_in_and_ends_with_the_browser() {
    let wootz = by_cookie().settings("application.limits.timeout = \"300ms\"").start();
    assert_eq!(status(&wootz, Some("slow")), 503);
    let wootz = by_cookie().start();
    let mut raw = wootz.raw();
    raw.write(support::raw::handshake(wootz.address(), "/", "Cookie: user=slow\r\n"));
    wootz.wait_for_lines("validating", 1);
    drop(raw);
    support::wait_until("the validation ends with its browser", || {
        let calls = wootz.processes().into_iter().filter(|process| process.command.contains("application.sh"));
        (calls.count() == 0).then_some(())
    });
}

#[test]
fn connection_whose_user_expires_is_closed_with_4401() {
    let wootz = by_cookie().start();
    let mut client = wootz.connect_as("user=short");
    assert_eq!(client.ask("/who"), "message|ann|user=short|/who");
    assert_eq!(client.closed(), 4401);
}

#[test]
fn cookie_of_one_browser_is_never_seen_by_the_call_of_another() {
    let wootz = by_cookie().start();
    let mut clients: Vec<_> = (0..20)
        .map(|number| {
            let cookie = if number % 4 == 0 { String::new() } else { format!("user={number}") };
            (wootz.connect_as(&cookie), cookie)
        })
        .collect();
    for round in 0..5 {
        for (client, _) in &mut clients {
            client.send(&format!("/{round}"));
        }
        for (client, cookie) in &mut clients {
            let user = cookie.strip_prefix("user=").filter(|user| !user.is_empty()).unwrap_or("guest");
            assert_eq!(client.text(), format!("message|{user}|{cookie}|/{round}"));
        }
    }
}

#[test]
fn application_hears_of_opened_and_closed_connections_where_it_asks() {
    let script = r#"[ "$WOOTZ_EVENT" = validate ] && { echo ann; exit; }
echo "$WOOTZ_EVENT $REMOTE_USER $REMOTE_PORT $WOOTZ_CONNECTION" >>events; echo "$WOOTZ_EVENT""#;
    let wootz = Setup::sh(script)
        .settings("identity.provider = \"application\"\napplication.events = [\"connect\", \"disconnect\"]")
        .start();
    let mut polite = wootz.connect();
    let port = polite.port();
    assert_eq!([polite.text(), polite.ask("/")], ["connect", "message"]);
    polite.leave();
    let lines = wootz.wait_for_lines("events", 3);
    let (_, id) = lines[0].rsplit_once(' ').expect("an id");
    let expected = ["connect", "message", "disconnect"].map(|event| format!("{event} ann {port} {id}"));
    assert_eq!(lines, expected);
    // A browser that vanishes is heard of too.
    let mut rude = wootz.connect();
    assert_eq!(rude.text(), "connect");
    drop(rude);
    assert!(wootz.wait_for_lines("events", 5)[4].starts_with("disconnect ann "));
}
