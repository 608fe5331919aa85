//! Everything that wootz promises of speed and memory, in one run and one table.
//!
//! The law: each figure stands beside a floor or a peer of the same run, their rounds taking turns; servers have core 0,
//! this program has core 1; every answer is compared byte for byte, and a wrong or a missing one fails the run.

mod asking;
mod client;
mod fastcgi;
mod herd;
mod http;
mod http2;
mod lifetimes;
mod pinning;
mod pool;
mod rows;
mod server;
mod statistics;
mod table;
mod tls;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use table::Table;

/// The programs that are measured.
pub struct Programs {
    wootz: PathBuf,
    echo: PathBuf,
    websocketd: PathBuf,
    php_fpm: PathBuf,
    nginx: PathBuf,
    php: PathBuf,
    node: PathBuf,
    pick: PathBuf,
    redis_server: PathBuf,
    redis_benchmark: PathBuf,
    floor_epoll: PathBuf,
    floor_tokio: PathBuf,
    floor_rustls: PathBuf,
    tls_echo: PathBuf,
}

const USAGE: &str = "usage: bench WOOTZ ECHO WEBSOCKETD PHP_FPM NGINX PHP NODE PICK REDIS_SERVER REDIS_BENCHMARK [ROW…]
rows: memory push control echo exec handshakes lifetimes fpm fpm-many nginx isolate flood http session identity recheck tls (all, if none is named)
WOOTZ is the server, ECHO the embedding example that echoes, PICK the example that reads a session, the others are its peers and what it calls; the floors lie beside this program";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let paths: Vec<PathBuf> = arguments.by_ref().take(10).map(PathBuf::from).collect();
    let wanted: Vec<String> = arguments.collect();
    let unknown = wanted.iter().find(|name| rows::ALL.iter().all(|row| row.name != **name));
    let (Ok(paths), None) = (<[PathBuf; 10]>::try_from(paths), unknown) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(paths, &wanted) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(paths: [PathBuf; 10], wanted: &[String]) -> io::Result<ExitCode> {
    pinning::pin_this_thread(pinning::CLIENT_CORE)?;
    let [wootz, echo, websocketd, php_fpm, nginx, php, node, pick, redis_server, redis_benchmark] = paths;
    let own = std::env::current_exe()?;
    let (floor_epoll, floor_tokio) = (own.with_file_name("floor_epoll"), own.with_file_name("floor_tokio"));
    let (floor_rustls, tls_echo) = (own.with_file_name("floor_rustls"), own.with_file_name("tls_echo"));
    let programs = Programs {
        wootz,
        echo,
        websocketd,
        php_fpm,
        nginx,
        php,
        node,
        pick,
        redis_server,
        redis_benchmark,
        floor_epoll,
        floor_tokio,
        floor_rustls,
        tls_echo,
    };
    let mut table = Table::default();
    for row in rows::ALL.iter().filter(|row| wanted.is_empty() || wanted.iter().any(|name| name == row.name)) {
        eprintln!("bench: {}: {}", row.name, row.doing);
        if let Err(error) = (row.measure)(&programs, &mut table) {
            eprintln!("bench: {}: failed: {error}", row.name);
            table.failed(row.doing, &error);
        }
    }
    table.print();
    Ok(if table.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
