//! The API by TCP: only for those who show the token, and never on the browsers' address.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use support::api::Api;
use support::{Setup, Wootz, wait_until};

const TOKEN: &str = "correct-horse-battery-staple-4217";

fn with_door(setup: Setup) -> Setup {
    let setup = setup.file("token", &format!("{TOKEN}\n"));
    fs::set_permissions(setup.path("token"), fs::Permissions::from_mode(0o600)).expect("a file of ours");
    setup.settings("control.http_address = \"127.0.0.1:0\"\ncontrol.token_file = \"token\"")
}

fn door(wootz: &Wootz) -> SocketAddr {
    wait_until("the door is announced", || {
        let log = wootz.log();
        let (_, rest) = log.split_once("operator's API http://")?;
        rest.split_once('/')?.0.parse().ok()
    })
}

#[test]
fn whoever_shows_the_token_may_do_what_the_socket_lets_do() {
    let wootz = with_door(Setup::command(&["cat"])).start();
    let mut client = wootz.connect();
    let mut api = Api::tcp(door(&wootz)).with_token(TOKEN);
    assert_eq!(api.push(json!({"to": {"all": true}, "text": "hi"}))["queued"], 1);
    assert_eq!(client.text(), "hi");
    assert_eq!(api.get("/v1/status")["connections"]["open"], 1);
    let id = wootz.id_of(client.port());
    assert_eq!(api.ask("PUT", &format!("/v1/connections/{id}/channels/news")).status, 204);
    assert_eq!(api.ask("DELETE", &format!("/v1/connections/{id}?code=4000")).status, 204);
    assert_eq!(client.closed(), 4000);
}

#[test]
fn without_the_whole_token_nothing_is_told_and_too_many_tries_are_not_listened_to() {
    let wootz = with_door(Setup::command(&["cat"])).start();
    let address = door(&wootz);
    let missing = Api::tcp(address).ask("GET", "/v1/status");
    assert_eq!((missing.status, missing.code().as_str()), (401, "unauthorized"));
    assert!(missing.head.to_lowercase().contains("www-authenticate: bearer"), "{missing:?}");
    for target in ["/v1/nothing", "/metrics", "/v1/events"] {
        assert_eq!(Api::tcp(address).ask("GET", target).status, 401, "{target}");
    }
    let in_query = Api::tcp(address).with_token(TOKEN).ask("GET", &format!("/v1/status?token={TOKEN}"));
    assert_eq!((in_query.status, in_query.code().as_str()), (400, "token_in_query"));
    assert!(in_query.message().contains("Authorization: Bearer"), "{in_query:?}");
    let half = &TOKEN[..TOKEN.len() - 1];
    for wrong in ["", "x", half, &format!("{TOKEN}x"), "x", "x", "x", "x", "x", "x"] {
        assert_eq!(Api::tcp(address).with_token(wrong).ask("GET", "/v1/status").status, 401, "{wrong:?}");
    }
    let limited = Api::tcp(address).with_token(TOKEN).ask("GET", "/v1/status");
    assert_eq!((limited.status, limited.code().as_str()), (429, "too_many_failures"));
    assert!(limited.head.to_lowercase().contains("retry-after: 60"), "{limited:?}");
    assert_eq!(Api::tcp(address).ask("GET", "/healthz").status, 200, "who watches over it needs no token");
    assert_eq!(wootz.api().ask("GET", "/v1/status").status, 200, "the socket is another door");
    let log = wootz.log();
    assert!(!log.contains(TOKEN) && !log.contains(half), "{log}");
}

#[test]
fn health_readiness_and_metrics_are_served() {
    let mut wootz = with_door(Setup::sh("wait_for go; echo done")).settings("limits.drain_timeout = \"30s\"").start();
    let address = door(&wootz);
    let mut api = Api::tcp(address).with_token(TOKEN);
    for (target, body) in [("/healthz", "alive\n"), ("/readyz", "ready\n")] {
        let answered = Api::tcp(address).ask("GET", target);
        assert_eq!((answered.status, answered.body.as_str()), (200, body));
    }
    let mut client = wootz.connect();
    api.push(json!({"to": {"all": true}, "text": "hi"}));
    let metrics = api.ask("GET", "/metrics");
    assert!(metrics.head.contains("application/openmetrics-text"), "{metrics:?}");
    let refused = "wootz_connections_refused_by_total{setting=\"identity.guests\"} 0";
    for line in ["wootz_connections_open 1", "wootz_pushes_queued_total 1", "wootz_calls_running 0", refused, "# EOF"] {
        assert!(metrics.body.lines().any(|found| found == line), "{line} in {}", metrics.body);
    }
    assert_eq!(client.text(), "hi");
    client.send("/hold");
    wait_until("the call runs", || (wootz.status()["calls"]["running"] == 1).then_some(()));
    wootz.signal(rustix::process::Signal::TERM);
    wait_until("it says that it drains", || {
        let answered = Api::tcp(address).ask("GET", "/readyz");
        (answered.status == 503 && answered.body == "draining\n").then_some(())
    });
    wootz.release("go");
    assert_eq!(client.text(), "done");
    assert_eq!(client.closed(), 1001);
    client.leave();
    assert_eq!(wootz.wait().code(), Some(0));
}

#[test]
fn browsers_address_serves_nothing_of_it() {
    let wootz = with_door(Setup::command(&["cat"])).start();
    let mut raw = wootz.raw();
    raw.write(format!("GET /v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"));
    assert!(matches!(raw.answer().status, 400 | 404 | 426), "no handshake, no answer");
}

#[test]
fn address_without_a_token_or_a_token_that_others_can_read_stops_the_start() {
    let cases: [(&str, &str, u32, &str, &str); 7] = [
        ("127.0.0.1:0", "", 0o600, TOKEN, "control.http_address needs control.token_file"),
        ("", "token", 0o600, TOKEN, "control.token_file is for control.http_address, which is empty"),
        ("localhost", "token", 0o600, TOKEN, "control.http_address is an address with a port"),
        ("127.0.0.1:0", "none", 0o600, TOKEN, "control.token_file can't be read"),
        ("127.0.0.1:0", "token", 0o604, TOKEN, "has mode 0604; chmod 600"),
        ("127.0.0.1:0", "token", 0o600, "", "control.token_file has no token"),
        ("127.0.0.1:0", "token", 0o600, "short", "at least 16"),
    ];
    for (address, file, mode, token, part) in cases {
        let setup = Setup::command(&["cat"]).file("token", token);
        fs::set_permissions(setup.path("token"), fs::Permissions::from_mode(mode)).expect("a file of ours");
        let setup = setup.setting("control.http_address", format!("{address:?}"));
        let output = setup.setting("control.token_file", format!("{file:?}")).refused();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{part}: {said}");
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn taken_address_of_the_door_is_exit_18() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let setup = with_door(Setup::command(&["cat"])).setting("control.http_address", format!("\"{address}\""));
    let output = setup.refused();
    assert_eq!(output.status.code(), Some(18), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("control.http_address"), "{output:?}");
}
