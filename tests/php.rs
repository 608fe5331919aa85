//! A real PHP application with a session and a login, seen as web pages by PHP's own server and as calls by wootz.

mod support;

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use support::client::Client;
use support::daemon::{Daemon, free_address};
use support::raw::{Answer, Raw};
use support::{Setup, Wootz, installed, repository, run};

/// The example behind PHP's own web server, its sessions in a directory of the test.
struct Site {
    address: SocketAddr,
    _server: Daemon,
}

impl Site {
    fn start(sessions: &Path) -> Self {
        let address = free_address();
        let mut server = Daemon::start(
            Command::new("php")
                .arg("-d")
                .arg(format!("session.save_path={}", sessions.display()))
                .args(["-S", &address.to_string(), "examples/php/index.php"])
                .current_dir(repository()),
        );
        server.wait_for("PHP serves the example", || TcpStream::connect(address).ok());
        Self { address, _server: server }
    }

    fn request(&self, line: &str, cookie: &str, form: &str) -> Answer {
        let mut raw = Raw::connect(self.address);
        raw.write(format!(
            "{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nCookie: {cookie}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            self.address,
            form.len()
        ));
        raw.answer()
    }

    /// Opens a session and logs a user in; gives the cookie.
    fn log_in(&self, user: &str, password: &str) -> String {
        let answer = self.request("POST /login", "", &format!("user={user}&password={password}"));
        assert_eq!(answer.status, 303, "{answer:?}");
        cookie_of(&answer)
    }
}

/// The last session cookie that an answer sets: a login changes the session's id.
fn cookie_of(answer: &Answer) -> String {
    let mut cookies = answer.head.lines().filter_map(|line| line.strip_prefix("Set-Cookie: "));
    let cookie = cookies.next_back().and_then(|cookie| cookie.split(';').next());
    cookie.unwrap_or_else(|| panic!("a session cookie in {answer:?}")).to_owned()
}

/// wootz with the same application, and the same sessions.
fn wootz(sessions: &Path) -> Wootz {
    let example = repository().join("examples/php");
    let sessions = format!("session.save_path={}", sessions.display());
    Setup::command(&["php", "-d", &sessions, "-d", "auto_prepend_file=prepend.php", "index.php"])
        .setting("application.directory", format!("{:?}", example.to_str().expect("UTF-8")))
        .settings("identity.provider = \"application\"")
        .start()
}

#[test]
fn session_of_the_page_counts_on_over_messages_and_back_in_the_page() {
    let sessions = tempfile::tempdir().expect("a temporary directory");
    let site = Site::start(sessions.path());
    let page = site.request("GET /count", "", "");
    assert_eq!(page.body, "count 1");
    let cookie = cookie_of(&page);
    let wootz = wootz(sessions.path());
    let mut client = wootz.connect_as(&cookie);
    for number in 2..7 {
        assert_eq!(client.ask("/count"), format!("count {number}"));
    }
    // The messages ran one after another, in processes of their own, and none of them keeps the session locked.
    assert_eq!(site.request("GET /count", &cookie, "").body, "count 7");
    assert_eq!(client.ask("/count?some=query"), "count 8");
    assert!(client.ask("/whoami").starts_with("you are a guest, served by cli in process "));
}

#[test]
fn two_users_who_log_in_by_the_page_are_themselves_in_their_calls() {
    let sessions = tempfile::tempdir().expect("a temporary directory");
    let site = Site::start(sessions.path());
    let wootz = wootz(sessions.path());
    let cookies = [site.log_in("alice", "wonderland"), site.log_in("bob", "builder")];
    let mut clients: Vec<Client> = cookies.iter().map(|cookie| wootz.connect_as(cookie)).collect();
    for round in 1..4 {
        for (client, user) in clients.iter_mut().zip(["alice", "bob"]) {
            assert!(client.ask("/whoami").starts_with(&format!("you are {user}, ")));
            assert_eq!(client.ask("/count"), format!("count {round}"));
            assert!(wootz.pipe_of(client.port()).starts_with(&format!("{user}:")));
        }
    }
    // Who forges a cookie, or gives none, is a guest.
    let mut forged = wootz.connect_as("PHPSESSID=aaaaaaaaaaaaaaaaaaaaaaaaaa");
    assert!(forged.ask("/whoami").starts_with("you are a guest"));
    assert!(wootz.pipe_of(forged.port()).starts_with(':'));
}

#[test]
fn login_and_logout_in_chromium_are_seen_by_the_open_connection() {
    installed("tests/node/node_modules/playwright-core");
    let sessions = tempfile::tempdir().expect("a temporary directory");
    let site = Site::start(sessions.path());
    let example = repository().join("examples/php");
    let path = format!("session.save_path={}", sessions.path().display());
    let wootz = Setup::command(&["php", "-d", &path, "-d", "auto_prepend_file=prepend.php", "index.php"])
        .setting("application.directory", format!("{:?}", example.to_str().expect("UTF-8")))
        .setting("identity.provider", "\"session\"")
        .setting("identity.session.store", format!("\"files:{}\"", sessions.path().display()))
        .setting("identity.session.user_keys", "[\"user\"]")
        .setting("identity.recheck", "\"1s\"")
        .setting("identity.allowed_origins", format!("[\"http://{}\"]", site.address))
        .start();
    let page = format!("http://{}/?port={}", site.address, wootz.port());
    let printed = run(Command::new("node").arg(repository().join("tests/node/login.js")).arg(page));
    assert_eq!(printed.trim_end(), "all right");
}

#[test]
fn php_that_dies_of_a_fatal_error_fails_one_call() {
    let script = "<?php if ($_SERVER['REQUEST_URI'] === '/die') no_such_function(); echo getmypid();";
    let wootz = Setup::command(&["php", "-d", "display_errors=stderr", "page.php"])
        .file("page.php", script)
        .settings("application.error_reply = \"failed\"")
        .start();
    let mut client = wootz.connect();
    assert_eq!(client.ask("/die"), "failed");
    wootz.wait_for_log("no_such_function");
    let first = client.ask("/");
    assert_ne!(client.ask("/"), first, "each call is a process of its own");
}
