//! 1 · accept: sockets of several kinds. On a TCP port each shard has a listening socket of its own, so that the kernel shares connections
//! out and no thread waits for another; a Unix socket, or one that the service manager made, is shared by all shards.

mod address;
mod network;
pub(crate) mod proxy_protocol;
mod socket;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Type};
use tokio::net::{TcpListener, UnixListener};
use wootz_tls::TlsAcceptor;

pub use self::address::Address;
pub(crate) use self::network::first_bits;
pub use self::network::{Network, NetworkError};
pub(crate) use self::socket::{ReadBuffer, Sent, Socket, Transport};
use crate::config::{Listen, PortTaken};
use crate::tls::TlsStream;
use crate::unix_socket::{self, Place, SocketFile, UnixSocketError};

/// Connections that may wait to be accepted, per listening socket.
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
        address: Address,
        /// What it said.
        source: io::Error,
    },
    /// A Unix socket can't be made.
    #[error(transparent)]
    UnixSocket(#[from] UnixSocketError),
    /// The service manager handed nothing over.
    #[error(
        "listen.address says systemd, and systemd handed no socket over: start wootz by its .socket unit, or name an address"
    )]
    NothingInherited,
    /// It handed something else over.
    #[error(
        "socket {number} that systemd handed over is no listening stream socket: its unit needs ListenStream=, and Accept=no"
    )]
    WrongSocket {
        /// Which one, counted from 1.
        number: usize,
    },
}

/// All that a server listens on.
#[derive(Debug)]
pub(crate) struct Bound {
    /// The listening sockets of each shard.
    pub(crate) shards: Vec<Vec<Unwatched>>,
    /// Where they are, with real ports.
    pub(crate) addresses: Vec<Address>,
    /// The names of Unix sockets that were made.
    pub(crate) files: Vec<SocketFile>,
}

/// A listening socket that no runtime watches yet.
#[derive(Debug)]
pub(crate) enum Unwatched {
    Tcp(std::net::TcpListener),
    Tls(std::net::TcpListener, TlsAcceptor),
    Unix(std::os::unix::net::UnixListener),
}

/// A listening socket of a shard.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, TlsAcceptor),
    Unix(UnixListener),
}

/// A connection that nothing is known of but where it came from.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: Socket,
    pub(crate) peer: Peer,
}

/// Who is at the other end of a socket: a browser, or the proxy before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Tcp(SocketAddr),
    /// Of this machine, and trusted as a proxy. It has no address; a number stands for its port.
    Unix {
        number: u16,
    },
}

/// Binds everything. With an acceptor TLS is spoken wherever it can be and nobody said otherwise.
pub(crate) fn bind(listen: &Listen, tls: Option<&TlsAcceptor>) -> Result<Bound, ListenError> {
    let mut bound =
        Bound { shards: (0..listen.shards).map(|_| Vec::new()).collect(), addresses: Vec::new(), files: Vec::new() };
    for address in &listen.addresses {
        match address {
            Address::Tcp(address) => bound.add_tcp(*address, Address::Tcp, listen, tls)?,
            Address::Plain(address) => bound.add_tcp(*address, Address::Plain, listen, None)?,
            Address::Unix(path) => {
                let (setting, mode, group) = ("listen.address", listen.unix_mode, listen.unix_group);
                let place = Place { setting, path, mode, group, backlog: BACKLOG };
                let (listener, file) = unix_socket::bind(&place)?;
                bound.files.push(file);
                bound.share(&Unwatched::Unix(listener), address.clone())?;
            }
            Address::Systemd => bound.add_inherited(listen, tls)?,
        }
    }
    Ok(bound)
}

impl Bound {
    fn add_tcp(
        &mut self,
        wanted: SocketAddr,
        kind: fn(SocketAddr) -> Address,
        listen: &Listen,
        tls: Option<&TlsAcceptor>,
    ) -> Result<(), ListenError> {
        let listeners = bind_tcp(wanted, listen)?;
        let system = |source| ListenError::System { address: kind(wanted), source };
        self.addresses.push(kind(listeners[0].local_addr().map_err(system)?));
        for (shard, listener) in self.shards.iter_mut().zip(listeners) {
            shard.push(Unwatched::Tcp(listener).with(tls));
        }
        Ok(())
    }

    fn add_inherited(&mut self, listen: &Listen, tls: Option<&TlsAcceptor>) -> Result<(), ListenError> {
        if listen.inherited.is_empty() {
            return Err(ListenError::NothingInherited);
        }
        for (index, socket) in listen.inherited.iter().enumerate() {
            let system = |source| ListenError::System { address: Address::Systemd, source };
            let socket = socket.try_clone().map_err(system)?;
            let (listener, address) =
                adopt(socket).map_err(system)?.ok_or(ListenError::WrongSocket { number: index + 1 })?;
            self.share(&listener.with(tls), address)?;
        }
        Ok(())
    }

    /// Gives one socket to all shards. Whoever of them is awake first accepts; the others find nothing and wait on.
    fn share(&mut self, listener: &Unwatched, address: Address) -> Result<(), ListenError> {
        for shard in &mut self.shards {
            let cloned = match listener {
                Unwatched::Tcp(listener) => listener.try_clone().map(Unwatched::Tcp),
                Unwatched::Tls(listener, acceptor) => {
                    listener.try_clone().map(|listener| Unwatched::Tls(listener, acceptor.clone()))
                }
                Unwatched::Unix(listener) => listener.try_clone().map(Unwatched::Unix),
            };
            shard.push(cloned.map_err(|source| ListenError::System { address: address.clone(), source })?);
        }
        self.addresses.push(address);
        Ok(())
    }
}

/// One listener per shard.
fn bind_tcp(wanted: SocketAddr, listen: &Listen) -> Result<Vec<std::net::TcpListener>, ListenError> {
    let first = wanted.port();
    let last = match listen.port_taken {
        PortTaken::Refuse => first,
        PortTaken::TryNext => first.saturating_add(PORTS_TO_TRY),
    };
    let only_v6 = leaves_v4_to_another(wanted, &listen.addresses);
    for port in first..=last {
        let address = SocketAddr::new(wanted.ip(), port);
        match bind_shards(address, listen.shards, only_v6) {
            Ok(listeners) => return Ok(listeners),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => return Err(ListenError::System { address: address.into(), source }),
        }
    }
    Err(match listen.port_taken {
        PortTaken::Refuse => ListenError::AddressInUse { address: wanted },
        PortTaken::TryNext => ListenError::NoFreePort { address: wanted },
    })
}

/// `[::]` takes IPv4 too (ipv6(7)), unless the list has an address for that on the same port.
fn leaves_v4_to_another(wanted: SocketAddr, addresses: &[Address]) -> bool {
    let is_v4_of_the_port = |address: &Address| match address {
        Address::Tcp(address) | Address::Plain(address) => address.is_ipv4() && address.port() == wanted.port(),
        Address::Unix(_) | Address::Systemd => false,
    };
    wanted.is_ipv6() && addresses.iter().any(is_v4_of_the_port)
}

fn bind_shards(address: SocketAddr, shards: usize, only_v6: bool) -> io::Result<Vec<std::net::TcpListener>> {
    if address.port() != 0 {
        // SO_REUSEPORT would let a second server of the same user share the port in silence: look first, without it.
        drop(bind_socket(address, PortSharing::No, only_v6)?);
    }
    let first = bind_socket(address, PortSharing::Yes, only_v6)?;
    let bound = first.local_addr()?.as_socket().unwrap_or(address);
    let mut listeners = vec![first];
    for _ in 1..shards {
        listeners.push(bind_socket(bound, PortSharing::Yes, only_v6)?);
    }
    listeners.into_iter().map(|socket| socket.listen(BACKLOG).map(|()| socket.into())).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PortSharing {
    Yes,
    No,
}

fn bind_socket(address: SocketAddr, sharing: PortSharing, only_v6: bool) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(sharing == PortSharing::Yes)?;
    // Inherited by every accepted socket: replies are small, and leave as soon as they are written.
    socket.set_tcp_nodelay(true)?;
    if only_v6 {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Takes a socket of the service manager's as it is. `None`: it is no listening stream socket.
fn adopt(socket: OwnedFd) -> io::Result<Option<(Unwatched, Address)>> {
    let options = SockRef::from(&socket);
    if options.r#type()? != Type::STREAM || !options.is_listener()? {
        return Ok(None);
    }
    options.set_nonblocking(true)?;
    let address = options.local_addr()?;
    let domain = options.domain()?;
    Ok(if domain == Domain::UNIX {
        let address = address.as_pathname().map_or(Address::Systemd, |path| Address::Unix(path.to_owned()));
        Some((Unwatched::Unix(socket.into()), address))
    } else if let Some(address) = address.as_socket() {
        options.set_tcp_nodelay(true)?;
        Some((Unwatched::Tcp(socket.into()), address.into()))
    } else {
        None
    })
}

impl Unwatched {
    /// Speaks TLS, where there are certificates and it is a TCP socket.
    fn with(self, tls: Option<&TlsAcceptor>) -> Self {
        match (self, tls) {
            (Self::Tcp(listener), Some(acceptor)) => Self::Tls(listener, acceptor.clone()),
            (other, _) => other,
        }
    }

    /// Has this thread's runtime watch it.
    pub(crate) fn watch(self) -> io::Result<Listener> {
        match self {
            Self::Tcp(listener) => TcpListener::from_std(listener).map(Listener::Tcp),
            Self::Tls(listener, acceptor) => {
                TcpListener::from_std(listener).map(|listener| Listener::Tls(listener, acceptor))
            }
            Self::Unix(listener) => UnixListener::from_std(listener).map(Listener::Unix),
        }
    }
}

impl Listener {
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match self {
            Self::Tcp(listener) => listener.poll_accept(context).map_ok(|(stream, address)| Accepted {
                socket: Socket::Plain(Transport::Tcp(stream)),
                peer: Peer::of(address),
            }),
            Self::Tls(listener, acceptor) => listener.poll_accept(context).map_ok(|(stream, address)| Accepted {
                socket: Socket::Tls(Box::new(TlsStream::new(Transport::Tcp(stream), acceptor.clone()))),
                peer: Peer::of(address),
            }),
            Self::Unix(listener) => listener.poll_accept(context).map_ok(|(stream, _)| Accepted {
                socket: Socket::Plain(Transport::Unix(stream)),
                peer: Peer::Unix { number: next_number() },
            }),
        }
    }
}

/// The next connection of any of these. They take turns, so that a busy one does not hide the others.
///
/// # Cancel safety
/// Nothing is accepted when the future is dropped.
pub(crate) async fn accept(listeners: &[Listener], turn: &mut usize) -> io::Result<Accepted> {
    std::future::poll_fn(|context| {
        for _ in 0..listeners.len() {
            *turn = (*turn + 1) % listeners.len();
            if let Poll::Ready(accepted) = listeners[*turn].poll_accept(context) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

/// Numbers for connections without a port: each is given again after 65,534 others.
fn next_number() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    match NEXT.fetch_add(1, Ordering::Relaxed) {
        0 => NEXT.fetch_add(1, Ordering::Relaxed).max(1),
        number => number,
    }
}

impl Peer {
    /// An IPv4 browser on an IPv6 socket is an IPv4 browser: in the log, in pipes' names, in limits.
    fn of(address: SocketAddr) -> Self {
        Self::Tcp(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// Its address and port. One on a Unix socket is on this machine.
    pub(crate) fn address(self) -> SocketAddr {
        match self {
            Self::Tcp(address) => address,
            Self::Unix { number } => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), number),
        }
    }

    /// Whether it may speak for others.
    pub(crate) fn is_trusted(self, proxies: &[Network]) -> bool {
        match self {
            Self::Tcp(address) => is_trusted(address.ip(), proxies),
            Self::Unix { .. } => true,
        }
    }
}

/// Whether a proxy of this address may speak for others.
pub(crate) fn is_trusted(address: IpAddr, proxies: &[Network]) -> bool {
    proxies.iter().any(|network| network.contains(address))
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
    use crate::config::Config;

    fn listen(addresses: &[Address], port_taken: PortTaken) -> Listen {
        Listen { addresses: addresses.to_vec(), port_taken, shards: 2, ..Config::default().listen }
    }

    fn local(port: u16) -> Address {
        Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn port_of(listener: &Unwatched) -> u16 {
        match listener {
            Unwatched::Tcp(listener) => listener.local_addr().expect("bound").port(),
            Unwatched::Tls(..) | Unwatched::Unix(_) => panic!("a TCP listener was expected"),
        }
    }

    #[test]
    fn every_shard_listens_on_the_same_port() {
        let bound = bind(&listen(&[local(0)], PortTaken::Refuse), None).expect("a free port");
        let ports: Vec<_> = bound.shards.iter().map(|listeners| port_of(&listeners[0])).collect();
        assert_eq!(ports.len(), 2);
        assert_eq!(ports[0], ports[1]);
        assert_eq!(bound.addresses, [local(ports[0])]);
    }

    #[test]
    fn a_taken_port_is_an_error_also_when_its_owner_would_share_it() {
        let first = bind(&listen(&[local(0)], PortTaken::Refuse), None).expect("a free port");
        let port = port_of(&first.shards[0][0]);
        assert!(matches!(
            bind(&listen(&[local(port)], PortTaken::Refuse), None),
            Err(ListenError::AddressInUse { .. })
        ));
        let next = bind(&listen(&[local(port)], PortTaken::TryNext), None).expect("another port");
        assert!(port_of(&next.shards[0][0]) > port);
    }

    #[test]
    fn all_ipv6_addresses_leave_ipv4_to_an_address_of_its_own() {
        let [v4, v6] = ["0.0.0.0:8888", "[::]:8888"].map(|address| address.parse().expect("an address"));
        assert!(leaves_v4_to_another(v6, &[v6.into(), v4.into()]));
        assert!(!leaves_v4_to_another(v6, &[v6.into(), local(8889)]));
        assert!(!leaves_v4_to_another(v4, &[v6.into(), v4.into()]));
    }

    #[test]
    fn inherited_sockets_must_listen_to_streams() {
        let with = |socket: OwnedFd| Listen {
            inherited: vec![socket.into()],
            ..listen(&[Address::Systemd], PortTaken::Refuse)
        };
        let none = listen(&[Address::Systemd], PortTaken::Refuse);
        assert!(matches!(bind(&none, None), Err(ListenError::NothingInherited)));
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        assert!(matches!(bind(&with(datagrams.into()), None), Err(ListenError::WrongSocket { number: 1 })));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let bound = bind(&with(listener.into()), None).expect("it listens");
        assert_eq!(bound.addresses, [local(port)]);
        assert_eq!(bound.shards.iter().map(|listeners| port_of(&listeners[0])).collect::<Vec<_>>(), [port, port]);
    }

    #[test]
    fn numbers_of_connections_without_a_port_are_ports() {
        let numbers: std::collections::HashSet<u16> = (0..1000).map(|_| next_number()).collect();
        assert!(!numbers.contains(&0) && numbers.len() == 1000);
    }
}
