//! Signals, and every way in which the server ends: what runs is let finish, what waits is told, nothing is left.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileTypeExt;
use std::process::Stdio;

use rustix::process::Signal;
use support::{DEADLINE, SPAWNER, Setup, Wootz, process, wait_until};

/// An application that holds on `/hold` until the test lets it go.
fn holding() -> Setup {
    Setup::sh("echo \"$REQUEST_URI\" >>started\ncase $REQUEST_URI in /hold*) wait_for go;; esac\necho \"$REQUEST_URI\"")
}

/// A server that nothing wakes before the test's deadline but what happens in the test.
fn patient(setup: Setup) -> Setup {
    setup.settings("limits.drain_timeout = \"10m\"\nlimits.ping_interval = \"0\"")
}

#[test]
fn term_and_int_let_a_running_call_end_then_close_with_1001_and_exit_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut wootz = patient(holding()).start();
        let mut busy = wootz.connect();
        let mut idle = wootz.connect();
        busy.send("/hold");
        wootz.wait_for_lines("started", 1);
        wootz.signal(signal);
        wait_until("nobody new is accepted", || refuses(&wootz).then_some(()));
        wootz.release("go");
        assert_eq!(busy.text(), "/hold", "{signal:?}");
        assert_eq!([busy.closed(), idle.closed()], [1001, 1001], "{signal:?}");
        drop((busy, idle));
        assert_eq!(wootz.wait().code(), Some(0), "{signal:?}");
    }
}

/// Whether a new browser is turned away: the port is closed, the connection ends, or the answer is 503.
fn refuses(wootz: &Wootz) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&wootz.address(), DEADLINE) else { return true };
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    stream.write_all(support::raw::handshake(wootz.address(), "/", "").as_bytes()).ok();
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).is_err() || begin == *b"HTTP/1.1 503"
}

#[test]
fn second_signal_ends_at_once_even_a_call_that_ignores_term() {
    let mut wootz = Setup::sh("trap '' TERM INT; echo $$ >pid; while :; do sleep 1; done")
        .settings("limits.drain_timeout = \"600s\"\napplication.limits.timeout = \"600s\"")
        .start();
    let mut client = wootz.connect();
    client.send("/");
    let pid = wootz.wait_for_file("pid").trim().parse().expect("a process id");
    wootz.signal(Signal::TERM);
    wait_until("nobody new is accepted", || refuses(&wootz).then_some(()));
    wootz.signal(Signal::TERM);
    wootz.wait();
    wait_until("the call has ended", || (!process::runs(pid)).then_some(()));
    wootz.wait_for_no_process();
}

#[test]
fn call_that_outlives_the_drain_timeout_is_ended() {
    let mut wootz = Setup::sh("echo $$ >pid; exec sleep 600").settings("limits.drain_timeout = \"300ms\"").start();
    let mut client = wootz.connect();
    client.send("/");
    wootz.wait_for_file("pid");
    wootz.signal(Signal::TERM);
    assert_eq!(client.closed(), 1001);
    assert_eq!(wootz.wait().code(), Some(0));
}

#[test]
fn usr1_writes_the_status_to_the_log_and_hup_changes_nothing() {
    let wootz = holding().start();
    let mut client = wootz.connect();
    wootz.signal(Signal::USR1);
    wootz.wait_for_log_line(&["INFO", "connections"]);
    wootz.signal(Signal::HUP);
    wootz.wait_for_log_line(&["SIGHUP", "not"]);
    assert_eq!(client.ask("/still-here"), "/still-here");
}

#[test]
fn port_in_use_is_exit_18_unless_another_may_be_taken() {
    let first = holding().start();
    let taken = format!("{:?}", first.address().to_string());
    let output = holding().setting("listen.address", &taken).refused();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(18), "{said}");
    assert!(said.contains(&first.address().to_string()), "{said}");
    let second = holding().setting("listen.address", &taken).argument("--auto-port").start();
    assert!(second.port() > first.port());
    assert_eq!(second.connect().ask("/second"), "/second");
    assert_eq!(first.connect().ask("/first"), "/first");
}

/// The process that starts the calls.
fn spawner(wootz: &Wootz) -> u32 {
    let found = wootz.processes().into_iter().find(|process| process.command.starts_with(SPAWNER));
    found.expect("a spawner").pid
}

#[test]
fn death_of_the_spawner_is_said_in_the_log_and_the_next_call_works() {
    let wootz = holding().settings("application.error_reply = \"failed\"").start();
    let mut client = wootz.connect();
    assert_eq!(client.ask("/before"), "/before");
    client.send("/hold");
    wootz.wait_for_lines("started", 2);
    let first = spawner(&wootz);
    process::kill(first);
    assert_eq!(client.text(), "failed");
    wootz.wait_for_log_line(&["ERROR", "spawner"]);
    assert_eq!(client.ask("/after"), "/after");
    assert_ne!(spawner(&wootz), first);
    // The call that was running is not left behind: one spawner, and no application.
    wait_until("only the new spawner runs", || (wootz.processes().len() == 1).then_some(()));
    // Again and again.
    for round in 0..3 {
        process::kill(spawner(&wootz));
        wait_until("a call after a death", || (client.ask("/again") == "/again").then_some(()));
        assert_eq!(wootz.connect().ask("/others"), "/others", "{round}");
    }
}

#[test]
fn no_zombie_and_no_descriptor_is_left_after_hundreds_of_calls() {
    let wootz = Setup::sh("sleep 0 & sleep 0 & case $REQUEST_URI in /fail) exit 3;; esac; echo ok").start();
    let mut client = wootz.connect();
    assert_eq!(client.ask("/first"), "ok");
    let before = process::descriptors(wootz.pid());
    for _ in 0..100 {
        client.send("/fail");
        assert_eq!(client.ask("/ok"), "ok");
    }
    wootz.wait_for_no_zombie();
    wait_until("the descriptors of the calls are closed", || {
        (process::descriptors(wootz.pid()) <= before).then_some(())
    });
    wait_until("only the spawner is left", || (wootz.processes().len() == 1).then_some(()));
}

#[test]
fn kill_of_the_server_ends_its_calls_and_its_spawner() {
    let mut wootz =
        Setup::sh("trap '' TERM INT HUP; (trap '' TERM INT HUP; echo up >>up; sleep 600) & echo up >>up; wait").start();
    let mut client = wootz.connect();
    client.send("/");
    wootz.wait_for_lines("up", 2);
    wootz.signal(Signal::KILL);
    wootz.wait();
    wootz.wait_for_no_process();
}

#[test]
fn control_c_in_a_terminal_lets_the_running_call_finish() {
    // A terminal signals its whole foreground group: the server, the spawner and whatever shares their group.
    let mut wootz = patient(holding()).start();
    let mut client = wootz.connect();
    client.send("/hold");
    wootz.wait_for_lines("started", 1);
    let spawner = i32::try_from(spawner(&wootz)).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(spawner, Signal::INT).expect("a process of ours");
    rustix::process::kill_process(spawner, Signal::TERM).expect("a process of ours");
    wootz.signal(Signal::INT);
    wootz.release("go");
    assert_eq!(client.text(), "/hold");
    assert_eq!(client.closed(), 1001);
    drop(client);
    assert_eq!(wootz.wait().code(), Some(0));
}

#[test]
fn stale_control_socket_is_replaced_and_a_living_or_foreign_one_is_not() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("control.sock");
    let with_socket = || holding().setting("control.socket", format!("{:?}", socket.to_str().expect("UTF-8")));
    let mut killed = with_socket().start();
    killed.signal(Signal::KILL);
    killed.wait();
    assert!(socket.exists());
    let next = with_socket().start();
    let output = with_socket().refused();
    assert!(matches!(output.status.code(), Some(1 | 2 | 18)), "{output:?}");
    assert!(std::fs::symlink_metadata(&socket).expect("still there").file_type().is_socket());
    next.stop();
    assert!(!socket.exists());
    std::fs::write(&socket, "precious").expect("a file");
    assert!(matches!(with_socket().refused().status.code(), Some(1 | 2 | 18)));
    assert_eq!(std::fs::read_to_string(&socket).expect("still there"), "precious");
}

#[test]
fn output_into_a_closed_pipe_ends_quietly() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = support::wootz(directory.path());
    let mut child =
        command.args(["config", "--default"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("wootz");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("a child of ours");
    assert!(output.stderr.is_empty(), "{output:?}");
}
