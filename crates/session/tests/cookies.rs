//! Real PHP and we are given the same `Cookie` headers: both must find the same session in them.
//!
//! The headers are made of what the reading depends on, by a generator with a fixed seed: each run compares the same ones.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use wootz_session::cookie::{CookieId, session_id};

const HEADERS: usize = 3_000;
const PATIENCE: Duration = Duration::from_secs(30);
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/php/cookies.php");

/// A `php-cgi` on a socket that listens already when it starts; killed when dropped.
struct Php {
    process: Child,
    directory: TempDir,
}

impl Php {
    fn start(session_name: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("php")).expect("a socket");
        let settings =
            [&format!("session.name={session_name}"), "session.use_strict_mode=0", "session.gc_probability=0"];
        let process = Command::new("php-cgi")
            .args(settings.iter().flat_map(|setting| ["-d", setting]))
            .env("PHP_FCGI_MAX_REQUESTS", "1000000")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .spawn()
            .expect("php-cgi runs");
        Self { process, directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("php")
    }

    /// What the script prints.
    fn ask(&self, cookies: &str) -> String {
        let sessions = self.directory.path().to_str().expect("a path of text");
        let parameters = [
            ("SCRIPT_FILENAME", SCRIPT),
            ("REQUEST_METHOD", "GET"),
            ("REDIRECT_STATUS", "200"),
            ("SESSIONS", sessions),
            ("HTTP_COOKIE", cookies),
        ];
        let mut block = Vec::new();
        for (name, value) in parameters {
            for length in [name.len(), value.len()] {
                block.extend((u32::try_from(length).expect("short") | 1 << 31).to_be_bytes());
            }
            block.extend([name.as_bytes(), value.as_bytes()].concat());
        }
        let mut request = record(1, &[0, 1, 0, 0, 0, 0, 0, 0]);
        request.extend([record(4, &block), record(4, &[]), record(5, &[])].concat());
        let mut stream = UnixStream::connect(self.socket()).expect("php-cgi takes the call");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(&request).expect("php-cgi reads");
        let mut response = Vec::new();
        stream.read_to_end(&mut response).expect("php-cgi answers");
        let output = String::from_utf8_lossy(&output(&response)).into_owned();
        let (_, body) =
            output.split_once("\r\n\r\n").unwrap_or_else(|| panic!("php-cgi said {output:?} of {cookies:?}"));
        body.to_owned()
    }
}

impl Drop for Php {
    fn drop(&mut self) {
        self.process.kill().expect("it is ours");
        self.process.wait().expect("it ends");
    }
}

/// A FastCGI record of request 1.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).expect("a short record").to_be_bytes();
    [&[1, kind, 0, 1, high, low, 0, 0], content].concat()
}

/// The contents of all records of standard output.
fn output(mut records: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    while let [_, kind, _, _, high, low, padding, _, rest @ ..] = records {
        let (content, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        if *kind == 6 {
            output.extend(content);
        }
        records = &rest[usize::from(*padding)..];
    }
    output
}

fn ours(cookies: &str, name: &str) -> String {
    match session_id([cookies.as_bytes()], name) {
        CookieId::None => "none".to_owned(),
        CookieId::Malformed => "malformed".to_owned(),
        CookieId::Id(id) => format!("id {}", id.as_str()),
    }
}

/// xorshift: the same headers in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("below a usize")
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn header(&mut self, name: &str) -> String {
        let dotted = name.replacen('_', ".", 1);
        let bracket = name.replacen('_', "[", 1);
        let lower = name.to_lowercase();
        let names = [name, name, name, name, name, name, name, &dotted, &bracket, &lower, "other", "", "%53ID"];
        let before = ["", "", "", " ", " ", "\t", "  ", "\u{b}\u{c}", "."];
        let after = ["", " ", ".", "[", "[]", "[a]", "[ ]", "[a][b", "[]x", "]", "[a", "%"];
        let values = [
            "a", "b0", "A-z,9", "%61", "a%2Cb", "a+b", "", "%2", "%", "%zz", "a%00b", "../x", "a b", "\"a\"", "a=b",
            " a", "a ", "é", "%C3%A9", "a/b", "a<b", "0", "'", "a\\b", "a\tb",
        ];
        let mut header = String::new();
        for _ in 0..=self.below(4) {
            header.push_str(self.of(&before));
            header.push_str(self.of(&names));
            if self.below(3) == 0 {
                header.push_str(self.of(&after));
            }
            header.push_str(self.of(&["=", "=", "=", "=", "=", "=", "=", "", "==", " = "]));
            let values = if self.below(2) == 0 { &values[..5] } else { &values[..] };
            header.push_str(self.of(values));
            header.push_str(self.of(&[";", ";", "; ", "; ", "; ", ";;", " ; ", ",", "&"]));
        }
        header
    }
}

#[test]
fn the_session_in_a_cookie_is_the_one_that_php_finds() {
    let (mut ids, mut malformed) = (0, 0);
    for name in ["PHPSESSID", "my_id", "__Host-sid"] {
        let php = Php::start(name);
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        for _ in 0..HEADERS / 3 {
            let header = random.header(name);
            let said = php.ask(&header);
            assert_eq!(ours(&header, name), said, "{name}: {header:?}");
            ids += usize::from(said.starts_with("id"));
            malformed += usize::from(said == "malformed");
        }
    }
    println!("{ids} ids, {malformed} malformed, of {HEADERS} headers");
    assert!(ids > 300 && malformed > 100, "{ids} ids, {malformed} malformed");
}

#[test]
fn limits_of_cookies_brackets_and_ids_are_phps() {
    let php = Php::start("PHPSESSID");
    for cookies in [
        format!("{}PHPSESSID=a", "x=1;".repeat(998)),
        format!("{}PHPSESSID=a", "x=1;".repeat(999)),
        format!("{}PHPSESSID=a", "x=1;".repeat(1000)),
        format!("{}PHPSESSID=a", " ; ;=1;x;".repeat(999)),
        format!("{}PHPSESSID=a", " ; ;=1;x;".repeat(1000)),
        format!("PHPSESSID=a;PHPSESSID{}=x;PHPSESSID=b", "[]".repeat(64)),
        format!("PHPSESSID=a;PHPSESSID{}=x;PHPSESSID=b", "[]".repeat(65)),
        format!("PHPSESSID=a;PHPSESSID{}[=x;PHPSESSID=b", "[]".repeat(64)),
        format!("PHPSESSID=a;PHPSESSID{}[=x;PHPSESSID=b", "[]".repeat(63)),
        format!("PHPSESSID={}", "x".repeat(240)),
        format!("PHPSESSID={}", "x".repeat(10_000)),
    ] {
        assert_eq!(ours(&cookies, "PHPSESSID"), php.ask(&cookies), "{}…", &cookies[..20]);
    }
}
