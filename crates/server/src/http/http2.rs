//! 3 · upgrade over HTTP/2 (RFC 8441): a connection on which requests come, each of which is settled as one of HTTP/1.1 is.
//!
//! Laws of this file:
//! - One task drives the connection, and each request has one until it is settled; then it is its WebSocket's. None of them makes another wait.
//! - A connection that nobody uses is an unfinished handshake again: counted among them, and let go after `limits.handshake_timeout`.
//! - A peer that floods us is told `ENHANCE_YOUR_CALM` and goes. Whatever is told, the socket is closed soon after.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use ::http::{HeaderValue, Request, Response, StatusCode};
use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use wootz_protocol::handshake::http2::{self as handshake, Pseudo};
use wootz_protocol::handshake::{HeadLimits, Header};

use super::{Answer, NoUpgrade, Settled, Way, find_browser, note_refusal, serve_elsewhere, settle, unavailable};
use crate::connection::Stream;
use crate::http2::{self, Due, Held, Http2Connection, Http2Stream, Link, Wire};
use crate::metrics::RefusedBy;
use crate::shard::Shard;
use crate::tls::TlsStream;

/// What the connection's task has to look after.
enum Event {
    Request(Box<Request<RecvStream>>, SendResponse<Bytes>),
    /// The peer costs more than it may.
    Flood,
    /// The connection is over, or has to be.
    Due(Due),
    ServerEnds,
    /// The server ends, and every stream has.
    Finished,
    /// It is closed, in good order or with this reason.
    Closed(Option<h2::Error>),
}

/// Serves a connection whose peer asked for HTTP/2, until it is closed. `first` came of it since it `began`.
pub(super) async fn serve(shard: Rc<Shard>, tls: TlsStream, way: Way, first: Vec<u8>, began: Instant) {
    let link = Link::new(began);
    let wire = Wire::new(tls, Rc::clone(&shard), Rc::clone(&link), first);
    let timeout = shard.config.limits.handshake_timeout;
    let greeted = tokio::select! {
        biased;
        greeted = http2::shake_hands(wire, shard.config.limits.max_head_bytes) => greeted,
        due = link.due(&shard.handshakes, timeout) => return note_end(&shard, way, &Event::Due(due), true),
        () = shard.until_ending() => return,
    };
    let mut served = match greeted {
        Ok(connection) => Served { shard, way, link, connection, requests: 0, told_to_go: false },
        Err(error) => {
            let is_refusal = !error.is_io();
            return note_end(&shard, way, &Event::Closed(Some(error)), is_refusal);
        }
    };
    served.run().await;
}

/// A connection whose settings are known to both.
struct Served {
    shard: Rc<Shard>,
    way: Way,
    link: Rc<Link>,
    connection: Http2Connection,
    requests: u64,
    told_to_go: bool,
}

impl Served {
    async fn run(&mut self) {
        loop {
            match self.next().await {
                Event::Request(request, respond) => self.begin(*request, respond),
                // Each WebSocket is closed by its own driver, and a request gets 503. GOAWAY comes last: some clients (Python's h2) hear nothing after it.
                Event::ServerEnds => self.link.leave(Instant::now()),
                Event::Finished => self.go_away(Reason::NO_ERROR),
                event @ Event::Due(Due::Unused) => {
                    note_end(&self.shard, self.way, &event, self.requests == 0);
                    self.go_away(Reason::NO_ERROR);
                }
                event @ Event::Flood => {
                    note_end(&self.shard, self.way, &event, true);
                    self.go_away(Reason::ENHANCE_YOUR_CALM);
                }
                event @ (Event::Due(Due::Evicted | Due::Left) | Event::Closed(_)) => {
                    return note_end(&self.shard, self.way, &event, false);
                }
            }
        }
    }

    /// Says so, with the last request that was heard: the peer may repeat later ones elsewhere. What is still open is reset.
    fn go_away(&mut self, reason: Reason) {
        self.link.leave(Instant::now());
        self.told_to_go = true;
        self.connection.abrupt_shutdown(reason);
    }

    async fn next(&mut self) -> Event {
        let Self { shard, link, connection, told_to_go, .. } = self;
        let (is_leaving, told_to_go) = (link.is_leaving(), *told_to_go);
        let work = poll_fn(|context| {
            match connection.poll_accept(context) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    return Poll::Ready(Event::Request(Box::new(request), respond));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Event::Closed(Some(error))),
                Poll::Ready(None) => return Poll::Ready(Event::Closed(None)),
                Poll::Pending => {}
            }
            if !link.is_closing() && !told_to_go {
                if link.is_flooded() {
                    return Poll::Ready(Event::Flood);
                }
                if is_leaving && !link.is_held() && !connection.has_streams() {
                    return Poll::Ready(Event::Finished);
                }
            }
            // However many requests came in this turn, it was one.
            link.end_turn();
            Poll::Pending
        });
        tokio::select! {
            biased;
            () = shard.until_ending(), if !is_leaving => Event::ServerEnds,
            due = link.due(&shard.handshakes, shard.config.limits.handshake_timeout) => Event::Due(due),
            event = work => event,
        }
    }

    fn begin(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.requests += 1;
        let (shard, way, held) = (Rc::clone(&self.shard), self.way, self.link.hold());
        self.shard.spawn(serve_request(shard, way, held, request, respond));
    }
}

/// Counts and tells what a connection ended with that made no trouble of its own for a request.
fn note_end(shard: &Shard, way: Way, event: &Event, is_refusal: bool) {
    if is_refusal {
        shard.counters.refused();
    }
    let remote = way.sender.address;
    match event {
        Event::Flood => tracing::info!(%remote, reason = "a flood of frames or requests", "HTTP/2 connection closed"),
        Event::Due(Due::Evicted) => shard.counters.refused_by(RefusedBy::MaxHandshakes),
        Event::Due(Due::Unused) if is_refusal => {
            tracing::info!(%remote, reason = "no request within limits.handshake_timeout", "HTTP/2 connection closed");
        }
        Event::Closed(Some(error)) if !error.is_io() => {
            tracing::info!(%remote, reason = %error, "HTTP/2 connection closed");
        }
        Event::Closed(_) | Event::Due(_) | Event::ServerEnds | Event::Finished | Event::Request(..) => {
            tracing::debug!(%remote, "HTTP/2 connection closed");
        }
    }
}

async fn serve_request(
    shard: Rc<Shard>,
    mut way: Way,
    held: Held,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (head, body) = request.into_parts();
    let settled = tokio::select! {
        biased;
        settled = settle_request(&shard, &head, &mut way, &mut respond) => settled,
        () = shard.until_ending() => Err(unavailable("the server shuts down")),
    };
    let refused = match settled {
        Ok(settled) => match accept(&settled, &mut respond) {
            Ok(send) => {
                let stream = Stream::Http2(Box::new(Http2Stream::new(body, send, held)));
                return shard.open(settled.into_opened(stream, Bytes::new(), Vec::new()));
            }
            // It was reset in this moment.
            Err(_) => NoUpgrade::Gone,
        },
        Err(refused) => refused,
    };
    held.link().fruitless();
    match refused {
        NoUpgrade::Answered { answer, reason } => {
            note_refusal(&shard, way.sender, answer.status, &reason);
            send(&answer, &head, &mut respond);
        }
        NoUpgrade::Gone
        | NoUpgrade::SpeaksTls
        | NoUpgrade::NoProxy { .. }
        | NoUpgrade::NoTls(_)
        | NoUpgrade::Evicted => {}
    }
}

async fn settle_request(
    shard: &Rc<Shard>,
    head: &::http::request::Parts,
    way: &mut Way,
    respond: &mut SendResponse<Bytes>,
) -> Result<Settled, NoUpgrade> {
    let uri = &head.uri;
    let pseudo = Pseudo {
        method: head.method.as_str(),
        scheme: uri.scheme_str(),
        authority: uri.authority().map(::http::uri::Authority::as_str),
        path: uri.path_and_query().map(::http::uri::PathAndQuery::as_str),
        protocol: head.extensions.get::<Protocol>().map(Protocol::as_str),
    };
    let fields = || head.headers.iter().map(|(name, value)| Header { name: name.as_str(), value: value.as_bytes() });
    let cookies = handshake::join_cookies(fields());
    let request = handshake::request(&pseudo, fields(), &cookies, &HeadLimits::default())?;
    find_browser(shard, &request, &mut way.sender);
    serve_elsewhere(shard, &request)?;
    let offered = handshake::accept(&request, &pseudo)?;
    // Its answer is not begun, so whatever ends it was the peer's doing.
    let gone = poll_fn(|context| respond.poll_reset(context).map(drop));
    settle(shard, &request, &offered, *way, gone).await
}

/// RFC 8441, section 5: a status of 2xx accepts it, and the fields that answer a key are not used.
fn accept(settled: &Settled, respond: &mut SendResponse<Bytes>) -> Result<SendStream<Bytes>, h2::Error> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::OK;
    if let Some(chosen) = settled.subprotocol.as_deref().and_then(|chosen| HeaderValue::from_str(chosen).ok()) {
        response.headers_mut().insert(::http::header::SEC_WEBSOCKET_PROTOCOL, chosen);
    }
    respond.send_response(response, false)
}

/// Sends an answer; where the peer has gone it gets none.
fn send(answer: &Answer, head: &::http::request::Parts, respond: &mut SendResponse<Bytes>) {
    let (response, body) = answer.http2();
    let has_body = head.method != ::http::Method::HEAD && !body.is_empty();
    if let Ok(mut stream) = respond.send_response(response, !has_body)
        && has_body
    {
        let _ = stream.send_data(body, true);
    }
}
