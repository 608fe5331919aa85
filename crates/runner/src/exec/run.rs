//! One call as a process, from the request to the last reply.
//!
//! A call is over when its process has ended. What is in its pipes by then is the output; a grandchild that keeps them open is not waited
//! for. A process that is slower than `timeout` or prints too much is ended, and the call fails when it has ended.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ExecSettings;
use super::client::{End, Process, SpawnerClient};
use super::launcher::{Launched, Launcher, Program};
use super::output::{Input, ReadEnd};
use super::supervisor::Spawner;
use super::wire::Ended;
use crate::application::{Application, CallOutcome, Replies, Unsent, send_ready};
use crate::call::{Call, Message};
use crate::deadline::{Deadline, Late};
use crate::error::{ApplicationFault, CallError, EnvironmentFault, Gone};
use crate::reply::{ReplyAssembler, ReplyError};
use crate::stderr::StderrTail;

/// How long after KILL the end of a process is waited for. One that the kernel can't end (it hangs in a dead file system) must not
/// hold its connection.
const KILLED_TIMEOUT: Duration = Duration::from_secs(1);

/// The application that is a command: each call a fresh process. One per shard.
#[derive(Debug)]
pub struct Exec {
    settings: Arc<ExecSettings>,
    launcher: Launcher,
}

impl Exec {
    /// Connects to the spawner; inside the runtime of the shard. Relative paths are taken from the working directory of this moment, and
    /// so are the values of `pass_environment`.
    ///
    /// # Errors
    /// There is no spawner, or the directory has no absolute path.
    pub fn new(settings: Arc<ExecSettings>, spawner: Arc<Spawner>) -> io::Result<Self> {
        let launcher = Launcher::new(Arc::clone(&settings), spawner)?;
        Ok(Self { settings, launcher })
    }

    /// Asks the spawner for the process of a call.
    async fn start(&self, call: Call) -> Result<Running, CallError> {
        let program = self.launcher.program()?;
        let request = self.launcher.request(&program, call.variables())?;
        let message = match call.message {
            Message::Text(text) => text.into_bytes(),
            Message::Binary(bytes) => bytes,
        };
        let Launched { process, ours: pipes, client } =
            self.launcher.launch(request, || Pipes::new(message.clone())).await?;
        Ok(Running { process, pipes, program, _client: client })
    }
}

impl Application for Exec {
    /// # Cancel safety
    /// Dropped, the call's process group gets TERM, and KILL after the grace.
    async fn call(&self, call: Call, replies: &mut Replies) -> Result<(), CallError> {
        let since = Instant::now();
        let settings = &*self.settings;
        let mut deadline = Deadline::after(settings.timeout);
        let mut output = ReplyAssembler::new(settings.reply, settings.frame, settings.max_output_bytes);
        let mut running = match deadline.before(self.start(call)).await {
            Ok(started) => started?,
            Err(Late) => return Err(spawner_too_slow()),
        };
        let stop = running.converse(&mut deadline, &mut output, replies).await?;
        let status = self.status(stop, &mut running).await?;
        let duration = since.elapsed();
        let drained = running.pipes.stdout.drain(|bytes| output.receive(bytes));
        let stderr = running.pipes.stderr();
        drop(running);
        let output_bytes = output.received_bytes() as u64;
        let sent = match drained {
            Ok(()) => send_last(output, status, replies).await?,
            Err(error) => Err(error),
        };
        let fault = match (status, sent) {
            (Ended::Exit(0), Ok(())) => {
                replies.report(CallOutcome { duration, output_bytes, stderr });
                return Ok(());
            }
            (Ended::Exit(0), Err(error)) => error.into(),
            (Ended::Exit(status), _) => ApplicationFault::Exit(status),
            (Ended::Signal(signal), _) => ApplicationFault::Signal(signal),
        };
        Err(CallError::Application { fault, stderr })
    }
}

impl Exec {
    /// How the process ended by itself; an error where it was ended, after it has.
    async fn status(&self, stop: Stop, running: &mut Running) -> Result<Ended, CallError> {
        let fault = match stop {
            Stop::Over(End::Exited(status)) => return Ok(status),
            Stop::Over(End::SpawnerDied) => return Err(EnvironmentFault::SpawnerDied.into()),
            Stop::Over(End::Failed(step, errno)) => {
                return Err(self.launcher.not_started(&running.program, step, errno).into());
            }
            Stop::Late => ApplicationFault::TimedOut(self.settings.timeout),
            Stop::Output(error) => error.into(),
        };
        running.end(self.settings.grace).await;
        Err(CallError::Application { fault, stderr: running.pipes.stderr() })
    }
}

/// A call whose process was asked for.
#[derive(Debug)]
struct Running {
    process: Process,
    pipes: Pipes,
    program: Rc<Program>,
    /// Dropped, it would kill the call.
    _client: Rc<SpawnerClient>,
}

/// Why the conversation with a process is over.
enum Stop {
    /// It has ended, or never was.
    Over(End),
    /// It has not ended in time.
    Late,
    /// What it prints can't be sent.
    Output(ReplyError),
}

enum Event {
    Printed(Result<(), ReplyError>),
    Over(End),
    Late,
}

impl Running {
    /// Writes input, reads output and sends what can be sent, until there is a reason to stop.
    async fn converse(
        &mut self,
        deadline: &mut Deadline,
        output: &mut ReplyAssembler,
        replies: &mut Replies,
    ) -> Result<Stop, Gone> {
        loop {
            match poll_fn(|cx| self.poll_event(cx, deadline, output)).await {
                Event::Over(end) => return Ok(Stop::Over(end)),
                Event::Late => return Ok(Stop::Late),
                Event::Printed(Err(error)) => return Ok(Stop::Output(error)),
                Event::Printed(Ok(())) => {}
            }
            match send_ready(output, replies, deadline).await? {
                Ok(()) => {}
                Err(Unsent::Late) => return Ok(Stop::Late),
                Err(Unsent::Output(error)) => return Ok(Stop::Output(error)),
            }
        }
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        deadline: &mut Deadline,
        output: &mut ReplyAssembler,
    ) -> Poll<Event> {
        if let Poll::Ready(end) = self.process.poll_end(cx) {
            return Poll::Ready(Event::Over(end));
        }
        if let Poll::Ready(Late) = deadline.poll(cx) {
            return Poll::Ready(Event::Late);
        }
        self.pipes.poll_others(cx);
        self.pipes.stdout.poll_read(cx, |bytes| output.receive(bytes)).map(Event::Printed)
    }

    /// Ends the process group and waits until its leader has ended, at most a little longer than the grace.
    async fn end(&mut self, grace: Duration) {
        // Whoever still prints learns at once that nobody listens.
        self.pipes.stdout.close();
        self.process.end();
        let mut limit = Deadline::after(grace + KILLED_TIMEOUT);
        let Self { process, pipes, .. } = self;
        let ended = poll_fn(|cx| {
            pipes.poll_others(cx);
            process.poll_end(cx)
        });
        if let Err(Late) = limit.before(ended).await {
            tracing::warn!("a call's process did not end by KILL: it hangs in the kernel");
        }
    }
}

/// This process's ends of a call's pipes.
#[derive(Debug)]
struct Pipes {
    stdin: Input,
    stdout: ReadEnd,
    stderr: ReadEnd,
    tail: StderrTail,
}

impl Pipes {
    /// With the application's ends, in the order of their numbers.
    fn new(message: Bytes) -> io::Result<(Self, [OwnedFd; 3])> {
        let (stdin, stdin_theirs) = Input::pipe(message)?;
        let (stdout, stdout_theirs) = ReadEnd::pipe()?;
        let (stderr, stderr_theirs) = ReadEnd::pipe()?;
        let ours = Self { stdin, stdout, stderr, tail: StderrTail::default() };
        Ok((ours, [stdin_theirs, stdout_theirs, stderr_theirs]))
    }

    /// Standard input and error: never a reason to stop.
    fn poll_others(&mut self, cx: &mut Context<'_>) {
        self.stdin.poll_write(cx);
        while self.stderr.poll_read(cx, |bytes| self.tail.push(bytes)).is_ready() {}
    }

    /// The end of standard error, with what is still in its pipe.
    fn stderr(&mut self) -> String {
        let tail = &mut self.tail;
        let drained: Result<(), std::convert::Infallible> = self.stderr.drain(|bytes| {
            tail.push(bytes);
            Ok(())
        });
        drained.unwrap_or_else(|never| match never {});
        std::mem::take(tail).into_text()
    }
}

/// Sends what a process has left when it ended. What is whole by the mode's measure goes out however it ended, as it would have if it had
/// been read a moment earlier; the rest only after success.
async fn send_last(
    mut output: ReplyAssembler,
    status: Ended,
    replies: &mut Replies,
) -> Result<Result<(), ReplyError>, Gone> {
    loop {
        match output.next_message() {
            Ok(Some(message)) => replies.send(message).await?,
            Ok(None) => break,
            Err(error) => return Ok(Err(error)),
        }
    }
    if status == Ended::Exit(0) {
        match output.finish() {
            Ok(Some(message)) => replies.send(message).await?,
            Ok(None) => {}
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(()))
}

/// The time was over before the application began.
fn spawner_too_slow() -> CallError {
    EnvironmentFault::System { what: "waiting for the spawner process", source: io::ErrorKind::TimedOut.into() }.into()
}
