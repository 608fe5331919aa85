//! The operator's socket: bound safely, with its mode and group, in place of one that an ended server left.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::Control;

/// Why the control socket can't be made. Each names the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another server answers there.
    #[error("control.socket {}: another wootz answers there; name another one with --socket", .0.display())]
    Served(PathBuf),
    /// Something that is no socket of ours is there.
    #[error("control.socket {}: there is something of that name that is not this user's socket, and it is not replaced", .0.display())]
    Foreign(PathBuf),
    /// The system refused.
    #[error("control.socket {}: {step}: {source}", path.display())]
    System {
        /// The path.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The bound socket; its name is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: StdListener,
    path: PathBuf,
    identity: (u64, u64),
}

impl ControlSocket {
    /// Binds the socket, in place of one that an ended server left.
    pub(crate) fn bind(control: &Control) -> Result<Self, ControlError> {
        let path = control.socket.clone();
        let failed = |step| {
            let path = path.clone();
            move |source: io::Error| ControlError::System { path, step, source }
        };
        remove_left_socket(&path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(failed("making it"))?;
        let address = SockAddr::unix(&path).map_err(failed("its path"))?;
        socket.bind(&address).map_err(failed("binding it"))?;
        // Nobody can connect before `listen`, so nobody gets in before the mode is set.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(control.mode))
            .map_err(failed("setting control.mode"))?;
        if control.group.is_some() {
            std::os::unix::fs::chown(&path, None, control.group).map_err(failed("giving it to control.group"))?;
        }
        socket.listen(128).map_err(failed("listening"))?;
        let seen = std::fs::symlink_metadata(&path).map_err(failed("looking at it"))?;
        Ok(Self { listener: socket.into(), identity: (seen.dev(), seen.ino()), path })
    }

    /// The listening socket, for the runtime that serves it.
    pub(super) fn listener(&self) -> io::Result<StdListener> {
        self.listener.try_clone()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let still_ours =
            std::fs::symlink_metadata(&self.path).is_ok_and(|seen| (seen.dev(), seen.ino()) == self.identity);
        if still_ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %error, "the control socket can't be removed");
        }
    }
}

fn remove_left_socket(path: &Path) -> Result<(), ControlError> {
    let Ok(seen) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !seen.file_type().is_socket() || seen.uid() != rustix::process::geteuid().as_raw() {
        return Err(ControlError::Foreign(path.to_owned()));
    }
    if StdStream::connect(path).is_ok() {
        return Err(ControlError::Served(path.to_owned()));
    }
    let removed = std::fs::remove_file(path);
    removed.map_err(|source| ControlError::System { path: path.to_owned(), step: "removing a left one", source })
}
