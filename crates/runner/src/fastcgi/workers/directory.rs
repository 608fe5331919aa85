//! Where the sockets of workers are: a private directory, removed at the end, and if that end was a KILL, by the next start:
//! a directory is in use for as long as its server holds an exclusive `flock` on it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::pool::WorkerId;

/// The address of a Unix socket is at most so long.
const MAX_PATH_BYTES: usize = 107;

/// What the name of such a directory begins with; 16 hexadecimal digits follow.
const PREFIX: &str = "wootz-workers-";

/// A younger directory may belong to a server that has made it and not locked it yet.
const LEFT_AFTER: Duration = Duration::from_secs(10);

/// Connections that wait for a worker. It has one call at a time; the others were given up before it took them.
const BACKLOG: i32 = 8;

/// Who may connect to the sockets besides the server, as the workers run as somebody else.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
}

/// A directory of sockets.
#[derive(Debug)]
pub(super) struct SocketDirectory {
    path: PathBuf,
    owner: Owner,
    /// Says for as long as it is open that the directory is in use.
    _lock: OwnedFd,
}

impl SocketDirectory {
    /// A new one in `$RUNTIME_DIRECTORY`, or else where temporary files are.
    ///
    /// # Errors
    /// It can't be made, or its path is too long for a socket.
    pub(super) fn new(owner: Owner) -> io::Result<Self> {
        let systems = std::env::var_os("RUNTIME_DIRECTORY").filter(|path| !path.is_empty());
        // systemd separates several by colons.
        let first = systems.map(|paths| PathBuf::from(OsString::from(first_of(&paths))));
        Self::within(&first.unwrap_or_else(std::env::temp_dir), owner)
    }

    fn within(parent: &Path, owner: Owner) -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let parent = std::path::absolute(parent)?;
        remove_left(&parent);
        let path = parent.join(format!("{PREFIX}{:016x}", u64::from_ne_bytes(random)));
        // Room for the name of any socket: 20 digits and ".sock".
        if path.as_os_str().len() + 26 > MAX_PATH_BYTES {
            let reason = format!("{} is too long a path for sockets (RUNTIME_DIRECTORY, TMPDIR)", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidFilename, reason));
        }
        let of_path = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        DirBuilder::new().mode(0o700).create(&path).map_err(of_path)?;
        let lock = lock(&path).map_err(of_path)?;
        let directory = Self { path, owner, _lock: lock };
        if directory.is_for_others() {
            // They may go to the sockets that they know, and list nothing.
            fs::set_permissions(&directory.path, Permissions::from_mode(0o711))?;
        }
        Ok(directory)
    }

    fn is_for_others(&self) -> bool {
        self.owner.user.is_some() || self.owner.group.is_some()
    }

    /// A listening socket for a worker: nobody but the server and the worker's user may connect.
    pub(super) fn listen(&self, worker: WorkerId) -> io::Result<(Socket, UnixListener)> {
        let socket = Socket(self.path.join(format!("{worker}.sock")));
        let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::bind(&listener, &rustix::net::SocketAddrUnix::new(&socket.0)?)?;
        // Before it listens, so that nobody can have connected under other rights.
        fs::set_permissions(&socket.0, Permissions::from_mode(0o600))?;
        if self.is_for_others() {
            chown(&socket.0, self.owner.user, self.owner.group)?;
        }
        rustix::net::listen(&listener, BACKLOG)?;
        Ok((socket, listener.into()))
    }
}

impl Drop for SocketDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(directory = %self.path.display(), %error, "the directory of the workers' sockets is left");
        }
    }
}

fn lock(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let descriptor = rustix::fs::open(directory, flags, Mode::empty())?;
    rustix::fs::flock(&descriptor, FlockOperation::NonBlockingLockExclusive)?;
    Ok(descriptor)
}

/// Removes the directories that servers of this user left when they were killed. What can't be looked at or removed stays.
fn remove_left(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for path in entries.flatten().filter(|entry| is_name_of_ours(&entry.file_name())).map(|entry| entry.path()) {
        let Ok(seen) = fs::symlink_metadata(&path) else { continue };
        let ours = seen.is_dir() && seen.uid() == rustix::process::geteuid().as_raw();
        let old = seen.modified().ok().and_then(|made| made.elapsed().ok()).is_some_and(|age| age > LEFT_AFTER);
        if ours && old && lock(&path).is_ok() {
            tracing::info!(directory = %path.display(), "removed the workers' sockets that a killed server left");
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn is_name_of_ours(name: &OsStr) -> bool {
    let digits = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
    digits.is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The file of a socket, removed when this is dropped.
#[derive(Debug)]
pub(super) struct Socket(PathBuf);

impl Socket {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It may be gone already, with its directory.
        let _ = fs::remove_file(&self.0);
    }
}

fn first_of(paths: &OsString) -> &OsStr {
    let bytes = paths.as_bytes();
    let end = memchr::memchr(b':', bytes).unwrap_or(bytes.len());
    OsStr::from_bytes(&bytes[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY_ELSE: Owner = Owner { user: None, group: None };

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn sockets_are_private_and_leave_with_their_directory() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = SocketDirectory::within(parent.path(), NOBODY_ELSE).expect("made");
        let (socket, _listener) = directory.listen(7).expect("a socket");
        assert_eq!((mode(&directory.path), mode(socket.path())), (0o700, 0o600));
        let path = socket.path().to_owned();
        drop(socket);
        assert!(!path.exists());
        let _left = directory.listen(8).expect("another");
        drop(directory);
        assert_eq!(parent.path().read_dir().expect("readable").count(), 0);
    }

    #[test]
    fn what_a_killed_server_left_is_removed_and_what_lives_is_not() {
        let parent = tempfile::tempdir().expect("a directory");
        let make = |name: &str| {
            let path = parent.path().join(name);
            fs::create_dir(&path).expect("made");
            let old = fs::FileTimes::new().set_modified(std::time::SystemTime::now() - LEFT_AFTER * 2);
            fs::File::open(&path).and_then(|directory| directory.set_times(old)).expect("aged");
            path
        };
        let left = make("wootz-workers-0123456789abcdef");
        let living = make("wootz-workers-0123456789abcde0");
        let foreign = make("wootz-workers-of-somebody-else");
        let held = lock(&living).expect("locked");
        let own = SocketDirectory::within(parent.path(), NOBODY_ELSE).expect("made");
        assert_eq!([left.exists(), living.exists(), foreign.exists(), own.path.exists()], [false, true, true, true]);
        drop(held);
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_told() {
        let parent = PathBuf::from(format!("/tmp/{}", "x".repeat(90)));
        let error = SocketDirectory::within(&parent, NOBODY_ELSE).expect_err("too long");
        assert!(error.to_string().contains("too long a path"), "{error}");
    }
}
