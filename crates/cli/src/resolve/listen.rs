//! Where browsers connect, and who is believed about their addresses.

use std::num::NonZero;
use std::path::Path;
use std::thread;

use wootz_server::config::{Address, ForwardedHeader, Listen, Network, PortTaken, ProxyProtocol};

use super::{Resolver, control, not_in_the_table};

/// Most threads that make sense on any machine; a larger number is a slip of the pen.
const MOST_SHARDS: usize = 1024;

impl Resolver<'_> {
    pub(super) fn listen(&mut self) -> Listen {
        let path = self.settings.text("listen.path");
        if !path.starts_with('/') {
            self.problem("listen.path", r#"has to begin with "/""#);
        } else if path.contains(|c: char| matches!(c, '?' | '#') || !c.is_ascii_graphic()) {
            self.problem("listen.path", "is a path alone: no query, no fragment, no space, other characters as %XX");
        }
        let shards = match self.number("listen.shards") {
            0 => thread::available_parallelism().map_or(1, NonZero::get),
            wanted => wanted,
        };
        if shards > MOST_SHARDS {
            self.problem("listen.shards", &format!("is at most {MOST_SHARDS}"));
        }
        let listen = Listen {
            addresses: self.addresses(),
            inherited: Vec::new(),
            unix_mode: self.settings.mode("listen.unix_mode"),
            unix_group: self.own_group("listen.unix_group"),
            proxy_protocol: if self.settings.flag("listen.proxy_protocol") {
                ProxyProtocol::Required
            } else {
                ProxyProtocol::Absent
            },
            trusted_proxies: self.trusted_proxies(),
            forwarded_header: match self.settings.text("listen.forwarded_header") {
                "either" => ForwardedHeader::Either,
                "x-forwarded-for" => ForwardedHeader::XForwardedFor,
                "forwarded" => ForwardedHeader::Forwarded,
                other => not_in_the_table(other),
            },
            path: path.to_owned(),
            port_taken: if self.settings.flag("listen.auto_port") { PortTaken::TryNext } else { PortTaken::Refuse },
            shards,
        };
        self.check_proxy_protocol(&listen);
        listen
    }

    /// Unix sockets get absolute paths, since the log and `wootz status` are read elsewhere.
    fn addresses(&mut self) -> Vec<Address> {
        let mut addresses = self.settings.addresses("listen.address").to_vec();
        for address in &mut addresses {
            let Address::Unix(path) = address else { continue };
            *path = std::path::absolute(&*path).unwrap_or_else(|_| path.clone());
            self.check_socket(path);
        }
        addresses
    }

    fn check_socket(&mut self, path: &Path) {
        if let Err(why) = control::check(path) {
            self.problem("listen.address", &why);
        }
    }

    fn trusted_proxies(&mut self) -> Vec<Network> {
        let mut networks = Vec::new();
        for text in self.settings.list("listen.trusted_proxies") {
            match text.as_str() {
                "loopback" => networks.extend(Network::LOOPBACK),
                "private" => networks.extend(Network::LOOPBACK.into_iter().chain(Network::PRIVATE)),
                text => match text.parse() {
                    Ok(network) => networks.push(network),
                    Err(why) => self.problem("listen.trusted_proxies", &format!("has \"{text}\", which {why}")),
                },
            }
        }
        networks
    }

    /// Where nobody may send the header, nobody could connect.
    fn check_proxy_protocol(&mut self, listen: &Listen) {
        let only_untrusted =
            listen.addresses.iter().all(|address| matches!(address, Address::Tcp(_) | Address::Plain(_)));
        if listen.proxy_protocol == ProxyProtocol::Required && listen.trusted_proxies.is_empty() && only_untrusted {
            let text = "= true needs listen.trusted_proxies: a PROXY header is taken from nobody else, so nobody could connect";
            self.problem("listen.proxy_protocol", text);
        }
    }
}
