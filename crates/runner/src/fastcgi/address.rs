//! Where a FastCGI server listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// The address of a Unix socket is at most so long, with its final NUL.
const MAX_UNIX_PATH_BYTES: usize = 107;

/// Where a FastCGI server listens: `unix:/run/php/php-fpm.sock` or `127.0.0.1:9000`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A Unix socket, by its absolute path.
    Unix(PathBuf),
    /// `host:port`; the host is an address or a name, looked up for each connection.
    Tcp(String),
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Nothing.
    #[error("is empty; say unix:/path/of/the.sock or host:port")]
    Empty,
    /// A path that does not begin with `/`.
    #[error("needs an absolute path after \"unix:\", like unix:/run/php/php-fpm.sock")]
    RelativePath,
    /// A path that no socket can have.
    #[error("has a path of {0} bytes; that of a Unix socket has at most {MAX_UNIX_PATH_BYTES} and no NUL")]
    Path(usize),
    /// A URL.
    #[error("begins with {0:?}; leave it away: unix:/path/of/the.sock or host:port")]
    Scheme(String),
    /// No port.
    #[error("has no port; say host:port, like 127.0.0.1:9000")]
    NoPort,
    /// A port that is none.
    #[error("has the port {0:?}, which is no number from 1 to 65535")]
    Port(String),
    /// No host, or one that can't be a host.
    #[error("has no host that could be one; say host:port, like 127.0.0.1:9000 or [::1]:9000")]
    Host,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(AddressError::Scheme(format!("{scheme}://")));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path);
        }
        if text.starts_with('/') {
            return unix(text);
        }
        let (host, port) = match text.rsplit_once(':') {
            Some(parts) => parts,
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => return Err(AddressError::Host),
            None => return Err(AddressError::NoPort),
        };
        if !port.bytes().all(|byte| byte.is_ascii_digit()) || !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(AddressError::Port(port.to_owned()));
        }
        if !is_host(host) {
            return Err(AddressError::Host);
        }
        Ok(Self::Tcp(text.to_owned()))
    }
}

fn unix(path: &str) -> Result<Address, AddressError> {
    if !path.starts_with('/') {
        return Err(AddressError::RelativePath);
    }
    if path.len() > MAX_UNIX_PATH_BYTES || path.contains('\0') {
        return Err(AddressError::Path(path.len()));
    }
    Ok(Address::Unix(PathBuf::from(path)))
}

/// A name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    }
}

/// As it is written in the configuration.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_path_or_a_host_with_a_port() {
        for text in ["unix:/run/php/php8.2-fpm.sock", "127.0.0.1:9000", "[::1]:9000", "php_fpm.internal:9000"] {
            let address: Address = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(address.to_string(), text);
        }
        assert_eq!("/run/x.sock".parse(), Ok(Address::Unix("/run/x.sock".into())));
    }

    #[test]
    fn what_is_no_address_says_what_is_missing() {
        let long = format!("unix:/{}", "x".repeat(107));
        for (text, error) in [
            ("", AddressError::Empty),
            ("unix:", AddressError::RelativePath),
            ("unix:run/x.sock", AddressError::RelativePath),
            ("unix:/a\0b", AddressError::Path(4)),
            (long.as_str(), AddressError::Path(108)),
            ("tcp://127.0.0.1:9000", AddressError::Scheme("tcp://".into())),
            ("unix:///run/x.sock", AddressError::Scheme("unix://".into())),
            ("localhost", AddressError::NoPort),
            ("9000", AddressError::Host),
            (":9000", AddressError::Host),
            ("::1:9000", AddressError::Host),
            ("a b:9000", AddressError::Host),
            ("localhost:", AddressError::Port(String::new())),
            ("localhost:0", AddressError::Port("0".into())),
            ("localhost:+80", AddressError::Port("+80".into())),
            ("localhost:65536", AddressError::Port("65536".into())),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text:?}");
        }
    }
}
