//! RFC 8441: what opens a WebSocket over HTTP/2, and how it is told as HTTP/1.1 would have told it.

use wootz_protocol::handshake::http2::{Pseudo, accept, join_cookies, request};
use wootz_protocol::handshake::{HeadLimits, Header, Refusal, Request};

const CONNECT: Pseudo<'static> = Pseudo {
    method: "CONNECT",
    scheme: Some("https"),
    authority: Some("example.com"),
    path: Some("/chat?room=1"),
    protocol: Some("websocket"),
};
const VERSION: (&str, &str) = ("sec-websocket-version", "13");

fn headers<'a>(fields: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = Header<'a>> + Clone {
    fields.iter().map(|(name, value)| Header { name, value: value.as_bytes() })
}

fn told<'a>(pseudo: &Pseudo<'a>, fields: &'a [(&'a str, &'a str)], cookies: &'a [u8]) -> Result<Request<'a>, Refusal> {
    request(pseudo, headers(fields), cookies, &HeadLimits::default())
}

/// What becomes of a request with these fields.
fn refused(pseudo: &Pseudo<'_>, fields: &[(&str, &str)]) -> Option<Refusal> {
    told(pseudo, fields, b"").and_then(|request| accept(&request, pseudo).map(drop)).err()
}

#[test]
fn request_is_told_as_http_1_1_would_have_told_it() {
    let fields = [("cookie", "a=b"), ("origin", "https://example.com"), ("cookie", "PHPSESSID=x"), VERSION];
    let cookies = join_cookies(headers(&fields));
    let request = told(&CONNECT, &fields, &cookies).expect("a request");
    assert_eq!((request.path(), request.query()), ("/chat", "room=1"));
    assert_eq!(request.single("Host"), Some(&b"example.com"[..]));
    assert_eq!(request.single("Cookie"), Some(&b"a=b; PHPSESSID=x"[..]));
    assert_eq!(request.single("Origin"), Some(&b"https://example.com"[..]));
    assert!(!request.wants_websocket());
    let plain = told(&CONNECT, &[VERSION], b"").expect("a request");
    assert_eq!(plain.header("cookie"), None);
}

#[test]
fn extended_connect_offers_subprotocols() {
    let fields = [VERSION, ("sec-websocket-protocol", "v2.chat, v1.chat")];
    let request = told(&CONNECT, &fields, b"").expect("a request");
    let offered = accept(&request, &CONNECT).expect("a handshake");
    assert_eq!(offered.names(), ["v2.chat", "v1.chat"]);
    assert_eq!(offered.choose(&["v1.chat"]), Some("v1.chat"));
}

#[test]
fn each_rule_that_is_broken_is_refused() {
    let ok = &[VERSION][..];
    let without = |change: fn(&mut Pseudo<'static>)| {
        let mut pseudo = CONNECT;
        change(&mut pseudo);
        pseudo
    };
    let pseudo = [
        (without(|pseudo| pseudo.method = "GET"), Refusal::MissingConnect),
        (without(|pseudo| pseudo.method = "POST"), Refusal::OnlyConnect),
        (without(|pseudo| pseudo.protocol = None), Refusal::MissingProtocol),
        (without(|pseudo| (pseudo.protocol, pseudo.path) = (None, None)), Refusal::MissingProtocol),
        (without(|pseudo| pseudo.protocol = Some("connect-udp")), Refusal::UnknownProtocol),
        (without(|pseudo| pseudo.scheme = None), Refusal::InvalidTarget),
        (without(|pseudo| pseudo.scheme = Some("ftp")), Refusal::InvalidTarget),
        (without(|pseudo| (pseudo.method, pseudo.path) = ("GET", None)), Refusal::InvalidTarget),
        (without(|pseudo| pseudo.path = Some("*")), Refusal::InvalidTarget),
        (without(|pseudo| pseudo.authority = None), Refusal::InvalidHost),
        (without(|pseudo| pseudo.authority = Some("user@example.com")), Refusal::InvalidHost),
    ];
    assert_eq!(refused(&CONNECT, ok), None);
    for (pseudo, refusal) in pseudo {
        assert_eq!(refused(&pseudo, ok), Some(refusal), "{pseudo:?}");
    }
    let fields: [(&[(&str, &str)], Refusal); 9] = [
        (&[], Refusal::InvalidVersion),
        (&[VERSION, VERSION], Refusal::InvalidVersion),
        (&[("sec-websocket-version", "8")], Refusal::UnsupportedVersion),
        (&[VERSION, ("connection", "upgrade")], Refusal::InvalidHeader),
        (&[VERSION, ("upgrade", "websocket")], Refusal::InvalidHeader),
        (&[VERSION, ("content-length", "3")], Refusal::UnexpectedBody),
        (&[VERSION, ("content-length", "x")], Refusal::AmbiguousLength),
        (&[VERSION, ("sec-websocket-protocol", "a b")], Refusal::InvalidSubprotocol),
        (&[VERSION, ("host", "other.example")], Refusal::InvalidHost),
    ];
    for (fields, refusal) in fields {
        assert_eq!(refused(&CONNECT, fields), Some(refusal), "{fields:?}");
    }
    assert_eq!(refused(&CONNECT, &[VERSION, ("host", "Example.com")]), None, "the same host, said twice");
    let many: Vec<_> = (0..100).map(|_| ("x-y", "z")).collect();
    assert_eq!(refused(&CONNECT, &many), Some(Refusal::TooManyHeaders));
}

#[test]
fn refusals_have_the_statuses_of_the_rfcs_and_no_field_that_http_2_forbids() {
    let statuses = [
        (Refusal::MissingConnect, 400),
        (Refusal::MissingProtocol, 400),
        (Refusal::OnlyConnect, 405),
        (Refusal::UnknownProtocol, 501),
    ];
    for (refusal, status) in statuses {
        assert_eq!(refusal.status(), status);
        assert!(refusal.headers().iter().all(|(name, _)| *name == "Allow"));
    }
}
