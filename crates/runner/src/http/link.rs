//! One connection to an HTTP server, with the protocol on it.
//!
//! No task drives it: whoever waits for something of it polls it meanwhile. So a connection lives inside the call that uses it, dropping that call
//! closes it, and an idle one costs a socket and its buffers and is asked about its health when it is taken.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use super::stream::{Meter, Stream};
use super::url::Server;

/// About the longest head of an answer, and the most that is read at once.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

type Body = Full<Bytes>;

/// A connection that carries one request at a time.
pub(super) struct Link {
    sender: SendRequest<Body>,
    /// `None` has ended.
    connection: Option<Connection<TokioIo<Stream>, Body>>,
    meter: Rc<Meter>,
}

impl Link {
    pub(super) async fn connect(server: &Server) -> io::Result<Self> {
        let stream = Stream::connect(server).await?;
        let meter = stream.meter();
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_BUFFER_BYTES);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        Ok(Self { sender, connection: Some(connection), meter })
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn ask(&mut self, request: Request<Body>) -> Result<Response<Incoming>, NoAnswer> {
        self.meter.begin();
        let head = self.sender.send_request(request);
        let answer = self.drive(head).await.map_err(|error| NoAnswer {
            error,
            was_sent: self.meter.has_written(),
            was_answered: self.meter.has_read(),
        })?;
        self.meter.head_came();
        Ok(answer)
    }

    /// The next bytes of an answer's body; `None` at its end.
    pub(super) async fn next_bytes(&mut self, body: &mut Incoming) -> Option<hyper::Result<Bytes>> {
        loop {
            // One read may hold thousands of chunks, and the thread has other connections.
            tokio::task::consume_budget().await;
            match self.drive(body.frame()).await? {
                Ok(frame) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Some(Ok(bytes));
                    }
                    // Trailers say nothing to a browser.
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Whether another request may be sent, as far as is known here: the answer is whole, the request was taken, and both want to go on.
    pub(super) fn is_free(&mut self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Whether the server still keeps an idle connection, by the word of the kernel.
    pub(super) fn is_healthy(&mut self) -> bool {
        self.meter.set_probing(true);
        let free = self.is_free();
        self.meter.set_probing(false);
        free
    }

    async fn drive<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            self.poll(cx);
            future.as_mut().poll(cx)
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && let Poll::Ready(ended) = Pin::new(connection).poll(cx)
        {
            // Whoever waits for an answer is told by the answer.
            if let Err(error) = ended {
                tracing::debug!(%error, "connection to the HTTP server ended");
            }
            self.connection = None;
        }
    }
}

/// Why there is no answer.
pub(super) struct NoAnswer {
    pub(super) error: hyper::Error,
    was_sent: bool,
    was_answered: bool,
}

impl NoAnswer {
    /// Whether the server can have begun to work on the request.
    pub(super) const fn was_sent(&self) -> bool {
        self.was_sent
    }

    /// Whether it sent anything back.
    pub(super) const fn was_answered(&self) -> bool {
        self.was_answered
    }
}
