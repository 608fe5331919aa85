//! What the process of a call gets, and what it does not.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;
use std::sync::Arc;

use support::*;
use wootz_runner::exec::{ExecSettings, NewSession, ProcessLimits};
use wootz_runner::{ApplicationFault, Call, CallError, CallEvent, Caller, ConnectionId, Message, MessageMode};

fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn the_environment_is_what_cgi_says_and_nothing_else() {
    with_spawner(|spawner| async move {
        let settings = ExecSettings {
            command: vec!["/usr/bin/env".into(), "-0".into()],
            environment: vec![("REQUEST_URI".into(), "/forged".into()), ("COLOUR".into(), "blue".into())],
            pass_environment: vec!["PATH".into(), "NOT_SET_ANYWHERE".into()],
            ..shell("")
        };
        let output = ask_with(settings, &spawner, Message::text("/cart/%C3%BC?x=1")).await.reply();
        let variables: Vec<(&str, &str)> =
            output.split_terminator('\0').map(|line| line.split_once('=').expect("NAME=VALUE")).collect();
        let unique: BTreeMap<&str, &str> = variables.iter().copied().collect();
        assert_eq!(unique.len(), variables.len(), "a name comes twice");
        let path = std::env::var("PATH").expect("PATH is set");
        let expected = BTreeMap::from([
            ("COLOUR", "blue"),
            ("CONTENT_LENGTH", "16"),
            ("CONTENT_TYPE", "text/plain; charset=utf-8"),
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("HTTP_COOKIE", "PHPSESSID=abc"),
            ("PATH", &path),
            ("PATH_INFO", "/cart/ü"),
            ("QUERY_STRING", "x=1"),
            ("REMOTE_ADDR", "192.0.2.7"),
            ("REMOTE_PORT", "54321"),
            ("REQUEST_METHOD", "GET"),
            ("REQUEST_URI", "/cart/%C3%BC?x=1"),
            ("SCRIPT_NAME", ""),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("SERVER_SOFTWARE", concat!("wootz/", env!("CARGO_PKG_VERSION"))),
            ("WOOTZ_CONNECTION", "0000000000000000000000000000feed"),
            ("WOOTZ_EVENT", "message"),
        ]);
        assert_eq!(unique, expected);
    });
}

#[test]
fn a_variable_with_a_nul_fails_the_call_instead_of_being_cut() {
    with_spawner(|spawner| async move {
        let caller = Caller::builder(ConnectionId(1), "/").user(Some("1\u{0}2".into())).build();
        let call = Call {
            event: CallEvent::Message,
            message: Message::empty(),
            caller: Arc::new(caller),
            mode: MessageMode::Body,
            capability: None,
        };
        let error = run(&exec(shell("echo $REMOTE_USER"), &spawner), call, &Rc::default()).await.error();
        assert!(error.to_string().contains("REMOTE_USER"), "{error}");
    });
}

#[test]
fn variables_that_fit_into_no_request_fail_the_call_with_their_size() {
    with_spawner(|spawner| async move {
        let environment = vec![("LARGE".into(), "x".repeat(130 * 1024).into())];
        let error = ask(ExecSettings { environment, ..shell("echo never") }, &spawner).await.error();
        assert!(error.to_string().contains("more than 131072"), "{error}");
        let environment = vec![("LARGE".into(), "x".repeat(120 * 1024).into())];
        let settings = ExecSettings { environment, ..shell("echo ${#LARGE}") };
        assert_eq!(ask(settings, &spawner).await.reply(), "122880");
    });
}

#[test]
fn a_call_has_standard_input_output_and_error_and_no_other_descriptor() {
    with_spawner(|spawner| async move {
        // The glob's own descriptor on /proc/self/fd is 3, or whatever is free: it exists no more when it is printed.
        let script = "for f in /proc/$$/fd/*; do if [ -e $f ]; then echo ${f##*/}; fi; done";
        assert_eq!(ask(shell(script), &spawner).await.reply(), "0\n1\n2");
        // Neither does one made by this process without close-on-exec come along.
        let (leaky, _other) = nix::unistd::pipe().expect("a pipe");
        assert_eq!(ask(shell(script), &spawner).await.reply(), "0\n1\n2");
        drop(leaky);
    });
}

#[test]
fn a_call_starts_with_default_signals_and_none_blocked() {
    with_spawner(|spawner| async move {
        let settings =
            ExecSettings { command: ["/bin/cat", "/proc/self/status"].map(Into::into).to_vec(), ..shell("") };
        let status = ask(settings, &spawner).await.reply();
        let signals: Vec<&str> =
            status.lines().filter(|line| line.starts_with("Sig") && !line.starts_with("SigQ")).collect();
        let none = |set: &str| format!("{set}:\t0000000000000000");
        assert_eq!(signals, ["SigPnd", "SigBlk", "SigIgn", "SigCgt"].map(none));
        // A broken pipe ends a program quietly, as in any shell.
        let ran = ask(shell("yes | head -n 1"), &spawner).await;
        assert_eq!(ran.outcome.as_ref().map(|outcome| outcome.stderr.as_str()), Some(""));
        assert_eq!(ran.reply(), "y");
    });
}

#[test]
fn a_call_leads_its_own_group_and_its_own_session_where_asked() {
    with_spawner(|spawner| async move {
        let ids = "read -r stat </proc/$$/stat; set -- ${stat##*) }; echo $$ $3 $4";
        let numbers = |reply: String| reply.split(' ').map(|id| id.parse().expect("a number")).collect::<Vec<i32>>();
        let own = nix::unistd::getsid(None).expect("a session").as_raw();
        let ids_without = numbers(ask(shell(ids), &spawner).await.reply());
        assert_eq!(ids_without[1..], [ids_without[0], own]);
        let ids_with = numbers(ask(ExecSettings { session: NewSession::Yes, ..shell(ids) }, &spawner).await.reply());
        assert_eq!(ids_with[1..], [ids_with[0], ids_with[0]]);
    });
}

#[test]
fn a_call_runs_in_its_directory_and_finds_its_program_there() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let program = directory.path().join("application");
        std::fs::write(&program, "#!/bin/sh\npwd -P\n").expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let command = vec!["./application".into()];
        let settings = ExecSettings { command, directory: directory.path().to_owned(), ..shell("") };
        let real = directory.path().canonicalize().expect("a path");
        assert_eq!(ask(settings, &spawner).await.reply(), real.to_str().expect("UTF-8"));
    });
}

#[test]
fn limits_hold_in_the_call() {
    with_spawner(|spawner| async move {
        let limits = ProcessLimits {
            memory_bytes: Some(512 << 20),
            cpu_seconds: Some(7),
            processes: Some(50),
            open_files: Some(33),
        };
        let script = "grep -E 'cpu time|processes|open files|address space' /proc/$$/limits";
        let reply = ask(ExecSettings { limits, ..shell(script) }, &spawner).await.reply();
        let words: Vec<Vec<&str>> = reply.lines().map(|line| line.split_whitespace().collect()).collect();
        let has = |needle: [&str; 2]| words.iter().any(|line| line.windows(2).any(|pair| pair == needle));
        for limit in [["7", "8"], ["50", "50"], ["33", "33"], ["536870912", "536870912"]] {
            assert!(has(limit), "{limit:?} in {reply}");
        }
    });
}

#[test]
fn an_application_that_burns_its_processor_time_is_ended_by_name() {
    with_spawner(|spawner| async move {
        let limits = ProcessLimits { cpu_seconds: Some(1), ..ProcessLimits::default() };
        let error = ask(ExecSettings { limits, ..shell("while :; do :; done") }, &spawner).await.error();
        match error {
            CallError::Application { fault: ApplicationFault::Signal(signal), .. } => assert_eq!(signal, 24),
            other => panic!("SIGXCPU, not: {other}"),
        }
    });
}

#[test]
fn a_call_keeps_the_soft_limit_of_open_files_that_held_when_the_spawner_started() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    // Lowered rather than raised, so that this needs no right. Other tests of this program start at most a few files.
    let other = soft.min(hard) - 1;
    with_spawner(|spawner| async move {
        setrlimit(Resource::RLIMIT_NOFILE, other, hard).expect("lowered");
        let during = ask(shell("ulimit -n"), &spawner).await.reply();
        // Also in a call of another spawner that is started after.
        let first = spawner.pid().expect("it runs");
        kill(first);
        until("it is dead", || !lives(first)).await;
        let exec = exec(shell("ulimit -n"), &spawner);
        let after = run(&exec, call_with(Message::empty()), &Rc::default()).await.reply();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("restored");
        assert_eq!((during, after), (soft.to_string(), soft.to_string()));
    });
}

#[test]
fn a_call_runs_as_its_user_with_its_groups_when_the_server_is_root() {
    if !root() {
        return with_spawner(|spawner| async move {
            let error = ask(ExecSettings { user: Some(65534), ..shell("id") }, &spawner).await.error();
            assert!(error.to_string().contains("need root"), "{error}");
        });
    }
    with_spawner(|spawner| async move {
        let settings = ExecSettings {
            user: Some(65534),
            group: Some(65534),
            groups: vec![65534, 4],
            ..shell("id -u; id -g; id -G")
        };
        assert_eq!(ask(settings, &spawner).await.reply(), "65534\n65534\n65534 4");
        // Such a call can't read what only root may.
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).expect("chmod");
        let script = format!("ls {}", directory.path().display());
        let ran = ask(ExecSettings { user: Some(65534), group: Some(65534), ..shell(&script) }, &spawner).await;
        assert!(ran.error().stderr().contains("Permission denied"));
    });
}
