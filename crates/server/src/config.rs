//! The server's settings, resolved: every value parsed, every default applied, each room its own struct.
//!
//! Nothing here reads a file, a variable or a flag (that is the binary's work), and nothing is optional by accident:
//! an `Option` means that the operator may leave it out, and its doc says what happens then.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use crate::listener::{Address, Network};
pub use wootz_runner::exec::ExecSettings;
pub use wootz_runner::{FrameMode, MessageMode, ReplyMode};
pub use wootz_session::jwt::{JwtSettings, KeySource, Verifier};
pub use wootz_session::serialize::{KeyPath, Serializer};
pub use wootz_session::store::{Query, StoreOptions, StoreSettings};
pub use wootz_tls::{CertificateSettings, Certificates};

/// All that a server needs to know, one room per section of `wootz.toml`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where browsers connect.
    pub listen: Listen,
    /// The certificates that browsers are shown. `None`: no TLS.
    pub tls: Option<Tls>,
    /// Who may connect, and who they are.
    pub identity: Identity,
    /// How messages become calls, whatever runs them.
    pub calls: Calls,
    /// The FIFOs of the push directory. `None`: no pipes at all.
    pub pipes: Option<Pipes>,
    /// The operator's socket. `None`: none is made, and `wootz status` cannot work.
    pub control: Option<Control>,
    /// What connections may take.
    pub limits: Limits,
    /// Comforts that only a developer should have.
    pub mode: Mode,
}

/// Whether the server talks to a developer or to the public.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No console page; a failed call tells the browser nothing but `error_reply`.
    Production,
    /// `--dev`: the console page on `GET /`, and the browser is told why a call failed.
    Development,
}

/// The certificates that browsers are shown, on every [`Address::Tcp`] and every TCP socket that was handed over.
#[derive(Debug, Clone)]
pub struct Tls {
    /// At least one. The first is shown to whoever asks for an unknown name or none. The files are looked at again every ten seconds.
    pub certificates: Vec<CertificateSettings>,
    /// Whether HTTP/2 is spoken with who asks for it.
    pub http2: Http2,
}

/// Whether HTTP/2 is spoken, and WebSocket over it (RFC 8441). It begins inside TLS only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http2 {
    /// With who asks for it (ALPN `h2`); everybody else gets HTTP/1.1.
    Offered,
    /// With nobody: all get HTTP/1.1.
    Never,
}

/// Where browsers connect.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The addresses. At least one.
    pub addresses: Vec<Address>,
    /// Listening sockets that this process was started with, for [`Address::Systemd`].
    pub inherited: Vec<Arc<OwnedFd>>,
    /// Permission bits of Unix sockets.
    pub unix_mode: u32,
    /// Group of Unix sockets. `None`: the server's own.
    pub unix_group: Option<u32>,
    /// Whether every connection begins with a PROXY header.
    pub proxy_protocol: ProxyProtocol,
    /// Proxies that are believed about the browser's address. Whoever connects to a Unix socket is believed anyhow.
    pub trusted_proxies: Vec<Network>,
    /// The header field in which they tell it.
    pub forwarded_header: ForwardedHeader,
    /// The path served, and everything below it; `/` serves every path.
    pub path: String,
    /// What to do when the port is taken.
    pub port_taken: PortTaken,
    /// Threads, each with its own listener and connections. At least 1.
    pub shards: usize,
}

/// Whether connections begin with a PROXY header (HAProxy's PROXY protocol, version 1 or 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None does.
    Absent,
    /// Each does: a connection without one, or from a peer that is no trusted proxy, is closed.
    Required,
}

/// The header field in which trusted proxies tell the browser's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`; where a request has none, `Forwarded`. Never a mix.
    Either,
    /// `X-Forwarded-For` alone.
    XForwardedFor,
    /// `Forwarded` (RFC 7239) alone.
    Forwarded,
}

/// What to do when the wanted port is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortTaken {
    /// Refuse to start.
    Refuse,
    /// Take the next free one of the hundred that follow.
    TryNext,
}

/// Who may connect, and who they are.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Who decides.
    pub provider: Provider,
    /// What happens to a browser that is nobody.
    pub guests: Guests,
    /// Pages that may open a connection.
    pub allowed_origins: Vec<AllowedOrigin>,
}

/// Who decides which user a browser is.
#[derive(Debug, Clone)]
pub enum Provider {
    /// Nobody: every browser is a guest.
    None,
    /// The application, by a call with `WOOTZ_EVENT=validate` before the 101.
    Application,
    /// The site's own session, found by the browser's cookie.
    Session(Box<SessionProvider>),
    /// A signed token.
    Jwt(JwtSettings),
}

/// How sessions say who a browser is.
#[derive(Debug, Clone)]
pub struct SessionProvider {
    /// The cookie that names the session.
    pub cookie: String,
    /// Where the site keeps them.
    pub store: StoreSettings,
    /// Bounds of asking it.
    pub options: StoreOptions,
    /// How their data are written.
    pub serializer: Serializer,
    /// Where in the data the user's id is: the first that is set counts.
    pub user_keys: Vec<KeyPath>,
    /// Where in the data the address is that the session was recorded for.
    pub address_keys: Vec<KeyPath>,
    /// Whether a recorded address must be the browser's.
    pub verify_address: VerifyAddress,
    /// How often the session of an open connection is looked at again. `None`: never.
    pub recheck: Option<Duration>,
    /// What happens to a connection whose session has another user by then.
    pub user_change: UserChange,
}

/// Whether the address that a session was recorded for must be the browser's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyAddress {
    /// It must, where one is recorded; others are refused with 403.
    Yes,
    /// It is not looked at.
    No,
}

/// What happens to a connection whose session has another user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserChange {
    /// It is closed with 4401; the page connects again as the new user.
    Close,
    /// It stays open, and its next calls run as the new user.
    Move,
}

/// What happens to a browser that is nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guests {
    /// It connects, without `REMOTE_USER`.
    Allow,
    /// It is refused with 401.
    Refuse,
}

/// One entry of `identity.allowed_origins`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// The page came from the host and port that the browser connects to.
    SameOrigin,
    /// Any page (`*`).
    Any,
    /// Exactly this one: `https://example.com`, `http://localhost:8000`, in lower case, without a final slash.
    Exact(String),
}

/// How messages become calls, whatever runs them.
#[derive(Debug, Clone)]
pub struct Calls {
    /// Whether a text message may be the URI.
    pub message: MessageMode,
    /// Subprotocols that a client may ask for, the first common one is taken.
    pub subprotocols: Vec<String>,
    /// Extra calls when a connection opens.
    pub on_connect: Notify,
    /// Extra calls when a connection has closed.
    pub on_disconnect: Notify,
    /// Sent instead of a reply when a call failed. Empty: nothing is sent.
    pub error_reply: String,
    /// Sent when there is no room for a call. Empty: the connection is closed with 1013.
    pub busy_reply: String,
    /// Calls of one connection at the same time (their replies keep the order of the messages). At least 1.
    pub per_connection: usize,
    /// Calls of one user at the same time, over all their connections; each guest connection counts as a user. At least 1.
    pub per_user: usize,
    /// Calls at the same time in the whole server. At least 1.
    pub max_running: usize,
    /// Calls that wait for their turn. 0: none waits, a full house answers at once.
    pub max_waiting: usize,
    /// Bytes of the messages of those calls. One call may always wait, however long its message is.
    pub max_waiting_bytes: usize,
    /// How long a call may wait for its turn before it is answered as busy.
    pub max_wait: Duration,
}

/// Whether the application is called for an event of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notify {
    /// No call.
    Silent,
    /// One call.
    Call,
}

/// The FIFOs of the push directory.
#[derive(Debug, Clone)]
pub struct Pipes {
    /// Where they are made; made itself (mode 0770) where missing.
    pub directory: PathBuf,
    /// `global_pipe.fifo`: each record goes to everybody.
    pub global: bool,
    /// One pipe per connection: each record is a request of that connection. Costs a descriptor per connection.
    pub requests: bool,
    /// Where a record ends.
    pub framing: Framing,
    /// Group of the pipes. `None`: the server's own.
    pub group: Option<u32>,
    /// Permission bits of the pipes.
    pub mode: u32,
    /// A longer record is dropped whole, and logged.
    pub max_record_bytes: usize,
}

/// Where a record of a pipe ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// At a newline.
    Lines,
    /// At `\nCarbonPHP\Abstracts\Pipe:<digits>\n`.
    CarbonPhp,
    /// After as many bytes as four bytes, big-endian, before it say.
    Length,
}

/// The operator's socket.
#[derive(Debug, Clone)]
pub struct Control {
    /// Path of the Unix socket.
    pub socket: PathBuf,
    /// Permission bits of the socket.
    pub mode: u32,
    /// Group of the socket. `None`: the server's own.
    pub group: Option<u32>,
    /// The same API by TCP. `None`: not served.
    pub http: Option<HttpDoor>,
}

/// The operator's API on an address of its own.
#[derive(Debug, Clone)]
pub struct HttpDoor {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// What a client has to show.
    pub token: Secret,
}

/// A text that stands in no log and is compared in constant time.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Keeps a secret.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Whether somebody knows it, in a time that tells only its length.
    pub(crate) fn is(&self, shown: &str) -> bool {
        subtle::ConstantTimeEq::ct_eq(self.0.as_bytes(), shown.as_bytes()).into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// What connections may take, one by one and together.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at the same time, with those whose identity is being settled. More get 503. 0: not limited.
    pub max_connections: usize,
    /// Those of one address; of IPv6, one /64 network. More get 429. 0: not limited.
    pub per_address: usize,
    /// Those of one user. More get 429. 0: not limited.
    pub per_user: usize,
    /// Handshakes of one address (of IPv6, one /64 network) per second, in the long run. More get 429. 0: not limited.
    pub handshakes_per_second: u32,
    /// Handshakes of one address that may come at once. At least 1.
    pub handshake_burst: u32,
    /// Sockets without a whole request. At one more, the oldest of them is closed. At least 1.
    pub max_handshakes: usize,
    /// From the accept to a complete request head.
    pub handshake_timeout: Duration,
    /// The request head: line and fields. Longer ones get 431.
    pub max_head_bytes: usize,
    /// A message after its fragments are joined. Longer ones close with 1009.
    pub max_message_bytes: usize,
    /// Fragments of one message. More close with 1009.
    pub max_frames: u32,
    /// Bytes that may wait for one slow reader. More close with 1013.
    pub outbox_bytes: usize,
    /// Silence of the browser after which it is pinged. Zero: never.
    pub ping_interval: Duration,
    /// Silence after that ping which closes with 4408.
    pub pong_timeout: Duration,
    /// How long running calls may take to end when the server stops.
    pub drain_timeout: Duration,
    /// Text `ping` is answered with text `pong`, without a call.
    pub text_ping: TextPing,
    /// Different channels at the same time, on all shards. One more is refused.
    pub max_channels: usize,
    /// Channels that one connection may be in. One more is refused.
    pub channels_per_connection: usize,
}

/// Whether a text message `ping` is a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextPing {
    /// Answered with `pong` by the server.
    Answer,
    /// A message like any other.
    Call,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Listen {
                addresses: vec![SocketAddr::from(([127, 0, 0, 1], 8888)).into()],
                inherited: Vec::new(),
                unix_mode: 0o660,
                unix_group: None,
                proxy_protocol: ProxyProtocol::Absent,
                trusted_proxies: Vec::new(),
                forwarded_header: ForwardedHeader::Either,
                path: "/".to_owned(),
                port_taken: PortTaken::Refuse,
                shards: std::thread::available_parallelism().map_or(1, usize::from),
            },
            tls: None,
            identity: Identity {
                provider: Provider::None,
                guests: Guests::Allow,
                allowed_origins: vec![AllowedOrigin::SameOrigin],
            },
            calls: Calls {
                message: MessageMode::Uri,
                subprotocols: Vec::new(),
                on_connect: Notify::Silent,
                on_disconnect: Notify::Silent,
                error_reply: String::new(),
                busy_reply: String::new(),
                per_connection: 1,
                per_user: 4,
                max_running: 64,
                max_waiting: 4096,
                max_waiting_bytes: 64 * 1024 * 1024,
                max_wait: Duration::from_secs(10),
            },
            pipes: None,
            control: None,
            limits: Limits {
                max_connections: 0,
                per_address: 0,
                per_user: 0,
                handshakes_per_second: 0,
                handshake_burst: 20,
                max_handshakes: 16_384,
                handshake_timeout: Duration::from_secs(10),
                max_head_bytes: 32 * 1024,
                max_message_bytes: 1024 * 1024,
                max_frames: 65_536,
                outbox_bytes: 1024 * 1024,
                ping_interval: Duration::from_secs(25),
                pong_timeout: Duration::from_secs(10),
                drain_timeout: Duration::from_secs(30),
                text_ping: TextPing::Answer,
                max_channels: 65_536,
                channels_per_connection: 64,
            },
            mode: Mode::Production,
        }
    }
}
