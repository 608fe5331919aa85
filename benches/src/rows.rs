//! One file per row (or rows) of the table.

mod echo;
mod exec;
mod handshakes;
mod lifetimes;
mod memory;
mod push;

use std::io;

use crate::Programs;
use crate::server::Server;
use crate::table::Table;

/// How often each contestant is measured; the median is shown.
const ROUNDS: usize = 5;

/// One measurement.
pub struct Row {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does, for who waits.
    pub doing: &'static str,
    /// Measures and adds to the table.
    pub measure: fn(&Programs, &mut Table) -> io::Result<()>,
}

/// All of them, in the order of the table.
pub const ALL: [Row; 6] = [memory::ROW, push::ROW, echo::ROW, exec::ROW, handshakes::ROW, lifetimes::ROW];

/// Starts the real server on one core with `application` (program and arguments) behind it.
fn serve(programs: &Programs, settings: &[&str], application: &[&str]) -> io::Result<Server> {
    let mut arguments = vec!["serve", "--listen", "{address}", "--socket", "wootz.sock"];
    for setting in settings.iter().chain(&["pipes.directory=fifo", "log.level=error"]) {
        arguments.extend(["--set", setting]);
    }
    arguments.push("--");
    arguments.extend(application);
    Server::start(&programs.wootz, &arguments)
}

/// Starts websocketd on one core with `application` behind it.
fn websocketd(programs: &Programs, application: &[&str]) -> io::Result<Server> {
    let mut arguments = vec!["--address=127.0.0.1", "--port={port}", "--loglevel=error"];
    arguments.extend(application);
    Server::start(&programs.websocketd, &arguments)
}
