//! FastCGI 1.0 on the wire, without IO: one request goes out, one answer comes in.
//!
//! A request is never multiplexed with another: its id is always 1, and a record that belongs to any other is an error. Of the answer
//! nothing is kept but the header of the record that is being read; its content is given on as it comes.

use std::cell::Cell;

use bytes::{Buf, Bytes};
use thiserror::Error;

use crate::pairs::{self, Pair};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 8;
const END_BYTES: usize = 8;

/// The id of every request.
const REQUEST: u16 = 1;

/// The content of a record that is sent is at most so long: PHP takes no more than 65,531 bytes with the padding, and a multiple of 8
/// needs no padding.
const MAX_CONTENT_BYTES: usize = 65_528;

/// Name and value of a short parameter, with their lengths.
const MAX_SHORT_BYTES: usize = 256;

/// Room for the requests of most browsers.
const FIRST_BYTES: usize = 2048;

/// A longer buffer is not kept for the next request.
const MAX_SPARE_BYTES: usize = 16 * 1024;

thread_local! {
    /// The buffer of the last request that has left, for the next one of its thread.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

const RESPONDER: u8 = 1;
const KEEP_CONNECTION: u8 = 1;

/// Types of records.
mod kind {
    pub(super) const BEGIN_REQUEST: u8 = 1;
    pub(super) const END_REQUEST: u8 = 3;
    pub(super) const PARAMS: u8 = 4;
    pub(super) const STDIN: u8 = 5;
    pub(super) const STDOUT: u8 = 6;
    pub(super) const STDERR: u8 = 7;
}

/// Who closes the connection after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterAnswer {
    /// The server should, and this side does.
    Close,
    /// The same, and the server is told with the request that no other follows: this side ends its half at once.
    HalfClose,
    /// Nobody: another request may follow.
    Keep,
}

/// The beginning of a request, up to its body.
#[derive(Debug)]
pub(super) struct RequestHead {
    bytes: Vec<u8>,
    /// Where the record begins that is being filled.
    record: usize,
}

impl RequestHead {
    pub(super) fn new(after: AfterAnswer) -> Self {
        let mut bytes = SPARE.take();
        bytes.reserve(FIRST_BYTES);
        push_header(&mut bytes, kind::BEGIN_REQUEST, 8);
        let flags = match after {
            AfterAnswer::Close | AfterAnswer::HalfClose => 0,
            AfterAnswer::Keep => KEEP_CONNECTION,
        };
        bytes.extend_from_slice(&[0, RESPONDER, flags, 0, 0, 0, 0, 0]);
        let mut head = Self { bytes, record: 0 };
        head.open_record();
        head
    }

    /// Adds one parameter. It begins a new record where it does not fit into this one, because PHP does not put a pair together that is
    /// cut in two; one that is longer than a record is cut all the same.
    pub(super) fn parameter(&mut self, name: &[u8], value: &[u8]) {
        let length = pairs::length(name, value);
        self.make_room(length);
        if length <= MAX_CONTENT_BYTES {
            return pairs::push(&mut self.bytes, name, value);
        }
        let mut lengths = Vec::new();
        pairs::push_lengths(&mut lengths, name, value);
        self.push(&lengths);
        self.push(name);
        self.push(value);
    }

    /// The same for one that is written already.
    pub(super) fn written_parameter(&mut self, pair: &Pair<'_>) {
        self.make_room(pair.written.len());
        if pair.written.len() <= MAX_CONTENT_BYTES {
            self.bytes.extend_from_slice(pair.written);
        } else {
            self.push(pair.written);
        }
    }

    /// The same for a value that is written here, at most 127 bytes of it.
    pub(super) fn short_parameter(&mut self, name: &'static str, value: impl FnOnce(&mut Vec<u8>)) {
        self.make_room(MAX_SHORT_BYTES);
        pairs::push_short(&mut self.bytes, name, value);
    }

    fn make_room(&mut self, length: usize) {
        if self.content_bytes() > 0 && self.content_bytes() + length > MAX_CONTENT_BYTES {
            self.next_record();
        }
    }

    /// The whole request.
    pub(super) fn body(mut self, body: Bytes, begin: Begin) -> Outgoing {
        self.close_record();
        if self.content_bytes() > 0 {
            self.open_record();
        }
        // An empty record ends the parameters.
        let (held, runs_at) = (self.record, self.bytes.len());
        let held = match begin {
            Begin::AtOnce => None,
            Begin::WhenTaken => Some(held),
        };
        let mut outgoing =
            Outgoing { bytes: self.bytes, at: 0, held, body: Some(body), written: Written::ToRunNothing, runs_at };
        outgoing.push_body();
        outgoing
    }

    fn content_bytes(&self) -> usize {
        self.bytes.len() - self.record - HEADER_BYTES
    }

    fn open_record(&mut self) {
        self.record = self.bytes.len();
        push_header(&mut self.bytes, kind::PARAMS, 0);
    }

    fn close_record(&mut self) {
        let length = self.content_bytes() as u16;
        self.bytes[self.record + 4..self.record + 6].copy_from_slice(&length.to_be_bytes());
    }

    fn next_record(&mut self) {
        self.close_record();
        self.open_record();
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.content_bytes() == MAX_CONTENT_BYTES {
                self.next_record();
            }
            let (fits, rest) = bytes.split_at(bytes.len().min(MAX_CONTENT_BYTES - self.content_bytes()));
            self.bytes.extend_from_slice(fits);
            bytes = rest;
        }
    }
}

fn push_header(bytes: &mut Vec<u8>, kind: u8, content_bytes: usize) {
    let [request_high, request_low] = REQUEST.to_be_bytes();
    let [length_high, length_low] = (content_bytes as u16).to_be_bytes();
    bytes.extend_from_slice(&[VERSION, kind, request_high, request_low, length_high, length_low, 0, 0]);
}

/// Whether the record that lets a server begin leaves with the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// It does.
    AtOnce,
    /// It waits until the server has taken those before it, which a server that is about to close the connection never does.
    WhenTaken,
}

/// A request on its way. Memory: its head, and of its body at most one record at a time besides the shared message.
#[derive(Debug)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    at: usize,
    /// From where on `bytes` wait until the server has taken those before.
    held: Option<usize>,
    /// What of the body is not in `bytes` yet; `None`: its end is.
    body: Option<Bytes>,
    written: Written,
    /// How many bytes let a server begin: all parameters and the record that ends them.
    runs_at: usize,
}

/// How much of a request has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// Not so much that a server could run it: it may be sent again on another connection.
    ToRunNothing,
    /// A part of it.
    Part,
    /// All.
    Whole,
}

/// What is to be done next for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'o> {
    /// These bytes are to be written.
    Write(&'o [u8]),
    /// The server is to be waited for, until it has taken all that was written.
    WaitUntilTaken,
    /// Nothing.
    Nothing,
}

impl Outgoing {
    pub(super) fn next_step(&mut self) -> Step<'_> {
        if let Some(held) = self.held {
            return if self.at < held { Step::Write(&self.bytes[self.at..held]) } else { Step::WaitUntilTaken };
        }
        if self.at == self.bytes.len() {
            if self.body.is_none() {
                return Step::Nothing;
            }
            self.bytes.clear();
            self.at = 0;
            self.push_body();
        }
        Step::Write(&self.bytes[self.at..])
    }

    /// The server has taken all that was written.
    pub(super) fn taken(&mut self) {
        self.held = None;
    }

    /// So many of these bytes are written.
    pub(super) fn advance(&mut self, length: usize) {
        self.at += length;
        if self.written == Written::ToRunNothing && self.at >= self.runs_at {
            self.written = Written::Part;
        }
        if self.at == self.bytes.len() && self.body.is_none() {
            self.written = Written::Whole;
            // The answer may take long, and another call wants to begin.
            let mut spare = std::mem::take(&mut self.bytes);
            if spare.capacity() <= MAX_SPARE_BYTES {
                spare.clear();
                SPARE.set(spare);
            }
            self.at = 0;
        }
    }

    pub(super) const fn written(&self) -> Written {
        self.written
    }

    /// Adds the next record of the body, and the empty one that ends it.
    fn push_body(&mut self) {
        let Some(body) = &mut self.body else { return };
        let length = body.len().min(MAX_CONTENT_BYTES);
        if length > 0 {
            push_header(&mut self.bytes, kind::STDIN, length);
            self.bytes.extend_from_slice(&body[..length]);
            body.advance(length);
        }
        if body.is_empty() {
            push_header(&mut self.bytes, kind::STDIN, 0);
            self.body = None;
        }
    }
}

/// A piece of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'b> {
    /// Bytes of the answer itself.
    Stdout(&'b [u8]),
    /// Bytes of standard error.
    Stderr(&'b [u8]),
    /// The end of the answer.
    End(End),
}

/// What END_REQUEST says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The exit status of the application; 0 is success.
    pub(super) app_status: u32,
    pub(super) protocol_status: ProtocolStatus,
}

/// Whether the server took the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProtocolStatus {
    /// FCGI_REQUEST_COMPLETE.
    Complete,
    /// FCGI_CANT_MPX_CONN.
    NoMultiplexing,
    /// FCGI_OVERLOADED.
    Overloaded,
    /// FCGI_UNKNOWN_ROLE.
    UnknownRole,
}

/// What no answer has. Each begins with a verb, after the name of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum RecordError {
    #[error("sent a record of version {0}, not of FastCGI's 1 (is something else listening there?)")]
    Version(u8),
    #[error("sent a record of type {0}, which no answer has")]
    Kind(u8),
    #[error("sent an answer to request {0}, and was asked request 1")]
    Request(u16),
    #[error("sent an END_REQUEST of {0} bytes instead of 8")]
    EndLength(u16),
    #[error("sent the unknown protocol status {0}")]
    ProtocolStatus(u8),
    #[error("sent more after its END_REQUEST")]
    AfterEnd,
}

/// Reads the records of one answer.
#[derive(Debug)]
pub(super) struct Records(State);

#[derive(Debug)]
enum State {
    /// Before the first byte.
    Fresh,
    Header {
        bytes: [u8; HEADER_BYTES],
        length: usize,
    },
    Content {
        stream: Stream,
        left: usize,
        padding: u8,
    },
    EndContent {
        bytes: [u8; END_BYTES],
        length: usize,
        padding: u8,
    },
    Padding {
        left: u8,
        then: Then,
    },
    /// After the last byte.
    Ended,
}

#[derive(Debug, Clone, Copy)]
enum Stream {
    Stdout,
    Stderr,
}

/// What follows a padding.
#[derive(Debug, Clone, Copy)]
enum Then {
    Record,
    Nothing,
}

/// Where an answer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// Not a byte of it is there.
    Start,
    /// A record is whole, and another must follow.
    BetweenRecords,
    /// A part of a record is there.
    WithinRecord,
    /// All of it is there.
    End,
}

impl Records {
    pub(super) const fn new() -> Self {
        Self(State::Fresh)
    }

    pub(super) const fn position(&self) -> Position {
        match self.0 {
            State::Fresh => Position::Start,
            State::Header { length: 0, .. } => Position::BetweenRecords,
            State::Header { .. } | State::Content { .. } | State::EndContent { .. } | State::Padding { .. } => {
                Position::WithinRecord
            }
            State::Ended => Position::End,
        }
    }

    /// Takes bytes off the front until there is a piece of the answer; `None` when they are used up.
    ///
    /// # Errors
    /// These bytes are no answer. The connection is of no more use.
    pub(super) fn next<'b>(&mut self, bytes: &mut &'b [u8]) -> Result<Option<Piece<'b>>, RecordError> {
        while !bytes.is_empty() {
            match &mut self.0 {
                State::Fresh => self.0 = State::Header { bytes: [0; HEADER_BYTES], length: 0 },
                State::Header { bytes: header, length } => {
                    if fill(header, length, bytes) {
                        self.0 = parse_header(*header)?;
                    }
                }
                State::Content { stream, left, padding } => {
                    let content;
                    (content, *bytes) = bytes.split_at((*left).min(bytes.len()));
                    *left -= content.len();
                    let piece = match stream {
                        Stream::Stdout => Piece::Stdout(content),
                        Stream::Stderr => Piece::Stderr(content),
                    };
                    if *left == 0 {
                        self.0 = after_content(*padding, Then::Record);
                    }
                    return Ok(Some(piece));
                }
                State::EndContent { bytes: content, length, padding } => {
                    if fill(content, length, bytes) {
                        let end = parse_end(*content)?;
                        self.0 = after_content(*padding, Then::Nothing);
                        return Ok(Some(Piece::End(end)));
                    }
                }
                State::Padding { left, then } => {
                    let length = usize::from(*left).min(bytes.len());
                    *bytes = &bytes[length..];
                    self.0 = after_content(*left - length as u8, *then);
                }
                State::Ended => return Err(RecordError::AfterEnd),
            }
        }
        Ok(None)
    }
}

/// Moves bytes into a part of fixed size; whether it is full.
fn fill(part: &mut [u8], length: &mut usize, bytes: &mut &[u8]) -> bool {
    let (fits, rest) = bytes.split_at(bytes.len().min(part.len() - *length));
    part[*length..*length + fits.len()].copy_from_slice(fits);
    *length += fits.len();
    *bytes = rest;
    *length == part.len()
}

fn parse_header(header: [u8; HEADER_BYTES]) -> Result<State, RecordError> {
    let [version, kind, request_high, request_low, length_high, length_low, padding, _reserved] = header;
    let request = u16::from_be_bytes([request_high, request_low]);
    let length = u16::from_be_bytes([length_high, length_low]);
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    let stream = match kind {
        kind::STDOUT => Some(Stream::Stdout),
        kind::STDERR => Some(Stream::Stderr),
        kind::END_REQUEST => None,
        other => return Err(RecordError::Kind(other)),
    };
    if request != REQUEST {
        return Err(RecordError::Request(request));
    }
    Ok(match stream {
        // An empty record ends its stream, which END_REQUEST does as well.
        Some(_) if length == 0 => after_content(padding, Then::Record),
        Some(stream) => State::Content { stream, left: length.into(), padding },
        None if usize::from(length) == END_BYTES => State::EndContent { bytes: [0; END_BYTES], length: 0, padding },
        None => return Err(RecordError::EndLength(length)),
    })
}

/// The last three bytes are reserved; php-fpm leaves there what was in its memory.
fn parse_end(content: [u8; END_BYTES]) -> Result<End, RecordError> {
    let [a, b, c, d, protocol_status, ..] = content;
    let protocol_status = match protocol_status {
        0 => ProtocolStatus::Complete,
        1 => ProtocolStatus::NoMultiplexing,
        2 => ProtocolStatus::Overloaded,
        3 => ProtocolStatus::UnknownRole,
        other => return Err(RecordError::ProtocolStatus(other)),
    };
    Ok(End { app_status: u32::from_be_bytes([a, b, c, d]), protocol_status })
}

const fn after_content(padding: u8, then: Then) -> State {
    match (padding, then) {
        (0, Then::Record) => State::Header { bytes: [0; HEADER_BYTES], length: 0 },
        (0, Then::Nothing) => State::Ended,
        (left, then) => State::Padding { left, then },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a request as a server would: its type, content and parameters, independently of the code above.
    fn records_of(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(bytes[0], 1, "version");
            assert_eq!(bytes[2..4], [0, 1], "request id");
            let (length, padding) = (usize::from(bytes[4]) << 8 | usize::from(bytes[5]), usize::from(bytes[6]));
            records.push((bytes[1], bytes[8..8 + length].to_vec()));
            bytes = &bytes[8 + length + padding..];
        }
        records
    }

    fn pairs_of(mut bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut pairs = Vec::new();
        while !bytes.is_empty() {
            let mut length = || {
                let short = bytes[0];
                let (length, taken) = if short < 128 {
                    (usize::from(short), 1)
                } else {
                    (u32::from_be_bytes([short & 0x7f, bytes[1], bytes[2], bytes[3]]) as usize, 4)
                };
                bytes = &bytes[taken..];
                length
            };
            let (name, value) = (length(), length());
            pairs.push((bytes[..name].to_vec(), bytes[name..name + value].to_vec()));
            bytes = &bytes[name + value..];
        }
        pairs
    }

    /// All that is written, in steps of at most so many bytes.
    fn written(mut outgoing: Outgoing, step: usize) -> Vec<u8> {
        let mut written = Vec::new();
        loop {
            match outgoing.next_step() {
                Step::Write(bytes) => {
                    let length = bytes.len().min(step);
                    written.extend_from_slice(&bytes[..length]);
                    outgoing.advance(length);
                }
                Step::WaitUntilTaken => outgoing.taken(),
                Step::Nothing => {
                    assert_eq!(outgoing.written(), Written::Whole);
                    return written;
                }
            }
        }
    }

    fn streams(records: &[(u8, Vec<u8>)], kind: u8) -> Vec<Vec<u8>> {
        records.iter().filter(|(other, _)| *other == kind).map(|(_, content)| content.clone()).collect()
    }

    #[test]
    fn a_request_without_body_is_written_as_the_standard_says() {
        let mut head = RequestHead::new(AfterAnswer::Keep);
        head.parameter(b"A", b"bc");
        let expected: Vec<u8> = [
            &[1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0][..],
            &[1, 4, 0, 1, 0, 5, 0, 0, 1, 2, b'A', b'b', b'c'],
            &[1, 4, 0, 1, 0, 0, 0, 0],
            &[1, 5, 0, 1, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(written(head.body(Bytes::new(), Begin::AtOnce), usize::MAX), expected);
        let nothing = RequestHead::new(AfterAnswer::Close).body(Bytes::new(), Begin::WhenTaken);
        let expected = [&[1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &expected[29..]].concat();
        assert_eq!(written(nothing, 1), expected);
    }

    #[test]
    fn parameters_are_never_cut_where_php_would_not_put_them_together() {
        let mut head = RequestHead::new(AfterAnswer::Close);
        for number in 0..50u8 {
            head.parameter(&[number], &[number; 4000]);
        }
        let records = records_of(&written(head.body(Bytes::new(), Begin::AtOnce), usize::MAX));
        let params = streams(&records, kind::PARAMS);
        assert!(params.len() > 3 && params.iter().all(|content| content.len() <= 65_531));
        let pairs: Vec<_> = params.iter().flat_map(|content| pairs_of(content)).collect();
        assert_eq!(pairs.len(), 50);
    }

    #[test]
    fn a_request_that_is_held_can_be_run_only_after_it_was_taken() {
        let request = |begin| {
            let mut head = RequestHead::new(AfterAnswer::Keep);
            head.parameter(b"A", b"bc");
            head.body(Bytes::from_static(b"body"), begin)
        };
        let mut held = request(Begin::WhenTaken);
        let Step::Write(first) = held.next_step() else { panic!("something to write") };
        assert_eq!(records_of(first).last(), Some(&(kind::PARAMS, b"\x01\x02Abc".to_vec())));
        let length = first.len();
        held.advance(length);
        assert_eq!(held.next_step(), Step::WaitUntilTaken);
        assert_eq!(held.written(), Written::ToRunNothing);
        held.taken();
        let Step::Write(second) = held.next_step() else { panic!("more to write") };
        assert_eq!(records_of(second)[0], (kind::PARAMS, vec![]));
        held.advance(HEADER_BYTES - 1);
        assert_eq!(held.written(), Written::ToRunNothing);
        held.advance(1);
        assert_eq!(held.written(), Written::Part);
        let mut at_once = request(Begin::AtOnce);
        assert!(matches!(at_once.next_step(), Step::Write(bytes) if bytes.len() > length + HEADER_BYTES));
    }

    fn record(kind: u8, content: &[u8], padding: u8) -> Vec<u8> {
        let length = (content.len() as u16).to_be_bytes();
        let mut record = vec![1, kind, 0, 1, length[0], length[1], padding, 0xEE];
        record.extend_from_slice(content);
        record.resize(record.len() + usize::from(padding), 0xEE);
        record
    }

    /// STDOUT, STDERR, the end, and how far it was read.
    type Read = (Vec<u8>, Vec<u8>, Option<End>, Position);

    /// What an answer says, read in these pieces.
    fn read(pieces: &[&[u8]]) -> Result<Read, RecordError> {
        let (mut stdout, mut stderr, mut end) = (Vec::new(), Vec::new(), None);
        let mut records = Records::new();
        for mut piece in pieces.iter().copied() {
            while let Some(piece) = records.next(&mut piece)? {
                match piece {
                    Piece::Stdout(bytes) => stdout.extend_from_slice(bytes),
                    Piece::Stderr(bytes) => stderr.extend_from_slice(bytes),
                    Piece::End(it) => assert_eq!(end.replace(it), None, "one end"),
                }
            }
        }
        Ok((stdout, stderr, end, records.position()))
    }

    #[test]
    fn what_no_answer_has_is_an_error_that_says_what_it_was() {
        let end = record(3, &[0; 8], 0);
        let mut other = record(6, b"x", 0);
        other[3] = 2;
        let cases = [
            (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), RecordError::Version(b'H')),
            (record(9, b"", 0), RecordError::Kind(9)),
            (record(11, &[0; 8], 0), RecordError::Kind(11)),
            (record(99, b"", 0), RecordError::Kind(99)),
            (other, RecordError::Request(2)),
            (record(3, &[0; 7], 0), RecordError::EndLength(7)),
            (record(3, &[0, 0, 0, 0, 4, 0, 0, 0], 0), RecordError::ProtocolStatus(4)),
            ([end.clone(), end.clone()].concat(), RecordError::AfterEnd),
            ([end.clone(), record(6, b"more", 0)].concat(), RecordError::AfterEnd),
            ([end, vec![0]].concat(), RecordError::AfterEnd),
        ];
        for (bytes, error) in cases {
            assert_eq!(read(&[&bytes]), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn the_end_of_an_answer_has_both_statuses_and_may_be_padded() {
        let bytes = record(3, &[0, 0, 1, 2, 2, b'j', b'n', b'k'], 3);
        let end = End { app_status: 258, protocol_status: ProtocolStatus::Overloaded };
        assert_eq!(read(&[&bytes]), Ok((vec![], vec![], Some(end), Position::End)));
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(read(&[cut]), Ok((vec![], vec![], Some(end), Position::WithinRecord)));
    }

    #[test]
    fn a_cut_answer_knows_whether_it_was_cut_within_a_record() {
        let bytes = record(6, b"abc", 2);
        for length in 0..=bytes.len() {
            let expected = match length {
                0 => Position::Start,
                _ if length == bytes.len() => Position::BetweenRecords,
                _ => Position::WithinRecord,
            };
            assert_eq!(read(&[&bytes[..length]]).expect("no error").3, expected, "{length} bytes");
        }
    }

    fn cut<'b>(bytes: &'b [u8], cuts: &[prop::sample::Index]) -> Vec<&'b [u8]> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_request_comes_out_as_it_went_in(
            parameters in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..140), prop::collection::vec(any::<u8>(), 0..140)), 0..30),
            body_bytes in 0usize..200_000,
            step in 1usize..100_000,
            begin in prop_oneof![Just(Begin::AtOnce), Just(Begin::WhenTaken)],
        ) {
            let mut head = RequestHead::new(AfterAnswer::Close);
            for (name, value) in &parameters {
                head.parameter(name, value);
            }
            let body: Bytes = (0..body_bytes).map(|at| (at * 31 / 8) as u8).collect();
            let records = records_of(&written(head.body(body.clone(), begin), step));
            let (params, stdin) = (streams(&records, kind::PARAMS), streams(&records, kind::STDIN));
            prop_assert_eq!(records.len(), 1 + params.len() + stdin.len());
            // Each stream ends with its one empty record.
            for stream in [&params, &stdin] {
                prop_assert!(stream.iter().rposition(|content| !content.is_empty()).map_or(0, |at| at + 1) == stream.len() - 1);
            }
            let pairs: Vec<_> = params.iter().flat_map(|content| pairs_of(content)).collect();
            prop_assert_eq!(pairs, parameters);
            prop_assert!(stdin.concat() == body);
        }

        #[test]
        fn one_parameter_longer_than_a_record_is_cut_and_nothing_is_lost(bytes in 65_000usize..200_000) {
            let mut head = RequestHead::new(AfterAnswer::Close);
            head.parameter(b"SHORT", b"1");
            head.parameter(b"LONG", &vec![7; bytes]);
            head.parameter(b"LAST", b"2");
            let records = records_of(&written(head.body(Bytes::new(), Begin::AtOnce), usize::MAX));
            let pairs = pairs_of(&streams(&records, kind::PARAMS).concat());
            prop_assert_eq!(pairs.len(), 3);
            prop_assert!(pairs[1] == (b"LONG".to_vec(), vec![7; bytes]));
        }

        #[test]
        fn an_answer_is_the_same_however_it_is_cut(
            parts in prop::collection::vec(
                (6u8..8, prop::collection::vec(any::<u8>(), 0..50), any::<u8>()), 0..10),
            app_status in any::<u32>(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let mut bytes = Vec::new();
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            for (kind, content, padding) in parts {
                bytes.extend(record(kind, &content, padding));
                if kind == 6 { stdout.extend(content) } else { stderr.extend(content) }
            }
            let [a, b, c, d] = app_status.to_be_bytes();
            bytes.extend(record(3, &[a, b, c, d, 0, 0, 0, 0], 0));
            let end = End { app_status, protocol_status: ProtocolStatus::Complete };
            prop_assert_eq!(read(&cut(&bytes, &cuts)), Ok((stdout, stderr, Some(end), Position::End)));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic_and_nothing_is_made_up(
            mut bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..8], 0..400),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            // Half of them begin like a record.
            if bytes.len() > 8 && bytes[7] % 2 == 0 {
                bytes[..4].copy_from_slice(&[1, 6, 0, 1]);
            }
            if let Ok((stdout, stderr, ..)) = read(&cut(&bytes, &cuts)) {
                prop_assert!(stdout.len() + stderr.len() <= bytes.len());
            }
        }
    }
}
