//! The load generator's TLS: rustls as a browser would use it, and a certificate that it trusts.
//!
//! TLS 1.3 with X25519 and AES-128-GCM only, so that both contestants do the same arithmetic.

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};

use crate::client::{self, PATIENCE, wrong};

/// A root, and what it issues: rustls believes no certificate that is its own root.
const COMMANDS: [&str; 3] = [
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout root.key -out root.pem -subj /CN=root -days 2 \
     -addext keyUsage=keyCertSign",
    "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out request.pem -subj /CN=bench",
    "x509 -req -in request.pem -CA root.pem -CAkey root.key -CAcreateserial -days 2 -extfile leaf.ext -out cert.pem",
];

/// A certificate for the loopback address (P-256), as PEM.
pub struct Certificate {
    /// What the servers show.
    pub chain: String,
    /// Its key.
    pub key: String,
    root: String,
}

impl Certificate {
    /// Made by `openssl` in a directory that is gone afterwards.
    pub fn make() -> io::Result<Self> {
        let directory = std::env::temp_dir().join(format!("bench-certificate-{}", std::process::id()));
        fs::create_dir(&directory)?;
        let made = Self::make_in(&directory);
        fs::remove_dir_all(&directory)?;
        made
    }

    fn make_in(directory: &Path) -> io::Result<Self> {
        fs::write(directory.join("leaf.ext"), "subjectAltName=IP:127.0.0.1\n")?;
        for command in COMMANDS {
            let output =
                Command::new("openssl").args(command.split_ascii_whitespace()).current_dir(directory).output()?;
            if !output.status.success() {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(io::Error::other(format!("openssl {command}: {why}")));
            }
        }
        let read = |name: &str| fs::read_to_string(directory.join(name));
        Ok(Self { chain: read("cert.pem")?, key: read("key.pem")?, root: read("root.pem")? })
    }

    /// A client that trusts it; what `resumption` keeps is the client's own.
    pub fn client(&self, resumption: Resumption) -> io::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.root.as_bytes()).map_err(io::Error::other)?;
        roots.add(root).map_err(io::Error::other)?;
        let provider = CryptoProvider {
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = resumption;
        Ok(Arc::new(config))
    }
}

/// A connection whose bytes are encrypted.
pub struct Secured {
    stream: TcpStream,
    tls: ClientConnection,
}

impl Secured {
    /// Connects and shakes hands; the stream is a blocking one.
    pub fn connect(address: SocketAddr, client: &Arc<ClientConfig>) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::IpAddress(address.ip().into());
        let mut tls = ClientConnection::new(Arc::clone(client), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(Self { stream, tls })
    }

    /// Upgrades; returns what came after the 101.
    pub fn upgrade(&mut self, address: SocketAddr) -> io::Result<Vec<u8>> {
        client::upgrade(&mut rustls::Stream::new(&mut self.tls, &mut self.stream), address, "")
    }

    /// Whether the handshake was a full or a resumed one.
    pub fn kind(&self) -> Option<HandshakeKind> {
        self.tls.handshake_kind()
    }

    /// Says goodbye and reads, tickets among it, until the server has hung up.
    pub fn leave(mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.stream)?;
        }
        loop {
            match self.tls.read_tls(&mut self.stream) {
                Ok(0) => return Ok(()),
                Ok(_) => _ = self.tls.process_new_packets().map_err(io::Error::other)?,
                // What the server had not read when it hung up is no answer that is missing.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// The socket below.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Encrypts and sends all of it.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(bytes)?;
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.stream)?;
        }
        Ok(())
    }

    /// Reads once from the socket, and gives what that decrypts: nothing, while a record is not there as a whole.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.tls.read_tls(&mut self.stream)? == 0 {
            return Err(wrong("a connection was hung up"));
        }
        self.tls.process_new_packets().map_err(io::Error::other)?;
        match self.tls.reader().read(buffer) {
            Ok(0) => Err(wrong("a connection was hung up")),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }
}
