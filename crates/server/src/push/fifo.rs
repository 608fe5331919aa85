//! FIFOs in the push directory: made safely, taken over safely, removed safely.
//!
//! All work goes through a descriptor of the directory, so renaming it or putting a link in its place changes nothing.
//! A FIFO is ours while we hold an exclusive `flock` on it: that is how a second server, and a server after a crash, tell a
//! living pipe from a left one. Nothing that is not our own FIFO is ever opened for reading, replaced or removed.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use tokio::net::unix::pipe::Receiver;

use crate::config::Pipes;

/// Name of the pipe whose records go to everybody.
pub(crate) const GLOBAL_NAME: &str = "global_pipe.fifo";

/// What every pipe's name ends in.
const SUFFIX: &str = ".fifo";

/// Longest file name that Linux file systems take.
const MAX_NAME_BYTES: usize = 255;

/// Why a pipe, or the directory of the pipes, can't be used. Each names the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum FifoError {
    /// The directory can't be made, or can't be opened.
    #[error("pipes.directory {}: {source}; make it writable for the server, or name another one", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something else has the pipe's name.
    #[error("{}: there is {what} of that name, and it is not replaced; move it away, or name another pipes.directory", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// Another server holds the pipe.
    #[error("{}: another wootz serves this pipe; name another pipes.directory for one of the two", path.display())]
    Served {
        /// The path.
        path: PathBuf,
    },
    /// The user's id and address make no file name.
    #[error("no pipe for this connection: its name would have {bytes} bytes, and file names end at {MAX_NAME_BYTES}")]
    NameTooLong {
        /// How long it would be.
        bytes: usize,
    },
    /// The system refused a step.
    #[error("{}: {step}: {source}", path.display())]
    System {
        /// The path.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The opened push directory.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    descriptor: Arc<OwnedFd>,
    settings: Arc<Pipes>,
}

/// One FIFO of ours; its name is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Fifo {
    directory: Directory,
    name: String,
    identity: (u64, u64),
}

impl Directory {
    /// Opens the directory, makes it where it is missing, and removes the pipes that a server left which is gone.
    pub(crate) fn open(settings: Pipes) -> Result<Self, FifoError> {
        let directory = settings.directory.clone();
        let failed = |source: io::Error| FifoError::Directory { directory: directory.clone(), source };
        make_directory(&directory).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = fs::open(&directory, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        fs::accessat(&descriptor, ".", fs::Access::WRITE_OK | fs::Access::EXEC_OK, AtFlags::EACCESS)
            .map_err(|error| failed(error.into()))?;
        let opened = Self { descriptor: Arc::new(descriptor), settings: Arc::new(settings) };
        opened.remove_left_pipes();
        Ok(opened)
    }

    pub(crate) fn settings(&self) -> &Pipes {
        &self.settings
    }

    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.settings.directory.join(name)
    }

    /// Makes and opens the pipe of this name, or takes it over where a server that is gone left it.
    ///
    /// Must be called inside the runtime that will read it.
    pub(crate) fn create(&self, name: String) -> Result<(Fifo, Receiver), FifoError> {
        if name.len() > MAX_NAME_BYTES {
            return Err(FifoError::NameTooLong { bytes: name.len() });
        }
        let path = self.path_of(&name);
        let failed = |step| {
            let path = path.clone();
            move |error: Errno| FifoError::System { path, step, source: error.into() }
        };
        // Made closed to everybody else: the mode is widened when group and lock are in place.
        match fs::mknodat(&*self.descriptor, &name, FileType::Fifo, Mode::from_raw_mode(0o600), 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("making the pipe")(error)),
        }
        let (descriptor, identity) = self.open_own(&name)?;
        let fifo = Fifo { directory: self.clone(), name, identity };
        if let Some(group) = self.settings.group {
            let group = rustix::process::Gid::from_raw(group);
            fs::fchown(&descriptor, None, Some(group)).map_err(failed("giving it to pipes.group"))?;
        }
        fs::fchmod(&descriptor, Mode::from_raw_mode(self.settings.mode)).map_err(failed("setting pipes.mode"))?;
        let receiver = Receiver::from_owned_fd_unchecked(descriptor).map_err(|source| FifoError::System {
            path,
            step: "watching it",
            source,
        })?;
        Ok((fifo, receiver))
    }

    /// Opens what has this name if, and only if, it is a FIFO of ours that nobody serves.
    fn open_own(&self, name: &str) -> Result<(OwnedFd, (u64, u64)), FifoError> {
        let path = || self.path_of(name);
        let foreign = |what| FifoError::Foreign { path: path(), what };
        let failed = |step| move |error: Errno| FifoError::System { path: path(), step, source: error.into() };
        let seen = fs::statat(&*self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("looking at it"))?;
        ours(&seen).map_err(foreign)?;
        // Both ends: the pipe stays open for the next writer when the last one closes it, and opening never waits.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = fs::openat(&*self.descriptor, name, flags, Mode::empty()).map_err(failed("opening it"))?;
        // Between the look and the opening somebody may have put something else there.
        let opened = fs::fstat(&descriptor).map_err(failed("looking at it"))?;
        ours(&opened).map_err(foreign)?;
        match fs::flock(&descriptor, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok((descriptor, (opened.st_dev, opened.st_ino))),
            Err(Errno::WOULDBLOCK) => Err(FifoError::Served { path: path() }),
            Err(error) => Err(failed("locking it")(error)),
        }
    }

    /// Removes FIFOs of ours whose server is gone. What can't be read or removed stays; it harms nobody.
    fn remove_left_pipes(&self) {
        let Ok(entries) = fs::Dir::read_from(&*self.descriptor) else { return };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().to_str() else { continue };
            if is_name_of_ours(name)
                && let Ok((_descriptor, identity)) = self.open_own(name)
            {
                tracing::info!(pipe = name, "removed a pipe that an ended server left");
                drop(Fifo { directory: self.clone(), name: name.to_owned(), identity });
            }
        }
    }
}

impl Fifo {
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path_of(&self.name)
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        let directory = &*self.directory.descriptor;
        let still_ours = fs::statat(directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|seen| (seen.st_dev, seen.st_ino) == self.identity);
        if still_ours && let Err(error) = fs::unlinkat(directory, &self.name, AtFlags::empty()) {
            tracing::warn!(pipe = %self.path().display(), %error, "the pipe can't be removed");
        }
    }
}

/// The name of a connection's pipe: `<user>:<address>:<port>.fifo`, with `/` as `:` and `.` as `_`. A guest's user is empty. Over HTTP/2 several
/// have the same port: each has its stream's number behind it, `<user>:<address>:<port>-<stream>.fifo`.
pub(crate) fn request_pipe_name(user: &str, remote: std::net::SocketAddr, stream: Option<u32>) -> String {
    let stream = stream.map(|stream| format!("-{stream}")).unwrap_or_default();
    let text = format!("{user}:{}:{}{stream}", remote.ip(), remote.port());
    text.replace('/', ":").replace(['.', '\0'], "_") + SUFFIX
}

/// Whether a pipe of this name can have been made by wootz: only such a one is removed when its server is gone.
fn is_name_of_ours(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(SUFFIX) else { return false };
    let Some((rest, port)) = stem.rsplit_once(':') else { return name == GLOBAL_NAME };
    // An IPv6 address has colons of its own, so each colon may be the one before the address.
    let is_address = |text: &str| text.replace('_', ".").parse::<std::net::IpAddr>().is_ok();
    let (port, stream) = port.split_once('-').unwrap_or((port, "1"));
    port.parse::<u16>().is_ok()
        && stream.parse::<u32>().is_ok()
        && rest.match_indices(':').any(|(at, _)| is_address(&rest[at + 1..]))
}

fn ours(stat: &fs::Stat) -> Result<(), &'static str> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo if stat.st_uid != rustix::process::geteuid().as_raw() => Err("a pipe of another owner"),
        FileType::Fifo if stat.st_nlink > 1 => Err("a pipe with a second name"),
        FileType::Fifo => Ok(()),
        FileType::Symlink => Err("a symbolic link"),
        FileType::Directory => Err("a directory"),
        FileType::RegularFile => Err("a file"),
        FileType::Socket | FileType::BlockDevice | FileType::CharacterDevice | FileType::Unknown => {
            Err("something that is no pipe")
        }
    }
}

fn make_directory(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o770).create(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_we_make_are_ours_and_others_are_not() {
        for (user, remote) in
            [("42", "127.0.0.1:5000"), ("", "127.0.0.1:1"), ("a/b.c:d", "[2001:db8::1]:65535"), ("x", "[::1]:80")]
        {
            for stream in [None, Some(1), Some(u32::MAX)] {
                let name = request_pipe_name(user, remote.parse().expect("an address"), stream);
                assert!(is_name_of_ours(&name), "{name}");
                assert!(!name.contains('/') && !name.trim_end_matches(SUFFIX).contains('.'), "{name}");
            }
        }
        assert!(is_name_of_ours(GLOBAL_NAME));
        for name in [
            "backup.fifo",
            "a:b:5000.fifo",
            "127_0_0_1:5000.fifo",
            "1:127_0_0_1:x.fifo",
            "1:127_0_0_1:5000-.fifo",
            "1:127_0_0_1:5000-x.fifo",
            "1:127_0_0_1:5000",
            ".fifo",
            ":.fifo",
        ] {
            assert!(!is_name_of_ours(name), "{name}");
        }
    }
}
