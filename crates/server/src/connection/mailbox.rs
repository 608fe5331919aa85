//! What others may do to a living connection: give it frames and requests, take their turn with replies, ask it to end.
//!
//! The driver reads the socket and decides; everybody else holds this. Nothing here waits.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wootz_hub::Outbox;
use wootz_protocol::{CloseCode, Opcode, encode_unmasked};
use wootz_runner::{Caller, Gone, Message, ReplySink};

use super::requests::{Pushed, Requests, Room};
use super::stream::Stream;
use crate::console::Note;
use crate::events::{Happening, Kind};
use crate::identity::News;
use crate::listener::Sent;
use crate::push::Tally;
use crate::shard::Shard;

/// A connection, as everybody but its driver sees it.
#[derive(Debug)]
pub(crate) struct Mailbox {
    outbox: Outbox,
    /// Here, not in the driver, so that a push to many is a loop of writes, without a wake-up of each connection's task. `None`
    /// when the connection has ended: whoever still holds this mailbox must not hold the socket open.
    stream: RefCell<Option<Stream>>,
    /// Bytes of replies that may wait before the next one has to.
    reply_room_bytes: usize,
    /// The call, counted from the connection's first, whose replies leave now.
    current_call: Cell<u64>,
    /// Calls that wait for their turn to reply, or for room.
    reply_wakers: RefCell<Vec<Waker>>,
    /// One word while nothing waits, which is nearly always.
    requests: RefCell<Option<Box<Requests>>>,
    /// Who is at the other end, for those who find the connection in the hub.
    caller: RefCell<Arc<Caller>>,
    /// In seconds of the shard's life.
    opened_at: u32,
    ending: Cell<Option<Ending>>,
    timer_fired: Cell<bool>,
    news: RefCell<Option<Box<News>>>,
    kind: MailboxKind,
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MailboxKind {
    /// A site's page, or any other client.
    Client,
    /// The console page of `--dev`, which is told about each call.
    Console,
}

/// Why the connection should end, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// When the calls that run have replied.
    AfterCalls(CloseCode, &'static str),
    /// At once; its calls are ended.
    Now(CloseCode, &'static str),
}

impl wootz_hub::Mailbox for Mailbox {
    fn outbox(&self) -> &Outbox {
        &self.outbox
    }
}

impl Mailbox {
    pub(crate) fn new(
        stream: Stream,
        kind: MailboxKind,
        reply_room_bytes: usize,
        caller: Arc<Caller>,
        opened_at: u32,
    ) -> Self {
        Self {
            outbox: Outbox::default(),
            stream: RefCell::new(Some(stream)),
            reply_room_bytes,
            current_call: Cell::new(0),
            reply_wakers: RefCell::default(),
            requests: RefCell::default(),
            caller: RefCell::new(caller),
            opened_at,
            ending: Cell::new(None),
            timer_fired: Cell::new(false),
            news: RefCell::default(),
            kind,
        }
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Does something with the socket, for as long as there is one.
    pub(crate) fn with_stream<R>(&self, act: impl FnOnce(&mut Stream) -> io::Result<R>) -> io::Result<R> {
        match &mut *self.stream.borrow_mut() {
            Some(stream) => act(stream),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The number of its stream, where it has no connection of its own. `None` also when it has ended.
    pub(crate) fn http2_stream(&self) -> Option<u32> {
        self.stream.borrow().as_ref().and_then(Stream::http2_stream)
    }

    /// Closes the socket.
    pub(crate) fn close(&self) {
        self.outbox.abandon();
        *self.stream.borrow_mut() = None;
        *self.requests.borrow_mut() = None;
        self.wake_replies();
    }

    /// Whether something is queued, or waits encrypted, that the socket has not taken.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.outbox.is_empty() || self.stream.borrow().as_ref().is_some_and(Stream::has_unsent)
    }

    /// Writes what is queued, as far as the socket takes it now. Gives a number above 0 where that is more than nothing.
    pub(crate) fn write_out(&self) -> io::Result<usize> {
        let mut total = 0;
        while self.has_unsent() {
            match self.with_stream(|stream| self.outbox.with_slices(|slices| stream.try_send(slices))) {
                Ok(Sent { taken: 0, left: 0 }) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(Sent { taken, left }) => {
                    self.outbox.advance(taken);
                    total += taken.max(left);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    /// Writes what was pushed. The driver is only woken for what remains: it knows how to wait, and what to do about errors.
    pub(crate) fn write_pushed(&self) {
        if self.write_out().is_err() || self.has_unsent() {
            self.outbox.wake();
        }
    }

    pub(crate) fn kind(&self) -> MailboxKind {
        self.kind
    }

    /// Asks the driver to end the connection. The first wish counts, but `Now` overrides `AfterCalls`.
    pub(crate) fn end(&self, ending: Ending) {
        if !matches!((self.ending.get(), ending), (Some(_), Ending::AfterCalls(..)) | (Some(Ending::Now(..)), _)) {
            self.ending.set(Some(ending));
            self.outbox.wake();
        }
    }

    pub(crate) fn ending(&self) -> Option<Ending> {
        self.ending.get()
    }

    /// A deadline of this connection may have passed.
    pub(crate) fn fire_timer(&self) {
        self.timer_fired.set(true);
        self.outbox.wake();
    }

    pub(crate) fn take_fired_timer(&self) -> bool {
        self.timer_fired.take()
    }

    /// The session of this connection is not as it was.
    pub(crate) fn tell(&self, news: News) {
        self.news.replace(Some(Box::new(news)));
        self.outbox.wake();
    }

    pub(crate) fn take_news(&self) -> Option<Box<News>> {
        self.news.take()
    }

    /// Whether nothing new reaches it any more.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.get().is_some() || self.outbox.is_closed()
    }

    /// Who is at the other end now.
    pub(crate) fn caller(&self) -> Arc<Caller> {
        Arc::clone(&self.caller.borrow())
    }

    /// The browser is another user from now on.
    pub(crate) fn change_caller(&self, caller: Arc<Caller>) {
        self.caller.replace(caller);
    }

    /// When it opened, in seconds of the shard's life.
    pub(crate) fn opened_at(&self) -> u32 {
        self.opened_at
    }

    /// Lets a push share an equal request that waits already.
    pub(crate) fn join_waiting(&self, message: &Message, tally: Option<Arc<Tally>>) -> bool {
        let requests = self.requests.borrow();
        !self.is_ending() && requests.as_ref().is_some_and(|requests| requests.join(message, tally))
    }

    /// Leaves a request for the driver. `Err` gives it back: there is no room now, or the connection is about to end.
    pub(crate) fn push_request(&self, request: Rc<Pushed>, room: Room) -> Result<(), Rc<Pushed>> {
        if self.is_ending() && room == Room::Waiting {
            return Err(request);
        }
        self.requests.borrow_mut().get_or_insert_default().push(request, room)?;
        self.outbox.wake();
        Ok(())
    }

    pub(crate) fn has_requests(&self) -> bool {
        self.requests.borrow().as_ref().is_some_and(|requests| requests.has_unseen())
    }

    pub(crate) fn take_request(&self) -> Option<Rc<Pushed>> {
        self.requests.borrow_mut().as_mut()?.take_unseen()
    }

    /// A request runs, or never will.
    pub(crate) fn forget_request(&self, request: &Rc<Pushed>) {
        let mut slot = self.requests.borrow_mut();
        if let Some(requests) = slot.as_mut() {
            requests.forget(request);
            if requests.is_empty() {
                *slot = None;
            }
        }
    }

    /// The call whose replies may leave.
    pub(crate) fn current_call(&self) -> u64 {
        self.current_call.get()
    }

    /// The replies of the call before are out: the next call's may leave.
    pub(crate) fn advance_to_call(&self, sequence: u64) {
        self.current_call.set(sequence);
        self.wake_replies();
    }

    /// There may be room for replies again, or never more.
    pub(crate) fn wake_replies(&self) {
        for waker in self.reply_wakers.take() {
            waker.wake();
        }
    }

    fn poll_turn(&self, sequence: u64, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.outbox.is_closed() {
            return Poll::Ready(Err(Gone));
        }
        if self.current_call.get() == sequence && self.outbox.queued_bytes() < self.reply_room_bytes {
            return Poll::Ready(Ok(()));
        }
        let mut wakers = self.reply_wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            wakers.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Queues a message of the server's own for the browser.
    pub(crate) fn send(&self, message: &Message) {
        self.outbox.push_reply(encode(message));
    }

    pub(crate) fn send_note(&self, note: &Note<'_>) {
        if self.kind == MailboxKind::Console {
            self.outbox.push_reply(wootz_protocol::encode_text(&note.to_text()));
        }
    }
}

/// A message as the frame that every browser can be sent.
pub(crate) fn encode(message: &Message) -> Bytes {
    let (opcode, payload) = match message {
        Message::Text(text) => (Opcode::Text, &**text),
        Message::Binary(bytes) => (Opcode::Binary, bytes),
    };
    // Exactly as long as it will be: shared bytes without a spare end need no second allocation.
    let header_bytes = match payload.len() {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    let mut frame = Vec::with_capacity(header_bytes + payload.len());
    encode_unmasked(opcode, true, payload, &mut frame);
    Bytes::from(frame)
}

/// The replies of one call, in their turn.
///
/// One message may be held back, so that a call whose only reply has to wait for the reader need not wait itself.
pub(crate) struct CallReplies {
    shard: Rc<Shard>,
    mailbox: Rc<Mailbox>,
    sequence: u64,
    event: wootz_runner::CallEvent,
    held: RefCell<Option<Message>>,
    sent: Cell<u64>,
    asked: Instant,
    waited: Cell<Duration>,
}

impl CallReplies {
    pub(crate) fn new(
        shard: Rc<Shard>,
        mailbox: Rc<Mailbox>,
        sequence: u64,
        event: wootz_runner::CallEvent,
        asked: Instant,
    ) -> Rc<Self> {
        Rc::new(Self {
            shard,
            mailbox,
            sequence,
            event,
            held: RefCell::new(None),
            sent: Cell::new(0),
            asked,
            waited: Cell::new(Duration::ZERO),
        })
    }

    /// The call got its turn to run, after so long a wait.
    pub(crate) fn started(&self, waited: Duration) {
        self.waited.set(waited);
    }

    /// When the call began to run.
    pub(crate) fn began(&self) -> Instant {
        self.asked + self.waited.get()
    }

    /// How long the call runs, or ran.
    pub(crate) fn ran(&self) -> Duration {
        self.began().elapsed()
    }

    /// Messages so far, sent or held.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.get()
    }

    pub(crate) fn poll_turn(&self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.mailbox.poll_turn(self.sequence, context)
    }

    /// Waits until everything that the call sent is queued for the browser.
    pub(crate) async fn flush(&self) -> Result<(), Gone> {
        if self.held.borrow().is_none() {
            return Ok(());
        }
        std::future::poll_fn(|context| self.poll_flush(context)).await
    }

    fn poll_flush(&self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.held.borrow().is_none() {
            return Poll::Ready(Ok(()));
        }
        self.poll_turn(context).map_ok(|()| {
            if let Some(message) = self.held.take() {
                self.deliver(&message);
            }
        })
    }

    fn deliver(&self, message: &Message) {
        if self.mailbox.kind() == MailboxKind::Console {
            let (event, waited, ran) = (self.event, self.waited.get(), self.ran());
            self.mailbox.send_note(&Note::Reply { event, waited, ran });
        }
        self.shard.pusher.events.emit(|| {
            let caller = self.mailbox.caller();
            Happening::new(Some(caller.id), caller.user.clone(), Kind::Reply { message: message.clone() })
        });
        self.mailbox.send(message);
    }
}

impl ReplySink for CallReplies {
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.poll_flush(context)
    }

    fn send(&self, message: Message) {
        self.sent.set(self.sent.get() + 1);
        match self.poll_turn(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => self.deliver(&message),
            Poll::Ready(Err(Gone)) => {}
            Poll::Pending => {
                self.held.replace(Some(message));
            }
        }
    }
}
