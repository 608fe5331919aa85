//! The SDKs push from real PHP (command line and php-fpm), Python and Node.js, and Chromium shows it.

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::json;
use support::client::Client;
use support::daemon::{Daemon, Nginx, PhpFpm, free_address, request};
use support::{Setup, Wootz, installed, repository, run, wait_until};

/// The user is whom the cookie `user` names; a call says who it is for, why, and what it was given.
const APPLICATION: &str = r#"
[ "$WOOTZ_EVENT" = validate ] && { printf '%s' "${HTTP_COOKIE#user=}"; exit; }
echo "$WOOTZ_EVENT|$REMOTE_USER|$REQUEST_URI""#;

fn served() -> Wootz {
    Setup::sh(APPLICATION).settings("identity.provider = \"application\"\nlisten.shards = 2").start()
}

/// What each language does, with these calls in its own words: one user, bytes to all, a request, a channel that it joins and leaves,
/// nobody, a waiting push; then every way to be told no.
fn check(wootz: &Wootz, script: impl Fn(&str) -> Command) {
    let mut client = wootz.connect_as("user=42");
    let mut other = wootz.connect_as("user=4");
    let id = wootz.id_of(client.port());
    let printed = run(&mut script(&id));
    let lines: Vec<&str> = printed.lines().collect();
    let told = [
        "user 1 1 0",
        "all 2 2 0",
        "request 1 1 0 0",
        "once 2 2 0 0",
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
    assert_eq!(lines, told);
    assert_eq!(client.text(), "für 42");
    assert_eq!(client.binary(), [0, 255]);
    let mut texts = [client.text(), client.text()];
    texts.sort();
    assert_eq!(texts, ["push|42|/cart", "push|42|/news"]);
    for text in ["to news", "to one", "waited for"] {
        assert_eq!(client.text(), text);
    }
    client.nothing_waits();
    assert_eq!(other.binary(), [0, 255]);
    assert_eq!(other.text(), "push|4|/news");
    other.nothing_waits();
}

const PHP: &str = r#"<?php
require getenv('SDK') . '/php/autoload.php';
use Wootz\{Push, PushException, Receipt};

function say(string $what, Receipt $r, bool $joined = false): void
{
    echo "$what $r->reached $r->queued $r->dropped", $joined ? " $r->joined" : '', "\n";
}
function refused(string $what, callable $push): void
{
    try { $push(); echo "$what: taken\n"; } catch (PushException $error) { echo "$what {$error->getCode()}\n"; }
}
$id = getenv('ID');
say('user', Push::user(42, 'für 42'));
say('all', Push::all("\0\xff", binary: true));
say('request', Push::request(42, '/cart'), true);
say('once', Push::request(['all' => true], '/news', once: true), true);
Push::request(42, '/nothing-more', wait: true); // what was asked for before has been answered then
"#;

fn php(script: &Path, wootz: &Wootz, id: &str) -> Command {
    let mut command = Command::new("php");
    command.arg(script).env("SDK", repository().join("sdk")).env("ID", id);
    command.env("WOOTZ_CONTROL", wootz.path("wootz.sock"));
    command
}
