//! Sessions in databases: PHP and SQL write them, wootz reads them. Every server is Debian's, and started by its test.
#![cfg(all(feature = "mysql", feature = "postgres", feature = "sqlite"))]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use support::{
    Beside, Daemon, id, impatient, is_root, patient, php, program, recheck, record, refused, run, said, store,
};
use support::{text, text_at_last};
use tempfile::TempDir;
use wootz_session::store::{Query, Recheck, Record, StoreError, StoreOptions};

const ID: &str = "5e55104abcdef";
const PASSWORD: &str = "s3cret";

fn with_query(text: &str) -> StoreOptions {
    StoreOptions { query: Query::parse(text).expect("a query"), ..patient() }
}

/// Moments as Unix seconds.
fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("before the end of time") + seconds
}

/// Debian's MariaDB on a Unix socket of its own.
struct MariaDb {
    daemon: Option<Daemon>,
    directory: TempDir,
}

impl MariaDb {
    fn start() -> Self {
        let directory = support::directory();
        let user = is_root().then_some("--user=root");
        run(Command::new("mariadb-install-db")
            .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"])
            .args(user)
            .arg(format!("--datadir={}", directory.path().join("data").display()))
            .arg(Self::tmpdir(&directory)));
        let mut mariadb = Self { daemon: None, directory };
        mariadb.start_again();
        mariadb.sql(&format!(
            "CREATE DATABASE site; CREATE USER site@localhost IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON site.* TO site@localhost"
        ));
        mariadb
    }

    /// One that starts removes the temporary tables of others in the same directory.
    fn tmpdir(directory: &TempDir) -> String {
        format!("--tmpdir={}", directory.path().display())
    }

    fn start_again(&mut self) {
        let mut command = Command::new(program(&["/usr/sbin/mariadbd", "mariadbd"]));
        let here = self.directory.path().display();
        command
            .args(["--no-defaults", "--skip-networking", "--innodb-buffer-pool-size=16M"])
            .arg(Self::tmpdir(&self.directory));
        command.args(is_root().then_some("--user=root"));
        command.args([
            format!("--datadir={here}/data"),
            format!("--socket={here}/sql.sock"),
            format!("--pid-file={here}/pid"),
        ]);
        self.daemon = Some(Daemon::start(command, "ready for connections", Signal::TERM));
    }

    fn stop(&mut self) {
        self.daemon = None;
    }

    fn client(&self) -> Command {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--user=root", "--unbuffered", "--skip-column-names", "--socket"]);
        command.arg(self.directory.path().join("sql.sock"));
        command
    }

    fn sql(&self, sql: &str) {
        run(self.client().args(["-e", sql]));
    }

    fn url(&self) -> String {
        format!("mysql://site:{PASSWORD}@localhost/site?socket={}/sql.sock", self.directory.path().display())
    }
}

/// Debian's PostgreSQL on a port of its own.
struct Postgres {
    daemon: Option<Daemon>,
    directory: TempDir,
    port: u16,
}

impl Postgres {
    fn start() -> Self {
        let directory = support::directory();
        if is_root() {
            // It refuses to be run by root.
            run(Command::new("chown").arg("postgres").arg(directory.path()));
        }
        std::fs::write(directory.path().join("password"), PASSWORD).expect("a file of the test");
        run(Self::program("initdb")
            .args([
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "--username=admin",
                "--no-sync",
                "--locale=C.UTF-8",
            ])
            .arg("--pgdata")
            .arg(directory.path().join("data")));
        let command = |port| Self::command(directory.path(), port);
        let (daemon, port) = Daemon::start_on_port(command, Self::READY, Signal::INT);
        let postgres = Self { daemon: Some(daemon), directory, port };
        let user = format!("CREATE USER site PASSWORD '{PASSWORD}'");
        run(postgres.client("postgres").args(["-c", &user, "-c", "CREATE DATABASE site OWNER site"]));
        postgres
    }

    const READY: &str = "database system is ready to accept connections";

    fn program(name: &str) -> Command {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        let programs = versions.filter_map(|version| Some(version.ok()?.path().join("bin").join(name)));
        let path = programs.filter(|path| path.exists()).max().unwrap_or_else(|| PathBuf::from(name));
        if !is_root() {
            return Command::new(path);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(path).current_dir("/");
        command
    }

    fn command(directory: &Path, port: u16) -> Command {
        let mut command = Self::program("postgres");
        let here = directory.display();
        command.arg("-D").arg(directory.join("data")).args(["-p", &port.to_string(), "-h", "127.0.0.1", "-F"]);
        command.arg("-k").arg(here.to_string()).args(["-c", "shared_buffers=16MB"]);
        command
    }

    fn stop(&mut self) {
        self.daemon = None;
    }

    fn start_again(&mut self) {
        self.daemon = Some(Daemon::start(Self::command(self.directory.path(), self.port), Self::READY, Signal::INT));
    }

    fn client(&self, database: &str) -> Command {
        let mut command = Command::new("psql");
        command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--set=ON_ERROR_STOP=1", "--username=admin"]);
        command.arg("--host").arg(self.directory.path()).args(["--port", &self.port.to_string(), "--dbname", database]);
        command
    }

    fn sql(&self, sql: &str) {
        run(self.client("site").args(["-c", sql]));
    }

    fn url(&self) -> String {
        format!("postgres://site:{PASSWORD}@127.0.0.1:{}/site", self.port)
    }
}

/// A file of SQLite.
struct Sqlite {
    directory: TempDir,
}

impl Sqlite {
    fn new() -> Self {
        Self { directory: support::directory() }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("site.db")
    }

    fn client(&self) -> Command {
        let mut command = Command::new("sqlite3");
        command.arg(self.file());
        command
    }

    fn sql(&self, sql: &str) {
        run(self.client().arg(sql));
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.file().display())
    }
}

/// Sessions that PHP stores with PDO as CarbonPHP does: a date without a zone a day ahead.
const PHP_HANDLER: &str = r#"
    class Sessions implements SessionHandlerInterface {
        public function __construct(private PDO $pdo, private string $expires) {}
        public function open($path, $name): bool { return true; }
        public function close(): bool { return true; }
        public function read($id): string|false {
            $found = $this->pdo->prepare('SELECT session_data FROM sessions WHERE session_id = ?');
            $found->execute([$id]);
            return (string) $found->fetchColumn();
        }
        public function write($id, $data): bool {
            $this->destroy($id);
            $row = $this->pdo->prepare("INSERT INTO sessions (user_id, user_ip, session_id, session_expires, session_data)
                VALUES (?, ?, ?, $this->expires, ?)");
            return $row->execute([$_SESSION['user'] ?? 0, '127.0.0.1', $id, $data]);
        }
        public function destroy($id): bool {
            return $this->pdo->prepare('DELETE FROM sessions WHERE session_id = ?')->execute([$id]);
        }
        public function gc($age): int|false { return 0; }
    }
    [, $dsn, $user, $password, $expires, $id, $value] = $argv;
    $pdo = new PDO($dsn, $user, $password, [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
    session_set_save_handler(new Sessions($pdo, $expires));
    session_id($id);
    session_start();
    if ($value === '') { session_destroy(); } else { $_SESSION['user'] = (int) $value; }
"#;

/// What PHP is told about a database.
struct Pdo {
    dsn: String,
    expires: &'static str,
}

impl Pdo {
    fn store(&self, id: &str, value: &str) {
        run(&mut php(&[], PHP_HANDLER, &[&self.dsn, "site", PASSWORD, self.expires, id, value]));
    }
}

/// The life of a session in CarbonPHP's table.
async fn carbonphp_is_the_default(url: &str, pdo: &Pdo, sql: impl Fn(&str)) {
    let store = store(url, patient());
    pdo.store(ID, "42");
    let found = record(&store, &id(ID)).await;
    assert_eq!(found.data, "user|i:42;");
    assert_eq!((found.user.as_deref(), found.address.as_deref()), (Some("42"), Some("127.0.0.1")));
    assert_eq!(store.read(&id("another")).await, Ok(None));
    assert_eq!(store.read(&id(&ID.to_ascii_uppercase())).await, Ok(None), "ids differ in case");

    let rows: Vec<String> = (0..250)
        .map(|number| format!("({number}, '10.0.0.1', 's{number}', {}, 'number|i:{number};')", pdo.expires))
        .collect();
    sql(&format!(
        "INSERT INTO sessions (user_id, user_ip, session_id, session_expires, session_data) VALUES {}",
        rows.join(", ")
    ));
    let mut known = vec![(id(ID), found.version)];
    for number in 0..250 {
        let id = id(&format!("s{number}"));
        let version = if number % 50 == 0 { record(&store, &id).await.version } else { found.version };
        known.push((id, version));
    }
    sql("UPDATE sessions SET user_id = 7 WHERE session_id = 's50'");
    sql("DELETE FROM sessions WHERE session_id = 's100'");
    let rechecked = store.recheck(&known).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(rechecked.len(), known.len());
    for (at, recheck) in rechecked.iter().enumerate() {
        let data = |number: usize| format!("number|i:{number};");
        let is_changed_to = |record: &Record, user: &str| record.user.as_deref() == Some(user);
        match at.checked_sub(1) {
            None | Some(0 | 150 | 200) => assert!(matches!(recheck, Recheck::Same), "{at}: {recheck:?}"),
            Some(50) => {
                assert!(matches!(recheck, Recheck::Changed(record) if is_changed_to(record, "7")), "{recheck:?}")
            }
            Some(100) => assert!(matches!(recheck, Recheck::Gone), "{at}: {recheck:?}"),
            Some(number) => {
                assert!(matches!(recheck, Recheck::Changed(record) if record.data == data(number)), "{recheck:?}");
            }
        }
    }
    let few = store.recheck(&known[..3]).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(few[0], Recheck::Same) && matches!(few[1], Recheck::Same), "{few:?}");

    pdo.store(ID, "7");
    let found = recheck(&store, &id(ID), known[0].1).await;
    assert!(matches!(&found, Recheck::Changed(record) if record.user.as_deref() == Some("7")), "{found:?}");
    pdo.store(ID, "");
    assert!(matches!(recheck(&store, &id(ID), known[0].1).await, Recheck::Gone));
}

/// Sessions that end by their own column.
async fn expired_sessions_are_none(url: &str, sql: impl Fn(&str), past: &str, future: &str) {
    let store = store(url, patient());
    for (name, expires) in [("past", past), ("future", future)] {
        sql(&format!(
            "INSERT INTO sessions (user_id, user_ip, session_id, session_expires, session_data) VALUES (1, '', '{name}', {expires}, '')"
        ));
    }
    assert_eq!(store.read(&id("past")).await, Ok(None));
    let found = record(&store, &id("future")).await;
    assert_eq!((found.data.len(), found.user.as_deref(), found.address), (0, Some("1"), None));
}

/// Queries that are wrong, and what is said about them.
async fn wrong_queries_are_named(url: &str, table: &str) {
    for (query, wanted) in [
        ("SELECT x AS data FROM nowhere WHERE id = :id".to_owned(), "nowhere"),
        (format!("SELECT nothing AS data FROM {table} WHERE session_id = :id"), "nothing"),
        (format!("SELECT session_data AS data FRM {table} WHERE session_id = :id"), "FRM"),
        (format!("SELECT session_data FROM {table} WHERE session_id = :id"), "AS data"),
        (format!("DELETE FROM {table} WHERE session_id = :id"), ""),
    ] {
        let error = refused(store(url, with_query(&query)).read(&id(ID)).await);
        assert!(matches!(error, StoreError::Query(_) | StoreError::Settings(_)), "{query}: {error:?}");
        assert!(said(&error).contains(wanted) && !error.is_temporary(), "{query}: {error}");
    }
}

fn too_large_is_its_own_error(error: &StoreError) {
    assert!(matches!(error, StoreError::TooLarge { bytes: 1001, max_bytes: 1000, .. }), "{error:?}");
}

const CARBONPHP_MYSQL: &str =
    "CREATE TABLE site.sessions (user_id BINARY(16) NOT NULL, user_ip VARCHAR(20), session_id VARCHAR(191) PRIMARY KEY,
    session_expires DATETIME NOT NULL, session_data TEXT, user_online_status TINYINT(1) DEFAULT 1)";

#[tokio::test]
async fn mariadb_has_carbonphps_table() {
    let mariadb = MariaDb::start();
    mariadb.sql(CARBONPHP_MYSQL);
    let sql = |sql: &str| mariadb.sql(&format!("USE site; {sql}"));
    let dsn = format!("mysql:unix_socket={}/sql.sock;dbname=site", mariadb.directory.path().display());
    let pdo = Pdo { dsn, expires: "NOW() + INTERVAL 1 DAY" };
    carbonphp_is_the_default(&mariadb.url(), &pdo, sql).await;
    expired_sessions_are_none(&mariadb.url(), sql, "NOW() - INTERVAL 1 SECOND", "NOW() + INTERVAL 1 HOUR").await;
    sql(&format!(
        "INSERT INTO sessions (user_id, user_ip, session_id, session_expires, session_data)
         VALUES (UNHEX('11EDA00080FF01020304050607080900'), '::1', '{ID}', NOW() + INTERVAL 1 DAY, REPEAT('x', 1001))"
    ));
    wrong_queries_are_named(&mariadb.url(), "sessions").await;
    let found = record(&store(&mariadb.url(), patient()), &id(ID)).await;
    assert_eq!(found.user.as_deref(), Some("11EDA00080FF01020304050607080900"), "as CarbonPHP writes it");
    let small = StoreOptions { max_bytes: 1000, ..patient() };
    too_large_is_its_own_error(&refused(store(&mariadb.url(), small).read(&id(ID)).await));
    let dates = "SELECT session_data AS data, session_expires AS expires FROM sessions WHERE session_id = :id";
    let error = refused(store(&mariadb.url(), with_query(dates)).read(&id(ID)).await);
    assert!(said(&error).contains("DATETIME") && said(&error).contains("UNIX_TIMESTAMP"), "{error}");
    // A zone in the URL is the zone of the dates.
    let east = store(&format!("{}&timezone=%2B13:00", mariadb.url()), patient());
    sql("UPDATE sessions SET session_expires = UTC_TIMESTAMP() + INTERVAL 12 HOUR");
    assert_eq!(east.read(&id(ID)).await, Ok(None));
}

#[tokio::test]
async fn mariadb_has_laravels_table() {
    let mariadb = MariaDb::start();
    let sql = |sql: &str| mariadb.sql(&format!("USE site; {sql}"));
    sql("CREATE TABLE sessions (id VARCHAR(255) PRIMARY KEY, user_id BIGINT UNSIGNED NULL, ip_address VARCHAR(45), user_agent TEXT,
         payload LONGTEXT NOT NULL, last_activity INT NOT NULL)");
    let payload = run(&mut php(&[], "echo base64_encode(serialize(['_token' => 'x', 'login_web' => 42]));", &[]));
    for (name, user, age) in [(ID, "42", 60), ("guest", "NULL", 60), ("old", "42", 24 * 60 + 5)] {
        sql(&format!(
            "INSERT INTO sessions VALUES ('{name}', {user}, '10.0.0.1', 'Firefox', '{payload}', {})",
            seconds_from_now(-age)
        ));
    }
    sql(&format!("INSERT INTO sessions VALUES ('broken', 1, '', '', '*', {})", seconds_from_now(0)));
    let store = store(&mariadb.url(), with_query("laravel"));
    let found = record(&store, &id(ID)).await;
    assert_eq!(found.data, "a:2:{s:6:\"_token\";s:1:\"x\";s:9:\"login_web\";i:42;}");
    assert_eq!((found.user.as_deref(), found.address.as_deref()), (Some("42"), Some("10.0.0.1")));
    assert_eq!(record(&store, &id("guest")).await.user, None);
    assert_eq!(store.read(&id("old")).await, Ok(None));
    assert!(matches!(refused(store.read(&id("broken")).await), StoreError::Damaged { .. }));
    let found =
        store.recheck(&["guest", "old", "broken"].map(|name| (id(name), found.version))).await.expect("it is there");
    assert!(
        matches!(&found[..], [Recheck::Changed(_), Recheck::Gone, Recheck::Unreadable(StoreError::Damaged { .. })]),
        "{found:?}"
    );
}

#[tokio::test]
async fn mariadb_that_is_down_slow_or_closed_says_so_and_is_tried_again() {
    let mut mariadb = MariaDb::start();
    mariadb.sql(CARBONPHP_MYSQL);
    mariadb.sql(&format!(
        "INSERT INTO site.sessions (user_id, user_ip, session_id, session_expires, session_data)
         VALUES (1, '', '{ID}', NOW() + INTERVAL 1 DAY, 'a|i:1;')"
    ));
    let url = mariadb.url();
    let error = refused(store(&url.replace(PASSWORD, "alice"), patient()).read(&id(ID)).await);
    assert!(matches!(error, StoreError::Denied(_)) && said(&error).contains("GRANT SELECT"), "{error:?}");
    let error = refused(store(&url.replace("/site?", "/nowhere?"), patient()).read(&id(ID)).await);
    assert!(
        matches!(error, StoreError::Denied(_) | StoreError::Settings(_)) && said(&error).contains("nowhere"),
        "{error:?}"
    );

    let patient_store = store(&url, patient());
    assert_eq!(text(&patient_store, &id(ID)).await, "a|i:1;");
    let locker = Beside::start(
        mariadb
            .client()
            .args(["--force"])
            .arg("-e")
            .arg("LOCK TABLES site.sessions WRITE; SELECT 'locked'; SELECT SLEEP(600);"),
    );
    let impatient_store = store(&url, impatient());
    let error = refused(impatient_store.read(&id(ID)).await);
    assert!(matches!(error, StoreError::Slow(_)) && said(&error).contains("identity.session.query"), "{error:?}");
    drop(locker);
    mariadb.stop();
    let error = refused(patient_store.read(&id(ID)).await);
    assert!(
        matches!(error, StoreError::Unreachable(_)) && said(&error).contains("identity.session.store"),
        "{error:?}"
    );
    mariadb.start_again();
    assert_eq!(text_at_last(&patient_store, &id(ID)).await, "a|i:1;");
    mariadb.stop();
    mariadb.start_again();
    assert_eq!(text(&patient_store, &id(ID)).await, "a|i:1;", "the dead connection is nobody's error");
    assert_eq!(text_at_last(&impatient_store, &id(ID)).await, "a|i:1;");
}

#[tokio::test]
async fn postgres_has_carbonphps_table() {
    let postgres = Postgres::start();
    postgres.sql(
        "SET ROLE site; CREATE TABLE sessions (user_id INTEGER NOT NULL, user_ip TEXT, session_id VARCHAR(255) PRIMARY KEY,
         session_expires TIMESTAMP NOT NULL, session_data TEXT, user_online_status SMALLINT DEFAULT 1)",
    );
    let sql = |sql: &str| postgres.sql(sql);
    let dsn = format!("pgsql:host=127.0.0.1;port={};dbname=site", postgres.port);
    let pdo = Pdo { dsn, expires: "now() + interval '1 day'" };
    carbonphp_is_the_default(&postgres.url(), &pdo, sql).await;
    expired_sessions_are_none(&postgres.url(), sql, "now() - interval '1 second'", "now() + interval '1 hour'").await;
    sql(&format!("INSERT INTO sessions VALUES (1, '', '{ID}', now() + interval '1 day', repeat('x', 1001))"));
    wrong_queries_are_named(&postgres.url(), "sessions").await;
    let small = StoreOptions { max_bytes: 1000, ..patient() };
    too_large_is_its_own_error(&refused(store(&postgres.url(), small).read(&id(ID)).await));
    let dates = "SELECT session_data AS data, session_expires AS expires FROM sessions WHERE session_id = :id";
    let error = refused(store(&postgres.url(), with_query(dates)).read(&id(ID)).await);
    assert!(said(&error).contains("TIMESTAMP") && said(&error).contains("EXTRACT(EPOCH"), "{error}");
}

#[tokio::test]
async fn postgres_has_symfonys_table_and_tables_of_ones_own() {
    let postgres = Postgres::start();
    let sql = |sql: &str| postgres.sql(&format!("SET ROLE site; {sql}"));
    sql("CREATE TABLE sessions (sess_id VARCHAR(128) NOT NULL PRIMARY KEY, sess_data BYTEA NOT NULL, sess_lifetime INTEGER NOT NULL,
         sess_time INTEGER NOT NULL)");
    for (name, lifetime, time) in [
        (ID, seconds_from_now(1000), seconds_from_now(0)),
        ("ended", seconds_from_now(-1), seconds_from_now(-1000)),
        ("old", 1000, seconds_from_now(-900)),
        ("oldended", 1000, seconds_from_now(-1100)),
    ] {
        sql(&format!("INSERT INTO sessions VALUES ('{name}', '_sf2|a:1:{{i:0;i:1;}}', {lifetime}, {time})"));
    }
    let symfony = store(&postgres.url(), with_query("symfony"));
    for name in [ID, "old"] {
        let found = record(&symfony, &id(name)).await;
        assert_eq!((&found.data[..], found.user), (&b"_sf2|a:1:{i:0;i:1;}"[..], None), "{name}");
        assert!(matches!(recheck(&symfony, &id(name), found.version).await, Recheck::Same));
    }
    for name in ["ended", "oldended"] {
        assert_eq!(symfony.read(&id(name)).await, Ok(None), "{name}");
    }
    // A migration of the site's makes prepared statements useless.
    sql("ALTER TABLE sessions ALTER COLUMN sess_data TYPE TEXT USING convert_from(sess_data, 'UTF8')");
    assert_eq!(text(&symfony, &id(ID)).await, "_sf2|a:1:{i:0;i:1;}");

    sql("CREATE TABLE mine (key TEXT, data JSONB, owner UUID, host INET, until TIMESTAMPTZ, used NUMERIC)");
    sql(&format!(
        "INSERT INTO mine VALUES ('{ID}', '{{\"id\": 1}}', '11eda000-80ff-0102-0304-050607080900', '10.0.0.1', now() + interval '1 hour',
         {}), ('ended', '{{}}', NULL, NULL, now(), NULL), ('unused', '{{}}', NULL, NULL, NULL, {}.5)",
        seconds_from_now(-60),
        seconds_from_now(-24 * 60 - 60),
    ));
    let query = "SELECT data, owner AS user, host AS address, until AS expires, used AS modified FROM mine WHERE key = :id AND :id <> ''";
    let mine = store(&postgres.url(), with_query(query));
    let found = record(&mine, &id(ID)).await;
    assert_eq!(found.data, "{\"id\": 1}");
    assert_eq!(found.user.as_deref(), Some("11eda000-80ff-0102-0304-050607080900"));
    assert_eq!(found.address.as_deref(), Some("10.0.0.1"));
    let known = [ID, "ended", "unused", "another"].map(|name| (id(name), found.version));
    let found = mine.recheck(&known).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(&found[..], [Recheck::Same, Recheck::Gone, Recheck::Gone, Recheck::Gone]), "{found:?}");
    // A value that does not fit is quoted by the database, and not by us.
    let numbers = "SELECT data FROM mine WHERE used = CAST(CAST(:id AS TEXT) AS INTEGER)";
    let error = refused(store(&postgres.url(), with_query(numbers)).read(&id(ID)).await);
    assert!(said(&error).contains("invalid input syntax"), "{error}");
}

#[tokio::test]
async fn postgres_that_is_down_slow_or_closed_says_so_and_is_tried_again() {
    let mut postgres = Postgres::start();
    postgres.sql("SET ROLE site; CREATE TABLE sessions (sess_id TEXT, sess_data BYTEA, sess_lifetime INTEGER, sess_time INTEGER)");
    postgres.sql(&format!("INSERT INTO sessions VALUES ('{ID}', 'a|i:1;', 2000000000, 0)"));
    let url = postgres.url();
    let symfony = |options: StoreOptions| StoreOptions { query: Query::Symfony, ..options };
    let error = refused(store(&url.replace(PASSWORD, "alice"), symfony(patient())).read(&id(ID)).await);
    assert!(matches!(error, StoreError::Denied(_)), "{error:?}");
    let error =
        refused(store(&format!("{}nowhere", url.trim_end_matches("site")), symfony(patient())).read(&id(ID)).await);
    assert!(matches!(error, StoreError::Settings(_)) && said(&error).contains("nowhere"), "{error:?}");

    let patient_store = store(&url, symfony(patient()));
    assert_eq!(text(&patient_store, &id(ID)).await, "a|i:1;");
    let lock = "BEGIN; LOCK TABLE sessions; SELECT 'locked'; SELECT pg_sleep(600);";
    let locker = Beside::start(postgres.client("site").args(lock.split_inclusive(';').flat_map(|sql| ["-c", sql])));
    let impatient_store = store(&url, symfony(impatient()));
    let error = refused(impatient_store.read(&id(ID)).await);
    assert!(matches!(error, StoreError::Slow(_)), "{error:?}");
    drop(locker);
    postgres.stop();
    let error = refused(patient_store.read(&id(ID)).await);
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    postgres.start_again();
    assert_eq!(text_at_last(&patient_store, &id(ID)).await, "a|i:1;");
    postgres.stop();
    postgres.start_again();
    assert_eq!(text(&patient_store, &id(ID)).await, "a|i:1;", "the dead connection is nobody's error");
}

#[tokio::test]
async fn sqlite_has_carbonphps_table() {
    let sqlite = Sqlite::new();
    sqlite.sql(
        "CREATE TABLE sessions (user_id INTEGER NOT NULL, user_ip TEXT, session_id TEXT PRIMARY KEY, session_expires DATETIME NOT NULL,
         session_data TEXT, user_online_status INTEGER DEFAULT 1)",
    );
    let sql = |sql: &str| sqlite.sql(sql);
    let dsn = format!("sqlite:{}", sqlite.file().display());
    let pdo = Pdo { dsn, expires: "datetime('now', 'localtime', '+1 day')" };
    carbonphp_is_the_default(&sqlite.url(), &pdo, sql).await;
    let (past, future) = ("datetime('now', 'localtime', '-1 second')", "datetime('now', 'localtime', '+1 hour')");
    expired_sessions_are_none(&sqlite.url(), sql, past, future).await;
    sql("DELETE FROM sessions");
    let (past, future) = (seconds_from_now(-1).to_string(), seconds_from_now(3600).to_string());
    expired_sessions_are_none(&sqlite.url(), sql, &past, &future).await;
    sql(&format!("INSERT INTO sessions VALUES (1, '', '{ID}', {future}, printf('%.1001c', 'x'), 1)"));
    wrong_queries_are_named(&sqlite.url(), "sessions").await;
    let small = StoreOptions { max_bytes: 1000, ..patient() };
    too_large_is_its_own_error(&refused(store(&sqlite.url(), small).read(&id(ID)).await));
}

#[tokio::test]
async fn sqlite_that_is_missing_no_database_or_locked_says_so() {
    let sqlite = Sqlite::new();
    let missing = store(&sqlite.url(), patient());
    let error = refused(missing.read(&id(ID)).await);
    assert!(matches!(error, StoreError::Settings(_)) && said(&error).contains("identity.session.store"), "{error:?}");
    assert!(!sqlite.file().exists(), "nothing is made");
    std::fs::write(sqlite.file(), "something else, and long enough to be looked at ".repeat(50)).expect("a file");
    let error = refused(store(&sqlite.url(), patient()).read(&id(ID)).await);
    assert!(matches!(error, StoreError::Settings(_)), "{error:?}");

    let sqlite = Sqlite::new();
    sqlite.sql("CREATE TABLE sessions (sess_id TEXT, sess_data BLOB, sess_lifetime INTEGER, sess_time INTEGER)");
    sqlite.sql(&format!("INSERT INTO sessions VALUES ('{ID}', 'a|i:1;', 2000000000, 0)"));
    let options = StoreOptions { query: Query::Symfony, deadline: Duration::from_millis(300), ..patient() };
    let store = store(&sqlite.url(), options);
    assert_eq!(text_at_last(&store, &id(ID)).await, "a|i:1;");
    let code = "$pdo = new PDO('sqlite:' . $argv[1]); $pdo->exec('BEGIN EXCLUSIVE'); echo \"locked\\n\"; fgets(STDIN);";
    let locker = Beside::start(&mut php(&[], code, &[sqlite.file().to_str().expect("UTF-8")]));
    let error = refused(store.read(&id(ID)).await);
    assert!(error.is_temporary(), "{error:?}");
    locker.end();
    assert_eq!(text_at_last(&store, &id(ID)).await, "a|i:1;");
}
