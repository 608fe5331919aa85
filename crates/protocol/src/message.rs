//! Messages: what one or more data frames carry, and the putting together of one that did not arrive whole.

use std::borrow::Cow;

use crate::error::ProtocolError;
use crate::utf8::{CutCharacter, InvalidUtf8};

/// How large a message may be. Over either, the connection is failed with 1009.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message after reassembly. Refused at the header that declares more, before memory is taken. Default 1 MiB.
    pub max_message_bytes: usize,
    /// Frames of one message besides its last; empty ones count. Refused at the header of the one too many. Zero: no
    /// fragmented messages. Default 65,536.
    pub max_frames: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_message_bytes: 1024 * 1024, max_frames: 65_536 }
    }
}

/// A whole message. Borrowed from the bytes that were read where it came in one frame and one read, else owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'b> {
    /// Valid UTF-8.
    Text(Cow<'b, str>),
    /// Any bytes.
    Binary(Cow<'b, [u8]>),
}

impl Message<'_> {
    /// The payload, whatever the kind.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The same message, independent of the bytes it was read from. Copies what was borrowed.
    pub fn into_owned(self) -> Message<'static> {
        match self {
            Self::Text(text) => Message::Text(Cow::Owned(text.into_owned())),
            Self::Binary(bytes) => Message::Binary(Cow::Owned(bytes.into_owned())),
        }
    }
}

/// Which data opcode began a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Binary,
}

/// A message of which a part has arrived.
///
/// An extension that changes messages (permessage-deflate) finds its place here: a message whose first frame carries the
/// extension's bit is collected as `Payload::Binary` whatever its opcode, goes through the extension in [`Assembly::finish`],
/// and only then, as a text, through the UTF-8 check.
#[derive(Debug)]
pub(crate) struct Assembly {
    payload: Payload,
    /// Frames so far that were not the last.
    earlier_frames: u32,
}

#[derive(Debug)]
enum Payload {
    Text { text: String, cut: CutCharacter },
    Binary(Vec<u8>),
}

/// Whether the frame that brings a piece is the message's last, so that its end is the message's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    Last,
    Earlier,
}

impl Assembly {
    pub(crate) fn new(kind: Kind) -> Self {
        let payload = match kind {
            Kind::Text => Payload::Text { text: String::new(), cut: CutCharacter::default() },
            Kind::Binary => Payload::Binary(Vec::new()),
        };
        Self { payload, earlier_frames: 0 }
    }

    /// Counts a frame that declares `payload_bytes` and refuses it if it breaks a limit. Takes no memory.
    pub(crate) fn admit_frame(
        &mut self,
        payload_bytes: u64,
        position: Position,
        limits: &Limits,
    ) -> Result<(), ProtocolError> {
        // The last frame ends the cost of a message, so it is never one too many: many a sender of full fragments ends
        // with an empty one.
        if position == Position::Earlier {
            if self.earlier_frames >= limits.max_frames {
                return Err(ProtocolError::TooManyFrames);
            }
            self.earlier_frames += 1;
        }
        let room_bytes = limits.max_message_bytes.saturating_sub(self.received_bytes());
        if payload_bytes > room_bytes as u64 { Err(ProtocolError::MessageTooLarge) } else { Ok(()) }
    }

    fn received_bytes(&self) -> usize {
        match &self.payload {
            Payload::Text { text, cut } => text.len() + cut.len(),
            Payload::Binary(bytes) => bytes.len(),
        }
    }

    /// Appends unmasked bytes. `frame_rest_bytes` is what the frame still brings, `piece` included.
    pub(crate) fn append(
        &mut self,
        piece: &[u8],
        frame_rest_bytes: usize,
        position: Position,
    ) -> Result<(), InvalidUtf8> {
        let growth =
            |length: usize, capacity: usize| growth_bytes(length, capacity, piece.len(), frame_rest_bytes, position);
        match &mut self.payload {
            Payload::Text { text, cut } => {
                text.reserve_exact(growth(text.len() + cut.len(), text.capacity()));
                cut.append(piece, text)
            }
            Payload::Binary(bytes) => {
                bytes.reserve_exact(growth(bytes.len(), bytes.capacity()));
                bytes.extend_from_slice(piece);
                Ok(())
            }
        }
    }

    /// The message, once its last frame is complete.
    pub(crate) fn finish(self) -> Result<Message<'static>, InvalidUtf8> {
        match self.payload {
            Payload::Text { text, cut } => {
                cut.end()?;
                Ok(Message::Text(Cow::Owned(text)))
            }
            Payload::Binary(bytes) => Ok(Message::Binary(Cow::Owned(bytes))),
        }
    }
}

/// How much to reserve before `piece_bytes` are appended: at most as much again as has arrived, and in the last frame
/// no more than is still to come, so that a message of two reads is allocated once and exactly.
fn growth_bytes(
    length: usize,
    capacity: usize,
    piece_bytes: usize,
    frame_rest_bytes: usize,
    position: Position,
) -> usize {
    let needed = length + piece_bytes;
    if needed <= capacity {
        return 0;
    }
    let doubled = needed.saturating_mul(2);
    let target = match position {
        Position::Last => doubled.min(length + frame_rest_bytes),
        Position::Earlier => doubled,
    };
    target - length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_length_takes_no_memory_until_its_bytes_arrive() {
        let mut assembly = Assembly::new(Kind::Binary);
        let limits = Limits { max_message_bytes: 1 << 30, ..Limits::default() };
        assembly.admit_frame(1 << 30, Position::Last, &limits).unwrap();
        assembly.append(&[0; 1000], 1 << 30, Position::Last).unwrap();
        let Payload::Binary(bytes) = &assembly.payload else { panic!("a binary message") };
        assert!(bytes.capacity() <= 2000, "{}", bytes.capacity());
    }

    #[test]
    fn a_message_of_two_reads_is_allocated_once_and_exactly() {
        let mut assembly = Assembly::new(Kind::Text);
        assembly.append(&[b'a'; 9000], 16_384, Position::Last).unwrap();
        let Payload::Text { text, .. } = &assembly.payload else { panic!("a text message") };
        let (place, capacity) = (text.as_ptr(), text.capacity());
        assembly.append(&[b'a'; 7384], 7384, Position::Last).unwrap();
        let Message::Text(text) = assembly.finish().unwrap() else { panic!("a text message") };
        assert_eq!((text.len(), capacity, text.as_ptr()), (16_384, 16_384, place));
    }
}
