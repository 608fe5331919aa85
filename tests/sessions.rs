//! The site's own PHP session says who a browser is: real PHP writes it, wootz only reads it.
//!
//! Pages are nginx and php-fpm, as on a site; the application of the messages is a shell script, so that nothing but the session
//! can have told it the user.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use support::client::Client;
use support::daemon::{Nginx, PhpFpm, cookies_of};
use support::raw::Answer;
use support::{Setup, Wootz, wait_until};

/// The site: logs in without a password, and does all that pages do to sessions.
const PAGES: &str = r#"
session_start();
switch (strtok($_SERVER['REQUEST_URI'], '?')) {
    case '/login':
        session_regenerate_id(true);
        $_SESSION = ['cart' => [1, 2.5, null, "\xff|;"], 'auth' => ['user' => ['id' => $_GET['user']]], 'ip' => $_GET['ip'] ?? ''];
        exit('in');
    case '/become': $_SESSION['auth']['user']['id'] = (int) $_GET['user']; exit('so be it');
    case '/buy': $_SESSION['cart'][] = 'one more'; exit('bought');
    case '/regenerate': session_regenerate_id($_GET['delete'] === '1'); exit('other id');
    case '/logout': session_destroy(); exit('out');
    case '/hold':
        touch(getenv('HERE') . '/held');
        while (!file_exists(getenv('HERE') . '/let-go')) { usleep(10000); clearstatcache(); }
        exit('held');
    case '/whoami': exit($_SESSION['auth']['user']['id'] ?? 'guest');
}
"#;

/// Says who the user is and which session it was.
const SAY: &str = "echo \"${REMOTE_USER-guest}|${WOOTZ_SESSION-none}\"";

/// A site with pages, and wootz beside it.
struct Site {
    nginx: Nginx,
    fpm: PhpFpm,
    wootz: Wootz,
}

/// A browser that has opened a session.
struct Browser<'s> {
    site: &'s Site,
    cookie: String,
}

impl Site {
    fn start(settings: &str) -> Self {
        Self::start_with("", settings)
    }

    /// Starts a site whose php-fpm has these lines too.
    fn start_with(pool: &str, settings: &str) -> Self {
        let fpm = PhpFpm::start(3, pool);
        fpm.script("index.php", PAGES);
        let wootz = session_setup(&fpm.path("sessions")).settings(settings).start();
        let nginx = Nginx::start(&fpm.path(""), &fpm, None);
        Self { nginx, fpm, wootz }
    }

    fn page(&self, line: &str, cookie: &str) -> Answer {
        let answer = self.nginx.request(line, cookie, "");
        assert_eq!(answer.status, 200, "{line}: {answer:?}");
        answer
    }

    fn log_in(&self, user: &str) -> Browser<'_> {
        self.log_in_from(user, "")
    }

    /// Logs in, and has the page record this address.
    fn log_in_from(&self, user: &str, address: &str) -> Browser<'_> {
        let answer = self.page(&format!("GET /login?user={user}&ip={address}"), "");
        Browser { site: self, cookie: cookies_of(&answer) }
    }

    fn session_file(&self, browser: &Browser<'_>) -> PathBuf {
        self.fpm.path("sessions").join(format!("sess_{}", browser.id()))
    }
}

impl Browser<'_> {
    fn page(&mut self, line: &str) {
        let answer = self.site.page(line, &self.cookie);
        if answer.head.contains("Set-Cookie: ") {
            self.cookie = cookies_of(&answer);
        }
    }

    fn connect(&self) -> Client {
        self.site.wootz.connect_as(&self.cookie)
    }

    fn id(&self) -> &str {
        self.cookie.strip_prefix("PHPSESSID=").expect("PHP's cookie")
    }

    fn status(&self) -> u16 {
        status(&self.site.wootz, &self.cookie)
    }
}

fn session_setup(sessions: &Path) -> Setup {
    Setup::sh(SAY)
        .setting("identity.provider", "\"session\"")
        .setting("identity.session.store", format!("\"files:{}\"", sessions.display()))
        .setting("identity.session.user_keys", "[\"auth.user.id\", \"id\"]")
}

/// The status of the handshake with this cookie.
fn status(wootz: &Wootz, cookie: &str) -> u16 {
    match Client::try_connect(wootz.address(), "/", &[("Cookie", cookie)]) {
        Ok(_) => 101,
        Err(answer) => answer.status().as_u16(),
    }
}

#[test]
fn user_of_the_pages_session_is_the_user_of_the_calls_and_the_page_notices_nothing() {
    let site = Site::start("");
    let (ann, bob) = (site.log_in("ann"), site.log_in("42"));
    let before = fs::read(site.session_file(&ann)).expect("PHP's file");
    assert_eq!(ann.connect().ask("/"), format!("ann|{}", ann.id()));
    assert_eq!(bob.connect().ask("/"), format!("42|{}", bob.id()));
    assert_eq!(fs::read(site.session_file(&ann)).expect("PHP's file"), before);
    assert_eq!(site.page("GET /whoami", &ann.cookie).body, "ann");
    assert!(!site.wootz.log().contains(ann.id()), "the log holds no session");
}

#[test]
fn all_three_serializers_of_php_are_understood() {
    for serializer in ["php", "php_serialize", "php_binary"] {
        let site = Site::start_with(&format!("php_admin_value[session.serialize_handler] = {serializer}"), "");
        let ann = site.log_in("ann");
        assert_eq!(ann.connect().ask("/"), format!("ann|{}", ann.id()), "{serializer}");
    }
}

#[test]
fn browser_without_a_session_is_a_guest_and_no_session_is_made_for_it() {
    let site = Site::start("");
    let known = || fs::read_dir(site.fpm.path("sessions")).expect("a directory").count();
    assert_eq!(site.wootz.connect().ask("/"), "guest|none");
    let long = format!("PHPSESSID={}", "a".repeat(10_000));
    for cookie in [
        "PHPSESSID=aaaaaaaaaaaaaaaaaaaaaaaaaa",
        "PHPSESSID=../sessions/sess_a",
        "PHPSESSID=..%2F..%2Fetc%2Fpasswd",
        "PHPSESSID=a%00b",
        "PHPSESSID=",
        "PHPSESSID[]=aaaaaaaaaaaaaaaaaaaaaaaaaa",
        "phpsessid=aaaaaaaaaaaaaaaaaaaaaaaaaa",
        "PHPSESSID=*",
        &long,
    ] {
        assert_eq!(site.wootz.connect_as(cookie).ask("/"), "guest|none", "{cookie:.40}");
    }
    assert_eq!(known(), 0);
}

#[test]
fn of_two_cookies_of_one_name_the_first_counts_as_in_php() {
    let site = Site::start("");
    let (ann, bob) = (site.log_in("ann"), site.log_in("bob"));
    let both = format!("other=1; {}; {}", ann.cookie, bob.cookie);
    assert_eq!(site.page("GET /whoami", &both).body, "ann");
    assert_eq!(site.wootz.connect_as(&both).ask("/"), format!("ann|{}", ann.id()));
}

#[test]
fn visitor_who_has_a_session_and_no_login_is_a_guest_with_a_session() {
    let site = Site::start("");
    let visitor = Browser { cookie: cookies_of(&site.page("GET /whoami", "")), site: &site };
    assert_eq!(visitor.connect().ask("/"), format!("guest|{}", visitor.id()));
    let refusing = Site::start("identity.guests = \"refuse\"");
    let visitor = Browser { cookie: cookies_of(&refusing.page("GET /whoami", "")), site: &refusing };
    assert_eq!(visitor.status(), 401);
    assert_eq!(refusing.log_in("ann").status(), 101);
    refusing.wootz.wait_for_log_line(&["401", "identity.guests"]);
}

#[test]
fn user_0_and_an_empty_one_are_nobody_as_the_origin_has_it() {
    let site = Site::start("");
    for user in ["0", ""] {
        assert!(site.log_in(user).connect().ask("/").starts_with("guest|"), "{user:?}");
    }
}

#[test]
fn logout_closes_every_connection_of_the_session_with_4401_and_nobody_elses() {
    let site = Site::start("identity.recheck = \"1s\"");
    let (mut ann, bob) = (site.log_in("ann"), site.log_in("bob"));
    let mut tabs = [ann.connect(), ann.connect()];
    let mut other = bob.connect();
    ann.page("GET /logout");
    assert!(tabs.iter_mut().all(|tab| tab.closed() == 4401));
    assert_eq!(other.ask("/"), format!("bob|{}", bob.id()));
    site.wootz.wait_for_log_line(&["4401", "session has ended"]);
}

#[test]
fn session_that_changes_otherwise_keeps_its_connections() {
    let site = Site::start("identity.recheck = \"100ms\"");
    let mut ann = site.log_in("ann");
    let mut client = ann.connect();
    ann.page("GET /buy");
    // A second session is ended later than the first has changed: by then the first was looked at.
    let mut bob = site.log_in("bob");
    let mut witness = bob.connect();
    bob.page("GET /logout");
    assert_eq!(witness.closed(), 4401);
    assert_eq!(client.ask("/"), format!("ann|{}", ann.id()));
}

#[test]
fn page_that_gives_the_session_another_id_loses_nobody() {
    let site = Site::start("identity.recheck = \"1s\"");
    let mut ann = site.log_in("ann");
    let (mut client, old) = (ann.connect(), ann.cookie.clone());
    ann.page("GET /regenerate?delete=1");
    assert_ne!(ann.cookie, old);
    // The old id is gone; whoever connects again, with the cookie that the browser has now, is in.
    assert_eq!(client.closed(), 4401);
    assert_eq!(ann.connect().ask("/"), format!("ann|{}", ann.id()));
    // Where the page keeps the old session the connection stays.
    let mut kept = ann.connect();
    let old = ann.id().to_owned();
    ann.page("GET /regenerate?delete=0");
    let mut bob = site.log_in("bob");
    let mut witness = bob.connect();
    bob.page("GET /logout");
    assert_eq!(witness.closed(), 4401);
    assert_eq!(kept.ask("/"), format!("ann|{old}"));
}

#[test]
fn session_that_changes_its_user_closes_with_4401_or_moves_as_configured() {
    let closing = Site::start("identity.recheck = \"1s\"");
    let mut ann = closing.log_in("1");
    let mut client = ann.connect();
    ann.page("GET /become?user=2");
    assert_eq!(client.closed(), 4401);
    closing.wootz.wait_for_log_line(&["4401", "identity.user_change"]);

    let moving = Site::start("identity.recheck = \"100ms\"\nidentity.user_change = \"move\"");
    let mut ann = moving.log_in("1");
    let mut client = ann.connect();
    assert_eq!(client.ask("/"), format!("1|{}", ann.id()));
    let pipe = moving.wootz.pipe_of(client.port());
    ann.page("GET /become?user=2");
    let expected = format!("2|{}", ann.id());
    wait_until("the connection is user 2", || (client.ask("/") == expected).then_some(()));
    let moved = moving.wootz.pipe_of(client.port());
    assert!(pipe.starts_with("1:") && moved.starts_with("2:"), "{pipe} became {moved}");
    // To nobody: a guest from now on.
    ann.page("GET /become?user=0");
    let expected = format!("guest|{}", ann.id());
    wait_until("the connection is a guest", || (client.ask("/") == expected).then_some(()));
}

#[test]
fn session_recorded_for_another_address_is_refused_unless_told_otherwise() {
    let settings = "identity.session.address_keys = [\"ip\"]";
    let site = Site::start(settings);
    assert_eq!(site.log_in_from("ann", "127.0.0.1").status(), 101);
    assert_eq!(site.log_in_from("ann", "::ffff:127.0.0.1").status(), 101);
    assert_eq!(site.log_in_from("ann", "").status(), 101, "none is recorded");
    assert_eq!(site.log_in_from("ann", "192.0.2.7").status(), 403);
    assert_eq!(site.log_in_from("ann", "garbage").status(), 403);
    site.wootz.wait_for_log_line(&["403", "identity.verify_ip"]);
    let ann = site.log_in_from("ann", "192.0.2.7");
    let lenient = session_setup(&site.fpm.path("sessions")).settings(settings).argument("--no-verify-ip").start();
    assert_eq!(status(&lenient, &ann.cookie), 101);
}

#[test]
fn page_that_holds_the_lock_delays_its_own_browser_only_and_for_a_while_only() {
    let site = Site::start("identity.session.timeout = \"500ms\"");
    let (ann, bob) = (site.log_in("ann"), site.log_in("bob"));
    std::thread::scope(|scope| {
        let (nginx, cookie) = (&site.nginx, &ann.cookie);
        let page = scope.spawn(move || nginx.request("GET /hold", cookie, ""));
        wait_until("the page has the lock", || site.fpm.path("held").exists().then_some(()));
        assert_eq!(ann.status(), 503);
        site.wootz.wait_for_log_line(&["503", "lock"]);
        assert_eq!(bob.connect().ask("/"), format!("bob|{}", bob.id()));
        site.fpm.release("let-go");
        page.join().expect("the page ends");
    });
    assert_eq!(ann.connect().ask("/"), format!("ann|{}", ann.id()));
}

#[test]
fn what_is_no_readable_session_lets_nobody_in_and_says_why() {
    let site = Site::start("");
    let sessions = site.fpm.path("sessions");
    let put = |id: &str, data: &[u8]| fs::write(sessions.join(format!("sess_{id}")), data).expect("a file of the test");
    put("lie", b"id|s:99999999:\"x\";");
    put("deep", format!("id|{}i:1;{}", "a:1:{i:0;".repeat(10_000), "}".repeat(10_000)).as_bytes());
    put("reference", b"id|R:999999999;");
    put("cut", b"auth|a:1:{s:4:\"user\";a:1:{s:2:\"i");
    for id in ["lie", "deep", "reference", "cut"] {
        assert_eq!(status(&site.wootz, &format!("PHPSESSID={id}")), 503, "{id}");
    }
    site.wootz.wait_for_log_line(&["503", "identity.session.serializer"]);
    put("target", b"id|i:7;");
    symlink(sessions.join("sess_target"), sessions.join("sess_link")).expect("a link");
    rustix::fs::mknodat(rustix::fs::CWD, sessions.join("sess_fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .expect("a pipe");
    fs::File::create(sessions.join("sess_huge")).and_then(|file| file.set_len(1 << 30)).expect("a sparse file");
    for id in ["link", "fifo", "huge"] {
        assert_eq!(status(&site.wootz, &format!("PHPSESSID={id}")), 503, "{id}");
    }
    put("empty", b"");
    assert_eq!(site.wootz.connect_as("PHPSESSID=empty").ask("/"), "guest|empty");
    assert_eq!(site.wootz.connect_as("PHPSESSID=target").ask("/"), "7|target");
}

#[test]
fn session_older_than_max_age_has_ended_also_for_connections_that_are_open() {
    let site = Site::start("identity.session.max_age = \"2s\"\nidentity.recheck = \"200ms\"");
    let ann = site.log_in("ann");
    let mut client = ann.connect();
    assert_eq!(client.closed(), 4401);
    assert_eq!(ann.connect().ask("/"), "guest|none");
}

#[test]
fn wrong_settings_of_sessions_stop_the_start_and_are_all_named() {
    let output = Setup::sh(SAY)
        .setting("identity.provider", "\"session\"")
        .setting("identity.session.store", "\"files:/no/such/directory\"")
        .setting("identity.session.cookie", "\"a=b\"")
        .setting("identity.jwt.issuer", "\"me\"")
        .refused();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for key in ["identity.session.store", "identity.session.cookie", "identity.jwt.issuer"] {
        assert!(said.contains(key), "{key} in {said}");
    }
}
