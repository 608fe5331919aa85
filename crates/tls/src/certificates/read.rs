//! From the content of files to a certificate that can be shown, with all that is wrong on the way.

use std::sync::Arc;
use std::time::SystemTime;

use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error, InconsistentKeys};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::files::{Content, Files};
use super::problem::{CertificateError, CertificateProblem, Sought, Warning};

type Parsed = CertificateInner<Raw>;

/// A certificate that fits its key.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Arc<CertifiedKey>,
    /// DNS names in lower case.
    pub(super) names: Vec<String>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

/// Judges one certificate and its key as of `now`.
pub(super) fn entry(
    files: &Files,
    now: SystemTime,
    warnings: &mut Vec<Warning>,
    errors: &mut Vec<CertificateError>,
) -> Option<Entry> {
    let errors_before = errors.len();
    let chain = chain(&files.cert).and_then(|chain| Ok((parse(&files.cert, &chain)?, chain)));
    let key = key(files);
    let chain = chain.map_err(|error| errors.push(error)).ok();
    let key = key.map_err(|error| errors.push(error)).ok();
    let (parsed, chain) = chain?;
    // The chain is judged also where there is no key, so that all errors come at once.
    let mut certified = None;
    if let Some(key) = key {
        match certify(files, chain, key) {
            Ok(key) => certified = Some(key),
            Err(error) => errors.push(error),
        }
    }
    if errors.len() == errors_before
        && let Some(number) = first_out_of_order(&parsed)
    {
        errors.push(files.cert.error(CertificateProblem::WrongOrder(number)));
    }
    check_dates(files, &parsed, now, warnings, errors);
    if errors.len() > errors_before {
        return None;
    }
    let names = names(&parsed[0]);
    warn(files, &parsed, &names, warnings);
    let validity = parsed[0].tbs_certificate().validity();
    let (not_before, not_after) = (validity.not_before.to_system_time(), validity.not_after.to_system_time());
    Some(Entry { key: Arc::new(certified?), names, not_before, not_after })
}

fn chain(content: &Content) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let bytes = content.bytes()?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(bytes).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(content.error(nothing_in(bytes, Sought::Certificate))),
        Ok(chain) => Ok(chain),
        Err(_) => Err(content.error(CertificateProblem::BrokenPem)),
    }
}

fn nothing_in(bytes: &[u8], sought: Sought) -> CertificateProblem {
    const SEQUENCE: u8 = 0x30;
    const LONG_LENGTH: u8 = 0x80;
    match bytes {
        [SEQUENCE, length, ..] if length & LONG_LENGTH != 0 => CertificateProblem::Der,
        // The shortest keys have less than 128 bytes.
        [SEQUENCE, length, rest @ ..] if usize::from(*length) == rest.len() => CertificateProblem::Der,
        _ => CertificateProblem::NothingIn(sought),
    }
}

/// As many as in `chain`, so at least one.
fn parse(content: &Content, chain: &[CertificateDer<'_>]) -> Result<Vec<Parsed>, CertificateError> {
    let broken = |number, why| content.error(CertificateProblem::BrokenCertificate(number, why));
    chain
        .iter()
        .zip(1..)
        .map(|(der, number)| Parsed::from_der(der).map_err(|error| broken(number, error.to_string())))
        .collect()
}

fn key(files: &Files) -> Result<Arc<dyn SigningKey>, CertificateError> {
    let content = &files.key;
    let bytes = content.bytes()?;
    let text = String::from_utf8_lossy(bytes);
    let der = if let Some(section) = encrypted_section(&text) {
        decrypt(files, section)?
    } else if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(content.error(CertificateProblem::LegacyEncryption));
    } else {
        PrivateKeyDer::from_pem_slice(bytes).map_err(|error| {
            content.error(match error {
                pem::Error::NoItemsFound => nothing_in(bytes, Sought::Key),
                _ => CertificateProblem::BrokenPem,
            })
        })?
    };
    let unsupported = |_| content.error(CertificateProblem::UnsupportedKey);
    aws_lc_rs::default_provider().key_provider.load_private_key(der).map_err(unsupported)
}

fn encrypted_section(text: &str) -> Option<&str> {
    const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";
    let section = &text[text.find("-----BEGIN ENCRYPTED PRIVATE KEY-----")?..];
    Some(section.find(END).map_or(section, |end| &section[..end + END.len()]))
}

fn decrypt(files: &Files, section: &str) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let content = &files.key;
    let broken = || content.error(CertificateProblem::BrokenPem);
    let Some(passphrase) = &files.passphrase else {
        return Err(content.error(CertificateProblem::PassphraseMissing));
    };
    let words = passphrase.bytes()?;
    let words = words.strip_suffix(b"\n").unwrap_or(words);
    let words = words.strip_suffix(b"\r").unwrap_or(words);
    let (_, document) = SecretDocument::from_pem(section).map_err(|_| broken())?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|error| match error {
        // An algorithm that its reader doesn't know looks like damage.
        pkcs8::Error::Asn1(_) => content.error(CertificateProblem::UnsupportedEncryption),
        _ => broken(),
    })?;
    let key = encrypted.decrypt(words).map_err(|error| {
        content.error(match error {
            // Sometimes a wrong passphrase gives nonsense rather than an error.
            pkcs8::Error::EncryptedPrivateKey(pkcs8::pkcs5::Error::DecryptFailed) | pkcs8::Error::Asn1(_) => {
                CertificateProblem::WrongPassphrase(passphrase.path.clone())
            }
            _ => CertificateProblem::UnsupportedEncryption,
        })
    })?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

fn certify(
    files: &Files,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
) -> Result<CertifiedKey, CertificateError> {
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(Error::InconsistentKeys(_)) => Err(match position_of_key(&certified) {
            Some(number) => files.cert.error(CertificateProblem::LeafNotFirst(number)),
            None => files.key.error(CertificateProblem::KeyOfAnother(files.cert.path.clone())),
        }),
        Err(error) => Err(files.cert.error(CertificateProblem::BrokenCertificate(1, error.to_string()))),
    }
}

/// The number of the certificate that the key does fit.
fn position_of_key(certified: &CertifiedKey) -> Option<usize> {
    let fits = |cert: &CertificateDer<'static>| {
        CertifiedKey::new(vec![cert.clone()], Arc::clone(&certified.key)).keys_match().is_ok()
    };
    certified.cert.iter().position(fits).map(|index| index + 1)
}

fn first_out_of_order(chain: &[Parsed]) -> Option<usize> {
    let issued = |pair: &[Parsed]| pair[0].tbs_certificate().issuer() == pair[1].tbs_certificate().subject();
    chain.windows(2).position(|pair| !issued(pair)).map(|index| index + 2)
}

fn check_dates(
    files: &Files,
    chain: &[Parsed],
    now: SystemTime,
    warnings: &mut Vec<Warning>,
    errors: &mut Vec<CertificateError>,
) {
    for (certificate, number) in chain.iter().zip(1..) {
        let validity = certificate.tbs_certificate().validity();
        let (from, until) = (validity.not_before.to_system_time(), validity.not_after.to_system_time());
        let problem = if now > until {
            CertificateProblem::Expired(until)
        } else if now < from {
            CertificateProblem::NotYetValid(from)
        } else {
            continue;
        };
        if number == 1 {
            errors.push(files.cert.error(problem));
        } else {
            warnings.push(Warning::IssuerNotValid(files.cert.path.clone(), number));
        }
    }
}

fn names(leaf: &Parsed) -> Vec<String> {
    // An extension that can't be read names nobody, which is said as a warning.
    let Ok(Some((_, SubjectAltName(names)))) = leaf.tbs_certificate().get_extension::<SubjectAltName>() else {
        return Vec::new();
    };
    let dns = |name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        _ => None,
    };
    names.into_iter().filter_map(dns).collect()
}

fn warn(files: &Files, chain: &[Parsed], names: &[String], warnings: &mut Vec<Warning>) {
    files.warn_of_readers(warnings);
    let leaf = chain[0].tbs_certificate();
    if chain.len() == 1 && leaf.issuer() != leaf.subject() {
        warnings.push(Warning::NoIntermediate(files.cert.path.clone()));
    }
    let has_other_names =
        || matches!(leaf.get_extension::<SubjectAltName>(), Ok(Some((_, names))) if !names.0.is_empty());
    if names.is_empty() && !has_other_names() {
        warnings.push(Warning::NoNames(files.cert.path.clone()));
    }
}
