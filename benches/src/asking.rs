//! Clients that ask one thing at a time, each over its own protocol: one alone, or many at once.
//!
//! All of them are plain blocking code, so that what differs between two figures is the server and not who asked.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wootz_benches::wire;

use crate::client::{self, Single, wrong};

/// A client with one question, whose answer it knows.
pub trait Ask {
    /// Asks and waits for the right answer; returns how long that took.
    fn ask(&mut self) -> io::Result<Duration>;
}

/// Asks by WebSocket.
pub struct Talk {
    connection: Single,
    frame: Vec<u8>,
    expected: &'static [u8],
}

impl Talk {
    /// A text message over an open connection, and its reply.
    pub fn new(connection: Single, message: &str, expected: &'static [u8]) -> Self {
        Self { connection, frame: client::frame(wire::TEXT, message.as_bytes()), expected }
    }
}

impl Ask for Talk {
    fn ask(&mut self) -> io::Result<Duration> {
        self.connection.ask(&self.frame, self.expected)
    }
}

/// Asks `total` times, everybody at once and each again as soon as it has its answer; returns calls per second.
pub fn all_at_once<A: Ask + Send>(askers: &mut [A], total: usize) -> io::Result<f64> {
    let begun = AtomicUsize::new(0);
    let start = Instant::now();
    let ask_on = &|asker: &mut A| -> io::Result<()> {
        while begun.fetch_add(1, Ordering::Relaxed) < total {
            asker.ask()?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = askers.iter_mut().map(|asker| scope.spawn(move || ask_on(asker))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| wrong("a client panicked"))?)
    })?;
    Ok(total as f64 / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_askers_ask_as_often_as_they_shall_in_all() {
        struct Counts<'c>(&'c AtomicUsize);
        impl Ask for Counts<'_> {
            fn ask(&mut self) -> io::Result<Duration> {
                self.0.fetch_add(1, Ordering::Relaxed);
                Ok(Duration::ZERO)
            }
        }
        let asked = AtomicUsize::new(0);
        let mut askers: Vec<_> = (0..7).map(|_| Counts(&asked)).collect();
        all_at_once(&mut askers, 100).expect("nobody fails");
        assert_eq!(asked.into_inner(), 100);
    }

    #[test]
    fn one_wrong_answer_fails_the_round() {
        struct Fails;
        impl Ask for Fails {
            fn ask(&mut self) -> io::Result<Duration> {
                Err(wrong("another answer"))
            }
        }
        assert!(all_at_once(&mut [Fails], 1).is_err());
    }
}
