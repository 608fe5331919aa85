//! The one table, and under it what a reader must know to judge it.

use std::fmt;
use std::io;

use crate::statistics::Rounds;

/// What a row has to reach.
#[derive(Debug, Clone, Copy)]
pub enum Reach {
    /// At most this figure, in the unit of the row.
    AtMost(f64),
    /// At most so much more than the floor, in the unit of the row.
    MoreThanFloor(f64),
    /// At most so many times the floor.
    TimesFloor(f64),
    /// At least so many times the peer.
    TimesPeer(f64),
    /// Nothing: shown for what it says.
    Shown,
}

impl Reach {
    fn is_reached(self, ours: f64, peer: f64) -> Option<bool> {
        match self {
            Self::AtMost(most) => Some(ours <= most),
            Self::MoreThanFloor(more) => Some(ours - peer <= more),
            Self::TimesFloor(times) => Some(ours / peer <= times),
            Self::TimesPeer(times) => Some(ours / peer >= times),
            Self::Shown => None,
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(out, "≤ {}", figure(*most)),
            Self::MoreThanFloor(more) => write!(out, "≤ {} more", figure(*more)),
            Self::TimesFloor(times) => write!(out, "≤ {times} ×"),
            Self::TimesPeer(times) => write!(out, "≥ {times} ×"),
            Self::Shown => out.write_str("shown"),
        }
    }
}

/// The rows so far.
#[derive(Default)]
pub struct Table {
    lines: Vec<String>,
    notes: Vec<String>,
    missed: usize,
    failures: usize,
}

impl Table {
    /// Adds a measured row; `peer` says who the other one is.
    pub fn add(&mut self, what: &str, unit: &str, ours: &Rounds, peer: (&str, &Rounds), reach: Reach) {
        let (peer_name, theirs) = peer;
        let verdict = match reach.is_reached(ours.median(), theirs.median()) {
            Some(true) => "reached",
            Some(false) => {
                self.missed += 1;
                "**missed**"
            }
            None => "–",
        };
        self.lines.push(format!(
            "| {what} | {} | {} {peer_name} | {:.2} × | {reach} | {verdict} |",
            cell(ours, unit),
            cell(theirs, unit),
            ours.median() / theirs.median(),
        ));
    }

    /// Adds a row that could not be measured; the run fails.
    pub fn failed(&mut self, what: &str, why: &io::Error) {
        self.failures += 1;
        self.lines.push(format!("| {what} | failed: {why} | – | – | – | **failed** |"));
    }

    /// Adds a sentence under the table.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Says under the table how much of the processor time was user space: the rest is system calls.
    pub fn note_user_space(&mut self, row: &str, ours: f64, floor: f64) {
        self.note(format!("{row}: {ours:.0} % of wootz's time is user space, {floor:.0} % of the floor's."));
    }

    /// Whether an answer was wrong, or missing, or a program did not run.
    pub fn has_failures(&self) -> bool {
        self.failures > 0
    }

    /// Prints Markdown to standard output.
    pub fn print(&self) {
        println!("| what | wootz | floor or peer | ratio | reach | verdict |");
        println!("|---|---|---|---|---|---|");
        for line in &self.lines {
            println!("{line}");
        }
        println!();
        for note in &self.notes {
            println!("- {note}");
        }
        println!("- Medians of rounds that took turns, with (least–greatest). {}", machine());
        match (self.missed, self.failures) {
            (0, 0) => println!("\nEvery figure is reached."),
            (missed, failures) => println!("\n{missed} missed, {failures} failed."),
        }
    }
}

fn cell(rounds: &Rounds, unit: &str) -> String {
    let (least, greatest) = rounds.range();
    let spread = if figure(least) == figure(greatest) {
        String::new()
    } else {
        format!(" ({}–{})", figure(least), figure(greatest))
    };
    format!("{} {unit}{spread}", figure(rounds.median()))
}

/// Three significant digits, or all digits of a large whole number.
fn figure(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The processor, the kernel and how busy both were: figures of two machines do not compare.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!(
        "{}, Linux {}, load average {}.",
        model.map_or("unknown processor", |(_, name)| name),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or("unknown"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_over_its_reach_is_said_to_be_missed_and_is_no_failure() {
        let mut table = Table::default();
        let (ours, floor) = (Rounds::new(vec![1.3]), Rounds::new(vec![1.0]));
        table.add("a", "µs", &ours, ("floor", &floor), Reach::TimesFloor(1.2));
        table.add("b", "µs", &ours, ("floor", &floor), Reach::TimesFloor(1.3));
        table.add("c", "1/s", &ours, ("peer", &floor), Reach::TimesPeer(3.0));
        table.add("d", "bytes", &ours, ("floor", &floor), Reach::AtMost(2000.0));
        table.add("e", "µs", &ours, ("floor", &floor), Reach::MoreThanFloor(0.2));
        table.add("f", "µs", &ours, ("floor", &floor), Reach::MoreThanFloor(0.4));
        let missed: Vec<bool> = table.lines.iter().map(|line| line.contains("missed")).collect();
        assert_eq!(missed, [true, false, true, false, true, false]);
        assert!(!table.has_failures());
        table.failed("g", &io::Error::other("no answer"));
        assert!(table.has_failures());
    }
}
