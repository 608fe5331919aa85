//! Which core does what. Two cores are enough, and more of them change nothing.

use std::io;

use rustix::thread::{CpuSet, sched_setaffinity};

/// Where servers run, and what they start.
pub const SERVER_CORE: usize = 0;
/// Where the load generator runs.
pub const CLIENT_CORE: usize = 1;

/// Keeps the calling thread, and the processes that it starts, on one core.
pub fn pin_this_thread(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).map_err(|error| {
        io::Error::other(format!("core {core} can't be had ({error}); two cores are needed, one per side"))
    })
}
