//! RFC 6455 against the real binary: what breaks it is closed with the right code, and none of it becomes a call.

mod support;

use std::time::Duration;

use support::raw::{BINARY, CLOSE, FIN, PING, PONG, Raw, TEXT, close, frame, text};
use support::{Setup, Wootz};

/// An application that notes each call in a file and gives the message back.
fn echo() -> Setup {
    Setup::sh("echo \"$CONTENT_LENGTH\" >>calls; cat")
}

/// The calls until now, seen by a server that has answered everything before.
fn calls(wootz: &Wootz) -> usize {
    assert_eq!(wootz.connect().ask("/the-last-call"), "/the-last-call");
    wootz.content("calls").lines().count() - 1
}

#[test]
fn frame_that_breaks_the_protocol_is_closed_with_its_code_and_is_no_call() {
    let wootz = echo().settings("limits.max_message = \"64KiB\"\nlimits.max_frames = 100").start();
    let masked = |head: &[u8]| [head, &[0; 4]].concat();
    let long = |length: u64| masked(&[&[BINARY, 0xff][..], &length.to_be_bytes()].concat());
    let start = frame(0x01, "a");
    let cases: Vec<(&str, u16, Vec<u8>)> = vec![
        ("not masked", 1002, [&[TEXT, 5][..], b"hello"].concat()),
        ("reserved data opcode", 1002, frame(FIN | 3, "a")),
        ("reserved control opcode", 1002, frame(FIN | 11, "a")),
        ("RSV1", 1002, frame(TEXT | 0x40, "a")),
        ("RSV2", 1002, frame(TEXT | 0x20, "a")),
        ("RSV3", 1002, frame(TEXT | 0x10, "a")),
        ("RSV1 on a ping", 1002, frame(PING | 0x40, "a")),
        ("ping of 126 bytes", 1002, frame(PING, [0; 126])),
        ("fragmented ping", 1002, frame(PING & !FIN, "a")),
        ("length 5 in 16 bits", 1002, masked(&[TEXT, 0xfe, 0, 5])),
        ("length 5 in 64 bits", 1002, long(5)),
        ("length 65,535 in 64 bits", 1002, long(65_535)),
        ("length 2^63", 1002, long(1 << 63)),
        ("length 2^64 - 1", 1002, long(u64::MAX)),
        ("length 2^62", 1009, long(1 << 62)),
        ("length over the limit", 1009, long(65_537)),
        ("fragments over the limit", 1009, [start.clone(), frame(0, [0; 65_535]), frame(FIN, "b")].concat()),
        ("too many fragments", 1009, [start.clone(), frame(0, "").repeat(100)].concat()),
        ("continuation of nothing", 1002, frame(FIN, "a")),
        ("text within a text", 1002, [start.clone(), text("b")].concat()),
        ("text that is no UTF-8", 1007, frame(TEXT, b"a\xffb")),
        ("overlong UTF-8", 1007, frame(TEXT, b"\xc0\xaf")),
        ("surrogate", 1007, frame(TEXT, b"\xed\xa0\x80")),
        ("UTF-8 cut off", 1007, frame(TEXT, b"\xe2\x82")),
        ("UTF-8 wrong across fragments", 1007, [frame(0x01, b"\xe2"), frame(0, b"\x28")].concat()),
        ("UTF-8 wrong in an unfinished message", 1007, frame(0x01, b"\xff")),
        ("close with one byte", 1002, frame(CLOSE, [3])),
        ("close with 999", 1002, close(999, b"")),
        ("close with 1004", 1002, close(1004, b"")),
        ("close with 1005", 1002, close(1005, b"")),
        ("close with 1006", 1002, close(1006, b"")),
        ("close with 1015", 1002, close(1015, b"")),
        ("close with 1016", 1002, close(1016, b"")),
        ("close with 2999", 1002, close(2999, b"")),
        ("close with 5000", 1002, close(5000, b"")),
        ("close whose reason is no UTF-8", 1007, close(1000, b"\xff")),
    ];
    for (name, code, bytes) in &cases {
        let mut raw = wootz.open();
        // What follows a broken frame is never looked at.
        raw.write([&bytes[..], &text("/after")].concat());
        assert_eq!(raw.close_code(), *code, "{name}");
        raw.try_write(close(*code, b"")).ok();
        raw.ends();
    }
    assert_eq!(calls(&wootz), 0);
}

#[test]
fn invalid_utf8_is_failed_as_soon_as_it_is_known_within_a_frame() {
    let wootz = echo().start();
    let mut raw = wootz.open();
    let whole = frame(TEXT, [&b"good so far \xff"[..], &[b'a'; 1000]].concat());
    raw.write(&whole[..40]);
    assert_eq!(raw.close_code(), 1007);
}

#[test]
fn message_of_65536_fragments_is_one_call() {
    let wootz = echo().start();
    let mut raw = wootz.open();
    let first = frame(0x02, "a");
    raw.write([first, frame(0, "b").repeat(65_534), frame(FIN, "c")].concat());
    let reply = raw.frame();
    assert_eq!(reply.payload.len(), 65_536);
    assert!(reply.payload.starts_with(b"ab") && reply.payload.ends_with(b"bc"));
    assert_eq!(wootz.content("calls"), "65536\n");
}

#[test]
fn message_in_fragments_with_pings_between_them_is_one_call_and_the_pings_are_answered_first() {
    let wootz = echo().start();
    let mut raw = wootz.open();
    raw.write(frame(0x01, "one "));
    raw.write(frame(PING, "between"));
    let pong = raw.frame();
    assert_eq!((pong.first, &pong.payload[..]), (PONG, &b"between"[..]));
    raw.write([frame(0, ""), frame(0, "message\u{20ac}".as_bytes()), frame(FIN, "")].concat());
    assert_eq!(raw.frame().text(), "one message\u{20ac}");
    assert_eq!(calls(&wootz), 1);
}

#[test]
fn message_arriving_one_byte_at_a_time_is_one_call() {
    let wootz = echo().start();
    let mut raw = wootz.open();
    for byte in [frame(0x01, "a\u{20ac}"), frame(PING, "p"), frame(FIN, "\u{1f600} b")].concat() {
        raw.write([byte]);
    }
    assert_eq!(raw.frame(), support::raw::Frame { first: PONG, payload: b"p".to_vec() });
    assert_eq!(raw.frame().text(), "a\u{20ac}\u{1f600} b");
    assert_eq!(calls(&wootz), 1);
}

#[test]
fn ping_is_answered_with_its_payload_and_a_pong_is_taken_silently() {
    let wootz = echo().start();
    let mut raw = wootz.open();
    let longest = [b'x'; 125];
    raw.write([frame(PONG, "nobody asked"), frame(PING, ""), frame(PING, longest)].concat());
    assert_eq!(raw.frame().payload, b"");
    let pong = raw.frame();
    assert_eq!((pong.first, &pong.payload[..]), (PONG, &longest[..]));
    assert_eq!(raw.ask("/next"), "/next");
}

#[test]
fn close_is_answered_with_its_code_and_then_the_server_ends_the_connection() {
    let wootz = echo().start();
    for (bytes, code) in [
        (close(1000, b"bye"), 1000),
        (close(1001, b""), 1001),
        (close(3000, b""), 3000),
        (close(4999, "gr\u{fc}\u{df}e".as_bytes()), 4999),
        (frame(CLOSE, ""), 1005),
    ] {
        let mut raw = wootz.open();
        raw.write(bytes);
        assert_eq!(raw.close_code(), code);
        raw.ends();
    }
}

#[test]
fn frame_after_the_close_is_no_call() {
    let wootz = echo().start();
    let mut raw = wootz.open();
    raw.write([close(1000, b""), text("/after"), frame(PING, "after")].concat());
    assert_eq!(raw.close_code(), 1000);
    raw.ends();
    assert_eq!(calls(&wootz), 0);
}

#[test]
fn text_ping_is_answered_without_a_call_unless_the_file_says_otherwise() {
    let wootz = echo().start();
    assert_eq!(wootz.connect().ask("ping"), "pong");
    assert_eq!(calls(&wootz), 0);
    let wootz = echo().settings("limits.text_ping = false").start();
    assert_eq!(wootz.connect().ask("ping"), "ping");
    assert_eq!(calls(&wootz), 1);
}

#[test]
fn silent_peer_is_pinged_then_closed_with_4408_and_one_that_answers_stays() {
    let wootz = echo().settings("limits.ping_interval = \"300ms\"\nlimits.pong_timeout = \"300ms\"").start();
    let mut silent = wootz.open();
    let mut alive = wootz.open();
    for _ in 0..4 {
        let ping = alive.frame();
        assert_eq!(ping.first, PING);
        alive.write(frame(PONG, &ping.payload));
    }
    assert_eq!(silent.frame().first, PING);
    assert_eq!(silent.close_code(), 4408);
    assert!(!alive.ended_within(Duration::from_millis(1)));
    alive.write(text("/alive"));
    let reply = std::iter::repeat_with(|| alive.frame()).find(|frame| frame.first != PING).expect("endless");
    assert_eq!(reply.text(), "/alive");
}

#[test]
fn peer_that_never_answers_the_close_does_not_hold_the_connection() {
    let wootz = echo().start();
    let mut raw = wootz.open();
    raw.write(frame(FIN | 3, "a"));
    assert_eq!(raw.close_code(), 1002);
    raw.ends();
}

#[test]
fn large_messages_come_back_whole_with_minimal_lengths() {
    let wootz = echo().start();
    let mut raw = Raw::open(wootz.address());
    for length in [1, 125, 126, 127, 65_535, 65_536, 1024 * 1024] {
        let payload: Vec<u8> = (0..length).map(|index: usize| index.to_le_bytes()[0] | 0x80).collect();
        raw.write(frame(BINARY, &payload));
        let reply = raw.frame();
        assert_eq!(reply.first, BINARY, "{length}");
        assert!(reply.payload == payload, "{length} bytes came back as {}", reply.payload.len());
    }
}
