//! Where the control socket is. Server and commands ask the same function, so that they meet.

use std::path::{Path, PathBuf};

use super::Environment;
use crate::settings::Settings;

/// Its name in a directory.
const NAME: &str = "wootz.sock";

/// Longest path that fits into the kernel's address of a Unix socket, with its final NUL (unix(7)).
const LONGEST: usize = 107;

/// The path that was written, else `wootz.sock` in systemd's `RuntimeDirectory=`, the user's own, or this directory.
/// Absolute, since calls get it too and run somewhere else.
pub(crate) fn control_socket(settings: &Settings, environment: Environment<'_>) -> PathBuf {
    let path = match settings.text("control.socket") {
        "" => default_directory(environment).join(NAME),
        path => PathBuf::from(path),
    };
    std::path::absolute(&path).unwrap_or(path)
}

fn default_directory(environment: Environment<'_>) -> PathBuf {
    // A directory that is named but not there (XDG_RUNTIME_DIR after `su`) is as good as none.
    let first =
        |name| environment(name).and_then(|list| std::env::split_paths(&list).next()).filter(|path| path.is_dir());
    // systemd writes several directories with colons between them; the first is the unit's main one.
    first("RUNTIME_DIRECTORY").or_else(|| first("XDG_RUNTIME_DIR")).unwrap_or_default()
}

/// Whether a socket can be made there at all.
pub(super) fn check(socket: &Path) -> Result<(), String> {
    let length = socket.as_os_str().len();
    if length > LONGEST {
        return Err(format!(
            "is too long for a Unix socket: {} has {length} bytes of at most {LONGEST}",
            socket.display()
        ));
    }
    let directory = socket.parent().unwrap_or(Path::new("/"));
    if !directory.is_dir() {
        return Err(format!("can't be made: {} is no directory", directory.display()));
    }
    Ok(())
}
