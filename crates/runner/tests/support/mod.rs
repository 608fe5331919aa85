//! What the tests of `exec` share: a spawner, a browser that notes its replies, and applications in shell.
#![allow(dead_code, unreachable_pub, reason = "a module of several test programs, each of which uses its part")]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use wootz_runner::exec::{Exec, ExecSettings, Spawner};
use wootz_runner::{
    Application, Call, CallError, CallEvent, CallOutcome, Caller, ConnectionId, Gone, Message, MessageMode, Replies,
    ReplySink,
};

/// Longer than anything here takes on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A browser: notes what it is sent; may have no room, or leave.
#[derive(Default)]
pub struct Browser {
    pub messages: RefCell<Vec<Message>>,
    /// How many more messages it has room for; `None`: any number.
    room: Cell<Option<usize>>,
    gone: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Browser {
    pub fn without_room() -> Rc<Self> {
        Rc::new(Self { room: Cell::new(Some(0)), ..Self::default() })
    }

    pub fn leave(&self) {
        self.gone.set(true);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    pub fn make_room(&self) {
        self.room.set(None);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    pub fn texts(&self) -> Vec<String> {
        let text = |message: &Message| match message {
            Message::Text(text) => text.as_str().to_owned(),
            Message::Binary(bytes) => format!("binary {bytes:?}"),
        };
        self.messages.borrow().iter().map(text).collect()
    }
}

impl ReplySink for Browser {
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.gone.get() {
            return Poll::Ready(Err(Gone));
        }
        if self.room.get() != Some(0) {
            return Poll::Ready(Ok(()));
        }
        self.waiting.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    fn send(&self, message: Message) {
        self.room.set(self.room.get().map(|room| room - 1));
        self.messages.borrow_mut().push(message);
    }
}

/// How a call went.
pub struct Ran {
    pub result: Result<(), CallError>,
    pub replies: Vec<String>,
    pub outcome: Option<CallOutcome>,
    pub took: Duration,
}

impl Ran {
    /// The one reply of a call that succeeded.
    #[track_caller]
    pub fn reply(self) -> String {
        self.result.expect("the call should succeed");
        assert_eq!(self.replies.len(), 1, "one reply, not {:?}", self.replies);
        self.replies.into_iter().next().expect("counted above")
    }

    /// The error of a call that failed.
    #[track_caller]
    pub fn error(self) -> CallError {
        self.result.expect_err("the call should fail")
    }
}

/// Runs a test on a runtime like a shard's, with a spawner of its own, and with a limit of time.
pub fn with_spawner<F: Future<Output = ()>>(test: impl FnOnce(Arc<Spawner>) -> F) {
    let spawner = Spawner::start_with(Path::new(env!("CARGO_BIN_EXE_wootz-spawner"))).expect("the spawner starts");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let whole = async { tokio::time::timeout(3 * PATIENCE, test(spawner)).await };
    runtime.block_on(whole).expect("the test should end");
}

/// `sh -c script`, with limits that a test waits for.
pub fn shell(script: &str) -> ExecSettings {
    ExecSettings {
        command: ["/bin/sh", "-c", script].map(Into::into).to_vec(),
        timeout: PATIENCE,
        grace: Duration::from_millis(200),
        ..ExecSettings::default()
    }
}

pub fn exec(settings: ExecSettings, spawner: &Arc<Spawner>) -> Exec {
    Exec::new(Arc::new(settings), Arc::clone(spawner)).expect("the spawner is there")
}

pub fn caller() -> Caller {
    Caller::builder(ConnectionId(0xfeed), "/chat?room=1")
        .remote(SocketAddr::from(([192, 0, 2, 7], 54321)))
        .header("Cookie", b"PHPSESSID=abc")
        .build()
}

pub fn call_with(message: Message) -> Call {
    Call { event: CallEvent::Message, message, caller: Arc::new(caller()), mode: MessageMode::Uri, capability: None }
}

pub async fn run(exec: &Exec, call: Call, browser: &Rc<Browser>) -> Ran {
    let since = Instant::now();
    let mut replies = Replies::new(Rc::clone(browser) as Rc<dyn ReplySink>);
    let result = exec.call(call, &mut replies).await;
    let outcome = replies.outcome().cloned();
    Ran { result, replies: browser.texts(), outcome, took: since.elapsed() }
}

/// One call with the text message `hello`.
pub async fn ask(settings: ExecSettings, spawner: &Arc<Spawner>) -> Ran {
    ask_with(settings, spawner, Message::text("hello")).await
}

pub async fn ask_with(settings: ExecSettings, spawner: &Arc<Spawner>, message: Message) -> Ran {
    run(&exec(settings, spawner), call_with(message), &Rc::default()).await
}

/// Waits until something is so.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The pid that a script wrote into a file, once it is there.
pub async fn pid_in(file: &Path) -> u32 {
    let read = || std::fs::read_to_string(file).ok()?.strip_suffix('\n')?.parse().ok();
    let mut pid = None;
    until("a pid in the file", || {
        pid = read();
        pid.is_some()
    })
    .await;
    pid.expect("waited for")
}

/// Whether a process is there, as a zombie or alive.
pub fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether a process is alive. A dead one may wait for its parent to take notice.
pub fn lives(pid: u32) -> bool {
    processes().iter().any(|&(other, state, _)| other == pid && state != 'Z')
}

/// State (`R`, `S`, `Z`…) and parent of all processes.
pub fn processes() -> Vec<(u32, char, u32)> {
    let stat = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        Some((pid, fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
    };
    std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| stat(entry.ok()?)).collect()
}

/// Children of a process, zombies too.
pub fn children_of(parent: u32) -> Vec<u32> {
    processes().into_iter().filter(|&(_, _, other)| other == parent).map(|(pid, ..)| pid).collect()
}

pub fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("pids are small"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("the process is there");
}
