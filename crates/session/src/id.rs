//! The id of a session, well-formed: what PHP would accept, so it can never name a path, a pattern or a command.

use std::fmt;
use std::sync::Arc;

/// PHP makes ids of at most so many bytes.
const MAX_ID_BYTES: usize = 256;

/// The id of a session: 1 to 256 of `A–Z a–z 0–9 , -`, as PHP itself demands. It is a secret: whoever knows it is the user.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// The id in these bytes, if they are one.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b',' | b'-');
        if bytes.is_empty() || bytes.len() > MAX_ID_BYTES || !bytes.iter().all(allowed) {
            return None;
        }
        std::str::from_utf8(bytes).ok().map(|text| Self(Arc::from(text)))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id, shared.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

/// Never the id itself: whoever can read the log must not be able to be the user.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_php_accepts_is_an_id() {
        for id in ["a", "0123456789abcdef", "A-z,9", &"x".repeat(256)] {
            assert_eq!(SessionId::parse(id.as_bytes()).as_ref().map(SessionId::as_str), Some(id));
        }
        for id in ["", "../etc/passwd", "a/b", "a.b", "a b", "a\0", "ü", "a*", "a%2F", "a\n", "a:b", &"x".repeat(257)]
        {
            assert_eq!(SessionId::parse(id.as_bytes()), None, "{id:?}");
        }
    }

    #[test]
    fn an_id_is_not_in_its_debug_text() {
        let id = SessionId::parse(b"secret").expect("an id");
        assert!(!format!("{id:?}").contains("secret"));
    }
}
