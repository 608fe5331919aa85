//! Silence, pings, and peers that are given up.

use std::time::Duration;

use wootz_protocol::{CloseCode, Event, Opcode, TimeoutAction};

use crate::pair::{Link, Pair};

const SECOND: Duration = Duration::from_secs(1);

fn pings(actions: &[TimeoutAction]) -> usize {
    actions.iter().filter(|action| matches!(action, TimeoutAction::Ping(_))).count()
}

/// Only the server pings, so that its deadlines are seen alone.
fn pair() -> Pair {
    let mut pair = Pair::new();
    pair.settings.keepalive.ping_interval = 20 * SECOND;
    pair.settings.keepalive.pong_timeout = 10 * SECOND;
    pair.client.endpoint.suspend_keepalive();
    pair
}

#[test]
fn quiet_peer_that_answers_pings_stays_for_hours() {
    let mut pair = pair();
    pair.advance(3600 * SECOND);
    assert_eq!(pings(&pair.server.actions), pair.server.actions.len());
    assert!(pings(&pair.server.actions) >= 170, "{}", pair.server.actions.len());
    assert!(pair.server.endpoint.can_send() && pair.client.endpoint.can_send());
}

#[test]
fn silent_peer_is_pinged_once_and_given_up_with_4408() {
    let mut pair = pair();
    pair.link = Link::ClientMute;
    pair.advance(30 * SECOND - Duration::from_nanos(1));
    assert!(matches!(&pair.server.actions[..], [TimeoutAction::Ping(frame)] if frame.as_bytes() == b"\x89\x00"));
    pair.advance(Duration::from_nanos(1));
    let [_, TimeoutAction::PeerSilent(close)] = &pair.server.actions[..] else { panic!("{:?}", pair.server.actions) };
    assert_eq!(close.as_bytes()[2..4], 4408_u16.to_be_bytes());
    assert!(pair.server.endpoint.is_finished());
    let Some(Event::Close { frame: Some(frame), .. }) = pair.client.events.last() else {
        panic!("{:?}", pair.client.events)
    };
    assert_eq!(frame.code, CloseCode::SilentPeer);
}

#[test]
fn any_byte_is_a_sign_of_life_even_one_of_an_unfinished_frame() {
    let mut pair = pair();
    pair.client.endpoint.suspend_keepalive();
    pair.read_bytes = 1;
    pair.client.send(Opcode::Binary, false, b"");
    pair.deliver();
    pair.advance(19 * SECOND);
    assert_eq!(pair.server.actions, []);
    pair.client.send(Opcode::Continuation, false, b"");
    pair.deliver();
    let heard = pair.now;
    assert_eq!(pair.server.endpoint.poll_timeout(&pair.settings), Some(heard + 20 * SECOND));
    pair.advance(19 * SECOND);
    assert_eq!(pair.server.actions, []);
}

#[test]
fn any_byte_after_a_ping_answers_it() {
    let mut pair = pair();
    pair.link = Link::ClientMute;
    pair.advance(25 * SECOND);
    assert_eq!(pings(&pair.server.actions), 1);
    pair.link = Link::Joined;
    pair.client.send(Opcode::Text, true, b"busy, but here");
    pair.deliver();
    assert_eq!(pair.server.endpoint.poll_timeout(&pair.settings), Some(pair.now + 20 * SECOND));
}

#[test]
fn deadline_asked_for_too_early_does_nothing() {
    let mut pair = pair();
    let deadline = pair.server.endpoint.poll_timeout(&pair.settings).unwrap();
    let early = deadline - Duration::from_nanos(1);
    assert_eq!(pair.server.endpoint.handle_timeout(&pair.settings, early), None);
    assert_eq!(pair.server.endpoint.poll_timeout(&pair.settings), Some(deadline));
}

#[test]
fn late_driver_gives_the_peer_the_whole_pong_timeout() {
    let mut pair = pair();
    let late = pair.now + 300 * SECOND;
    let action = pair.server.endpoint.handle_timeout(&pair.settings, late);
    assert!(matches!(action, Some(TimeoutAction::Ping(_))), "{action:?}");
    assert_eq!(pair.server.endpoint.poll_timeout(&pair.settings), Some(late + 10 * SECOND));
}

#[test]
fn silence_is_not_held_against_a_peer_that_is_not_read() {
    let mut pair = pair();
    pair.link = Link::ClientMute;
    pair.advance(25 * SECOND);
    pair.server.endpoint.suspend_keepalive();
    pair.advance(600 * SECOND);
    assert_eq!(pings(&pair.server.actions), pair.server.actions.len());
    assert!(pair.server.actions.len() >= 29, "pings go on for the proxies' sake");
    pair.server.endpoint.resume_keepalive(pair.now);
    assert_eq!(pair.server.endpoint.poll_timeout(&pair.settings), Some(pair.now + 20 * SECOND));
    pair.advance(30 * SECOND);
    assert!(matches!(pair.server.actions.last(), Some(TimeoutAction::PeerSilent(_))));
}

#[test]
fn resuming_what_was_not_suspended_changes_nothing() {
    let mut pair = pair();
    let deadline = pair.server.endpoint.poll_timeout(&pair.settings);
    pair.server.endpoint.resume_keepalive(pair.now + SECOND);
    assert_eq!(pair.server.endpoint.poll_timeout(&pair.settings), deadline);
}

#[test]
fn interval_of_zero_means_no_pings_and_timeout_of_zero_means_no_giving_up() {
    let mut pair = pair();
    pair.link = Link::ClientMute;
    pair.settings.keepalive.pong_timeout = Duration::ZERO;
    pair.advance(100 * SECOND);
    assert_eq!((pings(&pair.server.actions), pair.server.actions.len()), (5, 5));
    pair.settings.keepalive.ping_interval = Duration::ZERO;
    assert_eq!(pair.server.endpoint.poll_timeout(&pair.settings), None);
}

#[test]
fn wait_longer_than_the_clock_is_no_deadline() {
    let mut pair = pair();
    pair.settings.keepalive.ping_interval = Duration::MAX;
    assert_eq!(pair.server.endpoint.poll_timeout(&pair.settings), None);
}
