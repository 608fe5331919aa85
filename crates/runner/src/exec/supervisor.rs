//! The server's hold on its spawner: starts it, connects shards to it, notices its death and starts another.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv,
    sendmsg, socketpair,
};
use rustix::process::{Pid, PidfdFlags, Resource, getrlimit, pidfd_open, setrlimit};

use super::client::SpawnerClient;
use super::spawner::{self, READY};

/// What the spawner is called, by itself and in the list of processes.
const NAME: &str = "wootz-spawner";

/// A spawner that lived longer than this did not die of what killed the one before it.
const LONG_LIFE: Duration = Duration::from_secs(10);
/// The pause after the second death in a row; doubled by each one after it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a new spawner may take to begin.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a spawner may take to kill the last calls and end.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Becomes the spawner, and never returns, when this process was started as one. The first line of every `main` whose program
/// calls [`Spawner::start`].
pub fn run_if_spawner() {
    if !started_as_spawner() {
        return;
    }
    let open_files = std::env::args_os().nth(1).and_then(|limit| limit.to_str()?.parse().ok());
    let status = match become_spawner(open_files) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{NAME}: {error}");
            1
        }
    };
    std::process::exit(status)
}

fn started_as_spawner() -> bool {
    std::env::args_os().next().as_deref() == Some(OsStr::new(NAME))
}

fn become_spawner(open_files: Option<u64>) -> io::Result<()> {
    let control = rustix::stdio::stdin();
    if rustix::net::sockopt::socket_type(control).ok() != Some(SocketType::SEQPACKET) {
        return Err(io::Error::other("this is started by its server, never by hand"));
    }
    // Processes are listed by this name; without it they would be called "exe".
    let _ = rustix::thread::set_name(c"wootz-spawner");
    if let Some(soft) = open_files {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum.map_or(Some(soft), |hard| Some(soft.min(hard)));
        setrlimit(Resource::Nofile, limit)?;
    }
    spawner::run(control)
}

/// The spawner process: started before the server has threads, ended when this is dropped.
///
/// Calls get the soft limit of open files that held when this was started, whatever the server raises its own to later.
#[derive(Debug)]
pub struct Spawner {
    program: PathBuf,
    open_files: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    running: Option<Running>,
    /// Counts the processes; tells the death of an old one from that of the present one.
    generation: u64,
    early_deaths: u32,
    rest_until: Option<Instant>,
}

#[derive(Debug)]
struct Running {
    process: Child,
    control: OwnedFd,
    since: Instant,
}

/// Why there is no connection to a spawner now.
#[derive(Debug)]
pub(super) enum NoConnection {
    /// Spawners died again and again; the next one is not started before this.
    RestingUntil(Instant),
    /// It can't be started or reached.
    Failed(io::Error),
}

impl Spawner {
    /// Starts the spawner: this very program again, which must call [`run_if_spawner`] first of all.
    ///
    /// # Errors
    /// The process could not be started.
    pub fn start() -> io::Result<Arc<Self>> {
        // Not the path of the program: that may be another file by now, or none.
        Self::start_with(Path::new("/proc/self/exe"))
    }

    /// Starts the spawner from another program, which calls [`run_if_spawner`] first of all.
    ///
    /// # Errors
    /// The process could not be started.
    pub fn start_with(program: &Path) -> io::Result<Arc<Self>> {
        let open_files = getrlimit(Resource::Nofile).current;
        let running = Running::start(program, open_files)?;
        let state = State { running: Some(running), generation: 1, early_deaths: 0, rest_until: None };
        Ok(Arc::new(Self { program: program.to_owned(), open_files, state: Mutex::new(state) }))
    }

    /// Connects a shard; inside the runtime of that shard. Starts another spawner when the last one has died.
    ///
    /// # Errors
    /// There is no spawner, or it rests after several deaths in a row.
    pub fn connect(self: &Arc<Self>) -> io::Result<SpawnerClient> {
        self.try_connect().map_err(|reason| match reason {
            NoConnection::RestingUntil(_) => io::Error::other("the spawner process died several times in a row"),
            NoConnection::Failed(error) => error,
        })
    }

    /// The process id of the spawner that runs now.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.lock().running.as_ref().map(|running| running.process.id())
    }

    pub(super) fn try_connect(self: &Arc<Self>) -> Result<SpawnerClient, NoConnection> {
        let mut state = self.lock();
        let socket = match state.running.as_ref().map(Running::connect) {
            Some(Ok(socket)) => socket,
            Some(Err(error)) if !is_death(&error) => return Err(NoConnection::Failed(error)),
            dead => {
                if dead.is_some() {
                    state.bury();
                }
                self.start_another(&mut state)?.connect().map_err(NoConnection::Failed)?
            }
        };
        SpawnerClient::new(socket, Arc::downgrade(self), state.generation).map_err(NoConnection::Failed)
    }

    fn start_another<'s>(&self, state: &'s mut State) -> Result<&'s Running, NoConnection> {
        if let Some(until) = state.rest_until.filter(|&until| until > Instant::now()) {
            return Err(NoConnection::RestingUntil(until));
        }
        let running = Running::start(&self.program, self.open_files).map_err(NoConnection::Failed)?;
        tracing::info!(pid = running.process.id(), "another spawner process was started");
        state.generation += 1;
        Ok(state.running.insert(running))
    }

    /// Takes note that a shard lost this spawner: reaps it, and says so once.
    pub(super) fn lost(&self, generation: u64) {
        let mut state = self.lock();
        if state.generation == generation {
            state.bury();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn bury(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        // Dead already, but for one that closed its sockets and lives: it is of no use to anybody.
        let _ = running.process.kill();
        let status = running.process.wait();
        self.early_deaths = if running.since.elapsed() < LONG_LIFE { self.early_deaths + 1 } else { 0 };
        let pause = pause_after(self.early_deaths);
        self.rest_until = Some(Instant::now() + pause);
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        tracing::error!(
            pid = running.process.id(),
            %status,
            pause_ms = pause.as_millis() as u64,
            "the spawner process died: running calls have failed, the next call starts another"
        );
    }
}

/// None after a death that follows a long life, and after the first early one; then longer each time.
fn pause_after(early_deaths: u32) -> Duration {
    match early_deaths {
        0 | 1 => Duration::ZERO,
        more => FIRST_PAUSE.saturating_mul(1 << (more - 2).min(16)).min(LONGEST_PAUSE),
    }
}

impl Running {
    fn start(program: &Path, open_files: Option<u64>) -> io::Result<Self> {
        let (control, theirs) = packet_pair(SocketFlags::CLOEXEC)?;
        if started_as_spawner() {
            let reason = "run_if_spawner() must be the first line of main: this process should have become the spawner";
            return Err(io::Error::other(reason));
        }
        // No option here may need code between fork and exec: then the standard library uses posix_spawn, whose cost
        // does not grow with the memory of the server.
        let process = Command::new(program)
            .arg0(NAME)
            .args(open_files.map(|limit| limit.to_string()))
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        let mut running = Self { process, control, since: Instant::now() };
        match running.wait_until_ready() {
            Ok(()) => Ok(running),
            Err(error) => {
                let _ = running.process.kill();
                let _ = running.process.wait();
                Err(error)
            }
        }
    }

    /// A few milliseconds, or the program is no spawner.
    fn wait_until_ready(&self) -> io::Result<()> {
        let mut packet = [0; READY.len()];
        let (_, length) = match is_readable_within(&self.control, START_TIMEOUT)? {
            true => recv(&self.control, &mut packet, RecvFlags::empty())?,
            false => return Err(io::ErrorKind::TimedOut.into()),
        };
        if packet.get(..length) == Some(READY) {
            return Ok(());
        }
        Err(io::Error::other(
            "the program ended without becoming the spawner (run_if_spawner() is missing in its main?)",
        ))
    }

    /// A socket whose other end the spawner has.
    fn connect(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = packet_pair(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        let theirs = [theirs.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fits = control.push(SendAncillaryMessage::ScmRights(&theirs));
        debug_assert!(fits, "the space is made for one descriptor");
        sendmsg(&self.control, &[IoSlice::new(b"client")], &mut control, SendFlags::NOSIGNAL)?;
        Ok(ours)
    }
}

impl Drop for Spawner {
    /// Closes the control socket, upon which the spawner kills what is left and ends, and reaps it.
    fn drop(&mut self) {
        let Some(Running { mut process, control, .. }) = self.lock().running.take() else { return };
        drop(control);
        if !ends_within(&process, END_TIMEOUT) {
            let _ = process.kill();
        }
        let _ = process.wait();
    }
}

/// The death of the other end, in the words of its socket.
fn is_death(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN))
}

fn ends_within(process: &Child, timeout: Duration) -> bool {
    let Some(pid) = i32::try_from(process.id()).ok().and_then(Pid::from_raw) else { return false };
    // A pidfd is readable once its process has ended.
    pidfd_open(pid, PidfdFlags::empty()).is_ok_and(|end| is_readable_within(&end, timeout).unwrap_or(false))
}

fn is_readable_within(descriptor: &OwnedFd, timeout: Duration) -> io::Result<bool> {
    let mut polled = [PollFd::new(descriptor, PollFlags::IN)];
    let timeout = timeout.try_into().map_err(io::Error::other)?;
    Ok(rustix::event::poll(&mut polled, Some(&timeout))? == 1)
}

fn packet_pair(flags: SocketFlags) -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_early_death_costs_no_pause_and_more_cost_up_to_ten_seconds() {
        let pauses: Vec<_> = (0..6).map(|deaths| pause_after(deaths).as_millis()).collect();
        assert_eq!(pauses, [0, 0, 100, 200, 400, 800]);
        assert_eq!(pause_after(u32::MAX), LONGEST_PAUSE);
    }
}
