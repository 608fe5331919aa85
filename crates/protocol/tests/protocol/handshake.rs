//! The opening handshake, from both sides.

use proptest::prelude::*;
use wootz_protocol::handshake::client::{Answer, AnswerError, Opening};
use wootz_protocol::handshake::{Acceptance, HeadLimits, Parsed, Refusal, Request, accept, parse, response};

const LIMITS: HeadLimits = HeadLimits { max_head_bytes: 16 * 1024, max_headers: 100 };
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const REST: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";

/// The lines of a good request, of which tests replace some.
fn lines() -> Vec<String> {
    [
        "GET /chat?x=1 HTTP/1.1",
        "Host: example.com",
        "Upgrade: websocket",
        "Connection: Upgrade",
        KEY.trim_end(),
        "Sec-WebSocket-Version: 13",
    ]
    .map(String::from)
    .to_vec()
}

fn head(lines: &[String]) -> String {
    lines.join("\r\n") + "\r\n\r\n"
}

/// A good request with the line that begins as `line` does replaced by it, or with it added.
fn with(line: &str) -> String {
    let mut lines = lines();
    let name = |line: &str| line.split([':', ' ']).next().map(str::to_ascii_lowercase);
    match lines.iter().position(|present| name(present) == name(line)) {
        Some(index) => lines[index] = line.to_owned(),
        None => lines.push(line.to_owned()),
    }
    head(&lines)
}

fn without(name: &str) -> String {
    let mut lines = lines();
    lines.retain(|line| !line.starts_with(name));
    head(&lines)
}

fn with_added(line: &str) -> String {
    let mut lines = lines();
    lines.push(line.to_owned());
    head(&lines)
}

fn request(head: &str) -> Result<Request<'_>, Refusal> {
    match parse(head.as_bytes(), &LIMITS)? {
        Parsed::Complete { request, length } => {
            assert_eq!(length, head.len());
            Ok(request)
        }
        Parsed::Partial => panic!("the head is whole"),
    }
}

fn acceptance(head: &str) -> Result<Acceptance, Refusal> {
    accept(&request(head)?)
}

#[test]
fn example_of_the_rfc_is_answered_with_its_101() {
    let response = acceptance(&head(&lines())).unwrap().response(None);
    assert_eq!(
        String::from_utf8(response).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
}

#[test]
fn good_requests_in_other_clothes_are_accepted() {
    let cases = [
        with("UPGRADE: h2c, WebSocket"),
        with("connection: keep-alive, upgrade"),
        with("Host: [::1]:8888"),
        with("Host:   example.com:80\t "),
        with("GET ws://example.com/chat HTTP/1.1"),
        with("Content-Length: 0"),
        with("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
        with_added("Connection: close"),
        // The key of section 4.1, whose last bits are not zero.
        with("Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEC=="),
    ];
    for head in cases {
        assert!(acceptance(&head).is_ok(), "{head}");
    }
}

#[test]
fn every_broken_rule_is_refused_by_its_name_and_status() {
    use Refusal as R;
    let cases: Vec<(String, Refusal, u16)> = vec![
        (with("GET /chat HTTP/1.0"), R::OldHttpVersion, 400),
        (without("Host"), R::InvalidHost, 400),
        (with_added("Host: example.com"), R::InvalidHost, 400),
        (with("Host: "), R::InvalidHost, 400),
        (with("Host: a.example, b.example"), R::InvalidHost, 400),
        (with("Host: user@example.com"), R::InvalidHost, 400),
        (with("GET http://other.example/chat HTTP/1.1"), R::InvalidHost, 400),
        (with("GET http://user@example.com/chat HTTP/1.1"), R::InvalidHost, 400),
        (without("Upgrade"), R::MissingUpgrade, 400),
        (with("Upgrade: websockets"), R::MissingUpgrade, 400),
        (without("Connection"), R::MissingConnection, 400),
        (with("Connection: keep-alive"), R::MissingConnection, 400),
        (without("Sec-WebSocket-Key"), R::InvalidKey, 400),
        (with_added(KEY.trim_end()), R::InvalidKey, 400),
        (with("Sec-WebSocket-Key: "), R::InvalidKey, 400),
        (with("Sec-WebSocket-Key: c2hvcnQ="), R::InvalidKey, 400),
        (with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"), R::InvalidKey, 400),
        (with("Sec-WebSocket-Key: !GhlIHNhbXBsZSBub25jZQ=="), R::InvalidKey, 400),
        (with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSE="), R::InvalidKey, 400),
        (without("Sec-WebSocket-Version"), R::InvalidVersion, 400),
        (with_added("Sec-WebSocket-Version: 13"), R::InvalidVersion, 400),
        (with("Sec-WebSocket-Version: 8"), R::UnsupportedVersion, 426),
        (with("Sec-WebSocket-Version: 013"), R::UnsupportedVersion, 426),
        (with("Sec-WebSocket-Protocol: chat, super chat"), R::InvalidSubprotocol, 400),
        (with("Sec-WebSocket-Protocol: \u{e9}"), R::InvalidSubprotocol, 400),
        (with("Content-Length: 5"), R::UnexpectedBody, 400),
        (with("Transfer-Encoding: chunked"), R::UnexpectedBody, 400),
    ];
    for (head, refusal, status) in cases {
        assert_eq!(acceptance(&head), Err(refusal), "{head}");
        assert_eq!(refusal.status(), status);
    }
    for method in ["POST", "HEAD", "OPTIONS", "get"] {
        let head = head(&lines()).replacen("GET", method, 1);
        assert_eq!(acceptance(&head), Err(R::MethodNotAllowed), "{head}");
    }
    assert_eq!(R::MethodNotAllowed.status(), 405);
}

#[test]
fn heads_that_two_programs_could_read_differently_are_refused() {
    use Refusal as R;
    let good = head(&lines());
    let cases: Vec<(String, Refusal)> = vec![
        (with_added("X-Folded: a\r\n b"), R::InvalidHeader),
        (with_added("X-Folded: a\r\n\tb"), R::InvalidHeader),
        (with_added("X-Space : a"), R::InvalidHeader),
        (with_added(" X-Leading: a"), R::InvalidHeader),
        (with_added(": nameless"), R::InvalidHeader),
        (with_added("no colon"), R::InvalidHeader),
        (with_added("X-Nul: a\0b"), R::InvalidHeader),
        (with_added("X-Return: a\rb"), R::InvalidHeader),
        (with_added("X-Feed: a\nX-Smuggled: b"), R::InvalidHeader),
        (with_added("X-\u{e9}: a"), R::InvalidHeader),
        (with_added("Content-Length: 0\r\nTransfer-Encoding: chunked"), R::AmbiguousLength),
        (with_added("Content-Length: 0\r\nContent-Length: 0"), R::AmbiguousLength),
        (with_added("Content-Length: +0"), R::AmbiguousLength),
        (with_added("Content-Length: 0, 0"), R::AmbiguousLength),
        (with_added("Content-Length:"), R::AmbiguousLength),
        (good.replacen("/chat?x=1", "chat", 1), R::InvalidTarget),
        (good.replacen("/chat?x=1", "*", 1), R::InvalidTarget),
        (good.replacen("/chat?x=1", "example.com:80", 1), R::InvalidTarget),
        (good.replacen("/chat?x=1", "ftp://example.com/", 1), R::InvalidTarget),
        (good.replacen("/chat?x=1", "http:///chat", 1), R::InvalidTarget),
        (good.replacen("/chat?x=1", "/chat#part", 1), R::InvalidTarget),
        (good.replacen("/chat?x=1", "/caf\u{e9}", 1), R::InvalidTarget),
        (good.replacen("HTTP/1.1", "HTTP/2.0", 1), R::NotHttp),
        (good.replacen("HTTP/1.1", "", 1), R::NotHttp),
        (good.replacen("GET ", "GET  ", 1), R::NotHttp),
        (good.replacen("/chat?x=1", "/chat x", 1), R::NotHttp),
    ];
    for (head, refusal) in cases {
        assert_eq!(request(&head), Err(refusal), "{head:?}");
        assert_eq!(refusal.status(), 400);
    }
}

#[test]
fn what_is_no_http_is_told_at_its_first_byte() {
    for bytes in [&b"\x16\x03\x01"[..], b"\r\n", b"\0", b"\x81\x85", b" GET / HTTP/1.1"] {
        assert_eq!(parse(bytes, &LIMITS), Err(Refusal::NotHttp), "{bytes:02x?}");
    }
}

#[test]
fn head_is_partial_until_its_last_byte_and_leaves_what_follows() {
    let head = head(&lines());
    for length in 0..head.len() {
        assert_eq!(parse(&head.as_bytes()[..length], &LIMITS), Ok(Parsed::Partial), "{length}");
    }
    let more = [head.as_bytes(), b"\x81\x80"].concat();
    let Ok(Parsed::Complete { length, .. }) = parse(&more, &LIMITS) else { panic!("the head is whole") };
    assert_eq!(length, head.len());
}

#[test]
fn head_over_a_limit_is_refused_with_431() {
    let small = HeadLimits { max_head_bytes: head(&lines()).len(), max_headers: 5 };
    assert!(matches!(parse(head(&lines()).as_bytes(), &small), Ok(Parsed::Complete { .. })));
    assert_eq!(parse(with_added("X: y").as_bytes(), &small), Err(Refusal::HeadTooLarge));
    let smaller = HeadLimits { max_headers: 4, ..small };
    assert_eq!(parse(head(&lines()).as_bytes(), &smaller), Err(Refusal::TooManyHeaders));
    let endless = "GET /".to_owned() + &"a".repeat(LIMITS.max_head_bytes);
    assert_eq!(parse(endless.as_bytes(), &LIMITS), Err(Refusal::HeadTooLarge));
    assert_eq!((Refusal::HeadTooLarge.status(), Refusal::TooManyHeaders.status()), (431, 431));
}

#[test]
fn request_is_taken_apart_as_it_was_sent() {
    let head = format!(
        "GET /a/b%20?x=1&y HTTP/1.1\r\nHost: h\r\nCookie: a=1\r\ncookie: b=\u{e9}\r\nX:  \t v \r\n{REST}{KEY}\r\n"
    );
    let request = request(&head).unwrap();
    assert_eq!((request.method, request.target), ("GET", "/a/b%20?x=1&y"));
    assert_eq!((request.path(), request.query(), request.uri()), ("/a/b%20", "x=1&y", "/a/b%20?x=1&y"));
    assert_eq!(request.header("COOKIE"), Some(&b"a=1"[..]));
    assert_eq!(request.all("Cookie").collect::<Vec<_>>(), [&b"a=1"[..], "b=é".as_bytes()]);
    assert_eq!((request.single("cookie"), request.single("x")), (None, Some(&b"v"[..])));
    assert_eq!((request.header_str("x"), request.header("y")), (Some("v"), None));
    assert!(request.wants_websocket());
}

#[test]
fn absolute_target_is_read_by_its_path() {
    for (target, path, query) in [
        ("http://h/a?b", "/a", "b"),
        ("WSS://h", "/", ""),
        ("http://h:80?b?c", "/", "b?c"),
        ("/a?u=http://h/b", "/a", "u=http://h/b"),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        let request = request(&head).unwrap();
        assert_eq!((request.path(), request.query()), (path, query), "{target}");
        assert!(!request.wants_websocket());
    }
}

#[test]
fn chosen_subprotocol_is_one_that_was_offered() {
    let head = with("Sec-WebSocket-Protocol: v2.chat, ,v1.chat");
    let acceptance = acceptance(&head).unwrap();
    assert_eq!(acceptance.subprotocols().names(), ["v2.chat", "v1.chat"]);
    assert_eq!(acceptance.subprotocols().choose(&["v1.chat", "v2.chat"]), Some("v2.chat"));
    assert_eq!(acceptance.subprotocols().choose(&["V1.chat"]), None);
    let names = |response: Vec<u8>| {
        String::from_utf8(response).unwrap().contains("\r\nSec-WebSocket-Protocol: v1.chat\r\n\r\n")
    };
    assert!(names(acceptance.response(Some("v1.chat"))));
    assert!(!names(acceptance.response(None)));
    assert_eq!(acceptance.response(Some("other\r\nX: y")), acceptance.response(None));
}

#[test]
fn refusals_are_whole_answers() {
    let text = |refusal: Refusal| String::from_utf8(refusal.response()).unwrap();
    assert_eq!(
        text(Refusal::UnsupportedVersion),
        "HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nContent-Length: 35\r\n\r\nonly WebSocket version 13 is served"
    );
    assert!(text(Refusal::MethodNotAllowed).contains("\r\nAllow: GET\r\n"));
    let page = response(200, &[("Content-Type", "text/html"), ("X", "a\r\nSet-Cookie: b")], "<p>");
    assert_eq!(
        String::from_utf8(page).unwrap(),
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html\r\nX: a  Set-Cookie: b\r\nContent-Length: 3\r\n\r\n<p>"
    );
}

fn opening<'a>() -> Opening<'a> {
    Opening {
        host: "example.com",
        target: "/chat",
        key: [7; 16],
        headers: &[("Origin", "https://example.com")],
        subprotocols: &["a", "b"],
    }
}

#[test]
fn our_client_and_our_server_understand_each_other() {
    let opening = opening();
    let head = String::from_utf8(opening.request().unwrap()).unwrap();
    let request = request(&head).unwrap();
    assert_eq!(request.header_str("origin"), Some("https://example.com"));
    let acceptance = accept(&request).unwrap();
    for chosen in [None, Some("b")] {
        let answer = acceptance.response(chosen);
        for length in 0..answer.len() {
            assert_eq!(opening.read_answer(&answer[..length], &LIMITS), Ok(Answer::Partial));
        }
        let subprotocol = chosen.map(str::to_owned);
        let expected = Answer::Open { subprotocol, length: answer.len() };
        assert_eq!(opening.read_answer(&[&answer[..], b"\x81\x00"].concat(), &LIMITS), Ok(expected));
    }
}

#[test]
fn client_refuses_answers_that_break_a_rule() {
    use AnswerError as E;
    let opening = opening();
    let head = String::from_utf8(opening.request().unwrap()).unwrap();
    let good = String::from_utf8(acceptance(&head).unwrap().response(None)).unwrap();
    let added = |line: &str| good.replacen("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"), 1);
    let cases = [
        (good.replacen("101", "200", 1), E::Status(200)),
        (String::from_utf8(response(503, &[], "full")).unwrap(), E::Status(503)),
        (good.replacen("Upgrade: websocket", "Upgrade: h2c", 1), E::MissingUpgrade),
        (good.replacen("Connection: Upgrade", "Connection: close", 1), E::MissingConnection),
        (good.replacen("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: A", 1), E::WrongAccept),
        (good.replacen("Sec-WebSocket-Accept", "X", 1), E::WrongAccept),
        (added("Sec-WebSocket-Extensions: permessage-deflate"), E::UnofferedExtension),
        (added("Sec-WebSocket-Protocol: c"), E::UnofferedSubprotocol),
        (added("Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b"), E::UnofferedSubprotocol),
        ("SSH-2.0-OpenSSH\r\n\r\n".to_owned(), E::NotHttp),
        (added(&format!("X: {}", "a".repeat(LIMITS.max_head_bytes))), E::HeadTooLarge),
        (added(&"X: y\r\n".repeat(101)), E::HeadTooLarge),
    ];
    for (answer, error) in cases {
        assert_eq!(opening.read_answer(answer.as_bytes(), &LIMITS), Err(error), "{answer}");
    }
}

#[test]
fn client_sends_nothing_that_could_be_another_request() {
    let cases = [
        Opening { host: "h\r\nX: y", ..opening() },
        Opening { host: "", ..opening() },
        Opening { target: "chat", ..opening() },
        Opening { target: "/a b", ..opening() },
        Opening { target: "/a\r\nX:", ..opening() },
        Opening { headers: &[("X", "a\r\nY: b")], ..opening() },
        Opening { headers: &[("X: y\r\nZ", "a")], ..opening() },
        Opening { subprotocols: &["a b"], ..opening() },
    ];
    for opening in cases {
        assert!(opening.request().is_err(), "{opening:?}");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let head = [b"GET / HTTP/1.1\r\n", &bytes[..], b"\r\n\r\n"].concat();
        for bytes in [&bytes[..], &head[..]] {
            if let Ok(Parsed::Complete { request, .. }) = parse(bytes, &LIMITS) {
                let _ = accept(&request);
            }
            let _ = opening().read_answer(bytes, &LIMITS);
        }
    }

    #[test]
    fn damaged_handshake_is_partial_whole_or_refused_alike_wherever_it_is_cut(
        place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = head(&lines()).into_bytes();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let Err(refusal) = parse(&bytes[..cut.index(bytes.len())], &LIMITS) {
            prop_assert_eq!(parse(&bytes, &LIMITS), Err(refusal));
        }
    }
}
