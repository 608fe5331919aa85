//! Servers of others that a test starts for itself: in the foreground, on files of its own, ended with it.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::log::Log;
use super::raw::{Answer, Raw};
use super::{DEADLINE, wait_or_give_up, wait_until};

/// A server of somebody else's. Dropped, it is ended by TERM.
pub struct Daemon {
    child: Child,
    log: Log,
}

impl Daemon {
    /// Starts it. What it says is shown where the test fails.
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}, which tests/run installs: {error}"));
        let log = Log::default();
        log.follow(child.stdout.take().expect("piped"));
        log.follow(child.stderr.take().expect("piped"));
        Self { child, log }
    }

    /// Waits until it takes connections.
    pub fn wait_for<T>(&mut self, what: &str, mut connect: impl FnMut() -> Option<T>) -> T {
        wait_until(what, || {
            let ended = self.child.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "{what}: it ended, {ended:?}: {}", self.log.text());
            connect()
        })
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_some()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it has said.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).expect("a child of ours");
    }

    /// Ends it as a service manager does.
    pub fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
        }
        if wait_or_give_up(|| self.child.try_wait().expect("a child of ours")).is_none() {
            self.child.kill().ok();
            self.child.wait().ok();
            assert!(std::thread::panicking(), "it ignored TERM for {DEADLINE:?}");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- another server said:\n{}\n---", self.log.text());
        }
    }
}

/// Ports below the range from which Linux takes those of outgoing connections and of `bind` with port 0, so that no connection of a
/// test beside this one can take a port between the look and the start of who will listen there.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// An address on which a server that can't choose its port itself may listen: nobody listens there, and no other test is given it
/// while this process lives.
pub fn free_address() -> SocketAddr {
    let claims = std::env::temp_dir().join("wootz-test-ports");
    fs::create_dir_all(&claims).expect("a directory for claims");
    let start = std::process::id() as usize * 61 % PORTS.len();
    let found = PORTS.cycle().skip(start).take(PORTS.len()).find_map(|port| {
        let claim = fs::File::options().create(true).truncate(false).write(true).open(claims.join(port.to_string()));
        let claim = claim.ok()?;
        rustix::fs::flock(&claim, rustix::fs::FlockOperation::NonBlockingLockExclusive).ok()?;
        let listener = TcpListener::bind(("127.0.0.1", port)).ok()?;
        // The lock ends with this process, also when it is killed.
        std::mem::forget(claim);
        listener.local_addr().ok()
    });
    found.expect("a free port")
}

/// A request as a browser makes it; `fields` each end with CRLF.
pub fn request(address: SocketAddr, line: &str, fields: &str, body: &str) -> Answer {
    let mut raw = Raw::connect(address);
    let length = body.len();
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let about_body = if body.is_empty() { String::new() } else { format!("{form}Content-Length: {length}\r\n") };
    // An answer in HTTP/1.0 ends with its connection.
    raw.write(format!("{line} HTTP/1.0\r\nHost: {address}\r\n{fields}{about_body}\r\n{body}"));
    raw.answer()
}

/// The cookies that an answer sets, as a browser sends them back: the last one of a name counts, and what has expired is none.
pub fn cookies_of(answer: &Answer) -> String {
    let mut cookies: Vec<(&str, &str)> = Vec::new();
    for line in answer.head.lines() {
        let field = line.split_once(": ").filter(|(field, _)| field.eq_ignore_ascii_case("set-cookie"));
        let Some((cookie, attributes)) = field.map(|(_, value)| value.split_once(';').unwrap_or((value, ""))) else {
            continue;
        };
        let (name, value) = cookie.split_once('=').expect("name=value");
        cookies.retain(|(other, _)| *other != name);
        if !attributes.contains("Max-Age=0") {
            cookies.push((name, value));
        }
    }
    assert!(!cookies.is_empty(), "cookies in {answer:?}");
    cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
}

/// Debian's php-fpm with one pool, its socket, log and sessions in a directory of its own.
pub struct PhpFpm {
    directory: TempDir,
    master: Option<Daemon>,
}

impl PhpFpm {
    /// Starts a pool with so many workers and these lines besides.
    pub fn start(workers: usize, pool: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let here = directory.path().display();
        // Its workers are who runs the tests, so that they can read the repository, wherever it is.
        let user = if rustix::process::geteuid().is_root() { "user = root\ngroup = root\n" } else { "" };
        let configuration = format!(
            "[global]\nerror_log = {here}/fpm.log\ndaemonize = no\n{}\n[pool]\n{user}listen = {here}/fpm.sock\n\
             pm = static\npm.max_children = {workers}\nphp_admin_value[session.save_path] = {here}/sessions\n\
             env[HERE] = {here}\n{}\n",
            lines(pool, |line| line.starts_with("process_control_timeout")),
            lines(pool, |line| !line.starts_with("process_control_timeout")),
        );
        fs::create_dir(directory.path().join("sessions")).expect("a directory");
        fs::write(directory.path().join("fpm.conf"), configuration).expect("a file");
        let mut fpm = Self { directory, master: None };
        fpm.start_again();
        fpm
    }

    /// Starts it after [`stop`](Self::stop).
    pub fn start_again(&mut self) {
        let mut command = Command::new(php_fpm());
        command.args(["--nodaemonize", "--allow-to-run-as-root", "--fpm-config"]).arg(self.path("fpm.conf"));
        let mut master = Daemon::start(&mut command);
        let socket = self.socket();
        master.wait_for("php-fpm listens", || std::os::unix::net::UnixStream::connect(&socket).ok());
        self.master = Some(master);
    }

    /// Ends it as a service manager does.
    pub fn stop(&mut self) {
        self.master = None;
    }

    /// Has it replace all its workers, as after a change of the site.
    pub fn reload(&self) {
        self.master.as_ref().expect("it runs").signal(Signal::USR2);
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.path("fpm.sock")
    }

    /// Where it listens, as wootz and nginx are told.
    pub fn address(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// A path in its directory, which its scripts find in the variable `HERE`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A script in its directory.
    pub fn script(&self, name: &str, code: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, format!("<?php {code}")).expect("a file of the test");
        path
    }

    /// Makes a file, for which a script waits.
    pub fn release(&self, name: &str) {
        fs::write(self.path(name), "").expect("a file of the test");
    }

    /// Waits until a file of this name has so many lines, which scripts have written.
    pub fn wait_for_lines(&self, name: &str, count: usize) {
        wait_until(&format!("{count} lines in {name}"), || {
            let text = fs::read_to_string(self.path(name)).unwrap_or_default();
            (text.lines().count() >= count).then_some(())
        });
    }
}

fn lines(text: &str, wanted: impl Fn(&str) -> bool) -> String {
    text.lines().map(str::trim).filter(|line| wanted(line)).collect::<Vec<_>>().join("\n")
}

/// Debian puts the version into its name, and keeps it out of users' PATH.
fn php_fpm() -> PathBuf {
    let is_fpm = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix("php-fpm").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
    };
    let directories = ["/usr/sbin", "/usr/local/sbin", "/usr/bin"];
    let files = directories.into_iter().filter_map(|directory| fs::read_dir(directory).ok()).flatten();
    let found = files.filter_map(|entry| Some(entry.ok()?.path())).find(is_fpm);
    found.expect("php-fpm, which tests/run installs")
}

/// Debian's nginx in front of a pool of php-fpm: the site as web pages.
pub struct Nginx {
    address: SocketAddr,
    _server: Daemon,
    _directory: TempDir,
}

impl Nginx {
    /// Serves the files of this directory; PHP files, and every other path by `index.php`, through `fpm`. `/socket` goes to wootz.
    pub fn start(root: &Path, fpm: &PhpFpm, wootz: Option<SocketAddr>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (here, root, address) = (directory.path().display(), root.display(), free_address());
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let socket = wootz.map_or(String::new(), |wootz| {
            format!(
                "location /socket {{ proxy_pass http://{wootz}/; proxy_http_version 1.1; proxy_set_header Host $http_host; \
                 proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}\n"
            )
        });
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {here}/{name};\n"))
            .concat();
        let configuration = format!(
            "{user}\ndaemon off; worker_processes 1; pid {here}/pid; error_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}\
             include /etc/nginx/mime.types;\nserver {{ listen {address}; server_name localhost; root {root}; index index.php;\n{socket}\
             location / {{ try_files $uri $uri/ /index.php$is_args$args; }}\n\
             location ~ \\.php$ {{ include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name; \
             fastcgi_param HTTP_HOST $http_host; fastcgi_pass {}; }}\n}}\n}}\n",
            fpm.address()
        );
        let file = directory.path().join("nginx.conf");
        fs::write(&file, configuration).expect("a file");
        let program = if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
        // Without -e it opens Debian's log before it has read where its own is.
        let mut server = Daemon::start(
            Command::new(program).args(["-e", "stderr", "-p"]).arg(directory.path()).arg("-c").arg(&file),
        );
        server.wait_for("nginx listens", || TcpStream::connect(address).ok());
        Self { address, _server: server, _directory: directory }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A request for a page, with a cookie.
    pub fn request(&self, line: &str, cookie: &str, form: &str) -> Answer {
        request(self.address, line, &format!("Cookie: {cookie}\r\n"), form)
    }
}
