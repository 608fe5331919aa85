//! A server with sockets around the crate, one thread per connection: it gives back what it gets, in capital letters.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wootz_tls::{TlsAcceptor, TlsConnection};

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if told.load(Ordering::SeqCst) {
                    break;
                }
                let (stream, connection) = (stream.expect("a connection"), acceptor.accept().expect("a connection"));
                thread::spawn(move || serve(stream, connection));
            }
        });
        Self { address, ends, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // It waits for a connection, and then sees that it was told to end.
        let woken = TcpStream::connect(self.address).is_ok();
        if let (true, Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: TcpStream, mut connection: TlsConnection) {
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let mut buffer = vec![0; 16 << 10];
    let (mut plaintext, mut out) = (Vec::new(), Vec::new());
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        plaintext.clear();
        out.clear();
        let progress = connection.receive(&mut buffer[..read], &mut plaintext);
        plaintext.make_ascii_uppercase();
        let taken = connection.encrypt(&[&plaintext], &mut out);
        assert!(taken.is_ok_and(|taken| taken == plaintext.len()), "it is never behind");
        let over = progress.is_err() || progress.is_ok_and(|progress| progress.closed_by_peer);
        if over {
            connection.close(&mut out);
        }
        if stream.write_all(&out).is_err() || over {
            break;
        }
    }
}
