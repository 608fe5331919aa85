//! One worker, from its socket to its end.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use super::directory::Socket;
use super::fate::{Fate, Obituary};
use super::keeper::Keeper;
use super::lines::{Line, Lines};
use super::pool::{Address, Ended, WorkerId};
use crate::exec::{End, Launched, Process, ReadEnd};
use crate::stderr::StderrTail;

/// PHP ends a worker after 500 requests by itself, whether or not another is on its way. 0 is never.
const PHP_MAX_REQUESTS: &str = "PHP_FCGI_MAX_REQUESTS";

/// Starts a worker and watches it until it has ended.
pub(super) async fn run(keeper: Rc<Keeper>, id: WorkerId, end: Arc<Notify>) {
    let (tell, fate) = watch::channel(None);
    let mut worker = None;
    let obituary = match begin(&keeper, id).await {
        Err(why) => Obituary { fate: Fate::NotStarted(why), stderr: String::new() },
        Ok(begun) => worker.insert(begun).live(&keeper, id, fate, &end).await,
    };
    let pid = worker.as_ref().and_then(|worker| worker.pid);
    // Its socket goes before anybody is told.
    drop(worker);
    let ended = keeper.pool.lock().ended(id, &obituary.fate, Instant::now());
    log(&keeper, pid, &ended, &obituary);
    tell.send_replace(Some(obituary));
    keeper.pool.changed.notify_one();
}

fn log(keeper: &Keeper, pid: Option<u32>, ended: &Ended, obituary: &Obituary) {
    let Obituary { fate, stderr } = obituary;
    match ended {
        Ended::AsTold => tracing::debug!(pid, %fate, "a worker has ended"),
        Ended::WithItsSpawner => tracing::warn!(pid, "a worker has ended with the spawner process"),
        Ended::Unexpectedly => tracing::warn!(pid, %fate, stderr, "a worker has ended by itself: it is replaced"),
        Ended::AtOnce { pause: Some(pause) } => tracing::error!(
            pid,
            command = keeper.command,
            %fate,
            stderr,
            pause_ms = pause.as_millis() as u64,
            "a worker ended before it was of any use: another is started after a pause"
        ),
        Ended::AtOnce { pause: None } => tracing::debug!(pid, %fate, "so did another worker"),
    }
}

/// A worker whose process was asked for.
struct Worker {
    launched: Launched<[ReadEnd; 2]>,
    program: Rc<crate::exec::Program>,
    socket: Socket,
    pid: Option<u32>,
    tail: StderrTail,
    lines: [Lines; 2],
}

/// The two streams that a worker may print to, in the order of their numbers.
const STREAMS: [&str; 2] = ["stdout", "stderr"];

async fn begin(keeper: &Keeper, id: WorkerId) -> Result<Worker, String> {
    let launcher = &keeper.launcher;
    let program = launcher.program().map_err(|error| error.to_string())?;
    let (socket, listener) = keeper.directory.listen(id).map_err(|error| format!("its socket: {error}"))?;
    let path = Cow::Borrowed(socket.path().as_os_str().as_bytes());
    let php = launcher.sets(PHP_MAX_REQUESTS).is_none().then_some((PHP_MAX_REQUESTS, Cow::Borrowed(&b"0"[..])));
    let variables = [("WOOTZ_LISTEN", path)].into_iter().chain(php);
    let request = launcher.request(&program, variables).map_err(|error| error.to_string())?;
    let launched = launcher.launch(request, || stdio(&listener)).await.map_err(|error| error.to_string())?;
    let now = Instant::now();
    // The worker alone has the listener now, so that nobody can connect once it has ended.
    let lines = [Lines::new(now), Lines::new(now)];
    Ok(Worker { launched, program, socket, pid: None, tail: StderrTail::default(), lines })
}

fn stdio(listener: &UnixListener) -> io::Result<([ReadEnd; 2], [OwnedFd; 3])> {
    let (stdout, stdout_theirs) = ReadEnd::pipe()?;
    let (stderr, stderr_theirs) = ReadEnd::pipe()?;
    Ok(([stdout, stderr], [listener.try_clone()?.into(), stdout_theirs, stderr_theirs]))
}

enum Event {
    Over(End),
    ToldToEnd,
}

impl Worker {
    async fn live(
        &mut self,
        keeper: &Keeper,
        id: WorkerId,
        fate: watch::Receiver<Option<Obituary>>,
        end: &Notify,
    ) -> Obituary {
        let started = poll_fn(|cx| self.launched.process.poll_started(cx)).await;
        if let Some(pid) = started.and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok()) {
            self.pid = Some(pid);
            let name = format!("the worker {pid}").into();
            let address = Address { id, socket: self.socket.path().into(), name, fate };
            keeper.pool.lock().started(pid, address, Instant::now());
            keeper.pool.changed.notify_one();
        }
        let over = loop {
            let mut told = pin!(end.notified());
            let event = poll_fn(|cx| {
                if let Poll::Ready(end) = self.poll_end(cx) {
                    return Poll::Ready(Event::Over(end));
                }
                told.as_mut().poll(cx).map(|()| Event::ToldToEnd)
            });
            match event.await {
                Event::Over(end) => break end,
                Event::ToldToEnd => self.process().end(),
            }
        };
        let fate = match over {
            End::Exited(ended) => Fate::Ended(ended),
            End::SpawnerDied => Fate::SpawnerDied,
            End::Failed(step, errno) => {
                Fate::NotStarted(keeper.launcher.not_started(&self.program, step, errno).to_string())
            }
        };
        self.drain();
        Obituary { fate, stderr: std::mem::take(&mut self.tail).into_text() }
    }

    const fn process(&self) -> &Process {
        &self.launched.process
    }

    /// Waits for the end of the process, and logs what it prints.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Self { launched, pid, tail, lines, .. } = self;
        let (now, pid) = (Instant::now(), *pid);
        let [stdout, stderr] = &mut launched.ours;
        let [stdout_lines, stderr_lines] = lines;
        let mut take_stdout = |bytes: &[u8]| stdout_lines.receive(bytes, now, |line| log_line(pid, STREAMS[0], line));
        while stdout.poll_read(cx, &mut take_stdout).is_ready() {}
        let mut take_stderr = |bytes: &[u8]| {
            tail.push(bytes);
            stderr_lines.receive(bytes, now, |line| log_line(pid, STREAMS[1], line));
        };
        while stderr.poll_read(cx, &mut take_stderr).is_ready() {}
        launched.process.poll_end(cx)
    }

    /// Logs what is left in the pipes.
    fn drain(&mut self) {
        let (now, pid) = (Instant::now(), self.pid);
        for (at, pipe) in self.launched.ours.iter_mut().enumerate() {
            let drained: Result<(), Infallible> = pipe.drain(|bytes| {
                if at == 1 {
                    self.tail.push(bytes);
                }
                self.lines[at].receive(bytes, now, |line| log_line(pid, STREAMS[at], line));
                Ok(())
            });
            drained.unwrap_or_else(|never| match never {});
            self.lines[at].finish(now, |line| log_line(pid, STREAMS[at], line));
        }
    }
}

fn log_line(pid: Option<u32>, stream: &'static str, line: Line) {
    let Line { text, left_out } = line;
    match left_out {
        0 => tracing::info!(pid, stream, text, "a worker printed"),
        more => tracing::info!(pid, stream, text, left_out = more, "a worker printed too many lines"),
    }
}
