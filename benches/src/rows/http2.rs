//! What WebSocket over HTTP/2 costs, beside the same over TLS and HTTP/1.1: memory of who is idle, processor time of messages.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;

use super::tls::{cpu, launch};
use super::{ROUNDS, Row};
use crate::Programs;
use crate::herd::Herd;
use crate::http2::Streams;
use crate::server::Server;
use crate::statistics::take_turns;
use crate::table::{Reach, Table};
use crate::tls::Certificate;

/// Connections, and WebSockets on each.
const IDLE: [(usize, usize); 2] = [(50, 100), (2_000, 1)];
const AT_ONCE: usize = 50;
const MESSAGE_BYTES: usize = 16 * 1024;

/// WebSockets that talk, all on one connection.
const TALKING: usize = 100;
/// Payload bytes, and messages per round.
const ECHOES: [(usize, usize); 2] = [(64, 30_000), (MESSAGE_BYTES, 6_000)];

/// The row.
pub const ROW: Row = Row { name: "http2", doing: "memory and processor time of WebSocket over HTTP/2", measure };

fn measure(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let certificate = Certificate::make()?;
    let trust = certificate.client(Resumption::disabled())?;
    for (connections, each) in IDLE {
        measure_memory(programs, &certificate, &trust, (connections, each), table)?;
    }
    measure_echo(programs, &certificate, &trust, table)
}

fn measure_memory(
    programs: &Programs,
    certificate: &Certificate,
    trust: &Arc<ClientConfig>,
    (connections, each): (usize, usize),
    table: &mut Table,
) -> io::Result<()> {
    let payload = vec![b'm'; MESSAGE_BYTES];
    let per_websocket = |before: u64, after: u64| (after as f64 - before as f64) / (connections * each) as f64;
    let of_http1 = || {
        let mut server = launch(&programs.tls_echo, certificate)?;
        Herd::connect_secured(server.address, 1, trust)?.echo_once_each(&payload, 1)?;
        let before = server.settled(Server::anonymous_bytes)?;
        let mut herd = Herd::connect_secured(server.address, connections * each, trust)?;
        herd.echo_once_each(&payload, AT_ONCE)?;
        Ok::<_, io::Error>(per_websocket(before, server.settled(Server::anonymous_bytes)?))
    };
    let of_http2 = || {
        let mut server = launch(&programs.tls_echo, certificate)?;
        Streams::connect(server.address, 1, 1, trust)?.echo_once_each(&payload, 1)?;
        let before = server.settled(Server::anonymous_bytes)?;
        let mut streams = Streams::connect(server.address, connections, each, trust)?;
        streams.echo_once_each(&payload, AT_ONCE)?;
        Ok(per_websocket(before, server.settled(Server::anonymous_bytes)?))
    };
    let (theirs, ours) = take_turns(1, of_http1, of_http2)?;
    let what = format!(
        "user-space bytes per idle WebSocket over HTTP/2: {connections} connections with {each} each, after one 16 KiB message"
    );
    table.add(&what, "bytes", &ours, ("TLS and HTTP/1.1", &theirs), Reach::Shown);
    Ok(())
}

fn measure_echo(
    programs: &Programs,
    certificate: &Certificate,
    trust: &Arc<ClientConfig>,
    table: &mut Table,
) -> io::Result<()> {
    let [first, second] = [launch(&programs.tls_echo, certificate)?, launch(&programs.tls_echo, certificate)?];
    let mut herd = Herd::connect_secured(first.address, TALKING, trust)?;
    let mut streams = Streams::connect(second.address, 1, TALKING, trust)?;
    for (bytes, messages) in ECHOES {
        let payload = vec![b'e'; bytes];
        let of_http1 = || {
            let before = cpu(&[&first])?;
            herd.ping_pong(&payload, messages)?;
            Ok::<_, io::Error>((cpu(&[&first])? - before) * 1e6 / messages as f64)
        };
        let of_http2 = || {
            let before = cpu(&[&second])?;
            streams.ping_pong(&payload, messages)?;
            Ok((cpu(&[&second])? - before) * 1e6 / messages as f64)
        };
        let (theirs, ours) = take_turns(ROUNDS, of_http1, of_http2)?;
        let size = if bytes == MESSAGE_BYTES { "16 KiB".to_owned() } else { format!("{bytes} B") };
        let what = format!("server CPU per echo of {size} over HTTP/2: {TALKING} WebSockets on one connection");
        table.add(&what, "µs", &ours, ("TLS and HTTP/1.1, a connection each", &theirs), Reach::Shown);
    }
    Ok(())
}
