//! One thread: its listener, its connections, its part of the hub. Nothing here is shared but what says so.
//!
//! A connection lives and dies on the shard that accepted it. Other threads reach a shard through its bounded inbox only.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use wootz_hub::Hub;
use wootz_protocol::CloseCode;
use wootz_runner::{CallEvent, Caller, CapabilityKey, DynApplication};
use wootz_session::jwt::Verifier;

use crate::admission::{Admission, Handshakes};
use crate::circuit::Circuit;
use crate::config::{Config, Provider};
use crate::connection::{Connection, Ending, Mailbox, Opened};
use crate::console::Note;
use crate::dispatch::{Busy, Party, Share, Turn, Turns, Waits};
use crate::events::{Happening, Kind};
use crate::identity::{Sessions, run_rechecks};
use crate::listener::{Listener, ReadBuffer, Unwatched};
use crate::metrics::Counters;
use crate::push::{Deliveries, Directory, GLOBAL_NAME, Pusher, execute};
use crate::timers::Timers;
use crate::{http, listener};

/// Commands that may wait for a shard; then whoever pushes has to wait.
pub(crate) const INBOX: usize = 64;

/// Connections that a shard accepts before those it has get their turn.
const ACCEPT_BATCH: usize = 32;

/// Pushed bytes after which the connections may write before the next push is queued: a burst of pushes must not look like a
/// crowd of slow readers.
const PUSH_BATCH_BYTES: usize = 32 * 1024;

/// Connections that are written to before others' messages have their turn.
const WRITE_BATCH: usize = 256;

/// Time for browsers to answer the last Close when calls had to be ended.
const CLOSE_GRACE: Duration = Duration::from_secs(3);

/// The same when somebody wants the end at once: enough to write it.
const STOP_GRACE: Duration = Duration::from_millis(200);

/// What is to be done on a shard's own thread.
pub(crate) type Errand = Box<dyn FnOnce(&Rc<Shard>) + Send>;

/// What other threads ask of a shard.
pub(crate) enum ShardCommand {
    /// Something was pushed.
    Deliver(Deliveries),
    /// Look at something, or change it, here: short, since everybody on this shard waits meanwhile.
    Run(Errand),
    /// Let running calls end, then close every connection, then end.
    Drain,
    /// End every call and connection now.
    Stop,
}

/// How far the end of the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining,
    Stopping,
}

/// What the connections of one thread share.
pub(crate) struct Shard {
    pub(crate) config: Arc<Config>,
    pub(crate) endpoint: wootz_protocol::Settings,
    pub(crate) application: Rc<dyn DynApplication>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) circuit: Arc<Circuit>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) handshakes: Handshakes,
    pub(crate) counters: Arc<Counters>,
    pub(crate) hub: RefCell<Hub<Mailbox>>,
    pub(crate) timers: Timers,
    pub(crate) read_buffer: RefCell<ReadBuffer>,
    pub(crate) directory: Option<Directory>,
    /// Where the provider is `session`.
    pub(crate) sessions: Option<Sessions>,
    /// Where the provider is `jwt`; one for all shards.
    pub(crate) verifier: Option<Arc<Verifier>>,
    /// To push from here to all shards.
    pub(crate) pusher: Pusher,
    /// Makes the tokens of calls. `None` where there is no control socket to show them to.
    pub(crate) capabilities: Option<CapabilityKey>,
    began: Instant,
    phase: Cell<Phase>,
    phase_changed: Notify,
    tasks: Cell<usize>,
    task_ended: Notify,
}

/// What a shard is made of; made on the thread that starts the server, taken to the shard's own.
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) circuit: Arc<Circuit>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) directory: Option<Directory>,
    pub(crate) verifier: Option<Arc<Verifier>>,
    pub(crate) pusher: Pusher,
    pub(crate) capabilities: Option<CapabilityKey>,
    pub(crate) listeners: Vec<Unwatched>,
    pub(crate) inbox: mpsc::Receiver<ShardCommand>,
}

impl Shard {
    fn new(parts: &mut Parts, application: Rc<dyn DynApplication>) -> io::Result<Self> {
        let limits = &parts.config.limits;
        let endpoint = wootz_protocol::Settings {
            limits: wootz_protocol::Limits {
                max_message_bytes: limits.max_message_bytes,
                max_frames: limits.max_frames,
            },
            keepalive: wootz_protocol::Keepalive {
                ping_interval: limits.ping_interval,
                pong_timeout: limits.pong_timeout,
                ..Default::default()
            },
        };
        let sessions = match &parts.config.identity.provider {
            Provider::Session(provider) => Some(Sessions::new(provider, parts.config.identity.guests)?),
            Provider::None | Provider::Application | Provider::Jwt(_) => None,
        };
        Ok(Self {
            endpoint,
            application,
            sessions,
            verifier: parts.verifier.take(),
            config: Arc::clone(&parts.config),
            turns: Arc::clone(&parts.turns),
            circuit: Arc::clone(&parts.circuit),
            admission: Arc::clone(&parts.admission),
            handshakes: Handshakes::new(limits.max_handshakes, parts.config.listen.shards),
            counters: Arc::clone(&parts.counters),
            directory: parts.directory.take(),
            pusher: parts.pusher.clone(),
            capabilities: parts.capabilities.clone(),
            hub: RefCell::default(),
            timers: Timers::new(Instant::now()),
            read_buffer: RefCell::default(),
            began: Instant::now(),
            phase: Cell::new(Phase::Serving),
            phase_changed: Notify::new(),
            tasks: Cell::new(0),
            task_ended: Notify::new(),
        })
    }

    /// Runs a task that the end of the server waits for.
    pub(crate) fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        self.tasks.set(self.tasks.get() + 1);
        let counted = Counted(Rc::clone(self));
        tokio::task::spawn_local(async move {
            task.await;
            drop(counted);
        });
    }

    /// Lets a connection live. Its future is the task: the handshake's is gone by then.
    pub(crate) fn open(self: &Rc<Self>, opened: Opened) {
        self.tasks.set(self.tasks.get() + 1);
        tokio::task::spawn_local(CountedConnection {
            connection: Connection::new(self, opened, Instant::now()),
            _counted: Counted(Rc::clone(self)),
        });
    }

    /// A turn for a call, if the application can be reached.
    ///
    /// # Errors
    /// See [`Turns::acquire`]; at once where the application is left alone.
    pub(crate) async fn acquire_turn(&self, caller: &Caller, event: CallEvent, waits: Waits) -> Result<Turn, Busy> {
        if !self.circuit.admits(Instant::now) {
            return Err(Busy::LeftAlone);
        }
        let party = caller.user.as_ref().map_or(Party::Guest(caller.id.0), |user| Party::User(Arc::clone(user)));
        self.turns.acquire(party, Share::of(event), waits).await
    }

    /// How old the shard is, in whole seconds: enough for ages, and small enough to be kept for each connection.
    pub(crate) fn seconds(&self) -> u32 {
        u32::try_from(self.began.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    /// Tells operators who listen what happened to a connection.
    pub(crate) fn tell(&self, caller: &Caller, kind: impl FnOnce() -> Kind) {
        self.pusher.events.emit(|| Happening::new(Some(caller.id), caller.user.clone(), kind()));
    }

    /// How a connection that opens now has to end, if the server is about to.
    pub(crate) fn ending(&self) -> Option<Ending> {
        match self.phase.get() {
            Phase::Serving => None,
            Phase::Draining => Some(Ending::AfterCalls(CloseCode::GoingAway, "server shuts down")),
            Phase::Stopping => Some(Ending::Now(CloseCode::GoingAway, "server shuts down")),
        }
    }

    /// What the console page is told when its connection opens.
    pub(crate) fn open_note<'a>(&self, caller: &'a Caller, request_pipe: Option<std::path::PathBuf>) -> Note<'a> {
        let pipes = self.config.pipes.as_ref().filter(|pipes| pipes.global);
        Note::Open {
            connection: caller.id.to_string(),
            user: caller.user.as_deref(),
            pipe: pipes.map(|pipes| pipes.directory.join(GLOBAL_NAME).display().to_string()),
            request_pipe: request_pipe.map(|path| path.display().to_string()),
        }
    }

    /// Waits until the server is about to end.
    pub(crate) async fn until_ending(&self) {
        loop {
            let changed = self.phase_changed.notified();
            if self.phase.get() != Phase::Serving {
                return;
            }
            changed.await;
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.phase_changed.notify_waiters();
        if let Some(ending) = self.ending() {
            self.hub.borrow().iter().for_each(|mailbox| mailbox.end(ending));
        }
    }

    async fn all_tasks_ended(&self) {
        while self.tasks.get() > 0 {
            self.task_ended.notified().await;
        }
    }
}

/// One task that the end of the server waits for.
struct Counted(Rc<Shard>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.tasks.set(self.0.tasks.get() - 1);
        self.0.task_ended.notify_one();
    }
}

struct CountedConnection {
    connection: Connection,
    _counted: Counted,
}

impl Future for CountedConnection {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        std::pin::Pin::new(&mut self.connection).poll(context)
    }
}

/// A shard that can begin to serve.
pub(crate) struct PreparedShard {
    shard: Rc<Shard>,
    listeners: Vec<Listener>,
    inbox: mpsc::Receiver<ShardCommand>,
}

impl PreparedShard {
    /// Makes all that a shard needs. Must be called inside the shard's own runtime.
    ///
    /// # Errors
    /// A listener can't be watched, or the settings of the sessions' store can't work.
    pub(crate) fn new(mut parts: Parts, application: Rc<dyn DynApplication>) -> io::Result<Self> {
        let shard = Rc::new(Shard::new(&mut parts, application)?);
        let listeners = parts.listeners.into_iter().map(Unwatched::watch).collect::<io::Result<_>>()?;
        Ok(Self { shard, listeners, inbox: parts.inbox })
    }

    /// Serves until it is told to end and its connections have ended.
    pub(crate) async fn run(mut self) {
        let shard = &self.shard;
        let timers = tokio::task::spawn_local(run_timers(Rc::clone(shard)));
        let rechecks = tokio::task::spawn_local(run_rechecks(Rc::clone(shard)));
        {
            let accepting = std::pin::pin!(accept(shard, self.listeners));
            let receiving = std::pin::pin!(serve_inbox(shard, &mut self.inbox));
            // Accepting never ends by itself; ending the select closes the listeners.
            tokio::select! {
                () = accepting => {}
                () = receiving => {}
            }
        }
        end(shard, &mut self.inbox).await;
        timers.abort();
        rechecks.abort();
    }
}

async fn accept(shard: &Rc<Shard>, listeners: Vec<Listener>) {
    let mut trouble = listener::AcceptTrouble::default();
    let mut turn = 0;
    loop {
        for _ in 0..ACCEPT_BATCH {
            match listener::accept(&listeners, &mut turn).await {
                Ok(accepted) => {
                    shard.counters.accepted();
                    shard.spawn(http::serve(Rc::clone(shard), accepted));
                }
                Err(error) => trouble.wait_after(&error).await,
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Obeys other threads until the server is to end.
async fn serve_inbox(shard: &Rc<Shard>, inbox: &mut mpsc::Receiver<ShardCommand>) {
    loop {
        let mut next = inbox.recv().await;
        let mut pushed_bytes = 0;
        // What has come together leaves together, in one system call per connection.
        loop {
            match next {
                Some(ShardCommand::Deliver(pushed)) => deliver(shard, pushed, &mut pushed_bytes).await,
                Some(ShardCommand::Run(errand)) => errand(shard),
                Some(ShardCommand::Drain) => return shard.enter(Phase::Draining),
                Some(ShardCommand::Stop) | None => return shard.enter(Phase::Stopping),
            }
            match inbox.try_recv() {
                Ok(command) => next = Some(command),
                Err(_) => break,
            }
        }
        write_pushed(shard).await;
    }
}

/// Executes all that was pushed at the same time. What it comes to is written out before it fills the outboxes of those who read well.
async fn deliver(shard: &Rc<Shard>, pushed: Deliveries, pushed_bytes: &mut usize) {
    for delivery in &*pushed.deliveries {
        if *pushed_bytes >= PUSH_BATCH_BYTES {
            write_pushed(shard).await;
            *pushed_bytes = 0;
        }
        *pushed_bytes += execute(shard, delivery);
    }
    pushed.taken();
}

/// Writes out what was pushed, some connections at a time: a push to a hundred thousand must not stop the others' messages.
async fn write_pushed(shard: &Shard) {
    loop {
        let some = shard.hub.borrow().take_unwritten(WRITE_BATCH);
        some.iter().for_each(|mailbox| mailbox.write_pushed());
        if !shard.hub.borrow().has_unwritten() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Waits for the connections to end, as long as they may take, then ends them.
async fn end(shard: &Rc<Shard>, inbox: &mut mpsc::Receiver<ShardCommand>) {
    let mut grace = STOP_GRACE;
    if shard.phase.get() == Phase::Draining {
        tokio::select! {
            () = shard.all_tasks_ended() => return,
            () = tokio::time::sleep(shard.config.limits.drain_timeout) => {
                tracing::warn!("calls still run after limits.drain_timeout: they are ended");
                grace = CLOSE_GRACE;
            }
            () = until_stop(shard, inbox) => {}
        }
        shard.enter(Phase::Stopping);
    }
    if tokio::time::timeout(grace, shard.all_tasks_ended()).await.is_err() {
        tracing::info!(connections = shard.hub.borrow().len(), "connections that answered no Close were dropped");
    }
}

async fn until_stop(shard: &Rc<Shard>, inbox: &mut mpsc::Receiver<ShardCommand>) {
    loop {
        match inbox.recv().await {
            Some(ShardCommand::Stop) | None => return,
            Some(ShardCommand::Run(errand)) => errand(shard),
            // The connections are closing; pushes come too late.
            Some(ShardCommand::Deliver(_) | ShardCommand::Drain) => {}
        }
    }
}

async fn run_timers(shard: Rc<Shard>) {
    loop {
        shard.timers.wait().await;
        for key in shard.timers.take_due(Instant::now()) {
            if let Some(mailbox) = shard.hub.borrow().at(key) {
                mailbox.fire_timer();
            }
        }
    }
}
