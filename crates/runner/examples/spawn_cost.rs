//! What a call costs: `/bin/cat` through `Exec`, against the same command by `posix_spawn` with pipes, in turns in one run; then
//! both again while this process holds memory.
//!
//! `cargo run --release -p wootz-runner --example spawn_cost [CALLS [MIB]]`

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use wootz_runner::exec::{Exec, ExecSettings, Spawner, run_if_spawner};
use wootz_runner::{
    Application, Call, CallEvent, Caller, ConnectionId, Gone, Message, MessageMode, Replies, ReplySink,
};

struct Nobody;

impl ReplySink for Nobody {
    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn send(&self, message: Message) {
        assert_eq!(message, Message::text("hello"));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    run_if_spawner();
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<usize>());
    let calls = numbers.next().transpose()?.unwrap_or(1000);
    let mebibytes = numbers.next().transpose()?.unwrap_or(1024);

    let spawner = Spawner::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let settings = ExecSettings { command: vec!["/bin/cat".into()], ..ExecSettings::default() };
    let exec = {
        let _inside = runtime.enter();
        Exec::new(Arc::new(settings), spawner)?
    };
    compare("as started", &runtime, &exec, calls)?;
    // One byte of each page is written, or the kernel would give none.
    let ballast: Vec<u8> = (0..mebibytes * 1024 * 1024).map(|at| at as u8).collect();
    compare(&format!("holding {mebibytes} MiB"), &runtime, &exec, calls)?;
    assert_eq!(std::hint::black_box(&ballast).len(), mebibytes << 20);
    Ok(())
}

fn compare(when: &str, runtime: &tokio::runtime::Runtime, exec: &Exec, calls: usize) -> std::io::Result<()> {
    let (mut by_exec, mut by_posix_spawn) = (Vec::with_capacity(calls), Vec::with_capacity(calls));
    for _ in 0..calls {
        let since = Instant::now();
        runtime.block_on(call(exec));
        by_exec.push(since.elapsed());
        let since = Instant::now();
        posix_spawn()?;
        by_posix_spawn.push(since.elapsed());
    }
    let (by_exec, by_posix_spawn) = (median(by_exec), median(by_posix_spawn));
    let ratio = by_exec.as_secs_f64() / by_posix_spawn.as_secs_f64();
    println!("{when}: Exec {by_exec:?}, posix_spawn {by_posix_spawn:?}, ratio {ratio:.2}");
    Ok(())
}

async fn call(exec: &Exec) {
    let caller = Arc::new(Caller::builder(ConnectionId(1), "/").build());
    let call = Call {
        event: CallEvent::Message,
        message: Message::text("hello"),
        caller,
        mode: MessageMode::Uri,
        capability: None,
    };
    exec.call(call, &mut Replies::new(Rc::new(Nobody))).await.expect("cat succeeds");
}

fn posix_spawn() -> std::io::Result<()> {
    let mut cat = Command::new("/bin/cat");
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    cat.stdin.take().expect("piped").write_all(b"hello")?;
    let mut output = String::new();
    cat.stdout.take().expect("piped").read_to_string(&mut output)?;
    assert!(cat.wait()?.success() && output == "hello");
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
