//! Looks at other processes through `/proc`.

use std::fs;

use rustix::process::{Pid, Signal};

/// One process, as it was when it was looked at.
#[derive(Debug)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its arguments, joined by spaces.
    pub command: String,
}

impl Process {
    /// The process of this id.
    pub fn of(pid: u32) -> Self {
        Self { pid, command: command(pid) }
    }
    /// Ends it, if it is still there.
    pub fn kill(&self) {
        kill(self.pid);
    }
}

/// Sends KILL to a process, if it is still there.
pub fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, Signal::KILL).ok();
}

/// Whether a process runs: it exists, and is no zombie.
pub fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.state != 'Z')
}

/// The processes that were started with this variable. A zombie has no environment and is not among them.
pub fn with_variable(name: &str, value: &str) -> Vec<Process> {
    let wanted = format!("{name}={value}");
    let has = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    all().filter(has).map(Process::of).collect()
}

/// The processes that this one started itself, zombies too.
pub fn children_of(parent: u32) -> Vec<u32> {
    all().filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent)).collect()
}

/// The zombies among the descendants of a process.
pub fn zombies_below(ancestor: u32) -> Vec<u32> {
    let processes: Vec<(u32, Stat)> = all().filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let mut family = vec![ancestor];
    let mut at = 0;
    while let Some(&parent) = family.get(at) {
        family.extend(processes.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    processes.iter().filter(|(pid, stat)| stat.state == 'Z' && family.contains(pid)).map(|(pid, _)| *pid).collect()
}

/// The largest resident memory that a process ever had, in bytes.
pub fn peak_memory_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line VmHWM");
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kibibytes * 1024
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("a running process of ours").count()
}

struct Stat {
    state: char,
    parent: u32,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself have spaces and parentheses.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    Some(Stat { state: fields.next()?.chars().next()?, parent: fields.next()?.parse().ok()? })
}

fn command(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}
