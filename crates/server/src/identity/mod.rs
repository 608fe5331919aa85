//! 4 · who: settles who a browser is before it is answered.

mod application;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use wootz_runner::Caller;

use crate::config::{Guests, Provider};
use crate::shard::Shard;

/// Who a browser is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `None`: a guest.
    pub(crate) user: Option<Arc<str>>,
    /// The session that says so, where one does: what outlives the connection.
    pub(crate) session: Option<Arc<str>>,
    /// When that ends. `None`: with the connection.
    pub(crate) expires: Option<Instant>,
    /// Channels that its connection is in from the beginning.
    pub(crate) channels: Vec<Arc<str>>,
}

impl Identity {
    pub(crate) const GUEST: Self = Self { user: None, session: None, expires: None, channels: Vec::new() };
}

/// Why a browser is not let in. The texts are for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoIdentity {
    /// Whoever decides has said no.
    Refused(String),
    /// It is nobody, and guests are refused.
    GuestRefused,
    /// It could not be decided now.
    Unsettled(String),
}

/// Settles who this browser is. `caller` makes what a call is told about it.
///
/// # Cancel safety
/// Dropping the future ends the call that it may have begun.
pub(crate) async fn settle(shard: &Rc<Shard>, caller: impl FnOnce() -> Arc<Caller>) -> Result<Identity, NoIdentity> {
    let identity = match shard.config.identity.provider {
        Provider::None => Identity::GUEST,
        Provider::Application => application::ask(shard, caller()).await?,
    };
    match (identity.user.is_some(), shard.config.identity.guests) {
        (true, _) | (false, Guests::Allow) => Ok(identity),
        (false, Guests::Refuse) => Err(NoIdentity::GuestRefused),
    }
}
