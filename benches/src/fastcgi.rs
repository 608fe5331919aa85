//! The least that a client of FastCGI can be: one request, encoded once, written and read by blocking calls.
//!
//! It believes its peer: no deadline, no limit, nobody else to serve. That is what makes it the floor.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wootz_benches::wire;

use crate::asking::Ask;
use crate::client::{BROWSER, PATIENCE, wrong};

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const HEADER_BYTES: usize = 8;

/// What becomes of the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// Each call has its own.
    PerCall,
    /// One for all calls.
    Kept,
}

/// One caller of one script.
pub struct Bare {
    socket: PathBuf,
    connections: Connections,
    kept: Option<UnixStream>,
    request: Vec<u8>,
    expected: &'static [u8],
    read: Vec<u8>,
}

impl Bare {
    /// A GET of `uri` from the script at that socket.
    pub fn new(socket: &Path, script: &Path, connections: Connections, uri: &str, expected: &'static [u8]) -> Self {
        let request = request(script, connections, uri);
        Self { socket: socket.to_owned(), connections, kept: None, request, expected, read: Vec::new() }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Reads to the end of the answer and compares what the script has printed.
    fn check_answer(&mut self, stream: &mut UnixStream) -> io::Result<()> {
        self.read.clear();
        let mut buffer = [0; 8192];
        loop {
            if let Some(printed) = answer(&self.read)? {
                let body = wire::head_length(&printed).map(|head| &printed[head..]);
                return match body == Some(self.expected) {
                    true => Ok(()),
                    false => Err(wrong(format!("PHP printed {:?}", String::from_utf8_lossy(&printed)))),
                };
            }
            match stream.read(&mut buffer)? {
                0 => return Err(wrong("the FastCGI server closed in the middle of an answer")),
                bytes => self.read.extend_from_slice(&buffer[..bytes]),
            }
        }
    }
}

impl Ask for Bare {
    fn ask(&mut self) -> io::Result<Duration> {
        let start = Instant::now();
        let mut stream = match self.kept.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        stream.write_all(&self.request)?;
        self.check_answer(&mut stream)?;
        match self.connections {
            Connections::PerCall => drop(stream),
            Connections::Kept => self.kept = Some(stream),
        }
        Ok(start.elapsed())
    }
}

/// The records of a request with as many parameters as a web server sends.
fn request(script: &Path, connections: Connections, uri: &str) -> Vec<u8> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let filename = script.to_string_lossy();
    let root = script.parent().unwrap_or(Path::new("/")).to_string_lossy();
    let name = format!("/{}", script.file_name().unwrap_or_default().to_string_lossy());
    let parameters = [
        ("SCRIPT_FILENAME", &*filename),
        ("DOCUMENT_ROOT", &*root),
        ("DOCUMENT_URI", &name),
        ("SCRIPT_NAME", &name),
        ("REDIRECT_STATUS", "200"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_SOFTWARE", "bare"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_NAME", "127.0.0.1"),
        ("SERVER_PORT", "8888"),
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", uri),
        ("PATH_INFO", path),
        ("QUERY_STRING", query),
        ("CONTENT_TYPE", "text/plain; charset=utf-8"),
        ("CONTENT_LENGTH", "0"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_PORT", "40000"),
        ("HTTP_HOST", "127.0.0.1:8888"),
        ("HTTP_ORIGIN", "http://127.0.0.1:8888"),
    ];
    let browser = BROWSER.map(|(name, value)| (format!("HTTP_{}", name.replace('-', "_").to_uppercase()), value));
    let browser = browser.iter().map(|(name, value)| (name.as_str(), *value));
    let mut pairs = Vec::new();
    for (name, value) in parameters.into_iter().chain(browser) {
        push_length(name.len(), &mut pairs);
        push_length(value.len(), &mut pairs);
        pairs.extend_from_slice(name.as_bytes());
        pairs.extend_from_slice(value.as_bytes());
    }
    let begin = [0, 1, u8::from(connections == Connections::Kept), 0, 0, 0, 0, 0];
    let records: [(u8, &[u8]); 4] = [(BEGIN_REQUEST, &begin), (PARAMS, &pairs), (PARAMS, b""), (STDIN, b"")];
    let mut bytes = Vec::new();
    for (kind, content) in records {
        let [high, low] = (content.len() as u16).to_be_bytes();
        bytes.extend_from_slice(&[1, kind, 0, 1, high, low, 0, 0]);
        bytes.extend_from_slice(content);
    }
    bytes
}

/// One byte for lengths below 128, four with the highest bit set for others.
fn push_length(length: usize, out: &mut Vec<u8>) {
    match length {
        0..128 => out.push(length as u8),
        _ => out.extend_from_slice(&(0x8000_0000 | length as u32).to_be_bytes()),
    }
}

/// What was printed, once the record that ends the answer is there.
fn answer(mut bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut printed = Vec::new();
    while let Some(&[_, kind, _, _, high, low, padding, _]) = bytes.first_chunk::<HEADER_BYTES>() {
        let content_bytes = usize::from(u16::from_be_bytes([high, low]));
        let Some(content) = bytes.get(HEADER_BYTES..HEADER_BYTES + content_bytes) else { return Ok(None) };
        match kind {
            STDOUT => printed.extend_from_slice(content),
            // The exit status and the protocol's own are zero.
            END_REQUEST if content.get(..5) == Some(&[0; 5]) => return Ok(Some(printed)),
            _ => return Err(wrong(format!("a record of type {kind}: {:?}", String::from_utf8_lossy(content)))),
        }
        let Some(rest) = bytes.get(HEADER_BYTES + content_bytes + usize::from(padding)..) else { return Ok(None) };
        bytes = rest;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"\x01\x06\0\x01\0\x05\x03\0hello...\x01\x03\0\x01\0\x08\0\0\0\0\0\0\0\0\0\0";

    #[test]
    fn an_answer_cut_anywhere_is_not_there_yet() {
        for cut in 0..ANSWER.len() {
            assert_eq!(answer(&ANSWER[..cut]).expect("nothing is wrong yet"), None);
        }
        assert_eq!(answer(ANSWER).expect("a right answer").as_deref(), Some(b"hello".as_slice()));
    }

    #[test]
    fn standard_error_and_an_exit_status_are_wrong_answers() {
        assert!(answer(b"\x01\x07\0\x01\0\x04\0\0oops").is_err());
        assert!(answer(b"\x01\x03\0\x01\0\x08\0\0\0\0\0\x01\0\0\0\0").is_err());
    }

    #[test]
    fn long_values_have_a_length_of_four_bytes() {
        let mut out = Vec::new();
        push_length(127, &mut out);
        push_length(128, &mut out);
        assert_eq!(out, [127, 0x80, 0, 0, 128]);
    }
}
