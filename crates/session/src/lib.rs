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
