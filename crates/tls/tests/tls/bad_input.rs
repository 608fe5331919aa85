//! What a peer can do wrong, and what it is told.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustls::crypto::cipher::{OutboundChunks, OutboundPlainMessage};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite};
use wootz_tls::{ANSWER_TO_PLAIN_HTTP, Fault, TlsConnection, TlsError, TlsSettings, Transmit};

use crate::authority::Authority;
use crate::pair::{Pair, client_config};

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const FATAL: u8 = 2;

fn receive(server: &mut TlsConnection, bytes: &[u8]) -> Result<(), TlsError> {
    let mut plaintext = Vec::new();
    server.receive(&mut bytes.to_vec(), &mut plaintext)?;
    assert_eq!(plaintext, []);
    Ok(())
}

/// Checks that `server` says one fatal alert in plain, and is done.
fn assert_alert(server: &mut TlsConnection, alert: AlertDescription) {
    let mut out = Vec::new();
    server.poll_transmit(&mut out);
    assert_eq!((out[0], &out[3..]), (ALERT, &[0, 2, FATAL, u8::from(alert)][..]));
    receive(server, b"more").unwrap();
    assert_eq!(server.transmit(), Transmit::Nothing);
    assert_eq!(server.encrypt(&[b"more"], &mut out).unwrap(), 0);
}

/// A ClientHello as SSL 3.0 to TLS 1.1 had it: no extension.
fn old_hello(minor: u8) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 4, 0, 47, 0, 53, 1, 0]);
    let message = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    [&[HANDSHAKE, 3, minor, 0, message.len() as u8][..], &message].concat()
}

#[test]
fn old_versions_are_refused_with_an_alert() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    for minor in 0..3 {
        let mut server = acceptor.accept().unwrap();
        let error = receive(&mut server, &old_hello(minor)).unwrap_err();
        assert_eq!(error, TlsError::Incompatible("the client speaks no TLS 1.2 or newer".to_owned()));
        assert_alert(&mut server, AlertDescription::HandshakeFailure);
    }
}

#[test]
fn plain_http_is_answered_in_http() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    for request in [&b"GET / HTTP/1.1\r\n"[..], b"P"] {
        let mut server = acceptor.accept().unwrap();
        assert_eq!(receive(&mut server, request).unwrap_err(), TlsError::PlainHttp);
        let mut out = Vec::new();
        server.poll_transmit(&mut out);
        assert_eq!(out, ANSWER_TO_PLAIN_HTTP);
        receive(&mut server, b"more").unwrap();
        server.close(&mut out);
        assert_eq!(out, ANSWER_TO_PLAIN_HTTP);
    }
}

#[test]
fn a_handshake_that_stalls_at_any_byte_is_waited_for_and_says_nothing() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    let client = Arc::new(client_config(&authority, &[&TLS12, &TLS13]));
    let hello = Pair::new(&client, &acceptor).client_bytes();
    for end in 0..hello.len() {
        let mut server = acceptor.accept().unwrap();
        receive(&mut server, &hello[..end]).unwrap();
        assert!(server.is_handshaking());
        assert_eq!((server.transmit(), server.pending_bytes()), (Transmit::Nothing, 0), "at byte {end}");
        receive(&mut server, &hello[end..]).unwrap();
        assert_eq!(server.transmit(), Transmit::Now, "at byte {end}");
    }
}

#[test]
fn an_endless_handshake_message_is_refused() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    for part in [1, 100, 16 << 10] {
        let mut server = acceptor.accept().unwrap();
        let begin = [1, 0, 0xF0, 0];
        receive(&mut server, &[&[HANDSHAKE, 3, 1, 0, begin.len() as u8][..], &begin].concat()).unwrap();
        let [high, low] = (part as u16).to_be_bytes();
        let record = [&[HANDSHAKE, 3, 1, high, low][..], &vec![0; part]].concat();
        let error = (0..40_000).find_map(|_| receive(&mut server, &record).err()).expect("an end");
        assert!(matches!(error, TlsError::LongHandshakeMessage(_)), "{error}");
        assert_eq!(error.fault(), Fault::Limit);
        receive(&mut server, &record).unwrap();
    }
}

#[test]
fn records_that_can_t_be_are_refused_at_their_header() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    for (header, alert) in [
        ([HANDSHAKE, 3, 1, 0x48, 1], AlertDescription::DecodeError),
        ([HANDSHAKE, 3, 1, 0, 0], AlertDescription::DecodeError),
        ([99, 3, 1, 0, 1], AlertDescription::DecodeError),
        ([HANDSHAKE, 9, 1, 0, 1], AlertDescription::DecodeError),
    ] {
        for cut in [1, 5] {
            let mut server = acceptor.accept().unwrap();
            let error = header.chunks(cut).find_map(|part| receive(&mut server, part).err()).expect("a refusal");
            assert_eq!(error.fault(), Fault::Peer, "{error}");
            let mut out = Vec::new();
            server.poll_transmit(&mut out);
            assert_eq!(out.last(), Some(&u8::from(alert)), "{header:?}: {error}");
        }
    }
}

/// A server after the handshake, and what writes records as its client, also such as no client would write.
fn forger() -> (TlsConnection, impl FnMut(ContentType, &[u8]) -> Vec<u8>) {
    let authority = Authority::new();
    let mut client = client_config(&authority, &[&TLS13]);
    client.enable_secret_extraction = true;
    let mut pair = Pair::new(&Arc::new(client), &authority.acceptor(&TlsSettings::default()));
    pair.shake_hands();
    let Pair { client, server, .. } = pair;
    let Some(SupportedCipherSuite::Tls13(suite)) = client.negotiated_cipher_suite() else { panic!("another version") };
    let (mut sequence, secrets) = client.dangerous_extract_secrets().unwrap().tx;
    let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else { panic!("another cipher") };
    let mut encrypter = suite.aead_alg.encrypter(key, iv);
    let forge = move |typ: ContentType, payload: &[u8]| {
        let payload = OutboundChunks::Single(payload);
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_3, payload };
        let record = encrypter.encrypt(message, sequence).unwrap().encode();
        sequence += 1;
        record
    };
    (server, forge)
}

#[test]
fn a_record_of_16_kib_is_read_and_one_byte_more_is_refused() {
    let (mut server, mut forge) = forger();
    let mut plaintext = Vec::new();
    let longest = vec![b'x'; 16 << 10];
    server.receive(&mut forge(ContentType::ApplicationData, &longest), &mut plaintext).unwrap();
    assert!(plaintext == longest);
    let mut longer = forge(ContentType::ApplicationData, &vec![b'x'; (16 << 10) + 1]);
    let error = server.receive(&mut longer, &mut plaintext).unwrap_err();
    assert_eq!(error.fault(), Fault::Peer, "{error}");
    assert!(plaintext == longest && server.transmit() == Transmit::Now);
}

#[test]
fn empty_records_are_let_pass_but_not_for_ever() {
    let (mut server, mut forge) = forger();
    let mut plaintext = Vec::new();
    for _ in 0..5_000 {
        server.receive(&mut forge(ContentType::ApplicationData, b""), &mut plaintext).unwrap();
        server.receive(&mut forge(ContentType::ApplicationData, b"x"), &mut plaintext).unwrap();
    }
    assert_eq!(plaintext.len(), 5_000);
    let mut error = None;
    for _ in 0..5_000 {
        error = server.receive(&mut forge(ContentType::ApplicationData, b""), &mut plaintext).err();
        if error.is_some() {
            break;
        }
    }
    let error = error.expect("an end");
    assert_eq!(error.fault(), Fault::Peer, "{error}");
}

#[test]
fn updates_of_keys_that_nobody_made_are_refused() {
    let (mut server, mut forge) = forger();
    // The forger's keys stay, so that a second update can't be read; and two in one record are no update at all.
    let update = [24, 0, 0, 1, 0];
    receive(&mut server, &forge(ContentType::Handshake, &update)).unwrap();
    let error = receive(&mut server, &forge(ContentType::Handshake, &update)).unwrap_err();
    assert_eq!(error.fault(), Fault::Peer, "{error}");

    let (mut server, mut forge) = forger();
    let error = receive(&mut server, &forge(ContentType::Handshake, &update.repeat(2))).unwrap_err();
    assert_eq!(error.fault(), Fault::Peer, "{error}");
}

#[test]
fn a_changed_bit_ends_the_connection_with_an_alert() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::new(&Arc::new(client_config(&authority, &[version])), &acceptor);
        pair.shake_hands();
        std::io::Write::write_all(&mut pair.client.writer(), b"message").unwrap();
        let mut bytes = pair.client_bytes();
        *bytes.last_mut().unwrap() ^= 1;
        let error = pair.give_server(&bytes).unwrap_err();
        assert_eq!((error.fault(), &pair.at_server[..]), (Fault::Peer, &b""[..]), "{error}");
        let mut out = Vec::new();
        pair.server.poll_transmit(&mut out);
        let told = pair.give_client(&out).unwrap_err();
        assert_eq!(told, rustls::Error::AlertReceived(AlertDescription::BadRecordMac));
    }
}

#[test]
fn an_alert_of_the_client_is_told_as_such() {
    let authority = Authority::new();
    let other = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    // It does not know the server's authority.
    let mut pair = Pair::new(&Arc::new(client_config(&other, &[&TLS13])), &acceptor);
    let hello = pair.client_bytes();
    pair.give_server(&hello).unwrap();
    let mut flight = Vec::new();
    pair.server.poll_transmit(&mut flight);
    pair.give_client(&flight).unwrap_err();
    let alert = pair.client_bytes();
    let error = pair.give_server(&alert).unwrap_err();
    assert!(matches!(error, TlsError::Alert(_)), "{error}");
    assert_eq!(pair.server.transmit(), Transmit::Nothing);
}

#[test]
fn no_bytes_of_a_stranger_s_do_more_than_end_the_connection() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    let client = Arc::new(client_config(&authority, &[&TLS12, &TLS13]));
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let headers = prop_oneof![
        Just(vec![]),
        (20..25_u8, 0..5_u8, 0..200_u8).prop_map(|(typ, minor, length)| vec![typ, 3, minor, 0, length])
    ];
    let parts = vec((headers, vec(any::<u8>(), 0..200)), 1..20);
    runner
        .run(&(0..2_000_usize, parts), |(end, parts)| {
            let mut pair = Pair::new(&client, &acceptor);
            let hello = pair.client_bytes();
            let mut ended = pair.give_server(&hello[..end.min(hello.len())]).is_err();
            for (header, body) in parts {
                let result = pair.give_server(&[header, body].concat());
                prop_assert!(!(ended && result.is_err()), "it failed twice");
                ended |= result.is_err();
            }
            prop_assert_eq!(pair.at_server.len(), 0);
            Ok(())
        })
        .unwrap();
}
