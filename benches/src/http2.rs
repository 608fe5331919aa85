//! The load generator's HTTP/2: WebSockets on streams (RFC 8441), by the crates `h2` and `tokio-rustls`. One thread; what it costs is not counted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::{JoinSet, LocalSet};
use tokio_rustls::TlsConnector;
use wootz_benches::wire;

use crate::client::{PATIENCE, frame, wrong};

/// Windows that are never in the way.
const WINDOW_BYTES: u32 = 1 << 20;

/// Open WebSockets, several to a connection.
pub struct Streams {
    runtime: Runtime,
    tasks: LocalSet,
    members: Vec<Member>,
}

struct Member {
    send: SendStream<Bytes>,
    receive: RecvStream,
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

impl Streams {
    /// Opens `per_connection` WebSockets on each of so many connections, one after another.
    pub fn connect(
        address: SocketAddr,
        connections: usize,
        per_connection: usize,
        trust: &Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tasks = LocalSet::new();
        let mut client = ClientConfig::clone(trust);
        client.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(client));
        let members = tasks.block_on(&runtime, async {
            let mut members = Vec::with_capacity(connections * per_connection);
            for _ in 0..connections {
                open(address, per_connection, &connector, &mut members).await?;
            }
            Ok::<_, io::Error>(members)
        })?;
        Ok(Self { runtime, tasks, members })
    }

    /// Every member sends `payload` once and gets it back, `at_once` of them at a time.
    pub fn echo_once_each(&mut self, payload: &[u8], at_once: usize) -> io::Result<()> {
        let mut members = std::mem::take(&mut self.members);
        let mut done = Vec::with_capacity(members.len());
        while !members.is_empty() {
            let some = members.split_off(members.len().saturating_sub(at_once));
            done.extend(self.talk(some, payload, 1)?);
        }
        self.members = done;
        Ok(())
    }

    /// Every member keeps one message under way until `total` of them have been answered.
    pub fn ping_pong(&mut self, payload: &[u8], total: usize) -> io::Result<()> {
        let members = std::mem::take(&mut self.members);
        let each = total / members.len();
        self.members = self.talk(members, payload, each)?;
        Ok(())
    }

    fn talk(&self, members: Vec<Member>, payload: &[u8], each: usize) -> io::Result<Vec<Member>> {
        let sent = Bytes::from(frame(wire::TEXT, payload));
        let mut expected = Vec::new();
        wire::encode(wire::TEXT, payload, None, &mut expected);
        let expected: Arc<[u8]> = expected.into();
        self.tasks.block_on(&self.runtime, async {
            let mut talking = JoinSet::new();
            for mut member in members {
                let (sent, expected) = (sent.clone(), Arc::clone(&expected));
                talking.spawn_local(async move {
                    for _ in 0..each {
                        tokio::time::timeout(PATIENCE, member.ask(sent.clone(), &expected)).await??;
                    }
                    Ok::<_, io::Error>(member)
                });
            }
            let mut members = Vec::new();
            while let Some(member) = talking.join_next().await {
                members.push(member.map_err(failed)??);
            }
            Ok(members)
        })
    }
}

async fn open(
    address: SocketAddr,
    streams: usize,
    connector: &TlsConnector,
    members: &mut Vec<Member>,
) -> io::Result<()> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let tls = connector.connect(ServerName::IpAddress(address.ip().into()), tcp).await?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES * 16);
    let (mut client, connection) = builder.handshake::<_, Bytes>(tls).await.map_err(failed)?;
    tokio::task::spawn_local(connection);
    for _ in 0..streams {
        client = client.ready().await.map_err(failed)?;
        // The server's settings say whether it may be asked for.
        while !client.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("https://{address}/"))
            .extension(Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .body(())
            .map_err(failed)?;
        let (response, send) = client.send_request(request, false).map_err(failed)?;
        let response = response.await.map_err(failed)?;
        if response.status() != 200 {
            return Err(wrong(format!("{} to an extended CONNECT", response.status())));
        }
        members.push(Member { send, receive: response.into_body() });
    }
    Ok(())
}

impl Member {
    async fn ask(&mut self, frame: Bytes, expected: &[u8]) -> io::Result<()> {
        self.send.send_data(frame, false).map_err(failed)?;
        let mut got = 0;
        while got < expected.len() {
            let data = self.receive.data().await.ok_or_else(|| wrong("the stream has ended"))?.map_err(failed)?;
            if expected.get(got..got + data.len()) != Some(&data[..]) {
                return Err(wrong("another message came back"));
            }
            got += data.len();
            self.receive.flow_control().release_capacity(data.len()).map_err(failed)?;
        }
        Ok(())
    }
}
