//! An HTTP answer that is no 101: who gave it, and what it means.

use std::time::{Duration, Instant};

use wootz_protocol::handshake::Refusal;

use super::transport::{Received, Stream};

/// Bytes of an answer that are looked at.
const MOST_BYTES: usize = 16 * 1024;

/// How long the rest of an answer is waited for, once its head is here.
const BODY_PATIENCE: Duration = Duration::from_secs(5);

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    reason: String,
    fields: Vec<(String, String)>,
    body: String,
}

/// What is in front of wootz, as far as it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proxy {
    Apache,
    Nginx,
    Caddy,
    Haproxy,
    Unknown,
}

impl Proxy {
    /// The name that `wootz proxy` takes.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Apache => Some("apache"),
            Self::Nginx => Some("nginx"),
            Self::Caddy => Some("caddy"),
            Self::Haproxy => Some("haproxy"),
            Self::Unknown => None,
        }
    }

    pub(super) fn of(server: Option<&str>, body: &str) -> Self {
        let server = server.unwrap_or_default().to_ascii_lowercase();
        match server {
            server if server.contains("nginx") || server.contains("openresty") => Self::Nginx,
            server if server.contains("apache") => Self::Apache,
            server if server.contains("caddy") => Self::Caddy,
            // It names itself nowhere, but its error pages are always these.
            _ if body.starts_with("<html><body><h1>") => Self::Haproxy,
            _ => Self::Unknown,
        }
    }
}

/// What wootz itself says in an answer. The words are its own, so an answer that passed through a proxy is known by
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FromWootz {
    /// It got a request, but no handshake.
    NoHandshake,
    /// Another version of the protocol.
    OtherVersion,
    /// The path is not below `listen.path`.
    OtherPath,
    OriginRefused,
    GuestRefused,
    UserRefused,
    /// It ends, is full, or could not ask the application who it is.
    Unavailable,
    TooSlow,
    /// It got plain HTTP where it speaks TLS.
    SpeaksTls,
}

impl Answer {
    /// Reads the rest of an answer of which `bytes` have come.
    pub(super) fn read(stream: &mut Stream, mut bytes: Vec<u8>) -> Option<Self> {
        let deadline = Instant::now() + BODY_PATIENCE;
        let mut buffer = [0; 4096];
        while bytes.len() < MOST_BYTES && !Self::is_whole(&bytes) {
            match stream.receive(&mut buffer, deadline) {
                Received::Bytes(count) => bytes.extend_from_slice(&buffer[..count]),
                Received::Nothing | Received::End(_) => break,
            }
        }
        Self::parse(&bytes)
    }

    /// The head alone, of an answer that is known to be one.
    pub(super) fn of_head(head: &[u8]) -> Self {
        Self::parse(head).unwrap_or_default()
    }

    fn is_whole(bytes: &[u8]) -> bool {
        let Some(answer) = Self::parse(bytes) else { return false };
        if answer.field("transfer-encoding").is_some() {
            return answer.body.ends_with("0\r\n\r\n");
        }
        let length = answer.field("content-length").and_then(|length| length.parse().ok());
        length.is_some_and(|length: usize| answer.body.len() >= length)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut response = httparse::Response::new(&mut fields);
        let Ok(httparse::Status::Complete(length)) = response.parse(bytes) else { return None };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Some(Self {
            status: response.code?,
            reason: response.reason.unwrap_or_default().to_owned(),
            fields: response.headers.iter().map(|field| (field.name.to_owned(), text(field.value))).collect(),
            body: String::from_utf8_lossy(&bytes[length..]).into_owned(),
        })
    }

    /// The value of a header field.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// What the server calls itself.
    pub(super) fn server(&self) -> Option<&str> {
        self.field("server").filter(|server| !server.is_empty())
    }

    pub(super) fn proxy(&self) -> Proxy {
        Proxy::of(self.server(), &self.body)
    }

    /// `403 Forbidden from nginx/1.22.1`.
    pub(super) fn shown(&self) -> String {
        let status = format!("{} {}", self.status, self.reason);
        match self.server() {
            Some(server) => format!("{} from {server}", status.trim_end()),
            None => status.trim_end().to_owned(),
        }
    }

    /// Whether it says that TLS is expected here.
    pub(super) fn asks_for_tls(&self) -> bool {
        let body = self.body.to_ascii_lowercase();
        let words: [&[&str]; 4] = [
            &["plain http", "https"],
            &["plain http", "ssl"],
            &["http request to an https server"],
            &["this address speaks tls"],
        ];
        self.status == 400 && words.iter().any(|words| words.iter().all(|word| body.contains(word)))
    }

    /// Whether it is about header fields that are too large. nginx and Apache say so in a 400 alone.
    pub(super) fn is_about_size(&self) -> bool {
        let words = ["Request Header Or Cookie Too Large", "exceeds server limit"];
        matches!(self.status, 413 | 414 | 431)
            || (self.status == 400 && words.iter().any(|word| self.body.contains(word)))
    }

    /// What wootz says in it; `None` where it is somebody else's.
    pub(super) fn said_by_wootz(&self) -> Option<FromWootz> {
        let said = |refusals: &[Refusal]| refusals.iter().any(|refusal| self.body.contains(refusal.reason()));
        let no_handshake = [Refusal::MissingUpgrade, Refusal::MissingConnection, Refusal::OldHttpVersion];
        Some(match self.status {
            400 if said(&no_handshake) => FromWootz::NoHandshake,
            400 if self.body.contains("This address speaks TLS") => FromWootz::SpeaksTls,
            200 if self.body.contains("<title>wootz console</title>") => FromWootz::NoHandshake,
            426 if said(&[Refusal::UnsupportedVersion]) => FromWootz::OtherVersion,
            404 if self.body.contains("no WebSocket here") => FromWootz::OtherPath,
            403 if self.body.contains("origin not allowed") => FromWootz::OriginRefused,
            403 if self.body.trim_end() == "refused" => FromWootz::UserRefused,
            401 if self.body.contains("sign in first") => FromWootz::GuestRefused,
            503 if self.body.contains("not available now") => FromWootz::Unavailable,
            408 if self.body.contains("request too slow") => FromWootz::TooSlow,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        Answer::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn an_answer_says_who_gave_it_also_through_a_proxy() {
        let refusal = Refusal::MissingUpgrade.response();
        let own = Answer::parse(&refusal).unwrap();
        assert_eq!(
            (own.said_by_wootz(), own.proxy(), own.shown()),
            (Some(FromWootz::NoHandshake), Proxy::Unknown, "400 Bad Request".into())
        );
        let passed_on = answer("HTTP/1.1 403 Forbidden\r\nServer: nginx/1.22.1\r\n\r\norigin not allowed");
        assert_eq!((passed_on.said_by_wootz(), passed_on.proxy()), (Some(FromWootz::OriginRefused), Proxy::Nginx));
        let foreign = answer("HTTP/1.1 503 Service Unavailable\r\n\r\n<html><body><h1>503 Service Unavailable</h1>\n");
        assert_eq!((foreign.said_by_wootz(), foreign.proxy()), (None, Proxy::Haproxy));
    }

    #[test]
    fn a_tls_port_says_so_in_plain_http() {
        for body in [
            "<center>The plain HTTP request was sent to HTTPS port</center>",
            "Reason: You're speaking plain HTTP to an SSL-enabled server port.",
            "Client sent an HTTP request to an HTTPS server.\n",
            "This address speaks TLS: use https:// or wss:// instead of plain.\n",
        ] {
            assert!(answer(&format!("HTTP/1.1 400 Bad Request\r\n\r\n{body}")).asks_for_tls(), "{body}");
        }
        assert!(!answer("HTTP/1.1 400 Bad Request\r\n\r\nno").asks_for_tls());
    }
}
