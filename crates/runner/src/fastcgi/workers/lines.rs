//! What a worker prints, line by line into the log, bounded: a worker that prints without end fills no disk.

use std::time::{Duration, Instant};

/// A longer line is cut.
const MAX_LINE_BYTES: usize = 1024;
/// Lines that a stream may have in one second; more are counted.
const LINES_PER_SECOND: u32 = 20;

/// One stream of a worker.
#[derive(Debug)]
pub(super) struct Lines {
    line: Vec<u8>,
    /// The second in which lines are counted.
    since: Instant,
    lines: u32,
    left_out: u64,
}

/// A line for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    /// Lines before it that are not in the log.
    pub(super) left_out: u64,
}

impl Lines {
    pub(super) fn new(now: Instant) -> Self {
        Self { line: Vec::new(), since: now, lines: 0, left_out: 0 }
    }

    /// Takes what was printed, and gives on the lines that are whole.
    pub(super) fn receive(&mut self, mut bytes: &[u8], now: Instant, mut log: impl FnMut(Line)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.extend(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.end_line(now, &mut log);
        }
        self.extend(bytes);
    }

    /// The stream has ended: so has its last line, where there is one.
    pub(super) fn finish(&mut self, now: Instant, mut log: impl FnMut(Line)) {
        if !self.line.is_empty() {
            self.end_line(now, &mut log);
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = MAX_LINE_BYTES.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self, now: Instant, log: &mut impl FnMut(Line)) {
        let line = std::mem::take(&mut self.line);
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.lines) = (now, 0);
        }
        let text = line.trim_ascii_end();
        if text.is_empty() {
            return;
        }
        self.lines = self.lines.saturating_add(1);
        if self.lines > LINES_PER_SECOND {
            self.left_out += 1;
            return;
        }
        log(Line { text: String::from_utf8_lossy(text).into_owned(), left_out: std::mem::take(&mut self.left_out) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &mut Lines, bytes: &[u8], now: Instant) -> Vec<Line> {
        let mut texts = Vec::new();
        lines.receive(bytes, now, |line| texts.push(line));
        texts
    }

    #[test]
    fn lines_come_out_whole_whatever_the_reads_were() {
        let now = Instant::now();
        let mut lines = Lines::new(now);
        let mut out = Vec::new();
        for byte in b"one\n\ntwo\r\nthree" {
            out.extend(texts(&mut lines, &[*byte], now));
        }
        lines.finish(now, |line| out.push(line));
        let out: Vec<String> = out.into_iter().map(|line| line.text).collect();
        assert_eq!(out, ["one", "two", "three"]);
    }

    #[test]
    fn a_line_without_an_end_is_cut_and_held_in_bounds() {
        let now = Instant::now();
        let mut lines = Lines::new(now);
        for _ in 0..100 {
            assert!(texts(&mut lines, &[b'x'; 1000], now).is_empty());
        }
        assert!(lines.line.len() <= MAX_LINE_BYTES);
        assert_eq!(texts(&mut lines, b"\n", now)[0].text.len(), MAX_LINE_BYTES);
    }

    #[test]
    fn more_lines_than_a_second_may_have_are_counted() {
        let now = Instant::now();
        let mut lines = Lines::new(now);
        let flood = b"y\n".repeat(100);
        assert_eq!(texts(&mut lines, &flood, now).len(), LINES_PER_SECOND as usize);
        let later = texts(&mut lines, b"z\n", now + Duration::from_secs(1));
        assert_eq!(later, [Line { text: "z".to_owned(), left_out: 80 }]);
    }
}
