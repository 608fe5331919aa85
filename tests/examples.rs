//! Every example runs as its README says, from the root of the repository.

mod support;

use std::process::Command;

use support::client::Client;
use support::{Setup, repository};

/// A server for an application of the examples, run in the root of the repository.
fn example(command: &[&str]) -> Setup {
    Setup::command(command).setting("application.directory", format!("{:?}", repository().to_str().expect("UTF-8")))
}

#[test]
fn shell_example_answers_and_cannot_be_made_to_run_what_it_is_sent() {
    let wootz = example(&["sh", "examples/sh/application.sh"]).dev().start();
    let mut client = wootz.connect();
    for (message, reply) in [
        ("/hello", "Hello, stranger!"),
        ("/hello?name=you", "Hello, you!"),
        ("/hello?a=b&name=J%C3%BCrgen+%26+co", "Hello, J\u{fc}rgen & co!"),
        ("/hello?name=$(touch${IFS}owned);`touch${IFS}owned`", "Hello, $(touch${IFS}owned);`touch${IFS}owned`!"),
        ("/hello?name=%24%28id%29%5Cn%25s", "Hello, $(id)\\n%s!"),
        ("what a day", "You said: what a day"),
    ] {
        assert_eq!(client.ask(message), reply, "{message}");
    }
    assert!(client.ask("/whoami").starts_with("guest from 127.0.0.1, served by process "));
    assert!(client.ask("/time").starts_with("20"));
    assert!(client.ask("/nothing").starts_with("Try /hello"));
    let failed = client.ask("/fail");
    assert!(failed.contains("exit status 3") && failed.contains("something to say"), "{failed}");
    client.send("/slow");
    assert_eq!(wootz.connect().ask("/hello"), "Hello, stranger!");
    assert!(client.text().contains("two seconds"));
    assert!(!repository().join("owned").exists());
}

#[test]
fn python_example_answers_and_counts_down_line_by_line() {
    let wootz =
        example(&["python3", "examples/python/application.py"]).settings("application.reply = \"lines\"").start();
    let mut client = wootz.connect();
    assert_eq!(client.ask("/hello?name=you"), "Hello, you!");
    assert!(client.ask("/whoami").starts_with("guest on connection "));
    let about = client.ask("three little words");
    assert!(about.contains("\"words\": 3"), "{about}");
    client.send("/countdown");
    assert_eq!([client.text(), client.text(), client.text(), client.text()], ["3", "2", "1", "lift-off"]);
}

#[test]
fn carbonphp_example_says_what_is_wrong_rather_than_writing_a_file() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let missing = directory.path().join("global_pipe.fifo");
    let push = repository().join("examples/carbonphp-pipe/push.php");
    let output =
        Command::new("php").arg(push).arg(&missing).arg("hello").output().expect("PHP, which tests/run installs");
    assert!(!output.status.success());
    assert!(!missing.exists());
}

#[test]
fn carbonphp_example_answers_from_forks_of_warm_workers_with_its_session_and_its_user() {
    let sessions = tempfile::tempdir().expect("a temporary directory");
    let save_path = format!("session.save_path={}", sessions.path().display());
    let directory = repository().join("examples/carbonphp");
    let wootz = Setup::workers(&["php", "-d", &save_path, "worker.php"])
        .setting("application.directory", format!("{:?}", directory.to_str().expect("UTF-8")))
        .settings("identity.provider = \"application\"\napplication.fastcgi.workers = 2\npipes.framing = \"carbonphp\"")
        .settings("application.error_reply = \"failed\"")
        .start();
    let fields = [("Cookie", "PHPSESSID=try000000000000000000000000"), ("User-Agent", "Black Box")];
    let connect = || Client::connect(wootz.address(), "/", &fields);
    let mut client = connect();
    for number in 1..6 {
        assert_eq!(client.ask("count"), format!("count {number}"));
    }
    assert_eq!(client.ask("/whoami"), format!("a guest from 127.0.0.1:{} by Black Box", client.port()));
    assert_eq!(client.ask("/nowhere"), "No route was matched for /nowhere");
    assert_eq!(client.ask("exit"), "goodbye");
    assert_eq!(client.ask("fatal"), "failed");
    wootz.wait_for_log("missing_function");
    assert_eq!(client.ask("count"), "count 6", "neither an exit nor a fatal error has ended more than its call");
    assert_eq!(client.ask("login/ann"), "welcome, ann");
    let mut ann = connect();
    assert!(ann.ask("/whoami").starts_with("ann from 127.0.0.1:"));
    assert!(wootz.pipe_of(ann.port()).starts_with("ann:"));
    wootz.push("to all\nCarbonPHP\\Abstracts\\Pipe:29\n");
    assert_eq!(ann.text(), "to all");
    wootz.wait_for_no_zombie();
}
