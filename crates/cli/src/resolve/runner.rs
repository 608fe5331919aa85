//! The rooms `application.fastcgi` and `application.http`, and which of the runners it is.
//!
//! A setting that means nothing to the way in which calls are run is a mistake: taking it would be a lie.

use std::io::ErrorKind;
use std::num::NonZero;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{Access, access};
use wootz_runner::exec::ExecSettings;
use wootz_runner::fastcgi::{Address, FastCgiSettings, Reload, WorkerSettings};
use wootz_runner::http::{HttpSettings, HttpUrl};

use super::{Resolver, not_in_the_table};
use crate::settings::{Dev, TABLE, Way};

const ADDRESS: &str = "application.fastcgi.address";
const SCRIPT: &str = "application.fastcgi.script";
const URL: &str = "application.http.url";

/// Most workers that make sense on any machine; a larger number is a slip of the pen.
const MOST_WORKERS: usize = 4096;

/// What runs the calls.
#[derive(Debug)]
pub(crate) enum Runner {
    /// A fresh process for each call.
    Exec(ExecSettings),
    /// A FastCGI server that runs already.
    FastCgi(FastCgiSettings),
    /// FastCGI workers that wootz starts and keeps.
    Workers(WorkerSettings),
    /// An HTTP server that runs already.
    Http(HttpSettings),
}

/// Whether a file that is not here can be where it is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SeenFrom {
    /// This machine.
    Here,
    /// Perhaps another one, or a container.
    Elsewhere,
}

impl Resolver<'_> {
    /// The runner, where enough is known to make one.
    pub(super) fn runner(&mut self) -> Option<Runner> {
        let way = self.way();
        self.check_ways(way);
        match way {
            Way::FreshProcess => Some(Runner::Exec(self.processes(way))),
            Way::FastCgiServer => self.fastcgi_server().map(Runner::FastCgi),
            Way::KeptWorkers => Some(Runner::Workers(self.kept_workers())),
            Way::HttpServer => self.http().map(Runner::Http),
        }
    }

    fn way(&self) -> Way {
        match self.settings.text("application.runner") {
            "exec" => Way::FreshProcess,
            "fastcgi" if self.settings.text(ADDRESS).is_empty() => Way::KeptWorkers,
            "fastcgi" => Way::FastCgiServer,
            "http" => Way::HttpServer,
            other => not_in_the_table(other),
        }
    }

    /// Reports what was written for other ways, but not where a later source has overridden it by choosing this one.
    fn check_ways(&mut self, way: Way) {
        let settings = self.settings;
        if settings.is_broken("application.runner") {
            return;
        }
        let chosen = settings.origin("application.runner");
        let idle = TABLE.iter().filter(|row| !row.only.is_empty() && !row.only.contains(&way));
        for row in idle.filter(|row| settings.is_changed(row)) {
            let (origin, address) = (settings.origin(row.key), settings.origin(ADDRESS));
            if row.key == "application.command" && way == Way::FastCgiServer {
                if !address.wins_over(origin) {
                    let text = format!("would never run: calls go to {ADDRESS} ({address}); take one of the two away");
                    self.problem(row.key, &text);
                }
            } else if !chosen.wins_over(origin) {
                let text = format!(
                    "does nothing with {} ({chosen}); it is for {}",
                    way.describe(),
                    Way::describe_all(row.only)
                );
                self.problem(row.key, &text);
            }
        }
    }

    /// Reports that the chosen runner lacks what `key` should say.
    pub(super) fn missing(&mut self, key: &str, text: &str) {
        if !self.settings.is_broken(key) {
            let runner = self.settings.text("application.runner");
            self.problem("application.runner", &format!("= \"{runner}\" {text}"));
        }
    }

    fn fastcgi_server(&mut self) -> Option<FastCgiSettings> {
        let settings = self.settings;
        let text = settings.text(ADDRESS);
        let address = text.parse().map_err(|why| self.problem(ADDRESS, &format!("= \"{text}\" {why}"))).ok();
        let seen_from = match &address {
            Some(Address::Unix(socket)) => {
                self.look_at_socket(ADDRESS, socket);
                SeenFrom::Here
            }
            Some(Address::Tcp(_)) | None => SeenFrom::Elsewhere,
        };
        let script = self.script(seen_from);
        if script.is_none() {
            let text = format!(
                "needs {SCRIPT}, the file that answers; try: wootz serve --fastcgi {text} --script {}",
                example_script().display()
            );
            self.missing(SCRIPT, &text);
        }
        let environment = self.environment_of_calls();
        let keep = self.number("application.fastcgi.keep");
        Some(FastCgiSettings {
            environment,
            keep,
            connect_timeout: settings.duration("application.fastcgi.connect_timeout"),
            first_byte_timeout: settings.duration("application.fastcgi.first_byte_timeout"),
            timeout: settings.duration("application.limits.timeout"),
            max_output_bytes: self.bytes("application.limits.max_output"),
            reply: self.reply(),
            frame: self.frame(),
            ..FastCgiSettings::new(address?, script?)
        })
    }

    fn kept_workers(&mut self) -> WorkerSettings {
        let settings = self.settings;
        let workers = match self.number("application.fastcgi.workers") {
            0 => thread::available_parallelism().map_or(1, NonZero::get).max(2),
            wanted => wanted,
        };
        if workers > MOST_WORKERS {
            self.problem("application.fastcgi.workers", &format!("is at most {MOST_WORKERS}"));
        }
        let process = self.processes(Way::KeptWorkers);
        // A program reads its environment when it starts; PHP shows its scripts what comes with the request.
        let parameters = settings.map("application.environment").to_vec();
        WorkerSettings {
            process,
            script: self.script(SeenFrom::Here),
            parameters,
            connect_timeout: settings.duration("application.fastcgi.connect_timeout"),
            first_byte_timeout: settings.duration("application.fastcgi.first_byte_timeout"),
            workers,
            max_calls: settings.count("application.fastcgi.max_calls").into(),
            max_idle: settings.duration("application.fastcgi.max_idle"),
            max_memory_bytes: settings.size("application.fastcgi.max_memory"),
            reload: match self.dev {
                Dev::Yes => Reload::OnChange,
                Dev::No => Reload::Never,
            },
        }
    }

    /// The script with its absolute path; none where none is set. Reports one that can't be right.
    fn script(&mut self, seen_from: SeenFrom) -> Option<PathBuf> {
        let directory = self.directory();
        let text = self.settings.text(SCRIPT);
        if text.is_empty() {
            return None;
        }
        let script = directory.join(text);
        let script = std::path::absolute(&script).unwrap_or(script);
        let why = match script.metadata() {
            Ok(file) if file.is_file() => return Some(script),
            Ok(_) => "is not a file",
            Err(error) if error.kind() == ErrorKind::NotFound => "does not exist",
            Err(error) if error.kind() == ErrorKind::NotADirectory => "does not exist",
            // What this user may not see, that of the server may.
            Err(_) => return Some(script),
        };
        match seen_from {
            SeenFrom::Here => self.problem(SCRIPT, &format!("= \"{}\" {why}", script.display())),
            SeenFrom::Elsewhere => self.warn(
                SCRIPT,
                &format!(
                    "= \"{}\" {why} here; that is well where the FastCGI server sees other files",
                    script.display()
                ),
            ),
        }
        Some(script)
    }

    fn http(&mut self) -> Option<HttpSettings> {
        let settings = self.settings;
        let text = settings.text(URL);
        let keep = self.number("application.http.keep");
        let connect_timeout = settings.duration("application.http.connect_timeout");
        let first_byte_timeout = settings.duration("application.http.first_byte_timeout");
        if text.is_empty() {
            self.missing(URL, &format!("needs {URL}; try: wootz serve --http http://127.0.0.1:8000"));
            return None;
        }
        let url: HttpUrl = text.parse().map_err(|why| self.problem(URL, &format!("= \"{text}\": {why}"))).ok()?;
        if let Some(socket) = url.to_string().strip_prefix("unix:") {
            self.look_at_socket(URL, Path::new(socket));
        }
        Some(HttpSettings {
            keep,
            connect_timeout,
            first_byte_timeout,
            timeout: settings.duration("application.limits.timeout"),
            max_output_bytes: self.bytes("application.limits.max_output"),
            reply: self.reply(),
            frame: self.frame(),
            ..HttpSettings::new(url)
        })
    }

    /// Warns of a socket that can't be connected to now: its server may be started later.
    fn look_at_socket(&mut self, key: &str, socket: &Path) {
        let why = match socket.metadata() {
            Ok(file) if !file.file_type().is_socket() => "is no socket",
            Ok(_) if access(socket, Access::WRITE_OK).is_err() => {
                "may not be opened by this user: put wootz's user into the socket's group"
            }
            Ok(_) => return,
            Err(error) if error.kind() == ErrorKind::NotFound => "is not there yet: is its server running?",
            Err(_) => "can't be looked at by this user",
        };
        self.warn(key, &format!("= \"unix:{}\" {why}", socket.display()));
    }

    fn warn(&mut self, key: &str, text: &str) {
        self.warnings.add(self.settings.origin(key).clone(), format!("{key} {text}"));
    }
}

/// The script that is probably meant.
fn example_script() -> PathBuf {
    let here = Path::new("index.php");
    let there = || PathBuf::from("/var/www/html/index.php");
    if here.is_file() { std::path::absolute(here).unwrap_or_else(|_| there()) } else { there() }
}
