//! A process per message (wootz) beside a process per connection (websocketd), and what each of them buys.

use std::io;

use super::{ROUNDS, Row, serve, websocketd};
use crate::Programs;
use crate::herd::Herd;
use crate::lifetimes::{Lifetime, live};
use crate::server::Server;
use crate::statistics::{Rounds, take_turns};
use crate::table::{Reach, Table};

const SAY_HELLO: [&str; 3] = ["/bin/sh", "-c", "echo hello"];
const SAY_HELLO_TO_EACH_LINE: [&str; 3] = ["/bin/sh", "-c", "while read -r line; do echo hello; done"];
const AT_ONCE: usize = 8;
const LIFETIMES: usize = 400;
const LONG_LIFETIMES: usize = 8;
const LONG_MESSAGES: usize = 100;
const IDLE: usize = 200;

/// The rows.
pub const ROW: Row = Row { name: "lifetimes", doing: "a process per message beside a process per connection", measure };

fn measure(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let mut wootz = serve(programs, &[], &SAY_HELLO)?;
    let once = websocketd(programs, &SAY_HELLO)?;
    let mut looping = websocketd(programs, &SAY_HELLO_TO_EACH_LINE)?;
    let (theirs, ours) = take_turns(ROUNDS, || per_second(&once, LIFETIMES, 1), || per_second(&wootz, LIFETIMES, 1))?;
    table.add(
        "connections that live for one message to `sh -c 'echo hello'`",
        "/s",
        &ours,
        ("websocketd", &theirs),
        Reach::Shown,
    );
    let long = LONG_LIFETIMES;
    let (theirs, ours) = take_turns(
        ROUNDS,
        || per_second(&looping, long * 40, LONG_MESSAGES),
        || per_second(&wootz, long, LONG_MESSAGES),
    )?;
    table.add("messages to it, 100 per connection", "/s", &ours, ("websocketd, a loop", &theirs), Reach::Shown);
    let (theirs, ours) = (idle_bytes(&mut looping)?, idle_bytes(&mut wootz)?);
    table.add(
        "memory of an idle connection with its processes",
        "bytes",
        &Rounds::new(vec![ours]),
        ("websocketd, a loop", &Rounds::new(vec![theirs])),
        Reach::Shown,
    );
    table.note(
        "What a process per connection (websocketd) buys: the hundredth message costs no start, and the program may keep state. \
         What it costs: a process and its memory for every open connection, a program that must be a loop, and one mistake in it ends the connection.",
    );
    table.note(
        "What a process per message (wootz) buys: an idle connection holds no process, any command is an application as it is, \
         each message starts clean and is bounded by its own limits. What it costs: one start of a process per message.",
    );
    Ok(())
}

/// Messages per second over `count` connections that each send `messages`.
fn per_second(server: &Server, count: usize, messages: usize) -> io::Result<f64> {
    let plan = Lifetime { address: server.address, fields: "", messages, message: b"world", answer: b"hello" };
    Ok((count * messages) as f64 / live(&plan, count, AT_ONCE)?.as_secs_f64())
}

fn idle_bytes(server: &mut Server) -> io::Result<f64> {
    let before = server.settled(Server::family_bytes)?;
    let herd = Herd::connect(server.address, IDLE)?;
    let after = server.settled(Server::family_bytes)?;
    drop(herd);
    Ok((after as f64 - before as f64) / IDLE as f64)
}
