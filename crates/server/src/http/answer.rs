//! What a request that opens no WebSocket is answered, whatever version of HTTP it came in.

use std::borrow::Cow;

use ::http::{HeaderValue, Response, StatusCode};
use bytes::Bytes;
use wootz_protocol::handshake::{self, Refusal};

use super::head::HeadError;
use wootz_tls::TlsError;

/// Fields that HTTP/2 has not (RFC 9113, 8.2.2).
const ONLY_HTTP1: [&str; 1] = ["upgrade"];

/// Why there is no connection.
pub(super) enum NoUpgrade {
    /// The request gets this answer. The reason is for the log.
    Answered { answer: Answer, reason: Cow<'static, str> },
    /// The client speaks TLS where it is not spoken; it is told so in TLS.
    SpeaksTls,
    /// No proxy speaks, or a wrong one: the socket is closed. The reason is for the log.
    NoProxy { reason: String },
    /// No TLS, or another than ours; the client was told in its own words. The reason is for the log.
    NoTls(TlsError),
    /// The oldest of too many that have sent no whole request: the socket is closed.
    Evicted,
    /// Nobody is there to be answered.
    Gone,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    fields: Vec<(&'static str, Cow<'static, str>)>,
    body: &'static str,
}

impl NoUpgrade {
    pub(super) fn status(
        status: u16,
        fields: &[(&'static str, &'static str)],
        body: &'static str,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        let fields = fields.iter().map(|(name, value)| (*name, Cow::Borrowed(*value))).collect();
        Self::Answered { answer: Answer { status, fields, body }, reason: reason.into() }
    }

    /// The same with a field of the moment.
    #[must_use]
    pub(super) fn field(mut self, name: &'static str, value: String) -> Self {
        if let Self::Answered { answer, .. } = &mut self {
            answer.fields.push((name, value.into()));
        }
        self
    }
}

impl From<Refusal> for NoUpgrade {
    fn from(refusal: Refusal) -> Self {
        Self::status(refusal.status(), refusal.headers(), refusal.reason(), refusal.reason())
    }
}

impl From<HeadError> for NoUpgrade {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Refused(refusal) => refusal.into(),
            HeadError::SpeaksTls => Self::SpeaksTls,
            HeadError::NoTls(error) => Self::NoTls(error),
            HeadError::Gone => Self::Gone,
        }
    }
}

impl Answer {
    /// As HTTP/1.1 writes it.
    pub(super) fn http1(&self) -> Vec<u8> {
        let fields: Vec<(&str, &str)> = self.fields.iter().map(|(name, value)| (*name, &**value)).collect();
        handshake::response(self.status, &fields, self.body)
    }

    /// Head and body for HTTP/2.
    pub(super) fn http2(&self) -> (Response<()>, Bytes) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(::http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(::http::header::CONTENT_LENGTH, self.body.len().into());
        for (name, value) in &self.fields {
            let name = name.to_ascii_lowercase();
            if ONLY_HTTP1.contains(&name.as_str()) {
                continue;
            }
            let parsed = (::http::HeaderName::try_from(name), HeaderValue::try_from(&**value));
            if let (Ok(name), Ok(value)) = parsed {
                headers.insert(name, value);
            }
        }
        (response, Bytes::from_static(self.body.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_the_same_in_both_versions_but_for_what_http_2_has_not() {
        let NoUpgrade::Answered { answer, .. } = NoUpgrade::from(Refusal::UnsupportedVersion) else {
            panic!("answered")
        };
        let http1 = String::from_utf8(answer.http1()).expect("UTF-8");
        assert!(http1.starts_with("HTTP/1.1 426 ") && http1.contains("\r\nUpgrade: websocket\r\n"), "{http1}");
        let (response, body) = answer.http2();
        assert_eq!(response.status(), 426);
        let names: Vec<_> = response.headers().keys().map(::http::HeaderName::as_str).collect();
        assert_eq!(names, ["content-type", "content-length", "sec-websocket-version"]);
        assert!(http1.ends_with(std::str::from_utf8(&body).expect("UTF-8")));
        let slow = NoUpgrade::status(429, &[], "too many", "limit").field("Retry-After", "7".to_owned());
        let NoUpgrade::Answered { answer, .. } = slow else { panic!("answered") };
        assert_eq!(answer.http2().0.headers()["retry-after"], "7");
    }
}
