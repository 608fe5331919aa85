//! Gives back over TLS what it gets, a thread for each connection: what TLS alone costs over sockets, beside another
//! front.
//!
//! `cargo run --release -p wootz-tls --example tls_echo CERT KEY [ADDRESS]`

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use wootz_tls::{CertificateSettings, Certificates, TlsAcceptor, TlsConnection, TlsSettings};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(cert), Some(key)) = (arguments.next(), arguments.next()) else {
        return Err("usage: tls_echo CERT KEY [ADDRESS]".into());
    };
    let settings = CertificateSettings { cert: cert.into(), key: key.into(), passphrase_file: None };
    let (certificates, warnings) = Certificates::load(vec![settings], SystemTime::now())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let acceptor = TlsAcceptor::new(&TlsSettings::default(), Arc::new(certificates))?;
    let listener = TcpListener::bind(arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned()))?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, connection) = (stream?, acceptor.accept()?);
        thread::spawn(move || {
            if let Err(error) = echo(stream, connection) {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
}

fn echo(mut stream: TcpStream, mut connection: TlsConnection) -> Result<(), Box<dyn std::error::Error>> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 << 10];
    let (mut plaintext, mut out) = (Vec::new(), Vec::new());
    loop {
        let read = stream.read(&mut buffer)?;
        plaintext.clear();
        out.clear();
        let progress = connection.receive(&mut buffer[..read], &mut plaintext);
        connection.encrypt(&[&plaintext], &mut out)?;
        let over = read == 0 || progress.as_ref().is_ok_and(|progress| progress.closed_by_peer);
        if over {
            connection.close(&mut out);
        }
        stream.write_all(&out)?;
        progress?;
        if over {
            return Ok(());
        }
    }
}
