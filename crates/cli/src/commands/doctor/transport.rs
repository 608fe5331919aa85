//! Name, TCP and TLS: from a target to a byte stream whose every read and write has a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::answer::Answer;
use super::url::Target;

/// Why a name gave no address.
#[derive(Debug)]
pub(super) enum NameError {
    Failed(io::Error),
    Silent,
}

/// The addresses of a host, in the order in which they are to be tried.
pub(super) fn resolve(target: &Target, patience: Duration) -> Result<Vec<SocketAddr>, NameError> {
    if let Ok(address) = target.host.parse::<IpAddr>() {
        return Ok(vec![(address, target.port).into()]);
    }
    let (sender, receiver) = mpsc::channel();
    let (host, port) = (target.host.clone(), target.port);
    // The system's resolver can't be given a deadline. A thread that it holds ends with this process.
    std::thread::spawn(move || sender.send((host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>)));
    match receiver.recv_timeout(patience) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(NameError::Failed(error)),
        Err(_) => Err(NameError::Silent),
    }
}

/// A byte stream to the server.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<ClientConnection, TcpStream>>),
}

/// What a read brought.
#[derive(Debug)]
pub(super) enum Received {
    /// So many bytes.
    Bytes(usize),
    /// Nothing until the deadline.
    Nothing,
    /// The peer ended the connection; the text says how.
    End(&'static str),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    /// Reads what comes next.
    pub(super) fn receive(&mut self, buffer: &mut [u8], deadline: Instant) -> Received {
        loop {
            let Some(left) = left_until(deadline) else { return Received::Nothing };
            if self.socket().set_read_timeout(Some(left)).is_err() {
                return Received::End("with an error");
            }
            let result = match self {
                Self::Plain(socket) => socket.read(buffer),
                Self::Tls(stream) => stream.read(buffer),
            };
            return match result {
                Ok(0) => Received::End("without a Close frame"),
                Ok(count) => Received::Bytes(count),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => Received::Nothing,
                    // TLS that ends without its own farewell.
                    ErrorKind::UnexpectedEof => Received::End("without a Close frame"),
                    ErrorKind::ConnectionReset => Received::End("by a reset, without a Close frame"),
                    _ => Received::End("with an error"),
                },
            };
        }
    }

    /// Writes all of it; a peer that does not read for so long has gone.
    pub(super) fn send(&mut self, bytes: &[u8], patience: Duration) -> io::Result<()> {
        self.socket().set_write_timeout(Some(patience))?;
        match self {
            Self::Plain(socket) => socket.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Tells the peer that nothing more will come, and goes on reading. What held bytes back lets go of them then.
    pub(super) fn end_sending(&mut self) {
        // Whoever has gone already need not be told.
        let _ = match self {
            Self::Plain(socket) => socket.shutdown(Shutdown::Write),
            Self::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush()
            }
        };
    }
}

fn left_until(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

/// Addresses that did not work, each with its reason.
pub(super) type Failures = Vec<(SocketAddr, io::Error)>;

/// Connects to the first address that answers; the errors of those before it, or of all.
pub(super) fn connect(addresses: &[SocketAddr], patience: Duration) -> (Option<(TcpStream, SocketAddr)>, Failures) {
    let mut errors = Vec::new();
    for address in addresses {
        match TcpStream::connect_timeout(address, patience) {
            Ok(stream) => {
                // Small messages have to leave at once; where that can't be asked for they are only later.
                let _ = stream.set_nodelay(true);
                return (Some((stream, *address)), errors);
            }
            Err(error) => errors.push((*address, error)),
        }
    }
    (None, errors)
}

/// Which certificates are believed.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) checks: Checks,
}

/// What becomes of a certificate that is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checks {
    Enforced,
    /// Told, but gone on with.
    Reported,
}

/// What the server showed of itself.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Its certificate first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Why it is not valid.
    pub(super) error: Option<rustls::Error>,
}

/// Why there is no TLS.
#[derive(Debug)]
pub(super) enum TlsError {
    /// rustls says no.
    Tls(rustls::Error),
    /// The server ended the connection within the handshake.
    Closed,
    /// The server said nothing more.
    Silent,
}

/// Speaks TLS on a connected socket, as a browser that opens a WebSocket does.
pub(super) fn secure(
    socket: TcpStream,
    target: &Target,
    trust: &Trust,
    patience: Duration,
) -> (Result<Stream, TlsError>, Shown) {
    let verifier = Arc::new(Recorder::new(trust));
    let result = handshake(socket, target, &verifier, patience);
    let shown = std::mem::take(&mut *verifier.shown.lock().unwrap_or_else(PoisonError::into_inner));
    (result, shown)
}

fn handshake(
    mut socket: TcpStream,
    target: &Target,
    verifier: &Arc<Recorder>,
    patience: Duration,
) -> Result<Stream, TlsError> {
    let deadline = Instant::now() + patience;
    let config = ClientConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Tls)?;
    let mut config =
        config.dangerous().with_custom_certificate_verifier(Arc::clone(verifier) as _).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(target.host.clone())
        .map_err(|error| TlsError::Tls(rustls::Error::General(error.to_string())))?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(TlsError::Tls)?;
    while connection.is_handshaking() {
        let left = left_until(deadline).ok_or(TlsError::Silent)?;
        let timeouts = socket.set_read_timeout(Some(left)).and_then(|()| socket.set_write_timeout(Some(left)));
        match timeouts.and_then(|()| connection.complete_io(&mut socket)) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(TlsError::Silent);
            }
            Err(error) => {
                let of_rustls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
                return Err(of_rustls.map_or(TlsError::Closed, |error| TlsError::Tls(error.clone())));
            }
        }
    }
    Ok(Stream::Tls(Box::new(rustls::StreamOwned::new(connection, socket))))
}

/// Lets rustls judge the server's certificates, and remembers them and the judgement.
#[derive(Debug)]
struct Recorder {
    provider: Arc<CryptoProvider>,
    /// None where there is no root to judge by.
    judge: Option<Arc<WebPkiServerVerifier>>,
    checks: Checks,
    shown: Mutex<Shown>,
}

impl Recorder {
    fn new(trust: &Trust) -> Self {
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let judge =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&trust.roots), Arc::clone(&provider)).build().ok();
        Self { provider, judge, checks: trust.checks, shown: Mutex::default() }
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let judgement = match &self.judge {
            Some(judge) => judge.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Err(rustls::CertificateError::UnknownIssuer.into()),
        };
        let chain = [end_entity].into_iter().chain(intermediates);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Shown {
            chain: chain.map(|certificate| certificate.clone().into_owned()).collect(),
            error: judgement.as_ref().err().cloned(),
        };
        match self.checks {
            Checks::Enforced => judgement,
            Checks::Reported => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether whoever listens there answers a TLS handshake, whatever its certificate.
pub(super) fn speaks_tls(address: SocketAddr, target: &Target, patience: Duration) -> bool {
    let Ok(socket) = TcpStream::connect_timeout(&address, patience) else { return false };
    let trust = Trust { roots: Arc::new(RootCertStore::empty()), checks: Checks::Reported };
    let (result, shown) = secure(socket, target, &trust, patience);
    // An alert (no such name, no such version) is TLS too.
    let alert = matches!(result, Err(TlsError::Tls(rustls::Error::AlertReceived(_))));
    result.is_ok() || alert || !shown.chain.is_empty()
}

/// Whether whoever listens there answers plain HTTP, and not only by saying that TLS is awaited.
pub(super) fn speaks_http(address: SocketAddr, target: &Target, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    let Ok(socket) = TcpStream::connect_timeout(&address, patience) else { return false };
    let mut stream = Stream::Plain(socket);
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", target.path, target.authority());
    let mut begin = [0; 1024];
    if stream.send(request.as_bytes(), patience).is_err() {
        return false;
    }
    let Received::Bytes(count) = stream.receive(&mut begin, deadline) else { return false };
    let answer = Answer::read(&mut stream, begin[..count].to_vec());
    answer.is_some_and(|answer| !answer.asks_for_tls())
}
