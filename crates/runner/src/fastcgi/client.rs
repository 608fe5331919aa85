//! One request and its answer over one connection.
//!
//! Writes and reads at the same time, because a server may answer before it has read. Nothing is kept for longer than needed: the
//! request until it is written, of the answer what is no whole message yet, and the end of standard error.
//!
//! A request counts as begun as soon as the record that ends its parameters has left: nobody can tell whether the server has read it, and
//! a script that has run must not run twice. Before that, another connection may carry it. On a connection that was used before, that
//! record waits until the server has taken those before it, because a worker of php-fpm that has reached `pm.max_requests`, or is
//! replaced, closes after an answer in its own time: without the wait, a request that follows at once would be lost.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::parameters::Parameters;
use super::records::{
    AfterAnswer, Begin, End, Outgoing, Piece, Position, ProtocolStatus, Records, RequestHead, Step, Written,
};
use super::response::HeaderBlock;
use crate::application::{CallOutcome, Replies, Unsent, poll_send_ready};
use crate::call::{Call, CallEvent, Message};
use crate::deadline::{Deadline, Late};
use crate::error::{ApplicationFault, CallError, EnvironmentFault, Gone, StartError};
use crate::reply::{FrameMode, ReplyAssembler, ReplyError, ReplyMode};
use crate::stderr::StderrTail;

/// One record and its header.
const READ_BUFFER_BYTES: usize = 64 * 1024;

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice());
}

/// What bounds an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From the request to the first byte of the answer. Zero: only `timeout`.
    pub(crate) first_byte_timeout: Duration,
    /// What the deadline of the call was made of; for its error.
    pub(crate) timeout: Duration,
    /// An answer with a longer body fails.
    pub(crate) max_output_bytes: usize,
    /// When replies are sent.
    pub(crate) reply: ReplyMode,
    /// Text or binary.
    pub(crate) frame: FrameMode,
}

/// One request, to be sent over any connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchange<'e> {
    pub(crate) call: &'e Call,
    pub(crate) parameters: &'e Parameters,
    /// Whether another request may follow.
    pub(crate) after: AfterAnswer,
    /// `WhenTaken` on a connection that was used before.
    pub(crate) begin: Begin,
    pub(crate) limits: &'e Limits,
    /// The server by its name in errors: `the FastCGI server at unix:/run/php.sock`.
    pub(crate) server: &'e str,
    /// When the call began.
    pub(crate) since: Instant,
}

/// A connection to a FastCGI server.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Waits until the server has read all that was written, and did not close. Ready at once where nobody can tell. Pending, without a
    /// later waking, where the connection has something to be read, be it its end.
    fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The last request of this connection has been written: lets the server know.
    fn end_of_requests(&mut self);
}

/// What a connection is good for after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exchanged {
    /// For another request.
    Reusable,
    /// To be closed.
    Spent,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NotExchanged {
    /// Too little of the request left to be run: another connection may carry it.
    NotBegun(io::Error),
    /// The call has failed.
    Failed(CallError),
}

impl From<Gone> for NotExchanged {
    fn from(gone: Gone) -> Self {
        Self::Failed(gone.into())
    }
}

/// Sends the request, and its replies as they come.
///
/// # Errors
/// See [`NotExchanged`]; the connection is to be closed then.
///
/// # Cancel safety
/// Dropped, the connection holds a part of an exchange: close it, which tells the server that nobody waits.
pub(crate) async fn exchange<S: Transport>(
    connection: &mut S,
    exchange: &Exchange<'_>,
    deadline: &mut Deadline,
    replies: &mut Replies,
) -> Result<Exchanged, NotExchanged> {
    let mut conversation = Conversation::new(connection, exchange);
    let stop = poll_fn(|cx| conversation.poll(cx, deadline, replies)).await?;
    let reusable = exchange.after == AfterAnswer::Keep && conversation.is_over();
    let Rest { mut message, output_bytes, stderr } =
        conversation.answer.conclude(stop, exchange).map_err(NotExchanged::Failed)?;
    poll_fn(|cx| replies.poll_send(cx, &mut message)).await?;
    replies.report(CallOutcome { duration: exchange.since.elapsed(), output_bytes, stderr });
    Ok(if reusable { Exchanged::Reusable } else { Exchanged::Spent })
}

/// A timer of its own only where it can be the first.
fn silence(limits: &Limits) -> Deadline {
    let Limits { first_byte_timeout, timeout, .. } = *limits;
    let is_first = timeout.is_zero() || first_byte_timeout < timeout;
    Deadline::after(if is_first { first_byte_timeout } else { Duration::ZERO })
}

struct Conversation<'c, S> {
    connection: &'c mut S,
    outgoing: Outgoing,
    after: AfterAnswer,
    answer: Answer,
    /// A reply that waits for its reader.
    unsent: Option<Message>,
    /// The end of the answer, while replies before it wait.
    end: Option<End>,
    silence: Deadline,
}

/// Why a conversation is over.
enum Stop {
    /// The answer has ended.
    End(End),
    /// The whole call took too long.
    Late,
    /// The server did not begin to answer.
    Silent,
    /// What came is no answer; in words that begin with a verb.
    NoAnswer(String),
    /// The body can't be sent.
    Output(ReplyError),
    /// A failure whose body is too long to wait for its end.
    Status(u16),
    /// The server could not run the script.
    NoScript(&'static str),
}

enum Event {
    Received(Result<Option<End>, Stop>),
    Stop(Stop),
    NotBegun(io::Error),
}

impl<'c, S: Transport> Conversation<'c, S> {
    fn new(connection: &'c mut S, exchange: &Exchange<'_>) -> Self {
        let mut head = RequestHead::new(exchange.after);
        exchange.parameters.push(exchange.call, &mut head);
        Self {
            connection,
            outgoing: head.body(exchange.call.message.payload().clone(), exchange.begin),
            after: exchange.after,
            answer: Answer::new(exchange.call.event, exchange.limits),
            unsent: None,
            end: None,
            silence: silence(exchange.limits),
        }
    }

    /// Goes on until it is over. By hand, because a call's future is moved and allocated for each message, and one future in another
    /// keeps everything twice.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        deadline: &mut Deadline,
        replies: &mut Replies,
    ) -> Poll<Result<Stop, NotExchanged>> {
        loop {
            let sent = poll_send_ready(cx, &mut self.answer.output, &mut self.unsent, replies, deadline);
            match ready!(sent)? {
                Ok(()) => {}
                Err(Unsent::Late) => return Poll::Ready(Ok(Stop::Late)),
                Err(Unsent::Output(error)) => return Poll::Ready(Ok(Stop::Output(error))),
            }
            if let Some(end) = self.end.take() {
                return Poll::Ready(Ok(Stop::End(end)));
            }
            match ready!(self.poll_event(cx, deadline)) {
                Event::Received(Ok(end)) => self.end = end,
                Event::Received(Err(stop)) | Event::Stop(stop) => return Poll::Ready(Ok(stop)),
                Event::NotBegun(error) => return Poll::Ready(Err(NotExchanged::NotBegun(error))),
            }
        }
    }

    /// Whether nothing of the exchange is left on the connection.
    fn is_over(&self) -> bool {
        self.outgoing.written() == Written::Whole && self.answer.records.position() == Position::End
    }

    fn poll_event(&mut self, cx: &mut Context<'_>, deadline: &mut Deadline) -> Poll<Event> {
        if let Poll::Ready(Late) = deadline.poll(cx) {
            return Poll::Ready(Event::Stop(Stop::Late));
        }
        if self.answer.records.position() == Position::Start
            && let Poll::Ready(Late) = self.silence.poll(cx)
        {
            return Poll::Ready(Event::Stop(Stop::Silent));
        }
        if let Err(error) = self.write(cx) {
            return Poll::Ready(Event::NotBegun(error));
        }
        self.poll_read(cx)
    }

    /// Writes while there is room.
    ///
    /// # Errors
    /// The connection broke before the request could be run. A later error is none: what the server has answered can still be read, and
    /// how that ends says more.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            let bytes = match self.outgoing.next_step() {
                Step::Write(bytes) => bytes,
                Step::Nothing => return Ok(()),
                Step::WaitUntilTaken => match self.connection.poll_taken(cx) {
                    Poll::Ready(()) => {
                        self.outgoing.taken();
                        continue;
                    }
                    Poll::Pending => return Ok(()),
                },
            };
            match Pin::new(&mut *self.connection).poll_write(cx, bytes) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(length @ 1..)) => {
                    self.outgoing.advance(length);
                    if self.after == AfterAnswer::HalfClose && self.outgoing.written() == Written::Whole {
                        self.connection.end_of_requests();
                    }
                }
                Poll::Ready(taken) if self.outgoing.written() == Written::ToRunNothing => {
                    return Err(taken.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(_) => return Ok(()),
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            let read = ready!(Pin::new(&mut *self.connection).poll_read(cx, &mut buffer));
            Poll::Ready(match read {
                Ok(()) if buffer.filled().is_empty() => self.closed(io::ErrorKind::ConnectionReset.into()),
                Ok(()) => Event::Received(self.answer.receive(buffer.filled())),
                Err(error) => self.closed(error),
            })
        })
    }

    fn closed(&self, error: io::Error) -> Event {
        let unanswered = self.answer.records.position() == Position::Start;
        if unanswered && self.outgoing.written() == Written::ToRunNothing {
            Event::NotBegun(error)
        } else {
            Event::Stop(self.answer.closed(&error))
        }
    }
}

/// The answer as far as it has come, without IO.
struct Answer {
    records: Records,
    header: HeaderBlock,
    /// Once the header block is whole.
    status: Option<Status>,
    output: ReplyAssembler,
    /// Bytes of a failure's body; none of them is sent.
    failure_bytes: usize,
    max_output_bytes: usize,
    stderr: StderrTail,
    event: CallEvent,
}

/// What is left of an answer that is a success.
struct Rest {
    /// The last reply.
    message: Option<Message>,
    output_bytes: u64,
    stderr: String,
}

#[derive(Debug, Clone, Copy)]
enum Status {
    Success,
    Failure(u16),
}

impl Answer {
    fn new(event: CallEvent, limits: &Limits) -> Self {
        Self {
            records: Records::new(),
            header: HeaderBlock::default(),
            status: None,
            output: ReplyAssembler::new(limits.reply, limits.frame, limits.max_output_bytes),
            failure_bytes: 0,
            max_output_bytes: limits.max_output_bytes,
            stderr: StderrTail::default(),
            event,
        }
    }

    /// Takes what was read; its end where it is among that.
    fn receive(&mut self, mut bytes: &[u8]) -> Result<Option<End>, Stop> {
        let mut end = None;
        loop {
            match self.records.next(&mut bytes) {
                Ok(Some(Piece::Stdout(content))) => self.receive_stdout(content)?,
                Ok(Some(Piece::Stderr(content))) => self.stderr.push(content),
                Ok(Some(Piece::End(it))) => end = Some(it),
                Ok(None) => return Ok(end),
                Err(error) => return Err(Stop::NoAnswer(error.to_string())),
            }
        }
    }

    fn receive_stdout(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let (status, body) = match self.status {
            Some(status) => (status, bytes),
            None => match self.header.receive(bytes) {
                Ok(None) => return Ok(()),
                Ok(Some((number, body))) => (self.judge(number)?, body),
                Err(error) => return Err(Stop::NoAnswer(error.to_string())),
            },
        };
        self.status = Some(status);
        match status {
            Status::Success => self.output.receive(body).map_err(Stop::Output),
            Status::Failure(number) => {
                self.failure_bytes = self.failure_bytes.saturating_add(body.len());
                if self.failure_bytes > self.max_output_bytes { Err(Stop::Status(number)) } else { Ok(()) }
            }
        }
    }

    /// What a status says about the call. A redirect or a client error is the application's word to its user, but no identity.
    fn judge(&self, number: u16) -> Result<Status, Stop> {
        if matches!(number, 403 | 404)
            && let Some(why) = no_script(self.stderr.bytes())
        {
            return Err(Stop::NoScript(why));
        }
        Ok(match (self.event, number) {
            (CallEvent::Validate, 200..=299) => Status::Success,
            (CallEvent::Validate, _) | (_, 500..) => Status::Failure(number),
            (_, _) => Status::Success,
        })
    }

    /// The connection was closed before the end of the answer.
    fn closed(&self, error: &io::Error) -> Stop {
        let what = match self.records.position() {
            Position::Start => "closed the connection without an answer (did its worker die? see its log)",
            Position::BetweenRecords => "closed the connection before the end of its answer",
            Position::WithinRecord => "closed the connection within a record of its answer",
            Position::End => "closed the connection",
        };
        Stop::NoAnswer(match error.kind() {
            io::ErrorKind::ConnectionReset => what.to_owned(),
            _ => format!("{what}: {error}"),
        })
    }

    /// The result of the call: what is still to be sent and told of a success.
    fn conclude(self, stop: Stop, exchange: &Exchange<'_>) -> Result<Rest, CallError> {
        let server = exchange.server;
        let fault = match stop {
            Stop::End(end) => match self.fault_at(end, server)? {
                Some(fault) => fault,
                None => return self.succeed(),
            },
            Stop::Late => ApplicationFault::TimedOut(exchange.limits.timeout),
            Stop::Silent => ApplicationFault::Silent(exchange.limits.first_byte_timeout),
            Stop::NoAnswer(what) => ApplicationFault::BadAnswer { server: server.to_owned(), what },
            Stop::Output(error) => error.into(),
            Stop::Status(number) => ApplicationFault::Status(number),
            Stop::NoScript(what) => {
                let script = exchange.parameters.script_filename();
                return Err(StartError::Script { server: server.to_owned(), script, what }.into());
            }
        };
        Err(CallError::Application { fault, stderr: self.stderr.into_text() })
    }

    /// What is wrong with an answer that has come to its end.
    fn fault_at(&self, end: End, server: &str) -> Result<Option<ApplicationFault>, EnvironmentFault> {
        let why = match end.protocol_status {
            ProtocolStatus::Complete => None,
            ProtocolStatus::NoMultiplexing => Some("it can't multiplex, and was not asked to"),
            ProtocolStatus::Overloaded => Some("it is overloaded"),
            ProtocolStatus::UnknownRole => Some("it is no responder"),
        };
        if let Some(why) = why {
            return Err(EnvironmentFault::Refused { server: server.to_owned(), why });
        }
        Ok(match (end.app_status, self.status) {
            (0, Some(Status::Success)) => None,
            (0, Some(Status::Failure(number))) => Some(ApplicationFault::Status(number)),
            (0, None) => {
                let what = self.header.cut().to_string();
                Some(ApplicationFault::BadAnswer { server: server.to_owned(), what })
            }
            // As C's exit statuses are.
            (status, _) => Some(ApplicationFault::Exit(status as i32)),
        })
    }

    fn succeed(self) -> Result<Rest, CallError> {
        let output_bytes = self.output.received_bytes() as u64;
        let stderr = self.stderr.into_text();
        match self.output.finish() {
            Ok(message) => Ok(Rest { message, output_bytes, stderr }),
            Err(error) => Err(CallError::Application { fault: error.into(), stderr }),
        }
    }
}

/// Why php-fpm could not run a script, by what it says on standard error before its answer.
fn no_script(stderr: &[u8]) -> Option<&'static str> {
    let says = |words: &str| memchr::memmem::find(stderr, words.as_bytes()).is_some();
    if says("Primary script unknown") {
        Some(
            "it knows no such file (application.fastcgi.script is a path as php-fpm sees it: chroot, container, permissions?)",
        )
    } else if says("has been denied (see security.limit_extensions)") {
        Some("its security.limit_extensions forbids the file's extension")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::application::ReplySink;
    use crate::call::{ConnectionId, MessageMode};
    use crate::environment::Caller;

    /// A connection that takes so many bytes and is then broken.
    struct Broken {
        room: usize,
    }

    impl AsyncRead for Broken {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let length = bytes.len().min(self.room);
            self.room -= length;
            Poll::Ready(if length == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(length) })
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Transport for Broken {
        fn end_of_requests(&mut self) {}

        fn poll_taken(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }

    struct Nobody;

    impl ReplySink for Nobody {
        fn poll_ready(&self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
            Poll::Ready(Ok(()))
        }

        fn send(&self, message: Message) {
            panic!("a reply of nobody: {message:?}");
        }
    }

    fn hello() -> Call {
        let caller = Arc::new(Caller::builder(ConnectionId(1), "/").build());
        Call {
            event: CallEvent::Message,
            message: Message::text("hello"),
            caller,
            mode: MessageMode::Uri,
            capability: None,
        }
    }

    /// What becomes of a request of which so many bytes leave.
    fn broken_after(room: usize) -> NotExchanged {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let call = hello();
        let (reply, frame) = (ReplyMode::Whole, FrameMode::Auto);
        let none = Duration::ZERO;
        let limits = Limits { first_byte_timeout: none, timeout: none, max_output_bytes: 100, reply, frame };
        let request = Exchange {
            call: &call,
            parameters: &Parameters::default(),
            after: AfterAnswer::Close,
            begin: Begin::AtOnce,
            limits: &limits,
            server: "the server",
            since: Instant::now(),
        };
        let mut replies = Replies::new(Rc::new(Nobody));
        let (mut connection, mut never) = (Broken { room }, Deadline::after(none));
        let exchanged = exchange(&mut connection, &request, &mut never, &mut replies);
        runtime.block_on(exchanged).expect_err("a broken connection")
    }

    #[test]
    fn a_request_is_not_begun_until_the_end_of_its_parameters_has_left() {
        // The body and its end are 8 + 5 + 8 bytes, and the record before them ends the parameters.
        let body_bytes = 21;
        let mut room = 0;
        while let NotExchanged::NotBegun(_) = broken_after(room) {
            room += 1;
        }
        let NotExchanged::Failed(error) = broken_after(room) else { unreachable!("just seen") };
        assert_eq!(
            error.to_string(),
            "the server closed the connection without an answer (did its worker die? see its log)"
        );
        let mut whole = RequestHead::new(AfterAnswer::Close);
        let call = hello();
        Parameters::default().push(&call, &mut whole);
        let mut whole = whole.body(call.message.payload().clone(), Begin::AtOnce);
        let Step::Write(bytes) = whole.next_step() else { panic!("a request") };
        assert_eq!(room, bytes.len() - body_bytes);
    }
}
