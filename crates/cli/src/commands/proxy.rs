//! `wootz proxy NAME`: the lines that a web server needs to pass WebSockets on to this configuration's wootz.
//!
//! Standard output is the snippet and nothing else, so that it can be appended to a file; what a person has to know
//! stands in its comments.

mod snippet;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use wootz_server::config::Address;

use self::snippet::{Form, Proxy, Snippet, Teller, Tls, Upstream, Wire};
use crate::failure::Failure;
use crate::output::print;
use crate::problem::{Origin, Problems};
use crate::settings::{FileState, Settings};

/// The names that the command line takes.
pub(crate) const NAMES: [&str; 4] = ["apache", "nginx", "caddy", "haproxy"];

/// The forms of Apache's snippet, the default first.
pub(crate) const FORMS: [&str; 3] = ["htaccess", "proxypass", "wstunnel"];

/// What the snippet depends on.
const KEYS: [&str; 5] = ["listen.address", "listen.path", "listen.proxy_protocol", "limits.ping_interval", "tls.cert"];

const LIST: &str = "\
wootz proxy apache   Apache: a rewrite rule for the virtual host or a .htaccess file (--for htaccess, the default),
                     ProxyPass with upgrade=websocket (--for proxypass), or mod_proxy_wstunnel (--for wstunnel)
wootz proxy nginx    nginx: lines for a server block
wootz proxy caddy    Caddy: lines for a site of the Caddyfile
wootz proxy haproxy  HAProxy: lines for a frontend, and a backend
";

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let Some(name) = matches.get_one::<String>("name") else { return print(LIST) };
    let mut problems = Problems::default();
    let proxy = proxy(name, matches.get_one("for").map(String::as_str), &mut problems);
    let mut of_settings = Problems::default();
    let settings = Settings::load(&super::sources(matches), &mut of_settings);
    // A mistake elsewhere in the file changes nothing about the snippet.
    if settings.file_state == FileState::Unknown || KEYS.iter().any(|key| settings.is_broken(key)) {
        problems.append(of_settings);
    }
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let check = Check {
        name: text("tls-name").and_then(|name| checked_name(name, proxy, &mut problems)),
        authorities: matches.get_one::<PathBuf>("ca").and_then(|file| authorities(file, &mut problems)),
    };
    let upstream = upstream(&settings, text("to"), &check, &mut problems);
    let path = path(&settings, &mut problems);
    let teller = proxy.and_then(|proxy| teller(&settings, proxy, &mut problems));
    match (proxy, upstream, teller) {
        (Some(proxy), Some(upstream), Some(teller)) if problems.is_empty() => {
            let ping_interval = settings.duration("limits.ping_interval");
            print(&Snippet { proxy, upstream, teller, path: &path, ping_interval }.to_string())
        }
        _ => Err(Failure::Configuration(problems)),
    }
}

fn proxy(name: &str, form: Option<&str>, problems: &mut Problems) -> Option<Proxy> {
    let proxy = match name {
        "apache" => Proxy::Apache(match form {
            None | Some("htaccess") => Form::Rewrite,
            Some("proxypass") => Form::ProxyPass,
            Some("wstunnel") => Form::Tunnel,
            Some(other) => unreachable!("the command line takes no form {other}"),
        }),
        "nginx" => Proxy::Nginx,
        "caddy" => Proxy::Caddy,
        "haproxy" => Proxy::Haproxy,
        other => unreachable!("the command line takes no proxy {other}"),
    };
    if form.is_some() && !matches!(proxy, Proxy::Apache(_)) {
        problems.add(Origin::flag("for"), format!("{name} has one form only; leave --for out"));
        return None;
    }
    Some(proxy)
}

/// How the proxy tells who the browser is.
fn teller(settings: &Settings, proxy: Proxy, problems: &mut Problems) -> Option<Teller> {
    if !settings.flag("listen.proxy_protocol") {
        return Some(Teller::Field);
    }
    let why = match proxy {
        Proxy::Haproxy => return Some(Teller::ProxyProtocol),
        Proxy::Apache(_) => "Apache's mod_proxy sends none",
        Proxy::Nginx => "nginx sends one from its stream module only, which knows neither pages nor paths",
        Proxy::Caddy => "Caddy sends none before 2.7, nor a right one of version 2 in it",
    };
    let text = format!(
        "listen.proxy_protocol = true wants a PROXY header before each connection, and {why}: set it to false (the \
         snippet then tells the browser's address by X-Forwarded-For), or take HAProxy (wootz proxy haproxy)"
    );
    problems.add(settings.origin("listen.proxy_protocol").clone(), text);
    None
}

/// How the proxy is to check wootz's certificate, as far as that was said.
#[derive(Debug, Default)]
struct Check {
    name: Option<String>,
    authorities: Option<PathBuf>,
}

/// Where wootz is, as the proxy sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On the same machine.
    Here,
    Elsewhere,
}

impl Check {
    /// The flag that asks for it.
    fn flag(&self) -> Option<&'static str> {
        match self {
            Self { name: Some(_), .. } => Some("tls-name"),
            Self { authorities: Some(_), .. } => Some("ca"),
            Self { name: None, authorities: None } => None,
        }
    }

    /// TLS to a host. What does not leave the machine is checked only where that was asked for.
    fn tls(&self, place: Place, host: Option<&str>) -> Result<Tls, NoName> {
        if place == Place::Here && self.flag().is_none() {
            return Ok(Tls::Unchecked);
        }
        let name = self.name.as_deref().or(host).ok_or(NoName)?.to_owned();
        Ok(Tls::Checked { name, authorities: self.authorities.clone() })
    }
}

/// A file of authorities, as it may be written into a snippet.
fn authorities(file: &Path, problems: &mut Problems) -> Option<PathBuf> {
    let absolute = std::path::absolute(file).ok().filter(|file| is_plain_path(file));
    if absolute.is_none() {
        problems.add(Origin::flag("ca"), "is a path of letters, digits and /-._~ only");
    }
    absolute
}

fn checked_name(name: &str, proxy: Option<Proxy>, problems: &mut Problems) -> Option<String> {
    let text = match proxy {
        Some(Proxy::Apache(_)) => {
            "can't be told to Apache, which checks a certificate for the host that it connects to: --to NAME:PORT"
        }
        _ if name.parse::<IpAddr>().is_ok() || !is_name(name) => "is a host name, as the certificate has it",
        _ => return Some(name.to_owned()),
    };
    problems.add(Origin::flag("tls-name"), text);
    None
}

/// What the proxy connects to: the address that was named, else the one of this configuration's that suits best.
fn upstream(settings: &Settings, named: Option<&str>, check: &Check, problems: &mut Problems) -> Option<Upstream> {
    let (found, origin, text) = match named {
        Some(named) => (
            named_upstream(named, &Plain::of(settings), check),
            Origin::flag("to"),
            "is host:port, plain:host:port or unix:/path, as the proxy reaches wootz",
        ),
        None => (
            listening_upstream(settings, check),
            settings.origin("listen.address").clone(),
            "listen.address takes any free port, or what the service manager gives; a proxy needs an address that \
             stays (or name it by --to)",
        ),
    };
    match found {
        None => problems.add(origin, text),
        Some(Err(NoName)) => problems.add(
            origin,
            "this is TLS to a certificate that has to be checked, and that is for a name: --to NAME:PORT, or \
             --tls-name NAME besides",
        ),
        Some(Ok(upstream)) => match check.flag() {
            Some(flag) if upstream.tls().is_none() => {
                problems.add(Origin::flag(flag), "is for a certificate, and there is no TLS where the proxy connects");
            }
            Some(_) | None => return Some(upstream),
        },
    }
    None
}

/// A certificate has to be checked, and nobody said for which name.
#[derive(Debug, PartialEq, Eq)]
struct NoName;

/// Which of the addresses speak no TLS.
enum Plain {
    /// There is no TLS at all.
    All,
    /// Those with these ports.
    Ports(Vec<u16>),
}

impl Plain {
    fn of(settings: &Settings) -> Self {
        if settings.files("tls.cert").is_empty() {
            return Self::All;
        }
        let plain = |address: &Address| match address {
            Address::Plain(address) => Some(address.port()),
            Address::Tcp(_) | Address::Unix(_) | Address::Systemd => None,
        };
        Self::Ports(settings.addresses("listen.address").iter().filter_map(plain).collect())
    }

    fn has(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Ports(ports) => ports.contains(&port),
        }
    }
}

/// The first address of `listen.address` that stays; with TLS the first without it, where there is one.
fn listening_upstream(settings: &Settings, check: &Check) -> Option<Result<Upstream, NoName>> {
    let addresses = settings.addresses("listen.address");
    if settings.files("tls.cert").is_empty() {
        return addresses.iter().find_map(|address| listening(address, Wire::Plain)).map(Ok);
    }
    let (encrypted, plain): (Vec<&Address>, Vec<_>) =
        addresses.iter().partition(|address| matches!(address, Address::Tcp(_)));
    if let Some(upstream) = plain.into_iter().find_map(|address| listening(address, Wire::PlainBesideTls)) {
        return Some(Ok(upstream));
    }
    let upstream = encrypted.into_iter().find_map(|address| listening(address, Wire::Tls(Tls::Unchecked)))?;
    Some(match upstream {
        Upstream::Tcp { authority, sender, wire: Wire::Tls(_) } => {
            let place = if sender.is_some() { Place::Here } else { Place::Elsewhere };
            check.tls(place, None).map(|tls| Upstream::Tcp { authority, sender, wire: Wire::Tls(tls) })
        }
        Upstream::Tcp { .. } | Upstream::Unix { .. } => Ok(upstream),
    })
}

/// An address that wootz listens on, as it is reached from this machine; `None` for what nobody knows before the start.
fn listening(address: &Address, wire: Wire) -> Option<Upstream> {
    match address {
        Address::Tcp(address) | Address::Plain(address) => listening_tcp(*address, wire),
        Address::Unix(path) => {
            let path = std::path::absolute(path).ok()?;
            is_plain_path(&path).then_some(Upstream::Unix { path, wire })
        }
        Address::Systemd => None,
    }
}

/// `None` for a port that nobody knows before the start.
fn listening_tcp(mut address: SocketAddr, wire: Wire) -> Option<Upstream> {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let sender = address.ip().is_loopback().then(|| address.ip());
    (address.port() != 0).then(|| Upstream::Tcp { authority: address.to_string(), sender, wire })
}

fn named_upstream(text: &str, plain: &Plain, check: &Check) -> Option<Result<Upstream, NoName>> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = PathBuf::from(path);
        let wire = Wire::Plain;
        return (path.is_absolute() && is_plain_path(&path)).then_some(Ok(Upstream::Unix { path, wire }));
    }
    let (text, says_plain) = text.strip_prefix("plain:").map_or((text, false), |rest| (rest, true));
    let (host, port) = text.rsplit_once(':')?;
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    let known = match address {
        Some(IpAddr::V6(_)) => host.starts_with('[') && host.ends_with(']'),
        Some(IpAddr::V4(_)) | None => is_name(host),
    };
    let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
    let sender = address.filter(IpAddr::is_loopback);
    let wire = if says_plain || plain.has(port) {
        Ok(Wire::Plain)
    } else {
        let place = if sender.is_some() || host == "localhost" { Place::Here } else { Place::Elsewhere };
        check.tls(place, address.is_none().then_some(host)).map(Wire::Tls)
    };
    known.then(|| wire.map(|wire| Upstream::Tcp { authority: format!("{host}:{port}"), sender, wire }))
}

fn is_name(host: &str) -> bool {
    !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
}

/// `listen.path` without a final slash: empty for everything.
fn path(settings: &Settings, problems: &mut Problems) -> String {
    let path = settings.text("listen.path");
    if !path.starts_with('/') || !path.chars().all(is_plain) {
        let origin = settings.origin("listen.path").clone();
        let text = "listen.path needs to begin with \"/\" and to have letters, digits and /-._~ only: four \
                    programs would read anything else in four ways";
        problems.add(origin, text);
    }
    path.trim_end_matches('/').to_owned()
}

fn is_plain_path(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.chars().all(is_plain))
}

/// Means itself in every one of the configurations.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/-._~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_reach_wootz_at_is_a_host_with_a_port_or_a_socket() {
        let named = |text: &str| named_upstream(text, &Plain::All, &Check::default());
        let tcp = |text: &str| match named(text) {
            Some(Ok(Upstream::Tcp { authority, sender, wire: Wire::Plain })) => Some((authority, sender.is_some())),
            Some(_) | None => None,
        };
        assert_eq!(tcp("127.0.0.1:8888"), Some(("127.0.0.1:8888".to_owned(), true)));
        assert_eq!(tcp("[::1]:8888"), Some(("[::1]:8888".to_owned(), true)));
        assert_eq!(tcp("wootz.internal:80"), Some(("wootz.internal:80".to_owned(), false)));
        assert!(matches!(named("unix:/run/wootz.ws"), Some(Ok(Upstream::Unix { .. }))));
        for text in
            ["", "8888", ":8888", "host", "host:0", "host:x", "::1:8888", "unix:", "unix:run", "unix:/a b", "a b:1"]
        {
            assert!(named(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_named_address_speaks_tls_where_wootz_does_and_is_checked_beyond_this_machine_or_where_that_is_asked_for() {
        let wire = |text: &str, check: &Check| match named_upstream(text, &Plain::Ports(vec![8889]), check) {
            Some(Ok(Upstream::Tcp { wire, .. } | Upstream::Unix { wire, .. })) => Ok(wire),
            Some(Err(NoName)) => Err(NoName),
            None => panic!("{text} names nobody"),
        };
        let nothing = Check::default();
        let name = |name: &str| Some(name.to_owned());
        let checked = |name: &str, authorities: Option<PathBuf>| {
            Ok(Wire::Tls(Tls::Checked { name: name.to_owned(), authorities }))
        };
        for text in ["127.0.0.1:443", "[::1]:443", "localhost:443"] {
            assert_eq!(wire(text, &nothing), Ok(Wire::Tls(Tls::Unchecked)), "{text}");
        }
        for text in ["10.0.0.5:8889", "plain:10.0.0.5:80", "unix:/run/wootz.ws"] {
            assert_eq!(wire(text, &nothing), Ok(Wire::Plain), "{text}");
        }
        assert_eq!(wire("example.com:443", &nothing), checked("example.com", None));
        assert_eq!(wire("10.0.0.5:443", &nothing), Err(NoName));
        let file = Some(PathBuf::from("/ca.pem"));
        let by_file = Check { name: None, authorities: file.clone() };
        assert_eq!(wire("127.0.0.1:443", &by_file), Err(NoName));
        assert_eq!(wire("localhost:443", &by_file), checked("localhost", file.clone()));
        let by_both = Check { name: name("example.com"), authorities: file.clone() };
        assert_eq!(wire("127.0.0.1:443", &by_both), checked("example.com", file));
        assert_eq!(
            wire("a.internal:443", &Check { name: name("example.com"), authorities: None }),
            checked("example.com", None)
        );
    }
}
