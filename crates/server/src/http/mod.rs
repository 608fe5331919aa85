//! 3 · upgrade: from an accepted socket to a valid upgrade and an identity, or to an HTTP answer that says why not.
//!
//! Everything is decided before the 101; a refusal is a status, never a close code. The future of this module is gone when
//! the connection begins to live. A request of HTTP/2 goes the same way from `find_browser` on.

mod answer;
mod forwarded;
mod head;
mod http2;
mod origin;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::task::Context;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wootz_protocol::handshake::{self, Request, Subprotocols};
use wootz_runner::{Caller, ConnectionId};
use wootz_session::jwt;
use wootz_tls::Fault;

use crate::admission::{NoRoom, Place};
use crate::config::{Mode, Provider, ProxyProtocol};
use crate::connection::{MailboxKind, Opened, Stream};
use crate::console;
use crate::identity::{self, Asked, Identity, NoIdentity, Watched};
use crate::listener::{self, Accepted, Socket, Transport, proxy_protocol};
use crate::metrics::RefusedBy;
use crate::shard::Shard;
use answer::{Answer, NoUpgrade};
use head::{Head, Received, read_before_tls};

/// How long a refused client may take to read its answer, and how much it may still send meanwhile.
const REFUSAL_TIME: Duration = Duration::from_secs(2);
const REFUSAL_BYTES: usize = 8 * 1024 * 1024;

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

/// Who sends the request, as far as is known; only its bytes can change that.
#[derive(Debug, Clone, Copy)]
struct Sender {
    /// The browser, or the proxy that spoke last.
    address: SocketAddr,
    /// Whether it is believed when it names another one.
    is_trusted: bool,
}

/// The way that a request came.
#[derive(Debug, Clone, Copy)]
struct Way {
    sender: Sender,
    /// This end's address and port. `None`: it has none.
    local: Option<SocketAddr>,
    spoken: Scheme,
}

/// What a socket turned out to be.
enum Found {
    /// One browser, let in by HTTP/1.1.
    Browser { settled: Settled, response: Bytes, unread: Vec<u8> },
    /// A connection of HTTP/2, on which requests come. These bytes of it did already; the first request has to be there by the deadline.
    Http2 { first: Vec<u8>, began: Instant },
}

/// Serves one accepted socket: answers it, or lets it live as a connection.
pub(crate) async fn serve(shard: Rc<Shard>, accepted: Accepted) {
    let Accepted { mut socket, peer } = accepted;
    let is_trusted = peer.is_trusted(&shard.config.listen.trusted_proxies);
    let mut sender = Sender { address: peer.address(), is_trusted };
    let found = tokio::select! {
        biased;
        found = find_out(&shard, &mut socket, &mut sender) => found,
        () = shard.until_ending() => Err(unavailable("the server shuts down")),
    };
    match found {
        Ok(Found::Browser { settled, response, unread }) => {
            shard.open(settled.into_opened(Stream::Socket(socket), response, unread));
        }
        Ok(Found::Http2 { first, began }) => {
            let way = Way { sender, local: socket.local_address(), spoken: Scheme::spoken_on(&socket) };
            if let Socket::Tls(tls) = socket {
                shard.spawn(http2::serve(Rc::clone(&shard), *tls, way, first, began));
            }
        }
        Err(NoUpgrade::Gone) => {}
        // A flood of them would be one of the log's: it has been told once.
        Err(NoUpgrade::Evicted) => shard.counters.refused_by(RefusedBy::MaxHandshakes),
        Err(NoUpgrade::NoProxy { reason }) => {
            shard.counters.refused_by(RefusedBy::ProxyProtocol);
            tracing::info!(remote = %sender.address, %reason, "connection closed before its handshake");
        }
        Err(NoUpgrade::NoTls(error)) => {
            shard.counters.refused();
            match error.fault() {
                Fault::Server => tracing::error!(remote = %sender.address, reason = %error, "TLS failed"),
                Fault::Peer | Fault::Limit => tracing::info!(remote = %sender.address, reason = %error, "no TLS"),
            }
            answer_in_time(&shard, &mut socket, &[]).await;
        }
        Err(NoUpgrade::SpeaksTls) => {
            let reason = "TLS came where it is not spoken: set tls.cert and tls.key of [tls], or connect by ws://";
            note_refusal(&shard, sender, 400, reason);
            answer_in_time(&shard, &mut socket, wootz_tls::ANSWER_TO_TLS).await;
        }
        Err(NoUpgrade::Answered { answer, reason }) => {
            note_refusal(&shard, sender, answer.status, &reason);
            answer_in_time(&shard, &mut socket, &answer.http1()).await;
        }
    }
}

/// Counts and tells that a browser was not let in. The console page is no refusal.
fn note_refusal(shard: &Shard, sender: Sender, status: u16, reason: &str) {
    if status >= 400 {
        shard.counters.refused();
        tracing::info!(remote = %sender.address, status, %reason, "handshake refused");
    }
}

async fn answer_in_time(shard: &Shard, socket: &mut Socket, response: &[u8]) {
    let unfinished = shard.handshakes.begin();
    tokio::select! {
        _ = tokio::time::timeout(REFUSAL_TIME, answer(shard, socket, response)) => {}
        () = unfinished.evicted() => shard.counters.refused_by(RefusedBy::MaxHandshakes),
    }
}

/// A browser that is let in.
struct Settled {
    caller: Arc<Caller>,
    subprotocol: Option<String>,
    kind: MailboxKind,
    expires: Option<Instant>,
    watched: Option<Box<Watched>>,
    channels: Vec<Arc<str>>,
    place: Place,
}

impl Settled {
    /// With `response` still to be written.
    fn into_opened(self, stream: Stream, response: Bytes, unread: Vec<u8>) -> Opened {
        let Self { caller, kind, expires, watched, channels, place, subprotocol: _ } = self;
        Opened { stream, caller, kind, place, response, unread, expires, watched, channels }
    }
}

async fn find_out(shard: &Rc<Shard>, socket: &mut Socket, sender: &mut Sender) -> Result<Found, NoUpgrade> {
    let began = Instant::now();
    let head = match request_head(shard, socket, sender, began).await? {
        Received::Head(head) => head,
        Received::Http2(first) => return Ok(Found::Http2 { first, began }),
    };
    let request = head.request();
    let mut way = Way { sender: *sender, local: socket.local_address(), spoken: Scheme::spoken_on(socket) };
    find_browser(shard, &request, &mut way.sender);
    *sender = way.sender;
    serve_elsewhere(shard, &request)?;
    let acceptance = handshake::accept(&request)?;
    let settled = settle(shard, &request, acceptance.subprotocols(), way, socket.hung_up()).await?;
    let response = Bytes::from(acceptance.response(settled.subprotocol.as_deref()));
    let unread = head.rest().to_vec();
    Ok(Found::Browser { settled, response, unread })
}

/// Lets a browser in whose request is a valid handshake, whatever version of HTTP it came in. It is given up when it has `gone`.
async fn settle(
    shard: &Rc<Shard>,
    request: &Request<'_>,
    offered: &Subprotocols,
    way: Way,
    gone: impl Future<Output = ()>,
) -> Result<Settled, NoUpgrade> {
    let (subprotocol, kind) = upgrade(shard, request, offered)?;
    let remote = way.sender.address;
    let mut place = admit(shard, remote)?;
    let caller = Describe { shard, request, remote, local: way.local, spoken: way.spoken, id: new_id()? };
    let mut identity = identify(shard, gone, &caller).await?;
    place.take_for(identity.user.as_ref()).map_err(|no_room| full(shard, no_room))?;
    let (expires, watched) = (identity.expires, identity.watched.take());
    let channels = std::mem::take(&mut identity.channels);
    let caller = Arc::new(caller.with_identity(identity));
    Ok(Settled { caller, subprotocol, kind, expires, watched, channels, place })
}

/// The request's head, within `limits.handshake_timeout`, or until too many younger ones wait for theirs.
async fn request_head(
    shard: &Shard,
    socket: &mut Socket,
    sender: &mut Sender,
    began: Instant,
) -> Result<Received, NoUpgrade> {
    let limits = &shard.config.limits;
    let deadline = tokio::time::Instant::from_std(began) + limits.handshake_timeout;
    let unfinished = shard.handshakes.begin();
    let reading = async {
        let bytes = match shard.config.listen.proxy_protocol {
            ProxyProtocol::Absent => Vec::new(),
            ProxyProtocol::Required => {
                let behind = proxy_header(shard, socket.transport_mut(), sender, deadline).await?;
                socket.begin_with(behind)
            }
        };
        let head = Head::read(socket, &shard.read_buffer, limits.max_head_bytes, bytes);
        match tokio::time::timeout_at(deadline, head).await {
            Ok(head) => Ok(head?),
            Err(_elapsed) => {
                Err(NoUpgrade::status(408, &[], "request too slow", "no request within limits.handshake_timeout"))
            }
        }
    };
    tokio::select! {
        biased;
        head = reading => head,
        () = unfinished.evicted() => Err(NoUpgrade::Evicted),
    }
}

/// Reads the PROXY header and learns from it who the sender is. Gives the bytes behind it.
async fn proxy_header(
    shard: &Shard,
    transport: &mut Transport,
    sender: &mut Sender,
    deadline: tokio::time::Instant,
) -> Result<Vec<u8>, NoUpgrade> {
    if !sender.is_trusted {
        let reason = "listen.proxy_protocol = true takes connections of listen.trusted_proxies only, and this is none";
        return Err(NoUpgrade::NoProxy { reason: reason.to_owned() });
    }
    let wrong = |why: &str| NoUpgrade::NoProxy {
        reason: format!("listen.proxy_protocol = true wants a PROXY header first: {why}"),
    };
    let mut bytes = Vec::new();
    let header = loop {
        match tokio::time::timeout_at(deadline, read_before_tls(transport, &shard.read_buffer, &mut bytes)).await {
            Ok(Ok(())) => {}
            // A balancer that only looks whether somebody listens.
            Ok(Err(_)) if bytes.is_empty() => return Err(NoUpgrade::Gone),
            Ok(Err(_)) => return Err(wrong("the peer went within it")),
            Err(_elapsed) => return Err(wrong("it was not whole within limits.handshake_timeout")),
        }
        if let Some(header) = proxy_protocol::parse(&bytes).map_err(|why| wrong(&why.to_string()))? {
            break header;
        }
    };
    if let Some(source) = header.source {
        let address = SocketAddr::new(source.ip().to_canonical(), source.port());
        let is_trusted = listener::is_trusted(address.ip(), &shard.config.listen.trusted_proxies);
        *sender = Sender { address, is_trusted };
    }
    bytes.drain(..header.length);
    Ok(bytes)
}

/// Finds the browser behind proxies that are trusted. Where they tell no port it has the one that their own connection came from, which no other
/// living connection of theirs has, but for the streams of one of HTTP/2.
fn find_browser(shard: &Shard, request: &Request<'_>, sender: &mut Sender) {
    let listen = &shard.config.listen;
    if !sender.is_trusted {
        return hint_at_trusted_proxies(request, sender);
    }
    let is_trusted = |address| listener::is_trusted(address, &listen.trusted_proxies);
    if let Some(node) = forwarded::sender(request, listen.forwarded_header, is_trusted) {
        sender.address = SocketAddr::new(node.address, node.port.unwrap_or(sender.address.port()));
    }
}

/// A proxy on this machine that is not listed is what most have who forgot to list it.
fn hint_at_trusted_proxies(request: &Request<'_>, sender: &Sender) {
    static HINT: Once = Once::new();
    if sender.address.ip().is_loopback() && forwarded::is_told(request) {
        HINT.call_once(|| {
            tracing::info!(
                peer = %sender.address.ip(),
                "a proxy on this machine tells the browser's address, and it is not believed: list it in listen.trusted_proxies"
            );
        });
    }
}

fn admit(shard: &Shard, remote: SocketAddr) -> Result<Place, NoUpgrade> {
    shard.admission.admit(remote.ip(), Instant::now()).map_err(|no_room| full(shard, no_room))
}

/// The answer where a limit is reached: 503 when the server is full, 429 when the browser itself has had its share.
fn full(shard: &Shard, no_room: NoRoom) -> NoUpgrade {
    shard.counters.refused_by(no_room.refused_by());
    let too_many =
        |reason: &'static str| NoUpgrade::status(429, &[("Retry-After", "5")], "too many connections", reason);
    match no_room {
        NoRoom::MaxConnections => unavailable("limits.max_connections is reached"),
        NoRoom::PerAddress => too_many("limits.per_address is reached"),
        NoRoom::PerUser => too_many("limits.per_user is reached"),
        NoRoom::TooFast(wait) => {
            let seconds = (wait.as_secs() + 1).to_string();
            let reason = "faster than limits.handshakes_per_second";
            NoUpgrade::status(429, &[], "too many handshakes", reason).field("Retry-After", seconds)
        }
    }
}

/// What is no WebSocket: the console page, and paths that are not served. It comes before the handshake's own rules, so that each error is about the
/// first thing that is wrong.
fn serve_elsewhere(shard: &Shard, request: &Request<'_>) -> Result<(), NoUpgrade> {
    let config = &shard.config;
    let is_page = request.method == "GET" && request.path() == "/" && !request.wants_websocket();
    if config.mode == Mode::Development && is_page {
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
    Ok(())
}

/// Origin, and the choice of a subprotocol, with what it stands for.
fn upgrade(
    shard: &Shard,
    request: &Request<'_>,
    offered: &Subprotocols,
) -> Result<(Option<String>, MailboxKind), NoUpgrade> {
    let config = &shard.config;
    if !origin::is_allowed(request, &config.identity.allowed_origins) {
        let origin = String::from_utf8_lossy(request.header("origin").unwrap_or_default()).into_owned();
        let reason = format!("origin {origin:?} is not in identity.allowed_origins");
        shard.counters.refused_by(RefusedBy::AllowedOrigins);
        return Err(NoUpgrade::status(403, &[], "origin not allowed", reason));
    }
    if shard.ending().is_some() {
        return Err(unavailable("the server shuts down"));
    }
    if config.mode == Mode::Development && offered.offer(console::SUBPROTOCOL) {
        return Ok((Some(console::SUBPROTOCOL.to_owned()), MailboxKind::Console));
    }
    let chosen = offered.choose(&config.calls.subprotocols);
    // A browser whose token came as a subprotocol must be answered with one that is no secret.
    let by_token = matches!(config.identity.provider, Provider::Jwt(_)) && offered.offer(jwt::SUBPROTOCOL);
    let chosen = chosen.or(by_token.then_some(jwt::SUBPROTOCOL));
    Ok((chosen.map(str::to_owned), MailboxKind::Client))
}

fn unavailable(reason: impl Into<Cow<'static, str>>) -> NoUpgrade {
    NoUpgrade::status(503, &[("Retry-After", "5")], "not available now", reason)
}

async fn identify(
    shard: &Rc<Shard>,
    gone: impl Future<Output = ()>,
    caller: &Describe<'_>,
) -> Result<Identity, NoUpgrade> {
    let as_guest = || Arc::new(caller.with_identity(Identity::GUEST));
    let asked = Asked { request: caller.request, remote: caller.remote, caller: &as_guest };
    let settled = tokio::select! {
        biased;
        settled = identity::settle(shard, &asked) => settled,
        () = gone => return Err(NoUpgrade::Gone),
    };
    settled.map_err(|refusal| {
        shard.counters.refused_by(refusal.refused_by());
        unidentified(refusal)
    })
}

/// The answer to a browser whose identity lets it not in.
fn unidentified(refusal: NoIdentity) -> NoUpgrade {
    match refusal {
        NoIdentity::BadToken(reason) => {
            let challenge = [("WWW-Authenticate", "Bearer error=\"invalid_token\"")];
            NoUpgrade::status(401, &challenge, "invalid token", reason)
        }
        NoIdentity::Refused(reason) => NoUpgrade::status(403, &[], "refused", reason),
        NoIdentity::Elsewhere => {
            let reason = "the session was recorded for another address than the browser's (identity.verify_ip)";
            NoUpgrade::status(403, &[], "refused", reason)
        }
        NoIdentity::GuestRefused => {
            NoUpgrade::status(401, &[], "sign in first", "guests are refused (identity.guests)")
        }
        NoIdentity::Unsettled(reason) | NoIdentity::Unreadable(reason) => unavailable(reason),
    }
}

async fn answer(shard: &Shard, socket: &mut Socket, response: &[u8]) -> std::io::Result<()> {
    // Before TLS is agreed on no answer can be sent, and nothing but TLS would be understood.
    socket.send_last(if socket.can_send() { response } else { &[] }).await?;
    // What is still unread when a socket is closed resets it, and the answer is lost on its way.
    let mut received = 0;
    while received < REFUSAL_BYTES {
        let read = |context: &mut Context<'_>| {
            socket.poll_receive(context, &mut shard.read_buffer.borrow_mut()).map_ok(|read| read.len())
        };
        match std::future::poll_fn(read).await? {
            0 => break,
            bytes => received += bytes,
        }
    }
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

impl Scheme {
    fn spoken_on(socket: &Socket) -> Self {
        match socket {
            Socket::Plain(_) => Self::Http,
            Socket::Tls(_) => Self::Https,
        }
    }

    /// The one that need not be written.
    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl<'a> Site<'a> {
    /// A client can claim another site only for calls of its own, as it can with `Host` at any web server.
    /// `spoken` is what the browser, or the proxy before it, speaks to us.
    fn of(request: &Request<'a>, local_port: Option<u16>, spoken: Scheme) -> Self {
        let first = |name| request.header_str(name).and_then(|list: &str| list.split(',').next()).map(str::trim);
        let proto = first("x-forwarded-proto");
        // A page that came by https can open no unencrypted WebSocket.
        let by_page = || request.header_str("origin").is_some_and(|origin| origin.starts_with("https://"));
        let scheme = match proto {
            Some(proto) if proto.eq_ignore_ascii_case("https") || proto.eq_ignore_ascii_case("wss") => Scheme::Https,
            None if by_page() => Scheme::Https,
            Some(_) => Scheme::Http,
            None => spoken,
        };
        let host = first("x-forwarded-host").or_else(|| request.header_str("host")).unwrap_or_default();
        let split = host.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?)));
        let (name, port) = split.unwrap_or_else(|| match scheme {
            scheme if host.is_empty() && scheme == spoken => (host, local_port.unwrap_or(scheme.port())),
            scheme => (host, scheme.port()),
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
    spoken: Scheme,
    id: ConnectionId,
}

impl Describe<'_> {
    fn with_identity(&self, identity: Identity) -> Caller {
        // A token is whose it is, and not for the application to store or to log.
        let hides_token = matches!(self.shard.config.identity.provider, Provider::Jwt(_));
        let uri = match hides_token {
            true => jwt::without_token(self.request.uri()),
            false => self.request.uri().into(),
        };
        let site = Site::of(self.request, self.local.map(|local| local.port()), self.spoken);
        let mut caller = Caller::builder(self.id, &uri).remote(self.remote);
        caller = caller.user(identity.user).session(identity.session);
        caller = caller.push("SERVER_NAME", site.name).push("SERVER_PORT", site.port.to_string());
        if site.scheme == Scheme::Https {
            caller = caller.push("HTTPS", "on");
        }
        if let Some(control) = &self.shard.config.control {
            caller = caller.push("WOOTZ_CONTROL", control.socket.as_os_str().as_encoded_bytes());
        }
        for field in &self.request.headers {
            if HOP_FIELDS.iter().any(|hop| field.name.eq_ignore_ascii_case(hop)) {
                continue;
            }
            if hides_token && field.name.eq_ignore_ascii_case("authorization") {
                continue;
            }
            let offers = hides_token && field.name.eq_ignore_ascii_case("sec-websocket-protocol");
            caller = match std::str::from_utf8(field.value).ok().filter(|_| offers) {
                Some(offers) => caller.header(field.name, jwt::subprotocols_without_token(offers).as_bytes()),
                None => caller.header(field.name, field.value),
            };
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
            assert_eq!(Site::of(&request, Some(1234), Http), Site { name, port, scheme }, "{fields}");
        }
    }

    #[test]
    fn what_is_spoken_here_is_the_sites_own_scheme_unless_a_proxy_says_another() {
        use Scheme::{Http, Https};
        let cases = [
            ("Host: example.com", "example.com", 443, Https),
            ("Host: localhost:8888", "localhost", 8888, Https),
            ("Host: a\r\nX-Forwarded-Proto: http", "a", 80, Http),
            ("X-A: b", "", 1234, Https),
        ];
        for (fields, name, port, scheme) in cases {
            let head = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
            let Ok(Parsed::Complete { request, .. }) = parse(head.as_bytes(), &HeadLimits::default()) else {
                panic!("{fields}")
            };
            assert_eq!(Site::of(&request, Some(1234), Https), Site { name, port, scheme }, "{fields}");
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
