//! The spawner process: it starts calls, signals their process groups and reaps them, and knows nothing else.
//!
//! One thread, one `poll`. Its server speaks to it over descriptor 0; each packet there brings the socket of one more client (a shard).
//! It outlives every signal but KILL and ends when descriptor 0 closes, which is when its server has ended, however that was.
//!
//! Laws: a process group is only signalled while its number can't have been given to somebody else (its leader is not reaped, or a
//! living child of ours is in it). No child stays a zombie, whose ever it was.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, RecvMsg, ReturnFlags, SendFlags, recvmsg, send,
};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::process;
use super::wire::{Answer, AnswerPacket, CallNumber, Ended, MAX_PACKET_BYTES, Request, Start};
use crate::error::StartStep;

/// Packets taken from one client before the others have their turn.
const PACKETS_PER_TURN: usize = 16;

/// The packet by which the spawner tells its server that it has begun, and that no signal will end it any more.
pub(super) const READY: &[u8] = b"ready";

type ClientNumber = u64;

/// A shard of the server.
struct Client {
    socket: OwnedFd,
    /// Answers that found no room in the socket.
    unsent: VecDeque<AnswerPacket>,
}

/// A call's process group. Its leader's pid is its number and its key.
struct Group {
    /// Who asked; `None` when that one is gone.
    client: Option<ClientNumber>,
    call: CallNumber,
    grace: Duration,
    leader: Leader,
    /// When to send KILL: TERM was sent.
    kill_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leader {
    Running,
    /// Ended and reaped; others are left in its group.
    Reaped,
}

/// What a packet brought.
enum Received {
    Packet { length: usize, descriptors: Vec<OwnedFd> },
    Nothing,
    Closed,
}

/// Whether the spawner goes on.
enum Next {
    GoOn,
    End,
}

/// Runs the spawner until its server has gone, then kills every call that is left.
pub(super) fn run(control: BorrowedFd<'_>) -> io::Result<()> {
    process::block_all_signals();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // Calls get their own; holding another directory would only keep a file system from being unmounted.
    rustix::process::chdir("/")?;
    let mut child_ended = SigSet::empty();
    child_ended.add(nix::sys::signal::SIGCHLD);
    let signals = SignalFd::with_flags(&child_ended, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut spawner = Spawner {
        signals,
        clients: HashMap::new(),
        next_client: 0,
        groups: HashMap::new(),
        packet: vec![0; MAX_PACKET_BYTES].into_boxed_slice(),
    };
    send(control, READY, SendFlags::NOSIGNAL)?;
    let ended = spawner.turn_until_end(control);
    // However it ended: no call outlives this process.
    spawner.kill_groups_of(|_| true);
    ended
}

struct Spawner {
    signals: SignalFd,
    clients: HashMap<ClientNumber, Client>,
    next_client: ClientNumber,
    groups: HashMap<Pid, Group>,
    packet: Box<[u8]>,
}

impl Spawner {
    fn turn_until_end(&mut self, control: BorrowedFd<'_>) -> io::Result<()> {
        while let Next::GoOn = self.turn(control)? {}
        Ok(())
    }

    /// Waits for something to happen, and does what it asks for.
    fn turn(&mut self, control: BorrowedFd<'_>) -> io::Result<Next> {
        let (numbers, ready) = self.wait(control)?;
        if !ready[1].is_empty() {
            self.reap()?;
        }
        for (&client, ready) in numbers.iter().zip(&ready[2..]) {
            if ready.contains(PollFlags::OUT) {
                self.flush(client);
            }
            if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                self.serve(client);
            }
        }
        self.kill_late_groups();
        if ready[0].is_empty() { Ok(Next::GoOn) } else { self.take_client(control) }
    }

    /// Polls: the control socket, the signals, then each client in the order of the numbers returned.
    fn wait(&self, control: BorrowedFd<'_>) -> io::Result<(Vec<ClientNumber>, Vec<PollFlags>)> {
        let numbers: Vec<ClientNumber> = self.clients.keys().copied().collect();
        let mut polled = vec![
            PollFd::from_borrowed_fd(control, PollFlags::IN),
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
        ];
        polled.extend(numbers.iter().map(|number| {
            let client = &self.clients[number];
            let room = if client.unsent.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            PollFd::from_borrowed_fd(client.socket.as_fd(), PollFlags::IN | room)
        }));
        let next_kill = self.groups.values().filter_map(|group| group.kill_at).min();
        let timeout = next_kill.map(|at| {
            // Rounded up: never a turn before its time.
            let wait = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
        });
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = polled.iter().map(PollFd::revents).collect();
        Ok((numbers, ready))
    }

    fn take_client(&mut self, control: BorrowedFd<'_>) -> io::Result<Next> {
        match receive(control, &mut self.packet)? {
            Received::Closed => return Ok(Next::End),
            Received::Nothing => {}
            Received::Packet { descriptors, .. } => {
                for socket in descriptors {
                    self.clients.insert(self.next_client, Client { socket, unsent: VecDeque::new() });
                    self.next_client += 1;
                }
            }
        }
        Ok(Next::GoOn)
    }

    /// Takes what a client asks for.
    fn serve(&mut self, number: ClientNumber) {
        for _ in 0..PACKETS_PER_TURN {
            let Some(client) = self.clients.get(&number) else { return };
            match receive(client.socket.as_fd(), &mut self.packet) {
                Ok(Received::Nothing) => return,
                Ok(Received::Packet { length, descriptors }) => {
                    if self.obey(number, length, descriptors).is_none() {
                        eprintln!("wootz-spawner: a packet that is no request; its client is dropped");
                        return self.drop_client(number);
                    }
                }
                Ok(Received::Closed) | Err(_) => return self.drop_client(number),
            }
        }
    }

    /// Does what the packet says; `None` when it says nothing.
    fn obey(&mut self, client: ClientNumber, length: usize, descriptors: Vec<OwnedFd>) -> Option<()> {
        // Taken, because the request lies in it while the rest of this process is changed.
        let packet = std::mem::take(&mut self.packet);
        let request = Request::decode(&packet[..length]);
        match &request {
            Some(Request::Start(start)) => self.start(client, start, descriptors),
            Some(Request::End(call)) => self.end(client, *call),
            None => {}
        }
        let understood = request.map(|_| ());
        self.packet = packet;
        understood
    }

    fn start(&mut self, number: ClientNumber, start: &Start<'_>, descriptors: Vec<OwnedFd>) {
        let call = start.call;
        let answer = match <[OwnedFd; 3]>::try_from(descriptors) {
            // The kernel drops descriptors that this process has no room for.
            Err(_) => Answer::Failed { call, step: StartStep::Descriptors, errno: libc::EMFILE },
            Ok(stdio) => match process::start(start, &stdio, self.clients[&number].socket.as_fd()) {
                Err(error) => process::fork_failed(call, &error),
                Ok(pid) => {
                    let group = Group {
                        client: Some(number),
                        call,
                        grace: start.grace,
                        leader: Leader::Running,
                        kill_at: None,
                    };
                    self.groups.insert(pid, group);
                    Answer::Started { call, pid: pid.as_raw_nonzero().get() }
                }
            },
        };
        self.answer(number, answer);
    }

    /// TERM now, KILL after the grace; nothing when the call has ended already.
    fn end(&mut self, client: ClientNumber, call: CallNumber) {
        let asked = |group: &Group| group.client == Some(client) && group.call == call && group.kill_at.is_none();
        if let Some((&pid, group)) = self.groups.iter_mut().find(|(_, group)| asked(group)) {
            ask_to_end(pid);
            group.kill_at = Some(Instant::now() + group.grace);
        }
    }

    /// Takes every process that has ended; a call's is told to its client.
    fn reap(&mut self) -> io::Result<()> {
        while self.signals.read_signal()?.is_some() {}
        while let Some((pid, ended)) = process::ended_child() {
            match self.groups.get(&pid).map(|group| group.leader) {
                Some(Leader::Running) => self.leader_ended(pid, ended),
                // An orphan of some call, of which this process is the new parent.
                Some(Leader::Reaped) | None => process::reap(pid),
            }
        }
        self.groups.retain(|&pid, group| group.leader == Leader::Running || process::group_has_children(pid));
        Ok(())
    }

    fn leader_ended(&mut self, pid: Pid, ended: Ended) {
        let group = self.groups.get_mut(&pid).expect("asked for by the one caller");
        group.leader = Leader::Reaped;
        // Before the leader is reaped, while the number of the group is certainly its own.
        ask_to_end(pid);
        process::reap(pid);
        group.kill_at.get_or_insert(Instant::now() + group.grace);
        let (call, client) = (group.call, group.client);
        if let Some(client) = client {
            self.answer(client, Answer::Exited { call, ended });
        }
    }

    fn kill_late_groups(&mut self) {
        let now = Instant::now();
        for (&pid, group) in &mut self.groups {
            if group.kill_at.is_some_and(|at| at <= now) {
                kill_group(pid, group.leader);
                group.kill_at = None;
            }
        }
    }

    fn kill_groups_of(&mut self, whose: impl Fn(&Group) -> bool) {
        for (&pid, group) in &mut self.groups {
            if whose(group) {
                kill_group(pid, group.leader);
                group.client = None;
                group.kill_at = None;
            }
        }
    }

    fn drop_client(&mut self, number: ClientNumber) {
        self.clients.remove(&number);
        self.kill_groups_of(|group| group.client == Some(number));
    }

    fn answer(&mut self, number: ClientNumber, answer: Answer) {
        if let Some(client) = self.clients.get_mut(&number) {
            client.unsent.push_back(answer.encode());
            self.flush(number);
        }
    }

    fn flush(&mut self, number: ClientNumber) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        while let Some(packet) = client.unsent.front() {
            match send(&client.socket, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) => drop(client.unsent.pop_front()),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                // Gone: its socket says so to the next poll, too.
                Err(_) => return client.unsent.clear(),
            }
        }
    }
}

/// TERM for a group whose leader is not reaped. CONT, because a stopped process would see TERM only when it goes on.
fn ask_to_end(leader: Pid) {
    for signal in [Signal::TERM, Signal::CONT] {
        if kill_process_group(leader, signal).is_err() {
            // It has not come to making its group yet.
            let _ = kill_process(leader, signal);
        }
    }
}

fn kill_group(pid: Pid, leader: Leader) {
    let ours = match leader {
        Leader::Running => true,
        Leader::Reaped => process::group_has_children(pid),
    };
    if ours && kill_process_group(pid, Signal::KILL).is_err() && leader == Leader::Running {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// One packet, without waiting.
fn receive(socket: BorrowedFd<'_>, packet: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let RecvMsg { bytes, flags, .. } = match recvmsg(socket, &mut [IoSliceMut::new(packet)], &mut control, flags) {
        Ok(received) => received,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(Received::Nothing),
        Err(error) => return Err(error.into()),
    };
    if flags.contains(ReturnFlags::TRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut descriptors = Vec::with_capacity(3);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    // No side ever sends an empty packet.
    Ok(if bytes == 0 { Received::Closed } else { Received::Packet { length: bytes, descriptors } })
}
