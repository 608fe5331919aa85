//! The calls of one connection: in order, as many at once as `per_connection` allows, each in its turn.
//!
//! They live and die with the connection: dropping this drops the futures, and with them what they started. An idle
//! connection has none of this.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use wootz_protocol::CloseCode;
use wootz_runner::{Call, CallError, CallEvent, Caller, Fault, Gone, Message, Replies};

use super::mailbox::{CallReplies, Ending, Mailbox, MailboxKind};
use super::requests::Pushed;
use crate::config::Mode;
use crate::console::Note;
use crate::dispatch::{Busy, Waits};
use crate::events::{Happening, Kind};
use crate::metrics::CallEnd;
use crate::shard::Shard;

/// Messages that may wait behind the running calls of their connection. At this bound the connection is not read until
/// one has been started, so a browser that sends faster is slowed down, and loses nothing.
const MAX_PENDING: usize = 64;

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) event: CallEvent,
    pub(crate) message: Message,
    /// Where it was pushed: those who wait for it.
    pub(crate) pushed: Option<Rc<Pushed>>,
}

impl Request {
    /// What the browser, or the connection itself, asks for.
    pub(crate) fn new(event: CallEvent, message: Message) -> Self {
        Self { event, message, pushed: None }
    }

    pub(crate) fn pushed(pushed: Rc<Pushed>) -> Self {
        Self { event: CallEvent::Push, message: pushed.message().clone(), pushed: Some(pushed) }
    }
}

/// A call from its wait for a turn to its last reply. That its browser has gone is no answer that anybody needs.
type RunningCall = Pin<Box<dyn Future<Output = Result<(), Gone>>>>;

/// The queue of one connection and what runs of it.
#[derive(Default)]
pub(crate) struct Calls {
    pending: VecDeque<Request>,
    pending_bytes: usize,
    /// By their order; `None` has ended and waits for one before it.
    running: VecDeque<Option<RunningCall>>,
}

/// Whose calls these are.
pub(crate) struct Owner<'a> {
    pub(crate) shard: &'a Rc<Shard>,
    pub(crate) mailbox: &'a Rc<Mailbox>,
    pub(crate) caller: &'a Arc<Caller>,
}

impl Calls {
    /// Starts a call of an idle connection. `None`: it has ended already, and nothing needs to be kept.
    pub(crate) fn start_first(
        owner: &Owner<'_>,
        request: Request,
        context: &mut Context<'_>,
        now: Instant,
    ) -> Option<Self> {
        let sequence = owner.mailbox.current_call();
        let mut call: RunningCall = Box::pin(run(owner, request, sequence, now));
        if call.as_mut().poll(context).is_ready() {
            owner.mailbox.advance_to_call(sequence + 1);
            return None;
        }
        Some(Self { running: VecDeque::from([Some(call)]), ..Self::default() })
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.running.is_empty()
    }

    /// Whether one more message may wait. One always may, however long it is.
    pub(crate) fn has_room(&self, max_bytes: usize) -> bool {
        self.pending.len() < MAX_PENDING && (self.pending_bytes < max_bytes || self.pending.is_empty())
    }

    pub(crate) fn push(&mut self, request: Request) {
        self.pending_bytes += request.message.payload().len();
        self.pending.push_back(request);
    }

    /// Forgets the messages that were not started.
    pub(crate) fn drop_pending(&mut self) {
        self.pending.clear();
        self.pending_bytes = 0;
    }

    /// Lets the running calls go on. Needed only when something has woken them.
    pub(crate) fn poll_running(&mut self, mailbox: &Mailbox, context: &mut Context<'_>) {
        for slot in &mut self.running {
            if let Some(call) = slot
                && call.as_mut().poll(context).is_ready()
            {
                *slot = None;
            }
        }
        self.retire(mailbox);
    }

    /// Starts the calls that have their turn in this connection.
    pub(crate) fn start_pending(&mut self, owner: &Owner<'_>, context: &mut Context<'_>, now: Instant) {
        while self.running.len() < owner.shard.config.calls.per_connection
            && let Some(request) = self.pending.pop_front()
        {
            self.pending_bytes -= request.message.payload().len();
            let sequence = owner.mailbox.current_call() + self.running.len() as u64;
            let mut call: RunningCall = Box::pin(run(owner, request, sequence, now));
            let ended = call.as_mut().poll(context).is_ready();
            self.running.push_back((!ended).then_some(call));
            self.retire(owner.mailbox);
        }
    }

    /// Takes the ended calls off the front: the next one's replies may leave.
    fn retire(&mut self, mailbox: &Mailbox) {
        while let Some(None) = self.running.front() {
            self.running.pop_front();
            mailbox.advance_to_call(mailbox.current_call() + 1);
        }
    }
}

/// Runs one call from its wait for a turn to its last reply. One future, without another in it for the same values: it is moved and
/// allocated for each call.
fn run(
    owner: &Owner<'_>,
    request: Request,
    sequence: u64,
    now: Instant,
) -> impl Future<Output = Result<(), Gone>> + use<> {
    let (shard, mailbox) = (Rc::clone(owner.shard), Rc::clone(owner.mailbox));
    let Request { event, message, pushed } = request;
    let call = Call {
        event,
        message,
        caller: Arc::clone(owner.caller),
        mode: shard.config.calls.message,
        capability: shard.capabilities.as_ref().map(|issuer| issuer.issue(owner.caller.id, sequence)),
    };
    let replies = CallReplies::new(Rc::clone(&shard), Rc::clone(&mailbox), sequence, event, now);
    async move {
        let waits = match &pushed {
            Some(pushed) if pushed.has_place() => Waits::InItsPlace,
            Some(_) | None => Waits::InLine { message_bytes: call.message.payload().len() },
        };
        let turn = shard.acquire_turn(&call.caller, event, waits).await;
        if let Some(pushed) = &pushed {
            mailbox.forget_request(pushed);
        }
        let turn = match turn {
            Ok(turn) => turn,
            Err(busy) => return answer_busy(&shard, &mailbox, &call, &replies, busy).await,
        };
        replies.started(turn.waited());
        let counted = CountedCall::new(&shard, &call.caller, event, turn.waited(), replies.began());
        let described = Described::of(&call, mailbox.kind());
        let mut way_back = Replies::new(Rc::clone(&replies) as Rc<dyn wootz_runner::ReplySink>);
        let result = shard.application.call_dyn(call, &mut way_back).await;
        // The application is done; a slow reader of its reply must not keep others from their turn.
        drop(turn);
        counted.end(&result);
        replies.flush().await?;
        if let Some(pushed) = pushed {
            // Of a failed call nothing is to be written.
            let watchers = pushed.take_watchers();
            watchers.filter(|_| result.is_ok()).for_each(|watch| mailbox.outbox().watch(watch));
        }
        match result {
            Ok(()) => tell_success(&mailbox, &described, &way_back, &replies).await,
            Err(error) => tell_failure(&shard, &mailbox, &described, &error, &replies).await,
        }
    }
}

/// A call that is counted once, also when its future is dropped because the browser went.
pub(crate) struct CountedCall {
    shard: Rc<Shard>,
    caller: Arc<Caller>,
    event: CallEvent,
    waited: Duration,
    began: Instant,
    end: CallEnd,
}

impl CountedCall {
    pub(crate) fn new(
        shard: &Rc<Shard>,
        caller: &Arc<Caller>,
        event: CallEvent,
        waited: Duration,
        began: Instant,
    ) -> Self {
        let (shard, caller) = (Rc::clone(shard), Arc::clone(caller));
        Self { shard, caller, event, waited, began, end: CallEnd::Abandoned }
    }

    pub(crate) fn end(mut self, result: &Result<(), CallError>) {
        self.end = CallEnd::of(result);
        self.shard.circuit.record(result.as_ref().map(|_| ()), self.began);
    }
}

impl Drop for CountedCall {
    fn drop(&mut self) {
        let ran = self.began.elapsed();
        self.shard.counters.call_ended(self.end, self.waited, ran);
        self.shard.pusher.events.emit(|| {
            let kind = Kind::Call { call: self.event, end: self.end, waited: self.waited, ran };
            Happening::new(Some(self.caller.id), self.caller.user.clone(), kind)
        });
    }
}

/// What is still to be told of a call when the application has taken it.
struct Described {
    event: CallEvent,
    connection: wootz_runner::ConnectionId,
    /// Only the console page is told.
    uri: Option<String>,
}

impl Described {
    fn of(call: &Call, kind: MailboxKind) -> Self {
        let uri = (kind == MailboxKind::Console).then(|| call.uri().to_owned());
        Self { event: call.event, connection: call.caller.id, uri }
    }
}

async fn answer_busy(
    shard: &Shard,
    mailbox: &Mailbox,
    call: &Call,
    replies: &CallReplies,
    busy: Busy,
) -> Result<(), Gone> {
    shard.counters.call_refused();
    tracing::info!(connection = %call.caller.id, event = %call.event, reason = %busy, "call refused: busy");
    std::future::poll_fn(|context| replies.poll_turn(context)).await?;
    if mailbox.kind() == MailboxKind::Console {
        let (event, ran) = (call.event, replies.ran());
        mailbox.send_note(&Note::Failed { event, reason: format!("busy: {busy}"), stderr: "", ran });
    } else if call.event == CallEvent::Push {
        // The browser did not ask, so it is not told.
        shard.counters.push_given_up();
    } else if shard.config.calls.busy_reply.is_empty() {
        // What earlier calls replied still leaves before the Close.
        mailbox.end(Ending::AfterCalls(CloseCode::TryAgainLater, "busy"));
    } else {
        mailbox.send(&Message::text(shard.config.calls.busy_reply.as_str()));
    }
    Ok(())
}

async fn tell_success(
    mailbox: &Mailbox,
    described: &Described,
    way_back: &Replies,
    replies: &CallReplies,
) -> Result<(), Gone> {
    if let Some(outcome) = way_back.outcome() {
        let (stderr, bytes) = (outcome.stderr.trim_end(), outcome.output_bytes);
        if stderr.is_empty() {
            tracing::debug!(connection = %described.connection, event = %described.event, ran = ?replies.ran(), bytes, "call ended");
        } else {
            tracing::info!(connection = %described.connection, event = %described.event, stderr, "call ended, and wrote to standard error");
        }
    }
    let Some(uri) = &described.uri else { return Ok(()) };
    std::future::poll_fn(|context| replies.poll_turn(context)).await?;
    let (event, ran) = (described.event, replies.ran());
    mailbox.send_note(&match replies.sent() {
        0 => Note::Empty { event, uri, ran },
        _ => Note::Done { event, ran },
    });
    Ok(())
}

async fn tell_failure(
    shard: &Shard,
    mailbox: &Mailbox,
    described: &Described,
    error: &CallError,
    replies: &CallReplies,
) -> Result<(), Gone> {
    log_failure(described.connection, described.event, error);
    if error.fault() == Fault::Browser {
        return Err(Gone);
    }
    std::future::poll_fn(|context| replies.poll_turn(context)).await?;
    let (event, ran, stderr) = (described.event, replies.ran(), error.stderr());
    match (mailbox.kind(), shard.config.mode) {
        (MailboxKind::Console, _) => {
            mailbox.send_note(&Note::Failed { event, reason: error.to_string(), stderr, ran });
        }
        (MailboxKind::Client, Mode::Development) => {
            let text = format!("wootz: the call failed: {error}\n{stderr}");
            mailbox.send(&Message::text(text.trim_end()));
        }
        (MailboxKind::Client, Mode::Production) if !shard.config.calls.error_reply.is_empty() => {
            mailbox.send(&Message::text(shard.config.calls.error_reply.as_str()));
        }
        (MailboxKind::Client, Mode::Production) => {}
    }
    Ok(())
}

/// Tells the log why a call failed, and the end of what it wrote to standard error.
pub(crate) fn log_failure(connection: wootz_runner::ConnectionId, event: CallEvent, error: &CallError) {
    let stderr = error.stderr().trim_end();
    match error.fault() {
        Fault::Application => tracing::warn!(%connection, %event, reason = %error, stderr, "call failed"),
        Fault::Operator | Fault::Environment => tracing::error!(%connection, %event, reason = %error, "call failed"),
        Fault::Browser => tracing::debug!(%connection, %event, "call ended: the browser is gone"),
    }
}

/// Runs a call whose replies nobody reads: the connection has closed.
pub(crate) async fn run_detached(shard: Rc<Shard>, caller: Arc<Caller>, event: CallEvent) {
    struct Unread;
    impl wootz_runner::ReplySink for Unread {
        fn poll_ready(&self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
            Poll::Ready(Ok(()))
        }
        fn send(&self, _: Message) {}
    }
    let Ok(turn) = shard.acquire_turn(&caller, event, Waits::EMPTY).await else {
        tracing::warn!(connection = %caller.id, %event, "call dropped: busy");
        return shard.counters.call_refused();
    };
    let connection = caller.id;
    let mode = shard.config.calls.message;
    let counted = CountedCall::new(&shard, &caller, event, turn.waited(), Instant::now());
    let call = Call { event, message: Message::empty(), caller, mode, capability: None };
    let result = shard.application.call_dyn(call, &mut Replies::new(Rc::new(Unread))).await;
    drop(turn);
    counted.end(&result);
    if let Err(error) = result {
        log_failure(connection, event, &error);
    }
}
