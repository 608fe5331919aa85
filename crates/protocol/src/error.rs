//! What a peer can do wrong on an open connection. All of it is the peer's fault, or a limit's; each has one close code.

use std::fmt;

use crate::close::CloseCode;

/// Why a connection was failed (RFC 6455, section 7.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A reserved bit is set that no negotiated extension owns (section 5.2).
    ReservedBits,
    /// Opcode 3–7 or 11–15 (section 5.2).
    ReservedOpcode(u8),
    /// A control frame that says it is one of several (section 5.5).
    FragmentedControlFrame,
    /// A control frame with more than 125 bytes (section 5.5).
    LongControlFrame,
    /// A length in more bytes than it needs (section 5.2).
    NonMinimalLength,
    /// A 64-bit length with its first bit set (section 5.2).
    NegativeLength,
    /// A frame from a client without a mask (section 5.1).
    UnmaskedClientFrame,
    /// A frame from a server with a mask (section 5.1).
    MaskedServerFrame,
    /// A continuation frame where no message was begun (section 5.4).
    UnexpectedContinuation,
    /// A new message before the last fragment of the one before (section 5.4).
    ExpectedContinuation,
    /// A Close frame with a payload of one byte (section 5.5.1).
    TruncatedCloseCode,
    /// A Close frame with a code that may not be sent (section 7.4).
    InvalidCloseCode(u16),
    /// A Close frame whose reason is not UTF-8 (section 5.5.1).
    InvalidUtf8InCloseReason,
    /// A text message that is not UTF-8 (section 8.1).
    InvalidUtf8,
    /// A message over `max_message_bytes`.
    MessageTooLarge,
    /// A message in more than `max_frames` frames.
    TooManyFrames,
}

impl ProtocolError {
    /// The code that is sent to the peer.
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::ReservedBits
            | Self::ReservedOpcode(_)
            | Self::FragmentedControlFrame
            | Self::LongControlFrame
            | Self::NonMinimalLength
            | Self::NegativeLength
            | Self::UnmaskedClientFrame
            | Self::MaskedServerFrame
            | Self::UnexpectedContinuation
            | Self::ExpectedContinuation
            | Self::TruncatedCloseCode
            | Self::InvalidCloseCode(_) => CloseCode::ProtocolError,
            Self::InvalidUtf8InCloseReason | Self::InvalidUtf8 => CloseCode::InvalidPayload,
            Self::MessageTooLarge | Self::TooManyFrames => CloseCode::MessageTooBig,
        }
    }

    /// The short, stable text that is sent to the peer.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bit set",
            Self::ReservedOpcode(_) => "reserved opcode",
            Self::FragmentedControlFrame => "fragmented control frame",
            Self::LongControlFrame => "control frame over 125 bytes",
            Self::NonMinimalLength => "length not in its shortest form",
            Self::NegativeLength => "length over 63 bits",
            Self::UnmaskedClientFrame => "client frame without mask",
            Self::MaskedServerFrame => "server frame with mask",
            Self::UnexpectedContinuation => "continuation of nothing",
            Self::ExpectedContinuation => "new message inside a fragmented one",
            Self::TruncatedCloseCode => "close code cut off",
            Self::InvalidCloseCode(_) => "invalid close code",
            Self::InvalidUtf8InCloseReason => "close reason is not UTF-8",
            Self::InvalidUtf8 => "text is not UTF-8",
            Self::MessageTooLarge => "message too large",
            Self::TooManyFrames => "message in too many frames",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.reason())?;
        match self {
            Self::ReservedOpcode(number) => write!(formatter, " {number}"),
            Self::InvalidCloseCode(number) => write!(formatter, " {number}"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ProtocolError {}
