//! FastCGI workers that wootz starts and keeps: warm, watched, replaced one by one, and gone when wootz is gone.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use support::{SPAWNER, Setup, Wootz, process, repository, wait_until};

/// What the scripts of these tests can do.
const PRELUDE: &str = "<?php
function wait_for($name) { while (!file_exists(__DIR__ . \"/$name\")) { usleep(2000); clearstatcache(); } }
function note($name) { file_put_contents(__DIR__ . \"/$name\", getmypid() . \"\\n\", FILE_APPEND); }
$uri = $_SERVER['REQUEST_URI'];
";

/// A server that keeps so many of Debian's `php-cgi`, which run this code. Their sockets are in `sockets`.
fn php_cgi(workers: usize, code: &str) -> Setup {
    keeping(&["php-cgi"], workers).file("index.php", &format!("{PRELUDE}{code}"))
}

/// A server that keeps so many workers of this command.
fn keeping(command: &[&str], workers: usize) -> Setup {
    let setup = Setup::workers(command).setting("application.fastcgi.script", "\"index.php\"");
    let sockets = setup.path("sockets");
    fs::create_dir(&sockets).expect("a directory");
    let setup = setup.variable("TMPDIR", sockets.to_str().expect("UTF-8"));
    setup.setting("application.fastcgi.workers", workers.to_string()).file("index.php", PRELUDE)
}

/// The workers as the status tells of them.
fn workers(wootz: &Wootz) -> Vec<Value> {
    let status = wootz.status();
    assert_eq!(status["runner"]["runner"], "fastcgi", "{status:#}");
    status["runner"]["workers"].as_array().unwrap_or_else(|| panic!("workers in {status:#}")).clone()
}

fn pids(wootz: &Wootz) -> BTreeSet<u32> {
    let pid = |worker: &Value| u32::try_from(worker["pid"].as_u64().expect("a number")).expect("a process id");
    workers(wootz).iter().map(pid).collect()
}

/// Waits until there are so many workers, and gives their process ids.
fn wait_for_workers(wootz: &Wootz, count: usize) -> BTreeSet<u32> {
    wait_until(&format!("{count} workers"), || Some(pids(wootz)).filter(|pids| pids.len() == count))
}

/// What is in the directory of the sockets.
fn sockets(wootz: &Wootz) -> Vec<String> {
    let entries = fs::read_dir(wootz.path("sockets")).expect("a directory of the test");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect()
}

/// A process id that a worker printed.
fn pid(reply: &str) -> u32 {
    reply.parse().unwrap_or_else(|_| panic!("a process id, not {reply:?}"))
}

#[test]
fn php_cgi_as_it_is_answers_from_warm_workers_and_nothing_is_left_at_the_end() {
    let mut wootz = php_cgi(2, "echo getmypid();").start();
    let warm = wait_for_workers(&wootz, 2);
    let mut clients = [wootz.connect(), wootz.connect()];
    for _ in 0..20 {
        for client in &mut clients {
            client.send("/");
        }
        for client in &mut clients {
            assert!(warm.contains(&pid(&client.text())), "no process but the warm ones has answered");
        }
    }
    assert_eq!(pids(&wootz), warm);
    wait_until("the status has counted the calls", || {
        let calls: u64 = workers(&wootz).iter().map(|worker| worker["calls"].as_u64().expect("a number")).sum();
        (calls == 40).then_some(())
    });
    for worker in workers(&wootz) {
        assert_eq!(worker["state"], "idle", "{worker:#}");
        assert!(worker["memory_bytes"].as_u64() > Some(1 << 20), "{worker:#}");
        assert!(worker["age_seconds"].is_u64() && worker["last_failure"].is_null(), "{worker:#}");
    }
    wootz.signal(Signal::TERM);
    assert_eq!(wootz.wait().code(), Some(0));
    wootz.wait_for_no_process();
    assert_eq!(sockets(&wootz), Vec::<String>::new());
}

#[test]
fn command_after_two_dashes_is_kept_too() {
    let setup = Setup::without_application().file("index.php", "<?php echo 'from ', PHP_SAPI;");
    let script = setup.path("index.php");
    let arguments = ["--runner", "fastcgi", "--script", script.to_str().expect("UTF-8"), "--", "php-cgi"];
    let wootz = arguments.into_iter().fold(setup, Setup::argument).start();
    assert_eq!(wootz.connect().ask("/"), "from cgi-fcgi");
}

#[test]
fn worker_sees_the_call_as_every_runner_gives_it_and_its_socket_is_told() {
    let code = "echo json_encode([$_SERVER['REQUEST_URI'], $_SERVER['REQUEST_METHOD'], $_SERVER['HTTP_COOKIE'] ?? null, file_get_contents('php://input'), \
                $_GET, isset($_SERVER['HTTP_PROXY']), $_SERVER['SCRIPT_NAME']], JSON_UNESCAPED_SLASHES);";
    let wootz = php_cgi(1, code).start();
    let mut client = wootz.connect_as("a=b");
    assert_eq!(client.ask("/cart?x=1"), r#"["/cart?x=1","GET","a=b","/cart?x=1",{"x":"1"},false,"/index.php"]"#);
    assert_eq!(client.ask("two words"), r#"["/","POST","a=b","two words",[],false,"/index.php"]"#);
    let worker = *wait_for_workers(&wootz, 1).first().expect("one");
    let environment = fs::read(format!("/proc/{worker}/environ")).expect("a process of ours");
    let environment = String::from_utf8(environment).expect("UTF-8");
    let listen = environment.split('\0').find_map(|variable| variable.strip_prefix("WOOTZ_LISTEN="));
    let listen = listen.expect("WOOTZ_LISTEN").trim_start_matches("unix:").to_owned();
    assert!(listen.starts_with(wootz.path("sockets").to_str().expect("UTF-8")), "{listen}");
    let listen = Path::new(&listen);
    assert_eq!(support::mode(listen), 0o600);
    assert_eq!(support::mode(listen.parent().expect("a directory")), 0o700);
}

#[test]
fn worker_that_dies_in_a_call_fails_that_call_alone_and_is_replaced() {
    let code = "if ($uri === '/die') { note('died'); posix_kill(getmypid(), 9); } echo getmypid();";
    let wootz = php_cgi(2, code).settings("application.error_reply = \"failed\"").start();
    let before = wait_for_workers(&wootz, 2);
    let mut client = wootz.connect();
    assert_eq!(client.ask("/die"), "failed");
    let died = pid(wootz.wait_for_file("died").trim());
    assert!(before.contains(&died));
    let after = wait_until("another is in its place", || {
        Some(pids(&wootz)).filter(|pids| pids.len() == 2 && !pids.contains(&died))
    });
    assert_eq!(after.intersection(&before).count(), 1, "the other one was left in peace");
    for _ in 0..4 {
        assert!(after.contains(&pid(&client.ask("/"))));
    }
    assert_eq!(wootz.content("died").lines().count(), 1, "what has begun is never run twice");
    wootz.wait_for_no_zombie();
}

#[test]
fn worker_killed_while_idle_is_replaced_and_no_call_notices() {
    let wootz = php_cgi(2, "echo getmypid();").settings("application.error_reply = \"failed\"").start();
    for _ in 0..3 {
        let before = wait_for_workers(&wootz, 2);
        for pid in &before {
            process::kill(*pid);
        }
        assert_ne!(wootz.connect().ask("/"), "failed");
        let _after = wait_until("both are replaced", || {
            Some(pids(&wootz)).filter(|pids| pids.len() == 2 && pids.is_disjoint(&before))
        });
    }
    wootz.wait_for_no_zombie();
}

#[test]
fn worker_that_hangs_is_ended_with_all_that_it_started() {
    let code = "if ($uri === '/hang') { note('hung'); exec('sleep 600 & echo $! >' . __DIR__ . '/grandchild; while :; do sleep 1; done'); }
                echo getmypid();";
    let setup = php_cgi(2, code).settings("application.limits.timeout = \"1s\"\napplication.error_reply = \"failed\"");
    let wootz = setup.start();
    let mut client = wootz.connect();
    assert_eq!(client.ask("/hang"), "failed");
    wootz.wait_for_log("application.limits.timeout");
    let hung = pid(wootz.wait_for_file("hung").trim());
    let grandchild = pid(wootz.wait_for_file("grandchild").trim());
    wait_until("it is ended", || (!process::runs(hung) && !process::runs(grandchild)).then_some(()));
    wait_until("another is in its place", || {
        Some(pids(&wootz)).filter(|pids| pids.len() == 2 && !pids.contains(&hung))
    });
    assert_ne!(client.ask("/"), "failed");
    assert_eq!(wootz.status()["calls"]["failures"]["timed_out"], 1);
}

#[test]
fn worker_that_never_accepts_is_given_up_and_its_call_fails() {
    let script = "echo $$ >>started; exec sleep 600";
    let setup = keeping(&["sh", "worker.sh"], 1).file("worker.sh", script);
    let setup =
        setup.settings("application.fastcgi.first_byte_timeout = \"500ms\"\napplication.error_reply = \"failed\"");
    let wootz = setup.start();
    let first = pid(&wootz.wait_for_lines("started", 1)[0]);
    assert_eq!(wootz.connect().ask("/"), "failed");
    wait_until("it is ended", || (!process::runs(first)).then_some(()));
    wootz.wait_for_lines("started", 2);
}

#[test]
fn worker_that_leaks_is_replaced_between_two_calls() {
    // PHP gives the memory of a script back when it ends; a worker of the Python SDK keeps what it holds.
    let worker = "import os, sys\nsys.path.insert(0, sys.argv[1])\nimport wootz\nkept = []\n\
                  def application(uri, connection):\n    if uri == '/leak': kept.append(b'x' * (60 << 20))\n    return str(os.getpid())\n\
                  wootz.run(application)\n";
    let sdk = repository().join("sdk/python");
    let setup = keeping(&["python3", "worker.py", sdk.to_str().expect("UTF-8")], 1).file("worker.py", worker);
    let settings = "application.fastcgi.max_memory = \"150MiB\"\napplication.error_reply = \"failed\"";
    let wootz = setup.settings(settings).start();
    let mut client = wootz.connect();
    for _ in 0..3 {
        let before = pid(&client.ask("/"));
        // It goes on until another is there, so it may have a call more than it should.
        let mut leaked = 0;
        while pid(&client.ask("/leak")) == before {
            leaked += 1;
            assert!(leaked < 50, "nobody has looked at its memory");
        }
        assert!(leaked >= 2, "it was ended too early");
        wait_until("it is ended", || (!process::runs(before)).then_some(()));
    }
    wootz.wait_for_no_zombie();
}

#[test]
fn worker_is_replaced_after_max_calls_and_no_call_fails() {
    let wootz = php_cgi(2, "echo getmypid();")
        .settings("application.fastcgi.max_calls = 5\napplication.error_reply = \"failed\"")
        .start();
    let mut client = wootz.connect();
    let mut calls = std::collections::BTreeMap::<u32, usize>::new();
    for _ in 0..60 {
        *calls.entry(pid(&client.ask("/"))).or_default() += 1;
    }
    assert!(calls.values().all(|count| *count <= 5), "{calls:?}");
    assert!(calls.len() >= 12, "{calls:?}");
    wootz.wait_for_no_zombie();
    wait_for_workers(&wootz, 2);
}

#[test]
fn idle_workers_are_ended_but_for_one_and_started_again_when_calls_wait() {
    let code = "if ($uri === '/hold') { note('held'); wait_for('go'); } echo getmypid();";
    let wootz = php_cgi(3, code).settings("application.fastcgi.max_idle = \"300ms\"").start();
    wait_for_workers(&wootz, 1);
    let mut clients = [wootz.connect(), wootz.connect(), wootz.connect()];
    for client in &mut clients {
        client.send("/hold");
    }
    wootz.wait_for_lines("held", 3);
    wootz.release("go");
    let pids: BTreeSet<String> = clients.iter_mut().map(|client| client.text()).collect();
    assert_eq!(pids.len(), 3, "three at once by three workers");
    wait_for_workers(&wootz, 1);
}

#[test]
fn missing_command_is_an_error_of_the_start() {
    let output = keeping(&["no-such-worker"], 1).refused();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(error.contains("no-such-worker") && error.contains("application.command"), "{error}");
}

#[test]
fn worker_that_dies_at_once_is_started_ever_more_rarely_and_the_reason_is_loud() {
    let setup =
        keeping(&["sh", "worker.sh"], 1).file("worker.sh", "echo x >>started; echo 'no such module' >&2; exit 3");
    let setup = setup.settings("application.error_reply = \"failed\"\napplication.fastcgi.connect_timeout = \"1s\"");
    let wootz = setup.start();
    let line = wootz.wait_for_log_line(&["ERROR", "no such module"]);
    assert!(line.contains("exit status 3") && line.contains("sh"), "{line}");
    let began = Instant::now();
    let mut times = Vec::new();
    for count in 2..7 {
        wootz.wait_for_lines("started", count);
        times.push(began.elapsed());
    }
    let pauses: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        pauses.last() > pauses.first() && pauses.iter().sum::<Duration>() > Duration::from_millis(800),
        "{pauses:?}"
    );
    // A call waits no longer than it may, and is told.
    assert_eq!(wootz.connect().ask("/"), "failed");
    let reason = wootz.status()["runner"]["left_alone"].clone();
    assert!(reason.as_str().is_some_and(|reason| reason.contains("exit status 3")), "{reason}");
    // The command is mended: no restart of wootz.
    fs::write(wootz.path("worker.sh"), "exec php-cgi").expect("a file of the test");
    fs::write(wootz.path("index.php"), "<?php echo 'mended';").expect("a file of the test");
    wait_until("it is used", || (wootz.connect().ask("/") == "mended").then_some(()));
    wootz.wait_for_no_zombie();
}

#[test]
fn what_a_worker_prints_goes_into_the_log_and_harms_nothing() {
    let chatty = "echo 'a word on standard output'; echo 'one on standard error' >&2; \
                  head -c 3000000 /dev/zero | tr '\\0' x; echo; yes flood | head -n 20000; exec php-cgi";
    let wootz = keeping(&["sh", "worker.sh"], 1)
        .file("worker.sh", chatty)
        .file("index.php", "<?php file_put_contents('php://stderr', \"from a call\\n\"); echo 'answered';")
        .start();
    assert_eq!(wootz.connect().ask("/"), "answered");
    for words in ["a word on standard output", "one on standard error", "from a call"] {
        wootz.wait_for_log(words);
    }
    assert!(wootz.log().len() < 1_000_000, "{} bytes of log", wootz.log().len());
}

#[test]
fn changed_file_brings_fresh_workers_in_development_and_no_call_fails() {
    let wootz = php_cgi(2, "if ($uri === '/hold') { note('held'); wait_for('go'); } echo getmypid();")
        .settings("application.error_reply = \"failed\"")
        .dev()
        .start();
    let before = wait_for_workers(&wootz, 2);
    let mut client = wootz.connect();
    assert!(before.contains(&pid(&client.ask("/"))));
    // One that is in a call ends it first.
    client.send("/hold");
    let held = wootz.wait_for_lines("held", 1);
    fs::write(wootz.path("library.php"), "<?php // changed\n").expect("a file of the test");
    wait_until("the idle one is replaced", || {
        Some(pids(&wootz)).filter(|pids| pids.iter().any(|pid| !before.contains(pid)))
    });
    wootz.release("go");
    assert_eq!(client.text(), held[0], "the call that had begun was answered by who had it");
    let after = wait_until("both are replaced", || {
        Some(pids(&wootz)).filter(|pids| pids.len() == 2 && pids.is_disjoint(&before))
    });
    assert!(after.contains(&pid(&client.ask("/"))));
}

#[test]
fn workers_are_not_watched_for_changes_outside_development() {
    let wootz = php_cgi(1, "echo getmypid();").start();
    let before = wait_for_workers(&wootz, 1);
    fs::write(wootz.path("library.php"), "<?php // changed\n").expect("a file of the test");
    let mut client = wootz.connect();
    for _ in 0..20 {
        assert!(before.contains(&pid(&client.ask("/"))));
    }
}

#[test]
fn killed_server_takes_its_workers_with_it() {
    let code = "if ($uri === '/hold') { note('held'); wait_for('never'); } echo getmypid();";
    let mut wootz = php_cgi(2, code).start();
    let before = wait_for_workers(&wootz, 2);
    let mut client = wootz.connect();
    client.send("/hold");
    wootz.wait_for_lines("held", 1);
    wootz.signal(Signal::KILL);
    wootz.wait();
    wootz.wait_for_no_process();
    wait_until("the workers are gone", || before.iter().all(|pid| !process::runs(*pid)).then_some(()));
    for directory in sockets(&wootz) {
        for socket in fs::read_dir(wootz.path("sockets").join(directory)).expect("a directory of the server") {
            let refused = UnixStream::connect(socket.expect("an entry").path());
            assert!(refused.is_err(), "nobody listens any more");
        }
    }
}

#[test]
fn killed_spawner_is_replaced_with_all_workers() {
    let wootz = php_cgi(2, "echo getmypid();").settings("application.error_reply = \"failed\"").start();
    let before = wait_for_workers(&wootz, 2);
    let mut client = wootz.connect();
    assert!(before.contains(&pid(&client.ask("/"))));
    let spawners = wootz.processes();
    let spawner = spawners.iter().find(|process| process.command.starts_with(SPAWNER)).expect("a spawner");
    spawner.kill();
    let after =
        wait_until("fresh workers", || Some(pids(&wootz)).filter(|pids| pids.len() == 2 && pids.is_disjoint(&before)));
    wait_until("the old ones are gone", || before.iter().all(|pid| !process::runs(*pid)).then_some(()));
    assert!(after.contains(&pid(&client.ask("/"))));
}

#[test]
fn calls_beyond_the_workers_wait_for_their_turn() {
    let wootz = php_cgi(2, "usleep(20000); echo $uri;").start();
    let mut clients: Vec<_> = (0..20).map(|_| wootz.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&format!("/{number}"));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.text(), format!("/{number}"));
    }
    assert_eq!(pids(&wootz).len(), 2);
}

/// A worker in each language of the SDKs: it answers with its process id, and dies on `/die`.
const OF_THE_SDKS: [(&str, &str, &str); 3] = [
    (
        "php",
        "worker.php",
        "<?php require getenv('SDK') . '/php/autoload.php';\n\
         Wootz\\Application::run(startApplication: function (string $uri, Wootz\\Connection $connection) {\n\
             if ($uri === '/die') posix_kill(getmypid(), 9);\n\
             return $uri === '/user' ? ($connection->user ?? 'a guest') . ' ' . $connection->message : (string) getmypid();\n\
         }, validateUser: fn (string $ip, int $port) => $_COOKIE['who'] ?? null, isolate: ISOLATE);\n",
    ),
    (
        "python3",
        "worker.py",
        "import os, signal, sys\nsys.path.insert(0, os.environ['SDK'] + '/python')\nimport wootz\n\
         def application(uri, connection):\n\
        \x20   if uri == '/die': os.kill(os.getpid(), signal.SIGKILL)\n\
        \x20   return f\"{connection.user or 'a guest'} {connection.text}\" if uri == '/user' else str(os.getpid())\n\
         wootz.run(application, validate=lambda ip, port, connection: connection.cookies.get('who'), isolate=ISOLATE)\n",
    ),
    (
        "node",
        "worker.mjs",
        "const { run } = await import(process.env.SDK + '/js/wootz.js');\n\
         run(async (uri, connection) => {\n\
             if (uri === '/die') process.kill(process.pid, 'SIGKILL');\n\
             return uri === '/user' ? `${connection.user ?? 'a guest'} ${connection.text}` : String(process.pid);\n\
         }, { validate: (ip, port, connection) => connection.cookies.who ?? null });\n",
    ),
];

/// A server that keeps two workers of this language.
fn of_sdk((program, name, source): (&str, &str, &str), isolate: &str) -> Wootz {
    let sdk = repository().join("sdk");
    Setup::workers(&[program, name])
        .file(name, &source.replace("ISOLATE", isolate))
        .setting("application.environment.SDK", format!("{:?}", sdk.to_str().expect("UTF-8")))
        .settings("application.fastcgi.workers = 2\nidentity.provider = \"application\"\napplication.error_reply = \"failed\"")
        .start()
}

#[test]
fn workers_of_every_sdk_answer_as_that_user_and_survive_a_death() {
    for language in OF_THE_SDKS {
        let wootz = of_sdk(language, if language.0 == "php" { "false" } else { "False" });
        let mut alice = wootz.connect_as("who=alice");
        let mut guest = wootz.connect();
        assert_eq!(alice.ask("/user"), "alice /user", "{language:?}");
        assert_eq!(guest.ask("/user"), "a guest /user", "{language:?}");
        let kept = pids(&wootz);
        for _ in 0..5 {
            assert!(kept.contains(&pid(&alice.ask("/"))), "{language:?}");
        }
        assert_eq!(guest.ask("/die"), "failed", "{language:?}");
        wait_until("another is in its place", || Some(pids(&wootz)).filter(|now| now.len() == 2 && *now != kept));
        assert_eq!(alice.ask("/user"), "alice /user", "{language:?}");
        wootz.wait_for_no_zombie();
    }
}

#[test]
fn isolated_call_is_a_process_of_its_own_whose_death_is_no_death_of_the_worker() {
    for language in &OF_THE_SDKS[..2] {
        let wootz = of_sdk(*language, if language.0 == "php" { "true" } else { "True" });
        let mut client = wootz.connect();
        let kept = wait_for_workers(&wootz, 2);
        let calls: BTreeSet<u32> = (0..10).map(|_| pid(&client.ask("/"))).collect();
        assert_eq!(calls.len(), 10, "each is another process: {language:?}");
        assert!(calls.is_disjoint(&kept), "{language:?}");
        assert_eq!(client.ask("/die"), "failed", "{language:?}");
        assert_ne!(client.ask("/"), "failed", "{language:?}");
        assert_eq!(pids(&wootz), kept, "{language:?}");
        wait_until("the calls have ended", || calls.iter().all(|pid| !process::runs(*pid)).then_some(()));
        wootz.wait_for_no_zombie();
    }
}
