//! The spawner's life: whom it ends, whom it reaps, what happens when it dies.

mod support;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use support::*;
use wootz_runner::exec::{Exec, ExecSettings};
use wootz_runner::{CallError, EnvironmentFault, Fault, Message};

/// A script that writes its own pid and that of a child in its group, and waits for ever.
fn waits_with_child(directory: &std::path::Path) -> String {
    let directory = directory.display();
    format!("sh -c 'echo $$ >{directory}/child; exec sleep 1000' & echo $$ >{directory}/leader; wait")
}

#[test]
fn dropping_a_call_ends_its_whole_process_group() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let exec = exec(shell(&waits_with_child(directory.path())), &spawner);
        let browser = Rc::default();
        let pids = tokio::select! {
            _ = run(&exec, call_with(Message::text("x")), &browser) => panic!("it waits for ever"),
            pids = async {
                (pid_in(&directory.path().join("leader")).await, pid_in(&directory.path().join("child")).await)
            } => pids,
        };
        until("leader and child are gone", || !exists(pids.0) && !exists(pids.1)).await;
    });
}

#[test]
fn dropping_a_call_kills_a_group_that_ignores_term() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let exec = exec(shell(&format!("trap '' TERM; {}", waits_with_child(directory.path()))), &spawner);
        let browser = Rc::default();
        let pids = tokio::select! {
            _ = run(&exec, call_with(Message::text("x")), &browser) => panic!("it waits for ever"),
            pids = async {
                (pid_in(&directory.path().join("leader")).await, pid_in(&directory.path().join("child")).await)
            } => pids,
        };
        until("leader and child are gone", || !exists(pids.0) && !exists(pids.1)).await;
    });
}

#[test]
fn a_browser_that_leaves_between_two_replies_ends_the_call() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("pid");
        let script = format!("echo $$ >{}; while :; do echo line; sleep 0.01; done", file.display());
        let settings = ExecSettings { reply: wootz_runner::ReplyMode::Lines, ..shell(&script) };
        let exec = exec(settings, &spawner);
        let browser = Rc::<Browser>::default();
        let leave = async {
            until("three lines", || browser.texts().len() >= 3).await;
            browser.leave();
        };
        let (ran, ()) = tokio::join!(run(&exec, call_with(Message::text("x")), &browser), leave);
        assert_eq!(ran.error().fault(), Fault::Browser);
        let pid = pid_in(&file).await;
        until("the application is gone", || !exists(pid)).await;
    });
}

#[test]
fn no_zombie_and_no_descriptor_is_left_after_many_calls() {
    with_spawner(|spawner| async move {
        let exec = exec(shell("(sleep 0.01 &) ; cat"), &spawner);
        let descriptors = || std::fs::read_dir("/proc/self/fd").expect("/proc").count();
        let of_spawner = format!("/proc/{}/fd", spawner.pid().expect("it runs"));
        let spawners = || std::fs::read_dir(&of_spawner).expect("/proc").count();
        run(&exec, call_with(Message::text("first")), &Rc::default()).await.reply();
        let before = spawners();
        for number in 0..50 {
            run(&exec, call_with(Message::text(format!("{number}"))), &Rc::default()).await.reply();
        }
        let pid = spawner.pid().expect("it runs");
        until("the spawner has no child", || children_of(pid).is_empty()).await;
        assert_eq!(spawners(), before);
        // Other tests of this program open descriptors of their own, but not a hundred.
        assert!(descriptors() < 150, "{} descriptors", descriptors());
    });
}

#[test]
fn calls_of_a_killed_spawner_fail_their_groups_are_killed_and_the_next_call_works() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let exec = exec(
            shell(&format!(
                "read -r word; [ $word = go ] && echo went && exit; {}",
                waits_with_child(directory.path())
            )),
            &spawner,
        );
        let browser = Rc::default();
        let call = run(&exec, call_with(Message::text("wait\n")), &browser);
        let first = spawner.pid().expect("it runs");
        let deadly = async {
            let pids = (pid_in(&directory.path().join("leader")).await, pid_in(&directory.path().join("child")).await);
            kill(first);
            pids
        };
        let (ran, (leader, child)) = tokio::join!(call, deadly);
        let error = ran.error();
        assert!(matches!(error, CallError::Environment(EnvironmentFault::SpawnerDied)), "{error}");
        // They are init's now, which reaps them in its own time; they may be zombies until then.
        until("leader and child are dead", || !lives(leader) && !lives(child)).await;
        assert!(!exists(first), "the spawner was reaped");

        for _ in 0..2 {
            let ran = run(&exec, call_with(Message::text("go\n")), &Rc::default()).await;
            assert_eq!(ran.reply(), "went");
        }
        assert_ne!(spawner.pid(), Some(first));
    });
}

#[test]
fn a_spawner_that_is_killed_again_and_again_is_started_again_and_again() {
    with_spawner(|spawner| async move {
        let exec = exec(shell("cat"), &spawner);
        for _ in 0..4 {
            let pid = spawner.pid().expect("it runs");
            kill(pid);
            until("it is dead", || !lives(pid)).await;
            // Nothing was started by the dead one, so even the first call is answered.
            assert_eq!(run(&exec, call_with(Message::text("x")), &Rc::default()).await.reply(), "x");
        }
    });
}

#[test]
fn a_program_that_is_no_spawner_is_noticed_at_the_start() {
    for program in ["/bin/true", "/bin/cat"] {
        let error = wootz_runner::exec::Spawner::start_with(std::path::Path::new(program)).expect_err("no spawner");
        assert!(error.to_string().contains("run_if_spawner"), "{program}: {error}");
    }
}

#[test]
fn one_shard_that_goes_takes_only_its_own_calls_along() {
    with_spawner(|spawner| async move {
        let (one, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        // A grace that would be noticed: a shard that is gone has no use for one.
        let grace = Duration::from_secs(100);
        let start = |directory: &std::path::Path| {
            let exec = exec(ExecSettings { grace, ..shell(&waits_with_child(directory)) }, &spawner);
            let file = directory.join("child");
            async move {
                let browser = Rc::default();
                let call = Box::pin(async move {
                    let exec: Exec = exec;
                    run(&exec, call_with(Message::text("x")), &browser).await;
                });
                unfinished(call, pid_in(&file)).await
            }
        };
        let (first_call, first) = start(one.path()).await;
        let (second_call, second) = start(other.path()).await;
        drop(first_call);
        until("the calls of the first are gone", || !exists(first)).await;
        assert!(exists(second));
        drop(second_call);
        until("the calls of the second are gone", || !exists(second)).await;
    });
}

/// Polls both until the second is ready; gives the first back, unfinished.
async fn unfinished<T>(
    mut call: std::pin::Pin<Box<dyn Future<Output = ()>>>,
    other: impl Future<Output = T>,
) -> (std::pin::Pin<Box<dyn Future<Output = ()>>>, T) {
    let found = tokio::select! {
        () = &mut call => panic!("the call waits for ever"),
        found = other => found,
    };
    (call, found)
}

#[test]
fn a_spawner_whose_server_lets_go_ends_every_call_and_itself() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let pid = spawner.pid().expect("it runs");
        let exec = exec(shell(&format!("trap '' TERM; {}", waits_with_child(directory.path()))), &spawner);
        let browser = Rc::default();
        let call = Box::pin(async move { drop(run(&exec, call_with(Message::text("x")), &browser).await) });
        let (call, child) = unfinished(call, pid_in(&directory.path().join("child"))).await;
        drop(call);
        assert_eq!(Arc::strong_count(&spawner), 1);
        drop(spawner);
        assert!(!exists(pid), "the spawner has ended and was reaped");
        until("the calls are dead", || !lives(child)).await;
    });
}

#[test]
fn the_spawner_outlives_the_signals_of_a_terminal_and_a_manager() {
    use nix::sys::signal::{Signal, kill as signal};
    with_spawner(|spawner| async move {
        let pid = spawner.pid().expect("it runs");
        for ignored in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP] {
            signal(nix::unistd::Pid::from_raw(pid as i32), ignored).expect("sent");
        }
        assert_eq!(ask(shell("cat"), &spawner).await.reply(), "hello");
        assert_eq!(spawner.pid(), Some(pid));
    });
}
