//! Where sessions are, as an operator writes it. Everything that can be known to be wrong without asking the store is found
//! here, and no message repeats what may have a password in it.

use std::fmt;
use std::path::PathBuf;

/// What phpredis puts before an id unless it is told otherwise.
const PHPREDIS_PREFIX: &str = "PHPREDIS_SESSION:";
/// PHP's own bound is an id's length; nobody needs more than a few.
const MAX_LEVELS: usize = 16;
/// What phpredis knows beside what we use. None of it changes where a session is.
const IGNORED: [&str; 7] =
    ["weight", "timeout", "read_timeout", "retry_interval", "persistent", "persistent_id", "stream[verify_peer]"];

/// Where a site keeps its sessions, as written in `identity.session.store`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// PHP's session files: `files:/var/lib/php/sessions`, or with PHP's whole syntax `files:2;0600;/path`.
    Files(FilesSettings),
    /// Redis, as phpredis fills it: `redis://[user:password@]host:port/db?prefix=…`, `rediss://…`, `redis+unix:///path?db=…`,
    /// or as `session.save_path` has it: `tcp://host:6379?auth=…&database=…`.
    Redis(RedisSettings),
    /// A database: `mysql://…`, `postgres://…`, `sqlite:/path`.
    Sql(SqlSettings),
}

/// Where session files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesSettings {
    /// `session.save_path`, absolute.
    pub directory: PathBuf,
    /// How many directories deep, each named by a character of the id. 0 unless the path begins with `N;`.
    pub levels: usize,
}

/// Where Redis is, and how phpredis names sessions there.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// Where it listens.
    pub address: RedisAddress,
    /// The user of its ACL, if not `default`.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The number of the database.
    pub database: u16,
    /// What comes before the id in a key.
    pub prefix: String,
}

/// Where Redis listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisAddress {
    /// `redis://`
    Tcp {
        /// A name or an address, IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `rediss://`: its certificate is always verified.
    Tls {
        /// A name or an address, IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
        /// PEM of who signs its certificate, where that is not a public authority: `?ca=/path`.
        ca: Option<PathBuf>,
    },
    /// `redis+unix://`
    Unix(PathBuf),
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisSettings({self})")
    }
}

/// The address, without the user and the password.
impl fmt::Display for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.database;
        match &self.address {
            RedisAddress::Tcp { host, port } => write!(f, "redis://{}:{port}/{database}", Bracketed(host)),
            RedisAddress::Tls { host, port, .. } => write!(f, "rediss://{}:{port}/{database}", Bracketed(host)),
            RedisAddress::Unix(path) => write!(f, "redis+unix://{}?db={database}", path.display()),
        }
    }
}

/// A host as a URL has it.
struct Bracketed<'a>(&'a str);

impl fmt::Display for Bracketed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') { write!(f, "[{}]", self.0) } else { f.write_str(self.0) }
    }
}

/// A database that wootz can ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// MySQL and MariaDB.
    MySql,
    /// PostgreSQL.
    Postgres,
    /// SQLite.
    Sqlite,
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MySql => "MySQL",
            Self::Postgres => "PostgreSQL",
            Self::Sqlite => "SQLite",
        })
    }
}

/// Which database has the sessions.
#[derive(Clone, PartialEq, Eq)]
pub struct SqlSettings {
    /// Its kind.
    pub database: Database,
    /// The URL as its client takes it, with the password; of SQLite the path.
    pub(super) url: String,
    /// Where it is, for messages: no user and no password.
    pub(super) place: String,
    /// The password, so that messages can be kept free of it.
    pub(super) password: Option<String>,
    /// Whether the URL says in which time zone the database is to be asked.
    pub(super) names_timezone: bool,
}

impl fmt::Debug for SqlSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlSettings({self})")
    }
}

/// The address, without the user and the password.
impl fmt::Display for SqlSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl StoreSettings {
    /// The store in a setting.
    ///
    /// # Errors
    /// The text names the mistake and the remedy. It repeats nothing behind the scheme, because a password may be there.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let scheme = text.split_once(':').map_or(text, |(scheme, _)| scheme);
        let settings = match scheme {
            "files" => Self::Files(FilesSettings::parse(text["files:".len().min(text.len())..].trim())?),
            "redis" | "rediss" | "redis+unix" | "tcp" | "tls" | "ssl" | "unix" => {
                available(cfg!(feature = "redis"), "redis")?;
                Self::Redis(RedisSettings::parse(text)?)
            }
            "mysql" | "mariadb" => {
                available(cfg!(feature = "mysql"), "mysql")?;
                Self::Sql(SqlSettings::parse(Database::MySql, "mysql", text)?)
            }
            "postgres" | "postgresql" | "pgsql" => {
                available(cfg!(feature = "postgres"), "postgres")?;
                Self::Sql(SqlSettings::parse(Database::Postgres, "postgres", text)?)
            }
            "sqlite" | "sqlite3" => {
                available(cfg!(feature = "sqlite"), "sqlite")?;
                Self::Sql(SqlSettings::sqlite(&text[scheme.len()..])?)
            }
            _ => {
                return Err("is no store of sessions; write files:/path, redis://host:6379/0, mysql://user:password@host/database, \
                            postgres://user:password@host/database or sqlite:/path/file.db"
                    .to_owned());
            }
        };
        Ok(settings)
    }
}

fn available(is: bool, feature: &str) -> Result<(), String> {
    if is { Ok(()) } else { Err(format!("this wootz was built without its feature {feature:?}; use one that has it")) }
}

impl FilesSettings {
    /// PHP's `save_path`: `[levels;[mode;]]path`.
    fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.splitn(3, ';').collect();
        let (levels, mode, path) = match parts[..] {
            [path] => (None, None, path),
            [levels, path] => (Some(levels), None, path),
            [levels, mode, path] => (Some(levels), Some(mode), path),
            _ => unreachable!("splitn gives one to three parts"),
        };
        let levels = levels.map_or(Ok(0), |levels| levels.trim().parse().map_err(|_| levels));
        let levels = levels.ok().filter(|levels| *levels <= MAX_LEVELS).ok_or_else(|| {
            format!("the levels before the first `;` are a number from 0 to {MAX_LEVELS}, as in files:2;/var/lib/php/sessions")
        })?;
        if mode.is_some_and(|mode| !matches!(u32::from_str_radix(mode.trim(), 8), Ok(0..=0o7777))) {
            return Err("the mode between two `;` is octal, as in files:2;0600;/var/lib/php/sessions".to_owned());
        }
        let path = path.trim();
        if !path.starts_with('/') {
            return Err("session files need an absolute path, as in files:/var/lib/php/sessions; \
                        php -r 'echo session_save_path();' prints the site's own"
                .to_owned());
        }
        Ok(Self { directory: PathBuf::from(path), levels })
    }
}

impl RedisSettings {
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains([' ', ',']) {
            return Err("several Redis servers can't be used for sessions; name one, and write a space or comma that \
                        belongs to a password as %20 or %2C"
                .to_owned());
        }
        let url = Url::parse(text)?;
        let mut settings = Self {
            address: RedisAddress::Unix(PathBuf::new()),
            user: url.user.filter(|user| !user.is_empty()),
            password: url.password,
            database: 0,
            prefix: PHPREDIS_PREFIX.to_owned(),
        };
        let is_unix = matches!(url.scheme, "redis+unix" | "unix");
        if !is_unix && !matches!(url.path.as_str(), "" | "/") {
            settings.database = database(&url.path[1..])?;
        }
        let (mut auth, mut ca) = (Vec::new(), None);
        for (name, value) in url.query {
            match name.as_str() {
                "db" | "database" | "dbindex" => settings.database = database(&value)?,
                "prefix" => settings.prefix = value,
                "auth[user]" | "user" => settings.user = Some(value),
                "auth[pass]" | "password" => settings.password = Some(value),
                name if name == "auth" || name.starts_with("auth[") => auth.push(value),
                "ca" | "stream[cafile]" => ca = Some(PathBuf::from(value)),
                name if IGNORED.contains(&name) => {}
                _ => {
                    return Err(
                        "has a parameter that is not known; Redis takes prefix, database, auth, user, password and ca"
                            .to_owned(),
                    );
                }
            }
        }
        match <[String; 2]>::try_from(auth) {
            Ok([user, password]) => (settings.user, settings.password) = (Some(user), Some(password)),
            Err(mut auth) if auth.len() < 2 => settings.password = auth.pop().or(settings.password),
            Err(_) => {
                return Err("`auth` is given more than twice; it is a password, or a user and a password".to_owned());
            }
        }
        if settings.user.is_some() && settings.password.is_none() {
            return Err(
                "names a user of Redis but no password; write redis://:password@host if it is the password".to_owned()
            );
        }
        settings.address = match url.scheme {
            "redis+unix" | "unix" if url.host.is_empty() && url.path.len() > 1 => {
                RedisAddress::Unix(PathBuf::from(url.path))
            }
            "redis+unix" | "unix" => {
                return Err(
                    "a Unix socket is an absolute path behind three slashes, as in redis+unix:///run/redis/redis.sock"
                        .to_owned(),
                );
            }
            _ if url.host.is_empty() => return Err("names no host; write redis://127.0.0.1:6379/0".to_owned()),
            "redis" | "tcp" => RedisAddress::Tcp { host: url.host, port: url.port.unwrap_or(6379) },
            _ => RedisAddress::Tls { host: url.host, port: url.port.unwrap_or(6379), ca: ca.take() },
        };
        if ca.is_some() {
            return Err("`ca` is for rediss://, and this is no connection with TLS".to_owned());
        }
        Ok(settings)
    }
}

fn database(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "the database of Redis is a number, as in redis://127.0.0.1:6379/0".to_owned())
}

impl SqlSettings {
    fn parse(database: Database, scheme: &str, text: &str) -> Result<Self, String> {
        let url = Url::parse(text)?;
        let name = url.path.trim_start_matches('/');
        let named = |wanted: &[&str]| url.query.iter().any(|(name, _)| wanted.contains(&name.as_str()));
        if name.is_empty() && !named(&["dbname"]) {
            return Err(format!("names no database; write {scheme}://user:password@host/database"));
        }
        let host = if url.host.is_empty() { "localhost" } else { &url.host };
        let port = url.port.map_or(String::new(), |port| format!(":{port}"));
        let settings = Self {
            database,
            url: format!("{scheme}{}", &text[url.scheme.len()..]),
            place: format!("{scheme}://{}{port}/{name}", Bracketed(host)),
            names_timezone: named(&["timezone", "time-zone"]),
            password: url.password,
        };
        settings.check_url()?;
        Ok(settings)
    }

    /// A client may know more about its URLs than we do.
    fn check_url(&self) -> Result<(), String> {
        #[cfg(feature = "mysql")]
        if self.database == Database::MySql {
            return self
                .url
                .parse::<sqlx::mysql::MySqlConnectOptions>()
                .map(drop)
                .map_err(|error| self.refused(&error));
        }
        #[cfg(feature = "postgres")]
        if self.database == Database::Postgres {
            return self
                .url
                .parse::<sqlx::postgres::PgConnectOptions>()
                .map(drop)
                .map_err(|error| self.refused(&error));
        }
        Ok(())
    }

    #[cfg(any(feature = "mysql", feature = "postgres"))]
    fn refused(&self, error: &sqlx::Error) -> String {
        let error = super::error::without(&error.to_string(), self.password.as_deref());
        format!(
            "is no URL of {}: {error}; write characters like / ? # @ : of a password as %2F %3F %23 %40 %3A",
            self.database
        )
    }

    /// `:/path` or `:///path`.
    fn sqlite(rest: &str) -> Result<Self, String> {
        let path = rest.trim_start_matches(':');
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') || path.contains('?') {
            return Err(
                "SQLite needs the absolute path of its file and nothing else, as in sqlite:/srv/site/database.sqlite"
                    .to_owned(),
            );
        }
        let (url, place) = (path.to_owned(), format!("sqlite:{path}"));
        Ok(Self { database: Database::Sqlite, url, place, password: None, names_timezone: false })
    }
}

/// `scheme://[user[:password]@][host][:port][/path][?query]`, decoded.
struct Url<'a> {
    scheme: &'a str,
    user: Option<String>,
    password: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
    query: Vec<(String, String)>,
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("has no `://` behind its scheme")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (login, address) =
            authority.rsplit_once('@').map_or((None, authority), |(login, host)| (Some(login), host));
        let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map(|port| port.parse().map_err(|_| WRONG_PORT.to_owned())).transpose()?;
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, "")) => (Some(decode(user)?), None),
            Some((user, password)) => (Some(decode(user)?), Some(decode(password)?)),
            None => (None, None),
        };
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        // As PHP reads them: a plus is a space.
        let decode_pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok::<_, String>((decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?))
        };
        let query = pairs.map(decode_pair).collect::<Result<_, _>>()?;
        Ok(Self { scheme, user, password, host: decode(host)?, port, path: decode(path)?, query })
    }
}

const WRONG_PORT: &str = "the port behind the host is no number from 0 to 65535; if this is part of a password, write its / ? # @ : as \
                          %2F %3F %23 %40 %3A";

/// Without its `%XX`.
fn decode(text: &str) -> Result<String, String> {
    const WRONG: &str = "a `%` is not followed by two hexadecimal digits; write a percent sign as %25";
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2).ok_or(WRONG)?;
            let digits =
                std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
            bytes.push(digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or(WRONG)?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| "what is written with `%` is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> FilesSettings {
        match StoreSettings::parse(text) {
            Ok(StoreSettings::Files(settings)) => settings,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files_are_written_as_php_writes_save_path() {
        for (text, levels) in
            [("files:/srv/s", 0), ("files:2;/srv/s", 2), ("files: 2;0600;/srv/s", 2), ("files:0;/srv/s", 0)]
        {
            assert_eq!(files(text), FilesSettings { directory: PathBuf::from("/srv/s"), levels }, "{text}");
        }
        assert_eq!(files("files:1;0600;/srv;s").directory, PathBuf::from("/srv;s"));
        for (text, remedy) in [
            ("files:", "absolute path"),
            ("files", "absolute path"),
            ("files:sessions", "absolute path"),
            ("files:x;/srv", "number from 0"),
            ("files:-1;/srv", "number from 0"),
            ("files:99;/srv", "number from 0"),
            ("files:1;0999;/srv", "octal"),
            ("/var/lib/php/sessions", "files:/path"),
            ("memcached://localhost", "files:/path"),
        ] {
            let error = StoreSettings::parse(text).expect_err(text);
            assert!(error.contains(remedy), "{text}: {error}");
        }
    }

    #[cfg(feature = "redis")]
    mod redis {
        use super::super::*;

        fn redis(text: &str) -> RedisSettings {
            match StoreSettings::parse(text) {
                Ok(StoreSettings::Redis(settings)) => settings,
                other => panic!("{text}: {other:?}"),
            }
        }

        #[test]
        fn redis_is_written_as_a_url_or_as_phpredis_writes_it() {
            let tcp = |host: &str, port| RedisAddress::Tcp { host: host.to_owned(), port };
            let plain = RedisSettings {
                address: tcp("localhost", 6379),
                user: None,
                password: None,
                database: 0,
                prefix: PHPREDIS_PREFIX.to_owned(),
            };
            assert_eq!(redis("redis://localhost"), plain);
            assert_eq!(redis("tcp://localhost:6379?weight=1&timeout=2.5&persistent=1"), plain);
            assert_eq!(redis("redis://[::1]:7000/3").address, tcp("::1", 7000));
            assert_eq!(redis("redis://[::1]:7000/3").to_string(), "redis://[::1]:7000/3");
            let full = redis("redis://me:p%40ss@h:1/5?prefix=s%3A");
            assert_eq!((full.user.as_deref(), full.password.as_deref()), (Some("me"), Some("p@ss")));
            assert_eq!((full.database, full.prefix.as_str(), full.address), (5, "s:", tcp("h", 1)));
            for text in
                ["redis://:secret@h/2", "tcp://h:6379?auth=secret&database=2", "tcp://h?auth[]=secret&database=2"]
            {
                let settings = redis(text);
                assert_eq!(
                    (settings.user, settings.password.as_deref(), settings.database),
                    (None, Some("secret"), 2),
                    "{text}"
                );
            }
            for text in ["tcp://h?auth[]=me&auth[]=secret", "tcp://h?auth%5Buser%5D=me&auth%5Bpass%5D=secret"] {
                let settings = redis(text);
                assert_eq!(
                    (settings.user.as_deref(), settings.password.as_deref()),
                    (Some("me"), Some("secret")),
                    "{text}"
                );
            }
            let socket = RedisAddress::Unix(PathBuf::from("/run/redis.sock"));
            assert_eq!(redis("unix:///run/redis.sock?database=3&auth=x").address, socket);
            assert_eq!(redis("redis+unix:///run/redis.sock?db=3").database, 3);
            let ca = Some(PathBuf::from("/ca.pem"));
            let tls = RedisAddress::Tls { host: "h".to_owned(), port: 6380, ca };
            assert_eq!(redis("rediss://h:6380?ca=/ca.pem").address, tls);
            assert_eq!(redis("tls://h:6380?stream[cafile]=/ca.pem").address, tls);
        }

        #[test]
        fn a_mistake_about_redis_is_named_without_the_password() {
            for (text, remedy) in [
                ("redis:localhost", "://"),
                ("redis://", "no host"),
                ("redis://:secret@", "no host"),
                ("redis://:secret@h/x", "a number"),
                ("redis://:sec/ret@h", "%2F"),
                ("redis://:%zz@h", "%25"),
                ("redis://secret@h", "no password"),
                ("redis://:secret@h:99999", "65535"),
                ("redis://:secret@h?pasword=secret", "not known"),
                ("tcp://a:1?auth=secret, tcp://b:1?auth=secret", "several"),
                ("redis+unix://run/redis.sock", "three slashes"),
                ("redis://:secret@h?ca=/ca.pem", "rediss://"),
            ] {
                let error = StoreSettings::parse(text).expect_err(text);
                assert!(error.contains(remedy) && !error.contains("secret"), "{text}: {error}");
            }
            let settings = redis("redis://me:secret@h");
            assert!(!format!("{settings:?} {settings}").contains("secret"));
        }
    }

    #[cfg(all(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    #[test]
    fn databases_are_written_as_urls() {
        for (text, database, place) in [
            ("mysql://me:secret@h:3307/site", Database::MySql, "mysql://h:3307/site"),
            ("mariadb://me:secret@h/site?timezone=%2B02:00", Database::MySql, "mysql://h/site"),
            ("mysql://me@localhost/site?socket=/run/sql.sock", Database::MySql, "mysql://localhost/site"),
            ("postgresql://me:secret@[::1]/site", Database::Postgres, "postgres://[::1]/site"),
            ("pgsql://me:secret@h/site", Database::Postgres, "postgres://h/site"),
            ("sqlite:/srv/site.db", Database::Sqlite, "sqlite:/srv/site.db"),
            ("sqlite:///srv/site.db", Database::Sqlite, "sqlite:/srv/site.db"),
        ] {
            match StoreSettings::parse(text) {
                Ok(StoreSettings::Sql(settings)) => {
                    assert_eq!((settings.database, settings.to_string().as_str()), (database, place));
                    assert!(!format!("{settings:?}").contains("secret"));
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        for (text, remedy) in [
            ("mysql://me:secret@h", "no database"),
            ("postgres://me:secret@h/", "no database"),
            ("mysql://me:sec/ret@h/site", "%2F"),
            ("sqlite:site.db", "absolute path"),
            ("sqlite::memory:", "absolute path"),
        ] {
            let error = StoreSettings::parse(text).expect_err(text);
            assert!(error.contains(remedy) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
