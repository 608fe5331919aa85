//! What can be wrong with certificates and keys: each with its file and the way out of it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use x509_cert::der::DateTime;

/// Why a certificate or key can't be used. All of it is the operator's to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: CertificateProblem,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// Not one certificate is configured. There is no file.
    NoneConfigured,
    /// The file can't be read.
    Unreadable(io::ErrorKind),
    /// Nothing is in it.
    Empty,
    /// It has more than 1 MiB.
    TooLong,
    /// It is DER.
    Der,
    /// It is neither PEM nor DER, or PEM without what is looked for.
    NothingIn(Sought),
    /// A section of PEM is damaged.
    BrokenPem,
    /// A certificate can't be read: its number in the file, from 1, and why.
    BrokenCertificate(usize, String),
    /// The certificate with this number did not issue the one before it.
    WrongOrder(usize),
    /// The key belongs to the certificate with this number, which has to be the first.
    LeafNotFirst(usize),
    /// It ended.
    Expired(SystemTime),
    /// It begins later.
    NotYetValid(SystemTime),
    /// The key is of another certificate: the file of that which is configured.
    KeyOfAnother(PathBuf),
    /// The key is encrypted in OpenSSL's own old form.
    LegacyEncryption,
    /// The key is encrypted in a way that is not supported.
    UnsupportedEncryption,
    /// The key is encrypted, and no passphrase file is configured.
    PassphraseMissing,
    /// The passphrase in this file does not open the key.
    WrongPassphrase(PathBuf),
    /// The key is damaged, or neither RSA (2048 to 8192 bits), ECDSA (P-256, P-384, P-521) nor Ed25519.
    UnsupportedKey,
}

/// What a PEM file was read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sought {
    /// `CERTIFICATE`
    Certificate,
    /// `PRIVATE KEY` and its kinds
    Key,
}

impl fmt::Display for CertificateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        use CertificateProblem as Problem;
        let path = self.path.display();
        if self.problem != Problem::NoneConfigured {
            write!(formatter, "{path}: ")?;
        }
        match &self.problem {
            Problem::NoneConfigured => write!(formatter, "no certificate is configured: set cert and key"),
            Problem::Unreadable(kind) => {
                write!(formatter, "can't be read ({kind}): check the path, and that the server's user may read it")
            }
            Problem::Empty => write!(formatter, "is empty: write the PEM into it again"),
            Problem::TooLong => {
                write!(formatter, "has more than 1 MiB, so it is no certificate and no key: check the path")
            }
            Problem::Der => write!(
                formatter,
                "is DER, but PEM is expected: convert it by `openssl x509 -inform der -in {path} -out NEW.pem` \
                 (a key by `openssl pkey -inform der`)"
            ),
            Problem::NothingIn(Sought::Certificate) => {
                write!(
                    formatter,
                    "has no BEGIN CERTIFICATE: it has to be a PEM file with the certificate and its chain"
                )
            }
            Problem::NothingIn(Sought::Key) => {
                write!(formatter, "has no BEGIN PRIVATE KEY (or RSA or EC PRIVATE KEY): it has to be a key as PEM")
            }
            Problem::BrokenPem => {
                write!(formatter, "has a damaged section of PEM: copy the file again from its origin")
            }
            Problem::BrokenCertificate(number, why) => {
                write!(formatter, "certificate {number} can't be read ({why}): have it issued again as X.509 version 3")
            }
            Problem::WrongOrder(number) => write!(
                formatter,
                "the order is wrong, certificate {number} did not issue the one before it: \
                 first the server's own, then each time the one that issued it"
            ),
            Problem::LeafNotFirst(number) => {
                write!(formatter, "the order is wrong, the key belongs to certificate {number}: put that one first")
            }
            Problem::Expired(since) => write!(formatter, "expired at {}: renew it", Date(*since)),
            Problem::NotYetValid(from) => {
                write!(formatter, "is not valid before {}: check this machine's clock, or renew it", Date(*from))
            }
            Problem::KeyOfAnother(cert) => write!(
                formatter,
                "this key does not fit the certificate {}: give the two that belong together",
                cert.display()
            ),
            Problem::LegacyEncryption => write!(
                formatter,
                "is encrypted in an old form that can't be read (Proc-Type: 4,ENCRYPTED): \
                 convert it by `openssl pkcs8 -topk8 -in {path} -out NEW.pem`"
            ),
            Problem::UnsupportedEncryption => write!(
                formatter,
                "is encrypted in a way that is not supported: \
                 convert it by `openssl pkcs8 -topk8 -v2 aes256 -in {path} -out NEW.pem`"
            ),
            Problem::PassphraseMissing => write!(formatter, "is encrypted: name a file with its passphrase"),
            Problem::WrongPassphrase(file) => {
                write!(formatter, "the passphrase in {} does not open this key: correct that file", file.display())
            }
            Problem::UnsupportedKey => write!(
                formatter,
                "is damaged or of a kind that is not supported: use RSA of 2048 to 8192 bits, ECDSA or Ed25519"
            ),
        }
    }
}

impl std::error::Error for CertificateError {}

/// What works, but not for everybody or not for long. An operator should look.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// Only one certificate is in the file, and it was issued by another: many clients will not trust it.
    NoIntermediate(PathBuf),
    /// The certificate of an issuer, with this number in the file, is not valid now.
    IssuerNotValid(PathBuf, usize),
    /// The certificate has no name that a browser would compare.
    NoNames(PathBuf),
    /// Every user of this machine can read a secret.
    ReadableByAll(PathBuf),
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIntermediate(path) => write!(
                formatter,
                "{}: has no chain behind the certificate: most clients will refuse it; \
                 append the certificates that your authority gives with it (fullchain.pem)",
                path.display()
            ),
            Self::IssuerNotValid(path, number) => write!(
                formatter,
                "{}: certificate {number} of the chain is expired or not yet valid: get the current chain",
                path.display()
            ),
            Self::NoNames(path) => write!(
                formatter,
                "{}: names no host (subjectAltName): browsers will refuse it; have it issued with DNS names",
                path.display()
            ),
            Self::ReadableByAll(path) => {
                write!(formatter, "{0}: every user of this machine can read it: chmod 600 {0}", path.display())
            }
        }
    }
}

struct Date(SystemTime);

impl fmt::Display for Date {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_system_time(self.0) {
            Ok(date) => date.fmt(formatter),
            Err(_) => formatter.write_str("a date beyond the calendar"),
        }
    }
}
