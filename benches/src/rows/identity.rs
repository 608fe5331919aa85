//! What it costs to know who a browser is: from a session file, from Redis, and again and again while connections are open.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{ROUNDS, Row, serve};
use crate::Programs;
use crate::client::wrong;
use crate::herd::Herd;
use crate::lifetimes::{Lifetime, live};
use crate::pinning::SERVER_CORE;
use crate::server::{Launch, Listens, Server};
use crate::statistics::{Rounds, take_turns};
use crate::table::{Reach, Table};

const HANDSHAKES: usize = 4_000;
const AT_ONCE: usize = 16;

/// Handshakes one after another, for the time that one takes.
const ALONE: usize = 2_000;

/// A login among what a small site keeps besides.
const DATA: &str = "locale|s:5:\"en_GB\";cart|a:2:{i:0;i:17;i:1;i:4;}auth|a:1:{s:4:\"user\";a:2:{s:2:\"id\";i:42;s:4:\"name\";s:5:\"alice\";}}";

/// So that a handshake is answered with 101 only when the user was found.
const REFUSE_GUESTS: &str = "identity.guests=refuse";

const USER_KEY: &str = "identity.session.user_keys=auth.user.id";

/// Connections whose sessions are looked at again, each one of its own.
const WATCHED: usize = 10_000;

/// As often as 100,000 connections with the default of 60 s: 1,667 looks a second.
const RECHECK: &str = "identity.recheck=6s";

const WATCH_FOR: Duration = Duration::from_secs(12);

/// The rows of a handshake.
pub const ROW: Row = Row { name: "identity", doing: "browsers with a session come and go", measure };

/// The row of connections that are open.
pub const RECHECK_ROW: Row =
    Row { name: "recheck", doing: "sessions of open connections are looked at again", measure: recheck };

/// Session files in a directory that goes with this.
struct Sessions(PathBuf);

impl Sessions {
    fn write(count: usize) -> io::Result<Self> {
        let directory = std::env::temp_dir().join(format!("bench-sessions-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let sessions = Self(directory);
        for number in 0..count {
            fs::write(sessions.0.join(format!("sess_{}", id(number))), DATA)?;
        }
        Ok(sessions)
    }

    fn setting(&self) -> String {
        format!("identity.session.store=files:{}", self.0.display())
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn id(number: usize) -> String {
    format!("{number:026}")
}

fn cookie(number: usize) -> String {
    format!("Cookie: PHPSESSID={}\r\n", id(number))
}

fn measure(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let sessions = Sessions::write(1)?;
    let cat = ["/bin/cat"];
    let guests = serve(programs, &["pipes.requests=false", &sessions.setting()], &cat)?;
    let users = serve(programs, &["pipes.requests=false", USER_KEY, REFUSE_GUESTS, &sessions.setting()], &cat)?;
    let (guest, user) = take_turns(ROUNDS, || cpu(&guests, ""), || cpu(&users, &cookie(0)))?;
    guests.stop()?;
    users.stop()?;
    table.add(
        "CPU per handshake with a PHP session in a file",
        "µs",
        &user,
        ("a guest's handshake", &guest),
        Reach::MoreThanFloor(60.0),
    );
    from_redis(programs, table)
}

/// Server CPU per lifetime of a connection, in microseconds.
fn cpu(server: &Server, fields: &str) -> io::Result<f64> {
    let before = server.cpu()?;
    come_and_go(server, fields, HANDSHAKES, AT_ONCE)?;
    Ok((server.cpu()? - before).as_secs_f64() * 1e6 / HANDSHAKES as f64)
}

fn come_and_go(server: &Server, fields: &str, count: usize, at_once: usize) -> io::Result<Duration> {
    let plan = Lifetime { address: server.address, fields, messages: 0, message: b"", answer: b"" };
    live(&plan, count, at_once)
}

/// The floor is a guest's handshake, and then one round trip to the same Redis by a bare socket: what asking once costs.
fn from_redis(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let arguments = ["--port", "{port}", "--bind", "127.0.0.1", "--save", "", "--dir", "{directory}"];
    let redis = Server::launch(&Launch {
        program: &programs.redis_server,
        arguments: &arguments,
        core: SERVER_CORE,
        files: &[],
        listens: Listens::Tcp,
    })?;
    let mut bare = Bare::connect(&redis)?;
    bare.ask(&["SET", &format!("PHPREDIS_SESSION:{}", id(0)), DATA])?;
    let store = format!("identity.session.store=redis://{}/0", redis.address);
    let guests = serve(programs, &["pipes.requests=false", &store], &["/bin/cat"])?;
    let users = serve(programs, &["pipes.requests=false", USER_KEY, REFUSE_GUESTS, &store], &["/bin/cat"])?;
    let key = format!("PHPREDIS_SESSION:{}", id(0));
    let guest_and_round_trip = || {
        let guest = alone(&guests, "")?;
        let start = Instant::now();
        for _ in 0..ALONE {
            bare.ask(&["GET", &key])?;
        }
        Ok(guest + start.elapsed().as_secs_f64() * 1e6 / ALONE as f64)
    };
    let (floor, ours) = take_turns(ROUNDS, guest_and_round_trip, || alone(&users, &cookie(0)))?;
    guests.stop()?;
    users.stop()?;
    redis.stop()?;
    table.add(
        "handshake with a PHP session in Redis, one after another",
        "µs",
        &ours,
        ("a guest's, and a round trip to Redis", &floor),
        Reach::TimesFloor(1.0),
    );
    Ok(())
}

fn alone(server: &Server, fields: &str) -> io::Result<f64> {
    Ok(come_and_go(server, fields, ALONE, 1)?.as_secs_f64() * 1e6 / ALONE as f64)
}

/// A client of Redis that does nothing but ask.
struct Bare(TcpStream);

impl Bare {
    fn connect(redis: &Server) -> io::Result<Self> {
        let stream = TcpStream::connect(redis.address)?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    fn ask(&mut self, words: &[&str]) -> io::Result<()> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.0.write_all(request.as_bytes())?;
        let mut answer = [0; 1024];
        let read = self.0.read(&mut answer)?;
        match answer.first() {
            Some(b'+' | b'$') if read > 3 && answer[..read].ends_with(b"\r\n") => Ok(()),
            _ => Err(wrong(format!("Redis answered {:?}", String::from_utf8_lossy(&answer[..read])))),
        }
    }
}

fn recheck(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let sessions = Sessions::write(WATCHED)?;
    let without = share(programs, &sessions, "identity.recheck=0")?;
    let with = share(programs, &sessions, RECHECK)?;
    table.add(
        "100,000 sessions looked at again each minute (10,000 connections, each every 6 s)",
        "% of a core",
        &Rounds::new(vec![with]),
        ("without looking", &Rounds::new(vec![without])),
        Reach::AtMost(2.0),
    );
    Ok(())
}

/// The server's share of a core while its connections are idle.
fn share(programs: &Programs, sessions: &Sessions, recheck: &str) -> io::Result<f64> {
    let settings =
        ["pipes.requests=false", USER_KEY, REFUSE_GUESTS, &sessions.setting(), recheck, "limits.ping_interval=0"];
    let server = serve(programs, &settings, &["/bin/cat"])?;
    let herd = Herd::connect_with(server.address, WATCHED, cookie)?;
    let (before, start) = (server.cpu()?, Instant::now());
    std::thread::sleep(WATCH_FOR);
    let share = 100.0 * (server.cpu()? - before).as_secs_f64() / start.elapsed().as_secs_f64();
    drop(herd);
    server.stop()?;
    Ok(share)
}
