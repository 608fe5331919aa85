//! 2 · TLS: from an accepted socket to one whose bytes are the browser's own, and the certificates that are shown.

mod certificates;
mod expiry;
mod stream;

pub use certificates::CertificateStatus;
pub(crate) use certificates::{LoadedCertificates, NoCertificates, watch};
pub(crate) use stream::{TlsStream, failure_of};
