//! One push to many connections: what each delivery costs the server.

use std::fs::OpenOptions;
use std::io::{self, Write};

use super::{ROUNDS, Row, serve};
use crate::Programs;
use crate::herd::Herd;
use crate::server::Server;
use crate::statistics::take_turns;
use crate::table::{Reach, Table};

pub(super) const CONNECTIONS: usize = 5_000;
const PUSHES: usize = 30;
pub(super) const MESSAGE_BYTES: usize = 128;

/// The row.
pub const ROW: Row = Row { name: "push", doing: "one push to 5,000 connections", measure };

/// Who delivers pushes, and those who get them.
pub(super) struct Contestant {
    server: Server,
    /// A line written here is one push.
    pushes: Box<dyn Write>,
    herd: Herd,
}

fn measure(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let mut floor = Server::start(&programs.floor_epoll, &["{address}"])?;
    let pushes = Box::new(floor.stdin()?);
    let mut floor = Contestant { herd: Herd::connect(floor.address, CONNECTIONS)?, server: floor, pushes };

    let wootz = serve(programs, &[], &["/bin/cat"])?;
    let herd = Herd::connect(wootz.address, CONNECTIONS)?;
    let mut wootz = Contestant::of_wootz(wootz, herd)?;

    let before = (wootz.server.ticks()?, floor.server.ticks()?);
    let (theirs, ours) = take_turns(ROUNDS, || floor.round(), || wootz.round())?;
    let user_percent = wootz.server.ticks()?.user_percent_since(before.0);
    table.note_user_space("push", user_percent, floor.server.ticks()?.user_percent_since(before.1));
    table.add(
        "server CPU per delivered 128 B message: one push to 5,000 connections",
        "µs",
        &ours,
        ("bare epoll", &theirs),
        Reach::TimesFloor(1.2),
    );
    Ok(())
}

impl Contestant {
    /// The real server, with its pipe.
    pub(super) fn of_wootz(mut server: Server, herd: Herd) -> io::Result<Self> {
        let pipe = server.wait_for_file("fifo/global_pipe.fifo")?;
        let pushes = Box::new(OpenOptions::new().write(true).open(pipe)?);
        Ok(Self { server, pushes, herd })
    }

    /// Microseconds per delivery. The next push waits until everybody has got this one, so that none are joined.
    pub(super) fn round(&mut self) -> io::Result<f64> {
        let before = self.server.cpu()?;
        for number in 0..PUSHES {
            let text = format!("{number:0width$}", width = MESSAGE_BYTES);
            self.pushes.write_all(format!("{text}\n").as_bytes())?;
            self.herd.receive_everywhere(text.as_bytes())?;
        }
        let used = self.server.cpu()? - before;
        Ok(used.as_secs_f64() * 1e6 / (PUSHES * CONNECTIONS) as f64)
    }
}
