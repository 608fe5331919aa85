//! Each snippet of `wootz proxy`, installed as it is printed, and a browser that only knows the web server's address.
//!
//! The idle limit of each server is lowered around the snippet: pings keep a silent connection, and without them it
//! is cut.

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::client::Client;
use support::proxies::{Proxy, apache, caddy, haproxy, nginx, socket_directory};
use support::raw::{PING, PONG, Raw, frame};
use support::{Setup, Wootz};

/// What the idle limit of a web server is lowered to.
const LIMIT: Duration = Duration::from_secs(2);

/// The browser's headers, the message's URI and its body.
const APPLICATION: &str = r#"echo "$HTTP_X_FORWARDED_FOR|$HTTP_COOKIE|$REQUEST_URI|$(cat)""#;

/// Starts a web server around a snippet.
type Install = fn(&str) -> Proxy;

fn wootz(ping_interval: &str, path: &str) -> Wootz {
    setup(ping_interval, path).start()
}

fn setup(ping_interval: &str, path: &str) -> Setup {
    let setup = Setup::sh(APPLICATION).setting("limits.ping_interval", format!("{ping_interval:?}"));
    setup.setting("listen.path", format!("{path:?}"))
}

/// What `wootz proxy` prints for the configuration of this server, which listens on the port that it was given.
fn snippet(wootz: &Wootz, arguments: &[&str]) -> String {
    snippet_for(wootz, arguments, &wootz.address().to_string())
}

fn snippet_for(wootz: &Wootz, arguments: &[&str], listen: &str) -> String {
    let output = wootz.run(&[&["proxy"], arguments, &["--listen", listen]].concat());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Messages, replies and pushes pass, with the browser's headers; pages stay where they are.
fn carries(address: SocketAddr, wootz: &Wootz, path: &str) {
    let target = format!("{path}?from=page");
    let origin = format!("http://{address}");
    let fields = [("Origin", origin.as_str()), ("Cookie", "PHPSESSID=abc"), ("X-Forwarded-For", "203.0.113.7")];
    let mut client = Client::connect(address, &target, &fields);
    let reply = client.ask("/cart?x=1");
    let (forwarded, rest) = reply.split_once('|').expect("four parts");
    assert_eq!(rest, "PHPSESSID=abc|/cart?x=1|/cart?x=1");
    // Whatever a browser claims stands to the left of what the web server saw.
    assert_eq!(forwarded.rsplit(',').next().map(str::trim), Some("127.0.0.1"), "{forwarded}");
    assert_eq!(client.ask("two words").split_once('|').expect("parts").1, format!("PHPSESSID=abc|{target}|two words"));
    let long = "x".repeat(100_000) + " ";
    assert!(client.ask(&long).ends_with(&format!("|{long}")));
    wootz.push("pushed\n");
    assert_eq!(client.text(), "pushed");
    client.leave();

    let Err(refusal) = Client::try_connect(address, path, &[("Origin", "http://evil.example")]) else {
        panic!("a page of another host was let in")
    };
    assert_eq!(refusal.status(), 403);
}

fn leaves_pages_alone(address: SocketAddr) {
    let mut page = Raw::connect(address);
    page.write(format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"));
    assert_eq!(page.answer().body.trim_end(), "an ordinary page");
}

/// Nothing is said on this connection but pings and their answers; it outlives the limit twice.
fn pings_keep(address: SocketAddr, path: &str) {
    let mut raw = Raw::open_with(address, path, "");
    let opened = Instant::now();
    while opened.elapsed() < LIMIT * 5 / 2 {
        let ping = raw.frame();
        assert_eq!(ping.first, PING, "{ping:?}");
        raw.write(frame(PONG, ping.payload));
    }
    raw.write(support::raw::text("ping"));
    loop {
        let frame = raw.frame();
        if frame.first != PING {
            assert_eq!(frame.text(), "pong");
            return;
        }
    }
}

/// Without pings the limit ends the connection, and nobody says why.
fn silence_is_cut(address: SocketAddr, path: &str) {
    let mut raw = Raw::open_with(address, path, "");
    let opened = Instant::now();
    raw.ends();
    assert!(opened.elapsed() > LIMIT / 2, "cut after {:?}, which is no idle limit", opened.elapsed());
}

/// The whole promise of a snippet, to a TCP and to a Unix socket.
fn works(arguments: &[&str], path: &str, install: Install) {
    let wootz = wootz("300ms", path);
    let proxy = install(&snippet(&wootz, arguments));
    carries(proxy.address(), &wootz, path);
    pings_keep(proxy.address(), path);
    let directory = socket_directory();
    let socket = format!("unix:{}", directory.path().join("wootz.ws").display());
    let addresses = format!("[\"127.0.0.1:0\", {socket:?}]");
    // The workers of a web server are somebody else.
    let wootz =
        setup("300ms", path).setting("listen.address", addresses).setting("listen.unix_mode", "\"0666\"").start();
    let proxy = install(&snippet_for(&wootz, arguments, &socket));
    carries(proxy.address(), &wootz, path);
}

fn is_cut_without_pings(arguments: &[&str], path: &str, install: Install) {
    let wootz = wootz("0s", path);
    let proxy = install(&snippet(&wootz, arguments));
    silence_is_cut(proxy.address(), path);
}

/// The modules that a snippet asks for.
fn modules(snippet: &str) -> &str {
    let (_, rest) = snippet.split_once("a2enmod ").expect("a snippet says which modules it needs");
    rest.split_once(" &&").expect("the end of the list").0
}

fn in_htaccess(snippet: &str) -> Proxy {
    apache(modules(snippet), "Timeout 2", "", snippet)
}

fn in_virtual_host(snippet: &str) -> Proxy {
    apache(modules(snippet), "Timeout 2", snippet, "")
}

fn beside_mod_proxy_http(snippet: &str) -> Proxy {
    apache(&format!("{} proxy_http", modules(snippet)), "Timeout 2", snippet, "")
}

fn in_nginx(snippet: &str) -> Proxy {
    nginx("proxy_read_timeout 2s;", "", snippet)
}

fn in_caddy(snippet: &str) -> Proxy {
    caddy("servers {\ntimeouts {\nread_body 1s\nread_header 1s\nwrite 1s\nidle 1s\n}\n}", snippet)
}

fn in_haproxy(snippet: &str) -> Proxy {
    haproxy("timeout client 2s\ntimeout server 2s", snippet)
}

#[test]
fn apache_rule_in_htaccess_carries_a_whole_site_and_pings_keep_it_open() {
    works(&["apache"], "/", in_htaccess);
    is_cut_without_pings(&["apache"], "/", in_htaccess);
}

#[test]
fn apache_rule_in_a_virtual_host_carries_one_path_and_pings_keep_it_open() {
    works(&["apache", "--for", "htaccess"], "/live", in_virtual_host);
    is_cut_without_pings(&["apache", "--for", "htaccess"], "/live", in_virtual_host);
}

#[test]
fn apache_proxypass_carries_one_path_and_pings_keep_it_open() {
    works(&["apache", "--for", "proxypass"], "/live", in_virtual_host);
    is_cut_without_pings(&["apache", "--for", "proxypass"], "/live", in_virtual_host);
}

#[test]
fn apache_wstunnel_carries_one_path_and_pings_keep_it_open() {
    works(&["apache", "--for", "wstunnel"], "/live", in_virtual_host);
    // The module itself knows no limit; a newer Apache hands its work on to mod_proxy_http, which does.
    works(&["apache", "--for", "wstunnel"], "/live", beside_mod_proxy_http);
    is_cut_without_pings(&["apache", "--for", "wstunnel"], "/live", beside_mod_proxy_http);
}

#[test]
fn nginx_carries_a_whole_site_and_pings_keep_it_open() {
    works(&["nginx"], "/", in_nginx);
    is_cut_without_pings(&["nginx"], "/", in_nginx);
}

#[test]
fn haproxy_carries_a_whole_site_and_pings_keep_it_open() {
    works(&["haproxy"], "/", in_haproxy);
    is_cut_without_pings(&["haproxy"], "/", in_haproxy);
}

#[test]
fn caddy_carries_a_whole_site_and_cuts_nothing() {
    works(&["caddy"], "/", in_caddy);
}

#[test]
fn one_path_is_taken_and_its_neighbour_and_every_page_are_left_alone() {
    let wootz = wootz("25s", "/live.v2");
    let cases: [(&[&str], Install); 6] = [
        (&["apache"], in_htaccess),
        (&["apache", "--for", "proxypass"], in_virtual_host),
        (&["apache", "--for", "wstunnel"], in_virtual_host),
        (&["nginx"], in_nginx),
        (&["caddy"], in_caddy),
        (&["haproxy"], in_haproxy),
    ];
    for (arguments, install) in cases {
        let proxy = install(&snippet(&wootz, arguments));
        for path in ["/live.v2", "/live.v2/", "/live.v2/room?x=1", "/live.v2/a%20b?y=%2F"] {
            let mut client = Client::connect(proxy.address(), path, &[]);
            assert!(client.ask("a b").ends_with(&format!("|{path}|a b")), "{arguments:?} {path}");
        }
        leaves_pages_alone(proxy.address());
        for path in ["/live.v2x", "/livexv2", "/"] {
            let Err(answer) = Client::try_connect(proxy.address(), path, &[]) else { panic!("{arguments:?} {path}") };
            assert!(answer.status() != 101, "{arguments:?} {path}");
            let body = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned();
            assert!(!body.contains("no WebSocket here"), "{arguments:?} {path}: wootz was asked");
        }
    }
}

#[test]
fn pages_of_a_whole_site_stay_where_they_are() {
    let wootz = wootz("25s", "/");
    let cases: [(&str, Install); 5] = [
        ("apache", in_htaccess),
        ("apache", in_virtual_host),
        ("nginx", in_nginx),
        ("caddy", in_caddy),
        ("haproxy", in_haproxy),
    ];
    for (name, install) in cases {
        let proxy = install(&snippet(&wootz, &[name]));
        leaves_pages_alone(proxy.address());
    }
}

#[test]
fn snippet_is_all_that_is_printed_and_what_can_be_no_snippet_is_refused() {
    let wootz = wootz("25s", "/");
    let output = wootz.run(&["proxy"]);
    let list = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        output.status.success() && ["apache", "nginx", "caddy", "haproxy"].iter().all(|name| list.contains(name)),
        "{list}"
    );

    let text = |arguments: &[&str]| {
        let output = wootz.run(&[&["proxy", "nginx", "--listen", "0.0.0.0:8888"], arguments].concat());
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert!(
        text(&[]).contains("proxy_pass http://127.0.0.1:8888;"),
        "what listens everywhere is reached on this machine"
    );
    assert!(text(&[]).contains("# wootz pings every 25 s, so idle ones stay."));
    assert!(
        text(&["--set", "limits.ping_interval=2m"]).contains("# limits.ping_interval, 120 s, has to be below that.")
    );
    assert!(text(&["--set", "limits.ping_interval=0"]).contains("# limits.ping_interval is 0, so idle ones are cut."));
    assert!(text(&["--to", "10.0.0.5:80"]).contains("with the address that nginx connects from"));

    // Where wootz speaks TLS itself, a proxy gets the address that does not.
    let addresses = "listen.address=127.0.0.1:443,plain:127.0.0.1:8889";
    let both = ["proxy", "nginx", "--set", "tls.cert=a", "--set", "tls.key=b", "--set", addresses];
    let printed = String::from_utf8(wootz.run(&both).stdout).expect("UTF-8");
    assert!(printed.contains("http://127.0.0.1:8889"), "{printed}");

    for (arguments, why) in [
        (&["unknown"][..], "[possible values: apache, nginx, caddy, haproxy]"),
        (&["nginx", "--for", "htaccess"], "--for: nginx has one form only"),
        (&["apache", "--for", "unknown"], "[possible values: htaccess, proxypass, wstunnel]"),
        (&["nginx", "--listen", "127.0.0.1:0"], "--listen: listen.address takes any free port"),
        (
            &["nginx", "--listen", "127.0.0.1:443", "--set", "tls.cert=a", "--set", "tls.key=b"],
            "--listen: listen.address has none without TLS for a proxy",
        ),
        (&["nginx", "--to", "unix:relative"], "--to: is host:port or unix:/path"),
        (&["nginx", "--listen", "127.0.0.1:80", "--set", "listen.path=/a b"], "--set: listen.path "),
    ] {
        let output = wootz.run(&[&["proxy"], arguments].concat());
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{arguments:?}");
        assert!(told.contains(why), "{arguments:?}: {told}");
    }
}
