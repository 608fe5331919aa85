//! `wootz proxy NAME`: the lines that a web server needs to pass WebSockets on to this configuration's wootz.
//!
//! Standard output is the snippet and nothing else, so that it can be appended to a file; what a person has to know
//! stands
//! in its comments.

mod snippet;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::ArgMatches;
use wootz_server::config::Address;

use self::snippet::{Form, Proxy, Snippet, Upstream};
use crate::failure::Failure;
use crate::output::print;
use crate::problem::{Origin, Problems};
use crate::settings::{FileState, Settings};

/// The names that the command line takes.
pub(crate) const NAMES: [&str; 4] = ["apache", "nginx", "caddy", "haproxy"];

/// The forms of Apache's snippet, the default first.
pub(crate) const FORMS: [&str; 3] = ["htaccess", "proxypass", "wstunnel"];

/// What the snippet depends on.
const KEYS: [&str; 3] = ["listen.address", "listen.path", "limits.ping_interval"];

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
    let upstream = upstream(&settings, matches.get_one("to").map(String::as_str), &mut problems);
    let path = path(&settings, &mut problems);
    match (proxy, upstream) {
        (Some(proxy), Some(upstream)) if problems.is_empty() => {
            let ping_interval = settings.duration("limits.ping_interval");
            print(&Snippet { proxy, upstream, path: &path, ping_interval }.to_string())
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

/// What the proxy connects to: the address that was named, else the one that wootz listens on.
fn upstream(settings: &Settings, named: Option<&str>, problems: &mut Problems) -> Option<Upstream> {
    match named {
        Some(named) => {
            let upstream = named_upstream(named);
            if upstream.is_none() {
                problems.add(Origin::flag("to"), "is host:port or unix:/path, as the proxy reaches wootz");
            }
            upstream
        }
        None => {
            // A proxy ends TLS itself, and speaks none to wootz.
            let has_tls = !settings.files("tls.cert").is_empty();
            let speaks_tls = |address: &&Address| has_tls && matches!(address, Address::Tcp(_));
            let mut addresses = settings.addresses("listen.address").iter().filter(|address| !speaks_tls(address));
            let upstream = addresses.find_map(listening);
            if upstream.is_none() && has_tls {
                let text = "listen.address has none without TLS for a proxy: add plain:127.0.0.1:8889 or unix:/path (or name one by --to)";
                problems.add(settings.origin("listen.address").clone(), text);
            } else if upstream.is_none() {
                let origin = settings.origin("listen.address").clone();
                let text = "listen.address takes any free port, or what the service manager gives; a proxy needs an address that stays (or name it by --to)";
                problems.add(origin, text);
            }
            upstream
        }
    }
}

/// An address that wootz listens on, as it is reached from this machine; `None` for what nobody knows before the start.
fn listening(address: &Address) -> Option<Upstream> {
    match address {
        Address::Tcp(address) | Address::Plain(address) => listening_tcp(*address),
        Address::Unix(path) => {
            let path = std::path::absolute(path).ok()?;
            path.to_str().is_some_and(|path| path.chars().all(is_plain)).then_some(Upstream::Unix(path))
        }
        Address::Systemd => None,
    }
}

/// `None` for a port that nobody knows before the start.
fn listening_tcp(mut address: SocketAddr) -> Option<Upstream> {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let sender = address.ip().is_loopback().then(|| address.ip());
    (address.port() != 0).then(|| Upstream::Tcp { authority: address.to_string(), sender })
}

fn named_upstream(text: &str) -> Option<Upstream> {
    if let Some(path) = text.strip_prefix("unix:") {
        let plain = path.starts_with('/') && path.chars().all(is_plain);
        return plain.then(|| Upstream::Unix(PathBuf::from(path)));
    }
    let (host, port) = text.rsplit_once(':')?;
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    let name = |host: &str| !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    let known = match address {
        Some(IpAddr::V6(_)) => host.starts_with('[') && host.ends_with(']'),
        Some(IpAddr::V4(_)) | None => name(host),
    };
    let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
    let sender = address.filter(IpAddr::is_loopback);
    known.then(|| Upstream::Tcp { authority: format!("{host}:{port}"), sender })
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

/// Means itself in every one of the configurations.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/-._~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_reach_wootz_at_is_a_host_with_a_port_or_a_socket() {
        let tcp = |text: &str| match named_upstream(text) {
            Some(Upstream::Tcp { authority, sender }) => Some((authority, sender.is_some())),
            Some(Upstream::Unix(_)) | None => None,
        };
        assert_eq!(tcp("127.0.0.1:8888"), Some(("127.0.0.1:8888".to_owned(), true)));
        assert_eq!(tcp("[::1]:8888"), Some(("[::1]:8888".to_owned(), true)));
        assert_eq!(tcp("wootz.internal:80"), Some(("wootz.internal:80".to_owned(), false)));
        assert!(matches!(named_upstream("unix:/run/wootz.ws"), Some(Upstream::Unix(_))));
        for text in
            ["", "8888", ":8888", "host", "host:0", "host:x", "::1:8888", "unix:", "unix:run", "unix:/a b", "a b:1"]
        {
            assert!(named_upstream(text).is_none(), "{text}");
        }
    }
}
