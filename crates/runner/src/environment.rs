//! The variables of CGI/1.1 (RFC 3875): what a call tells the application besides its message.
//!
//! A connection keeps its own ready-made, as one boxed slice of pairs, for as long as it lives; those of a call are computed when they
//! are asked for. No name comes twice and no value holds a NUL, because no process
//! could be given one.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::call::{Call, ConnectionId, Message};
use crate::capability::Capability;
use crate::pairs::{self, Pair};

/// What CGI calls the server: the name of this software and its version.
const SERVER_SOFTWARE: &str = concat!("wootz/", env!("CARGO_PKG_VERSION"));

/// What a connection is: one for all its calls, shared by them.
#[derive(Clone)]
pub struct Caller {
    /// The connection.
    pub id: ConnectionId,
    /// The user's id; `None` is a guest.
    pub user: Option<Arc<str>>,
    /// The id of the user's session, which outlives the connection; `None` where identity comes from elsewhere. A secret.
    pub session: Option<Arc<str>>,
    /// The browser's address; `None` where there is none (a Unix socket).
    pub remote: Option<SocketAddr>,
    /// The request target of the handshake, as it was written.
    pub handshake_uri: Box<str>,
    variables: Box<[u8]>,
}

/// Neither header fields nor user ids belong into a log.
impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Caller {
    /// Begins the facts of a connection whose handshake asked for this URI.
    #[must_use]
    pub fn builder(id: ConnectionId, handshake_uri: &str) -> CallerBuilder {
        CallerBuilder {
            id,
            user: None,
            session: None,
            remote: None,
            handshake_uri: handshake_uri.into(),
            variables: Vec::with_capacity(24),
        }
    }

    /// The same connection as another user: its session has changed hands.
    #[must_use]
    pub fn as_user(&self, user: Option<Arc<str>>) -> Self {
        Self { user, ..self.clone() }
    }

    /// A header field of the handshake by its name in any case; several of one name are joined.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.stored().find(|(stored, _)| is_variable_of(stored, name)).map(|(_, value)| value)
    }

    /// The variables that were pushed, in their order.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        pairs::read(&self.variables)
    }

    fn stored(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.pairs().map(|pair| (std::str::from_utf8(pair.name).expect("names are ASCII"), pair.value))
    }
}

/// Collects what a handshake says into a [`Caller`].
#[derive(Debug)]
pub struct CallerBuilder {
    id: ConnectionId,
    user: Option<Arc<str>>,
    session: Option<Arc<str>>,
    remote: Option<SocketAddr>,
    handshake_uri: Box<str>,
    variables: Vec<(String, Vec<u8>)>,
}

impl CallerBuilder {
    /// The user, where it is known already: `REMOTE_USER`.
    #[must_use]
    pub fn user(mut self, user: Option<Arc<str>>) -> Self {
        self.user = user;
        self
    }

    /// The id of the user's session: `WOOTZ_SESSION`.
    #[must_use]
    pub fn session(mut self, session: Option<Arc<str>>) -> Self {
        self.session = session;
        self
    }

    /// The browser's address: `REMOTE_ADDR`, `REMOTE_PORT`.
    #[must_use]
    pub fn remote(mut self, remote: SocketAddr) -> Self {
        self.remote = Some(remote);
        self
    }

    /// One header field of the handshake as `HTTP_*`. Another of the same name is appended (`", "`, cookies `"; "`).
    ///
    /// Dropped: `Proxy` (many programs take `HTTP_PROXY` for their own setting), names that hold anything but letters,
    /// digits and `-` (`X_Real_IP` would be another way to write `X-Real-IP`), and values with a NUL.
    #[must_use]
    pub fn header(mut self, name: &str, value: &[u8]) -> Self {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !plain || name.is_empty() || name.eq_ignore_ascii_case("proxy") || value.contains(&0) {
            return self;
        }
        let mut variable = String::with_capacity("HTTP_".len() + name.len());
        variable.push_str("HTTP_");
        variable.extend(name.bytes().map(|byte| char::from(variable_byte(byte))));
        let joint: &[u8] = if variable == "HTTP_COOKIE" { b"; " } else { b", " };
        match self.variables.iter_mut().find(|(other, _)| *other == variable) {
            Some((_, stored)) => {
                stored.extend_from_slice(joint);
                stored.extend_from_slice(value);
            }
            None => self.variables.push((variable, value.to_vec())),
        }
        self
    }

    /// One ready-made variable (`SERVER_NAME`, `SERVER_PORT`, `WOOTZ_CONTROL`), in place of an earlier one of that name.
    ///
    /// Dropped: a name that is empty or holds anything but letters, digits and `_`, one that every call computes itself
    /// (`REQUEST_URI`, `REMOTE_USER`…), and a value with a NUL.
    #[must_use]
    pub fn push(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !plain || name.is_empty() || COMPUTED.contains(&name) || value.contains(&0) {
            return self;
        }
        self.variables.retain(|(other, _)| other != name);
        self.variables.push((name.to_owned(), value.to_vec()));
        self
    }

    /// The facts, in as few bytes as they need.
    #[must_use]
    pub fn build(self) -> Caller {
        let bytes = self.variables.iter().map(|(name, value)| pairs::length(name.as_bytes(), value)).sum();
        let mut variables = Vec::with_capacity(bytes);
        for (name, value) in &self.variables {
            pairs::push(&mut variables, name.as_bytes(), value);
        }
        Caller {
            id: self.id,
            user: self.user,
            session: self.session,
            remote: self.remote,
            handshake_uri: self.handshake_uri,
            variables: variables.into_boxed_slice(),
        }
    }
}

/// Variables that every call computes itself.
const COMPUTED: [&str; 17] = [
    "GATEWAY_INTERFACE",
    "SERVER_SOFTWARE",
    "SERVER_PROTOCOL",
    "SCRIPT_NAME",
    "WOOTZ_EVENT",
    "WOOTZ_CONNECTION",
    "WOOTZ_SESSION",
    "WOOTZ_TOKEN",
    "REQUEST_METHOD",
    "REQUEST_URI",
    "PATH_INFO",
    "QUERY_STRING",
    "CONTENT_TYPE",
    "CONTENT_LENGTH",
    "REMOTE_USER",
    "REMOTE_ADDR",
    "REMOTE_PORT",
];

/// The value of a variable: its bytes, or what they are written from when somebody wants them.
#[derive(Debug)]
pub(crate) enum Value<'c> {
    Bytes(Cow<'c, [u8]>),
    Connection(ConnectionId),
    Token(&'c Capability),
    Number(usize),
    Address(IpAddr),
}

impl<'c> Value<'c> {
    fn text(text: &'c str) -> Self {
        Self::Bytes(Cow::Borrowed(text.as_bytes()))
    }

    /// Appends the bytes. Those of anything but `Bytes` are at most 127.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bytes(bytes) => out.extend_from_slice(bytes),
            Self::Connection(id) => out.extend_from_slice(&id.digits()),
            Self::Token(capability) => capability.write_token(out),
            Self::Number(number) => write!(out, "{number}").expect("a vector takes whatever is written"),
            Self::Address(address) => write!(out, "{address}").expect("a vector takes whatever is written"),
        }
    }

    fn into_bytes(self) -> Cow<'c, [u8]> {
        match self {
            Self::Bytes(bytes) => bytes,
            short => {
                let mut bytes = Vec::new();
                short.write(&mut bytes);
                Cow::Owned(bytes)
            }
        }
    }
}

/// All variables of a call.
pub(crate) fn of_call(call: &Call) -> impl Iterator<Item = (&str, Cow<'_, [u8]>)> {
    let computed = computed(call).map(|(name, value)| (name, value.into_bytes()));
    computed.chain(call.caller.stored().map(|(name, value)| (name, Cow::Borrowed(value))))
}

/// The variables that this call computes itself.
pub(crate) fn computed(call: &Call) -> impl Iterator<Item = (&'static str, Value<'_>)> {
    let (caller, message_uri) = (&*call.caller, call.message_uri());
    let uri = message_uri.unwrap_or(&caller.handshake_uri);
    let (path, query) = split_uri(uri);
    // In the order of their names above.
    let values = [
        Some(Value::text("CGI/1.1")),
        Some(Value::text(SERVER_SOFTWARE)),
        Some(Value::text("HTTP/1.1")),
        // No script was found by a part of the URI: the whole path is PATH_INFO.
        Some(Value::text("")),
        Some(Value::text(call.event.as_str())),
        Some(Value::Connection(caller.id)),
        caller.session.as_deref().map(Value::text),
        call.capability.as_ref().map(Value::Token),
        Some(Value::text(if message_uri.is_some() { "GET" } else { "POST" })),
        Some(Value::text(uri)),
        Some(Value::Bytes(decode_path(path))),
        Some(Value::text(query)),
        Some(Value::text(match call.message {
            Message::Text(_) => "text/plain; charset=utf-8",
            Message::Binary(_) => "application/octet-stream",
        })),
        Some(Value::Number(call.message.payload().len())),
        caller.user.as_deref().map(Value::text),
        caller.remote.map(|remote| Value::Address(remote.ip().to_canonical())),
        caller.remote.map(|remote| Value::Number(remote.port().into())),
    ];
    COMPUTED.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?)))
}

/// Path and query of a URI; the query without its `?`.
fn split_uri(uri: &str) -> (&str, &str) {
    uri.split_once('?').unwrap_or((uri, ""))
}

/// The path with its `%XX` decoded (RFC 3875 section 4.1.5: "not URL-encoded"). One that would then hold a NUL stays as it is.
fn decode_path(path: &str) -> Cow<'_, [u8]> {
    let bytes = path.as_bytes();
    if !bytes.contains(&b'%') {
        return Cow::Borrowed(bytes);
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = match after {
            [high, low, ..] if first == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((0, 0)) => return Cow::Borrowed(bytes),
            Some((high, low)) => {
                decoded.push(high << 4 | low);
                rest = &after[2..];
            }
            None => {
                decoded.push(first);
                rest = after;
            }
        }
    }
    Cow::Owned(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// How a byte of a header field's name is written in the name of its variable.
fn variable_byte(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }
}

/// Whether a variable holds the header field of this name. None holds one with `_`: those were dropped.
fn is_variable_of(variable: &str, header: &str) -> bool {
    let Some(name) = variable.strip_prefix("HTTP_") else { return false };
    !header.contains('_') && name.bytes().eq(header.bytes().map(variable_byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{CallEvent, MessageMode};

    fn variable(call: &Call, name: &str) -> Option<String> {
        call.variable(name).map(|value| String::from_utf8(value.into_owned()).expect("UTF-8"))
    }

    fn call(builder: CallerBuilder, message: Message) -> Call {
        Call {
            event: CallEvent::Push,
            message,
            caller: Arc::new(builder.build()),
            mode: MessageMode::Uri,
            capability: None,
        }
    }

    fn builder() -> CallerBuilder {
        Caller::builder(ConnectionId(1), "/chat?room=1")
    }

    #[test]
    fn header_fields_become_variables_and_those_of_one_name_are_joined() {
        let builder = builder()
            .header("User-Agent", b"Tester")
            .header("Cookie", b"a=1")
            .header("accept-language", b"de")
            .header("COOKIE", b"b=2")
            .header("Accept-Language", b"en");
        let call = call(builder, Message::empty());
        assert_eq!(variable(&call, "HTTP_USER_AGENT").as_deref(), Some("Tester"));
        assert_eq!(variable(&call, "HTTP_COOKIE").as_deref(), Some("a=1; b=2"));
        assert_eq!(variable(&call, "HTTP_ACCEPT_LANGUAGE").as_deref(), Some("de, en"));
        assert_eq!(call.header("user-AGENT"), Some(&b"Tester"[..]));
        assert_eq!(call.header("user_agent"), None);
        assert_eq!(call.header("missing"), None);
    }

    #[test]
    fn a_header_field_that_would_forge_another_is_dropped() {
        let builder = builder()
            .header("Proxy", b"http://evil.example")
            .header("pRoXy", b"http://evil.example")
            .header("X_Real_IP", b"10.0.0.1")
            .header("X=Y", b"1")
            .header("", b"1")
            .header("X-Nul", b"a\0HTTP_COOKIE");
        let call = call(builder, Message::empty());
        assert_eq!(call.variables().filter(|(name, _)| name.starts_with("HTTP_")).count(), 0);
    }

    #[test]
    fn a_pushed_variable_replaces_its_like_but_none_that_a_call_computes() {
        let builder = builder()
            .push("SERVER_NAME", "old.example")
            .push("SERVER_NAME", "example.com")
            .push("REMOTE_USER", "admin")
            .push("WOOTZ_EVENT", "validate")
            .push("A=B", "1");
        let call = call(builder, Message::empty());
        assert_eq!(variable(&call, "SERVER_NAME").as_deref(), Some("example.com"));
        assert_eq!(variable(&call, "REMOTE_USER"), None);
        assert_eq!(variable(&call, "WOOTZ_EVENT").as_deref(), Some("push"));
        let mut names: Vec<&str> = call.variables().map(|(name, _)| name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn an_empty_value_and_many_variables_come_back_as_they_were() {
        let many = (0..50).fold(builder(), |builder, n| builder.push(&format!("NAME_{n}"), "v".repeat(n)));
        let call = call(many, Message::empty());
        for n in 0..50 {
            assert_eq!(variable(&call, &format!("NAME_{n}")), Some("v".repeat(n)));
        }
        assert_eq!(Caller::builder(ConnectionId(1), "/").build().stored().count(), 0);
    }

    #[test]
    fn the_message_is_a_get_where_it_is_the_uri_and_a_post_else() {
        let get = call(builder(), Message::text("/cart?x=1&y=%20"));
        let post = call(builder(), Message::text("two words"));
        let binary = call(builder(), Message::binary("abc"));
        let of = |call: &Call| {
            ["REQUEST_METHOD", "REQUEST_URI", "PATH_INFO", "QUERY_STRING", "CONTENT_LENGTH", "CONTENT_TYPE"]
                .map(|name| variable(call, name).expect("always there"))
        };
        let text = "text/plain; charset=utf-8";
        assert_eq!(of(&get), ["GET", "/cart?x=1&y=%20", "/cart", "x=1&y=%20", "15", text]);
        assert_eq!(of(&post), ["POST", "/chat?room=1", "/chat", "room=1", "9", text]);
        assert_eq!(of(&binary), ["POST", "/chat?room=1", "/chat", "room=1", "3", "application/octet-stream"]);
    }

    #[test]
    fn the_path_is_decoded_unless_that_makes_a_nul() {
        for (path, decoded) in [
            ("/a%2Fb", "/a/b"),
            ("/%C3%BC", "/ü"),
            ("/a%", "/a%"),
            ("/a%4", "/a%4"),
            ("/%zz%41", "/%zzA"),
            ("/%00", "/%00"),
        ] {
            let call = call(builder(), Message::text(path));
            assert_eq!(variable(&call, "PATH_INFO").as_deref(), Some(decoded), "{path}");
        }
    }

    #[test]
    fn a_guest_has_no_user_and_an_ipv4_address_is_written_as_one() {
        let guest = call(builder(), Message::empty());
        assert_eq!((variable(&guest, "REMOTE_USER"), variable(&guest, "REMOTE_ADDR")), (None, None));
        let mapped = "[::ffff:192.0.2.1]:443".parse().expect("an address");
        let user = call(builder().user(Some("42".into())).session(Some("abc".into())).remote(mapped), Message::empty());
        assert_eq!(
            (variable(&guest, "WOOTZ_SESSION"), variable(&user, "WOOTZ_SESSION")),
            (None, Some("abc".to_owned()))
        );
        assert_eq!(variable(&user, "REMOTE_USER").as_deref(), Some("42"));
        assert_eq!(variable(&user, "REMOTE_ADDR").as_deref(), Some("192.0.2.1"));
        assert_eq!(variable(&user, "REMOTE_PORT").as_deref(), Some("443"));
    }

    #[test]
    fn neither_cookies_nor_users_are_in_the_debug_text() {
        let caller = builder().header("Cookie", b"secret").user(Some("alice".into())).build();
        let text = format!("{caller:?}");
        assert!(!text.contains("secret") && !text.contains("alice"), "{text}");
    }
}
