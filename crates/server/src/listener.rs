//! 1 · accept: one listening socket per shard on one port, so that the kernel shares connections out and no thread waits
//! for another.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Listen, PortTaken};

/// Connections that may wait to be accepted, per shard.
const BACKLOG: i32 = 4096;

/// Ports that are tried after the wanted one, where that is asked for.
const PORTS_TO_TRY: u16 = 100;

/// How long accepting rests when descriptors are used up.
const REST: Duration = Duration::from_millis(100);

/// How often the log says so.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Why the server can't listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error("{address} is in use; stop what listens there, choose another --listen, or use --auto-port")]
    AddressInUse {
        /// The wanted address.
        address: SocketAddr,
    },
    /// Somebody else listens where the operator's API is to be served.
    #[error("control.http_address {address} is in use; stop what listens there, or name another address")]
    DoorInUse {
        /// The wanted address.
        address: SocketAddr,
    },
    /// The wanted port and the hundred after it are taken.
    #[error("{address} and the {PORTS_TO_TRY} ports after it are in use")]
    NoFreePort {
        /// The wanted address.
        address: SocketAddr,
    },
    /// The system refused.
    #[error("listening on {address}: {source}")]
    System {
        /// The wanted address.
        address: SocketAddr,
        /// What it said.
        source: io::Error,
    },
}

/// Binds one listener per shard.
pub(crate) fn bind(listen: &Listen) -> Result<Vec<TcpListener>, ListenError> {
    let first = listen.address.port();
    let last = match listen.port_taken {
        PortTaken::Refuse => first,
        PortTaken::TryNext => first.saturating_add(PORTS_TO_TRY),
    };
    for port in first..=last {
        let address = SocketAddr::new(listen.address.ip(), port);
        match bind_shards(address, listen.shards) {
            Ok(listeners) => return Ok(listeners),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => return Err(ListenError::System { address, source }),
        }
    }
    Err(match listen.port_taken {
        PortTaken::Refuse => ListenError::AddressInUse { address: listen.address },
        PortTaken::TryNext => ListenError::NoFreePort { address: listen.address },
    })
}

fn bind_shards(address: SocketAddr, shards: usize) -> io::Result<Vec<TcpListener>> {
    if address.port() != 0 {
        // SO_REUSEPORT would let a second server of the same user share the port in silence: look first, without it.
        drop(bind_socket(address, PortSharing::No)?);
    }
    let first = bind_socket(address, PortSharing::Yes)?;
    let bound = first.local_addr()?.as_socket().unwrap_or(address);
    let mut listeners = vec![first];
    for _ in 1..shards {
        listeners.push(bind_socket(bound, PortSharing::Yes)?);
    }
    listeners.into_iter().map(|socket| socket.listen(BACKLOG).map(|()| socket.into())).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PortSharing {
    Yes,
    No,
}

fn bind_socket(address: SocketAddr, sharing: PortSharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(sharing == PortSharing::Yes)?;
    // Inherited by every accepted socket: replies are small, and leave as soon as they are written.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What happens when `accept` fails: a rest where descriptors are used up, and a word in the log now and then.
#[derive(Debug, Default)]
pub(crate) struct AcceptTrouble {
    said: Option<Instant>,
}

impl AcceptTrouble {
    pub(crate) async fn wait_after(&mut self, error: &io::Error) {
        use rustix::io::Errno;
        let errno = Errno::from_io_error(error);
        let used_up = matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM));
        if self.said.is_none_or(|said| said.elapsed() > SAY_EVERY) && used_up {
            self.said = Some(Instant::now());
            tracing::error!(%error, "no connection can be accepted: raise the limit of open files (ulimit -n, LimitNOFILE=)");
        }
        if used_up {
            tokio::time::sleep(REST).await;
        }
        // Anything else is the fate of one connection that went before it was accepted.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(port: u16, port_taken: PortTaken) -> Listen {
        Listen { address: SocketAddr::from(([127, 0, 0, 1], port)), path: "/".to_owned(), port_taken, shards: 2 }
    }

    #[test]
    fn every_shard_listens_on_the_same_port() {
        let listeners = bind(&listen(0, PortTaken::Refuse)).expect("a free port");
        let ports: Vec<_> = listeners.iter().map(|listener| listener.local_addr().expect("bound").port()).collect();
        assert_eq!(ports.len(), 2);
        assert_eq!(ports[0], ports[1]);
    }

    #[test]
    fn a_taken_port_is_an_error_also_when_its_owner_would_share_it() {
        let first = bind(&listen(0, PortTaken::Refuse)).expect("a free port");
        let port = first[0].local_addr().expect("bound").port();
        assert!(matches!(bind(&listen(port, PortTaken::Refuse)), Err(ListenError::AddressInUse { .. })));
        let next = bind(&listen(port, PortTaken::TryNext)).expect("another port");
        assert!(next[0].local_addr().expect("bound").port() > port);
    }
}
