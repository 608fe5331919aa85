//! Control frames ready to be written: small enough (section 5.5: at most 125 bytes of payload) to need no heap.

use std::fmt;

use crate::close::{self, CloseCode};
use crate::frame::{self, MAX_CONTROL_PAYLOAD_BYTES, Opcode};
use crate::mask::unmask;

/// Two bytes of header, four of mask, the payload.
const MAX_BYTES: usize = 2 + 4 + MAX_CONTROL_PAYLOAD_BYTES;

/// One encoded Ping, Pong or Close, to be written as it is. At most 131 bytes, inline.
#[derive(Clone, PartialEq, Eq)]
pub struct ControlFrame {
    bytes: [u8; MAX_BYTES],
    length: u8,
}

impl ControlFrame {
    /// The bytes to write.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// `payload` comes from a received control frame or from this crate, so it fits.
    pub(crate) fn new(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> Self {
        debug_assert!(opcode.is_control() && payload.len() <= MAX_CONTROL_PAYLOAD_BYTES);
        let mut bytes = [0; MAX_BYTES];
        bytes[0] = frame::FIN | opcode.number();
        bytes[1] = payload.len() as u8;
        let mut start = 2;
        if let Some(mask) = mask {
            bytes[1] |= frame::MASKED;
            bytes[2..6].copy_from_slice(&mask);
            start = 6;
        }
        let end = start + payload.len();
        bytes[start..end].copy_from_slice(payload);
        if let Some(mask) = mask {
            unmask(&mut bytes[start..end], mask);
        }
        Self { bytes, length: end as u8 }
    }

    pub(crate) fn close(code: CloseCode, reason: &str, mask: Option<[u8; 4]>) -> Self {
        let mut payload = [0; MAX_CONTROL_PAYLOAD_BYTES];
        let length = close::write_payload(code, reason, &mut payload);
        Self::new(Opcode::Close, &payload[..length], mask)
    }
}

impl AsRef<[u8]> for ControlFrame {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for ControlFrame {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ControlFrame({:02x?})", self.as_bytes())
    }
}
