//! Who the browser is behind proxies: what those of Debian tell is believed where they are trusted, and what anybody else tells never is.

mod support;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use support::daemon::{Daemon, free_address};
use support::raw::{Raw, handshake};
use support::{Setup, Wootz, run, wait_until};
use tempfile::TempDir;

/// A browser that is not on the address of the proxies.
const BROWSER: [u8; 4] = [127, 0, 0, 2];

/// An application that says whom it sees.
fn who() -> Setup {
    Setup::sh("echo \"$REMOTE_ADDR $REMOTE_PORT\"")
}

/// The same behind proxies on this address of the machine, of which only this one is trusted.
fn behind_a_proxy() -> Setup {
    who().setting("listen.trusted_proxies", "[\"127.0.0.1\"]")
}

/// Whom the application sees behind a connection with these fields.
fn seen(wootz: &Wootz, fields: &str) -> String {
    Raw::open_with(wootz.address(), "/", fields).ask("who?")
}

fn address_seen(wootz: &Wootz, fields: &str) -> String {
    let seen = seen(wootz, fields);
    seen.split_once(' ').expect("an address and a port").0.to_owned()
}

/// A proxy of Debian's, on an address and in a directory of its own.
struct Front {
    address: SocketAddr,
    _server: Daemon,
    _directory: TempDir,
}

impl Front {
    fn start(
        configuration: impl FnOnce(SocketAddr, &Path) -> String,
        command: impl FnOnce(&Path, &Path) -> Command,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let address = free_address();
        let file = directory.path().join("front.conf");
        fs::write(&file, configuration(address, directory.path())).expect("a file");
        let mut server = Daemon::start(&mut command(directory.path(), &file));
        server.wait_for("the proxy listens", || TcpStream::connect(address).ok());
        Self { address, _server: server, _directory: directory }
    }

    /// nginx, with these blocks. `LISTEN` stands for its address.
    fn nginx(blocks: &str) -> Self {
        let configuration = |address: SocketAddr, directory: &Path| {
            let here = directory.display();
            let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
            let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|name| format!("{name}_temp_path {here}/{name};\n"))
                .concat();
            let blocks = blocks
                .replace("LISTEN", &address.to_string())
                .replace("http {", &format!("http {{ access_log off;\n{temporary}"));
            format!(
                "{user}\ndaemon off; worker_processes 1; pid {here}/pid; error_log stderr;\n\
                 load_module /usr/lib/nginx/modules/ngx_stream_module.so;\nevents {{}}\n{blocks}\n"
            )
        };
        Self::start(configuration, |directory, file| {
            let program = if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
            let mut command = Command::new(program);
            // Without -e it opens Debian's log before it has read where its own is.
            command.args(["-e", "stderr", "-p"]).arg(directory).arg("-c").arg(file);
            command
        })
    }

    /// nginx that hands WebSockets on to `upstream`, with these lines besides.
    fn nginx_http(upstream: &str, lines: &str) -> Self {
        Self::nginx(&format!(
            "http {{ server {{ listen LISTEN; location / {{ proxy_pass {upstream}; proxy_http_version 1.1;\n\
             proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;\n{lines} }} }} }}"
        ))
    }

    /// HAProxy that hands bytes on to this server.
    fn haproxy(server: &str) -> Self {
        let configuration = |address: SocketAddr, _: &Path| {
            format!(
                "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n\
                 listen front\n  bind {address}\n  server wootz {server}\n"
            )
        };
        Self::start(configuration, |_, file| {
            let program = if Path::new("/usr/sbin/haproxy").exists() { "/usr/sbin/haproxy" } else { "haproxy" };
            let mut command = Command::new(program);
            command.arg("-db").arg("-f").arg(file);
            command
        })
    }

    /// A browser that opens a WebSocket through it, with more fields.
    fn open(&self, fields: &str) -> Raw {
        let mut raw = Raw::connect_from(BROWSER, self.address);
        raw.shake_hands("/", fields);
        raw
    }
}

#[test]
fn header_is_read_from_the_right_and_what_the_browser_wrote_before_a_trusted_proxy_is_not_believed() {
    let wootz = who().setting("listen.trusted_proxies", "[\"loopback\", \"10.0.0.0/8\", \"2001:db8:1::/48\"]").start();
    let hops = |hop: &str| vec![hop; 500].join(", ");
    for (fields, expected) in [
        ("X-Forwarded-For: 203.0.113.7", "203.0.113.7"),
        ("X-Forwarded-For: 1.1.1.1, 203.0.113.7, 10.0.0.1", "203.0.113.7"),
        ("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 203.0.113.7", "203.0.113.7"),
        ("X-Forwarded-For: 203.0.113.7:4711", "203.0.113.7"),
        ("X-Forwarded-For: 2001:db8::7", "2001:db8::7"),
        ("X-Forwarded-For: [2001:db8::7]", "2001:db8::7"),
        ("X-Forwarded-For: [2001:db8::7]:4711, 2001:db8:1::1", "2001:db8::7"),
        ("X-Forwarded-For: ::ffff:203.0.113.7", "203.0.113.7"),
        ("X-Forwarded-For: 203.0.113.7, garbage", "127.0.0.1"),
        ("X-Forwarded-For: 203.0.113.7, garbage, 10.0.0.1", "10.0.0.1"),
        ("X-Forwarded-For: ", "127.0.0.1"),
        ("Forwarded: for=1.1.1.1, for=203.0.113.7;proto=https, for=10.0.0.1", "203.0.113.7"),
        ("Forwarded: for=\"[2001:db8::7]:4711\"", "2001:db8::7"),
        ("Forwarded: for=203.0.113.7, for=_hidden", "127.0.0.1"),
        ("Forwarded: for=203.0.113.7, for=unknown", "127.0.0.1"),
        ("Forwarded: for=\"1.1.1.1, for=203.0.113.7", "203.0.113.7"),
        ("Forwarded: for=198.51.100.9\r\nX-Forwarded-For: 203.0.113.7", "203.0.113.7"),
        ("A: b", "127.0.0.1"),
    ] {
        assert_eq!(address_seen(&wootz, &format!("{fields}\r\n")), expected, "{fields}");
    }
    for (fields, expected) in [
        (format!("X-Forwarded-For: {}, 203.0.113.7", hops("1.1.1.1")), "203.0.113.7"),
        (format!("X-Forwarded-For: 203.0.113.7, {}", hops("10.0.0.1")), "203.0.113.7"),
        (format!("Forwarded: for=203.0.113.7, {}", hops("for=10.0.0.1")), "203.0.113.7"),
    ] {
        assert_eq!(address_seen(&wootz, &format!("{fields}\r\n")), expected);
    }
    assert_eq!(seen(&wootz, "X-Forwarded-For: 203.0.113.7:4711\r\n"), "203.0.113.7 4711");
}

#[test]
fn nobody_is_believed_by_default_and_the_log_says_once_which_setting_would_change_that() {
    let wootz = who().start();
    for fields in
        ["X-Forwarded-For: 203.0.113.7\r\n", "Forwarded: for=203.0.113.7\r\n", "X-Forwarded-For: 203.0.113.7\r\n"]
    {
        let mut raw = Raw::open_with(wootz.address(), "/", fields);
        assert_eq!(raw.ask("who?"), format!("127.0.0.1 {}", raw.port()));
    }
    wootz.wait_for_log("listen.trusted_proxies");
    assert_eq!(wootz.log().matches("listen.trusted_proxies").count(), 1);
    assert!(!wootz.log().contains("203.0.113.7"));
}

#[test]
fn only_the_named_one_of_the_two_headers_is_read() {
    let both = "Forwarded: for=203.0.113.7\r\nX-Forwarded-For: 198.51.100.7\r\n";
    for (header, expected, without) in
        [("forwarded", "203.0.113.7", "198.51.100.7"), ("x-forwarded-for", "198.51.100.7", "203.0.113.7")]
    {
        let wootz = behind_a_proxy().setting("listen.forwarded_header", format!("\"{header}\"")).start();
        assert_eq!(address_seen(&wootz, both), expected);
        let other = both.split_inclusive("\r\n").find(|line| line.contains(without)).expect("it is there");
        assert_eq!(address_seen(&wootz, other), "127.0.0.1");
    }
}

#[test]
fn nginx_tells_the_browsers_address_and_a_forged_one_does_not_arrive() {
    let wootz = behind_a_proxy().start();
    let append = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";
    let nginx = Front::nginx_http(&format!("http://{}", wootz.address()), append);
    let mut browsers = Vec::new();
    for forged in ["", "X-Forwarded-For: 1.1.1.1\r\n", "X-Forwarded-For: 127.0.0.1\r\n", "Forwarded: for=1.1.1.1\r\n"] {
        let mut raw = nginx.open(forged);
        assert!(raw.ask("who?").starts_with("127.0.0.2 "), "{forged}");
        browsers.push(raw);
    }
    wootz.push("pushed\n");
    for browser in &mut browsers {
        assert_eq!(browser.frame().text(), "pushed");
    }
}

#[test]
fn two_proxies_in_a_row_are_walked_through() {
    let wootz = behind_a_proxy().start();
    let append = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";
    let inner = Front::nginx_http(&format!("http://{}", wootz.address()), append);
    let outer = Front::nginx_http(&format!("http://{}", inner.address), append);
    assert!(outer.open("X-Forwarded-For: 1.1.1.1\r\n").ask("who?").starts_with("127.0.0.2 "));
}

#[test]
fn proxy_on_a_unix_socket_is_trusted_without_being_named_and_each_connection_has_a_pipe_of_its_own() {
    let setup = who();
    let socket = setup.path("wootz.ws");
    let wootz = setup.setting("listen.address", format!("[\"127.0.0.1:0\", \"unix:{}\"]", socket.display())).start();
    let append = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";
    let nginx = Front::nginx_http(&format!("http://unix:{}:/", socket.display()), append);
    let mut browsers = [nginx.open(""), nginx.open("X-Forwarded-For: 1.1.1.1\r\n"), nginx.open("")];
    let mut pipes: Vec<String> = browsers
        .iter_mut()
        .map(|browser| {
            let seen = browser.ask("who?");
            let (address, port) = seen.split_once(' ').expect("an address and a port");
            assert_eq!(address, "127.0.0.2");
            // The application can tell the pipe's name from what it is told.
            let name = format!(":127_0_0_2:{port}.fifo");
            assert!(wootz.pipes().contains(&name), "{name} in {:?}", wootz.pipes());
            name
        })
        .collect();
    pipes.sort_unstable();
    pipes.dedup();
    assert_eq!(pipes.len(), browsers.len());
    // On TCP the same header of the same machine is not believed.
    assert_eq!(address_seen(&wootz, "X-Forwarded-For: 203.0.113.7\r\n"), "127.0.0.1");
}

#[test]
fn connections_of_one_browser_behind_a_proxy_have_different_pipes_also_when_no_port_is_told() {
    let wootz = behind_a_proxy().start();
    let open = |fields: &str| Raw::open_with(wootz.address(), "/", fields);
    let first = open("X-Forwarded-For: 203.0.113.7\r\n");
    let second = open("X-Forwarded-For: 203.0.113.7\r\n");
    let told = open("X-Forwarded-For: [2001:db8::7]:4711\r\n");
    let expected = [
        format!(":203_0_113_7:{}.fifo", first.port()),
        format!(":203_0_113_7:{}.fifo", second.port()),
        ":2001:db8::7:4711.fifo".to_owned(),
    ];
    wait_until("three pipes with these names", || {
        let pipes = wootz.pipes();
        expected.iter().all(|name| pipes.contains(name)).then_some(())
    });
    drop((first, second, told));
}

#[test]
fn application_that_settles_identity_is_told_the_browsers_address() {
    let script =
        "if [ \"$WOOTZ_EVENT\" = validate ]; then echo \"user-of-$REMOTE_ADDR\"; else echo \"$REMOTE_USER\"; fi";
    let setup =
        Setup::sh(script).settings("identity.provider = \"application\"\nlisten.trusted_proxies = [\"127.0.0.1\"]");
    let wootz = setup.start();
    assert_eq!(seen(&wootz, "X-Forwarded-For: 203.0.113.7\r\n"), "user-of-203.0.113.7");
}

#[test]
fn refusals_are_logged_with_the_browsers_address() {
    let wootz = behind_a_proxy().start();
    let answer =
        Raw::connect(wootz.address()).refusal("/", "X-Forwarded-For: 203.0.113.7\r\nOrigin: http://evil.example\r\n");
    assert_eq!(answer.status, 403);
    wootz.wait_for_log_line(&["handshake refused", "203.0.113.7", "identity.allowed_origins"]);
}

#[test]
fn haproxy_tells_address_and_port_of_the_browser_by_both_versions_of_its_protocol() {
    let setup = behind_a_proxy().setting("listen.proxy_protocol", "true");
    let socket = setup.path("wootz.ws");
    let wootz = setup.setting("listen.address", format!("[\"127.0.0.1:0\", \"unix:{}\"]", socket.display())).start();
    let mut browsers = Vec::new();
    for server in [
        format!("{} send-proxy-v2", wootz.address()),
        format!("{} send-proxy", wootz.address()),
        // With TLVs.
        format!("{} send-proxy-v2 proxy-v2-options unique-id,crc32c", wootz.address()),
        format!("unix@{} send-proxy-v2", socket.display()),
    ] {
        let haproxy = Front::haproxy(&server);
        let mut raw = haproxy.open("X-Forwarded-For: 1.1.1.1\r\n");
        assert_eq!(raw.ask("who?"), format!("127.0.0.2 {}", raw.port()), "{server}");
        browsers.push((raw, haproxy));
    }
    wootz.push("pushed\n");
    for (browser, _haproxy) in &mut browsers {
        assert_eq!(browser.frame().text(), "pushed");
    }
}

#[test]
fn health_check_of_haproxy_speaks_for_itself_and_is_no_fault() {
    let wootz = behind_a_proxy().setting("listen.proxy_protocol", "true").start();
    let haproxy = Front::haproxy(&format!("{} send-proxy-v2 check inter 20ms", wootz.address()));
    let accepted = || wootz.status()["connections"]["accepted"].as_u64().expect("a number");
    wait_until("some health checks", || (accepted() > 5).then_some(()));
    let mut raw = haproxy.open("");
    assert_eq!(raw.ask("who?"), format!("127.0.0.2 {}", raw.port()));
    assert_eq!(wootz.status()["connections"]["refused_by"]["proxy_protocol"], 0, "{}", wootz.log());
}

#[test]
fn nginx_tells_the_browser_by_the_proxy_protocol() {
    let wootz = behind_a_proxy().setting("listen.proxy_protocol", "true").start();
    let nginx = Front::nginx(&format!(
        "stream {{ server {{ listen LISTEN; proxy_pass {}; proxy_protocol on; }} }}",
        wootz.address()
    ));
    let mut raw = nginx.open("");
    assert_eq!(raw.ask("who?"), format!("127.0.0.2 {}", raw.port()));
}

#[test]
fn header_before_a_trusted_browser_of_the_proxy_protocol_is_believed_and_before_another_not() {
    let setup = who().setting("listen.proxy_protocol", "true");
    let wootz = setup.setting("listen.trusted_proxies", "[\"127.0.0.1\", \"198.51.100.0/24\"]").start();
    for (source, expected) in [("198.51.100.9", "203.0.113.7"), ("192.0.2.9", "192.0.2.9")] {
        let mut raw = Raw::connect(wootz.address());
        raw.write(format!("PROXY TCP4 {source} 127.0.0.1 4711 80\r\n"));
        raw.shake_hands("/", "X-Forwarded-For: 203.0.113.7\r\n");
        assert_eq!(raw.ask("who?"), format!("{expected} 4711"));
    }
}

#[test]
fn curl_speaks_the_proxy_protocol_too() {
    let wootz = behind_a_proxy().setting("listen.proxy_protocol", "true").start();
    let url = format!("http://{}/", wootz.address());
    let status =
        run(Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--haproxy-protocol", &url]));
    assert_eq!(status, "400", "it asks for no WebSocket");
}

#[test]
fn header_may_come_byte_by_byte_and_with_the_request_behind_it() {
    let wootz = behind_a_proxy().setting("listen.proxy_protocol", "true").start();
    let header = b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n";
    let mut slow = Raw::connect(wootz.address());
    for byte in header {
        slow.write([*byte]);
    }
    slow.shake_hands("/", "");
    assert_eq!(slow.ask("who?"), "2001:db8::7 4711");
    let mut fast = Raw::connect(wootz.address());
    let request = handshake(wootz.address(), "/", "");
    fast.write([&header[..], request.as_bytes(), &support::raw::text("who?")].concat());
    assert!(fast.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(fast.frame().text(), "2001:db8::7 4711");
}

#[test]
fn connection_without_a_right_header_or_not_from_a_proxy_is_closed_and_the_log_names_the_setting() {
    let wootz = behind_a_proxy().setting("listen.proxy_protocol", "true").start();
    let refused = || wootz.status()["connections"]["refused_by"]["proxy_protocol"].as_u64().expect("a number");
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let request = handshake(wootz.address(), "/", "");
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (request.clone().into_bytes(), "does not begin with a PROXY header"),
        (b"\x16\x03\x01\x02\x00\x01".to_vec(), "does not begin with a PROXY header"),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 99999\r\n".to_vec(), "not as version 1 says"),
        (b"PROXY TCP9 1.1.1.1 1.1.1.1 1 1\r\n".to_vec(), "not as version 1 says"),
        ([b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(), "too long"),
        ([&signature[..], &[0x21, 0x11, 0, 4, 1, 2, 3, 4]].concat(), "shorter than its addresses"),
        ([&signature[..], &[0x21, 0x11, 0xff, 0xff]].concat(), "too long"),
        ([&signature[..], &[0x29, 0x11, 0, 12]].concat(), "does not exist"),
    ];
    for (count, (bytes, reason)) in (1..).zip(cases) {
        let mut raw = Raw::connect(wootz.address());
        raw.write(&bytes);
        raw.ends();
        wootz.wait_for_log_line(&["listen.proxy_protocol", reason]);
        assert_eq!(refused(), count, "{}", bytes.escape_ascii());
    }
    let before = refused();
    let mut cut = Raw::connect(wootz.address());
    cut.write("PROXY TCP4 1.1.");
    cut.shut_down();
    cut.ends();
    wootz.wait_for_log_line(&["listen.proxy_protocol", "went within it"]);

    let mut forged = Raw::connect_from(BROWSER, wootz.address());
    // It may be closed before it has written.
    forged.try_write("PROXY TCP4 10.0.0.1 127.0.0.1 1 1\r\n").ok();
    forged.ends();
    wootz.wait_for_log_line(&["listen.proxy_protocol", "listen.trusted_proxies", "127.0.0.2"]);
    assert_eq!(refused(), before + 2);

    let mut good = Raw::connect(wootz.address());
    good.write("PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n");
    good.shake_hands("/", "");
    assert_eq!(good.ask("who?"), "203.0.113.7 4711");
}

#[test]
fn header_that_is_never_whole_ends_with_the_handshakes_timeout() {
    let setup = behind_a_proxy().settings("listen.proxy_protocol = true\nlimits.handshake_timeout = \"200ms\"");
    let wootz = setup.start();
    for beginning in ["", "PROXY TCP4 1.1.1.1", "\r\n\r\n\0\r\nQUIT\n"] {
        let mut raw = wootz.raw();
        // It may be over before this is written.
        raw.try_write(beginning).ok();
        raw.ends();
    }
    wootz.wait_for_log_line(&["listen.proxy_protocol", "limits.handshake_timeout"]);
}
