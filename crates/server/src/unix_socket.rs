//! Listening Unix sockets: made in place of one that an ended server left, never in place of a living or a foreign one, and their names removed
//! at the end.
//!
//! Looking, removing and binding are done under a lock on the directory, so that two servers that start at once can't remove each other's.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use socket2::{Domain, SockAddr, Socket, Type};

/// How long another server's start is waited for; it takes some system calls.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Where a socket is made, and who may open it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The setting that names it, for errors.
    pub(crate) setting: &'static str,
    pub(crate) path: &'a Path,
    /// Permission bits.
    pub(crate) mode: u32,
    /// `None`: the server's own.
    pub(crate) group: Option<u32>,
    /// Connections that may wait to be accepted.
    pub(crate) backlog: i32,
}

/// Why a Unix socket can't be made. Each names the setting, the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum UnixSocketError {
    /// Another server answers there.
    #[error("{setting} {}: another server answers there; name another one", path.display())]
    Served {
        /// The setting that names the place.
        setting: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// Something that is no socket of ours is there.
    #[error("{setting} {}: there is something of that name that is not this user's socket, and it is not replaced", path.display())]
    Foreign {
        /// The setting that names the place.
        setting: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{setting} {}: {step}: {source}", path.display())]
    System {
        /// The setting that names the place.
        setting: &'static str,
        /// The path.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The name of a socket of ours; it is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Open, so that no file made later, by a server that took the name over, can have the same number.
    file: OwnedFd,
}

/// Makes the socket, in place of one that an ended server left. It does not block.
pub(crate) fn bind(place: &Place<'_>) -> Result<(UnixListener, SocketFile), UnixSocketError> {
    let path = place.path;
    let failed = |step| {
        move |source: io::Error| UnixSocketError::System { setting: place.setting, path: path.to_owned(), step, source }
    };
    let _lock = lock_directory(path);
    remove_left_socket(place)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(failed("making it"))?;
    let address = SockAddr::unix(path).map_err(failed("its path"))?;
    socket.bind(&address).map_err(failed("binding it"))?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed("looking at it")(error.into()))?;
    let file = SocketFile { path: path.to_owned(), file };
    // Nobody can connect before `listen`, so nobody gets in before the mode is set.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(place.mode)).map_err(failed("setting its mode"))?;
    if place.group.is_some() {
        std::os::unix::fs::chown(path, None, place.group).map_err(failed("giving it to its group"))?;
    }
    socket.listen(place.backlog).map_err(failed("listening"))?;
    Ok((socket.into(), file))
}

/// A lock on the socket's directory, held until it is dropped. `None`: the directory can't be opened or somebody holds it for long; binding is
/// then as safe as without.
fn lock_directory(path: &Path) -> Option<File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = File::open(parent).ok()?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    while let Err(error) = rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK || Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(directory)
}

fn remove_left_socket(place: &Place<'_>) -> Result<(), UnixSocketError> {
    let (setting, path) = (place.setting, place.path);
    let Ok(seen) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let foreign = || UnixSocketError::Foreign { setting, path: path.to_owned() };
    if !seen.file_type().is_socket() || seen.uid() != rustix::process::geteuid().as_raw() {
        return Err(foreign());
    }
    let system = |step| move |source| UnixSocketError::System { setting, path: path.to_owned(), step, source };
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(system("looking at it"))?;
    let address = SockAddr::unix(path).map_err(system("its path"))?;
    match probe.connect(&address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Nobody but a living server has a full queue.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(UnixSocketError::Served { setting, path: path.to_owned() });
        }
        Ok(()) => return Err(UnixSocketError::Served { setting, path: path.to_owned() }),
        Err(_) => return Err(foreign()),
    }
    std::fs::remove_file(path).map_err(system("removing a left one"))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let still_ours = rustix::fs::fstat(&self.file).is_ok_and(|ours| {
            std::fs::symlink_metadata(&self.path)
                .is_ok_and(|seen| (seen.dev(), seen.ino()) == (ours.st_dev, ours.st_ino))
        });
        if still_ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %error, "the socket can't be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind_at(path: &Path) -> Result<(UnixListener, SocketFile), UnixSocketError> {
        bind(&Place { setting: "listen.address", path, mode: 0o640, group: None, backlog: 1 })
    }

    #[test]
    fn socket_that_an_ended_server_left_is_replaced_and_its_name_goes_with_the_new_one() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("s");
        drop(UnixListener::bind(&path).expect("a free name"));
        let (_listener, file) = bind_at(&path).expect("nobody listens there");
        assert_eq!(std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o640);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn living_socket_is_never_replaced_also_when_its_queue_is_full() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("s");
        let (_listener, _file) = bind_at(&path).expect("a free name");
        // Each look waits in the queue of the one that never accepts.
        for _ in 0..4 {
            assert!(matches!(bind_at(&path), Err(UnixSocketError::Served { .. })));
        }
        assert!(path.exists());
    }

    #[test]
    fn what_is_no_stream_socket_of_ours_is_never_replaced() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (file, link, datagrams) =
            (directory.path().join("f"), directory.path().join("l"), directory.path().join("d"));
        std::fs::write(&file, "mine").expect("a file");
        std::os::unix::fs::symlink("nowhere", &link).expect("a link");
        let _socket = std::os::unix::net::UnixDatagram::bind(&datagrams).expect("a free name");
        for path in [file, link, datagrams] {
            assert!(matches!(bind_at(&path), Err(UnixSocketError::Foreign { .. })), "{}", path.display());
            assert!(path.symlink_metadata().is_ok());
        }
    }

    #[test]
    fn name_that_somebody_else_has_taken_since_is_left_alone() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("s");
        let (listener, file) = bind_at(&path).expect("a free name");
        drop(listener);
        std::fs::remove_file(&path).expect("it is there");
        let _other = UnixListener::bind(&path).expect("a free name");
        drop(file);
        assert!(path.exists());
    }
}
