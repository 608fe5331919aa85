//! 5 · alive: drives a connection from the 101 to its end. Takes an answered upgrade and an identity, gives messages.

mod calls;
mod driver;
mod mailbox;
mod requests;
mod stream;

pub(crate) use calls::{CountedCall, log_failure};
pub(crate) use driver::{Connection, Opened};
pub(crate) use mailbox::{Ending, Mailbox, MailboxKind, encode};
pub(crate) use requests::{Pushed, Room};
pub(crate) use stream::Stream;
