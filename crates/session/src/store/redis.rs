//! Sessions in Redis as phpredis writes them: a string under prefix and id, which Redis itself forgets in time. All reads of
//! a thread share one connection.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError,
};
use redis::{RedisResult, TlsCertificates};
use tokio::time::{Instant, timeout_at};

use super::error::without;
use super::gate::Gate;
use super::{Recheck, Record, RedisAddress, RedisSettings, StoreError, StoreOptions, Version, Versions};
use crate::SessionId;

/// How many sessions are asked for at once.
const IDS_PER_COMMAND: usize = 100;

pub(super) struct Redis {
    client: Client,
    prefix: String,
    /// For messages.
    place: String,
    secrets: Vec<String>,
    deadline: Duration,
    max_bytes: usize,
    gate: Gate,
    connection: RefCell<Option<Connection>>,
    connected: Cell<u64>,
    versions: Versions,
}

/// The connection that all reads share, and which one since the start it is.
#[derive(Clone)]
struct Connection {
    commands: MultiplexedConnection,
    number: u64,
}

/// Whether a connection was made for this read, or may have been dead for a while.
#[derive(Clone, Copy, PartialEq)]
enum Age {
    New,
    Kept,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redis({})", self.place)
    }
}

impl Redis {
    pub(super) fn new(settings: &RedisSettings, options: &StoreOptions) -> Result<Self, StoreError> {
        let place = settings.to_string();
        let wrong = |error: RedisError| {
            StoreError::Settings(format!("identity.session.store ({place}) can't be used: {error}"))
        };
        Ok(Self {
            client: client(settings, &place, wrong)?,
            prefix: settings.prefix.clone(),
            secrets: settings.password.iter().cloned().collect(),
            place,
            deadline: options.deadline,
            max_bytes: options.max_bytes,
            gate: Gate::default(),
            connection: RefCell::default(),
            connected: Cell::default(),
            versions: Versions::default(),
        })
    }

    pub(super) async fn read(&self, id: &SessionId) -> Result<Option<Record>, StoreError> {
        let key = self.key(id);
        // GET would bring whatever is there, however large.
        let mut range = redis::cmd("GETRANGE");
        range.arg(&key).arg(0).arg(self.max_bytes);
        let mut exists = redis::cmd("EXISTS");
        exists.arg(&key);
        let ask = async |connection: &mut MultiplexedConnection| {
            let data: Bytes = range.query_async(connection).await?;
            // Only GETRANGE's answer for an empty session looks like that for none.
            let exists = !data.is_empty() || exists.query_async(connection).await?;
            Ok(exists.then_some(data))
        };
        let data = self.ask(std::slice::from_ref(id), ask).await?;
        data.map(|data| self.record(data)).transpose()
    }

    pub(super) async fn recheck(&self, known: &[(SessionId, Version)]) -> Result<Vec<Recheck>, StoreError> {
        let mut found = Vec::with_capacity(known.len());
        for chunk in known.chunks(IDS_PER_COMMAND) {
            let mut command = redis::cmd("MGET");
            let ids: Vec<SessionId> = chunk.iter().map(|(id, _)| id.clone()).collect();
            for id in &ids {
                command.arg(self.key(id));
            }
            let ask = async |connection: &mut MultiplexedConnection| command.query_async(connection).await;
            let answers: Vec<Option<Bytes>> = self.ask(&ids, ask).await?;
            if answers.len() != chunk.len() {
                return Err(StoreError::Failed(format!("{} has answered MGET with too few values", self.place)));
            }
            let sessions = answers.into_iter().zip(chunk);
            found.extend(
                sessions
                    .map(|(data, (_, version))| Recheck::of(data.map(|data| self.record(data)).transpose(), *version)),
            );
        }
        Ok(found)
    }

    fn key(&self, id: &SessionId) -> String {
        format!("{}{}", self.prefix, id.as_str())
    }

    fn record(&self, data: Bytes) -> Result<Record, StoreError> {
        if data.len() > self.max_bytes {
            let bytes = data.len() as u64;
            return Err(StoreError::TooLarge { place: self.place.clone(), bytes, max_bytes: self.max_bytes });
        }
        let version = self.versions.of(&data);
        Ok(Record { data, user: None, address: None, version })
    }

    /// Asks, once more where a kept connection turns out to be dead.
    async fn ask<T>(
        &self,
        ids: &[SessionId],
        ask: impl AsyncFn(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + self.deadline;
        loop {
            let (mut connection, age) = self.connection(deadline).await?;
            let answer = timeout_at(deadline, ask(&mut connection.commands)).await;
            match answer {
                Ok(Ok(answer)) => {
                    self.gate.succeeded();
                    return Ok(answer);
                }
                Ok(Err(error)) if is_lost(&error) => {
                    self.forget(connection.number);
                    if age == Age::New {
                        let error = self.explain(&error, ids);
                        self.gate.failed(&error);
                        return Err(error);
                    }
                }
                // It answers, so there is no reason to leave it alone; but a password may be wanted since it was connected.
                Ok(Err(error)) => {
                    if error.code() == Some("NOAUTH") {
                        self.forget(connection.number);
                    }
                    return Err(self.explain(&error, ids));
                }
                Err(_) => {
                    self.forget(connection.number);
                    let error = self.slow();
                    self.gate.failed(&error);
                    return Err(error);
                }
            }
        }
    }

    async fn connection(&self, deadline: Instant) -> Result<(Connection, Age), StoreError> {
        let kept = || self.connection.borrow().clone();
        if let Some(connection) = kept() {
            return Ok((connection, Age::Kept));
        }
        let _attempt = self.gate.enter(deadline).await?;
        if let Some(connection) = kept() {
            return Ok((connection, Age::Kept));
        }
        match timeout_at(deadline, self.connect()).await {
            Ok(Ok(commands)) => {
                self.connected.set(self.connected.get() + 1);
                let connection = Connection { commands, number: self.connected.get() };
                self.connection.replace(Some(connection.clone()));
                Ok((connection, Age::New))
            }
            Ok(Err(error)) => Err(self.explain(&error, &[])),
            Err(_) => Err(self.slow()),
        }
        .inspect_err(|error| self.gate.failed(error))
    }

    fn connect(&self) -> impl Future<Output = RedisResult<MultiplexedConnection>> {
        // Our own deadlines are around it.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let client = self.client.clone();
        async move { client.get_multiplexed_async_connection_with_config(&config).await }
    }

    /// The next read connects anew, unless another one has already.
    fn forget(&self, number: u64) {
        let mut connection = self.connection.borrow_mut();
        if connection.as_ref().is_some_and(|connection| connection.number == number) {
            *connection = None;
        }
    }

    fn slow(&self) -> StoreError {
        StoreError::Slow(format!(
            "Redis at {} (identity.session.store) has not answered within {} ms; see what it is busy with (SLOWLOG GET)",
            self.place,
            self.deadline.as_millis()
        ))
    }

    fn explain(&self, error: &RedisError, ids: &[SessionId]) -> StoreError {
        let secrets = self.secrets.iter().map(String::as_str).chain(ids.iter().map(SessionId::as_str));
        let said = without(&error.to_string(), secrets);
        let place = &self.place;
        // While it connects, the client tells the answer to SELECT in words only.
        let code = match error.detail() {
            Some("Authentication required" | "Authentication required.") => "NOAUTH",
            Some("DB index is out of range") => "SELECT",
            _ => error.code().unwrap_or_default(),
        };
        match (error.kind(), code) {
            (ErrorKind::AuthenticationFailed, _) | (_, "NOAUTH" | "WRONGPASS") => StoreError::Denied(format!(
                "Redis at {place} refuses the login ({said}); identity.session.store needs its password, as in \
                 redis://:password@host:port/0 or redis://user:password@host:port/0"
            )),
            (_, "NOPERM") => StoreError::Denied(format!(
                "Redis at {place} refuses a command ({said}); the user in identity.session.store needs ~{}* and +get +mget +getrange \
                 +exists",
                self.prefix
            )),
            (_, "WRONGTYPE") => StoreError::Damaged { place: place.clone(), what: "no string" },
            (_, "MOVED" | "ASK" | "CROSSSLOT") => StoreError::Settings(format!(
                "Redis at {place} is a node of a cluster ({code}), which can't be asked for sessions; identity.session.store must name a \
                 Redis that has all of them"
            )),
            (_, "LOADING" | "BUSY" | "MASTERDOWN" | "TRYAGAIN" | "CLUSTERDOWN") => {
                StoreError::Failed(format!("Redis at {place} (identity.session.store) can't answer now: {said}"))
            }
            (ErrorKind::InvalidClientConfig, _) | (_, "SELECT") => {
                StoreError::Settings(format!("Redis at {place} can't be used ({said}); correct identity.session.store"))
            }
            (ErrorKind::Io, _) if said.contains("certificate") => StoreError::Unreachable(format!(
                "the certificate of Redis at {place} is not trusted ({said}); name who has signed it in identity.session.store, as in \
                 rediss://host:port/0?ca=/etc/redis/ca.pem"
            )),
            (ErrorKind::Io, _) => StoreError::Unreachable(format!(
                "Redis at {place} (identity.session.store) can't be reached: {said}; start it, or correct the address"
            )),
            _ if is_lost(error) => StoreError::Unreachable(format!(
                "Redis at {place} (identity.session.store) has closed the connection: {said}"
            )),
            _ => StoreError::Failed(format!("Redis at {place} (identity.session.store) answers an error: {said}")),
        }
    }
}

/// Whether the connection is of no use any more.
fn is_lost(error: &RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error()
}

fn client(
    settings: &RedisSettings,
    place: &str,
    wrong: impl Fn(RedisError) -> StoreError + Copy,
) -> Result<Client, StoreError> {
    let mut login = RedisConnectionInfo::default().set_db(settings.database.into()).set_skip_set_lib_name();
    if let Some(user) = &settings.user {
        login = login.set_username(user);
    }
    if let Some(password) = &settings.password {
        login = login.set_password(password);
    }
    let (address, ca) = match &settings.address {
        RedisAddress::Tcp { host, port } => (ConnectionAddr::Tcp(host.clone(), *port), None),
        RedisAddress::Unix(path) => (ConnectionAddr::Unix(path.clone()), None),
        RedisAddress::Tls { host, port, ca } => {
            let address = ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None };
            (address, ca.as_deref())
        }
    };
    let info = address.into_connection_info().map_err(wrong)?.set_redis_settings(login);
    match ca {
        None => Client::open(info).map_err(wrong),
        Some(path) => {
            let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem(path, place)?) };
            Client::build_with_tls(info, certificates).map_err(wrong)
        }
    }
}

fn pem(path: &Path, place: &str) -> Result<Vec<u8>, StoreError> {
    let pem = std::fs::read(path).map_err(|error| (path, error.to_string()));
    let pem = pem.and_then(|pem| match memchr::memmem::find(&pem, b"-----BEGIN CERTIFICATE-----") {
        Some(_) => Ok(pem),
        None => Err((path, "it has no certificate in PEM".to_owned())),
    });
    pem.map_err(|(path, error)| {
        let path = path.display();
        StoreError::Settings(format!(
            "the certificate {path} of identity.session.store ({place}) can't be used: {error}"
        ))
    })
}
