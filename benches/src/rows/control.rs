//! Pushes through the control socket: one to very many, many to one each, and a whole process for one.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::{ROUNDS, Row, serve, serve_runner};
use crate::Programs;
use crate::client::{self, wrong};
use crate::herd::Herd;
use crate::pinning::SERVER_CORE;
use crate::server::{Launch, Listens, Server};
use crate::statistics::{Rounds, take_turns};
use crate::table::{Reach, Table};

/// Client and server have so many sockets each, and may have 20,000 descriptors.
const CONNECTIONS: usize = 10_000;
const PUSHES: usize = 20;
const MESSAGE_BYTES: usize = 128;

/// Kept connections of clients, and as many users.
const CLIENTS: usize = 50;
/// Pushes of a round, a multiple of the clients.
const SINGLE_PUSHES: usize = 20_000;

const PROCESSES: usize = 50;

/// The row.
pub const ROW: Row = Row { name: "control", doing: "pushes through the control socket", measure };

fn measure(programs: &Programs, table: &mut Table) -> io::Result<()> {
    to_many(programs, table)?;
    to_single_users(programs, table)?;
    processes(programs, table)
}

/// One push at a time to everybody, from its request to the last byte that arrives. The herds are too many for both at once.
fn to_many(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let floor = || {
        let mut server = Server::start(&programs.floor_epoll, &["{address}"])?;
        let mut pushes = server.stdin()?;
        let herd = Herd::connect(server.address, CONNECTIONS)?;
        milliseconds(herd, |text| pushes.write_all(format!("{text}\n").as_bytes()))
    };
    let ours = || {
        let mut server = serve(programs, &["pipes.requests=false"], &["/bin/cat"])?;
        let mut control = UnixStream::connect(server.wait_for_file("wootz.sock")?)?;
        let herd = Herd::connect(server.address, CONNECTIONS)?;
        let mut receipt = vec![0; 4096];
        milliseconds(herd, |text| {
            control.write_all(&request(r#"{"all":true}"#, text))?;
            let length = control.read(&mut receipt)?;
            taken(&receipt[..length], CONNECTIONS)
        })
    };
    let (theirs, ours) = take_turns(ROUNDS, floor, ours)?;
    let what = "push of 128 B to 10,000 connections by the control socket: request to last byte, median";
    table.add(what, "ms", &ours, ("bare epoll", &theirs), Reach::TimesFloor(1.3));
    Ok(())
}

fn milliseconds(mut herd: Herd, mut push: impl FnMut(&str) -> io::Result<()>) -> io::Result<f64> {
    let mut times = Vec::with_capacity(PUSHES);
    for number in 0..PUSHES {
        let text = format!("{number:0width$}", width = MESSAGE_BYTES);
        let began = Instant::now();
        push(&text)?;
        herd.receive_everywhere(text.as_bytes())?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Rounds::new(times).median())
}

fn request(to: &str, text: &str) -> Vec<u8> {
    let body = format!(r#"{{"to":{to},"text":"{text}"}}"#);
    format!("POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The whole answer is here, and says that so many connections took it.
fn taken(answer: &[u8], connections: usize) -> io::Result<()> {
    let wanted = format!(r#"{{"reached":{connections},"queued":{connections},"dropped":0}}"#);
    if answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(wanted.as_bytes()) {
        return Ok(());
    }
    Err(wrong(format!("no such receipt: {}", String::from_utf8_lossy(answer))))
}

/// Each client pushes to a user of its own, one push after another; each user is connected and gets it.
fn to_single_users(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let redis = Server::launch(&Launch {
        program: &programs.redis_server,
        arguments: &["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no"],
        core: SERVER_CORE,
        files: &[],
        listens: Listens::Unix("redis.sock"),
    })?;
    let socket = redis.path("redis.sock");
    let settings = ["pipes.requests=false", "identity.provider=application", "listen.shards=1"];
    let mut server = serve_runner(programs, SERVER_CORE, &settings, &["--", "/bin/sh", "-c", "echo $REMOTE_PORT"])?;
    let mut users = Vec::new();
    for _ in 0..CLIENTS {
        users.push(client::open_with(server.address, "")?.0);
    }
    let control = server.wait_for_file("wootz.sock")?;
    let (theirs, ours) =
        take_turns(ROUNDS, || publish(&programs.redis_benchmark, &socket), || push_to_each(&control, &mut users))?;
    let what = "pushes to single users by 50 kept control connections, one at a time each";
    table.add(what, "/s", &ours, ("redis PUBLISH", &theirs), Reach::TimesPeer(0.5));
    Ok(())
}

/// What Redis reaches with as many clients, none of which pipelines.
fn publish(benchmark: &Path, socket: &Path) -> io::Result<f64> {
    let (clients, count) = (CLIENTS.to_string(), SINGLE_PUSHES.to_string());
    let output = Command::new(benchmark)
        .arg("-s")
        .arg(socket)
        .args(["-c", &clients, "-n", &count, "-P", "1", "--csv", "PUBLISH", "user", "hello"])
        .stderr(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let cell = text.lines().last().and_then(|line| line.split(',').nth(1));
    let per_second = cell.and_then(|cell| cell.trim_matches('"').parse().ok());
    per_second.ok_or_else(|| wrong(format!("redis-benchmark said {text}")))
}

fn push_to_each(control: &Path, users: &mut [TcpStream]) -> io::Result<f64> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut clients = Vec::new();
    for (number, user) in users.iter().enumerate() {
        let stream = UnixStream::connect(control)?;
        epoll::add(&poll, stream.as_fd(), EventData::new_u64(number as u64), EventFlags::IN)?;
        let port = user.local_addr()?.port();
        clients.push((stream, request(&format!(r#"{{"user":"{port}"}}"#), "hello")));
    }
    let began = Instant::now();
    let mut sent = clients.len();
    for (stream, request) in &mut clients {
        stream.write_all(request)?;
    }
    let (mut answered, mut events, mut answer) = (0, Vec::<epoll::Event>::with_capacity(CLIENTS), [0; 4096]);
    while answered < SINGLE_PUSHES {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let (stream, request) = &mut clients[event.data.u64() as usize];
            let length = stream.read(&mut answer)?;
            taken(&answer[..length], 1)?;
            answered += 1;
            if sent < SINGLE_PUSHES {
                stream.write_all(request)?;
                sent += 1;
            }
        }
    }
    let per_second = SINGLE_PUSHES as f64 / began.elapsed().as_secs_f64();
    received(users)?;
    Ok(per_second)
}

/// Every push has arrived: `hello` as often as there were pushes, in all.
fn received(users: &mut [TcpStream]) -> io::Result<()> {
    const FRAME: &[u8] = b"\x81\x05hello";
    let mut missing = SINGLE_PUSHES * FRAME.len();
    let mut bytes = vec![0; 64 * 1024];
    for user in users.iter_mut() {
        user.set_nonblocking(true)?;
    }
    let deadline = Instant::now() + client::PATIENCE;
    while missing > 0 {
        for user in users.iter_mut() {
            match user.read(&mut bytes) {
                Ok(0) => return Err(wrong("a user was disconnected")),
                Ok(length) if bytes[..length].iter().all(|byte| FRAME.contains(byte)) => {
                    missing = missing.checked_sub(length).ok_or_else(|| wrong("more than was pushed"))?;
                }
                Ok(_) => return Err(wrong("something else than was pushed")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if Instant::now() > deadline {
            return Err(wrong("pushes are missing"));
        }
    }
    Ok(())
}

/// `wootz push` from its start to its end, beside a process that does nothing.
fn processes(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let server = serve(programs, &["pipes.requests=false"], &["/bin/cat"])?;
    let socket = server.path("wootz.sock");
    let nothing = || run(&PathBuf::from("/bin/true"), &[]);
    let arguments = ["push".as_ref(), "--socket".as_ref(), socket.as_os_str(), "--all".as_ref(), "hello".as_ref()];
    let (theirs, ours) = take_turns(ROUNDS, nothing, || run(&programs.wootz, &arguments))?;
    table.add("`wootz push` as a whole process, median", "ms", &ours, ("/bin/true", &theirs), Reach::AtMost(5.0));
    Ok(())
}

fn run(program: &Path, arguments: &[&std::ffi::OsStr]) -> io::Result<f64> {
    let mut times = Vec::with_capacity(PROCESSES);
    for _ in 0..PROCESSES {
        let began = Instant::now();
        let status = Command::new(program).args(arguments).stdout(Stdio::null()).status()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        if !status.success() {
            return Err(wrong(format!("{}: {status}", program.display())));
        }
    }
    Ok(Rounds::new(times).median())
}
