//! The cookie that names a session, read exactly as PHP reads it: two readers of one header that disagree are a way to be somebody else.
//!
//! The law is PHP's own (`$_COOKIE`, then `session_start()` with `session.use_only_cookies`): `;` separates, white space before a name
//! is dropped, names are case-sensitive and not decoded, the first of two plain cookies wins, a cookie that is an array wins over both.

use crate::SessionId;

/// PHP's `max_input_vars`: cookies after so many are not there.
const MAX_COOKIES: usize = 1000;
/// PHP's `max_input_nesting_level`: a name with more brackets removes what was there.
const MAX_NESTING: usize = 64;

/// What the cookies say about the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CookieId {
    /// No cookie of this name, an empty one, or an array (`PHPSESSID[]=x`): PHP would begin a new session.
    None,
    /// A value that is no session's id: PHP does not take it either.
    Malformed,
    /// The session's id.
    Id(SessionId),
}

/// The id of the session in the `Cookie` header fields, given in their order; several count as one list.
///
/// `name` is PHP's `session.name`. As in PHP, one with a dot, a space or a bracket is never found: those become `_` in a cookie's name.
///
/// ```
/// use wootz_session::cookie::{CookieId, session_id};
///
/// let headers: [&[u8]; 1] = [b"theme=dark; PHPSESSID=0123456789abcdef; PHPSESSID=second"];
/// let CookieId::Id(id) = session_id(headers, "PHPSESSID") else { panic!("no id") };
/// assert_eq!(id.as_str(), "0123456789abcdef");
/// ```
#[must_use]
pub fn session_id<'a>(fields: impl IntoIterator<Item = &'a [u8]>, name: &str) -> CookieId {
    match value(fields, name.as_bytes()) {
        None | Some(Value::Array) => CookieId::None,
        Some(Value::Text(raw)) => match decoded(raw) {
            value if value.is_empty() => CookieId::None,
            value => SessionId::parse(&value).map_or(CookieId::Malformed, CookieId::Id),
        },
    }
}

/// What `$_COOKIE` holds under a name.
enum Value<'a> {
    Array,
    /// Still percent-encoded.
    Text(&'a [u8]),
}

fn value<'a>(fields: impl IntoIterator<Item = &'a [u8]>, wanted: &[u8]) -> Option<Value<'a>> {
    let mut value = None;
    let cookies = fields.into_iter().flat_map(|field| until_nul(field).split(|byte| *byte == b';'));
    for cookie in cookies.filter_map(cookie).take(MAX_COOKIES) {
        match (Name::of(cookie.name), &value) {
            (Name::Plain(name), None) if name.is(wanted) => value = Some(Value::Text(cookie.value)),
            (Name::Array(name), _) if name.is(wanted) => value = Some(Value::Array),
            (Name::TooDeep(name), _) if name.is(wanted) => value = None,
            (Name::Plain(_) | Name::Array(_) | Name::TooDeep(_) | Name::Nothing, _) => {}
        }
    }
    value
}

/// To PHP it is a string of C.
fn until_nul(field: &[u8]) -> &[u8] {
    &field[..memchr::memchr(0, field).unwrap_or(field.len())]
}

struct Cookie<'a> {
    name: &'a [u8],
    value: &'a [u8],
}

/// Splits at the first `=`; `None` if nothing is before it.
fn cookie(piece: &[u8]) -> Option<Cookie<'_>> {
    let start = piece.iter().position(|byte| !is_space(*byte)).unwrap_or(piece.len());
    let piece = &piece[start..];
    let (name, value) = match memchr::memchr(b'=', piece) {
        Some(at) => (&piece[..at], &piece[at + 1..]),
        None => (piece, &b""[..]),
    };
    (!name.is_empty()).then_some(Cookie { name, value })
}

/// C's `isspace`: one more than Rust's.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// The key in `$_COOKIE` that a cookie's name leads to.
#[derive(Debug)]
enum Name<'a> {
    Nothing,
    Plain(Mangled<'a>),
    Array(Mangled<'a>),
    TooDeep(Mangled<'a>),
}

impl<'a> Name<'a> {
    fn of(name: &'a [u8]) -> Self {
        let Some(bracket) = memchr::memchr(b'[', name) else { return Self::Plain(Mangled(name)) };
        let before = &name[..bracket];
        match brackets(&name[bracket..]) {
            _ if before.is_empty() => Self::Nothing,
            0 => Self::Plain(Mangled(name)),
            levels if levels > MAX_NESTING => Self::TooDeep(Mangled(before)),
            _ => Self::Array(Mangled(before)),
        }
    }
}

/// How many `[…]` stand side by side at the beginning.
fn brackets(mut rest: &[u8]) -> usize {
    let mut levels = 0;
    while rest.first() == Some(&b'[') {
        // One too many is too many even without its end.
        if levels == MAX_NESTING {
            return levels + 1;
        }
        let Some(end) = memchr::memchr(b']', rest) else { break };
        levels += 1;
        rest = &rest[end + 1..];
    }
    levels
}

/// A name as it was sent; PHP reads ` `, `.` and `[` in it as `_`.
#[derive(Debug)]
struct Mangled<'a>(&'a [u8]);

impl Mangled<'_> {
    fn is(&self, wanted: &[u8]) -> bool {
        // A name that only mangling makes one of the browser's protected prefixes is nobody's: it would get around the protection.
        let forged = |prefix: &[u8]| wanted.starts_with(prefix) && !self.0.starts_with(prefix);
        self.0.len() == wanted.len()
            && self.0.iter().zip(wanted).all(|(byte, wanted)| mangled(*byte) == *wanted)
            && !forged(b"__Host-")
            && !forged(b"__Secure-")
    }
}

fn mangled(byte: u8) -> u8 {
    if matches!(byte, b' ' | b'.' | b'[') { b'_' } else { byte }
}

/// Percent-decoded as by `rawurldecode`: `+` stays, what is no escape stays.
fn decoded(raw: &[u8]) -> Vec<u8> {
    let digit = |at: usize| raw.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut value = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                value.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                value.push(byte);
                at += 1;
            }
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(cookies: &str) -> Option<String> {
        match session_id([cookies.as_bytes()], "PHPSESSID") {
            CookieId::None => None,
            CookieId::Malformed => Some("malformed".to_owned()),
            CookieId::Id(id) => Some(id.as_str().to_owned()),
        }
    }

    #[test]
    fn the_first_plain_cookie_of_the_exact_name_is_the_id() {
        for (cookies, expected) in [
            ("PHPSESSID=a", "a"),
            ("x=1;PHPSESSID=a;y=2", "a"),
            ("x=1; \t PHPSESSID=a; PHPSESSID=b", "a"),
            ("phpsessid=b; PHPSESSID=a", "a"),
            ("PHPSESSID=%61%2Cb", "a,b"),
        ] {
            assert_eq!(id(cookies).as_deref(), Some(expected), "{cookies}");
        }
        let fields: [&[u8]; 2] = [b"x=1", b"PHPSESSID=a"];
        assert!(matches!(session_id(fields, "PHPSESSID"), CookieId::Id(_)), "several fields are one list");
    }

    #[test]
    fn an_array_an_empty_cookie_or_another_name_is_no_session() {
        for cookies in [
            "",
            ";;",
            "PHPSESSID",
            "PHPSESSID=",
            "PHPSESSID=; PHPSESSID=b",
            "PHPSESSID[]=a",
            "PHPSESSID[a]=a; PHPSESSID=b",
            "PHPSESSID=b; PHPSESSID[a][b]=a",
            "PHPSESSID =a",
            "x=PHPSESSID=a",
            "=PHPSESSID",
            "x=1, PHPSESSID=a",
            "P%48PSESSID=a",
        ] {
            assert_eq!(id(cookies), None, "{cookies}");
        }
    }

    #[test]
    fn a_cookie_that_no_session_can_have_is_malformed() {
        let long = format!("PHPSESSID={}", "x".repeat(10_240));
        for cookies in
            ["PHPSESSID=../x", "PHPSESSID=%2e%2e/x", "PHPSESSID=a%00", "PHPSESSID=a+b", "PHPSESSID=\"a\"", &long]
        {
            assert_eq!(id(cookies).as_deref(), Some("malformed"), "{cookies}");
        }
    }

    #[test]
    fn names_are_mangled_but_never_into_a_protected_prefix() {
        let found = |cookies: &str, name: &str| session_id([cookies.as_bytes()], name) != CookieId::None;
        assert!(found("my.id=a", "my_id") && found("my id=a", "my_id") && found("my[id=a", "my_id"));
        assert!(!found("my.id=a", "my.id"));
        assert!(found("__Host-id=a", "__Host-id"));
        assert!(
            !found("_.Host-id=a", "__Host-id")
                && !found("_[Host-id=a", "__Host-id")
                && !found("..Secure-x=a", "__Secure-x")
        );
    }

    #[test]
    fn a_name_with_more_brackets_than_php_takes_removes_what_was_there() {
        let deep = |levels: usize| format!("PHPSESSID=a; PHPSESSID{}=x; PHPSESSID=b", "[]".repeat(levels));
        assert_eq!(id(&deep(64)), None);
        assert_eq!(id(&deep(65)).as_deref(), Some("b"));
    }
}
