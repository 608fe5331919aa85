//! A client of the operator's API: one connection, one request after another, bytes as the test wants them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::DEADLINE;

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// A connection to one of the doors.
pub struct Api {
    stream: BufReader<Box<dyn Stream>>,
    fields: String,
}

/// What was answered.
#[derive(Debug)]
pub struct Answered {
    /// The HTTP status.
    pub status: u16,
    /// The status line and the fields.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answered {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of an error.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_else(|| panic!("an error: {self:?}")).to_owned()
    }

    /// The message of an error.
    pub fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or_else(|| panic!("an error: {self:?}")).to_owned()
    }
}

impl Api {
    /// Connects to a control socket.
    pub fn unix(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("the control socket");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        stream.set_write_timeout(Some(DEADLINE)).expect("a socket");
        Self { stream: BufReader::new(Box::new(stream)), fields: String::new() }
    }

    /// Connects to the door by TCP.
    pub fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("the HTTP door");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        stream.set_write_timeout(Some(DEADLINE)).expect("a socket");
        Self { stream: BufReader::new(Box::new(stream)), fields: String::new() }
    }

    /// Shows this token with every request.
    pub fn with_token(mut self, token: &str) -> Self {
        self.fields = format!("Authorization: Bearer {token}\r\n");
        self
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).expect("the server reads");
    }

    /// Writes bytes to a server that may have closed already.
    pub fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Sends a request with no body.
    pub fn send(&mut self, method: &str, target: &str) {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: wootz\r\n{}\r\n", self.fields);
        self.write(request);
    }

    /// Sends a request with a body.
    pub fn send_body(&mut self, method: &str, target: &str, body: &str) {
        let length = body.len();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: wootz\r\nContent-Length: {length}\r\n{}\r\n{body}",
            self.fields
        );
        self.write(request);
    }

    /// Asks without a body.
    pub fn ask(&mut self, method: &str, target: &str) -> Answered {
        self.send(method, target);
        self.answer()
    }

    /// Pushes a body, whatever it is.
    pub fn post(&mut self, body: &str) -> Answered {
        self.send_body("POST", "/v1/push", body);
        self.answer()
    }

    /// Pushes what must be right, and gives the receipt.
    pub fn push(&mut self, body: Value) -> Value {
        let answered = self.post(&body.to_string());
        assert_eq!(answered.status, 200, "{body}: {answered:?}");
        answered.json()
    }

    /// Gets JSON.
    pub fn get(&mut self, target: &str) -> Value {
        let answered = self.ask("GET", target);
        assert_eq!(answered.status, 200, "{target}: {answered:?}");
        answered.json()
    }

    /// Reads the next answer.
    pub fn answer(&mut self) -> Answered {
        let head = self.head();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status: u16 = status.unwrap_or_else(|| panic!("a status: {head}"));
        let field = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(':'));
            fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
        };
        let mut body = Vec::new();
        if let Some(length) = field("content-length") {
            body.resize(length.parse().expect("a length"), 0);
            self.stream.read_exact(&mut body).expect("a whole body");
        } else if field("transfer-encoding").is_some() {
            while let Some(part) = self.chunk() {
                body.extend(part);
            }
        }
        Answered { status, head, body: String::from_utf8(body).expect("UTF-8") }
    }

    /// Reads a head, up to its empty line.
    pub fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = self.stream.read_line(&mut head).expect("a line");
            assert_ne!(read, 0, "closed within a head: {head:?}");
        }
        head
    }

    /// The next part of a body in chunks; nothing at its end.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut size = String::new();
        self.stream.read_line(&mut size).expect("the size of a chunk");
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or_else(|_| panic!("a size: {size:?}"));
        let mut part = vec![0; size + 2];
        self.stream.read_exact(&mut part).expect("a whole chunk");
        part.truncate(size);
        (size > 0).then_some(part)
    }

    /// The server says nothing more and closes.
    pub fn ends(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest)),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
}

/// Events as the API tells them.
pub struct EventLines {
    api: Api,
    unread: Vec<u8>,
}

impl EventLines {
    /// Listens; when this is back, the server tells.
    pub fn listen(mut api: Api, query: &str) -> Self {
        api.send("GET", &format!("/v1/events{query}"));
        let head = api.head();
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("application/x-ndjson"), "{head}");
        Self { api, unread: Vec::new() }
    }

    /// The next event.
    pub fn event(&mut self) -> Value {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return serde_json::from_slice(&line).expect("a line of JSON");
            }
            let part = self.api.chunk().expect("events do not end");
            self.unread.extend(part);
        }
    }

    /// The next event of this name; others are passed over.
    pub fn event_named(&mut self, name: &str) -> Value {
        loop {
            let event = self.event();
            if event["event"] == name {
                return event;
            }
        }
    }
}
