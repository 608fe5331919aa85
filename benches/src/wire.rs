//! Frames and handshakes, as few lines as can be: enough to be a floor, and enough to notice a wrong answer.

use base64::Engine as _;
use sha1::{Digest as _, Sha1};

/// Opcode of a fragment that continues a message.
pub const CONTINUATION: u8 = 0x0;
/// Opcode of a text message.
pub const TEXT: u8 = 0x1;
/// Opcode of a binary message.
pub const BINARY: u8 = 0x2;
/// Opcode of the closing handshake.
pub const CLOSE: u8 = 0x8;
/// Opcode of a ping.
pub const PING: u8 = 0x9;
/// Opcode of a pong.
pub const PONG: u8 = 0xA;

/// The key that every client here sends; the example of RFC 6455, section 1.3.
pub const CLIENT_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The header of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The first byte: FIN, RSV and opcode.
    pub first: u8,
    /// The masking key, where there is one.
    pub mask: Option<[u8; 4]>,
    /// Bytes that the header takes.
    pub header_bytes: usize,
    /// Bytes of payload that follow it.
    pub payload_bytes: usize,
}

impl Header {
    /// The four low bits of the first byte.
    pub fn opcode(&self) -> u8 {
        self.first & 0x0F
    }

    /// Bytes of the whole frame.
    pub fn frame_bytes(&self) -> usize {
        self.header_bytes + self.payload_bytes
    }
}

/// Reads the header at the start of `bytes`. `None`: it is not there yet as a whole.
pub fn parse_header(bytes: &[u8]) -> Option<Header> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (payload_bytes, mut header_bytes) = match second & 0x7F {
        126 => (u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into(), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize, 10),
        short => (short.into(), 2),
    };
    let mut mask = None;
    if second & 0x80 != 0 {
        mask = Some(bytes.get(header_bytes..header_bytes + 4)?.try_into().ok()?);
        header_bytes += 4;
    }
    Some(Header { first, mask, header_bytes, payload_bytes })
}

/// Appends one unfragmented frame, masked where a key is given.
pub fn encode(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    encode_header(0x80 | opcode, payload.len(), mask, out);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = mask {
        apply_mask(&mut out[start..], key);
    }
}

/// Appends the header of a frame whose payload the caller writes.
pub fn encode_header(first: u8, payload_bytes: usize, mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    out.push(first);
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match payload_bytes {
        0..=125 => out.push(masked | payload_bytes as u8),
        126..=0xFFFF => {
            out.push(masked | 126);
            out.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
    if let Some(key) = mask {
        out.extend_from_slice(&key);
    }
}

/// Masks or unmasks in place, eight bytes at a time.
pub fn apply_mask(payload: &mut [u8], key: [u8; 4]) {
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let eight: [u8; 8] = (&*chunk).try_into().expect("chunks_exact gives eight bytes");
        chunk.copy_from_slice(&(u64::from_ne_bytes(eight) ^ wide).to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= mask;
    }
}

/// The request of a browser whose page came from the same host: `authority` is host and port.
pub fn client_request(authority: &str) -> String {
    client_request_with(authority, "")
}

/// The same with further header fields, each a line with its end.
pub fn client_request_with(authority: &str, fields: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: {authority}\r\nOrigin: http://{authority}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: {CLIENT_KEY}\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
}

/// What `Sec-WebSocket-Accept` has to be for a key.
pub fn accept_value(key: &str) -> String {
    let digest = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// Length of the head at the start of `bytes`, its empty line included. `None`: not all of it is there.
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The value of a header field, by its name in lower case.
pub fn header_value<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_form_come_back_as_they_went() {
        for length in [0, 1, 7, 8, 9, 125, 126, 127, 0xFFFF, 0x1_0000] {
            for mask in [None, Some([1, 2, 3, 250])] {
                let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
                let mut frame = Vec::new();
                encode(BINARY, &payload, mask, &mut frame);
                let header = parse_header(&frame).expect("the whole frame is there");
                assert_eq!((header.first, header.mask, header.frame_bytes()), (0x82, mask, frame.len()));
                let body = &mut frame[header.header_bytes..];
                apply_mask(body, mask.unwrap_or_default());
                assert_eq!(body, payload);
            }
        }
    }

    #[test]
    fn a_header_cut_anywhere_is_not_there_yet() {
        let mut frame = Vec::new();
        encode_header(0x82, 0x1_0000, Some([1, 2, 3, 4]), &mut frame);
        for cut in 0..frame.len() {
            assert_eq!(parse_header(&frame[..cut]), None);
        }
    }

    #[test]
    fn the_accept_value_is_the_one_of_the_rfc() {
        assert_eq!(accept_value(CLIENT_KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
