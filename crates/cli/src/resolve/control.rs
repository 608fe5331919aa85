//! Where the control socket is. Server and commands ask the same function, so that they meet.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use wootz_server::config::{HttpDoor, Secret};

use super::{Environment, Resolver};
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

/// A shorter token could be guessed.
const SHORTEST_TOKEN: usize = 16;

/// Permission bits that let others than owner and group in.
const OTHERS: u32 = 0o007;

impl Resolver<'_> {
    /// The API by TCP. An address and a token need each other.
    pub(super) fn http_door(&mut self) -> Option<HttpDoor> {
        let (address, file) = (self.settings.text("control.http_address"), self.settings.text("control.token_file"));
        let (address, file) = match (address, file) {
            ("", "") => return None,
            (_, "") => {
                self.problem("control.http_address", "needs control.token_file: whoever knows the address could push");
                return None;
            }
            ("", _) => {
                self.problem("control.token_file", "is for control.http_address, which is empty");
                return None;
            }
            given => given,
        };
        let token = read_token(Path::new(file)).map_err(|why| self.problem("control.token_file", &why)).ok();
        let address: Option<SocketAddr> = address.parse().ok();
        if address.is_none() {
            self.problem("control.http_address", "is an address with a port, such as 127.0.0.1:8889 or [::1]:8889");
        }
        Some(HttpDoor { address: address?, token: token? })
    }
}

/// The first line of a file that nobody else can read.
fn read_token(file: &Path) -> Result<Secret, String> {
    let shown = file.display();
    let failed = |error: std::io::Error| format!("can't be read: {shown}: {error}");
    let mode = std::fs::metadata(file).map_err(failed)?.permissions().mode();
    if mode & OTHERS != 0 {
        return Err(format!("is open to everybody: {shown} has mode {:04o}; chmod 600 {shown}", mode & 0o7777));
    }
    let text = std::fs::read_to_string(file).map_err(failed)?;
    let token = text.trim();
    if token.len() < SHORTEST_TOKEN || token.contains(|c: char| !c.is_ascii_graphic()) {
        return Err(format!(
            "has no token: {shown} holds one line of at least {SHORTEST_TOKEN} letters, digits and signs (openssl rand -hex 32)"
        ));
    }
    Ok(Secret::new(token))
}
