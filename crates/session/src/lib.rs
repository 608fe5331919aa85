//! Who a cookie or a token is. Nothing here knows a WebSocket, and nothing here ever writes: sessions are the site's own.
//!
//! [`cookie`] finds the session's id as PHP finds it, [`store`] reads what the site has stored under it, [`serialize`] finds
//! the user in that without building anything, [`jwt`] verifies tokens instead.

pub mod cookie;
mod id;
pub mod jwt;
pub mod serialize;
pub mod store;

pub use id::SessionId;

/// A user's id is at most so long: it stands in variables and in the name of a pipe.
pub const MAX_USER_BYTES: usize = 128;
