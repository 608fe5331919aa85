//! `provider = "session"`: the site's own session says who a browser is, found by the cookie that the browser already has.
//!
//! Nothing is run, nothing is written, and PHP's lock is never held longer than the read. A session is looked at before the 101 and
//! again every `identity.recheck`: the connections that are due are looked at together, so that a store is asked once for many.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use wootz_hub::Key;
use wootz_protocol::handshake::Request;
use wootz_session::SessionId;
use wootz_session::cookie::{self, CookieId};
use wootz_session::serialize::{self, KeyPath, Value};
use wootz_session::store::{Recheck, Record, Store, StoreError, Version};

use super::{Identity, NoIdentity};
use crate::config::{Guests, SessionProvider, UserChange, VerifyAddress};
use crate::shard::Shard;

/// Sessions that a store is asked for at once. A shard does nothing else while it looks at so many files.
const RECHECK_BATCH: usize = 128;

/// How often the log says that a store can't be asked.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// The sessions of one shard.
pub(crate) struct Sessions {
    store: Store,
    provider: SessionProvider,
    guests: Guests,
    due: RefCell<Vec<Due>>,
    is_due: Notify,
    said: Cell<Option<Instant>>,
}

/// A connection whose session is to be looked at again.
struct Due {
    key: Key,
    session: SessionId,
    version: Version,
}

/// The session that a living connection depends on.
#[derive(Debug)]
pub(crate) struct Watched {
    session: SessionId,
    version: Version,
    address: IpAddr,
    /// When it is looked at again.
    pub(crate) due: Instant,
}

/// What a later look at a session has found; one that is as it was is no news.
#[derive(Debug)]
pub(crate) struct News {
    session: SessionId,
    /// `None`: it is gone.
    record: Option<Record>,
}

/// What the news of its session mean for a connection.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The user is the same.
    Stay,
    /// The session belongs to this user now; `None`: to nobody.
    Move(Option<Arc<str>>),
    /// The connection has to end; why, for the log.
    End(&'static str),
}

/// Who a session says that a browser is.
struct Found {
    user: Option<Arc<str>>,
    /// The address that it was recorded for, as it is written there, where that matters.
    address: Option<String>,
}

impl Sessions {
    /// Makes the store's client; nothing is connected yet.
    pub(crate) fn new(provider: &SessionProvider, guests: Guests) -> io::Result<Self> {
        let store = Store::new(provider.store.clone(), provider.options.clone()).map_err(io::Error::other)?;
        Ok(Self {
            store,
            provider: provider.clone(),
            guests,
            due: RefCell::default(),
            is_due: Notify::new(),
            said: Cell::new(None),
        })
    }

    /// Who the browser of this handshake is.
    pub(super) async fn identify(&self, request: &Request<'_>, remote: SocketAddr) -> Result<Identity, NoIdentity> {
        let session = match cookie::session_id(request.all("cookie"), &self.provider.cookie) {
            CookieId::Id(session) => session,
            // PHP would begin a new session, in which nobody is, or none.
            CookieId::None | CookieId::Malformed => return Ok(Identity::GUEST),
        };
        let read = self.store.read(&session).await;
        let record = read.map_err(|error| NoIdentity::Unsettled(format!("identity.session.store: {error}")))?;
        let Some(record) = record else { return Ok(Identity::GUEST) };
        let found = self.find(&record).map_err(NoIdentity::Unsettled)?;
        let address = remote.ip().to_canonical();
        if self.is_elsewhere(&found, address) {
            let reason = "the session was recorded for another address than the browser's (identity.verify_ip)";
            return Err(NoIdentity::Refused(reason.to_owned()));
        }
        let shared = session.shared();
        let watched = self.provider.recheck.map(|every| {
            let due = Instant::now() + first_recheck(every, &session);
            Box::new(Watched { session, version: record.version, address, due })
        });
        Ok(Identity { user: found.user, session: Some(shared), watched, ..Identity::GUEST })
    }

    fn find(&self, record: &Record) -> Result<Found, String> {
        let provider = &self.provider;
        let user = match &record.user {
            Some(user) => super::user(user)?,
            None => {
                let found = self.values(record, &provider.user_keys)?;
                let user = found.first_user().map_err(|unclear| {
                    let key = provider.user_keys.get(unclear.path).map(KeyPath::as_str).unwrap_or_default();
                    format!("{key} of the session is no user's id: {} (identity.session.user_keys)", unclear.reason)
                })?;
                user.map(|user| Arc::from(&*user))
            }
        };
        let address = match (provider.verify_address, &record.address) {
            (VerifyAddress::No, _) => None,
            (VerifyAddress::Yes, Some(address)) => Some(address.clone()),
            (VerifyAddress::Yes, None) if provider.address_keys.is_empty() => None,
            (VerifyAddress::Yes, None) => {
                let found = self.values(record, &provider.address_keys)?;
                found.values().flatten().find_map(|value| match value {
                    Value::Bytes(text) if !text.is_empty() => Some(String::from_utf8_lossy(text).into_owned()),
                    _ => None,
                })
            }
        };
        Ok(Found { user, address })
    }

    fn values<'r>(&self, record: &'r Record, keys: &[KeyPath]) -> Result<serialize::Found<'r>, String> {
        serialize::find(&record.data, self.provider.serializer, keys)
            .map_err(|error| format!("the session can't be read: {error} (identity.session.serializer)"))
    }

    /// Whether the session was recorded for another address. One that has none recorded is of every address.
    fn is_elsewhere(&self, found: &Found, address: IpAddr) -> bool {
        let recorded = found.address.as_deref().map(str::trim).filter(|recorded| !recorded.is_empty());
        // What is no address is not the browser's either.
        let is_here =
            |recorded: &str| recorded.parse::<IpAddr>().is_ok_and(|recorded| recorded.to_canonical() == address);
        recorded.is_some_and(|recorded| !is_here(recorded))
    }

    /// Puts a connection in line for a look at its session, and sets when the next one is due.
    pub(crate) fn recheck(&self, key: Key, watched: &mut Watched, now: Instant) {
        watched.due = now + self.provider.recheck.unwrap_or(Duration::MAX / 4);
        self.due.borrow_mut().push(Due { key, session: watched.session.clone(), version: watched.version });
        self.is_due.notify_one();
    }

    /// Takes those that are due, some at a time.
    fn take_due(&self) -> Vec<Due> {
        let mut due = self.due.borrow_mut();
        let rest = due.len().saturating_sub(RECHECK_BATCH);
        due.split_off(rest)
    }

    /// What the news of its session mean for a connection of this user.
    pub(crate) fn judge(&self, news: News, watched: &mut Watched, user: Option<&Arc<str>>) -> Verdict {
        // A key is given again when its connection has gone, so the news may be another one's.
        if news.session != watched.session {
            return Verdict::Stay;
        }
        let Some(record) = news.record else { return Verdict::End("its session has ended") };
        watched.version = record.version;
        let Ok(found) = self.find(&record) else {
            return Verdict::End("its session can't be read any more (identity.session.serializer)");
        };
        if self.is_elsewhere(&found, watched.address) {
            return Verdict::End("its session is recorded for another address now (identity.verify_ip)");
        }
        if found.user.as_ref() == user {
            return Verdict::Stay;
        }
        match (self.provider.user_change, &found.user, self.guests) {
            (UserChange::Move, Some(_), _) | (UserChange::Move, None, Guests::Allow) => Verdict::Move(found.user),
            (UserChange::Move, None, Guests::Refuse) => {
                Verdict::End("its session has no user any more (identity.guests)")
            }
            (UserChange::Close, ..) => Verdict::End("its session has another user now (identity.user_change)"),
        }
    }

    /// A store that can't be asked ends nobody's connection: the next look may.
    fn say(&self, error: &StoreError) {
        if self.said.get().is_none_or(|said| said.elapsed() > SAY_EVERY) {
            self.said.set(Some(Instant::now()));
            tracing::error!(%error, "sessions can't be looked at again; their connections stay as they are");
        }
    }
}

/// The first look is somewhere in the second half of the interval, by the session's id, so that the connections of a restart, which
/// all come at once, are not all due at once.
fn first_recheck(every: Duration, session: &SessionId) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let part = (RandomState::new().hash_one(session) % 1024) as u32;
    every / 2 + every / 2 * part / 1024
}

/// Looks at the sessions that are due, for ever.
pub(crate) async fn run_rechecks(shard: Rc<Shard>) {
    let Some(sessions) = &shard.sessions else { return };
    loop {
        let due = sessions.take_due();
        if due.is_empty() {
            sessions.is_due.notified().await;
            continue;
        }
        let known: Vec<(SessionId, Version)> = due.iter().map(|due| (due.session.clone(), due.version)).collect();
        match sessions.store.recheck(&known).await {
            Ok(found) => {
                for (due, found) in due.into_iter().zip(found) {
                    tell(&shard, sessions, due, found);
                }
            }
            Err(error) => sessions.say(&error),
        }
        // The connections of this shard have their turn between two batches.
        tokio::task::yield_now().await;
    }
}

fn tell(shard: &Shard, sessions: &Sessions, due: Due, found: Recheck) {
    let record = match found {
        Recheck::Same => return,
        Recheck::Unreadable(error) => return sessions.say(&error),
        Recheck::Gone => None,
        Recheck::Changed(record) => Some(record),
    };
    if let Some(mailbox) = shard.hub.borrow().at(due.key) {
        mailbox.tell(News { session: due.session, record });
    }
}
