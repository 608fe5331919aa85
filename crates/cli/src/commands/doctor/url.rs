//! The URL as a person types it: `ws`, `wss`, and `http`, `https` for the page that opens the connection.

use std::fmt;
use std::net::Ipv6Addr;

/// Whether the first hop is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Plain,
    Tls,
}

/// Where to connect and what to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) scheme: Scheme,
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query, beginning with `/`.
    pub(super) path: String,
}

impl Target {
    /// Reads a URL; the error says what is wrong with it.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(format!("\"{url}\" has no scheme: wss://{url} or ws://{url}"));
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "http" => Scheme::Plain,
            "wss" | "https" => Scheme::Tls,
            other => return Err(format!("\"{other}\" is no scheme of a WebSocket: ws, wss, http or https")),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("a name and a password can't stand in a WebSocket's URL".to_owned());
        }
        if path.contains('#') {
            return Err("a WebSocket's URL has no fragment (#…)".to_owned());
        }
        if let Some(bad) = path.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(format!("{bad:?} can't stand in a path: write it as %XX"));
        }
        let (host, port) = split_port(authority, scheme)?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { scheme, host: host.to_ascii_lowercase(), port, path })
    }

    /// What `Host` says: the port only where it is not the scheme's own.
    pub(super) fn authority(&self) -> String {
        let host = bracketed(&self.host);
        if self.port == default_port(self.scheme) { host } else { format!("{host}:{}", self.port) }
    }

    /// The origin of a page of this site.
    pub(super) fn origin(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Plain => "http",
            Scheme::Tls => "https",
        };
        format!("{scheme}://{}", self.authority())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Plain => "ws",
            Scheme::Tls => "wss",
        };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

fn default_port(scheme: Scheme) -> u16 {
    match scheme {
        Scheme::Plain => 80,
        Scheme::Tls => 443,
    }
}

/// The host as it stands before a port.
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn split_port(authority: &str, scheme: Scheme) -> Result<(&str, u16), String> {
    let after_brackets = authority.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match authority[after_brackets..].find(':') {
        None => (authority, default_port(scheme)),
        Some(at) => {
            let (host, port) = authority.split_at(after_brackets + at);
            let port = port[1..].parse().ok().filter(|port| *port > 0);
            (host, port.ok_or("a port is a number from 1 to 65535")?)
        }
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
        Some(address) => return Err(format!("\"{address}\" is no IPv6 address")),
        None if host.is_empty() => return Err("it names no host".to_owned()),
        None if !host.is_ascii() => return Err(format!("\"{host}\" has to be written in ASCII (xn--…)")),
        None if host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) => host,
        None => return Err(format!("\"{host}\" is no host name")),
    };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_sockets_and_of_pages_mean_the_same() {
        let cases = [
            ("ws://example.com", "ws://example.com/", "example.com", "http://example.com"),
            ("HTTP://Example.com:80/live?x=1", "ws://example.com/live?x=1", "example.com", "http://example.com"),
            ("https://example.com/live", "wss://example.com/live", "example.com", "https://example.com"),
            ("wss://example.com:8443?x", "wss://example.com:8443/?x", "example.com:8443", "https://example.com:8443"),
            ("ws://[::1]:8888/", "ws://[::1]:8888/", "[::1]:8888", "http://[::1]:8888"),
        ];
        for (url, shown, authority, origin) in cases {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.to_string().as_str(), target.authority().as_str()), (shown, authority));
            assert_eq!(target.origin(), origin);
        }
    }

    #[test]
    fn what_is_no_url_of_a_websocket_is_named() {
        let cases = [
            ("example.com", "no scheme: wss://example.com"),
            ("ftp://example.com", "no scheme of a WebSocket"),
            ("ws://", "names no host"),
            ("ws://a:0", "a port is a number"),
            ("ws://a:x", "a port is a number"),
            ("ws://u:p@a", "password"),
            ("ws://a/#b", "fragment"),
            ("ws://a/b c", "%XX"),
            ("ws://a b", "no host name"),
            ("ws://bücher.de", "xn--"),
            ("ws://[zz]", "no IPv6 address"),
        ];
        for (url, why) in cases {
            let error = Target::parse(url).unwrap_err();
            assert!(error.contains(why), "{url}: {error}");
        }
    }
}
