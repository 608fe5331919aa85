//! The `wootz` command.
//!
//! This crate alone reads configuration and ends the process; what it starts is in `wootz-server` and `wootz-runner`.

mod applications;
mod arguments;
mod client;
mod commands;
mod failure;
mod log;
mod output;
mod problem;
mod resolve;
mod settings;
mod signals;
mod table;

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    // The same binary is the process that starts calls; it has to become it before anything else happens.
    wootz_runner::exec::run_if_spawner();
    let matches = arguments::command().get_matches();
    match commands::run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // There is nobody left to tell where standard error is closed.
            let _ = writeln!(std::io::stderr(), "{failure}");
            failure.exit_code()
        }
    }
}
