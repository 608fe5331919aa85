//! The hostile browser: bytes as the test wants them, right or wrong.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::DEADLINE;

/// The example key of RFC 6455, section 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The answer to [`KEY`] in the same section.
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The mask of all frames of the tests.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// First bytes of frames.
pub const FIN: u8 = 0x80;
/// A text frame that is a whole message.
pub const TEXT: u8 = FIN | 1;
/// A binary frame that is a whole message.
pub const BINARY: u8 = FIN | 2;
/// A Close frame.
pub const CLOSE: u8 = FIN | 8;
/// A Ping frame.
pub const PING: u8 = FIN | 9;
/// A Pong frame.
pub const PONG: u8 = FIN | 10;

/// A handshake that every server accepts, with more fields. Each field ends with CRLF.
pub fn handshake(address: SocketAddr, target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
}

/// A masked frame with a minimal length.
pub fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = head(first, payload.len());
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The head of a masked frame, without the mask.
fn head(first: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(0x80 | u8::try_from(length).expect("small")),
        126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&u16::try_from(length).expect("small").to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&u64::try_from(length).expect("64 bits").to_be_bytes());
        }
    }
    bytes
}

/// A text message in one frame.
pub fn text(payload: &str) -> Vec<u8> {
    frame(TEXT, payload)
}

/// A Close with a code and a reason.
pub fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(CLOSE, [&code.to_be_bytes()[..], reason].concat())
}

/// An answer to a request that was no handshake, or a refused one.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The status line and the fields, as they came.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its first byte.
    pub first: u8,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The next one. None: the server closed.
    pub fn read(from: &mut impl Read) -> Option<Self> {
        let first = byte(from)?;
        let length = byte(from).expect("a length");
        assert_eq!(length & 0x80, 0, "a server never masks");
        let length = match length {
            126 => u64::from(u16::from_be_bytes(bytes(from))),
            127 => u64::from_be_bytes(bytes(from)),
            small => u64::from(small),
        };
        let mut payload = vec![0; usize::try_from(length).expect("it fits")];
        from.read_exact(&mut payload).expect("a whole frame");
        Some(Self { first, payload })
    }

    /// The code of a Close, which it must be. 1005: it has none.
    pub fn close_code(&self) -> u16 {
        assert_eq!(self.first, CLOSE, "a Close was expected, not {self:?}");
        self.payload.get(..2).map_or(1005, |code| u16::from_be_bytes(code.try_into().expect("two bytes")))
    }

    /// The payload as text.
    pub fn text(&self) -> &str {
        assert_eq!(self.first, TEXT, "{self:?}");
        std::str::from_utf8(&self.payload).expect("UTF-8")
    }
}

/// A TCP connection.
pub struct Raw {
    stream: TcpStream,
    address: SocketAddr,
}

impl Raw {
    /// Connects, and says nothing.
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect_timeout(&address, DEADLINE).expect("the server listens"), address)
    }

    /// The same from an address of this machine's own (each of 127.0.0.0/8 is), as another browser would.
    pub fn connect_from(source: [u8; 4], address: SocketAddr) -> Self {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
        bind(&socket, &SocketAddr::from((source, 0))).expect("an address of this machine");
        connect(&socket, &address).expect("the server listens");
        Self::over(socket.into(), address)
    }

    fn over(stream: TcpStream, address: SocketAddr) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        stream.set_write_timeout(Some(DEADLINE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, address }
    }

    /// Connects and opens a WebSocket on `/`.
    pub fn open(address: SocketAddr) -> Self {
        Self::open_with(address, "/", "")
    }

    /// Opens a WebSocket with more fields, each ending with CRLF.
    pub fn open_with(address: SocketAddr, target: &str, fields: &str) -> Self {
        let mut raw = Self::connect(address);
        raw.shake_hands(target, fields);
        raw
    }

    /// Opens a WebSocket on this connection.
    pub fn shake_hands(&mut self, target: &str, fields: &str) {
        self.write(handshake(self.address, target, fields));
        let head = self.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }

    /// Asks for a WebSocket, and expects an answer that gives none.
    pub fn refusal(&mut self, target: &str, fields: &str) -> Answer {
        self.write(handshake(self.address, target, fields));
        self.answer()
    }

    /// The server's end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port of this end.
    pub fn port(&self) -> u16 {
        self.stream.local_addr().expect("a connected socket").port()
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server reads");
    }

    /// Writes bytes to a server that may have closed already.
    pub fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Ends the sending half.
    pub fn shut_down(&self) {
        self.stream.shutdown(Shutdown::Write).expect("a connected socket");
    }

    /// Reads a head, up to its empty line.
    pub fn head(&mut self) -> String {
        read_head(&mut self.stream)
    }

    /// Reads an answer to the end of the connection.
    pub fn answer(&mut self) -> Answer {
        let head = self.head();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let body = String::from_utf8(self.rest()).expect("a body in UTF-8");
        Answer { status, head, body }
    }

    /// Everything up to the end of the connection, which may be a reset.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => bytes,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => bytes,
            Err(error) => panic!("the server did not close: {error}"),
        }
    }

    /// Nothing more comes, and the server closes.
    pub fn ends(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "the end was expected, not {rest:?}");
    }

    /// The next frame. None: the server closed.
    pub fn try_frame(&mut self) -> Option<Frame> {
        Frame::read(&mut self.stream)
    }

    /// The next frame.
    pub fn frame(&mut self) -> Frame {
        self.try_frame().expect("a frame, not the end")
    }

    /// Sends a text and gives the text that comes back.
    pub fn ask(&mut self, payload: &str) -> String {
        self.write(text(payload));
        self.frame().text().to_owned()
    }

    /// The next frame must be a Close; gives its code. 1005: it has none.
    pub fn close_code(&mut self) -> u16 {
        self.frame().close_code()
    }

    /// Waits for as long as this whether the server closes.
    pub fn ended_within(&mut self, patience: Duration) -> bool {
        self.stream.set_read_timeout(Some(patience)).expect("a socket");
        let mut byte = [0];
        let ended = match self.stream.peek(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        };
        self.stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        ended
    }

    /// Whether the server says something within this time.
    pub fn speaks_within(&mut self, patience: Duration) -> bool {
        self.stream.set_read_timeout(Some(patience)).expect("a socket");
        let mut byte = [0];
        let spoke = self.stream.peek(&mut byte).is_ok();
        self.stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        spoke
    }
}

/// Reads a head, up to its empty line.
pub fn read_head(from: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(byte(from).unwrap_or_else(|| panic!("closed within a head: {head:?}")));
    }
    String::from_utf8(head).expect("a head in UTF-8")
}

/// The next byte. None: the server closed.
fn byte(from: &mut impl Read) -> Option<u8> {
    let mut byte = [0];
    match from.read(&mut byte) {
        Ok(0) => None,
        Ok(_) => Some(byte[0]),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("nothing came: {error}"),
    }
}

fn bytes<const COUNT: usize>(from: &mut impl Read) -> [u8; COUNT] {
    let mut bytes = [0; COUNT];
    from.read_exact(&mut bytes).expect("a whole frame head");
    bytes
}
