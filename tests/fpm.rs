//! Debian's php-fpm runs the site for web pages and for messages alike: one pool, its sessions, its php.ini, its opcache.

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use support::client::Client;
use support::daemon::{Nginx, PhpFpm, cookies_of, free_address};
use support::{Setup, Wootz, repository, wait_until};

/// A script's function that waits until the test makes a file.
const WAIT: &str =
    "function wait_for($name) { while (!file_exists(getenv('HERE') . \"/$name\")) { usleep(2000); clearstatcache(); } }
                    function note($name) { file_put_contents(getenv('HERE') . \"/$name\", \"x\\n\", FILE_APPEND); }
                    ";

/// A pool whose script is this code, and wootz before it.
fn site(workers: usize, pool: &str, code: &str) -> (PhpFpm, Setup) {
    let fpm = PhpFpm::start(workers, pool);
    let script = fpm.script("index.php", &format!("{WAIT}{code}"));
    let setup = Setup::fastcgi(&fpm.address(), &script);
    (fpm, setup)
}

/// The PHP example as web pages and behind wootz, in one pool.
fn example(workers: usize) -> (PhpFpm, Nginx, Wootz) {
    let root = repository().join("examples/php");
    let fpm = PhpFpm::start(workers, "");
    let setup = Setup::fastcgi(&fpm.address(), &root.join("index.php"));
    let wootz = setup.settings("identity.provider = \"application\"").start();
    let nginx = Nginx::start(&root, &fpm, None);
    (fpm, nginx, wootz)
}

/// Logs a user in by the page; gives the cookie.
fn log_in(nginx: &Nginx, user: &str, password: &str) -> String {
    let answer = nginx.request("POST /login", "", &format!("user={user}&password={password}"));
    assert_eq!(answer.status, 303, "{answer:?}");
    cookies_of(&answer)
}

#[test]
fn session_of_the_page_counts_on_over_messages_and_back_in_the_page() {
    let (_fpm, nginx, wootz) = example(3);
    let page = nginx.request("GET /count", "", "");
    assert_eq!(page.body, "count 1");
    let cookie = cookies_of(&page);
    let mut client = wootz.connect_as(&cookie);
    for number in 2..7 {
        assert_eq!(client.ask("/count"), format!("count {number}"));
    }
    assert_eq!(nginx.request("GET /count", &cookie, "").body, "count 7");
    assert_eq!(client.ask("/count?some=query"), "count 8");
    assert!(client.ask("/whoami").starts_with("you are a guest, served by fpm-fcgi in process "));
}

#[test]
fn users_who_log_in_by_the_page_are_themselves_in_their_calls() {
    let (_fpm, nginx, wootz) = example(2);
    let cookies = [log_in(&nginx, "alice", "wonderland"), log_in(&nginx, "bob", "builder")];
    let mut clients: Vec<Client> = cookies.iter().map(|cookie| wootz.connect_as(cookie)).collect();
    for round in 1..4 {
        for (client, user) in clients.iter_mut().zip(["alice", "bob"]) {
            assert!(client.ask("/whoami").starts_with(&format!("you are {user}, ")));
            assert_eq!(client.ask("/count"), format!("count {round}"));
            assert!(wootz.pipe_of(client.port()).starts_with(&format!("{user}:")));
        }
    }
    let mut forged = wootz.connect_as("PHPSESSID=aaaaaaaaaaaaaaaaaaaaaaaaaa");
    assert!(forged.ask("/whoami").starts_with("you are a guest"));
}

#[test]
fn php_finds_the_call_where_it_finds_a_request() {
    let code = "$value = $_SERVER[$_GET['name'] ?? $_GET['body'] ?? ''] ?? null;
                if (isset($_GET['all'])) $value = array_intersect_key($_SERVER, array_flip(explode(' ', $_GET['all'])));
                if ($_SERVER['REQUEST_METHOD'] === 'POST') $value = [$_SERVER['CONTENT_TYPE'], $_SERVER['CONTENT_LENGTH'], file_get_contents('php://input'), $_GET];
                echo json_encode($value, JSON_UNESCAPED_SLASHES);";
    let (fpm, setup) = site(1, "", code);
    let wootz = setup.start();
    let fields = [("Cookie", "a=b"), ("User-Agent", "Black Box"), ("Proxy", "evil"), ("X-Own", "1")];
    let mut client = Client::connect(wootz.address(), "/chat?room=1", &fields);
    let (script, root) = (fpm.path("index.php"), fpm.path(""));
    let root = root.to_str().expect("UTF-8").trim_end_matches('/').to_owned();
    for (name, value) in [
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", "/shop/cart?name=REQUEST_URI"),
        ("QUERY_STRING", "name=QUERY_STRING"),
        ("PATH_INFO", "/shop/cart"),
        ("SCRIPT_NAME", "/index.php"),
        ("SCRIPT_FILENAME", script.to_str().expect("UTF-8")),
        ("DOCUMENT_ROOT", root.as_str()),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_PORT", client.port().to_string().as_str()),
        ("SERVER_NAME", "127.0.0.1"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("HTTP_COOKIE", "a=b"),
        ("HTTP_USER_AGENT", "Black Box"),
        ("HTTP_X_OWN", "1"),
        ("HTTP_HOST", wootz.address().to_string().as_str()),
        ("WOOTZ_EVENT", "message"),
        ("WOOTZ_CONTROL", wootz.path("wootz.sock").canonicalize().expect("the socket").to_str().expect("UTF-8")),
    ] {
        assert_eq!(client.ask(&format!("/shop/cart?name={name}")), format!("\"{value}\""), "{name}");
    }
    for absent in ["HTTP_PROXY", "REMOTE_USER", "HTTP_SEC_WEBSOCKET_KEY"] {
        assert_eq!(client.ask(&format!("/?name={absent}")), "null", "{absent}");
    }
    assert_eq!(
        client.ask("{\"say\": \"grüß dich\"}"),
        r#"["text/plain; charset=utf-8","22","{\"say\": \"gr\u00fc\u00df dich\"}",{"room":"1"}]"#
    );
}

#[test]
fn bytes_of_any_kind_go_through_php_as_they_are() {
    let (_fpm, setup) = site(2, "", "echo file_get_contents('php://input');");
    let wootz = setup.settings("limits.max_message = \"2MiB\"").start();
    let mut client = wootz.connect();
    let large: Vec<u8> = (0..1_100_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for message in [&b"\0\xff\xfe"[..], &b"\r\n\r\nStatus: 500\r\n\r\n."[..], &large] {
        client.send_binary(message);
        match client.receive() {
            tungstenite::Message::Binary(bytes) => assert!(bytes == message, "{} bytes", bytes.len()),
            tungstenite::Message::Text(text) => assert_eq!(text.as_bytes(), message),
            other => panic!("{other:?}"),
        }
    }
    // Nothing printed, nothing sent.
    client.send_binary(b"");
    client.nothing_waits();
}

#[test]
fn fatal_error_sends_nothing_half_and_the_log_has_the_words_of_php() {
    let code = "if ($_SERVER['REQUEST_URI'] === '/die') { echo 'half'; no_such_function(); } echo 'whole';";
    let (_fpm, setup) = site(1, "", code);
    let wootz = setup.start();
    let mut client = wootz.connect_as("secret=cookie");
    client.send("/die");
    assert_eq!(client.ask("/"), "whole", "nothing of the failed call came before it");
    wootz.wait_for_log("Call to undefined function no_such_function()");
    wootz.wait_for_log("500");
    assert!(!wootz.log().contains("secret"), "no cookie is in the log");
    assert_eq!(wootz.status()["calls"]["failures"]["application"], 1);
}

#[test]
fn statuses_of_php_are_replies_below_500_and_failures_from_there() {
    let code = "http_response_code((int) substr($_SERVER['REQUEST_URI'], 1)); header('X-Ignored: 1'); echo 'body of ', http_response_code();";
    let (_fpm, setup) = site(1, "", code);
    let wootz = setup.settings("application.error_reply = \"failed\"").start();
    let mut client = wootz.connect();
    for status in [200, 201, 302, 403, 404, 410] {
        assert_eq!(client.ask(&format!("/{status}")), format!("body of {status}"));
    }
    for status in [500, 503] {
        assert_eq!(client.ask(&format!("/{status}")), "failed");
    }
}

#[test]
fn who_may_connect_is_told_by_the_script_in_php_fpm() {
    let code = "if ($_SERVER['WOOTZ_EVENT'] === 'validate') {
                    if ($_COOKIE['who'] === 'forbidden') http_response_code(403);
                    if ($_COOKIE['who'] === 'broken') no_such_function();
                    exit($_COOKIE['who']);
                }
                echo $_SERVER['REMOTE_USER'] ?? 'a guest';";
    let (_fpm, setup) = site(2, "", code);
    let wootz = setup.settings("identity.provider = \"application\"").start();
    assert_eq!(wootz.connect_as("who=alice").ask("/"), "alice");
    assert_eq!(wootz.connect_as("who=").ask("/"), "a guest");
    // Who is refused is told so; where the script failed, nobody knows who that is, and the browser may try again.
    for (who, status) in [("forbidden", 403), ("broken", 503)] {
        let Err(answer) = Client::try_connect(wootz.address(), "/", &[("Cookie", &format!("who={who}"))]) else {
            panic!("{who} was let in")
        };
        assert_eq!(answer.status(), status, "{who}");
    }
    wootz.wait_for_log("no_such_function");
}

#[test]
fn exit_in_the_middle_and_finish_request_send_what_was_printed_before() {
    let code = "switch ($_SERVER['REQUEST_URI']) {
                    case '/exit': echo 'before'; exit; 
                    case '/finish': echo 'answered'; fastcgi_finish_request(); wait_for('go'); echo 'too late'; note('went-on'); exit;
                }
                echo 'other';";
    let (fpm, setup) = site(2, "", code);
    let wootz = setup.start();
    let mut client = wootz.connect();
    assert_eq!(client.ask("/exit"), "before");
    assert_eq!(client.ask("/finish"), "answered");
    // The script goes on without its browser; another worker answers the next call.
    assert_eq!(client.ask("/"), "other");
    fpm.release("go");
    fpm.wait_for_lines("went-on", 1);
    assert_eq!(client.ask("/"), "other");
    client.nothing_waits();
}

#[test]
fn flushes_are_sent_at_once_and_buffered_output_at_the_end() {
    let code = "if ($_SERVER['REQUEST_URI'] === '/buffered') { ob_start(); echo 'one '; flush(); wait_for('end'); echo 'two'; exit; }
                echo \"one\\n\"; ob_flush(); flush(); wait_for('two'); echo \"two\\n\"; ob_flush(); flush(); wait_for('three'); echo 'three';";
    let (fpm, setup) = site(2, "", code);
    let wootz = setup.settings("application.reply = \"stream\"").start();
    let (mut client, mut other) = (wootz.connect(), wootz.connect());
    client.send("/");
    assert_eq!(client.text(), "one\n");
    fpm.release("two");
    assert_eq!(client.text(), "two\n");
    other.send("/buffered");
    fpm.release("three");
    assert_eq!(client.text(), "three");
    fpm.release("end");
    assert_eq!(other.text(), "one two");
}

#[test]
fn lines_are_sent_one_by_one() {
    let (fpm, setup) = site(1, "", "echo \"one\\ntw\"; ob_flush(); flush(); wait_for('go'); echo \"o\\nthree\";");
    let wootz = setup.settings("application.reply = \"lines\"").start();
    let mut client = wootz.connect();
    client.send("/");
    assert_eq!(client.text(), "one");
    fpm.release("go");
    assert_eq!(client.text(), "two");
    assert_eq!(client.text(), "three");
}

#[test]
fn calls_wait_while_scripts_of_two_seconds_hold_all_workers_and_the_house_is_busy_when_it_lasts() {
    let code = "if ($_SERVER['REQUEST_URI'] === '/sleep') { note('slept'); sleep(2); }
                if ($_SERVER['REQUEST_URI'] === '/hold') { note('held'); wait_for('go'); }
                echo $_SERVER['REQUEST_URI'];";
    let (fpm, setup) = site(2, "", code);
    let setup = setup.settings("application.limits.max_running = 2\napplication.limits.max_wait = \"4s\"");
    let wootz = setup.settings("application.busy_reply = \"busy\"").start();
    let mut holders = [wootz.connect(), wootz.connect()];
    let mut waiting: Vec<Client> = (0..4).map(|_| wootz.connect()).collect();
    holders.iter_mut().for_each(|holder| holder.send("/sleep"));
    fpm.wait_for_lines("slept", 2);
    let began = Instant::now();
    for client in &mut waiting {
        client.send("/waits");
    }
    for client in &mut waiting {
        assert_eq!(client.text(), "/waits");
    }
    assert!(began.elapsed() > Duration::from_millis(1000), "nobody could have had a worker yet");
    for holder in &mut holders {
        assert_eq!(holder.text(), "/sleep");
    }
    // Now it lasts longer than anybody may wait.
    holders.iter_mut().for_each(|holder| holder.send("/hold"));
    fpm.wait_for_lines("held", 2);
    let began = Instant::now();
    assert_eq!(waiting[0].ask("/waits"), "busy");
    assert!(began.elapsed() >= Duration::from_secs(4), "it waited as long as it may");
    fpm.release("go");
    for holder in &mut holders {
        assert_eq!(holder.text(), "/hold");
    }
    assert_eq!(waiting[0].ask("/again"), "/again");
}

#[test]
fn browser_that_leaves_frees_the_worker_of_a_script_that_prints() {
    let code = "if ($_SERVER['REQUEST_URI'] !== '/long') exit('free');
                note('began'); while (true) { echo str_repeat('x', 9000); ob_flush(); flush(); usleep(5000); }";
    let (fpm, setup) = site(1, "", code);
    let wootz = setup.start();
    let mut client = wootz.connect();
    client.send("/long");
    fpm.wait_for_lines("began", 1);
    drop(client);
    assert_eq!(wootz.connect().ask("/next"), "free");
}

#[test]
fn script_that_takes_too_long_fails_and_the_others_go_on() {
    let code = "if ($_SERVER['REQUEST_URI'] === '/long') wait_for('never'); echo 'quick';";
    let (fpm, setup) = site(2, "request_terminate_timeout = 10s", code);
    let setup = setup.settings("application.limits.timeout = \"500ms\"\napplication.error_reply = \"failed\"");
    let wootz = setup.start();
    let mut client = wootz.connect();
    assert_eq!(client.ask("/long"), "failed");
    assert_eq!(client.ask("/"), "quick");
    wootz.wait_for_log("application.limits.timeout");
    assert_eq!(wootz.status()["calls"]["failures"]["timed_out"], 1);
    fpm.release("never");
}

#[test]
fn session_lock_of_another_request_holds_its_users_calls_and_nobody_elses() {
    let root_of = |fpm: &PhpFpm| {
        let code = "session_start(); $uri = strtok($_SERVER['REQUEST_URI'], '?');
                    if (($_SERVER['WOOTZ_EVENT'] ?? '') === 'validate') { session_write_close(); exit($_SESSION['user'] ?? ''); }
                    if ($uri === '/login') { $_SESSION['user'] = $_GET['user']; exit('in'); }
                    if ($uri === '/hold') { note('held'); wait_for('go'); $_SESSION['held'] = 'after the page'; exit; }
                    echo $_SESSION['user'], ' ', $_SESSION['held'] ?? 'free';";
        fpm.script("index.php", &format!("{WAIT}{code}"))
    };
    // One for the page, as many as one user may have, and one for others.
    let fpm = PhpFpm::start(6, "");
    let script = root_of(&fpm);
    let nginx = Nginx::start(script.parent().expect("a directory"), &fpm, None);
    let wootz = Setup::fastcgi(&fpm.address(), &script).settings("identity.provider = \"application\"").start();
    let [alice, bob] =
        ["alice", "bob"].map(|user| cookies_of(&nginx.request(&format!("GET /login?user={user}"), "", "")));
    let mut of_alice: Vec<Client> = (0..6).map(|_| wootz.connect_as(&alice)).collect();
    let mut of_bob = wootz.connect_as(&bob);

    std::thread::scope(|scope| {
        let page = scope.spawn(|| nginx.request("GET /hold", &alice, ""));
        fpm.wait_for_lines("held", 1);
        for client in &mut of_alice {
            client.send("/");
        }
        wait_until("all that she may have at once run", || {
            (wootz.status()["calls"]["running"] == 4 && wootz.status()["calls"]["waiting"] == 2).then_some(())
        });
        let began = Instant::now();
        for _ in 0..20 {
            assert_eq!(of_bob.ask("/"), "bob free");
        }
        assert!(began.elapsed() < Duration::from_secs(10), "he took {:?}", began.elapsed());
        for client in &mut of_alice {
            client.nothing_waits();
        }
        fpm.release("go");
        assert_eq!(page.join().expect("the page").status, 200);
        for client in &mut of_alice {
            assert_eq!(client.text(), "alice after the page");
        }
    });
}

#[test]
fn php_fpm_that_is_gone_is_told_clearly_left_alone_and_used_again_when_it_is_back() {
    let (mut fpm, setup) = site(2, "", "echo 'served';");
    let setup = setup.settings("application.fastcgi.connect_timeout = \"200ms\"\napplication.error_reply = \"failed\"");
    let wootz = setup.settings("application.busy_reply = \"busy\"").start();
    let mut client = wootz.connect();
    assert_eq!(client.ask("/"), "served");
    assert_eq!(wootz.status()["runner"]["left_alone"], serde_json::Value::Null);

    fpm.stop();
    assert_eq!(client.ask("/"), "failed");
    wootz.wait_for_log_line(&[&fpm.address(), "is php-fpm running"]);
    let mut failures = 1;
    while client.ask("/") == "failed" {
        failures += 1;
        assert!(failures < 20, "it is never left alone");
    }
    let began = Instant::now();
    let busy = (0..20).filter(|_| client.ask("/") == "busy").count();
    assert!(busy >= 15 && began.elapsed() < Duration::from_secs(3), "{busy} of 20 busy in {:?}", began.elapsed());
    let status = wootz.status();
    let reason = status["runner"]["left_alone"].as_str().unwrap_or_else(|| panic!("a reason in {status:#}"));
    assert!(reason.contains(&fpm.address()), "{reason}");
    assert!(status["calls"]["failures"]["unreachable"].as_u64() >= Some(failures), "{status:#}");

    fpm.start_again();
    wait_until("it is used again", || (client.ask("/") == "served").then_some(()));
    assert_eq!(client.ask("/"), "served");
    assert_eq!(wootz.status()["runner"]["left_alone"], serde_json::Value::Null);
}

#[test]
fn call_waits_for_a_php_fpm_that_starts_after_wootz() {
    let (mut fpm, setup) = site(1, "", "echo 'served';");
    fpm.stop();
    let wootz = setup.start();
    let mut client = wootz.connect();
    client.send("/");
    wait_until("the call runs", || (wootz.status()["calls"]["running"] == 1).then_some(()));
    fpm.start_again();
    assert_eq!(client.text(), "served");
}

/// What became of the messages that were sent while php-fpm reloaded.
#[derive(Debug, Default)]
struct Counts {
    of_release: [usize; 2],
    failed: usize,
}

/// Sends 50 messages a second from 10 browsers while the site's second release comes, and php-fpm reloads again and again.
fn release_under_load(pool: &str, reloads: usize) -> (Counts, usize) {
    const WORKERS: usize = 4;
    let fpm = PhpFpm::start(WORKERS, pool);
    let site = |release: usize| {
        let directory = fpm.path(&format!("release-{release}"));
        fs::create_dir(&directory).expect("a directory");
        let code = format!("<?php usleep(20000); echo '{release} ', $_SERVER['REQUEST_URI'];");
        fs::write(directory.join("index.php"), code).expect("a file");
        directory
    };
    let releases = [site(0), site(1)];
    let switch_to = |directory: &Path| {
        let new = fpm.path("new");
        std::os::unix::fs::symlink(directory, &new).expect("a link");
        fs::rename(new, fpm.path("current")).expect("the link is replaced");
    };
    switch_to(&releases[0]);
    let setup = Setup::fastcgi(&fpm.address(), &fpm.path("current/index.php"));
    let wootz = setup.settings("application.error_reply = \"failed\"").start();
    let mut clients: Vec<Client> = (0..10).map(|_| wootz.connect()).collect();
    let mut counts = Counts::default();
    let begin = Instant::now();
    let tick = Duration::from_millis(200);
    for round in 0..reloads * 5 {
        for client in &mut clients {
            client.send(&format!("/{round}"));
        }
        match round {
            2 => {
                switch_to(&releases[1]);
                fpm.reload();
            }
            _ if round % 5 == 2 => fpm.reload(),
            _ => {}
        }
        for client in &mut clients {
            // One answer to each message, in order: a reply, or one clear failure.
            match client.text().as_str() {
                "failed" => counts.failed += 1,
                reply => {
                    let (release, uri) = reply.split_once(' ').expect("a release and a URI");
                    assert_eq!(uri, format!("/{round}"));
                    counts.of_release[release.parse::<usize>().expect("a number")] += 1;
                }
            }
        }
        // Not faster than 50 a second.
        while let Some(early) =
            (tick * (round as u32 + 1)).checked_sub(begin.elapsed()).filter(|early| !early.is_zero())
        {
            std::thread::park_timeout(early);
        }
    }
    for client in &mut clients {
        client.nothing_waits();
    }
    (counts, reloads * WORKERS)
}

#[test]
fn gentle_reloads_of_php_fpm_under_load_lose_no_call() {
    let (counts, _) = release_under_load("process_control_timeout = 10s", 4);
    println!("gentle: {counts:?}");
    assert_eq!(counts.failed, 0, "{counts:?}");
    assert_eq!(counts.of_release.iter().sum::<usize>(), 200, "{counts:?}");
    assert!(counts.of_release[0] >= 20 && counts.of_release[1] >= 100, "both releases answered: {counts:?}");
}

#[test]
fn abrupt_reloads_of_php_fpm_under_load_fail_no_call_but_those_in_its_workers() {
    let (counts, in_workers) = release_under_load("", 4);
    println!("abrupt: {counts:?}, at most {in_workers} can have been in a worker");
    assert!(counts.failed <= in_workers, "{counts:?}");
    assert_eq!(counts.of_release.iter().sum::<usize>() + counts.failed, 200, "{counts:?}");
}

#[test]
fn kept_connections_hold_no_more_workers_than_told() {
    let (fpm, setup) = site(3, "", "echo getmypid();");
    let wootz = setup.settings("application.fastcgi.keep = 1").start();
    let mut clients: Vec<Client> = (0..20).map(|_| wootz.connect()).collect();
    for _ in 0..5 {
        for client in &mut clients {
            client.send("/");
        }
        for client in &mut clients {
            assert!(client.text().parse::<u32>().is_ok());
        }
    }
    // One per shard at most, and php-fpm has three workers: another program still gets one.
    let script = fpm.path("index.php");
    let nginx = Nginx::start(script.parent().expect("a directory"), &fpm, None);
    assert_eq!(nginx.request("GET /", "", "").status, 200);
}

#[test]
fn calls_wait_while_the_backlog_of_php_fpm_is_full_and_are_told_when_it_lasts() {
    let code = "if ($_SERVER['REQUEST_URI'] === '/hold') { note('held'); wait_for('go'); } usleep(20000); echo $_SERVER['REQUEST_URI'];";
    let (fpm, setup) = site(1, "listen.backlog = 1", code);
    let settings = "application.fastcgi.connect_timeout = \"2s\"\napplication.error_reply = \"failed\"\napplication.busy_reply = \"busy\"";
    let wootz = setup.settings(settings).start();
    let mut clients: Vec<Client> = (0..20).map(|_| wootz.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&format!("/{number}"));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.text(), format!("/{number}"));
    }
    clients[0].send("/hold");
    fpm.wait_for_lines("held", 1);
    for client in &mut clients[1..] {
        client.send("/waits");
    }
    wootz.wait_for_log("listen.backlog");
    fpm.release("go");
    assert_eq!(clients[0].text(), "/hold");
    let (mut served, mut told) = (0, 0);
    for client in &mut clients[1..] {
        match client.text().as_str() {
            "/waits" => served += 1,
            "failed" | "busy" => told += 1,
            other => panic!("{other}"),
        }
    }
    assert!(served >= 1 && told >= 1, "{served} served, {told} told");
    wait_until("it is used again", || (clients[0].ask("/again") == "/again").then_some(()));
}

#[test]
fn php_fpm_on_a_tcp_port_answers_as_well() {
    let address = free_address();
    let user = if rustix::process::geteuid().is_root() { "user = root\ngroup = root\n" } else { "" };
    let pool = format!("[tcp]\n{user}listen = {address}\npm = static\npm.max_children = 2\n");
    let fpm = PhpFpm::start(1, &pool);
    let script = fpm.script("index.php", "echo file_get_contents('php://input');");
    let wootz = Setup::fastcgi(&address.to_string(), &script).start();
    let mut client = wootz.connect();
    for message in ["/cart", "two words"] {
        assert_eq!(client.ask(message), message);
    }
    assert_eq!(wootz.status()["runner"]["target"], address.to_string());
}
