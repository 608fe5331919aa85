//! The closing handshake, from both sides.

use std::borrow::Cow;
use std::time::Duration;

use wootz_protocol::{CloseCode, CloseFrame, Event, Opcode, ProtocolError, TimeoutAction};

use crate::pair::{Link, Pair};

fn close_frame(code: CloseCode, reason: &str) -> Option<CloseFrame<'static>> {
    Some(CloseFrame { code, reason: Cow::Owned(reason.to_owned()) })
}

#[test]
fn closing_handshake_of_either_side_ends_both() {
    for read_bytes in [1, usize::MAX] {
        for server_begins in [true, false] {
            let mut pair = Pair::new();
            pair.read_bytes = read_bytes;
            let now = pair.now;
            let side = if server_begins { &mut pair.server } else { &mut pair.client };
            side.close(CloseCode::GoingAway, "so long", now);
            assert!(!side.endpoint.can_send() && !side.endpoint.is_finished());
            pair.deliver();

            let (first, second) =
                if server_begins { (&pair.server, &pair.client) } else { (&pair.client, &pair.server) };
            let [Event::Close { frame, answer: Some(_) }] = &second.events[..] else { panic!("{:?}", second.events) };
            assert_eq!(*frame, close_frame(CloseCode::GoingAway, "so long"));
            assert_eq!(first.events, [Event::Close { frame: close_frame(CloseCode::GoingAway, ""), answer: None }]);
            assert!(first.endpoint.is_finished() && second.endpoint.is_finished());
        }
    }
}

#[test]
fn close_without_a_code_is_answered_without_one() {
    let mut pair = Pair::new();
    pair.client.send(Opcode::Close, true, b"");
    pair.deliver();
    let [Event::Close { frame: None, answer: Some(answer) }] = &pair.server.events[..] else {
        panic!("{:?}", pair.server.events)
    };
    assert_eq!(answer.as_bytes(), b"\x88\x00");
}

#[test]
fn codes_of_applications_are_echoed() {
    let mut pair = Pair::new();
    pair.client.send(Opcode::Close, true, &3333_u16.to_be_bytes());
    pair.deliver();
    let [Event::Close { answer: Some(answer), .. }] = &pair.server.events[..] else {
        panic!("{:?}", pair.server.events)
    };
    assert_eq!(answer.as_bytes(), [&b"\x88\x02"[..], &3333_u16.to_be_bytes()].concat());
}

#[test]
fn closes_that_cross_on_the_way_end_both_sides_without_an_answer() {
    let mut pair = Pair::new();
    let now = pair.now;
    pair.server.close(CloseCode::GoingAway, "", now);
    pair.client.close(CloseCode::Normal, "", now);
    pair.deliver();
    assert_eq!(pair.server.events, [Event::Close { frame: close_frame(CloseCode::Normal, ""), answer: None }]);
    assert_eq!(pair.client.events, [Event::Close { frame: close_frame(CloseCode::GoingAway, ""), answer: None }]);
}

#[test]
fn a_second_close_is_not_sent() {
    let mut pair = Pair::new();
    assert!(pair.server.endpoint.close(CloseCode::Normal, "", pair.now).is_some());
    assert_eq!(pair.server.endpoint.close(CloseCode::GoingAway, "", pair.now), None);
}

#[test]
fn what_the_peer_sends_between_our_close_and_its_own_is_read_and_ignored() {
    for read_bytes in [1, usize::MAX] {
        let mut pair = Pair::new();
        pair.read_bytes = read_bytes;
        pair.client.send(Opcode::Text, false, b"begun ");
        pair.client.send(Opcode::Continuation, false, b"bef");
        pair.deliver();
        let now = pair.now;
        pair.server.close(CloseCode::GoingAway, "", now);
        pair.client.send(Opcode::Ping, true, b"late");
        pair.client.send(Opcode::Continuation, true, b"not even UTF-8: \xff");
        pair.client.send(Opcode::Binary, true, &[0; 2 * 1024 * 1024]);
        pair.deliver();
        assert_eq!(pair.server.events, [Event::Close { frame: close_frame(CloseCode::GoingAway, ""), answer: None }]);
    }
}

#[test]
fn frames_after_a_close_are_thrown_away() {
    let mut pair = Pair::new();
    let now = pair.now;
    pair.client.close(CloseCode::Normal, "", now);
    pair.client.send(Opcode::Text, true, b"and another thing");
    pair.client.send(Opcode::Ping, true, b"");
    pair.client.send(Opcode::Close, true, b"\xff");
    pair.deliver();
    assert!(matches!(&pair.server.events[..], [Event::Close { .. }]), "{:?}", pair.server.events);
}

#[test]
fn peer_that_breaks_the_protocol_during_the_closing_handshake_gets_no_second_close() {
    let mut pair = Pair::new();
    let now = pair.now;
    pair.server.close(CloseCode::GoingAway, "", now);
    pair.client.send(Opcode::Close, true, b"\x00");
    pair.deliver();
    assert_eq!(pair.server.events, [Event::Failed { error: ProtocolError::TruncatedCloseCode, answer: None }]);
    assert!(pair.server.endpoint.is_finished());
}

#[test]
fn peer_that_never_answers_a_close_is_dropped_after_the_close_timeout() {
    let mut pair = Pair::new();
    pair.link = Link::ClientMute;
    let now = pair.now;
    pair.server.close(CloseCode::GoingAway, "", now);
    let timeout = pair.settings.keepalive.close_timeout;
    pair.advance(timeout - Duration::from_nanos(1));
    assert_eq!(pair.server.actions, []);
    pair.advance(Duration::from_nanos(1));
    assert_eq!(pair.server.actions, [TimeoutAction::CloseTimedOut]);
    assert!(pair.server.endpoint.is_finished());
    assert_eq!(pair.server.endpoint.poll_timeout(&pair.settings), None);
}

#[test]
fn chatter_does_not_put_off_the_close_timeout() {
    let mut pair = Pair::new();
    let now = pair.now;
    pair.link = Link::ClientMute;
    pair.server.close(CloseCode::GoingAway, "", now);
    pair.deliver();
    pair.link = Link::Joined;
    let deadline = pair.server.endpoint.poll_timeout(&pair.settings);
    pair.now += Duration::from_secs(1);
    pair.client.send(Opcode::Text, true, b"still here");
    pair.deliver();
    assert_eq!(pair.server.endpoint.poll_timeout(&pair.settings), deadline);
    assert!(deadline.is_some());
}

#[test]
fn finished_side_has_a_deadline_for_its_last_bytes() {
    let mut pair = Pair::new();
    let now = pair.now;
    pair.client.close(CloseCode::Normal, "", now);
    pair.deliver();
    assert!(pair.server.endpoint.is_finished());
    let timeout = pair.settings.keepalive.close_timeout;
    assert_eq!(pair.server.endpoint.poll_timeout(&pair.settings), Some(now + timeout));
    pair.advance(timeout);
    assert_eq!(pair.server.actions, [TimeoutAction::CloseTimedOut]);
}
