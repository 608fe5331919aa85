//! The living connection: one hand-written future per socket, from the 101 to the last byte.
//!
//! Laws of this file:
//! - Reading goes through the shard's one buffer; what is not consumed at once is copied, and only then.
//! - Each wake-up reads, lets calls go on, and writes everything that is queued in one system call.
//! - Nothing is held while the connection is idle but this state: no buffer, no queue, no call.
//! - A browser that sends faster than its calls run, or reads slower than they reply, is not read for a while. It never makes
//!   anybody else wait, and never makes the server hold more than its bounds.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wootz_hub::Key;
use wootz_protocol::{CloseCode, ControlFrame, Endpoint, Event, Input, Message as Received, Role, TimeoutAction};
use wootz_runner::{CallEvent, Caller, Message, Utf8Bytes};

use super::calls::{self, Calls, Owner, Request};
use super::mailbox::{Ending, Mailbox, MailboxKind};
use super::stream::Stream;
use crate::admission::Place;
use crate::config::{Notify, TextPing};
use crate::events::Kind;
use crate::identity::{Verdict, Watched};
use crate::push::RequestPipe;
use crate::shard::Shard;

/// Rounds of reading and writing in one wake-up; then the other connections have their turn.
const MAX_ROUNDS: usize = 4;

/// No byte could be written for so long: the browser is given up, even without pings.
const MIN_WRITE_STALL: Duration = Duration::from_secs(10);

/// How often a connection that is not read is asked whether its browser is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the handshake made: an answered upgrade, and who is at the other end.
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    pub(crate) caller: Arc<Caller>,
    /// What it is counted as, until it ends.
    pub(crate) place: Place,
    pub(crate) kind: MailboxKind,
    /// The 101, the first thing that is written. Empty where it was answered already.
    pub(crate) response: Bytes,
    /// Bytes that came behind the request head.
    pub(crate) unread: Vec<u8>,
    /// When the identity ends. `None`: never.
    pub(crate) expires: Option<Instant>,
    /// The session that the connection depends on.
    pub(crate) watched: Option<Box<Watched>>,
    /// Channels that it is in from the beginning.
    pub(crate) channels: Vec<Arc<str>>,
}

/// The future that drives one connection.
pub(crate) struct Connection {
    shard: Rc<Shard>,
    endpoint: Endpoint,
    mailbox: Rc<Mailbox>,
    caller: Arc<Caller>,
    key: Key,
    stage: Stage,
    busy: Option<Box<Busy>>,
    pipe: Option<Box<RequestPipe>>,
    place: Place,
    expires: Option<Instant>,
    watched: Option<Box<Watched>>,
    blocked_since: Option<Instant>,
    armed: Option<Instant>,
    /// What operators who listen are told at the end.
    close_code: Option<u16>,
    end: EndReason,
}

/// What a connection owns only while it has something to do.
#[derive(Default)]
struct Busy {
    calls: Calls,
    /// Whether this connection was woken since its running calls were polled: what one waits for wakes the connection, so that no round
    /// need ask them again, least of all right after they were started.
    woken: bool,
    /// Received bytes that wait until there is room for more calls.
    unread: Vec<u8>,
    reading: Reading,
    /// The browser has closed, or broke the protocol: what is still to be sent when the messages before that had their chance.
    last: Option<(Option<Bytes>, Stage)>,
}

impl Busy {
    fn is_idle(&self) -> bool {
        self.calls.is_idle() && self.unread.is_empty() && self.reading == Reading::Active && self.last.is_none()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Reading {
    #[default]
    Active,
    Paused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Messages are taken; the endpoint knows how far a closing handshake is.
    Open,
    /// The last frame is queued; when it is written the socket is closed.
    Flushing,
    /// The same, but the browser may still be sending: what it sends is thrown away until it stops, because closing a socket with
    /// unread bytes would reset it and destroy our last frame on its way.
    Draining { finished_writing: bool },
}

/// Why the connection is over.
#[derive(Debug, thiserror::Error)]
enum Over {
    #[error("closed")]
    Closed,
    #[error("the browser went without a Close")]
    Vanished,
    #[error("the closing handshake took too long")]
    CloseTimedOut,
    #[error("nothing could be written for too long: too slow a reader")]
    WriteStalled,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The same in one byte, which a connection keeps for the moment when it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndReason {
    Server,
    Closed,
    Vanished,
    CloseTimedOut,
    WriteStalled,
    Network,
}

impl From<&Over> for EndReason {
    fn from(over: &Over) -> Self {
        match over {
            Over::Closed => Self::Closed,
            Over::Vanished => Self::Vanished,
            Over::CloseTimedOut => Self::CloseTimedOut,
            Over::WriteStalled => Self::WriteStalled,
            Over::Io(_) => Self::Network,
        }
    }
}

impl EndReason {
    /// In a few words, without what the system said.
    fn as_str(self) -> &'static str {
        match self {
            Self::Server => "the server ended it",
            Self::Closed => "closed",
            Self::Vanished => "the browser went without a Close",
            Self::CloseTimedOut => "the closing handshake took too long",
            Self::WriteStalled => "too slow a reader",
            Self::Network => "the network failed",
        }
    }
}

enum Round {
    Progress,
    Waiting,
}

impl Connection {
    /// Takes the connection into the shard's hub. The future must be polled on this shard's thread.
    pub(crate) fn new(shard: &Rc<Shard>, opened: Opened, now: Instant) -> Self {
        let caller = opened.caller;
        let reply_room_bytes = shard.config.limits.outbox_bytes;
        let mailbox =
            Rc::new(Mailbox::new(opened.stream, opened.kind, reply_room_bytes, Arc::clone(&caller), shard.seconds()));
        mailbox.outbox().push_control(opened.response);
        let (user, session) = (caller.user.clone(), caller.session.clone());
        let key = shard.hub.borrow_mut().join(caller.id.0, user, session, Rc::clone(&mailbox));
        shard.counters.opened();
        if mailbox.http2_stream().is_some() {
            shard.counters.opened_over_http2();
        }
        shard.tell(&caller, || Kind::Opened { remote: caller.remote });
        for channel in &opened.channels {
            if let Err(reason) = shard.join_channel(caller.id.0, channel) {
                tracing::warn!(connection = %caller.id, %reason, "a channel that validate named was not joined");
            }
        }
        let mut connection = Self {
            shard: Rc::clone(shard),
            endpoint: Endpoint::new(Role::Server, now),
            pipe: shard.open_request_pipe(&caller, &mailbox),
            mailbox,
            place: opened.place,
            caller,
            key,
            stage: Stage::Open,
            busy: None,
            expires: opened.expires,
            watched: opened.watched,
            blocked_since: None,
            armed: None,
            close_code: None,
            end: EndReason::Server,
        };
        connection.greet(opened.unread);
        connection
    }

    fn greet(&mut self, unread: Vec<u8>) {
        let request_pipe = self.pipe.as_ref().map(|pipe| pipe.path());
        self.mailbox.send_note(&self.shard.open_note(&self.caller, request_pipe));
        if self.shard.config.calls.on_connect == Notify::Call {
            self.busy().calls.push(Request::new(CallEvent::Connect, Message::empty()));
        }
        if !unread.is_empty() {
            self.busy().unread = unread;
        }
        if let Some(ending) = self.shard.ending() {
            self.mailbox.end(ending);
        }
    }

    fn busy(&mut self) -> &mut Busy {
        self.busy.get_or_insert_default()
    }

    fn round(&mut self, context: &mut Context<'_>) -> Result<Round, Over> {
        let now = Instant::now();
        self.obey(now);
        self.pass_deadlines(context, now)?;
        let was_paused = self.pause_or_resume(now);
        let read = if was_paused { 0 } else { self.read(context, now)? };
        self.poll_calls(context, now);
        // A call may have been the last that an ending waits for, or have asked for one.
        self.obey(now);
        self.flush(context, now)?;
        self.leave_when_done(context)?;
        let resumes = was_paused && !self.should_pause();
        Ok(if read > 0 || resumes {
            Round::Progress
        } else {
            self.arm();
            Round::Waiting
        })
    }

    /// Does what others asked of this connection.
    fn obey(&mut self, now: Instant) {
        self.hear_news(now);
        if self.mailbox.outbox().is_overflowed() {
            self.shard.counters.slow_reader();
            tracing::info!(connection = %self.caller.id, "closing: the reader is too slow (limits.outbox)");
            self.close_now(CloseCode::TryAgainLater, "too slow a reader", now);
        }
        match self.mailbox.ending() {
            None => {}
            Some(Ending::Now(code, reason)) => self.close_now(code, reason, now),
            Some(Ending::AfterCalls(code, reason)) => {
                if let Some(busy) = &mut self.busy {
                    busy.calls.drop_pending();
                }
                if self.busy.as_ref().is_none_or(|busy| busy.calls.is_idle()) {
                    self.close(code, reason, now);
                }
            }
        }
    }

    /// The session of this connection has changed or ended.
    fn hear_news(&mut self, now: Instant) {
        let Some(news) = self.mailbox.take_news() else { return };
        let (Some(watched), Some(sessions)) = (&mut self.watched, &self.shard.sessions) else { return };
        match sessions.judge(*news, watched, self.caller.user.as_ref()) {
            Verdict::Stay => {}
            Verdict::Move(user) => self.become_user(user, now),
            Verdict::End(reason) => {
                tracing::info!(connection = %self.caller.id, %reason, "closing with 4401");
                self.close_now(CloseCode::SessionEnded, "session ended", now);
            }
        }
    }

    /// The same browser is another user from now on. Calls that run go on as who they were started for.
    fn become_user(&mut self, user: Option<Arc<str>>, now: Instant) {
        if self.place.take_for(user.as_ref()).is_err() {
            tracing::info!(connection = %self.caller.id, "closing: its session has another user, who has limits.per_user connections already");
            return self.close_now(CloseCode::PolicyViolation, "too many connections", now);
        }
        tracing::info!(connection = %self.caller.id, "its session has another user: the connection goes on as that user");
        self.shard.hub.borrow_mut().identify(self.key, user.clone(), self.caller.session.clone());
        self.caller = Arc::new(self.caller.as_user(user));
        self.mailbox.change_caller(Arc::clone(&self.caller));
        // The pipe's name tells the user.
        if self.pipe.take().is_some() {
            self.pipe = self.shard.open_request_pipe(&self.caller, &self.mailbox);
        }
    }

    fn pass_deadlines(&mut self, context: &mut Context<'_>, now: Instant) -> Result<(), Over> {
        if !self.mailbox.take_fired_timer() {
            return Ok(());
        }
        self.armed = None;
        if self.is_paused() && self.has_hung_up(context) {
            return Err(Over::Vanished);
        }
        if self.blocked_since.is_some_and(|since| now >= since + self.write_stall()) {
            self.shard.counters.slow_reader();
            return Err(Over::WriteStalled);
        }
        if self.expires.is_some_and(|expires| expires <= now) {
            self.expires = None;
            tracing::info!(connection = %self.caller.id, reason = "its token has expired, or the time that the application gave it", "closing with 4401");
            self.close(CloseCode::SessionEnded, "session ended", now);
        }
        if let (Some(watched), Some(sessions)) = (&mut self.watched, &self.shard.sessions)
            && watched.due.is_some_and(|due| due <= now)
        {
            sessions.recheck(self.key, self.caller.id, watched, now);
        }
        if let Some(pipe) = &mut self.pipe {
            pipe.drop_stale(now);
        }
        while let Some(action) = self.endpoint.handle_timeout(&self.shard.endpoint, now) {
            match action {
                TimeoutAction::Ping(ping) => self.send_control(&ping),
                TimeoutAction::PeerSilent(close) => {
                    tracing::debug!(connection = %self.caller.id, "closing: no answer to a ping");
                    self.finish_with(Some(bytes_of(&close)), Stage::Draining { finished_writing: false });
                }
                TimeoutAction::CloseTimedOut => return Err(Over::CloseTimedOut),
            }
        }
        Ok(())
    }

    /// Reads once. Gives the number of bytes, 0 when there are none now.
    fn read(&mut self, context: &mut Context<'_>, now: Instant) -> Result<usize, Over> {
        if let Some(busy) = &mut self.busy
            && !busy.unread.is_empty()
        {
            let mut unread = std::mem::take(&mut busy.unread);
            self.receive(&mut unread, context, now);
            return Ok(unread.len());
        }
        let shard = Rc::clone(&self.shard);
        let mut buffer = shard.read_buffer.borrow_mut();
        match self.mailbox.with_stream(|stream| Ok(stream.poll_receive(context, &mut buffer)))? {
            Poll::Pending => Ok(0),
            Poll::Ready(Err(error)) => Err(error.into()),
            Poll::Ready(Ok([])) => match self.stage {
                Stage::Open => Err(Over::Vanished),
                Stage::Flushing | Stage::Draining { .. } => Err(Over::Closed),
            },
            Poll::Ready(Ok(received)) => {
                self.receive(received, context, now);
                Ok(received.len())
            }
        }
    }

    fn receive(&mut self, bytes: &mut [u8], context: &mut Context<'_>, now: Instant) {
        let total = bytes.len();
        let mut input = Input::new(bytes);
        while !self.should_pause() {
            match self.endpoint.next_event(&mut input, &self.shard.endpoint, now) {
                None => return,
                Some(event) => self.on_event(event, context, now),
            }
        }
        let left = input.len();
        if left > 0 {
            self.busy().unread = bytes[total - left..].to_vec();
        }
    }

    fn on_event(&mut self, event: Event<'_>, context: &mut Context<'_>, now: Instant) {
        match event {
            Event::Message(message) => self.on_message(message, context, now),
            Event::Ping { answer } => self.send_control(&answer),
            Event::Pong => {}
            Event::Close { frame, answer } => {
                let code = frame.map(|frame| frame.code.number());
                self.close_code = self.close_code.or(code);
                tracing::debug!(connection = %self.caller.id, code, "the browser closed");
                self.finish_after_calls(answer, Stage::Flushing);
            }
            Event::Failed { error, answer } => {
                tracing::info!(connection = %self.caller.id, reason = error.reason(), "closing: the browser broke the protocol");
                self.finish_after_calls(answer, Stage::Draining { finished_writing: false });
            }
        }
    }

    fn on_message(&mut self, message: Received<'_>, context: &mut Context<'_>, now: Instant) {
        self.shard.counters.message();
        if self.mailbox.ending().is_some() {
            return;
        }
        if self.shard.config.limits.text_ping == TextPing::Answer
            && matches!(&message, Received::Text(text) if text == "ping")
        {
            return self.mailbox.send(&Message::Text(Utf8Bytes::from_static("pong")));
        }
        let message = match message {
            Received::Text(text) => Message::text(text.into_owned()),
            Received::Binary(bytes) => Message::binary(bytes.into_owned()),
        };
        self.shard.tell(&self.caller, || Kind::Message { message: message.clone() });
        let request = Request::new(CallEvent::Message, message);
        if self.busy.is_some() {
            return self.busy().calls.push(request);
        }
        // An idle connection: a call that ends at once leaves nothing to keep.
        let owner = Owner { shard: &self.shard, mailbox: &self.mailbox, caller: &self.caller };
        if let Some(calls) = Calls::start_first(&owner, request, context, now) {
            self.busy().calls = calls;
        }
    }

    fn poll_calls(&mut self, context: &mut Context<'_>, now: Instant) {
        if self.stage != Stage::Open {
            return;
        }
        loop {
            let taken = self.take_requests(context);
            if let Some(busy) = &mut self.busy {
                let owner = Owner { shard: &self.shard, mailbox: &self.mailbox, caller: &self.caller };
                if std::mem::take(&mut busy.woken) {
                    busy.calls.poll_running(&self.mailbox, context);
                }
                busy.calls.start_pending(&owner, context, now);
            }
            // Calls that ended at once made room, and nobody would wake us for it.
            if taken == 0 && !(self.mailbox.has_requests() && self.has_room_for_calls()) {
                break;
            }
        }
        match &mut self.busy {
            Some(busy) if busy.is_idle() => self.busy = None,
            Some(busy) => {
                if let Some((last, stage)) = busy.last.take() {
                    self.finish_with(last, stage);
                }
            }
            None => {}
        }
    }

    /// Takes requests that were pushed to this connection, as far as there is room for them.
    fn take_requests(&mut self, context: &mut Context<'_>) -> usize {
        if let Some(pipe) = &mut self.pipe {
            pipe.poll(&self.shard, self.caller.id, context);
        }
        let mut taken = 0;
        while self.has_room_for_calls()
            && let Some(pushed) = self.mailbox.take_request()
        {
            taken += 1;
            if self.mailbox.ending().is_none() {
                self.busy().calls.push(Request::pushed(pushed));
            }
        }
        taken
    }

    fn has_room_for_calls(&self) -> bool {
        self.busy.as_ref().is_none_or(|busy| busy.calls.has_room(self.shard.config.limits.max_message_bytes))
    }

    /// Whether the browser has to wait: too many of its messages are here, or it does not read what it gets.
    fn should_pause(&self) -> bool {
        self.stage == Stage::Open
            && (!self.has_room_for_calls()
                || self.mailbox.outbox().queued_bytes() > self.shard.config.limits.outbox_bytes / 2)
    }

    fn is_paused(&self) -> bool {
        self.busy.as_ref().is_some_and(|busy| busy.reading == Reading::Paused)
    }

    /// Tells the endpoint whether the browser's silence can be its own.
    fn pause_or_resume(&mut self, now: Instant) -> bool {
        let reading = if self.should_pause() { Reading::Paused } else { Reading::Active };
        if self.is_paused() != (reading == Reading::Paused) {
            self.busy().reading = reading;
            match reading {
                Reading::Paused => self.endpoint.suspend_keepalive(),
                Reading::Active => self.endpoint.resume_keepalive(now),
            }
        }
        reading == Reading::Paused
    }

    /// Writes all that is queued, as far as the socket takes it.
    fn flush(&mut self, context: &mut Context<'_>, now: Instant) -> Result<(), Over> {
        let mut total = self.mailbox.write_out()?;
        while self.mailbox.has_unsent() {
            match self.mailbox.with_stream(|stream| Ok(stream.poll_write_ready(context)))? {
                Poll::Ready(ready) => ready?,
                Poll::Pending => break,
            }
            total += self.mailbox.write_out()?;
        }
        self.blocked_since = match (self.mailbox.has_unsent(), total) {
            (false, _) => None,
            (true, 0) => Some(self.blocked_since.unwrap_or(now)),
            (true, _) => Some(now),
        };
        if total > 0 {
            // Those that waited for room wake this connection again.
            self.mailbox.wake_replies();
        }
        Ok(())
    }

    /// Closes the socket when the last frame is out.
    fn leave_when_done(&mut self, context: &mut Context<'_>) -> Result<(), Over> {
        if self.mailbox.has_unsent() {
            return Ok(());
        }
        match &mut self.stage {
            Stage::Open | Stage::Draining { finished_writing: true } => Ok(()),
            Stage::Flushing => {
                self.mailbox.with_stream(|stream| {
                    stream.end();
                    Ok(())
                })?;
                Err(Over::Closed)
            }
            Stage::Draining { finished_writing } => {
                if let Poll::Ready(ended) = self.mailbox.with_stream(|stream| Ok(stream.poll_shutdown(context)))? {
                    *finished_writing = true;
                    ended?;
                }
                Ok(())
            }
        }
    }

    /// Begins the closing handshake behind what is queued already.
    fn close(&mut self, code: CloseCode, reason: &str, now: Instant) {
        if let Some(close) = self.endpoint.close(code, reason, now) {
            self.close_code = Some(code.number());
            self.mailbox.outbox().finish(Some(bytes_of(&close)));
            self.busy = None;
            self.pipe = None;
            self.watched = None;
            self.mailbox.wake_replies();
        }
    }

    /// The same at once: what has not been started is neither run nor sent.
    fn close_now(&mut self, code: CloseCode, reason: &str, now: Instant) {
        if self.endpoint.can_send() {
            self.mailbox.outbox().discard_unstarted();
            self.close(code, reason, now);
        }
    }

    /// The browser will say nothing more. The messages that it sent before, in the same breath, are answered by an application
    /// that can do it at once; other calls end with their connection.
    fn finish_after_calls(&mut self, last: Option<ControlFrame>, stage: Stage) {
        self.busy().last = Some((last.as_ref().map(bytes_of), stage));
    }

    /// The endpoint is finished: only this frame is still to be sent.
    fn finish_with(&mut self, last: Option<Bytes>, stage: Stage) {
        self.mailbox.outbox().finish(last);
        self.stage = stage;
        self.busy = None;
        self.pipe = None;
        self.watched = None;
        self.mailbox.wake_replies();
    }

    fn send_control(&mut self, frame: &ControlFrame) {
        self.mailbox.outbox().push_control(bytes_of(frame));
    }

    fn write_stall(&self) -> Duration {
        let keepalive = &self.shard.endpoint.keepalive;
        (keepalive.ping_interval + keepalive.pong_timeout).max(MIN_WRITE_STALL)
    }

    /// Has the shard wake this connection at the earliest of its deadlines.
    fn arm(&mut self) {
        let stalled = self.blocked_since.map(|since| since + self.write_stall());
        let stale = self.pipe.as_ref().and_then(|pipe| pipe.stale_at());
        let keepalive = self.endpoint.poll_timeout(&self.shard.endpoint);
        let look = self.is_paused().then(|| Instant::now() + LOOK_EVERY);
        let recheck = self.watched.as_ref().and_then(|watched| watched.due);
        let earliest = [keepalive, self.expires, recheck, stalled, stale, look].into_iter().flatten().min();
        if let Some(deadline) = earliest
            && self.armed.is_none_or(|armed| deadline < armed)
        {
            self.armed = Some(deadline);
            self.shard.timers.arm(self.shard.timers.tick_of(deadline), self.key);
        }
    }

    /// Whether the browser has closed its side, seen without reading what it sent before.
    fn has_hung_up(&self, context: &mut Context<'_>) -> bool {
        self.mailbox.with_stream(|stream| Ok(stream.has_hung_up(context))).unwrap_or(false)
    }

    fn end(&mut self, over: &Over) {
        tracing::debug!(connection = %self.caller.id, reason = %over, "connection ended");
        self.end = over.into();
        if self.shard.config.calls.on_disconnect == Notify::Call {
            let (shard, caller) = (Rc::clone(&self.shard), Arc::clone(&self.caller));
            self.shard.spawn(calls::run_detached(shard, caller, CallEvent::Disconnect));
        }
    }
}

fn bytes_of(frame: &ControlFrame) -> Bytes {
    Bytes::copy_from_slice(frame.as_bytes())
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let connection = self.get_mut();
        connection.mailbox.outbox().register(context.waker());
        if let Some(busy) = &mut connection.busy {
            busy.woken = true;
        }
        for _ in 0..MAX_ROUNDS {
            match connection.round(context) {
                Ok(Round::Progress) => {}
                Ok(Round::Waiting) => return Poll::Pending,
                Err(over) => {
                    connection.end(&over);
                    return Poll::Ready(());
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// However it ends, also by a panic: nobody else can find the connection any more, and its calls end.
impl Drop for Connection {
    fn drop(&mut self) {
        self.mailbox.close();
        let channels = self.shard.hub.borrow_mut().leave(self.key);
        self.shard.left_channels(&self.caller, channels);
        self.shard.counters.closed();
        self.shard.tell(&self.caller, || Kind::Closed { code: self.close_code, reason: self.end.as_str() });
    }
}
