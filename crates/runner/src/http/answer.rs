//! What an answer means: its head judged, its failures in words. No IO.

use std::error::Error;
use std::io;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{self, HeaderMap};

use super::url::HttpUrl;
use crate::call::CallEvent;
use crate::error::ApplicationFault;

/// As much of a `Location` is told.
const MAX_TOLD_CHARACTERS: usize = 200;

/// What becomes of an answer by its head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its body is the reply.
    Reply,
    /// It has none, and nothing is sent.
    Nothing,
}

/// 2xx is a reply, and so is 4xx: what an application says of a page that is not there is for its user. But nobody is let in by a 4xx,
/// whose body would be taken for a user's name. 204 and 304 are nothing; a redirect goes nowhere in a WebSocket.
pub(super) fn judge(
    status: StatusCode,
    fields: &HeaderMap,
    event: CallEvent,
    url: &HttpUrl,
) -> Result<Verdict, ApplicationFault> {
    let bad = |what: String| Err(ApplicationFault::BadAnswer { server: url.to_string(), what });
    match status.as_u16() {
        204 | 205 => return Ok(Verdict::Nothing),
        304 if event != CallEvent::Validate => return Ok(Verdict::Nothing),
        200..=299 => {}
        300..=399 => {
            let to = fields.get(header::LOCATION).map_or("nowhere".to_owned(), |location| told(location.as_bytes()));
            return bad(format!(
                "redirected to {to} with status {status}, which is not followed",
                status = status.as_u16()
            ));
        }
        400..=499 if event != CallEvent::Validate => {}
        101 => return bad("switched to another protocol, which nobody asked for".to_owned()),
        failure => return Err(ApplicationFault::Status(failure)),
    }
    match fields.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            bad(format!("packed its answer ({}), which nobody asked for", told(encoding.as_bytes())))
        }
        Some(_) | None => Ok(Verdict::Reply),
    }
}

/// How long the server keeps an idle connection by its own word (`Keep-Alive: timeout=5`).
pub(super) fn kept_for(fields: &HeaderMap) -> Option<Duration> {
    let parameters = fields.get("keep-alive")?.to_str().ok()?;
    parameters.split(',').find_map(|parameter| {
        let (name, seconds) = parameter.split_once('=')?;
        let seconds = name.trim().eq_ignore_ascii_case("timeout").then(|| seconds.trim().parse().ok())??;
        Some(Duration::from_secs(seconds))
    })
}

/// Why there is no answer, beginning with a verb.
pub(super) fn without_head(error: &hyper::Error) -> String {
    if error.is_parse() {
        return format!("sent what is no HTTP/1.1 answer ({error}); is it an HTTP server? (application.http.url)");
    }
    match io_kind(error) {
        Some(io::ErrorKind::ConnectionReset) => "reset the connection before it answered; see its log".to_owned(),
        _ if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
            "closed the connection before it answered; see its log".to_owned()
        }
        _ => format!("gave no answer: {}", root(error)),
    }
}

/// Why there is not all of an answer, beginning with a verb.
pub(super) fn without_end(error: &hyper::Error) -> String {
    match io_kind(error) {
        Some(io::ErrorKind::UnexpectedEof) => {
            "closed the connection in the middle of its answer; see its log".to_owned()
        }
        Some(io::ErrorKind::ConnectionReset) => {
            "reset the connection in the middle of its answer; see its log".to_owned()
        }
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => {
            format!("sent a body that is broken: {}", root(error))
        }
        Some(_) | None => format!("broke off its answer: {}", root(error)),
    }
}

fn io_kind(error: &hyper::Error) -> Option<io::ErrorKind> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        cause = error.source();
    }
    None
}

/// The innermost reason.
fn root(error: &hyper::Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

/// A value of the server's as a log may show it: printable, not too long, and without a query, which may hold a user's secrets.
fn told(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let shown = text.split(['?', '#']).next().unwrap_or_default();
    shown.chars().take(MAX_TOLD_CHARACTERS).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_word_on_idle_connections_is_read() {
        for (word, seconds) in [
            ("timeout=5", Some(5)),
            ("timeout=5, max=100", Some(5)),
            ("max=100, Timeout = 15", Some(15)),
            ("max=100", None),
            ("timeout=-1", None),
            ("timeout", None),
            ("", None),
        ] {
            let fields = HeaderMap::from_iter([(
                header::HeaderName::from_static("keep-alive"),
                header::HeaderValue::from_static(word),
            )]);
            assert_eq!(kept_for(&fields), seconds.map(Duration::from_secs), "{word:?}");
        }
    }

    #[test]
    fn what_a_log_is_told_is_printable_short_and_without_a_query() {
        assert_eq!(told(b"/login?next=/secret"), "/login");
        assert_eq!(told(b"/a#token=secret"), "/a");
        assert_eq!(told(b"/\x1b[31m\n\xff"), "/\\u{1b}[31m\\n\u{fffd}");
        assert_eq!(told(&[b'x'; 1000]).len(), MAX_TOLD_CHARACTERS);
    }
}
