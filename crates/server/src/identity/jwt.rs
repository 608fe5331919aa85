//! `provider = "jwt"`: a signed token says who a browser is, and until when. Nobody is asked.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use wootz_protocol::handshake::Request;
use wootz_session::jwt::{self, Verifier};

use super::{Identity, NoIdentity};

/// Who the token of this handshake names. Without a token a browser is a guest; with one that is not to be trusted it is nobody.
pub(super) fn identify(verifier: &Verifier, request: &Request<'_>) -> Result<Identity, NoIdentity> {
    let offers = request.all("sec-websocket-protocol").filter_map(|value| std::str::from_utf8(value).ok());
    let offers = offers.flat_map(|value| value.split(',').map(str::trim));
    let query = request.uri().split_once('?').map(|(_, query)| query);
    let Some((source, token)) = jwt::find(request.header("authorization"), offers, query) else {
        return Ok(Identity::GUEST);
    };
    // What it found is in the log already; the keys that are good stay.
    let _ = verifier.reload_if_changed(Instant::now());
    let now = SystemTime::now();
    let claims = verifier
        .verify(&token, now)
        .map_err(|rejected| NoIdentity::BadToken(format!("the token in {source}: {rejected}")))?;
    // A clock that has been set since may make this 0: the connection then ends at once, and comes back.
    let lifetime = claims.expires.duration_since(now).unwrap_or_default();
    let user: Option<Arc<str>> = claims.user;
    // Too far away for the clock is never.
    Ok(Identity { user, expires: Instant::now().checked_add(lifetime), ..Identity::GUEST })
}
