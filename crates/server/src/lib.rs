//! The wootz server as a library: a browser's message becomes a call of an [`Application`], and what that replies goes back.
//!
//! The way of a message, one room after the other: [`config`] says how → `listener` (1 accept) → `tls` (2 TLS, where it is set; `http2` above it, where a browser asks) → `http` (3 upgrade) →
//! `identity` (4 who) → `connection` (5 alive) → `dispatch` (6 whose turn) → the application → `connection`. What comes from
//! outside comes through `push`. A `shard` is one thread with its own connections.
//!
//! Start with [`Server`].

#[cfg(not(target_os = "linux"))]
compile_error!(
    "wootz runs on Linux only: it relies on SO_REUSEPORT, descriptors passed over Unix sockets and process groups"
);

mod admission;
mod circuit;
pub mod config;
mod connection;
mod console;
mod control;
mod dispatch;
mod events;
mod http;
mod http2;
mod identity;
mod listener;
mod metrics;
mod push;
mod server;
mod shard;
mod timers;
mod tls;
mod unix_socket;

pub use config::Config;
pub use listener::{ListenError, NetworkError};
pub use metrics::{
    CallStatus, ConnectionStatus, FailureStatus, PushStatus, RefusalStatus, RunnerStatus, Status, WorkerStatus,
};
pub use push::FifoError;
pub use server::{Handle, RunError, Running, Server, StartError};
pub use tls::CertificateStatus;
pub use unix_socket::UnixSocketError;
pub use wootz_runner::{Application, Call, CallError, CallEvent, Caller, ConnectionId, Message, Replies};
