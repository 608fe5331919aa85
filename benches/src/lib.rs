//! What the floors and the load generator share: the least of RFC 6455 that both sides need to be right.
//!
//! Nothing here is used by wootz itself: a mistake in its codec must not be repeated in what measures it.

pub mod floor;
pub mod wire;
