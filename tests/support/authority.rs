//! A certificate authority in a temporary directory, made by OpenSSL, and a browser that trusts it alone.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::raw::{CLOSE, Frame, handshake, text};
use super::{DEADLINE, run};

/// Issues certificates.
pub struct Authority {
    directory: TempDir,
}

impl Authority {
    /// One that nobody knows yet.
    pub fn new() -> Self {
        let authority = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        authority.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout root.key -out root.pem -subj /CN=root -days 30 -addext keyUsage=keyCertSign",
        );
        authority
    }

    /// Runs `openssl` in the directory, with arguments that are split at spaces.
    pub fn openssl(&self, arguments: &str) -> String {
        run(Command::new("openssl").args(arguments.split_ascii_whitespace()).current_dir(self.directory.path()))
    }

    /// A file of the authority's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes `NAME.pem`, with its chain, and `NAME.key` for a host and 127.0.0.1.
    pub fn issue(&self, name: &str, host: &str) -> &Self {
        self.issue_for(name, host, "-days 20")
    }

    /// The same with a validity of one's own.
    pub fn issue_for(&self, name: &str, host: &str, validity: &str) -> &Self {
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={host}"
        ));
        let names = format!("subjectAltName=DNS:{host},IP:127.0.0.1\n");
        fs::write(self.path("leaf.ext"), names).expect("a file of the test");
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA root.pem -CAkey root.key -CAcreateserial {validity} -extfile leaf.ext -out {name}.pem"
        ));
        let [leaf, root] = [format!("{name}.pem"), "root.pem".to_owned()]
            .map(|file| fs::read_to_string(self.path(&file)).expect("just made"));
        fs::write(self.path(&format!("{name}.pem")), leaf + &root).expect("a file of the test");
        self
    }

    /// Who trusts this authority.
    pub fn client(&self, host: &str) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(self.path("root.pem")).expect("a certificate");
        roots.add(root).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        ClientConnection::new(Arc::new(config), name).expect("a client")
    }

    /// A browser with TLS and nothing said in it yet. `before` goes ahead of TLS.
    pub fn connect(&self, address: SocketAddr, host: &str, before: &str) -> io::Result<Secure> {
        let mut socket = TcpStream::connect_timeout(&address, DEADLINE)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        socket.set_nodelay(true)?;
        socket.write_all(before.as_bytes())?;
        let mut stream = StreamOwned::new(self.client(host), socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Secure { stream })
    }

    /// A browser with an open WebSocket.
    pub fn open(&self, address: SocketAddr) -> Secure {
        let mut secure = self.connect(address, "localhost", "").expect("TLS");
        secure.shake_hands(address, "/", "");
        secure
    }
}

/// A browser behind TLS whose bytes the test writes itself.
pub struct Secure {
    /// The connection.
    pub stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Secure {
    /// Opens a WebSocket.
    pub fn shake_hands(&mut self, address: SocketAddr, target: &str, fields: &str) {
        self.write(handshake(address, target, fields));
        let head = self.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }

    /// Reads a head, up to its empty line.
    pub fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} within a head: {head:?}"));
            head.push(byte[0]);
        }
        String::from_utf8(head).expect("a head in UTF-8")
    }

    /// Writes bytes.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server reads");
        self.stream.flush().expect("the server reads");
    }

    /// The next frame.
    pub fn frame(&mut self) -> Frame {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).expect("a frame, not the end");
        let length = match head[1] {
            126 => {
                let mut bytes = [0; 2];
                self.stream.read_exact(&mut bytes).expect("a length");
                u64::from(u16::from_be_bytes(bytes))
            }
            127 => {
                let mut bytes = [0; 8];
                self.stream.read_exact(&mut bytes).expect("a length");
                u64::from_be_bytes(bytes)
            }
            small => u64::from(small),
        };
        let mut payload = vec![0; usize::try_from(length).expect("it fits")];
        self.stream.read_exact(&mut payload).expect("a whole frame");
        Frame { first: head[0], payload }
    }

    /// Sends a text and gives the text that comes back.
    pub fn ask(&mut self, payload: &str) -> String {
        self.write(text(payload));
        self.frame().text().to_owned()
    }

    /// The next frame must be a Close; gives its code.
    pub fn close_code(&mut self) -> u16 {
        let frame = self.frame();
        assert_eq!(frame.first, CLOSE, "a Close was expected, not {frame:?}");
        frame.payload.get(..2).map_or(1005, |code| u16::from_be_bytes(code.try_into().expect("two bytes")))
    }

    /// Everything up to `close_notify`; without one this fails.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("close_notify");
        rest
    }

    /// The certificate that the server has shown.
    pub fn certificate(&self) -> Vec<u8> {
        self.stream.conn.peer_certificates().expect("certificates")[0].to_vec()
    }

    /// The port of this end.
    pub fn port(&self) -> u16 {
        self.stream.sock.local_addr().expect("a connected socket").port()
    }
}
