//! 4 · who: settles who a browser is before it is answered.

mod application;
mod jwt;
mod session;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use wootz_protocol::handshake::Request;
use wootz_runner::Caller;
use wootz_session::MAX_USER_BYTES;

use crate::config::{Guests, Provider};
use crate::metrics::RefusedBy;
use crate::shard::Shard;

pub(crate) use session::{News, Sessions, Verdict, Watched, run_rechecks};

/// Who a browser is.
#[derive(Debug)]
pub(crate) struct Identity {
    /// `None`: a guest.
    pub(crate) user: Option<Arc<str>>,
    /// The session that says so, where one does: what outlives the connection.
    pub(crate) session: Option<Arc<str>>,
    /// When that ends. `None`: with the connection.
    pub(crate) expires: Option<Instant>,
    /// What is looked at again while the connection is open.
    pub(crate) watched: Option<Box<Watched>>,
    /// Channels that its connection is in from the beginning.
    pub(crate) channels: Vec<Arc<str>>,
}

impl Identity {
    pub(crate) const GUEST: Self =
        Self { user: None, session: None, expires: None, watched: None, channels: Vec::new() };
}

/// Why a browser is not let in. The texts are for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoIdentity {
    /// The application has said no.
    Refused(String),
    /// Its session was recorded for another address.
    Elsewhere,
    /// It showed a token that is not to be trusted.
    BadToken(String),
    /// It is nobody, and guests are refused.
    GuestRefused,
    /// The application could not say who it is.
    Unsettled(String),
    /// Its session could not be read.
    Unreadable(String),
}

impl NoIdentity {
    /// What it is counted as.
    pub(crate) fn refused_by(&self) -> RefusedBy {
        match self {
            Self::Refused(_) | Self::Unsettled(_) => RefusedBy::Application,
            Self::Elsewhere => RefusedBy::VerifyIp,
            Self::BadToken(_) => RefusedBy::Jwt,
            Self::GuestRefused => RefusedBy::Guests,
            Self::Unreadable(_) => RefusedBy::Session,
        }
    }
}

/// A handshake whose browser is to be known.
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a Request<'a>,
    pub(crate) remote: SocketAddr,
    /// Makes what a call is told about it.
    pub(crate) caller: &'a dyn Fn() -> Arc<Caller>,
}

/// Settles who this browser is.
///
/// # Cancel safety
/// Dropping the future ends the call that it may have begun.
pub(crate) async fn settle(shard: &Rc<Shard>, asked: &Asked<'_>) -> Result<Identity, NoIdentity> {
    let identity = match &shard.config.identity.provider {
        Provider::None => Identity::GUEST,
        Provider::Application => application::ask(shard, (asked.caller)()).await?,
        Provider::Session(_) => {
            let sessions = shard.sessions.as_ref().expect("a shard with this provider was made with its sessions");
            sessions.identify(asked.request, asked.remote).await?
        }
        Provider::Jwt(_) => {
            let verifier = shard.verifier.as_ref().expect("a shard with this provider was made with its keys");
            jwt::identify(verifier, asked.request)?
        }
    };
    match (identity.user.is_some(), shard.config.identity.guests) {
        (true, _) | (false, Guests::Allow) => Ok(identity),
        (false, Guests::Refuse) => Err(NoIdentity::GuestRefused),
    }
}

/// The user of this id, if it can be one. An empty one is nobody.
fn user(id: &str) -> Result<Option<Arc<str>>, String> {
    if id.len() > MAX_USER_BYTES {
        return Err(format!("the user's id is longer than {MAX_USER_BYTES} bytes"));
    }
    if id.chars().any(char::is_control) {
        return Err("the user's id holds a control character".to_owned());
    }
    Ok((!id.is_empty()).then(|| Arc::from(id)))
}
