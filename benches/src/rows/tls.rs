//! What TLS costs: memory of who is idle, processor time of messages, of pushes and of handshakes.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};

use super::push::{self, CONNECTIONS, MESSAGE_BYTES};
use super::{ROUNDS, Row, serve, serve_with_files};
use crate::Programs;
use crate::client::wrong;
use crate::herd::Herd;
use crate::pinning::SERVER_CORE;
use crate::server::{Launch, Listens, Server};
use crate::statistics::{Rounds, take_turns};
use crate::table::{Reach, Table};
use crate::tls::{Certificate, Secured};

const IDLE: usize = 5_000;
/// Connections whose message is under way at the same time.
const AT_ONCE: usize = 50;
/// As many as TLS puts into one record at most: with its frame's header, the message needs two.
const RECORD_BYTES: usize = 16 * 1024;

const TALKING: usize = 100;
/// Payload bytes, and messages per round.
const ECHOES: [(usize, usize); 2] = [(64, 30_000), (RECORD_BYTES, 6_000)];

const HANDSHAKES: usize = 600;

/// The row.
pub const ROW: Row = Row { name: "tls", doing: "memory and processor time of TLS", measure };

fn measure(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let certificate = Certificate::make()?;
    measure_memory(programs, &certificate, table)?;
    measure_echo(programs, &certificate, table)?;
    measure_push(programs, &certificate, table)?;
    measure_handshakes(programs, &certificate, table)
}

fn measure_memory(programs: &Programs, certificate: &Certificate, table: &mut Table) -> io::Result<()> {
    let trust = certificate.client(Resumption::disabled())?;
    let per_connection = |program| {
        let mut server = launch(program, certificate)?;
        let payload = vec![b'm'; RECORD_BYTES];
        // The first one pays for what all of them share.
        Herd::connect_secured(server.address, 1, &trust)?.echo_once_each(&payload, 1)?;
        let before = server.settled(Server::anonymous_bytes)?;
        let mut herd = Herd::connect_secured(server.address, IDLE, &trust)?;
        herd.echo_once_each(&payload, AT_ONCE)?;
        let after = server.settled(Server::anonymous_bytes)?;
        drop(herd);
        Ok::<_, io::Error>((after as f64 - before as f64) / IDLE as f64)
    };
    let (theirs, ours) =
        take_turns(1, || per_connection(&programs.floor_rustls), || per_connection(&programs.tls_echo))?;
    table.add(
        "user-space bytes per idle TLS connection: 5,000, each after one 16 KiB message",
        "bytes",
        &ours,
        ("rustls, buffered", &theirs),
        Reach::AtMost(6_000.0),
    );
    Ok(())
}

/// Whoever ends TLS, and the application behind him.
struct Contestant<'s> {
    servers: Vec<&'s Server>,
    herd: Herd,
}

impl Contestant<'_> {
    fn round(&mut self, payload: &[u8], messages: usize) -> io::Result<f64> {
        let before = cpu(&self.servers)?;
        self.herd.ping_pong(payload, messages)?;
        Ok((cpu(&self.servers)? - before) * 1e6 / messages as f64)
    }
}

fn measure_echo(programs: &Programs, certificate: &Certificate, table: &mut Table) -> io::Result<()> {
    let trust = certificate.client(Resumption::disabled())?;
    let wootz = launch(&programs.tls_echo, certificate)?;
    let plain = Server::start(&programs.echo, &["{address}"])?;
    let nginx = nginx(&programs.nginx, certificate, &plain)?;
    let contestant = |servers: Vec<_>, front: &Server| {
        Ok::<_, io::Error>(Contestant { servers, herd: Herd::connect_secured(front.address, TALKING, &trust)? })
    };
    let mut peer = contestant(vec![&nginx, &plain], &nginx)?;
    let mut ours = contestant(vec![&wootz], &wootz)?;
    for (bytes, messages) in ECHOES {
        let payload = vec![b'e'; bytes];
        let (theirs, ours) = take_turns(ROUNDS, || peer.round(&payload, messages), || ours.round(&payload, messages))?;
        let size = if bytes == RECORD_BYTES { "16 KiB".to_owned() } else { format!("{bytes} B") };
        table.add(
            &format!("server CPU per TLS echo of {size}: embedded, 100 connections"),
            "µs",
            &ours,
            ("nginx before the plain server, both", &theirs),
            Reach::TimesFloor(0.8),
        );
    }
    Ok(())
}

/// The plain figure is the peer: what is more than it is TLS's.
fn measure_push(programs: &Programs, certificate: &Certificate, table: &mut Table) -> io::Result<()> {
    let trust = certificate.client(Resumption::disabled())?;
    let plain = serve(programs, &[], &["/bin/cat"])?;
    let herd = Herd::connect(plain.address, CONNECTIONS)?;
    let mut plain = push::Contestant::of_wootz(plain, herd)?;

    let files = [("cert.pem", certificate.chain.as_str()), ("key.pem", certificate.key.as_str())];
    let settings = ["tls.cert=cert.pem", "tls.key=key.pem"];
    let secured = serve_with_files(programs, SERVER_CORE, &settings, &files, &["--", "/bin/cat"])?;
    let herd = Herd::connect_secured(secured.address, CONNECTIONS, &trust)?;
    let mut secured = push::Contestant::of_wootz(secured, herd)?;

    let (in_the_clear, encrypted) = take_turns(ROUNDS, || plain.round(), || secured.round())?;
    table.add(
        "server CPU per delivered 128 B message over TLS: one push to 5,000 connections",
        "µs",
        &encrypted,
        ("the same without TLS", &in_the_clear),
        Reach::Shown,
    );
    let cipher = Rounds::new((0..ROUNDS).map(|_| encryption_alone()).collect::<io::Result<_>>()?);
    let more = encrypted.median() - in_the_clear.median();
    table.note(format!(
        "tls: of a push that is delivered over TLS {more:.2} µs ({:.0} %) are encryption and its records; AES-128-GCM alone takes {:.2} µs for each.",
        100.0 * more / encrypted.median(),
        cipher.median(),
    ));
    Ok(())
}

/// Microseconds of the cipher for a record of one push, each with the key of another connection, as the pushes have it.
fn encryption_alone() -> io::Result<f64> {
    const HEADER: [u8; 5] = [23, 3, 3, 0, 0];
    /// A frame's header, and the byte that says what the record is.
    const MORE_BYTES: usize = 4 + 1;
    const TIMES: usize = 30;
    let failed = |_| io::Error::other("the cipher failed");
    let key = |number: usize| {
        let bytes = (number as u128 + 1).to_le_bytes();
        UnboundKey::new(&AES_128_GCM, &bytes).map(LessSafeKey::new).map_err(failed)
    };
    let keys = (0..CONNECTIONS).map(key).collect::<io::Result<Vec<_>>>()?;
    let mut record = Vec::new();
    let began = Instant::now();
    for time in 0..TIMES {
        for key in &keys {
            record.clear();
            record.resize(MESSAGE_BYTES + MORE_BYTES, b'x');
            let mut nonce = [0; 12];
            nonce[..8].copy_from_slice(&(time as u64).to_le_bytes());
            let nonce = Nonce::assume_unique_for_key(nonce);
            key.seal_in_place_append_tag(nonce, Aad::from(HEADER), &mut record).map_err(failed)?;
            std::hint::black_box(&record);
        }
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / (TIMES * CONNECTIONS) as f64)
}

fn measure_handshakes(programs: &Programs, certificate: &Certificate, table: &mut Table) -> io::Result<()> {
    let wootz = launch(&programs.tls_echo, certificate)?;
    let nginx = nginx(&programs.nginx, certificate, &wootz)?;
    for (what, kind) in [("full", HandshakeKind::Full), ("resumed", HandshakeKind::Resumed)] {
        // Each server's tickets are of no use to the other.
        let client = || match kind {
            HandshakeKind::Resumed => certificate.client(Resumption::in_memory_sessions(8)),
            _ => certificate.client(Resumption::disabled()),
        };
        let (of_nginx, of_wootz) = (client()?, client()?);
        for (server, client) in [(&nginx, &of_nginx), (&wootz, &of_wootz)] {
            Secured::connect(server.address, client)?.leave()?;
        }
        let (theirs, ours) =
            take_turns(ROUNDS, || handshakes(&nginx, &of_nginx, kind), || handshakes(&wootz, &of_wootz, kind))?;
        let what = format!("{what} TLS 1.3 handshakes per CPU second (connect, shake hands, close)");
        table.add(&what, "/s", &ours, ("nginx", &theirs), Reach::TimesPeer(0.9));
    }
    Ok(())
}

/// One after another.
fn handshakes(server: &Server, client: &Arc<ClientConfig>, kind: HandshakeKind) -> io::Result<f64> {
    let before = cpu(&[server])?;
    for _ in 0..HANDSHAKES {
        let connection = Secured::connect(server.address, client)?;
        if connection.kind() != Some(kind) {
            return Err(wrong(format!("a handshake of another kind: {:?}, not {kind:?}", connection.kind())));
        }
        connection.leave()?;
    }
    Ok(HANDSHAKES as f64 / (cpu(&[server])? - before))
}

/// Seconds.
pub(super) fn cpu(servers: &[&Server]) -> io::Result<f64> {
    servers.iter().map(|server| Ok(server.family_cpu()?.as_secs_f64())).sum()
}

pub(super) fn launch(program: &Path, certificate: &Certificate) -> io::Result<Server> {
    Server::launch(&Launch {
        program,
        arguments: &["{address}", "{directory}/cert.pem", "{directory}/key.pem"],
        core: SERVER_CORE,
        files: &[("cert.pem", &certificate.chain), ("key.pem", &certificate.key)],
        listens: Listens::Tcp,
    })
}

/// As its manual shows it for WebSocket, but with one worker and no access log (the embedded server has one shard and none either),
/// and with buffers that take a whole message: with its default of 4 KiB one of 16 KiB costs it more than twice as much.
fn nginx(program: &Path, certificate: &Certificate, behind: &Server) -> io::Result<Server> {
    let configuration = format!(
        "daemon off;\nworker_processes 1;\npid {{directory}}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
         access_log off;\nfastcgi_temp_path {{directory}}/fastcgi;\n\
         client_body_temp_path {{directory}}/body;\nproxy_temp_path {{directory}}/proxy;\n\
         uwsgi_temp_path {{directory}}/uwsgi;\nscgi_temp_path {{directory}}/scgi;\n\
         server {{ listen {{address}} ssl;\nssl_protocols TLSv1.3;\n\
         ssl_certificate {{directory}}/cert.pem;\nssl_certificate_key {{directory}}/key.pem;\n\
         location / {{ proxy_pass http://{};\nproxy_http_version 1.1;\nproxy_set_header Host $http_host;\n\
         proxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection Upgrade;\n\
         proxy_buffer_size 32k;\nproxy_buffers 8 32k;\nproxy_busy_buffers_size 64k;\n\
         }} }} }}\n",
        behind.address
    );
    Server::launch(&Launch {
        program,
        arguments: &["-e", "stderr", "-p", "{directory}", "-c", "{directory}/nginx.conf"],
        core: SERVER_CORE,
        files: &[("nginx.conf", &configuration), ("cert.pem", &certificate.chain), ("key.pem", &certificate.key)],
        listens: Listens::Tcp,
    })
}
