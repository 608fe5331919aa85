//! The least that a client of HTTP can be: one request, encoded once, over one kept connection.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use wootz_benches::wire;

use crate::asking::Ask;
use crate::client::{PATIENCE, browser_fields, wrong};

/// One connection to a server of HTTP/1.1.
pub struct Bare {
    stream: TcpStream,
    request: Vec<u8>,
    expected: &'static [u8],
    read: Vec<u8>,
}

impl Bare {
    /// Connects; each question is a GET of `target`, as a browser asks.
    pub fn connect(address: SocketAddr, target: &str, expected: &'static [u8]) -> io::Result<Self> {
        Self::connect_with(address, target, "", expected)
    }

    /// The same with the fields that a reverse proxy adds, and two of wootz's: the server has as much to read from both contestants.
    pub fn connect_as_proxy(address: SocketAddr, target: &str, expected: &'static [u8]) -> io::Result<Self> {
        let fields = format!(
            "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: {address}\r\nX-Forwarded-Proto: http\r\n\
             X-Request-Id: 0123456789abcdef0123456789abcdef\r\n\
             Wootz-Event: message\r\nWootz-Connection: 0123456789abcdef0123456789abcdef\r\n"
        );
        Self::connect_with(address, target, &fields, expected)
    }

    fn connect_with(address: SocketAddr, target: &str, fields: &str, expected: &'static [u8]) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let browser = browser_fields();
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nOrigin: http://{address}\r\n{browser}{fields}\r\n");
        Ok(Self { stream, request: request.into_bytes(), expected, read: Vec::new() })
    }
}

impl Ask for Bare {
    fn ask(&mut self) -> io::Result<Duration> {
        let start = Instant::now();
        self.stream.write_all(&self.request)?;
        self.read.clear();
        let mut buffer = [0; 8192];
        loop {
            match self.stream.read(&mut buffer)? {
                0 => return Err(wrong("the HTTP server closed instead of an answer")),
                bytes => self.read.extend_from_slice(&buffer[..bytes]),
            }
            if let Some(body) = answer(&self.read)? {
                return match body == self.expected {
                    true => Ok(start.elapsed()),
                    false => Err(wrong(format!("answered {:?}", String::from_utf8_lossy(&body)))),
                };
            }
        }
    }
}

/// The body of the answer in `bytes`, once it is there as a whole.
fn answer(bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let Some(head_bytes) = wire::head_length(bytes) else { return Ok(None) };
    let head = str::from_utf8(&bytes[..head_bytes]).map_err(io::Error::other)?;
    let rest = &bytes[head_bytes..];
    if !head.starts_with("HTTP/1.1 200") {
        return Err(wrong(format!("answered {}", head.lines().next().unwrap_or_default())));
    }
    if wire::header_value(head, "transfer-encoding") == Some("chunked") {
        return chunked(rest);
    }
    let length = wire::header_value(head, "content-length").and_then(|length| length.parse().ok());
    let length: usize = length.ok_or_else(|| wrong("an answer without a length"))?;
    Ok(rest.get(..length).map(<[u8]>::to_vec))
}

fn chunked(mut bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let Some(line) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
        let size = str::from_utf8(&bytes[..line]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.ok_or_else(|| wrong("a chunk without a size"))?;
        let Some(chunk) = bytes.get(line + 2..line + 2 + size + 2) else { return Ok(None) };
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(&chunk[..size]);
        bytes = &bytes[line + 2 + size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_with_a_length_and_in_chunks_are_whole_at_their_last_byte() {
        let with_length = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".as_slice();
        let in_chunks =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n".as_slice();
        for bytes in [with_length, in_chunks] {
            for cut in 0..bytes.len() {
                assert_eq!(answer(&bytes[..cut]).expect("nothing is wrong yet"), None);
            }
            assert_eq!(answer(bytes).expect("a right answer").as_deref(), Some(b"hello".as_slice()));
        }
    }

    #[test]
    fn another_status_is_a_wrong_answer() {
        assert!(answer(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").is_err());
    }
}
