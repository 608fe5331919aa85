//! The system calls of the spawner that Rust has no safe word for: fork and exec, wait, signal dispositions.
//!
//! `unsafe` is allowed here because a process is made by `fork`, and nothing between `fork` and `execve` may allocate, lock or panic: the child
//! calls libc functions that are async-signal-safe on memory that was laid out before, and nothing else. The spawner has one thread.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use rustix::process::Pid;

use super::wire::{Answer, CallNumber, Ended, Start};
use super::{NewSession, ProcessLimits};
use crate::error::StartStep;

/// Puts every signal's disposition back to the default and blocks them all, so that neither a terminal nor a manager of services ends the
/// spawner before its server. A new process needs only an empty mask to be as if freshly logged in.
pub(super) fn block_all_signals() {
    // The kernel's `struct sigaction` in zeros: default disposition. By hand, because the C library hides two signals, which its
    // `posix_spawn` leaves ignored in every new process, so in this one.
    let default = [0u64; 8];
    let set_size = size_of::<u64>();
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: more zeros than the kernel reads; KILL and STOP are refused, which changes nothing.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null_mut::<u64>(), set_size) };
    }
    set_signal_mask(&full_mask());
}

/// What a child needs besides its request, laid out before the fork.
struct Plan<'p> {
    start: &'p Start<'p>,
    stdio: [RawFd; 3],
    report: RawFd,
    spawner: libc::pid_t,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    empty_mask: libc::sigset_t,
}

/// Forks; the child becomes the program, or reports the step that failed on `report` and exits with 127.
///
/// # Errors
/// The fork's own.
pub(super) fn start(start: &Start<'_>, stdio: &[OwnedFd; 3], report: BorrowedFd<'_>) -> io::Result<Pid> {
    let plan = Plan {
        start,
        stdio: [stdio[0].as_raw_fd(), stdio[1].as_raw_fd(), stdio[2].as_raw_fd()],
        report: report.as_raw_fd(),
        spawner: rustix::process::getpid().as_raw_nonzero().get(),
        arguments: pointers(&start.arguments),
        environment: pointers(&start.environment),
        empty_mask: empty_mask(),
    };
    // SAFETY: this process has one thread, so no lock is held by another; the child only runs `child`, which never returns.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => child(&plan),
        pid => {
            if start.session == NewSession::No {
                // The child does the same. Whoever comes first, the group is there before anybody signals it.
                // SAFETY: plain system call on our own child.
                unsafe { libc::setpgid(pid, pid) };
            }
            Ok(Pid::from_raw(pid).expect("fork gives the parent a positive pid"))
        }
    }
}

/// The pointers that `execve` wants: each string's, then null. Valid as long as the strings are.
fn pointers(strings: &[&CStr]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// All that happens between fork and exec. No allocation, no lock, no panic, no return.
fn child(plan: &Plan<'_>) -> ! {
    let (step, errno) = become_program(plan);
    let packet = Answer::Failed { call: plan.start.call, step, errno }.encode();
    send_report(plan.report, &packet);
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

/// Takes one step; -1 when it failed, with the reason in errno.
type Take = fn(&Plan<'_>) -> c_int;

/// Gives back what failed; success has no return.
fn become_program(plan: &Plan<'_>) -> (StartStep, c_int) {
    let steps: [(StartStep, Take); 8] = [
        (StartStep::Group, own_group),
        (StartStep::Descriptors, own_descriptors),
        (StartStep::Limits, own_limits),
        (StartStep::User, own_user),
        (StartStep::DeathSignal, die_with_spawner),
        (StartStep::Directory, own_directory),
        (StartStep::Group, own_signal_mask),
        (StartStep::Execute, execute),
    ];
    for (step, take) in steps {
        if take(plan) == -1 {
            return (step, last_errno());
        }
    }
    (StartStep::Execute, 0)
}

fn own_group(plan: &Plan<'_>) -> c_int {
    // SAFETY: plain system calls about this process.
    unsafe {
        match plan.start.session {
            NewSession::No => libc::setpgid(0, 0),
            NewSession::Yes => libc::setsid(),
        }
    }
}

/// The three pipes become 0, 1 and 2. They are above 2, because the spawner keeps 0, 1 and 2 open. Everything else goes at exec.
fn own_descriptors(plan: &Plan<'_>) -> c_int {
    for (target, &pipe) in (0..).zip(&plan.stdio) {
        // SAFETY: plain system call on descriptors of this process.
        if unsafe { libc::dup2(pipe, target) } == -1 {
            return -1;
        }
    }
    // All descriptors of the spawner are close-on-exec already; this holds even if one day one is not. Older kernels refuse it.
    // SAFETY: plain system call on descriptors of this process; CLOEXEC, because the report's is still needed.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    0
}

fn own_limits(plan: &Plan<'_>) -> c_int {
    let ProcessLimits { memory_bytes, cpu_seconds, processes, open_files } = plan.start.limits;
    // One second between soft and hard: the program dies by SIGXCPU, which says why, and by KILL if it ignores that.
    let limits = [
        (libc::RLIMIT_CPU, cpu_seconds, 1),
        (libc::RLIMIT_NPROC, processes, 0),
        (libc::RLIMIT_NOFILE, open_files, 0),
        (libc::RLIMIT_AS, memory_bytes, 0),
    ];
    for (resource, soft, more) in limits {
        let Some(soft) = soft else { continue };
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: soft.saturating_add(more) };
        // SAFETY: `limit` is a valid rlimit for the time of the call.
        if unsafe { libc::setrlimit(resource, &limit) } == -1 {
            return -1;
        }
    }
    0
}

/// Groups first: they can't be changed any more once the user is.
fn own_user(plan: &Plan<'_>) -> c_int {
    let Start { user, group, groups, .. } = plan.start;
    if user.is_none() && group.is_none() {
        return 0;
    }
    // SAFETY: plain system calls about this process; `groups` is as long as it says.
    unsafe {
        if libc::setgroups(groups.len(), groups.as_ptr()) == -1 {
            return -1;
        }
        if let Some(group) = *group
            && libc::setgid(group) == -1
        {
            return -1;
        }
        match *user {
            Some(user) => libc::setuid(user),
            None => 0,
        }
    }
}

/// After the change of user, which would take it off again.
fn die_with_spawner(plan: &Plan<'_>) -> c_int {
    // SAFETY: plain system calls about this process.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
            return -1;
        }
        if libc::getppid() != plan.spawner {
            // It died before the line above: nobody is there for a report.
            libc::_exit(127);
        }
    }
    0
}

fn own_directory(plan: &Plan<'_>) -> c_int {
    // SAFETY: a C string that outlives the call.
    unsafe { libc::chdir(plan.start.directory.as_ptr()) }
}

fn own_signal_mask(plan: &Plan<'_>) -> c_int {
    set_signal_mask(&plan.empty_mask);
    0
}

fn execute(plan: &Plan<'_>) -> c_int {
    // SAFETY: both arrays end with null and point to C strings inside the request, which outlives the call.
    unsafe { libc::execve(plan.start.program.as_ptr(), plan.arguments.as_ptr(), plan.environment.as_ptr()) }
}

/// Sends the report, waiting for room if need be; when the other side is gone there is nobody to tell.
fn send_report(socket: RawFd, packet: &[u8]) {
    loop {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: `packet` is as long as it says.
        let sent = unsafe { libc::send(socket, packet.as_ptr().cast(), packet.len(), flags) };
        if sent != -1 || !matches!(last_errno(), libc::EAGAIN | libc::EINTR) {
            return;
        }
        let mut room = libc::pollfd { fd: socket, events: libc::POLLOUT, revents: 0 };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&mut room, 1, -1) };
    }
}

fn last_errno() -> c_int {
    // SAFETY: the address of this thread's errno is always valid.
    unsafe { *libc::__errno_location() }
}

fn full_mask() -> libc::sigset_t {
    let mut mask = empty_mask();
    // SAFETY: an initialised set.
    unsafe { libc::sigfillset(&mut mask) };
    mask
}

fn empty_mask() -> libc::sigset_t {
    let mut mask = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set, and can't fail on a valid address.
    unsafe {
        libc::sigemptyset(mask.as_mut_ptr());
        mask.assume_init()
    }
}

fn set_signal_mask(mask: &libc::sigset_t) {
    // SAFETY: an initialised set; SETMASK with it can't fail.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, mask, ptr::null_mut()) };
}

/// A process that has ended and was not reaped yet: as long as it is not, nobody else gets its number or its group's.
pub(super) fn ended_child() -> Option<(Pid, Ended)> {
    // By hand, because a signal without a name (real time) is an error to the safe wrappers.
    // SAFETY: siginfo_t is plain data, for which zero is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is a valid place for the answer.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &mut info, options) };
    if result == -1 {
        return None;
    }
    // SAFETY: waitid filled these fields in, or left them 0.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let ended = if info.si_code == libc::CLD_EXITED { Ended::Exit(status) } else { Ended::Signal(status) };
    Some((Pid::from_raw(pid)?, ended))
}

/// Reaps one ended child.
pub(super) fn reap(pid: Pid) {
    // SAFETY: plain system call; the status is not wanted.
    unsafe { libc::waitpid(pid.as_raw_nonzero().get(), ptr::null_mut(), libc::WNOHANG) };
}

/// Reaps what has ended of a group, and says whether a living child of ours is left in it. As long as one is, the group's number is taken,
/// and because nobody but this thread reaps, it stays so until the next call of a function of this file.
pub(super) fn group_has_children(group: Pid) -> bool {
    loop {
        // SAFETY: plain system call; the status is not wanted.
        match unsafe { libc::waitpid(-group.as_raw_nonzero().get(), ptr::null_mut(), libc::WNOHANG) } {
            0 => return true,
            -1 if last_errno() == libc::EINTR => {}
            -1 => return false,
            _reaped => {}
        }
    }
}

/// What a call's packets carry when the fork itself failed.
pub(super) fn fork_failed(call: CallNumber, error: &io::Error) -> Answer {
    Answer::Failed { call, step: StartStep::Fork, errno: error.raw_os_error().unwrap_or(0) }
}
