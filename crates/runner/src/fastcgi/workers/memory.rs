//! How much memory a worker has: the resident set of its process and of all that it started, as `ps` shows it.
//!
//! Pages that several processes share are counted in each. A process that has left its parent (a daemon) is not found.

use std::fs;

/// A worker with more processes than this is not looked through any further.
const MOST_PROCESSES: usize = 256;

/// Resident memory of a process and its descendants, in bytes; what has ended in the meantime counts nothing.
pub(super) fn resident_bytes(pid: u32) -> u64 {
    let mut processes = vec![pid];
    let mut at = 0;
    let mut pages = 0;
    while let Some(&process) = processes.get(at) {
        at += 1;
        pages += resident_pages(process).unwrap_or(0);
        if processes.len() < MOST_PROCESSES {
            processes.extend(children(process));
        }
    }
    pages * rustix::param::page_size() as u64
}

/// The second number of `statm`.
fn resident_pages(pid: u32) -> Option<u64> {
    fs::read_to_string(format!("/proc/{pid}/statm")).ok()?.split(' ').nth(1)?.parse().ok()
}

/// The children that its first thread has; those of other threads would need a look at every process of the system.
fn children(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_this_process_is_more_than_what_it_holds() {
        let held = vec![1u8; 32 << 20];
        assert!(resident_bytes(std::process::id()) > held.iter().map(|&byte| u64::from(byte)).sum());
    }

    #[test]
    fn a_process_that_is_gone_has_none() {
        assert_eq!(resident_bytes(u32::MAX), 0);
    }
}
