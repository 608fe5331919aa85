//! A set of keys as identity providers publish it (RFC 7517), from a file.
//!
//! What is for something else (encryption, another algorithm) is skipped, as section 5 wants; what is dangerous is
//! refused.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::json::{self, Json, Object};
use super::keys::{self, Algorithm, Key, KeyProblem};

/// A set of keys with certificates in it is some ten kilobytes.
const MAX_JWKS_BYTES: u64 = 1024 * 1024;

/// So many skipped keys are named in an error.
const MAX_REASONS: usize = 4;

/// Why a key of the set is not taken.
enum Unusable {
    Skipped(&'static str),
    Refused(KeyProblem),
}

/// Reads the keys of a set that can verify.
pub(super) fn load(path: &Path) -> Result<Vec<Key>, KeyProblem> {
    let content = keys::read(path, MAX_JWKS_BYTES)?;
    let set = json::object(&content).map_err(|fault| KeyProblem::NotJwks(fault.reason()))?;
    let members = set.get("keys").and_then(Json::as_list).ok_or(KeyProblem::NotJwks("it has no array \"keys\""))?;
    let mut keys = Vec::new();
    let mut reasons = Vec::new();
    for (index, member) in members.iter().enumerate() {
        match key(member, &name(index, member)) {
            Ok(key) => keys.push(key),
            Err(Unusable::Refused(problem)) => return Err(problem),
            Err(Unusable::Skipped(reason)) => {
                let key = name(index, member);
                tracing::debug!(file = %path.display(), key, reason, "a key of the JWKS is not used");
                reasons.push(format!("{key}: {reason}"));
            }
        }
    }
    if keys.is_empty() {
        reasons.truncate(MAX_REASONS);
        let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) };
        return Err(KeyProblem::NoUsableKey(reasons));
    }
    Ok(keys)
}

/// How an operator finds the key: its place and, if that is short, its kid.
fn name(index: usize, member: &Json) -> String {
    let kid = member.as_object().and_then(|key| key.get("kid")).and_then(Json::as_text);
    match kid.filter(|kid| kid.len() <= 64) {
        Some(kid) => format!("{} (kid {kid:?})", index + 1),
        None => (index + 1).to_string(),
    }
}

fn key(member: &Json, name: &str) -> Result<Key, Unusable> {
    let skipped = |reason| Unusable::Skipped(reason);
    let key = member.as_object().ok_or(skipped("is no object"))?;
    let algorithm = algorithm(key)?;
    // A private key in the set is leaked, whether it is used or not.
    if algorithm != Algorithm::Hs256 && key.contains_key("d") {
        return Err(Unusable::Refused(KeyProblem::PrivateKeyInJwks(name.to_owned())));
    }
    let kid = match key.get("kid") {
        None => None,
        Some(kid) => Some(kid.as_text().ok_or(skipped("its kid is no text"))?.to_owned()),
    };
    let made = match algorithm {
        Algorithm::Hs256 => Key::secret(&bytes(key, "k")?),
        Algorithm::Rs256 => Key::rsa(&bytes(key, "n")?, &bytes(key, "e")?),
        Algorithm::Es256 => Key::p256(&point(&bytes(key, "x")?, &bytes(key, "y")?)?),
        Algorithm::EdDsa => Key::ed25519(&exactly_32(bytes(key, "x")?)?),
    };
    made.map(|key| key.named(kid)).map_err(|problem| match problem {
        KeyProblem::ShortSecret(length) => Unusable::Refused(KeyProblem::ShortSecretInJwks(name.to_owned(), length)),
        KeyProblem::RsaSize => skipped("RSA keys need 2048 to 8192 bits"),
        _ => skipped("its numbers are no key"),
    })
}

/// What a key is for, if that is something we do.
fn algorithm(key: &Object) -> Result<Algorithm, Unusable> {
    let skipped = |reason| Err(Unusable::Skipped(reason));
    let text = |name: &str| key.get(name).map(|value| value.as_text().unwrap_or_default());
    if text("use").is_some_and(|usage| usage != "sig") {
        return skipped("its use is not sig");
    }
    if let Some(operations) = key.get("key_ops") {
        let verifies = |operation: &Json| operation.as_text() == Some("verify");
        if !operations.as_list().is_some_and(|operations| operations.iter().any(verifies)) {
            return skipped("its key_ops lack verify");
        }
    }
    let fitting = match (text("kty"), text("crv")) {
        (Some("oct"), _) => Algorithm::Hs256,
        (Some("RSA"), _) => Algorithm::Rs256,
        (Some("EC"), Some("P-256")) => Algorithm::Es256,
        (Some("OKP"), Some("Ed25519")) => Algorithm::EdDsa,
        (Some("EC" | "OKP"), _) => return skipped("its curve is neither P-256 nor Ed25519"),
        (_, _) => return skipped("its kty is none of RSA, EC, OKP and oct"),
    };
    if text("alg").is_some_and(|name| name != fitting.name()) {
        return skipped("its alg is not the one that is taken for its kty");
    }
    Ok(fitting)
}

fn bytes(key: &Object, name: &'static str) -> Result<Vec<u8>, Unusable> {
    let text = key.get(name).and_then(Json::as_text).ok_or(Unusable::Skipped("a member of its key is missing"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Unusable::Skipped("a member of its key is not base64url"))
}

/// A point in the form that stands in certificates, too.
fn point(x: &[u8], y: &[u8]) -> Result<Vec<u8>, Unusable> {
    if x.len() != 32 || y.len() != 32 {
        return Err(Unusable::Skipped("its numbers have not 32 bytes"));
    }
    Ok([&[4], x, y].concat())
}

fn exactly_32(bytes: Vec<u8>) -> Result<Vec<u8>, Unusable> {
    if bytes.len() == 32 { Ok(bytes) } else { Err(Unusable::Skipped("its number has not 32 bytes")) }
}
