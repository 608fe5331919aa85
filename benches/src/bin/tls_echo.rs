//! The embedding example `echo` behind TLS: `tls_echo ADDRESS CERT KEY`.

use wootz_server::config::{Address, CertificateSettings, Http2, Tls};
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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, cert, key] = arguments.as_slice() else { return Err("usage: tls_echo ADDRESS CERT KEY".into()) };
    let mut config = Config::default();
    config.listen.addresses = vec![Address::Tcp(address.parse()?)];
    let certificate = CertificateSettings { cert: cert.into(), key: key.into(), passphrase_file: None };
    config.tls = Some(Tls { certificates: vec![certificate], http2: Http2::Offered });
    Server::new(config, || Ok(Echo)).start()?.wait()?;
    Ok(())
}
