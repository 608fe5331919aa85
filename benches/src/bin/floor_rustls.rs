//! What TLS costs in memory in the ordinary way: rustls's buffered connection for each socket, one epoll loop.
//!
//! `floor_rustls ADDRESS CERT KEY` echoes, like `floor_epoll`, and promises as little: a short write hangs up.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _};
use std::sync::Arc;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, ServerConnection};
use wootz_benches::floor::{Next, READ_BUFFER_BYTES, Session};

const LISTENER: u64 = u64::MAX;

struct Connection {
    stream: TcpStream,
    tls: ServerConnection,
    session: Session,
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, cert, key] = arguments.as_slice() else {
        return Err(io::Error::other("usage: floor_rustls ADDRESS CERT KEY"));
    };
    let config = config(cert, key)?;
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, listener.as_fd(), EventData::new_u64(LISTENER), EventFlags::IN)?;
    // By descriptor, which the kernel keeps small and dense.
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let (mut plaintext, mut out) = (vec![0; READ_BUFFER_BYTES], Vec::new());
    let mut events: Vec<epoll::Event> = Vec::with_capacity(1024);
    loop {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            if event.data.u64() == LISTENER {
                accept(&listener, &poll, &config, &mut connections)?;
                continue;
            }
            let at = event.data.u64() as usize;
            let Some(Some(connection)) = connections.get_mut(at) else { continue };
            if !matches!(connection.serve(&mut plaintext, &mut out), Ok(Next::Stay)) {
                connections[at] = None;
            }
        }
    }
}

/// No sessions are kept, and one ticket is sent: as wootz does it.
fn config(cert: &str, key: &str) -> io::Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(cert).map_err(io::Error::other)?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(io::Error::other)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(io::Error::other)?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

fn accept(
    listener: &TcpListener,
    poll: &rustix::fd::OwnedFd,
    config: &Arc<ServerConfig>,
    connections: &mut Vec<Option<Connection>>,
) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let at = stream.as_raw_fd() as usize;
        epoll::add(poll, stream.as_fd(), EventData::new_u64(at as u64), EventFlags::IN)?;
        if connections.len() <= at {
            connections.resize_with(at + 1, || None);
        }
        let tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        connections[at] = Some(Connection { stream, tls, session: Session::default() });
    }
}

impl Connection {
    fn serve(&mut self, plaintext: &mut [u8], out: &mut Vec<u8>) -> io::Result<Next> {
        if self.tls.read_tls(&mut self.stream)? == 0 {
            return Ok(Next::Leave);
        }
        self.tls.process_new_packets().map_err(io::Error::other)?;
        let mut next = Next::Stay;
        loop {
            let bytes = match self.tls.reader().read(plaintext) {
                Ok(0) => return Ok(Next::Leave),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            out.clear();
            next = self.session.receive(&mut plaintext[..bytes], out)?;
            self.tls.writer().write_all(out)?;
        }
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.stream)?;
        }
        Ok(next)
    }
}
