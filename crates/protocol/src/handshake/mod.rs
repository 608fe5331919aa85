//! The opening handshake (RFC 6455, section 4) over HTTP/1.1: reading a request head, accepting or refusing it, and a
//! client's side. The same over HTTP/2 (RFC 8441), once somebody has read the request: [`http2`].
//!
//! A head is refused where readers could differ about it (bare line feeds, folded lines, two lengths): behind a proxy,
//! a request that two programs read differently is an attack.

pub mod client;
mod head;
pub mod http2;
mod refusal;
mod server;

pub use head::{HeadLimits, Header, Parsed, Request, Version, parse};
pub use refusal::{Refusal, response};
pub use server::{Acceptance, Subprotocols, accept};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// What section 1.3 appends to the key, so that no server answers by accident.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of `Sec-WebSocket-Accept` that proves that a key was read: base64 of the SHA-1 of both.
fn accept_value(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// The elements of a comma-separated list, over all fields of one name. Empty elements count for nothing (RFC 9110, 5.6.1).
fn list_elements<'a>(values: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    values
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// Whether `text` is a token (RFC 9110, 5.6.2).
fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

#[cfg(test)]
mod tests {
    #[test]
    fn accept_value_is_the_one_of_the_example_in_section_1_3() {
        assert_eq!(super::accept_value(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
