//! The protocol as its users see it: both sides in memory, on a virtual clock.

mod bad_frames;
mod closing;
mod extended_connect;
mod handshake;
mod keepalive;
mod messages;
mod pair;
