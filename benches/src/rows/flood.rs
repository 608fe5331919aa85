//! One user sends ten thousand messages as fast as the server takes them; what another user notices of it.
//!
//! The flood comes over as many connections as a user may run calls, which is as many as the pool has workers: with the defaults one
//! user can have all of them busy. The script takes five milliseconds, most of them waiting, as one that asks a database.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use wootz_benches::wire;

use super::{Row, serve_pool};
use crate::Programs;
use crate::asking::{Ask as _, Talk};
use crate::client::{self, Heard, Single, next_heard, wrong};
use crate::pinning::SERVER_CORE;
use crate::pool::{Pool, WORKERS};
use crate::statistics::Rounds;
use crate::table::{Reach, Table};

const FLOOD: usize = 10_000;
/// The other user sends ten per second.
const PACE: Duration = Duration::from_millis(100);
/// Quiet and flood take turns, so that both have their share of what else the machine does.
const TURNS: usize = 4;
const QUIET_MESSAGES: usize = 120 / TURNS;
const URI: &str = "/hello";
const ANSWER: &[u8] = b"hello";
const CODE: &str =
    "if ($_SERVER['WOOTZ_EVENT'] === 'validate') { echo $_COOKIE['user']; return; } usleep(5000); echo 'hello';";

/// The row.
pub const ROW: Row = Row { name: "flood", doing: "one user floods, another one waits for answers", measure };

fn measure(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let pool = Pool::start(&programs.php_fpm, SERVER_CORE, CODE)?;
    let wootz = serve_pool(programs, SERVER_CORE, &["identity.provider=application"], &pool)?;
    let mut patient = Talk::new(open_as("1", wootz.address)?, URI, ANSWER);
    let (mut quiet, mut flooded) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let mut left = QUIET_MESSAGES;
        quiet.extend(at_a_pace(&mut patient, || {
            left -= 1;
            left > 0
        })?);
        flooded.extend(thread::scope(|scope| {
            let flood = scope.spawn(|| flood(wootz.address));
            let flooded = at_a_pace(&mut patient, || !flood.is_finished())?;
            flood.join().map_err(|_| wrong("the flood panicked"))??;
            io::Result::Ok(flooded)
        })?);
    }
    let (quiet, flooded) = (Rounds::new(quiet), Rounds::new(flooded));
    table.note(format!(
        "flood: medians {:.2} ms, without it {:.2} ms; {} messages while it lasted.",
        flooded.median(),
        quiet.median(),
        flooded.count()
    ));
    let p99 = |figures: &Rounds| Rounds::new(vec![figures.percentile(99)]);
    table.add(
        "p99 of a user who sends 10 per second while another one sends 10,000",
        "ms",
        &p99(&flooded),
        ("without the flood", &p99(&quiet)),
        Reach::TimesFloor(3.0),
    );
    Ok(())
}

/// The application takes the cookie's word for who it is.
fn open_as(user: &str, address: SocketAddr) -> io::Result<Single> {
    Single::open_with(address, &format!("Cookie: user={user}\r\n"))
}

/// Asks as long as wanted, at the pace; milliseconds.
fn at_a_pace(talk: &mut Talk, mut go_on: impl FnMut() -> bool) -> io::Result<Vec<f64>> {
    let mut figures = Vec::new();
    let mut next = Instant::now();
    loop {
        figures.push(talk.ask()?.as_secs_f64() * 1e3);
        if !go_on() {
            return Ok(figures);
        }
        next += PACE;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// The messages of one turn, all of one user; over when all are answered.
fn flood(address: SocketAddr) -> io::Result<()> {
    thread::scope(|scope| {
        let connections: Vec<_> =
            (0..WORKERS).map(|_| scope.spawn(|| flood_one(address, FLOOD / TURNS / WORKERS))).collect();
        connections.into_iter().try_for_each(|one| one.join().map_err(|_| wrong("a connection panicked"))?)
    })
}

/// Writes without waiting for an answer, and reads the answers meanwhile.
fn flood_one(address: SocketAddr, messages: usize) -> io::Result<()> {
    let (mut stream, mut held) = open_as("12", address)?.into_parts();
    let frames = client::frame(wire::TEXT, URI.as_bytes()).repeat(messages);
    let mut writing = stream.try_clone()?;
    thread::scope(|scope| {
        let writer = scope.spawn(move || writing.write_all(&frames));
        let (mut answered, mut buffer) = (0, [0; 4096]);
        while answered < messages {
            match stream.read(&mut buffer)? {
                0 => return Err(wrong("hung up in the middle of the flood")),
                bytes => held.extend_from_slice(&buffer[..bytes]),
            }
            let mut rest = held.as_slice();
            while let Some(heard) = next_heard(&mut rest)? {
                match heard {
                    Heard::Message(ANSWER) => answered += 1,
                    other => return Err(wrong(format!("in the flood came {other:?}"))),
                }
            }
            held = rest.to_vec();
        }
        writer.join().map_err(|_| wrong("the writer panicked"))?
    })
}
