//! From settings and certificates to connections: one configuration for all threads.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

use crate::certificates::Certificates;
use crate::connection::{TlsConnection, Version};
use crate::error::TlsError;

/// What a client may ask to speak inside TLS (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// `http/1.1`
    Http1,
    /// `h2`
    Http2,
}

impl Alpn {
    /// Its name on the wire.
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }

    pub(crate) fn from_bytes(name: &[u8]) -> Option<Self> {
        [Self::Http1, Self::Http2].into_iter().find(|alpn| alpn.as_bytes() == name)
    }
}

/// What a listener speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The oldest version that is spoken. Default: TLS 1.2.
    pub oldest_version: Version,
    /// What is offered inside, best first. A client that asks only for others is refused; one that doesn't ask is not.
    /// Default: `http/1.1`.
    pub alpn: Vec<Alpn>,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self { oldest_version: Version::Tls12, alpn: vec![Alpn::Http1] }
    }
}

/// Makes the connections of a listener. Cheap to clone; all clones share their keys for tickets, so that a client
/// resumes on any thread.
#[derive(Debug, Clone)]
pub struct TlsAcceptor {
    config: Arc<ServerConfig>,
}

impl TlsAcceptor {
    /// Speaks `settings` with `certificates`, also with those that they become by a reload.
    ///
    /// Sessions are resumed by tickets that the client keeps; this server remembers none. The tickets' keys change
    /// every six hours and are not kept over a restart. Early data is refused, because what comes in it may come twice.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn new(settings: &TlsSettings, certificates: Arc<Certificates>) -> Result<Self, TlsError> {
        let versions: &[&SupportedProtocolVersion] = match settings.oldest_version {
            Version::Tls12 => &[&TLS13, &TLS12],
            Version::Tls13 => &[&TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        config.alpn_protocols = settings.alpn.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        // A client that comes back gets a new one each time.
        config.send_tls13_tickets = 1;
        config.max_early_data_size = 0;
        Ok(Self { config: Arc::new(config) })
    }

    /// A connection that was just accepted.
    pub fn accept(&self) -> Result<TlsConnection, TlsError> {
        TlsConnection::new(Arc::clone(&self.config))
    }
}
