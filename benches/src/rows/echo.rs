//! Echo inside the process: what a message costs the server when no application is started for it.

use std::io;
use std::path::Path;

use super::{ROUNDS, Row};
use crate::Programs;
use crate::herd::Herd;
use crate::server::Server;
use crate::statistics::take_turns;
use crate::table::{Reach, Table};

const CONNECTIONS: usize = 100;
const MESSAGES: usize = 100_000;
const PAYLOAD: [u8; 64] = [b'e'; 64];

/// The row.
pub const ROW: Row = Row { name: "echo", doing: "echo of 64 B in the embedding example", measure };

struct Contestant {
    server: Server,
    herd: Herd,
}

fn measure(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let mut floor = Contestant::start(&programs.floor_epoll)?;
    let mut wootz = Contestant::start(&programs.echo)?;
    let before = (wootz.server.ticks()?, floor.server.ticks()?);
    let (theirs, ours) = take_turns(ROUNDS, || floor.round(), || wootz.round())?;
    let user_percent = wootz.server.ticks()?.user_percent_since(before.0);
    table.note_user_space("echo", user_percent, floor.server.ticks()?.user_percent_since(before.1));
    table.add(
        "server CPU per echo of 64 B: embedding example, 100 connections",
        "µs",
        &ours,
        ("bare epoll", &theirs),
        Reach::TimesFloor(1.3),
    );
    Ok(())
}

impl Contestant {
    fn start(program: &Path) -> io::Result<Self> {
        let server = Server::start(program, &["{address}"])?;
        let herd = Herd::connect(server.address, CONNECTIONS)?;
        Ok(Self { server, herd })
    }

    fn round(&mut self) -> io::Result<f64> {
        let before = self.server.cpu()?;
        self.herd.ping_pong(&PAYLOAD, MESSAGES)?;
        let used = self.server.cpu()? - before;
        Ok(used.as_secs_f64() * 1e6 / MESSAGES as f64)
    }
}
