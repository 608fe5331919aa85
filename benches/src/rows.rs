//! One file per row (or rows) of the table.

mod control;
mod echo;
mod exec;
mod flood;
mod fpm;
mod fpm_many;
mod handshakes;
mod http;
mod http2;
mod identity;
mod isolate;
mod lifetimes;
mod memory;
mod push;
mod session;
mod tls;

use std::io;

use crate::Programs;
use crate::pinning::SERVER_CORE;
use crate::pool::Pool;
use crate::server::{Launch, Listens, Server};
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
pub const ALL: [Row; 18] = [
    memory::ROW,
    push::ROW,
    control::ROW,
    echo::ROW,
    exec::ROW,
    handshakes::ROW,
    lifetimes::ROW,
    fpm::ROW,
    fpm_many::ROW,
    fpm_many::NGINX_ROW,
    isolate::ROW,
    flood::ROW,
    http::ROW,
    identity::ROW,
    identity::RECHECK_ROW,
    session::ROW,
    tls::ROW,
    http2::ROW,
];

/// Starts the real server on the core of the servers with `application` (program and arguments) behind it.
fn serve(programs: &Programs, settings: &[&str], application: &[&str]) -> io::Result<Server> {
    serve_runner(programs, SERVER_CORE, settings, &[&["--"], application].concat())
}

/// Starts the real server on a core, with the flags that say how it runs calls.
fn serve_runner(programs: &Programs, core: usize, settings: &[&str], runner: &[&str]) -> io::Result<Server> {
    serve_with_files(programs, core, settings, &[], runner)
}

/// The same with files in its directory, by name and content.
fn serve_with_files(
    programs: &Programs,
    core: usize,
    settings: &[&str],
    files: &[(&str, &str)],
    runner: &[&str],
) -> io::Result<Server> {
    let mut arguments = vec!["serve", "--listen", "{address}", "--socket", "wootz.sock"];
    for setting in settings.iter().chain(&["pipes.directory=fifo", "log.level=error"]) {
        arguments.extend(["--set", setting]);
    }
    arguments.extend(runner);
    let program = &programs.wootz;
    Server::launch(&Launch { program, arguments: &arguments, core, files, listens: Listens::Tcp })
}

/// Starts the real server on a core, with php-fpm behind it.
fn serve_pool(programs: &Programs, core: usize, settings: &[&str], pool: &Pool) -> io::Result<Server> {
    let address = format!("unix:{}", pool.socket().display());
    let script = pool.script();
    serve_runner(programs, core, settings, &["--fastcgi", &address, "--script", &script.to_string_lossy()])
}

/// Starts websocketd on one core with `application` behind it.
fn websocketd(programs: &Programs, application: &[&str]) -> io::Result<Server> {
    let mut arguments = vec!["--address=127.0.0.1", "--port={port}", "--loglevel=error"];
    arguments.extend(application);
    Server::start(&programs.websocketd, &arguments)
}
