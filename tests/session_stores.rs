//! Where a site keeps its sessions, and what becomes of browsers when that place is down, slow, wrong or lies: real PHP writes, Debian's
//! Redis, MariaDB and SQLite keep, and wootz only reads.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use support::client::Client;
use support::daemon::{Daemon, Nginx, PhpFpm, cookies_of, free_address};
use support::raw::{Answer, Raw, handshake};
use support::{Setup, Wootz, run, wait_until};
use tempfile::TempDir;

/// Says who the user is and which session it was.
const SAY: &str = "echo \"${REMOTE_USER-guest}|${WOOTZ_SESSION-none}\"";

const ANN: &str = "annssession0123456789abcdef";

const PASSWORD: &str = "s3cret-of-the-store";

/// A server that asks this store.
fn asking(store: &str, settings: &str) -> Setup {
    asking_for(SAY, store, settings)
}

/// The same with another application.
fn asking_for(script: &str, store: &str, settings: &str) -> Setup {
    Setup::sh(script)
        .setting("identity.provider", "\"session\"")
        .setting("identity.session.store", format!("{store:?}"))
        // Machines that run tests may be busy.
        .setting("identity.session.timeout", "\"20s\"")
        .settings(settings)
}

fn cookie(id: &str) -> String {
    format!("PHPSESSID={id}")
}

/// The status of the handshake with the cookie of this session.
fn status(wootz: &Wootz, id: &str) -> u16 {
    match Client::try_connect(wootz.address(), "/", &[("Cookie", &cookie(id))]) {
        Ok(_) => 101,
        Err(answer) => answer.status().as_u16(),
    }
}

/// What refuses the browser of this session.
fn refusal(wootz: &Wootz, id: &str) -> Answer {
    wootz.raw().refusal("/", &format!("Cookie: {}\r\n", cookie(id)))
}

fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.field("Retry-After").is_some(), "{answer:?}");
}

fn refused_by(wootz: &Wootz, setting: &str) -> u64 {
    wootz.status()["connections"]["refused_by"][setting].as_u64().expect("a number")
}

/// Runs PHP's command line, with these settings.
fn php(settings: &[(&str, &str)], code: &str, arguments: &[&str]) {
    let mut command = Command::new("php");
    for (name, value) in [("session.use_cookies", "0"), ("session.cache_limiter", "")].iter().chain(settings) {
        command.arg("-d").arg(format!("{name}=\"{value}\""));
    }
    let strict = "set_error_handler(function ($n, $text) { fwrite(STDERR, $text); exit(1); });";
    run(command.arg("-r").arg(format!("{strict} {code}")).arg("--").args(arguments));
}

/// Debian's Redis with a password, which loses nothing when it is killed.
struct Redis {
    server: Option<Daemon>,
    address: SocketAddr,
    directory: TempDir,
}

impl Redis {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut redis = Self { server: None, address: free_address(), directory };
        redis.start_again();
        redis
    }

    fn start_again(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.address.port().to_string(), "--requirepass", PASSWORD]);
        command
            .args(["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir"])
            .arg(self.directory.path());
        let mut server = Daemon::start(&mut command);
        server.wait_for("Redis has its sessions", || (self.try_cli(&["PING"]) == "PONG\n").then_some(()));
        self.server = Some(server);
    }

    fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.server = None;
    }

    fn signal(&self, signal: Signal) {
        self.server.as_ref().expect("it runs").signal(signal);
    }

    fn url(&self) -> String {
        format!("redis://:{PASSWORD}@{}", self.address)
    }

    /// What redis-cli prints, whatever that is.
    fn try_cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.env("REDISCLI_AUTH", PASSWORD).args(["-p", &self.address.port().to_string()]).args(arguments);
        String::from_utf8(command.output().expect("redis-cli, which tests/run installs").stdout).expect("UTF-8")
    }

    fn cli(&self, arguments: &[&str]) {
        let said = self.try_cli(arguments);
        assert!(said == "OK\n" || said == "1\n", "{arguments:?}: {said}");
    }

    /// PHP keeps this session, by phpredis.
    fn php(&self, id: &str, code: &str) {
        let save_path = format!("tcp://{}?auth={PASSWORD}", self.address);
        let settings = [("session.save_handler", "redis"), ("session.save_path", &*save_path)];
        php(&settings, &format!("session_id($argv[1]); session_start(); {code}"), &[id]);
    }

    fn log_in(&self, id: &str, user: &str) {
        self.php(id, &format!("$_SESSION['id'] = '{user}';"));
    }
}

#[test]
fn redis_that_dies_refuses_with_503_loses_nobody_and_is_found_again() {
    let mut redis = Redis::start();
    redis.log_in(ANN, "ann");
    let wootz = asking(&redis.url(), "identity.recheck = \"200ms\"\nlisten.shards = 1").start();
    let mut open = wootz.connect_as(&cookie(ANN));
    assert_eq!(open.ask("/"), format!("ann|{ANN}"));
    redis.kill();
    wootz.wait_for_log_line(&["ERROR", "identity.session.store", "looked at again", "stay as they are"]);
    assert_unavailable(&refusal(&wootz, ANN));
    wootz.wait_for_log_line(&["ERROR", "identity.session.store", "refused with 503"]);
    wootz.wait_for_log_line(&["handshake refused", "503", "identity.session.store", "can't be reached"]);
    assert_eq!(wootz.connect().ask("/"), "guest|none");
    assert_eq!(open.ask("/"), format!("ann|{ANN}"));
    assert_eq!(refused_by(&wootz, "session"), 1);
    redis.start_again();
    wait_until("Redis is asked again", || (status(&wootz, ANN) == 101).then_some(()));
    assert_eq!(open.ask("/"), format!("ann|{ANN}"));
    redis.php(ANN, "session_destroy();");
    assert_eq!(open.closed(), 4401);
}

#[test]
fn redis_whose_replica_takes_over_loses_nobody() {
    let mut primary = Redis::start();
    primary.log_in(ANN, "ann");
    let mut replica = Redis::start();
    replica.cli(&["CONFIG", "SET", "masterauth", PASSWORD]);
    replica.cli(&["REPLICAOF", "127.0.0.1", &primary.address.port().to_string()]);
    wait_until("the replica has the session", || {
        (replica.try_cli(&["EXISTS", &format!("PHPREDIS_SESSION:{ANN}")]) == "1\n").then_some(())
    });
    let wootz = asking(&primary.url(), "identity.recheck = \"200ms\"").start();
    let mut open = wootz.connect_as(&cookie(ANN));
    assert_eq!(open.ask("/"), format!("ann|{ANN}"));
    primary.kill();
    wootz.wait_for_log_line(&["ERROR", "identity.session.store", "stay as they are"]);
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    // The address moves to it.
    replica.cli(&["CONFIG", "SET", "port", &primary.address.port().to_string()]);
    replica.address = primary.address;
    wait_until("the new primary is asked", || (status(&wootz, ANN) == 101).then_some(()));
    assert_eq!(open.ask("/"), format!("ann|{ANN}"));
    replica.php(ANN, "session_destroy();");
    assert_eq!(open.closed(), 4401);
}

#[test]
fn binary_knows_every_store() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let files = format!("files:{}", directory.path().display());
    for store in [
        files.as_str(),
        "redis://h/0",
        "rediss://h/0",
        "redis+unix:///run/redis.sock",
        "tcp://h:6379?auth=x",
        "mysql://me:x@h/site",
        "mariadb://me:x@h/site",
        "postgres://me:x@h/site",
        "sqlite:/srv/site.db",
    ] {
        let setting = format!("identity.session.store={store}");
        let mut command = support::wootz(directory.path());
        let output = command.args(["check", "--set", "application.command=cat", "--set", &setting]).output();
        let output = output.expect("the binary");
        assert!(output.status.success(), "{store}: {output:?}");
    }
}

#[test]
fn redis_that_wants_another_password_refuses_with_503_and_the_log_says_so_without_it() {
    let redis = Redis::start();
    redis.log_in(ANN, "ann");
    for url in [format!("redis://:wr0ng-secret@{}", redis.address), format!("redis://{}", redis.address)] {
        let wootz = asking(&url, "").start();
        assert_unavailable(&refusal(&wootz, ANN));
        wootz.wait_for_log_line(&["handshake refused", "503", "refuses the login", "identity.session.store"]);
        assert!(!wootz.log().contains("wr0ng-secret") && !wootz.log().contains(ANN));
    }
}

#[test]
fn redis_that_is_slow_is_waited_for_no_longer_than_the_timeout_and_guests_do_not_wait() {
    let redis = Redis::start();
    redis.log_in(ANN, "ann");
    let one_thread = "listen.shards = 1\nlimits.max_connections = 2\nidentity.session.timeout";
    let patient = asking(&redis.url(), &format!("{one_thread} = \"25s\"")).start();
    let impatient = asking(&redis.url(), &format!("{one_thread} = \"300ms\"")).start();
    for wootz in [&patient, &impatient] {
        wait_until("ann is known", || (status(wootz, ANN) == 101).then_some(()));
        wait_until("she has left", || (wootz.status()["connections"]["open"] == 0).then_some(()));
    }
    redis.cli(&["CLIENT", "PAUSE", "600000", "ALL"]);
    assert_unavailable(&refusal(&impatient, ANN));
    impatient.wait_for_log_line(&["handshake refused", "503", "identity.session.store", "300 ms"]);

    let mut waiting = patient.raw();
    waiting.write(handshake(patient.address(), "/", &format!("Cookie: {}\r\n", cookie(ANN))));
    let mut guest = patient.connect();
    assert_eq!(guest.ask("/"), "guest|none");
    assert!(!waiting.speaks_within(Duration::from_millis(1)), "it is still waiting for Redis");
    // A browser that gives up while it waits gives its place back.
    drop(waiting);
    wait_until("there is room for another guest", || {
        Client::try_connect(patient.address(), "/", &[]).ok().map(|mut other| assert_eq!(other.ask("/"), "guest|none"))
    });
}

#[test]
fn session_that_redis_forgets_closes_its_connections_with_4401_and_nobody_elses() {
    let redis = Redis::start();
    redis.log_in(ANN, "ann");
    redis.log_in("bobssession", "bob");
    let wootz = asking(&redis.url(), "identity.recheck = \"300ms\"\nlisten.shards = 2").start();
    let mut tabs = [wootz.connect_as(&cookie(ANN)), wootz.connect_as(&cookie(ANN))];
    let mut bob = wootz.connect_as(&cookie("bobssession"));
    assert!(tabs.iter_mut().all(|tab| tab.ask("/") == format!("ann|{ANN}")));
    redis.cli(&["DEL", &format!("PHPREDIS_SESSION:{ANN}")]);
    assert!(tabs.iter_mut().all(|tab| tab.closed() == 4401));
    wootz.wait_for_log_line(&["4401", "its session has ended"]);
    assert_eq!(bob.ask("/"), "bob|bobssession");
    assert_eq!(wootz.connect_as(&cookie(ANN)).ask("/"), "guest|none");
}

#[test]
fn users_share_of_connections_counts_those_of_all_its_sessions_and_no_refused_one() {
    let redis = Redis::start();
    redis.log_in(ANN, "ann");
    redis.log_in("annsphone", "ann");
    redis.log_in("bobssession", "bob");
    let settings =
        "limits.per_user = 2\nidentity.recheck = \"100ms\"\nidentity.user_change = \"move\"\nlisten.shards = 2";
    let wootz = asking(&redis.url(), settings).start();
    let open = |id: &str| {
        let mut client = wootz.connect_as(&cookie(id));
        assert!(client.ask("/").ends_with(&format!("|{id}")));
        client
    };
    let (desk, phone) = (open(ANN), open("annsphone"));
    for _ in 0..3 {
        assert_eq!(refusal(&wootz, ANN).status, 429);
    }
    wootz.wait_for_log_line(&["handshake refused", "429", "limits.per_user"]);
    assert_eq!(refused_by(&wootz, "per_user"), 3);
    // Those that were refused hold no place: as many as leave may come.
    drop(desk);
    let _desk =
        wait_until("ann has room", || Client::try_connect(wootz.address(), "/", &[("Cookie", &cookie(ANN))]).ok());
    // Who becomes a user that has enough is one too many, and gives the place of the old one back.
    let mut bobs = [open("bobssession"), open("bobssession")];
    redis.log_in("bobssession", "ann");
    assert!(bobs.iter_mut().all(|bob| bob.closed() == 1008));
    wootz.wait_for_log_line(&["closing", "limits.per_user"]);
    redis.log_in("bobssession", "bob");
    wait_until("bob has room", || (status(&wootz, "bobssession") == 101).then_some(()));
    // And who becomes somebody else makes room.
    redis.log_in("annsphone", "carol");
    wait_until("ann has room", || (status(&wootz, ANN) == 101).then_some(()));
    drop(phone);
}

#[test]
fn call_that_runs_while_its_session_gets_another_user_ends_as_the_old_one_and_the_next_are_the_new_ones() {
    let redis = Redis::start();
    redis.log_in(ANN, "ann");
    let script = "if [ \"$WOOTZ_EVENT\" = disconnect ]; then echo \"$REMOTE_USER\" >>left; exit; fi\n\
                  if [ \"$REQUEST_URI\" = /hold ]; then : >held; wait_for go; fi; echo \"$REMOTE_USER\"";
    let settings =
        "identity.recheck = \"100ms\"\nidentity.user_change = \"move\"\napplication.events = [\"disconnect\"]";
    let wootz = asking_for(script, &redis.url(), settings).start();
    let mut client = wootz.connect_as(&cookie(ANN));
    let port = client.port();
    assert!(wootz.pipe_of(port).starts_with("ann:"));
    client.send("/hold");
    wait_until("the call runs", || wootz.path("held").exists().then_some(()));
    redis.log_in(ANN, "bob");
    wootz.wait_for_log("goes on as that user");
    client.send("/");
    wootz.release("go");
    assert_eq!((client.text(), client.text()), ("ann".to_owned(), "bob".to_owned()));
    assert!(wootz.pipe_of(port).starts_with("bob:"));
    assert_eq!(wootz.status()["users"], 1);
    drop(client);
    assert_eq!(wootz.wait_for_lines("left", 1), ["bob"]);
}

/// PHP's sessions in a table, written with PDO.
const PDO: &str = r#"
    class Sessions implements SessionHandlerInterface {
        public function __construct(private PDO $pdo, private string $sql, private array $more) {}
        public function open($path, $name): bool { return true; }
        public function close(): bool { return true; }
        public function read($id): string|false { return ''; }
        public function write($id, $data): bool { return $this->pdo->prepare($this->sql)->execute([$id, $data, ...$this->more]); }
        public function destroy($id): bool { return true; }
        public function gc($age): int|false { return 0; }
    }
    [, $dsn, $login, $sql, $id] = $argv;
    [$user, $password] = explode(':', $login);
    $pdo = new PDO($dsn, $user, $password, [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
    session_set_save_handler(new Sessions($pdo, $sql, array_slice($argv, 5)));
    session_id($id);
    session_start();
    $_SESSION['cart'] = ["\xff", 2.5, null];
"#;

/// Debian's MariaDB on a Unix socket of its own.
struct MariaDb {
    _server: Daemon,
    directory: TempDir,
}

impl MariaDb {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let here = directory.path().display();
        let user = rustix::process::geteuid().is_root().then_some("--user=root");
        let common = [format!("--datadir={here}/data"), format!("--tmpdir={here}")];
        run(Command::new("mariadb-install-db")
            .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"])
            .args(user)
            .args(&common));
        let program = ["/usr/sbin/mariadbd", "mariadbd"].map(PathBuf::from);
        let program = program.iter().find(|path| path.exists()).unwrap_or(&program[1]);
        let mut command = Command::new(program);
        command.args(["--no-defaults", "--skip-networking", "--innodb-buffer-pool-size=16M"]).args(user).args(&common);
        command.args([format!("--socket={here}/sql.sock"), format!("--pid-file={here}/pid")]);
        let mut server = Daemon::start(&mut command);
        let socket = directory.path().join("sql.sock");
        server.wait_for("MariaDB listens", || std::os::unix::net::UnixStream::connect(&socket).ok());
        let mariadb = Self { _server: server, directory };
        mariadb.sql(&format!(
            "CREATE DATABASE site; CREATE USER site@localhost IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON site.* TO site@localhost; \
             CREATE TABLE site.sessions (user_id VARCHAR(20) NOT NULL, user_ip VARCHAR(80), session_id VARCHAR(255) NOT NULL PRIMARY KEY, \
             session_expires DATETIME NOT NULL, session_data BLOB, user_online_status TINYINT DEFAULT 1)"
        ));
        mariadb
    }

    fn sql(&self, sql: &str) {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--user=root", "--socket"]).arg(self.directory.path().join("sql.sock"));
        run(command.args(["-e", sql]));
    }

    fn url(&self) -> String {
        format!("mysql://site:{PASSWORD}@localhost/site?socket={}/sql.sock", self.directory.path().display())
    }

    /// PHP keeps this session, as CarbonPHP does.
    fn log_in(&self, id: &str, user: &str, address: &str) {
        let dsn = format!("mysql:unix_socket={}/sql.sock;dbname=site", self.directory.path().display());
        let sql = "REPLACE INTO sessions (session_id, session_data, user_id, user_ip, session_expires) \
                   VALUES (?, ?, ?, ?, NOW() + INTERVAL 1 DAY)";
        php(&[], PDO, &[&dsn, &format!("site:{PASSWORD}"), sql, id, user, address]);
    }
}

#[test]
fn table_of_carbonphp_says_who_it_is_and_from_where() {
    let mariadb = MariaDb::start();
    mariadb.log_in(ANN, "42", "127.0.0.1");
    mariadb.log_in("elsewhere", "42", "192.0.2.7");
    mariadb.log_in("guest", "0", "127.0.0.1");
    let wootz = asking(&mariadb.url(), "").start();
    assert_eq!(wootz.connect_as(&cookie(ANN)).ask("/"), format!("42|{ANN}"));
    assert_eq!(wootz.connect_as(&cookie("guest")).ask("/"), "guest|guest");
    assert_eq!(wootz.connect_as(&cookie("unknown")).ask("/"), "guest|none");
    assert_eq!(refusal(&wootz, "elsewhere").status, 403);
    wootz.wait_for_log_line(&["handshake refused", "403", "identity.verify_ip"]);
    assert_eq!(refused_by(&wootz, "verify_ip"), 1);
    let lenient = asking(&mariadb.url(), "").argument("--no-verify-ip").start();
    assert_eq!(lenient.connect_as(&cookie("elsewhere")).ask("/"), "42|elsewhere");

    mariadb.sql("RENAME TABLE site.sessions TO site.old");
    assert_unavailable(&refusal(&wootz, ANN));
    let line = wootz.wait_for_log_line(&["handshake refused", "503", "identity.session.query"]);
    assert!(!line.contains(ANN) && !line.contains(PASSWORD), "{line}");
    mariadb.sql("RENAME TABLE site.old TO site.sessions");
    wait_until("the table is found again", || (status(&wootz, ANN) == 101).then_some(()));
}

#[test]
fn table_of_the_sites_own_is_asked_as_the_site_says() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("site.db");
    run(Command::new("sqlite3")
        .arg(&file)
        .arg("CREATE TABLE logins (token TEXT, payload BLOB, member INTEGER, ip TEXT)"));
    let dsn = format!("sqlite:{}", file.display());
    let sql = "INSERT INTO logins (token, payload, member, ip) VALUES (?, ?, ?, ?)";
    php(&[], PDO, &[&dsn, ":", sql, ANN, "42", "127.0.0.1"]);
    php(&[], PDO, &[&dsn, ":", sql, "elsewhere", "42", "::1"]);
    let query = "identity.session.query = \"SELECT payload AS data, member AS user, ip AS address FROM logins WHERE token = :id\"";
    let wootz = asking(&dsn, query).setting("identity.recheck", "\"200ms\"").start();
    let mut open = wootz.connect_as(&cookie(ANN));
    assert_eq!(open.ask("/"), format!("42|{ANN}"));
    assert_eq!(refusal(&wootz, "elsewhere").status, 403);
    run(Command::new("sqlite3").arg(&file).args(["-cmd", ".timeout 10000"]).arg("DELETE FROM logins"));
    assert_eq!(open.closed(), 4401);
    let wrong =
        asking(&dsn, "identity.session.query = \"SELECT payload AS data FROM nobody WHERE token = :id\"").start();
    assert_unavailable(&refusal(&wrong, ANN));
    wrong.wait_for_log_line(&["handshake refused", "503", "identity.session.query"]);
}

#[test]
fn behind_a_trusted_proxy_the_browsers_own_address_must_be_the_recorded_one() {
    let fpm = PhpFpm::start(2, "");
    fpm.script("index.php", "session_start(); $_SESSION = ['id' => 'ann', 'ip' => $_SERVER['REMOTE_ADDR']];");
    let store = format!("files:{}", fpm.path("sessions").display());
    let keys = "identity.session.address_keys = [\"ip\"]";
    let trusting = format!("{keys}\nlisten.trusted_proxies = [\"127.0.0.1\"]");
    let (wootz, distrusting) = (asking(&store, &trusting).start(), asking(&store, keys).start());
    let nginx = Nginx::start(&fpm.path(""), &fpm, Some(wootz.address()));
    let (here, elsewhere) = ([127, 0, 0, 2], [127, 0, 0, 3]);
    let mut page = Raw::connect_from(here, nginx.address());
    page.write(format!("GET /login HTTP/1.0\r\nHost: {}\r\n\r\n", nginx.address()));
    let ann = cookies_of(&page.answer());
    let status = |from: [u8; 4], at: SocketAddr, path: &str, fields: &str| {
        let mut raw = Raw::connect_from(from, at);
        raw.write(handshake(at, path, &format!("Cookie: {ann}\r\n{fields}")));
        raw.head().split(' ').nth(1).and_then(|status| status.parse::<u16>().ok()).expect("a status")
    };
    assert_eq!(status(here, nginx.address(), "/socket", ""), 101);
    let forged =
        ["X-Forwarded-For: 127.0.0.2\r\n", "Forwarded: for=127.0.0.2\r\n", "X-Forwarded-For: 127.0.0.2, 127.0.0.1\r\n"];
    for fields in ["", forged[0], forged[1], forged[2]] {
        assert_eq!(status(elsewhere, nginx.address(), "/socket", fields), 403, "by the proxy: {fields}");
        assert_eq!(status(elsewhere, wootz.address(), "/", fields), 403, "past the proxy: {fields}");
        assert_eq!(status(elsewhere, distrusting.address(), "/", fields), 403, "without a proxy: {fields}");
    }
    wootz.wait_for_log_line(&["handshake refused", "127.0.0.3", "403", "identity.verify_ip"]);
    assert_eq!(status(here, distrusting.address(), "/", ""), 101);
}

/// A secret of the site with which tokens are signed.
fn token_key(directory: &TempDir) -> String {
    let file = directory.path().join("token.key");
    fs::write(&file, "a secret of the site, long enough for HS256").expect("a file of the test");
    format!("[\"HS256:{}\"]", file.display())
}

#[test]
fn refusals_for_who_somebody_is_are_logged_and_counted_by_their_setting() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("sess_elsewhere"), "id|i:1;ip|s:9:\"192.0.2.7\";").expect("a file of the test");
    fs::write(directory.path().join("sess_damaged"), "id|i:").expect("a file of the test");
    let store = format!("files:{}", directory.path().display());
    let sessions = asking(&store, "identity.guests = \"refuse\"\nidentity.session.address_keys = [\"ip\"]").start();
    let tokens =
        Setup::sh(SAY).setting("identity.provider", "\"jwt\"").setting("identity.jwt.keys", token_key(&directory));
    let tokens = tokens.start();
    let script = "[ \"$WOOTZ_EVENT\" != validate ] || case \"$HTTP_COOKIE\" in a) exit 1;; b) printf '{';; esac";
    let application = Setup::sh(script).setting("identity.provider", "\"application\"").start();
    let of = |id: &str| format!("Cookie: {}\r\n", cookie(id));
    for (wootz, fields, status, setting, reason) in [
        (&sessions, "Origin: http://evil.example\r\n".to_owned(), 403, "allowed_origins", "identity.allowed_origins"),
        (&sessions, String::new(), 401, "guests", "identity.guests"),
        (&sessions, of("elsewhere"), 403, "verify_ip", "identity.verify_ip"),
        (&sessions, of("damaged"), 503, "session", "identity.session.serializer"),
        (&tokens, "Authorization: Bearer a.b.c\r\n".to_owned(), 401, "jwt", "token"),
        (&application, "Cookie: a\r\n".to_owned(), 403, "application", "the application refused it"),
        (&application, "Cookie: b\r\n".to_owned(), 503, "application", "validate"),
    ] {
        let before = refused_by(wootz, setting);
        assert_eq!(wootz.raw().refusal("/", &fields).status, status, "{setting}");
        wootz.wait_for_log_line(&["handshake refused", &status.to_string(), reason]);
        assert_eq!(refused_by(wootz, setting), before + 1, "{setting}");
    }
    let printed = String::from_utf8(sessions.run(&["status"]).stdout).expect("UTF-8");
    for setting in ["allowed origins", "guests", "verify ip", "session", "jwt", "application"] {
        assert!(printed.lines().any(|line| line.trim_start().starts_with(setting)), "{setting} in {printed}");
    }
}

#[test]
fn no_secret_is_in_the_log_in_the_status_or_in_what_check_and_config_print() {
    const IN_SESSION: &str = "what-ann-has-in-her-cart";
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut redis = Redis::start();
    redis.php(ANN, &format!("$_SESSION = ['id' => 'ann', 'cart' => '{IN_SESSION}', 'ip' => '127.0.0.1'];"));
    redis.php(
        "elsewheresession",
        &format!("$_SESSION = ['id' => 'ann', 'cart' => '{IN_SESSION}', 'ip' => '192.0.2.7'];"),
    );
    redis.php("unclearsession", &format!("$_SESSION = ['id' => ['{IN_SESSION}']];"));
    redis.cli(&["SET", "PHPREDIS_SESSION:damagedsession", &format!("cart|s:99:\"{IN_SESSION}")]);
    let settings = "log.level = \"trace\"\nidentity.recheck = \"200ms\"\nidentity.session.address_keys = [\"ip\"]\nidentity.guests = \"refuse\"\n\
                    application.environment.DATABASE_PASSWORD = \"s3cret-of-the-application\"";
    // One part of the secrets is in the file, one in a variable.
    let wootz = asking(&redis.url(), settings).start();
    let wrong = format!("redis://:wr0ng-secret@{}", redis.address);
    let by_variable =
        Setup::sh(SAY).settings("log.level = \"trace\"").variable("WOOTZ_IDENTITY_SESSION_STORE", &wrong).start();
    let keys = token_key(&directory);
    let tokens = Setup::sh(SAY).setting("identity.provider", "\"jwt\"").setting("identity.jwt.keys", keys);
    let tokens = tokens.settings("log.level = \"trace\"").start();

    let mut ann = wootz.connect_as(&cookie(ANN));
    assert_eq!(ann.ask("/"), format!("ann|{ANN}"));
    for (id, status) in
        [("elsewheresession", 403), ("unclearsession", 503), ("damagedsession", 503), ("unknownsession", 401)]
    {
        assert_eq!(refusal(&wootz, id).status, status, "{id}");
    }
    assert_unavailable(&refusal(&by_variable, ANN));
    let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4iLCJleHAiOjk5OTk5OTk5OTl9.c2lnbmF0dXJlLW9mLW5vYm9keQ";
    let with_token = [
        ("/", format!("Authorization: Bearer {token}\r\n")),
        (&*format!("/?token={token}"), String::new()),
        ("/", format!("Sec-WebSocket-Protocol: wootz.jwt, wootz.jwt.{token}\r\n")),
    ];
    for (target, fields) in with_token {
        assert_eq!(tokens.raw().refusal(target, &fields).status, 401);
    }
    redis.kill();
    wootz.wait_for_log("looked at again");
    assert_unavailable(&refusal(&wootz, ANN));
    redis.start_again();
    wait_until("Redis is asked again", || (status(&wootz, ANN) == 101).then_some(()));
    redis.php(ANN, "session_destroy();");
    assert_eq!(ann.closed(), 4401);

    let mut texts = vec![wootz.log(), by_variable.log(), tokens.log()];
    for server in [&wootz, &by_variable, &tokens] {
        for arguments in [&["status"][..], &["status", "--json"], &["check"], &["config"]] {
            let output = server.run(arguments);
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            texts.push(String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8"));
        }
    }
    let mut config = support::wootz(by_variable.directory());
    let output = config.arg("config").env("WOOTZ_IDENTITY_SESSION_STORE", &wrong).output().expect("the binary");
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(shown.contains(&format!("redis://***@{}", redis.address)), "{shown}");
    texts.push(shown);
    let secrets = [
        ANN,
        "elsewheresession",
        "unclearsession",
        "damagedsession",
        "unknownsession",
        IN_SESSION,
        PASSWORD,
        "wr0ng-secret",
        "s3cret-of-the-application",
        "eyJzdWIi",
        "c2lnbmF0",
        "long enough for HS256",
    ];
    for text in &texts {
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    assert!(
        texts.iter().any(
            |text| text.contains("DATABASE_PASSWORD = \"***\"") || text.contains("\"DATABASE_PASSWORD\" = \"***\"")
        )
    );
}
