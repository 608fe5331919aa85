//! Requests that two programs could read differently. Each is refused with 400, once, and nothing behind it is ever read as a request: so no
//! proxy before the server can be made to hand on what it has not looked at.

mod support;

use support::authority::Authority;
use support::raw::{Raw, handshake, text};
use support::{Setup, Wootz, wait_until};

/// A good handshake with one thing about it bent: its name, what is replaced, and by what.
type Shape = (&'static str, &'static str, &'static str);

/// Where a field can be added.
const END: &str = "Sec-WebSocket-Version: 13\r\n";
const LINE: &str = "GET / HTTP/1.1\r\n";

/// Lengths that contradict each other, or can be read as two numbers.
const LENGTHS: &[Shape] = &[
    ("both lengths", END, "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"),
    ("both lengths, the other way around", END, "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
    ("two equal lengths", END, "Content-Length: 0\r\nContent-Length: 0\r\n"),
    ("two lengths", END, "Content-Length: 0\r\nContent-Length: 90\r\n"),
    ("two lengths in one field", END, "Content-Length: 0, 0\r\n"),
    ("a plus sign", END, "Content-Length: +0\r\n"),
    ("a minus sign", END, "Content-Length: -0\r\n"),
    ("hexadecimal", END, "Content-Length: 0x0\r\n"),
    ("an underscore", END, "Content-Length: 0_0\r\n"),
    ("a decimal point", END, "Content-Length: 0.0\r\n"),
    ("a space within the number", END, "Content-Length: 0 0\r\n"),
    ("no number", END, "Content-Length:\r\n"),
    ("digits that are no ASCII", END, "Content-Length: \u{ff10}\r\n"),
    ("a number of more than 64 bits", END, "Content-Length: 18446744073709551616\r\n"),
    ("a body", END, "Content-Length: 90\r\n"),
];

/// Ways to name the coding that some programs take for chunked, and others do not.
const CODINGS: &[Shape] = &[
    ("chunked", END, "Transfer-Encoding: chunked\r\n"),
    ("identity", END, "Transfer-Encoding: identity\r\n"),
    ("nothing", END, "Transfer-Encoding:\r\n"),
    ("an unknown coding", END, "Transfer-Encoding: xchunked\r\n"),
    ("chunked in capitals", END, "TRANSFER-ENCODING: CHUNKED\r\n"),
    ("chunked in quotes", END, "Transfer-Encoding: \"chunked\"\r\n"),
    ("chunked, and then none", END, "Transfer-Encoding: chunked, identity\r\n"),
    ("chunked twice", END, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    ("chunked behind a tab", END, "Transfer-Encoding:\tchunked\r\n"),
    ("chunked behind a vertical tab", END, "Transfer-Encoding:\x0bchunked\r\n"),
    ("chunked behind a form feed", END, "Transfer-Encoding:\x0cchunked\r\n"),
];

/// Fields that end elsewhere, or have another name, for somebody else.
const FIELDS: &[Shape] = &[
    ("an obsolete folding", END, "X-Folded: a\r\n Content-Length: 90\r\n"),
    ("a folding by a tab", END, "X-Folded: a\r\n\tb\r\n"),
    ("a folded length", END, "Content-Length:\r\n 0\r\n"),
    ("a folding before the first field", LINE, "GET / HTTP/1.1\r\n X-Folded: a\r\n"),
    ("white space before the colon", END, "Content-Length : 0\r\n"),
    ("a tab before the colon", END, "Transfer-Encoding\t: chunked\r\n"),
    ("NUL before the colon", END, "Content-Length\0: 0\r\n"),
    ("NUL in a value", END, "X-Nul: a\0b\r\n"),
    ("a bare CR in a value", END, "X-Bare: a\rContent-Length: 90\r\n"),
    ("a bare CR before the end of a line", END, "X-Bare: a\r\r\n"),
    ("a bare CR in a name", END, "X\rY: a\r\n"),
    ("a bare LF as the end of a line", END, "X-Bare: a\nContent-Length: 90\r\n"),
    ("a bare LF as the end of the request line", LINE, "GET / HTTP/1.1\n"),
    ("no name", END, ": a\r\n"),
    ("no colon", END, "X-Field\r\n"),
    ("a name with a space in it", END, "X Field: a\r\n"),
    ("a name beyond ASCII", END, "X-F\u{ef}eld: a\r\n"),
    ("a name in brackets", END, "[X]: a\r\n"),
];

/// Request lines and hosts that name something else for somebody else.
const TARGETS: &[Shape] = &[
    ("an absolute target of another host", LINE, "GET http://inside.example/ HTTP/1.1\r\n"),
    ("an absolute target with a user", LINE, "GET http://user@HOST/ HTTP/1.1\r\n"),
    ("an absolute target without a host", LINE, "GET http:/// HTTP/1.1\r\n"),
    ("an absolute target of another scheme", LINE, "GET file://HOST/ HTTP/1.1\r\n"),
    ("an authority as the target", LINE, "GET HOST HTTP/1.1\r\n"),
    ("an asterisk", LINE, "GET * HTTP/1.1\r\n"),
    ("a fragment", LINE, "GET /#part HTTP/1.1\r\n"),
    ("a space in the target", LINE, "GET / / HTTP/1.1\r\n"),
    ("two spaces before the target", LINE, "GET  / HTTP/1.1\r\n"),
    ("a tab in the request line", LINE, "GET\t/ HTTP/1.1\r\n"),
    ("a space at the end of the request line", LINE, "GET / HTTP/1.1 \r\n"),
    ("no version", LINE, "GET /\r\n"),
    ("a version in small letters", LINE, "GET / http/1.1\r\n"),
    ("HTTP/1.0", LINE, "GET / HTTP/1.0\r\n"),
    ("HTTP/1.2", LINE, "GET / HTTP/1.2\r\n"),
    ("HTTP/2.0", LINE, "GET / HTTP/2.0\r\n"),
    ("an empty line before the request", LINE, "\r\nGET / HTTP/1.1\r\n"),
    ("two hosts", END, "Host: inside.example\r\n"),
    ("two hosts in one field", "Host: HOST\r\n", "Host: HOST, inside.example\r\n"),
    ("a path in the host", "Host: HOST\r\n", "Host: HOST/inside\r\n"),
    ("no host", "Host: HOST\r\n", ""),
];

/// The request, and what an attacker would hide behind it: another request, and a message.
fn bend(host: &str, (name, what, by): Shape) -> Vec<u8> {
    let good = handshake(([127, 0, 0, 1], 80).into(), "/", "").replace("127.0.0.1:80", "HOST");
    assert!(good.contains(what), "{name}: {what:?} is not in {good}");
    // What is added keeps its neighbour.
    let by = if what == END { format!("{END}{by}") } else { by.to_owned() };
    let bent = good.replacen(what, &by, 1).replace("HOST", host);
    let hidden = handshake(([127, 0, 0, 1], 80).into(), "/hidden", "").replace("127.0.0.1:80", host);
    [bent.as_bytes(), b"0\r\n\r\n", hidden.as_bytes(), &text("hidden")].concat()
}

/// One answer, a 400, and the end.
fn assert_refused_once(way: &str, shape: Shape, answer: &[u8]) {
    let said = String::from_utf8_lossy(answer);
    assert!(said.starts_with("HTTP/1.1 400 "), "{} {way}: {said}", shape.0);
    let is_status =
        |line: &&str| line.strip_prefix("HTTP/1.1 ").is_some_and(|rest| rest.as_bytes()[0].is_ascii_digit());
    assert_eq!(said.lines().filter(is_status).count(), 1, "{} {way}: {said}", shape.0);
    assert!(said.to_lowercase().contains("connection: close"), "{} {way}: {said}", shape.0);
}

fn all() -> impl Iterator<Item = Shape> {
    [LENGTHS, CODINGS, FIELDS, TARGETS].into_iter().flatten().copied()
}

/// Notes each call, so that a hidden request that was served after all leaves a trace.
fn noting() -> Setup {
    Setup::sh("echo \"$REQUEST_URI\" >>calls; exec cat").setting("application.events", "[\"connect\"]")
}

fn assert_nothing_was_hidden(wootz: &Wootz) {
    assert_eq!(wootz.content("calls").matches("hidden").count(), 0, "{}", wootz.content("calls"));
    wait_until("only one connection is open", || (wootz.status()["connections"]["open"] == 1).then_some(()));
}

#[test]
fn request_that_can_be_read_in_two_ways_is_refused_once_with_400() {
    let wootz = noting().start();
    let mut other = wootz.open();
    for shape in all() {
        let mut raw = wootz.raw();
        raw.write(bend(&wootz.address().to_string(), shape));
        assert_refused_once("by ws", shape, &raw.rest());
    }
    assert_eq!(other.ask("still here"), "still here");
    assert_nothing_was_hidden(&wootz);
}

#[test]
fn request_that_can_be_read_in_two_ways_is_refused_once_with_400_behind_tls_too() {
    let authority = Authority::new("Test");
    authority.issue("localhost", "localhost");
    let [cert, key] = ["pem", "key"].map(|end| format!("{:?}", authority.path(&format!("localhost.{end}"))));
    let wootz = noting().setting("tls.cert", cert).setting("tls.key", key).start();
    let mut other = authority.open(wootz.address());
    for shape in all() {
        let mut secure = authority.connect(wootz.address(), "localhost", "").expect("TLS");
        secure.write(bend(&wootz.address().to_string(), shape));
        assert_refused_once("by wss", shape, &secure.rest());
    }
    assert_eq!(other.ask("still here"), "still here");
    assert_nothing_was_hidden(&wootz);
}

#[test]
fn request_behind_a_good_handshake_is_no_request() {
    let wootz = noting().start();
    let mut raw = Raw::connect(wootz.address());
    let good = handshake(wootz.address(), "/", "");
    let hidden = handshake(wootz.address(), "/hidden", "");
    raw.write([good.as_bytes(), hidden.as_bytes()].concat());
    assert!(raw.head().starts_with("HTTP/1.1 101 "));
    // `G` is a frame with a reserved bit.
    assert_eq!(raw.close_code(), 1002);
    drop(raw);
    let mut zero = Raw::connect(wootz.address());
    zero.write(handshake(wootz.address(), "/", "Content-Length: 0\r\n"));
    assert!(zero.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(zero.ask("a length of nothing"), "a length of nothing");
    assert_nothing_was_hidden(&wootz);
}
