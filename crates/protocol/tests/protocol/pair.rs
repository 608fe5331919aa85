//! A client and a server joined in memory, with a clock that moves only when a test says so.

use std::cell::Cell;
use std::time::{Duration, Instant};

use wootz_protocol::{CloseCode, ControlFrame, Endpoint, Event, Input, Opcode, Role, Settings, TimeoutAction};
use wootz_protocol::{encode_masked, encode_unmasked};

/// Masks that differ from frame to frame and from run to run never.
pub(crate) fn next_mask() -> [u8; 4] {
    thread_local!(static COUNT: Cell<u32> = const { Cell::new(1) });
    let count = COUNT.get();
    COUNT.set(count.wrapping_mul(0x9E37_79B1).wrapping_add(1));
    count.to_be_bytes()
}

pub(crate) struct Side {
    pub(crate) endpoint: Endpoint,
    pub(crate) events: Vec<Event<'static>>,
    pub(crate) actions: Vec<TimeoutAction>,
    role: Role,
    outgoing: Vec<u8>,
}

impl Side {
    fn new(role: Role, now: Instant) -> Self {
        Self { endpoint: Endpoint::new(role, now), events: vec![], actions: vec![], role, outgoing: vec![] }
    }

    pub(crate) fn send(&mut self, opcode: Opcode, fin: bool, payload: &[u8]) {
        match self.role {
            Role::Server => encode_unmasked(opcode, fin, payload, &mut self.outgoing),
            Role::Client(mask) => encode_masked(opcode, fin, payload, mask(), &mut self.outgoing),
        }
    }

    pub(crate) fn close(&mut self, code: CloseCode, reason: &str, now: Instant) {
        let frame = self.endpoint.close(code, reason, now);
        self.write(frame.as_ref());
    }

    fn write(&mut self, frame: Option<&ControlFrame>) {
        self.outgoing.extend(frame.iter().flat_map(|frame| frame.as_bytes()));
    }

    fn receive(&mut self, bytes: &mut [u8], settings: &Settings, now: Instant) {
        let mut input = Input::new(bytes);
        while let Some(event) = self.endpoint.next_event(&mut input, settings, now) {
            let event = event.into_owned();
            match &event {
                Event::Ping { answer } => self.write(Some(answer)),
                Event::Close { answer, .. } | Event::Failed { answer, .. } => self.write(answer.as_ref()),
                Event::Message(_) | Event::Pong => {}
            }
            self.events.push(event);
        }
        assert!(input.is_empty(), "the endpoint left bytes behind");
    }

    fn pass_deadline(&mut self, settings: &Settings, now: Instant) {
        let action = self.endpoint.handle_timeout(settings, now);
        if let Some(TimeoutAction::Ping(frame) | TimeoutAction::PeerSilent(frame)) = &action {
            self.write(Some(frame));
        }
        self.actions.extend(action);
    }
}

/// Whether what the sides write reaches the other one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Joined,
    /// What the client writes is lost.
    ClientMute,
}

pub(crate) struct Pair {
    pub(crate) client: Side,
    pub(crate) server: Side,
    pub(crate) settings: Settings,
    pub(crate) now: Instant,
    pub(crate) link: Link,
    /// Bytes of one read.
    pub(crate) read_bytes: usize,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            client: Side::new(Role::Client(next_mask), now),
            server: Side::new(Role::Server, now),
            settings: Settings::default(),
            now,
            link: Link::Joined,
            read_bytes: usize::MAX,
        }
    }

    /// Carries bytes both ways until nobody writes any more.
    pub(crate) fn deliver(&mut self) {
        while !(self.client.outgoing.is_empty() && self.server.outgoing.is_empty()) {
            let mut to_server = std::mem::take(&mut self.client.outgoing);
            if self.link == Link::Joined {
                for read in to_server.chunks_mut(self.read_bytes) {
                    self.server.receive(read, &self.settings, self.now);
                }
            }
            for read in std::mem::take(&mut self.server.outgoing).chunks_mut(self.read_bytes) {
                self.client.receive(read, &self.settings, self.now);
            }
        }
    }

    /// Lets `duration` pass, with every deadline in it on the way.
    pub(crate) fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.deliver();
            let deadlines = [&self.client, &self.server].map(|side| side.endpoint.poll_timeout(&self.settings));
            let Some(next) = deadlines.into_iter().flatten().min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            self.client.pass_deadline(&self.settings, self.now);
            self.server.pass_deadline(&self.settings, self.now);
        }
        self.now = end;
    }
}
