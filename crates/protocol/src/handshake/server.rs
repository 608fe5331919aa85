//! The server's side of the opening handshake (RFC 6455, section 4.2): every MUST of the client's request, and the 101.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::head::{Request, Version};
use super::refusal::Refusal;
use super::{accept_value, is_token, list_elements};

/// Lets the last bits be anything: the RFC's own example of a key (section 4.1) has them set.
const KEY_ENCODING: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// A valid handshake that was not yet answered. Independent of the request's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    accept: String,
    subprotocols: Subprotocols,
}

/// The subprotocols that a client offers, the preferred one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subprotocols(Vec<String>);

/// Checks everything that section 4.2.1 asks of a client's request.
///
/// # Errors
/// The first rule that is broken. Answer with [`Refusal::response`] and close.
pub fn accept(request: &Request<'_>) -> Result<Acceptance, Refusal> {
    if request.method != "GET" {
        return Err(Refusal::MethodNotAllowed);
    }
    if request.version < Version::Http11 {
        return Err(Refusal::OldHttpVersion);
    }
    let host = request.single("host").filter(|host| is_host(host)).ok_or(Refusal::InvalidHost)?;
    // RFC 9112, 3.2.2 has the target's host count alone. Programs before us may have looked at the other one, so that two are none.
    if request.authority().is_some_and(|named| !named.as_bytes().eq_ignore_ascii_case(host)) {
        return Err(Refusal::InvalidHost);
    }
    if !request.wants_websocket() {
        return Err(Refusal::MissingUpgrade);
    }
    if !request.lists("connection", "upgrade") {
        return Err(Refusal::MissingConnection);
    }
    if request.has_body() {
        return Err(Refusal::UnexpectedBody);
    }
    check_websocket_version(request)?;
    let key = request.single("sec-websocket-key").filter(|key| is_key(key)).ok_or(Refusal::InvalidKey)?;
    Ok(Acceptance { accept: accept_value(key), subprotocols: Subprotocols::of(request)? })
}

pub(super) fn check_websocket_version(request: &Request<'_>) -> Result<(), Refusal> {
    match request.single("sec-websocket-version") {
        Some(b"13") => Ok(()),
        Some(_) => Err(Refusal::UnsupportedVersion),
        None => Err(Refusal::InvalidVersion),
    }
}

fn is_key(value: &[u8]) -> bool {
    KEY_ENCODING.decode(value).is_ok_and(|key| key.len() == 16)
}

/// A host with or without a port: nothing in it that could be taken for another part of a URI.
pub(super) fn is_host(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|byte| byte.is_ascii_graphic() && !b"/?#@,\\\"<>".contains(byte))
}

impl Subprotocols {
    pub(super) fn of(request: &Request<'_>) -> Result<Self, Refusal> {
        list_elements(request.all("sec-websocket-protocol"))
            .map(|name| {
                let name = std::str::from_utf8(name).ok().filter(|name| is_token(name.as_bytes()));
                name.map(str::to_owned).ok_or(Refusal::InvalidSubprotocol)
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// All of them.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether this one is among them.
    pub fn offer(&self, name: &str) -> bool {
        self.0.iter().any(|offered| offered == name)
    }

    /// The client's most preferred one among `served`.
    pub fn choose<S: AsRef<str>>(&self, served: &[S]) -> Option<&str> {
        self.0.iter().map(String::as_str).find(|offered| served.iter().any(|served| served.as_ref() == *offered))
    }
}

impl Acceptance {
    /// What the client offers.
    pub fn subprotocols(&self) -> &Subprotocols {
        &self.subprotocols
    }

    /// The 101 that opens the WebSocket.
    ///
    /// A subprotocol that was not offered is left out, because section 4.2.2 allows no other. No extension is negotiated.
    pub fn response(&self, subprotocol: Option<&str>) -> Vec<u8> {
        let mut out = String::with_capacity(192);
        out.push_str(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        );
        out.push_str(&self.accept);
        if let Some(chosen) = subprotocol.filter(|chosen| self.subprotocols.offer(chosen)) {
            out.push_str("\r\nSec-WebSocket-Protocol: ");
            out.push_str(chosen);
        }
        out.push_str("\r\n\r\n");
        out.into_bytes()
    }
}
