//! Where a browser may carry a token, and how it is taken out of what others see.
//!
//! Browsers cannot set `Authorization` on a WebSocket, so there are two other ways. As a subprotocol a page offers two:
//! `new WebSocket(url, ["wootz.jwt", "wootz.jwt." + token])`. A browser fails a connection whose answer names none of
//! its offers, and the answer must not be the token; so the server answers with [`SUBPROTOCOL`] unless the
//! application's own one is chosen. Each character of a token (base64url and dots) is allowed in a subprotocol (RFC
//! 7230 `token`).
//!
//! An empty token is none, which templates leave for guests. Anything else is one, and is refused if it is broken:
//! nobody becomes a guest by a mistake.

use std::borrow::Cow;
use std::fmt;

/// The subprotocol that the server answers with when the token came as one. It is no secret.
pub const SUBPROTOCOL: &str = "wootz.jwt";

/// What an offer begins with that carries a token.
const CARRIER: &str = "wootz.jwt.";

/// The parameter of a query that carries a token.
const PARAMETER: &[u8] = b"token";

/// How a token came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `Authorization: Bearer`.
    Authorization,
    /// An offer `wootz.jwt.…` in `Sec-WebSocket-Protocol`.
    Subprotocol,
    /// The parameter `token` of the query.
    Query,
}

/// For the log.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authorization => "Authorization",
            Self::Subprotocol => "the subprotocol",
            Self::Query => "the query",
        })
    }
}

/// The token of a request and how it came: `Authorization` before the subprotocol before the query. One that is there
/// is the token, whether it is valid or not; a second is never tried.
#[must_use]
pub fn find<'r>(
    authorization: Option<&'r [u8]>,
    offers: impl IntoIterator<Item = &'r str>,
    query: Option<&'r str>,
) -> Option<(Source, Cow<'r, str>)> {
    let authorization = authorization.and_then(from_authorization).map(|token| (Source::Authorization, token));
    authorization
        .or_else(|| from_subprotocols(offers).map(|token| (Source::Subprotocol, Cow::Borrowed(token))))
        .or_else(|| query.and_then(from_query).map(|token| (Source::Query, token)))
}

/// The token in the value of `Authorization`, if its scheme is `Bearer`, in any case (RFC 6750 section 2.1).
#[must_use]
pub fn from_authorization(value: &[u8]) -> Option<Cow<'_, str>> {
    let value = value.trim_ascii();
    let end = value.iter().position(u8::is_ascii_whitespace)?;
    let (scheme, token) = value.split_at(end);
    // What is not UTF-8 is no token either, but it is there and must be refused as one.
    scheme.eq_ignore_ascii_case(b"bearer").then(|| String::from_utf8_lossy(token.trim_ascii()))
}

/// The token in a query (without its `?`): the first parameter `token`, percent-decoded.
#[must_use]
pub fn from_query(query: &str) -> Option<Cow<'_, str>> {
    let first = query.split('&').find(|parameter| is_token(parameter))?;
    let (_, value) = first.split_once('=')?;
    Some(value).filter(|value| !value.is_empty()).map(|value| match percent_decoded(value) {
        Cow::Borrowed(_) => Cow::Borrowed(value),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    })
}

/// The token in the subprotocols that a browser offers: the first that carries one.
#[must_use]
pub fn from_subprotocols<'r>(offers: impl IntoIterator<Item = &'r str>) -> Option<&'r str> {
    let token = offers.into_iter().find_map(|offer| offer.strip_prefix(CARRIER))?;
    Some(token).filter(|token| !token.is_empty())
}

/// Whether an offered subprotocol carries a token, so that it must never be chosen, logged or handed on.
#[must_use]
pub fn carries_token(offer: &str) -> bool {
    offer.starts_with(CARRIER)
}

/// The value of `Sec-WebSocket-Protocol` without the offers that carry a token.
#[must_use]
pub fn subprotocols_without_token(value: &str) -> Cow<'_, str> {
    if !value.split(',').any(|offer| carries_token(offer.trim())) {
        return Cow::Borrowed(value);
    }
    let others: Vec<&str> = value.split(',').map(str::trim).filter(|offer| !carries_token(offer)).collect();
    Cow::Owned(others.join(", "))
}

/// A query (without its `?`) without each of its parameters `token`. The others stay as they are, byte for byte.
#[must_use]
pub fn query_without_token(query: &str) -> Cow<'_, str> {
    if !query.split('&').any(is_token) {
        return Cow::Borrowed(query);
    }
    let others: Vec<&str> = query.split('&').filter(|parameter| !is_token(parameter)).collect();
    Cow::Owned(others.join("&"))
}

/// A request's target, or a whole URL, without each parameter `token` of its query.
#[must_use]
pub fn without_token(target: &str) -> Cow<'_, str> {
    let Some((path, query)) = target.split_once('?') else { return Cow::Borrowed(target) };
    match query_without_token(query) {
        Cow::Borrowed(_) => Cow::Borrowed(target),
        Cow::Owned(query) if query.is_empty() => Cow::Borrowed(path),
        Cow::Owned(query) => Cow::Owned(format!("{path}?{query}")),
    }
}

/// Whether a parameter's name is that of the token, as whoever decodes it would read it.
fn is_token(parameter: &str) -> bool {
    let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
    *percent_decoded(name) == *PARAMETER
}

/// An escape that is none stays as it is, as everywhere.
fn percent_decoded(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if memchr::memchr(b'%', bytes).is_none() {
        return Cow::Borrowed(bytes);
    }
    let digit = |byte: Option<&u8>| {
        byte.and_then(|byte| char::from(*byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok())
    };
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = if byte == b'%' { digit(bytes.get(at + 1)).zip(digit(bytes.get(at + 2))) } else { None };
        match escape {
            Some((high, low)) => {
                decoded.push(high << 4 | low);
                at += 3;
            }
            None => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorization_carries_a_token_after_bearer_in_any_case() {
        let token = |value: &'static [u8]| from_authorization(value);
        for value in [&b"Bearer a.b.c"[..], b"bearer a.b.c", b"BEARER  a.b.c ", b" Bearer\ta.b.c"] {
            assert_eq!(token(value).as_deref(), Some("a.b.c"), "{}", String::from_utf8_lossy(value));
        }
        for value in [&b""[..], b"Bearer", b"Bearer ", b"Basic YTpi", b"Bearera.b.c", b"a.b.c"] {
            assert_eq!(token(value), None, "{}", String::from_utf8_lossy(value));
        }
        assert_eq!(token(b"Bearer a b").as_deref(), Some("a b"), "broken, but given");
        assert_eq!(token(b"Bearer \xff").as_deref(), Some("\u{fffd}"), "broken, but given");
    }

    #[test]
    fn the_first_token_of_a_query_wins_and_is_decoded() {
        let cases = [
            ("token=a.b-c_d", Some("a.b-c_d")),
            ("room=1&token=a&token=b", Some("a")),
            ("%74oken=a%2Eb", Some("a.b")),
            ("token=a%", Some("a%")),
            ("token=a%2", Some("a%2")),
            ("token=%ff", Some("\u{fffd}")),
            ("token=a=b", Some("a=b")),
            ("token=&token=b", None),
            ("token", None),
            ("Token=a", None),
            ("tokens=a", None),
            ("xtoken=a", None),
            ("", None),
        ];
        for (query, token) in cases {
            assert_eq!(from_query(query).as_deref(), token, "{query}");
        }
    }

    #[test]
    fn a_target_without_its_token_is_otherwise_the_same() {
        let cases = [
            ("/chat", "/chat"),
            ("/chat?", "/chat?"),
            ("/chat?room=1&x=%74", "/chat?room=1&x=%74"),
            ("/chat?token=secret", "/chat"),
            ("/chat?token=secret&room=1", "/chat?room=1"),
            ("/chat?room=1&token=secret", "/chat?room=1"),
            ("/chat?a=1&token=secret&b=%20+&token=secret&&c", "/chat?a=1&b=%20+&&c"),
            ("/chat?%74%6Fken=secret&b", "/chat?b"),
            ("/chat?token", "/chat"),
            ("/token=x?tokens=1", "/token=x?tokens=1"),
            ("ws://host/?token=secret?token=secret&a=?", "ws://host/?a=?"),
        ];
        for (target, expected) in cases {
            assert_eq!(without_token(target), expected, "{target}");
        }
        assert!(matches!(without_token("/chat?room=1"), Cow::Borrowed(_)));
    }

    #[test]
    fn an_offer_carries_a_token_and_disappears() {
        assert_eq!(from_subprotocols(["chat", SUBPROTOCOL, "wootz.jwt.a.b.c", "wootz.jwt.d"]), Some("a.b.c"));
        for offers in [&[][..], &["chat"], &[SUBPROTOCOL], &["wootz.jwt."], &["WOOTZ.JWT.a"]] {
            assert_eq!(from_subprotocols(offers.iter().copied()), None, "{offers:?}");
        }
        assert!(!carries_token(SUBPROTOCOL));
        assert_eq!(subprotocols_without_token("wootz.jwt, wootz.jwt.a.b.c,chat"), "wootz.jwt, chat");
        assert_eq!(subprotocols_without_token("wootz.jwt.a.b.c"), "");
        assert_eq!(subprotocols_without_token("a,b"), "a,b");
    }

    #[test]
    fn one_way_wins_and_a_second_token_is_never_tried() {
        let all = find(Some(b"Bearer a"), ["wootz.jwt.b"], Some("token=c"));
        assert_eq!(all, Some((Source::Authorization, Cow::Borrowed("a"))));
        let two = find(Some(b"Basic YTpi"), ["wootz.jwt.b"], Some("token=c"));
        assert_eq!(two, Some((Source::Subprotocol, Cow::Borrowed("b"))));
        assert_eq!(find(None, ["chat"], Some("token=c")), Some((Source::Query, Cow::Borrowed("c"))));
        assert_eq!(find(None, [], Some("room=1")), None);
        assert_eq!(find(None, [], None), None);
    }
}
