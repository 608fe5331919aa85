//! A measured server: a process on its own core, what it used, and its end.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::PATIENCE;
use crate::pinning::SERVER_CORE;

/// How often something outside of this process is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How long a server that is not needed any more may take to end what it has started.
const PATIENCE_AT_THE_END: Duration = Duration::from_secs(5);

/// What is started, and how.
///
/// In arguments and files `{address}`, `{port}` and `{directory}` stand for the address to listen on and the server's directory.
pub struct Launch<'l> {
    /// The program.
    pub program: &'l Path,
    /// Its arguments.
    pub arguments: &'l [&'l str],
    /// The core that it shares with everything that it starts.
    pub core: usize,
    /// Files that it needs in its directory, by name and content.
    pub files: &'l [(&'l str, &'l str)],
    /// Where it has to accept connections before it counts as started.
    pub listens: Listens<'l>,
}

/// Where a server listens.
#[derive(Debug, Clone, Copy)]
pub enum Listens<'l> {
    /// On the address.
    Tcp,
    /// On a socket of this name in its directory.
    Unix(&'l str),
}

/// A running server. It is ended when dropped, and what it has started with it.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    directory: PathBuf,
}

/// Processor time in clock ticks, by whose code ran.
#[derive(Debug, Clone, Copy)]
pub struct Ticks {
    user: f64,
    system: f64,
}

impl Ticks {
    /// The share of user space in what was used since `before`, in percent.
    pub fn user_percent_since(self, before: Self) -> f64 {
        let (user, system) = (self.user - before.user, self.system - before.system);
        100.0 * user / (user + system).max(1.0)
    }
}

impl Server {
    /// Starts `program` on the core of the servers and waits until it accepts connections.
    pub fn start(program: &Path, arguments: &[&str]) -> io::Result<Self> {
        Self::launch(&Launch { program, arguments, core: SERVER_CORE, files: &[], listens: Listens::Tcp })
    }

    /// Starts it in a directory of its own and waits until it accepts connections.
    pub fn launch(launch: &Launch<'_>) -> io::Result<Self> {
        let address = free_address()?;
        let name = launch.program.file_name().unwrap_or_default().to_string_lossy();
        let directory = std::env::temp_dir().join(format!("bench-{name}-{}-{}", std::process::id(), address.port()));
        fs::create_dir(&directory)?;
        let here = directory.to_string_lossy();
        let expand = |text: &str| {
            let text = text.replace("{address}", &address.to_string()).replace("{port}", &address.port().to_string());
            text.replace("{directory}", &here)
        };
        for (name, content) in launch.files {
            fs::write(directory.join(name), expand(content))?;
        }
        let log = File::create(directory.join("log"))?;
        let child = Command::new("taskset")
            .args(["--cpu-list", &launch.core.to_string()])
            .arg(launch.program)
            .args(launch.arguments.iter().map(|argument| expand(argument)))
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut server = Self { child, address, directory };
        server.wait_until_it_accepts(launch.listens)?;
        Ok(server)
    }

    /// A path below the directory that it was started in.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Its standard input; taken once.
    pub fn stdin(&mut self) -> io::Result<ChildStdin> {
        self.child.stdin.take().ok_or_else(|| io::Error::other("standard input was taken before"))
    }

    /// A file below the directory that it was started in, when it is there.
    pub fn wait_for_file(&mut self, name: &str) -> io::Result<PathBuf> {
        let path = self.directory.join(name);
        self.wait_until(&format!("has made {name}"), |_| Ok(path.exists()))?;
        Ok(path)
    }

    /// Processor time of all its threads.
    pub fn cpu(&self) -> io::Result<Duration> {
        cpu_of(self.child.id())
    }

    /// Processor time of itself and of every process that it has started and that still runs.
    pub fn family_cpu(&self) -> io::Result<Duration> {
        family(self.child.id())?.into_iter().map(cpu_of).sum()
    }

    /// Clock ticks in user space and in the kernel: coarse, but they say on whose side the time goes.
    pub fn ticks(&self) -> io::Result<Ticks> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in parentheses may hold anything; utime and stime are the 12th and 13th field behind it.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let figures: Option<Vec<f64>> = fields.split(' ').skip(12).take(2).map(|field| field.parse().ok()).collect();
        match figures.as_deref() {
            Some(&[user, system]) => Ok(Ticks { user, system }),
            _ => Err(io::Error::other("stat without figures")),
        }
    }

    /// Anonymous resident memory: heap and stacks, not the program's own pages.
    pub fn anonymous_bytes(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kibibytes.ok_or_else(|| io::Error::other("no RssAnon in status"))? * 1024)
    }

    /// A figure of the server, once it has not changed for a fifth of a second.
    pub fn settled(&mut self, figure: fn(&Self) -> io::Result<u64>) -> io::Result<u64> {
        let (mut last, mut since) = (figure(self)?, Instant::now());
        self.wait_until("has settled", |server| {
            let now = figure(server)?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
            Ok(since.elapsed() > Duration::from_millis(200))
        })?;
        Ok(last)
    }

    /// Waits until it has `bytes` of anonymous memory.
    pub fn wait_until_it_holds(&mut self, bytes: u64) -> io::Result<()> {
        self.wait_until(&format!("holds {bytes} bytes"), |server| Ok(server.anonymous_bytes()? >= bytes))
    }

    /// Its share of the memory of itself and of everything that it has started, shared pages divided.
    pub fn family_bytes(&self) -> io::Result<u64> {
        let mut total = 0;
        for pid in family(self.child.id())? {
            // A process that ended while we looked holds nothing.
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            total += line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(total * 1024)
    }

    /// Asks it to end, and waits for that.
    pub fn stop(mut self) -> io::Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("TERM did not end it: {}", self.log_end())));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn wait_until_it_accepts(&mut self, listens: Listens<'_>) -> io::Result<()> {
        self.wait_until("accepts connections", |server| {
            Ok(match listens {
                Listens::Tcp => TcpStream::connect(server.address).is_ok(),
                Listens::Unix(name) => UnixStream::connect(server.path(name)).is_ok(),
            })
        })
    }

    fn wait_until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> io::Result<bool>) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self)? {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("it ended ({status}): {}", self.log_end())));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("no sign that it {what}: {}", self.log_end())));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked first: one that has started others ends them. It may have ended by itself, and about an error nothing is left to be done.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + PATIENCE_AT_THE_END;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK_AGAIN);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// An address that was free a moment ago.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn cpu_of(pid: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let schedule = fs::read_to_string(thread?.path().join("schedstat"))?;
        let ran = schedule.split(' ').next().and_then(|ran| ran.parse::<u64>().ok());
        nanoseconds += ran.ok_or_else(|| io::Error::other("schedstat without figures"))?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// A process and all its descendants.
fn family(root: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in parentheses may hold anything; state and parent follow the last of them.
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(2)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut members = vec![root];
    let mut looked_at = 0;
    while let Some(&member) = members.get(looked_at) {
        members.extend(parents.iter().filter(|(_, parent)| *parent == member).map(|(pid, _)| *pid));
        looked_at += 1;
    }
    Ok(members)
}
