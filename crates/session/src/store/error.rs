//! What stands between wootz and a session, for the operator's log: the place, what it said, the remedy. Never an id, a
//! password or what is in a session.

use std::time::Duration;

/// Why a session could not be read, sorted by whose fault it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    // The operator's: every read fails until a setting or a right is changed.
    /// The store can't work as it is set: no such directory, database, certificate.
    #[error("{0}")]
    Settings(String),
    /// wootz may not read there: rights of files, a password.
    #[error("{0}")]
    Denied(String),
    /// The database refuses the query, or the query does not return what it must.
    #[error("{0}")]
    Query(String),

    // One session's: others can be read.
    /// The file of a session is a link, a directory, a FIFO. Somebody may be trying something.
    #[error("a session in {place} is no regular file but {what}, and wootz does not follow it; PHP does neither")]
    NotAFile {
        /// The directory of the sessions.
        place: String,
        /// What it is instead.
        what: &'static str,
    },
    /// A session is larger than wootz reads.
    #[error(
        "a session in {place} has {bytes} bytes, more than the {max_bytes} that wootz reads; keep large things out of the session"
    )]
    TooLarge {
        /// The store.
        place: String,
        /// Its size, or the part of it that was read.
        bytes: u64,
        /// [`StoreOptions::max_bytes`](super::StoreOptions::max_bytes).
        max_bytes: usize,
    },
    /// What is stored under the id of a session is no session.
    #[error("a session in {place} is {what}; identity.session.store must name what the site itself uses")]
    Damaged {
        /// The store.
        place: String,
        /// What is there instead.
        what: &'static str,
    },

    // The environment's: it may pass.
    /// A request of PHP's has the session locked, and had it for as long as wootz waits.
    #[error(
        "PHP held the lock of a session in {place} for more than {} ms; let slow pages call session_write_close() before they work",
        waited.as_millis()
    )]
    Locked {
        /// The directory of the sessions.
        place: String,
        /// How long wootz has waited.
        waited: Duration,
    },
    /// Nobody answers.
    #[error("{0}")]
    Unreachable(String),
    /// Somebody answers too late.
    #[error("{0}")]
    Slow(String),
    /// It answers that it can't answer now, or reading failed.
    #[error("{0}")]
    Failed(String),
}

impl StoreError {
    /// Whether the same read may succeed a moment later without anybody changing anything.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Settings(_) | Self::Denied(_) | Self::Query(_) => false,
            Self::NotAFile { .. } | Self::TooLarge { .. } | Self::Damaged { .. } => false,
            Self::Locked { .. } | Self::Unreachable(_) | Self::Slow(_) | Self::Failed(_) => true,
        }
    }

    /// Whether it concerns this one session, so that others can be read.
    #[must_use]
    pub fn is_of_one_session(&self) -> bool {
        match self {
            Self::NotAFile { .. } | Self::TooLarge { .. } | Self::Damaged { .. } | Self::Locked { .. } => true,
            Self::Settings(_) | Self::Denied(_) | Self::Query(_) => false,
            Self::Unreachable(_) | Self::Slow(_) | Self::Failed(_) => false,
        }
    }
}

/// What a server said, without the secrets that it may repeat: Redis quotes the arguments of commands that it does not
/// know, PostgreSQL a value that does not fit a column.
#[cfg(any(feature = "redis", feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub(super) fn without<'a>(message: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let (message, _) = message.split_once("with args beginning with").unwrap_or((message, ""));
    let mut message = message.trim_end_matches([' ', ',', '.']).to_owned();
    for secret in secrets.into_iter().filter(|secret| !secret.is_empty()) {
        if message.contains(secret) {
            message = message.replace(secret, "…");
        }
    }
    message
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use super::without;

    #[test]
    fn what_a_server_repeats_is_not_logged() {
        let said = "ERR unknown command 'GETRANGE', with args beginning with: 'PHPREDIS_SESSION:abc' '0' ";
        assert_eq!(without(said, []), "ERR unknown command 'GETRANGE'");
        assert_eq!(without("invalid input: \"abc\" for abc", ["abc", ""]), "invalid input: \"…\" for …");
    }
}
