//! Bad applications: whatever it does, the next message is answered, nobody else notices, and the log says why.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use support::{Setup, Wootz, process, wait_until};

/// What becomes of a call.
enum Fate {
    /// It failed: the browser gets `error_reply`, and the log a line with all of these.
    Fails(&'static [&'static str]),
    /// It is answered.
    Replies(&'static str),
    /// It succeeded and printed nothing.
    Silent,
}

#[test]
fn bad_application_harms_only_its_own_call() {
    use Fate::{Fails, Replies, Silent};
    let cases: &[(&str, &str, Fate)] = &[
        ("exits-at-once", "exit 0", Silent),
        ("fails-at-once", "exit 1", Fails(&["exit status 1"])),
        ("fails-with-a-reason", "echo no database >&2; exit 3", Fails(&["exit status 3"])),
        ("segfaults", "kill -SEGV $$", Fails(&["signal 11"])),
        ("kills-itself", "kill -KILL $$", Fails(&["signal 9"])),
        ("kills-its-group", "kill -KILL 0", Fails(&["signal 9"])),
        ("never-ends", "exec sleep 600", Fails(&["application.limits.timeout"])),
        ("spins", "while :; do :; done", Fails(&["application.limits.timeout"])),
        (
            "closes-its-output-and-stays",
            "exec >&- 2>&- <&-; while :; do sleep 1; done",
            Fails(&["application.limits.timeout"]),
        ),
        ("ignores-term", "trap '' TERM INT HUP; while :; do sleep 1; done", Fails(&["application.limits.timeout"])),
        ("leaves-a-grandchild-with-the-output", "sleep 600 & echo done", Replies("done")),
        ("leaves-a-grandchild-that-ignores-term", "(trap '' TERM; sleep 600) & echo done", Replies("done")),
        ("leaves-a-daemon", "setsid sleep 3 & echo done", Replies("done")),
        ("prints-a-gigabyte", "head -c 1G /dev/zero", Fails(&["max_output"])),
        ("prints-without-end", "yes", Fails(&["max_output"])),
        ("prints-megabytes-of-errors", "head -c 32M /dev/zero >&2; echo done", Replies("done")),
        ("prints-nothing", ":", Silent),
        ("prints-only-errors", "echo only this >&2", Silent),
        ("prints-before-it-fails", "echo half; exit 9", Fails(&["exit status 9"])),
        ("never-reads", "echo done", Replies("done")),
        ("stops-itself", "kill -STOP $$", Fails(&["application.limits.timeout"])),
    ];
    let mut script = String::from("case $PATH_INFO in\n/fine) echo fine;;\n");
    for (name, body, _) in cases {
        script += &format!("/{name}) {body};;\n");
    }
    let wootz = Setup::sh(&(script + "esac"))
        .settings("application.limits.timeout = \"1s\"\napplication.limits.max_output = \"1MiB\"")
        .settings("application.error_reply = \"failed\"")
        .start();
    let mut other = wootz.connect();
    for (name, _, fate) in cases {
        let mut client = wootz.connect();
        client.send(&format!("/{name}"));
        assert_eq!(other.ask("/fine"), "fine", "others during {name}");
        match fate {
            Fails(reasons) => {
                assert_eq!(client.text(), "failed", "{name}");
                wootz.wait_for_log_line(reasons);
            }
            Replies(reply) => assert_eq!(client.text(), *reply, "{name}"),
            Silent => {}
        }
        assert_eq!(client.ask("/fine"), "fine", "after {name}");
    }
    wootz.wait_for_log("no database");
    let memory = process::peak_memory_bytes(wootz.pid());
    assert!(memory < 100 << 20, "{memory} bytes of memory");
}

#[test]
fn grandchildren_that_a_call_leaves_are_ended_with_it() {
    let wootz = Setup::sh("(trap '' TERM; exec sleep 600) & echo $! >pid; echo done").start();
    assert_eq!(wootz.connect().ask("/"), "done");
    let pid = wootz.wait_for_file("pid").trim().parse().expect("a process id");
    wait_until("the grandchild has ended", || (!process::runs(pid)).then_some(()));
    wootz.wait_for_no_zombie();
}

#[test]
fn output_that_is_no_utf8_arrives_as_it_is() {
    let wootz = Setup::command(&["head", "-c", "1000", "/dev/urandom"]).start();
    let mut client = wootz.connect();
    client.send("/");
    let random = client.binary();
    assert_eq!(random.len(), 1000);
    client.send("/");
    assert_ne!(client.binary(), random);
}

#[test]
fn message_that_is_never_read_does_not_hold_the_call() {
    let wootz = Setup::sh("[ \"$CONTENT_LENGTH\" = 1048576 ] && exec 0<&-; echo $CONTENT_LENGTH").start();
    let mut client = wootz.connect();
    client.send_binary(&vec![b'x'; 1 << 20]);
    assert_eq!(client.text(), "1048576");
    assert_eq!(client.ask("/next"), "5");
}

#[test]
fn application_that_is_missing_or_cannot_be_run_stops_the_start() {
    let setup = Setup::command(&["./missing"]);
    refuses_naming(&setup, "missing");
    let setup = Setup::command(&["no-such-program-anywhere"]);
    refuses_naming(&setup, "no-such-program-anywhere");
    let setup = Setup::command(&["./plain.txt"]).file("plain.txt", "not a program\n");
    refuses_naming(&setup, "plain.txt");
    let setup = Setup::command(&["./directory"]);
    fs::create_dir(setup.path("directory")).expect("a directory");
    refuses_naming(&setup, "directory");
    refuses_naming(&Setup::without_application(), "application.command");
}

/// The start ends with 2 and one message that names the culprit.
fn refuses_naming(setup: &Setup, culprit: &str) {
    let output = setup.refused();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(culprit), "{said}");
}

/// A server with a program of its own in its directory.
fn with_program(program: &str) -> Wootz {
    let setup = Setup::command(&["./program"]).file("program", program);
    make_executable(&setup.path("program"));
    setup.settings("application.error_reply = \"failed\"").start()
}

fn make_executable(path: &std::path::Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our file");
}

#[test]
fn application_that_is_deleted_while_the_server_runs_fails_its_calls_until_it_is_back() {
    let program = "#!/bin/sh\necho \"$REQUEST_URI\"\n";
    let wootz = with_program(program);
    let mut client = wootz.connect();
    assert_eq!(client.ask("/before"), "/before");
    fs::remove_file(wootz.path("program")).expect("our file");
    assert_eq!(client.ask("/gone"), "failed");
    wootz.wait_for_log_line(&["call failed", "program does not exist"]);
    fs::write(wootz.path("program"), program).expect("our file");
    assert_eq!(client.ask("/not-executable"), "failed");
    wootz.wait_for_log_line(&["call failed", "program is not executable"]);
    make_executable(&wootz.path("program"));
    assert_eq!(client.ask("/back"), "/back");
}

#[test]
fn application_that_is_no_program_inside_fails_its_calls() {
    let wootz = with_program("#!/no/such/interpreter\n");
    let mut client = wootz.connect();
    assert_eq!(client.ask("/"), "failed");
    fs::write(wootz.path("program"), "\x7fELF, or not\n").expect("our file");
    assert_eq!(client.ask("/"), "failed");
}

#[test]
fn log_has_the_reason_and_the_end_of_standard_error_but_never_payloads_or_cookies() {
    let script = "echo secret-output; i=0; while [ $i -lt 2000 ]; do echo filler >&2; i=$((i+1)); done
printf 'the last\\033[31m words\\n' >&2; exit 7";
    let wootz = Setup::sh(script).settings("log.level = \"debug\"").settings("application.error_reply = \"x\"").start();
    let mut client = wootz.connect_as("PHPSESSID=secret-cookie");
    assert_eq!(client.ask("/secret-uri?password=secret-query"), "x");
    client.send("secret payload");
    assert_eq!(client.text(), "x");
    wootz.push("secret-push\n");
    assert_eq!(client.text(), "secret-push");
    wootz.wait_for_log("the last");
    let log = wootz.log();
    assert!(log.contains("exit status 7"), "{log}");
    assert!(!log.contains("secret"), "{log}");
    assert!(!log.contains('\u{1b}'), "an application writes escape sequences into the operator's terminal: {log}");
    assert!(log.len() < 64 * 1024, "only the end of standard error is kept");
}
