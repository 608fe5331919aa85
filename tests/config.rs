//! The configuration as its users meet it: every mistake at once, four sources in one order, and commands that explain.

mod support;

use std::fs;
use std::path::Path;
use std::process::Output;

use support::{Setup, wootz};

fn run(directory: &Path, arguments: &[&str]) -> Output {
    wootz(directory).args(arguments).output().expect("the wootz binary")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// A directory with this `wootz.toml`.
fn with_file(toml: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("wootz.toml"), toml).expect("a file");
    directory
}

#[test]
fn five_mistakes_are_shown_as_five_lines_with_file_and_line_and_stop_the_start() {
    let directory = with_file(
        "[listen]\naddress = \"localhost\"\n[application]\ncommand = [\"cat\"]\nreply = \"hole\"\n[application.limits]\n\
         timeout = 30\n[limits]\nmax_mesage = \"1MiB\"\noutbox = \"lots\"\n",
    );
    for command in [&["serve"][..], &["check"], &["check", "wootz.toml"], &["websocket"]] {
        let output = run(directory.path(), command);
        let said = text(&output.stderr) + &text(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("wootz.toml:")).collect();
        assert_eq!(lines.len(), 5, "{command:?}: {said}");
        for (line, [place, key]) in lines.iter().zip([
            ["wootz.toml:2:", "listen.address"],
            ["wootz.toml:5:", "application.reply"],
            ["wootz.toml:7:", "application.limits.timeout"],
            ["wootz.toml:9:", "limits.max_message"],
            ["wootz.toml:10:", "limits.outbox"],
        ]) {
            assert!(line.contains(place) && line.contains(key), "{place} {key} in {line}");
        }
    }
}

#[test]
fn mistake_of_any_source_stops_the_start_with_2() {
    let empty = tempfile::tempdir().expect("a temporary directory");
    for (name, arguments) in [
        ("no command", &["serve"][..]),
        ("unknown flag", &["serve", "--lisen", "x", "--", "cat"]),
        ("unknown command", &["server"]),
        ("named file that is missing", &["serve", "--config", "missing.toml", "--", "cat"]),
        ("named file that is a directory", &["check", "."]),
        ("unknown key by --set", &["serve", "--set", "limits.nothing=1", "--", "cat"]),
        ("bad value by --set", &["serve", "--set", "limits.outbox=lots", "--", "cat"]),
        ("bad value of a flag", &["serve", "--listen", "nowhere", "--", "cat"]),
        ("--set without a value", &["serve", "--set", "limits.outbox", "--", "cat"]),
        ("certificate without a key", &["serve", "--tls-cert", "x.pem", "--", "cat"]),
    ] {
        let output = run(empty.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{name}: {output:?}");
        assert!(!output.stderr.is_empty() && !text(&output.stderr).contains("panicked"), "{name}: {output:?}");
    }
    for (variable, value) in [("WOOTZ_LIMITS_OUTBOX", "lots"), ("WOOTZ_LIMITS_OUTBOKS", "1MiB")] {
        let output =
            wootz(empty.path()).args(["serve", "--", "cat"]).env(variable, value).output().expect("the binary");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains(variable), "{output:?}");
    }
}

#[test]
fn key_that_does_nothing_yet_is_refused_and_so_is_broken_toml() {
    for (toml, said) in [
        ("[compression]\nlevel = 1\n", "not supported"),
        ("[cluster]\nurl = \"x\"\n", "not supported"),
        ("[application.limits]\nburst = 1\n", "wootz.toml:2"),
        ("[listen\naddress = 1\n", "wootz.toml:1"),
        ("[listen]\naddress = \"127.0.0.1:0\"\naddress = \"127.0.0.1:1\"\n", "wootz.toml:3"),
        ("listen = 5\n", "wootz.toml:1"),
    ] {
        let directory = with_file(toml);
        let output = run(directory.path(), &["check"]);
        let all = text(&output.stderr) + &text(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{toml}: {all}");
        assert!(all.contains(said), "{toml}: {all}");
    }
}

#[test]
fn file_gives_way_to_a_variable_and_a_variable_to_a_flag() {
    let printed = |variable: Option<&str>, flag: Option<&str>| {
        let setup = Setup::sh("exit 1").settings("application.error_reply = \"file\"");
        let setup = match variable {
            Some(value) => setup.variable("WOOTZ_APPLICATION_ERROR_REPLY", value),
            None => setup,
        };
        let setup = match flag {
            Some(value) => setup.argument("--set").argument(&format!("application.error_reply={value}")),
            None => setup,
        };
        setup.start().connect().ask("/")
    };
    assert_eq!(printed(None, None), "file");
    assert_eq!(printed(Some("variable"), None), "variable");
    assert_eq!(printed(Some("variable"), Some("flag")), "flag");
}

#[test]
fn default_file_is_accepted_as_it_is_and_the_effective_one_says_where_values_come_from() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let default = run(directory.path(), &["config", "--default"]);
    assert!(default.status.success());
    let default = text(&default.stdout);
    assert!(default.contains("[application.limits]") && default.contains("max_running"), "{default}");
    // Every default, written out, is what would be without it.
    let written_out: Vec<&str> = default
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .collect();
    let written_out = written_out.join("\n").replace("\ncommand = []", "\ncommand = [\"cat\"]");
    assert!(written_out.contains("\nmax_running = 64"), "{written_out}");
    fs::write(directory.path().join("wootz.toml"), written_out).expect("a file");
    let checked = run(directory.path(), &["check"]);
    assert!(checked.status.success(), "{checked:?}");
    assert!(text(&checked.stdout).contains("fine"), "{checked:?}");

    let directory = with_file("[application]\ncommand = [\"cat\"]\n");
    let output = wootz(directory.path()).arg("config").env("WOOTZ_LOG_LEVEL", "warn").output().expect("the binary");
    let effective = text(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(effective.contains("wootz.toml:2") && effective.contains("WOOTZ_LOG_LEVEL"), "{effective}");
    fs::write(directory.path().join("again.toml"), &effective).expect("a file");
    assert!(run(directory.path(), &["check", "again.toml"]).status.success());
}

#[test]
fn status_shows_a_running_server_and_says_clearly_when_there_is_none() {
    let empty = tempfile::tempdir().expect("a temporary directory");
    let output = run(empty.path(), &["status"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("wootz.sock"), "{output:?}");

    let wootz = Setup::command(&["cat"]).start();
    let mut client = wootz.connect();
    assert_eq!(client.ask("/"), "/");
    let table = wootz.run(&["status"]);
    assert!(table.status.success() && text(&table.stdout).contains("connections"), "{table:?}");
    let json = wootz.run(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(status["connections"]["open"], serde_json::json!(1), "{status:#}");
    let elsewhere =
        run(empty.path(), &["status", "--json", "--socket", wootz.path("wootz.sock").to_str().expect("UTF-8")]);
    assert!(elsewhere.status.success(), "{elsewhere:?}");
}

#[test]
fn commands_of_the_line_explain_themselves() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (arguments, said) in [
        (&["--help"][..], "serve"),
        (&["serve", "--help"], "--auto-port"),
        (&["help", "serve"], "--listen"),
        (&["websocket", "--help"], "--dev"),
        (&["check", "--help"], "FILE"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let output = run(directory.path(), arguments);
        let printed = text(&output.stdout);
        assert!(output.status.success() && printed.contains(said), "{arguments:?}: {output:?}");
        assert!(!printed.contains('\u{1b}'), "no colours into a pipe");
    }
    // The command that a newcomer mistypes first is corrected.
    let output = run(directory.path(), &["serve"]);
    assert!(text(&output.stderr).contains("wootz serve"), "{output:?}");
}

#[test]
fn command_after_two_dashes_is_served_without_any_file() {
    let wootz = Setup::without_application()
        .argument("--")
        .argument("sh")
        .argument("-c")
        .argument("echo \"$REQUEST_URI\"")
        .start();
    assert_eq!(wootz.connect().ask("/hello"), "/hello");
}

#[test]
fn runner_that_contradicts_itself_is_refused_and_both_sides_are_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("index.php"), "").expect("a file");
    let socket = "unix:/run/no-such.sock";
    for (arguments, named) in [
        (&["--fastcgi", socket][..], &["--fastcgi", "application.fastcgi.script"][..]),
        (&["--fastcgi", socket, "--script", "index.php", "--http", "http://a:1"], &["--http", "--fastcgi"]),
        (&["--fastcgi", socket, "--script", "index.php", "--", "cat"], &["--:", "application.fastcgi.address"]),
        (&["--fastcgi", socket, "--script", "missing.php"], &["--script", "missing.php", "does not exist"]),
        (&["--fastcgi", socket, "--script", "."], &["--script", "is not a file"]),
        (&["--fastcgi", "nonsense", "--script", "index.php"], &["--fastcgi", "nonsense", "host:port"]),
        (&["--fastcgi", "unix:relative", "--script", "index.php"], &["--fastcgi", "unix:"]),
        (&["--runner", "fastcgi"], &["--runner", "application.fastcgi.address", "a command"]),
        (&["--runner", "fastcgi", "--", "no-such-worker"], &["no-such-worker"]),
        (&["--runner", "fast"], &["--runner", "exec", "fastcgi", "http"]),
        (&["--script", "index.php", "--runner", "exec", "--", "cat"], &["--script", "fastcgi"]),
        (&["--runner", "http"], &["application.http.url"]),
        (&["--http", "ftp://a"], &["--http", "ftp://a"]),
        (&["--http", "http://a:1", "--", "cat"], &["application.command", "--http"]),
        (&["--http", "http://a:1", "--runner", "exec", "--", "cat"], &["--http", "--runner"]),
        (&["--set", "application.fastcgi.workers=4", "--", "cat"], &["application.fastcgi.workers", "exec"]),
        (&["--http", "http://a:1", "--set", "application.environment={A=\"b\"}"], &["application.environment", "http"]),
    ] {
        let output = run(directory.path(), &[&["serve", "--listen", "127.0.0.1:0"], arguments].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        for name in named {
            assert!(said.contains(name), "{arguments:?}: {name} is not in {said}");
        }
    }
}

#[test]
fn check_says_which_runner_it_would_be_and_where() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("index.php"), "").expect("a file");
    for (toml, said) in [
        ("command = [\"cat\"]", &["exec", "cat"][..]),
        (
            "runner = \"fastcgi\"\nfastcgi.address = \"unix:/run/no-such.sock\"\nfastcgi.script = \"index.php\"",
            &["fastcgi", "/run/no-such.sock"],
        ),
        ("runner = \"fastcgi\"\ncommand = [\"cat\"]\nfastcgi.workers = 3", &["fastcgi", "cat"]),
        ("runner = \"http\"\nhttp.url = \"http://127.0.0.1:8000\"", &["http", "127.0.0.1:8000"]),
    ] {
        fs::write(directory.path().join("wootz.toml"), format!("[application]\n{toml}\n")).expect("a file");
        let output = run(directory.path(), &["check"]);
        let printed = text(&output.stdout) + &text(&output.stderr);
        // A socket that is not there yet is no mistake: php-fpm may start later.
        assert_eq!(output.status.code(), Some(0), "{toml}: {printed}");
        for name in said {
            assert!(printed.contains(name), "{toml}: {name} is not in {printed}");
        }
    }
}
