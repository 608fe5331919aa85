//! Handshakes, tickets and closes.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ServerConfig, ServerConnection};
use wootz_tls::{Alpn, Certificates, TlsAcceptor, TlsSettings, Transmit, Version};

use crate::authority::Authority;
use crate::pair::{Pair, client_config};

#[test]
fn both_versions_are_spoken_and_told() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    for (version, told) in [(&TLS12, Version::Tls12), (&TLS13, Version::Tls13)] {
        let mut client = client_config(&authority, &[version]);
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut pair = Pair::new(&Arc::new(client), &acceptor);
        assert_eq!((pair.server.version(), pair.server.has_begun()), (None, false));
        pair.shake_hands();
        assert!(pair.server.has_begun() && !pair.server.is_resumed());
        assert_eq!((pair.server.version(), pair.server.alpn()), (Some(told), Some(Alpn::Http1)));
        assert!(pair.server.cipher_suite().is_some_and(|suite| suite.starts_with("TLS")));
    }
}

#[test]
fn a_client_may_ask_for_no_protocol_but_not_for_unknown_ones_only() {
    let authority = Authority::new();
    let settings = TlsSettings { alpn: vec![Alpn::Http2, Alpn::Http1], ..TlsSettings::default() };
    let acceptor = authority.acceptor(&settings);
    let mut client = client_config(&authority, &[&TLS13]);
    let mut pair = Pair::new(&Arc::new(client.clone()), &acceptor);
    pair.shake_hands();
    assert_eq!(pair.server.alpn(), None);

    client.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let mut pair = Pair::new(&Arc::new(client.clone()), &acceptor);
    pair.shake_hands();
    assert_eq!(pair.server.alpn(), Some(Alpn::Http2));

    client.alpn_protocols = vec![b"spdy/3".to_vec()];
    let mut pair = Pair::new(&Arc::new(client), &acceptor);
    let error = pair.run(|| usize::MAX).unwrap_err();
    assert_eq!(error.fault(), wootz_tls::Fault::Peer, "{error}");
}

#[test]
fn an_older_version_than_the_oldest_is_refused_with_an_alert() {
    let authority = Authority::new();
    let settings = TlsSettings { oldest_version: Version::Tls13, ..TlsSettings::default() };
    let acceptor = authority.acceptor(&settings);
    let mut pair = Pair::new(&Arc::new(client_config(&authority, &[&TLS12])), &acceptor);
    pair.run(|| usize::MAX).unwrap_err();
    let mut out = Vec::new();
    pair.server.poll_transmit(&mut out);
    let error = pair.give_client(&out).unwrap_err();
    assert_eq!(error, rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion));
}

#[test]
fn a_client_that_comes_back_resumes_on_any_acceptor_s_clone_also_after_a_reload() {
    let authority = Authority::new();
    let settings = vec![authority.issue("localhost", &["localhost"])];
    let (certificates, _) = Certificates::load(settings, SystemTime::now()).unwrap();
    let certificates = Arc::new(certificates);
    let acceptor = TlsAcceptor::new(&TlsSettings::default(), Arc::clone(&certificates)).unwrap();
    for version in [&TLS12, &TLS13] {
        let mut client = client_config(&authority, &[version]);
        client.resumption = Resumption::in_memory_sessions(4);
        let client = Arc::new(client);
        Pair::new(&client, &acceptor).shake_hands();
        for round in 0..3 {
            if round == 2 {
                authority.issue("localhost", &["localhost"]);
                assert!(matches!(certificates.reload(SystemTime::now()), wootz_tls::Reload::Reloaded(_)));
            }
            let mut pair = Pair::new(&client, &acceptor.clone());
            pair.run(|| 3).unwrap();
            assert!(pair.server.is_resumed(), "round {round} of {version:?}");
            assert_eq!(pair.client.handshake_kind(), Some(HandshakeKind::Resumed));
            pair.send_up(b"up", || 1);
            pair.send_down(&[b"down"], || 1);
            assert_eq!((&pair.at_server[..], &pair.at_client[..]), (&b"up"[..], &b"down"[..]));
        }
    }
}

#[test]
fn a_ticket_of_another_server_gives_a_full_handshake() {
    let authority = Authority::new();
    let mut client = client_config(&authority, &[&TLS13]);
    client.resumption = Resumption::in_memory_sessions(4);
    let client = Arc::new(client);
    Pair::new(&client, &authority.acceptor(&TlsSettings::default())).shake_hands();
    let mut pair = Pair::new(&client, &authority.acceptor(&TlsSettings::default()));
    pair.shake_hands();
    assert!(!pair.server.is_resumed());
}

#[test]
fn a_ticket_leaves_with_the_first_answer() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    let mut pair = Pair::new(&Arc::new(client_config(&authority, &[&TLS13])), &acceptor);
    let hello = pair.client_bytes();
    pair.give_server(&hello).unwrap();
    assert_eq!(pair.server.transmit(), Transmit::Now);
    let mut flight = Vec::new();
    pair.server.poll_transmit(&mut flight);
    pair.give_client(&flight).unwrap();
    let finished = pair.client_bytes();
    pair.give_server(&finished).unwrap();
    let progress = *pair.progress.last().unwrap();
    assert_eq!((progress.handshake_completed, progress.transmit), (true, Transmit::WithNext));
    let mut answer = Vec::new();
    pair.server.encrypt(&[b"answer"], &mut answer).unwrap();
    assert_eq!(pair.server.transmit(), Transmit::Nothing);
    pair.give_client(&answer).unwrap();
    assert_eq!((&pair.at_client[..], pair.client.tls13_tickets_received()), (&b"answer"[..], 1));
}

#[test]
fn nothing_is_encrypted_before_the_handshake_is_complete() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    let mut pair = Pair::new(&Arc::new(client_config(&authority, &[&TLS13])), &acceptor);
    let mut out = Vec::new();
    assert_eq!(pair.server.encrypt(&[b"early"], &mut out).unwrap(), 0);
    let hello = pair.client_bytes();
    pair.give_server(&hello[..hello.len() / 2]).unwrap();
    assert_eq!(pair.server.encrypt(&[b"early"], &mut out).unwrap(), 0);
    assert_eq!(out, []);
    pair.give_server(&hello[hello.len() / 2..]).unwrap();
    assert_eq!(pair.server.encrypt(&[b"early"], &mut out).unwrap(), 0);
    pair.give_client(&out).unwrap();
    pair.shake_hands();
}

#[test]
fn each_side_may_close_first() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(client_config(&authority, &[version]));
        let mut pair = Pair::new(&client, &acceptor);
        pair.shake_hands();
        pair.client.send_close_notify();
        pair.run(|| 1).unwrap();
        assert!(pair.progress.last().unwrap().closed_by_peer);
        // What is left may still be sent, and is.
        pair.send_down(&[b"last"], || 1);
        let mut out = Vec::new();
        pair.server.close(&mut out);
        pair.give_client(&out).unwrap();
        assert_eq!(pair.at_client, b"last");
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());

        let mut pair = Pair::new(&client, &acceptor);
        pair.shake_hands();
        let mut out = Vec::new();
        pair.server.close(&mut out);
        assert!(!out.is_empty());
        assert_eq!(pair.server.encrypt(&[b"late"], &mut out).unwrap(), 0);
        let closed = out.len();
        pair.server.close(&mut out);
        assert_eq!(out.len(), closed, "it closed twice");
        pair.give_client(&out).unwrap();
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
        pair.send_up(b"still", || 1);
        pair.client.send_close_notify();
        pair.run(|| 1).unwrap();
        assert_eq!(pair.at_server, b"still");
        assert!(pair.progress.last().unwrap().closed_by_peer);
    }
}

#[test]
fn what_comes_after_a_close_is_not_read() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    let mut pair = Pair::new(&Arc::new(client_config(&authority, &[&TLS13])), &acceptor);
    pair.shake_hands();
    pair.client.send_close_notify();
    let mut bytes = pair.client_bytes();
    bytes.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
    pair.give_server(&bytes).unwrap();
    pair.give_server(b"more").unwrap();
    assert!(pair.progress.iter().rev().take(2).all(|progress| progress.closed_by_peer));
    assert_eq!(pair.at_server, []);
}

#[test]
fn early_data_is_refused_and_the_handshake_goes_on() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&TlsSettings::default());
    // Another server under this name took early data once, so this client tries.
    let generous = generous_server(&authority);
    let mut client = client_config(&authority, &[&TLS13]);
    client.resumption = Resumption::in_memory_sessions(4);
    client.enable_early_data = true;
    let client = Arc::new(client);
    for cut in [1, 100, usize::MAX] {
        let mut before = ServerConnection::new(Arc::clone(&generous)).unwrap();
        let mut pair = Pair::new(&client, &acceptor);
        for _ in 0..3 {
            before.read_tls(&mut &pair.client_bytes()[..]).unwrap();
            before.process_new_packets().unwrap();
            let mut bytes = Vec::new();
            while before.wants_write() {
                before.write_tls(&mut bytes).unwrap();
            }
            pair.give_client(&bytes).unwrap();
        }
        let mut pair = Pair::new(&client, &acceptor);
        std::io::Write::write_all(&mut pair.client.early_data().expect("it tries"), b"GET /twice").unwrap();
        pair.run(|| cut).unwrap();
        assert!(!pair.client.is_early_data_accepted() && !pair.server.is_handshaking());
        assert_eq!(pair.at_server, []);
        pair.send_up(b"once", || cut);
        assert_eq!(pair.at_server, b"once");
    }
}

fn generous_server(authority: &Authority) -> Arc<ServerConfig> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = authority.read("localhost.chain.pem");
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(authority.read("localhost.key").as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.max_early_data_size = 1000;
    Arc::new(config)
}
