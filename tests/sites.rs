//! Sites as Debian packages them, behind php-fpm, with no line of theirs changed: who has logged in by the page is who sends the messages.
//!
//! The browser knows one address, nginx's: pages go to php-fpm, `/socket` to wootz, and wootz asks the same pool.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::client::Client;
use support::daemon::{Daemon, Nginx, PhpFpm, cookies_of, request};
use support::{Setup, Wootz, run};
use tempfile::TempDir;

/// What a browser says of itself, on pages and in the handshake: sites bind logins to it.
const BROWSER: &str = "User-Agent: Black Box\r\nAccept-Language: en\r\nAccept-Encoding: identity\r\n";

/// A site with its pages and its messages.
struct Site {
    nginx: Nginx,
    wootz: Wootz,
    _fpm: PhpFpm,
    _files: TempDir,
}

impl Site {
    /// Serves these files; `script` among them answers messages.
    fn start(files: TempDir, script: &str) -> Self {
        let fpm = PhpFpm::start(3, "php_admin_value[sendmail_path] = /bin/true");
        let wootz = Setup::fastcgi(&fpm.address(), &files.path().join(script)).start();
        let nginx = Nginx::start(files.path(), &fpm, Some(wootz.address()));
        Self { nginx, wootz, _fpm: fpm, _files: files }
    }

    /// A page, as a browser with these cookies asks for it.
    fn request(&self, line: &str, cookies: &str, form: &str) -> support::raw::Answer {
        request(self.nginx.address(), line, &format!("{BROWSER}Cookie: {cookies}\r\n"), form)
    }

    /// The WebSocket of that browser.
    fn connect(&self, cookies: &str) -> Client {
        let mut fields: Vec<(&str, &str)> =
            BROWSER.lines().map(|line| line.split_once(": ").expect("a field")).collect();
        let origin = format!("http://{}", self.nginx.address());
        fields.extend([("Origin", origin.as_str()), ("Cookie", cookies)]);
        Client::connect(self.nginx.address(), "/socket", &fields)
    }
}

/// A copy of a package's files, links followed, so that the site can have a configuration of its own.
fn copy_of(package: &str) -> TempDir {
    let files = tempfile::tempdir().expect("a temporary directory");
    assert!(Path::new(package).is_dir(), "{package} is missing: `tests/run` installs it");
    run(Command::new("cp").args(["-rL", "--no-preserve=mode"]).arg(format!("{package}/.")).arg(files.path()));
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    files
}

/// DokuWiki with a user, and a page that only users may see.
fn dokuwiki() -> Site {
    let files = copy_of("/usr/share/dokuwiki");
    let (conf, data) = (files.path().join("conf"), files.path().join("data"));
    run(Command::new("cp").args(["-rL", "--no-preserve=mode", "/etc/dokuwiki"]).arg(&conf));
    for directory in
        ["pages/wiki", "attic", "cache", "index", "locks", "log", "media", "media_attic", "media_meta", "meta", "tmp"]
    {
        fs::create_dir_all(data.join(directory)).expect("a directory");
    }
    let write = |path: PathBuf, text: &str| fs::write(path, text).expect("a file of the test");
    let here = files.path().display();
    write(files.path().join("inc/preload.php"), &format!("<?php define('DOKU_CONF', '{here}/conf/');\n"));
    let settings = format!(
        "<?php $conf['title'] = 'Box'; $conf['savedir'] = '{here}/data'; $conf['useacl'] = 1; $conf['superuser'] = '@admin'; \
         $conf['disableactions'] = 'register'; $conf['updatecheck'] = 0;\n"
    );
    write(conf.join("local.php"), &settings);
    write(conf.join("acl.auth.php"), "# <?php exit()?>\n*\t@ALL\t0\n*\t@user\t8\n");
    let password = run(Command::new("php").args(["-r", "echo password_hash('wonderland', PASSWORD_BCRYPT);"]));
    write(
        conf.join("users.auth.php"),
        &format!("# <?php exit()?>\nalice:{password}:Alice Liddell:alice@example.org:user\n"),
    );
    write(data.join("pages/start.txt"), "====== Members only ======\nDown the rabbit hole.\n");
    Site::start(files, "doku.php")
}

#[test]
fn dokuwiki_answers_a_message_as_the_user_who_has_logged_in_by_the_page_sees_it() {
    let site = dokuwiki();
    let page = site.request("GET /doku.php?id=start", "", "");
    assert!(page.body.contains("Permission Denied") && !page.body.contains("rabbit hole"), "{page:?}");
    let guest = cookies_of(&page);
    assert!(guest.contains("DokuWiki="), "{guest}");
    let token = page.body.split("name=\"sectok\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let token = token.unwrap_or_default();
    let form = format!("sectok={token}&id=start&do=login&u=alice&p=wonderland");
    let answer = site.request("POST /doku.php?id=start", &guest, &form);
    // The session stays; a login adds a cookie of its own.
    let cookies = format!("{guest}; {}", cookies_of(&answer));
    let page = site.request("GET /doku.php?id=start", &cookies, "");
    assert!(page.body.contains("rabbit hole") && page.body.contains("Alice Liddell"), "{page:?}");

    let mut client = site.connect(&cookies);
    for _ in 0..3 {
        let reply = client.ask("/doku.php?id=start");
        assert!(reply.contains("rabbit hole") && reply.contains("Alice Liddell"), "{reply}");
        assert!(reply.starts_with("<!DOCTYPE html>") && reply.ends_with("</html>"), "{reply}");
    }
    // Whoever has another cookie sees what a guest sees, at the same time.
    for cookies in [guest.as_str(), "DokuWiki=aaaaaaaaaaaaaaaaaaaaaaaaaa"] {
        let reply = site.connect(cookies).ask("/doku.php?id=start");
        assert!(!reply.contains("rabbit hole") && reply.contains("Permission Denied"), "{reply}");
    }
    assert!(client.ask("/doku.php?id=start").contains("rabbit hole"));
    assert_eq!(site.wootz.status()["calls"]["failed"], 0);
}

/// A MariaDB of the test: its data and its socket in a directory of its own, no port.
struct MariaDb {
    directory: TempDir,
    _server: Daemon,
}

impl MariaDb {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (data, socket) = (directory.path().join("data"), directory.path().join("sql.sock"));
        let user = rustix::process::geteuid().is_root().then_some("--user=root");
        let set = |name: &str, path: &Path| format!("--{name}={}", path.display());
        run(Command::new("mariadb-install-db")
            .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"])
            .args(user)
            .arg(set("tmpdir", directory.path()))
            .arg(set("datadir", &data)));
        let program = if Path::new("/usr/sbin/mariadbd").exists() { "/usr/sbin/mariadbd" } else { "mariadbd" };
        let mut command = Command::new(program);
        command.args(["--no-defaults", "--skip-networking", "--innodb-buffer-pool-size=16M"]).args(user);
        command
            .arg(set("datadir", &data))
            // A MariaDB that starts removes what others have in a common one.
            .arg(set("tmpdir", directory.path()))
            .arg(set("socket", &socket))
            .arg(set("pid-file", &directory.path().join("pid")));
        let mut server = Daemon::start(&mut command);
        server.wait_for("MariaDB listens", || std::os::unix::net::UnixStream::connect(&socket).ok());
        let mariadb = Self { directory, _server: server };
        mariadb.execute("CREATE DATABASE site; CREATE USER site@localhost IDENTIFIED BY 'secret'; GRANT ALL ON site.* TO site@localhost");
        mariadb
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("sql.sock")
    }

    fn execute(&self, sql: &str) {
        run(Command::new("mariadb")
            .args(["--no-defaults", "--user=root", "--socket"])
            .arg(self.socket())
            .args(["-e", sql]));
    }
}

/// WordPress, installed by its own page, with an administrator.
fn wordpress(mariadb: &MariaDb) -> Site {
    let files = copy_of("/usr/share/wordpress");
    let configuration = format!(
        "<?php\ndefine('DB_NAME', 'site'); define('DB_USER', 'site'); define('DB_PASSWORD', 'secret'); define('DB_HOST', 'localhost:{}');\n\
         define('DB_CHARSET', 'utf8mb4'); define('AUTH_KEY', 'a'); define('LOGGED_IN_KEY', 'b'); define('NONCE_KEY', 'c'); define('SECURE_AUTH_KEY', 'd');\n\
         define('WP_HTTP_BLOCK_EXTERNAL', true); define('DISABLE_WP_CRON', true); define('AUTOMATIC_UPDATER_DISABLED', true);\n\
         $table_prefix = 'wp_'; if (!defined('ABSPATH')) define('ABSPATH', __DIR__ . '/');\nrequire_once ABSPATH . 'wp-settings.php';\n",
        mariadb.socket().display()
    );
    fs::write(files.path().join("wp-config.php"), configuration).expect("a file of the test");
    let site = Site::start(files, "index.php");
    let form = "weblog_title=Box&user_name=alice&admin_password=wonderland&admin_password2=wonderland&pw_weak=1\
                &admin_email=alice%40example.org&blog_public=0";
    let answer = site.request("POST /wp-admin/install.php?step=2", "", form);
    assert!(answer.status == 200 && answer.body.contains("Success!"), "{answer:?}");
    site
}

#[test]
fn wordpress_answers_a_message_as_the_user_who_has_logged_in_by_the_page_sees_it() {
    let mariadb = MariaDb::start();
    let site = wordpress(&mariadb);
    let form = "log=alice&pwd=wonderland&wp-submit=Log+In&testcookie=1";
    let answer = site.request("POST /wp-login.php", "wordpress_test_cookie=WP%20Cookie%20check", form);
    assert_eq!(answer.status, 302, "{answer:?}");
    let cookies = cookies_of(&answer);
    // Of a page that has moved it tells browsers where it is now.
    let moved = site.request("GET /?p=1", &cookies, "");
    let host = format!("http://{}", site.nginx.address());
    let post = moved.field("Location").and_then(|location| location.strip_prefix(&host)).expect("a permanent link");
    let page = site.request(&format!("GET {post}"), &cookies, "");
    assert!(page.body.contains("Howdy, <span class=\"display-name\">alice"), "{page:?}");

    let mut client = site.connect(&cookies);
    let mut guest = site.connect("");
    for _ in 0..2 {
        for uri in [post, "/"] {
            let reply = client.ask(uri);
            assert!(
                reply.contains("Hello world!") && reply.contains("Howdy, <span class=\"display-name\">alice"),
                "{reply}"
            );
            let reply = guest.ask(uri);
            assert!(reply.contains("Hello world!") && !reply.contains("Howdy"), "{reply}");
        }
    }
    let posts: serde_json::Value = serde_json::from_str(&guest.ask("/?rest_route=/wp/v2/posts")).expect("JSON");
    assert_eq!(posts[0]["title"]["rendered"], "Hello world!");
    assert_eq!(site.wootz.status()["calls"]["failed"], 0);
}
