//! The application is an HTTP server that runs already: Node's and Python's own.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use support::client::Client;
use support::daemon::{Daemon, free_address};
use support::{Setup, Wootz, installed, wait_until};

/// A server of Node, ten lines long.
fn node(address: SocketAddr) -> Daemon {
    let mut command = Command::new("node");
    command.arg(installed("tests/node/server.cjs")).arg(address.port().to_string());
    listening(&mut command, address)
}

/// A server of Python's standard library, which closes each connection.
fn python(address: SocketAddr) -> Daemon {
    let mut command = Command::new("python3");
    command.arg(installed("tests/python/server.py")).arg(address.port().to_string());
    listening(&mut command, address)
}

fn listening(command: &mut Command, address: SocketAddr) -> Daemon {
    let mut server = Daemon::start(command);
    server.wait_for("the HTTP server listens", || TcpStream::connect(address).ok());
    server
}

fn before(address: SocketAddr) -> Setup {
    Setup::http(&format!("http://{address}")).settings("application.error_reply = \"failed\"")
}

/// What the server says of the request that a message became.
fn request_of(client: &mut Client, message: &str) -> Value {
    let reply = client.ask(message);
    serde_json::from_str(&reply).unwrap_or_else(|error| panic!("{error}: {reply}"))
}

#[test]
fn message_that_is_a_uri_is_a_get_and_any_other_a_post_in_node_and_in_python() {
    for server in [node, python] {
        let address = free_address();
        let _server = server(address);
        let wootz = before(address).start();
        let fields = [("Cookie", "a=b"), ("X-Own", "1"), ("Remote-User", "admin"), ("Wootz-Event", "validate")];
        let mut client = Client::connect(wootz.address(), "/chat?room=1", &fields);

        let request = request_of(&mut client, "/cart?x=1");
        let host = wootz.address().to_string();
        for (name, value) in [("method", "GET"), ("url", "/cart?x=1"), ("body", "")] {
            assert_eq!(request[name], value, "{request:#}");
        }
        for (name, value) in [
            ("cookie", "a=b"),
            ("x-own", "1"),
            ("host", host.as_str()),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-host", host.as_str()),
            ("x-forwarded-proto", "http"),
            ("wootz-event", "message"),
        ] {
            assert_eq!(request["headers"][name], value, "{request:#}");
        }
        for absent in ["remote-user", "upgrade", "sec-websocket-key", "content-length", "transfer-encoding"] {
            assert_eq!(request["headers"][absent], Value::Null, "{request:#}");
        }

        let other = request_of(&mut client, "{\"say\": \"grüß dich\"}");
        for (name, value) in [("method", "POST"), ("url", "/chat?room=1"), ("body", "{\"say\": \"grüß dich\"}")] {
            assert_eq!(other[name], value, "{other:#}");
        }
        assert_eq!(other["headers"]["content-type"], "text/plain; charset=utf-8");
        assert_eq!(other["headers"]["content-length"], "22");
        let id = |request: &Value| request["headers"]["x-request-id"].as_str().expect("an id").to_owned();
        assert_ne!(id(&request), id(&other));
        assert_eq!(request["headers"]["wootz-connection"], other["headers"]["wootz-connection"]);
    }
}

#[test]
fn no_message_reaches_another_server_or_breaks_the_request() {
    let address = free_address();
    let _server = node(address);
    let wootz = before(address).start();
    let mut client = wootz.connect();
    for message in [
        "http://evil.example/",
        "//evil.example/",
        "@evil.example",
        "evil.example:80",
        "/a/../../b",
        "?x",
        "#f",
        "/%0d%0aX:1",
    ] {
        let request = request_of(&mut client, message);
        let url = request["url"].as_str().expect("a URI");
        assert!(url.starts_with('/'), "{message}: {request:#}");
        assert_eq!(request["headers"]["x"], Value::Null, "{message}");
    }
}

#[test]
fn statuses_are_replies_nothing_or_failures_as_documented() {
    for server in [node, python] {
        let address = free_address();
        let _server = server(address);
        let wootz = before(address).start();
        let mut client = wootz.connect();
        for status in [200, 201, 206, 400, 404, 410, 429] {
            assert_eq!(client.ask(&format!("/status/{status}")), format!("body of {status}"));
        }
        for status in [204, 304] {
            client.send(&format!("/status/{status}"));
            client.nothing_waits();
        }
        for status in [301, 302, 307, 308, 500, 502, 503] {
            assert_eq!(client.ask(&format!("/status/{status}")), "failed", "{status}");
        }
        wootz.wait_for_log_line(&["/elsewhere", "302"]);
        assert_eq!(client.ask("/status/200"), "body of 200");
    }
}

#[test]
fn who_may_connect_is_told_by_the_server() {
    let address = free_address();
    let _server = node(address);
    let wootz = before(address).settings("identity.provider = \"application\"").start();
    let mut alice = Client::connect(wootz.address(), "/", &[("Cookie", "who=alice")]);
    assert_eq!(request_of(&mut alice, "/cart")["headers"]["remote-user"], "alice");
    let mut guest = wootz.connect();
    assert_eq!(request_of(&mut guest, "/cart")["headers"]["remote-user"], Value::Null);
    for (who, status) in [("forbidden", 403), ("unauthorized", 403), ("broken", 503)] {
        let Err(answer) = Client::try_connect(wootz.address(), "/", &[("Cookie", &format!("who={who}"))]) else {
            panic!("{who} was let in")
        };
        assert_eq!(answer.status(), status, "{who}");
    }
}

#[test]
fn answer_is_streamed_as_it_comes() {
    let address = free_address();
    let _server = node(address);
    let wootz = before(address).settings("application.reply = \"stream\"").start();
    let (mut client, mut other) = (wootz.connect(), wootz.connect());
    client.send("/stream");
    assert_eq!(client.text(), "one");
    assert_eq!(other.ask("/continue"), "continued");
    assert_eq!(client.text(), "two");
}

#[test]
fn connections_are_kept_and_a_thousand_calls_need_few() {
    let address = free_address();
    let _server = node(address);
    let wootz = before(address).start();
    // No more at once than a shard keeps.
    let mut clients: Vec<Client> = (0..8).map(|_| wootz.connect()).collect();
    for _ in 0..125 {
        for client in &mut clients {
            client.send("/status/200");
        }
        for client in &mut clients {
            assert_eq!(client.text(), "body of 200");
        }
    }
    let connections: usize = clients[0].ask("/connections").parse().expect("a number");
    assert!(connections <= 20, "{connections} connections for 1,000 calls");
}

#[test]
fn server_that_is_gone_is_told_clearly_left_alone_and_used_again_when_it_is_back() {
    let address = free_address();
    let server = node(address);
    let wootz = before(address).settings("application.busy_reply = \"busy\"").start();
    let mut client = wootz.connect();
    assert_eq!(client.ask("/status/200"), "body of 200");
    drop(server);
    assert_eq!(client.ask("/status/200"), "failed");
    wootz.wait_for_log_line(&[&address.to_string(), "is it running"]);
    let mut failures = 1;
    while client.ask("/status/200") == "failed" {
        failures += 1;
        assert!(failures < 20, "it is never left alone");
    }
    let reason = wootz.status()["runner"]["left_alone"].clone();
    assert!(reason.as_str().is_some_and(|reason| reason.contains(&address.to_string())), "{reason:#}");

    let _server = node(address);
    wait_until("it is used again", || (client.ask("/status/200") == "body of 200").then_some(()));
    assert_eq!(wootz.status()["runner"]["left_alone"], Value::Null);
}

#[test]
fn server_that_restarts_between_two_calls_fails_neither() {
    let address = free_address();
    let mut server = node(address);
    let wootz = before(address).start();
    let mut client = wootz.connect();
    for _ in 0..3 {
        // The connection that is kept from the last time is dead, and nobody notices: neither what may be asked twice nor what may not.
        for message in ["/status/200", "not a URI"] {
            assert_ne!(client.ask(message), "failed");
            drop(server);
            server = node(address);
        }
    }
}

#[test]
fn slow_server_fails_the_call_in_time_and_its_connection_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let settings = "application.limits.timeout = \"5s\"\napplication.http.first_byte_timeout = \"300ms\"";
    let wootz = before(address).settings(settings).start();
    let mut client = wootz.connect();
    client.send("/slow");
    let mut taken = accept(&listener);
    assert_eq!(client.text(), "failed");
    ends(&mut taken);
    wootz.wait_for_log("sent nothing for 0.3 s");
}

#[test]
fn browser_that_leaves_ends_the_request() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let wootz = before(listener.local_addr().expect("bound")).start();
    let mut client = wootz.connect();
    client.send("/long");
    let mut taken = accept(&listener);
    drop(client);
    ends(&mut taken);
    wait_until("the call is counted", || (wootz.status()["calls"]["abandoned"] == json!(1)).then_some(()));
}

#[test]
fn servers_that_break_the_rules_fail_the_call_and_say_why() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let wootz = before(address).settings("application.limits.max_output = \"1MiB\"").start();
    let mut client = wootz.connect();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000)).repeat(20);
    let too_much = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n");
    for (answer, reply, reason) in [
        // Right, if unusual.
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "ok", ""),
        ("HTTP/1.0 200 OK\r\n\r\nuntil the end", "until the end", ""),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwithout length", "without length", ""),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            "ok",
            "",
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nin\r\n7\r\n chunks\r\n0\r\nTrailer: x\r\n\r\n",
            "in chunks",
            "",
        ),
        // Wrong.
        ("", "failed", "closed the connection before it answered"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "failed", "is it an HTTP server?"),
        ("HTTP/1.1 200 OK\r\nbroken header\r\n\r\n", "failed", "no HTTP/1.1 answer"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "failed", "in the middle of its answer"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf", "failed", "in the middle of its answer"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "failed", "body that is broken"),
        ("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", "failed", "gzip"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "failed", "another protocol"),
        (&too_much, "failed", "application.limits.max_output"),
    ] {
        client.send("not a URI");
        let mut taken = accept(&listener);
        taken.write_all(answer.as_bytes()).ok();
        // Whoever is not read any more does not get through the end either. (Answers that would let the connection be kept say
        // `Connection: close`: a kept one may stay until the next call.)
        taken.shutdown(std::net::Shutdown::Write).ok();
        assert_eq!(client.text(), reply, "{}", &answer[..answer.len().min(200)]);
        wootz.wait_for_log(reason);
        ends(&mut taken);
    }
    assert_eq!(wootz.status()["calls"]["failures"]["unreachable"], 0, "it was reached each time");
}

/// Takes the next connection, and reads its request.
fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(support::DEADLINE)).expect("a socket");
    stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a socket");
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).expect("a request");
        assert!(count > 0, "the request ended early: {request:?}");
        request.extend_from_slice(&bytes[..count]);
    }
    stream
}

/// The other side closes, or resets.
fn ends(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
}

#[test]
fn server_on_a_unix_socket_is_asked_as_well() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("http.sock");
    let mut command = Command::new("node");
    let mut server = Daemon::start(command.arg(installed("tests/node/server.cjs")).arg(&socket));
    server.wait_for("it listens", || std::os::unix::net::UnixStream::connect(&socket).ok());
    let wootz: Wootz = Setup::http(&format!("unix:{}", socket.display())).start();
    let mut client = wootz.connect();
    assert_eq!(request_of(&mut client, "/cart?x=1")["url"], "/cart?x=1");
    assert_eq!(client.ask("/status/200"), "body of 200");
}
