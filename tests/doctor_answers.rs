//! `wootz doctor` where there is no way at all, and where something answers that is not what a browser needs: each fault
//! planted, and named with the line to change.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with};
use serde_json::Value;
use support::authority::{Authority, Validity};
use support::doctor::{broken, echo, examine, nginx_to, says, tls_nginx, ws, wss};
use support::proxies::{apache, caddy, haproxy, nginx};
use support::{Setup, Wootz, wootz};

/// What the doctor says with variables in its environment.
fn examine_with(directory: &Path, url: &str, arguments: &[&str], variable: (&str, &str)) -> Value {
    let mut command = wootz(directory);
    command.args(["doctor", "--json", url]).args(arguments).env(variable.0, variable.1);
    let output = command.output().expect("the wootz binary");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn name_server_that_never_answers_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    // The resolver itself waits in the midst of a question: for who writes into the file of aliases that it was given.
    let aliases = directory.path().join("aliases");
    mknodat(CWD, &aliases, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    let aliases = ("HOSTALIASES", aliases.to_str().expect("UTF-8"));
    let report = examine_with(directory.path(), "ws://intranet/", &["--timeout", "2"], aliases);
    assert_eq!(report["fault"]["name"], "dns-silent", "{report:#}");
    says(&report, "broken", "intranet");
    says(&report, "lines", "cat /etc/resolv.conf");
}

/// A listener that takes one connection, which nobody accepts, and drops every other attempt as a firewall does.
struct FullListener {
    address: SocketAddr,
    _listener: std::os::fd::OwnedFd,
    _first: TcpStream,
}

impl FullListener {
    fn start() -> Self {
        let listener =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
        bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        listen(&listener, 0).expect("a listener");
        let address = getsockname(&listener).expect("bound").try_into().expect("of TCP");
        let first = TcpStream::connect(address).expect("there is room for one");
        Self { address, _listener: listener, _first: first }
    }
}

#[test]
fn address_that_drops_every_packet_and_one_that_no_route_leads_to_are_told_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    let full = FullListener::start();
    let report = broken(directory.path(), &ws(full.address), &["--timeout", "2"], "tcp-silent");
    says(&report, "broken", &full.address.to_string());
    says(&report, "change", "Open the port");
    // TCP leads to no group of machines.
    let report = broken(directory.path(), "ws://224.0.0.1/", &["--timeout", "5"], "unreachable");
    says(&report, "broken", "224.0.0.1:80 can't be reached: Network is unreachable");
    says(&report, "lines", "traceroute 224.0.0.1");
}

#[test]
fn certificate_of_tomorrow_and_one_that_is_for_no_server_are_named_with_the_reason() {
    let (wootz, authority) = (echo(), Authority::new("Test"));
    let here = wootz.directory();
    let root = authority.root();
    let ca = ["--ca", root.to_str().expect("UTF-8")];

    let tomorrow = authority.server("localhost", Validity::From2045);
    let proxy = tls_nginx(wootz.address(), &tomorrow.key, &tomorrow.chain);
    let report = broken(here, &wss(proxy.address()), &ca, "certificate-not-yet-valid");
    says(&report, "broken", "from 2045-01-01 on");
    says(&report, "lines", "date -u");
    drop(proxy);

    let of_a_client = authority.server_with("localhost", Validity::Now, "extendedKeyUsage=clientAuth\n");
    let proxy = tls_nginx(wootz.address(), &of_a_client.key, &of_a_client.chain);
    let report = broken(here, &wss(proxy.address()), &ca, "certificate-invalid");
    says(&report, "broken", "usage");
    let port = proxy.address().port();
    says(&report, "lines", &format!("openssl s_client -connect localhost:{port} -servername localhost <"));
}

#[test]
fn machine_without_authorities_is_told_before_anything_is_judged() {
    let (wootz, authority) = (echo(), Authority::new("Test"));
    let good = authority.server("localhost", Validity::Now);
    let proxy = tls_nginx(wootz.address(), &good.key, &good.chain);
    let report = examine_with(wootz.directory(), &wss(proxy.address()), &[], ("SSL_CERT_FILE", "/dev/null"));
    assert_eq!(report["fault"]["name"], "no-roots", "{report:#}");
    says(&report, "lines", "apt-get install ca-certificates");
}

/// A wootz that awaits a PROXY header, from a proxy on this machine too.
const FOR_PROXIES: &str = "listen.proxy_protocol = true\nlisten.trusted_proxies = [\"127.0.0.1\"]";

#[test]
fn tls_that_is_refused_or_cut_off_is_named() {
    let (wootz, authority) = (echo(), Authority::new("Test"));
    let here = wootz.directory();
    let good = authority.server("localhost", Validity::Now);
    let refusing = nginx("", "ssl", "ssl_reject_handshake on;");
    let report = broken(here, &wss(refusing.address()), &["--insecure"], "tls-failed");
    says(&report, "broken", "UnrecognisedName");
    says(&report, "lines", "ssl_protocols TLSv1.2 TLSv1.3;");

    let rejecting = haproxy("timeout client 10s\ntimeout server 10s", "tcp-request connection reject");
    let report = examine(here, &wss(rejecting.address()), &["--insecure"]);
    // Its reset may come before the connection was seen to be there.
    let name = report["fault"]["name"].as_str().expect("a fault");
    assert!(["closed", "tls-closed"].contains(&name), "{report:#}");
    says(&report, "blame", "refuse");

    // A wootz that awaits a PROXY header takes a browser for nobody.
    let tls = format!("tls.cert = {:?}\ntls.key = {:?}", good.chain, good.key);
    let for_proxies = Setup::sh("cat").settings(&tls).settings(FOR_PROXIES).start();
    let report = broken(for_proxies.directory(), &wss(for_proxies.address()), &["--insecure"], "tls-closed");
    says(&report, "blame", "listen.proxy_protocol");
    let port = for_proxies.address().port();
    says(&report, "lines", &format!("openssl s_client -connect localhost:{port} -servername localhost"));
}

#[test]
fn wootz_that_awaits_a_proxy_header_closes_before_any_answer() {
    let wootz = Setup::sh("cat").settings(FOR_PROXIES).start();
    let here = wootz.directory();
    let report = broken(here, &ws(wootz.address()), &[], "closed");
    says(&report, "blame", "listen.proxy_protocol = true");
    says(&report, "lines", "journalctl -u wootz");
    // A proxy that sends none says that nobody is there.
    let proxy = nginx_to(wootz.address(), "", "", "");
    let report = broken(here, &ws(proxy.address()), &[], "backend-down");
    says(&report, "blame", "the PROXY protocol");
}

#[test]
fn proxy_that_speaks_plain_http_to_a_wootz_with_tls_is_told_apart_from_a_url_that_does() {
    let authority = Authority::new("Test");
    let good = authority.server("localhost", Validity::Now);
    let tls = format!("tls.cert = {:?}\ntls.key = {:?}", good.chain, good.key);
    let wootz = Setup::sh("cat").settings(&tls).start();
    let here = wootz.directory();
    broken(here, &ws(wootz.address()), &[], "tls-port");
    let proxies = [
        nginx_to(wootz.address(), "", "", ""),
        tls_nginx(wootz.address(), &good.key, &good.chain),
        caddy("", &format!("reverse_proxy {}", wootz.address())),
        apache("proxy proxy_http", "", &format!("ProxyPass / http://{}/ upgrade=websocket", wootz.address()), ""),
    ];
    for (proxy, name) in proxies.iter().zip(["nginx", "nginx", "Caddy", "Apache"]) {
        let url = if name == "nginx" && proxy.address() == proxies[1].address() { wss } else { ws };
        let report = broken(here, &url(proxy.address()), &["--insecure"], "plain-to-tls");
        says(&report, "blame", name);
        says(&report, "lines", &format!("wootz proxy {}", name.to_ascii_lowercase()));
        says(&report, "lines", "\"plain:127.0.0.1:8889\"");
    }
}

#[test]
fn port_of_another_service_is_told_from_a_web_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("a connection");
            client.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\r\n").ok();
            std::thread::spawn(move || std::io::copy(&mut client, &mut std::io::sink()));
        }
    });
    for (url, hop) in [(ws(address), "upgrade"), (wss(address), "tls")] {
        let report = broken(directory.path(), &url, &["--insecure"], "not-http");
        assert_eq!(report["fault"]["hop"], hop);
        says(&report, "lines", "ss -ltnp");
    }
}

#[test]
fn fields_of_the_handshake_that_a_proxy_rewrites_are_named() {
    let wootz = echo();
    let here = wootz.directory();
    let proxy = nginx_to(wootz.address(), "", "", "proxy_set_header Sec-WebSocket-Key dGhlIHNhbXBsZSBub25jZQ==;");
    let report = broken(here, &ws(proxy.address()), &[], "bad-upgrade");
    says(&report, "broken", "Sec-WebSocket-Accept");
    says(&report, "lines", "wootz proxy ");
    let proxy = nginx_to(wootz.address(), "", "", "proxy_set_header Sec-WebSocket-Version 8;");
    let report = broken(here, &ws(proxy.address()), &[], "wrong-version");
    says(&report, "blame", "nginx");
    says(&report, "lines", "wootz proxy nginx");
}

#[test]
fn header_fields_that_are_too_large_are_named_whoever_refuses_them() {
    let wootz = Setup::sh("cat").setting("limits.max_head", "\"4KiB\"").start();
    let here = wootz.directory();
    let to_wootz = format!("ProxyPass / http://{}/ upgrade=websocket", wootz.address());
    let large = |bytes: usize| format!("a={}", "x".repeat(bytes));
    let proxies = [nginx_to(wootz.address(), "", "", ""), apache("proxy proxy_http", "", &to_wootz, "")];
    let urls = [ws(wootz.address()), ws(proxies[0].address()), ws(proxies[1].address())];
    // wootz's own limit, also through a proxy, then those of nginx and Apache.
    for (url, bytes) in [(&urls[0], 5000), (&urls[1], 5000), (&urls[1], 40_000), (&urls[2], 40_000)] {
        let report = broken(here, url, &["--cookie", &large(bytes)], "head-too-large");
        for line in ["large_client_header_buffers", "LimitRequestFieldSize", "limits.max_head"] {
            says(&report, "lines", line);
        }
    }
}

#[test]
fn limits_of_wootz_and_of_proxies_are_named() {
    let wootz = Setup::sh("cat").setting("limits.per_address", "1").start();
    let here = wootz.directory();
    let only = wootz.open();
    let report = broken(here, &ws(wootz.address()), &[], "too-many");
    says(&report, "blame", "limits.per_address");
    says(&report, "lines", "trusted_proxies = [\"127.0.0.1\"]");
    drop(only);
    let zone = "limit_conn_zone $server_name zone=all:1m;\nlimit_conn_status 429;";
    let limiting = nginx_to(wootz.address(), zone, "", "limit_conn all 1;");
    let held = support::raw::Raw::open(limiting.address());
    says(&broken(here, &ws(limiting.address()), &[], "too-many"), "broken", "429 Too Many Requests from nginx");
    drop(held);

    let full = Setup::sh("cat").setting("limits.max_connections", "1").start();
    let only = full.open();
    let report = broken(full.directory(), &ws(full.address()), &[], "unavailable");
    says(&report, "lines", "journalctl -u wootz");
    drop(only);
}

/// Stands between a browser and a server as a test wants.
fn between(back: SocketAddr, meddle: fn(TcpStream, TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.expect("a connection"), TcpStream::connect(back).expect("it listens"));
            std::thread::spawn(move || meddle(client, server));
        }
    });
    address
}

/// Reads a head, of a request or of an answer.
fn head(mut from: &TcpStream) -> Vec<u8> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && from.read(&mut byte).is_ok_and(|count| count > 0) {
        head.extend_from_slice(&byte);
    }
    head
}

/// Passes the handshake and its answer on.
fn shake_hands(mut client: &TcpStream, mut server: &TcpStream) {
    server.write_all(&head(client)).ok();
    client.write_all(&head(server)).ok();
}

#[test]
fn request_that_is_held_back_is_named() {
    let wootz = Setup::sh("cat").setting("limits.handshake_timeout", "\"300ms\"").start();
    let way = between(wootz.address(), |mut client, mut server| {
        server.write_all(&head(&client)[..20]).ok();
        std::io::copy(&mut server, &mut client).ok();
    });
    let report = broken(wootz.directory(), &ws(way), &[], "too-slow");
    says(&report, "broken", "408");
    says(&report, "blame", "holds the request back");
}

#[test]
fn frames_that_do_not_pass_or_are_changed_are_named() {
    let wootz = echo();
    let here = wootz.directory();
    let swallowing = between(wootz.address(), |mut client, server| {
        shake_hands(&client, &server);
        std::io::copy(&mut client, &mut std::io::sink()).ok();
        drop(server);
    });
    let report = broken(here, &ws(swallowing), &["--timeout", "2"], "no-pong");
    says(&report, "broken", "frames do not pass");
    says(&report, "lines", "wootz proxy ");
    let adding = between(wootz.address(), |mut client, mut server| {
        shake_hands(&client, &server);
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok();
        std::io::copy(&mut server, &mut client).ok();
    });
    let report = broken(here, &ws(adding), &[], "not-websocket");
    assert_eq!(report["fault"]["hop"], "ping");
    says(&report, "lines", "wootz doctor --direct");
    let cutting = between(wootz.address(), |client, server| {
        shake_hands(&client, &server);
        (&client).read_exact(&mut [0]).ok();
        client.shutdown(Shutdown::Both).ok();
        drop(server);
    });
    let report = broken(here, &ws(cutting), &[], "broken-off");
    assert_eq!(report["fault"]["hop"], "ping");
    says(&report, "lines", "wootz doctor --direct");
}

#[test]
fn connection_that_wootz_itself_closes_is_named_with_the_code_and_whose_it_is() {
    let wootz = Setup::sh("cat").setting("limits.max_message", "\"16B\"").start();
    let here = wootz.directory();
    let report = broken(here, &ws(wootz.address()), &["--message", "more than sixteen bytes"], "closed-by-server");
    assert_eq!(report["fault"]["hop"], "message");
    says(&report, "broken", "1009");
    says(&report, "blame", "limits.max_message");
}

/// A wootz whose application ends the server itself by KILL.
#[test]
fn server_that_dies_in_the_midst_is_told_from_one_that_closes() {
    let mut victim = Setup::sh("kill -9 \"$(cat server.pid)\"; sleep 30").start();
    std::fs::write(victim.path("server.pid"), victim.pid().to_string()).expect("a file");
    let report = broken(victim.directory(), &ws(victim.address()), &["--message", "die"], "broken-off");
    assert_eq!(report["fault"]["hop"], "message");
    says(&report, "blame", "a wootz that died");
    victim.wait();
}

#[test]
fn nothing_of_all_this_is_said_of_a_way_that_works() {
    let wootz: Wootz = echo();
    assert_eq!(examine(wootz.directory(), &ws(wootz.address()), &[])["works"], true);
}
