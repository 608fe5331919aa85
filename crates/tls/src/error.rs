//! What can end a TLS connection but a close, sorted by whose fault it is.

use rustls::{AlertDescription, Error, PeerIncompatible};
use thiserror::Error;

/// Whose fault a failed connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The peer's: it does not keep the protocol, or wants what is not offered.
    Peer,
    /// A limit's.
    Limit,
    /// This server's: an operator has to look.
    Server,
}

/// Why a TLS connection ended. The alert that tells the peer is queued already: send what
/// [`TlsConnection::poll_transmit`](crate::TlsConnection::poll_transmit) gives, then close.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TlsError {
    /// The first bytes were an HTTP request. The answer is queued as plain text.
    #[error("plain HTTP came where TLS is spoken")]
    PlainHttp,
    /// The peer gave up and said why.
    #[error("the peer sent the alert {0:?}")]
    Alert(AlertDescription),
    /// The peer and this server have no version, cipher or other necessity in common.
    #[error("nothing in common: {0}")]
    Incompatible(String),
    /// The peer broke the protocol.
    #[error("{0}")]
    Protocol(String),
    /// A handshake message, or parts of one, are longer than is kept for a connection.
    #[error("a handshake message is longer than {0} bytes")]
    LongHandshakeMessage(usize),
    /// A TLS 1.2 connection encrypted as much as its keys may.
    #[error("the keys of a TLS 1.2 connection are used up")]
    KeysUsedUp,
    /// Something here failed.
    #[error("{0}")]
    Server(String),
}

impl TlsError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::PlainHttp | Self::Alert(_) | Self::Incompatible(_) | Self::Protocol(_) => Fault::Peer,
            Self::LongHandshakeMessage(_) | Self::KeysUsedUp => Fault::Limit,
            Self::Server(_) => Fault::Server,
        }
    }
}

impl From<Error> for TlsError {
    fn from(error: Error) -> Self {
        match error {
            Error::AlertReceived(alert) => Self::Alert(alert),
            // Every client that speaks TLS 1.2 tells them.
            Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired) => {
                Self::Incompatible("the client speaks no TLS 1.2 or newer".to_owned())
            }
            Error::PeerIncompatible(why) => Self::Incompatible(format!("{why:?}")),
            Error::NoApplicationProtocol => Self::Incompatible("no protocol of ALPN".to_owned()),
            error @ (Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::InvalidMessage(_)
            | Error::DecryptError
            | Error::PeerSentOversizedRecord
            | Error::PeerMisbehaved(_)) => Self::Protocol(error.to_string()),
            error => Self::Server(error.to_string()),
        }
    }
}
