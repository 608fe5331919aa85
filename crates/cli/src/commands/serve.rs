//! `wootz serve`: settings, log, spawner, server, in this order.
//!
//! Sockets of systemd are taken first, so that nobody else inherits them. The spawner is started while this process is small and has one thread; the limit of descriptors is raised after it,
//! so that calls keep the one that they know.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use clap::ArgMatches;
use listenfd::ListenFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wootz_server::config::{Address, Config, Mode};
use wootz_server::{ListenError, RunnerStatus, Running, StartError};

use crate::applications::Applications;
use crate::failure::Failure;
use crate::output::print;
use crate::problem::Problems;
use crate::resolve::Resolved;
use crate::signals::Signals;
use crate::{log, settings::Settings};

/// Where connections are not limited, a limit of descriptors that holds fewer is worth a word.
const FEW_CONNECTIONS: u64 = 8192;

/// What the server needs besides its connections: runtimes, pipes, calls, sockets in their handshake.
const DESCRIPTORS_OF_OUR_OWN: u64 = 512;

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let (settings, Resolved { mut config, runner, log, warnings }) = super::resolved(matches)?;
    log::start(log);
    if config.listen.addresses.contains(&Address::Systemd) {
        config.listen.inherited = inherited_sockets();
    }
    let applications = Applications::start(runner)?;
    let descriptors = raise_descriptor_limit();
    let signals = Signals::catch().context("signals can't be caught")?;
    log_start(&settings, &applications, &warnings);
    if let Some(descriptors) = descriptors {
        fit_to_descriptors(&mut config, descriptors);
    }
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
        StartError::Listen(
            ListenError::System { .. }
            | ListenError::UnixSocket(_)
            | ListenError::NothingInherited
            | ListenError::WrongSocket { .. },
        )
        | StartError::Pipes(_)
        | StartError::Control(_)
        | StartError::Tls(_)
        | StartError::Keys(_)
        | StartError::Thread(_)
        | StartError::Application(_) => Failure::Failed(error.into()),
    }
}

/// The sockets that systemd opened for this process (sd_listen_fds(3)); from now on no child inherits them.
fn inherited_sockets() -> Vec<Arc<OwnedFd>> {
    let mut passed = ListenFd::from_env();
    let sockets = (0..passed.len()).map(|index| match passed.take_tcp_listener(index) {
        Ok(socket) => socket.map(OwnedFd::from),
        // What is neither of the two is refused by whoever misses it.
        Err(_) => passed.take_unix_listener(index).ok().flatten().map(OwnedFd::from),
    });
    sockets.flatten().map(Arc::new).collect()
}

/// Each connection is a descriptor; the soft limit of most systems is 1024 for the sake of programs that use `select`. Gives the limit
/// from now on. `None`: there is none.
fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, descriptors = limit.current, "the limit of descriptors can't be raised");
    }
    getrlimit(Resource::Nofile).current
}

/// Fits the configuration to the limit of descriptors. Silent sockets get a quarter of them at most: however many there are, a browser can be
/// accepted. A limit of connections that they can't hold is none that an operator can rely on, so the log says it.
fn fit_to_descriptors(config: &mut Config, descriptors: u64) {
    let quarter = usize::try_from(descriptors / 4).unwrap_or(usize::MAX).max(1);
    config.limits.max_handshakes = config.limits.max_handshakes.min(quarter);
    let has_pipes = config.pipes.as_ref().is_some_and(|pipes| pipes.requests);
    let per_connection = if has_pipes { 2 } else { 1 };
    let holds = descriptors.saturating_sub(DESCRIPTORS_OF_OUR_OWN) / per_connection;
    match config.limits.max_connections as u64 {
        0 if holds < FEW_CONNECTIONS => tracing::warn!(
            descriptors,
            "limits.max_connections = 0 sets no limit, but that of open files does, at about {holds} connections: raise it (LimitNOFILE= of the unit, ulimit -Hn)"
        ),
        wanted if wanted > holds => tracing::warn!(
            descriptors,
            "limits.max_connections = {wanted}, but the limit of open files holds about {holds}: raise it (LimitNOFILE= of the unit, ulimit -Hn), or lower the setting"
        ),
        _ => {}
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
    let mut text = String::new();
    for address in running.addresses() {
        match address {
            Address::Tcp(socket) | Address::Plain(socket) => {
                let (scheme, socket) = (super::scheme(config, address), reachable(*socket));
                text.push_str(&format!("wootz: serving {scheme}://{socket}{}\n", config.listen.path));
            }
            Address::Unix(_) | Address::Systemd => {
                text.push_str(&format!("wootz: serving {address}, path {}\n", config.listen.path));
            }
        }
        tracing::info!(%address, path = config.listen.path, "serving");
    }
    let first = running.addresses().iter().find_map(|address| match address {
        Address::Tcp(socket) | Address::Plain(socket) => Some((super::scheme(config, address), reachable(*socket))),
        Address::Unix(_) | Address::Systemd => None,
    });
    if let Some((scheme, address)) = first.filter(|_| config.mode == Mode::Development) {
        let scheme = if scheme == "wss" { "https" } else { "http" };
        text.push_str(&format!("wootz: console {scheme}://{address}/\n"));
    }
    if let Some(address) = running.http_address() {
        text.push_str(&format!("wootz: operator's API http://{address}/\n"));
    }
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
