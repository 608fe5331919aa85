//! The SDKs push from real PHP (command line and php-fpm), Python and Node.js, and Chromium shows it.

mod support;

use std::process::Command;

use serde_json::json;
use support::daemon::{Daemon, Nginx, PhpFpm, free_address, request};
use support::{Setup, Wootz, installed, repository, run};

/// The user is whom the cookie `user` names; a call says who it is for, why, and what it was given.
const APPLICATION: &str = r#"
[ "$WOOTZ_EVENT" = validate ] && { printf '%s' "${HTTP_COOKIE#user=}"; exit; }
echo "$WOOTZ_EVENT|$REMOTE_USER|$REQUEST_URI""#;

fn served() -> Wootz {
    Setup::sh(APPLICATION).settings("identity.provider = \"application\"\nlisten.shards = 2").start()
}

/// What each of the scripts below does in its own words, and is told.
const TOLD: [&str; 13] = [
    "user 1 1 0",
    "all 2 2 0",
    "request 1 1 0 0 1",
    "once 2 2 0 0 2",
    "channel 1 1 0",
    "left 0 0 0",
    "connection 1 1 0",
    "session 0 0 0",
    "nobody 0 0 0",
    "waited 1",
    "too large 413",
    "no connection 404",
    "no server 0",
];

const PHP: &str = r#"<?php
require $_SERVER['SDK'] . '/php/autoload.php';
use Wootz\{Push, PushException, Receipt};

function say(string $what, Receipt $r): void
{
    echo "$what $r->reached $r->queued $r->dropped", $r->written === null ? '' : " $r->joined $r->written", "\n";
}
function refused(string $what, callable $push): void
{
    try { $push(); echo "$what: taken\n"; } catch (PushException $error) { echo "$what {$error->getCode()}\n"; }
}
$id = $_SERVER['ID'] ?? $_GET['id'];
say('user', Push::user(42, 'für 42'));
say('all', Push::all("\0\xff", binary: true));
say('request', Push::request(42, '/cart', wait: true));
say('once', Push::request(['all' => true], '/news', once: true, wait: true));
Push::join('news', $id);
say('channel', Push::channel('news', 'to news'));
Push::leave('news', $id);
say('left', Push::channel('news', 'to nobody'));
say('connection', Push::connection($id, 'to one'));
say('session', Push::session('none', 'x'));
say('nobody', Push::user('*', 'x'));
echo 'waited ', Push::user(42, 'waited for', wait: true)->written, "\n";
refused('too large', fn () => Push::all(str_repeat('x', 2 << 20)));
refused('no connection', fn () => Push::join('news', str_repeat('0', 32)));
Push::$socket = 'none.sock';
refused('no server', fn () => Push::all('x'));
"#;

const PYTHON: &str = r#"
import os, sys
sys.path.insert(0, os.environ["SDK"] + "/python")
import wootz
push = wootz.push

def say(what, r):
    print(what, r.reached, r.queued, r.dropped, *(() if r.written is None else (r.joined, r.written)))

def refused(what, action):
    try:
        action()
        print(what, "taken")
    except push.PushError as error:
        print(what, error.status)

id = os.environ["ID"]
say("user", push.user(42, "für 42"))
say("all", push.all(b"\0\xff"))
say("request", push.request(42, "/cart", wait=True))
say("once", push.request({"all": True}, "/news", once=True, wait=True))
push.join("news", id)
say("channel", push.channel("news", "to news"))
push.leave("news", id)
say("left", push.channel("news", "to nobody"))
say("connection", push.connection(id, "to one"))
say("session", push.session("none", "x"))
say("nobody", push.user("*", "x"))
print("waited", push.user(42, "waited for", wait=True).written)
refused("too large", lambda: push.all("x" * (2 << 20)))
refused("no connection", lambda: push.join("news", "0" * 32))
push.socket = "none.sock"
refused("no server", lambda: push.all("x"))
"#;

const NODE: &str = r#"
const { push } = await import(process.env.SDK + '/js/wootz.js');
const say = (what, r) => console.log(what, r.reached, r.queued, r.dropped, ...(r.written === undefined ? [] : [r.joined, r.written]));
const refused = (what, pushing) => pushing.then(() => console.log(what, 'taken'), (error) => console.log(what, error.status));
const id = process.env.ID;
say('user', await push.user(42, 'für 42'));
say('all', await push.all(new Uint8Array([0, 255])));
say('request', await push.request(42, '/cart', { wait: true }));
say('once', await push.request({ all: true }, '/news', { once: true, wait: true }));
await push.join('news', id);
say('channel', await push.channel('news', 'to news'));
await push.leave('news', id);
say('left', await push.channel('news', 'to nobody'));
say('connection', await push.connection(id, 'to one'));
say('session', await push.session('none', 'x'));
say('nobody', await push.user('*', 'x'));
console.log('waited', (await push.user(42, 'waited for', { wait: true })).written);
await refused('too large', push.all('x'.repeat(2 << 20)));
await refused('no connection', push.join('news', '0'.repeat(32)));
push.settings.socket = 'none.sock';
await refused('no server', push.all('x'));
"#;

/// Has a language push, and looks at what arrives.
fn check(wootz: &Wootz, pushes: impl FnOnce(&str) -> String) {
    let mut client = wootz.connect_as("user=42");
    let mut other = wootz.connect_as("user=4");
    let id = wootz.id_of(client.port());
    let printed = pushes(&id);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines, TOLD);
    assert_eq!(client.text(), "für 42");
    for client in [&mut client, &mut other] {
        assert_eq!(client.binary(), [0, 255]);
    }
    for text in ["push|42|/cart", "push|42|/news", "to news", "to one", "waited for"] {
        assert_eq!(client.text(), text);
    }
    assert_eq!(other.text(), "push|4|/news");
    client.nothing_waits();
    other.nothing_waits();
}

/// A script of a language, which finds the SDK, the server and a connection by variables.
fn script(program: &str, wootz: &Wootz, name: &str, code: &str, id: &str) -> Command {
    let path = wootz.path(name);
    std::fs::write(&path, code).expect("a file of the test");
    let mut command = Command::new(program);
    command.arg(path).env("SDK", repository().join("sdk")).env("ID", id).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("WOOTZ_CONTROL", wootz.path("wootz.sock"));
    command
}

#[test]
fn php_pushes_from_the_command_line() {
    let wootz = served();
    check(&wootz, |id| run(&mut script("php", &wootz, "push.php", PHP, id)));
}

#[test]
fn python_pushes() {
    let wootz = served();
    check(&wootz, |id| run(&mut script("python3", &wootz, "push.py", PYTHON, id)));
}

#[test]
fn node_pushes() {
    let wootz = served();
    check(&wootz, |id| run(&mut script("node", &wootz, "push.mjs", NODE, id)));
}

#[test]
fn php_pushes_under_php_fpm() {
    let wootz = served();
    let fpm = PhpFpm::start(2, &variables(&wootz));
    fpm.script("push.php", PHP.strip_prefix("<?php").expect("PHP"));
    let nginx = Nginx::start(&fpm.path(""), &fpm, None);
    check(&wootz, |id| {
        let answer = request(nginx.address(), &format!("GET /push.php?id={id}"), "", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    });
}

/// Where php-fpm's scripts find the SDK and the server: a pool gets no variable that it does not name.
fn variables(wootz: &Wootz) -> String {
    let (sdk, socket) = (repository().join("sdk"), wootz.path("wootz.sock"));
    format!("env[SDK] = {}\nenv[WOOTZ_CONTROL] = {}\n", sdk.display(), socket.display())
}

/// A page that joins a channel for the connection that it is called for.
const JOIN: &str = "require getenv('SDK') . '/php/autoload.php'; Wootz\\Push::join('news'); echo 'joined';";

/// Has a call join, and looks whether the channel reaches its browser.
fn check_join(wootz: &Wootz) {
    let mut client = wootz.connect();
    assert_eq!(client.ask("/join"), "joined");
    assert_eq!(wootz.api().push(json!({"to": {"channel": "news"}, "text": "hi"}))["queued"], 1);
    assert_eq!(client.text(), "hi");
}

#[test]
fn call_joins_a_channel_with_the_token_that_it_was_given() {
    let setup = Setup::command(&["php", "join.php"]).file("join.php", &format!("<?php {JOIN}"));
    check_join(&setup.setting("application.environment.SDK", format!("{:?}", repository().join("sdk"))).start());
}

#[test]
fn call_under_php_fpm_joins_with_its_token_too() {
    let fpm = PhpFpm::start(1, &format!("env[SDK] = {}", repository().join("sdk").display()));
    let script = fpm.script("join.php", JOIN);
    check_join(&Setup::fastcgi(&fpm.address(), &script).start());
}

#[test]
fn cart_is_the_same_in_all_tabs_of_its_user_in_chromium() {
    installed("tests/node/node_modules/playwright-core");
    let (page, sessions) = (free_address(), tempfile::tempdir().expect("a temporary directory"));
    let settings = format!("identity.provider = \"application\"\nidentity.allowed_origins = [\"http://{page}\"]");
    let wootz = Setup::http(&format!("http://{page}")).settings(&settings).start();
    let mut command = Command::new("php");
    command.arg("-d").arg(format!("session.save_path={}", sessions.path().display()));
    command.args(["-S", &page.to_string()]).arg(repository().join("examples/cart/index.php"));
    command.env("PHP_CLI_SERVER_WORKERS", "4").env("WOOTZ_CONTROL", wootz.path("wootz.sock"));
    let mut server = Daemon::start(&mut command);
    server.wait_for("php -S listens", || std::net::TcpStream::connect(page).ok());

    // Another site's PHP, which knows nothing of the cart but who should hear of it.
    let fpm = PhpFpm::start(1, &variables(&wootz));
    let code = "require $_SERVER['SDK'] . '/php/autoload.php'; $r = Wootz\\Push::user('alice', 'Free delivery today'); echo \"$r->queued of $r->reached\";";
    fpm.script("news.php", code);
    let nginx = Nginx::start(&fpm.path(""), &fpm, None);
    let mut browser = Command::new("node");
    browser.arg(repository().join("tests/node/cart.js")).arg(format!("http://{page}/?port={}", wootz.port()));
    assert_eq!(run(browser.arg(format!("http://{}/news.php", nginx.address()))).trim_end(), "all right");
    drop(server);
}
