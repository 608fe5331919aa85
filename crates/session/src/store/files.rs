//! PHP's session files. PHP holds an exclusive lock during a whole request and writes in place by cutting the file first, so
//! a file is read under a shared lock or not at all, and the lock is given back right after the read.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, StatxFlags, StatxTimestamp};
use rustix::io::Errno;
use tokio::time::Instant;

use super::{FilesSettings, Recheck, Record, StoreError, StoreOptions, Version, Versions};
use crate::SessionId;

/// How long after a failed attempt the lock is tried again: a page that is quick is not waited for long.
const LOCK_PAUSES_MS: [u64; 5] = [1, 2, 5, 10, 20];
/// A file that was written to this recently may be written to again without a new time, on file systems that count in
/// clock ticks or worse.
const SETTLED: Duration = Duration::from_millis(50);
/// After so many looks the thread is given to others: about a tenth of a millisecond.
const LOOKS_PER_TURN: usize = 64;

#[derive(Debug)]
pub(super) struct Files {
    settings: FilesSettings,
    max_age: Duration,
    max_bytes: usize,
    deadline: Duration,
    versions: Versions,
}

/// What the file system says about a file.
struct Seen {
    file_type: FileType,
    size: u64,
    inode: u64,
    links: u32,
    modified: StatxTimestamp,
}

impl Seen {
    const ASKED: StatxFlags = StatxFlags::TYPE
        .union(StatxFlags::SIZE)
        .union(StatxFlags::INO)
        .union(StatxFlags::NLINK)
        .union(StatxFlags::MTIME);

    fn at(path: &Path, flags: AtFlags) -> Result<Self, Errno> {
        rustix::fs::statx(CWD, path, flags, Self::ASKED).map(Self::from)
    }

    fn of(file: &OwnedFd) -> Result<Self, Errno> {
        rustix::fs::statx(file.as_fd(), "", AtFlags::EMPTY_PATH, Self::ASKED).map(Self::from)
    }

    /// How long ago it was written to. A time that lies ahead counts as now.
    fn age(&self, now: SystemTime) -> Duration {
        let seconds = Duration::from_secs(self.modified.tv_sec.try_into().unwrap_or(0));
        let modified = UNIX_EPOCH + seconds + Duration::from_nanos(self.modified.tv_nsec.into());
        now.duration_since(modified).unwrap_or_default()
    }
}

impl From<rustix::fs::Statx> for Seen {
    fn from(stat: rustix::fs::Statx) -> Self {
        Self {
            file_type: FileType::from_raw_mode(stat.stx_mode.into()),
            size: stat.stx_size,
            inode: stat.stx_ino,
            links: stat.stx_nlink,
            modified: stat.stx_mtime,
        }
    }
}

/// Whether there is nothing at a path. An id of the browser's may be longer than a file's name can be.
fn is_nowhere(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG)
}

/// What one attempt to read a file has found.
enum Attempt {
    Read(Record),
    Absent,
    /// PHP has the lock.
    Locked(OwnedFd),
}

impl Files {
    pub(super) fn new(settings: FilesSettings, options: &StoreOptions) -> Self {
        let StoreOptions { max_age, max_bytes, deadline, query: _ } = options;
        let (max_age, max_bytes, deadline) = (*max_age, *max_bytes, *deadline);
        Self { settings, max_age, max_bytes, deadline, versions: Versions::default() }
    }

    pub(super) async fn read(&self, id: &SessionId) -> Result<Option<Record>, StoreError> {
        let mut path = Vec::new();
        if !self.path(id, &mut path) {
            return Ok(None);
        }
        let path = Path::new(OsStr::from_bytes(&path));
        let deadline = Instant::now() + self.deadline;
        let mut pauses = LOCK_PAUSES_MS.into_iter();
        let mut pause = Duration::ZERO;
        let mut opened = None;
        loop {
            let attempt = match opened.take() {
                None => {
                    self.open(path).and_then(|file| file.map_or(Ok(Attempt::Absent), |file| self.read_locked(file)))?
                }
                Some(file) if self.is_still(&file, path)? => self.read_locked(file)?,
                // Destroyed while we waited for its lock, and perhaps made anew.
                Some(_) => continue,
            };
            match attempt {
                Attempt::Read(record) => return Ok(Some(record)),
                Attempt::Absent => return self.absent(),
                Attempt::Locked(_) if Instant::now() >= deadline => {
                    return Err(StoreError::Locked { place: self.place(), waited: self.deadline });
                }
                Attempt::Locked(file) => {
                    opened = Some(file);
                    pause = pauses.next().map_or(pause, Duration::from_millis);
                    tokio::time::sleep_until((Instant::now() + pause).min(deadline)).await;
                }
            }
        }
    }

    pub(super) async fn recheck(&self, known: &[(SessionId, Version)]) -> Result<Vec<Recheck>, StoreError> {
        let (mut found, mut path, mut directory_is_there) = (Vec::with_capacity(known.len()), Vec::new(), false);
        for turn in known.chunks(LOOKS_PER_TURN) {
            let now = SystemTime::now();
            for (id, version) in turn {
                let recheck = self.look_again(id, *version, now, &mut path);
                // A directory that is gone is not everybody's logout.
                if matches!(recheck, Recheck::Gone) && !directory_is_there {
                    self.absent()?;
                    directory_is_there = true;
                }
                found.push(recheck);
            }
            if found.len() < known.len() {
                tokio::task::yield_now().await;
            }
        }
        Ok(found)
    }

    fn look_again(&self, id: &SessionId, version: Version, now: SystemTime, path: &mut Vec<u8>) -> Recheck {
        if !self.path(id, path) {
            return Recheck::Gone;
        }
        let path = Path::new(OsStr::from_bytes(path));
        let seen = match Seen::at(path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(seen) => seen,
            Err(error) if is_nowhere(error) => return Recheck::Gone,
            Err(error) => return Recheck::Unreadable(self.failed(error)),
        };
        if seen.age(now) > self.max_age {
            return Recheck::Gone;
        }
        if version.is(self.version(&seen)) {
            return Recheck::Same;
        }
        let attempt = self.open(path).and_then(|file| file.map_or(Ok(Attempt::Absent), |file| self.read_locked(file)));
        match attempt {
            Ok(Attempt::Read(record)) => Recheck::of(Ok(Some(record)), version),
            Ok(Attempt::Absent) => Recheck::Gone,
            Ok(Attempt::Locked(_)) => {
                Recheck::Unreadable(StoreError::Locked { place: self.place(), waited: Duration::ZERO })
            }
            Err(error) => Recheck::Unreadable(error),
        }
    }

    /// Where PHP puts the session of this id: each level is a directory named by the next character. `false` where PHP
    /// refuses an id that is too short for its levels.
    fn path(&self, id: &SessionId, path: &mut Vec<u8>) -> bool {
        let (id, levels) = (id.as_str().as_bytes(), self.settings.levels);
        path.clear();
        path.extend_from_slice(self.settings.directory.as_os_str().as_bytes());
        for character in id.iter().take(levels) {
            path.extend_from_slice(&[b'/', *character]);
        }
        path.extend_from_slice(b"/sess_");
        path.extend_from_slice(id);
        id.len() > levels
    }

    /// Opens it without waiting for anybody and without following a link at its end.
    fn open(&self, path: &Path) -> Result<Option<OwnedFd>, StoreError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => Ok(Some(file)),
            Err(error) if is_nowhere(error) => Ok(None),
            Err(Errno::LOOP) => Err(self.not_a_file("a symbolic link")),
            Err(Errno::NXIO) => Err(self.not_a_file("a socket")),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Reads the file, if its lock can be had now.
    fn read_locked(&self, file: OwnedFd) -> Result<Attempt, StoreError> {
        self.bounded(&file)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(Attempt::Locked(file)),
            Err(error) => return Err(self.failed(error)),
        }
        // Only now nobody changes it any more.
        let seen = self.bounded(&file)?;
        let now = SystemTime::now();
        if seen.links == 0 || seen.age(now) > self.max_age {
            return Ok(Attempt::Absent);
        }
        let data = self.content(&file, seen.size)?;
        drop(file);
        let version = if seen.age(now) < SETTLED { Version::UNSETTLED } else { self.version(&seen) };
        Ok(Attempt::Read(Record { data, user: None, address: None, version }))
    }

    /// What it is, if it is a regular file of a bearable size.
    fn bounded(&self, file: &OwnedFd) -> Result<Seen, StoreError> {
        let seen = Seen::of(file).map_err(|error| self.failed(error))?;
        match seen.file_type {
            FileType::RegularFile => {}
            FileType::Directory => return Err(self.not_a_file("a directory")),
            FileType::Fifo => return Err(self.not_a_file("a FIFO")),
            _ => return Err(self.not_a_file("a device")),
        }
        if seen.size > self.max_bytes as u64 {
            return Err(StoreError::TooLarge { place: self.place(), bytes: seen.size, max_bytes: self.max_bytes });
        }
        Ok(seen)
    }

    fn content(&self, file: &OwnedFd, size: u64) -> Result<Bytes, StoreError> {
        // `bounded` has seen that it is at most max_bytes, which is a usize.
        let mut data = vec![0; size as usize];
        let mut length = 0;
        while length < data.len() {
            match rustix::io::pread(file, &mut data[length..], length as u64) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        data.truncate(length);
        Ok(Bytes::from(data))
    }

    /// Whether the path still leads to this file.
    fn is_still(&self, file: &OwnedFd, path: &Path) -> Result<bool, StoreError> {
        let opened = Seen::of(file).map_err(|error| self.failed(error))?;
        match Seen::at(path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok(named.inode == opened.inode && opened.links > 0),
            Err(error) if is_nowhere(error) => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn version(&self, seen: &Seen) -> Version {
        self.versions.of((seen.inode, seen.modified.tv_sec, seen.modified.tv_nsec, seen.size))
    }

    /// There is no such session, unless there is not even the directory.
    fn absent(&self) -> Result<Option<Record>, StoreError> {
        match Seen::at(&self.settings.directory, AtFlags::empty()) {
            Ok(seen) if seen.file_type == FileType::Directory => Ok(None),
            Ok(_) => Err(StoreError::Settings(format!(
                "{} is no directory; identity.session.store must name the directory that session_save_path() prints in the site",
                self.place()
            ))),
            Err(Errno::NOENT) => Err(StoreError::Settings(format!(
                "the directory {} does not exist; identity.session.store must name what session_save_path() prints in the site",
                self.place()
            ))),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn place(&self) -> String {
        self.settings.directory.display().to_string()
    }

    fn not_a_file(&self, what: &'static str) -> StoreError {
        StoreError::NotAFile { place: self.place(), what }
    }

    fn failed(&self, error: Errno) -> StoreError {
        let place = self.place();
        match error {
            Errno::ACCESS | Errno::PERM => StoreError::Denied(format!(
                "wootz runs as uid {} and may not read the sessions in {place}, which only PHP's own user (on Debian www-data) and root \
                 may; run wootz as that user (User= in its systemd unit), or let identity.session.store name another store",
                rustix::process::geteuid().as_raw()
            )),
            error => StoreError::Failed(format!(
                "reading a session in {place} (identity.session.store) failed: {}",
                io::Error::from(error)
            )),
        }
    }
}
