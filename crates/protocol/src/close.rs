//! Close codes (RFC 6455, section 7.4; IANA's registry; 4000–4999 are wootz's own) and the payload of a Close frame.

use std::borrow::Cow;
use std::fmt;

use crate::error::ProtocolError;
use crate::utf8;

/// A Close frame's payload is at most 125 bytes, two of which are the code.
const MAX_REASON_BYTES: usize = 123;

/// Why a connection ends. Every value may stand in a Close frame: codes that may not are refused by [`CloseCode::try_from`].
///
/// Each says what a client should do; "reconnect" means with a growing, random delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// 1000: the purpose is fulfilled. Don't reconnect.
    Normal,
    /// 1001: the server shuts down, or the page is left. Reconnect.
    GoingAway,
    /// 1002: the peer broke RFC 6455. Don't reconnect: the same client would break it again.
    ProtocolError,
    /// 1003: this kind of message (text or binary) is not served. Don't reconnect.
    UnsupportedData,
    /// 1007: a text message was not UTF-8. Don't reconnect.
    InvalidPayload,
    /// 1008: a rule of this server was broken. Don't reconnect.
    PolicyViolation,
    /// 1009: the message is over the limit. Reconnect, but send smaller messages.
    MessageTooBig,
    /// 1010: the client needed an extension that the server did not grant. Don't reconnect.
    MandatoryExtension,
    /// 1011: the server failed. Reconnect.
    InternalError,
    /// 1012: the server restarts. Reconnect after a random delay.
    ServiceRestart,
    /// 1013: the server is busy, or the client read too slowly. Reconnect later.
    TryAgainLater,
    /// 4401: the session ended. Sign in first, then reconnect.
    SessionEnded,
    /// 4408: the client was silent and answered no ping. Reconnect.
    SilentPeer,
    /// Any other code that may be sent: 1014 and 3000–4999. Made by [`CloseCode::try_from`] only.
    #[non_exhaustive]
    Other(u16),
}

/// The number can't stand in a Close frame: it is reserved, unassigned or out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidCloseCode(pub u16);

impl fmt::Display for InvalidCloseCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} is no close code that may be sent", self.0)
    }
}

impl std::error::Error for InvalidCloseCode {}

impl CloseCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::ProtocolError => 1002,
            Self::UnsupportedData => 1003,
            Self::InvalidPayload => 1007,
            Self::PolicyViolation => 1008,
            Self::MessageTooBig => 1009,
            Self::MandatoryExtension => 1010,
            Self::InternalError => 1011,
            Self::ServiceRestart => 1012,
            Self::TryAgainLater => 1013,
            Self::SessionEnded => 4401,
            Self::SilentPeer => 4408,
            Self::Other(number) => number,
        }
    }
}

impl TryFrom<u16> for CloseCode {
    type Error = InvalidCloseCode;

    fn try_from(number: u16) -> Result<Self, InvalidCloseCode> {
        Ok(match number {
            1000 => Self::Normal,
            1001 => Self::GoingAway,
            1002 => Self::ProtocolError,
            1003 => Self::UnsupportedData,
            1007 => Self::InvalidPayload,
            1008 => Self::PolicyViolation,
            1009 => Self::MessageTooBig,
            1010 => Self::MandatoryExtension,
            1011 => Self::InternalError,
            1012 => Self::ServiceRestart,
            1013 => Self::TryAgainLater,
            4401 => Self::SessionEnded,
            4408 => Self::SilentPeer,
            1014 | 3000..=4999 => Self::Other(number),
            // Section 7.4.1: 1004, 1005, 1006 and 1015 MUST NOT be set in a Close frame. Section 7.4.2: 0–999 are not used,
            // 1016–2999 wait for a future version, and nothing is said of 5000 and above.
            0..=999 | 1004..=1006 | 1015..=2999 | 5000.. => return Err(InvalidCloseCode(number)),
        })
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.number())
    }
}

/// What a peer's Close frame said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame<'b> {
    /// Why the peer ends the connection.
    pub code: CloseCode,
    /// The peer's words, often empty. Not to be shown to a user as if it were the server's text.
    pub reason: Cow<'b, str>,
}

impl<'b> CloseFrame<'b> {
    /// Reads the payload of a Close frame. An empty one is legal and says nothing: `None`.
    pub(crate) fn parse(payload: &'b [u8]) -> Result<Option<Self>, ProtocolError> {
        let Some((number, reason)) = payload.split_first_chunk::<2>() else {
            // Section 5.5.1: if there is a body, the first two bytes MUST be the code.
            return if payload.is_empty() { Ok(None) } else { Err(ProtocolError::TruncatedCloseCode) };
        };
        let code = CloseCode::try_from(u16::from_be_bytes(*number))
            .map_err(|InvalidCloseCode(number)| ProtocolError::InvalidCloseCode(number))?;
        let reason = utf8::whole(reason).map_err(|_| ProtocolError::InvalidUtf8InCloseReason)?;
        Ok(Some(Self { code, reason: Cow::Borrowed(reason) }))
    }

    /// The same frame, independent of the bytes it was read from.
    pub fn into_owned(self) -> CloseFrame<'static> {
        CloseFrame { code: self.code, reason: Cow::Owned(self.reason.into_owned()) }
    }
}

/// Writes a Close frame's payload into `out` and returns its length. A reason that is too long ends at a character's end.
pub(crate) fn write_payload(code: CloseCode, reason: &str, out: &mut [u8; 125]) -> usize {
    let reason = &reason.as_bytes()[..reason.floor_char_boundary(MAX_REASON_BYTES)];
    out[..2].copy_from_slice(&code.number().to_be_bytes());
    out[2..2 + reason.len()].copy_from_slice(reason);
    2 + reason.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_that_may_be_sent_is_read_back_as_itself_and_no_other_is() {
        for number in 0..=u16::MAX {
            let may_be_sent = matches!(number, 1000..=1003 | 1007..=1014 | 3000..=4999);
            match CloseCode::try_from(number) {
                Ok(code) => assert!(may_be_sent && code.number() == number, "{number}"),
                Err(error) => assert!(!may_be_sent && error == InvalidCloseCode(number), "{number}"),
            }
        }
    }

    #[test]
    fn long_reason_ends_at_the_end_of_a_character() {
        let mut payload = [0; 125];
        let length = write_payload(CloseCode::Normal, &"é".repeat(100), &mut payload);
        assert_eq!(length, 2 + 122);
        let frame = CloseFrame::parse(&payload[..length]).unwrap().unwrap();
        assert_eq!(frame.reason, "é".repeat(61));
    }
}
