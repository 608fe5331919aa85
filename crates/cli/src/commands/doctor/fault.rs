//! Everything that can be broken on the way, each with who is to blame and the lines to change. The one table of the
//! doctor.

use std::net::SocketAddr;
use std::time::Duration;

use super::answer::{Answer, Proxy};
use super::report::Hop;

/// What is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    BadUrl(String),
    NoSuchName {
        host: String,
        why: String,
    },
    NameServerSilent {
        host: String,
    },
    NobodyListens {
        address: SocketAddr,
    },
    TcpSilent {
        address: SocketAddr,
    },
    Unreachable {
        address: SocketAddr,
        why: String,
    },
    /// `wss` to a port that speaks plain HTTP.
    PlainPort {
        address: SocketAddr,
    },
    /// `ws` to a port that speaks TLS; the URL is the right one.
    TlsPort {
        address: SocketAddr,
        url: String,
    },
    /// `ws` where the web server sends everybody to `https`.
    HttpForHttps {
        location: String,
    },
    /// The proxy speaks plain HTTP to wootz, which speaks TLS there.
    PlainToTls {
        proxy: Proxy,
    },
    TlsSilent,
    /// `server` is what `openssl s_client` is told.
    TlsClosed {
        server: String,
    },
    TlsFailed {
        why: String,
    },
    NoRoots,
    MissingIntermediate {
        subject: String,
        issuer: String,
        sent: usize,
    },
    UnknownAuthority {
        issuer: String,
    },
    SelfSigned {
        subject: String,
    },
    Expired {
        date: String,
    },
    NotYetValid {
        date: String,
    },
    WrongName {
        host: String,
        names: Vec<String>,
    },
    BadCertificate {
        why: String,
        server: String,
    },
    Redirected {
        location: String,
        status: u16,
    },
    MissingUpgrade {
        proxy: Proxy,
    },
    NotForwarded {
        answer: Answer,
    },
    BackendDown {
        answer: Answer,
    },
    ProxyRefused {
        answer: Answer,
    },
    ProxyFailed {
        answer: Answer,
    },
    TooMany {
        answer: Answer,
    },
    TooLarge {
        answer: Answer,
    },
    OtherPath {
        path: String,
    },
    OtherVersion {
        proxy: Proxy,
    },
    Unavailable,
    TooSlow {
        proxy: Proxy,
    },
    /// The 101 came only when the doctor had ended its sending.
    HeldBack {
        what: HeldBack,
        proxy: Proxy,
    },
    /// Pages are answered, handshakes are not.
    HandshakeSilent,
    Silent,
    OpenFiles {
        pid: u32,
        used: usize,
        limit: usize,
    },
    Closed {
        hop: Hop,
        how: &'static str,
    },
    NotHttp {
        hop: Hop,
    },
    BadUpgrade {
        why: String,
    },
    OriginRefused {
        origin: String,
        own: bool,
        proxy: Proxy,
    },
    GuestRefused {
        cookie: Sent,
        proxy: Proxy,
    },
    UserRefused {
        cookie: Sent,
        proxy: Proxy,
    },
    CookieLost {
        proxy: Proxy,
    },
    NoPong,
    NoReply {
        patience: Duration,
    },
    BrokenOff {
        hop: Hop,
        how: String,
    },
    NotWebSocket {
        hop: Hop,
        why: String,
    },
    ClosedByServer {
        hop: Hop,
        code: u16,
        reason: String,
    },
    IdleLimit {
        after: Duration,
        pings: usize,
        proxy: Proxy,
    },
}

/// What was held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeldBack {
    Answer,
    Frames,
}

/// Whether something went with the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Yes,
    No,
}

/// A fault in plain words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Diagnosis {
    pub(super) hop: Hop,
    /// Stable, for programs.
    pub(super) name: &'static str,
    pub(super) broken: String,
    pub(super) blame: String,
    pub(super) change: String,
    /// The lines of a file, or commands, as they can be pasted.
    pub(super) lines: Vec<String>,
}

impl Fault {
    /// What is broken, whose it is, and what to change.
    pub(super) fn diagnosis(&self) -> Diagnosis {
        let (hop, name, broken, blame, change, lines) = self.parts();
        let lines = lines.lines().map(str::to_owned).collect();
        Diagnosis { hop, name, broken, blame, change, lines }
    }

    /// Hop, name, broken, blame, change, lines. One arm per fault, so that a person who adds one sees what all others
    /// say.
    fn parts(&self) -> (Hop, &'static str, String, String, String, String) {
        let none = String::new;
        match self {
            Self::BadUrl(why) => (
                Hop::Url,
                "bad-url",
                format!("The URL can't be used: {why}."),
                "the URL".into(),
                "Write it as a page's script does.".into(),
                "new WebSocket(\"wss://example.com/path\")".into(),
            ),
            Self::NoSuchName { host, why } => (
                Hop::Dns,
                "no-such-name",
                format!("{host} has no address ({why})."),
                "DNS, or a slip in the name".into(),
                "Add an A or AAAA record, or correct the name. What this machine is told:".into(),
                format!("getent ahosts {host}"),
            ),
            Self::NameServerSilent { host } => (
                Hop::Dns,
                "dns-silent",
                format!("Nobody answered the question for the address of {host}."),
                "the name server of this machine, or the way to it".into(),
                "See which name server is asked, and whether it can be reached.".into(),
                "cat /etc/resolv.conf".into(),
            ),
            Self::NobodyListens { address } => (
                Hop::Tcp,
                "nobody-listens",
                format!("{address} refuses connections: nobody listens there."),
                "the server: it does not run, or it listens on another port or address".into(),
                "Start it; on its machine, see who listens on the port:".into(),
                format!("ss -ltnp 'sport = :{}'", address.port()),
            ),
            Self::TcpSilent { address } => (
                Hop::Tcp,
                "tcp-silent",
                format!("{address} does not answer at all, not even with a refusal."),
                "a firewall that drops packets, or a wrong address".into(),
                "Open the port on the machine and at its provider, or correct the DNS record.".into(),
                none(),
            ),
            Self::Unreachable { address, why } => (
                Hop::Tcp,
                "unreachable",
                format!("{address} can't be reached: {why}."),
                "the network between here and there".into(),
                "See where the way ends:".into(),
                format!("traceroute {}", address.ip()),
            ),
            Self::PlainPort { address } => (
                Hop::Tls,
                "plain-port",
                format!("{address} speaks plain HTTP, no TLS."),
                "the URL (https or wss where there is no TLS), or a web server whose TLS is not \
configured for this port"
                    .into(),
                "Ask without TLS (ws://), or let the web server speak TLS there:".into(),
                "nginx:   listen 443 ssl;\nApache:  SSLEngine on\nwootz:   [tls] cert and key in wootz.toml".into(),
            ),
            Self::TlsPort { address, url } => (
                Hop::Upgrade,
                "tls-port",
                format!("{address} speaks TLS, and was spoken to in plain HTTP: http for https."),
                "the URL: ws or http where it has to be wss or https".into(),
                "In the page:".into(),
                format!("new WebSocket({url:?})"),
            ),
            Self::HttpForHttps { location } => (
                Hop::Upgrade,
                "http-for-https",
                format!(
                    "The web server sends everybody on to {location}, and no browser follows a redirect with a \
                     WebSocket: http for https."
                ),
                "the URL: ws or http where it has to be wss or https".into(),
                "In the page:".into(),
                format!("new WebSocket({:?})", location.replacen("https://", "wss://", 1)),
            ),
            Self::PlainToTls { proxy } => (
                Hop::Upgrade,
                "plain-to-tls",
                "wootz speaks TLS where the proxy connects, and was spoken to in plain HTTP.".into(),
                format!("{}: its rule has http or ws where it has to be https or wss", the(*proxy)),
                "Install the rule for wootz as it is configured now, or give wootz an address without TLS for the \
                 proxy, in wootz.toml:"
                    .into(),
                format!("{}\n\n[listen]\naddress = [\"0.0.0.0:8888\", \"plain:127.0.0.1:8889\"]", whole_rule(*proxy)),
            ),
            Self::TlsSilent => (
                Hop::Tls,
                "tls-silent",
                "The connection was taken, but the TLS handshake got no answer.".into(),
                "the server that ends TLS: it hangs, or can accept nothing more".into(),
                "See its log, and how many files it may open:".into(),
                "cat /proc/PID/limits".into(),
            ),
            Self::TlsClosed { server } => (
                Hop::Tls,
                "tls-closed",
                "The server ended the connection within the TLS handshake, without a word.".into(),
                "the server that ends TLS: it may have no certificate for this name, refuse this address, or speak \
                 another protocol on this port (wootz with listen.proxy_protocol = true takes proxies only)"
                    .into(),
                "Its log has the reason; what another client is told:".into(),
                format!("openssl s_client -connect {server}"),
            ),
            Self::TlsFailed { why } => (
                Hop::Tls,
                "tls-failed",
                format!("There is no TLS with this server: {why}."),
                "the server that ends TLS (its versions, ciphers or names)".into(),
                "Let it speak TLS 1.2 and 1.3:".into(),
                "nginx:   ssl_protocols TLSv1.2 TLSv1.3;\nApache:  SSLProtocol -all +TLSv1.2 +TLSv1.3".into(),
            ),
            Self::NoRoots => (
                Hop::Tls,
                "no-roots",
                "This machine has no certificates of authorities, so none can be checked.".into(),
                "this machine".into(),
                "Install them, or name some by --ca FILE.".into(),
                "apt-get install ca-certificates".into(),
            ),
            Self::MissingIntermediate { subject, issuer, sent } => (
                Hop::Tls,
                "missing-intermediate",
                format!(
                    "The server sends {} for {subject}, and not the one of its issuer, \"{issuer}\". That is no \
                     authority that this machine knows, so the chain is broken.",
                    if *sent == 1 { "one certificate".to_owned() } else { format!("{sent} certificates") }
                ),
                "the server that ends TLS: its certificate file lacks the chain (browsers that \
have met this issuer before hide it)"
                    .into(),
                format!(
                    "Give it the whole chain: its own certificate, then the one of \"{issuer}\". (If \
that is your own authority: --ca FILE.)"
                ),
                "nginx:   ssl_certificate     \
/etc/letsencrypt/live/NAME/fullchain.pem;\nApache:  SSLCertificateFile  \
/etc/letsencrypt/live/NAME/fullchain.pem"
                    .into(),
            ),
            Self::UnknownAuthority { issuer } => (
                Hop::Tls,
                "unknown-authority",
                format!("The chain ends at \"{issuer}\", an authority that this machine does not know."),
                "the server's certificate, which browsers refuse too unless they know that authority".into(),
                "Use a certificate of a public authority; for one of your own, name it:".into(),
                "wootz doctor --ca FILE URL".into(),
            ),
            Self::SelfSigned { subject } => (
                Hop::Tls,
                "self-signed",
                format!("The certificate for {subject} is signed by itself, so nobody vouches for it."),
                "the server's certificate: browsers refuse it, and for a WebSocket they do not even ask".into(),
                "Get one from an authority; or go on in spite of it, for this look only:".into(),
                "certbot --nginx        (or --apache)\nwootz doctor --insecure URL".into(),
            ),
            Self::Expired { date } => (
                Hop::Tls,
                "certificate-expired",
                format!("The certificate has expired on {date}."),
                "the server that ends TLS: it was not renewed, or not loaded again since".into(),
                "Renew it, and reload the server.".into(),
                "certbot renew && systemctl reload nginx        (or apache2, caddy, haproxy, wootz)".into(),
            ),
            Self::NotYetValid { date } => (
                Hop::Tls,
                "certificate-not-yet-valid",
                format!("The certificate is valid from {date} on."),
                "the clock of this machine, or a certificate that was made for later".into(),
                "Compare the clock:".into(),
                "date -u".into(),
            ),
            Self::WrongName { host, names } => (
                Hop::Tls,
                "certificate-wrong-name",
                format!(
                    "The certificate is not for {host}, but for {}.",
                    if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") }
                ),
                "the server that ends TLS (it showed the certificate of another site), or the URL".into(),
                format!("Get a certificate that names {host}, and let the site of this name show it."),
                format!("certbot --nginx -d {host}        (or --apache)"),
            ),
            Self::BadCertificate { why, server } => (
                Hop::Tls,
                "certificate-invalid",
                format!("The certificate is not valid: {why}."),
                "the server's certificate".into(),
                "Get a new one; what this one says:".into(),
                format!("openssl s_client -connect {server} </dev/null | openssl x509 -noout -text"),
            ),
            Self::Redirected { location, status } => (
                Hop::Upgrade,
                "redirected",
                format!(
                    "The web server redirects to {location} ({status}), and no browser follows a \
redirect with a WebSocket."
                ),
                "the URL, or a rule of the web server that redirects handshakes too".into(),
                "Use the address that it redirects to, or exempt handshakes from the rule:".into(),
                "Apache:  RewriteCond %{HTTP:Upgrade} !=websocket [NC]        (above the rule \
that redirects)"
                    .into(),
            ),
            Self::MissingUpgrade { proxy } => (
                Hop::Upgrade,
                "missing-upgrade",
                "wootz got the request without \"Upgrade: websocket\", though it was sent: \
something before it passes on plain HTTP."
                    .into(),
                format!("{}, not wootz", the(*proxy)),
                "Let it pass the upgrade on:".into(),
                upgrade_lines(*proxy),
            ),
            Self::NotForwarded { answer } => (
                Hop::Upgrade,
                "not-forwarded",
                format!("The handshake was answered like a page ({}), and not by wootz.", answer.shown()),
                format!(
                    "{}: it has no rule that passes WebSockets of this path on, or speaks to something else",
                    the(answer.proxy())
                ),
                "Install the rule, for the site and the path of this URL:".into(),
                whole_rule(answer.proxy()),
            ),
            Self::BackendDown { answer } => (
                Hop::Upgrade,
                "backend-down",
                format!("The proxy gets no answer from wootz ({}).", answer.shown()),
                format!(
                    "wootz, if it does not run; else {}: the address in its rule is not where wootz listens, or one \
                     of the two speaks TLS or the PROXY protocol and the other does not",
                    the(answer.proxy())
                ),
                "Start wootz, and compare its address with the rule for it:".into(),
                format!("wootz status\n{}", whole_rule(answer.proxy())),
            ),
            Self::ProxyRefused { answer } => (
                Hop::Upgrade,
                "proxy-refused",
                format!("The handshake was refused before it came to wootz ({}).", answer.shown()),
                format!(
                    "{}: a rule of its own about who may come in{}",
                    the(answer.proxy()),
                    without_proxy_modules(answer)
                ),
                "Exempt the path from the rule, or sign in first (--cookie); its log of errors \
names the rule."
                    .into(),
                modules(answer.proxy()),
            ),
            Self::ProxyFailed { answer } => (
                Hop::Upgrade,
                "proxy-failed",
                format!("The web server failed ({}).", answer.shown()),
                format!("{}{}", the(answer.proxy()), without_proxy_modules(answer)),
                "Its log of errors has the reason.".into(),
                modules(answer.proxy()),
            ),
            Self::TooMany { answer } => (
                Hop::Upgrade,
                "too-many",
                format!("There are too many connections from this address ({}).", answer.shown()),
                "a limit per address: of the proxy's, or wootz's own (limits.per_address, \
                 limits.handshakes_per_second), which takes all browsers behind a proxy for one unless it is trusted"
                    .into(),
                "Raise the limit, or trust the proxy; in wootz.toml, for one on the same machine:".into(),
                "[listen]\ntrusted_proxies = [\"127.0.0.1\"]".into(),
            ),
            Self::TooLarge { answer } => (
                Hop::Upgrade,
                "head-too-large",
                format!("The header fields are too large ({}): mostly the cookies are.", answer.shown()),
                "the page's cookies, or a limit that is too small for them".into(),
                "Raise the limit that was hit:".into(),
                "nginx:   large_client_header_buffers 4 32k;\nApache:  LimitRequestFieldSize 32768\n\
                 wootz:   limits.max_head = \"32KiB\""
                    .into(),
            ),
            Self::OtherPath { path } => (
                Hop::Upgrade,
                "wrong-path",
                format!(
                    "wootz was reached, but serves no WebSocket at {path}, or at what the proxy made of that path."
                ),
                "the path in the URL, a proxy that rewrites it, or listen.path".into(),
                "Make them agree. In wootz.toml:".into(),
                "[listen]\npath = \"/\"        # everything".into(),
            ),
            Self::OtherVersion { proxy } => (
                Hop::Upgrade,
                "wrong-version",
                "wootz was asked for another version of WebSocket than the doctor's (13).".into(),
                format!("{}: it rewrites Sec-WebSocket-Version", the(*proxy)),
                "Let it pass the header fields of the handshake on as they are:".into(),
                whole_rule(*proxy),
            ),
            Self::Unavailable => (
                Hop::Identity,
                "unavailable",
                "wootz was reached, but says that it takes no connection now (503).".into(),
                "wootz if it is shutting down or full; else the application, which could not say \
who this is"
                    .into(),
                "wootz's log has the reason at this minute:".into(),
                "journalctl -u wootz -n 20".into(),
            ),
            Self::TooSlow { proxy } => (
                Hop::Upgrade,
                "too-slow",
                "wootz got no whole request in time (408).".into(),
                format!("{}: it holds the request back", the(*proxy)),
                "Let it pass the request on at once; the rule that works:".into(),
                whole_rule(*proxy),
            ),
            Self::HeldBack { what, proxy } => (
                match what {
                    HeldBack::Answer => Hop::Upgrade,
                    HeldBack::Frames => Hop::Ping,
                },
                "buffering",
                match what {
                    HeldBack::Answer => {
                        "The answer was ready, but came only when the doctor had ended the connection: \
something on the way buffers it."
                    }
                    HeldBack::Frames => {
                        "The connection opened, but what the server sends on it comes only when the \
doctor has ended it: something on the way buffers it."
                    }
                }
                .into(),
                format!("{}, or a virus scanner or middlebox on the way", the(*proxy)),
                "Switch its buffering off for this path; TLS (wss) keeps others from looking in.".into(),
                match proxy {
                    Proxy::Nginx => "proxy_buffering off;".into(),
                    Proxy::Apache => "SetEnv proxy-sendchunked 1\nand no SetOutputFilter BUFFER, DEFLATE or \
SUBSTITUTE for this path"
                        .into(),
                    Proxy::Caddy | Proxy::Haproxy | Proxy::Unknown => none(),
                },
            ),
            Self::HandshakeSilent => (
                Hop::Upgrade,
                "handshake-silent",
                "Ordinary requests are answered here, a WebSocket handshake is not: something \
waits for the end of an answer that has none."
                    .into(),
                "a proxy that knows no WebSocket and buffers, or the application behind it".into(),
                "Pass handshakes on to wootz by a rule of their own:".into(),
                whole_rule(Proxy::Unknown),
            ),
            Self::Silent => (
                Hop::Upgrade,
                "silent",
                "The connection was taken, but no request on it is answered.".into(),
                "whoever listens there: it hangs, is overloaded, or can open no more files".into(),
                "On its machine, compare the limit with what is open:".into(),
                "grep 'open files' /proc/$(pidof wootz)/limits; ls /proc/$(pidof wootz)/fd | wc -l".into(),
            ),
            Self::OpenFiles { pid, used, limit } => (
                Hop::Upgrade,
                "nofile",
                format!(
                    "wootz (process {pid} on this machine) has {used} of at most {limit} files open: \
it can accept no connection."
                ),
                "the limit of open files that wootz was started with".into(),
                "Raise it, in wootz.service or in the shell that starts it:".into(),
                "[Service]\nLimitNOFILE=65536\n\nulimit -n 65536".into(),
            ),
            Self::Closed { hop, how } => (
                *hop,
                "closed",
                format!("The connection ended {how}, before any answer."),
                "whoever listens there: it speaks another protocol, refuses this address, or has died (wootz with \
                 listen.proxy_protocol = true takes proxies only)"
                    .into(),
                "Its log has the reason; wootz's, for one:".into(),
                "journalctl -u wootz -n 20".into(),
            ),
            Self::NotHttp { hop } => (
                *hop,
                "not-http",
                "What answers there is no HTTP.".into(),
                "the port in the URL: another service listens there".into(),
                "On its machine, see who:".into(),
                "ss -ltnp".into(),
            ),
            Self::BadUpgrade { why } => (
                Hop::Upgrade,
                "bad-upgrade",
                format!("There is a 101, but it opens no WebSocket: {why}."),
                "a proxy or cache that answers itself or changes the fields of the answer".into(),
                "Let it pass the answer on as it is:".into(),
                whole_rule(Proxy::Unknown),
            ),
            Self::OriginRefused { origin, own: true, proxy } => (
                Hop::Origin,
                "origin-refused",
                format!(
                    "wootz refused a page of the site itself ({origin}): it was told another host \
than the browser asked for."
                ),
                format!("{}: it rewrites Host", the(*proxy)),
                "Let it pass Host on, or name the origin in wootz.toml:".into(),
                format!("{}\n\n[identity]\nallowed_origins = [\"same-origin\", \"{origin}\"]", host_line(*proxy)),
            ),
            Self::OriginRefused { origin, own: false, .. } => (
                Hop::Origin,
                "origin-refused",
                format!("wootz lets no page of {origin} connect: its origin is not in identity.allowed_origins."),
                "wootz's configuration, if that page is yours".into(),
                "In wootz.toml:".into(),
                format!("[identity]\nallowed_origins = [\"same-origin\", \"{origin}\"]"),
            ),
            Self::GuestRefused { cookie: Sent::No, .. } => (
                Hop::Identity,
                "guest-refused",
                "wootz lets no guest in (401), and no cookie was sent.".into(),
                "nobody, if only users shall connect: identity.guests = \"refuse\"".into(),
                "Give the cookie of a user who is signed in, or let guests in:".into(),
                "wootz doctor --cookie 'PHPSESSID=…' URL\n\n[identity]\nguests = \"allow\"".into(),
            ),
            Self::GuestRefused { cookie: Sent::Yes, .. } => (
                Hop::Identity,
                "cookie-unknown",
                "wootz took this for a guest (401), though a cookie was sent: it did not arrive, \
or names no user."
                    .into(),
                "the cookie (its name, its end, its session); or a proxy that drops it \
(identity.guests = \"refuse\")"
                    .into(),
                "See whether wootz itself accepts the cookie, without the proxy:".into(),
                "wootz doctor --cookie '…' --direct ws://127.0.0.1:8888/ URL".into(),
            ),
            Self::UserRefused { cookie, .. } => (
                Hop::Identity,
                "user-refused",
                match cookie {
                    Sent::Yes => "wootz was reached, and the application refused who came with this cookie (403).",
                    Sent::No => "wootz was reached, and the application refused who came without a cookie (403).",
                }
                .into(),
                "the application's answer to WOOTZ_EVENT=validate (identity.provider = \"application\")".into(),
                "See whether wootz itself accepts it, without the proxy; wootz's log has the \
application's reason:"
                    .into(),
                "wootz doctor --cookie '…' --direct ws://127.0.0.1:8888/ URL".into(),
            ),
            Self::CookieLost { proxy } => (
                Hop::Identity,
                "cookie-lost",
                "wootz knows this cookie when it is asked directly, and not through this URL: \
the cookie is not forwarded."
                    .into(),
                the(*proxy),
                "Take out what drops it:".into(),
                match proxy {
                    Proxy::Nginx => "proxy_set_header Cookie \"\";        (or a proxy_set_header with a wrong value)",
                    Proxy::Apache => "RequestHeader unset Cookie",
                    Proxy::Haproxy => "http-request del-header Cookie",
                    Proxy::Caddy => "header_up -Cookie",
                    Proxy::Unknown => "any rule that removes or rewrites the field Cookie",
                }
                .into(),
            ),
            Self::NoPong => (
                Hop::Ping,
                "no-pong",
                "The connection opened, but a ping gets no pong: frames do not pass.".into(),
                "something between, which passes the handshake on but not what follows it".into(),
                "Pass handshakes on by a rule that upgrades:".into(),
                whole_rule(Proxy::Unknown),
            ),
            Self::NoReply { patience } => (
                Hop::Message,
                "no-reply",
                format!(
                    "The message arrived at an open connection, but no reply came within {} s.",
                    patience.as_secs()
                ),
                "the application: it printed nothing, failed, or takes longer (for the text \
\"ping\": limits.text_ping is off)"
                    .into(),
                "wootz's log has the call's end, and --dev tells the browser too:".into(),
                "journalctl -u wootz -n 20".into(),
            ),
            Self::BrokenOff { hop, how } => (
                *hop,
                "broken-off",
                format!("The connection ended {how}."),
                "something between, or a wootz that died".into(),
                "Compare with wootz itself:".into(),
                "wootz doctor --direct ws://127.0.0.1:8888/ URL".into(),
            ),
            Self::NotWebSocket { hop, why } => (
                *hop,
                "not-websocket",
                format!("What comes after the handshake is no WebSocket: {why}."),
                "something between that adds or changes bytes, or a server that is none".into(),
                "Compare with wootz itself:".into(),
                "wootz doctor --direct ws://127.0.0.1:8888/ URL".into(),
            ),
            Self::ClosedByServer { hop, code, reason } => (
                *hop,
                "closed-by-server",
                format!(
                    "The server closed the connection with {code}{}.",
                    if reason.is_empty() { none() } else { format!(" ({reason})") }
                ),
                closer(*code).into(),
                "wootz's log has the reason:".into(),
                "journalctl -u wootz -n 20".into(),
            ),
            Self::IdleLimit { after, pings: 0, proxy } => (
                Hop::Idle,
                "idle-limit",
                format!(
                    "After {:.1} s of silence the connection was cut without a Close frame: an idle \
limit. wootz had not pinged until then.",
                    after.as_secs_f64()
                ),
                format!("{}, whose limit is below limits.ping_interval", the(*proxy)),
                "Let wootz ping below the limit, or raise the limit:".into(),
                format!("[limits]\nping_interval = \"{}\"\n\n{}", half(*after), idle_line(*proxy)),
            ),
            Self::IdleLimit { after, pings, proxy } => (
                Hop::Idle,
                "idle-limit",
                format!(
                    "After {:.1} s the connection was cut without a Close frame, though wootz had \
pinged {pings} times.",
                    after.as_secs_f64()
                ),
                format!(
                    "{}: a limit for the whole life of a connection, or for silence of the browser's \
side; or it was restarted",
                    the(*proxy)
                ),
                "Raise the limit:".into(),
                idle_line(*proxy),
            ),
        }
    }
}

fn the(proxy: Proxy) -> String {
    match proxy {
        Proxy::Apache => "the proxy, Apache",
        Proxy::Nginx => "the proxy, nginx",
        Proxy::Caddy => "the proxy, Caddy",
        Proxy::Haproxy => "the proxy, HAProxy",
        Proxy::Unknown => "the proxy",
    }
    .to_owned()
}

fn whole_rule(proxy: Proxy) -> String {
    match proxy.name() {
        Some(name) => format!("wootz proxy {name}"),
        None => "wootz proxy apache        (or nginx, caddy, haproxy)".to_owned(),
    }
}

fn upgrade_lines(proxy: Proxy) -> String {
    let lines = match proxy {
        Proxy::Nginx => {
            "proxy_http_version 1.1;\nproxy_set_header Upgrade \
$http_upgrade;\nproxy_set_header Connection upgrade;\n\n"
        }
        Proxy::Apache => "ProxyPass \"/\" \"http://127.0.0.1:8888/\" upgrade=websocket\n\n",
        Proxy::Caddy | Proxy::Haproxy | Proxy::Unknown => "",
    };
    format!("{lines}{}", whole_rule(proxy))
}

fn host_line(proxy: Proxy) -> &'static str {
    match proxy {
        Proxy::Nginx => "proxy_set_header Host $http_host;",
        Proxy::Apache => "ProxyPreserveHost On",
        Proxy::Caddy => "header_up Host {host}",
        Proxy::Haproxy | Proxy::Unknown => "Host: as the browser sent it",
    }
}

fn idle_line(proxy: Proxy) -> String {
    match proxy {
        Proxy::Nginx => "proxy_read_timeout 1h;",
        Proxy::Apache => "ProxyTimeout 3600",
        Proxy::Haproxy => "timeout tunnel 1h",
        Proxy::Caddy | Proxy::Unknown => {
            "nginx:    proxy_read_timeout 1h;\nApache:   ProxyTimeout 3600\nHAProxy:  \
timeout tunnel 1h\n(or the idle timeout of the load balancer in front)"
        }
    }
    .to_owned()
}

/// Apache says no more than this where its rule is there and its modules are not.
fn without_proxy_modules(answer: &Answer) -> &'static str {
    match answer.proxy() {
        Proxy::Apache => ", or its proxy modules are not loaded",
        Proxy::Nginx | Proxy::Caddy | Proxy::Haproxy | Proxy::Unknown => "",
    }
}

fn modules(proxy: Proxy) -> String {
    match proxy {
        Proxy::Apache => "a2enmod rewrite proxy proxy_http proxy_wstunnel && systemctl restart apache2".to_owned(),
        Proxy::Nginx | Proxy::Caddy | Proxy::Haproxy | Proxy::Unknown => String::new(),
    }
}

/// Half of an idle limit, as a duration of wootz.toml.
fn half(limit: Duration) -> String {
    let half = limit / 2;
    match half.as_millis() {
        2000.. => format!("{}s", half.as_secs()),
        ms @ 100.. => format!("{}ms", ms / 100 * 100),
        ms => format!("{}ms", ms.max(1)),
    }
}

/// What the close codes of wootz say about whose it is.
fn closer(code: u16) -> &'static str {
    match code {
        1001 | 1012 => "nobody: wootz shuts down or restarts",
        1002 | 1003 | 1007 => "something between that changes bytes, since the doctor keeps to the protocol",
        1009 => "the message, which is over limits.max_message",
        1011 => "the application, or wootz itself",
        1013 => "wootz, which is busy, or reads too slowly answered pushes",
        4401 => "nobody: the session has ended",
        4408 => "something between that drops the doctor's pongs",
        _ => "the server",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_limit_is_a_round_duration_of_the_file() {
        let cases = [(60_000, "30s"), (5_100, "2s"), (2_995, "1400ms"), (150, "75ms"), (0, "1ms")];
        for (limit_ms, written) in cases {
            assert_eq!(half(Duration::from_millis(limit_ms)), written);
        }
    }
}
