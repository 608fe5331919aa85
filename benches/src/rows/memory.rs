//! What an idle connection holds in user space.

use std::io;
use std::path::Path;

use super::{ROUNDS, Row, serve};
use crate::Programs;
use crate::herd::Herd;
use crate::server::Server;
use crate::statistics::{Rounds, take_turns};
use crate::table::{Reach, Table};

const CONNECTIONS: usize = 10_000;
/// Fewer through the real binary: each message is a process there.
const CONNECTIONS_OF_BINARY: usize = 1_000;
const MESSAGE_BYTES: usize = 16 * 1024;
/// Connections whose message is under way at the same time.
const AT_ONCE: usize = 50;

/// The row.
pub const ROW: Row = Row { name: "memory", doing: "user-space bytes per idle connection", measure };

fn measure(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let (floor, ours) = take_turns(ROUNDS, || embedded(&programs.floor_tokio), || embedded(&programs.echo))?;
    table.add(
        "user-space bytes per idle connection: 10,000, each after one 16 KiB message",
        "bytes",
        &ours,
        ("tokio floor", &floor),
        Reach::AtMost(2_000.0),
    );
    let without = binary(programs, "pipes.requests=false")?;
    let with = binary(programs, "pipes.requests=true")?;
    table.add(
        "the same of `wootz serve -- /bin/cat`, 1,000, with and without `pipes.requests`",
        "bytes",
        &Rounds::new(vec![with]),
        ("without", &Rounds::new(vec![without])),
        Reach::Shown,
    );
    Ok(())
}

fn embedded(program: &Path) -> io::Result<f64> {
    per_connection(Server::start(program, &["{address}"])?, CONNECTIONS, 1)
}

fn binary(programs: &Programs, setting: &str) -> io::Result<f64> {
    // As many calls as run later leave their high-water mark in the allocator first: it is not the idle connections'.
    per_connection(serve(programs, &[setting], &["/bin/cat"])?, CONNECTIONS_OF_BINARY, AT_ONCE)
}

fn per_connection(mut server: Server, connections: usize, first: usize) -> io::Result<f64> {
    let payload = vec![b'm'; MESSAGE_BYTES];
    // The first ones pay for what all of them share.
    Herd::connect(server.address, first)?.echo_once_each(&payload, first)?;
    let before = server.settled(Server::anonymous_bytes)?;
    let mut herd = Herd::connect(server.address, connections)?;
    herd.echo_once_each(&payload, AT_ONCE)?;
    let after = server.settled(Server::anonymous_bytes)?;
    drop(herd);
    server.stop()?;
    Ok((after as f64 - before as f64) / connections as f64)
}
