//! Debian's web servers as proxies, each with the least configuration of its own around the lines of a test.
//!
//! In those lines `@ADDRESS@` is where the server listens and `@HERE@` is its directory.

use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::daemon::{Daemon, free_address};

/// A web server of the test. Dropped, it is ended.
pub struct Proxy {
    daemon: Daemon,
    address: SocketAddr,
    _directory: TempDir,
}

impl Proxy {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    fn start(directory: TempDir, address: SocketAddr, command: &mut Command) -> Self {
        let mut daemon = Daemon::start(command);
        daemon.wait_for("the web server listens", || TcpStream::connect(address).ok());
        Self { daemon, address, _directory: directory }
    }
}

/// A directory that a server's workers, who may be somebody else, can enter.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    open_to_all(directory.path(), 0o755);
    directory
}

fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
}

/// Writes a configuration, its places filled in.
fn write(directory: &TempDir, name: &str, text: &str, address: SocketAddr) -> PathBuf {
    let here = directory.path().to_str().expect("UTF-8");
    let file = directory.path().join(name);
    fs::write(&file, text.replace("@ADDRESS@", &address.to_string()).replace("@HERE@", here)).expect("a file");
    open_to_all(&file, 0o644);
    file
}

/// Apache, with these modules beside those that every site has. `server` stands outside and `site` inside of the
/// virtual host, `htaccess`
/// in that file of the document root, where there is an ordinary page too.
pub fn apache(modules: &str, server: &str, site: &str, htaccess: &str) -> Proxy {
    let (directory, address) = (directory(), free_address());
    let root = directory.path().join("htdocs");
    fs::create_dir(&root).expect("a directory");
    open_to_all(&root, 0o755);
    write(&directory, "htdocs/index.html", "an ordinary page\n", address);
    write(&directory, "htdocs/.htaccess", htaccess, address);
    let modules =
        ["mpm_event", "authn_core", "authz_core", "alias", "dir", "mime"].into_iter().chain(modules.split_whitespace());
    let modules: String =
        modules.map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")).collect();
    let user = if rustix::process::geteuid().is_root() { "User www-data\nGroup www-data\n" } else { "" };
    let text = format!(
        "{modules}{user}ServerRoot @HERE@\nServerName localhost\nListen @ADDRESS@\n\
         PidFile @HERE@/pid\nErrorLog /dev/stderr\n\
         Mutex file:@HERE@ default\nTypesConfig /dev/null\n\
         <Directory @HERE@/htdocs>\nAllowOverride All\nRequire all granted\n\
         </Directory>\n{server}\n<VirtualHost @ADDRESS@>\nDocumentRoot @HERE@/htdocs\n{site}\n</VirtualHost>\n"
    );
    let file = write(&directory, "apache2.conf", &text, address);
    Proxy::start(directory, address, Command::new("/usr/sbin/apache2").arg("-DFOREGROUND").arg("-f").arg(file))
}

/// nginx. `http` stands outside and `site` inside of the server block; `listen` follows the address it listens on.
pub fn nginx(http: &str, listen: &str, site: &str) -> Proxy {
    let (directory, address) = (directory(), free_address());
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path @HERE@/{name};\n"))
        .concat();
    write(&directory, "index.html", "an ordinary page\n", address);
    let text = format!(
        "daemon off;\nworker_processes 1;\npid @HERE@/pid;\nerror_log stderr;\n\
         events {{}}\nhttp {{\naccess_log off;\n{temporary}{http}\n\
         server {{\nlisten @ADDRESS@ {listen};\nroot @HERE@;\n{site}\n}}\n}}\n"
    );
    let file = write(&directory, "nginx.conf", &text, address);
    let mut command = Command::new("/usr/sbin/nginx");
    command.args(["-e", "stderr", "-c"]).arg(file);
    Proxy::start(directory, address, &mut command)
}

/// Caddy. `global` stands in the global options and `site` in the braces of the site.
pub fn caddy(global: &str, site: &str) -> Proxy {
    let (directory, address) = (directory(), free_address());
    write(&directory, "index.html", "an ordinary page\n", address);
    let text = format!(
        "{{\nadmin off\nauto_https off\n{global}\n}}\nhttp://@ADDRESS@ {{\nroot * @HERE@\nfile_server\n{site}\n}}\n"
    );
    let file = write(&directory, "Caddyfile", &text, address);
    let mut command = Command::new("/usr/bin/caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file).env("HOME", directory.path());
    Proxy::start(directory, address, &mut command)
}

/// HAProxy. `defaults` stand in that section, which has limits of the test besides, and `site` follows the frontend's
/// own lines.
pub fn haproxy(defaults: &str, site: &str) -> Proxy {
    let (directory, address) = (directory(), free_address());
    let text = format!(
        "defaults\nmode http\ntimeout connect 5s\n{defaults}\n\nfrontend page\nbind @ADDRESS@\n\
         http-request return status 200 content-type text/plain string \"an ordinary page\" \
         unless {{ req.hdr(Upgrade) -m found }}\n\
         {site}\n"
    );
    let file = write(&directory, "haproxy.cfg", &text, address);
    Proxy::start(directory, address, Command::new("/usr/sbin/haproxy").args(["-db", "-f"]).arg(file))
}

/// A directory for a Unix socket that every web server can reach, whoever its workers are.
pub fn socket_directory() -> TempDir {
    directory()
}
