//! rustls as client and the crate as server, joined in memory.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use wootz_tls::{Progress, TlsAcceptor, TlsConnection, TlsError};

use crate::authority::Authority;

pub(crate) struct Pair {
    pub(crate) client: ClientConnection,
    pub(crate) server: TlsConnection,
    /// What the server received and decrypted.
    pub(crate) at_server: Vec<u8>,
    /// What the client received and decrypted.
    pub(crate) at_client: Vec<u8>,
    pub(crate) progress: Vec<Progress>,
}

pub(crate) fn client_config(authority: &Authority, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.read("root.pem").as_bytes()).expect("PEM")).expect("a root");
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

impl Pair {
    pub(crate) fn new(client: &Arc<ClientConfig>, acceptor: &TlsAcceptor) -> Self {
        Self::named("localhost", client, acceptor)
    }

    pub(crate) fn named(name: &'static str, client: &Arc<ClientConfig>, acceptor: &TlsAcceptor) -> Self {
        let name = ServerName::try_from(name).expect("a name");
        Self {
            client: ClientConnection::new(Arc::clone(client), name).expect("a client"),
            server: acceptor.accept().expect("a connection"),
            at_server: Vec::new(),
            at_client: Vec::new(),
            progress: Vec::new(),
        }
    }

    /// What the client has to say.
    pub(crate) fn client_bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).expect("memory takes all");
        }
        bytes
    }

    pub(crate) fn give_server(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        let progress = self.server.receive(&mut bytes.to_vec(), &mut self.at_server)?;
        self.progress.push(progress);
        Ok(())
    }

    pub(crate) fn give_client(&mut self, mut bytes: &[u8]) -> Result<(), rustls::Error> {
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).expect("memory gives all");
            self.client.process_new_packets()?;
            let mut part = vec![0; 64 << 10];
            while let Ok(read @ 1..) = self.client.reader().read(&mut part) {
                self.at_client.extend_from_slice(&part[..read]);
            }
        }
        Ok(())
    }

    /// Carries bytes in both directions, in pieces as long as `cut` says, until neither side has something to say.
    pub(crate) fn run(&mut self, mut cut: impl FnMut() -> usize) -> Result<(), TlsError> {
        loop {
            let up = self.client_bytes();
            let mut rest = &up[..];
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(cut().clamp(1, rest.len()));
                self.give_server(piece)?;
                rest = later;
            }
            let mut down = Vec::new();
            self.server.poll_transmit(&mut down);
            let mut rest = &down[..];
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(cut().clamp(1, rest.len()));
                self.give_client(piece).expect("the client is content");
                rest = later;
            }
            if up.is_empty() && down.is_empty() {
                return Ok(());
            }
        }
    }

    pub(crate) fn shake_hands(&mut self) {
        self.run(|| usize::MAX).expect("a handshake");
        assert!(!self.server.is_handshaking() && !self.client.is_handshaking());
    }

    /// A message to the server, whole; the client's buffer is emptied as often as needed.
    pub(crate) fn send_up(&mut self, mut message: &[u8], mut cut: impl FnMut() -> usize) {
        while !message.is_empty() {
            let taken = self.client.writer().write(message).expect("a message");
            message = &message[taken..];
            self.run(&mut cut).expect("a message");
        }
    }

    /// A message to the client, in slices, as a driver would send it.
    pub(crate) fn send_down(&mut self, slices: &[&[u8]], mut cut: impl FnMut() -> usize) {
        let whole = slices.concat();
        let mut sent = 0;
        let mut slices = slices.to_vec();
        while sent < whole.len() {
            let mut out = Vec::new();
            let taken = self.server.encrypt(&slices, &mut out).expect("a message");
            assert!(taken > 0);
            sent += taken;
            slices = vec![&whole[sent..]];
            let mut rest = &out[..];
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(cut().clamp(1, rest.len()));
                self.give_client(piece).expect("the client is content");
                rest = later;
            }
        }
    }
}
