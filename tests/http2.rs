//! WebSocket over HTTP/2 (RFC 8441) on TLS listeners: clients that others wrote, the same identity and limits as over HTTP/1.1, and all that HTTP/2 lets a
//! peer do to a server.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::Signal;
use support::authority::Authority;
use support::{Setup, Wootz, installed, process, repository, run, wait_until};

/// A server with TLS, and the authority that a client has to trust.
fn served(setup: Setup) -> (Authority, Wootz) {
    let authority = Authority::new("Test");
    authority.issue("localhost", "localhost");
    let [cert, key] = ["localhost.pem", "localhost.key"].map(|name| format!("{:?}", authority.path(name)));
    let wootz = setup.setting("tls.cert", cert).setting("tls.key", key).start();
    (authority, wootz)
}

/// What gives messages back, all of them.
fn echo() -> Setup {
    Setup::command(&["cat"]).setting("application.message", "\"body\"")
}

/// One scenario of the Python client.
fn python(scenario: &str, authority: &Authority, wootz: &Wootz, more: &[&str]) -> Command {
    let mut command = Command::new(installed("target/tests/venv/bin/python"));
    command.arg(repository().join("tests/python/over_http2.py"));
    command.args([scenario, &wootz.port().to_string()]).arg(authority.path("root.pem")).args(more);
    command
}

/// Runs one to its end; gives what it printed before `all right`.
fn played(scenario: &str, authority: &Authority, wootz: &Wootz, more: &[&str]) -> String {
    let printed = run(&mut python(scenario, authority, wootz, more));
    printed.trim_end().strip_suffix("all right").unwrap_or_else(|| panic!("{printed}")).trim_end().to_owned()
}

/// A client that goes on when it is told to. It is ended with the test.
struct Player {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Player {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a client");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, input, output }
    }

    /// The next line that it prints; it has deadlines of its own.
    fn says(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("UTF-8");
        line.trim_end().to_owned()
    }

    fn go_on(&mut self) {
        self.input.write_all(b"\n").expect("it listens");
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many connections are open.
fn open(wootz: &Wootz) -> u64 {
    wootz.status()["connections"]["open"].as_u64().expect("a number")
}

/// Plays a scenario while a browser of HTTP/1.1 is served, as it is before and after.
fn played_beside_another(scenario: &str, authority: &Authority, wootz: &Wootz, more: &[&str]) {
    let mut other = authority.open(wootz.address());
    assert_eq!(other.ask("before"), "before");
    let mut command = python(scenario, authority, wootz, more);
    std::thread::scope(|scope| {
        let playing = scope.spawn(move || run(&mut command));
        while !playing.is_finished() {
            assert_eq!(other.ask("meanwhile"), "meanwhile");
        }
        let printed = playing.join().expect("a client that is content");
        assert_eq!(printed.trim_end(), "all right");
    });
    assert_eq!(other.ask("after"), "after");
}

#[test]
fn python_h2_and_wsproto_talk_on_several_streams_and_close_each_alone() {
    let (authority, wootz) = served(echo());
    let pipe = wootz.global_pipe();
    played("talk", &authority, &wootz, &[pipe.to_str().expect("UTF-8")]);
    let connections = &wootz.status()["connections"];
    assert_eq!((&connections["accepted"], &connections["opened_over_http2"]), (&1.into(), &4.into()), "{connections}");
    assert!(!wootz.log().contains("ERROR"), "{}", wootz.log());
}

#[test]
fn node_http2_and_ws_talk_on_several_streams() {
    installed("tests/node/node_modules/ws");
    let (authority, wootz) = served(echo());
    let printed = run(Command::new("node")
        .arg(repository().join("tests/node/over_http2.js"))
        .arg(format!("https://localhost:{}", wootz.port()))
        .arg(authority.path("root.pem")));
    assert_eq!(printed.trim_end(), "all right");
}

#[test]
fn chromium_uses_the_connection_of_its_page_for_websockets_too() {
    installed("tests/node/node_modules/playwright-core");
    let setup = Setup::sh("cat; printf '%s\\n' \"$HTTP_COOKIE\" > cookies").setting("application.message", "\"body\"");
    let (_authority, wootz) = served(setup.setting("application.subprotocols", "[\"v1\", \"v2\"]").dev());
    let mut browser = Player::start(
        Command::new("node")
            .arg(repository().join("tests/node/browser_over_http2.js"))
            .arg(format!("https://{}/", wootz.address()))
            .arg(wootz.global_pipe())
            .arg("PHPSESSID=abc"),
    );
    assert_eq!(browser.says(), "open");
    // The page's own and another; a third did not last.
    let rows = wait_until("two connections", || {
        let answer = wootz.api().get("/v1/connections");
        answer["connections"].as_array().filter(|rows| rows.len() == 2).cloned()
    });
    assert!(rows.iter().all(|row| row["http"] == "2" && row["address"] == rows[0]["address"]), "{rows:#?}");
    // It sends each cookie as a field of its own.
    assert_eq!(wootz.wait_for_file("cookies").trim_end(), "first=1; PHPSESSID=abc; last=2");
    browser.go_on();
    assert_eq!(browser.says(), "all right");
}

/// What a call was told, without what differs from one connection to the next.
fn lines(environment: &str) -> Vec<&str> {
    const OWN: [&str; 4] = ["REMOTE_PORT=", "WOOTZ_CONNECTION=", "WOOTZ_TOKEN=", "TRACEPARENT="];
    let told = environment.lines().filter(|line| !OWN.iter().any(|own| line.starts_with(own)));
    let mut told: Vec<_> = told.collect();
    told.sort_unstable();
    told
}

#[test]
fn calls_are_told_the_same_as_over_http_1_1() {
    let (authority, wootz) = served(Setup::command(&["env"]).setting("listen.trusted_proxies", "[\"127.0.0.1\"]"));
    let host = format!("localhost:{}", wootz.port());
    let mut http1 = authority.connect(wootz.address(), "localhost", "").expect("TLS");
    http1.write(format!(
        "GET /room?x=1 HTTP/1.1\r\nHost: {host}\r\nOrigin: https://{host}\r\nCookie: first=1; second=2\r\nUser-Agent: a test\r\n\
         X-Several: a\r\nX-Several: b\r\nX-Forwarded-For: 192.0.2.9\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ));
    assert!(http1.head().starts_with("HTTP/1.1 101 "));
    let expected = http1.ask("two words");
    let told = played("environment", &authority, &wootz, &["x-forwarded-for=192.0.2.9"]);
    assert_eq!(lines(&told), lines(&expected));
    for line in ["HTTP_COOKIE=first=1; second=2", "REMOTE_ADDR=192.0.2.9", "HTTPS=on", "QUERY_STRING=x=1"] {
        assert!(told.lines().any(|told| told == line), "{line}: {told}");
    }
}

#[test]
fn requests_that_open_nothing_are_answered_and_the_connection_goes_on() {
    let (authority, wootz) = served(echo().setting("listen.path", "\"/ws\""));
    assert_eq!(played("refusals", &authority, &wootz, &[]), "");
    assert_eq!(wootz.status()["connections"]["refused_by"]["allowed_origins"], 1);
    wootz.wait_for_log_line(&["handshake refused", "status=501", "only :protocol = websocket"]);
    wootz.wait_for_log_line(&["handshake refused", "status=403", "evil.example"]);
}

#[test]
fn subprotocol_is_chosen() {
    let (authority, wootz) = served(echo().setting("application.subprotocols", "[\"v1\", \"v2\"]"));
    played("chosen", &authority, &wootz, &[]);
}

#[test]
fn user_is_the_one_of_the_session_and_of_the_application() {
    let sessions = tempfile::tempdir().expect("a directory");
    std::fs::write(sessions.path().join("sess_abc"), "id|i:42;").expect("a file of the test");
    let setup = Setup::command(&["sh", "-c", "printf %s \"$REMOTE_USER\""]).setting("identity.guests", "\"refuse\"");
    let store = format!("{:?}", format!("files:{}", sessions.path().display()));
    let (authority, wootz) =
        served(setup.setting("identity.provider", "\"session\"").setting("identity.session.store", store));
    assert_eq!(played("environment", &authority, &wootz, &["cookie=PHPSESSID=abc"]), "42");
    assert_eq!(played("status", &authority, &wootz, &["cookie=PHPSESSID=xyz"]), "401 - - sign in first");

    let application = "if [ $WOOTZ_EVENT = validate ]; then case $HTTP_COOKIE in *good*) echo 7;; *) exit 1;; esac; else printf %s \"$REMOTE_USER\"; fi";
    let (authority, wootz) = served(Setup::sh(application).setting("identity.provider", "\"application\""));
    assert_eq!(played("environment", &authority, &wootz, &["cookie=good=1"]), "7");
    assert_eq!(played("status", &authority, &wootz, &["cookie=bad=1"]), "403 - - refused");
}

#[test]
fn each_stream_is_a_connection_to_the_limits() {
    for (limit, status) in [("max_connections", "503 5"), ("per_address", "429 5")] {
        let (authority, wootz) = served(echo().setting(&format!("limits.{limit}"), "3"));
        let mut holder = Player::start(&mut python("hold", &authority, &wootz, &["3"]));
        holder.says();
        assert!(played("status", &authority, &wootz, &[]).starts_with(status), "{limit}");
        assert_eq!(wootz.status()["connections"]["refused_by"][limit], 1);
        holder.go_on();
        assert_eq!(holder.says(), "all right");
        drop(holder);
        wait_until("their places are free", || (open(&wootz) == 0).then_some(()));
        assert!(played("status", &authority, &wootz, &[]).starts_with("200"), "{limit}");
    }
}

#[test]
fn pushes_reach_connections_of_both_versions() {
    let (authority, wootz) = served(echo());
    let mut http1 = authority.open(wootz.address());
    let mut holder = Player::start(&mut python("hold", &authority, &wootz, &["5"]));
    holder.says();
    let receipt = wootz.api().push(serde_json::json!({"to": {"all": true}, "text": "both"}));
    assert_eq!((&receipt["reached"], &receipt["queued"]), (&6.into(), &6.into()), "{receipt}");
    assert_eq!(http1.frame().text(), "both");
}

#[test]
fn each_stream_has_a_request_pipe_of_its_own() {
    let (authority, wootz) = served(Setup::command(&["sh", "-c", "printf '%s\\n' \"$WOOTZ_CONNECTION\" >> asked"]));
    let mut holder = Player::start(&mut python("hold_silently", &authority, &wootz, &["2"]));
    let port = holder.says();
    let ends = ["-1.fifo", "-3.fifo"].map(|end| format!(":127_0_0_1:{port}{end}"));
    for pipe in &ends {
        std::fs::write(wootz.global_pipe().with_file_name(pipe), "/asked\n").expect("a pipe that is read");
    }
    let asked = wootz.wait_for_lines("asked", 2);
    assert_ne!(asked[0], asked[1], "a connection each");
}

#[test]
fn thousand_streams_are_served_as_far_as_they_are_allowed() {
    let (authority, wootz) = served(echo());
    let allowed = played("many", &authority, &wootz, &[]);
    assert_eq!(allowed, "128");
    assert_eq!(wootz.status()["connections"]["opened"], 129);
}

#[test]
fn rapid_reset_ends_the_connection_and_others_are_served() {
    let (authority, wootz) = served(echo());
    played_beside_another("rapid_reset", &authority, &wootz, &[]);
    played_beside_another("rapid_reset_in_one_record", &authority, &wootz, &[]);
    // A page that is closed often is none.
    played("slow_reset", &authority, &wootz, &[]);
    wait_until("all of them are gone", || (open(&wootz) == 0).then_some(()));
}

#[test]
fn requests_that_are_refused_for_ever_end_the_connection() {
    let (authority, wootz) = served(echo());
    played_beside_another("refused_for_ever", &authority, &wootz, &[]);
    wootz.wait_for_log_line(&["HTTP/2 connection closed", "a flood of frames or requests"]);
}

#[test]
fn floods_of_frames_that_carry_nothing_end_the_connection_and_others_are_served() {
    let (authority, wootz) = served(echo());
    for kind in ["ping", "settings", "priority", "window", "empty", "unknown"] {
        played_beside_another("flood", &authority, &wootz, &[kind]);
    }
    played("continuation", &authority, &wootz, &[]);
    wait_until("all of them are gone", || (open(&wootz) == 0).then_some(()));
}

#[test]
fn stream_that_is_not_read_is_closed_with_1013_and_its_sibling_misses_nothing() {
    let (authority, wootz) = served(echo());
    let pipe = wootz.global_pipe();
    played("slow", &authority, &wootz, &[pipe.to_str().expect("UTF-8")]);
    assert_eq!(wootz.status()["connections"]["slow_readers"], 1);
}

#[test]
fn stream_whose_calls_are_behind_is_not_read_and_its_sibling_is_served() {
    let application =
        "case $REQUEST_URI in */slow) cat >/dev/null; while [ ! -e go ]; do sleep 0.05; done;; *) cat;; esac";
    let (authority, wootz) = served(Setup::sh(application).setting("application.message", "\"body\""));
    let sent: usize = played("paused", &authority, &wootz, &[]).parse().expect("a number");
    // What waits for calls, and its window.
    assert!(sent > 64 * 1024, "{sent}");
    wootz.release("go");
}

#[test]
fn call_is_ended_when_its_browser_has_gone_however_it_goes() {
    let application = "sleep 600 & echo $$ $! >pids; wait";
    for (how, messages) in [("reset", "1"), ("reset", "200"), ("end", "1"), ("close", "200")] {
        let (authority, wootz) = served(Setup::sh(application).setting("application.message", "\"body\""));
        let mut browser = Player::start(&mut python("vanish", &authority, &wootz, &[how, messages]));
        assert_eq!(browser.says(), "sent");
        let pids = wootz.wait_for_file("pids");
        browser.go_on();
        assert_eq!(browser.says(), "gone", "{how}");
        for pid in pids.split_whitespace().map(|pid| pid.parse().expect("a process id")) {
            wait_until(&format!("the call has ended after {how}"), || (!process::runs(pid)).then_some(()));
        }
        wait_until("the connection is gone", || (open(&wootz) == 0).then_some(()));
    }
}

#[test]
fn connection_that_nobody_uses_is_let_go_and_one_in_use_is_not() {
    let (authority, wootz) = served(echo().setting("limits.handshake_timeout", "\"1s\""));
    let mut holder = Player::start(&mut python("hold", &authority, &wootz, &["1"]));
    holder.says();
    played("silent", &authority, &wootz, &[]);
    wootz.wait_for_log_line(&["HTTP/2 connection closed", "limits.handshake_timeout"]);
    played("used_and_silent", &authority, &wootz, &[]);
    holder.go_on();
    assert_eq!(holder.says(), "all right");
}

#[test]
fn end_of_the_server_closes_each_stream_with_1001_and_then_the_connection() {
    let (authority, mut wootz) = served(echo());
    let mut browser = Player::start(&mut python("drain", &authority, &wootz, &[]));
    assert_eq!(browser.says(), "open");
    wootz.signal(Signal::TERM);
    assert_eq!(browser.says(), "all right");
    assert!(wootz.wait().success());
}

#[test]
fn http_2_can_be_switched_off_and_proxy_headers_come_before_it() {
    let version = |wootz: &Wootz, options: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--insecure",
            "--http2",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_version} %{http_code}",
        ]);
        run(curl.args(options).arg(format!("https://{}/", wootz.address())))
    };
    let (_authority, wootz) = served(echo().dev());
    assert_eq!(version(&wootz, &[]), "2 200");
    assert_eq!(version(&wootz, &["--http1.1"]), "1.1 200");
    assert_eq!(version(&wootz, &["--http2", "--head"]), "2 405");
    let (_authority, wootz) = served(echo().dev().setting("tls.http2", "false"));
    assert_eq!(version(&wootz, &[]), "1.1 200");
    let setup =
        echo().dev().setting("listen.proxy_protocol", "true").setting("listen.trusted_proxies", "[\"127.0.0.1\"]");
    let (_authority, wootz) = served(setup);
    assert_eq!(version(&wootz, &["--haproxy-protocol"]), "2 200");
}
