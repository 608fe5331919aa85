//! What an application is asked: one event of one connection, with its message and its caller.
//!
//! A call is cheap to make: its variables are computed when somebody asks for them, so that an application inside this
//! process that only wants the message pays nothing for CGI.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use crate::capability::Capability;
use crate::environment::{self, Caller};

/// The longest text message that is taken for a URI, in bytes.
const MAX_URI_BYTES: usize = 8 * 1024;

/// Names one connection: 128 unguessable bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u128);

impl ConnectionId {
    /// As it is written.
    pub(crate) fn digits(self) -> [u8; 32] {
        hex(self.0.to_be_bytes())
    }
}

/// Two hexadecimal digits for each byte.
pub(crate) fn hex(bytes: [u8; 16]) -> [u8; 32] {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut written = [0; 32];
    for (two, byte) in written.chunks_exact_mut(2).zip(bytes) {
        two.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    written
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.digits()).expect("digits are ASCII"))
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Shared bytes that are valid UTF-8.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Utf8Bytes(Bytes);

impl Utf8Bytes {
    /// The text of a literal, without a copy.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Checked again rather than assumed: no caller of this is on the way of an echo, and 8 KiB cost 0.2 µs.
        simdutf8::basic::from_utf8(&self.0).expect("every constructor has checked the bytes")
    }

    /// The first bytes of the text; `length` must be a boundary of characters.
    pub(crate) fn truncated(self, length: usize) -> Self {
        assert!(self.as_str().is_char_boundary(length), "a cut between two characters");
        Self(self.0.slice(..length))
    }

    /// The bytes of the text, shared.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// The bytes of the text; what length and sending need.
impl Deref for Utf8Bytes {
    type Target = Bytes;
    fn deref(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Utf8Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl From<String> for Utf8Bytes {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl From<&str> for Utf8Bytes {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

/// Bytes that are no UTF-8 come back as they were.
impl TryFrom<Bytes> for Utf8Bytes {
    type Error = Bytes;
    fn try_from(bytes: Bytes) -> Result<Self, Bytes> {
        match simdutf8::basic::from_utf8(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(_) => Err(bytes),
        }
    }
}

/// A whole WebSocket message: what a browser sent, or what goes back to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message.
    Binary(Bytes),
}

impl Message {
    /// A text message.
    pub fn text(text: impl Into<Utf8Bytes>) -> Self {
        Self::Text(text.into())
    }

    /// A binary message.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self::Binary(bytes.into())
    }

    /// The message of an event that has none.
    #[must_use]
    pub const fn empty() -> Self {
        Self::Text(Utf8Bytes::from_static(""))
    }

    /// The payload, whatever its kind.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        match self {
            Self::Text(text) => text,
            Self::Binary(bytes) => bytes,
        }
    }
}

/// Why the application is called; `WOOTZ_EVENT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallEvent {
    /// The browser sent a message.
    Message,
    /// Somebody on the host pushed a request to this connection.
    Push,
    /// A browser wants to connect: who is it?
    Validate,
    /// A connection has opened.
    Connect,
    /// A connection has closed.
    Disconnect,
}

impl CallEvent {
    /// The value of `WOOTZ_EVENT`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Push => "push",
            Self::Validate => "validate",
            Self::Connect => "connect",
            Self::Disconnect => "disconnect",
        }
    }
}

impl fmt::Display for CallEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a text message may be the URI of its call; `application.message`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MessageMode {
    /// A text message without white space and control characters, 1 to 8192 bytes long, is the URI.
    #[default]
    Uri,
    /// No message is: the URI is always that of the handshake.
    Body,
}

/// One call of the application.
#[derive(Debug, Clone)]
pub struct Call {
    /// Why.
    pub event: CallEvent,
    /// The body of the call: all of standard input, byte for byte.
    pub message: Message,
    /// For whom.
    pub caller: Arc<Caller>,
    /// Whether the message may be the URI.
    pub mode: MessageMode,
    /// What lets the application act on its own connection while this call runs. `None`: it may not.
    pub capability: Option<Capability>,
}

impl Call {
    /// The URI of the call: the message itself where it is one, else the URI of the handshake.
    #[must_use]
    pub fn uri(&self) -> &str {
        self.message_uri().unwrap_or(&self.caller.handshake_uri)
    }

    /// The message as the URI, where the mode and the message allow that.
    #[must_use]
    pub fn message_uri(&self) -> Option<&str> {
        match (self.mode, &self.message) {
            (MessageMode::Uri, Message::Text(text)) if (1..=MAX_URI_BYTES).contains(&text.len()) => {
                let text = text.as_str();
                let plain = !text.chars().any(|c| c.is_whitespace() || c.is_control());
                plain.then_some(text)
            }
            (MessageMode::Uri, Message::Text(_) | Message::Binary(_)) | (MessageMode::Body, _) => None,
        }
    }

    /// A header field of the handshake by its name in any case (`user-agent`); several of one name are joined.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.caller.header(name)
    }

    /// One CGI variable.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.variables().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// All CGI variables of the call, computed as they are asked for. No name comes twice.
    pub fn variables(&self) -> impl Iterator<Item = (&str, Cow<'_, [u8]>)> {
        environment::of_call(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(mode: MessageMode, message: Message) -> Call {
        let caller = Arc::new(Caller::builder(ConnectionId(1), "/handshake?h=1").build());
        Call { event: CallEvent::Message, message, caller, mode, capability: None }
    }

    #[test]
    fn a_text_without_white_space_and_control_characters_is_the_uri_verbatim() {
        for text in ["/cart?x=1", "echo/abc", "/größe", "x", "{\"json\":1}", "/a%20b#c"] {
            assert_eq!(call(MessageMode::Uri, Message::text(text)).uri(), text);
        }
        let longest = "x".repeat(8192);
        assert_eq!(call(MessageMode::Uri, Message::text(longest.as_str())).uri(), longest);
    }

    #[test]
    fn any_other_message_leaves_the_uri_of_the_handshake() {
        let too_long = "x".repeat(8193);
        for text in ["", "two words", "line\n", "tab\t", "\u{a0}", "nul\0", "\u{7f}", "\u{85}", too_long.as_str()] {
            assert_eq!(call(MessageMode::Uri, Message::text(text)).uri(), "/handshake?h=1", "{text:?}");
        }
        assert_eq!(call(MessageMode::Uri, Message::binary("/cart")).uri(), "/handshake?h=1");
        assert_eq!(call(MessageMode::Body, Message::text("/cart")).uri(), "/handshake?h=1");
    }

    #[test]
    fn text_is_made_of_utf_8_only() {
        let bytes = Bytes::from_static(b"a\xff");
        assert_eq!(Utf8Bytes::try_from(bytes.clone()), Err(bytes));
        assert_eq!(Utf8Bytes::try_from(Bytes::from_static("ü".as_bytes())).map(Utf8Bytes::into_bytes), Ok("ü".into()));
    }

    #[test]
    fn a_connection_is_named_by_32_digits() {
        assert_eq!(ConnectionId(0xab).to_string(), "000000000000000000000000000000ab");
        assert_eq!(ConnectionId(u128::MAX).to_string().len(), 32);
    }
}
