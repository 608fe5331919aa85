//! The crate's server with OpenSSL's client.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Instant, SystemTime};

use wootz_tls::{ANSWER_TO_PLAIN_HTTP, ANSWER_TO_TLS, Certificates, TlsAcceptor, TlsSettings, looks_like_client_hello};

use crate::authority::Authority;
use crate::server::{DEADLINE, Server};

/// A running `openssl s_client`.
struct Client {
    process: Child,
    stdin: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Client {
    fn start(authority: &Authority, server: &Server, arguments: &str) -> Self {
        Self::connect(authority, &server.address.to_string(), arguments)
    }

    fn connect(authority: &Authority, address: &str, arguments: &str) -> Self {
        let mut process = Command::new("openssl")
            .args(["s_client", "-connect", address, "-CAfile"])
            .arg(authority.path("root.pem"))
            .args(arguments.split_ascii_whitespace())
            .current_dir(authority.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl runs");
        let (sender, output) = channel();
        let stdout: Box<dyn Read + Send> = Box::new(process.stdout.take().expect("piped"));
        let stderr: Box<dyn Read + Send> = Box::new(process.stderr.take().expect("piped"));
        for mut pipe in [stdout, stderr] {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut part = [0; 4096];
                while let Ok(read @ 1..) = pipe.read(&mut part) {
                    if sender.send(part[..read].to_vec()).is_err() {
                        break;
                    }
                }
            });
        }
        let stdin = process.stdin.take();
        Self { process, stdin, output, seen: String::new() }
    }

    fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("not ended");
        // It may have ended by itself; then what it printed tells why.
        let _ = stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush());
    }

    /// Waits until `text` was printed.
    fn wait_for(&mut self, text: &str) {
        assert!(self.read_until(|seen| seen.contains(text)), "no {text:?} in:\n{}", self.seen);
    }

    /// Ends the input, and gives all that was printed.
    fn end(&mut self) -> String {
        self.stdin = None;
        self.read_until(|_| false);
        std::mem::take(&mut self.seen)
    }

    /// Whether `enough` was printed before the end.
    fn read_until(&mut self, enough: impl Fn(&str) -> bool) -> bool {
        let deadline = Instant::now() + DEADLINE;
        while !enough(&self.seen) {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(part) => self.seen.push_str(&String::from_utf8_lossy(&part)),
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("openssl neither goes on nor ends:\n{}", self.seen),
            }
        }
        true
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn openssl_talks_in_both_versions_and_trusts_the_chain() {
    let authority = Authority::new();
    let server = Server::start(authority.acceptor(&TlsSettings::default()));
    for (flag, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let mut client = Client::start(
            &authority,
            &server,
            &format!("{flag} -verify_return_error -verify_hostname localhost -alpn http/1.1"),
        );
        client.say("hello\n");
        client.wait_for("HELLO");
        let printed = client.end();
        assert!(printed.contains(&format!("New, {name}")), "{printed}");
        assert!(
            printed.contains("Verify return code: 0 (ok)") && printed.contains("ALPN protocol: http/1.1"),
            "{printed}"
        );
    }
}

#[test]
fn openssl_with_tls_1_0_and_1_1_is_refused_with_an_alert() {
    let authority = Authority::new();
    let server = Server::start(authority.acceptor(&TlsSettings::default()));
    for flag in ["-tls1", "-tls1_1"] {
        let printed = Client::start(&authority, &server, &format!("{flag} -cipher DEFAULT@SECLEVEL=0")).end();
        assert!(printed.contains("alert handshake failure"), "{flag}: {printed}");
    }
}

#[test]
fn openssl_resumes_in_both_versions() {
    let authority = Authority::new();
    let server = Server::start(authority.acceptor(&TlsSettings::default()));
    for (flag, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        for (arguments, kind) in [("-sess_out session.pem", "New"), ("-sess_in session.pem", "Reused")] {
            let mut client = Client::start(&authority, &server, &format!("{flag} -servername localhost {arguments}"));
            client.say("hello\n");
            client.wait_for("HELLO");
            let printed = client.end();
            assert!(printed.contains(&format!("{kind}, {name}")), "{printed}");
        }
    }
}

#[test]
fn openssl_reconnects_five_times_with_its_ticket() {
    let authority = Authority::new();
    let server = Server::start(authority.acceptor(&TlsSettings::default()));
    let mut client = Client::start(&authority, &server, "-tls1_2 -reconnect");
    client.say("hello\n");
    client.wait_for("HELLO");
    let printed = client.end();
    assert_eq!(printed.matches("Reused, TLSv1.2").count(), 5, "{printed}");
}

#[test]
fn openssl_updates_keys_and_goes_on() {
    let authority = Authority::new();
    let server = Server::start(authority.acceptor(&TlsSettings::default()));
    let mut client = Client::start(&authority, &server, "-tls1_3");
    client.say("first\n");
    client.wait_for("FIRST");
    client.say("K\n");
    client.wait_for("KEYUPDATE");
    client.say("second\n");
    client.wait_for("SECOND");
}

#[test]
fn openssl_may_not_renegotiate() {
    let authority = Authority::new();
    let server = Server::start(authority.acceptor(&TlsSettings::default()));
    let mut client = Client::start(&authority, &server, "-tls1_2");
    client.say("first\n");
    client.wait_for("FIRST");
    client.say("R\n");
    client.wait_for("no renegotiation");
}

#[test]
fn openssl_gets_the_certificate_that_it_asks_for() {
    let authority = Authority::new();
    let settings = vec![
        authority.issue("first", &["localhost"]),
        authority.issue("second", &["Second.test", "*.wild.test"]),
        authority.issue("deep", &["deep.wild.test"]),
        authority.issue_with("rsa", &["localhost", "rsa.test"], "-newkey rsa:2048"),
    ];
    let (certificates, _) = Certificates::load(settings, SystemTime::now()).unwrap();
    let server = Server::start(TlsAcceptor::new(&TlsSettings::default(), Arc::new(certificates)).unwrap());
    for (arguments, subject) in [
        ("-servername second.test", "second"),
        ("-servername SECOND.TEST", "second"),
        ("-servername a.wild.test", "second"),
        ("-servername deep.wild.test", "deep"),
        ("-servername a.b.wild.test", "first"),
        ("-servername wild.test", "first"),
        ("-servername unknown.test", "first"),
        ("-noservername", "first"),
        ("-servername rsa.test", "rsa"),
        ("-servername localhost", "first"),
        ("-servername localhost -sigalgs RSA-PSS+SHA256", "rsa"),
    ] {
        let printed = Client::start(&authority, &server, arguments).end();
        assert!(printed.contains(&format!("subject=CN = {subject}\n")), "{arguments}: {printed}");
    }
}

#[test]
fn plain_http_on_the_tls_port_is_answered_over_a_socket() {
    let authority = Authority::new();
    let server = Server::start(authority.acceptor(&TlsSettings::default()));
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, ANSWER_TO_PLAIN_HTTP);
}

#[test]
fn openssl_on_a_plain_port_is_told_by_an_alert() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = Client::connect(&authority, &address.to_string(), "");
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut first = [0; 4096];
    let read = stream.read(&mut first).unwrap();
    assert!(looks_like_client_hello(&first[..read]));
    stream.write_all(ANSWER_TO_TLS).unwrap();
    client.wait_for("alert handshake failure");
}
