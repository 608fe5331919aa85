//! One TLS connection of a server: ciphertext and plaintext in the caller's buffers.
//!
//! ```text
//!  socket ── bytes ──> receive() ──> plaintext        plaintext ──> encrypt() ──> out ──> socket
//!                         └── what the protocol sends ──> poll_transmit() ──^ ^── keep() ── what it did not take
//! ```
//! An idle connection owns its keys and no buffer. What must stay between two calls is kept as long as it must: the
//! part of a record that came, and the ciphertext that the socket didn't take. Both are bounded, and both are freed
//! with their capacity.

use std::fmt;
use std::mem;
use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig};

use crate::acceptor::Alpn;
use crate::error::TlsError;
use crate::first_bytes::{ANSWER_TO_PLAIN_HTTP, is_plain_http};
use crate::record;

/// Where [`TlsConnection::encrypt`] stops to take plaintext, so that no more than this and one record is ever kept for
/// a peer that doesn't read.
pub const MAX_TRANSMIT_BYTES: usize = 256 << 10;

/// What is kept of a handshake message in several records. The longest ClientHello of a browser has 2 KiB.
const MAX_KEPT_BYTES: usize = 32 << 10;

/// What a record is longer than its plaintext, of every suite, and a `KeyUpdate` before it.
const RECORD_OVERHEAD_BYTES: usize = 96;

/// A version of TLS. Older ones are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// RFC 5246
    Tls12,
    /// RFC 8446
    Tls13,
}

/// When what waits in the connection has to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transmit {
    /// Nothing waits.
    Nothing,
    /// It may wait for the next plaintext, and then leaves with it: tickets of TLS 1.3.
    WithNext,
    /// The peer waits for it.
    Now,
}

/// Where a connection is after some bytes were received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The handshake came to its end in this call. It happens once.
    pub handshake_completed: bool,
    /// The peer sent `close_notify`: nothing comes after it. What is left to send may still be sent.
    pub closed_by_peer: bool,
    /// When [`TlsConnection::poll_transmit`] or [`TlsConnection::encrypt`] has to be called for the protocol's own
    /// sake.
    pub transmit: Transmit,
}

/// The server's side of one TLS connection.
pub struct TlsConnection {
    rustls: Box<UnbufferedServerConnection>,
    stage: Stage,
    received: Received,
    /// Ciphertext for the peer: what the socket did not take, then what the protocol says. Empty while idle.
    pending: Vec<u8>,
    /// Whether the peer waits for something in `pending`.
    urgent: bool,
    /// Whether our `close_notify` is out.
    closing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not one byte came.
    New,
    Handshake,
    Open,
    ClosedByPeer,
    Failed,
}

/// Received bytes that rustls can't use yet.
#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    /// Where the record begins that lacks something. Before it are parts of a handshake message that rustls decrypted
    /// in place.
    cut_record: usize,
}

impl Received {
    /// Keeps what was not used of `bytes`, whose last whole record ended at `whole`.
    fn keep(&mut self, bytes: &[u8], used: usize, whole: usize) {
        self.bytes = bytes[used..].to_vec();
        self.cut_record = whole.saturating_sub(used);
    }
}

impl TlsConnection {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        Ok(Self {
            rustls: Box::new(UnbufferedServerConnection::new(config)?),
            stage: Stage::New,
            received: Received::default(),
            pending: Vec::new(),
            urgent: false,
            closing: false,
        })
    }

    /// Takes all of `input`, which just came from the socket in any cut, and appends what it carries to `plaintext`:
    /// never more bytes than came, plus one record. `input` is decrypted where it lies, so that its content is lost.
    ///
    /// The end of the stream without `closed_by_peer` before means that somebody cut it.
    ///
    /// # Errors
    /// When the connection can't go on; all further calls give nothing. The alert waits in [`Self::poll_transmit`].
    pub fn receive(&mut self, input: &mut [u8], plaintext: &mut Vec<u8>) -> Result<Progress, TlsError> {
        let was_handshaking = self.is_handshaking();
        if self.stage == Stage::New && !input.is_empty() {
            if is_plain_http(input) {
                return Err(self.fail_with(TlsError::PlainHttp, ANSWER_TO_PLAIN_HTTP));
            }
            self.stage = Stage::Handshake;
        }
        if !matches!(self.stage, Stage::ClosedByPeer | Stage::Failed) {
            self.receive_records(input, plaintext).inspect_err(|_| {
                self.stage = Stage::Failed;
                self.received = Received::default();
            })?;
        }
        Ok(Progress {
            handshake_completed: was_handshaking && self.stage != Stage::Failed && !self.is_handshaking(),
            closed_by_peer: self.stage == Stage::ClosedByPeer,
            transmit: self.transmit(),
        })
    }

    fn receive_records(&mut self, input: &mut [u8], plaintext: &mut Vec<u8>) -> Result<(), TlsError> {
        let rest = self.complete_kept_record(input, plaintext)?;
        if rest.is_empty() || self.stage == Stage::ClosedByPeer {
            return Ok(());
        }
        // A header that can't be is rustls's to refuse, before its record is whole.
        let whole = record::whole(rest);
        let used = self.process(rest, plaintext)?;
        if self.stage != Stage::ClosedByPeer && used < rest.len() {
            self.received.keep(rest, used, whole);
            self.check_kept()?;
        }
        Ok(())
    }

    /// Gives the kept bytes what they lack from the front of `input`, and returns the rest of it.
    fn complete_kept_record<'b>(
        &mut self,
        mut input: &'b mut [u8],
        plaintext: &mut Vec<u8>,
    ) -> Result<&'b mut [u8], TlsError> {
        while !self.received.bytes.is_empty() && !input.is_empty() {
            let Received { mut bytes, cut_record } = mem::take(&mut self.received);
            let missing = record::missing(&bytes[cut_record..]).min(input.len());
            let (front, rest) = input.split_at_mut(missing);
            bytes.extend_from_slice(front);
            input = rest;
            let whole = cut_record + record::whole(&bytes[cut_record..]);
            let header_came = bytes.len() - cut_record == record::HEADER_BYTES;
            // Nothing new for rustls in half a record, but in its header.
            let used = if whole > cut_record || header_came { self.process(&mut bytes, plaintext)? } else { 0 };
            if self.stage == Stage::ClosedByPeer {
                break;
            }
            if used == 0 {
                self.received = Received { bytes, cut_record: whole };
            } else if used < bytes.len() {
                self.received.keep(&bytes, used, whole);
            }
            self.check_kept()?;
        }
        Ok(input)
    }

    fn check_kept(&mut self) -> Result<(), TlsError> {
        if self.received.bytes.len() <= MAX_KEPT_BYTES {
            return Ok(());
        }
        let mut received = mem::take(&mut self.received);
        self.say_close(&mut received.bytes);
        Err(TlsError::LongHandshakeMessage(MAX_KEPT_BYTES))
    }

    /// Lets rustls work through `bytes`. Gives how many of them it is done with.
    fn process(&mut self, bytes: &mut [u8], plaintext: &mut Vec<u8>) -> Result<usize, TlsError> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = self.rustls.process_tls_records(&mut bytes[used..]);
            let mut carried = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        plaintext.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                    carried = true;
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    encode(data, &mut self.pending);
                    // Of TLS 1.3 come tickets then, and nobody waits for them.
                    self.urgent |= self.rustls.is_handshaking() || self.version() == Some(Version::Tls12);
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.stage = Stage::ClosedByPeer,
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => {
                    used += discard;
                    break;
                }
                Ok(_) => return Err(TlsError::Server("early data came, which is not offered".to_owned())),
                Err(error) => {
                    self.take_queued();
                    return Err(error.into());
                }
            }
            used += discard;
            // The usual case, in which another round would only say that nothing is left.
            if carried && used == bytes.len() && !self.rustls.wants_write() {
                break;
            }
        }
        if self.stage == Stage::Handshake && !self.rustls.is_handshaking() {
            self.stage = Stage::Open;
        }
        Ok(used)
    }

    /// Puts `close_notify` into `pending`, if the handshake came far enough for one. `kept` is what rustls has not
    /// used.
    fn say_close(&mut self, kept: &mut [u8]) {
        // Without space it is only queued, and taken from there.
        let _ = with_traffic(&mut self.rustls, kept, |mut traffic| traffic.queue_close_notify(&mut []));
        self.take_queued();
    }

    /// Moves what rustls has queued into `pending`: the alert after an error, or our `close_notify`.
    fn take_queued(&mut self) {
        // As long as something is queued, rustls does not look at what came. It must not: after an error it can't.
        while self.rustls.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(data)) = self.rustls.process_tls_records(&mut []).state
        {
            encode(data, &mut self.pending);
            self.urgent = true;
        }
    }

    fn fail_with(&mut self, error: TlsError, answer: &[u8]) -> TlsError {
        self.stage = Stage::Failed;
        self.pending.extend_from_slice(answer);
        self.urgent = true;
        error
    }

    /// Appends to `out` what waits, then the records that carry `plaintext`, and gives how many bytes of it were taken.
    ///
    /// Slices are joined, so that each record but the last carries 16 KiB. It takes less than all where `out` has
    /// reached [`MAX_TRANSMIT_BYTES`], and nothing before the handshake is complete or after a close or an error.
    ///
    /// # Errors
    /// When the keys of a TLS 1.2 connection are used up, after 2^24 records. The `close_notify` is in `out`.
    pub fn encrypt(&mut self, plaintext: &[&[u8]], out: &mut Vec<u8>) -> Result<usize, TlsError> {
        self.poll_transmit(out);
        if self.closing || !matches!(self.stage, Stage::Open | Stage::ClosedByPeer) {
            return Ok(0);
        }
        let mut taken = 0;
        let mut rest = Slices::new(plaintext);
        while out.len() < MAX_TRANSMIT_BYTES {
            let bytes = rest.len_up_to(record::MAX_PLAINTEXT_BYTES);
            if bytes == 0 {
                break;
            }
            self.encrypt_record(&mut rest, bytes, out).inspect_err(|_| {
                self.stage = Stage::Failed;
                self.take_queued();
                self.poll_transmit(out);
            })?;
            taken += bytes;
        }
        Ok(taken)
    }

    /// Encrypts the first `bytes` of `slices` into one record at the end of `out`.
    fn encrypt_record(&mut self, slices: &mut Slices<'_>, bytes: usize, out: &mut Vec<u8>) -> Result<(), TlsError> {
        let start = out.len();
        let mut space = bytes + RECORD_OVERHEAD_BYTES;
        loop {
            out.resize(start + space, 0);
            let written = if slices.first.len() >= bytes {
                encrypt(&mut self.rustls, &mut self.received.bytes, &slices.first[..bytes], &mut out[start..])
            } else {
                // Joined behind the place of their record, so that no other buffer is needed.
                slices.copy(bytes, out);
                let (record, joined) = out[start..].split_at_mut(space);
                encrypt(&mut self.rustls, &mut self.received.bytes, joined, record)
            };
            match written {
                Ok(written) => {
                    out.truncate(start + written);
                    slices.advance(bytes);
                    return Ok(());
                }
                Err(NotEncrypted::Space(required)) if required > space => space = required,
                Err(error) => {
                    out.truncate(start);
                    return Err(error.into());
                }
            }
        }
    }

    /// Appends to `out` what waits for the peer: the handshake, an alert, what the socket did not take before.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) {
        out.append(&mut mem::take(&mut self.pending));
        self.urgent = false;
    }

    /// Takes back the end of what was given to send, because the socket is full. It is the first that is given again.
    /// It has to be given back before anything else is called.
    pub fn keep(&mut self, unsent: &[u8]) {
        if unsent.is_empty() {
            return;
        }
        let later = mem::replace(&mut self.pending, unsent.to_vec());
        self.pending.extend_from_slice(&later);
        self.urgent = true;
    }

    /// When [`Self::poll_transmit`] has to be called.
    pub fn transmit(&self) -> Transmit {
        match (self.pending.is_empty(), self.urgent) {
            (true, _) => Transmit::Nothing,
            (false, true) => Transmit::Now,
            (false, false) => Transmit::WithNext,
        }
    }

    /// Bytes that are kept for the peer. 0 while idle.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Appends to `out` what waits and, once the handshake is complete, `close_notify`. Nothing can be encrypted after
    /// it; what the peer still sends is received.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if !self.closing && self.stage != Stage::Failed {
            self.closing = true;
            let mut received = mem::take(&mut self.received);
            self.say_close(&mut received.bytes);
            self.received = received;
        }
        self.poll_transmit(out);
    }

    /// Whether nothing can be encrypted yet.
    pub fn is_handshaking(&self) -> bool {
        self.rustls.is_handshaking()
    }

    /// Whether the first byte of the peer was already received.
    pub fn has_begun(&self) -> bool {
        self.stage != Stage::New
    }

    /// The version that was agreed on, as soon as it is.
    pub fn version(&self) -> Option<Version> {
        match self.rustls.protocol_version()? {
            ProtocolVersion::TLSv1_2 => Some(Version::Tls12),
            ProtocolVersion::TLSv1_3 => Some(Version::Tls13),
            _ => None,
        }
    }

    /// What is spoken inside, where the client asked.
    pub fn alpn(&self) -> Option<Alpn> {
        Alpn::from_bytes(self.rustls.alpn_protocol()?)
    }

    /// The cipher suite by its IANA name, as soon as it is agreed on.
    pub fn cipher_suite(&self) -> Option<&'static str> {
        self.rustls.negotiated_cipher_suite()?.suite().as_str()
    }

    /// Whether the client came back with a ticket.
    pub fn is_resumed(&self) -> bool {
        self.rustls.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

impl fmt::Debug for TlsConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TlsConnection")
            .field("stage", &self.stage)
            .field("version", &self.version())
            .field("received_bytes", &self.received.bytes.len())
            .field("pending_bytes", &self.pending.len())
            .finish_non_exhaustive()
    }
}

/// What is left of a list of slices.
struct Slices<'p> {
    first: &'p [u8],
    others: &'p [&'p [u8]],
}

impl<'p> Slices<'p> {
    fn new(all: &'p [&'p [u8]]) -> Self {
        let mut slices = Self { first: &[], others: all };
        slices.advance(0);
        slices
    }

    /// How many bytes there are, counted up to `limit`.
    fn len_up_to(&self, limit: usize) -> usize {
        let mut bytes = self.first.len();
        for slice in self.others {
            if bytes >= limit {
                break;
            }
            bytes += slice.len();
        }
        bytes.min(limit)
    }

    /// Appends the first `bytes` to `out`.
    fn copy(&self, bytes: usize, out: &mut Vec<u8>) {
        let mut left = bytes;
        for slice in std::iter::once(&self.first).chain(self.others) {
            let part = slice.len().min(left);
            out.extend_from_slice(&slice[..part]);
            left -= part;
            if left == 0 {
                break;
            }
        }
    }

    /// Drops the first `bytes`, so that `first` is not empty while anything is left.
    fn advance(&mut self, mut bytes: usize) {
        while bytes >= self.first.len() {
            let Some((next, others)) = self.others.split_first() else { break };
            bytes -= self.first.len();
            (self.first, self.others) = (next, others);
        }
        self.first = &self.first[bytes.min(self.first.len())..];
    }
}

/// Why a record was not written.
enum NotEncrypted {
    /// It needs this many bytes.
    Space(usize),
    KeysUsedUp,
    /// rustls is elsewhere than it said.
    WrongState,
}

impl From<NotEncrypted> for TlsError {
    fn from(error: NotEncrypted) -> Self {
        match error {
            NotEncrypted::KeysUsedUp => Self::KeysUsedUp,
            NotEncrypted::Space(_) | NotEncrypted::WrongState => {
                Self::Server("a record could not be encrypted in an open connection".to_owned())
            }
        }
    }
}

/// Lets `act` write, if the handshake is complete. rustls insists on seeing what it did not use before: `kept`.
fn with_traffic<T>(
    rustls: &mut UnbufferedServerConnection,
    kept: &mut [u8],
    act: impl FnOnce(WriteTraffic<'_, ServerConnectionData>) -> T,
) -> Option<T> {
    loop {
        match rustls.process_tls_records(kept).state {
            Ok(ConnectionState::WriteTraffic(traffic)) => return Some(act(traffic)),
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            _ => return None,
        }
    }
}

fn encrypt(
    rustls: &mut UnbufferedServerConnection,
    kept: &mut [u8],
    payload: &[u8],
    space: &mut [u8],
) -> Result<usize, NotEncrypted> {
    match with_traffic(rustls, kept, |mut traffic| traffic.encrypt(payload, space)) {
        Some(Ok(written)) => Ok(written),
        Some(Err(EncryptError::InsufficientSize(size))) => Err(NotEncrypted::Space(size.required_size)),
        Some(Err(EncryptError::EncryptExhausted)) => Err(NotEncrypted::KeysUsedUp),
        None => Err(NotEncrypted::WrongState),
    }
}

fn encode<Side>(mut data: EncodeTlsData<'_, Side>, pending: &mut Vec<u8>) {
    let start = pending.len();
    // Without space it only says how much it needs; with it, it can't fail.
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        pending.resize(start + size.required_size, 0);
        if data.encode(&mut pending[start..]).is_err() {
            pending.truncate(start);
        }
    }
}
