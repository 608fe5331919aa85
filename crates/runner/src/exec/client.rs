//! A shard's side of the talk with the spawner: asks for processes, hears how they ended, ends those that nobody waits for any more.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, send, sendmsg};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

use super::supervisor::Spawner;
use super::wire::{self, Answer, AnswerPacket, CallNumber, Ended};
use crate::error::StartStep;

/// Requests to start that may be under way at once. Bounds the descriptors in flight (the kernel refuses more than the limit of
/// open files); others wait for an answer to one of these, which takes the spawner less than a millisecond.
const STARTS_UNDER_WAY: usize = 32;

/// A shard's connection to the spawner. Dropped, all its calls are killed.
#[derive(Debug)]
pub struct SpawnerClient {
    shared: Arc<Shared>,
    listener: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    /// A SEQPACKET socket: a stream only to the runtime, which tells when it is ready.
    socket: UnixStream,
    starts: Semaphore,
    state: Mutex<State>,
    /// Rung when `State::unsent_ends` gets its first.
    ends_wait: Notify,
}

#[derive(Debug, Default)]
struct State {
    lost: bool,
    next_call: CallNumber,
    calls: HashMap<CallNumber, Slot>,
    unsent_ends: VecDeque<CallNumber>,
}

/// One call that the spawner was asked for and has not reported as ended.
#[derive(Debug)]
struct Slot {
    progress: Progress,
    /// Of whoever waits for the end.
    waker: Option<Waker>,
    /// Of whoever waits for the beginning.
    start_waker: Option<Waker>,
    /// Whether somebody still wants to know.
    wanted: bool,
}

#[derive(Debug, Clone, Copy)]
enum Progress {
    Asked,
    Running(Pid),
    Over(End),
}

/// How the run of a process came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It ran and ended.
    Exited(Ended),
    /// It never became the program.
    Failed(StartStep, i32),
    /// Nobody knows: the spawner died.
    SpawnerDied,
}

/// Why a process could not be asked for.
#[derive(Debug)]
pub(super) enum NotAsked {
    /// It died before it was asked, so that another may be asked. The client is lost.
    SpawnerDied,
    /// A system call failed.
    System { what: &'static str, source: io::Error },
}

impl SpawnerClient {
    /// Inside the runtime of the shard.
    pub(super) fn new(socket: OwnedFd, spawner: Weak<Spawner>, generation: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            socket: UnixStream::from_std(socket.into())?,
            starts: Semaphore::new(STARTS_UNDER_WAY),
            state: Mutex::default(),
            ends_wait: Notify::new(),
        });
        let listener = tokio::spawn(listen(Arc::clone(&shared), spawner, generation)).abort_handle();
        Ok(Self { shared, listener })
    }

    /// Whether the spawner at the other end has died.
    pub(super) fn is_lost(&self) -> bool {
        self.shared.lock().lost
    }

    /// Waits until a start may be asked for. Make the pipes after this, so that a waiting call holds no descriptors.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, NotAsked> {
        match self.shared.starts.acquire().await {
            Ok(permit) => Ok(Turn { shared: &self.shared, permit }),
            Err(_closed) => Err(NotAsked::SpawnerDied),
        }
    }
}

impl Drop for SpawnerClient {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// The right to ask for one start.
#[derive(Debug)]
pub(super) struct Turn<'c> {
    shared: &'c Arc<Shared>,
    permit: tokio::sync::SemaphorePermit<'c>,
}

impl Turn<'_> {
    /// Asks for a process. The request lacks only its number.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing was asked for.
    pub(super) async fn start(self, request: &mut [u8], stdio: [OwnedFd; 3]) -> Result<Process, NotAsked> {
        let Self { shared, permit } = self;
        let ask = || shared.ask(request, &stdio);
        match shared.socket.async_io(Interest::WRITABLE, ask).await {
            Ok(call) => {
                // The answer gives it back.
                permit.forget();
                Ok(Process { shared: Arc::clone(shared), call })
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => {
                shared.lose();
                Err(NotAsked::SpawnerDied)
            }
            Err(source) => Err(NotAsked::System { what: "request to the spawner", source }),
        }
    }
}

/// A process that was asked for. Dropped before its end, its group is ended.
#[derive(Debug)]
pub(crate) struct Process {
    shared: Arc<Shared>,
    call: CallNumber,
}

impl Process {
    /// Waits for the end of the process.
    pub(crate) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<End> {
        let mut state = self.shared.lock();
        let Some(slot) = state.calls.get_mut(&self.call) else { return Poll::Ready(End::SpawnerDied) };
        if let Progress::Over(end) = slot.progress {
            return Poll::Ready(end);
        }
        match &mut slot.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits until there is a process; `None` when it is over already.
    pub(crate) fn poll_started(&self, cx: &mut Context<'_>) -> Poll<Option<Pid>> {
        let mut state = self.shared.lock();
        let Some(slot) = state.calls.get_mut(&self.call) else { return Poll::Ready(None) };
        match slot.progress {
            Progress::Running(pid) => return Poll::Ready(Some(pid)),
            Progress::Over(_) => return Poll::Ready(None),
            Progress::Asked => {}
        }
        match &mut slot.start_waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Asks for its end: TERM for its group, KILL after the grace.
    pub(crate) fn end(&self) {
        self.shared.end(self.call);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.shared.release(self.call) == Released::StillRunning {
            self.end();
        }
    }
}

#[derive(PartialEq, Eq)]
enum Released {
    Over,
    StillRunning,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request to start, under the lock, so that its answer finds its slot.
    fn ask(&self, request: &mut [u8], stdio: &[OwnedFd; 3]) -> io::Result<CallNumber> {
        let mut state = self.lock();
        if state.lost {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
        let call = state.next_call;
        wire::set_call(request, call);
        send_start(&self.socket, request, stdio)?;
        state.next_call += 1;
        state.calls.insert(call, Slot { progress: Progress::Asked, waker: None, start_waker: None, wanted: true });
        Ok(call)
    }

    /// Nobody waits for this call any more.
    fn release(&self, call: CallNumber) -> Released {
        let mut state = self.lock();
        match state.calls.get_mut(&call) {
            Some(slot) if !matches!(slot.progress, Progress::Over(_)) => {
                slot.wanted = false;
                slot.waker = None;
                slot.start_waker = None;
                Released::StillRunning
            }
            Some(_) => {
                state.calls.remove(&call);
                Released::Over
            }
            None => Released::Over,
        }
    }

    fn end(&self, call: CallNumber) {
        let mut state = self.lock();
        if state.unsent_ends.is_empty() && send_end(&self.socket, call).is_ok() {
            return;
        }
        state.unsent_ends.push_back(call);
        self.ends_wait.notify_one();
    }

    fn hear(&self, answer: Answer) {
        let mut state = self.lock();
        let (call, progress) = match answer {
            Answer::Started { call, pid } => {
                let Some(pid) = Pid::from_raw(pid) else { return };
                (call, Progress::Running(pid))
            }
            Answer::Failed { call, step, errno } => (call, Progress::Over(End::Failed(step, errno))),
            Answer::Exited { call, ended } => (call, Progress::Over(End::Exited(ended))),
        };
        let Some(slot) = state.calls.get_mut(&call) else { return };
        if let Progress::Asked = slot.progress {
            self.starts.add_permits(1);
        }
        // The child itself reports a failure, so that may be heard before "started", and is followed by "exited".
        if !matches!(slot.progress, Progress::Over(_)) {
            slot.progress = progress;
        }
        let begun = slot.start_waker.take();
        let mut over = None;
        if let Progress::Over(_) = slot.progress {
            over = slot.waker.take();
            if !slot.wanted {
                state.calls.remove(&call);
            }
        }
        drop(state);
        begun.into_iter().chain(over).for_each(Waker::wake);
    }

    /// The spawner died. Its children die with it, but not theirs: their groups are killed from here.
    fn lose(&self) {
        self.starts.close();
        let mut wakers = Vec::new();
        let mut state = self.lock();
        state.lost = true;
        state.unsent_ends.clear();
        state.calls.retain(|_, slot| {
            if let Progress::Running(pid) = slot.progress {
                // At once, long before the kernel gives the number to another group.
                let _ = kill_process_group(pid, Signal::KILL);
            }
            if !matches!(slot.progress, Progress::Over(_)) {
                slot.progress = Progress::Over(End::SpawnerDied);
            }
            wakers.extend(slot.waker.take().into_iter().chain(slot.start_waker.take()));
            slot.wanted
        });
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn send_unsent_ends(&self) -> io::Result<()> {
        let mut state = self.lock();
        while let Some(&call) = state.unsent_ends.front() {
            send_end(&self.socket, call)?;
            state.unsent_ends.pop_front();
        }
        Ok(())
    }
}

/// Hears the spawner's answers until it dies.
async fn listen(shared: Arc<Shared>, spawner: Weak<Spawner>, generation: u64) {
    loop {
        tokio::select! {
            heard = shared.socket.async_io(Interest::READABLE, || receive_answer(&shared.socket)) => match heard {
                Ok(Some(answer)) => shared.hear(answer),
                Ok(None) | Err(_) => break,
            },
            () = shared.ends_wait.notified() => {
                // An error means that the spawner is gone, which the reading side notices as well.
                let _ = shared.socket.async_io(Interest::WRITABLE, || shared.send_unsent_ends()).await;
            }
        }
    }
    shared.lose();
    if let Some(spawner) = spawner.upgrade() {
        spawner.lost(generation);
    }
}

fn receive_answer(socket: &UnixStream) -> io::Result<Option<Answer>> {
    let mut packet: AnswerPacket = Default::default();
    match recv(socket, &mut packet, RecvFlags::DONTWAIT) {
        Ok((_, length)) => Ok(packet.get(..length).and_then(Answer::decode)),
        Err(error) => Err(error.into()),
    }
}

fn send_start(socket: &UnixStream, request: &[u8], stdio: &[OwnedFd; 3]) -> io::Result<()> {
    let descriptors = stdio.each_ref().map(AsFd::as_fd);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = control.push(SendAncillaryMessage::ScmRights(&descriptors));
    debug_assert!(fits, "the space is made for three descriptors");
    sendmsg(socket, &[IoSlice::new(request)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

fn send_end(socket: &UnixStream, call: CallNumber) -> io::Result<()> {
    match send(socket, &wire::encode_end(call), SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Ok(_) => Ok(()),
        Err(Errno::AGAIN) => Err(io::ErrorKind::WouldBlock.into()),
        // Gone: there is nothing left to end.
        Err(_) => Ok(()),
    }
}
