//! What runs calls, and the way its replies take.
//!
//! A call runs on the thread of its connection, so nothing here is `Send`. Dropping the future of a call means that its
//! browser is gone: whoever runs calls must end what it started.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;

use crate::call::{Call, Message, Utf8Bytes};
use crate::deadline::{Deadline, Late};
use crate::error::{CallError, Gone};
use crate::reply::{ReplyAssembler, ReplyError};

/// Runs calls: a command ([`Exec`](crate::exec::Exec)), or the code of a program that embeds this library.
///
/// ```
/// use wootz_runner::{Application, Call, CallError, Replies};
///
/// struct Echo;
///
/// impl Application for Echo {
///     async fn call(&self, call: Call, replies: &mut Replies) -> Result<(), CallError> {
///         replies.send(call.message).await?;
///         Ok(())
///     }
/// }
/// ```
#[allow(async_fn_in_trait, reason = "a call never leaves the thread of its connection, so its future need not be Send")]
pub trait Application: 'static {
    /// Runs one call and sends its replies.
    ///
    /// # Errors
    /// Whatever kept the call from its end. Replies that were sent before stay sent.
    ///
    /// # Cancel safety
    /// Dropped when the browser is gone. What the call started must end then.
    async fn call(&self, call: Call, replies: &mut Replies) -> Result<(), CallError>;
}

/// The same, usable as `Rc<dyn DynApplication>`. Every [`Application`] is one.
pub trait DynApplication {
    /// Runs one call: [`Application::call`].
    fn call_dyn<'a>(
        &'a self,
        call: Call,
        replies: &'a mut Replies,
    ) -> Pin<Box<dyn Future<Output = Result<(), CallError>> + 'a>>;
}

impl<A: Application> DynApplication for A {
    fn call_dyn<'a>(
        &'a self,
        call: Call,
        replies: &'a mut Replies,
    ) -> Pin<Box<dyn Future<Output = Result<(), CallError>> + 'a>> {
        Box::pin(self.call(call, replies))
    }
}

/// Where replies go; implemented by what owns the connection.
pub trait ReplySink {
    /// Waits until this call may send: its turn has come, and the reader has room.
    ///
    /// # Errors
    /// [`Gone`] when the browser is.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>>;

    /// Takes one message; called after `poll_ready` was ready.
    fn send(&self, message: Message);
}

/// The way back of one call: any number of messages, in order.
pub struct Replies {
    sink: Rc<dyn ReplySink>,
    sent: u64,
    outcome: Option<CallOutcome>,
}

impl Replies {
    /// Replies that go to this sink.
    #[must_use]
    pub fn new(sink: Rc<dyn ReplySink>) -> Self {
        Self { sink, sent: 0, outcome: None }
    }

    /// Waits for turn and room, then sends one message.
    ///
    /// # Errors
    /// [`Gone`] when the browser is.
    ///
    /// # Cancel safety
    /// A message is sent whole or not at all.
    pub async fn send(&mut self, message: Message) -> Result<(), Gone> {
        let mut unsent = Some(message);
        poll_fn(|cx| self.poll_send(cx, &mut unsent)).await
    }

    /// Waits for turn and room, then takes the message that is there, if one is.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, unsent: &mut Option<Message>) -> Poll<Result<(), Gone>> {
        if unsent.is_some() {
            ready!(self.sink.poll_ready(cx))?;
        }
        if let Some(message) = unsent.take() {
            self.sink.send(message);
            self.sent += 1;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// [`Gone`] when the browser is.
    pub async fn text(&mut self, text: impl Into<Utf8Bytes>) -> Result<(), Gone> {
        self.send(Message::Text(text.into())).await
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// [`Gone`] when the browser is.
    pub async fn binary(&mut self, bytes: impl Into<Bytes>) -> Result<(), Gone> {
        self.send(Message::Binary(bytes.into())).await
    }

    /// Messages sent so far.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Leaves a report for the log.
    pub fn report(&mut self, outcome: CallOutcome) {
        self.outcome = Some(outcome);
    }

    /// The report of a call that succeeded; an application inside this process need not leave one.
    pub const fn outcome(&self) -> Option<&CallOutcome> {
        self.outcome.as_ref()
    }
}

/// What the log says about a call that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallOutcome {
    /// From the request to start the process to its end.
    pub duration: Duration,
    /// All that it printed on standard output, in bytes.
    pub output_bytes: u64,
    /// The end of what it printed on standard error, at most 4 KiB.
    pub stderr: String,
}

/// Why messages that are ready were not sent.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// The call has no time left.
    Late,
    /// What was printed can't be sent.
    Output(ReplyError),
}

/// Sends every message that is ready. While the reader has no room nothing more is read: the application waits in its write.
///
/// # Errors
/// [`Gone`] when the browser is.
pub(crate) async fn send_ready(
    output: &mut ReplyAssembler,
    replies: &mut Replies,
    deadline: &mut Deadline,
) -> Result<Result<(), Unsent>, Gone> {
    let mut unsent = None;
    poll_fn(|cx| poll_send_ready(cx, output, &mut unsent, replies, deadline)).await
}

/// The same for a future that is written by hand; `unsent` keeps the message that waits for the reader.
pub(crate) fn poll_send_ready(
    cx: &mut Context<'_>,
    output: &mut ReplyAssembler,
    unsent: &mut Option<Message>,
    replies: &mut Replies,
    deadline: &mut Deadline,
) -> Poll<Result<Result<(), Unsent>, Gone>> {
    loop {
        match replies.poll_send(cx, unsent) {
            Poll::Ready(sent) => sent?,
            Poll::Pending => return deadline.poll(cx).map(|Late| Ok(Err(Unsent::Late))),
        }
        *unsent = match output.next_message() {
            Ok(Some(message)) => Some(message),
            Ok(None) => return Poll::Ready(Ok(Ok(()))),
            Err(error) => return Poll::Ready(Ok(Err(Unsent::Output(error)))),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::call::{CallEvent, ConnectionId, MessageMode};
    use crate::environment::Caller;

    struct Sink(RefCell<Vec<Message>>);

    impl ReplySink for Sink {
        fn poll_ready(&self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
            if self.0.borrow().len() < 2 { Poll::Ready(Ok(())) } else { Poll::Ready(Err(Gone)) }
        }

        fn send(&self, message: Message) {
            self.0.borrow_mut().push(message);
        }
    }

    struct Twice;

    impl Application for Twice {
        async fn call(&self, call: Call, replies: &mut Replies) -> Result<(), CallError> {
            replies.text(call.uri()).await?;
            replies.send(call.message).await?;
            Ok(())
        }
    }

    #[test]
    fn an_application_of_this_process_replies_until_the_browser_is_gone() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let application: Rc<dyn DynApplication> = Rc::new(Twice);
        let sink = Rc::new(Sink(RefCell::default()));
        let mut replies = Replies::new(Rc::clone(&sink) as Rc<dyn ReplySink>);
        let call = || Call {
            event: CallEvent::Message,
            message: Message::binary("b"),
            caller: std::sync::Arc::new(Caller::builder(ConnectionId(1), "/").build()),
            mode: MessageMode::Uri,
            capability: None,
        };
        runtime.block_on(application.call_dyn(call(), &mut replies)).expect("room for two");
        assert_eq!(sink.0.borrow()[..], [Message::text("/"), Message::binary("b")]);
        let second = runtime.block_on(application.call_dyn(call(), &mut replies));
        assert!(matches!(second, Err(CallError::Gone(Gone))), "{second:?}");
        assert_eq!((replies.sent(), sink.0.borrow().len()), (2, 2));
    }
}
