//! Floor: what the kernel alone costs. One epoll loop, one read per wake-up, one write per answer.
//!
//! `floor_epoll ADDRESS` echoes; each line on its standard input is a push, encoded once and written to everybody.
//! It has no timers, no limits and no care for slow readers: a short write hangs up.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use rustix::event::epoll::{self, EventData, EventFlags};
use wootz_benches::floor::{Next, READ_BUFFER_BYTES, Session};
use wootz_benches::wire;

const LISTENER: u64 = u64::MAX;
const PUSHES: u64 = u64::MAX - 1;

struct Floor {
    poll: rustix::fd::OwnedFd,
    listener: TcpListener,
    /// By descriptor, which the kernel keeps small and dense.
    connections: Vec<Option<Connection>>,
    read: Vec<u8>,
    out: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    session: Session,
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).ok_or_else(|| io::Error::other("usage: floor_epoll ADDRESS"))?;
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let mut pushes = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    watch(&poll, listener.as_fd(), LISTENER)?;
    watch(&poll, pushes.as_fd(), PUSHES)?;
    let mut floor =
        Floor { poll, listener, connections: Vec::new(), read: vec![0; READ_BUFFER_BYTES], out: Vec::new() };
    let mut events: Vec<epoll::Event> = Vec::with_capacity(1024);
    let mut line = Vec::new();
    loop {
        events.clear();
        epoll::wait(&floor.poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            match event.data.u64() {
                LISTENER => floor.accept()?,
                PUSHES => {
                    if floor.push(&mut pushes, &mut line)? == Next::Leave {
                        return Ok(());
                    }
                }
                descriptor => floor.serve(descriptor as usize),
            }
        }
    }
}

fn watch(poll: &rustix::fd::OwnedFd, descriptor: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    Ok(epoll::add(poll, descriptor, EventData::new_u64(id), EventFlags::IN)?)
}

impl Floor {
    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let at = stream.as_raw_fd() as usize;
            watch(&self.poll, stream.as_fd(), at as u64)?;
            if self.connections.len() <= at {
                self.connections.resize_with(at + 1, || None);
            }
            self.connections[at] = Some(Connection { stream, session: Session::default() });
        }
    }

    fn serve(&mut self, at: usize) {
        let Some(Some(connection)) = self.connections.get_mut(at) else { return };
        self.out.clear();
        let next = match (&connection.stream).read(&mut self.read) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => connection.session.receive(&mut self.read[..bytes], &mut self.out),
            Err(error) => Err(error),
        };
        if !self.out.is_empty() && !wrote_all(&connection.stream, &self.out) || !matches!(next, Ok(Next::Stay)) {
            self.connections[at] = None;
        }
    }

    fn push(&mut self, pushes: &mut File, line: &mut Vec<u8>) -> io::Result<Next> {
        let bytes = pushes.read(&mut self.read)?;
        if bytes == 0 {
            return Ok(Next::Leave);
        }
        line.extend_from_slice(&self.read[..bytes]);
        while let Some(end) = line.iter().position(|&byte| byte == b'\n') {
            self.out.clear();
            wire::encode(wire::TEXT, &line[..end], None, &mut self.out);
            line.drain(..=end);
            for slot in &mut self.connections {
                let open = slot.as_ref().filter(|connection| connection.session.is_open());
                if open.is_some_and(|connection| !wrote_all(&connection.stream, &self.out)) {
                    *slot = None;
                }
            }
        }
        Ok(Next::Stay)
    }
}

fn wrote_all(mut stream: &TcpStream, bytes: &[u8]) -> bool {
    matches!(stream.write(bytes), Ok(written) if written == bytes.len())
}
