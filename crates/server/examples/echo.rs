//! A server in thirty lines: the application is this program's own code, and answers each message with itself.
//!
//! `cargo run --release --example echo -p wootz-server -- 127.0.0.1:9002`, then connect to `ws://127.0.0.1:9002/`.

use wootz_server::config::Address;
use wootz_server::{Application, Call, CallError, CallEvent, Config, Replies, Server};

struct Echo;

impl Application for Echo {
    async fn call(&self, call: Call, replies: &mut Replies) -> Result<(), CallError> {
        if call.event == CallEvent::Message {
            replies.send(call.message).await?;
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::default();
    if let Some(address) = std::env::args().nth(1) {
        config.listen.addresses = vec![Address::Tcp(address.parse()?)];
    }
    let server = Server::new(config, || Ok(Echo)).start()?;
    println!("ws://{}/", server.addresses()[0]);
    server.wait()?;
    Ok(())
}
