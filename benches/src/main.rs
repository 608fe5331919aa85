//! Everything that wootz promises of speed and memory, in one run and one table.
//!
//! The law: each figure stands beside a floor or a peer of the same run, their rounds taking turns; servers have core 0,
//! this program has core 1; every answer is compared byte for byte, and a wrong or a missing one fails the run.

mod client;
mod herd;
mod lifetimes;
mod pinning;
mod rows;
mod server;
mod statistics;
mod table;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use table::Table;

/// The programs that are measured.
pub struct Programs {
    wootz: PathBuf,
    echo: PathBuf,
    websocketd: PathBuf,
    floor_epoll: PathBuf,
    floor_tokio: PathBuf,
}

const USAGE: &str = "usage: bench WOOTZ ECHO WEBSOCKETD [ROW…]
rows: memory push echo exec handshakes lifetimes (all, if none is named)
WOOTZ is the server, ECHO the embedding example that echoes, WEBSOCKETD the peer; the floors lie beside this program";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let paths: Vec<PathBuf> = arguments.by_ref().take(3).map(PathBuf::from).collect();
    let wanted: Vec<String> = arguments.collect();
    let unknown = wanted.iter().find(|name| rows::ALL.iter().all(|row| row.name != **name));
    let (Ok([wootz, echo, websocketd]), None) = (<[PathBuf; 3]>::try_from(paths), unknown) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(wootz, echo, websocketd, &wanted) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(wootz: PathBuf, echo: PathBuf, websocketd: PathBuf, wanted: &[String]) -> io::Result<ExitCode> {
    pinning::pin_this_thread(pinning::CLIENT_CORE)?;
    let own = std::env::current_exe()?;
    let beside = |name: &str| own.with_file_name(name);
    let programs =
        Programs { wootz, echo, websocketd, floor_epoll: beside("floor_epoll"), floor_tokio: beside("floor_tokio") };
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
