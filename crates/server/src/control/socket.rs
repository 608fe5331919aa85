//! The operator's socket: bound safely, with its mode and group, in place of one that an ended server left.

use std::io;
use std::os::unix::net::UnixListener as StdListener;

use crate::config::Control;
use crate::unix_socket::{self, Place, SocketFile, UnixSocketError};

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 128;

/// The bound socket; its name is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: StdListener,
    _file: SocketFile,
}

impl ControlSocket {
    /// Binds the socket, in place of one that an ended server left.
    pub(crate) fn bind(control: &Control) -> Result<Self, UnixSocketError> {
        let (mode, group) = (control.mode, control.group);
        let place = Place { setting: "control.socket", path: &control.socket, mode, group, backlog: BACKLOG };
        let (listener, file) = unix_socket::bind(&place)?;
        Ok(Self { listener, _file: file })
    }

    /// The listening socket, for the runtime that serves it.
    pub(super) fn listener(&self) -> io::Result<StdListener> {
        self.listener.try_clone()
    }
}
