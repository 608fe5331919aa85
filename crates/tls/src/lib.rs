//! TLS without IO, and the certificates of a server.
//!
//! [`TlsConnection`] turns ciphertext into plaintext and back in the caller's buffers, so that an idle connection owns
//! nothing but its keys. [`Certificates`] reads keys and chains, says everything that is wrong with them at once,
//! chooses by the name a client asks for, and takes what was replaced while the server runs. [`TlsAcceptor`] joins the
//! two. Nothing here knows a socket or reads a clock; only [`Certificates`] reads files, when it is told to.

mod acceptor;
mod certificates;
mod connection;
mod error;
mod first_bytes;
mod record;

pub use acceptor::{Alpn, TlsAcceptor, TlsSettings};
pub use certificates::{
    CertificateError, CertificateProblem, CertificateSettings, CertificateStatus, Certificates, Reload, Sought, Warning,
};
pub use connection::{MAX_TRANSMIT_BYTES, Progress, TlsConnection, Transmit, Version};
pub use error::{Fault, TlsError};
pub use first_bytes::{ANSWER_TO_PLAIN_HTTP, ANSWER_TO_TLS, is_plain_http, looks_like_client_hello};
