//! The WebSocket protocol (RFC 6455) as values: bytes to frames to messages and back, for both sides.
//!
//! Laws of this crate:
//! - **No IO, no clock, no randomness.** Bytes and [`Instant`](std::time::Instant)s are passed in, frames to write and
//!   deadlines come out, masks and keys are made by the caller. So everything is tested with a virtual clock.
//! - **An idle connection is one small value.** [`Endpoint`] owns no buffer unless a frame or message is partly received;
//!   a message that arrives whole is unmasked and handed out where it lies.
//! - **Memory follows the bytes that arrived**, never a length that was only declared.
//! - **Nothing is let pass.** Whatever the RFC calls wrong fails the connection with the code that the RFC names, as
//!   early as it can be known.
//!
//! ```
//! use std::time::Instant;
//! use wootz_protocol::{Endpoint, Event, Input, Message, Opcode, Role, Settings, encode_masked, encode_text};
//!
//! let (settings, now) = (Settings::default(), Instant::now());
//! let mut server = Endpoint::new(Role::Server, now);
//!
//! let mut bytes = Vec::new();
//! encode_masked(Opcode::Text, true, b"hello", [1, 2, 3, 4], &mut bytes);
//!
//! let mut input = Input::new(&mut bytes);
//! let Some(Event::Message(Message::Text(text))) = server.next_event(&mut input, &settings, now) else {
//!     panic!("one whole text message was received");
//! };
//! assert_eq!(text, "hello");
//! assert_eq!(&encode_text(&text)[..], b"\x81\x05hello");
//! ```

mod close;
mod control;
mod endpoint;
mod error;
mod frame;
pub mod handshake;
mod keepalive;
mod mask;
mod message;
mod utf8;

pub use close::{CloseCode, CloseFrame, InvalidCloseCode};
pub use control::ControlFrame;
pub use endpoint::{Endpoint, Event, Input, MaskSource, Role};
pub use error::ProtocolError;
pub use frame::{Opcode, encode_binary, encode_masked, encode_text, encode_unmasked};
pub use keepalive::{Keepalive, TimeoutAction};
pub use mask::unmask;
pub use message::{Limits, Message};

/// What one server (or client) asks of all its connections. Kept once and passed by reference: a connection stores nothing of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// How large a message may be.
    pub limits: Limits,
    /// When to ping, and how long to wait for an answer.
    pub keepalive: Keepalive,
}
