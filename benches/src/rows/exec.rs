//! A process per message: what the way through the server adds to what the process costs anyway.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Row, serve};
use crate::client::{self, Single, wrong};
use crate::pinning::{SERVER_CORE, pin_this_thread};
use crate::statistics::Rounds;
use crate::table::{Reach, Table};
use crate::{Programs, server::Server};
use wootz_benches::wire;

const CALLS: usize = 400;
/// The default of `application.pass_environment`.
const PASSED_ENVIRONMENT: [&str; 3] = ["PATH", "LANG", "TZ"];
const MESSAGE: &[u8] = b"hello";
/// Unfinished messages of this size make the server large: real memory, held as it holds all others.
const HELD_BYTES_EACH: usize = 64 << 20;
const HOLDERS: usize = 17;
const HELD_BYTES: u64 = 1 << 30;

/// The rows.
pub const ROW: Row = Row { name: "exec", doing: "/bin/cat for each message", measure };

fn measure(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let small = serve(programs, &[], &["/bin/cat"])?;
    let mut large = serve(programs, &["limits.max_message=80MiB"], &["/bin/cat"])?;
    let holders = fill(&mut large)?;
    let mut calls =
        Calls { floor: Floor::start(), to_small: Single::open(small.address)?, to_large: Single::open(large.address)? };
    let [floor, small_rounds, large_rounds] = calls.take()?;
    drop(holders);
    let peer = ("posix_spawn", &floor);
    let limit = Reach::TimesFloor(1.5);
    table.add("`exec` of `/bin/cat`: median from message to reply", "ms", &small_rounds, peer, limit);
    table.add("the same, with 1 GiB held by the server", "ms", &large_rounds, peer, limit);
    Ok(())
}

/// Makes the server hold a gibibyte; it does so as long as the returned clients live.
fn fill(server: &mut Server) -> io::Result<Vec<Single>> {
    let mut holders = Vec::new();
    for _ in 0..HOLDERS {
        let mut holder = Single::open(server.address)?;
        holder.hold(HELD_BYTES_EACH)?;
        holders.push(holder);
    }
    server.wait_until_it_holds(HELD_BYTES)?;
    Ok(holders)
}

struct Calls {
    floor: Floor,
    to_small: Single,
    to_large: Single,
}

impl Calls {
    /// Floor, small server and large server in turn, call by call; milliseconds, medians over all calls.
    /// The spread would be that of single calls and say nothing: only the three thirds of the run are kept.
    fn take(&mut self) -> io::Result<[Rounds; 3]> {
        let frame = client::frame(wire::TEXT, MESSAGE);
        let mut thirds = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..3 {
            let mut figures = [Vec::new(), Vec::new(), Vec::new()];
            for _ in 0..CALLS / 3 {
                figures[0].push(self.floor.call()?);
                figures[1].push(self.to_small.ask(&frame, MESSAGE)?);
                figures[2].push(self.to_large.ask(&frame, MESSAGE)?);
            }
            for (third, figures) in thirds.iter_mut().zip(figures) {
                third.push(median_ms(figures));
            }
        }
        Ok(thirds.map(Rounds::new))
    }
}

fn median_ms(figures: Vec<Duration>) -> f64 {
    Rounds::new(figures.iter().map(|figure| figure.as_secs_f64() * 1e3).collect()).median()
}

/// The same program without a server: a thread that stays on the core of the servers and starts it there.
struct Floor {
    ask: mpsc::Sender<()>,
    took: mpsc::Receiver<io::Result<Duration>>,
}

impl Floor {
    fn start() -> Self {
        let (ask, asked) = mpsc::channel();
        let (answer, took) = mpsc::channel();
        thread::spawn(move || {
            let pinned = pin_this_thread(SERVER_CORE);
            for () in asked {
                let pinned = pinned.as_ref().map_err(|error| wrong(error.to_string()));
                if answer.send(pinned.and_then(|()| spawn_and_wait())).is_err() {
                    return;
                }
            }
        });
        Self { ask, took }
    }

    fn call(&self) -> io::Result<Duration> {
        let gone = || wrong("the thread of the floor is gone");
        self.ask.send(()).map_err(|_| gone())?;
        self.took.recv().map_err(|_| gone())?
    }
}

/// Three pipes, and what the server passes on of its environment: with `LANG` set, cat reads thirteen files of its locale. `Command` calls posix_spawn as long as nothing is asked for
/// that needs a fork.
fn spawn_and_wait() -> io::Result<Duration> {
    let start = Instant::now();
    let mut child = Command::new("/bin/cat")
        .env_clear()
        .envs(PASSED_ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().ok_or_else(|| wrong("no standard input"))?.write_all(MESSAGE)?;
    let output = child.wait_with_output()?;
    let elapsed = start.elapsed();
    match output.status.success() && output.stdout == MESSAGE {
        true => Ok(elapsed),
        false => Err(wrong("cat did not give back what it got")),
    }
}
