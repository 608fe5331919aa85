//! The commands, one file each. Each takes its arguments and gives an exit code or a failure.

mod check;
mod config;
mod connections;
mod doctor;
pub(crate) mod proxy;
mod push;
mod serve;
mod status;
mod tail;

use std::ffi::OsString;

use clap::ArgMatches;
use wootz_server::config::{Address, Config};

use crate::arguments;
use crate::failure::Failure;
use crate::problem::Problems;
use crate::resolve::{Resolved, resolve};
use crate::settings::{Settings, Sources};

/// Runs the command that the arguments name.
pub(crate) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("serve", arguments)) => serve::run(arguments),
        Some(("check", arguments)) => check::run(arguments),
        Some(("config", arguments)) => config::run(arguments),
        Some(("push", arguments)) => push::run(arguments),
        Some(("status", arguments)) => status::run(arguments),
        Some(("connections", arguments)) => connections::list(arguments),
        Some(("disconnect", arguments)) => connections::disconnect(arguments),
        Some(("channels", arguments)) => connections::channels(arguments),
        Some(("tail", arguments)) => tail::run(arguments),
        Some(("proxy", arguments)) => proxy::run(arguments),
        Some(("doctor", arguments)) => doctor::run(arguments),
        Some(_) | None => unreachable!("the command line accepts no other command"),
    }
}

/// All sources of this process's settings.
pub(crate) fn sources(matches: &ArgMatches) -> Sources {
    arguments::sources(matches, std::env::vars_os())
}

/// A variable of this process.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// What is spoken at a TCP address.
fn scheme(config: &Config, address: &Address) -> &'static str {
    match address {
        Address::Tcp(_) if config.tls.is_some() => "wss",
        Address::Tcp(_) | Address::Plain(_) | Address::Unix(_) | Address::Systemd => "ws",
    }
}

/// Everything that `serve` needs, or every mistake that keeps it from serving.
fn resolved(matches: &ArgMatches) -> Result<(Settings, Resolved), Failure> {
    let mut problems = Problems::default();
    let sources = sources(matches);
    let settings = Settings::load(&sources, &mut problems);
    let resolved = resolve(&settings, sources.dev, &variable, &mut problems);
    match resolved {
        Some(resolved) if problems.is_empty() => Ok((settings, resolved)),
        Some(_) | None => Err(Failure::Configuration(problems)),
    }
}
