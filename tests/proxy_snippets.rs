//! Each snippet of `wootz proxy`, installed as it is printed, and a browser that only knows the web server's address.
//!
//! The idle limit of each server is lowered around the snippet: pings keep a silent connection, and without them it
//! is cut.

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::authority::{Authority, ServerCertificate, Validity};
use support::client::Client;
use support::proxies::{Proxy, apache, caddy, haproxy, nginx, socket_directory};
use support::raw::{PING, PONG, Raw, frame, text};
use support::{Setup, Wootz};
use tempfile::TempDir;

/// What the idle limit of a web server is lowered to.
const LIMIT: Duration = Duration::from_secs(2);

/// A browser that is not on the address of the proxies.
const BROWSER: [u8; 4] = [127, 0, 0, 2];

/// Whom wootz sees, the browser's headers, the message's URI and its body.
const APPLICATION: &str = r#"echo "$REMOTE_ADDR|$HTTP_X_FORWARDED_FOR|$HTTP_COOKIE|$REQUEST_URI|$(cat)""#;

/// Starts a web server around a snippet.
type Install = fn(&str) -> Proxy;

fn wootz(ping_interval: &str, path: &str) -> Wootz {
    setup(ping_interval, path).start()
}

/// Behind proxies on one address of the machine.
fn setup(ping_interval: &str, path: &str) -> Setup {
    let setup = Setup::sh(APPLICATION).setting("limits.ping_interval", format!("{ping_interval:?}"));
    setup.setting("listen.path", format!("{path:?}")).setting("listen.trusted_proxies", "[\"127.0.0.1\"]")
}

/// How a web server reaches wootz.
#[derive(Debug, Clone, Copy)]
enum Way {
    Tcp,
    Unix,
    Tls,
    /// With a certificate that the web server checks.
    CheckedTls,
}

/// A wootz that listens so, and the snippet for it.
struct Behind {
    wootz: Wootz,
    snippet: String,
    _files: (TempDir, Authority),
}

impl Behind {
    fn start(setup: Setup, way: Way, arguments: &[&str]) -> Self {
        let (directory, authority) = (socket_directory(), Authority::new("Test"));
        let socket = format!("unix:{}", directory.path().join("wootz.ws").display());
        let setup = match way {
            Way::Tcp => setup,
            // The workers of a web server are somebody else.
            Way::Unix => setup
                .setting("listen.address", format!("[\"127.0.0.1:0\", {socket:?}]"))
                .setting("listen.unix_mode", "\"0666\""),
            Way::Tls | Way::CheckedTls => {
                let ServerCertificate { key, chain, .. } = authority.server("localhost", Validity::Now);
                setup.setting("tls.cert", format!("{chain:?}")).setting("tls.key", format!("{key:?}"))
            }
        };
        let wootz = setup.start();
        let listen = match way {
            Way::Unix => socket,
            Way::Tcp | Way::Tls | Way::CheckedTls => wootz.address().to_string(),
        };
        let root = directory.path().join("root.pem");
        std::fs::copy(authority.root(), &root).expect("a file");
        let root = root.to_str().expect("UTF-8");
        // Apache checks for the host that it connects to, which the others need not have.
        let named = format!("localhost:{}", wootz.address().port());
        let check = match (way, arguments[0]) {
            (Way::Tcp | Way::Unix | Way::Tls, _) => vec![],
            (Way::CheckedTls, "apache") => vec!["--to", &named, "--ca", root],
            (Way::CheckedTls, _) => vec!["--tls-name", "localhost", "--ca", root],
        };
        let snippet = snippet_for(&wootz, &[arguments, &check].concat(), &listen);
        Self { wootz, snippet, _files: (directory, authority) }
    }
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
    let said = |reply: String| reply.splitn(3, '|').nth(2).expect("five parts").to_owned();
    assert_eq!(said(client.ask("/cart?x=1")), "PHPSESSID=abc|/cart?x=1|/cart?x=1");
    assert_eq!(said(client.ask("two words")), format!("PHPSESSID=abc|{target}|two words"));
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

/// The browser's address arrives, and whatever a browser claims to be does not.
fn tells_who_the_browser_is(address: SocketAddr, path: &str) {
    for forged in
        ["", "X-Forwarded-For: 203.0.113.7\r\n", "X-Forwarded-For: 127.0.0.1\r\n", "Forwarded: for=1.1.1.1\r\n"]
    {
        let mut raw = Raw::connect_from(BROWSER, address);
        raw.shake_hands(path, forged);
        raw.write(text("who?"));
        let reply = after_pings(&mut raw);
        let [seen, forwarded] = reply.splitn(3, '|').take(2).collect::<Vec<_>>()[..] else { panic!("{reply}") };
        assert_eq!(seen, "127.0.0.2", "{forged} {reply}");
        // What was claimed stands to the left of what the web server saw, if anywhere.
        assert_eq!(forwarded.rsplit(',').next().map(str::trim), Some("127.0.0.2"), "{forged} {reply}");
    }
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
    raw.write(text("ping"));
    assert_eq!(after_pings(&mut raw), "pong");
}

/// The next message.
fn after_pings(raw: &mut Raw) -> String {
    loop {
        let frame = raw.frame();
        if frame.first != PING {
            return frame.text().to_owned();
        }
        raw.write(self::frame(PONG, frame.payload));
    }
}

/// Without pings the limit ends the connection, and nobody says why.
fn silence_is_cut(address: SocketAddr, path: &str) {
    let mut raw = Raw::open_with(address, path, "");
    let opened = Instant::now();
    raw.ends();
    assert!(opened.elapsed() > LIMIT / 2, "cut after {:?}, which is no idle limit", opened.elapsed());
}

/// The whole promise of a snippet, whichever way wootz is reached.
fn works(arguments: &[&str], path: &str, install: Install) {
    works_by(&[Way::Tcp, Way::Unix], arguments, path, install, || setup("300ms", path));
}

/// The same behind TLS of wootz's own.
fn works_with_tls(arguments: &[&str], path: &str, install: Install) {
    works_by(&[Way::Tls, Way::CheckedTls], arguments, path, install, || setup("300ms", path));
}

fn works_by(ways: &[Way], arguments: &[&str], path: &str, install: Install, setup: impl Fn() -> Setup) {
    // Silence takes its time, so they are silent together.
    std::thread::scope(|scope| {
        for way in ways {
            let setup = setup();
            scope.spawn(move || {
                let Behind { wootz, snippet, _files } = Behind::start(setup, *way, arguments);
                let proxy = install(&snippet);
                tells_who_the_browser_is(proxy.address(), path);
                pings_keep(proxy.address(), path);
                // Last, because its push reaches everybody, also who comes a moment later.
                carries(proxy.address(), &wootz, path);
            });
        }
    });
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
fn apache_reaches_a_wootz_that_speaks_tls_by_each_of_its_forms() {
    works_with_tls(&["apache"], "/", in_virtual_host);
    works_with_tls(&["apache", "--for", "proxypass"], "/live", in_virtual_host);
    works_with_tls(&["apache", "--for", "wstunnel"], "/live", in_virtual_host);
}

#[test]
fn nginx_reaches_a_wootz_that_speaks_tls() {
    works_with_tls(&["nginx"], "/", in_nginx);
}

#[test]
fn caddy_reaches_a_wootz_that_speaks_tls() {
    works_with_tls(&["caddy"], "/", in_caddy);
}

#[test]
fn haproxy_reaches_a_wootz_that_speaks_tls() {
    works_with_tls(&["haproxy"], "/", in_haproxy);
}

#[test]
fn haproxy_tells_the_browser_by_the_proxy_protocol_on_every_way() {
    let ways = [Way::Tcp, Way::Unix, Way::Tls, Way::CheckedTls];
    let setup = || setup("300ms", "/live").setting("listen.proxy_protocol", "true");
    works_by(&ways, &["haproxy"], "/live", in_haproxy, setup);
}

/// The web server answers itself where wootz shows a certificate that is not for the name, or not by the authority.
#[test]
fn certificate_that_is_not_wootzs_is_refused_by_every_proxy_that_checks_it() {
    let cases: [(&[&str], Install); 4] =
        [(&["apache"], in_virtual_host), (&["nginx"], in_nginx), (&["caddy"], in_caddy), (&["haproxy"], in_haproxy)];
    let stranger = Authority::new("Test");
    for (arguments, install) in cases {
        let Behind { wootz, snippet, _files: (_directory, own) } =
            Behind::start(setup("25s", "/"), Way::CheckedTls, arguments);
        for (authority, name) in [(&own, "other.example"), (&stranger, "localhost")] {
            let ServerCertificate { key, chain, .. } = authority.server(name, Validity::Now);
            let tls = format!("tls.cert = {chain:?}\ntls.key = {key:?}");
            let impostor = setup("25s", "/").settings(&tls).start();
            let [right, wrong] = [wootz.address(), impostor.address()].map(|address| format!(":{}", address.port()));
            let proxy = install(&snippet.replace(&right, &wrong));
            let Err(answer) = Client::try_connect(proxy.address(), "/", &[]) else {
                panic!("{arguments:?} believes {name}")
            };
            assert!(answer.status().is_server_error(), "{arguments:?} {name}: {answer:?}");
        }
    }
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
    let tls = ["--set", "tls.cert=a", "--set", "tls.key=b", "--set"];
    let printed = |addresses: &str, arguments: &[&str]| {
        let addresses = format!("listen.address={addresses}");
        let output = wootz.run(&[&["proxy", "nginx"], &tls[..], &[&addresses], arguments].concat());
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    for (addresses, url) in [
        ("127.0.0.1:443,plain:127.0.0.1:8889", "http://127.0.0.1:8889;"),
        ("127.0.0.1:443,unix:/run/wootz.ws", "http://unix:/run/wootz.ws;"),
    ] {
        let text = printed(addresses, &[]);
        assert!(text.contains(url) && !text.contains("https"), "{text}");
        let why = "# wootz speaks TLS too; its address without TLS is taken, since nothing leaves this machine.\n";
        assert!(text.contains(why), "{text}");
    }
    let plain_elsewhere = printed("127.0.0.1:443,plain:10.0.0.5:8889", &[]);
    assert!(plain_elsewhere.contains("Have nobody between who could listen."), "{plain_elsewhere}");
    let unchecked = printed("0.0.0.0:443", &[]);
    assert!(unchecked.contains("https://127.0.0.1:443;") && !unchecked.contains("proxy_ssl"), "{unchecked}");
    assert!(unchecked.contains("its certificate is not checked (--tls-name NAME does so)"), "{unchecked}");
    // Beyond this machine it is checked, by the public authorities where no others are named.
    for text in
        [printed("10.0.0.5:443", &["--tls-name", "example.com"]), printed("10.0.0.5:443", &["--to", "example.com:443"])]
    {
        for line in ["proxy_ssl_name example.com;", "proxy_ssl_verify on;", "/etc/ssl/certs/ca-certificates.crt;"] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
    assert!(printed("127.0.0.1:443", &["--to", "plain:10.0.0.5:80"]).contains("http://10.0.0.5:80;"));

    for (arguments, why) in [
        (&["unknown"][..], "[possible values: apache, nginx, caddy, haproxy]"),
        (&["nginx", "--for", "htaccess"], "--for: nginx has one form only"),
        (&["apache", "--for", "unknown"], "[possible values: htaccess, proxypass, wstunnel]"),
        (&["nginx", "--listen", "127.0.0.1:0"], "--listen: listen.address takes any free port"),
        (
            &["nginx", "--listen", "10.0.0.5:443", "--set", "tls.cert=a", "--set", "tls.key=b"],
            "--listen: this is TLS to a certificate that has to be checked, and that is for a name: --to NAME:PORT",
        ),
        (
            &["nginx", "--ca", "a.pem", "--listen", "127.0.0.1:80"],
            "--ca: is for a certificate, and there is no TLS where the proxy connects",
        ),
        (&["nginx", "--tls-name", "10.0.0.5"], "--tls-name: is a host name"),
        (&["apache", "--tls-name", "example.com"], "--tls-name: can't be told to Apache"),
        (
            &["apache", "--set", "listen.proxy_protocol=true"],
            "--set: listen.proxy_protocol = true wants a PROXY header",
        ),
        (&["nginx", "--set", "listen.proxy_protocol=true"], "nginx sends one from its stream module only"),
        (&["caddy", "--set", "listen.proxy_protocol=true"], "or take HAProxy (wootz proxy haproxy)"),
        (&["nginx", "--to", "unix:relative"], "--to: is host:port, plain:host:port or unix:/path"),
        (&["nginx", "--listen", "127.0.0.1:80", "--set", "listen.path=/a b"], "--set: listen.path "),
    ] {
        let output = wootz.run(&[&["proxy"], arguments].concat());
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{arguments:?}");
        assert!(told.contains(why), "{arguments:?}: {told}");
    }
}
