//! Connect, upgrade, close: how fast guests come and go.

use std::io;

use super::{ROUNDS, Row, serve, websocketd};
use crate::Programs;
use crate::lifetimes::{Lifetime, live};
use crate::server::Server;
use crate::statistics::{Rounds, take_turns};
use crate::table::{Reach, Table};

const HANDSHAKES: usize = 6_000;
/// websocketd starts a process for each: fewer of them take as long.
const HANDSHAKES_OF_PEER: usize = 1_000;
const AT_ONCE: usize = 16;

/// The rows.
pub const ROW: Row = Row { name: "handshakes", doing: "guests come and go", measure };

fn measure(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let application = ["/bin/cat"];
    let peer = websocketd(programs, &application)?;
    let wootz = serve(programs, &[], &application)?;
    let (theirs, ours) = take_turns(ROUNDS, || round(&peer, HANDSHAKES_OF_PEER), || round(&wootz, HANDSHAKES))?;
    wootz.stop()?;
    table.add(
        "handshakes with guests (connect, upgrade, close)",
        "/s",
        &ours,
        ("websocketd", &theirs),
        Reach::TimesPeer(3.0),
    );
    let bare = serve(programs, &["pipes.requests=false"], &application)?;
    let bare_rounds = (0..ROUNDS).map(|_| round(&bare, HANDSHAKES)).collect::<io::Result<Vec<f64>>>()?;
    table.add(
        "the same with `pipes.requests = false`",
        "/s",
        &Rounds::new(bare_rounds),
        ("websocketd", &theirs),
        Reach::Shown,
    );
    Ok(())
}

fn round(server: &Server, count: usize) -> io::Result<f64> {
    let plan = Lifetime { address: server.address, fields: "", messages: 0, message: b"", answer: b"" };
    Ok(count as f64 / live(&plan, count, AT_ONCE)?.as_secs_f64())
}
