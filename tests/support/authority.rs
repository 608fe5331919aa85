//! A certificate authority in a temporary directory, made by OpenSSL, what it issues, good and bad, and a browser that trusts it alone.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::raw::{Frame, handshake, read_head, text};
use super::{DEADLINE, run};

/// Issues certificates: a root with an intermediate authority, in a directory of their own.
pub struct Authority {
    directory: TempDir,
}

/// A server's files.
pub struct ServerCertificate {
    /// Its key.
    pub key: PathBuf,
    /// Its certificate alone.
    pub alone: PathBuf,
    /// Its certificate and the intermediate's.
    pub chain: PathBuf,
}

/// When a certificate is valid.
#[derive(Clone, Copy)]
pub enum Validity {
    /// From now on for 30 days.
    Now,
    /// In January 2020.
    Until2020,
    /// In January 2045.
    From2045,
    /// From the one moment to the other, in whole seconds.
    Between(SystemTime, SystemTime),
}

/// What `openssl ca` needs besides: the only command that signs for times that have passed.
const CA: &str = "[ca]\ndefault_ca = it\n[it]\ndatabase = index.txt\nnew_certs_dir = .\nrand_serial = yes\n\
                  default_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n";

/// How `openssl req` makes a key.
const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

impl Authority {
    /// "NAME Root" and "NAME Intermediate", whom nobody knows yet.
    pub fn new(name: &str) -> Self {
        let authority = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        authority.write("ca.conf", CA);
        authority.write("authority.ext", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n");
        let usage = "-addext keyUsage=critical,keyCertSign,cRLSign";
        authority.request("root", &format!("/CN={name} Root"), &format!("-x509 -days 30 {usage} -out root.pem"));
        authority.request("intermediate", &format!("/CN={name} Intermediate"), "-out intermediate.csr");
        authority.sign("intermediate", "root", "authority.ext", Validity::Now);
        authority
    }

    /// Runs `openssl` in the directory, with arguments that are split at spaces.
    pub fn openssl(&self, arguments: &str) -> String {
        run(&mut self.command(arguments))
    }

    /// A file of the authority's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The root's certificate.
    pub fn root(&self) -> PathBuf {
        self.path("root.pem")
    }

    /// Makes `NAME.pem`, with its chain, and `NAME.key` for a host and 127.0.0.1.
    pub fn issue(&self, name: &str, host: &str) -> &Self {
        self.issue_for(name, host, Validity::Now)
    }

    /// The same with a validity of one's own.
    pub fn issue_for(&self, name: &str, host: &str, validity: Validity) -> &Self {
        self.certify(name, host, &format!("subjectAltName=DNS:{host},IP:127.0.0.1\n"), validity);
        fs::rename(self.path(&format!("{name}.chain.pem")), self.path(&format!("{name}.pem"))).expect("just made");
        self
    }

    /// A certificate for this host alone. The next one takes its place.
    pub fn server(&self, host: &str, validity: Validity) -> ServerCertificate {
        self.server_with(host, validity, "")
    }

    /// The same with extensions besides, one a line.
    pub fn server_with(&self, host: &str, validity: Validity, extensions: &str) -> ServerCertificate {
        self.certify("server", host, &format!("subjectAltName=DNS:{host}\n{extensions}"), validity);
        let [key, alone, chain] = ["server.key", "server.pem", "server.chain.pem"].map(|file| self.path(file));
        ServerCertificate { key, alone, chain }
    }

    /// A certificate for a host that nobody but itself has signed.
    pub fn self_signed(&self, host: &str) -> ServerCertificate {
        let more = format!("-x509 -days 30 -addext subjectAltName=DNS:{host} -out server.pem");
        self.request("server", &format!("/CN={host}"), &more);
        let [key, alone] = ["server.key", "server.pem"].map(|file| self.path(file));
        ServerCertificate { key, chain: alone.clone(), alone }
    }

    /// Makes `NAME.key`, `NAME.pem` and `NAME.chain.pem`.
    fn certify(&self, name: &str, host: &str, extensions: &str, validity: Validity) {
        self.request(name, &format!("/CN={host}"), &format!("-out {name}.csr"));
        self.write("leaf.ext", extensions);
        self.sign(name, "intermediate", "leaf.ext", validity);
        let both = [format!("{name}.pem"), "intermediate.pem".to_owned()]
            .map(|file| fs::read_to_string(self.path(&file)).expect("just made"));
        self.write(&format!("{name}.chain.pem"), &both.concat());
    }

    /// Makes `NAME.key` and what `more` asks for. The subject may have spaces.
    fn request(&self, name: &str, subject: &str, more: &str) {
        run(self.command(&format!("req {NEW_KEY} -keyout {name}.key {more} -subj")).arg(subject));
    }

    fn sign(&self, name: &str, by: &str, extensions: &str, validity: Validity) {
        self.write("index.txt", "");
        let dates = match validity {
            Validity::Now => "-days 30".to_owned(),
            Validity::Until2020 => "-startdate 20200101000000Z -enddate 20200201000000Z".to_owned(),
            Validity::From2045 => "-startdate 20450101000000Z -enddate 20450201000000Z".to_owned(),
            Validity::Between(from, until) => format!("-startdate {} -enddate {}", date(from), date(until)),
        };
        self.openssl(&format!(
            "ca -batch -notext -config ca.conf -in {name}.csr -out {name}.pem -cert {by}.pem -keyfile {by}.key \
             -extfile {extensions} {dates}"
        ));
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new("openssl");
        command.args(arguments.split_ascii_whitespace()).current_dir(self.directory.path());
        command
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("a file of the test");
    }

    /// Who trusts this authority.
    pub fn client(&self, host: &str) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(self.root()).expect("a certificate");
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

/// A moment as `openssl` reads it.
fn date(moment: SystemTime) -> String {
    let seconds = moment.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    run(Command::new("date").args(["-u", "-d", &format!("@{seconds}"), "+%Y%m%d%H%M%SZ"])).trim_end().to_owned()
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
        read_head(&mut self.stream)
    }

    /// Writes bytes.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server reads");
        self.stream.flush().expect("the server reads");
    }

    /// The next frame.
    pub fn frame(&mut self) -> Frame {
        Frame::read(&mut self.stream).expect("a frame, not the end")
    }

    /// Sends a text and gives the text that comes back.
    pub fn ask(&mut self, payload: &str) -> String {
        self.write(text(payload));
        self.frame().text().to_owned()
    }

    /// The next frame must be a Close; gives its code.
    pub fn close_code(&mut self) -> u16 {
        self.frame().close_code()
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
