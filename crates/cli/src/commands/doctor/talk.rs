//! An open WebSocket from the client's side: answers pings as a browser does, and tells what comes.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use wootz_protocol::handshake::HeadLimits;
use wootz_protocol::handshake::client::{Answer as Opened, AnswerError, Opening};
use wootz_protocol::{CloseCode, Endpoint, Event, Input, Limits, Message, Opcode, Role, Settings, encode_masked};

use super::answer::{Answer, Proxy};
use super::transport::{Received, Stream};

/// What became of a handshake.
pub(super) enum Handshake {
    Open(Box<Talk>),
    /// Another answer.
    Answered(Answer),
    /// A 101 that breaks RFC 6455.
    Broken(AnswerError),
    /// The connection ended, with or without a beginning of an answer.
    Closed(&'static str),
    /// What came is no HTTP.
    NotHttp,
    /// No answer.
    Silent,
    /// No answer until the doctor had ended its sending: then it came at once.
    HeldBack,
}

/// How long what was held back may take, once the sending has ended.
const AFTERTHOUGHT: Duration = Duration::from_secs(5);

/// Sends the handshake and waits for its answer.
pub(super) fn handshake(mut stream: Stream, opening: &Opening<'_>, request: &[u8], patience: Duration) -> Handshake {
    if stream.send(request, patience).is_err() {
        return Handshake::Closed("while the request was sent");
    }
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let mut ended_sending = false;
    let mut deadline = Instant::now() + patience;
    loop {
        match stream.receive(&mut buffer, deadline) {
            Received::Bytes(count) => bytes.extend_from_slice(&buffer[..count]),
            Received::End(_) if ended_sending => return Handshake::Silent,
            Received::End(how) => return Handshake::Closed(how),
            Received::Nothing if ended_sending => return Handshake::Silent,
            Received::Nothing => {
                stream.end_sending();
                ended_sending = true;
                deadline = Instant::now() + AFTERTHOUGHT;
                continue;
            }
        }
        match opening.read_answer(&bytes, &HeadLimits::default()) {
            Ok(Opened::Partial) => {}
            Ok(Opened::Open { .. }) if ended_sending => return Handshake::HeldBack,
            Ok(Opened::Open { length, .. }) => {
                return Handshake::Open(Box::new(Talk::new(stream, &bytes[..length], &bytes[length..])));
            }
            Err(AnswerError::Status(_) | AnswerError::HeadTooLarge) => {
                return Answer::read(&mut stream, bytes).map_or(Handshake::NotHttp, Handshake::Answered);
            }
            Err(AnswerError::NotHttp) => return Handshake::NotHttp,
            Err(error) => return Handshake::Broken(error),
        }
    }
}

/// What was heard.
#[derive(Debug)]
pub(super) enum Heard {
    Message(Message<'static>),
    Pong,
    /// The peer pinged, and got its pong.
    Ping,
    /// A Close frame.
    Close {
        code: Option<CloseCode>,
        reason: String,
    },
    /// The end, without a Close frame.
    End(&'static str),
    /// Bytes that are no WebSocket.
    Garbage(String),
    /// Nothing until the deadline.
    Nothing,
}

/// An open connection.
pub(super) struct Talk {
    stream: Stream,
    endpoint: Endpoint,
    settings: Settings,
    heard: VecDeque<Heard>,
    /// What the 101 said of its server.
    pub(super) server: Option<String>,
    pub(super) proxy: Proxy,
}

impl Talk {
    fn new(stream: Stream, head: &[u8], rest: &[u8]) -> Self {
        let answer = Answer::of_head(head);
        let settings =
            Settings { limits: Limits { max_message_bytes: 64 << 20, ..Limits::default() }, ..Settings::default() };
        let mut talk = Self {
            stream,
            endpoint: Endpoint::new(Role::Client(mask), Instant::now()),
            settings,
            heard: VecDeque::new(),
            server: answer.server().map(str::to_owned),
            proxy: answer.proxy(),
        };
        talk.take(&mut rest.to_vec());
        talk
    }

    /// Sends one whole frame.
    pub(super) fn send(&mut self, opcode: Opcode, payload: &[u8], patience: Duration) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode_masked(opcode, true, payload, mask(), &mut bytes);
        self.stream.send(&bytes, patience)
    }

    /// The next thing that comes.
    pub(super) fn next(&mut self, deadline: Instant) -> Heard {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return heard;
            }
            match self.stream.receive(&mut buffer, deadline) {
                Received::Bytes(count) => self.take(&mut buffer[..count]),
                Received::End(how) => return Heard::End(how),
                Received::Nothing => return Heard::Nothing,
            }
        }
    }

    /// Whether an awaited answer comes once the sending has ended: then something on the way had held it back.
    pub(super) fn comes_at_the_end(&mut self, awaited: fn(&Heard) -> bool) -> bool {
        self.stream.end_sending();
        let deadline = Instant::now() + AFTERTHOUGHT;
        loop {
            match self.next(deadline) {
                heard if awaited(&heard) => return true,
                Heard::Message(_) | Heard::Pong | Heard::Ping => {}
                Heard::Close { .. } | Heard::End(_) | Heard::Garbage(_) | Heard::Nothing => return false,
            }
        }
    }

    /// Closes as a browser does, and does not wait for long.
    pub(super) fn leave(mut self) {
        let now = Instant::now();
        let Some(close) = self.endpoint.close(CloseCode::Normal, "", now) else { return };
        if self.stream.send(close.as_bytes(), AFTERTHOUGHT).is_ok() {
            while matches!(self.next(now + AFTERTHOUGHT), Heard::Message(_) | Heard::Pong | Heard::Ping) {}
        }
    }

    fn take(&mut self, bytes: &mut [u8]) {
        let mut input = Input::new(bytes);
        while let Some(event) = self.endpoint.next_event(&mut input, &self.settings, Instant::now()) {
            let (heard, answer) = match event {
                Event::Message(message) => (Heard::Message(message.into_owned()), None),
                Event::Ping { answer } => (Heard::Ping, Some(answer)),
                Event::Pong => (Heard::Pong, None),
                Event::Close { frame, answer } => {
                    let code = frame.as_ref().map(|frame| frame.code);
                    let reason = frame.map(|frame| frame.reason.into_owned()).unwrap_or_default();
                    (Heard::Close { code, reason }, answer)
                }
                Event::Failed { error, answer } => (Heard::Garbage(error.to_string()), answer),
            };
            if let Some(answer) = answer {
                // A peer that has gone meanwhile is noticed by the next read.
                let _ = self.stream.send(answer.as_bytes(), AFTERTHOUGHT);
            }
            self.heard.push_back(heard);
        }
    }
}

/// Section 5.3: unpredictable, and new for every frame.
fn mask() -> [u8; 4] {
    let mut mask = [0; 4];
    getrandom::fill(&mut mask).expect("the key of the handshake came from the same source");
    mask
}
