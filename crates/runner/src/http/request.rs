//! A call as an HTTP request: no IO.
//!
//! The browser's handshake speaks for the browser as a reverse proxy would let it: its `Host`, cookies and language are kept, what concerns one
//! hop or the handshake alone is left out. What names the user and the call is ours alone; a browser that sends such a field is not believed.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};

use super::url::HttpUrl;
use crate::call::Call;
use crate::error::StartError;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REMOTE_USER: HeaderName = HeaderName::from_static("remote-user");

/// Fields of the handshake that are not passed on as they are.
const NOT_PASSED: [&str; 30] = [
    // They concern one hop.
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "sec-websocket-accept",
    // They concern the body of the handshake, or the answer to it. A reply is not unpacked, and none is a part of another.
    "content-length",
    "content-type",
    "content-encoding",
    "accept-encoding",
    "range",
    "if-range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    // They are ours to say, or to add to.
    "host",
    "remote-user",
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// The request of a call. Its parts are shared: a copy costs a few counters.
pub(super) fn build(call: &Call, url: &HttpUrl, request_id: u128) -> Result<Request<Full<Bytes>>, StartError> {
    let target = url.target(call.uri());
    let target = Uri::from_maybe_shared(Bytes::from(target)).map_err(|error| unsendable("its URI", &error))?;
    let (method, body) = match call.message_uri() {
        Some(_) => (Method::GET, Bytes::new()),
        None => (Method::POST, call.message.payload().clone()),
    };
    let mut fields = fields(call, url, &method)?;
    fields.insert(X_REQUEST_ID, value("its id", format!("{request_id:032x}").into_bytes())?);
    if method == Method::POST {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = target;
    *request.headers_mut() = fields;
    Ok(request)
}

fn fields(call: &Call, url: &HttpUrl, method: &Method) -> Result<HeaderMap, StartError> {
    let mut fields = HeaderMap::with_capacity(32);
    // RFC 9112 section 3.2: a client SHOULD send Host first.
    let host = call.header("host").map_or_else(|| url.authority().into_bytes(), <[u8]>::to_vec);
    let host = value("its Host", host)?;
    fields.insert(header::HOST, host.clone());
    let mut scheme = "http";
    for (variable, content) in call.variables() {
        if let Some(name) = variable.strip_prefix("HTTP_") {
            pass(&mut fields, name, &content);
        } else if variable.starts_with("WOOTZ_") {
            fields.insert(name_of(variable)?, value(variable, content.into_owned())?);
        } else if variable == "REMOTE_USER" {
            // Without it the user would be a guest: rather no call than that.
            fields.insert(REMOTE_USER, value("its user", content.into_owned())?);
        } else if variable == "CONTENT_TYPE" && method == Method::POST {
            fields.insert(header::CONTENT_TYPE, value("its type", content.into_owned())?);
        } else if variable == "HTTPS" && &*content == b"on" {
            scheme = "https";
        }
    }
    if let Some(addresses) = addresses(call) {
        fields.insert(X_FORWARDED_FOR, value("its addresses", addresses)?);
    }
    let told_host = call.header("x-forwarded-host").and_then(|told| HeaderValue::from_bytes(told).ok());
    fields.insert(X_FORWARDED_HOST, told_host.unwrap_or(host));
    let scheme = call.header("x-forwarded-proto").and_then(scheme_of).unwrap_or(scheme);
    fields.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    Ok(fields)
}

/// One field of the handshake, where it may pass.
fn pass(fields: &mut HeaderMap, variable: &str, content: &[u8]) {
    let Ok(name) = name_of(variable) else { return };
    let text = name.as_str();
    if NOT_PASSED.contains(&text) || text.starts_with("wootz-") || text.starts_with("x-wootz-") {
        return;
    }
    // A value that no field can have came from no handshake.
    if let Ok(content) = HeaderValue::from_bytes(content) {
        fields.insert(name, content);
    }
}

/// The browser's address, behind those that proxies before this one have told.
fn addresses(call: &Call) -> Option<Vec<u8>> {
    let told = call.header("x-forwarded-for");
    let own = call.caller.remote.map(|remote| remote.ip().to_canonical().to_string().into_bytes());
    match (told, own) {
        (Some(told), Some(own)) => Some([told, b", ", &own].concat()),
        (told, own) => own.or(told.map(<[u8]>::to_vec)),
    }
}

/// What a proxy before this one says of the scheme that the browser used.
fn scheme_of(told: &[u8]) -> Option<&'static str> {
    if told.eq_ignore_ascii_case(b"https") || told.eq_ignore_ascii_case(b"wss") {
        Some("https")
    } else if told.eq_ignore_ascii_case(b"http") || told.eq_ignore_ascii_case(b"ws") {
        Some("http")
    } else {
        None
    }
}

/// `X_FORWARDED_FOR` as the name of a field. No variable stands for a field whose name has a `_`.
fn name_of(variable: &str) -> Result<HeaderName, StartError> {
    let name: Vec<u8> =
        variable.bytes().map(|byte| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }).collect();
    HeaderName::from_bytes(&name).map_err(|error| unsendable(variable, &error))
}

fn value(what: &str, bytes: Vec<u8>) -> Result<HeaderValue, StartError> {
    // The server would take it off, and "ann " would be "ann".
    if bytes.trim_ascii().len() != bytes.len() {
        return Err(unsendable(what, &"white space at its beginning or end"));
    }
    HeaderValue::from_maybe_shared(Bytes::from(bytes)).map_err(|error| unsendable(what, &error))
}

/// The value itself is the user's and not told.
fn unsendable(what: &str, why: &dyn std::fmt::Display) -> StartError {
    StartError::Unsendable(format!("{what}: {why}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::call::{CallEvent, ConnectionId, Message, MessageMode};
    use crate::environment::{Caller, CallerBuilder};

    fn request(builder: CallerBuilder, message: Message) -> Result<Request<Full<Bytes>>, StartError> {
        let url = "http://app:8000/base".parse().expect("an address");
        let call = Call {
            event: CallEvent::Message,
            message,
            caller: Arc::new(builder.build()),
            mode: MessageMode::Uri,
            capability: None,
        };
        build(&call, &url, 0xab)
    }

    fn builder() -> CallerBuilder {
        Caller::builder(ConnectionId(7), "/chat?room=1").remote("192.0.2.7:1".parse().expect("an address"))
    }

    /// All fields, as `name: value`, sorted.
    fn fields(builder: CallerBuilder) -> Vec<String> {
        let request = request(builder, Message::text("/")).expect("a request");
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
        };
        let mut fields: Vec<String> = request.headers().iter().map(line).collect();
        fields.sort_unstable();
        fields
    }

    #[test]
    fn a_message_that_is_a_uri_is_a_get_without_a_body() {
        let request = request(builder(), Message::text("cart?x=1")).expect("a request");
        assert_eq!((request.method(), request.uri().to_string().as_str()), (&Method::GET, "/base/cart?x=1"));
        assert!(!request.headers().contains_key("content-type") && !request.headers().contains_key("content-length"));
    }

    #[test]
    fn any_other_message_is_a_post_to_the_uri_of_the_handshake() {
        for (message, kind) in [
            (Message::text("two words"), "text/plain; charset=utf-8"),
            (Message::binary("two words"), "application/octet-stream"),
        ] {
            let request = request(builder(), message).expect("a request");
            assert_eq!((request.method(), request.uri().to_string().as_str()), (&Method::POST, "/base/chat?room=1"));
            assert_eq!(request.headers()["content-type"], kind);
            assert_eq!(request.headers()["content-length"], "9");
        }
        let empty = request(builder(), Message::empty()).expect("a request");
        assert_eq!(empty.method(), Method::POST);
        assert_eq!(empty.headers()["content-length"], "0");
    }

    #[test]
    fn the_handshake_speaks_for_the_browser_and_the_connection_for_us() {
        let builder = builder()
            .user(Some("42".into()))
            .push("WOOTZ_CONTROL", "/run/wootz.sock")
            .header("Host", b"example.com")
            .header("Cookie", b"a=1")
            .header("X-Forwarded-For", b"203.0.113.9")
            .header("Sec-WebSocket-Protocol", b"chat");
        let expected = [
            "cookie: a=1",
            "host: example.com",
            "remote-user: 42",
            "sec-websocket-protocol: chat",
            "wootz-connection: 00000000000000000000000000000007",
            "wootz-control: /run/wootz.sock",
            "wootz-event: message",
            "x-forwarded-for: 203.0.113.9, 192.0.2.7",
            "x-forwarded-host: example.com",
            "x-forwarded-proto: http",
            "x-request-id: 000000000000000000000000000000ab",
        ];
        assert_eq!(fields(builder), expected);
    }

    #[test]
    fn a_browser_can_not_say_who_it_is_or_what_concerns_the_hop() {
        let forged = [
            "Remote-User",
            "Wootz-Event",
            "Wootz-User",
            "X-Wootz-User",
            "X-Request-Id",
            "Connection",
            "Upgrade",
            "Keep-Alive",
            "TE",
            "Transfer-Encoding",
            "Content-Length",
            "Content-Type",
            "Accept-Encoding",
            "Range",
            "If-None-Match",
            "If-Modified-Since",
            "Expect",
            "Proxy-Authorization",
            "Sec-WebSocket-Key",
        ];
        let honest = fields(builder());
        let builder = forged.iter().fold(builder(), |builder, name| builder.header(name, b"forged"));
        assert_eq!(fields(builder), honest);
        assert!(honest.contains(&"host: app:8000".to_owned()), "a handshake without Host: {honest:?}");
    }

    #[test]
    fn a_proxy_before_us_is_believed_about_its_host_and_scheme() {
        for (told, passed) in [("https", "https"), ("WSS", "https"), ("ws", "http"), ("gopher", "http")] {
            let builder = builder().header("X-Forwarded-Proto", told.as_bytes()).header("X-Forwarded-Host", b"site");
            let fields = fields(builder);
            assert!(fields.contains(&format!("x-forwarded-proto: {passed}")), "{fields:?}");
            assert!(fields.contains(&"x-forwarded-host: site".to_owned()), "{fields:?}");
        }
        let fields = fields(builder().push("HTTPS", "on"));
        assert!(fields.contains(&"x-forwarded-proto: https".to_owned()), "{fields:?}");
    }

    #[test]
    fn a_user_that_no_field_can_hold_is_no_guest() {
        for user in ["ann\nb", " ann", "ann ", "ann\0"] {
            let error = request(builder().user(Some(user.into())), Message::text("/")).expect_err(user);
            assert!(error.to_string().contains("its user") && !error.to_string().contains("ann"), "{error}");
        }
        let user = request(builder().user(Some("zoë".into())), Message::text("/")).expect("UTF-8 is sent as it is");
        assert_eq!(user.headers()["remote-user"].as_bytes(), "zoë".as_bytes());
    }

    #[test]
    fn a_uri_longer_than_a_request_can_have_is_told() {
        let caller = Caller::builder(ConnectionId(7), &format!("/{}", "ü".repeat(20_000)));
        let error = request(caller, Message::text("two words")).expect_err("too long");
        assert!(error.to_string().contains("its URI"), "{error}");
    }
}
