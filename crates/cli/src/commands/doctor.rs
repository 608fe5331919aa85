//! `wootz doctor URL`: goes the way of a browser, hop by hop, and says which one breaks, whose it is, and what to
//! change.

mod answer;
mod certificate;
mod examine;
mod fault;
mod local;
mod report;
mod talk;
mod transport;
mod url;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::ArgMatches;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

use self::examine::{Visit, Visited};
use self::fault::Fault;
use self::local::Local;
use self::report::{Hop, Report};
use self::transport::{Checks, Trust};
use self::url::{Scheme, Target};
use crate::arguments::given;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::print;
use crate::problem::{Origin, Problems};
use crate::resolve::control_socket;
use crate::settings::{FileChoice, Settings};

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let url = text("url").expect("the command line requires it");
    let mut report = Report::new(url);
    let mut direct = None;
    if let Some(target) = sane(url, &mut report) {
        let trust = trust(matches)?;
        let other = text("direct").map(Target::parse).transpose().map_err(|why| usage("direct", why))?;
        let visit = Visit {
            host: target.authority(),
            origin: text("origin").map_or_else(|| target.origin(), str::to_owned),
            target: &target,
            cookie: text("cookie"),
            message: text("message"),
            idle: seconds(matches, "idle"),
            trust: &trust,
            patience: seconds(matches, "timeout").expect("it has a default"),
        };
        let result = visit.run(&mut report);
        report.fault = result.as_ref().err().cloned();
        look_around(matches, &mut report);
        direct = other.map(|other| compare(&visit, &result, &other, &mut report));
    }
    let shown = if given(matches, "json") { report.json(direct.as_ref()) } else { report.text(direct.as_ref()) };
    print(&shown)?;
    match &report.fault {
        None => Ok(()),
        Some(fault) => Err(anyhow!("{url} does not work: {}", fault.diagnosis().name).into()),
    }
}

fn sane(url: &str, report: &mut Report) -> Option<Target> {
    match Target::parse(url) {
        Ok(target) => {
            let how = match target.scheme {
                Scheme::Plain => "no TLS",
                Scheme::Tls => "TLS",
            };
            report.ok(Hop::Url, Duration::ZERO, format!("{target}: {how}, port {}", target.port));
            Some(target)
        }
        Err(why) => {
            report.failed(Hop::Url, Duration::ZERO, why.clone());
            report.fault = Some(Fault::BadUrl(why));
            None
        }
    }
}

fn usage(flag: &str, why: String) -> Failure {
    let mut problems = Problems::default();
    problems.add(Origin::flag(flag), why);
    Failure::Configuration(problems)
}

fn seconds(matches: &ArgMatches, name: &str) -> Option<Duration> {
    matches.get_one::<u64>(name).copied().map(Duration::from_secs)
}

/// The authorities of the file that was named, else of this machine.
fn trust(matches: &ArgMatches) -> Result<Trust, Failure> {
    let mut roots = RootCertStore::empty();
    match matches.get_one::<std::path::PathBuf>("ca") {
        Some(file) => {
            for certificate in authorities(file)? {
                roots
                    .add(certificate)
                    .with_context(|| format!("{} has a certificate that can't be used", file.display()))?;
            }
        }
        // What can't be read is no authority; where there is none at all, the hop says so.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let checks = if given(matches, "insecure") { Checks::Reported } else { Checks::Enforced };
    Ok(Trust { roots: Arc::new(roots), checks })
}

fn authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let read = CertificateDer::pem_file_iter(file).and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>());
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(usage("ca", format!("{} has no certificate in PEM", file.display()))),
        Err(error) => Err(usage("ca", format!("{} can't be read: {error}", file.display()))),
    }
}

/// Where the fault may lie with a wootz of this machine, has a look at it.
fn look_around(matches: &ArgMatches, report: &mut Report) {
    let may_be_here = match &report.fault {
        Some(
            Fault::Silent
            | Fault::TlsSilent
            | Fault::TlsClosed { .. }
            | Fault::PlainToTls { .. }
            | Fault::TcpSilent { .. }
            | Fault::Closed { .. }
            | Fault::BackendDown { .. }
            | Fault::NobodyListens { .. }
            | Fault::Unavailable,
        ) => true,
        Some(_) | None => false,
    };
    if !may_be_here {
        return;
    }
    let mut sources = super::sources(matches);
    if !sources.overrides.is_empty() {
        sources.file = FileChoice::None;
    }
    let socket = control_socket(&Settings::load(&sources, &mut Problems::default()), &super::variable);
    match Local::at(&socket) {
        Some(local @ Local { pid, files: Some((used, limit)) }) if local.is_out_of_files() => {
            report.fault = Some(Fault::OpenFiles { pid, used, limit });
        }
        Some(Local { pid, .. }) => report.note(match listening(&socket) {
            Ok(listening) => format!("on this machine a wootz runs (process {pid}) and listens on {listening}."),
            Err(error) => format!("on this machine a wootz runs (process {pid}), but {error:#}."),
        }),
        None => report.note(format!("on this machine no wootz runs (none at {}).", socket.display())),
    }
}

/// Where the server at this socket listens.
fn listening(socket: &Path) -> anyhow::Result<String> {
    let mut client = Client::connect_to(socket.to_owned())?;
    let answer = client.ask("GET", "/v1/status", None)?.text()?;
    let status: Value = serde_json::from_str(&answer).context("it speaks no JSON")?;
    Ok(match &status["listen"] {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        one => one.as_str().unwrap_or_default().to_owned(),
    })
}

/// Goes to wootz itself too, without what is before it, and says what the difference means. A path that is not named
/// is the URL's own.
fn compare(visit: &Visit<'_>, result: &Result<Visited, Fault>, other: &Target, report: &mut Report) -> Report {
    // Another address and nothing else: the same site, page and person.
    let path = if other.path == "/" { &visit.target.path } else { &other.path };
    let other = &Target { path: path.clone(), ..other.clone() };
    let direct = Visit { target: other, idle: None, ..visit.clone() };
    let mut own = Report::new(&other.to_string());
    let directly = direct.run(&mut own);
    own.fault = directly.as_ref().err().cloned();
    match (result, &directly) {
        (Err(Fault::GuestRefused { proxy, .. } | Fault::UserRefused { proxy, .. }), Ok(_))
            if visit.cookie.is_some() =>
        {
            report.fault = Some(Fault::CookieLost { proxy: *proxy });
        }
        (Err(_), Ok(_)) => report.note("directly it works, so the fault is on the way to wootz and not wootz's."),
        (Err(fault), Err(same)) if fault.diagnosis().name == same.diagnosis().name => {
            report.note("directly the same is broken, so what is before wootz is not to blame.");
        }
        (_, Err(fault)) => {
            report.note(format!("directly something else is broken: {}", fault.diagnosis().broken));
        }
        (Ok(visited), Ok(directly)) => {
            if let (true, Some(_)) = (visited.reply != directly.reply, visit.cookie) {
                // What came through this URL is what comes directly without a cookie: then it is the cookie that is
                // lost.
                let without = Visit { cookie: None, ..direct }.run(&mut Report::new(""));
                if without.is_ok_and(|without| without.reply == visited.reply) {
                    report.turn_failed(Hop::Identity, "the reply is the one for nobody");
                    report.fault = Some(Fault::CookieLost { proxy: visited.proxy });
                    return own;
                }
            }
            if visited.reply != directly.reply {
                report.note(
                    "the replies differ; they may do so by themselves (a time, a count), or what is \
before wootz changes the request.",
                );
            }
        }
    }
    own
}
