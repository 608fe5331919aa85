//! Messages arrive as they were sent, however the transport cuts them.

use std::borrow::Cow;
use std::time::Instant;

use proptest::prelude::*;
use wootz_protocol::{Endpoint, Event, Input, Limits, Message, Opcode, ProtocolError, Role, Settings, encode_masked};

use crate::pair::{Pair, next_mask};

fn text(text: &str) -> Event<'static> {
    Event::Message(Message::Text(Cow::Owned(text.to_owned())))
}

fn binary(bytes: &[u8]) -> Event<'static> {
    Event::Message(Message::Binary(Cow::Owned(bytes.to_owned())))
}

/// All events that `bytes` bring a new server, read in pieces that end at `cuts`.
fn events(bytes: &[u8], cuts: &[usize], settings: &Settings) -> Vec<Event<'static>> {
    let now = Instant::now();
    let mut endpoint = Endpoint::new(Role::Server, now);
    let mut events = Vec::new();
    let mut start = 0;
    for end in cuts.iter().copied().chain([bytes.len()]) {
        let mut read = bytes[start..end].to_vec();
        start = end;
        let mut input = Input::new(&mut read);
        while let Some(event) = endpoint.next_event(&mut input, settings, now) {
            events.push(event.into_owned());
        }
        assert!(input.is_empty(), "the endpoint left bytes behind");
    }
    let ended = matches!(events.last(), Some(Event::Failed { .. } | Event::Close { .. }));
    assert_eq!(endpoint.is_finished(), ended);
    assert_eq!(
        events.iter().filter(|event| matches!(event, Event::Failed { .. } | Event::Close { .. })).count(),
        usize::from(ended)
    );
    events
}

#[test]
fn messages_of_all_lengths_pass_both_ways_in_reads_of_any_length() {
    for read_bytes in [1, 2, 7, 4096, usize::MAX] {
        let mut pair = Pair::new();
        pair.read_bytes = read_bytes;
        let mut expected = Vec::new();
        for length in [0, 1, 125, 126, 0xffff, 0x1_0000] {
            let payload = "é".repeat(length / 2) + if length % 2 == 1 { "." } else { "" };
            for side in [&mut pair.client, &mut pair.server] {
                side.send(Opcode::Text, true, payload.as_bytes());
                side.send(Opcode::Binary, true, payload.as_bytes());
            }
            expected.extend([text(&payload), binary(payload.as_bytes())]);
        }
        pair.deliver();
        assert_eq!(pair.server.events, expected);
        assert_eq!(pair.client.events, expected);
    }
}

#[test]
fn a_message_that_arrives_whole_is_not_copied() {
    let (now, settings) = (Instant::now(), Settings::default());
    let mut bytes = Vec::new();
    encode_masked(Opcode::Text, true, b"here", next_mask(), &mut bytes);
    let place = bytes.as_ptr().wrapping_add(6);
    let mut endpoint = Endpoint::new(Role::Server, now);
    let event = endpoint.next_event(&mut Input::new(&mut bytes), &settings, now);
    let Some(Event::Message(Message::Text(Cow::Borrowed(text)))) = event else { panic!("{event:?}") };
    assert_eq!((text, text.as_ptr()), ("here", place));
}

#[test]
fn control_frames_between_fragments_are_answered_before_the_message_ends() {
    let mut pair = Pair::new();
    pair.client.send(Opcode::Text, false, b"one ");
    pair.client.send(Opcode::Ping, true, b"first");
    pair.client.send(Opcode::Continuation, false, b"");
    pair.client.send(Opcode::Ping, true, b"second");
    pair.client.send(Opcode::Pong, true, b"unasked");
    pair.client.send(Opcode::Continuation, true, b"two");
    pair.deliver();
    let [Event::Ping { answer: first }, Event::Ping { answer: second }, Event::Pong, message] = &pair.server.events[..]
    else {
        panic!("{:?}", pair.server.events)
    };
    assert_eq!((first.as_bytes(), second.as_bytes()), (&b"\x8a\x05first"[..], &b"\x8a\x06second"[..]));
    assert_eq!(*message, text("one two"));
    assert_eq!(pair.client.events, [Event::Pong, Event::Pong]);
}

#[test]
fn message_of_65537_fragments_passes_and_one_more_does_not() {
    let settings = Settings::default();
    for (earlier, passes) in [(65_536, true), (65_537, false)] {
        let mut bytes = Vec::new();
        for index in 0..earlier {
            let opcode = if index == 0 { Opcode::Binary } else { Opcode::Continuation };
            encode_masked(opcode, false, b"x", next_mask(), &mut bytes);
        }
        encode_masked(Opcode::Continuation, true, b"", next_mask(), &mut bytes);
        match &events(&bytes, &[], &settings)[..] {
            [Event::Message(message)] => assert!(passes && message.as_bytes().len() == earlier),
            [Event::Failed { error, .. }] => assert!(!passes && *error == ProtocolError::TooManyFrames),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn empty_fragments_count_against_the_limit() {
    let settings = Settings { limits: Limits { max_frames: 3, ..Limits::default() }, ..Settings::default() };
    let mut bytes = Vec::new();
    encode_masked(Opcode::Text, false, b"", next_mask(), &mut bytes);
    for _ in 0..3 {
        encode_masked(Opcode::Continuation, false, b"", next_mask(), &mut bytes);
    }
    let events = events(&bytes, &[], &settings);
    assert!(matches!(&events[..], [Event::Failed { error: ProtocolError::TooManyFrames, .. }]), "{events:?}");
}

#[test]
fn message_at_the_limit_passes_and_one_byte_more_fails_at_the_header() {
    let settings = Settings { limits: Limits { max_message_bytes: 1000, ..Limits::default() }, ..Settings::default() };
    for (first, second, passes) in [(1000, 0, true), (600, 400, true), (1001, 0, false), (600, 401, false)] {
        let mut bytes = Vec::new();
        encode_masked(Opcode::Binary, false, &vec![0; first], next_mask(), &mut bytes);
        encode_masked(Opcode::Continuation, true, &vec![0; second], next_mask(), &mut bytes);
        let all = events(&bytes, &[], &settings);
        assert_eq!(matches!(&all[..], [Event::Message(_)]), passes, "{first} + {second}");
        if !passes {
            // Without the last frame's payload.
            let refused_payload = if second == 0 { first + 6 } else { second };
            let header_only = events(&bytes[..bytes.len() - refused_payload], &[], &settings);
            assert!(
                matches!(&header_only[..], [Event::Failed { error: ProtocolError::MessageTooLarge, .. }]),
                "{header_only:?}"
            );
        }
    }
}

#[test]
fn a_character_that_a_fragment_cuts_counts_against_the_limit() {
    let settings = Settings { limits: Limits { max_message_bytes: 4, ..Limits::default() }, ..Settings::default() };
    for (rest, passes) in [(&b"\xa9c"[..], false), (b"\xa9", true)] {
        let mut bytes = Vec::new();
        encode_masked(Opcode::Text, false, b"ab\xc3", next_mask(), &mut bytes);
        encode_masked(Opcode::Continuation, true, rest, next_mask(), &mut bytes);
        assert_eq!(matches!(&events(&bytes, &[], &settings)[..], [Event::Message(_)]), passes);
    }
}

/// What a client sends, and how it cuts it.
#[derive(Debug, Clone)]
enum Sent {
    Text(String, Vec<prop::sample::Index>),
    Binary(Vec<u8>, Vec<prop::sample::Index>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

fn sent() -> impl Strategy<Value = Sent> {
    let cuts = || prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    prop_oneof![
        (".{0,150}", cuts()).prop_map(|(text, cuts)| Sent::Text(text, cuts)),
        (prop::collection::vec(any::<u8>(), 0..400), cuts()).prop_map(|(bytes, cuts)| Sent::Binary(bytes, cuts)),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(Sent::Ping),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(Sent::Pong),
    ]
}

fn positions(cuts: &[prop::sample::Index], length: usize) -> Vec<usize> {
    let mut positions: Vec<usize> = cuts.iter().map(|cut| cut.index(length + 1)).collect();
    positions.sort_unstable();
    positions
}

fn encode_fragments(opcode: Opcode, payload: &[u8], cuts: &[prop::sample::Index], out: &mut Vec<u8>) {
    let cuts = positions(cuts, payload.len());
    let ends: Vec<usize> = cuts.into_iter().chain([payload.len()]).collect();
    let mut start = 0;
    for (index, end) in ends.iter().enumerate() {
        let opcode = if index == 0 { opcode } else { Opcode::Continuation };
        encode_masked(opcode, index + 1 == ends.len(), &payload[start..*end], next_mask(), out);
        start = *end;
    }
}

fn encode(sent: &[Sent]) -> (Vec<u8>, Vec<Event<'static>>) {
    let (mut bytes, mut messages) = (Vec::new(), Vec::new());
    for sent in sent {
        match sent {
            Sent::Text(payload, cuts) => {
                encode_fragments(Opcode::Text, payload.as_bytes(), cuts, &mut bytes);
                messages.push(text(payload));
            }
            Sent::Binary(payload, cuts) => {
                encode_fragments(Opcode::Binary, payload, cuts, &mut bytes);
                messages.push(binary(payload));
            }
            Sent::Ping(payload) => encode_masked(Opcode::Ping, true, payload, next_mask(), &mut bytes),
            Sent::Pong(payload) => encode_masked(Opcode::Pong, true, payload, next_mask(), &mut bytes),
        }
    }
    (bytes, messages)
}

proptest! {
    #[test]
    fn any_messages_in_any_fragments_and_any_reads_arrive_as_sent(
        sent in prop::collection::vec(sent(), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let settings = Settings::default();
        let (bytes, expected) = encode(&sent);
        let whole = events(&bytes, &[], &settings);
        let messages: Vec<_> = whole.iter().filter(|event| matches!(event, Event::Message(_))).cloned().collect();
        prop_assert_eq!(messages, expected);
        prop_assert_eq!(events(&bytes, &positions(&cuts, bytes.len()), &settings), whole);
    }

    #[test]
    fn damaged_bytes_bring_the_same_events_in_any_reads(
        sent in prop::collection::vec(sent(), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let settings = Settings { limits: Limits { max_message_bytes: 300, max_frames: 2 }, ..Settings::default() };
        let (mut bytes, _) = encode(&sent);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let whole = events(&bytes, &[], &settings);
        prop_assert_eq!(&events(&bytes, &positions(&cuts, bytes.len()), &settings), &whole);
        let every_byte: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(&events(&bytes, &every_byte, &settings), &whole);
    }

    #[test]
    fn random_bytes_fail_or_are_consumed(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let settings = Settings::default();
        let whole = events(&bytes, &[], &settings);
        prop_assert_eq!(events(&bytes, &positions(&cuts, bytes.len()), &settings), whole);
    }
}
