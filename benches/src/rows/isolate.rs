//! A fork of a warm PHP for each message: what the SDK and the way to it add to the fork.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Row, serve_runner};
use crate::Programs;
use crate::asking::{Ask as _, Talk};
use crate::client::{Single, wrong};
use crate::pinning::SERVER_CORE;
use crate::statistics::call_by_call;
use crate::table::{Reach, Table};

const CALLS: usize = 300;
const ANSWER: &[u8] = b"hello /hello";

/// What makes a PHP warm: the SDK, and some megabytes of data. Both contestants hold the same.
const WARM: &str = concat!(
    "require '",
    env!("CARGO_MANIFEST_DIR"),
    "/../sdk/php/autoload.php';
class_exists(Wootz\\Application::class);
$loaded = array_map(static fn (int $n): array => ['id' => $n, 'name' => \"name $n\"], range(1, 20000));
"
);
const WORKER: &str = "Wootz\\Application::run(static fn (string $uri): string => \"hello $uri\", isolate: true);";
/// The child ends by KILL, as the quickest child does: nothing of its parent is ended with it.
const FLOOR: &str = "
while (fgets(STDIN) !== false) {
    $child = pcntl_fork();
    if ($child === 0) {
        posix_kill(getmypid(), SIGKILL);
    }
    pcntl_waitpid($child, $status);
    echo \"done\\n\";
}";

/// The row.
pub const ROW: Row = Row { name: "isolate", doing: "a fork of a kept PHP worker for each message", measure };

fn measure(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let mut floor = Floor::start(&programs.php)?;
    let worker = format!("{WARM}{WORKER}");
    let settings = ["application.fastcgi.workers=1", "application.fastcgi.max_calls=0"];
    let runner = ["--runner", "fastcgi", "--", &programs.php.to_string_lossy(), "-r", &worker];
    let wootz = serve_runner(programs, SERVER_CORE, &settings, &runner)?;
    let mut talk = Talk::new(Single::open(wootz.address)?, "/hello", ANSWER);
    let [theirs, ours] = call_by_call(CALLS, [&mut || floor.fork(), &mut || talk.ask()])?;
    table.add(
        "kept PHP worker with `isolate`: median from message to reply",
        "µs",
        &ours,
        ("`pcntl_fork` in a warm PHP", &theirs),
        Reach::TimesFloor(1.3),
    );
    Ok(())
}

/// A PHP on the core of the servers that forks once for each line.
struct Floor {
    php: Child,
    ask: ChildStdin,
    done: BufReader<ChildStdout>,
}

impl Floor {
    fn start(php: &Path) -> io::Result<Self> {
        let mut php = Command::new("taskset")
            .args(["--cpu-list", &SERVER_CORE.to_string()])
            .arg(php)
            .args(["-r", &format!("{WARM}{FLOOR}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let ask = php.stdin.take().ok_or_else(|| wrong("no standard input"))?;
        let done = php.stdout.take().ok_or_else(|| wrong("no standard output"))?;
        Ok(Self { php, ask, done: BufReader::new(done) })
    }

    fn fork(&mut self) -> io::Result<Duration> {
        let start = Instant::now();
        self.ask.write_all(b"fork\n")?;
        let mut line = String::new();
        self.done.read_line(&mut line)?;
        match line.as_str() {
            "done\n" => Ok(start.elapsed()),
            other => Err(wrong(format!("instead of forking PHP said {other:?}"))),
        }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It may have ended by itself; nothing is left to be done about an error here.
        let _ = self.php.kill();
        let _ = self.php.wait();
    }
}
