//! wss:// in the server itself: real clients and scanners, certificates that come and go, and all that must be as it is without TLS.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use support::authority::{Authority, Secure, Validity};
use support::daemon::{Nginx, PhpFpm, cookies_of};
use support::raw::{BINARY, CLOSE, PING, PONG, Raw, TEXT, close, frame, handshake, text};
use support::{DEADLINE, Setup, Wootz, installed, process, repository, run, wait_until, wootz};

/// The setting for these certificates of the authority's.
fn files(authority: &Authority, names: &[&str], end: &str) -> String {
    let paths: Vec<_> = names.iter().map(|name| authority.path(&format!("{name}.{end}"))).collect();
    format!("{paths:?}")
}

fn with_tls(setup: Setup, authority: &Authority, names: &[&str]) -> Setup {
    let setup = setup.setting("tls.cert", files(authority, names, "pem"));
    setup.setting("tls.key", files(authority, names, "key"))
}

/// An authority with a certificate for localhost, and a server that shows it.
fn served(setup: Setup) -> (Authority, Wootz) {
    let authority = Authority::new("Test");
    authority.issue("localhost", "localhost");
    let wootz = with_tls(setup, &authority, &["localhost"]).start();
    (authority, wootz)
}

fn echo() -> Setup {
    Setup::command(&["cat"])
}

#[test]
fn python_websockets_talks_keeps_alive_and_closes() {
    let (authority, wootz) = served(echo());
    let printed = run(Command::new(installed("target/tests/venv/bin/python"))
        .arg(repository().join("tests/python/with_websockets.py"))
        .arg(format!("wss://localhost:{}/", wootz.port()))
        .arg(wootz.global_pipe())
        .arg(authority.path("root.pem")));
    assert_eq!(printed.trim_end(), "all right");
}

#[test]
fn console_page_in_chromium_works_by_https() {
    installed("tests/node/node_modules/playwright-core");
    let root = repository();
    let setup = Setup::command(&["sh", "examples/sh/application.sh"])
        .setting("application.directory", format!("{:?}", root.to_str().expect("UTF-8")))
        .dev();
    let (_authority, wootz) = served(setup);
    wootz.wait_for_log(&format!("wootz: console https://{}/", wootz.address()));
    let picture = wootz.path("console.png");
    let printed = run(Command::new("node")
        .arg(root.join("tests/node/console.js"))
        .arg(format!("https://{}/", wootz.address()))
        .arg(wootz.global_pipe())
        .arg(picture));
    assert_eq!(printed.trim_end(), "all right");
}

/// What `openssl s_client` says about a handshake with these options.
fn s_client(authority: &Authority, address: SocketAddr, options: &str) -> (bool, String) {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-servername", "localhost", "-verify_return_error"])
        .arg("-CAfile")
        .arg(authority.path("root.pem"))
        .args(options.split_ascii_whitespace())
        .stdin(Stdio::null())
        .output()
        .expect("openssl");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn openssl_agrees_on_tls_1_2_and_1_3_and_on_nothing_older() {
    let (authority, wootz) = served(echo());
    for (options, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3 -alpn http/1.1", "TLSv1.3")] {
        let (agreed, said) = s_client(&authority, wootz.address(), options);
        assert!(agreed && said.contains(version) && said.contains("Verify return code: 0 (ok)"), "{said}");
    }
    let (_, said) = s_client(&authority, wootz.address(), "-alpn h2,http/1.1");
    assert!(said.contains("ALPN protocol: h2"), "{said}");
    for old in ["-tls1_1 -cipher ALL:@SECLEVEL=0", "-tls1 -cipher ALL:@SECLEVEL=0"] {
        assert!(!s_client(&authority, wootz.address(), old).0, "{old}");
    }
    wootz.wait_for_log_line(&["no TLS", "TLS 1.2"]);
}

/// The value of an attribute in a line of XML.
fn attribute<'l>(line: &'l str, name: &str) -> &'l str {
    let value = line.split_once(&format!(" {name}=\"")).and_then(|(_, rest)| rest.split_once('"'));
    value.unwrap_or_else(|| panic!("no {name} in {line}")).0
}

#[test]
fn sslscan_finds_nothing_weak() {
    let (_authority, wootz) = served(echo());
    // Of the fallback signal it would say that it is not known: TLS 1.3 tells a downgrade by the server's random (RFC 8446, section 4.1.3).
    let scan = ["--xml=-", "--no-fallback", &wootz.address().to_string()];
    let said = run(Command::new("sslscan").args(scan));
    let lines = |element: &str| -> Vec<&str> {
        let start = format!("<{element} ");
        let found: Vec<_> = said.lines().map(str::trim_start).filter(|line| line.starts_with(&start)).collect();
        assert!(!found.is_empty(), "{element}: {said}");
        found
    };
    let versions = lines("protocol");
    let versions = versions
        .iter()
        .map(|line| ["type", "version", "enabled"].map(|name| attribute(line, name)).join(" "))
        .collect::<Vec<_>>();
    assert_eq!(versions, ["ssl 2 0", "ssl 3 0", "tls 1.0 0", "tls 1.1 0", "tls 1.2 1", "tls 1.3 1"]);
    assert!(lines("renegotiation").iter().all(|line| attribute(line, "supported") == "0"), "{said}");
    assert!(lines("heartbleed").iter().all(|line| attribute(line, "vulnerable") == "0"), "{said}");
    assert!(!said.contains("<compression supported=\"1\""), "{said}");
    for cipher in lines("cipher") {
        // TLS 1.3 has none but good ones, which it calls acceptable.
        assert!(["strong", "acceptable"].contains(&attribute(cipher, "strength")), "{cipher}");
        assert!(attribute(cipher, "bits").parse().is_ok_and(|bits: u32| bits >= 128), "{cipher}");
        assert!(
            attribute(cipher, "ecdhebits").parse().is_ok_and(|bits: u32| bits >= 253),
            "not forward secret: {cipher}"
        );
        for weak in ["CBC", "RC4", "DES", "NULL", "MD5", "EXP", "anon", "AES128-SHA", "AES256-SHA\""] {
            assert!(!attribute(cipher, "cipher").contains(weak), "{cipher}");
        }
    }
    assert!(
        lines("group").iter().all(|line| attribute(line, "bits").parse().is_ok_and(|bits: u32| bits >= 128)),
        "{said}"
    );
    assert!(said.contains("<signature-algorithm>ecdsa-with-SHA256<"), "{said}");
    assert!(said.contains("<expired>false<"), "{said}");
}

#[test]
fn clients_of_sslv2_and_sslv3_and_renegotiation_are_refused_with_an_alert() {
    let (authority, wootz) = served(echo());
    let mut other = authority.open(wootz.address());
    let random = [7; 32];
    let ciphers = [0, 0, 4, 0, 47, 0, 53, 1, 0];
    let body = [&[3, 0][..], &random, &ciphers].concat();
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("short");
    let message = [&[1, 0, 0, length(&body)][..], &body].concat();
    let v3 = [&[22, 3, 0, 0, length(&message)][..], &message].concat();
    let v2 = [&[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10][..], &[7, 0, 0xc0].repeat(12)].concat();
    for (name, hello) in [("SSLv2", v2), ("SSLv3", v3)] {
        let mut raw = wootz.raw();
        raw.write(hello);
        let answer = raw.rest();
        // A fatal alert, and nothing else.
        assert!(answer.len() == 7 && answer[0] == 21 && answer[5] == 2, "{name}: {answer:?}");
    }
    wootz.wait_for_log_line(&["no TLS", "TLS 1.2"]);

    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", &wootz.address().to_string(), "-tls1_2"]);
    let mut client =
        client.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("openssl");
    // At the start of a line this is a command: renegotiate.
    let mut input = client.stdin.take().expect("piped");
    input.write_all(b"R\n").expect("it reads");
    let mut said = String::new();
    client.stderr.take().expect("piped").read_to_string(&mut said).expect("UTF-8");
    assert!(said.contains("no renegotiation"), "{said}");
    assert!(!client.wait().expect("a child of ours").success());
    assert_eq!(other.ask("still here"), "still here");
}

/// The lines of a log with all of these.
fn lines_with(wootz: &Wootz, texts: &[&str]) -> usize {
    wootz.log().lines().filter(|line| texts.iter().all(|text| line.contains(text))).count()
}

#[test]
fn certificate_that_ends_soon_is_told_of_once_until_it_is_renewed() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let authority = Authority::new("Test");
    let now = SystemTime::now();
    let days = |from: u32, until: u32| Validity::Between(now - DAY * from, now + DAY * until);
    authority.issue_for("soon", "soon.example", days(80, 6)).issue_for("later", "later.example", days(10, 60));
    // Six days, of which five are left: not late.
    authority.issue_for("short", "short.example", days(1, 5));
    let wootz = with_tls(echo(), &authority, &["soon", "later", "short"]).start();
    wootz.wait_for_log_line(&["WARN", "certificate ends within 7 days", "soon.pem", "soon.example", "days_left=5"]);
    let read_again = |times: usize| {
        wootz.signal(Signal::HUP);
        wait_until("the files are read again", || (lines_with(&wootz, &["SIGHUP"]) == times).then_some(()));
    };
    read_again(1);
    assert_eq!(lines_with(&wootz, &["certificate ends within"]), 1, "{}", wootz.log());
    authority.issue_for("soon", "soon.example", days(0, 3));
    read_again(2);
    // Three days of three.
    assert_eq!(lines_with(&wootz, &["certificate ends within"]), 1, "{}", wootz.log());
    authority.issue_for("soon", "soon.example", days(30, 1));
    read_again(3);
    wootz.wait_for_log_line(&["WARN", "certificate ends within a day", "soon.pem"]);
    assert_eq!(lines_with(&wootz, &["certificate ends within"]), 2, "{}", wootz.log());
    assert_eq!(wootz.status()["certificates"][0]["days_left"], 0);
}

#[test]
fn certificate_that_ends_while_it_is_shown_is_an_error_that_is_told_once_and_connections_stay() {
    let authority = Authority::new("Test");
    // Time enough for the start, also on a busy machine.
    let until = SystemTime::now() + Duration::from_secs(20);
    authority.issue_for("localhost", "localhost", Validity::Between(SystemTime::UNIX_EPOCH, until));
    let wootz = with_tls(echo(), &authority, &["localhost"]).start();
    let mut before = authority.open(wootz.address());
    wootz.wait_for_log_line(&["WARN", "certificate ends within a day", "days_left=0"]);
    // Clients count whole seconds, and the last one is still good to them.
    wait_until("it has ended", || (SystemTime::now() > until + Duration::from_secs(1)).then_some(()));
    wootz.wait_for_log_line(&["ERROR", "certificate has expired", "localhost.pem", "days_left=-1"]);
    assert_eq!(before.ask("still here"), "still here");
    let error = authority.connect(wootz.address(), "localhost", "").err().expect("it has ended");
    assert!(error.to_string().contains("expired"), "{error}");

    // Who asks is told, and what is shown stays.
    wootz.signal(Signal::HUP);
    wootz.wait_for_log_line(&["ERROR", "not reloaded", "expired at"]);
    authority.issue("localhost", "localhost");
    wootz.signal(Signal::HUP);
    wootz.wait_for_log_line(&["certificate reloaded", "localhost"]);
    assert_eq!(authority.open(wootz.address()).ask("a b"), "a b");
    assert_eq!(before.ask("still here"), "still here");
    assert_eq!(lines_with(&wootz, &["certificate has expired"]), 1, "{}", wootz.log());
    assert_eq!(wootz.status()["certificates"][0]["days_left"], 29);
}

#[test]
fn certificate_is_chosen_by_the_name_that_is_asked_for() {
    let authority = Authority::new("Test");
    authority.issue("a", "a.example").issue("b", "b.example");
    let wootz = with_tls(echo(), &authority, &["a", "b"]).start();
    let a = authority.connect(wootz.address(), "a.example", "").expect("TLS");
    let b = authority.connect(wootz.address(), "b.example", "").expect("TLS");
    assert_ne!(a.certificate(), b.certificate());
    let error = authority.connect(wootz.address(), "c.example", "").err().expect("another name");
    assert!(error.to_string().contains("not valid for name"), "{error}");
    wootz.wait_for_log_line(&["no TLS", "alert"]);
}

/// What `wootz check` says to these settings of [tls], and its exit code.
fn check(directory: &Path, lines: &str) -> (Option<i32>, String) {
    let toml = format!("[application]\ncommand = [\"cat\"]\n[tls]\n{lines}\n");
    fs::write(directory.join("wootz.toml"), toml).expect("a file of the test");
    let output = wootz(directory).arg("check").output().expect("the binary");
    let said = [&output.stdout[..], &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
    (output.status.code(), said)
}

#[test]
fn check_names_what_is_wrong_with_a_certificate_or_its_key() {
    let authority = Authority::new("Test");
    authority.issue("localhost", "localhost").issue("other", "localhost");
    authority.issue_for("expired", "localhost", Validity::Until2020);
    fs::write(authority.path("pass"), "secret words\n").expect("a file of the test");
    fs::write(authority.path("wrong"), "other words\n").expect("a file of the test");
    fs::set_permissions(authority.path("pass"), fs::Permissions::from_mode(0o600)).expect("a file of the test");
    authority.openssl("pkcs8 -topk8 -in localhost.key -out locked.key -passout file:pass");
    authority.openssl("ec -aes128 -in localhost.key -out legacy.key -passout file:pass");
    let leaf = authority.openssl("x509 -in localhost.pem");
    fs::write(authority.path("alone.pem"), leaf).expect("a file of the test");
    let directory = tempfile::tempdir().expect("a directory");
    let of = |name: &str| authority.path(name).display().to_string();
    let pair = |cert: &str, key: &str| format!("cert = \"{}\"\nkey = \"{}\"", of(cert), of(key));
    let opened =
        |with: &str| pair("localhost.pem", "locked.key") + &format!("\nkey_passphrase_file = \"{}\"", of(with));

    for (lines, expected) in
        [(pair("localhost.pem", "localhost.key"), "wss://127.0.0.1:8888/"), (opened("pass"), "wss://")]
    {
        let (code, said) = check(directory.path(), &lines);
        assert!(code == Some(0) && said.contains(expected), "{said}");
        assert!(!said.contains("warning"), "{said}");
    }
    let (code, said) = check(directory.path(), &pair("alone.pem", "localhost.key"));
    assert!(code == Some(0) && said.contains("warning: ") && said.contains("chain"), "{said}");

    for (lines, expected) in [
        (pair("localhost.pem", "other.key"), "does not fit"),
        (pair("expired.pem", "expired.key"), "expired at"),
        (pair("localhost.pem", "legacy.key"), "openssl pkcs8 -topk8"),
        (pair("localhost.pem", "locked.key"), "name a file with its passphrase"),
        (opened("wrong"), "does not open this key"),
        (pair("missing.pem", "localhost.key"), "can't be read"),
        (format!("cert = \"{}\"", of("localhost.pem")), "tls.cert needs tls.key too"),
        (format!("key = \"{}\"", of("localhost.key")), "tls.key needs tls.cert too"),
        (format!("cert = [\"a\", \"b\"]\nkey = \"{}\"", of("localhost.key")), "tls.key has 1 for 2 in tls.cert"),
        (format!("key_passphrase_file = \"{}\"", of("pass")), "opens no key"),
        (pair("localhost.pem", "localhost.key") + "\n[listen]\naddress = \"unix:w.ws\"", "is shown to nobody"),
    ] {
        let (code, said) = check(directory.path(), &lines);
        assert_eq!(code, Some(2), "{expected}: {said}");
        assert!(said.contains(expected) && said.contains("wootz.toml:"), "{expected}: {said}");
        assert!(!said.contains("secret words") && !said.contains("other words"), "{said}");
        let started = wootz(directory.path()).arg("serve").output().expect("the binary");
        assert_eq!(started.status.code(), Some(2), "{expected}: {started:?}");
    }
}

#[test]
fn flags_are_enough_and_all_is_announced() {
    let authority = Authority::new("Test");
    authority.issue("localhost", "localhost");
    let [cert, key] = ["pem", "key"].map(|end| authority.path(&format!("localhost.{end}")).display().to_string());
    let setup = echo().setting("listen.address", "[\"127.0.0.1:0\", \"plain:127.0.0.1:0\", \"unix:wootz.ws\"]");
    let setup = ["--tls-cert", &cert, "--tls-key", &key].into_iter().fold(setup, Setup::argument);
    let wootz = setup.start();
    assert_eq!(authority.open(wootz.address()).ask("a b"), "a b");
    let status = wootz.status();
    let places: Vec<_> = status["listen"].as_array().expect("a list").iter().filter_map(|of| of.as_str()).collect();
    assert_eq!(places[0], wootz.address().to_string());
    wootz.wait_for_log(&format!("wootz: serving wss://{}/", places[0]));
    let plain = places[1].strip_prefix("plain:").expect("it is plain");
    wootz.wait_for_log(&format!("wootz: serving ws://{plain}/"));
    assert_eq!(Raw::open(plain.parse().expect("an address")).ask("a b"), "a b");
    let mut unix = std::os::unix::net::UnixStream::connect(wootz.path("wootz.ws")).expect("somebody listens");
    unix.write_all(handshake(wootz.address(), "/", "").as_bytes()).expect("it reads");
    let mut answer = [0; 12];
    unix.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 101");
}

#[test]
fn calls_know_that_the_site_is_secure_and_users_are_who_they_are() {
    let setup = Setup::sh(
        r#"case "$WOOTZ_EVENT" in
        validate) [ "$HTTPS" = on ] && echo "${HTTP_COOKIE#user=}";;
        *) echo "$REMOTE_USER $HTTPS $SERVER_NAME $SERVER_PORT $REMOTE_PORT";;
        esac"#,
    );
    let (authority, wootz) = served(setup.setting("identity.provider", "\"application\""));
    let mut secure = authority.connect(wootz.address(), "localhost", "").expect("TLS");
    let origin = format!("Origin: https://{}\r\nCookie: user=ann\r\n", wootz.address());
    secure.shake_hands(wootz.address(), "/", &origin);
    assert_eq!(secure.ask("who?"), format!("ann on 127.0.0.1 {} {}", wootz.port(), secure.port()));

    let mut secure = authority.connect(wootz.address(), "localhost", "").expect("TLS");
    let request = handshake(wootz.address(), "/", "Cookie: user=bob\r\n");
    secure.write(request.replace(&format!("Host: {}", wootz.address()), "Host: shop.example"));
    assert!(secure.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(secure.ask("who?"), format!("bob on shop.example 443 {}", secure.port()));

    let mut foreign = authority.connect(wootz.address(), "localhost", "").expect("TLS");
    foreign.write(handshake(wootz.address(), "/", "Origin: https://evil.example\r\n"));
    assert!(foreign.head().starts_with("HTTP/1.1 403 "));
    assert!(!foreign.rest().is_empty(), "the answer has a body, and close_notify comes behind it");
}

#[test]
fn long_messages_pass_both_ways_and_many_small_ones_keep_their_order() {
    let (authority, wootz) = served(echo());
    let mut secure = authority.open(wootz.address());
    let long: Vec<u8> = (0..1 << 20).map(|index: u32| index.to_le_bytes()[(index % 3) as usize] | 0x80).collect();
    secure.write(frame(BINARY, &long));
    let reply = secure.frame();
    assert!(reply.first == BINARY && reply.payload == long, "{} bytes", reply.payload.len());
    let messages: Vec<String> = (0..200).map(|number| format!("message {number}")).collect();
    secure.write(messages.iter().flat_map(|message| text(message)).collect::<Vec<_>>());
    for message in &messages {
        assert_eq!(secure.frame().text(), message);
    }
    secure.write(frame(PING, "are you there?"));
    assert_eq!(secure.frame(), support::raw::Frame { first: PONG, payload: b"are you there?".to_vec() });
    secure.write(close(1000, b"done"));
    assert_eq!(secure.close_code(), 1000);
    assert_eq!(secure.rest(), b"");
}

#[test]
fn pushes_reach_tls_and_plain_connections_alike() {
    let setup = echo().setting("listen.address", "[\"127.0.0.1:0\", \"plain:127.0.0.1:0\"]");
    let (authority, wootz) = served(setup);
    let status = wootz.status();
    let plain = status["listen"][1].as_str().and_then(|place| place.strip_prefix("plain:")).expect("it is plain");
    let mut plain = Raw::open(plain.parse().expect("an address"));
    let mut secure: Vec<Secure> = (0..50).map(|_| authority.open(wootz.address())).collect();
    for number in 0..20 {
        wootz.push(format!("push {number} {}\n", "x".repeat(number * 100)));
    }
    for number in 0..20 {
        let expected = format!("push {number} {}", "x".repeat(number * 100));
        assert_eq!(plain.frame().text(), expected);
        for browser in &mut secure {
            assert_eq!(browser.frame().text(), expected);
        }
    }
}

#[test]
fn slow_reader_is_closed_with_1013_and_others_notice_nothing() {
    let (authority, wootz) = served(echo().settings("limits.outbox = \"256KiB\"\nlisten.shards = 1"));
    let mut slow = authority.open(wootz.address());
    rustix::net::sockopt::set_socket_recv_buffer_size(&slow.stream.sock, 64 * 1024).expect("a socket");
    let mut other = authority.open(wootz.address());
    let push = "x".repeat(60_000);
    for _ in 0..200 {
        wootz.push(format!("{push}\n"));
        assert_eq!(other.frame().payload.len(), push.len());
    }
    let is_push = |frame: &support::raw::Frame| frame.first == TEXT && frame.payload.len() == push.len();
    let last = std::iter::repeat_with(|| slow.frame()).find(|frame| !is_push(frame)).expect("endless");
    assert_eq!((last.first, &last.payload[..2]), (CLOSE, &1013_u16.to_be_bytes()[..]));
    assert_eq!(slow.rest(), b"");
}

#[test]
fn browser_that_stops_reading_its_replies_gets_them_all_later() {
    let (authority, wootz) = served(echo().setting("limits.outbox", "\"256KiB\""));
    let mut slow = authority.open(wootz.address());
    rustix::net::sockopt::set_socket_recv_buffer_size(&slow.stream.sock, 64 * 1024).expect("a socket");
    let message = "y".repeat(100_000);
    // More than sockets and queues hold, from a thread of its own: the server stops to read in between.
    let frames: Vec<Vec<u8>> = (0..60).map(|number| text(&format!("{number} {message}"))).collect();
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut sock = slow.stream.sock.try_clone().expect("a socket");
    let encrypted: Vec<Vec<u8>> = frames
        .iter()
        .map(|frame| {
            let mut out = Vec::new();
            for part in frame.chunks(16_000) {
                slow.stream.conn.writer().write_all(part).expect("a buffer");
                slow.stream.conn.write_tls(&mut out).expect("a buffer");
            }
            out
        })
        .collect();
    let writer = std::thread::spawn(move || {
        for bytes in encrypted {
            sock.write_all(&bytes).expect("the server reads");
            sender.send(()).expect("the test waits");
        }
    });
    receiver.recv().expect("the first one is sent");
    for number in 0..60 {
        assert_eq!(slow.frame().text(), format!("{number} {message}"));
    }
    writer.join().expect("it wrote");
    assert_eq!(slow.ask("after"), "after");
}

#[test]
fn plain_http_on_the_tls_port_and_tls_on_a_plain_port_are_told_so() {
    let setup = echo().setting("listen.address", "[\"127.0.0.1:0\", \"plain:127.0.0.1:0\"]");
    let (authority, wootz) = served(setup);
    let answer = wootz.raw().refusal("/", "");
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("wss://"), "{}", answer.body);
    wootz.wait_for_log_line(&["no TLS", "plain HTTP"]);
    let status = wootz.status();
    let plain = status["listen"][1].as_str().and_then(|place| place.strip_prefix("plain:")).expect("it is plain");
    let error = authority.connect(plain.parse().expect("an address"), "localhost", "").err().expect("no TLS there");
    assert!(error.to_string().contains("HandshakeFailure"), "{error}");
    wootz.wait_for_log_line(&["handshake refused", "[tls]"]);
}

#[test]
fn proxy_header_comes_before_tls() {
    let setup = Setup::sh("echo \"$REMOTE_ADDR $REMOTE_PORT $HTTPS\"");
    let setup = setup.settings("listen.proxy_protocol = true\nlisten.trusted_proxies = [\"127.0.0.1\"]");
    let (authority, wootz) = served(setup);
    let header = "PROXY TCP4 203.0.113.7 192.0.2.1 1234 443\r\n";
    let mut secure = authority.connect(wootz.address(), "localhost", header).expect("TLS");
    secure.shake_hands(wootz.address(), "/", "");
    assert_eq!(secure.ask("who?"), "203.0.113.7 1234 on");
    // Header and ClientHello in one piece.
    let mut conn = authority.client("localhost");
    let mut bytes = header.as_bytes().to_vec();
    conn.write_tls(&mut bytes).expect("a buffer");
    let mut sock = TcpStream::connect(wootz.address()).expect("it listens");
    sock.set_read_timeout(Some(DEADLINE)).expect("a socket");
    sock.write_all(&bytes).expect("it reads");
    while conn.is_handshaking() {
        conn.complete_io(&mut sock).expect("TLS");
    }
}

/// A header of version 2 for 203.0.113.7:1234, with what follows the addresses.
fn version_2(more: &[u8]) -> Vec<u8> {
    let length = u16::try_from(12 + more.len()).expect("short").to_be_bytes();
    let addresses = [203, 0, 113, 7, 192, 0, 2, 1, 0x04, 0xd2, 0x01, 0xbb];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], &addresses, more].concat()
}

#[test]
fn proxy_header_before_tls_may_have_tlvs_and_is_refused_forged_cut_or_from_another_peer() {
    let setup = Setup::sh("echo \"$REMOTE_ADDR $REMOTE_PORT $HTTPS\"");
    let setup = setup.settings("listen.proxy_protocol = true\nlisten.trusted_proxies = [\"127.0.0.1\"]");
    let (authority, wootz) = served(setup);
    let hello = client_hello(&authority);
    // What TLS said to the proxy, a name, an id, padding, and a type of somebody's own.
    let tlvs = [
        &[0x20, 0, 5, 1, 0, 0, 0, 0][..],
        b"\x02\0\x0cshop.example",
        b"\x05\0\x04\x01\x02\x03\x04",
        &[4, 0, 2, 0, 0],
        b"\xe0\0\0",
    ];
    let mut sock = TcpStream::connect(wootz.address()).expect("it listens");
    sock.set_read_timeout(Some(DEADLINE)).expect("a socket");
    sock.write_all(&version_2(&tlvs.concat())).expect("it reads");
    let mut secure = Secure { stream: rustls::StreamOwned::new(authority.client("localhost"), sock) };
    secure.shake_hands(wootz.address(), "/", "");
    assert_eq!(secure.ask("who?"), "203.0.113.7 1234 on");

    let refused = || wootz.status()["connections"]["refused_by"]["proxy_protocol"].as_u64().expect("a number");
    let whole = version_2(&[]);
    let cases: [(&str, &str, Vec<u8>); 5] = [
        ("no header", "does not begin with a PROXY header", hello.clone()),
        ("a TLV that is cut", "shorter than its addresses or its TLVs", version_2(&[0x20, 0, 200, 1])),
        (
            "another version",
            "does not exist",
            whole.iter().map(|byte| if *byte == 0x21 { 0x31 } else { *byte }).collect(),
        ),
        ("an address that is none", "not as version 1 says", b"PROXY TCP4 203.0.113.777 192.0.2.1 1 443\r\n".to_vec()),
        ("two lines", "not as version 1 says", b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n\r\nPROXY".to_vec()),
    ];
    for (count, (name, reason, header)) in (1..).zip(cases) {
        let mut raw = wootz.raw();
        // It may be closed before all is written.
        let _ = raw.try_write([&header[..], &hello].concat());
        raw.ends();
        wootz.wait_for_log_line(&["listen.proxy_protocol", reason]);
        assert_eq!(refused(), count, "{name}");
    }
    let before = refused();
    let mut cut = wootz.raw();
    cut.write(&whole[..20]);
    cut.shut_down();
    cut.ends();
    let mut other = Raw::connect_from([127, 0, 0, 2], wootz.address());
    let _ = other.try_write([&whole[..], &hello].concat());
    other.ends();
    wootz.wait_for_log_line(&["listen.trusted_proxies", "127.0.0.2"]);
    wait_until("both are counted", || (refused() == before + 2).then_some(()));
    // Within TLS a header is no more than a bad request.
    let mut within =
        authority.connect(wootz.address(), "localhost", "PROXY TCP4 203.0.113.7 192.0.2.1 1234 443\r\n").expect("TLS");
    within.write(format!("PROXY TCP4 10.0.0.1 192.0.2.1 1 443\r\n{}", handshake(wootz.address(), "/", "")));
    assert!(within.head().starts_with("HTTP/1.1 400 "));
}

#[test]
fn login_of_a_php_site_counts_by_wss_and_php_knows_that_it_is_secure() {
    // Its cookie is for https:// only.
    let fpm = PhpFpm::start(2, "php_admin_value[session.cookie_secure] = 1");
    let script = fpm.script(
        "index.php",
        r#"session_start();
        if (isset($_GET['login'])) { session_regenerate_id(true); $_SESSION = ['id' => 42, 'name' => $_GET['login']]; }
        echo implode(' ', [$_SERVER['REMOTE_USER'] ?? 'guest', $_SESSION['name'] ?? 'nobody', $_SERVER['HTTPS'] ?? 'off', $_SERVER['REQUEST_URI']]);"#,
    );
    let nginx = Nginx::start(&fpm.path(""), &fpm, None);
    let log_in = |name: &str| {
        let page = nginx.request(&format!("GET /?login={name}"), "", "");
        assert!(page.head.to_lowercase().contains("; secure"), "{page:?}");
        cookies_of(&page)
    };
    let setup = Setup::fastcgi(&fpm.address(), &script)
        .setting("identity.session.store", format!("\"files:{}\"", fpm.path("sessions").display()));
    let (authority, wootz) = served(setup);
    let open = |cookie: &str| {
        let mut secure = authority.connect(wootz.address(), "localhost", "").expect("TLS");
        let origin = format!("Origin: https://{}\r\n", wootz.address());
        secure.shake_hands(wootz.address(), "/", &format!("{origin}{cookie}"));
        secure
    };
    let mut ann = open(&format!("Cookie: {}\r\n", log_in("Ann")));
    assert_eq!(ann.ask("/cart?x=1"), "42 Ann on /cart?x=1");
    let mut guest = open("");
    assert_eq!(guest.ask("/cart"), "guest nobody on /cart");
    let mut bob = open(&format!("Cookie: {}\r\n", log_in("Bob")));
    assert_eq!(bob.ask("/whoami"), "42 Bob on /whoami");
    let output = wootz.run(&["push", "--user", "42", "hello"]);
    assert!(output.status.success(), "{output:?}");
    for browser in [&mut ann, &mut bob] {
        assert_eq!(browser.frame().text(), "hello");
    }
    assert_eq!(guest.ask("/still"), "guest nobody on /still");
}

/// The first thing that a browser says.
fn client_hello(authority: &Authority) -> Vec<u8> {
    let mut hello = Vec::new();
    authority.client("localhost").write_tls(&mut hello).expect("a buffer");
    hello
}

#[test]
fn handshake_that_stalls_anywhere_is_ended_and_one_byte_by_byte_is_not() {
    let (authority, wootz) = served(echo().setting("limits.handshake_timeout", "\"2s\""));
    let hello = client_hello(&authority);
    let lengths = (0..80).chain((80..hello.len()).step_by(97)).chain([hello.len()]);
    let mut stalled: Vec<Raw> = lengths
        .map(|length| {
            let mut raw = wootz.raw();
            raw.write(&hello[..length]);
            raw
        })
        .collect();
    let mut conn = authority.client("localhost");
    let mut sock = TcpStream::connect(wootz.address()).expect("it listens");
    sock.set_read_timeout(Some(DEADLINE)).expect("a socket");
    sock.set_nodelay(true).expect("a socket");
    let mut bytes = Vec::new();
    conn.write_tls(&mut bytes).expect("a buffer");
    for byte in bytes {
        sock.write_all(&[byte]).expect("the server reads");
    }
    while conn.is_handshaking() {
        conn.complete_io(&mut sock).expect("TLS");
    }
    for raw in &mut stalled {
        // Only the whole ClientHello gets an answer; none gets HTTP.
        assert!(!raw.rest().starts_with(b"HTTP"));
    }
    let mut other = authority.open(wootz.address());
    assert_eq!(other.ask("a b"), "a b");
    assert_eq!(wootz.status()["connections"]["open"], 1);
}

/// Lets this process and the servers that it starts have as many descriptors as they may; gives how many these are.
fn raise_descriptors() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("up to the hard limit");
    limit.maximum.unwrap_or(u64::MAX)
}

/// Where a stalled handshake has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stall {
    /// Not one byte.
    Silent,
    /// Within the ClientHello.
    HalfHello,
    /// The whole ClientHello and no Finished, though the server has answered.
    NoFinished,
}

/// So many handshakes that stall in each way in turn. A server that has closed one already is no failure.
fn stall(wootz: &Wootz, hello: &[u8], numbers: std::ops::Range<usize>) -> Vec<(Stall, Raw)> {
    let each = |number: usize| {
        let mut raw = wootz.raw();
        let (stall, said) = match number % 3 {
            0 => (Stall::Silent, 0),
            1 => (Stall::HalfHello, 1 + number % (hello.len() - 1)),
            _ => (Stall::NoFinished, hello.len()),
        };
        let _ = raw.try_write(&hello[..said]);
        (stall, raw)
    };
    numbers.map(each).collect()
}

#[test]
fn five_thousand_stalled_handshakes_keep_nobody_out() {
    let room = (raise_descriptors() / 4).min(5000);
    let (authority, wootz) = served(echo().settings("limits.handshake_timeout = \"10m\"\npipes.requests = false"));
    let mut open: Vec<Secure> = (0..10).map(|_| authority.open(wootz.address())).collect();
    let hello = client_hello(&authority);
    let mut stalled = Vec::new();
    for hundred in 0..50 {
        stalled.extend(stall(&wootz, &hello, hundred * 100..(hundred + 1) * 100));
        assert_eq!(open[hundred % 10].ask("ping"), "pong");
        assert_eq!(authority.open(wootz.address()).ask("ping"), "pong");
    }
    for browser in &mut open {
        assert_eq!(browser.ask("a b"), "a b");
    }
    assert_eq!(authority.open(wootz.address()).ask("c d"), "c d");
    // A quarter of the open files is for them, shared by the shards. Above it the oldest are closed, never the younger half.
    let closed = wootz.status()["connections"]["refused_by"]["max_handshakes"].as_u64().expect("a number");
    assert!(5000 - closed >= room * 9 / 10, "{closed} were closed, where there is room for {room}");
    let younger = 5000 - usize::try_from(room / 2).expect("a small number");
    for (stall, raw) in stalled[younger..].iter_mut().step_by(32) {
        if *stall == Stall::NoFinished {
            let mut answer = [0];
            raw.stream().peek(&mut answer).expect("a ServerHello");
            assert_eq!(answer, [22]);
        } else {
            assert!(!raw.ended_within(Duration::from_millis(1)), "{stall:?} was thrown out");
        }
    }
    let memory = process::peak_memory_bytes(wootz.pid());
    assert!(memory < 150 << 20, "{memory} bytes of memory");
    drop(stalled);
    wait_until("their descriptors are closed", || (process::descriptors(wootz.pid()) < 200).then_some(()));
    wait_until("only ten are left", || (wootz.status()["connections"]["open"] == 10).then_some(()));
    assert_eq!(authority.open(wootz.address()).ask("e f"), "e f");
}

#[test]
fn of_more_stalled_handshakes_than_may_be_the_oldest_are_closed() {
    raise_descriptors();
    let (authority, wootz) = served(
        echo().settings("limits.handshake_timeout = \"10m\"\npipes.requests = false\nlimits.max_handshakes = 1500"),
    );
    let mut open: Vec<Secure> = (0..20).map(|_| authority.open(wootz.address())).collect();
    let hello = client_hello(&authority);
    let stalled = stall(&wootz, &hello, 0..2000);
    for browser in &mut open {
        assert_eq!(browser.ask("a b"), "a b");
    }
    for _ in 0..20 {
        assert_eq!(authority.open(wootz.address()).ask("c d"), "c d");
    }
    wait_until("the oldest are closed", || {
        (wootz.status()["connections"]["refused_by"]["max_handshakes"].as_u64() >= Some(500)).then_some(())
    });
    drop(stalled);
}

#[test]
fn garbage_within_tls_ends_one_connection_and_close_notify_is_its_end() {
    let (authority, wootz) = served(echo());
    let mut other = authority.open(wootz.address());
    let mut torn = authority.open(wootz.address());
    torn.stream.sock.write_all(b"\x17\x03\x03\x00\x20no record of this connection's...").expect("it reads");
    let error = torn.stream.read_to_end(&mut Vec::new()).expect_err("an alert");
    assert!(error.to_string().contains("alert"), "{error}");
    let mut too_long = wootz.raw();
    too_long.write([&[22, 3, 1, 0xff, 0xff][..], &[0; 3000]].concat());
    too_long.rest();
    let mut leaving = authority.open(wootz.address());
    leaving.stream.conn.send_close_notify();
    leaving.stream.flush().expect("the server reads");
    assert_eq!(leaving.rest(), b"");
    wait_until("only one is left", || (wootz.status()["connections"]["open"] == 1).then_some(()));
    assert_eq!(other.ask("a b"), "a b");
}

#[test]
fn end_of_the_server_is_said_by_both_protocols() {
    let (authority, mut wootz) = served(echo());
    let mut secure = authority.open(wootz.address());
    wootz.signal(Signal::TERM);
    assert_eq!(secure.close_code(), 1001);
    secure.write(close(1001, b""));
    assert_eq!(secure.rest(), b"");
    assert_eq!(wootz.wait().code(), Some(0));
}
