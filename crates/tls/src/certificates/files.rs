//! Reads what is configured, once, so that all that is judged is of the same moment.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::problem::{CertificateError, CertificateProblem, Warning};

const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where a certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateSettings {
    /// The certificate and behind it those of its issuers, as PEM.
    pub cert: PathBuf,
    /// The private key as PEM: PKCS#8 (also encrypted), PKCS#1 or SEC1. It may be the same file.
    pub key: PathBuf,
    /// What opens an encrypted key: the file's content without its last line end.
    pub passphrase_file: Option<PathBuf>,
}

/// One file's content, or why there is none.
pub(super) struct Content {
    pub(super) path: PathBuf,
    bytes: Result<Vec<u8>, io::ErrorKind>,
    mode: u32,
}

/// The content of all files of one certificate.
pub(super) struct Files {
    pub(super) cert: Content,
    pub(super) key: Content,
    pub(super) passphrase: Option<Content>,
}

/// Tells one state of all files from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

impl Content {
    fn read(path: &Path) -> Self {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| {
            let mode = file.metadata()?.mode();
            file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
            Ok(mode)
        });
        let path = path.to_owned();
        match read {
            Ok(mode) => Self { path, bytes: Ok(bytes), mode },
            Err(error) => Self { path, bytes: Err(error.kind()), mode: 0 },
        }
    }

    /// What is in it, if it can be anything.
    pub(super) fn bytes(&self) -> Result<&[u8], CertificateError> {
        match &self.bytes {
            Err(kind) => Err(self.error(CertificateProblem::Unreadable(*kind))),
            Ok(bytes) if bytes.trim_ascii().is_empty() => Err(self.error(CertificateProblem::Empty)),
            Ok(bytes) if bytes.len() as u64 > MAX_FILE_BYTES => Err(self.error(CertificateProblem::TooLong)),
            Ok(bytes) => Ok(bytes),
        }
    }

    pub(super) fn error(&self, problem: CertificateProblem) -> CertificateError {
        CertificateError { path: self.path.clone(), problem }
    }

    fn warn_of_readers(&self, warnings: &mut Vec<Warning>) {
        const READ_BY_OTHERS: u32 = 0o004;
        let warning = Warning::ReadableByAll(self.path.clone());
        if self.mode & READ_BY_OTHERS != 0 && !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
}

impl Files {
    pub(super) fn read(settings: &CertificateSettings) -> Self {
        Self {
            cert: Content::read(&settings.cert),
            key: Content::read(&settings.key),
            passphrase: settings.passphrase_file.as_deref().map(Content::read),
        }
    }

    /// A key that everybody can read is no secret, but an encrypted one may be; then it is its passphrase that counts.
    pub(super) fn warn_of_readers(&self, warnings: &mut Vec<Warning>) {
        self.passphrase.as_ref().unwrap_or(&self.key).warn_of_readers(warnings);
    }
}

impl Fingerprint {
    pub(super) fn of(all: &[Files]) -> Self {
        let mut hasher = DefaultHasher::new();
        for files in all {
            for content in [Some(&files.cert), Some(&files.key), files.passphrase.as_ref()].into_iter().flatten() {
                content.bytes.hash(&mut hasher);
            }
        }
        Self(hasher.finish())
    }
}
