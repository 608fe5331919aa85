//! The crate against a real client in memory, against OpenSSL over sockets, and with certificates that OpenSSL made.

mod authority;
mod bad_input;
mod certificates;
mod handshakes;
mod messages;
mod openssl;
mod pair;
mod server;
