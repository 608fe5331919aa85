//! An echo server on plain threads, for conformance suites: `cargo run --release --example autobahn_echo -- 127.0.0.1:9001`.
//! It also shows how little a driver needs: read, take the events, write, look at the deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use wootz_protocol::handshake::{self, HeadLimits, Parsed, Refusal};
use wootz_protocol::{
    Endpoint, Event, Input, Limits, Message, Role, Settings, TimeoutAction, encode_binary, encode_text,
};

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let listener = TcpListener::bind(address)?;
    for socket in listener.incoming() {
        let socket = socket?;
        std::thread::spawn(move || {
            if let Err(error) = serve(socket) {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
}

fn serve(mut socket: TcpStream) -> std::io::Result<()> {
    let settings =
        Settings { limits: Limits { max_message_bytes: 16 * 1024 * 1024, ..Limits::default() }, ..Settings::default() };
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let Some(mut early) = open(&mut socket)? else { return Ok(()) };

    let mut endpoint = Endpoint::new(Role::Server, Instant::now());
    let mut buffer = vec![0; 64 * 1024];
    let mut out = Vec::new();
    respond(&mut endpoint, &mut early, &settings, &mut out);
    loop {
        if !out.is_empty() {
            socket.write_all(&out)?;
            out.clear();
        }
        if endpoint.is_finished() {
            return Ok(());
        }
        let wait = endpoint.poll_timeout(&settings).map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // A read timeout of zero would mean none.
        socket.set_read_timeout(wait.map(|wait| wait.max(Duration::from_millis(1))))?;
        match socket.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => respond(&mut endpoint, &mut buffer[..length], &settings, &mut out),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        match endpoint.handle_timeout(&settings, Instant::now()) {
            Some(TimeoutAction::Ping(frame) | TimeoutAction::PeerSilent(frame)) => {
                out.extend_from_slice(frame.as_bytes())
            }
            Some(TimeoutAction::CloseTimedOut) | None => {}
        }
    }
}

/// Answers the opening handshake. Gives the bytes that came after it; nothing if it was refused or broken off.
fn open(socket: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = socket.read(&mut buffer)?;
        if length == 0 {
            return Ok(None);
        }
        head.extend_from_slice(&buffer[..length]);
        match answer(&head) {
            Ok(None) => {}
            Ok(Some((response, length))) => {
                socket.write_all(&response)?;
                return Ok(Some(head.split_off(length)));
            }
            Err(refusal) => {
                socket.write_all(&refusal.response())?;
                return Ok(None);
            }
        }
    }
}

fn answer(head: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Refusal> {
    match handshake::parse(head, &HeadLimits::default())? {
        Parsed::Partial => Ok(None),
        Parsed::Complete { request, length } => Ok(Some((handshake::accept(&request)?.response(None), length))),
    }
}

fn respond(endpoint: &mut Endpoint, received: &mut [u8], settings: &Settings, out: &mut Vec<u8>) {
    let mut input = Input::new(received);
    while let Some(event) = endpoint.next_event(&mut input, settings, Instant::now()) {
        match event {
            Event::Message(Message::Text(text)) => out.extend_from_slice(&encode_text(&text)),
            Event::Message(Message::Binary(bytes)) => out.extend_from_slice(&encode_binary(&bytes)),
            Event::Ping { answer } => out.extend_from_slice(answer.as_bytes()),
            Event::Pong => {}
            Event::Close { answer, .. } | Event::Failed { answer, .. } => {
                out.extend(answer.iter().flat_map(|frame| frame.as_bytes()));
            }
        }
    }
}
