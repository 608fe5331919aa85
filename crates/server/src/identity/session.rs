//! `provider = "session"`: the site's own session says who a browser is, found by the cookie that the browser already has.
//!
//! Nothing is run, nothing is written, and PHP's lock is never held longer than the read. A session is looked at before the 101 and
//! again every `identity.recheck`: the connections that are due are looked at together, so that a store is asked once for many.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use wootz_hub::Key;
use wootz_protocol::handshake::Request;
use wootz_runner::ConnectionId;
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
    line: RefCell<Line>,
    is_due: Notify,
    said_of_browsers: Cell<Option<Instant>>,
    said_of_connections: Cell<Option<Instant>>,
}

/// The connections whose sessions are to be looked at again, first come, first served. Each stands there once, however slow the
/// store is, so that the line is never longer than there are connections.
#[derive(Default)]
struct Line {
    keys: VecDeque<Key>,
    due: HashMap<Key, Due>,
}

/// What of a connection is to be looked at again.
struct Due {
    connection: ConnectionId,
    session: SessionId,
    version: Version,
}

impl Line {
    fn join(&mut self, key: Key, due: Due) {
        // A key is given again when its connection has gone: who has it now takes that place.
        if self.due.insert(key, due).is_none() {
            self.keys.push_back(key);
        }
    }

    /// The first of them, as many as a store is asked for at once.
    fn take_some(&mut self) -> Vec<Due> {
        let some = self.keys.drain(..self.keys.len().min(RECHECK_BATCH));
        some.map(|key| self.due.remove(&key).expect("whose key stands in line has something due")).collect()
    }
}

/// The session that a living connection depends on.
#[derive(Debug)]
pub(crate) struct Watched {
    session: SessionId,
    version: Version,
    address: IpAddr,
    /// When it is looked at again. `None`: too far away for the clock.
    pub(crate) due: Option<Instant>,
}

/// What a later look at a session has found; one that is as it was is no news.
#[derive(Debug)]
pub(crate) struct News {
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
    End(Cow<'static, str>),
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
            line: RefCell::default(),
            is_due: Notify::new(),
            said_of_browsers: Cell::new(None),
            said_of_connections: Cell::new(None),
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
        let record = read.map_err(|error| {
            self.say_refused(&error);
            NoIdentity::Unreadable(format!("identity.session.store: {error}"))
        })?;
        let Some(record) = record else { return Ok(Identity::GUEST) };
        let found = self.find(&record).map_err(NoIdentity::Unreadable)?;
        let address = remote.ip().to_canonical();
        if self.is_elsewhere(&found, address) {
            return Err(NoIdentity::Elsewhere);
        }
        let shared = session.shared();
        let watched = self.provider.recheck.map(|every| {
            let due = Instant::now().checked_add(first_recheck(every));
            Box::new(Watched { session, version: record.version, address, due })
        });
        Ok(Identity { user: found.user, session: Some(shared), watched, ..Identity::GUEST })
    }

    fn find(&self, record: &Record) -> Result<Found, String> {
        let provider = &self.provider;
        let user = match &record.user {
            Some(user) => super::user(user).map_err(|reason| format!("{reason} (identity.session.query)"))?,
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
                    Value::Null | Value::Bool(false) => None,
                    Value::Bytes(text) if text.is_empty() => None,
                    Value::Bytes(text) => Some(String::from_utf8_lossy(text).into_owned()),
                    // Something was recorded, and it is no address: as with any other garbage nobody is let in by it.
                    _ => Some("no address".to_owned()),
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
    pub(crate) fn recheck(&self, key: Key, connection: ConnectionId, watched: &mut Watched, now: Instant) {
        watched.due = self.provider.recheck.and_then(|every| now.checked_add(every));
        let due = Due { connection, session: watched.session.clone(), version: watched.version };
        self.line.borrow_mut().join(key, due);
        self.is_due.notify_one();
    }

    /// What the news of its session mean for a connection of this user.
    pub(crate) fn judge(&self, news: News, watched: &mut Watched, user: Option<&Arc<str>>) -> Verdict {
        let Some(record) = news.record else { return Verdict::End("its session has ended".into()) };
        watched.version = record.version;
        let found = match self.find(&record) {
            Ok(found) => found,
            Err(reason) => return Verdict::End(reason.into()),
        };
        if self.is_elsewhere(&found, watched.address) {
            return Verdict::End("its session is recorded for another address now (identity.verify_ip)".into());
        }
        if found.user.as_ref() == user {
            return Verdict::Stay;
        }
        match (self.provider.user_change, &found.user, self.guests) {
            (UserChange::Move, Some(_), _) | (UserChange::Move, None, Guests::Allow) => Verdict::Move(found.user),
            (UserChange::Move, None, Guests::Refuse) => {
                Verdict::End("its session has no user any more (identity.guests)".into())
            }
            (UserChange::Close, ..) => Verdict::End("its session has another user now (identity.user_change)".into()),
        }
    }

    /// A browser that has a session is refused.
    fn say_refused(&self, error: &StoreError) {
        if is_to_be_said(error, &self.said_of_browsers) {
            tracing::error!(setting = "identity.session.store", %error, "sessions can't be read: browsers that have one are refused with 503");
        }
    }

    /// A store that can't be asked ends nobody's connection: the next look may.
    fn say_unasked(&self, error: &StoreError) {
        if is_to_be_said(error, &self.said_of_connections) {
            tracing::error!(setting = "identity.session.store", %error, "sessions can't be looked at again: their connections stay as they are");
        }
    }
}

/// What only the operator can mend is said now and then. One session that can't be read is no such thing; where it refuses a browser the log has it.
fn is_to_be_said(error: &StoreError, said: &Cell<Option<Instant>>) -> bool {
    let is_new = !error.is_of_one_session() && said.get().is_none_or(|said| said.elapsed() > SAY_EVERY);
    if is_new {
        said.set(Some(Instant::now()));
    }
    is_new
}

/// The first look is somewhere in the second half of the interval, by chance, so that the connections of a restart, which all come at
/// once, are not all due at once.
fn first_recheck(every: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let part = (RandomState::new().hash_one(()) % 1024) as u32;
    every / 2 + every / 2048 * part
}

/// Looks at the sessions that are due, for ever.
pub(crate) async fn run_rechecks(shard: Rc<Shard>) {
    let Some(sessions) = &shard.sessions else { return };
    loop {
        let due = sessions.line.borrow_mut().take_some();
        if due.is_empty() {
            sessions.is_due.notified().await;
            continue;
        }
        let connections: Vec<ConnectionId> = due.iter().map(|due| due.connection).collect();
        let known: Vec<(SessionId, Version)> = due.into_iter().map(|due| (due.session, due.version)).collect();
        match sessions.store.recheck(&known).await {
            Ok(found) => {
                for (connection, found) in connections.into_iter().zip(found) {
                    match found {
                        Recheck::Same => {}
                        Recheck::Unreadable(error) => sessions.say_unasked(&error),
                        Recheck::Gone => tell(&shard, connection, News { record: None }),
                        Recheck::Changed(record) => tell(&shard, connection, News { record: Some(record) }),
                    }
                }
            }
            Err(error) => sessions.say_unasked(&error),
        }
        // The connections of this shard have their turn between two batches.
        tokio::task::yield_now().await;
    }
}

/// It may have gone meanwhile, and another one of the same session may have its key.
fn tell(shard: &Shard, connection: ConnectionId, news: News) {
    if let Some(mailbox) = shard.hub.borrow().find(connection.0) {
        mailbox.tell(news);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Serializer, StoreOptions, StoreSettings};

    /// Sessions in files of a test.
    struct Site {
        directory: tempfile::TempDir,
        sessions: Sessions,
    }

    impl Site {
        fn new(recheck: Duration, address_keys: &[&str]) -> Self {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let paths = |keys: &[&str]| keys.iter().map(|key| KeyPath::parse(key).expect("a path")).collect();
            let store = StoreSettings::parse(&format!("files:{}", directory.path().display())).expect("a store");
            let provider = SessionProvider {
                cookie: "PHPSESSID".to_owned(),
                store,
                options: StoreOptions::default(),
                serializer: Serializer::Auto,
                user_keys: paths(&["id"]),
                address_keys: paths(address_keys),
                verify_address: VerifyAddress::Yes,
                recheck: Some(recheck),
                user_change: UserChange::Move,
            };
            let sessions = Sessions::new(&provider, Guests::Allow).expect("a store");
            Self { directory, sessions }
        }

        /// Writes a session and gives it as the store does.
        async fn record(&self, session: &SessionId, data: &str) -> Record {
            // Another file each time: one that is written to twice within the clock's tick could look the same.
            let path = self.directory.path().join(format!("sess_{}", session.as_str()));
            std::fs::write(path.with_extension("new"), data).expect("a file of the test");
            std::fs::rename(path.with_extension("new"), path).expect("a file of the test");
            self.sessions.store.read(session).await.expect("readable").expect("a session")
        }
    }

    fn id(text: &str) -> SessionId {
        SessionId::parse(text.as_bytes()).expect("an id")
    }

    fn watched(session: &SessionId, version: Version) -> Watched {
        Watched { session: session.clone(), version, address: IpAddr::from([127, 0, 0, 1]), due: None }
    }

    #[tokio::test]
    async fn line_is_first_come_first_served_and_holds_each_connection_once() {
        let site = Site::new(Duration::from_secs(60), &[]);
        let mut hub = wootz_hub::Hub::<Queue>::default();
        let keys: Vec<Key> = (0..300).map(|id| hub.join(id, None, None, Rc::default())).collect();
        let (old, new) = (id("old"), id("new"));
        let version = site.record(&old, "").await.version;
        // A store that does not answer: the intervals go by.
        for _ in 0..10 {
            for (id, key) in (0..).zip(&keys) {
                site.sessions.recheck(*key, ConnectionId(id), &mut watched(&old, version), Instant::now());
            }
        }
        site.sessions.recheck(keys[0], ConnectionId(1000), &mut watched(&new, version), Instant::now());
        let mut line = site.sessions.line.borrow_mut();
        let batches: Vec<Vec<Due>> = (0..4).map(|_| line.take_some()).collect();
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [128, 128, 44, 0]);
        let taken: Vec<&Due> = batches.iter().flatten().collect();
        assert!(taken.iter().skip(1).map(|due| due.connection.0).eq(1..300));
        assert_eq!((taken[0].connection, &taken[0].session), (ConnectionId(1000), &new), "who has the key now");
        assert!(line.due.is_empty());
    }

    #[tokio::test]
    async fn address_that_is_recorded_as_something_else_than_text_lets_nobody_in() {
        let site = Site::new(Duration::from_secs(60), &["ip"]);
        let here = IpAddr::from([127, 0, 0, 1]);
        for (data, is_elsewhere) in [
            ("ip|s:9:\"127.0.0.1\";", false),
            ("ip|s:0:\"\";", false),
            ("ip|N;", false),
            ("ip|b:0;", false),
            ("", false),
            ("ip|i:2130706433;", true),
            ("ip|a:0:{}", true),
            ("ip|s:9:\"127.0.0.2\";", true),
        ] {
            let record = site.record(&id("a"), data).await;
            let found = site.sessions.find(&record).expect("readable");
            assert_eq!(site.sessions.is_elsewhere(&found, here), is_elsewhere, "{data}");
        }
    }

    #[tokio::test]
    async fn interval_that_is_too_long_for_the_clock_is_never() {
        for every in [Duration::MAX, Duration::from_secs(u64::MAX / 2)] {
            let site = Site::new(every, &[]);
            let session = id("a");
            let mut watched = watched(&session, site.record(&session, "").await.version);
            let mut hub = wootz_hub::Hub::<Queue>::default();
            let key = hub.join(1, None, None, Rc::default());
            site.sessions.recheck(key, ConnectionId(1), &mut watched, Instant::now());
            assert_eq!(watched.due, None);
            first_recheck(every);
        }
        for _ in 0..100 {
            let first = first_recheck(Duration::from_secs(60));
            assert!((Duration::from_secs(30)..Duration::from_secs(60)).contains(&first), "{first:?}");
        }
    }

    #[derive(Default)]
    struct Queue(wootz_hub::Outbox);

    impl wootz_hub::Mailbox for Queue {
        fn outbox(&self) -> &wootz_hub::Outbox {
            &self.0
        }
    }
}
