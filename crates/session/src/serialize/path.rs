//! Where in a session a value lies.

use std::fmt;

use thiserror::Error;

use super::reader::{Key, Text};

/// More would be no key that a person has named, and would only make the walk longer.
const MAX_SEGMENTS: usize = 16;

/// The way to a value: `id`, or `auth.user.id` for `$_SESSION['auth']['user']['id']`.
///
/// A segment names an array's key (`0` is the integer, as in PHP) or an object's property, whatever its visibility. Where the
/// session itself has a key that is spelt like the whole path, dots included, that one is meant.
///
/// ```
/// use wootz_session::serialize::KeyPath;
///
/// assert_eq!(KeyPath::parse("auth.user.id").expect("a path").as_str(), "auth.user.id");
/// assert!(KeyPath::parse("auth..id").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyPath {
    /// The whole path as one key.
    literal: Segment,
    segments: Box<[Segment]>,
}

/// What is wrong with a path as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadKeyPath {
    /// Nothing between two dots, or nothing at all.
    #[error("a key is empty: write the names of keys with single dots between them, as in auth.user.id")]
    EmptyKey,
    /// More than 16 keys.
    #[error("more than {MAX_SEGMENTS} keys in one path")]
    TooManyKeys,
}

impl KeyPath {
    /// Parses keys with dots between them.
    ///
    /// # Errors
    /// When a key is empty, or there are more than 16.
    pub fn parse(text: &str) -> Result<Self, BadKeyPath> {
        let segments: Box<[Segment]> = text.split('.').map(Segment::new).collect();
        if segments.iter().any(|segment| segment.text.is_empty()) {
            return Err(BadKeyPath::EmptyKey);
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(BadKeyPath::TooManyKeys);
        }
        Ok(Self { literal: Segment::new(text), segments })
    }

    /// The path as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.literal.text
    }

    /// The ways to follow, the one that counts more first.
    pub(super) fn ways(&self) -> impl Iterator<Item = &[Segment]> {
        let literal = (self.segments.len() > 1).then_some(std::slice::from_ref(&self.literal));
        literal.into_iter().chain([&*self.segments])
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Segment {
    text: Box<str>,
    /// PHP makes an integer of a key that is spelt like one.
    integer: Option<i64>,
}

/// How a key fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Exact,
    /// As the name of a property that is private or protected; an exact one beside it is preferred.
    Bare,
    Not,
}

impl Segment {
    fn new(text: &str) -> Self {
        let integer = text.parse().ok().filter(|number: &i64| number.to_string() == text);
        Self { text: text.into(), integer }
    }

    pub(super) fn is_text(&self, text: &str) -> bool {
        *self.text == *text
    }

    pub(super) fn is_index(&self, index: usize) -> bool {
        self.integer.is_some_and(|integer| usize::try_from(integer) == Ok(index))
    }

    pub(super) fn fit(&self, key: Key<'_>) -> Fit {
        match key {
            Key::Integer(number) if self.integer == Some(number) => Fit::Exact,
            Key::Integer(_) => Fit::Not,
            Key::Text(Text { raw, escaped: false }) => self.fit_name(raw),
            Key::Text(text) => self.fit_name(&text.bytes()),
        }
    }

    fn fit_name(&self, name: &[u8]) -> Fit {
        if name == self.text.as_bytes() {
            return Fit::Exact;
        }
        // "\0Class\0name" or "\0*\0name".
        let Some((0, mangled)) = name.split_first() else { return Fit::Not };
        let bare = memchr::memchr(0, mangled).map(|end| &mangled[end + 1..]);
        if bare == Some(self.text.as_bytes()) { Fit::Bare } else { Fit::Not }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(path: &str) -> Segment {
        KeyPath::parse(path).expect("a path").literal
    }

    fn text(raw: &[u8]) -> Key<'_> {
        Key::Text(Text { raw, escaped: false })
    }

    #[test]
    fn a_key_is_an_integer_exactly_when_php_makes_it_one() {
        for (path, number) in [("0", 0), ("17", 17), ("-3", -3), ("9223372036854775807", i64::MAX)] {
            assert_eq!(segment(path).fit(Key::Integer(number)), Fit::Exact, "{path}");
        }
        for path in ["00", "-0", "+1", "1e0", "9223372036854775808", " 1"] {
            let number = path.trim().parse::<f64>().expect("a number") as i64;
            assert_eq!(segment(path).fit(Key::Integer(number)), Fit::Not, "{path}");
            assert_eq!(segment(path).fit(text(path.as_bytes())), Fit::Exact, "{path}");
        }
    }

    #[test]
    fn properties_are_found_by_their_bare_name() {
        let id = segment("id");
        assert_eq!(id.fit(text(b"id")), Fit::Exact);
        assert_eq!(id.fit(text(b"\0*\0id")), Fit::Bare);
        assert_eq!(id.fit(text(b"\0App\\User\0id")), Fit::Bare);
        for other in [&b"\0id"[..], b"\0*\0id2", b"\0\0\0id", b"ID", b"", b"\0", b"\0\0"] {
            assert_eq!(id.fit(text(other)), Fit::Not, "{other:?}");
        }
    }

    #[test]
    fn paths_that_no_session_can_have_are_refused() {
        for path in ["", ".", "a.", ".a", "a..b"] {
            assert_eq!(KeyPath::parse(path), Err(BadKeyPath::EmptyKey), "{path}");
        }
        assert_eq!(KeyPath::parse(&["a"; 17].join(".")), Err(BadKeyPath::TooManyKeys));
        assert_eq!(KeyPath::parse(&["a"; 16].join(".")).map(|path| path.ways().count()), Ok(2));
    }
}
