//! The operator's socket: HTTP/1.1 and JSON on a Unix socket that only the server's user and group may open.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use crate::config::Control;
use crate::server::Handle;

/// A client that sends no request in this time is let go.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Clients served at the same time; more wait to be accepted.
const MAX_CLIENTS: usize = 64;

/// Why the control socket can't be made. Each names the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another server answers there.
    #[error("control.socket {}: another wootz answers there; name another one with --socket", .0.display())]
    Served(PathBuf),
    /// Something that is no socket of ours is there.
    #[error("control.socket {}: there is something of that name that is not this user's socket, and it is not replaced", .0.display())]
    Foreign(PathBuf),
    /// The system refused.
    #[error("control.socket {}: {step}: {source}", path.display())]
    System {
        /// The path.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The bound socket; its name is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: StdListener,
    path: PathBuf,
    identity: (u64, u64),
}

impl ControlSocket {
    /// Binds the socket, in place of one that an ended server left.
    pub(crate) fn bind(control: &Control) -> Result<Self, ControlError> {
        let path = control.socket.clone();
        let failed = |step| {
            let path = path.clone();
            move |source: io::Error| ControlError::System { path, step, source }
        };
        remove_left_socket(&path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(failed("making it"))?;
        let address = SockAddr::unix(&path).map_err(failed("its path"))?;
        socket.bind(&address).map_err(failed("binding it"))?;
        // Nobody can connect before `listen`, so nobody gets in before the mode is set.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(control.mode))
            .map_err(failed("setting control.mode"))?;
        if control.group.is_some() {
            std::os::unix::fs::chown(&path, None, control.group).map_err(failed("giving it to control.group"))?;
        }
        socket.listen(128).map_err(failed("listening"))?;
        let seen = std::fs::symlink_metadata(&path).map_err(failed("looking at it"))?;
        Ok(Self { listener: socket.into(), identity: (seen.dev(), seen.ino()), path })
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

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let still_ours =
            std::fs::symlink_metadata(&self.path).is_ok_and(|seen| (seen.dev(), seen.ino()) == self.identity);
        if still_ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %error, "the control socket can't be removed");
        }
    }
}

fn remove_left_socket(path: &Path) -> Result<(), ControlError> {
    let Ok(seen) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !seen.file_type().is_socket() || seen.uid() != rustix::process::geteuid().as_raw() {
        return Err(ControlError::Foreign(path.to_owned()));
    }
    if StdStream::connect(path).is_ok() {
        return Err(ControlError::Served(path.to_owned()));
    }
    let removed = std::fs::remove_file(path);
    removed.map_err(|source| ControlError::System { path: path.to_owned(), step: "removing a left one", source })
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
