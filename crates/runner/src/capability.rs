//! What lets a call act on its own connection, and on nothing else, while it runs: `WOOTZ_TOKEN`.
//!
//! A token names a connection and one call of it, and proves by a keyed hash that this server said so. Nothing is kept per call, and
//! nothing is computed unless somebody asks for the variable.

use std::fmt;
use std::io::Write as _;
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::call::{ConnectionId, hex};

/// Bytes of the hash that a token shows: 128 bits can't be guessed.
const SHOWN_BYTES: usize = 16;

/// Connection, call and proof in hexadecimal digits, and two dots.
const MAX_TOKEN_BYTES: usize = 32 + 1 + 16 + 1 + 2 * SHOWN_BYTES;

/// Makes and recognizes tokens. One per server, made anew at each start, so that no token outlives its server.
#[derive(Clone)]
pub struct CapabilityKey(Arc<[u8; 32]>);

/// The right of one call.
#[derive(Clone)]
pub struct Capability {
    key: CapabilityKey,
    connection: ConnectionId,
    call: u64,
}

impl CapabilityKey {
    /// A key of random bytes.
    #[must_use]
    pub fn new(random: [u8; 32]) -> Self {
        Self(Arc::new(random))
    }

    /// The right of one call of a connection, by its number.
    #[must_use]
    pub fn issue(&self, connection: ConnectionId, call: u64) -> Capability {
        Capability { key: self.clone(), connection, call }
    }

    /// The connection and the call that a token was made for, if this key made it. Compared in constant time.
    #[must_use]
    pub fn recognize(&self, token: &str) -> Option<(ConnectionId, u64)> {
        let mut parts = token.split('.');
        let (connection, call, proof) = (parts.next()?, parts.next()?, parts.next()?);
        if connection.len() != 32 || proof.len() != 2 * SHOWN_BYTES || parts.next().is_some() {
            return None;
        }
        let connection = ConnectionId(u128::from_str_radix(connection, 16).ok()?);
        let call = u64::from_str_radix(call, 16).ok()?;
        let mut shown = [0; SHOWN_BYTES];
        for (byte, digits) in shown.iter_mut().zip(proof.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        self.hash(connection, call).verify_truncated_left(&shown).ok()?;
        Some((connection, call))
    }

    fn hash(&self, connection: ConnectionId, call: u64) -> Hmac<Sha256> {
        let mut hash = Hmac::<Sha256>::new_from_slice(&*self.0).expect("HMAC takes keys of any length");
        hash.update(&connection.0.to_be_bytes());
        hash.update(&call.to_be_bytes());
        hash
    }
}

impl Capability {
    /// What the application is given and shows again.
    #[must_use]
    pub fn token(&self) -> String {
        let mut token = Vec::with_capacity(MAX_TOKEN_BYTES);
        self.write_token(&mut token);
        String::from_utf8(token).expect("digits and dots")
    }

    /// The same, at most 82 bytes.
    pub(crate) fn write_token(&self, out: &mut Vec<u8>) {
        let proof = self.key.hash(self.connection, self.call).finalize().into_bytes();
        let (shown, _) = proof.split_first_chunk::<SHOWN_BYTES>().expect("SHA-256 has 32 bytes");
        out.extend_from_slice(&self.connection.digits());
        out.push(b'.');
        write!(out, "{:x}", self.call).expect("a vector takes whatever is written");
        out.push(b'.');
        out.extend_from_slice(&hex(*shown));
    }
}

/// Keys and rights belong into no log.
impl fmt::Debug for CapabilityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CapabilityKey")
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Capability")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_own_connection_and_call_and_any_change_spoils_it() {
        let key = CapabilityKey::new([7; 32]);
        let token = key.issue(ConnectionId(0xabc), 18).token();
        assert_eq!(key.recognize(&token), Some((ConnectionId(0xabc), 18)));
        assert_eq!(CapabilityKey::new([8; 32]).recognize(&token), None);
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(key.recognize(&changed), None, "{changed}");
        }
        for nonsense in ["", ".", "..", "a.b.c", &format!("{token}0"), &format!("{token}."), &token[1..], "é.0.ä"] {
            assert_eq!(key.recognize(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn neither_key_nor_token_is_in_the_debug_text() {
        let right = CapabilityKey::new([7; 32]).issue(ConnectionId(1), 2);
        assert_eq!(format!("{right:?}"), "Capability");
    }
}
