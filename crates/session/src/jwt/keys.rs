//! The keys that may sign: read from files, each bound to its one algorithm.
//!
//! A public key must never become a secret: whoever has it, which is everybody, could sign. So a secret is only what
//! looks like no key in any of the usual clothes.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};

use super::{json, pem};

/// A shorter secret is easier to guess than the hash: RFC 7518 section 3.2.
const MIN_SECRET_BYTES: usize = 32;

/// RFC 7518 section 3.3: 2048 bits or more. Larger ones than this cost milliseconds.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A key is some hundred bytes, a set of them some thousand; a file of another size is something else.
pub(super) const MAX_KEY_FILE_BYTES: u64 = 64 * 1024;

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256: one secret signs and verifies.
    Hs256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// The algorithm of this registered name, which is case-sensitive.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Hs256, Self::Rs256, Self::Es256, Self::EdDsa].into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Its registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file that says what it holds: a public key in PEM, or else a secret for HS256.
    File(PathBuf),
    /// A file that holds a secret for HS256, whatever it looks like, unless that is a public key.
    Secret(PathBuf),
}

impl KeySource {
    /// The source in a setting: a path, or `HS256:` and a path.
    #[must_use]
    pub fn parse(setting: &str) -> Self {
        match setting.strip_prefix("HS256:") {
            Some(path) => Self::Secret(PathBuf::from(path)),
            None => Self::File(PathBuf::from(setting)),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Secret(path) => path,
        }
    }
}

/// A mistake in what the operator gave: which setting, which file, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {}{problem}", file.as_ref().map(|file| format!("{}: ", file.display())).unwrap_or_default())]
pub struct KeyError {
    /// The setting that names it: `identity.jwt.keys`.
    pub setting: &'static str,
    /// The file, if it is about one.
    pub file: Option<PathBuf>,
    /// What is wrong.
    pub problem: KeyProblem,
}

/// What is wrong with a key.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum KeyProblem {
    #[error("no key is given; name a key file here or a JWKS in identity.jwt.jwks_file")]
    NoKeys,
    #[error("is empty; \"sub\" is what most issuers fill in")]
    NoUserClaim,
    #[error("cannot be read ({0}); it must exist and be readable by the user that wootz runs as")]
    Unreadable(io::Error),
    #[error("is no regular file; name the file that holds the key")]
    NotAFile,
    #[error("is longer than {0} bytes, so it is no key; name the file that holds the key")]
    TooLong(u64),
    #[error("is empty; write the key into it")]
    Empty,
    #[error(
        "holds a private key, which wootz must not have; \
         give the public one: openssl pkey -in PRIVATE -pubout -out PUBLIC"
    )]
    PrivateKey,
    #[error("holds a certificate; give its key: openssl x509 -in CERTIFICATE -noout -pubkey > PUBLIC")]
    Certificate,
    #[error("holds {0} keys; give each a file of its own")]
    SeveralKeys(usize),
    #[error("is PEM that is damaged; write it anew: openssl pkey -in PRIVATE -pubout -out PUBLIC")]
    BrokenPem,
    #[error("holds no key that fits: RSA for RS256, EC on P-256 for ES256, or Ed25519 for EdDSA")]
    UnfittingKey,
    #[error("holds an RSA key that has not 2048 to 8192 bits, as RS256 needs: openssl genrsa -out PRIVATE 3072")]
    RsaSize,
    #[error(
        "holds a secret of {0} bytes, which can be guessed; HS256 needs 32 or more (RFC 7518): openssl rand -base64 48"
    )]
    ShortSecret(usize),
    #[error(
        "holds a public key in another form than PEM; as a secret it would let everybody sign. \
         Convert it: openssl pkey -pubin -inform DER -in KEY -out PUBLIC, or ssh-keygen -e -m PKCS8 -f KEY"
    )]
    PublicKeyAsSecret,
    #[error("is a public key in PEM and cannot be a secret; leave out the prefix HS256:")]
    PemAsSecret,
    #[error("holds JSON, not a key; a set of keys (JWKS) belongs into identity.jwt.jwks_file")]
    JwksAsKey,
    #[error("is no JWKS ({0}); it looks like {{\"keys\": [{{\"kty\": \"RSA\", ...}}]}}")]
    NotJwks(&'static str),
    #[error("key {0} of it holds a private key; publish the public members only")]
    PrivateKeyInJwks(String),
    #[error("key {0} of it is a secret of {1} bytes, which can be guessed; HS256 needs 32 or more (RFC 7518)")]
    ShortSecretInJwks(String, usize),
    #[error("holds no key that fits{0}; RSA for RS256, EC P-256 for ES256, OKP Ed25519 for EdDSA and oct for HS256 do")]
    NoUsableKey(String),
    #[error("makes it {0} keys; at most {max} are kept", max = super::verifier::MAX_KEYS)]
    TooManyKeys(usize),
}

/// A key and, if it came with one, its name.
pub(super) struct Key {
    pub(super) kid: Option<String>,
    material: Material,
}

/// What verifies. The kind is the algorithm: no key can be used for another.
enum Material {
    Hs256(Box<hmac::Key>),
    Rs256(ParsedPublicKey),
    Es256(ParsedPublicKey),
    EdDsa(ParsedPublicKey),
}

/// Never the key: one of them is a secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("algorithm", &self.algorithm()).finish_non_exhaustive()
    }
}

impl Key {
    pub(super) fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Hs256(_) => Algorithm::Hs256,
            Material::Rs256(_) => Algorithm::Rs256,
            Material::Es256(_) => Algorithm::Es256,
            Material::EdDsa(_) => Algorithm::EdDsa,
        }
    }

    /// Whether this key has signed it. Takes as long for a wrong HMAC as for a right one.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Hs256(secret) => hmac::verify(secret, message, signature).is_ok(),
            Material::Rs256(key) | Material::Es256(key) | Material::EdDsa(key) => {
                key.verify_sig(message, signature).is_ok()
            }
        }
    }

    pub(super) fn named(self, kid: Option<String>) -> Self {
        Self { kid, ..self }
    }

    pub(super) fn secret(secret: &[u8]) -> Result<Self, KeyProblem> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(KeyProblem::ShortSecret(secret.len()));
        }
        Ok(Self { kid: None, material: Material::Hs256(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret))) })
    }

    /// An RSA key of its numbers, big-endian.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyProblem> {
        let significant = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
        RsaPublicKeyComponents { n: significant(modulus), e: significant(exponent) }
            .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
            .map_err(|_| KeyProblem::UnfittingKey)
            .and_then(Self::sized_rsa)
    }

    /// The library would take an RSA key of any size and then refuse every signature.
    fn sized_rsa(key: ParsedPublicKey) -> Result<Self, KeyProblem> {
        let der: PublicKeyX509Der<'_> = key.as_der().map_err(|_| KeyProblem::UnfittingKey)?;
        let sized = PublicEncryptingKey::from_der(der.as_ref()).map_err(|_| KeyProblem::RsaSize)?;
        if !RSA_BITS.contains(&sized.key_size_bits()) {
            return Err(KeyProblem::RsaSize);
        }
        Ok(Self { kid: None, material: Material::Rs256(key) })
    }

    /// A key on P-256: its point, or its `SubjectPublicKeyInfo`.
    pub(super) fn p256(key: &[u8]) -> Result<Self, KeyProblem> {
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).map_err(|_| KeyProblem::UnfittingKey)?;
        Ok(Self { kid: None, material: Material::Es256(key) })
    }

    /// An Ed25519 key: its 32 bytes, or its `SubjectPublicKeyInfo`.
    pub(super) fn ed25519(key: &[u8]) -> Result<Self, KeyProblem> {
        let key = ParsedPublicKey::new(&ED25519, key).map_err(|_| KeyProblem::UnfittingKey)?;
        Ok(Self { kid: None, material: Material::EdDsa(key) })
    }

    /// Whichever key the DER of a public key holds.
    fn of_der(der: &[u8]) -> Result<Self, KeyProblem> {
        if !pem::is_der(der) {
            return Err(KeyProblem::BrokenPem);
        }
        match ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der) {
            Ok(key) => Self::sized_rsa(key),
            Err(_) => Self::p256(der).or_else(|_| Self::ed25519(der)),
        }
    }
}

/// Reads a key file.
pub(super) fn load(source: &KeySource) -> Result<Key, KeyProblem> {
    let content = read(source.path(), MAX_KEY_FILE_BYTES)?;
    let armoured = pem::is_armoured(&content);
    match source {
        KeySource::File(_) if armoured => of_pem(&content),
        KeySource::Secret(_) if armoured => Err(of_pem(&content).err().unwrap_or(KeyProblem::PemAsSecret)),
        KeySource::File(_) | KeySource::Secret(_) => of_secret(&content),
    }
}

/// Reads a file that must be an ordinary one of at most so many bytes: a pipe would be waited for, a device never ends.
pub(super) fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, KeyProblem> {
    let metadata = fs::metadata(path).map_err(KeyProblem::Unreadable)?;
    if !metadata.is_file() {
        return Err(KeyProblem::NotAFile);
    }
    if metadata.len() > max_bytes {
        return Err(KeyProblem::TooLong(max_bytes));
    }
    let content = fs::read(path).map_err(KeyProblem::Unreadable)?;
    if content.trim_ascii().is_empty() { Err(KeyProblem::Empty) } else { Ok(content) }
}

fn of_pem(content: &[u8]) -> Result<Key, KeyProblem> {
    let text = String::from_utf8_lossy(content);
    let blocks = pem::blocks(&text);
    let is = |what: &str| blocks.iter().any(|block| block.label.contains(what));
    if is("PRIVATE KEY") {
        return Err(KeyProblem::PrivateKey);
    }
    if is("CERTIFICATE") {
        return Err(KeyProblem::Certificate);
    }
    match blocks.as_slice() {
        [pem::Block { label: "PUBLIC KEY" | "RSA PUBLIC KEY", der: Some(der) }] => Key::of_der(der),
        [pem::Block { der: Some(_), .. }] => Err(KeyProblem::UnfittingKey),
        [_] | [] => Err(KeyProblem::BrokenPem),
        several => Err(KeyProblem::SeveralKeys(several.len())),
    }
}

fn of_secret(content: &[u8]) -> Result<Key, KeyProblem> {
    if looks_like_a_public_key(content) {
        return Err(KeyProblem::PublicKeyAsSecret);
    }
    if json::object(content).is_ok() {
        return Err(KeyProblem::JwksAsKey);
    }
    Key::secret(without_line_break(content))
}

fn looks_like_a_public_key(content: &[u8]) -> bool {
    let text = content.trim_ascii();
    let ssh = [&b"ssh-"[..], b"ecdsa-sha2-", b"sk-"];
    let is_ssh = ssh.iter().any(|start| text.starts_with(start)) && text.contains(&b' ');
    let is_bare = std::str::from_utf8(text).ok().and_then(pem::decoded).is_some_and(|bytes| pem::is_der(&bytes));
    let without_break = content.strip_suffix(b"\n").unwrap_or(content);
    is_ssh || is_bare || pem::is_der(content) || pem::is_der(without_break)
}

/// Editors and `echo` end a text with a line break that nobody means. In bytes that are no text it is a byte like
/// others.
fn without_line_break(content: &[u8]) -> &[u8] {
    let Some(text) = content.strip_suffix(b"\n") else { return content };
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let is_text = std::str::from_utf8(text).is_ok_and(|text| !text.chars().any(char::is_control));
    if is_text { text } else { content }
}
