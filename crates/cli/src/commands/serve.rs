//! `wootz serve`: settings, log, spawner, server, in this order.
//!
//! The spawner is started while this process is small and has one thread; the limit of descriptors is raised after it,
//! so that calls keep the one that they know.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use clap::ArgMatches;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wootz_server::config::{Config, Mode};
use wootz_server::{ListenError, RunnerStatus, Running, StartError};

use crate::applications::Applications;
use crate::failure::Failure;
use crate::output::print;
use crate::problem::Problems;
use crate::resolve::Resolved;
use crate::signals::Signals;
use crate::{log, settings::Settings};

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let (settings, Resolved { config, runner, log, warnings }) = super::resolved(matches)?;
    log::start(log);
    let applications = Applications::start(runner)?;
    raise_descriptor_limit();
    let signals = Signals::catch().context("signals can't be caught")?;
    log_start(&settings, &applications, &warnings);
    let announced = config.clone();
    let running = applications.server(config).start().map_err(start_failure)?;
    if let Err(error) = signals.serve(running.handle()) {
        running.handle().stop();
        running.wait().context("the server has failed")?;
        return Err(Failure::Failed(anyhow::Error::new(error).context("signals can't be served")));
    }
    announce(&announced, &running);
    Ok(running.wait().context("the server has failed")?)
}

fn start_failure(error: StartError) -> Failure {
    match error {
        StartError::Listen(
            ListenError::AddressInUse { .. } | ListenError::NoFreePort { .. } | ListenError::DoorInUse { .. },
        ) => Failure::AddressInUse(error.to_string()),
        StartError::Listen(ListenError::System { .. })
        | StartError::Pipes(_)
        | StartError::Control(_)
        | StartError::Thread(_)
        | StartError::Application(_) => Failure::Failed(error.into()),
    }
}

/// Each connection is a descriptor; the soft limit of most systems is 1024 for the sake of programs that use `select`.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, descriptors = limit.current, "the limit of descriptors can't be raised");
    }
}

fn log_start(settings: &Settings, applications: &Applications, warnings: &Problems) {
    let file = settings.file.as_deref().unwrap_or(Path::new("none"));
    let RunnerStatus { runner, target, .. } = applications.status();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), file = %file.display(), runner, target, "starting");
    for warning in warnings.iter() {
        tracing::warn!("{warning}");
    }
}

/// Says where to connect: in the log, and on standard output for people and for programs that wait for these lines.
fn announce(config: &Config, running: &Running) {
    let address = reachable(running.address());
    let mut text = format!("wootz: serving ws://{address}{}\n", config.listen.path);
    if config.mode == Mode::Development {
        text.push_str(&format!("wootz: console http://{address}/\n"));
    }
    if let Some(address) = running.http_address() {
        text.push_str(&format!("wootz: operator's API http://{address}/\n"));
    }
    tracing::info!(address = %running.address(), path = config.listen.path, "serving");
    if let Err(error) = print(&text) {
        // The server serves nevertheless.
        tracing::warn!(%error, "the address can't be printed");
    }
}

/// An address to connect to: where the server listens on all, this machine is one of them.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
