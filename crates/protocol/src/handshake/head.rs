//! The head of an HTTP/1.1 request: found, limited, read, and refused where it is ambiguous.

use super::refusal::Refusal;
use super::{is_token, list_elements};

/// How large a head may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the request line and all header fields, with the empty line. Over it: 431. Default 16 KiB.
    pub max_head_bytes: usize,
    /// Header fields. Over it: 431. Default 100.
    pub max_headers: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { max_head_bytes: 16 * 1024, max_headers: 100 }
    }
}

/// What the bytes so far came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<'b> {
    /// The head has not ended: read more, and give all bytes again.
    Partial,
    /// A whole head.
    Complete {
        /// The request.
        request: Request<'b>,
        /// Bytes of the head. What follows belongs to the connection.
        length: usize,
    },
}

/// The HTTP version of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

/// One header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'b> {
    /// As sent; names are compared without regard to case.
    pub name: &'b str,
    /// Without the white space around it. Not always UTF-8.
    pub value: &'b [u8],
}

/// A request head whose syntax was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'b> {
    /// As sent.
    pub method: &'b str,
    /// As sent: `/path?query`, or an absolute URI. [`Request::uri`] is the same for both.
    pub target: &'b str,
    /// The HTTP version.
    pub version: Version,
    /// All header fields, in the order sent.
    pub headers: Vec<Header<'b>>,
}

/// Reads a request head from the start of `bytes`.
///
/// # Errors
/// The head is over a limit, or malformed, or could be read in two ways. Answer with [`Refusal::response`] and close.
pub fn parse<'b>(bytes: &'b [u8], limits: &HeadLimits) -> Result<Parsed<'b>, Refusal> {
    // A TLS hello or a stray protocol is told at once, not after the handshake's timeout.
    if bytes.first().is_some_and(|first| !is_token(&[*first])) {
        return Err(Refusal::NotHttp);
    }
    let searched = &bytes[..bytes.len().min(limits.max_head_bytes)];
    // The search costs next to nothing, the parser is called once: a head sent byte by byte is no way to use up a processor.
    let Some(end) = memchr::memmem::find(searched, b"\r\n\r\n") else {
        return if bytes.len() >= limits.max_head_bytes { Err(Refusal::HeadTooLarge) } else { Ok(Parsed::Partial) };
    };
    let length = end + 4;
    let request = parse_whole(&bytes[..length], limits)?;
    Ok(Parsed::Complete { request, length })
}

fn parse_whole<'b>(head: &'b [u8], limits: &HeadLimits) -> Result<Request<'b>, Refusal> {
    // The parser takes a bare line feed for a line's end, as RFC 9112, 2.2 allows. Not every program before us does.
    if memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r') {
        return Err(Refusal::InvalidHeader);
    }
    let mut fields = vec![httparse::EMPTY_HEADER; limits.max_headers];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(Refusal::NotHttp),
        Err(error) => return Err(refusal_of(error)),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal::NotHttp);
    };
    let headers =
        parsed.headers.iter().map(|field| Header { name: field.name, value: field.value.trim_ascii() }).collect();
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    let request = Request { method, target, version, headers };
    check_target(target)?;
    check_body_length(&request)?;
    Ok(request)
}

fn refusal_of(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Refusal::InvalidHeader,
        httparse::Error::TooManyHeaders => Refusal::TooManyHeaders,
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token | httparse::Error::Version => {
            Refusal::NotHttp
        }
    }
}

/// RFC 9112, 3.2: a path or an absolute URI, in visible ASCII. Section 3 of RFC 6455: a fragment MUST NOT be used.
pub(super) fn check_target(target: &str) -> Result<(), Refusal> {
    let visible = target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if visible && (target.starts_with('/') || split_absolute(target).is_some()) {
        Ok(())
    } else {
        Err(Refusal::InvalidTarget)
    }
}

/// The authority of an absolute URI, and what follows it.
fn split_absolute(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    let known = ["http", "https", "ws", "wss"].iter().any(|name| scheme.eq_ignore_ascii_case(name));
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    (known && !authority.is_empty()).then_some((authority, rest))
}

/// RFC 9112, 6.3: a length that two programs could read differently is refused, whatever the method.
pub(super) fn check_body_length(request: &Request<'_>) -> Result<(), Refusal> {
    let mut lengths = request.all("content-length");
    let Some(length) = lengths.next() else { return Ok(()) };
    let number = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
    if !number || lengths.next().is_some() || request.header("transfer-encoding").is_some() {
        return Err(Refusal::AmbiguousLength);
    }
    Ok(())
}

impl<'b> Request<'b> {
    /// The value of the first header field of this name.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.all(name).next()
    }

    /// The value of the first header field of this name, if it is UTF-8.
    pub fn header_str(&self, name: &str) -> Option<&'b str> {
        self.header(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The values of all header fields of this name, in the order sent.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// Whether the comma-separated list under this name has `token`, without regard to case: `Connection: keep-alive, Upgrade`.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        list_elements(self.all(name)).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The value of a header field that is there exactly once.
    pub fn single(&self, name: &str) -> Option<&'b [u8]> {
        let mut values = self.all(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Path and query, whichever form the target has. Begins with `/` or, where an absolute URI has no path, with `?` or is empty.
    pub fn uri(&self) -> &'b str {
        split_absolute(self.target).map_or(self.target, |(_, rest)| rest)
    }

    /// The host that an absolute URI names, with its port; none in a path.
    pub fn authority(&self) -> Option<&'b str> {
        split_absolute(self.target).map(|(authority, _)| authority)
    }

    /// The path, without the query; at least `/`.
    pub fn path(&self) -> &'b str {
        let path = self.uri().split('?').next().unwrap_or_default();
        if path.is_empty() { "/" } else { path }
    }

    /// What follows the first `?`; empty if there is none.
    pub fn query(&self) -> &'b str {
        self.uri().split_once('?').map_or("", |(_, query)| query)
    }

    /// Whether the client wants to speak WebSocket, rightly or not: `Upgrade` names it. Else it is plain HTTP.
    pub fn wants_websocket(&self) -> bool {
        self.lists("upgrade", "websocket")
    }

    /// Whether the head announces a body.
    pub fn has_body(&self) -> bool {
        self.header("transfer-encoding").is_some()
            || self.header("content-length").is_some_and(|length| length.iter().any(|digit| *digit != b'0'))
    }
}
