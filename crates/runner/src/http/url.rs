//! Where the HTTP server is, and what is asked of it: no IO.
//!
//! A browser writes the URI of its message; it must never choose the server. So a URI is a path and a query and nothing else, and it
//! stays below the base path, however many `..` it holds.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// The address of an HTTP server: `http://host[:port][/base]`, or `unix:/path`.
///
/// The URIs of calls are taken below the base path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    server: Server,
    /// Empty, or a path that begins with a slash and ends without one.
    base: String,
}

/// What is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Server {
    /// A host name or an address (an IPv6 one without its brackets), and a port.
    Tcp(String, u16),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// Why a text is no [`HttpUrl`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HttpUrlError {
    /// Neither `http://` nor `unix:` at its beginning.
    #[error("{0:?} is no address of an HTTP server: write http://127.0.0.1:8000 or unix:/run/application.sock")]
    Scheme(String),
    /// `https://`.
    #[error("https is not spoken to the application: write the http:// address that it has on this host or network")]
    Https,
    /// No host, or one that can't be.
    #[error("{0:?} is no host: write http://127.0.0.1:8000, http://[::1]:8000 or http://name:8000")]
    Host(String),
    /// A port that is no number from 1 to 65535.
    #[error("{0:?} is no port: 1 to 65535")]
    Port(String),
    /// A user or a password.
    #[error("a user or password in the address is not sent: take it out")]
    UserInfo,
    /// A query or a fragment.
    #[error("an address ends with its path: take out what begins with {0:?}")]
    AfterPath(char),
    /// A socket whose path does not begin with a slash.
    #[error("{0:?} is no absolute path of a socket: write unix:/run/application.sock")]
    RelativeSocket(String),
    /// White space or a control character.
    #[error("an address holds no white space and no control characters")]
    Unprintable,
}

impl FromStr for HttpUrl {
    type Err = HttpUrlError;

    fn from_str(text: &str) -> Result<Self, HttpUrlError> {
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(HttpUrlError::Unprintable);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            // `unix:///path` is as common.
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                _ if path.starts_with('/') && path.len() > 1 => {
                    Ok(Self { server: Server::Unix(path.into()), base: String::new() })
                }
                path => Err(HttpUrlError::RelativeSocket(path.to_owned())),
            };
        }
        match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => Self::parse_after_scheme(rest),
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => Err(HttpUrlError::Https),
            _ => Err(HttpUrlError::Scheme(text.to_owned())),
        }
    }
}

impl HttpUrl {
    fn parse_after_scheme(rest: &str) -> Result<Self, HttpUrlError> {
        if let Some(mark) = rest.chars().find(|c| matches!(c, '?' | '#')) {
            return Err(HttpUrlError::AfterPath(mark));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(HttpUrlError::UserInfo);
        }
        let (host, port) = split_authority(authority)?;
        let port = match port {
            None => 80,
            Some(text) => match text.parse() {
                Ok(port) if port != 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => port,
                Ok(_) | Err(_) => return Err(HttpUrlError::Port(text.to_owned())),
            },
        };
        let mut base = String::new();
        push_path(&mut base, path);
        base.truncate(base.trim_end_matches('/').len());
        Ok(Self { server: Server::Tcp(host.to_owned(), port), base })
    }

    pub(super) const fn server(&self) -> &Server {
        &self.server
    }

    /// What stands in `Host` where the handshake had none.
    pub(super) fn authority(&self) -> String {
        match &self.server {
            Server::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Server::Tcp(host, port) => format!("{host}:{port}"),
            Server::Unix(_) => "localhost".to_owned(),
        }
    }

    /// The request target for a URI: the base, its path, its query.
    ///
    /// The path gets the slash that it may lack, and loses `.` and `..` as a browser would resolve them, never going above the base. What may
    /// not stand in a URI (`"`, `ü`, a lone `%`) is percent-encoded, `#` too: it is part of the message.
    pub(super) fn target(&self, uri: &str) -> String {
        let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
        let mut target = String::with_capacity(self.base.len() + uri.len() + 8);
        target.push_str(&self.base);
        push_path(&mut target, path);
        if let Some(query) = query {
            target.push('?');
            push_encoded(&mut target, query);
        }
        target
    }
}

/// As it is written in a configuration.
impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            Server::Tcp(..) => write!(f, "http://{}{}", self.authority(), self.base),
            Server::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Host and port.
fn split_authority(authority: &str) -> Result<(&str, Option<&str>), HttpUrlError> {
    let no_host = || HttpUrlError::Host(authority.to_owned());
    if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']').ok_or_else(no_host)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| no_host())?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(no_host()),
        };
    }
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if host.is_empty() || !host.bytes().all(plain) { Err(no_host()) } else { Ok((host, port)) }
}

/// Appends a path as RFC 3986 section 5.2.4 leaves it, with one slash at its beginning: two would be the beginning of a host to those
/// who read a request target as a reference.
fn push_path(target: &mut String, path: &str) {
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_directory = false;
    for segment in path.trim_start_matches('/').split('/') {
        let dots = dots(segment);
        ends_in_directory = dots.is_some();
        match dots {
            None => segments.push(segment),
            Some(Dots::Here) => {}
            Some(Dots::Up) => {
                segments.pop();
            }
        }
    }
    // What was before a `..` may have kept an empty segment from the beginning.
    let start = segments.iter().position(|segment| !segment.is_empty()).unwrap_or(segments.len());
    let segments = &segments[start..];
    for segment in segments {
        target.push('/');
        push_encoded(target, segment);
    }
    if segments.is_empty() || ends_in_directory {
        target.push('/');
    }
}

enum Dots {
    Here,
    Up,
}

/// Whether a segment is `.` or `..`, also percent-encoded, also with the parameter that some servers cut off (`..;a=b`).
fn dots(segment: &str) -> Option<Dots> {
    let mut rest = segment.split_once(';').map_or(segment, |(name, _)| name);
    let mut count = 0;
    while !rest.is_empty() {
        let dot = rest.strip_prefix('.').or_else(|| rest.strip_prefix("%2e")).or_else(|| rest.strip_prefix("%2E"));
        rest = dot?;
        count += 1;
    }
    match count {
        1 => Some(Dots::Here),
        2 => Some(Dots::Up),
        _ => None,
    }
}

/// Appends what may stand in a path segment or query as it is (RFC 3986 section 3.3), the rest percent-encoded.
fn push_encoded(target: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let bytes = text.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        let escape = || bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let plain = match byte {
            b'%' => escape(),
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
            | b':' | b'@' | b'/' | b'?' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        if plain {
            target.push(char::from(byte));
        } else {
            target.push('%');
            target.push(char::from(HEX[usize::from(byte >> 4)]));
            target.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(text: &str) -> HttpUrl {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn an_address_is_a_host_with_a_port_and_a_base_or_a_socket() {
        for (text, server, shown) in [
            ("http://127.0.0.1:8000", Server::Tcp("127.0.0.1".into(), 8000), "http://127.0.0.1:8000"),
            ("HTTP://app", Server::Tcp("app".into(), 80), "http://app:80"),
            ("http://[::1]:8000/", Server::Tcp("::1".into(), 8000), "http://[::1]:8000"),
            ("http://[::1]", Server::Tcp("::1".into(), 80), "http://[::1]:80"),
            ("http://a-b_c.example:1/x/y/", Server::Tcp("a-b_c.example".into(), 1), "http://a-b_c.example:1/x/y"),
            ("unix:/run/app.sock", Server::Unix("/run/app.sock".into()), "unix:/run/app.sock"),
            ("unix:///run/app.sock", Server::Unix("/run/app.sock".into()), "unix:/run/app.sock"),
        ] {
            assert_eq!((url(text).server(), url(text).to_string().as_str()), (&server, shown), "{text}");
            assert_eq!(url(shown), url(text), "what is shown can be read again");
        }
    }

    #[test]
    fn an_address_that_can_not_be_meant_says_what_to_write() {
        for (text, error) in [
            ("127.0.0.1:8000", HttpUrlError::Scheme("127.0.0.1:8000".into())),
            ("", HttpUrlError::Scheme(String::new())),
            ("ftp://app", HttpUrlError::Scheme("ftp://app".into())),
            ("https://app", HttpUrlError::Https),
            ("http://", HttpUrlError::Host(String::new())),
            ("http:///path", HttpUrlError::Host(String::new())),
            ("http://:8000", HttpUrlError::Host(":8000".into())),
            ("http://[::1:8000", HttpUrlError::Host("[::1:8000".into())),
            ("http://[app]:8000", HttpUrlError::Host("[app]:8000".into())),
            ("http://a,b", HttpUrlError::Host("a,b".into())),
            ("http://app:", HttpUrlError::Port(String::new())),
            ("http://app:0", HttpUrlError::Port("0".into())),
            ("http://app:+80", HttpUrlError::Port("+80".into())),
            ("http://app:65536", HttpUrlError::Port("65536".into())),
            ("http://me:secret@app", HttpUrlError::UserInfo),
            ("http://app/?a=1", HttpUrlError::AfterPath('?')),
            ("http://app#a", HttpUrlError::AfterPath('#')),
            ("http://app/a b", HttpUrlError::Unprintable),
            ("http://app\r\nX: y", HttpUrlError::Unprintable),
            ("unix:app.sock", HttpUrlError::RelativeSocket("app.sock".into())),
            ("unix:/", HttpUrlError::RelativeSocket("/".into())),
        ] {
            assert_eq!(text.parse::<HttpUrl>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_uri_is_verbatim_where_it_is_one_and_gets_its_slash() {
        let url = url("http://app");
        for (uri, target) in [
            ("/cart?x=1&y=%20", "/cart?x=1&y=%20"),
            ("echo/abc", "/echo/abc"),
            ("?x", "/?x"),
            ("/", "/"),
            ("/a//b/", "/a//b/"),
            ("/a?b?c=/../d", "/a?b?c=/../d"),
            ("/größe", "/gr%C3%B6%C3%9Fe"),
            ("/100%", "/100%25"),
            ("/a%2Fb%zz", "/a%2Fb%25zz"),
            ("/a#b", "/a%23b"),
            ("{\"json\":1}", "/%7B%22json%22:1%7D"),
            ("/a[]=1\\", "/a%5B%5D=1%5C"),
        ] {
            assert_eq!(url.target(uri), target, "{uri}");
        }
    }

    #[test]
    fn a_uri_stays_on_its_server_and_below_its_base() {
        let (bare, based) = (url("http://app"), url("http://app/base/"));
        for (uri, target) in [
            ("http://evil/", "/http://evil/"),
            ("//evil/x", "/evil/x"),
            ("///evil", "/evil"),
            ("/a/..//evil", "/evil"),
            ("/.//evil", "/evil"),
            ("user@evil", "/user@evil"),
            ("/../../etc/passwd", "/etc/passwd"),
            ("..", "/"),
            ("/a/b/../c", "/a/c"),
            ("/a/b/..", "/a/"),
            ("/a/./b/.", "/a/b/"),
            ("/%2e%2E/x", "/x"),
            ("/.%2e/x", "/x"),
            ("/..;a=b/x", "/x"),
            ("/.../x", "/.../x"),
            ("/a\r\nHost:evil", "/a%0D%0AHost:evil"),
            ("/a HTTP/1.1", "/a%20HTTP/1.1"),
        ] {
            assert_eq!(bare.target(uri), target, "{uri}");
            assert_eq!(based.target(uri), format!("/base{target}"), "{uri}");
        }
    }

    proptest! {
        #[test]
        fn no_uri_leaves_the_base_or_the_request_line(uri in "([a./%2eE;\\\\@?# \r\n\u{fc}]|\\PC){0,40}") {
            let target = url("http://app/base").target(&uri);
            let plain = target.bytes().all(|byte| byte.is_ascii_graphic());
            prop_assert!(plain && target.starts_with("/base/") && !target.starts_with("/base//"), "{}", target);
            let path = target.split('?').next().expect("the first part");
            prop_assert!(path.split('/').all(|segment| dots(segment).is_none()), "{}", path);
        }
    }
}
