//! A FastCGI server that breaks the rules fails the call, and says in the log what it did; nothing half is sent, and the next call is served.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use support::client::Client;
use support::{DEADLINE, Setup, Wootz, process, wait_until};

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

/// A record of version 1 for request 1.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    record_of(1, kind, 1, content)
}

fn record_of(version: u8, kind: u8, request: u16, content: &[u8]) -> Vec<u8> {
    let [id_high, id_low] = request.to_be_bytes();
    let [high, low] = u16::try_from(content.len()).expect("one record").to_be_bytes();
    [&[version, kind, id_high, id_low, high, low, 0, 0], content].concat()
}

/// A reply as PHP gives it.
fn output(body: &str) -> Vec<u8> {
    record(STDOUT, format!("Content-Type: text/html\r\n\r\n{body}").as_bytes())
}

/// The end of a request, with this status of the application and of the protocol.
fn end(application: u8, protocol: u8) -> Vec<u8> {
    record(END_REQUEST, &[0, 0, 0, application, protocol, 0, 0, 0])
}

/// A server in place of php-fpm, which answers with bytes as the test wants them.
struct Peer {
    listener: TcpListener,
    wootz: Wootz,
}

impl Peer {
    fn start(settings: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let script = directory.path().join("index.php");
        std::fs::write(&script, "").expect("a file of the test");
        let setup = Setup::fastcgi(&address, &script).settings("application.error_reply = \"failed\"");
        Self { listener, wootz: setup.settings(settings).start() }
    }

    /// Takes the connection of the next call, and nothing from it yet.
    fn accept(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        stream.set_write_timeout(Some(DEADLINE)).expect("a socket");
        stream
    }

    /// Takes the whole request of the next call.
    fn request(&self) -> TcpStream {
        let mut stream = self.accept();
        loop {
            let mut head = [0; 8];
            stream.read_exact(&mut head).expect("a record");
            let mut content = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]])) + usize::from(head[6])];
            stream.read_exact(&mut content).expect("its content");
            if head[1] == STDIN && content.is_empty() {
                return stream;
            }
        }
    }

    /// A call that is answered well: whatever was before it, it is served.
    fn serves_the_next(&self, client: &mut Client) {
        client.send("/next");
        self.request().write_all(&[output("served"), end(0, 0)].concat()).expect("it reads");
        assert_eq!(client.text(), "served");
    }
}

/// The other side closes, or resets.
fn ends(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
}

#[test]
fn answer_that_is_right_is_a_reply_however_it_is_cut() {
    let peer = Peer::start("");
    let mut client = peer.wootz.connect();
    let head = b"Status: 200 OK\r\nX-Powered-By: me\r\n\r\n";
    for (bytes, reply) in [
        ([output("plain"), end(0, 0)].concat(), "plain"),
        ([record(STDOUT, &head[..9]), record(STDOUT, &head[9..]), record(STDOUT, b"cut"), end(0, 0)].concat(), "cut"),
        ([record(STDERR, b"a warning"), output("warned"), record(STDOUT, b""), end(0, 0)].concat(), "warned"),
        // Some end lines with a newline alone.
        ([record(STDOUT, b"Content-Type: text/plain\n\nnewlines"), end(0, 0)].concat(), "newlines"),
        // An empty body is no reply; the next one comes.
        ([output(""), end(0, 0)].concat(), ""),
    ] {
        client.send("/");
        let mut stream = peer.request();
        // One byte a packet, as far as the kernel lets it.
        stream.set_nodelay(true).expect("a socket");
        for byte in &bytes {
            stream.write_all(&[*byte]).expect("it reads");
        }
        if reply.is_empty() {
            ends(&mut stream);
            client.nothing_waits();
        } else {
            assert_eq!(client.text(), reply);
            ends(&mut stream);
        }
    }
    peer.wootz.wait_for_log("a warning");
}

#[test]
fn peer_that_breaks_the_rules_fails_the_call_and_the_log_says_how() {
    let peer = Peer::start("");
    let mut client = peer.wootz.connect();
    let half = output("half");
    for (what, bytes) in [
        ("nothing", vec![]),
        ("half a record head", half[..5].to_vec()),
        ("half a record", half[..20].to_vec()),
        ("no end", half.clone()),
        ("a wrong version", record_of(2, STDOUT, 1, b"\r\n\r\nx")),
        ("an unknown type", [record(99, b"x"), half.clone(), end(0, 0)].concat()),
        ("a record for the server", [record(BEGIN_REQUEST, &[0; 8]), half.clone(), end(0, 0)].concat()),
        ("another request", [record_of(1, STDOUT, 7, b"\r\n\r\nanother's"), end(0, 0)].concat()),
        ("a refusal", end(0, 2)),
        ("an application that failed", [half.clone(), end(3, 0)].concat()),
        ("what is no header block", [record(STDOUT, b"<html>no header block"), end(0, 0)].concat()),
        ("a status of failure", [record(STDOUT, b"Status: 502 Bad\r\n\r\nhalf"), end(0, 0)].concat()),
        ("another protocol", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("an end too short", [half.clone(), record(END_REQUEST, &[0; 4])].concat()),
    ] {
        let before = peer.wootz.log().len();
        client.send("/");
        let mut stream = peer.request();
        stream.write_all(&bytes).expect("it reads");
        stream.shutdown(Shutdown::Write).ok();
        assert_eq!(client.text(), "failed", "{what}");
        ends(&mut stream);
        wait_until(&format!("a line in the log about {what}"), || {
            peer.wootz.log()[before..].lines().find(|line| line.contains("call failed")).map(str::to_owned)
        });
        peer.serves_the_next(&mut client);
    }
}

#[test]
fn end_twice_or_words_after_the_end_harm_neither_this_call_nor_the_next() {
    for keep in [0, 1] {
        let peer = Peer::start(&format!("application.fastcgi.keep = {keep}"));
        let mut client = peer.wootz.connect();
        for after in [end(0, 0), output("after"), record(STDERR, b"after")] {
            client.send("/");
            let mut stream = peer.request();
            stream.write_all(&[output("first"), end(0, 0), after].concat()).expect("it reads");
            // Told at once or not at all: what counts is that nobody else gets it.
            let reply = client.text();
            assert!(["first", "failed"].contains(&reply.as_str()), "{reply}");
            ends(&mut stream);
            peer.serves_the_next(&mut client);
            client.nothing_waits();
        }
    }
}

#[test]
fn peer_that_answers_before_it_has_read_is_understood() {
    let peer = Peer::start("limits.max_message = \"4MiB\"");
    let mut client = peer.wootz.connect();
    // More than any socket buffer holds.
    client.send_binary(&vec![b'x'; 3 << 20]);
    let mut stream = peer.accept();
    stream.write_all(&[output("early"), end(0, 0)].concat()).expect("it reads");
    assert_eq!(client.text(), "early");
    drop(stream);
    peer.serves_the_next(&mut client);
}

#[test]
fn peer_that_never_closes_after_the_end_is_closed() {
    let peer = Peer::start("");
    let mut client = peer.wootz.connect();
    client.send("/");
    let mut stream = peer.request();
    stream.write_all(&[output("done"), end(0, 0)].concat()).expect("it reads");
    assert_eq!(client.text(), "done");
    ends(&mut stream);
}

#[test]
fn output_and_errors_without_end_are_cut_off_and_hold_no_memory() {
    let peer = Peer::start("application.limits.max_output = \"1MiB\"\napplication.limits.timeout = \"3s\"");
    let mut client = peer.wootz.connect();
    for (kind, content) in [(STDOUT, vec![b'x'; 60_000]), (STDERR, vec![b'e'; 60_000])] {
        client.send("/");
        let mut stream = peer.request();
        stream.write_all(&output("")).expect("it reads");
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let begun = Instant::now();
                let flood = record(kind, &content);
                while begun.elapsed() < DEADLINE {
                    if stream.write_all(&flood).is_err() {
                        return Some(());
                    }
                }
                None
            });
            assert_eq!(client.text(), "failed");
            writer.join().expect("the writer").expect("its connection is closed");
        });
        peer.serves_the_next(&mut client);
    }
    let memory = process::peak_memory_bytes(peer.wootz.pid());
    assert!(memory < 80 << 20, "{memory} bytes of memory");
    assert!(peer.wootz.log().len() < 100_000, "{} bytes of log", peer.wootz.log().len());
}

#[test]
fn silent_peer_fails_the_call_in_its_time_and_is_closed() {
    let peer = Peer::start("application.limits.timeout = \"10s\"\napplication.fastcgi.first_byte_timeout = \"300ms\"");
    let mut client = peer.wootz.connect();
    let began = Instant::now();
    client.send("/");
    let mut stream = peer.request();
    assert_eq!(client.text(), "failed");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    ends(&mut stream);
    peer.wootz.wait_for_log("sent nothing for 0.3 s");
    peer.serves_the_next(&mut client);
}

#[test]
fn browser_that_leaves_closes_the_connection_of_its_call() {
    let peer = Peer::start("");
    let mut client = peer.wootz.connect();
    client.send("/");
    let mut stream = peer.request();
    drop(client);
    ends(&mut stream);
    peer.serves_the_next(&mut peer.wootz.connect());
}
