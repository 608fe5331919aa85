//! What TLS costs the server in memory and time, beside rustls's buffered connection in the same run.
//!
//! `cargo run --release -p wootz-tls --example tls_cost`; it needs `openssl` for a certificate.

#[allow(dead_code)]
#[path = "../tests/tls/authority.rs"]
mod authority;
#[allow(dead_code)]
#[path = "../tests/tls/pair.rs"]
mod pair;

use std::alloc::System;
use std::hint::black_box;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, SupportedProtocolVersion};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use wootz_tls::{TlsAcceptor, TlsConnection, TlsSettings};

use crate::authority::Authority;
use crate::pair::client_config;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CONNECTIONS: usize = 200;
const ROUNDS: usize = 7;
const READ_BYTES: usize = 64 << 10;

/// A server's side, whichever it is: what comes from the client goes in, what it says is appended.
trait Side {
    fn exchange(&mut self, input: &mut [u8], echo: bool, out: &mut Vec<u8>);
}

struct Ours {
    connection: TlsConnection,
}

struct Buffered {
    connection: ServerConnection,
}

thread_local!(static PLAINTEXT: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) });

impl Side for Ours {
    fn exchange(&mut self, input: &mut [u8], echo: bool, out: &mut Vec<u8>) {
        PLAINTEXT.with_borrow_mut(|plaintext| {
            plaintext.clear();
            self.connection.receive(input, plaintext).expect("a good client");
            let slices: &[&[u8]] = if echo { &[plaintext] } else { &[] };
            self.connection.encrypt(slices, out).expect("good keys");
        });
    }
}

impl Side for Buffered {
    fn exchange(&mut self, input: &mut [u8], echo: bool, out: &mut Vec<u8>) {
        PLAINTEXT.with_borrow_mut(|plaintext| {
            plaintext.resize(READ_BYTES, 0);
            let mut input = &*input;
            while !input.is_empty() {
                self.connection.read_tls(&mut input).expect("memory");
                self.connection.process_new_packets().expect("a good client");
                while let Ok(read @ 1..) = self.connection.reader().read(plaintext) {
                    if echo {
                        self.connection.writer().write_all(&plaintext[..read]).expect("memory");
                    }
                }
            }
            while self.connection.wants_write() {
                self.connection.write_tls(out).expect("memory");
            }
        });
    }
}

fn client(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost").expect("a name")).expect("a client")
}

fn said(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).expect("memory");
    }
    bytes
}

/// Gives the time that the server took.
fn shake_hands(client: &mut ClientConnection, server: &mut dyn Side) -> Duration {
    let mut took = Duration::ZERO;
    loop {
        let mut up = said(client);
        let mut down = Vec::new();
        let begin = Instant::now();
        server.exchange(&mut up, false, &mut down);
        took += begin.elapsed();
        if up.is_empty() && down.is_empty() {
            return took;
        }
        let mut rest = &down[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory");
            client.process_new_packets().expect("a good server");
        }
    }
}

/// `messages` messages, each in its records as the client sent them.
fn messages(client: &mut ClientConnection, bytes: usize, messages: usize) -> Vec<Vec<u8>> {
    let message = vec![b'x'; bytes];
    (0..messages)
        .map(|_| {
            client.writer().write_all(&message).expect("memory");
            said(client)
        })
        .collect()
}

/// The time per message of an echo, the client's not counted.
fn echo(client: &mut ClientConnection, server: &mut dyn Side, bytes: usize, count: usize) -> Duration {
    let mut inputs = messages(client, bytes, count);
    let mut out = Vec::with_capacity(READ_BYTES);
    let begin = Instant::now();
    for input in &mut inputs {
        out.clear();
        server.exchange(input, true, &mut out);
        assert!(black_box(&out).len() > bytes);
    }
    begin.elapsed() / count as u32
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

struct World {
    acceptor: TlsAcceptor,
    buffered: Arc<ServerConfig>,
    authority: Authority,
}

impl World {
    fn new() -> Self {
        let authority = Authority::new();
        let acceptor = authority.acceptor(&TlsSettings::default());
        let chain = authority.read("localhost.chain.pem");
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(|cert| cert.expect("PEM")).collect();
        let key = PrivateKeyDer::from_pem_slice(authority.read("localhost.key").as_bytes()).expect("a key");
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS12, &TLS13])
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate");
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = aws_lc_rs::Ticketer::new().expect("randomness");
        config.send_tls13_tickets = 1;
        Self { acceptor, buffered: Arc::new(config), authority }
    }

    fn ours(&self) -> Box<dyn Side> {
        Box::new(Ours { connection: self.acceptor.accept().expect("a connection") })
    }

    fn theirs(&self) -> Box<dyn Side> {
        Box::new(Buffered { connection: ServerConnection::new(Arc::clone(&self.buffered)).expect("a connection") })
    }

    fn sides(&self) -> [Box<dyn Side>; 2] {
        [self.ours(), self.theirs()]
    }
}

/// Heap per connection: fresh, after the handshake, after one message of 16 KiB each way.
fn memory(world: &World, config: &Arc<ClientConfig>, make: impl Fn() -> Box<dyn Side>) -> [usize; 3] {
    // What is made once for all is not a connection's.
    shake_hands(&mut client(config), &mut *make());
    let mut clients: Vec<ClientConnection> = (0..CONNECTIONS).map(|_| client(config)).collect();
    let mut held = 0;
    let mut heap = |act: &mut dyn FnMut()| {
        let region = Region::new(ALLOCATOR);
        act();
        let change = region.change();
        held += change.bytes_allocated as isize - change.bytes_deallocated as isize;
        held as usize / CONNECTIONS
    };
    let mut servers = Vec::with_capacity(CONNECTIONS);
    let fresh = heap(&mut || servers.extend((0..CONNECTIONS).map(|_| make())));
    let mut out = Vec::with_capacity(READ_BYTES);
    let mut step = |inputs: Vec<Vec<u8>>, clients: &mut [ClientConnection], echo: bool| {
        let mut answers: Vec<Vec<u8>> = (0..CONNECTIONS).map(|_| Vec::with_capacity(20 << 10)).collect();
        let mut inputs = inputs;
        let heap = heap(&mut || {
            for (server, (input, answer)) in servers.iter_mut().zip(inputs.iter_mut().zip(&mut answers)) {
                out.clear();
                server.exchange(input, echo, &mut out);
                answer.extend_from_slice(&out);
            }
        });
        for (client, answer) in clients.iter_mut().zip(&answers) {
            let mut rest = &answer[..];
            while !rest.is_empty() {
                client.read_tls(&mut rest).expect("memory");
                client.process_new_packets().expect("a good server");
            }
        }
        heap
    };
    step(clients.iter_mut().map(said).collect(), &mut clients, false);
    let open = step(clients.iter_mut().map(said).collect(), &mut clients, false);
    let inputs = clients.iter_mut().map(|client| messages(client, 16 << 10, 1).remove(0)).collect();
    let used = step(inputs, &mut clients, true);
    black_box(world);
    [fresh, open, used]
}

/// What the process grew by per connection, after one message of 16 KiB each way: the C library's heap, what it wastes,
/// and the keys that aws-lc holds there. The clients come one after the other, so that their memory is used again.
fn resident(config: &Arc<ClientConfig>, make: impl Fn() -> Box<dyn Side>) -> (Vec<Box<dyn Side>>, usize) {
    const HERD: usize = 5_000;
    const PAGE_BYTES: usize = 4096;
    let pages = || {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages")
    };
    let mut servers = Vec::with_capacity(HERD);
    let mut before = 0;
    let mut out = Vec::with_capacity(READ_BYTES);
    for number in 0..HERD + HERD / 10 {
        // The first ones warm the process.
        if number == HERD / 10 {
            before = pages();
        }
        let (mut client, mut server) = (client(config), make());
        shake_hands(&mut client, &mut *server);
        out.clear();
        server.exchange(&mut messages(&mut client, 16 << 10, 1)[0], true, &mut out);
        servers.push(server);
    }
    let grown = (pages() - before) * PAGE_BYTES / HERD;
    (servers, grown)
}

fn main() {
    let world = World::new();
    let config = |version: &'static SupportedProtocolVersion, resumption| {
        let mut config = client_config(&world.authority, &[version]);
        config.resumption = resumption;
        Arc::new(config)
    };
    // First, before anything was freed that could be used again.
    let plain = config(&TLS13, Resumption::disabled());
    for (side, (_kept, bytes)) in
        [("wootz-tls", resident(&plain, || world.ours())), ("rustls buffered", resident(&plain, || world.theirs()))]
    {
        println!("TLS 1.3, bytes of the process per connection, {side}: after 16 KiB each way {bytes}");
    }
    for (name, version) in [("TLS 1.3", &TLS13), ("TLS 1.2", &TLS12)] {
        let config = config(version, Resumption::disabled());
        for (side, [fresh, open, used]) in [
            ("wootz-tls", memory(&world, &config, || world.ours())),
            ("rustls buffered", memory(&world, &config, || world.theirs())),
        ] {
            println!(
                "{name}, bytes of heap per connection, {side}: fresh {fresh}, open {open}, after 16 KiB each way {used}"
            );
        }
        for (bytes, count) in [(64, 20_000), (16 << 10, 2_000)] {
            let mut times = [Vec::new(), Vec::new()];
            let mut sides = world.sides();
            let mut clients = [client(&config), client(&config)];
            for (client, side) in clients.iter_mut().zip(&mut sides) {
                shake_hands(client, &mut **side);
            }
            for _ in 0..ROUNDS {
                for (times, (client, side)) in times.iter_mut().zip(clients.iter_mut().zip(&mut sides)) {
                    times.push(echo(client, &mut **side, bytes, count));
                }
            }
            let [ours, theirs] = times.map(median);
            let share = ours.as_secs_f64() / theirs.as_secs_f64();
            println!("{name}, echo of {bytes} B: wootz-tls {ours:?}, rustls buffered {theirs:?} ({share:.2})");
        }
    }
    for (kind, resumption) in [("full", Resumption::disabled()), ("resumed", Resumption::in_memory_sessions(8))] {
        let configs = [config(&TLS13, resumption), config(&TLS13, Resumption::in_memory_sessions(8))];
        let configs = if kind == "full" { [configs[0].clone(), configs[0].clone()] } else { configs };
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..400 {
            for ((times, config), mut side) in times.iter_mut().zip(&configs).zip(world.sides()) {
                times.push(shake_hands(&mut client(config), &mut *side));
            }
        }
        let [ours, theirs] = times.map(median);
        println!("TLS 1.3, {kind} handshake, the server's share: wootz-tls {ours:?}, rustls buffered {theirs:?}");
    }
}
