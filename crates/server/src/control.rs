//! The operator's socket: HTTP/1.1 and JSON on a Unix socket that only the server's user and group may open.

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use crate::config::Control;
use crate::server::Handle;
use crate::unix_socket::{self, Place, SocketFile, UnixSocketError};

/// A client that sends no request in this time is let go.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Clients served at the same time; more wait to be accepted.
const MAX_CLIENTS: usize = 64;

/// Clients that may wait for that.
const BACKLOG: i32 = 128;

/// The bound socket; its name is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: StdListener,
    _file: SocketFile,
}

impl ControlSocket {
    /// Binds the socket, in place of one that an ended server left.
    pub(crate) fn bind(control: &Control) -> Result<Self, UnixSocketError> {
        let (mode, group) = (control.mode, control.group);
        let place = Place { setting: "control.socket", path: &control.socket, mode, group, backlog: BACKLOG };
        let (listener, file) = unix_socket::bind(&place)?;
        Ok(Self { listener, _file: file })
    }

    /// Answers clients for ever. Must be called inside a local runtime.
    pub(crate) async fn serve(&self, handle: Handle) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        let places = Rc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let place = Rc::clone(&places);
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let handle = handle.clone();
            tokio::task::spawn_local(async move {
                let Ok(_place) = place.acquire().await else { return };
                let service = hyper::service::service_fn(|request| answer(&handle, request));
                let served = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(REQUEST_TIME)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                if let Err(error) = served {
                    tracing::debug!(%error, "control client");
                }
            });
        }
    }
}

async fn answer(handle: &Handle, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/status") => match serde_json::to_vec(&handle.status().await) {
            Ok(body) => json(StatusCode::OK, body),
            Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error.to_string()),
        },
        (_, "/v1/status") => {
            let mut response = failure(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "only GET");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            response
        }
        (_, path) => failure(StatusCode::NOT_FOUND, "not_found", &format!("no such endpoint: {path}")),
    })
}

fn failure(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    json(status, serde_json::json!({"error": {"code": code, "message": message}}).to_string().into_bytes())
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
