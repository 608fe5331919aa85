//! Floor: what a tokio task per connection costs. `poll_read` into one buffer per thread, and nothing else is kept.
//!
//! `floor_tokio ADDRESS` echoes, on one thread. It has no timers, no limits, no users and no outbox.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use wootz_benches::floor::{Next, READ_BUFFER_BYTES, Session};

struct Shared {
    read: Vec<u8>,
    out: Vec<u8>,
}

thread_local! {
    static SHARED: RefCell<Shared> = RefCell::new(Shared { read: vec![0; READ_BUFFER_BYTES], out: Vec::new() });
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).ok_or_else(|| io::Error::other("usage: floor_tokio ADDRESS"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve(stream));
        }
    })
}

async fn serve(mut stream: TcpStream) {
    let mut session = Session::default();
    // Whatever ends a connection of the floor ends only that connection; the client notices what it misses.
    let _ = poll_fn(|context| poll_serve(&mut stream, &mut session, context)).await;
}

fn poll_serve(stream: &mut TcpStream, session: &mut Session, context: &mut Context<'_>) -> Poll<io::Result<()>> {
    SHARED.with_borrow_mut(|shared| {
        loop {
            let mut buffer = ReadBuf::new(&mut shared.read);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            shared.out.clear();
            let next = session.receive(buffer.filled_mut(), &mut shared.out)?;
            if !shared.out.is_empty() && stream.try_write(&shared.out)? < shared.out.len() {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if next == Next::Leave {
                return Poll::Ready(Ok(()));
            }
        }
    })
}
