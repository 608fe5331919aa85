//! What one can see: `wootz status` tells per runner what runs, waits, fails and is kept, and never what was said.

mod support;

use std::fs;
use std::net::TcpListener;

use serde_json::{Value, json};
use support::daemon::PhpFpm;
use support::{Setup, Wootz, wait_until};

/// What `wootz status` prints for people.
fn printed(wootz: &Wootz) -> String {
    let output = wootz.run(&["status"]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What `wootz status --json` prints for programs.
fn json_of(wootz: &Wootz) -> Value {
    let output = wootz.run(&["status", "--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn every_runner_says_what_it_is_and_where_its_application_is() {
    let fpm = PhpFpm::start(1, "");
    let script = fpm.script("index.php", "");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let kept = Setup::workers(&["php-cgi"]).settings("application.fastcgi.script = \"index.php\"");
    for (setup, runner, target) in [
        (Setup::command(&["cat"]), "exec", "cat"),
        (Setup::fastcgi(&fpm.address(), &script), "fastcgi", fpm.address().as_str()),
        (kept.file("index.php", ""), "fastcgi", "php-cgi"),
        (Setup::http(&url), "http", url.as_str()),
    ] {
        let wootz = setup.start();
        let status = json_of(&wootz);
        assert_eq!(status["runner"]["runner"], runner, "{status:#}");
        let told = status["runner"]["target"].as_str().expect("a text");
        assert!(told.contains(target), "{target}: {status:#}");
        assert_eq!(status["runner"]["left_alone"], Value::Null);
        let text = printed(&wootz);
        assert!(text.contains(runner) && text.contains(target), "{text}");
    }
}

#[test]
fn calls_that_run_wait_end_and_fail_are_counted_by_kind() {
    let fpm = PhpFpm::start(4, "");
    let code = "switch (strtok($_SERVER['REQUEST_URI'], '?')) {
                    case '/hold': while (!file_exists(getenv('HERE') . '/go')) { usleep(2000); clearstatcache(); } exit('held');
                    case '/fail': http_response_code(500); exit('secret');
                    case '/slow': sleep(20); exit;
                    case '/long': exit(str_repeat('x', 100000));
                } echo 'well';";
    let setup = Setup::fastcgi(&fpm.address(), &fpm.script("index.php", code));
    let setup = setup.settings(
        "application.error_reply = \"failed\"\napplication.limits.max_output = \"64KiB\"\n\
         application.limits.max_running = 2\napplication.limits.timeout = \"1500ms\"",
    );
    let wootz = setup.start();
    let mut client = wootz.connect_as("secret=cookie");
    assert_eq!(client.ask("/well?secret=1"), "well");
    for uri in ["/fail", "/long", "/slow"] {
        assert_eq!(client.ask(uri), "failed", "{uri}");
    }
    let calls = json_of(&wootz)["calls"].clone();
    assert_eq!(calls["succeeded"], 1, "{calls:#}");
    assert_eq!(calls["failed"], 3, "{calls:#}");
    let by_kind = json!({"application": 1, "timed_out": 1, "output": 1, "not_started": 0, "unreachable": 0});
    assert_eq!(calls["failures"], by_kind);
    assert!(calls["mean_run_ms"].as_f64() > Some(100.0), "one ran for 1.5 s: {calls:#}");

    let mut others = [wootz.connect(), wootz.connect(), wootz.connect()];
    for other in &mut others {
        other.send("/hold");
    }
    wait_until("two run and one waits", || {
        let calls = json_of(&wootz)["calls"].clone();
        (calls["running"] == 2 && calls["waiting"] == 1).then_some(())
    });
    fs::write(fpm.path("go"), "").expect("a file of the test");
    for other in &mut others {
        assert_eq!(other.text(), "held");
    }
    let calls = json_of(&wootz)["calls"].clone();
    assert_eq!((&calls["running"], &calls["waiting"], &calls["succeeded"]), (&json!(0), &json!(0), &json!(4)));
    for place in [printed(&wootz), json_of(&wootz).to_string(), wootz.log()] {
        assert!(!place.contains("secret"), "{place}");
    }
}

#[test]
fn kept_workers_are_a_table_with_age_calls_memory_and_last_failure() {
    let code = "<?php if ($_SERVER['REQUEST_URI'] === '/die') posix_kill(getmypid(), 9); echo getmypid();";
    let setup = Setup::workers(&["php-cgi"]).file("index.php", code);
    let settings = "application.fastcgi.script = \"index.php\"\napplication.fastcgi.workers = 2\napplication.error_reply = \"failed\"";
    let wootz = setup.settings(settings).start();
    let mut client = wootz.connect();
    let pid = client.ask("/");
    wait_until("the call is counted and the worker free again", || {
        let text = printed(&wootz);
        let row = text.lines().find(|line| line.split_whitespace().any(|word| word == pid))?;
        (row.contains("idle") && row.split_whitespace().any(|word| word == "1")).then_some(())
    });
    let text = printed(&wootz);
    let head = text.lines().find(|line| line.contains("pid") && line.contains("state"));
    let head = head.unwrap_or_else(|| panic!("a line of titles in {text}"));
    for title in ["calls", "memory"] {
        assert!(head.contains(title), "{text}");
    }
    assert_eq!(client.ask("/die"), "failed");
    wootz.wait_for_log_line(&["signal 9"]);
}
