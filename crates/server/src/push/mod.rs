//! The ways in from outside. Every door parses into one [`Command`], executed in one place.

mod command;
mod fifo;
mod pipes;
mod records;

pub(crate) use command::{Delivery, execute};
pub use fifo::FifoError;
pub(crate) use fifo::{Directory, GLOBAL_NAME};
pub(crate) use pipes::{GlobalPipe, RequestPipe};
