//! The minimal server codec of both floors: bytes in, bytes out, and nothing held while nothing is partial.

use std::io;

use crate::wire;

/// Bytes that the shared read buffer of a floor takes in one system call.
pub const READ_BUFFER_BYTES: usize = 64 * 1024;

/// What a floor knows of one connection.
#[derive(Debug, Default)]
pub struct Session {
    /// Bytes of a frame (or a head) that has not arrived as a whole; no memory otherwise.
    held: Vec<u8>,
    stage: Stage,
}

/// How far a connection has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Upgrading,
    Open,
}

/// Whether the connection stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Read on.
    Stay,
    /// Write what is to be written, then hang up.
    Leave,
}

impl Session {
    /// Whether the handshake is over, so that a push reaches this connection.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Takes what one read brought and appends what has to be written: the 101, echoes, pongs, the echo of a close.
    pub fn receive(&mut self, read: &mut [u8], out: &mut Vec<u8>) -> io::Result<Next> {
        if self.held.is_empty() {
            let (used, next) = self.consume(read, out)?;
            self.held.extend_from_slice(&read[used..]);
            return Ok(next);
        }
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(read);
        let (used, next) = self.consume(&mut bytes, out)?;
        if used < bytes.len() {
            bytes.drain(..used);
            self.held = bytes;
        }
        Ok(next)
    }

    fn consume(&mut self, bytes: &mut [u8], out: &mut Vec<u8>) -> io::Result<(usize, Next)> {
        let mut used = 0;
        if self.stage == Stage::Upgrading {
            let Some(length) = wire::head_length(bytes) else { return Ok((0, Next::Stay)) };
            answer_handshake(&bytes[..length], out)?;
            self.stage = Stage::Open;
            used = length;
        }
        while let Some(header) = wire::parse_header(&bytes[used..]) {
            let Some(frame) = bytes[used..].get_mut(..header.frame_bytes()) else { break };
            used += header.frame_bytes();
            let payload = &mut frame[header.header_bytes..];
            let key = header.mask.ok_or_else(|| io::Error::other("a frame without a mask"))?;
            wire::apply_mask(payload, key);
            match header.opcode() {
                wire::TEXT | wire::BINARY => wire::encode(header.opcode(), payload, None, out),
                wire::PING => wire::encode(wire::PONG, payload, None, out),
                wire::CLOSE => {
                    wire::encode(wire::CLOSE, payload, None, out);
                    return Ok((used, Next::Leave));
                }
                _ => return Err(io::Error::other("a frame that no client here sends")),
            }
        }
        Ok((used, Next::Stay))
    }
}

fn answer_handshake(head: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let head = str::from_utf8(head).map_err(io::Error::other)?;
    let key = wire::header_value(head, "sec-websocket-key").ok_or_else(|| io::Error::other("no key"))?;
    let accept = wire::accept_value(key);
    out.extend_from_slice(
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .as_bytes(),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_at_a_time_gives_the_same_answers_and_leaves_nothing_held() {
        let mut bytes = wire::client_request("localhost").into_bytes();
        wire::encode(wire::TEXT, b"hello", Some([9, 8, 7, 6]), &mut bytes);
        let (mut whole, mut bytewise) = (Vec::new(), Vec::new());
        Session::default().receive(&mut bytes.clone(), &mut whole).expect("a right client");
        let mut session = Session::default();
        for byte in bytes {
            session.receive(&mut [byte], &mut bytewise).expect("a right client");
        }
        assert_eq!(whole, bytewise);
        assert!(whole.ends_with(b"\x81\x05hello"));
        assert_eq!(session.held.capacity(), 0);
    }
}
