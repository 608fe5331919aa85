//! The two doors of the API: the Unix socket, and an address of its own by TCP.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::{self, Failures, Who};
use super::answer::{Answer, Body, Failure};
use super::routes;
use super::socket::ControlSocket;
use crate::config::{HttpDoor, Secret};
use crate::listener::ListenError;
use crate::server::Handle;

/// A client that begins no request, or ends its head not, in this time is let go.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Clients of one door served at the same time; more wait to be accepted.
const MAX_CLIENTS: usize = 128;

/// How long accepting rests when it fails.
const REST: Duration = Duration::from_millis(100);

impl ControlSocket {
    /// Answers clients for ever. Must be called inside a local runtime.
    pub(crate) async fn serve(&self, handle: Handle) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener()?)?;
        let group = handle.config().control.as_ref().and_then(|control| control.group);
        let places = std::sync::Arc::new(Semaphore::new(MAX_CLIENTS));
        while let Ok(place) = std::sync::Arc::clone(&places).acquire_owned().await {
            let (stream, _) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    rest_after(&error).await;
                    continue;
                }
            };
            // Without credentials it is nobody.
            let peer = stream.peer_cred();
            let who = peer.as_ref().map_or(Who::Stranger, |peer| access::of_peer(peer, group));
            if let Ok(peer) = &peer {
                tracing::debug!(uid = peer.uid(), gid = peer.gid(), pid = peer.pid(), ?who, "control client");
            }
            let handle = handle.clone();
            serve_client(stream, place, move |request| answer_on_socket(handle.clone(), who, request));
        }
        Ok(())
    }
}

async fn answer_on_socket(handle: Handle, peer: Who, request: Request<Incoming>) -> Answer {
    let who = if routes::is_open(request.method(), request.uri().path()) {
        Ok(peer)
    } else {
        access::on_socket(&request, peer, handle.capabilities())
    };
    match who {
        Ok(who) => routes::answer(&handle, who, request).await,
        Err(failure) => refuse(failure),
    }
}

/// The bound address of the API by TCP.
#[derive(Debug)]
pub(crate) struct HttpListener {
    listener: StdTcpListener,
    address: SocketAddr,
    token: Secret,
}

impl HttpListener {
    pub(crate) fn bind(door: &HttpDoor) -> Result<Self, ListenError> {
        let address = door.address;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::DoorInUse { address },
            _ => ListenError::System { address: address.into(), source },
        };
        let listener = StdTcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, token: door.token.clone() })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers clients for ever. Must be called inside a local runtime.
    pub(crate) async fn serve(self, handle: Handle) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let door = Rc::new(Door { handle, token: self.token, failures: RefCell::default() });
        let places = std::sync::Arc::new(Semaphore::new(MAX_CLIENTS));
        while let Ok(place) = std::sync::Arc::clone(&places).acquire_owned().await {
            let (stream, remote) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    rest_after(&error).await;
                    continue;
                }
            };
            // An answer is small and leaves at once; a socket that is gone says so when it is written to.
            let _ = stream.set_nodelay(true);
            let door = Rc::clone(&door);
            serve_client(stream, place, move |request| Rc::clone(&door).answer(remote.ip(), request));
        }
        Ok(())
    }
}

struct Door {
    handle: Handle,
    token: Secret,
    failures: RefCell<Failures>,
}

impl Door {
    async fn answer(self: Rc<Self>, remote: IpAddr, request: Request<Incoming>) -> Answer {
        let who = if routes::is_open(request.method(), request.uri().path()) {
            Ok(Who::Stranger)
        } else {
            let mut failures = self.failures.borrow_mut();
            access::by_tcp(&request, remote, &self.token, &mut failures, Instant::now())
        };
        match who {
            Ok(who) => routes::answer(&self.handle, who, request).await,
            Err(failure) => {
                tracing::info!(%remote, code = failure.code, "operator's API: refused");
                refuse(failure)
            }
        }
    }
}

fn refuse(failure: Failure) -> Answer {
    access::complete(failure.into_answer())
}

/// Answers one client's requests, one after another, in a task of its own.
fn serve_client<S, F>(stream: S, place: OwnedSemaphorePermit, answer: impl Fn(Request<Incoming>) -> F + 'static)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    F: Future<Output = Response<Body>> + 'static,
{
    tokio::task::spawn_local(async move {
        let service = hyper::service::service_fn(move |request| {
            // Boxed, because it is large, and is moved on from here to where it waits.
            let answered = Box::pin(answer(request));
            async move { Ok::<_, Infallible>(answered.await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIME)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "control client");
        }
        drop(place);
    });
}

async fn rest_after(error: &io::Error) {
    tracing::debug!(%error, "no control client can be accepted");
    tokio::time::sleep(REST).await;
}
