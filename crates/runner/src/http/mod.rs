//! The runner `http`: each call is a request to an HTTP/1.1 server that runs already.
//!
//! A message that is a URI is a `GET` of that URI without a body; anything else is a `POST` of the message to the URI of the handshake. The URI is a
//! path and a query, below the base path of [`HttpUrl`]; no message chooses another server.
//!
//! The request has the header fields of the handshake, with its `Host`, and what a reverse proxy adds: `X-Forwarded-For` (the browser's address
//! appended), `X-Forwarded-Host`, `X-Forwarded-Proto` (both as a proxy before wootz told them, where one did), and an `X-Request-Id` of its
//! own. `WOOTZ_EVENT`, `WOOTZ_CONNECTION` and all other variables of that kind are `Wootz-Event`, `Wootz-Connection` and so on, and the user is
//! `Remote-User`. Fields of these names that a browser sends are dropped; but who reaches the server without wootz can send them too, so the
//! server should listen where only wootz can reach it, or ask for more before it believes them.
//!
//! A server that is not there fails the call at once. Full: TCP waits by itself, and so is a Unix socket waited for, as long as a connection may take.
//!
//! | answer | becomes |
//! |---|---|
//! | 2xx | its body is the reply; 204 and 205: none |
//! | 3xx | a failure that names the `Location`; 304: no reply |
//! | 4xx | its body is the reply: an application's own words to its user. For `validate` a failure: nobody is let in |
//! | 5xx | a failure, nothing is sent |
//!
//! A packed answer (`Content-Encoding`) is a failure too: none is asked for.

mod answer;
mod ids;
mod link;
mod request;
mod stream;
mod url;

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response};

pub use url::{HttpUrl, HttpUrlError};

use crate::application::{Application, CallOutcome, Replies};
use crate::call::{Call, CallEvent};
use crate::error::{ApplicationFault, CallError, EnvironmentFault};
use crate::reply::{FrameMode, ReplyAssembler, ReplyMode};
use answer::Verdict;
use ids::RequestIds;
use link::{Link, NoAnswer};

/// An idle connection is kept no longer, whatever the server would do.
const MAX_IDLE: Duration = Duration::from_secs(60);

/// So much before a server closes an idle connection, by its own word, it is not used any more: a request could cross the close.
const IDLE_MARGIN: Duration = Duration::from_secs(1);

/// How calls are run by an HTTP server.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The server.
    pub url: HttpUrl,
    /// Idle connections that each shard keeps, 0 or more. What is returned when so many are kept is closed. An idle one is kept for a minute at most, or
    /// shorter where the server says so; it is looked at when the next call needs one.
    pub keep: usize,
    /// A connection that is not there after this fails the call. Zero: only `timeout`.
    pub connect_timeout: Duration,
    /// A server that has sent no head of an answer so long after it had the request fails the call. Zero: only `timeout`.
    pub first_byte_timeout: Duration,
    /// A call that takes longer is given up: its connection is closed. Zero: no limit.
    pub timeout: Duration,
    /// A longer body fails the call.
    pub max_output_bytes: usize,
    /// When replies are sent.
    pub reply: ReplyMode,
    /// Text or binary.
    pub frame: FrameMode,
}

impl HttpSettings {
    /// 8 kept connections per shard, 5 s to connect, 30 s in all, 8 MiB, `whole` and `auto`.
    #[must_use]
    pub const fn new(url: HttpUrl) -> Self {
        Self {
            url,
            keep: 8,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::ZERO,
            timeout: Duration::from_secs(30),
            max_output_bytes: 8 * 1024 * 1024,
            reply: ReplyMode::Whole,
            frame: FrameMode::Auto,
        }
    }
}

/// The application that is an HTTP server. One per shard.
pub struct Http {
    settings: Arc<HttpSettings>,
    /// The one that was used last is at the end, and is used next: the others may grow old.
    idle: RefCell<Vec<Idle>>,
    ids: RequestIds,
}

/// A connection between two calls.
struct Idle {
    link: Link,
    until: Instant,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").field("settings", &self.settings).field("idle", &self.idle.borrow().len()).finish()
    }
}

impl Application for Http {
    /// # Cancel safety
    /// Dropped, the call's connection is closed.
    async fn call(&self, call: Call, replies: &mut Replies) -> Result<(), CallError> {
        let since = Instant::now();
        let settings = &*self.settings;
        let request = request::build(&call, &settings.url, self.ids.next()?)?;
        tracing::debug!(
            connection = %call.caller.id,
            request_id = request.headers()["x-request-id"].to_str().unwrap_or_default(),
            "request to the HTTP server"
        );
        let mut output = ReplyAssembler::new(settings.reply, settings.frame, settings.max_output_bytes);
        match within(settings.timeout, pin!(self.converse(request, call.event, &mut output, replies))).await {
            Ok(ended) => ended?,
            Err(Late) => return Err(failed(ApplicationFault::TimedOut(settings.timeout))),
        }
        let duration = since.elapsed();
        let output_bytes = output.received_bytes() as u64;
        if let Some(message) = output.finish().map_err(failed)? {
            replies.send(message).await?;
        }
        replies.report(CallOutcome { duration, output_bytes, stderr: String::new() });
        Ok(())
    }
}

impl Http {
    /// Connects to nothing before there is a call.
    #[must_use]
    pub const fn new(settings: Arc<HttpSettings>) -> Self {
        Self { settings, idle: RefCell::new(Vec::new()), ids: RequestIds::new() }
    }

    /// Sends the request and takes the whole answer; sends what can be sent of it.
    async fn converse(
        &self,
        request: Request<Full<Bytes>>,
        event: CallEvent,
        output: &mut ReplyAssembler,
        replies: &mut Replies,
    ) -> Result<(), CallError> {
        let (mut link, response) = self.ask(request).await?;
        let (head, mut body) = response.into_parts();
        let verdict = answer::judge(head.status, &head.headers, event, &self.settings.url).map_err(failed)?;
        while let Some(bytes) = link.next_bytes(&mut body).await {
            let bytes = bytes.map_err(|error| self.bad_answer(answer::without_end(&error)))?;
            if verdict == Verdict::Nothing {
                // A body where there can be none: nothing more is wanted of this connection.
                return Ok(());
            }
            output.receive(&bytes).map_err(failed)?;
            // While the reader has no room, nothing more is read: the server waits in its write.
            while let Some(message) = output.next_message().map_err(failed)? {
                replies.send(message).await?;
            }
        }
        drop(body);
        self.keep(link, answer::kept_for(&head.headers));
        Ok(())
    }

    /// The answer to a request, on a kept connection or a new one.
    ///
    /// A server may close a kept connection while a request is on its way to it. That request is sent once more, on a new connection, if nothing came
    /// back and it can't have been acted upon: because nothing of it was taken, or because it is a `GET` (RFC 9110 section 9.2.2).
    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<(Link, Response<Incoming>), CallError> {
        if let Some(mut link) = self.kept() {
            let idempotent = request.method() == Method::GET;
            match self.answer(&mut link, request.clone()).await? {
                Ok(response) => return Ok((link, response)),
                Err(none) if !none.was_answered() && (idempotent || !none.was_sent()) => {}
                Err(none) => return Err(self.bad_answer(answer::without_head(&none.error))),
            }
        }
        let mut link = self.connect().await?;
        match self.answer(&mut link, request).await? {
            Ok(response) => Ok((link, response)),
            Err(none) => Err(self.bad_answer(answer::without_head(&none.error))),
        }
    }

    /// The answer on this connection, in its time.
    async fn answer(
        &self,
        link: &mut Link,
        request: Request<Full<Bytes>>,
    ) -> Result<Result<Response<Incoming>, NoAnswer>, CallError> {
        let timeout = self.settings.first_byte_timeout;
        let answered = within(timeout, pin!(link.ask(request))).await;
        answered.map_err(|Late| failed(ApplicationFault::Silent(timeout)))
    }

    async fn connect(&self) -> Result<Link, EnvironmentFault> {
        let connecting = pin!(Link::connect(self.settings.url.server()));
        let connected = match within(self.settings.connect_timeout, connecting).await {
            Ok(connected) => connected,
            Err(Late) => Err(io::ErrorKind::TimedOut.into()),
        };
        connected.map_err(|source| {
            let remedy = remedy(&source);
            EnvironmentFault::Unreachable { server: self.settings.url.to_string(), source, remedy }
        })
    }

    /// A kept connection that the server still keeps.
    fn kept(&self) -> Option<Link> {
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| idle.until > now);
        while let Some(Idle { mut link, .. }) = idle.pop() {
            if link.is_healthy() {
                return Some(link);
            }
        }
        None
    }

    /// Keeps a connection whose answer was taken, where there is room and both sides go on.
    fn keep(&self, mut link: Link, kept_for: Option<Duration>) {
        let lifetime = kept_for.map_or(MAX_IDLE, |kept| kept.saturating_sub(IDLE_MARGIN).min(MAX_IDLE));
        if self.idle.borrow().len() < self.settings.keep && !lifetime.is_zero() && link.is_free() {
            self.idle.borrow_mut().push(Idle { link, until: Instant::now() + lifetime });
        }
    }

    fn bad_answer(&self, what: String) -> CallError {
        failed(ApplicationFault::BadAnswer { server: self.settings.url.to_string(), what })
    }
}

/// The time is over.
struct Late;

/// The output of a future, where it comes in time; zero is any time. The runtime's own timeout is not starved by a server that never pauses.
///
/// It is pinned by the caller, because a future that is given to another is kept twice in it.
async fn within<F: Future>(timeout: Duration, future: Pin<&mut F>) -> Result<F::Output, Late> {
    if timeout.is_zero() {
        return Ok(future.await);
    }
    tokio::time::timeout(timeout, future).await.map_err(|_| Late)
}

fn failed(fault: impl Into<ApplicationFault>) -> CallError {
    CallError::Application { fault: fault.into(), stderr: String::new() }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "is it running, and does it listen there? application.http.url",
        io::ErrorKind::NotFound => "there is no such socket: is it running? application.http.url",
        io::ErrorKind::PermissionDenied => "the socket, or a directory above it, does not let this server's user in",
        io::ErrorKind::TimedOut => "it took no connection in time: is it overloaded, or behind a firewall?",
        _ => match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files: ulimit -n",
            _ => "application.http.url",
        },
    }
}
