//! `wootz doctor` on ways that are broken on purpose, each in a real web server, and each fault named.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use support::authority::{Authority, ServerCertificate, Validity};
use support::daemon::free_address;
use support::doctor::{broken, doctor, echo, examine, nginx_to, says, tls_nginx, ws, wss};
use support::proxies::{apache, caddy, haproxy, nginx};
use support::{Setup, Wootz, wait_until};

/// The modules that Apache's rules need.
const MODULES: &str = "rewrite proxy proxy_http proxy_wstunnel headers";

#[test]
fn way_that_works_is_told_hop_by_hop() {
    let (wootz, authority) = (echo(), Authority::new("Test"));
    let ServerCertificate { key, chain, .. } = authority.server("localhost", Validity::Now);
    let proxy = tls_nginx(wootz.address(), &key, &chain);
    let root = authority.root();
    let arguments = ["--ca", root.to_str().expect("UTF-8"), "--cookie", "a=b", "--message", "hello you", "--idle", "1"];
    let output = doctor(wootz.directory(), &wss(proxy.address()), &arguments);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{text}");
    let hops = ["url", "dns", "tcp", "tls", "upgrade", "origin", "identity", "ping", "message", "idle"];
    let shown =
        text.lines().skip(2).take(hops.len()).map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
    assert_eq!(shown.collect::<Vec<_>>(), hops.map(|hop| format!("{hop} ok")), "{text}");
    for part in [
        "TLS 1.3, certificate of localhost, by Test Intermediate, ",
        " days left\n",
        "101 through nginx",
        r#""hello you" -> "a=b|hello you""#,
        "Everything works.",
    ] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert!(!text.contains('\x1b'), "{text}");

    // Without --ca the machine's own authorities count; this variable names them.
    let mut command = support::wootz(wootz.directory());
    let output =
        command.args(["doctor", &wss(proxy.address())]).env("SSL_CERT_FILE", &root).output().expect("the wootz binary");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn missing_upgrade_is_the_proxys_and_its_lines_are_shown() {
    let wootz = echo();
    let here = wootz.directory();
    let proxy = nginx("", "", &format!("location / {{ proxy_pass http://{}; }}", wootz.address()));
    let report = broken(here, &ws(proxy.address()), &[], "missing-upgrade");
    says(&report, "blame", "nginx");
    says(&report, "lines", "proxy_set_header Upgrade $http_upgrade;");

    let rule = format!("ProxyPass \"/\" \"http://{}/\"", wootz.address());
    let proxy = apache(MODULES, "", &rule, "");
    let report = broken(here, &ws(proxy.address()), &[], "missing-upgrade");
    says(&report, "blame", "Apache");
    says(&report, "lines", "upgrade=websocket");

    let site = format!(
        "http-request del-header Upgrade\nuse_backend wootz if TRUE\nbackend wootz\nserver wootz {}",
        wootz.address()
    );
    let proxy = haproxy("timeout client 10s\ntimeout server 10s", &site);
    broken(here, &ws(proxy.address()), &[], "missing-upgrade");

    let development = Setup::sh("cat").dev().start();
    let proxy = nginx(
        "",
        "",
        &format!("location / {{ proxy_pass http://{}; proxy_http_version 1.1; }}", development.address()),
    );
    broken(here, &ws(proxy.address()), &[], "missing-upgrade");
}

#[test]
fn fault_is_told_in_plain_words_with_the_lines_to_paste() {
    let wootz = echo();
    let proxy = nginx("", "", &format!("location / {{ proxy_pass http://{}; }}", wootz.address()));
    let output = doctor(wootz.directory(), &ws(proxy.address()), &[]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in [
        "\n  upgrade   FAILED  ",
        "400 Bad Request from nginx/",
        "\nBroken:   wootz got the request without \"Upgrade: websocket\"",
        "passes on plain HTTP. [missing-upgrade]\n",
        "\nTo blame: the proxy, nginx, not wootz.\n",
        "\nChange:   Let it pass the upgrade on:\n\n    proxy_http_version 1.1;\n",
        "\n    wootz proxy nginx\n",
    ] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    assert!(
        String::from_utf8_lossy(&output.stderr).ends_with("does not work: missing-upgrade\n"),
        "{:?}",
        output.stderr
    );
}

#[test]
fn certificate_that_browsers_refuse_is_named_with_its_reason() {
    let (wootz, authority, other) = (echo(), Authority::new("Test"), Authority::new("Other"));
    let back = wootz.address();
    let here = wootz.directory();
    let (root, other_root) = (authority.root(), other.root());
    let ca = ["--ca", root.to_str().expect("UTF-8")];

    let good = authority.server("localhost", Validity::Now);
    let proxy = tls_nginx(back, &good.key, &good.alone);
    let report = broken(here, &wss(proxy.address()), &ca, "missing-intermediate");
    says(&report, "broken", "Test Intermediate");
    says(&report, "lines", "fullchain.pem");
    let report = examine(here, &wss(proxy.address()), &[&ca[..], &["--insecure"]].concat());
    assert_eq!(report["works"], true, "{report}");
    assert!(report["notes"][0].as_str().is_some_and(|note| note.contains("missing-intermediate")), "{report}");

    let proxy = tls_nginx(back, &good.key, &good.chain);
    let report =
        broken(here, &wss(proxy.address()), &["--ca", other_root.to_str().expect("UTF-8")], "missing-intermediate");
    says(&report, "broken", "Test Root");
    let with_root = here.join("with-root.pem");
    let parts = [&good.chain, &root].map(|file| std::fs::read_to_string(file).expect("made"));
    std::fs::write(&with_root, parts.concat()).expect("a file");
    let whole = tls_nginx(back, &good.key, &with_root);
    let ca_of_others = ["--ca", other_root.to_str().expect("UTF-8")];
    says(&broken(here, &wss(whole.address()), &ca_of_others, "unknown-authority"), "broken", "Test Root");
    let by_address = format!("wss://{}/", proxy.address());
    let report = broken(here, &by_address, &ca, "certificate-wrong-name");
    says(&report, "broken", "not for 127.0.0.1, but for localhost.");
    drop(proxy);

    let expired = authority.server("localhost", Validity::Until2020);
    let proxy = tls_nginx(back, &expired.key, &expired.chain);
    let report = broken(here, &wss(proxy.address()), &ca, "certificate-expired");
    says(&report, "broken", "has expired on 2020-02-01");
    says(&report, "lines", "certbot renew");
    drop(proxy);

    let own = authority.self_signed("localhost");
    let proxy = tls_nginx(back, &own.key, &own.chain);
    broken(here, &wss(proxy.address()), &ca, "self-signed");
}

#[test]
fn http_for_https_and_https_for_http_are_told_apart() {
    let (wootz, authority) = (echo(), Authority::new("Test"));
    let here = wootz.directory();
    let ServerCertificate { key, chain, .. } = authority.server("localhost", Validity::Now);

    let proxy = tls_nginx(wootz.address(), &key, &chain);
    let report = broken(here, &ws(proxy.address()), &[], "tls-port");
    says(&report, "lines", &format!("new WebSocket(\"wss://{}/\")", proxy.address()));
    let lines =
        format!("SSLEngine on\nSSLCertificateFile {}\nSSLCertificateKeyFile {}", chain.display(), key.display());
    let proxy = apache("ssl socache_shmcb", "", &lines, "");
    broken(here, &ws(proxy.address()), &[], "tls-port");
    let both = here.join("both.pem");
    let parts = [&chain, &key].map(|file| std::fs::read_to_string(file).expect("made"));
    std::fs::write(&both, parts.concat()).expect("a file");
    let port = free_address();
    let site = format!("bind {port} ssl crt {}", both.display());
    let _proxy = haproxy("timeout client 10s\ntimeout server 10s", &site);
    broken(here, &ws(port), &[], "tls-port");

    let proxy = nginx_to(wootz.address(), "", "", "");
    broken(here, &wss(proxy.address()), &[], "plain-port");
    broken(here, &wss(wootz.address()), &["--insecure"], "plain-port");

    let proxy = nginx("", "", "return 301 https://example.com$request_uri;");
    let report = broken(here, &ws(proxy.address()), &[], "http-for-https");
    says(&report, "broken", "https://example.com/");
    says(&report, "lines", "new WebSocket(\"wss://example.com/\")");
    let proxy = nginx("", "", "return 302 /login;");
    broken(here, &ws(proxy.address()), &[], "redirected");
}

#[test]
fn refused_origin_is_wootzs_setting_or_a_proxy_that_rewrites_the_host() {
    let wootz = echo();
    let proxy = nginx_to(wootz.address(), "", "", "");
    let url = ws(proxy.address());
    let report = broken(wootz.directory(), &url, &["--origin", "https://evil.example"], "origin-refused");
    says(&report, "lines", "allowed_origins = [\"same-origin\", \"https://evil.example\"]");
    assert_eq!(examine(wootz.directory(), &url, &[])["works"], true);

    let rule = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;";
    let proxy = nginx("", "", &format!("location / {{ proxy_pass http://{}; {rule} }}", wootz.address()));
    let report = broken(wootz.directory(), &ws(proxy.address()), &[], "origin-refused");
    says(&report, "blame", "rewrites Host");
    says(&report, "lines", "proxy_set_header Host $http_host;");
}

/// A wootz whose application knows one cookie.
fn with_users(guests: &str) -> Wootz {
    let script = r#"if [ "$WOOTZ_EVENT" = validate ]; then
  case "$HTTP_COOKIE" in PHPSESSID=ada) echo ada ;; PHPSESSID=bad) exit 1 ;; esac
else echo "you are ${REMOTE_USER:-nobody}"; fi"#;
    let setup = Setup::sh(script).setting("identity.provider", "\"application\"");
    setup.setting("identity.guests", format!("{guests:?}")).start()
}

#[test]
fn cookie_that_the_proxy_drops_is_found_by_asking_wootz_directly() {
    let wootz = with_users("refuse");
    let here = wootz.directory();
    let proxy = nginx_to(wootz.address(), "", "", "proxy_set_header Cookie \"\";");
    let (url, direct) = (ws(proxy.address()), ws(wootz.address()));
    broken(here, &url, &[], "guest-refused");
    broken(here, &direct, &["--cookie", "PHPSESSID=bad"], "user-refused");
    let report = broken(here, &url, &["--cookie", "PHPSESSID=ada"], "cookie-unknown");
    says(&report, "lines", "--direct");
    let report = broken(here, &url, &["--cookie", "PHPSESSID=ada", "--direct", &direct], "cookie-lost");
    says(&report, "blame", "nginx");
    assert_eq!(report["direct"]["works"], true);
    // Known to nobody, it is not the proxy's fault.
    let report = broken(here, &url, &["--cookie", "PHPSESSID=eve", "--direct", &direct], "cookie-unknown");
    assert!(report["notes"][0].as_str().is_some_and(|note| note.contains("not to blame")), "{report}");
}

#[test]
fn cookie_that_is_dropped_where_guests_are_let_in_is_found_by_the_reply() {
    let wootz = with_users("allow");
    let here = wootz.directory();
    let direct = ws(wootz.address());
    let arguments = ["--cookie", "PHPSESSID=ada", "--message", "who am I", "--direct", &direct];
    let proxy = nginx_to(wootz.address(), "", "", "proxy_set_header Cookie \"\";");
    broken(here, &ws(proxy.address()), &arguments, "cookie-lost");
    let proxy = nginx_to(wootz.address(), "", "", "");
    assert_eq!(examine(here, &ws(proxy.address()), &arguments)["works"], true);
}

#[test]
fn back_end_that_is_down_is_told_by_every_proxy() {
    let directory = tempfile::tempdir().expect("a directory");
    let here = directory.path();
    let nobody = free_address();
    let proxies = [
        nginx_to(nobody, "", "", ""),
        apache(MODULES, "", &format!("ProxyPass \"/\" \"http://{nobody}/\" upgrade=websocket"), ""),
        haproxy(
            "timeout client 10s\ntimeout server 10s",
            &format!("use_backend w if TRUE\nbackend w\nserver w {nobody}"),
        ),
        caddy("", &format!("reverse_proxy {nobody}")),
    ];
    for (proxy, name) in proxies.iter().zip(["nginx", "Apache", "HAProxy", "Caddy"]) {
        let report = broken(here, &ws(proxy.address()), &[], "backend-down");
        says(&report, "blame", name);
        assert!(report["notes"][0].as_str().is_some_and(|note| note.contains("no wootz runs")), "{report}");
    }
    broken(here, &ws(nobody), &[], "nobody-listens");

    // Where one runs here, it is told where it listens, to be compared with the rule.
    let wootz = echo();
    let report = broken(wootz.directory(), &ws(proxies[0].address()), &[], "backend-down");
    let listens = format!("(process {}) and listens on {}.", wootz.pid(), wootz.address());
    assert!(report["notes"][0].as_str().is_some_and(|note| note.contains(&listens)), "{report}");
}

#[test]
fn web_server_without_a_rule_or_without_its_modules_is_named() {
    let wootz = echo();
    let here = wootz.directory();
    for proxy in [nginx("", "", ""), apache("", "", "", ""), caddy("", "")] {
        let report = broken(here, &ws(proxy.address()), &[], "not-forwarded");
        says(&report, "lines", "wootz proxy ");
    }
    let rule = format!("RewriteEngine On\nRewriteRule ^ ws://{}/ [P]", wootz.address());
    let report = broken(here, &ws(apache("rewrite", "", "", &rule).address()), &[], "proxy-refused");
    says(&report, "lines", "a2enmod rewrite proxy");
    let report = broken(here, &ws(apache("rewrite proxy", "", "", &rule).address()), &[], "proxy-failed");
    says(&report, "lines", "a2enmod rewrite proxy");
    let report = broken(here, &ws(nginx("", "", "deny all;").address()), &[], "proxy-refused");
    says(&report, "blame", "nginx");
}

/// Passes bytes on, but those of the server only once the client has ended its sending, from the begin or from the
/// end of the head on.
fn holding_back(back: SocketAddr, from: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.expect("a connection"), TcpStream::connect(back).expect("it listens"));
            std::thread::spawn(move || hold_back(&client, &server, from));
        }
    });
    address
}

fn hold_back(mut client: &TcpStream, mut server: &TcpStream, from: &str) {
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::io::copy(&mut client, &mut server).ok();
            server.shutdown(Shutdown::Write).ok();
        });
        let mut head = Vec::new();
        if from == "frames" {
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && server.read(&mut byte).is_ok_and(|count| count > 0) {
                head.extend_from_slice(&byte);
            }
            client.write_all(&head).ok();
        }
        let mut held = Vec::new();
        server.read_to_end(&mut held).ok();
        client.write_all(&held).ok();
        client.shutdown(Shutdown::Write).ok();
    });
}

#[test]
fn what_buffers_the_answer_or_the_frames_is_found_by_ending_the_sending() {
    let wootz = echo();
    let here = wootz.directory();
    let report = broken(here, &ws(holding_back(wootz.address(), "answer")), &["--timeout", "3"], "buffering");
    assert_eq!(report["fault"]["hop"], "upgrade");
    let report = broken(here, &ws(holding_back(wootz.address(), "frames")), &["--timeout", "3"], "buffering");
    assert_eq!(report["fault"]["hop"], "ping");
}

#[test]
fn silence_is_told_apart_by_what_else_is_answered() {
    let directory = tempfile::tempdir().expect("a directory");
    // Connections to it are made by the kernel, and nobody ever answers.
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = nobody.local_addr().expect("bound");
    broken(directory.path(), &ws(address), &["--timeout", "2"], "silent");
    broken(directory.path(), &wss(address), &["--timeout", "2", "--insecure"], "tls-silent");
    let rule = format!(
        "error_page 418 = @wootz;\nif ($http_upgrade) {{ return 418; }}\n\
         location @wootz {{ proxy_pass http://{address}; }}"
    );
    let proxy = nginx("", "", &rule);
    broken(directory.path(), &ws(proxy.address()), &["--timeout", "5"], "handshake-silent");
}

#[test]
fn idle_limit_below_the_pings_is_measured_and_named() {
    let wootz = Setup::sh("cat").setting("limits.ping_interval", "\"\"").start();
    let here = wootz.directory();
    let proxy = nginx_to(wootz.address(), "proxy_read_timeout 2s;", "", "");
    let report = broken(here, &ws(proxy.address()), &["--idle", "30"], "idle-limit");
    says(&report, "blame", "nginx");
    says(&report, "lines", "proxy_read_timeout 1h;");
    says(&report, "lines", "ping_interval = ");
    let site = format!("use_backend w if TRUE\nbackend w\nserver w {}", wootz.address());
    let proxy = haproxy("timeout client 2s\ntimeout server 2s", &site);
    broken(here, &ws(proxy.address()), &["--idle", "30"], "idle-limit");

    let pinging = Setup::sh("cat").setting("limits.ping_interval", "\"300ms\"").start();
    let proxy = nginx_to(pinging.address(), "proxy_read_timeout 2s;", "", "");
    assert_eq!(examine(here, &ws(proxy.address()), &["--idle", "5"])["works"], true);
}

#[test]
fn server_without_a_free_descriptor_is_named_with_its_limit() {
    let wootz = echo();
    let pid = Pid::from_raw(wootz.pid().cast_signed()).expect("a process");
    // All its threads have what they need: the one of the control socket answers, and asks those of the browsers.
    wootz.status();
    // It has more open already, so the next one is one too many, whatever numbers are free in between.
    let limit = 3;
    let before = prlimit(
        Some(pid),
        Resource::Nofile,
        Rlimit { current: Some(limit), maximum: getrlimit(Resource::Nofile).maximum },
    )
    .expect("a child of ours");
    let report = broken(wootz.directory(), &ws(wootz.address()), &["--timeout", "2"], "nofile");
    says(&report, "broken", &format!("process {}", wootz.pid()));
    says(&report, "broken", &format!("of at most {limit} files"));
    says(&report, "lines", "LimitNOFILE=");
    let proxy = nginx_to(wootz.address(), "proxy_read_timeout 2s;", "", "");
    broken(wootz.directory(), &ws(proxy.address()), &[], "nofile");
    prlimit(Some(pid), Resource::Nofile, before).expect("a child of ours");
    wait_until("it accepts again", || {
        (examine(wootz.directory(), &ws(wootz.address()), &["--timeout", "2"])["works"] == true).then_some(())
    });
}

#[test]
fn path_that_is_not_served_and_application_that_is_silent_are_named() {
    let wootz = Setup::sh("cat >/dev/null").setting("listen.path", "\"/live\"").start();
    let here = wootz.directory();
    let url = format!("ws://{}/other", wootz.address());
    says(&broken(here, &url, &[], "wrong-path"), "lines", "path = ");
    let url = format!("ws://{}/live", wootz.address());
    broken(here, &url, &["--message", "anybody there", "--timeout", "2"], "no-reply");
    // Past the proxy, the path stays the URL's own.
    let url = format!("ws://{}/live", free_address());
    let report = broken(here, &url, &["--direct", &ws(wootz.address())], "nobody-listens");
    assert_eq!(report["direct"]["works"], true, "{report}");
}

#[test]
fn names_and_urls_that_lead_nowhere_are_named_before_anything_is_tried() {
    let directory = tempfile::tempdir().expect("a directory");
    // No name server is asked for a name that can't exist.
    broken(directory.path(), "ws://no..such..name/", &[], "no-such-name");
    broken(directory.path(), "example.com", &[], "bad-url");
    for arguments in [["--ca", "none.pem"], ["--idle", "0"], ["--direct", "x"]] {
        let output = doctor(directory.path(), "ws://127.0.0.1/", &arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}
