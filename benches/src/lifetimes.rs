//! Connections that are opened, used and closed again, a few at a time, as fast as the server can.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use wootz_benches::wire;

use crate::client::{self, Heard, PATIENCE, wrong};

/// What one connection does between its 101 and its Close.
pub struct Lifetime<'p> {
    /// The server.
    pub address: SocketAddr,
    /// More header fields of the handshake, each with its end of line.
    pub fields: &'p str,
    /// Messages, one after another, each sent when the one before is answered.
    pub messages: usize,
    /// The payload of each.
    pub message: &'p [u8],
    /// The answer to each.
    pub answer: &'p [u8],
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Upgrading,
    Talking { left: usize },
    Closing,
    Over,
}

struct Slot {
    stream: TcpStream,
    held: Vec<u8>,
    stage: Stage,
}

/// The frames that every connection sends, encoded once.
struct Script<'p> {
    plan: &'p Lifetime<'p>,
    request: Vec<u8>,
    message: Vec<u8>,
    close: Vec<u8>,
}

/// Lives `count` lifetimes, `at_once` at a time; returns how long all of them took.
///
/// A lifetime ends when the server has hung up after the closing handshake: both ends are then free of it.
pub fn live(plan: &Lifetime<'_>, count: usize, at_once: usize) -> io::Result<Duration> {
    let script = Script {
        plan,
        request: wire::client_request_with(&plan.address.to_string(), plan.fields).into_bytes(),
        message: client::frame(wire::TEXT, plan.message),
        close: client::close_frame(),
    };
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let start = Instant::now();
    let mut slots = Vec::new();
    for number in 0..at_once.min(count) {
        slots.push(script.begin(&poll, number)?);
    }
    let (mut begun, mut ended) = (slots.len(), 0);
    let mut events: Vec<epoll::Event> = Vec::with_capacity(at_once);
    let patience = Timespec::try_from(PATIENCE).ok();
    while ended < count {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), patience.as_ref())?;
        if events.is_empty() {
            let stages: Vec<Stage> = slots.iter().map(|slot| slot.stage).collect();
            return Err(wrong(format!("nothing more comes; the connections are {stages:?}")));
        }
        for event in &events {
            let number = event.data.u64() as usize;
            script.advance(&mut slots[number])?;
            if slots[number].stage != Stage::Over {
                continue;
            }
            ended += 1;
            if begun < count {
                slots[number] = script.begin(&poll, number)?;
                begun += 1;
            } else {
                epoll::delete(&poll, &slots[number].stream)?;
            }
        }
    }
    Ok(start.elapsed())
}

impl Script<'_> {
    fn begin(&self, poll: &OwnedFd, number: usize) -> io::Result<Slot> {
        let mut stream = TcpStream::connect(self.plan.address)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        // The peer has hung up before we do: a reset then tells nobody anything, and leaves no port in TIME_WAIT.
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
        epoll::add(poll, stream.as_fd(), EventData::new_u64(number as u64), EventFlags::IN)?;
        stream.write_all(&self.request)?;
        Ok(Slot { stream, held: Vec::new(), stage: Stage::Upgrading })
    }

    fn advance(&self, slot: &mut Slot) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let bytes = match slot.stream.read(&mut buffer) {
            Ok(0) => return slot.hung_up(),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return slot.hung_up(),
            Ok(bytes) => bytes,
            Err(error) => return Err(error),
        };
        slot.held.extend_from_slice(&buffer[..bytes]);
        if slot.stage == Stage::Upgrading {
            let Some(length) = client::check_upgrade(&slot.held)? else { return Ok(()) };
            slot.held.drain(..length);
            self.say_next(slot, self.plan.messages)?;
        }
        let held = std::mem::take(&mut slot.held);
        let mut rest = held.as_slice();
        while let Some(heard) = client::next_heard(&mut rest)? {
            self.heard(slot, heard)?;
        }
        slot.held = rest.to_vec();
        Ok(())
    }

    fn heard(&self, slot: &mut Slot, heard: Heard<'_>) -> io::Result<()> {
        match (heard, slot.stage) {
            (Heard::Message(answer), Stage::Talking { left }) if answer == self.plan.answer => {
                self.say_next(slot, left - 1)
            }
            (Heard::Close(_), Stage::Closing) => Ok(()),
            (heard, stage) => Err(wrong(format!("{heard:?} while {stage:?}"))),
        }
    }

    fn say_next(&self, slot: &mut Slot, left: usize) -> io::Result<()> {
        slot.stage = if left == 0 { Stage::Closing } else { Stage::Talking { left } };
        let frame = if left == 0 { &self.close } else { &self.message };
        match slot.stream.write_all(frame) {
            // A peer that has said everything may have hung up already; the next read tells.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => Ok(()),
            other => other,
        }
    }
}

impl Slot {
    fn hung_up(&mut self) -> io::Result<()> {
        match self.stage {
            Stage::Closing => {
                self.stage = Stage::Over;
                Ok(())
            }
            stage => Err(wrong(format!("hung up while {stage:?}"))),
        }
    }
}
