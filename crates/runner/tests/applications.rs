//! Applications as they are, good and bad: each is answered or fails by itself, in its time, with the reason in words.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;
use std::time::Duration;

use support::*;
use wootz_runner::exec::ExecSettings;
use wootz_runner::{ApplicationFault, CallError, Fault, FrameMode, Message, ReplyMode};

fn fault(error: &CallError) -> &ApplicationFault {
    match error {
        CallError::Application { fault, .. } => fault,
        other => panic!("the application's fault, not: {other}"),
    }
}

#[test]
fn what_an_application_prints_is_the_reply_without_one_final_newline() {
    with_spawner(|spawner| async move {
        assert_eq!(ask(shell("cat; echo; echo"), &spawner).await.reply(), "hello\n");
        assert_eq!(ask(shell("printf 'a\\r\\n'"), &spawner).await.reply(), "a");
    });
}

#[test]
fn a_success_reports_its_output_and_the_end_of_standard_error() {
    with_spawner(|spawner| async move {
        let ran = ask(shell("echo careful >&2; echo fine"), &spawner).await;
        let outcome = ran.outcome.expect("a report");
        assert_eq!((outcome.output_bytes, outcome.stderr.as_str()), (5, "careful"));
        assert!(outcome.duration > Duration::ZERO);
    });
}

#[test]
fn one_mebibyte_of_input_comes_back_byte_for_byte() {
    with_spawner(|spawner| async move {
        let message: Vec<u8> = (0..1024 * 1024u32).map(|n| (n.wrapping_mul(2654435761) >> 24) as u8).collect();
        let browser = Rc::default();
        let exec = exec(shell("exec cat"), &spawner);
        run(&exec, call_with(Message::binary(message.clone())), &browser).await.result.expect("success");
        assert!(browser.messages.borrow()[..] == [Message::binary(message)]);
    });
}

#[test]
fn an_application_that_never_reads_its_input_is_answered() {
    with_spawner(|spawner| async move {
        let message = Message::binary(vec![7; 1024 * 1024]);
        assert_eq!(ask_with(shell("echo done"), &spawner, message.clone()).await.reply(), "done");
        // Nor does it hang while it runs on without reading.
        let slow = shell("exec 0<&-; sleep 0.01; echo done");
        assert_eq!(ask_with(slow, &spawner, message).await.reply(), "done");
    });
}

#[test]
fn a_missing_program_is_told_by_name_and_found_once_it_is_there() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let program = directory.path().join("application");
        let settings = ExecSettings { command: vec![program.clone().into()], ..shell("") };
        let exec = exec(settings, &spawner);
        let error = run(&exec, call_with(Message::text("x")), &Rc::default()).await.error();
        assert_eq!(error.fault(), Fault::Operator);
        assert_eq!(error.to_string(), format!("{} does not exist", program.display()));

        fs::write(&program, "#!/bin/sh\necho here\n").expect("written");
        let error = run(&exec, call_with(Message::text("x")), &Rc::default()).await.error();
        assert_eq!(error.to_string(), format!("{} is not executable (chmod +x?)", program.display()));

        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
        assert_eq!(run(&exec, call_with(Message::text("x")), &Rc::default()).await.reply(), "here");

        fs::remove_file(&program).expect("removed");
        let error = run(&exec, call_with(Message::text("x")), &Rc::default()).await.error();
        assert_eq!(error.to_string(), format!("{} does not exist", program.display()));
    });
}

#[test]
fn a_directory_and_a_name_that_is_nowhere_in_path_are_no_programs() {
    with_spawner(|spawner| async move {
        let settings = |command: &str| ExecSettings { command: vec![command.into()], ..shell("") };
        let error = ask(settings("/usr/bin"), &spawner).await.error();
        assert_eq!(error.to_string(), "/usr/bin is a directory, not a program");
        let error = ask(settings("no-such-program"), &spawner).await.error().to_string();
        assert!(error.starts_with("no-such-program is in no directory of PATH"), "{error}");
        let error = ask(ExecSettings { command: vec![], ..shell("") }, &spawner).await.error();
        assert_eq!(error.to_string(), "application.command is empty");
    });
}

#[test]
fn a_script_without_an_interpreter_and_one_with_a_missing_one_say_what_to_do() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text, part) in [
            ("plain", "echo hello\n", "a script begins with #!"),
            ("lost", "#!/no/such/interpreter\n", "the interpreter in its first line"),
        ] {
            let program = directory.path().join(name);
            fs::write(&program, text).expect("written");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
            let settings = ExecSettings { command: vec![program.into()], ..shell("") };
            let error = ask(settings, &spawner).await.error();
            assert_eq!(error.fault(), Fault::Operator);
            assert!(error.to_string().contains(part), "{error}");
        }
    });
}

#[test]
fn a_missing_directory_is_told_with_its_setting() {
    with_spawner(|spawner| async move {
        let settings = ExecSettings { directory: "/no/such/directory".into(), ..shell("echo never") };
        let error = ask(settings, &spawner).await.error();
        assert!(error.to_string().contains("working directory"), "{error}");
        assert!(error.to_string().contains("application.directory"), "{error}");
    });
}

#[test]
fn an_exit_status_fails_the_call_with_nothing_half_sent_and_the_end_of_standard_error() {
    with_spawner(|spawner| async move {
        let ran = ask(shell("echo half; echo reason >&2; exit 3"), &spawner).await;
        assert_eq!(ran.replies, [""; 0]);
        let error = ran.error();
        assert_eq!((error.to_string().as_str(), error.stderr()), ("exit status 3", "reason"));
        assert_eq!(error.fault(), Fault::Application);
    });
}

#[test]
fn an_application_that_exits_at_once_or_prints_nothing_sends_nothing() {
    with_spawner(|spawner| async move {
        for script in ["exit 0", "cat >/dev/null", "echo only errors >&2"] {
            let ran = ask(shell(script), &spawner).await;
            ran.result.expect("success");
            assert_eq!(ran.replies, [""; 0], "{script}");
        }
    });
}

#[test]
fn a_signal_is_told_by_its_name() {
    with_spawner(|spawner| async move {
        let error = ask(shell("kill -SEGV $$"), &spawner).await.error();
        assert_eq!(error.to_string(), "ended by signal 11 (SIGSEGV)");
        // One without a name, too.
        let error = ask(shell("kill -40 $$"), &spawner).await.error();
        assert_eq!(error.to_string(), "ended by signal 40");
    });
}

#[test]
fn an_application_that_never_ends_is_ended_in_time_although_it_closed_its_output_or_ignores_term() {
    with_spawner(|spawner| async move {
        for script in
            ["sleep 1000", "exec >&- 2>&-; sleep 1000", "trap '' TERM; while :; do sleep 1000; done", "kill -STOP $$"]
        {
            let timeout = Duration::from_millis(300);
            let ran = ask(ExecSettings { timeout, ..shell(script) }, &spawner).await;
            assert!(ran.took >= timeout && ran.took < PATIENCE, "{script}: {:?}", ran.took);
            let error = ran.error();
            assert_eq!(fault(&error), &ApplicationFault::TimedOut(timeout), "{script}");
        }
    });
}

#[test]
fn an_application_that_ignores_term_is_killed_when_its_grace_is_over() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("pid");
        let script = format!("trap '' TERM; echo $$ >{}; while :; do sleep 1000; done", file.display());
        let timeout = Duration::from_millis(200);
        let grace = Duration::from_millis(300);
        let ran = ask(ExecSettings { timeout, grace, ..shell(&script) }, &spawner).await;
        assert!(ran.took >= timeout + grace, "KILL came after {:?}", ran.took);
        assert!(!exists(pid_in(&file).await));
    });
}

#[test]
fn a_call_that_is_ended_may_still_say_why_on_standard_error() {
    with_spawner(|spawner| async move {
        let script = "trap 'echo interrupted >&2; exit 1' TERM; while :; do sleep 0.01; done";
        let error = ask(ExecSettings { timeout: Duration::from_millis(200), ..shell(script) }, &spawner).await.error();
        assert!(matches!(fault(&error), ApplicationFault::TimedOut(_)), "{error}");
        assert_eq!(error.stderr().lines().last(), Some("interrupted"));
    });
}

#[test]
fn a_grandchild_that_keeps_the_output_open_does_not_hold_the_reply_and_is_ended() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("pid");
        let script = format!(
            "sh -c 'echo $$ >{0}; exec sleep 1000' & while [ ! -s {0} ]; do sleep 0.01; done; echo answer",
            file.display()
        );
        let ran = ask(shell(&script), &spawner).await;
        assert!(ran.took < PATIENCE / 2, "took {:?}", ran.took);
        assert_eq!(ran.reply(), "answer");
        let grandchild = pid_in(&file).await;
        until("the grandchild is gone", || !exists(grandchild)).await;
    });
}

#[test]
fn a_grandchild_that_prints_for_ever_does_not_hold_the_reply() {
    with_spawner(|spawner| async move {
        let ran = ask(shell("trap '' TERM; (while :; do echo y; done) & echo answer"), &spawner).await;
        ran.result.expect("success");
        assert!(ran.took < PATIENCE / 2, "took {:?}", ran.took);
    });
}

#[test]
fn a_gigabyte_of_output_ends_the_call_long_before_it_is_printed() {
    with_spawner(|spawner| async move {
        let settings = ExecSettings { max_output_bytes: 1 << 20, ..shell("head -c 1000000000 /dev/zero") };
        let ran = ask(settings, &spawner).await;
        assert_eq!(ran.replies, [""; 0]);
        assert_eq!(fault(&ran.error()), &ApplicationFault::TooMuchOutput(1 << 20));
    });
}

#[test]
fn output_of_exactly_the_limit_is_sent() {
    with_spawner(|spawner| async move {
        let settings = ExecSettings { max_output_bytes: 300_000, ..shell("head -c 300000 /dev/zero") };
        assert_eq!(ask(settings, &spawner).await.reply().len(), 300_000);
    });
}

#[test]
fn bytes_that_are_no_utf_8_go_as_binary_and_fail_where_only_text_may() {
    with_spawner(|spawner| async move {
        let script = "printf '\\377\\376\\n'";
        assert_eq!(ask(shell(script), &spawner).await.reply(), "binary b\"\\xff\\xfe\\n\"");
        let ran = ask(ExecSettings { frame: FrameMode::Text, ..shell(script) }, &spawner).await;
        assert_eq!(ran.replies, [""; 0]);
        assert_eq!(fault(&ran.error()), &ApplicationFault::NotUtf8);
    });
}

#[test]
fn each_line_is_sent_before_the_application_ends() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let go_on = directory.path().join("go-on");
        let script =
            format!("echo first; while [ ! -e {} ]; do sleep 0.01; done; echo second; printf third", go_on.display());
        let exec = exec(ExecSettings { reply: ReplyMode::Lines, ..shell(&script) }, &spawner);
        let browser = Rc::<Browser>::default();
        let call = run(&exec, call_with(Message::text("x")), &browser);
        let watch = async {
            until("the first line", || browser.texts() == ["first"]).await;
            fs::write(&go_on, "").expect("written");
        };
        let (ran, ()) = tokio::join!(call, watch);
        ran.result.expect("success");
        assert_eq!(ran.replies, ["first", "second", "third"]);
    });
}

#[test]
fn a_failing_application_has_sent_its_whole_lines_and_nothing_half() {
    with_spawner(|spawner| async move {
        let settings = ExecSettings { reply: ReplyMode::Lines, ..shell("echo whole; printf half; exit 1") };
        let ran = ask(settings, &spawner).await;
        assert_eq!(ran.replies, ["whole"]);
        assert_eq!(fault(&ran.error()), &ApplicationFault::Exit(1));
    });
}

#[test]
fn a_stream_never_cuts_a_character() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let go_on = directory.path().join("go-on");
        let script =
            format!("printf 'a\\303'; while [ ! -e {} ]; do sleep 0.01; done; printf '\\274b'", go_on.display());
        let exec = exec(ExecSettings { reply: ReplyMode::Stream, ..shell(&script) }, &spawner);
        let browser = Rc::<Browser>::default();
        let call = run(&exec, call_with(Message::text("x")), &browser);
        let watch = async {
            until("the first piece", || browser.texts() == ["a"]).await;
            fs::write(&go_on, "").expect("written");
        };
        let (ran, ()) = tokio::join!(call, watch);
        assert_eq!(ran.replies, ["a", "üb"]);
    });
}

#[test]
fn a_browser_without_room_stops_the_application_until_it_has() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("pid");
        let script = format!("echo $$ >{}; head -c 1000000 /dev/zero | tr '\\0' '\\n'", file.display());
        let exec = exec(ExecSettings { reply: ReplyMode::Lines, ..shell(&script) }, &spawner);
        let browser = Browser::without_room();
        let call = run(&exec, call_with(Message::text("x")), &browser);
        let watch = async {
            let pid = pid_in(&file).await;
            // Both programs of the pipe wait in a write, which nobody but the browser ends.
            let asleep = |child: u32| {
                std::fs::read_to_string(format!("/proc/{child}/wchan")).is_ok_and(|at| at.contains("pipe_write"))
                    || processes().iter().any(|&(pid, state, _)| pid == child && state == 'S')
            };
            until("the application waits", || children_of(pid).iter().filter(|&&child| asleep(child)).count() == 2)
                .await;
            browser.make_room();
        };
        let (ran, ()) = tokio::join!(call, watch);
        ran.result.expect("success");
        assert_eq!(ran.replies.len(), 1_000_000);
    });
}

#[test]
fn two_hundred_calls_at_once_are_all_answered() {
    with_spawner(|spawner| async move {
        let exec = exec(shell("cat"), &spawner);
        let one = async |number: usize| {
            let message = Message::text(format!("call {number}"));
            let reply = run(&exec, call_with(message), &Rc::default()).await.reply();
            assert_eq!(reply, format!("call {number}"));
        };
        let mut calls: Vec<_> = (0..200).map(|number| Box::pin(one(number))).collect();
        let mut left = calls.len();
        let mut done = vec![false; left];
        std::future::poll_fn(|cx| {
            for (call, done) in calls.iter_mut().zip(&mut done).filter(|(_, done)| !**done) {
                if call.as_mut().poll(cx).is_ready() {
                    *done = true;
                    left -= 1;
                }
            }
            if left == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    });
}
