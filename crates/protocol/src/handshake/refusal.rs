//! Why a request gets no 101, and the HTTP answer that says so.

use std::fmt;

/// Why a request head was refused. All of it is the client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The bytes are no HTTP/1.1 request head.
    NotHttp,
    /// A header field with a bad name or value, white space before its colon, or folded over two lines.
    InvalidHeader,
    /// The head is over `max_head_bytes`.
    HeadTooLarge,
    /// The head has more than `max_headers` fields.
    TooManyHeaders,
    /// The request target is neither a path nor an absolute URI.
    InvalidTarget,
    /// `Content-Length` beside `Transfer-Encoding`, twice, or not a number.
    AmbiguousLength,
    /// The method is not GET.
    MethodNotAllowed,
    /// The version is below HTTP/1.1.
    OldHttpVersion,
    /// A request that opens a WebSocket has no body.
    UnexpectedBody,
    /// `Host` is missing, there twice, no host, or another one than the target names.
    InvalidHost,
    /// `Upgrade` does not name `websocket`.
    MissingUpgrade,
    /// `Connection` does not name `upgrade`.
    MissingConnection,
    /// `Sec-WebSocket-Key` is missing, there twice, or not 16 bytes in base64.
    InvalidKey,
    /// `Sec-WebSocket-Version` is missing or there twice.
    InvalidVersion,
    /// `Sec-WebSocket-Version` is not 13.
    UnsupportedVersion,
    /// `Sec-WebSocket-Protocol` is not a list of tokens.
    InvalidSubprotocol,
    /// HTTP/2: a GET where only an extended CONNECT opens a WebSocket.
    MissingConnect,
    /// HTTP/2: another method than CONNECT.
    OnlyConnect,
    /// HTTP/2: a CONNECT without `:protocol` asks for a tunnel, and this is no proxy.
    MissingProtocol,
    /// HTTP/2: `:protocol` is not `websocket`.
    UnknownProtocol,
}

impl Refusal {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::NotHttp
            | Self::InvalidHeader
            | Self::InvalidTarget
            | Self::AmbiguousLength
            | Self::OldHttpVersion
            | Self::UnexpectedBody
            | Self::InvalidHost
            | Self::MissingUpgrade
            | Self::MissingConnection
            | Self::InvalidKey
            | Self::InvalidVersion
            | Self::InvalidSubprotocol
            | Self::MissingConnect
            | Self::MissingProtocol => 400,
            Self::MethodNotAllowed | Self::OnlyConnect => 405,
            Self::UnsupportedVersion => 426,
            Self::HeadTooLarge | Self::TooManyHeaders => 431,
            // RFC 9220, section 3, says it for HTTP/3, and RFC 8441 nothing else.
            Self::UnknownProtocol => 501,
        }
    }

    /// The short, stable text that is sent to the client.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotHttp => "not an HTTP/1.1 request",
            Self::InvalidHeader => "invalid header field",
            Self::HeadTooLarge => "request head too large",
            Self::TooManyHeaders => "too many header fields",
            Self::InvalidTarget => "invalid request target",
            Self::AmbiguousLength => "ambiguous length of the body",
            Self::MethodNotAllowed => "only GET opens a WebSocket",
            Self::OldHttpVersion => "HTTP/1.1 needed",
            Self::UnexpectedBody => "a request that opens a WebSocket has no body",
            Self::InvalidHost => "exactly one Host needed",
            Self::MissingUpgrade => "not a WebSocket handshake: Upgrade: websocket needed",
            Self::MissingConnection => "not a WebSocket handshake: Connection: Upgrade needed",
            Self::InvalidKey => "exactly one Sec-WebSocket-Key of 16 bytes needed",
            Self::InvalidVersion => "exactly one Sec-WebSocket-Version needed",
            Self::UnsupportedVersion => "only WebSocket version 13 is served",
            Self::InvalidSubprotocol => "Sec-WebSocket-Protocol is not a list of tokens",
            Self::MissingConnect => "not a WebSocket handshake: CONNECT with :protocol = websocket needed over HTTP/2",
            Self::OnlyConnect => "only CONNECT opens a WebSocket over HTTP/2",
            Self::MissingProtocol => "not a WebSocket handshake: :protocol = websocket needed",
            Self::UnknownProtocol => "only :protocol = websocket is served",
        }
    }

    /// The fields that the status asks for. HTTP/2 has no `Upgrade`.
    pub fn headers(self) -> &'static [(&'static str, &'static str)] {
        // Section 4.4: the answer to a wrong version MUST name the versions that are served. RFC 9110 asks for Upgrade
        // (15.5.22) and Allow (15.5.6).
        match self {
            Self::UnsupportedVersion => &[("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")],
            Self::MethodNotAllowed => &[("Allow", "GET")],
            Self::OnlyConnect => &[("Allow", "CONNECT")],
            _ => &[],
        }
    }

    /// The whole HTTP/1.1 answer.
    pub fn response(self) -> Vec<u8> {
        response(self.status(), self.headers(), self.reason())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.reason())
    }
}

impl std::error::Error for Refusal {}

/// A whole HTTP/1.1 answer, after which the connection is closed. `body` is text unless `headers` have a `Content-Type`.
///
/// A control character in a header's value, which could begin a header of its own, is written as a space.
pub fn response(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status} {}\r\nConnection: close\r\n", status_text(status));
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        out.push_str("Content-Type: text/plain; charset=utf-8\r\n");
    }
    for (name, value) in headers {
        out.push_str(name);
        out.push_str(": ");
        out.extend(value.chars().map(|character| if character.is_control() { ' ' } else { character }));
        out.push_str("\r\n");
    }
    out.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    out.push_str(body);
    out.into_bytes()
}

/// The reason phrase. It has no meaning (RFC 9112, section 4), so an unknown status gets none.
fn status_text(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}
