//! Messages in both directions, in every cut.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustls::version::{TLS12, TLS13};
use wootz_tls::{MAX_TRANSMIT_BYTES, TlsSettings, Transmit};

use crate::authority::Authority;
use crate::pair::{Pair, client_config};

const RECORD_HEADER_BYTES: usize = 5;

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|position| (position.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// The lengths of the records in `bytes`.
fn records(mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
        lengths.push(length);
        bytes = &bytes[RECORD_HEADER_BYTES + length..];
    }
    lengths
}

#[test]
fn messages_go_both_ways_one_byte_at_a_time() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(client_config(&authority, &[version]));
        let mut pair = Pair::new(&client, &acceptor);
        pair.run(|| 1).unwrap();
        assert_eq!(pair.progress.iter().filter(|progress| progress.handshake_completed).count(), 1);
        pair.send_up(b"up", || 1);
        pair.send_up(&noise(16 << 10), || 1);
        assert_eq!(pair.at_server, [&b"up"[..], &noise(16 << 10)].concat());
        pair.send_down(&[b"do", b"", b"wn", &noise(16 << 10)], || 1);
        assert_eq!(pair.at_client, [&b"down"[..], &noise(16 << 10)].concat());
    }
}

#[test]
fn messages_of_a_mebibyte_go_both_ways() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    let long = noise(1 << 20);
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(client_config(&authority, &[version]));
        let mut pair = Pair::new(&client, &acceptor);
        pair.shake_hands();
        pair.send_up(&long, || 40_000);
        assert!(pair.at_server == long, "the server got something else");
        pair.send_down(&[&long], || 40_000);
        assert!(pair.at_client == long, "the client got something else");
    }
}

#[test]
fn messages_survive_every_cut() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    let configs = [&TLS12, &TLS13].map(|version| Arc::new(client_config(&authority, &[version])));
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    let messages = vec(0..40_000_usize, 1..6);
    let slices = vec(prop_oneof![0..300_usize, 0..40_000_usize], 1..9);
    let cuts = vec(prop_oneof![1..40_usize, 1..20_000_usize], 1..30);
    runner
        .run(&(messages, slices, cuts, any::<bool>()), |(messages, slices, cuts, old)| {
            let mut cuts = cuts.into_iter().cycle();
            let mut cut = || cuts.next().unwrap_or(1);
            let mut pair = Pair::new(&configs[usize::from(!old)], &acceptor);
            pair.run(&mut cut).unwrap();
            for bytes in messages {
                pair.at_server.clear();
                pair.send_up(&noise(bytes), &mut cut);
                prop_assert!(pair.at_server == noise(bytes));
            }
            let slices: Vec<Vec<u8>> = slices.into_iter().map(noise).collect();
            let slices: Vec<&[u8]> = slices.iter().map(Vec::as_slice).collect();
            pair.send_down(&slices, &mut cut);
            prop_assert!(pair.at_client == slices.concat());
            let idle = format!("{:?}", pair.server);
            prop_assert!(idle.contains("received_bytes: 0") && idle.contains("pending_bytes: 0"), "{}", idle);
            Ok(())
        })
        .unwrap();
}

#[test]
fn small_slices_share_a_record_and_long_ones_fill_theirs() {
    const OVERHEAD: usize = 17;
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    let mut pair = Pair::new(&Arc::new(client_config(&authority, &[&TLS13])), &acceptor);
    pair.shake_hands();
    let (long, full) = (noise(40_000), 16 << 10);
    for (slices, plain) in [
        (vec![&b"ab"[..], b"", b"cd", b"e"], vec![5]),
        (vec![&long[..]], vec![full, full, 40_000 - 2 * full]),
        (vec![&b"abc"[..], &long[..], b"def"], vec![full, full, 40_006 - 2 * full]),
        (vec![&long[..full]], vec![full]),
        (vec![&b""[..]], vec![]),
        (vec![], vec![]),
    ] {
        let mut out = Vec::new();
        let taken = pair.server.encrypt(&slices, &mut out).unwrap();
        assert_eq!(taken, slices.concat().len());
        let expected: Vec<usize> = plain.into_iter().map(|bytes: usize| bytes + OVERHEAD).collect();
        assert_eq!(records(&out), expected);
        pair.give_client(&out).unwrap();
        assert!(pair.at_client == slices.concat(), "the client got something else");
        pair.at_client.clear();
    }
}

#[test]
fn what_a_full_socket_leaves_is_kept_within_its_bound_and_sent_first() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    let mut pair = Pair::new(&Arc::new(client_config(&authority, &[&TLS13])), &acceptor);
    pair.shake_hands();
    let long = noise(1 << 20);
    let mut out = Vec::new();
    let first = pair.server.encrypt(&[&long], &mut out).unwrap();
    assert!(out.len() >= MAX_TRANSMIT_BYTES && out.len() < MAX_TRANSMIT_BYTES + (17 << 10), "{} bytes", out.len());
    pair.server.keep(&out[10..]);
    assert_eq!((pair.server.pending_bytes(), pair.server.transmit()), (out.len() - 10, Transmit::Now));
    pair.give_client(&out[..10]).unwrap();

    // Little room came: nothing more is taken while so much is left.
    let mut again = Vec::new();
    assert_eq!(pair.server.encrypt(&[&long[first..]], &mut again).unwrap(), 0);
    assert!(again == out[10..], "something else came first");
    pair.server.keep(&again[200_000..]);
    pair.give_client(&again[..200_000]).unwrap();

    let mut last = Vec::new();
    let second = pair.server.encrypt(&[&long[first..]], &mut last).unwrap();
    assert!(second > 0);
    pair.give_client(&last).unwrap();
    assert_eq!((pair.server.pending_bytes(), pair.server.transmit()), (0, Transmit::Nothing));
    assert!(pair.at_client == long[..first + second], "the client got something else");
}

#[test]
fn keys_are_updated_when_the_client_asks() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    let mut pair = Pair::new(&Arc::new(client_config(&authority, &[&TLS13])), &acceptor);
    pair.shake_hands();
    for round in 0..40 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.run(|| 7).unwrap();
        pair.send_up(&[round], || 7);
        pair.send_down(&[&[round]], || 7);
    }
    assert_eq!(pair.at_server, (0..40).collect::<Vec<u8>>());
    assert_eq!(pair.at_client, pair.at_server);
}
