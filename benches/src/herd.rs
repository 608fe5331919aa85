//! Many open connections on one thread, and what they do together.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustls::ClientConfig;
use wootz_benches::wire;

use crate::client::{self, Heard, PATIENCE, wrong};
use crate::tls::Secured;

/// Open connections, in the order in which they were made.
pub struct Herd {
    poll: OwnedFd,
    members: Vec<Member>,
    read: Vec<u8>,
}

struct Member {
    link: Link,
    /// Bytes of a frame that has not arrived as a whole.
    held: Vec<u8>,
}

/// What frames travel over.
enum Link {
    Plain(TcpStream),
    Secured(Box<Secured>),
}

/// Whether the herd goes on waiting.
#[derive(PartialEq, Eq)]
enum Flow {
    More,
    Done,
}

impl Herd {
    /// Opens `count` connections, one after another.
    pub fn connect(address: SocketAddr, count: usize) -> io::Result<Self> {
        Self::connect_with(address, count, |_| String::new())
    }

    /// The same, each with header fields of its own, by its number.
    pub fn connect_with(address: SocketAddr, count: usize, fields: impl Fn(usize) -> String) -> io::Result<Self> {
        Self::of(count, |number| {
            let (stream, held) = client::open_with(address, &fields(number))?;
            Ok(Member { link: Link::Plain(stream), held })
        })
    }

    /// The same over TLS.
    pub fn connect_secured(address: SocketAddr, count: usize, trust: &Arc<ClientConfig>) -> io::Result<Self> {
        Self::of(count, |_| {
            let mut secured = Secured::connect(address, trust)?;
            let held = secured.upgrade(address)?;
            Ok(Member { link: Link::Secured(Box::new(secured)), held })
        })
    }

    fn of(count: usize, open: impl Fn(usize) -> io::Result<Member>) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut members = Vec::with_capacity(count);
        for number in 0..count {
            let member = open(number)?;
            let stream = member.link.stream();
            stream.set_nonblocking(true)?;
            epoll::add(&poll, stream.as_fd(), EventData::new_u64(number as u64), EventFlags::IN)?;
            members.push(member);
        }
        Ok(Self { poll, members, read: vec![0; 256 * 1024] })
    }

    /// Every member sends `payload` once and gets it back, `at_once` of them at a time.
    pub fn echo_once_each(&mut self, payload: &[u8], at_once: usize) -> io::Result<()> {
        let frame = client::frame(wire::TEXT, payload);
        let count = self.members.len();
        let mut sent = at_once.min(count);
        for member in &mut self.members[..sent] {
            member.send(&frame)?;
        }
        let mut answered = 0;
        self.wait_for(payload, |_, members| {
            answered += 1;
            if let Some(next) = members.get_mut(sent) {
                next.send(&frame)?;
                sent += 1;
            }
            Ok(if answered == count { Flow::Done } else { Flow::More })
        })
    }

    /// Every member keeps one message under way until `total` of them have been answered.
    pub fn ping_pong(&mut self, payload: &[u8], total: usize) -> io::Result<()> {
        let frame = client::frame(wire::TEXT, payload);
        for member in &mut self.members {
            member.send(&frame)?;
        }
        let (mut sent, mut answered) = (self.members.len(), 0);
        self.wait_for(payload, |number, members| {
            answered += 1;
            if sent < total {
                members[number].send(&frame)?;
                sent += 1;
            }
            Ok(if answered == sent { Flow::Done } else { Flow::More })
        })
    }

    /// Waits until every member has got `payload`, and none of them twice.
    pub fn receive_everywhere(&mut self, payload: &[u8]) -> io::Result<()> {
        let mut missing = self.members.len();
        let mut got = vec![false; missing];
        self.wait_for(payload, |number, _| {
            if std::mem::replace(&mut got[number], true) {
                return Err(wrong("the same push came twice"));
            }
            missing -= 1;
            Ok(if missing == 0 { Flow::Done } else { Flow::More })
        })
    }

    /// Reads until `arrived`, called with the member's number for each message, says that it is done.
    /// A message that is not `expected`, a close, and an answer that does not come are errors.
    fn wait_for(
        &mut self,
        expected: &[u8],
        mut arrived: impl FnMut(usize, &mut [Member]) -> io::Result<Flow>,
    ) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut events: Vec<epoll::Event> = Vec::with_capacity(1024);
        loop {
            events.clear();
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()));
            epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), left.ok().as_ref())?;
            if events.is_empty() {
                return Err(wrong("an answer is missing"));
            }
            for event in &events {
                let number = event.data.u64() as usize;
                for _ in 0..self.members[number].receive(&mut self.read, expected)? {
                    if arrived(number, &mut self.members)? == Flow::Done {
                        return Ok(());
                    }
                }
            }
        }
    }
}

impl Link {
    fn stream(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Secured(secured) => secured.stream(),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes),
            Self::Secured(secured) => secured.send(bytes),
        }
    }

    /// Reads once; nothing came, where a record has not arrived as a whole.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => match stream.read(buffer)? {
                0 => Err(wrong("a connection was hung up")),
                bytes => Ok(bytes),
            },
            Self::Secured(secured) => secured.receive(buffer),
        }
    }
}

impl Member {
    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.link.send(frame)
    }

    /// Reads once; returns how many messages came, all of them `expected`.
    fn receive(&mut self, buffer: &mut [u8], expected: &[u8]) -> io::Result<usize> {
        let bytes = self.link.receive(buffer)?;
        let read = &buffer[..bytes];
        let mut bytes = read;
        if !self.held.is_empty() {
            self.held.extend_from_slice(read);
            bytes = &self.held;
        }
        let mut messages = 0;
        while let Some(heard) = client::next_heard(&mut bytes)? {
            match heard {
                Heard::Message(message) if message == expected => messages += 1,
                Heard::Message(message) => {
                    let start = String::from_utf8_lossy(&message[..message.len().min(64)]);
                    return Err(wrong(format!("another message than was expected: {start:?}")));
                }
                Heard::Ping(payload) => self.link.send(&client::frame(wire::PONG, payload))?,
                Heard::Pong => {}
                Heard::Close(code) => return Err(wrong(format!("a connection was closed, code {code:?}"))),
            }
        }
        self.held = bytes.to_vec();
        Ok(messages)
    }
}
