//! Sessions in Redis: phpredis writes them, wootz reads them.
#![cfg(feature = "redis")]

mod support;

use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use rustix::process::Signal;
use support::{Daemon, id, impatient, patient, php, recheck, record, refused, run, said, store, text, text_at_last};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wootz_session::store::{Recheck, StoreError, StoreOptions, StoreSettings};

const ID: &str = "5e55104abcdef";
const KEY: &str = "PHPREDIS_SESSION:5e55104abcdef";
const PASSWORD: &str = "s3cret/w?rd";
const ENCODED_PASSWORD: &str = "s3cret%2Fw%3Frd";

/// Debian's Redis on a port and a Unix socket of its own.
struct Redis {
    daemon: Option<Daemon>,
    port: u16,
    directory: TempDir,
    arguments: Vec<String>,
}

impl Redis {
    fn start(arguments: &[&str]) -> Self {
        let directory = support::directory();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let command = |port| command(port, directory.path(), &arguments);
        let (daemon, port) = Daemon::start_on_port(command, "Ready to accept connections", Signal::TERM);
        Self { daemon: Some(daemon), port, directory, arguments }
    }

    fn stop(&mut self) {
        self.daemon = None;
    }

    fn start_again(&mut self) {
        let command = command(self.port, self.directory.path(), &self.arguments);
        self.daemon = Some(Daemon::start(command, "Ready to accept connections", Signal::TERM));
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn socket(&self) -> String {
        self.directory.path().join("redis.sock").display().to_string()
    }

    /// What redis-cli prints for a command.
    fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        run(command.args(["-p", &self.port.to_string()]).args(arguments))
    }

    /// PHP stores a session where this `session.save_path` says.
    fn php(save_path: &str, id: &str, code: &str) {
        let settings = [("session.save_handler", "redis"), ("session.save_path", save_path)];
        run(&mut php(&settings, &format!("session_id($argv[1]); session_start(); {code}"), &[id]));
    }
}

fn command(port: u16, directory: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
    command.arg(directory).arg("--unixsocket").arg(directory.join("redis.sock")).args(arguments);
    command
}

#[tokio::test]
async fn sessions_that_phpredis_writes_are_read_by_port_and_by_unix_socket() {
    let redis = Redis::start(&[]);
    let tcp = format!("tcp://127.0.0.1:{}", redis.port);
    Redis::php(&tcp, ID, "$_SESSION['id'] = 42;");
    for url in [redis.url(), tcp, format!("redis+unix://{}", redis.socket()), format!("unix://{}", redis.socket())] {
        let store = store(&url, patient());
        assert_eq!(text(&store, &id(ID)).await, "id|i:42;", "{url}");
        assert_eq!(store.read(&id("another")).await, Ok(None));
    }
}

#[tokio::test]
async fn prefix_database_and_password_are_those_of_the_sites_save_path() {
    let redis = Redis::start(&["--requirepass", PASSWORD]);
    let save_path =
        format!("tcp://127.0.0.1:{}?auth={ENCODED_PASSWORD}&database=3&prefix=site%3A&weight=1", redis.port);
    Redis::php(&save_path, ID, "$_SESSION['id'] = 42;");
    let short = format!("redis://:{ENCODED_PASSWORD}@127.0.0.1:{}", redis.port);
    for url in [save_path, format!("{short}/3?prefix=site:"), format!("{short}?db=3&prefix=site%3A")] {
        assert_eq!(text(&store(&url, patient()), &id(ID)).await, "id|i:42;");
    }
    for url in [format!("{short}/3"), format!("{short}/0?prefix=site:")] {
        assert_eq!(store(&url, patient()).read(&id(ID)).await, Ok(None));
    }
}

#[tokio::test]
async fn a_user_of_the_acl_needs_four_commands() {
    let redis = Redis::start(&[]);
    redis.cli(&["SET", KEY, "id|i:1;"]);
    redis.cli(&[
        "ACL",
        "SETUSER",
        "wootz",
        "on",
        ">s3cret",
        "~PHPREDIS_SESSION:*",
        "+get",
        "+mget",
        "+getrange",
        "+exists",
    ]);
    let url = format!("redis://wootz:s3cret@127.0.0.1:{}", redis.port);
    let all = store(&url, patient());
    let version = record(&all, &id(ID)).await.version;
    assert!(matches!(recheck(&all, &id(ID), version).await, Recheck::Same));
    redis.cli(&["ACL", "SETUSER", "wootz", "-getrange"]);
    let error = refused(all.read(&id(ID)).await);
    assert!(matches!(error, StoreError::Denied(_)) && said(&error).contains("+getrange"), "{error}");
}

#[tokio::test]
async fn a_certificate_of_the_sites_own_authority_is_verified() {
    let certificates = support::directory();
    let path = |name: &str| certificates.path().join(name).display().to_string();
    let (key, certificate) = (path("key.pem"), path("certificate.pem"));
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", &key, "-out", &certificate]));
    let directory = support::directory();
    let tls = |port: u16| {
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--bind", "127.0.0.1", "--save", "", "--tls-port", &port.to_string()]);
        command.args(["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-auth-clients", "no", "--dir"]);
        command.arg(directory.path()).arg("--unixsocket").arg(directory.path().join("redis.sock"));
        command
    };
    let (_daemon, port) = Daemon::start_on_port(tls, "Ready to accept connections", Signal::TERM);
    let socket = directory.path().join("redis.sock");
    run(Command::new("redis-cli").arg("-s").arg(&socket).args(["SET", KEY, "id|i:1;"]));

    let trusted = store(&format!("rediss://127.0.0.1:{port}?ca={certificate}"), patient());
    assert_eq!(text(&trusted, &id(ID)).await, "id|i:1;");
    let error = refused(store(&format!("rediss://127.0.0.1:{port}"), patient()).read(&id(ID)).await);
    assert!(matches!(error, StoreError::Unreachable(_)) && said(&error).contains("?ca=/"), "{error:?}");
    let missing = StoreSettings::parse(&format!("rediss://127.0.0.1:{port}?ca=/nowhere.pem")).expect("well written");
    let error = wootz_session::store::Store::new(missing, patient()).expect_err("there is no such file");
    assert!(matches!(error, StoreError::Settings(_)) && said(&error).contains("/nowhere.pem"), "{error:?}");
}

#[tokio::test]
async fn an_empty_session_is_one_and_what_is_too_large_or_no_string_is_an_error() {
    let redis = Redis::start(&[]);
    redis.cli(&["SET", KEY, ""]);
    redis.cli(&["SET", "PHPREDIS_SESSION:largest", &"x".repeat(1000)]);
    redis.cli(&["SET", "PHPREDIS_SESSION:larger", &"x".repeat(1001)]);
    redis.cli(&["SETRANGE", "PHPREDIS_SESSION:huge", "100000000", "x"]);
    redis.cli(&["LPUSH", "PHPREDIS_SESSION:list", "x"]);
    let store = store(&redis.url(), StoreOptions { max_bytes: 1000, ..patient() });
    assert_eq!(text(&store, &id(ID)).await, "");
    let largest = record(&store, &id("largest")).await;
    assert_eq!(largest.data.len(), 1000);
    for name in ["larger", "huge"] {
        let error = refused(store.read(&id(name)).await);
        assert!(matches!(error, StoreError::TooLarge { bytes: 1001, max_bytes: 1000, .. }), "{error:?}");
    }
    let error = refused(store.read(&id("list")).await);
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    redis.cli(&["SET", "PHPREDIS_SESSION:largest", &"x".repeat(1001)]);
    let found = recheck(&store, &id("largest"), largest.version).await;
    assert!(matches!(found, Recheck::Unreadable(StoreError::TooLarge { .. })), "{found:?}");
}

#[tokio::test]
async fn recheck_tells_what_has_become_of_each_session() {
    let redis = Redis::start(&[]);
    let store = store(&redis.url(), patient());
    let names: Vec<String> = (0..250).map(|number| format!("s{number}")).collect();
    let keys =
        names.iter().flat_map(|name| [format!("PHPREDIS_SESSION:{name}"), format!("id|s:{}:\"{name}\";", name.len())]);
    let arguments: Vec<String> = std::iter::once("MSET".to_owned()).chain(keys).collect();
    redis.cli(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let mut known = Vec::new();
    for name in &names {
        known.push((id(name), record(&store, &id(name)).await.version));
    }
    let save_path = format!("tcp://127.0.0.1:{}", redis.port);
    Redis::php(&save_path, "s7", "$_SESSION['id'] = 2;");
    Redis::php(&save_path, "s120", "session_destroy();");
    Redis::php(&save_path, "s249", "session_regenerate_id(true);");
    Redis::php(&save_path, "s30", "");
    let found = store.recheck(&known).await.expect("Redis is there");
    for (number, found) in found.iter().enumerate() {
        match number {
            7 => assert!(matches!(found, Recheck::Changed(record) if record.data == "id|i:2;"), "{found:?}"),
            120 | 249 => assert!(matches!(found, Recheck::Gone), "{number}: {found:?}"),
            _ => assert!(matches!(found, Recheck::Same), "{number}: {found:?}"),
        }
    }
    assert_eq!(found.len(), 250);
}

#[tokio::test]
async fn redis_that_is_down_is_tried_again_and_one_that_restarts_is_not_noticed() {
    let mut redis = Redis::start(&[]);
    redis.stop();
    let store = store(&redis.url(), patient());
    let error = refused(store.read(&id(ID)).await);
    assert!(
        matches!(error, StoreError::Unreachable(_)) && said(&error).contains("identity.session.store"),
        "{error:?}"
    );
    assert!(matches!(
        refused(store.recheck(&[]).await.and_then(|_| Err::<(), _>(error.clone()))),
        StoreError::Unreachable(_)
    ));
    redis.start_again();
    redis.cli(&["SET", KEY, "id|i:1;"]);
    assert_eq!(text_at_last(&store, &id(ID)).await, "id|i:1;");
    redis.stop();
    redis.start_again();
    redis.cli(&["SET", KEY, "id|i:2;"]);
    assert_eq!(text(&store, &id(ID)).await, "id|i:2;", "the dead connection is nobody's error");
    redis.stop();
    assert!(matches!(refused(store.read(&id(ID)).await), StoreError::Unreachable(_)));
}

#[tokio::test]
async fn redis_that_is_slow_is_given_up_at_the_deadline() {
    let redis = Redis::start(&[]);
    redis.cli(&["SET", KEY, "id|i:1;"]);
    let store = store(&redis.url(), impatient());
    assert_eq!(text_at_last(&store, &id(ID)).await, "id|i:1;");
    redis.cli(&["CLIENT", "PAUSE", "100000000", "ALL"]);
    let error = refused(store.read(&id(ID)).await);
    assert!(matches!(error, StoreError::Slow(_)) && said(&error).contains("300 ms"), "{error:?}");
}

#[tokio::test]
async fn redis_that_hangs_as_a_whole_and_goes_on_is_read_again() {
    let redis = Redis::start(&[]);
    redis.cli(&["SET", KEY, "id|i:1;"]);
    let store = store(&redis.url(), impatient());
    assert_eq!(text_at_last(&store, &id(ID)).await, "id|i:1;");
    let daemon = redis.daemon.as_ref().expect("it runs");
    daemon.signal(Signal::STOP);
    let error = refused(store.read(&id(ID)).await);
    daemon.signal(Signal::CONT);
    assert!(matches!(error, StoreError::Slow(_)), "{error:?}");
    assert_eq!(text_at_last(&store, &id(ID)).await, "id|i:1;");
}

#[tokio::test]
async fn a_password_that_is_missing_or_wrong_is_named_and_never_shown() {
    let redis = Redis::start(&["--requirepass", PASSWORD]);
    for url in [
        redis.url(),
        format!("{}?db=2", redis.url()),
        format!("redis://:s3cret@127.0.0.1:{}/2", redis.port),
        format!("redis://alice:s3cret@127.0.0.1:{}", redis.port),
    ] {
        let error = refused(store(&url, patient()).read(&id(ID)).await);
        assert!(matches!(error, StoreError::Denied(_)) && !error.is_temporary(), "{url}: {error:?}");
        assert!(said(&error).contains("redis://:password@host"), "{error}");
    }
    let open = Redis::start(&[]);
    let error = refused(store(&format!("redis://:s3cret@127.0.0.1:{}", open.port), patient()).read(&id(ID)).await);
    assert!(matches!(error, StoreError::Denied(_)), "{error:?}");
    let error = refused(store(&format!("{}/99", open.url()), patient()).read(&id(ID)).await);
    assert!(matches!(error, StoreError::Settings(_)), "{error:?}");
}

#[tokio::test]
async fn a_password_that_is_set_later_is_asked_for_again() {
    let redis = Redis::start(&[]);
    redis.cli(&["SET", KEY, "id|i:1;"]);
    let store = store(&redis.url(), patient());
    assert_eq!(text(&store, &id(ID)).await, "id|i:1;");
    redis.cli(&["CONFIG", "SET", "requirepass", PASSWORD]);
    redis.cli(&["-a", PASSWORD, "--no-auth-warning", "CLIENT", "KILL", "TYPE", "normal"]);
    let error = refused(store.read(&id(ID)).await);
    assert!(matches!(error, StoreError::Denied(_)), "{error:?}");
}

#[tokio::test]
async fn a_command_that_redis_does_not_know_is_told_without_its_arguments() {
    let redis = Redis::start(&["--rename-command", "GETRANGE", ""]);
    let error = refused(store(&redis.url(), patient()).read(&id(ID)).await);
    assert!(said(&error).contains("unknown command 'GETRANGE'"), "{error}");
}

/// Something on a port that is no good Redis: each connection gets this answer to what it says first.
async fn impostor(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::task::spawn_local(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let mut request = [0; 4096];
                while let Ok(1..) = socket.read(&mut request).await {
                    if answer == "close" || socket.write_all(answer.as_bytes()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    format!("redis://{address}")
}

#[tokio::test(flavor = "local")]
async fn every_answer_that_is_none_has_its_kind() {
    let kind = |error: &StoreError| match error {
        StoreError::Settings(_) => "settings",
        StoreError::Unreachable(_) => "unreachable",
        StoreError::Failed(_) => "failed",
        other => panic!("{other:?}"),
    };
    for (answer, expected) in [
        ("-LOADING Redis is loading the dataset in memory\r\n-LOADING Redis is loading\r\n", "failed"),
        ("-MASTERDOWN Link with MASTER is down\r\n-MASTERDOWN Link with MASTER is down\r\n", "failed"),
        ("-MOVED 3999 127.0.0.1:6381\r\n-MOVED 3999 127.0.0.1:6381\r\n", "settings"),
        ("-ERR 5e55104abcdef is not what it seems\r\n-ERR no\r\n", "failed"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "unreachable"),
        ("close", "unreachable"),
    ] {
        let url = impostor(answer).await;
        let error = refused(store(&url, patient()).read(&id(ID)).await);
        assert_eq!(kind(&error), expected, "{answer:?}: {error:?}");
        assert!(said(&error).contains("identity.session.store"), "{error}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_crowd_of_reads_shares_one_connection() {
    let redis = Redis::start(&[]);
    redis.cli(&["SET", KEY, "id|i:1;"]);
    let connections = || -> u32 {
        let stats = redis.cli(&["INFO", "stats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        line.expect("Redis counts them").trim().parse().expect("a number")
    };
    let before = connections();
    let store = Rc::new(store(&redis.url(), patient()));
    let reads: Vec<_> = (0..50)
        .map(|_| {
            let store = Rc::clone(&store);
            tokio::task::spawn_local(async move { text(&store, &id(ID)).await })
        })
        .collect();
    for read in reads {
        assert_eq!(read.await.expect("it does not panic"), "id|i:1;");
    }
    assert_eq!(connections() - before, 2, "one, and redis-cli's own");
}
