//! One call in, the application, one reply out.
//!
//! A [`Call`] is a browser's message (or another event of its connection) with everything that CGI/1.1 tells an
//! application about it. An [`Application`] runs it and gives its replies to [`Replies`]. [`exec::Exec`] is the
//! application that is a command: each call a fresh process, started by a small spawner process.
//!
//! This crate knows calls and replies. It knows no browser's socket, no channel and no configuration file.

mod application;
mod call;
mod capability;
mod deadline;
mod environment;
mod error;
pub mod exec;
pub mod fastcgi;
pub mod http;
mod pairs;
mod reply;
mod stderr;

pub use application::{Application, CallOutcome, DynApplication, Replies, ReplySink};
pub use call::{Call, CallEvent, ConnectionId, Message, MessageMode, Utf8Bytes};
pub use capability::{Capability, CapabilityKey};
pub use environment::{Caller, CallerBuilder};
pub use error::{ApplicationFault, CallError, EnvironmentFault, Fault, Gone, ProgramError, StartError, StartStep};
pub use reply::{FrameMode, ReplyAssembler, ReplyError, ReplyMode};
