//! Kept workers: how many there are, when they are replaced, and what calls notice of their ends.

mod support;
mod workers_support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use support::{PATIENCE, exists, kill, lives, until, with_spawner};
use tokio::task::LocalSet;
use wootz_runner::exec::ExecSettings;
use wootz_runner::fastcgi::{Reload, WorkerSettings, WorkerState, Workers};
use wootz_runner::{ApplicationFault, CallError, Fault};
use workers_support::{Pool, ask, in_python, in_shell, settings};

/// The reason of a call that an application failed.
#[track_caller]
fn fault(error: &CallError) -> &ApplicationFault {
    match error {
        CallError::Application { fault, .. } => fault,
        other => panic!("the application's fault, not: {other}"),
    }
}

#[test]
fn one_worker_answers_call_after_call() {
    with_spawner(|spawner| async move {
        let pool = Pool::new(in_python(), &spawner);
        let first = pool.pid("/").await;
        for _ in 0..20 {
            assert_eq!(pool.pid("/").await, first);
        }
        let status = pool.workers.status();
        assert_eq!((status.len(), status[0].pid, status[0].state), (1, first, WorkerState::Idle));
        assert_eq!((status[0].calls, status[0].last_failure.as_deref()), (21, None));
        assert!(status[0].memory_bytes > 1 << 20, "{status:?}");
    });
}

#[test]
fn calls_run_side_by_side_one_per_worker_and_others_wait_in_order() {
    with_spawner(|spawner| async move {
        let pool = Rc::new(Pool::new(WorkerSettings { workers: 2, ..in_python() }, &spawner));
        let directory = tempfile::tempdir().expect("a directory");
        let gate = |name: &str| format!("wait?{}", directory.path().join(name).display());
        let tasks = LocalSet::new();
        tasks
            .run_until(async {
                let mut held = Vec::new();
                for name in ["a", "b"] {
                    let (pool, message) = (Rc::clone(&pool), gate(name));
                    held.push(tokio::task::spawn_local(async move { pool.pid(&message).await }));
                    until("the call runs", || directory.path().join(name).exists()).await;
                }
                let waiting: Vec<_> = (0..3)
                    .map(|_| {
                        let pool = Rc::clone(&pool);
                        tokio::task::spawn_local(async move { pool.pid("/").await })
                    })
                    .collect();
                assert!(pool.workers.status().iter().all(|worker| worker.state == WorkerState::Busy));
                assert!(waiting.iter().all(|call| !call.is_finished()));
                std::fs::remove_file(directory.path().join("a")).expect("it was there");
                let first = held.remove(0).await.expect("it runs");
                for call in waiting {
                    assert_eq!(call.await.expect("it runs"), first);
                }
                std::fs::remove_file(directory.path().join("b")).expect("it was there");
                assert_ne!(held.remove(0).await.expect("it runs"), first);
            })
            .await;
    });
}

#[test]
fn a_worker_is_replaced_after_its_last_call_and_runs_none_more() {
    with_spawner(|spawner| async move {
        let pool = Pool::new(WorkerSettings { max_calls: 3, ..in_python() }, &spawner);
        let mut pids = Vec::new();
        for _ in 0..9 {
            pids.push(pool.pid("/").await);
        }
        assert!(pids.chunks(3).all(|three| three.iter().all(|pid| *pid == three[0])), "{pids:?}");
        pids.dedup();
        assert_eq!(pids.len(), 3);
        until("the first has ended", || !exists(pids[0])).await;
    });
}

#[test]
fn a_worker_that_leaks_is_replaced_by_one_that_runs_before_it_ends() {
    with_spawner(|spawner| async move {
        let pool = Pool::new(WorkerSettings { max_memory_bytes: 100 << 20, ..in_python() }, &spawner);
        let first = pool.pid("/").await;
        assert_eq!(pool.pid("leak?150000000").await, first);
        let second = loop {
            // Calls make it look at memory now and then; none of them fails.
            let pid = pool.pid("/").await;
            if pid != first {
                break pid;
            }
        };
        until("the first has ended", || !exists(first)).await;
        assert_eq!(pool.pids(), [second]);
    });
}

#[test]
fn memory_of_what_a_worker_starts_counts_as_its_own() {
    with_spawner(|spawner| async move {
        let pool = Pool::new(in_python(), &spawner);
        let alone = {
            pool.pid("/").await;
            pool.workers.status()[0].memory_bytes
        };
        let child = pool.pid("fork").await;
        until("the child counts", || pool.workers.status()[0].memory_bytes > alone + 100_000).await;
        pool.workers.stop();
        until("the child has ended with it", || !exists(child)).await;
    });
}

#[test]
fn a_call_that_takes_too_long_fails_and_its_worker_is_ended_with_all_that_it_started() {
    with_spawner(|spawner| async move {
        let mut settings = in_python();
        settings.process.timeout = Duration::from_millis(500);
        let pool = Pool::new(settings, &spawner);
        let (first, child) = (pool.pid("/").await, pool.pid("fork").await);
        let directory = tempfile::tempdir().expect("a directory");
        let error = pool.ask(&format!("wait?{}", directory.path().join("gate").display())).await.error();
        assert!(matches!(fault(&error), ApplicationFault::TimedOut(_)), "{error}");
        assert_ne!(pool.pid("/").await, first);
        until("both have ended", || !exists(first) && !exists(child)).await;
    });
}

#[test]
fn a_worker_that_ignores_term_is_killed() {
    with_spawner(|spawner| async move {
        let mut settings = in_shell("trap '' TERM; while :; do sleep 1000; done");
        settings.first_byte_timeout = Duration::from_millis(100);
        let pool = Pool::new(settings, &spawner);
        let error = pool.ask("/").await.error();
        // It never accepts, though its socket did for it.
        assert!(matches!(fault(&error), ApplicationFault::Silent(_)), "{error}");
        let dying = pool.workers.status()[0].pid;
        until("it has ended", || !exists(dying)).await;
    });
}

#[test]
fn a_death_during_a_call_fails_that_call_with_its_status_and_standard_error() {
    with_spawner(|spawner| async move {
        let pool = Pool::new(in_python(), &spawner);
        let first = pool.pid("/").await;
        let error = pool.ask("die?7").await.error();
        assert_eq!(error.to_string(), format!("the worker {first} died before the end of its answer: exit status 7"));
        assert_eq!((error.stderr(), error.fault()), ("dying as asked", Fault::Application));
        assert_ne!(pool.pid("/").await, first);
    });
}

#[test]
fn a_worker_killed_while_busy_fails_its_call_and_is_replaced() {
    with_spawner(|spawner| async move {
        let pool = Rc::new(Pool::new(in_python(), &spawner));
        let first = pool.pid("/").await;
        let directory = tempfile::tempdir().expect("a directory");
        let gate = directory.path().join("gate");
        let tasks = LocalSet::new();
        let (of_task, message) = (Rc::clone(&pool), format!("wait?{}", gate.display()));
        let call = tasks.spawn_local(async move { of_task.ask(&message).await });
        tasks
            .run_until(async {
                until("the call runs", || gate.exists()).await;
                kill(first);
                let error = call.await.expect("no panic").error();
                assert!(error.to_string().ends_with("signal 9 (SIGKILL)"), "{error}");
                assert_ne!(pool.pid("/").await, first);
            })
            .await;
    });
}

#[test]
fn a_worker_killed_while_idle_is_replaced_and_no_call_notices() {
    with_spawner(|spawner| async move {
        let pool = Pool::new(in_python(), &spawner);
        let mut last = pool.pid("/").await;
        for _ in 0..10 {
            kill(last);
            let next = pool.pid("/").await;
            assert_ne!(next, last);
            last = next;
        }
    });
}

#[test]
fn idle_workers_end_but_one_and_come_back_when_calls_wait() {
    with_spawner(|spawner| async move {
        let settings = WorkerSettings { workers: 3, max_idle: Duration::from_millis(300), ..in_python() };
        let pool = Rc::new(Pool::new(settings, &spawner));
        until("all have started", || pool.workers.status().len() == 3).await;
        pool.until_idle(1).await;
        let directory = tempfile::tempdir().expect("a directory");
        let tasks = LocalSet::new();
        tasks
            .run_until(async {
                for name in ["a", "b", "c"] {
                    let (pool, gate) = (Rc::clone(&pool), directory.path().join(name));
                    tokio::task::spawn_local(async move { pool.ask(&format!("wait?{}", gate.display())).await });
                }
                let run = || ["a", "b", "c"].iter().all(|name| directory.path().join(name).exists());
                until("three calls run at once", run).await;
            })
            .await;
    });
}

#[test]
fn a_worker_that_nobody_waits_for_any_more_goes_on_if_it_is_quick_and_is_ended_if_not() {
    with_spawner(|spawner| async move {
        let pool = Pool::new(in_python(), &spawner);
        let first = pool.pid("/").await;
        let directory = tempfile::tempdir().expect("a directory");
        let gate = directory.path().join("gate");
        let message = format!("wait?{}", gate.display());
        let begin_and_leave = async || {
            tokio::select! {
                ran = pool.ask(&message) => panic!("it should wait, not {:?}", ran.result),
                () = until("the call runs", || gate.exists()) => {}
            }
        };
        begin_and_leave().await;
        std::fs::remove_file(&gate).expect("it was there");
        assert_eq!(pool.pid("/").await, first);
        begin_and_leave().await;
        assert_ne!(pool.pid("/").await, first);
        until("the slow one has ended", || !exists(first)).await;
    });
}

#[test]
fn a_call_that_leaves_the_queue_takes_no_worker_with_it() {
    with_spawner(|spawner| async move {
        let pool = Pool::new(in_python(), &spawner);
        let first = pool.pid("/").await;
        let directory = tempfile::tempdir().expect("a directory");
        let gate = directory.path().join("gate");
        let message = format!("wait?{}", gate.display());
        let held = pool.ask(&message);
        let leave = async {
            until("the call runs", || gate.exists()).await;
            for _ in 0..5 {
                let waited = tokio::time::timeout(Duration::from_millis(5), pool.ask("/")).await;
                assert!(waited.is_err(), "the only worker is busy");
            }
            std::fs::remove_file(&gate).expect("it was there");
        };
        let (held, ()) = tokio::join!(held, leave);
        assert_eq!(held.reply(), first.to_string());
        assert_eq!(pool.pid("/").await, first);
        pool.until_idle(1).await;
    });
}

#[test]
fn when_all_are_busy_for_too_long_the_reason_says_what_to_raise() {
    with_spawner(|spawner| async move {
        let mut settings = in_python();
        settings.process.timeout = Duration::from_millis(600);
        let pool = Pool::new(settings, &spawner);
        let directory = tempfile::tempdir().expect("a directory");
        let gate = directory.path().join("gate");
        let message = format!("wait?{}", gate.display());
        let second = async {
            until("the call runs", || gate.exists()).await;
            pool.ask("/").await
        };
        let (held, second) = tokio::join!(pool.ask(&message), second);
        assert!(matches!(fault(&held.error()), ApplicationFault::TimedOut(_)));
        // It got the replacement, or gave up waiting for it a moment before.
        if let Err(error) = second.result {
            assert!(error.to_string().contains("application.fastcgi.workers"), "{error}");
        }
    });
}

#[test]
fn a_command_that_is_missing_or_no_program_is_an_error_at_the_start() {
    with_spawner(|spawner| async move {
        for (command, reason) in [
            (vec!["no-such-program-anywhere"], "is in no directory of PATH"),
            (vec!["/no/such/program"], "does not exist"),
            (vec!["/etc/passwd"], "is not executable"),
            (vec![], "application.command is empty"),
        ] {
            let error = Workers::start(settings(&command), spawner.clone()).expect_err("no such program");
            assert!(error.to_string().contains(reason), "{command:?}: {error}");
        }
    });
}

#[test]
fn a_command_that_dies_at_once_makes_calls_wait_and_then_fail_with_what_it_was() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let starts = directory.path().join("starts");
        let script = format!("echo start >>{}; echo no such module >&2; exit 3", starts.display());
        let settings = WorkerSettings { connect_timeout: Duration::from_millis(700), workers: 2, ..in_shell(&script) };
        let pool = Pool::new(settings, &spawner);
        let ran = pool.ask("/").await;
        assert!(ran.took >= Duration::from_millis(700), "{:?}", ran.took);
        let error = ran.error();
        assert!(error.to_string().contains("it ended at once: exit status 3"), "{error}");
        assert_eq!((error.fault(), pool.workers.trouble().is_some()), (Fault::Environment, true));
        // Two at first, then one after each of 100, 200 and 400 ms.
        let count = std::fs::read_to_string(&starts).expect("it was started").lines().count();
        assert!((3..=6).contains(&count), "{count} starts");
    });
}

#[test]
fn a_command_that_lives_again_gets_the_calls_that_waited() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let mended = directory.path().join("mended");
        let script = format!(
            "test -e {} || exit 3; exec /usr/bin/python3 {}",
            mended.display(),
            workers_support::python().display()
        );
        let pool = Pool::new(in_shell(&script), &spawner);
        until("it is in trouble", || pool.workers.trouble().is_some()).await;
        std::fs::write(&mended, "").expect("written");
        pool.pid("/").await;
        assert_eq!(pool.workers.trouble(), None);
    });
}

#[test]
fn a_worker_that_does_not_listen_is_replaced_and_calls_are_told() {
    with_spawner(|spawner| async move {
        let settings =
            WorkerSettings { connect_timeout: Duration::from_millis(500), ..in_shell("exec sleep 1000 <&-") };
        let pool = Pool::new(settings, &spawner);
        let error = pool.ask("/").await.error();
        assert!(error.to_string().contains("takes no request from its standard input"), "{error}");
    });
}

#[test]
fn what_a_worker_prints_is_no_reply() {
    with_spawner(|spawner| async move {
        let pool = Pool::new(in_python(), &spawner);
        let pid = pool.pid("/").await;
        assert_eq!(pool.pid(&format!("print?{}", "x".repeat(8000))).await, pid);
        // A pipe that nobody read would stop it long before.
        for _ in 0..50 {
            assert_eq!(pool.pid(&format!("print?{}", "x".repeat(7000))).await, pid);
        }
    });
}

#[test]
fn workers_that_died_with_the_spawner_are_started_by_the_next() {
    with_spawner(|spawner| async move {
        let pool = Pool::new(WorkerSettings { workers: 2, ..in_python() }, &spawner);
        pool.until_idle(2).await;
        let before = pool.pids();
        kill(spawner.pid().expect("it runs"));
        until("both are gone", || before.iter().all(|&pid| !lives(pid))).await;
        assert!(!before.contains(&pool.pid("/").await));
        assert_eq!(pool.workers.trouble(), None);
    });
}

#[test]
fn at_the_end_no_process_and_no_socket_is_left() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("listen");
        let script = format!(
            "echo $WOOTZ_LISTEN >{}; exec /usr/bin/python3 {}",
            file.display(),
            workers_support::python().display()
        );
        let pool = Pool::new(in_shell(&script), &spawner);
        let pid = pool.pid("/").await;
        let listen = std::fs::read_to_string(&file).expect("its path");
        let socket = Path::new(listen.trim_end());
        let parent = socket.parent().expect("a directory");
        let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(socket), mode(parent)), (0o600, 0o700));
        pool.workers.stop();
        assert!(!lives(pid) && !parent.exists());
        let error = pool.ask("/").await.error();
        assert!(error.to_string().contains("being ended"), "{error}");
    });
}

#[test]
fn a_busy_worker_may_end_its_call_when_all_are_stopped() {
    with_spawner(|spawner| async move {
        let mut settings = in_python();
        settings.process.grace = PATIENCE;
        let pool = Pool::new(settings, &spawner);
        let directory = tempfile::tempdir().expect("a directory");
        let gate = directory.path().join("gate");
        let message = format!("wait?{}", gate.display());
        let stop = async {
            until("the call runs", || gate.exists()).await;
            let workers = pool.workers.clone();
            let stopping = std::thread::spawn(move || workers.stop());
            let refused = || futures_ready(ask(&pool.application, "/"));
            until("no more calls are taken", || refused().is_some()).await;
            std::fs::remove_file(&gate).expect("it was there");
            stopping
        };
        let (held, stopping) = tokio::join!(pool.ask(&message), stop);
        held.reply();
        stopping.join().expect("it stops");
        assert_eq!(pool.workers.status(), []);
    });
}

/// The output of a future that is ready at once.
fn futures_ready<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn a_worker_of_another_user_serves_calls_and_may_reach_its_socket() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    with_spawner(|spawner| async move {
        let code = "import os,runpy,sys; os.stat(os.environ['WOOTZ_LISTEN']); assert os.getuid() == 65534; \
                    exec(sys.argv[1])";
        let worker = std::fs::read_to_string(workers_support::python()).expect("readable");
        let settings = settings(&["/usr/bin/python3", "-c", code, &worker]);
        let process = ExecSettings { user: Some(65534), group: Some(65534), ..settings.process };
        let pool = Pool::new(WorkerSettings { process, ..settings }, &spawner);
        pool.pid("/").await;
    });
}

#[test]
fn changed_files_bring_fresh_workers_while_the_old_ones_serve() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let mut settings = WorkerSettings { workers: 2, reload: Reload::OnChange, ..in_python() };
        settings.process.directory = directory.path().to_owned();
        let pool = Pool::new(settings, &spawner);
        pool.until_idle(2).await;
        let before = pool.pids();
        std::fs::write(directory.path().join("page.swp"), "").expect("written");
        std::fs::write(directory.path().join("page.php"), "<?php").expect("written");
        let deadline = Instant::now() + PATIENCE;
        // No call fails in the meantime.
        while pool.pids().len() != 2 || pool.pids().iter().any(|pid| before.contains(pid)) {
            assert!(Instant::now() < deadline, "waited in vain for fresh workers");
            pool.pid("/").await;
        }
        until("the old ones have ended", || before.iter().all(|&pid| !exists(pid))).await;
    });
}

#[test]
fn php_cgi_runs_a_script_as_it_is_for_more_calls_than_it_would_by_itself() {
    with_spawner(|spawner| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let script = directory.path().join("index.php");
        std::fs::write(&script, "<?php echo getmypid(), ' ', $_SERVER['REQUEST_URI'];").expect("written");
        let pool = Pool::new(WorkerSettings { script: Some(script), ..settings(&["php-cgi"]) }, &spawner);
        let first = pool.ask("/first").await.reply();
        let pid = first.strip_suffix(" /first").expect("its own words").to_owned();
        // It would end itself after 500.
        for call in 0..600 {
            assert_eq!(pool.ask(&format!("/{call}")).await.reply(), format!("{pid} /{call}"));
        }
    });
}
