//! The packets between the server and its spawner.
//!
//! Both ends are the same binary, yet each reads the other's packets as if it were not: a packet that is not exactly what it
//! should be is `None`, never a panic. One packet of the SEQPACKET socket is one message. Numbers are little-endian, strings end with
//! a NUL (so that the spawner hands them to `execve` where they lie), and the last list of strings ends with its packet.

use std::ffi::CStr;
use std::time::Duration;

use super::{NewSession, ProcessLimits};
use crate::error::StartStep;

/// The longest packet, on either side. Below the smallest send buffer that Linux gives a socket by default (208 KiB).
pub(super) const MAX_PACKET_BYTES: usize = 128 * 1024;

const START: u8 = 1;
const END: u8 = 2;
const STARTED: u8 = 3;
const FAILED: u8 = 4;
const EXITED: u8 = 5;
const SIGNALLED: u8 = 6;

/// Where the number of the call stands in a request.
const CALL: std::ops::Range<usize> = 1..9;

/// One call of one client, never used again.
pub(super) type CallNumber = u64;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this status.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

/// What the server asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request<'p> {
    /// Start a process; its standard input, output and error come along.
    Start(Box<Start<'p>>),
    /// End the process group of a call: TERM, and KILL after its grace.
    End(CallNumber),
}

/// A process to start.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Start<'p> {
    pub(super) call: CallNumber,
    pub(super) grace: Duration,
    pub(super) session: NewSession,
    pub(super) limits: ProcessLimits,
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) groups: Vec<u32>,
    pub(super) program: &'p CStr,
    pub(super) directory: &'p CStr,
    pub(super) arguments: Vec<&'p CStr>,
    /// `NAME=VALUE`, each.
    pub(super) environment: Vec<&'p CStr>,
}

/// What the spawner answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is a process, which is about to become the program.
    Started { call: CallNumber, pid: i32 },
    /// There is none, or it could not become the program.
    Failed { call: CallNumber, step: StartStep, errno: i32 },
    /// The process has ended and what it printed is in its pipes.
    Exited { call: CallNumber, ended: Ended },
}

/// Room for any encoded [`Answer`].
pub(super) type AnswerPacket = [u8; 14];

impl Answer {
    /// As a packet; no allocation, for the child between fork and exec.
    pub(super) fn encode(self) -> AnswerPacket {
        let (tag, call, detail, number) = match self {
            Self::Started { call, pid } => (STARTED, call, 0, pid),
            Self::Failed { call, step, errno } => (FAILED, call, step as u8, errno),
            Self::Exited { call, ended: Ended::Exit(status) } => (EXITED, call, 0, status),
            Self::Exited { call, ended: Ended::Signal(signal) } => (SIGNALLED, call, 0, signal),
        };
        let mut packet = [0; size_of::<AnswerPacket>()];
        packet[0] = tag;
        packet[CALL].copy_from_slice(&call.to_le_bytes());
        packet[9] = detail;
        packet[10..].copy_from_slice(&number.to_le_bytes());
        packet
    }

    /// From a packet; `None` when it is none of ours.
    pub(super) fn decode(packet: &[u8]) -> Option<Self> {
        let mut reader = Reader(packet);
        let (tag, call, detail, number) = (reader.u8()?, reader.u64()?, reader.u8()?, reader.u32()? as i32);
        if !reader.0.is_empty() {
            return None;
        }
        Some(match (tag, detail) {
            (STARTED, 0) if number > 1 => Self::Started { call, pid: number },
            (FAILED, step) => Self::Failed { call, step: StartStep::from_number(step)?, errno: number },
            (EXITED, 0) => Self::Exited { call, ended: Ended::Exit(number) },
            (SIGNALLED, 0) => Self::Exited { call, ended: Ended::Signal(number) },
            _ => return None,
        })
    }
}

/// The part of a [`Start`] that is the same for all calls of one application.
#[derive(Debug)]
pub(super) struct Common<'s> {
    pub(super) grace: Duration,
    pub(super) session: NewSession,
    pub(super) limits: ProcessLimits,
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) groups: &'s [u32],
    pub(super) program: &'s CStr,
    pub(super) directory: &'s CStr,
    pub(super) arguments: &'s [std::ffi::CString],
}

/// A start request that still lacks the number of its call and its environment (see [`set_call`] and [`push_variable`]).
pub(super) fn encode_start(common: &Common<'_>) -> Vec<u8> {
    let mut packet = vec![START];
    packet.extend_from_slice(&0u64.to_le_bytes());
    let grace_ms = u32::try_from(common.grace.as_millis()).unwrap_or(u32::MAX);
    packet.extend_from_slice(&grace_ms.to_le_bytes());
    packet.push(match common.session {
        NewSession::No => 0,
        NewSession::Yes => 1,
    });
    let ProcessLimits { memory_bytes, cpu_seconds, processes, open_files } = common.limits;
    for limit in [memory_bytes, cpu_seconds, processes, open_files] {
        push_optional(&mut packet, limit.map(u64::to_le_bytes));
    }
    push_optional(&mut packet, common.user.map(u32::to_le_bytes));
    push_optional(&mut packet, common.group.map(u32::to_le_bytes));
    packet.extend_from_slice(&(common.groups.len() as u32).to_le_bytes());
    for group in common.groups {
        packet.extend_from_slice(&group.to_le_bytes());
    }
    packet.extend_from_slice(common.program.to_bytes_with_nul());
    packet.extend_from_slice(common.directory.to_bytes_with_nul());
    packet.extend_from_slice(&(common.arguments.len() as u32).to_le_bytes());
    for argument in common.arguments {
        packet.extend_from_slice(argument.to_bytes_with_nul());
    }
    packet
}

/// Gives a start request the number of its call.
pub(super) fn set_call(packet: &mut [u8], call: CallNumber) {
    packet[CALL].copy_from_slice(&call.to_le_bytes());
}

/// Adds a variable to a start request; neither part may hold a NUL.
pub(super) fn push_variable(packet: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    packet.extend_from_slice(name);
    packet.push(b'=');
    packet.extend_from_slice(value);
    packet.push(0);
}

/// A request to end a call.
pub(super) fn encode_end(call: CallNumber) -> [u8; 9] {
    let mut packet = [END; 9];
    set_call(&mut packet, call);
    packet
}

impl<'p> Request<'p> {
    /// From a packet; `None` when it is none of ours.
    pub(super) fn decode(packet: &'p [u8]) -> Option<Self> {
        let mut reader = Reader(packet);
        let (tag, call) = (reader.u8()?, reader.u64()?);
        match tag {
            START => Start::decode(call, reader).map(|start| Self::Start(Box::new(start))),
            END if reader.0.is_empty() => Some(Self::End(call)),
            _ => None,
        }
    }
}

impl<'p> Start<'p> {
    fn decode(call: CallNumber, mut reader: Reader<'p>) -> Option<Self> {
        Some(Self {
            call,
            grace: Duration::from_millis(reader.u32()?.into()),
            session: match reader.u8()? {
                0 => NewSession::No,
                1 => NewSession::Yes,
                _ => return None,
            },
            limits: ProcessLimits {
                memory_bytes: reader.optional(Reader::u64)?,
                cpu_seconds: reader.optional(Reader::u64)?,
                processes: reader.optional(Reader::u64)?,
                open_files: reader.optional(Reader::u64)?,
            },
            user: reader.optional(Reader::u32)?,
            group: reader.optional(Reader::u32)?,
            groups: reader.list(Reader::u32)?,
            program: reader.string()?,
            directory: reader.string()?,
            arguments: reader.list(Reader::string)?,
            environment: reader.strings_to_the_end()?,
        })
    }
}

fn push_optional<const N: usize>(packet: &mut Vec<u8>, bytes: Option<[u8; N]>) {
    match bytes {
        None => packet.push(0),
        Some(bytes) => {
            packet.push(1);
            packet.extend_from_slice(&bytes);
        }
    }
}

/// What is left of a packet.
struct Reader<'p>(&'p [u8]);

impl<'p> Reader<'p> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.bytes().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn string(&mut self) -> Option<&'p CStr> {
        let string = CStr::from_bytes_until_nul(self.0).ok()?;
        self.0 = &self.0[string.count_bytes() + 1..];
        Some(string)
    }

    fn optional<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.u8()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }

    /// Grows with what is really there, whatever the count says.
    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        (0..count).map(|_| read(self)).collect()
    }

    fn strings_to_the_end(&mut self) -> Option<Vec<&'p CStr>> {
        let mut strings = Vec::new();
        while !self.0.is_empty() {
            strings.push(self.string()?);
        }
        Some(strings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole_start() -> Vec<u8> {
        let mut packet = encode_start(&Common {
            grace: Duration::from_millis(1500),
            session: NewSession::Yes,
            limits: ProcessLimits { memory_bytes: Some(1 << 40), open_files: Some(7), ..ProcessLimits::default() },
            user: Some(33),
            group: None,
            groups: &[4, 24],
            program: c"/bin/sh",
            directory: c"/srv",
            arguments: &[c"sh".to_owned(), c"".to_owned()],
        });
        set_call(&mut packet, 99);
        push_variable(&mut packet, b"A", b"1");
        push_variable(&mut packet, b"EMPTY", b"");
        packet
    }

    #[test]
    fn a_start_request_comes_out_as_it_went_in() {
        let packet = whole_start();
        let Some(Request::Start(start)) = Request::decode(&packet) else { panic!("no start request") };
        assert_eq!((start.call, start.grace), (99, Duration::from_millis(1500)));
        assert_eq!(start.session, NewSession::Yes);
        assert_eq!((start.limits.memory_bytes, start.limits.open_files), (Some(1 << 40), Some(7)));
        assert_eq!((start.limits.cpu_seconds, start.limits.processes), (None, None));
        assert_eq!((start.user, start.group, start.groups), (Some(33), None, vec![4, 24]));
        assert_eq!((start.program, start.directory), (c"/bin/sh", c"/srv"));
        assert_eq!(start.arguments, [c"sh", c""]);
        assert_eq!(start.environment, [c"A=1", c"EMPTY="]);
    }

    #[test]
    fn a_cut_start_request_is_none_or_lacks_only_whole_variables() {
        let packet = whole_start();
        let without_variables = packet.len() - "A=1\0EMPTY=\0".len();
        for length in 0..packet.len() {
            let whole = length == without_variables || length == packet.len() - "EMPTY=\0".len();
            assert_eq!(Request::decode(&packet[..length]).is_some(), whole, "{length} bytes");
        }
    }

    #[test]
    fn every_answer_comes_out_as_it_went_in() {
        for answer in [
            Answer::Started { call: 1, pid: 4711 },
            Answer::Failed { call: u64::MAX, step: StartStep::Execute, errno: libc::ENOENT },
            Answer::Exited { call: 3, ended: Ended::Exit(255) },
            Answer::Exited { call: 4, ended: Ended::Signal(libc::SIGSEGV) },
        ] {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
        assert_eq!(Request::decode(&encode_end(7)), Some(Request::End(7)));
    }

    #[test]
    fn a_process_id_that_would_signal_everybody_is_refused() {
        for pid in [-1, 0, 1] {
            assert_eq!(Answer::decode(&Answer::Started { call: 1, pid }.encode()), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(tag in 0u8..8, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let packet = [&[tag][..], &bytes].concat();
            let _ = Answer::decode(&packet);
            if let Some(Request::Start(start)) = Request::decode(&packet) {
                prop_assert!(start.arguments.len() <= packet.len());
            }
        }

        #[test]
        fn a_start_request_with_one_wrong_byte_is_read_without_a_panic(at in 0usize..100, byte in any::<u8>()) {
            let mut packet = whole_start();
            let at = at % packet.len();
            packet[at] = byte;
            let _ = Request::decode(&packet);
        }
    }
}
