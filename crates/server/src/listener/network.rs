//! Networks of addresses, as `listen.trusted_proxies` names them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The addresses that share their first bits: `10.0.0.0/8`, `2001:db8::/32`, or one address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It is neither an address nor an address with a prefix.
    #[error("is no address and no network such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32")]
    Malformed,
    /// The prefix is longer than the address.
    #[error("has a prefix longer than its address: at most /{longest}")]
    PrefixTooLong {
        /// The longest one.
        longest: u8,
    },
    /// There are bits behind the prefix, so one of the two is a slip of the pen.
    #[error("has bits behind its prefix; {meant} is the whole network")]
    BitsBehindPrefix {
        /// The network with these first bits.
        meant: Network,
    },
}

impl Network {
    /// 127.0.0.0/8 and ::1: this machine.
    pub const LOOPBACK: [Self; 2] = [
        Self { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix_bits: 8 },
        Self { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix_bits: 128 },
    ];

    /// The addresses of local networks (RFC 1918, RFC 4193) and of one link (RFC 3927, RFC 4291).
    pub const PRIVATE: [Self; 6] = [
        Self { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), prefix_bits: 8 },
        Self { address: IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), prefix_bits: 12 },
        Self { address: IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), prefix_bits: 16 },
        Self { address: IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), prefix_bits: 16 },
        Self { address: IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), prefix_bits: 7 },
        Self { address: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), prefix_bits: 10 },
    ];

    /// Whether the address is one of these. An IPv4 address inside IPv6 (`::ffff:10.0.0.1`) is the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
            (_, address) => first_bits(address, self.prefix_bits) == self.address,
        }
    }
}

/// The address with all bits behind the prefix cleared.
pub(crate) fn first_bits(address: IpAddr, prefix_bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix_bits.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix_bits.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| NetworkError::Malformed)?;
        let address = written.to_canonical();
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => longest,
            // `::ffff:10.0.0.0/104` could be meant in two ways.
            Some(_) if written != address => return Err(NetworkError::Malformed),
            Some(digits) if !digits.bytes().all(|byte| byte.is_ascii_digit()) => return Err(NetworkError::Malformed),
            Some(digits) => digits.parse().map_err(|_| NetworkError::Malformed)?,
        };
        if prefix_bits > longest {
            return Err(NetworkError::PrefixTooLong { longest });
        }
        let meant = Self { address: first_bits(address, prefix_bits), prefix_bits };
        if meant.address != address {
            return Err(NetworkError::BitsBehindPrefix { meant });
        }
        Ok(meant)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_the_addresses_with_its_first_bits_and_no_other() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("10.0.0.0/8", "::a00:1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("::ffff:192.0.2.7", "192.0.2.7", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1", "::1", true),
        ];
        for (network, address, expected) in cases {
            let parsed: Network = network.parse().expect("a network");
            assert_eq!(parsed.contains(address.parse().expect("an address")), expected, "{address} in {network}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_and_a_slip_of_the_pen_is_explained() {
        for text in [
            "",
            "10",
            "10.0.0.0/",
            "10.0.0.0/x",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0.0/999",
            "a.example",
            "::ffff:10.0.0.0/104",
            "[::1]",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Malformed), "{text}");
        }
        assert_eq!("10.0.0.0/33".parse::<Network>(), Err(NetworkError::PrefixTooLong { longest: 32 }));
        let error = "10.1.2.3/8".parse::<Network>().expect_err("bits behind the prefix");
        assert_eq!(error.to_string(), "has bits behind its prefix; 10.0.0.0/8 is the whole network");
    }

    #[test]
    fn the_named_networks_are_written_as_they_would_be_parsed() {
        for network in Network::LOOPBACK.into_iter().chain(Network::PRIVATE) {
            assert_eq!(network.to_string().parse(), Ok(network));
        }
    }
}
