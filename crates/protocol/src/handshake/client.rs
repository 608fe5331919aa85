//! The client's side of the opening handshake (RFC 6455, section 4.1): the request, and the check of the answer.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::head::HeadLimits;
use super::{accept_value, is_token, list_elements};

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// Host, and the port if it is not the scheme's own.
    pub host: &'a str,
    /// Path and query, beginning with `/`.
    pub target: &'a str,
    /// Sixteen random bytes, new for every connection.
    pub key: [u8; 16],
    /// More header fields: `Origin`, `Cookie`, …
    pub headers: &'a [(&'a str, &'a str)],
    /// The subprotocols offered, the preferred one first.
    pub subprotocols: &'a [&'a str],
}

/// A part of the request that HTTP can't carry: a control character, a space in the target, a name that is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidOpening(String);

impl fmt::Display for InvalidOpening {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "can't be sent in an HTTP request: {:?}", self.0)
    }
}

impl std::error::Error for InvalidOpening {}

/// What the server's answer came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The head has not ended: read more, and give all bytes again.
    Partial,
    /// The connection is open.
    Open {
        /// The subprotocol that the server chose.
        subprotocol: Option<String>,
        /// Bytes of the head. What follows are frames.
        length: usize,
    },
}

/// Why the server's answer opens no WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerError {
    /// The bytes are no HTTP/1.1 answer.
    NotHttp,
    /// The head is over a limit.
    HeadTooLarge,
    /// The status is not 101: the server refused, or something between answered.
    Status(u16),
    /// `Upgrade` is not `websocket`.
    MissingUpgrade,
    /// `Connection` does not name `upgrade`.
    MissingConnection,
    /// `Sec-WebSocket-Accept` does not prove that our key was read: the answer is of something that speaks no WebSocket, or cached.
    WrongAccept,
    /// A subprotocol was chosen that we did not offer, or more than one.
    UnofferedSubprotocol,
    /// An extension was chosen, and we offered none.
    UnofferedExtension,
}

impl fmt::Display for AnswerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHttp => formatter.write_str("the answer is not HTTP/1.1"),
            Self::HeadTooLarge => formatter.write_str("the head of the answer is too large"),
            Self::Status(status) => write!(formatter, "the answer has status {status}, not 101"),
            Self::MissingUpgrade => formatter.write_str("the answer lacks Upgrade: websocket"),
            Self::MissingConnection => formatter.write_str("the answer lacks Connection: Upgrade"),
            Self::WrongAccept => formatter.write_str("Sec-WebSocket-Accept does not fit the key"),
            Self::UnofferedSubprotocol => formatter.write_str("a subprotocol was chosen that was not offered"),
            Self::UnofferedExtension => formatter.write_str("an extension was chosen that was not offered"),
        }
    }
}

impl std::error::Error for AnswerError {}

impl Opening<'_> {
    /// The bytes of the request.
    ///
    /// # Errors
    /// A part can't stand in a request, or could change its meaning.
    pub fn request(&self) -> Result<Vec<u8>, InvalidOpening> {
        self.check()?;
        let mut out = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n",
            self.target,
            self.host,
            STANDARD.encode(self.key)
        );
        if !self.subprotocols.is_empty() {
            out.push_str(&format!("Sec-WebSocket-Protocol: {}\r\n", self.subprotocols.join(", ")));
        }
        for (name, value) in self.headers {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        out.push_str("\r\n");
        Ok(out.into_bytes())
    }

    fn check(&self) -> Result<(), InvalidOpening> {
        let refuse = |part: &str| Err(InvalidOpening(part.to_owned()));
        let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if self.host.is_empty() || !visible(self.host) {
            return refuse(self.host);
        }
        if !self.target.starts_with('/') || !visible(self.target) {
            return refuse(self.target);
        }
        if let Some(name) = self.subprotocols.iter().find(|name| !is_token(name.as_bytes())) {
            return refuse(name);
        }
        match self
            .headers
            .iter()
            .find(|(name, value)| !is_token(name.as_bytes()) || value.chars().any(char::is_control))
        {
            Some((name, value)) => refuse(&format!("{name}: {value}")),
            None => Ok(()),
        }
    }

    /// Checks the server's answer in all `bytes` read so far.
    ///
    /// # Errors
    /// The server refused, or its answer breaks a rule of section 4.1. Drop the connection.
    pub fn read_answer(&self, bytes: &[u8], limits: &HeadLimits) -> Result<Answer, AnswerError> {
        let mut fields = vec![httparse::EMPTY_HEADER; limits.max_headers];
        let mut response = httparse::Response::new(&mut fields);
        let length = match response.parse(bytes) {
            Ok(httparse::Status::Complete(length)) if length <= limits.max_head_bytes => length,
            Ok(httparse::Status::Partial) if bytes.len() < limits.max_head_bytes => return Ok(Answer::Partial),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(AnswerError::HeadTooLarge),
            Err(_) => return Err(AnswerError::NotHttp),
        };
        let subprotocol = self.check_answer(&response)?;
        Ok(Answer::Open { subprotocol, length })
    }

    fn check_answer(&self, response: &httparse::Response<'_, '_>) -> Result<Option<String>, AnswerError> {
        match response.code {
            Some(101) => {}
            Some(status) => return Err(AnswerError::Status(status)),
            None => return Err(AnswerError::NotHttp),
        }
        let all = |name: &'static str| {
            response
                .headers
                .iter()
                .filter(move |field| field.name.eq_ignore_ascii_case(name))
                .map(|field| field.value.trim_ascii())
        };
        if !all("upgrade").any(|value| value.eq_ignore_ascii_case(b"websocket")) {
            return Err(AnswerError::MissingUpgrade);
        }
        if !list_elements(all("connection")).any(|token| token.eq_ignore_ascii_case(b"upgrade")) {
            return Err(AnswerError::MissingConnection);
        }
        let expected = accept_value(STANDARD.encode(self.key).as_bytes());
        if !all("sec-websocket-accept").eq([expected.as_bytes()]) {
            return Err(AnswerError::WrongAccept);
        }
        if list_elements(all("sec-websocket-extensions")).next().is_some() {
            return Err(AnswerError::UnofferedExtension);
        }
        let mut chosen = all("sec-websocket-protocol");
        match (chosen.next(), chosen.next()) {
            (None, _) => Ok(None),
            (Some(name), None) => match self.subprotocols.iter().find(|offered| offered.as_bytes() == name) {
                Some(offered) => Ok(Some((*offered).to_owned())),
                None => Err(AnswerError::UnofferedSubprotocol),
            },
            (Some(_), Some(_)) => Err(AnswerError::UnofferedSubprotocol),
        }
    }
}
