//! One token: taken apart, its signature before its claims, its claims one by one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::json::{self, Json, Object};
use super::keys::{Algorithm, Key};
use super::verifier::JwtSettings;
use crate::MAX_USER_BYTES;

/// A token is at most so long; what is longer does not fit into the headers of most servers either.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The end of the year 9999. A time beyond it is one in milliseconds, or a mistake.
const LAST_SECOND: u64 = 253_402_300_799;

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who it is. `None`: the token names nobody (the claim is missing, null or an empty text), so it is a guest.
    pub user: Option<Arc<str>>,
    /// From when on the token is no longer accepted: its `exp` and the leeway.
    pub expires: SystemTime,
}

/// Why a token lets nobody in. For the log: names the reason and the setting, never what is in the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It is longer than [`MAX_TOKEN_BYTES`].
    #[error("the token is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// It is no token.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// It says of itself that nobody signed it.
    #[error("the token is not signed (its alg is none)")]
    Unsigned,
    /// It names an algorithm that is not supported.
    #[error("the token's alg is none of HS256, RS256, ES256 and EdDSA")]
    UnknownAlgorithm,
    /// RFC 7515 section 4.1.11: extensions in `crit` that are not understood make the token invalid. None is
    /// understood.
    #[error("the token demands an extension (crit), and none is supported")]
    Critical,
    /// No key is for the algorithm that it names.
    #[error("the token is for {0}, and no key for that is in identity.jwt.keys or identity.jwt.jwks_file")]
    NoKeyFor(Algorithm),
    /// Its `kid` names no key.
    #[error("no key has the token's kid; is identity.jwt.jwks_file up to date?")]
    UnknownKey,
    /// The key that its `kid` names is for another algorithm.
    #[error("the token's alg is not the algorithm of the key that its kid names (identity.jwt.jwks_file)")]
    OtherAlgorithm,
    /// None of our keys signed it.
    #[error("the token is not signed by a key of identity.jwt.keys or identity.jwt.jwks_file")]
    Signature,
    /// It has no `exp`.
    #[error("the token has no exp; tokens without an end are not accepted")]
    NoExpiry,
    /// Its `exp` is over, with this leeway.
    #[error("the token has expired (exp), also with {0:?} of leeway")]
    Expired(Duration),
    /// Its `nbf` is to come, with this leeway.
    #[error("the token is not valid yet (nbf), also with {0:?} of leeway; is a clock wrong?")]
    NotYet(Duration),
    /// A claim is not of the kind that RFC 7519 says.
    #[error("the token's {claim} is not {wanted}")]
    Kind {
        /// The claim.
        claim: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// It is from somebody else, or says not from whom.
    #[error("the token's iss is not identity.jwt.issuer")]
    Issuer,
    /// It is for somebody else, or says not for whom.
    #[error("the token's aud does not contain identity.jwt.audience")]
    Audience,
    /// It has an `aud`, and nothing is configured that it could name (RFC 7519 section 4.1.3: it MUST be rejected then).
    #[error("the token is made for an audience (aud), and identity.jwt.audience does not say who we are")]
    Unaddressed,
    /// Its user is no id.
    #[error("the token's user (identity.jwt.user_claim) {0}")]
    User(&'static str),
}

/// Takes the token apart and believes it only if one of the keys has signed it.
pub(super) fn verify(token: &str, keys: &[Key], settings: &JwtSettings, now: SystemTime) -> Result<Claims, Rejected> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Rejected::TooLong);
    }
    let [header, payload, signature] = parts(token)?;
    let header = object(header, Part::Header)?;
    let candidates = candidates(&header, keys)?;
    // The signature is over the text up to the last dot.
    let signed = &token.as_bytes()[..token.len() - signature.len() - 1];
    let signature = decode(signature, "its signature is not base64url")?;
    if !candidates.iter().any(|key| key.has_signed(signed, &signature)) {
        return Err(Rejected::Signature);
    }
    claims(&object(payload, Part::Payload)?, settings, now)
}

fn parts(token: &str) -> Result<[&str; 3], Rejected> {
    let mut parts = token.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.count()) {
        (Some(header), Some(payload), Some(signature), 0) => Ok([header, payload, signature]),
        (_, _, _, 2) => Err(Rejected::Malformed("it is encrypted (JWE); only signed tokens are read")),
        (_, _, _, _) => Err(Rejected::Malformed("it has not three parts")),
    }
}

#[derive(Clone, Copy)]
enum Part {
    Header,
    Payload,
}

fn object(part: &str, which: Part) -> Result<Object, Rejected> {
    let (encoding, json, duplicate, deep) = match which {
        Part::Header => (
            "its header is not base64url",
            "its header is no JSON object",
            "its header has a name twice",
            "its header is nested too deeply",
        ),
        Part::Payload => (
            "its claims are not base64url",
            "its claims are no JSON object",
            "its claims have a name twice",
            "its claims are nested too deeply",
        ),
    };
    json::object(&decode(part, encoding)?).map_err(|fault| {
        Rejected::Malformed(match fault {
            json::NotJson::Malformed | json::NotJson::NoObject => json,
            json::NotJson::Duplicate => duplicate,
            json::NotJson::TooDeep => deep,
        })
    })
}

/// Base64url without padding and without bits that mean nothing: one signature has one text.
fn decode(part: &str, fault: &'static str) -> Result<Vec<u8>, Rejected> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Rejected::Malformed(fault))
}

/// The keys that may have signed a token of this header.
fn candidates<'k>(header: &Object, keys: &'k [Key]) -> Result<Vec<&'k Key>, Rejected> {
    if header.contains_key("crit") {
        return Err(Rejected::Critical);
    }
    let name = header.get("alg").and_then(Json::as_text).ok_or(Rejected::Malformed("its header has no alg"))?;
    if name.eq_ignore_ascii_case("none") {
        return Err(Rejected::Unsigned);
    }
    let algorithm = Algorithm::of(name).ok_or(Rejected::UnknownAlgorithm)?;
    let fits = |key: &&Key| key.algorithm() == algorithm;
    let kid = match header.get("kid") {
        None => {
            let fitting: Vec<&Key> = keys.iter().filter(fits).collect();
            return if fitting.is_empty() { Err(Rejected::NoKeyFor(algorithm)) } else { Ok(fitting) };
        }
        Some(kid) => kid.as_text().ok_or(Rejected::Malformed("its kid is no text"))?,
    };
    let named: Vec<&Key> = keys.iter().filter(|key| key.kid.as_deref() == Some(kid)).collect();
    if !named.is_empty() {
        let fitting: Vec<&Key> = named.into_iter().filter(fits).collect();
        return if fitting.is_empty() { Err(Rejected::OtherAlgorithm) } else { Ok(fitting) };
    }
    // A key file has no name that could contradict the token's; whether it is the key, its signature says.
    let nameless = |key: &&Key| key.kid.is_none();
    if !keys.iter().any(|key| nameless(&key)) {
        return Err(Rejected::UnknownKey);
    }
    let fitting: Vec<&Key> = keys.iter().filter(nameless).filter(fits).collect();
    if fitting.is_empty() { Err(Rejected::NoKeyFor(algorithm)) } else { Ok(fitting) }
}

fn claims(claims: &Object, settings: &JwtSettings, now: SystemTime) -> Result<Claims, Rejected> {
    // A clock before 1970 is one that nobody has set; then everything is in its future.
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let expiry = time(claims, "exp")?.ok_or(Rejected::NoExpiry)?.saturating_add(settings.leeway);
    // RFC 7519 section 4.1.4: "on or after which the JWT MUST NOT be accepted".
    if now >= expiry {
        return Err(Rejected::Expired(settings.leeway));
    }
    if time(claims, "nbf")?.is_some_and(|start| now.saturating_add(settings.leeway) < start) {
        return Err(Rejected::NotYet(settings.leeway));
    }
    time(claims, "iat")?;
    issuer(claims, &settings.issuer)?;
    audience(claims, &settings.audience)?;
    let expires = SystemTime::UNIX_EPOCH.checked_add(expiry).ok_or(Rejected::Kind { claim: "exp", wanted: TIME })?;
    Ok(Claims { user: user(claims, &settings.user_claim)?, expires })
}

const TIME: &str = "a time in seconds from 1970 to 9999 (milliseconds are a frequent mistake)";

/// A time, since 1970. RFC 7519 allows fractions of a second.
fn time(claims: &Object, claim: &'static str) -> Result<Option<Duration>, Rejected> {
    let since = match claims.get(claim) {
        None => return Ok(None),
        Some(Json::Whole(seconds)) => Some(Duration::from_secs(*seconds)),
        Some(Json::Number(seconds)) => Duration::try_from_secs_f64(*seconds).ok(),
        Some(Json::Null | Json::Bool | Json::Text(_) | Json::List(_) | Json::Object(_)) => None,
    };
    let since = since.filter(|since| since.as_secs() <= LAST_SECOND);
    since.map(Some).ok_or(Rejected::Kind { claim, wanted: TIME })
}

fn issuer(claims: &Object, expected: &str) -> Result<(), Rejected> {
    let issuer = match claims.get("iss") {
        None => None,
        Some(issuer) => Some(issuer.as_text().ok_or(Rejected::Kind { claim: "iss", wanted: "a text" })?),
    };
    if expected.is_empty() || issuer == Some(expected) { Ok(()) } else { Err(Rejected::Issuer) }
}

fn audience(claims: &Object, expected: &str) -> Result<(), Rejected> {
    const KIND: Rejected = Rejected::Kind { claim: "aud", wanted: "a text or an array of texts" };
    let contained = match claims.get("aud") {
        None => false,
        Some(Json::Text(audience)) => audience == expected,
        Some(Json::List(list)) => {
            let texts: Option<Vec<&str>> = list.iter().map(Json::as_text).collect();
            texts.ok_or(KIND)?.contains(&expected)
        }
        Some(Json::Null | Json::Bool | Json::Whole(_) | Json::Number(_) | Json::Object(_)) => return Err(KIND),
    };
    match (expected, claims.get("aud")) {
        ("", None) => Ok(()),
        ("", Some(_)) => Err(Rejected::Unaddressed),
        _ if contained => Ok(()),
        _ => Err(Rejected::Audience),
    }
}

/// The user in a claim of this name, or at this path: names that are addresses hold dots, too, so the whole name is
/// first.
fn user(claims: &Object, path: &str) -> Result<Option<Arc<str>>, Rejected> {
    let at_path = || {
        let mut names = path.split('.');
        let first = claims.get(names.next()?);
        names.fold(first, |value, name| value?.as_object()?.get(name))
    };
    let id = match claims.get(path).or_else(at_path) {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::Text(text)) => text.clone(),
        Some(Json::Whole(number)) => number.to_string(),
        Some(Json::Bool | Json::Number(_) | Json::List(_) | Json::Object(_)) => {
            return Err(Rejected::User("is neither a text nor a whole number"));
        }
    };
    if id.len() > MAX_USER_BYTES {
        return Err(Rejected::User("is longer than 128 bytes"));
    }
    if id.chars().any(char::is_control) {
        return Err(Rejected::User("holds a control character"));
    }
    Ok((!id.is_empty()).then(|| Arc::from(id)))
}
