//! Where a server listens.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// One place where browsers, or the proxy before them, connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An IP address with a port; port 0 takes a free one. TLS is spoken there, where it is set.
    Tcp(SocketAddr),
    /// The same, without TLS also where it is set: for a proxy that ends TLS itself.
    Plain(SocketAddr),
    /// A Unix socket, made at this path. Who connects there is a proxy of this machine, and trusted.
    Unix(PathBuf),
    /// The sockets that the service manager handed over: [`Listen::inherited`](crate::config::Listen::inherited).
    Systemd,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// As it is written: `127.0.0.1:8888`, `plain:127.0.0.1:8889`, `unix:/run/wootz.ws`, `systemd`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Plain(address) => write!(f, "plain:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd => f.write_str("systemd"),
        }
    }
}
