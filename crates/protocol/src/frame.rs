//! Frames (RFC 6455, section 5.2): reading a header, writing a frame.
//!
//! ```text
//!  FIN RSV1-3 opcode | MASK length(7) | length(16 or 64) | masking key | payload
//! ```
//! A header is refused at the first of its bytes that is wrong, even if the rest has not arrived.

use bytes::Bytes;

use crate::error::ProtocolError;
use crate::mask::unmask;

pub(crate) const FIN: u8 = 0b1000_0000;
pub(crate) const MASKED: u8 = 0b1000_0000;
const RESERVED_BITS: u8 = 0b0111_0000;
const OPCODE_BITS: u8 = 0b0000_1111;
const LENGTH_BITS: u8 = 0b0111_1111;

/// The longest header: two bytes, a 64-bit length, a mask.
pub(crate) const MAX_HEADER_BYTES: usize = 14;
/// Section 5.5: all control frames MUST have a payload length of 125 bytes or less.
pub(crate) const MAX_CONTROL_PAYLOAD_BYTES: usize = 125;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// 0: the next fragment of a message.
    Continuation,
    /// 1: a text message, or its first fragment.
    Text,
    /// 2: a binary message, or its first fragment.
    Binary,
    /// 8: the beginning, or the answer, of the closing handshake.
    Close,
    /// 9: asks the peer for a [`Opcode::Pong`].
    Ping,
    /// 10: the answer to a [`Opcode::Ping`], or a sign of life nobody asked for.
    Pong,
}

impl Opcode {
    /// The four bits on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    /// Whether it may stand between the fragments of a message.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    fn parse(number: u8) -> Result<Self, ProtocolError> {
        match number {
            0 => Ok(Self::Continuation),
            1 => Ok(Self::Text),
            2 => Ok(Self::Binary),
            8 => Ok(Self::Close),
            9 => Ok(Self::Ping),
            10 => Ok(Self::Pong),
            _ => Err(ProtocolError::ReservedOpcode(number)),
        }
    }
}

/// What section 5.1 demands of the frames that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Masking {
    /// They come from a client.
    Required,
    /// They come from a server.
    Forbidden,
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) fin: bool,
    pub(crate) opcode: Opcode,
    /// Zeros where the frame is not masked: unmasking with them changes nothing.
    pub(crate) mask: [u8; 4],
    pub(crate) payload_bytes: u64,
}

impl Header {
    /// Reads a header and its length in bytes from the start of `bytes`; `None` if more is needed.
    ///
    /// `owned_rsv` are the reserved bits that belong to a negotiated extension.
    pub(crate) fn parse(bytes: &[u8], masking: Masking, owned_rsv: u8) -> Result<Option<(Self, usize)>, ProtocolError> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        if first & RESERVED_BITS & !owned_rsv != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let opcode = Opcode::parse(first & OPCODE_BITS)?;
        let fin = first & FIN != 0;
        if opcode.is_control() && !fin {
            return Err(ProtocolError::FragmentedControlFrame);
        }

        let Some((&second, rest)) = rest.split_first() else { return Ok(None) };
        match (masking, second & MASKED != 0) {
            (Masking::Required, false) => return Err(ProtocolError::UnmaskedClientFrame),
            (Masking::Forbidden, true) => return Err(ProtocolError::MaskedServerFrame),
            (Masking::Required, true) | (Masking::Forbidden, false) => {}
        }
        let short_length = second & LENGTH_BITS;
        if opcode.is_control() && usize::from(short_length) > MAX_CONTROL_PAYLOAD_BYTES {
            return Err(ProtocolError::LongControlFrame);
        }

        let Some((payload_bytes, rest)) = parse_length(short_length, rest)? else { return Ok(None) };
        let (mask, rest) = match masking {
            Masking::Forbidden => ([0; 4], rest),
            Masking::Required => match rest.split_first_chunk::<4>() {
                Some((mask, rest)) => (*mask, rest),
                None => return Ok(None),
            },
        };
        Ok(Some((Self { fin, opcode, mask, payload_bytes }, bytes.len() - rest.len())))
    }
}

/// Reads the extended length, if `short_length` says that there is one. Section 5.2: the minimal number of bytes MUST be used.
fn parse_length(short_length: u8, bytes: &[u8]) -> Result<Option<(u64, &[u8])>, ProtocolError> {
    match short_length {
        126 => {
            let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
            let length = u16::from_be_bytes(*length);
            if length < 126 { Err(ProtocolError::NonMinimalLength) } else { Ok(Some((u64::from(length), rest))) }
        }
        127 => {
            if bytes.first().is_some_and(|first| first & 0x80 != 0) {
                return Err(ProtocolError::NegativeLength);
            }
            let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return Ok(None) };
            let length = u64::from_be_bytes(*length);
            if length <= u64::from(u16::MAX) { Err(ProtocolError::NonMinimalLength) } else { Ok(Some((length, rest))) }
        }
        length => Ok(Some((u64::from(length), bytes))),
    }
}

/// A whole text message as a server sends it. One allocation; clones share it, so one encoding serves any number of peers.
pub fn encode_text(text: &str) -> Bytes {
    encode_message(Opcode::Text, text.as_bytes())
}

/// A whole binary message as a server sends it. One allocation; clones share it, so one encoding serves any number of peers.
pub fn encode_binary(payload: &[u8]) -> Bytes {
    encode_message(Opcode::Binary, payload)
}

fn encode_message(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(header_bytes(payload.len()) + payload.len());
    encode_unmasked(opcode, true, payload, &mut out);
    Bytes::from(out)
}

/// Appends one frame as a server sends it. `fin`: the message's last frame.
pub fn encode_unmasked(opcode: Opcode, fin: bool, payload: &[u8], out: &mut Vec<u8>) {
    encode_header(opcode, fin, payload.len(), 0, out);
    out.extend_from_slice(payload);
}

/// Appends one frame as a client sends it. `fin`: the message's last frame. `mask` has to be new and unpredictable for
/// every frame (section 5.3).
pub fn encode_masked(opcode: Opcode, fin: bool, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    encode_header(opcode, fin, payload.len(), MASKED, out);
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[start..], mask);
}

fn encode_header(opcode: Opcode, fin: bool, payload_bytes: usize, masked: u8, out: &mut Vec<u8>) {
    out.push(opcode.number() | if fin { FIN } else { 0 });
    match payload_bytes {
        0..=125 => out.push(masked | payload_bytes as u8),
        126..=0xffff => {
            out.push(masked | 126);
            out.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
}

/// Length of an unmasked frame's header.
fn header_bytes(payload_bytes: usize) -> usize {
    match payload_bytes {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_of_every_length_class_is_read_back_and_every_shorter_part_asks_for_more() {
        for length in [0, 1, 125, 126, 127, 0xffff, 0x1_0000] {
            let mut frame = Vec::new();
            encode_masked(Opcode::Binary, false, &vec![7; length], [1, 2, 3, 4], &mut frame);
            let (header, header_length) = Header::parse(&frame, Masking::Required, 0).unwrap().unwrap();
            let expected =
                Header { fin: false, opcode: Opcode::Binary, mask: [1, 2, 3, 4], payload_bytes: length as u64 };
            assert_eq!((header, header_length), (expected, frame.len() - length));
            for cut in 0..header_length {
                assert_eq!(Header::parse(&frame[..cut], Masking::Required, 0), Ok(None), "{length} cut at {cut}");
            }
        }
    }

    #[test]
    fn wrong_headers_are_refused_at_their_first_wrong_byte() {
        use ProtocolError as E;
        let cases: [(&[u8], ProtocolError); 13] = [
            (&[0xc1], E::ReservedBits),
            (&[0xa1], E::ReservedBits),
            (&[0x91], E::ReservedBits),
            (&[0x83], E::ReservedOpcode(3)),
            (&[0x8f], E::ReservedOpcode(15)),
            (&[0x09], E::FragmentedControlFrame),
            (&[0x08], E::FragmentedControlFrame),
            (&[0x81, 0x05], E::UnmaskedClientFrame),
            (&[0x89, 0xfe], E::LongControlFrame),
            (&[0x88, 0xff], E::LongControlFrame),
            (&[0x81, 0xfe, 0, 125], E::NonMinimalLength),
            (&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], E::NonMinimalLength),
            (&[0x82, 0xff, 0x80], E::NegativeLength),
        ];
        for (bytes, error) in cases {
            assert_eq!(Header::parse(bytes, Masking::Required, 0), Err(error), "{bytes:x?}");
            let one_less = &bytes[..bytes.len() - 1];
            assert_eq!(Header::parse(one_less, Masking::Required, 0), Ok(None), "{one_less:x?}");
        }
        assert_eq!(Header::parse(&[0x81, 0x85], Masking::Forbidden, 0), Err(E::MaskedServerFrame));
    }

    #[test]
    fn reserved_bit_that_an_extension_owns_is_let_pass_and_the_others_are_not() {
        let rsv1 = 0b0100_0000;
        assert!(Header::parse(&[0xc1, 0], Masking::Forbidden, rsv1).unwrap().is_some());
        assert_eq!(Header::parse(&[0xa1, 0], Masking::Forbidden, rsv1), Err(ProtocolError::ReservedBits));
    }

    #[test]
    fn encoded_message_is_one_exact_allocation() {
        for length in [0, 125, 126, 0xffff, 0x1_0000] {
            let payload = vec![b'x'; length];
            let mut expected = Vec::new();
            encode_unmasked(Opcode::Binary, true, &payload, &mut expected);
            assert_eq!(encode_binary(&payload), expected);
            assert_eq!(header_bytes(length) + length, expected.len());
        }
    }
}
