//! Where a server listens: several addresses at once, Unix sockets with their rights, and the sockets of systemd.

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use support::authority::Authority;
use support::daemon::{Daemon, free_address};
use support::raw::{Raw, handshake, text};
use support::{DEADLINE, Setup, Wootz, mode, wait_until};

/// Opens a WebSocket on a Unix socket and gives the reply to a message.
fn ask_unix(path: &Path, message: &str) -> String {
    let mut stream = UnixStream::connect(path).expect("somebody listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    stream.write_all(handshake(([127, 0, 0, 1], 80).into(), "/", "").as_bytes()).expect("it reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} within {head:?}"));
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
    stream.write_all(&text(message)).expect("it reads");
    let mut header = [0; 2];
    stream.read_exact(&mut header).expect("a frame");
    let mut payload = vec![0; usize::from(header[1])];
    stream.read_exact(&mut payload).expect("a whole frame");
    String::from_utf8(payload).expect("UTF-8")
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// All places in the server's status.
fn places(wootz: &Wootz) -> Vec<String> {
    let status = wootz.status();
    let places = status["listen"].as_array().expect("a list");
    places.iter().map(|place| place.as_str().expect("a text").to_owned()).collect()
}

#[test]
fn one_server_serves_several_addresses_and_all_are_announced() {
    let setup = Setup::command(&["cat"]).setting("listen.shards", "3");
    let socket = setup.path("wootz.ws");
    let list = format!("[\"127.0.0.1:0\", \"127.0.0.1:0\", \"unix:{}\"]", socket.display());
    let wootz = setup.setting("listen.address", list).start();
    let places = places(&wootz);
    assert_eq!(places.len(), 3, "{places:?}");
    wootz.wait_for_log(&format!("wootz: serving unix:{}", socket.display()));
    for place in &places[..2] {
        let mut raw = Raw::open(place.parse().expect("an address"));
        assert_eq!(raw.ask("a b"), "a b");
        wootz.wait_for_log(&format!("ws://{place}/"));
    }
    assert_ne!(places[0], places[1]);
    for _ in 0..20 {
        assert_eq!(ask_unix(&socket, "a b"), "a b");
    }
    assert_eq!(places[2], format!("unix:{}", socket.display()));
    drop(wootz);
    assert!(!socket.exists());
}

#[test]
fn ipv6_is_served_where_the_machine_has_it() {
    let has_ipv6 = match TcpListener::bind("[::1]:0") {
        Ok(_) => true,
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::Unsupported), "{error}");
            false
        }
    };
    let setup = Setup::sh("echo \"$REMOTE_ADDR\"").setting("listen.address", "[\"127.0.0.1:0\", \"[::1]:0\"]");
    if !has_ipv6 {
        let output = setup.refused();
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("[::1]:0"), "{}", said(&output));
        return;
    }
    let wootz = setup.start();
    let place = places(&wootz).pop().expect("two places");
    let mut raw = Raw::open(place.parse().expect("an address"));
    assert_eq!(raw.ask("who?"), "::1");
    assert_eq!(wootz.pipe_of(raw.port()), format!(":::1:{}.fifo", raw.port()));
    let mut other = wootz.open();
    assert_eq!(other.ask("who?"), "127.0.0.1");
}

#[test]
fn unix_socket_has_the_mode_and_group_that_were_asked_for() {
    for (settings, expected) in [("", 0o660), ("listen.unix_mode = \"0600\"\nlisten.unix_group = \"root\"", 0o600)] {
        // Only root gives files away, and it gives its own group to itself.
        let settings = if rustix::process::geteuid().is_root() {
            settings.to_owned()
        } else {
            settings.replace("listen.unix_group = \"root\"", "")
        };
        let setup = Setup::command(&["cat"]).settings(&settings).umask("0077");
        let wootz = setup.setting("listen.address", "[\"127.0.0.1:0\", \"unix:wootz.ws\"]").start();
        let socket = wootz.path("wootz.ws");
        assert_eq!(mode(&socket), expected);
        assert_eq!(fs::metadata(&socket).expect("it is there").uid(), rustix::process::geteuid().as_raw());
        assert_eq!(ask_unix(&socket, "a b"), "a b");
    }
}

#[test]
fn socket_of_an_ended_server_is_replaced_and_one_of_a_living_server_or_of_somebody_else_is_not() {
    let setup = Setup::command(&["cat"]).setting("listen.address", "[\"127.0.0.1:0\", \"unix:wootz.ws\"]");
    drop(UnixListener::bind(setup.path("wootz.ws")).expect("a free name"));
    let wootz = setup.start();
    let socket = wootz.path("wootz.ws");
    assert_eq!(ask_unix(&socket, "a b"), "a b");

    let second = Setup::command(&["cat"]).setting("listen.address", format!("\"unix:{}\"", socket.display()));
    let output = second.refused();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains(&socket.display().to_string()) && said(&output).contains("listen.address"),
        "{}",
        said(&output)
    );
    assert_eq!(ask_unix(&socket, "c d"), "c d");

    type Put = fn(&Path);
    let places: [(&str, Put); 3] = [
        ("a file", |path| fs::write(path, "mine").expect("a file")),
        ("a directory", |path| fs::create_dir(path).expect("a directory")),
        ("a link", |path| std::os::unix::fs::symlink("nowhere", path).expect("a link")),
    ];
    for (name, place) in places {
        let foreign = Setup::command(&["cat"]).setting("listen.address", "\"unix:wootz.ws\"");
        place(&foreign.path("wootz.ws"));
        let output = foreign.refused();
        assert_eq!(output.status.code(), Some(1), "{name}: {}", said(&output));
        assert!(said(&output).contains("not replaced"), "{name}: {}", said(&output));
        let kept = fs::symlink_metadata(foreign.path("wootz.ws")).expect("it is still there");
        assert!(!kept.file_type().is_socket(), "{name}");
    }
}

#[test]
fn server_that_was_killed_leaves_a_socket_that_the_next_one_takes_over() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("wootz.ws");
    let start = || {
        let mut command = support::wootz(directory.path());
        command.args(["serve", "--listen", "unix:wootz.ws", "--", "cat"]);
        Daemon::start(&mut command)
    };
    let first = start();
    wait_until("the first serves", || first.log().contains("wootz: serving unix:").then_some(()));
    first.signal(Signal::KILL);
    drop(first);
    assert!(socket.exists());
    let second = start();
    wait_until("the second serves", || second.log().contains("wootz: serving unix:").then_some(()));
    assert_eq!(ask_unix(&socket, "a b"), "a b");
    drop(second);
    assert!(!socket.exists());
}

#[test]
fn address_without_a_place_is_refused() {
    for (address, code, words) in [
        ("\"systemd\"", 1, ".socket"),
        ("\"unix:/no/such/directory/wootz.ws\"", 2, "/no/such/directory"),
        ("\"unix:\"", 2, "unix:"),
        ("[]", 2, "listen.address"),
        ("[\"127.0.0.1:1\", \"127.0.0.1:1\"]", 2, "twice"),
    ] {
        let output = Setup::command(&["cat"]).setting("listen.address", address).refused();
        assert_eq!(output.status.code(), Some(code), "{address}: {}", said(&output));
        assert!(said(&output).contains(words), "{address}: {}", said(&output));
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let list = format!("[\"127.0.0.1:0\", \"unix:wootz.ws\", \"{}\"]", taken.local_addr().expect("bound"));
    let setup = Setup::command(&["cat"]).setting("listen.address", list);
    let output = setup.refused();
    assert_eq!(output.status.code(), Some(18), "{}", said(&output));
    assert!(!setup.path("wootz.ws").exists(), "nothing is left of a start that failed");
}

#[test]
fn sockets_of_systemd_are_served_and_no_call_and_no_helper_holds_them() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (address, socket) = (free_address(), directory.path().join("wootz.ws"));
    let script = "ls -l /proc/$$/fd | grep -c socket:; echo \"${LISTEN_FDS-none}\"";
    let mut command = Command::new("systemd-socket-activate");
    command.arg("-l").arg(address.to_string()).arg("-l").arg(&socket).arg(env!("CARGO_BIN_EXE_wootz"));
    command.args([
        "serve",
        "--listen",
        "systemd",
        "--set",
        "listen.shards=2",
        "--set",
        "application.pass_environment=PATH,LISTEN_FDS",
    ]);
    command.args(["--", "sh", "-c", script]).current_dir(directory.path());
    let mut daemon = Daemon::start(&mut command);
    let mut raw = daemon
        .wait_for("systemd listens", || std::net::TcpStream::connect(address).ok().map(|_| Raw::connect(address)));
    // This wakes the server, which finds it waiting.
    raw.shake_hands("/", "");
    assert_eq!(raw.ask("which?"), "0\nnone");
    for _ in 0..10 {
        assert_eq!(Raw::open(address).ask("which?"), "0\nnone");
        assert_eq!(ask_unix(&socket, "which?"), "0\nnone");
    }
    let sockets = listening_sockets(daemon.pid());
    assert!(!sockets.is_empty());
    for child in support::process::children_of(daemon.pid()) {
        let held = links(child).into_iter().filter(|link| sockets.contains(link)).count();
        assert_eq!(held, 0, "{:?}", support::process::Process::of(child));
    }
    drop((raw, daemon));
    // Its maker is who removes it.
    assert!(socket.exists());
}

#[test]
fn tls_is_spoken_on_a_tcp_socket_of_systemd_and_not_on_a_unix_socket_of_it() {
    let authority = Authority::new("Test");
    authority.issue("localhost", "localhost");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (address, socket) = (free_address(), directory.path().join("wootz.ws"));
    let mut command = Command::new("systemd-socket-activate");
    command.arg("-l").arg(address.to_string()).arg("-l").arg(&socket).arg(env!("CARGO_BIN_EXE_wootz"));
    command.args(["serve", "--listen", "systemd", "--set", "listen.shards=2"]);
    command
        .arg("--tls-cert")
        .arg(authority.path("localhost.pem"))
        .arg("--tls-key")
        .arg(authority.path("localhost.key"));
    command.args(["--", "sh", "-c", "echo \"${HTTPS-off}\""]).current_dir(directory.path());
    let mut daemon = Daemon::start(&mut command);
    // The first to come wakes the server.
    let first = daemon.wait_for("systemd listens", || std::net::TcpStream::connect(address).ok());
    for _ in 0..10 {
        assert_eq!(authority.open(address).ask("secure?"), "on");
        assert_eq!(ask_unix(&socket, "secure?"), "off");
    }
    let mut plain = Raw::connect(address);
    let answer = plain.refusal("/", "");
    assert!(answer.status == 400 && answer.body.contains("wss://"), "{answer:?}");
    let log = daemon.log();
    assert!(log.contains(&format!("wootz: serving wss://{address}/")), "{log}");
    drop((first, plain, daemon));
}

/// What the descriptors of a process are.
fn links(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.map(|link| link.display().to_string()).collect()
}

/// Those of them that listen: the first two that systemd hands over.
fn listening_sockets(pid: u32) -> Vec<String> {
    let link = |descriptor: u32| fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).ok();
    [3, 4].into_iter().filter_map(link).map(|link| link.display().to_string()).collect()
}
