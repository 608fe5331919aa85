//! A signed token says who a browser is: tokens are made by PyJWT, as an issuer of somebody else's would.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::client::Client;
use support::{Setup, Wootz, installed, run, wait_until};
use tempfile::TempDir;

const SECRET: &str = "a secret of the site, long enough for HS256";

/// Says who the user is, and all that could tell the token.
const SAY: &str = "echo \"${REMOTE_USER-guest}|$(cat)\"; [ \"$REQUEST_URI\" != /env ] || env";

/// Keys of the test, and wootz that believes them.
struct Site {
    keys: TempDir,
    wootz: Wootz,
}

impl Site {
    fn start(settings: &str) -> Self {
        let keys = tempfile::tempdir().expect("a temporary directory");
        fs::write(keys.path().join("secret"), SECRET).expect("a file of the test");
        let wootz = Setup::sh(SAY)
            .setting("identity.provider", "\"jwt\"")
            .setting("identity.jwt.keys", format!("[\"HS256:{}/secret\"]", keys.path().display()))
            .settings(settings)
            .start();
        Self { keys, wootz }
    }

    fn secret(&self) -> std::path::PathBuf {
        self.keys.path().join("secret")
    }

    /// The status of a handshake with this token in `Authorization`.
    fn status(&self, token: &str) -> u16 {
        match bearer(&self.wootz, token) {
            Ok(_) => 101,
            Err(answer) => answer.status().as_u16(),
        }
    }
}

type Handshake = Result<Client, Box<tungstenite::http::Response<Option<Vec<u8>>>>>;

fn bearer(wootz: &Wootz, token: &str) -> Handshake {
    Client::try_connect(wootz.address(), "/", &[("Authorization", &format!("Bearer {token}"))])
}

/// A token with these claims, in Python; `now` is there.
fn token(claims: &str, secret: &str) -> String {
    let program =
        format!("import jwt, time; now = int(time.time()); print(jwt.encode({claims}, {secret:?}, algorithm='HS256'))");
    run(Command::new(installed("target/tests/venv/bin/python")).arg("-c").arg(program)).trim().to_owned()
}

fn of(user: &str) -> String {
    token(&format!("{{'sub': '{user}', 'exp': now + 600}}"), SECRET)
}

#[test]
fn token_is_the_user_whichever_way_it_comes_and_nobody_else_sees_it() {
    let site = Site::start("log.level = \"trace\"\napplication.subprotocols = [\"chat\"]");
    let token = of("ann");
    let mut by_header = bearer(&site.wootz, &token).expect("a valid token");
    let mut by_query = Client::connect(site.wootz.address(), &format!("/room?a=1&token={token}&b=2"), &[]);
    let offers = format!("wootz.jwt, wootz.jwt.{token}");
    let mut by_protocol = Client::connect(site.wootz.address(), "/", &[("Sec-WebSocket-Protocol", &offers)]);
    assert_eq!(by_protocol.subprotocol(), Some("wootz.jwt"));
    let with_own = format!("chat, wootz.jwt, wootz.jwt.{token}");
    let mut with_own = Client::connect(site.wootz.address(), "/", &[("Sec-WebSocket-Protocol", &with_own)]);
    assert_eq!(with_own.subprotocol(), Some("chat"));
    for client in [&mut by_header, &mut by_query, &mut by_protocol, &mut with_own] {
        assert!(client.ask("/").starts_with("ann|"));
    }
    for client in [&mut by_header, &mut by_query, &mut by_protocol, &mut with_own] {
        let environment = client.ask("/env");
        assert!(!environment.contains(&token), "a call sees the token: {environment}");
    }
    assert!(!site.wootz.log().contains(&token), "the log has the token");
}

#[test]
fn uri_of_the_handshake_reaches_the_calls_without_the_token() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    fs::write(keys.path().join("secret"), SECRET).expect("a file of the test");
    let wootz = Setup::sh("echo \"$REQUEST_URI\"")
        .setting("identity.provider", "\"jwt\"")
        .setting("identity.jwt.keys", format!("[\"HS256:{}/secret\"]", keys.path().display()))
        .start();
    let token = of("ann");
    let mut client = Client::connect(wootz.address(), &format!("/room?a=1&token={token}&b=2"), &[]);
    assert_eq!(client.ask("two words"), "/room?a=1&b=2");
    let mut client = Client::connect(wootz.address(), &format!("/room?token={token}"), &[]);
    assert_eq!(client.ask("two words"), "/room");
}

#[test]
fn browser_without_a_token_is_a_guest_and_with_a_bad_one_it_is_nobody() {
    let site = Site::start("identity.jwt.issuer = \"https://issuer.example\"");
    assert!(site.wootz.connect().ask("/").starts_with("guest|"));
    let good = "'iss': 'https://issuer.example', 'exp': now + 600";
    assert_eq!(site.status(&token(&format!("{{'sub': '1', {good}}}"), SECRET)), 101);
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIiwiZXhwIjo5OTk5OTk5OTk5fQ.".to_owned();
    let bad = [
        (
            token(&format!("{{'sub': '1', {good}}}"), "another secret that is as long as it has to be"),
            "not signed by a key",
        ),
        (token("{'sub': '1', 'iss': 'https://evil.example', 'exp': now + 600}", SECRET), "identity.jwt.issuer"),
        (token("{'sub': '1', 'iss': 'https://issuer.example', 'exp': now - 600}", SECRET), "expired"),
        (token("{'sub': '1', 'iss': 'https://issuer.example'}", SECRET), "no exp"),
        (unsigned, "not signed"),
        ("garbage".to_owned(), "malformed"),
    ];
    for (token, reason) in &bad {
        let answer = bearer(&site.wootz, token).err().unwrap_or_else(|| panic!("let in, and should not: {reason}"));
        assert_eq!(answer.status(), 401, "{reason}");
        assert_eq!(answer.headers()["WWW-Authenticate"], "Bearer error=\"invalid_token\"");
        site.wootz.wait_for_log_line(&["401", reason]);
    }
    assert!(bad.iter().all(|(token, _)| !site.wootz.log().contains(token.as_str())));
    let refusing = Site::start("identity.guests = \"refuse\"");
    assert_eq!(Client::try_connect(refusing.wootz.address(), "/", &[]).err().expect("no guest").status(), 401);
}

#[test]
fn connection_ends_with_4401_when_its_token_expires() {
    let site = Site::start("identity.jwt.leeway = \"0\"");
    let short = token("{'sub': 'ann', 'exp': now + 3}", SECRET);
    let mut client = bearer(&site.wootz, &short).expect("still valid");
    assert!(client.ask("/").starts_with("ann|"));
    assert_eq!(client.closed(), 4401);
    assert_eq!(site.status(&short), 401);
}

#[test]
fn new_keys_are_taken_while_the_server_runs_and_broken_ones_are_not() {
    let site = Site::start("");
    let other = "another secret that is as long as it has to be";
    let (old, new) = (of("ann"), token("{'sub': 'ann', 'exp': now + 600}", other));
    assert_eq!((site.status(&old), site.status(&new)), (101, 401));
    replace(&site.secret(), "short");
    wait_until("the broken key is noticed", || {
        assert_eq!(site.status(&old), 101, "the old key stays");
        site.wootz.log().contains("the old ones stay").then_some(())
    });
    replace(&site.secret(), other);
    wait_until("the new key is in use", || (site.status(&new) == 101).then_some(()));
    assert_eq!(site.status(&old), 401);
}

#[test]
fn token_that_expires_beyond_all_clocks_harms_nobody() {
    let site = Site::start("");
    let until = |expires: &str| site.status(&token(&format!("{{'sub': 'ann', 'exp': {expires}}}"), SECRET));
    assert_eq!(until("253402300799"), 101, "the last second of 9999");
    for expires in ["253402300800", "9223372036854775807", "18446744073709551615", "1e15", "1e300"] {
        assert_eq!(until(expires), 401, "{expires}");
    }
    site.wootz.wait_for_log_line(&["401", "from 1970 to 9999"]);
    let mut client = bearer(&site.wootz, &of("ann")).expect("valid");
    assert!(client.ask("/").starts_with("ann|"));
}

/// As a program does that never leaves half a file.
fn replace(path: &Path, content: &str) {
    let fresh = path.with_extension("new");
    fs::write(&fresh, content).expect("a file of the test");
    fs::rename(fresh, path).expect("the same directory");
}
