//! One side of an open connection: the state machine from received bytes to [`Event`]s, and the way to the close.
//!
//! ```text
//!  Open ── close() ──> Closing ── peer's Close ──> Finished
//!    └── peer's Close, a protocol error, a silent peer ──┘
//! ```
//! Nothing is sent after our Close, nothing is read after the peer's. An open, idle endpoint owns no heap.

use std::borrow::Cow;
use std::time::Instant;

use crate::Settings;
use crate::close::{CloseCode, CloseFrame};
use crate::control::ControlFrame;
use crate::error::ProtocolError;
use crate::frame::{Header, MAX_CONTROL_PAYLOAD_BYTES, MAX_HEADER_BYTES, Masking, Opcode};
use crate::keepalive::{Clock, Due, TimeoutAction};
use crate::mask::unmask;
use crate::message::{Assembly, Kind, Limits, Message, Position};
use crate::utf8::{self, InvalidUtf8};

/// Gives a new mask for every frame that a client sends. It has to be unpredictable (RFC 6455, section 5.3).
pub type MaskSource = fn() -> [u8; 4];

/// Which side this is.
#[derive(Debug, Clone, Copy)]
pub enum Role {
    /// Reads masked frames, writes unmasked ones.
    Server,
    /// Reads unmasked frames, masks its control frames with what the source gives.
    Client(MaskSource),
}

impl Role {
    fn masking_of_peer(self) -> Masking {
        match self {
            Self::Server => Masking::Required,
            Self::Client(_) => Masking::Forbidden,
        }
    }

    fn mask(self) -> Option<[u8; 4]> {
        match self {
            Self::Server => None,
            Self::Client(source) => Some(source()),
        }
    }
}

/// What one read brought. Its bytes are unmasked where they lie, so they are the endpoint's until the events are used.
#[derive(Debug)]
pub struct Input<'b> {
    rest: &'b mut [u8],
}

impl<'b> Input<'b> {
    /// The bytes that were read.
    pub fn new(bytes: &'b mut [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether everything was consumed.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes that were not yet consumed.
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Takes up to `limit` bytes from the front.
    fn take(&mut self, limit: usize) -> &'b mut [u8] {
        let limit = limit.min(self.rest.len());
        let (front, rest) = std::mem::take(&mut self.rest).split_at_mut(limit);
        self.rest = rest;
        front
    }
}

/// What happened on the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'b> {
    /// A whole message.
    Message(Message<'b>),
    /// The peer asks for a sign of life.
    Ping {
        /// The Pong to write, with the Ping's payload.
        answer: ControlFrame,
    },
    /// The peer gave a sign of life.
    Pong,
    /// The peer closed: it began the closing handshake, or it ended the one that we began. The endpoint is finished.
    Close {
        /// What the peer said; `None` if it said nothing.
        frame: Option<CloseFrame<'b>>,
        /// The Close to write before the transport is dropped; `None` if ours was already sent.
        answer: Option<ControlFrame>,
    },
    /// The peer broke the protocol or a limit. The endpoint is finished.
    Failed {
        /// What it broke.
        error: ProtocolError,
        /// The Close to write before the transport is dropped; `None` if ours was already sent.
        answer: Option<ControlFrame>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Our Close is sent, the peer's has not come.
    Closing,
    Finished,
}

/// Where in a frame the next byte belongs.
#[derive(Debug)]
enum Reading {
    Header(CutHeader),
    /// The payload of a data frame. It goes into the assembly; where there is none, nobody waits for it any more.
    Data {
        rest_bytes: usize,
        mask: [u8; 4],
        position: Position,
    },
    /// The payload of a control frame that did not arrive whole.
    Control(Box<CutControl>),
}

impl Reading {
    const START: Self = Self::Header(CutHeader { bytes: [0; MAX_HEADER_BYTES], length: 0 });
}

/// The begin of a header whose end has not arrived.
#[derive(Debug)]
struct CutHeader {
    bytes: [u8; MAX_HEADER_BYTES],
    length: u8,
}

impl CutHeader {
    /// Takes a header from `input`; where it is cut, keeps what there is.
    fn read(
        &mut self,
        input: &mut Input<'_>,
        masking: Masking,
        owned_rsv: u8,
    ) -> Result<Option<Header>, ProtocolError> {
        let begun = usize::from(self.length);
        if begun == 0
            && let Some((header, header_bytes)) = Header::parse(input.rest, masking, owned_rsv)?
        {
            input.take(header_bytes);
            return Ok(Some(header));
        }
        let joined = begun + input.rest.len().min(MAX_HEADER_BYTES - begun);
        self.bytes[begun..joined].copy_from_slice(&input.rest[..joined - begun]);
        let parsed = Header::parse(&self.bytes[..joined], masking, owned_rsv)?;
        // Bytes that were joined but are no header are payload: they stay in the input.
        let header_bytes = parsed.map_or(joined, |(_, header_bytes)| header_bytes);
        input.take(header_bytes - begun);
        self.length = if parsed.is_some() { 0 } else { joined as u8 };
        Ok(parsed.map(|(header, _)| header))
    }
}

/// A control frame whose payload has not wholly arrived.
#[derive(Debug, Clone)]
struct CutControl {
    opcode: Opcode,
    mask: [u8; 4],
    payload: [u8; MAX_CONTROL_PAYLOAD_BYTES],
    payload_bytes: u8,
    received_bytes: u8,
}

impl CutControl {
    fn read(&mut self, input: &mut Input<'_>) {
        let piece = input.take(usize::from(self.payload_bytes - self.received_bytes));
        self.mask = unmask(piece, self.mask);
        let start = usize::from(self.received_bytes);
        self.payload[start..start + piece.len()].copy_from_slice(piece);
        self.received_bytes += piece.len() as u8;
    }

    fn is_whole(&self) -> bool {
        self.received_bytes == self.payload_bytes
    }
}

/// What one step of reading came to.
enum Step<'b> {
    Event(Event<'b>),
    Continue,
    NeedBytes,
}

/// One side of an open connection: a few dozen bytes, and no heap unless a frame or message is partly received.
#[derive(Debug)]
pub struct Endpoint {
    role: Role,
    reading: Reading,
    /// The message of which a part was received.
    assembly: Option<Box<Assembly>>,
    clock: Clock,
    phase: Phase,
}

impl Endpoint {
    /// An endpoint of a connection whose opening handshake has just ended.
    pub fn new(role: Role, now: Instant) -> Self {
        Self { role, reading: Reading::START, assembly: None, clock: Clock::new(now), phase: Phase::Open }
    }

    /// Reads the next event. `None`: everything was consumed; what it began is kept inside until the next read.
    ///
    /// Call it until it gives `None`, also after [`Event::Close`] and [`Event::Failed`]: what follows them is thrown away.
    pub fn next_event<'b>(&mut self, input: &mut Input<'b>, settings: &Settings, now: Instant) -> Option<Event<'b>> {
        if !input.is_empty() {
            self.clock.heard(now);
        }
        loop {
            if self.phase == Phase::Finished {
                // Section 1.4: after a Close, a peer discards any further data.
                input.take(usize::MAX);
                return None;
            }
            match self.step(input, &settings.limits, now) {
                Ok(Step::Event(event)) => return Some(event),
                Ok(Step::Continue) => {}
                Ok(Step::NeedBytes) => return None,
                Err(error) => return Some(self.fail(error, now)),
            }
        }
    }

    /// Begins the closing handshake: gives the Close to write, or `None` if one was already sent.
    ///
    /// What the peer still sends is read and ignored. A reason over 123 bytes is cut.
    pub fn close(&mut self, code: CloseCode, reason: &str, now: Instant) -> Option<ControlFrame> {
        if self.phase != Phase::Open {
            return None;
        }
        self.phase = Phase::Closing;
        self.assembly = None;
        self.clock.closing(now);
        Some(ControlFrame::close(code, reason, self.role.mask()))
    }

    /// When [`Endpoint::handle_timeout`] has something to do, if nothing is received until then.
    pub fn poll_timeout(&self, settings: &Settings) -> Option<Instant> {
        self.clock.deadline(&settings.keepalive)
    }

    /// What is due at `now`. `None` if nothing is: a call too early, or after bytes came, does no harm.
    ///
    /// Read first what the transport already holds: an answer that lies there unread would be held against the peer.
    pub fn handle_timeout(&mut self, settings: &Settings, now: Instant) -> Option<TimeoutAction> {
        Some(match self.clock.pass(&settings.keepalive, now)? {
            Due::Ping => TimeoutAction::Ping(ControlFrame::new(Opcode::Ping, &[], self.role.mask())),
            Due::PeerSilent => {
                self.finish(now);
                TimeoutAction::PeerSilent(ControlFrame::close(
                    CloseCode::SilentPeer,
                    "no answer to a ping",
                    self.role.mask(),
                ))
            }
            Due::CloseTimedOut => {
                self.finish(now);
                TimeoutAction::CloseTimedOut
            }
        })
    }

    /// The caller stops reading for a while: from now on silence is not held against the peer. Pings go on, for the proxies' sake.
    pub fn suspend_keepalive(&mut self) {
        self.clock.suspend();
    }

    /// The caller reads again: silence counts from `now`.
    pub fn resume_keepalive(&mut self, now: Instant) {
        self.clock.resume(now);
    }

    /// Whether messages may still be written: no Close was sent.
    pub fn can_send(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether the protocol is over: write what is queued, then drop the transport. [`Endpoint::poll_timeout`] then says
    /// how long the writing may take.
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// The reserved bits that a negotiated extension owns. None is negotiated.
    fn owned_rsv(&self) -> u8 {
        0
    }

    fn step<'b>(&mut self, input: &mut Input<'b>, limits: &Limits, now: Instant) -> Result<Step<'b>, ProtocolError> {
        let (masking, owned_rsv) = (self.role.masking_of_peer(), self.owned_rsv());
        match &mut self.reading {
            Reading::Header(cut) => match cut.read(input, masking, owned_rsv)? {
                Some(header) if header.opcode.is_control() => self.begin_control(header, input, now),
                Some(header) => self.begin_data(header, input, limits),
                None => Ok(Step::NeedBytes),
            },
            Reading::Data { rest_bytes, mask, position } => {
                let (rest_bytes, mask, position) = (*rest_bytes, *mask, *position);
                self.read_data(rest_bytes, mask, position, input)
            }
            Reading::Control(cut) => {
                cut.read(input);
                if !cut.is_whole() {
                    return Ok(Step::NeedBytes);
                }
                let whole = CutControl::clone(cut);
                self.reading = Reading::START;
                let payload = &whole.payload[..usize::from(whole.payload_bytes)];
                Ok(match self.receive_control(whole.opcode, payload, now)? {
                    Some(event) => Step::Event(event.into_owned()),
                    None => Step::Continue,
                })
            }
        }
    }

    fn begin_data<'b>(
        &mut self,
        header: Header,
        input: &mut Input<'b>,
        limits: &Limits,
    ) -> Result<Step<'b>, ProtocolError> {
        let position = if header.fin { Position::Last } else { Position::Earlier };
        if self.phase != Phase::Open {
            // A length too long for this machine can't arrive on it either.
            let rest_bytes = usize::try_from(header.payload_bytes).map_err(|_| ProtocolError::MessageTooLarge)?;
            self.reading = Reading::Data { rest_bytes, mask: header.mask, position };
            return Ok(Step::Continue);
        }
        let assembly = match (self.assembly.take(), data_kind(header.opcode)) {
            (None, Some(kind)) => {
                let mut assembly = Assembly::new(kind);
                assembly.admit_frame(header.payload_bytes, position, limits)?;
                if header.fin && input.len() as u64 >= header.payload_bytes {
                    let payload = input.take(header.payload_bytes as usize);
                    unmask(payload, header.mask);
                    return whole_message(kind, payload);
                }
                Box::new(assembly)
            }
            (Some(mut assembly), None) => {
                assembly.admit_frame(header.payload_bytes, position, limits)?;
                assembly
            }
            (None, None) => return Err(ProtocolError::UnexpectedContinuation),
            (Some(_), Some(_)) => return Err(ProtocolError::ExpectedContinuation),
        };
        self.assembly = Some(assembly);
        // Admitted: not above a limit that is a usize.
        self.reading = Reading::Data { rest_bytes: header.payload_bytes as usize, mask: header.mask, position };
        Ok(Step::Continue)
    }

    fn read_data<'b>(
        &mut self,
        rest_bytes: usize,
        mask: [u8; 4],
        position: Position,
        input: &mut Input<'b>,
    ) -> Result<Step<'b>, ProtocolError> {
        let piece = input.take(rest_bytes);
        if piece.is_empty() && rest_bytes > 0 {
            return Ok(Step::NeedBytes);
        }
        let mask = unmask(piece, mask);
        if let Some(assembly) = &mut self.assembly {
            assembly.append(piece, rest_bytes, position).map_err(|InvalidUtf8| ProtocolError::InvalidUtf8)?;
        }
        let rest_bytes = rest_bytes - piece.len();
        if rest_bytes > 0 {
            self.reading = Reading::Data { rest_bytes, mask, position };
            return Ok(Step::NeedBytes);
        }
        self.reading = Reading::START;
        match self.assembly.take_if(|_| position == Position::Last) {
            Some(assembly) => {
                let message = assembly.finish().map_err(|InvalidUtf8| ProtocolError::InvalidUtf8)?;
                Ok(Step::Event(Event::Message(message)))
            }
            None => Ok(Step::Continue),
        }
    }

    fn begin_control<'b>(
        &mut self,
        header: Header,
        input: &mut Input<'b>,
        now: Instant,
    ) -> Result<Step<'b>, ProtocolError> {
        let payload_bytes = header.payload_bytes as usize; // a control frame's: at most 125
        if input.len() >= payload_bytes {
            let payload = input.take(payload_bytes);
            unmask(payload, header.mask);
            return Ok(self.receive_control(header.opcode, payload, now)?.map_or(Step::Continue, Step::Event));
        }
        self.reading = Reading::Control(Box::new(CutControl {
            opcode: header.opcode,
            mask: header.mask,
            payload: [0; MAX_CONTROL_PAYLOAD_BYTES],
            payload_bytes: payload_bytes as u8,
            received_bytes: 0,
        }));
        Ok(Step::Continue)
    }

    fn receive_control<'p>(
        &mut self,
        opcode: Opcode,
        payload: &'p [u8],
        now: Instant,
    ) -> Result<Option<Event<'p>>, ProtocolError> {
        Ok(match opcode {
            Opcode::Close => {
                let frame = CloseFrame::parse(payload)?;
                Some(self.receive_close(frame, now))
            }
            // After our Close nothing is sent, and nothing but the peer's Close is waited for.
            Opcode::Ping | Opcode::Pong if self.phase != Phase::Open => None,
            // Section 5.5.3: the answer MUST have identical application data.
            Opcode::Ping => Some(Event::Ping { answer: ControlFrame::new(Opcode::Pong, payload, self.role.mask()) }),
            Opcode::Pong => Some(Event::Pong),
            Opcode::Continuation | Opcode::Text | Opcode::Binary => None,
        })
    }

    fn receive_close<'p>(&mut self, frame: Option<CloseFrame<'p>>, now: Instant) -> Event<'p> {
        // Section 5.5.1: the answer typically echoes the code. The peer knows its reason already.
        let answer = (self.phase == Phase::Open).then(|| match &frame {
            Some(frame) => ControlFrame::close(frame.code, "", self.role.mask()),
            None => ControlFrame::new(Opcode::Close, &[], self.role.mask()),
        });
        self.finish(now);
        Event::Close { frame, answer }
    }

    fn fail<'b>(&mut self, error: ProtocolError, now: Instant) -> Event<'b> {
        let answer = (self.phase == Phase::Open)
            .then(|| ControlFrame::close(error.close_code(), error.reason(), self.role.mask()));
        self.finish(now);
        Event::Failed { error, answer }
    }

    fn finish(&mut self, now: Instant) {
        self.phase = Phase::Finished;
        self.assembly = None;
        self.reading = Reading::START;
        self.clock.closing(now);
    }
}

impl Event<'_> {
    /// The same event, independent of the bytes it was read from. Copies what was borrowed.
    pub fn into_owned(self) -> Event<'static> {
        match self {
            Self::Message(message) => Event::Message(message.into_owned()),
            Self::Ping { answer } => Event::Ping { answer },
            Self::Pong => Event::Pong,
            Self::Close { frame, answer } => Event::Close { frame: frame.map(CloseFrame::into_owned), answer },
            Self::Failed { error, answer } => Event::Failed { error, answer },
        }
    }
}

/// The kind of message that a data frame begins; `None` if it continues one.
fn data_kind(opcode: Opcode) -> Option<Kind> {
    match opcode {
        Opcode::Text => Some(Kind::Text),
        Opcode::Binary => Some(Kind::Binary),
        Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => None,
    }
}

/// A message that arrived in one frame and one read: handed out where it lies.
fn whole_message(kind: Kind, payload: &[u8]) -> Result<Step<'_>, ProtocolError> {
    let message = match kind {
        Kind::Text => {
            let text = utf8::whole(payload).map_err(|InvalidUtf8| ProtocolError::InvalidUtf8)?;
            Message::Text(Cow::Borrowed(text))
        }
        Kind::Binary => Message::Binary(Cow::Borrowed(payload)),
    };
    Ok(Step::Event(Event::Message(message)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::encode_masked;

    fn owns_heap(endpoint: &Endpoint) -> bool {
        endpoint.assembly.is_some() || matches!(endpoint.reading, Reading::Control(_))
    }

    #[test]
    fn endpoint_is_small() {
        assert!(size_of::<Endpoint>() <= 64, "{} bytes", size_of::<Endpoint>());
    }

    #[test]
    fn endpoint_owns_heap_only_while_something_is_partly_received() {
        let (now, settings) = (Instant::now(), Settings::default());
        let mut endpoint = Endpoint::new(Role::Server, now);
        let mut bytes = Vec::new();
        encode_masked(Opcode::Text, false, b"one ", [1; 4], &mut bytes);
        encode_masked(Opcode::Ping, true, b"are you there?", [2; 4], &mut bytes);
        encode_masked(Opcode::Continuation, true, b"two", [3; 4], &mut bytes);

        let mut events = 0;
        for (index, byte) in bytes.iter().enumerate() {
            let mut byte = [*byte];
            events += usize::from(endpoint.next_event(&mut Input::new(&mut byte), &settings, now).is_some());
            // The header of the first fragment is six bytes long.
            assert_eq!(owns_heap(&endpoint), (5..bytes.len() - 1).contains(&index), "after byte {index}");
        }
        assert_eq!(events, 2);

        let mut bytes = Vec::new();
        encode_masked(Opcode::Binary, false, b"begun", [1; 4], &mut bytes);
        assert!(endpoint.next_event(&mut Input::new(&mut bytes), &settings, now).is_none() && owns_heap(&endpoint));
        endpoint.close(CloseCode::GoingAway, "", now);
        assert!(!owns_heap(&endpoint));
    }
}
