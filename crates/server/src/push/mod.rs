//! The ways in from outside. Every door parses into one [`Command`], executed in one place.

pub(crate) mod channels;
mod command;
mod fifo;
mod once;
mod pipes;
mod pusher;
mod receipt;
mod records;

pub(crate) use command::{Command, Deliveries, Runs, Wait, execute};
pub use fifo::FifoError;
pub(crate) use fifo::{Directory, GLOBAL_NAME};
pub(crate) use pipes::{GlobalPipe, RequestPipe};
pub(crate) use pusher::{PushError, Pusher};
pub(crate) use receipt::{Outcome, Part, Tally};
