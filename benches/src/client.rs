//! One WebSocket client: it opens, asks, and believes nothing that it has not compared.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use wootz_benches::wire;

/// How long any answer may take; a server that needs longer has lost it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The masking key of all clients: a fixed one costs the server what a random one does.
pub const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// What a browser tells of itself in every request and every handshake. In the rows with a peer that is a web server or a bare client
/// both contestants are told it, and both tell it on to the application.
pub const BROWSER: [(&str, &str); 4] = [
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    ("Accept-Language", "en-US,en;q=0.9"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Cookie", "PHPSESSID=l0s3kq5b9m1c7d2v8e6r4t0y2u; theme=dark"),
];

/// The same as header fields, each a line with its end.
pub fn browser_fields() -> String {
    BROWSER.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

/// A client's frame, ready to be written any number of times.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::encode(opcode, payload, Some(MASK), &mut bytes);
    bytes
}

/// The Close that clients send: 1000, no reason.
pub fn close_frame() -> Vec<u8> {
    frame(wire::CLOSE, &1000_u16.to_be_bytes())
}

/// A protocol error of the measured server, as the one kind of error that is used here.
pub fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Connects and upgrades, with further header fields, each a line with its end; returns the open stream (blocking) and what came after the 101.
pub fn open_with(address: SocketAddr, fields: &str) -> io::Result<(TcpStream, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let held = upgrade(&mut stream, address, fields)?;
    Ok((stream, held))
}

/// Upgrades a connection, whatever carries it; returns what came after the 101.
pub fn upgrade(stream: &mut (impl Read + Write), address: SocketAddr, fields: &str) -> io::Result<Vec<u8>> {
    stream.write_all(wire::client_request_with(&address.to_string(), fields).as_bytes())?;
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer)? {
            0 => return Err(wrong("hung up before the 101")),
            bytes => head.extend_from_slice(&buffer[..bytes]),
        }
        if let Some(length) = check_upgrade(&head)? {
            head.drain(..length);
            return Ok(head);
        }
    }
}

/// The length of a right 101 at the start of `bytes`. `None`: it is not there yet.
///
/// # Errors
/// Another status, or another accept value.
pub fn check_upgrade(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(length) = wire::head_length(bytes) else { return Ok(None) };
    let head = str::from_utf8(&bytes[..length]).map_err(io::Error::other)?;
    let status = head.lines().next().unwrap_or_default();
    let accepted = wire::header_value(head, "sec-websocket-accept") == Some(accept_value());
    match status.starts_with("HTTP/1.1 101") && accepted {
        true => Ok(Some(length)),
        false => Err(wrong(format!("no upgrade: {status}"))),
    }
}

/// Computed once: the load generator must not be what is measured.
fn accept_value() -> &'static str {
    static VALUE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    VALUE.get_or_init(|| wire::accept_value(wire::CLIENT_KEY))
}

/// What a server said, seen frame by frame in what was read so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<'b> {
    /// A whole text or binary message.
    Message(&'b [u8]),
    /// A ping: the payload wants a pong.
    Ping(&'b [u8]),
    /// A pong.
    Pong,
    /// A close, with its code if there is one.
    Close(Option<u16>),
}

/// Takes the next whole frame off the front of `bytes`. `None`: more bytes are needed.
pub fn next_heard<'b>(bytes: &mut &'b [u8]) -> io::Result<Option<Heard<'b>>> {
    let Some(header) = wire::parse_header(bytes) else { return Ok(None) };
    let Some(frame) = bytes.get(..header.frame_bytes()) else { return Ok(None) };
    if header.first & 0xF0 != 0x80 || header.mask.is_some() {
        return Err(wrong(format!("a frame that begins {:#04x}, mask {:?}", header.first, header.mask)));
    }
    *bytes = &bytes[header.frame_bytes()..];
    let payload = &frame[header.header_bytes..];
    Ok(Some(match header.opcode() {
        wire::TEXT | wire::BINARY => Heard::Message(payload),
        wire::PING => Heard::Ping(payload),
        wire::PONG => Heard::Pong,
        wire::CLOSE => Heard::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
        opcode => return Err(wrong(format!("opcode {opcode:#x}"))),
    }))
}

/// A blocking client that asks one thing at a time.
pub struct Single {
    stream: TcpStream,
    held: Vec<u8>,
}

impl Single {
    /// Connects and upgrades.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        Self::open_with(address, "")
    }

    /// The same as a browser does it.
    pub fn open_as_browser(address: SocketAddr) -> io::Result<Self> {
        Self::open_with(address, &browser_fields())
    }

    /// The same with further header fields, each a line with its end.
    pub fn open_with(address: SocketAddr, fields: &str) -> io::Result<Self> {
        let (stream, held) = open_with(address, fields)?;
        Ok(Self { stream, held })
    }

    /// Sends a message and waits for `expected`; returns how long that took.
    pub fn ask(&mut self, frame: &[u8], expected: &[u8]) -> io::Result<Duration> {
        let start = Instant::now();
        self.stream.write_all(frame)?;
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer)? {
                0 => return Err(wrong("hung up instead of an answer")),
                bytes => self.held.extend_from_slice(&buffer[..bytes]),
            }
            let elapsed = start.elapsed();
            let mut rest = self.held.as_slice();
            if let Some(Heard::Message(message)) = next_heard(&mut rest)? {
                if message != expected || !rest.is_empty() {
                    return Err(wrong(format!("answered {:?}", String::from_utf8_lossy(message))));
                }
                self.held.clear();
                return Ok(elapsed);
            }
        }
    }

    /// The connection, for who writes and reads in his own way. The buffer has what was read and not yet taken.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.held)
    }

    /// Announces a message of one byte more than `bytes`, sends all but that byte, and keeps quiet.
    pub fn hold(&mut self, bytes: usize) -> io::Result<()> {
        let mut out = Vec::new();
        wire::encode_header(0x80 | wire::BINARY, bytes + 1, Some(MASK), &mut out);
        out.resize(out.len() + bytes, 0x55);
        self.stream.write_all(&out)
    }
}
