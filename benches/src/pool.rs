//! A php-fpm of our own: four workers, a socket, one script.

use std::io;
use std::path::{Path, PathBuf};

use crate::server::{Launch, Listens, Server};

/// Workers of the pool: as many calls as can run at once.
pub const WORKERS: usize = 4;

const SOCKET: &str = "fpm.sock";
const SCRIPT: &str = "index.php";

/// A running pool. It ends when dropped.
pub struct Pool {
    server: Server,
}

impl Pool {
    /// Starts it on this core, with a script that does `code`.
    pub fn start(php_fpm: &Path, core: usize, code: &str) -> io::Result<Self> {
        // Started as another user it neither can nor must become one.
        let user = if rustix::process::geteuid().is_root() { "user = www-data\ngroup = www-data\n" } else { "" };
        let configuration = format!(
            "[global]\nerror_log = {{directory}}/fpm.log\ndaemonize = no\n\
             [pool]\n{user}listen = {{directory}}/{SOCKET}\nlisten.mode = 0666\npm = static\npm.max_children = {WORKERS}\n"
        );
        let server = Server::launch(&Launch {
            program: php_fpm,
            arguments: &["--nodaemonize", "--fpm-config", "{directory}/fpm.conf"],
            core,
            files: &[("fpm.conf", &configuration), (SCRIPT, &format!("<?php {code}"))],
            listens: Listens::Unix(SOCKET),
        })?;
        Ok(Self { server })
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.server.path(SOCKET)
    }

    /// The script that it runs.
    pub fn script(&self) -> PathBuf {
        self.server.path(SCRIPT)
    }
}
