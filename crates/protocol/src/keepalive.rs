//! Deadlines of an open connection, kept in one instant and one byte.
//!
//! Any received byte is a sign of life. Nothing is armed: a deadline moves with every byte, so a driver may let an old
//! timer fire and ask again.

use std::time::{Duration, Instant};

use crate::control::ControlFrame;

/// When to ping, and how long to wait for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence of the peer after which it is pinged. Zero: never. Below the idle limits of the proxies in front. Default 25 s.
    pub ping_interval: Duration,
    /// Silence after the ping after which the peer is given up with 4408. Zero: never; pings then only keep proxies open. Default 10 s.
    pub pong_timeout: Duration,
    /// Time for the peer to answer our Close, and for the last bytes to be written. Zero: none. Default 5 s.
    pub close_timeout: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
        }
    }
}

/// What a deadline that has passed asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeoutAction {
    /// Write this Ping.
    Ping(ControlFrame),
    /// The peer is gone or stuck: try to write this Close (4408), then drop the transport.
    PeerSilent(ControlFrame),
    /// The peer did not end the closing handshake, or did not read our last bytes: drop the transport.
    CloseTimedOut,
}

/// The one deadline that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    /// When to ask a peer that has been silent for a sign of life.
    Ping,
    /// When to give up a peer that has been asked.
    Pong,
    /// When to ping while nothing is read: the peer may be speaking, so it is never given up, but proxies need traffic.
    PingUnread,
    /// When to drop a connection whose closing handshake does not end.
    Close,
    /// Never: everything has been said.
    Never,
}

/// What is due, still without its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Ping,
    PeerSilent,
    CloseTimedOut,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    since: Instant,
    timer: Timer,
}

impl Clock {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, timer: Timer::Ping }
    }

    /// Bytes arrived.
    pub(crate) fn heard(&mut self, now: Instant) {
        match self.timer {
            Timer::Ping | Timer::PingUnread => self.since = now,
            Timer::Pong => *self = Self::new(now),
            Timer::Close | Timer::Never => {}
        }
    }

    /// Our Close is on its way, or the connection has failed: only the end is waited for.
    pub(crate) fn closing(&mut self, now: Instant) {
        if !matches!(self.timer, Timer::Close | Timer::Never) {
            *self = Self { since: now, timer: Timer::Close };
        }
    }

    pub(crate) fn suspend(&mut self) {
        if matches!(self.timer, Timer::Ping | Timer::Pong) {
            self.timer = Timer::PingUnread;
        }
    }

    pub(crate) fn resume(&mut self, now: Instant) {
        if self.timer == Timer::PingUnread {
            *self = Self::new(now);
        }
    }

    pub(crate) fn deadline(&self, keepalive: &Keepalive) -> Option<Instant> {
        let wait = match self.timer {
            Timer::Ping | Timer::PingUnread if keepalive.ping_interval.is_zero() => return None,
            Timer::Ping | Timer::PingUnread => keepalive.ping_interval,
            Timer::Pong => keepalive.pong_timeout,
            Timer::Close => keepalive.close_timeout,
            Timer::Never => return None,
        };
        // A wait too long for the clock is a wait for ever.
        self.since.checked_add(wait)
    }

    /// What is due at `now`, if anything; moves on to the next deadline.
    pub(crate) fn pass(&mut self, keepalive: &Keepalive, now: Instant) -> Option<Due> {
        if self.deadline(keepalive)? > now {
            return None;
        }
        let (next, due) = match self.timer {
            Timer::Ping if keepalive.pong_timeout.is_zero() => (Timer::Ping, Due::Ping),
            Timer::Ping => (Timer::Pong, Due::Ping),
            Timer::PingUnread => (Timer::PingUnread, Due::Ping),
            Timer::Pong => (Timer::Close, Due::PeerSilent),
            Timer::Close => (Timer::Never, Due::CloseTimedOut),
            Timer::Never => return None,
        };
        *self = Self { since: now, timer: next };
        Some(due)
    }
}
