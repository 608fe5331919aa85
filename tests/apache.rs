//! Debian's Apache in front, with the rule of the origin's `.htaccess`, and a browser that only knows Apache's address.

mod support;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use support::client::Client;
use support::daemon::free_address;
use support::{Setup, run, wait_until};
use tempfile::TempDir;

/// An Apache of the test: its own port, its own configuration, its own user's files only.
struct Apache {
    server: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Apache {
    /// Starts one whose document root has this `.htaccess`.
    fn start(htaccess: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().join("htdocs");
        fs::create_dir(&root).expect("a directory");
        fs::write(root.join("index.html"), "an ordinary page\n").expect("a file");
        fs::write(root.join(".htaccess"), htaccess).expect("a file");
        // Apache's workers are somebody else, where root starts it.
        for path in [directory.path(), &root] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        let address = free_address();
        let path = directory.path().display();
        let modules = ["mpm_event", "authz_core", "dir", "mime", "rewrite", "proxy", "proxy_http", "proxy_wstunnel"]
            .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
            .concat();
        let user = if rustix::process::geteuid().is_root() { "User www-data\nGroup www-data\n" } else { "" };
        let configuration = format!(
            "{modules}{user}ServerRoot {path}\nServerName localhost\nListen {address}\nPidFile {path}/pid\nErrorLog {path}/error.log\n\
             Mutex file:{path} default\nTypesConfig /dev/null\nDocumentRoot {path}/htdocs\n\
             <Directory {path}/htdocs>\nAllowOverride All\nRequire all granted\n</Directory>\n"
        );
        let file = directory.path().join("apache2.conf");
        fs::write(&file, configuration).expect("a file");
        let mut command = Command::new(program());
        command.arg("-f").arg(&file);
        run(Command::new(program()).arg("-f").arg(&file).arg("-t"));
        let server = command.arg("-DFOREGROUND").stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("Apache");
        let apache = Self { server, address, _directory: directory };
        wait_until("Apache listens", || TcpStream::connect(address).ok());
        apache
    }
}

/// Debian keeps it out of users' PATH.
fn program() -> &'static str {
    if std::path::Path::new("/usr/sbin/apache2").exists() { "/usr/sbin/apache2" } else { "apache2" }
}

impl Drop for Apache {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.server);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.server.wait().ok();
    }
}

#[test]
fn rule_of_the_origin_carries_messages_replies_and_pushes_from_a_page_of_apaches_host() {
    let wootz = Setup::sh("echo \"$HTTP_COOKIE|$REQUEST_URI|$(cat)\"").start();
    let apache = Apache::start(&format!(
        "RewriteEngine On\nRewriteCond %{{HTTP:Upgrade}} =websocket [NC]\nRewriteRule ^(.*)$ ws://{}/$1 [P]\n",
        wootz.address()
    ));
    let mut page = support::raw::Raw::connect(apache.address);
    page.write("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(page.answer().body, "an ordinary page\n");

    let origin = format!("http://{}", apache.address);
    let fields = [("Origin", origin.as_str()), ("Cookie", "PHPSESSID=abc")];
    let mut client = Client::connect(apache.address, "/live?from=page", &fields);
    assert_eq!(client.ask("/cart?x=1"), "PHPSESSID=abc|/cart?x=1|/cart?x=1");
    assert_eq!(client.ask("two words"), "PHPSESSID=abc|/live?from=page|two words");
    let long = "x".repeat(100_000) + " ";
    assert_eq!(client.ask(&long).len(), "PHPSESSID=abc|/live?from=page|".len() + long.len());
    wootz.push("pushed\n");
    assert_eq!(client.text(), "pushed");
    client.leave();

    // A page of another host is refused through Apache too, and by its status.
    let Err(refusal) = Client::try_connect(apache.address, "/", &[("Origin", "http://evil.example")]) else {
        panic!("a page of another host was let in")
    };
    assert_eq!(refusal.status(), 403);
}
