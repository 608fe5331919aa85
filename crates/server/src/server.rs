//! A server from its start to its end: binds everything, starts one thread per shard and one for the operator's doors.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc;
use wootz_runner::{CapabilityKey, DynApplication};
use wootz_session::jwt::{KeyError, Verifier};

use crate::admission::Admission;
use crate::circuit::Circuit;
use crate::config::{Address, Config, Provider};
use crate::control::{ControlSocket, HttpListener};
use crate::dispatch::{TurnLimits, Turns};
use crate::listener::{self, ListenError};
use crate::metrics::{self, Counters, RunnerStatus, Status};
use crate::push::{Directory, FifoError, GlobalPipe, Pusher};
use crate::shard::{INBOX, Parts, PreparedShard, Shard, ShardCommand};
use crate::tls::{self, LoadedCertificates, NoCertificates};
use crate::unix_socket::{SocketFile, UnixSocketError};

type MakeApplication = Arc<dyn Fn() -> io::Result<Rc<dyn DynApplication>> + Send + Sync>;

/// A server that is configured and not started.
pub struct Server {
    config: Config,
    make_application: MakeApplication,
    runner_status: Box<dyn Fn() -> RunnerStatus + Send + Sync>,
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    http_address: Option<SocketAddr>,
    handle: Handle,
    threads: Vec<JoinHandle<Result<(), RunError>>>,
}

/// Tells a running server what to do, from any thread.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    began: Instant,
    addresses: Vec<Address>,
    config: Arc<Config>,
    shards: Arc<[mpsc::Sender<ShardCommand>]>,
    pusher: Pusher,
    capabilities: Option<CapabilityKey>,
    counters: Vec<Arc<Counters>>,
    turns: Arc<Turns>,
    circuit: Arc<Circuit>,
    certificates: Option<LoadedCertificates>,
    runner_status: Box<dyn Fn() -> RunnerStatus + Send + Sync>,
    ending: std::sync::atomic::AtomicBool,
    orders: mpsc::UnboundedSender<Order>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// What ends a server. Sent by signal handlers, so it must never wait; a few of them at most are ever sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Drain,
    Stop,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The pipes.
    #[error(transparent)]
    Pipes(#[from] FifoError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] UnixSocketError),
    /// A thread or its runtime.
    #[error("starting a thread: {0}")]
    Thread(#[source] io::Error),
    /// The certificates, or what TLS needs besides.
    #[error("TLS: {0}")]
    Tls(String),
    /// The keys of `identity.jwt`.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Keys(Vec<KeyError>),
    /// The application, or the store of its sessions.
    #[error("the application can't be run: {0}")]
    Application(#[source] io::Error),
}

impl From<NoCertificates> for StartError {
    fn from(error: NoCertificates) -> Self {
        Self::Tls(error.to_string())
    }
}

/// Why a server that ran ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A thread failed.
    #[error("a thread failed: {0}")]
    Thread(#[from] io::Error),
    /// A thread panicked: a fault of this program.
    #[error("a thread panicked; the log says where")]
    Panicked,
}

impl Server {
    /// A server whose shards each run an application of their own, made on the shard's thread by `application`.
    ///
    /// ```no_run
    /// use wootz_server::{Application, Call, CallError, Config, Replies, Server};
    ///
    /// struct Echo;
    ///
    /// impl Application for Echo {
    ///     async fn call(&self, call: Call, replies: &mut Replies) -> Result<(), CallError> {
    ///         Ok(replies.send(call.message).await?)
    ///     }
    /// }
    ///
    /// let server = Server::new(Config::default(), || Ok(Echo)).start()?;
    /// server.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new<A: DynApplication + 'static>(
        config: Config,
        application: impl Fn() -> io::Result<A> + Send + Sync + 'static,
    ) -> Self {
        Self {
            config,
            make_application: Arc::new(move || Ok(Rc::new(application()?) as Rc<dyn DynApplication>)),
            runner_status: Box::new(|| RunnerStatus { runner: "embedded".to_owned(), ..RunnerStatus::default() }),
        }
    }

    /// Lets a status tell more about what runs the calls. `status` is called for each status, on the operator's thread.
    #[must_use]
    pub fn runner_status(mut self, status: impl Fn() -> RunnerStatus + Send + Sync + 'static) -> Self {
        self.runner_status = Box::new(status);
        self
    }

    /// Binds the addresses, the control socket and the pipes, and starts the threads. Returns when browsers can connect.
    ///
    /// # Errors
    /// Whatever can't be had; nothing is left behind then.
    pub fn start(self) -> Result<Running, StartError> {
        let config = Arc::new(self.config);
        let certificates =
            config.tls.as_ref().map(|tls| LoadedCertificates::load(&tls.certificates, tls.http2)).transpose()?;
        let bound = listener::bind(&config.listen, certificates.as_ref().map(LoadedCertificates::acceptor))?;
        let control = config.control.as_ref().map(ControlSocket::bind).transpose()?;
        let http = config.control.as_ref().and_then(|control| control.http.as_ref()).map(HttpListener::bind);
        let http = http.transpose()?;
        let http_address = http.as_ref().map(HttpListener::address);
        let capabilities = control.as_ref().map(|_| new_key()).transpose().map_err(StartError::Thread)?;
        let directory = config.pipes.clone().map(Directory::open).transpose()?;
        let turns = Turns::new(TurnLimits {
            per_connection: config.calls.per_connection,
            per_user: config.calls.per_user,
            max_running: config.calls.max_running,
            max_waiting: config.calls.max_waiting,
            max_waiting_bytes: config.calls.max_waiting_bytes,
            max_wait: config.calls.max_wait,
        });
        let circuit = Arc::<Circuit>::default();
        let admission = Admission::new(&config.limits);
        let verifier = match &config.identity.provider {
            Provider::Jwt(settings) => Some(Arc::new(Verifier::load(settings.clone()).map_err(StartError::Keys)?)),
            Provider::None | Provider::Application | Provider::Session(_) => None,
        };
        let (senders, inboxes): (Vec<_>, Vec<_>) = bound.shards.iter().map(|_| mpsc::channel(INBOX)).unzip();
        let shards: Arc<[_]> = senders.into();
        let pusher = Pusher::new(Arc::clone(&shards));
        let parts: Vec<Parts> = (bound.shards.into_iter().zip(inboxes))
            .map(|(listeners, inbox)| Parts {
                config: Arc::clone(&config),
                turns: Arc::clone(&turns),
                circuit: Arc::clone(&circuit),
                admission: Arc::clone(&admission),
                counters: Arc::default(),
                directory: directory.clone(),
                verifier: verifier.clone(),
                pusher: pusher.clone(),
                capabilities: capabilities.clone(),
                listeners,
                inbox,
            })
            .collect();
        let (orders, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            began: Instant::now(),
            addresses: bound.addresses,
            config: Arc::clone(&config),
            shards,
            pusher,
            capabilities,
            counters: parts.iter().map(|parts| Arc::clone(&parts.counters)).collect(),
            turns,
            circuit,
            certificates,
            runner_status: self.runner_status,
            ending: false.into(),
            orders,
        });
        let handle = Handle { shared };
        let doors =
            Doors { handle: handle.clone(), orders: receiver, control, http, directory, _listening: bound.files };
        let threads = start_threads(parts, doors, &self.make_application)?;
        Ok(Running { http_address, handle, threads })
    }
}

impl Running {
    /// Where browsers connect: the bound addresses, with real ports, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.handle.shared.addresses
    }

    /// Where the operator's API is served by TCP, with the real port.
    #[must_use]
    pub const fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// To tell the server what to do, from any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until the server has ended: somebody called [`Handle::drain`] or [`Handle::stop`], or a thread failed.
    ///
    /// # Errors
    /// A thread failed. The others have been stopped then.
    pub fn wait(self) -> Result<(), RunError> {
        let mut result = Ok(());
        for thread in self.threads {
            let ended = thread.join().unwrap_or(Err(RunError::Panicked));
            if ended.is_err() {
                self.handle.stop();
                result = result.and(ended);
            }
        }
        result
    }
}

impl Handle {
    /// Ends the server gently: nobody new is accepted, running calls may end within `limits.drain_timeout`, every connection is
    /// closed with 1001, pipes and control socket are removed. Returns at once.
    pub fn drain(&self) {
        self.order(Order::Drain);
    }

    /// Ends the server now: running calls are ended. Returns at once.
    pub fn stop(&self) {
        self.order(Order::Stop);
    }

    /// Reads the certificates' files again, also where they look as before; the log says what came of it. A broken replacement changes nothing.
    /// Gives whether there are any.
    pub fn reload_certificates(&self) -> bool {
        self.shared.certificates.as_ref().inspect(|certificates| certificates.reload()).is_some()
    }

    fn order(&self, order: Order) {
        self.shared.ending.store(true, std::sync::atomic::Ordering::Relaxed);
        // Nobody listens when the server has ended.
        let _ = self.shared.orders.send(order);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.shared.ending.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn pusher(&self) -> &Pusher {
        &self.shared.pusher
    }

    pub(crate) fn capabilities(&self) -> Option<&CapabilityKey> {
        self.shared.capabilities.as_ref()
    }

    /// What the server does now.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn status(&self) -> Status {
        let shared = &self.shared;
        let (connections, mut calls, pushes) = metrics::sum(shared.counters.iter().map(|counters| &**counters));
        let turns = shared.turns.counts();
        (calls.running, calls.waiting) = (turns.running, turns.waiting);
        Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_seconds: shared.began.elapsed().as_secs(),
            state: if self.is_ending() { "draining" } else { "running" },
            listen: shared.addresses.iter().map(Address::to_string).collect(),
            shards: shared.shards.len(),
            certificates: shared.certificates.as_ref().map(LoadedCertificates::status).unwrap_or_default(),
            connections,
            users: self.count_users().await,
            channels: shared.pusher.names.count(),
            calls,
            runner: self.runner_status(),
            pushes,
            memory_bytes: metrics::resident_bytes(),
        }
    }

    fn runner_status(&self) -> RunnerStatus {
        let mut status = (self.shared.runner_status)();
        status.left_alone = self.shared.circuit.reason().or(status.left_alone);
        status
    }

    /// A user may have connections on several shards, so names are counted, not numbers.
    async fn count_users(&self) -> usize {
        let of_shard = |shard: &Rc<Shard>| -> Vec<Arc<str>> {
            shard.hub.borrow().users().map(|(user, _)| Arc::clone(user)).collect()
        };
        let users: std::collections::HashSet<Arc<str>> =
            self.shared.pusher.ask(of_shard).await.into_iter().flatten().collect();
        users.len()
    }
}

/// What the thread beside the shards serves.
struct Doors {
    handle: Handle,
    orders: mpsc::UnboundedReceiver<Order>,
    control: Option<ControlSocket>,
    http: Option<HttpListener>,
    directory: Option<Directory>,
    /// Names of Unix sockets, which go with the last shard.
    _listening: Vec<SocketFile>,
}

type Started = std::sync::mpsc::Sender<Result<(), StartError>>;

/// Starts the shards and the doors, and waits until each says that it can work.
fn start_threads(
    parts: Vec<Parts>,
    doors: Doors,
    make_application: &MakeApplication,
) -> Result<Vec<JoinHandle<Result<(), RunError>>>, StartError> {
    let (started, outcomes) = std::sync::mpsc::channel();
    let mut threads = Vec::new();
    let handle = doors.handle.clone();
    for (number, parts) in parts.into_iter().enumerate() {
        let (started, make_application) = (started.clone(), Arc::clone(make_application));
        let thread = std::thread::Builder::new().name(format!("wootz-shard-{number}"));
        threads.push(thread.spawn(move || run_shard(parts, &make_application, &started)).map_err(StartError::Thread)?);
    }
    let thread = std::thread::Builder::new().name("wootz-doors".to_owned());
    threads.push(thread.spawn(move || run_doors(doors, &started)).map_err(StartError::Thread)?);
    for _ in 0..threads.len() {
        // A thread that panicked before it said anything closes the channel only with all others; its panic is in the log.
        if let Err(error) = outcomes.recv().unwrap_or(Ok(())) {
            handle.stop();
            for thread in threads {
                let _ = thread.join();
            }
            return Err(error);
        }
    }
    Ok(threads)
}

/// A key for the tokens of calls, good for this run of the server only.
fn new_key() -> io::Result<CapabilityKey> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(format!("no random bytes: {error}")))?;
    Ok(CapabilityKey::new(random))
}

fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

fn run_shard(parts: Parts, make_application: &MakeApplication, started: &Started) -> Result<(), RunError> {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(started, StartError::Thread(error)),
    };
    runtime.block_on(async {
        let shard = make_application().and_then(|application| PreparedShard::new(parts, application));
        match shard {
            Ok(shard) => {
                let _ = started.send(Ok(()));
                shard.run().await;
                Ok(())
            }
            Err(error) => fail(started, StartError::Application(error)),
        }
    })
}

fn run_doors(doors: Doors, started: &Started) -> Result<(), RunError> {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(started, StartError::Thread(error)),
    };
    runtime.block_on(doors.serve(started))
}

/// Whoever starts the server is told; the thread itself has nothing more to say.
fn fail(started: &Started, error: StartError) -> Result<(), RunError> {
    let _ = started.send(Err(error));
    Ok(())
}

/// A shard that ends before the server is to end has failed: a server with half of its shards would look alive and not be.
async fn stop_after(shard: mpsc::Sender<ShardCommand>, handle: Handle) {
    shard.closed().await;
    if !handle.is_ending() {
        tracing::error!("a shard has failed: the server ends");
        handle.stop();
    }
}

impl Doors {
    async fn serve(mut self, started: &Started) -> Result<(), RunError> {
        let global = self.directory.as_ref().filter(|directory| directory.settings().global).map(GlobalPipe::open);
        let global = match global.transpose() {
            Ok(global) => global,
            Err(error) => {
                let failed = fail(started, error.into());
                self.pass_on_orders().await;
                return failed;
            }
        };
        let _ = started.send(Ok(()));
        let pusher = self.handle.shared.pusher.clone();
        let pipe = global.map(|global| tokio::task::spawn_local(global.run(pusher)));
        let control = self.control.take().map(|control| {
            let handle = self.handle.clone();
            tokio::task::spawn_local(async move { control.serve(handle).await })
        });
        let http = self.http.take().map(|http| {
            let handle = self.handle.clone();
            tokio::task::spawn_local(async move { http.serve(handle).await })
        });
        let certificates =
            self.handle.shared.certificates.clone().map(|loaded| tokio::task::spawn_local(tls::watch(loaded)));
        for shard in self.handle.shared.shards.iter().cloned() {
            tokio::task::spawn_local(stop_after(shard, self.handle.clone()));
        }
        self.pass_on_orders().await;
        // Aborting drops the pipe and the socket, and with them their names.
        let tasks = [
            pipe.map(|task| task.abort_handle()),
            control.map(|task| task.abort_handle()),
            http.map(|task| task.abort_handle()),
            certificates.map(|task| task.abort_handle()),
        ];
        tasks.into_iter().flatten().for_each(|task| task.abort());
        Ok(())
    }

    /// Passes orders on to the shards, until they have all ended.
    async fn pass_on_orders(&mut self) {
        loop {
            let ended = async {
                for shard in &*self.handle.shared.shards {
                    shard.closed().await;
                }
            };
            let order = tokio::select! {
                order = self.orders.recv() => order,
                () = ended => return,
            };
            for shard in &*self.handle.shared.shards {
                let command = match order {
                    Some(Order::Drain) => ShardCommand::Drain,
                    Some(Order::Stop) | None => ShardCommand::Stop,
                };
                // A shard that has ended needs no order.
                let _ = shard.send(command).await;
            }
        }
    }
}
