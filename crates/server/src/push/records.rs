//! Bytes of a pipe to records, for each framing. No IO: bytes go in, whole records come out, half ones never.
//!
//! A record over the limit is thrown away up to its end, however long it is, with bounded memory, and counted.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;

use crate::config::Framing;

/// What CarbonPHP writes behind each message, before the digits.
const CARBON_MARK: &[u8] = b"\nCarbonPHP\\Abstracts\\Pipe:";

/// Digits of a line number; longer runs are no end of a record.
const CARBON_MAX_DIGITS: usize = 10;

/// Cuts one pipe's bytes into records. Owns no memory while no record is half here.
#[derive(Debug)]
pub(crate) struct Records {
    framing: Framing,
    max_record_bytes: usize,
    buffer: BytesMut,
    /// How far the buffer was searched already, so that a long record is not searched again with every read.
    searched_bytes: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// The record is over the limit: everything up to its end is dropped.
    SkippingToEnd,
    /// The record said its length, and it is over the limit: so many bytes are dropped.
    SkippingBytes(u64),
}

/// One thing that a pipe brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Whole(Bytes),
    /// A record over the limit began; it is dropped whole.
    TooLong,
}

impl Records {
    pub(crate) fn new(framing: Framing, max_record_bytes: usize) -> Self {
        Self { framing, max_record_bytes, buffer: BytesMut::new(), searched_bytes: 0, state: State::Reading }
    }

    /// Takes in what was read.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next record, or `None` until more is received.
    pub(crate) fn next_record(&mut self) -> Option<Record> {
        loop {
            let next = match self.framing {
                Framing::Lines => self.next_delimited(find_newline),
                Framing::CarbonPhp => self.next_delimited(find_carbon_mark),
                Framing::Length => self.next_counted(),
            };
            match next {
                // An empty record says nothing: a blank line, or a length of 0.
                Some(Record::Whole(record)) if record.is_empty() => {}
                Some(record) => return Some(record),
                None => {
                    if self.buffer.is_empty() {
                        self.buffer = BytesMut::new();
                    }
                    return None;
                }
            }
        }
    }

    /// Bytes of a record that has begun and not ended.
    pub(crate) fn unfinished_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Throws away a record that has begun and not ended.
    pub(crate) fn discard_unfinished(&mut self) {
        self.buffer = BytesMut::new();
        self.searched_bytes = 0;
        self.state = State::Reading;
    }

    fn next_delimited(&mut self, find: fn(&[u8], usize) -> Search) -> Option<Record> {
        loop {
            match find(&self.buffer, self.searched_bytes) {
                Search::Found { start, end } => {
                    let mut record = self.buffer.split_to(end);
                    record.truncate(start);
                    self.searched_bytes = 0;
                    match std::mem::replace(&mut self.state, State::Reading) {
                        State::Reading if start > self.max_record_bytes => return Some(Record::TooLong),
                        State::Reading => return Some(Record::Whole(record.freeze())),
                        State::SkippingToEnd | State::SkippingBytes(_) => {}
                    }
                }
                Search::Missing { searched } => {
                    self.searched_bytes = searched;
                    return self.give_up_if_too_long(searched);
                }
            }
        }
    }

    /// Without an end in sight: keeps only what may be the beginning of one, once the record can't fit any more.
    fn give_up_if_too_long(&mut self, searched: usize) -> Option<Record> {
        if searched <= self.max_record_bytes && self.state == State::Reading {
            return None;
        }
        self.buffer.advance(searched);
        self.searched_bytes = 0;
        let before = std::mem::replace(&mut self.state, State::SkippingToEnd);
        (before == State::Reading).then_some(Record::TooLong)
    }

    fn next_counted(&mut self) -> Option<Record> {
        if let State::SkippingBytes(left) = self.state {
            let skipped = left.min(self.buffer.len() as u64);
            // Fits: it is at most the length of a buffer.
            self.buffer.advance(skipped as usize);
            self.state = if skipped == left { State::Reading } else { State::SkippingBytes(left - skipped) };
            if self.state != State::Reading {
                return None;
            }
        }
        let length = u32::from_be_bytes(*self.buffer.first_chunk::<4>()?);
        let record_bytes = usize::try_from(length).unwrap_or(usize::MAX);
        if record_bytes > self.max_record_bytes {
            self.buffer.advance(4);
            self.state = State::SkippingBytes(u64::from(length));
            return Some(Record::TooLong);
        }
        if self.buffer.len() - 4 < record_bytes {
            return None;
        }
        self.buffer.advance(4);
        Some(Record::Whole(self.buffer.split_to(record_bytes).freeze()))
    }
}

enum Search {
    /// The record is what is before `start`; the next one begins at `end`.
    Found { start: usize, end: usize },
    /// No end in sight; nothing before `searched` can be part of one.
    Missing { searched: usize },
}

fn find_newline(bytes: &[u8], from: usize) -> Search {
    match memchr::memchr(b'\n', &bytes[from..]) {
        Some(offset) => Search::Found { start: from + offset, end: from + offset + 1 },
        None => Search::Missing { searched: bytes.len() },
    }
}

fn find_carbon_mark(bytes: &[u8], mut from: usize) -> Search {
    while let Some(offset) = memmem::find(&bytes[from..], CARBON_MARK) {
        let start = from + offset;
        let digits_at = start + CARBON_MARK.len();
        let digits = bytes[digits_at..].iter().take(CARBON_MAX_DIGITS + 1).take_while(|b| b.is_ascii_digit()).count();
        match bytes.get(digits_at + digits) {
            None => return Search::Missing { searched: start },
            Some(b'\n') if (1..=CARBON_MAX_DIGITS).contains(&digits) => {
                return Search::Found { start, end: digits_at + digits + 1 };
            }
            Some(_) => from = start + 1,
        }
    }
    // The mark's beginning may be the last bytes here.
    let possible = (1..CARBON_MARK.len()).rev().find(|&length| bytes.ends_with(&CARBON_MARK[..length]));
    Search::Missing { searched: bytes.len() - possible.unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(framing: Framing, max: usize, pieces: &[&[u8]]) -> (Vec<Record>, usize) {
        let mut records = Records::new(framing, max);
        let mut seen = Vec::new();
        for piece in pieces {
            records.receive(piece);
            while let Some(record) = records.next_record() {
                seen.push(record);
            }
        }
        (seen, records.unfinished_bytes())
    }

    fn whole(text: &str) -> Record {
        Record::Whole(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn lines_end_at_newlines_and_a_half_one_waits() {
        let (records, left) = all(Framing::Lines, 10, &[b"one\n\ntw", b"o\nhal"]);
        assert_eq!(records, [whole("one"), whole("two")]);
        assert_eq!(left, 3);
    }

    #[test]
    fn carbonphp_records_end_at_its_mark_and_may_hold_newlines_and_almost_marks() {
        let pieces: [&[u8]; 4] = [
            b"{\"a\":\n1}\nCarbonPHP\\Abstracts\\Pipe:29\nx\nCarbonPHP\\Abstracts\\Pipe:y\nCarbon",
            b"PHP\\Abstracts\\Pipe:2",
            b"9",
            b"\nrest",
        ];
        let (records, left) = all(Framing::CarbonPhp, 100, &pieces);
        assert_eq!(records, [whole("{\"a\":\n1}"), whole("x\nCarbonPHP\\Abstracts\\Pipe:y")]);
        assert_eq!(left, 4);
    }

    #[test]
    fn counted_records_hold_any_byte() {
        let (records, left) =
            all(Framing::Length, 10, &[&[0, 0, 0, 3, b'\n', 0, 255, 0, 0, 0, 0, 0, 0, 0], &[2, b'a']]);
        assert_eq!(records, [Record::Whole(Bytes::from_static(&[b'\n', 0, 255]))]);
        assert_eq!(left, 5);
    }

    #[test]
    fn a_record_over_the_limit_is_dropped_whole_and_the_next_one_is_not() {
        let (records, _) = all(Framing::Lines, 4, &[b"12345678", b"9012345\nok\n12345\nalso\n"]);
        assert_eq!(records, [Record::TooLong, whole("ok"), Record::TooLong, whole("also")]);
        let (records, _) = all(Framing::Length, 2, &[&[0, 0, 0, 3, 1], &[2, 3, 0, 0, 0, 1, b'x']]);
        assert_eq!(records, [Record::TooLong, whole("x")]);
        let (records, left) = all(Framing::Length, 2, &[&[255, 255, 255, 255, 1, 2, 3]]);
        assert_eq!((records, left), (vec![Record::TooLong], 0));
    }

    #[test]
    fn a_record_without_end_takes_no_more_memory_than_the_limit() {
        let mut records = Records::new(Framing::CarbonPhp, 1000);
        let mut too_long = 0;
        for _ in 0..1000 {
            records.receive(&[b'\n'; 500]);
            while records.next_record().is_some() {
                too_long += 1;
            }
            assert!(records.unfinished_bytes() <= 1500);
        }
        assert_eq!(too_long, 1);
    }

    proptest! {
        #[test]
        fn the_same_records_come_out_however_the_bytes_were_cut(
            messages in prop::collection::vec("[a-z\\n:\\\\C]{1,40}", 1..10),
            cuts in prop::collection::vec(1_usize..30, 1..60),
            framing in prop::sample::select(vec![Framing::Lines, Framing::CarbonPhp, Framing::Length]),
        ) {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for message in &messages {
                let message = if framing == Framing::Lines { message.replace('\n', " ") } else { message.clone() };
                match framing {
                    Framing::Lines => bytes.extend_from_slice(format!("{message}\n").as_bytes()),
                    Framing::CarbonPhp => {
                        bytes.extend_from_slice(format!("{message}\nCarbonPHP\\Abstracts\\Pipe:29\n").as_bytes());
                    }
                    Framing::Length => {
                        bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
                        bytes.extend_from_slice(message.as_bytes());
                    }
                }
                expected.push(whole(&message));
            }
            let mut pieces = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            let (records, left) = all(framing, 1000, &pieces);
            prop_assert_eq!(records, expected);
            prop_assert_eq!(left, 0);
        }
    }
}
