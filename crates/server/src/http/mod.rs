//! 3 · upgrade: from an accepted socket to a valid upgrade and an identity, or to an HTTP answer that says why not.
//!
//! Everything is decided before the 101; a refusal is a status, never a close code. The future of this module is gone when
//! the connection begins to live.

mod head;
mod origin;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wootz_protocol::handshake::{self, Acceptance, Request};
use wootz_runner::{Caller, ConnectionId};

use crate::config::Mode;
use crate::connection::{MailboxKind, Opened};
use crate::console;
use crate::identity::{self, Identity, NoIdentity};
use crate::shard::Shard;
use head::{Head, HeadError};

/// How long a refused client may take to read its answer, and how much it may still send meanwhile.
const REFUSAL_TIME: Duration = Duration::from_secs(2);
const REFUSAL_BYTES: u64 = 8 * 1024 * 1024;

/// Fields that speak of the handshake's own connection, not of the request: calls are not told.
const HOP_FIELDS: [&str; 7] = [
    "connection",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "keep-alive",
    "transfer-encoding",
];

/// Why there is no connection.
enum NoUpgrade {
    /// The request gets this answer. The reason is for the log.
    Answered { response: Vec<u8>, status: u16, reason: String },
    /// Nobody is there to be answered.
    Gone,
}

/// A valid upgrade that is not answered yet.
struct Upgrade {
    acceptance: Acceptance,
    subprotocol: Option<String>,
    kind: MailboxKind,
}

impl NoUpgrade {
    fn status(status: u16, headers: &[(&str, &str)], text: &str, reason: impl Into<String>) -> Self {
        Self::Answered { response: handshake::response(status, headers, text), status, reason: reason.into() }
    }
}

impl From<handshake::Refusal> for NoUpgrade {
    fn from(refusal: handshake::Refusal) -> Self {
        Self::Answered { response: refusal.response(), status: refusal.status(), reason: refusal.reason().to_owned() }
    }
}

/// Serves one accepted socket: answers it, or lets it live as a connection.
pub(crate) async fn serve(shard: Rc<Shard>, mut stream: TcpStream, remote: SocketAddr) {
    let settled = tokio::select! {
        biased;
        settled = settle(&shard, &mut stream, remote) => settled,
        () = shard.until_ending() => Err(unavailable("the server shuts down")),
    };
    match settled {
        Ok(Settled { caller, kind, expires, channels, response, unread }) => {
            shard.open(Opened { stream, caller, kind, response, unread, expires, channels });
        }
        Err(NoUpgrade::Gone) => {}
        Err(NoUpgrade::Answered { response, status, reason }) => {
            if status >= 400 {
                shard.counters.refused();
                tracing::info!(%remote, status, %reason, "handshake refused");
            }
            let _ = tokio::time::timeout(REFUSAL_TIME, answer(&mut stream, &response)).await;
        }
    }
}

/// An upgrade and an identity, not answered yet.
struct Settled {
    caller: Arc<Caller>,
    kind: MailboxKind,
    expires: Option<std::time::Instant>,
    channels: Vec<Arc<str>>,
    response: Bytes,
    unread: Vec<u8>,
}

async fn settle(shard: &Rc<Shard>, stream: &mut TcpStream, remote: SocketAddr) -> Result<Settled, NoUpgrade> {
    let head = read_head(shard, stream).await?;
    let request = head.request();
    let upgrade = upgrade(shard, &request)?;
    let caller = Describe { shard, request: &request, remote, local: stream.local_addr().ok(), id: new_id()? };
    let mut identity = identify(shard, stream, &caller).await?;
    let response = Bytes::from(upgrade.acceptance.response(upgrade.subprotocol.as_deref()));
    let (expires, channels) = (identity.expires, std::mem::take(&mut identity.channels));
    let (kind, unread) = (upgrade.kind, head.rest().to_vec());
    Ok(Settled { caller: Arc::new(caller.with_identity(identity)), kind, expires, channels, response, unread })
}

async fn read_head(shard: &Shard, stream: &mut TcpStream) -> Result<Head, NoUpgrade> {
    let limits = &shard.config.limits;
    let reading = Head::read(stream, &shard.read_buffer, limits.max_head_bytes);
    match tokio::time::timeout(limits.handshake_timeout, reading).await {
        Ok(Ok(head)) => Ok(head),
        Ok(Err(HeadError::Refused(refusal))) => Err(refusal.into()),
        Ok(Err(HeadError::Gone)) => Err(NoUpgrade::Gone),
        Err(_elapsed) => {
            Err(NoUpgrade::status(408, &[], "request too slow", "no request within limits.handshake_timeout"))
        }
    }
}

/// Path, page, method, handshake, origin: in this order, so that each error is about the first thing that is wrong.
fn upgrade(shard: &Shard, request: &Request<'_>) -> Result<Upgrade, NoUpgrade> {
    let config = &shard.config;
    let development = config.mode == Mode::Development;
    if development && request.method == "GET" && request.path() == "/" && !request.wants_websocket() {
        let headers = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Security-Policy", console::CONTENT_SECURITY_POLICY),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ];
        return Err(NoUpgrade::status(200, &headers, console::PAGE, "console page"));
    }
    if !serves(&config.listen.path, request.path()) {
        return Err(NoUpgrade::status(404, &[], "no WebSocket here", "path is not below listen.path"));
    }
    let acceptance = handshake::accept(request)?;
    if !origin::is_allowed(request, &config.identity.allowed_origins) {
        let origin = String::from_utf8_lossy(request.header("origin").unwrap_or_default()).into_owned();
        let reason = format!("origin {origin:?} is not in identity.allowed_origins");
        return Err(NoUpgrade::status(403, &[], "origin not allowed", reason));
    }
    if shard.ending().is_some() {
        return Err(unavailable("the server shuts down"));
    }
    let offers_console = || acceptance.subprotocols().iter().any(|offered| offered == console::SUBPROTOCOL);
    let (subprotocol, kind) = if development && offers_console() {
        (Some(console::SUBPROTOCOL.to_owned()), MailboxKind::Console)
    } else {
        let chosen = acceptance.choose_subprotocol(&config.calls.subprotocols);
        (chosen.map(str::to_owned), MailboxKind::Client)
    };
    Ok(Upgrade { acceptance, subprotocol, kind })
}

fn unavailable(reason: impl Into<String>) -> NoUpgrade {
    NoUpgrade::status(503, &[("Retry-After", "5")], "not available now", reason)
}

async fn identify(shard: &Rc<Shard>, stream: &TcpStream, caller: &Describe<'_>) -> Result<Identity, NoUpgrade> {
    let settled = tokio::select! {
        biased;
        settled = identity::settle(shard, || Arc::new(caller.with_identity(Identity::GUEST))) => settled,
        () = hangup(stream) => return Err(NoUpgrade::Gone),
    };
    settled.map_err(|refusal| match refusal {
        NoIdentity::Refused(reason) => NoUpgrade::status(403, &[], "refused", reason),
        NoIdentity::GuestRefused => {
            NoUpgrade::status(401, &[], "sign in first", "guests are refused (identity.guests)")
        }
        NoIdentity::Unsettled(reason) => unavailable(reason),
    })
}

/// Waits until the client has gone. One that already sends frames is not watched any more.
async fn hangup(stream: &TcpStream) {
    match stream.peek(&mut [0]).await {
        Ok(0) | Err(_) => {}
        Ok(_) => std::future::pending().await,
    }
}

async fn answer(stream: &mut TcpStream, response: &[u8]) -> std::io::Result<()> {
    stream.write_all(response).await?;
    stream.shutdown().await?;
    // What is still unread when a socket is closed resets it, and the answer is lost on its way.
    tokio::io::copy(&mut stream.take(REFUSAL_BYTES), &mut tokio::io::sink()).await?;
    Ok(())
}

/// Whether `path` is `served` or below it.
fn serves(served: &str, path: &str) -> bool {
    let served = served.trim_end_matches('/');
    path.strip_prefix(served).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn new_id() -> Result<ConnectionId, NoUpgrade> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| unavailable(format!("no random bytes: {error}")))?;
    Ok(ConnectionId(u128::from_ne_bytes(bytes)))
}

/// The site as the browser knows it: what `SERVER_NAME`, `SERVER_PORT` and `HTTPS` say (RFC 3875, 4.1.14 and 4.1.15: the parts
/// of the URI that was asked for). Applications name cookies after them, so behind a proxy they are the proxy's, not ours.
#[derive(Debug, PartialEq, Eq)]
struct Site<'a> {
    name: &'a str,
    port: u16,
    scheme: Scheme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl<'a> Site<'a> {
    /// A client can claim another site only for calls of its own, as it can with `Host` at any web server.
    fn of(request: &Request<'a>, local_port: Option<u16>) -> Self {
        let first = |name| request.header_str(name).and_then(|list: &str| list.split(',').next()).map(str::trim);
        let proto = first("x-forwarded-proto");
        // A page that came by https can open no unencrypted WebSocket.
        let by_page = || request.header_str("origin").is_some_and(|origin| origin.starts_with("https://"));
        let scheme = match proto {
            Some(proto) if proto.eq_ignore_ascii_case("https") || proto.eq_ignore_ascii_case("wss") => Scheme::Https,
            None if by_page() => Scheme::Https,
            Some(_) | None => Scheme::Http,
        };
        let host = first("x-forwarded-host").or_else(|| request.header_str("host")).unwrap_or_default();
        let split = host.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?)));
        let (name, port) = split.unwrap_or_else(|| match scheme {
            Scheme::Https => (host, 443),
            Scheme::Http if host.is_empty() => (host, local_port.unwrap_or(80)),
            Scheme::Http => (host, 80),
        });
        Self { name, port, scheme }
    }
}

/// What a handshake tells about its connection; made into a [`Caller`] once for the question who it is, once for good.
struct Describe<'a> {
    shard: &'a Shard,
    request: &'a Request<'a>,
    remote: SocketAddr,
    local: Option<SocketAddr>,
    id: ConnectionId,
}

impl Describe<'_> {
    fn with_identity(&self, identity: Identity) -> Caller {
        let site = Site::of(self.request, self.local.map(|local| local.port()));
        let mut caller = Caller::builder(self.id, self.request.uri()).remote(self.remote);
        caller = caller.user(identity.user).session(identity.session);
        caller = caller.push("SERVER_NAME", site.name).push("SERVER_PORT", site.port.to_string());
        if site.scheme == Scheme::Https {
            caller = caller.push("HTTPS", "on");
        }
        if let Some(control) = &self.shard.config.control {
            caller = caller.push("WOOTZ_CONTROL", control.socket.as_os_str().as_encoded_bytes());
        }
        for field in &self.request.headers {
            if !HOP_FIELDS.iter().any(|hop| field.name.eq_ignore_ascii_case(hop)) {
                caller = caller.header(field.name, field.value);
            }
        }
        caller.build()
    }
}

#[cfg(test)]
mod tests {
    use super::{Scheme, Site, serves};
    use wootz_protocol::handshake::{HeadLimits, Parsed, parse};

    #[test]
    fn the_site_is_the_one_that_the_browser_knows() {
        use Scheme::{Http, Https};
        let cases = [
            ("Host: localhost:8888", "localhost", 8888, Http),
            ("Host: example.com", "example.com", 80, Http),
            ("Host: [::1]:8888", "[::1]", 8888, Http),
            ("Host: [::1]", "[::1]", 80, Http),
            ("Host: example.com\r\nOrigin: https://example.com", "example.com", 443, Https),
            (
                "Host: 127.0.0.1:8888\r\nX-Forwarded-Host: example.com\r\nX-Forwarded-Proto: https",
                "example.com",
                443,
                Https,
            ),
            ("Host: 127.0.0.1:8888\r\nX-Forwarded-Host: a.example:8080, b", "a.example", 8080, Http),
            ("Host: a\r\nX-Forwarded-Proto: http\r\nOrigin: https://a", "a", 80, Http),
            ("X-A: b", "", 1234, Http),
        ];
        for (fields, name, port, scheme) in cases {
            let head = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
            let Ok(Parsed::Complete { request, .. }) = parse(head.as_bytes(), &HeadLimits::default()) else {
                panic!("{fields}")
            };
            assert_eq!(Site::of(&request, Some(1234)), Site { name, port, scheme }, "{fields}");
        }
    }

    #[test]
    fn a_path_serves_itself_and_what_is_below_it() {
        let cases = [
            ("/", "/", true),
            ("/", "/any/thing", true),
            ("/ws", "/ws", true),
            ("/ws", "/ws/", true),
            ("/ws/", "/ws/room", true),
            ("/ws", "/wsx", false),
            ("/ws", "/", false),
        ];
        for (served, path, expected) in cases {
            assert_eq!(serves(served, path), expected, "{path} at {served}");
        }
    }
}
