//! `wootz check`: every mistake at once, or what would be served.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;

use clap::ArgMatches;
use wootz_server::config::{Address, Config, Guests, Mode, Provider};

use crate::failure::Failure;
use crate::output::print;
use crate::resolve::{Resolved, Runner};
use crate::settings::FILE_NAME;

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let (settings, resolved) = super::resolved(matches)?;
    let verdict = match &settings.file {
        Some(file) => format!("{}: fine", file.display()),
        None => format!("no {FILE_NAME} here; what was given is fine"),
    };
    for warning in resolved.warnings.iter() {
        // There is nobody left to tell where standard error is closed.
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    print(&format!("{verdict}\n{}", summary(&resolved)))
}

/// What would be served, in a few lines.
fn summary(resolved: &Resolved) -> String {
    let config = &resolved.config;
    let who = match &config.identity.provider {
        Provider::None => "nobody is told apart",
        Provider::Application => "the application says who is who",
        Provider::Session(_) => "the site's session says who is who",
        Provider::Jwt(_) => "a signed token says who is who",
    };
    let guests = match config.identity.guests {
        Guests::Allow => "guests are allowed",
        Guests::Refuse => "guests are refused",
    };
    let pipes = match &config.pipes {
        Some(pipes) => pipes.directory.display().to_string(),
        None => "none".to_owned(),
    };
    let control =
        config.control.as_ref().map_or_else(|| "none".to_owned(), |control| control.socket.display().to_string());
    let mode = match config.mode {
        Mode::Production => "",
        Mode::Development => " (--dev)",
    };
    let rows = [
        ("serves", format!("{}{mode}", places(config))),
        ("runs", runs(&resolved.runner)),
        ("identity", format!("{who}; {guests}")),
        ("pipes", pipes),
        ("control", control),
    ];
    rows.map(|(name, value)| format!("  {name:<9} {value}")).join("\n")
}

/// All addresses, those of browsers as browsers write them.
fn places(config: &Config) -> String {
    let listen = &config.listen;
    let places = listen.addresses.iter().map(|address| match address {
        Address::Tcp(socket) | Address::Plain(socket) => {
            format!("{}://{socket}{}", super::scheme(config, address), listen.path)
        }
        Address::Unix(_) | Address::Systemd => format!("{address}, path {}", listen.path),
    });
    places.collect::<Vec<_>>().join("; ")
}

/// Which runner it is and where the application is.
fn runs(runner: &Runner) -> String {
    match runner {
        Runner::Exec(exec) => format!("exec: {} in {}", for_a_shell(&exec.command), absolute(&exec.directory)),
        Runner::FastCgi(fastcgi) => format!("fastcgi: {} at {}", fastcgi.script.display(), fastcgi.address),
        Runner::Workers(workers) => {
            let process = &workers.process;
            let script =
                workers.script.as_ref().map(|script| format!(" with {}", script.display())).unwrap_or_default();
            let (command, directory) = (for_a_shell(&process.command), absolute(&process.directory));
            format!("fastcgi: {command}{script} in {directory}, {} kept workers", workers.workers)
        }
        Runner::Http(http) => format!("http: {}", http.url),
    }
}

fn for_a_shell(command: &[OsString]) -> String {
    let words: Vec<_> = command.iter().map(|word| quoted_for_a_shell(&word.to_string_lossy())).collect();
    words.join(" ")
}

fn absolute(path: &Path) -> String {
    path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// A word as it can be pasted into a shell.
fn quoted_for_a_shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
