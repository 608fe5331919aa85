//! PHP by php-fpm as it is: what a site does in a request it does in a call.

mod fastcgi_support;
#[path = "fastcgi_support/php.rs"]
mod php;
mod support;

use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fastcgi_support::{ask, on_a_shard, run};
use php::PhpFpm;
use support::{Browser, PATIENCE, call_with, until};
use wootz_runner::fastcgi::{FastCgi, FastCgiSettings};
use wootz_runner::{ApplicationFault, CallError, Fault, Message, ReplyMode};

/// Code that waits until the test makes a file.
const WAIT: &str = "$gate = getenv('HERE') . '/gate'; while (!file_exists($gate)) { usleep(2000); clearstatcache(); }";

fn fault(error: &CallError) -> &ApplicationFault {
    match error {
        CallError::Application { fault, .. } => fault,
        other => panic!("the application's fault, not: {other}"),
    }
}

#[test]
fn php_sees_the_call_in_server_and_input() {
    on_a_shard(async {
        let fpm = PhpFpm::start(1, "");
        let application = fpm.application(
            "foreach (explode(' ', 'REQUEST_METHOD REQUEST_URI QUERY_STRING PATH_INFO SCRIPT_NAME PHP_SELF \
             CONTENT_LENGTH REMOTE_ADDR HTTP_COOKIE WOOTZ_EVENT WOOTZ_CONNECTION GATEWAY_INTERFACE') as $name) \
             echo $name, '=', $_SERVER[$name], \"\\n\"; \
             echo json_encode([$_GET, $_COOKIE, $_SERVER['DOCUMENT_ROOT'] === __DIR__, \
             $_SERVER['SCRIPT_FILENAME'] === __FILE__, file_get_contents('php://input')]);",
        );
        let reply = run(&application, call_with(Message::text("/cart/7?x=1")), &Rc::default()).await.reply();
        assert_eq!(
            reply.lines().collect::<Vec<_>>(),
            [
                "REQUEST_METHOD=GET",
                "REQUEST_URI=/cart/7?x=1",
                "QUERY_STRING=x=1",
                "PATH_INFO=/cart/7",
                "SCRIPT_NAME=/index.php",
                "PHP_SELF=/index.php/cart/7",
                "CONTENT_LENGTH=11",
                "REMOTE_ADDR=192.0.2.7",
                "HTTP_COOKIE=PHPSESSID=abc",
                "WOOTZ_EVENT=message",
                "WOOTZ_CONNECTION=0000000000000000000000000000feed",
                "GATEWAY_INTERFACE=CGI/1.1",
                r#"[{"x":"1"},{"PHPSESSID":"abc"},true,true,"\/cart\/7?x=1"]"#,
            ]
        );
        let reply = run(&application, call_with(Message::text("two words")), &Rc::default()).await.reply();
        assert!(reply.starts_with("REQUEST_METHOD=POST\nREQUEST_URI=/chat?room=1\n"), "{reply}");
        assert!(reply.ends_with("\"two words\"]"), "{reply}");
    });
}

#[test]
fn one_mebibyte_reaches_php_and_comes_back_byte_for_byte() {
    on_a_shard(async {
        let fpm = PhpFpm::start(1, "");
        let application = fpm.application("echo file_get_contents('php://input');");
        let message: Vec<u8> = (0..1024 * 1024u32).map(|n| (n.wrapping_mul(2654435761) >> 24) as u8).collect();
        let browser = Rc::default();
        let call = call_with(Message::binary(message.clone()));
        run(&application, call, &browser).await.result.expect("success");
        assert!(browser.messages.borrow()[..] == [Message::binary(message)]);
    });
}

#[test]
fn the_session_of_the_cookie_goes_on_from_call_to_call() {
    on_a_shard(async {
        let fpm = PhpFpm::start(2, "");
        let application = fpm.application("session_start(); echo ++$_SESSION['n'], session_id();");
        for expected in ["1abc", "2abc", "3abc"] {
            assert_eq!(ask(&application).await.reply(), expected);
        }
    });
}

#[test]
fn a_fatal_error_sends_nothing_and_its_reason_is_told() {
    on_a_shard(async {
        let fpm = PhpFpm::start(1, "");
        let application = fpm.application("echo 'half'; undefined_function();");
        let ran = ask(&application).await;
        assert_eq!(ran.replies, [""; 0]);
        let error = ran.error();
        assert_eq!(fault(&error), &ApplicationFault::Status(500));
        assert!(error.stderr().contains("undefined_function"), "{}", error.stderr());
    });
}

#[test]
fn exit_in_the_middle_sends_what_was_printed_before() {
    on_a_shard(async {
        let fpm = PhpFpm::start(1, "");
        let application = fpm.application("error_log('noted'); echo \"before\\n\"; exit; echo 'after';");
        let ran = ask(&application).await;
        assert_eq!(ran.outcome.as_ref().expect("a report").stderr, "PHP message: noted");
        assert_eq!(ran.reply(), "before");
    });
}

#[test]
fn a_worker_that_dies_fails_its_call_and_the_next_is_answered() {
    on_a_shard(async {
        let fpm = PhpFpm::start(1, "");
        let application =
            fpm.application("if (file_get_contents('php://input') === 'die') posix_kill(getmypid(), 9); echo 'alive';");
        let error = run(&application, call_with(Message::text("die")), &Rc::default()).await.error().to_string();
        assert!(
            error.ends_with("closed the connection without an answer (did its worker die? see its log)"),
            "{error}"
        );
        assert_eq!(ask(&application).await.reply(), "alive");
    });
}

#[test]
fn fastcgi_finish_request_ends_the_call_while_the_script_goes_on() {
    on_a_shard(async {
        let fpm = PhpFpm::start(1, "");
        let code = format!(
            "echo 'done'; fastcgi_finish_request(); {WAIT} echo 'too late'; touch(getenv('HERE') . '/went-on');"
        );
        assert_eq!(ask(&fpm.application(&code)).await.reply(), "done");
        assert!(!fpm.path("went-on").exists());
        fs::write(fpm.path("gate"), "").expect("written");
        until("the rest of the script", || fpm.path("went-on").exists()).await;
    });
}

#[test]
fn flushes_are_sent_while_the_script_runs_and_buffered_output_at_its_end() {
    on_a_shard(async {
        let fpm = PhpFpm::start(1, "php_admin_value[output_buffering] = 4096");
        let code = format!("ob_flush(); echo 'one'; ob_flush(); flush(); {WAIT} echo 'two'; echo 'three';");
        let script = fpm.script("index.php", &code);
        let stream = FastCgiSettings { reply: ReplyMode::Stream, ..fpm.settings(&script) };
        let application = FastCgi::new(Arc::new(stream));
        let browser = Rc::new(Browser::default());
        let watch = async {
            until("the first flush", || browser.texts() == ["one"]).await;
            fs::write(fpm.path("gate"), "").expect("written");
        };
        let (ran, ()) = tokio::join!(run(&application, call_with(Message::text("x")), &browser), watch);
        ran.result.expect("success");
        assert_eq!(ran.replies, ["one", "twothree"]);
        // The same script with a reply in one piece.
        assert_eq!(ask(&FastCgi::new(Arc::new(fpm.settings(&script)))).await.reply(), "onetwothree");
    });
}

#[test]
fn a_script_that_php_fpm_can_not_run_is_the_operators_fault() {
    on_a_shard(async {
        let fpm = PhpFpm::start(1, "");
        let other = fpm.script("index.txt", "echo 1;");
        for (script, words) in [(fpm.path("missing.php"), "knows no such file"), (other, "limit_extensions")] {
            let ran = ask(&FastCgi::new(Arc::new(fpm.settings(&script)))).await;
            assert_eq!(ran.replies, [""; 0]);
            let error = ran.error();
            assert_eq!(error.fault(), Fault::Operator);
            assert!(error.to_string().contains(words), "{error}");
        }
    });
}

/// Runs so many calls at once, and something beside them.
async fn at_once(application: &FastCgi, calls: usize, beside: impl Future<Output = ()>) {
    let mut calls: Vec<_> = (0..calls).map(|_| Box::pin(ask(application))).collect();
    let all = std::future::poll_fn(|cx| {
        calls.retain_mut(|call| match call.as_mut().poll(cx) {
            std::task::Poll::Ready(ran) => {
                assert_eq!(ran.reply(), "yes");
                false
            }
            std::task::Poll::Pending => true,
        });
        if calls.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    tokio::join!(all, beside);
}

#[test]
fn calls_wait_while_all_workers_are_busy_and_fail_only_when_their_time_is_over() {
    on_a_shard(async {
        let fpm = PhpFpm::start(2, "");
        let code = format!("file_put_contents(getenv('HERE') . '/begun', 'x', FILE_APPEND); {WAIT} echo 'yes';");
        let script = fpm.script("index.php", &code);
        let application = FastCgi::new(Arc::new(fpm.settings(&script)));
        let short = Duration::from_millis(100);
        let hurried = FastCgi::new(Arc::new(FastCgiSettings { timeout: short, ..fpm.settings(&script) }));
        at_once(&application, 5, async {
            until("both workers busy", || fs::read(fpm.path("begun")).is_ok_and(|begun| begun.len() == 2)).await;
            assert_eq!(fault(&ask(&hurried).await.error()), &ApplicationFault::TimedOut(short));
            fs::write(fpm.path("gate"), "").expect("written");
        })
        .await;
    });
}

/// Connects until there is no room for another; the worker must be busy. Closed connections keep their room until it looks.
fn fill_backlog(path: &Path) {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let address = SocketAddrUnix::new(path).expect("a short path");
    for _ in 0..100 {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None);
        match connect(socket.expect("a socket"), &address) {
            Ok(()) => {}
            Err(rustix::io::Errno::AGAIN) => return,
            Err(error) => panic!("connect: {error}"),
        }
    }
    panic!("the backlog has no end");
}

#[test]
fn a_full_backlog_loses_no_call() {
    on_a_shard(async {
        let fpm = PhpFpm::start(1, "listen.backlog = 1");
        let code = format!("file_put_contents(getenv('HERE') . '/begun', 'x', FILE_APPEND); {WAIT} echo 'yes';");
        let script = fpm.script("index.php", &code);
        let patient = FastCgiSettings { connect_timeout: PATIENCE, ..fpm.settings(&script) };
        let application = FastCgi::new(Arc::new(patient.clone()));
        let connect_timeout = Duration::from_millis(100);
        let hurried = FastCgi::new(Arc::new(FastCgiSettings { connect_timeout, ..patient }));
        at_once(&application, 20, async {
            until("a busy worker", || fpm.path("begun").exists()).await;
            fill_backlog(&fpm.path("fpm.sock"));
            let error = ask(&hurried).await.error().to_string();
            assert!(error.contains("backlog is full: raise pm.max_children"), "{error}");
            fs::write(fpm.path("gate"), "").expect("written");
        })
        .await;
        assert_eq!(fs::read(fpm.path("begun")).expect("begun").len(), 20);
    });
}

#[test]
fn a_restart_is_waited_for() {
    on_a_shard(async {
        let mut fpm = PhpFpm::start(1, "");
        let application = fpm.application("echo 'yes';");
        assert_eq!(ask(&application).await.reply(), "yes");
        fpm.stop();
        at_once(&application, 10, async {
            tokio::task::yield_now().await;
            fpm.start_again();
        })
        .await;
        assert_eq!(ask(&application).await.reply(), "yes");
    });
}

/// Calls one after another while php-fpm replaces its workers again and again: all are answered, and each ran once.
async fn calls_through_reloads(keep: usize) {
    let fpm = PhpFpm::start(2, "");
    let code = "file_put_contents(getenv('HERE') . '/begun', 'x', FILE_APPEND | LOCK_EX); echo 'yes';";
    let script = fpm.script("index.php", code);
    let settings = FastCgiSettings { keep, ..fpm.settings(&script) };
    let application = FastCgi::new(Arc::new(settings));
    let reloaded = || fpm.log().matches("ready to handle connections").count();
    let mut calls = 0;
    for round in 1..=5 {
        until("the workers", || reloaded() >= round).await;
        for turn in 0..40 {
            if turn == 10 {
                fpm.reload();
            }
            at_once(&application, 2, async {}).await;
            calls += 2;
        }
    }
    assert_eq!(fs::read(fpm.path("begun")).expect("begun").len(), calls);
}

#[test]
fn no_call_is_lost_or_run_twice_while_php_fpm_reloads() {
    on_a_shard(calls_through_reloads(0));
    on_a_shard(calls_through_reloads(2));
}

#[test]
fn workers_that_end_in_their_own_time_lose_no_call_of_a_kept_connection() {
    on_a_shard(async {
        let fpm = PhpFpm::start(2, "pm.max_requests = 3");
        let code = "file_put_contents(getenv('HERE') . '/begun', 'x', FILE_APPEND | LOCK_EX); echo 'yes';";
        let script = fpm.script("index.php", code);
        let application = FastCgi::new(Arc::new(FastCgiSettings { keep: 2, ..fpm.settings(&script) }));
        // At once after an answer: the worker that gave it may be about to close.
        for _ in 0..50 {
            at_once(&application, 2, async {}).await;
        }
        assert_eq!(fs::read(fpm.path("begun")).expect("begun").len(), 100);
    });
}

#[test]
fn more_calls_than_kept_connections_starve_nobody() {
    on_a_shard(async {
        let fpm = PhpFpm::start(2, "");
        let script = fpm.script("index.php", "echo 'yes';");
        let settings = FastCgiSettings { keep: 2, keep_idle: 10 * PATIENCE, ..fpm.settings(&script) };
        let application = FastCgi::new(Arc::new(settings));
        for calls in [2, 30, 2, 30] {
            at_once(&application, calls, async {}).await;
        }
    });
}

#[test]
fn an_idle_kept_connection_gives_its_worker_back() {
    on_a_shard(async {
        let fpm = PhpFpm::start(1, "");
        let script = fpm.script("index.php", "echo getmypid();");
        let keep_idle = Duration::from_millis(50);
        let keeping = FastCgi::new(Arc::new(FastCgiSettings { keep: 1, keep_idle, ..fpm.settings(&script) }));
        let worker = ask(&keeping).await.reply();
        // Another shard, which waits for the only worker.
        assert_eq!(ask(&FastCgi::new(Arc::new(fpm.settings(&script)))).await.reply(), worker);
    });
}

#[test]
fn a_script_whose_browser_left_gives_its_worker_back() {
    on_a_shard(async {
        let fpm = PhpFpm::start(1, "php_admin_value[output_buffering] = 0");
        let endless = fpm.script("endless.php", "while (true) { echo 'on and on'; flush(); usleep(1000); }");
        let settings = FastCgiSettings { reply: ReplyMode::Stream, ..fpm.settings(&endless) };
        let (application, browser) = (FastCgi::new(Arc::new(settings)), Rc::new(Browser::default()));
        tokio::select! {
            _ = run(&application, call_with(Message::text("x")), &browser) => panic!("it has no end"),
            () = until("a first piece", || !browser.messages.borrow().is_empty()) => {}
        }
        assert_eq!(ask(&fpm.application("echo 'free';")).await.reply(), "free");
    });
}
