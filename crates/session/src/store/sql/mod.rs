//! Sessions in a table. A thread has two connections at most, opened when they are needed and for reading only. One that is
//! interrupted in the middle of an answer is closed, so none is ever found in a strange state.
// A build with one database does not use all that they share.
#![cfg_attr(not(all(feature = "mysql", feature = "postgres", feature = "sqlite")), allow(dead_code, unused_variables))]

mod client;
mod value;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use self::client::{Bindings, Client, Options, Row};
use self::value::{Unusable, Value};
use super::error::without;
use super::gate::Gate;
use super::settings::{Database, SqlSettings};
use super::{Query, Recheck, Record, StoreError, StoreOptions, Version, Versions};
use crate::SessionId;

/// Reads of one thread that are under way at once; the others wait for their turn.
const MAX_CONNECTIONS: usize = 2;
/// Firewalls and servers forget a connection that says nothing for longer than this or a few times it.
const MAX_IDLE: Duration = Duration::from_secs(120);
/// How many sessions are asked for at once. Two sizes, so that two prepared statements do.
const IDS_PER_STATEMENT: [usize; 2] = [8, 100];

pub(super) struct Sql {
    options: Options,
    database: Database,
    query: Query,
    one: Arc<str>,
    bindings: usize,
    many: Option<[Arc<str>; 2]>,
    /// For messages.
    place: String,
    password: Option<String>,
    max_age: Duration,
    max_bytes: usize,
    deadline: Duration,
    gate: Gate,
    turns: Semaphore,
    idle: RefCell<Vec<(Client, Instant)>>,
    versions: Versions,
}

impl std::fmt::Debug for Sql {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sql({})", self.place)
    }
}

impl Sql {
    pub(super) fn new(settings: &SqlSettings, options: &StoreOptions) -> Result<Self, StoreError> {
        let (database, query) = (settings.database, options.query.clone());
        let one = query.for_one(database);
        let many = IDS_PER_STATEMENT.map(|count| query.for_many(database, count));
        let many = match many {
            [Some(few), Some(many)] => Some([few.sql.into(), many.sql.into()]),
            _ => None,
        };
        Ok(Self {
            options: Options::of(settings, options.deadline)?,
            database,
            query,
            one: one.sql.into(),
            bindings: one.bindings,
            many,
            place: settings.to_string(),
            password: settings.password.clone(),
            max_age: options.max_age,
            max_bytes: options.max_bytes,
            deadline: options.deadline,
            gate: Gate::default(),
            turns: Semaphore::new(MAX_CONNECTIONS),
            idle: RefCell::default(),
            versions: Versions::default(),
        })
    }

    pub(super) async fn read(&self, id: &SessionId) -> Result<Option<Record>, StoreError> {
        let rows = self.ask(&self.one, Bindings::Same(id.as_str(), self.bindings), std::slice::from_ref(id)).await?;
        let row = rows.into_iter().find(|row| row.id == Value::Absent || is_of(row, id));
        row.map_or(Ok(None), |row| self.record(row))
    }

    pub(super) async fn recheck(&self, known: &[(SessionId, Version)]) -> Result<Vec<Recheck>, StoreError> {
        let mut found = Vec::with_capacity(known.len());
        let Some(statements) = &self.many else {
            for (id, version) in known {
                match self.read(id).await {
                    // Nothing is known about the others either.
                    Err(error) if !error.is_of_one_session() => return Err(error),
                    answer => found.push(Recheck::of(answer, *version)),
                }
            }
            return Ok(found);
        };
        for chunk in known.chunks(IDS_PER_STATEMENT[1]) {
            let size = usize::from(chunk.len() > IDS_PER_STATEMENT[0]);
            let ids: Vec<SessionId> = chunk.iter().map(|(id, _)| id.clone()).collect();
            let bindings = self.many_bindings(&ids, IDS_PER_STATEMENT[size]);
            let rows = self.ask(&statements[size], bindings, &ids).await?;
            let mut rows: HashMap<Vec<u8>, Row> = rows
                .into_iter()
                .filter_map(|mut row| Some((std::mem::take(&mut row.id).bytes().ok()??, row)))
                .collect();
            for (id, version) in chunk {
                let row = rows.remove(id.as_str().as_bytes());
                found.push(Recheck::of(row.map_or(Ok(None), |row| self.record(row)), *version));
            }
        }
        Ok(found)
    }

    /// Placeholders that are left over get the last id again.
    fn many_bindings<'a>(&self, ids: &'a [SessionId], placeholders: usize) -> Bindings<'a> {
        let each = ids.iter().map(SessionId::as_str);
        match self.database {
            #[cfg(feature = "postgres")]
            Database::Postgres => Bindings::Array(each.collect()),
            _ => {
                let filling = ids.last().map(SessionId::as_str);
                Bindings::Each(each.chain(filling.into_iter().cycle()).take(placeholders).collect())
            }
        }
    }

    /// Asks, once more where a kept connection turns out to be dead.
    async fn ask(&self, sql: &Arc<str>, bindings: Bindings<'_>, ids: &[SessionId]) -> Result<Vec<Row>, StoreError> {
        let deadline = Instant::now() + self.deadline;
        let turn = timeout_at(deadline, self.turns.acquire()).await;
        let _turn = turn.map_err(|_| self.slow())?.expect("the semaphore is never closed");
        loop {
            let (mut client, is_kept) = match self.kept() {
                Some(client) => (client, true),
                None => (self.connect(deadline).await?, false),
            };
            match timeout_at(deadline, client.rows(sql, &bindings)).await {
                Ok(Ok(rows)) => {
                    self.gate.succeeded();
                    self.keep(client);
                    return Ok(rows);
                }
                Ok(Err(error)) if is_lost(&error) && is_kept => {}
                Ok(Err(error)) if is_lost(&error) => {
                    let error = self.explain(&error, ids);
                    self.gate.failed(&error);
                    return Err(error);
                }
                Ok(Err(error)) => {
                    self.keep(client);
                    return Err(self.explain(&error, ids));
                }
                Err(_) => {
                    let error = self.slow();
                    self.gate.failed(&error);
                    return Err(error);
                }
            }
        }
    }

    fn kept(&self) -> Option<Client> {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|(_, since)| since.elapsed() < MAX_IDLE);
        idle.pop().map(|(client, _)| client)
    }

    fn keep(&self, client: Client) {
        self.idle.borrow_mut().push((client, Instant::now()));
    }

    async fn connect(&self, deadline: Instant) -> Result<Client, StoreError> {
        let _attempt = self.gate.enter(deadline).await?;
        match timeout_at(deadline, self.options.connect()).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(self.explain(&error, &[])),
            Err(_) => Err(self.slow()),
        }
        .inspect_err(|error| self.gate.failed(error))
    }

    /// The session in a row, unless it has expired.
    fn record(&self, row: Row) -> Result<Option<Record>, StoreError> {
        let wrong = |column: &'static str| move |Unusable(name): Unusable<'_>| self.unusable(column, name);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().into();
        let expires = row.expires.seconds().map_err(wrong("expires"))?;
        let modified = row.modified.seconds().map_err(wrong("modified"))?;
        let max_age = i128::from(self.max_age.as_secs());
        if expires.is_some_and(|end| end <= now) || modified.is_some_and(|moment| moment + max_age < now) {
            return Ok(None);
        }
        let user = row.user.user().map_err(wrong("user"))?;
        let address = row.address.address().map_err(wrong("address"))?;
        if row.data == Value::Absent {
            return Err(StoreError::Query(format!(
                "the query of identity.session.query returns no column `data`; write SELECT … AS data (columns may also be named user, \
                 address, expires, modified and id), asked at {}",
                self.place
            )));
        }
        let data = row.data.bytes().map_err(|name| self.unusable("data", &name))?.unwrap_or_default();
        if data.len() > self.max_bytes {
            let bytes = data.len() as u64;
            return Err(StoreError::TooLarge { place: self.place.clone(), bytes, max_bytes: self.max_bytes });
        }
        let data = Bytes::from(if self.query == Query::Laravel { self.decoded(&data)? } else { data });
        let version = self.versions.of(State { data: &data, user: &user, address: &address });
        Ok(Some(Record { data, user, address, version }))
    }

    fn decoded(&self, payload: &[u8]) -> Result<Vec<u8>, StoreError> {
        let what = "no base64, as Laravel writes it";
        let decoded = base64::engine::general_purpose::STANDARD.decode(payload.trim_ascii());
        decoded.map_err(|_| StoreError::Damaged { place: self.place.clone(), what })
    }

    fn unusable(&self, column: &str, name: &str) -> StoreError {
        let remedy = match (column, self.database) {
            ("expires" | "modified", Database::MySql) => "Unix seconds, as UNIX_TIMESTAMP(column) gives them",
            ("expires" | "modified", Database::Postgres) => "Unix seconds, as EXTRACT(EPOCH FROM column) gives them",
            ("expires" | "modified", Database::Sqlite) => "Unix seconds, as strftime('%s', column) gives them",
            ("data", _) => "text or binary",
            _ => "text, or cast to it",
        };
        StoreError::Query(format!(
            "the column `{column}` of the query in identity.session.query is {name} at {}; it must be {remedy}",
            self.place
        ))
    }

    fn slow(&self) -> StoreError {
        StoreError::Slow(format!(
            "{} at {} (identity.session.store) has not answered within {} ms; see whether it is busy, and whether the query of \
             identity.session.query has an index",
            self.database,
            self.place,
            self.deadline.as_millis()
        ))
    }

    fn explain(&self, error: &sqlx::Error, ids: &[SessionId]) -> StoreError {
        let said = match error {
            sqlx::Error::Database(error) => error.message().to_owned(),
            other => other.to_string(),
        };
        let said = without(&said, ids.iter().map(SessionId::as_str).chain(self.password.as_deref()));
        let (database, place) = (self.database, &self.place);
        match fault(error) {
            Fault::Login => StoreError::Denied(format!(
                "{database} at {place} refuses wootz: {said}; correct user and password in identity.session.store, or GRANT SELECT"
            )),
            Fault::Place => StoreError::Settings(format!(
                "{database} at {place} can't be used: {said}; correct identity.session.store"
            )),
            Fault::Query => StoreError::Query(format!(
                "{database} at {place} refuses the query: {said}; identity.session.query must fit the site's table (carbonphp, laravel, \
                 symfony, or a query of its own)"
            )),
            Fault::Way => StoreError::Unreachable(format!(
                "{database} at {place} (identity.session.store) can't be reached: {said}; start it, or correct the address"
            )),
            Fault::Moment => {
                StoreError::Failed(format!("{database} at {place} (identity.session.store) can't answer now: {said}"))
            }
        }
    }
}

/// What a version is made of.
#[derive(Hash)]
struct State<'a> {
    data: &'a [u8],
    user: &'a Option<String>,
    address: &'a Option<String>,
}

/// MySQL finds ids that differ in case.
fn is_of(row: &Row, id: &SessionId) -> bool {
    matches!(&row.id, Value::Text(bytes) | Value::Binary(bytes) if bytes == id.as_str().as_bytes())
}

/// Whose fault an error is.
enum Fault {
    Login,
    Place,
    Query,
    Way,
    Moment,
}

fn fault(error: &sqlx::Error) -> Fault {
    match error {
        sqlx::Error::Database(error) => database_fault(&**error),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => Fault::Way,
        sqlx::Error::Configuration(_) => Fault::Place,
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::TypeNotFound { .. } => Fault::Query,
        _ => Fault::Moment,
    }
}

fn database_fault(error: &dyn sqlx::error::DatabaseError) -> Fault {
    #[cfg(feature = "mysql")]
    if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return match error.number() {
            1044 | 1045 | 1142 | 1143 | 1227 | 1251 | 1698 | 1820 | 1862 | 3118 | 4151 => Fault::Login,
            1049 | 1130 => Fault::Place,
            1040 | 1053 | 1129 | 1203 | 1205 | 1213 | 1226 | 1317 | 1927 | 3024 => Fault::Moment,
            _ => Fault::Query,
        };
    }
    let code = error.code().unwrap_or_default();
    #[cfg(feature = "sqlite")]
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        // The low byte is the primary code.
        return match code.parse::<u32>().unwrap_or_default() & 0xff {
            3 | 23 => Fault::Login,
            // CANTOPEN, NOTADB, READONLY: a WAL that can't be opened is among them.
            8 | 14 | 26 => Fault::Place,
            5 | 6 | 7 | 9 | 10 | 15 | 17 => Fault::Moment,
            _ => Fault::Query,
        };
    }
    // PostgreSQL's SQLSTATE: a class of two characters, then the case.
    match (code.get(..2).unwrap_or_default(), &*code) {
        ("28", _) | (_, "42501") => Fault::Login,
        ("3D", _) => Fault::Place,
        ("08" | "53" | "55" | "57" | "58" | "40" | "XX", _) => Fault::Moment,
        _ => Fault::Query,
    }
}

/// Whether the connection is of no use any more.
fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        // Shut down by an administrator: 57P01 and its like, MySQL's 1053, MariaDB's 1927.
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            #[cfg(feature = "mysql")]
            if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
                return matches!(error.number(), 1053 | 1927 | 4031);
            }
            // And a prepared statement that does not fit the table any more, or is another server's behind a pooler.
            matches!(&*code, "57P01" | "57P02" | "57P03" | "25P03" | "0A000" | "26000")
        }
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}
