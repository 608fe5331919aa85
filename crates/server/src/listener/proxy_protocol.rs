//! The PROXY protocol, versions 1 and 2, as HAProxy's `doc/proxy-protocol.txt` says: who it is that a proxy speaks for.
//!
//! No socket and no clock: bytes go in, a header comes out, or the wish for more, or an error. Nothing is guessed: a connection that does not
//! begin with a header is refused, and so is one whose header is over its bound, torn or contradicts itself.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// "PROXY UNKNOWN" with the longest addresses and the line's end (section 2.1).
const MAX_V1_BYTES: usize = 107;

/// Twelve bytes that no other protocol begins with (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version, family and length.
const V2_FIXED_BYTES: usize = 16;

/// Longest header of version 2. The addresses are 216 bytes at most; the rest are TLVs, of which proxies send some hundred bytes.
const MAX_V2_BYTES: usize = 4096;

const V1_BEGINNING: &[u8] = b"PROXY ";

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its bytes; what follows is the browser's.
    pub(crate) length: usize,
    /// The browser. `None`: the proxy speaks for itself (a health check), or does not know.
    pub(crate) source: Option<SocketAddr>,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("it does not begin with a PROXY header")]
    NoHeader,
    #[error("its PROXY header is too long")]
    TooLong,
    #[error("its PROXY header has a line that is not as version 1 says")]
    Line,
    #[error("its PROXY header has a version or command that does not exist")]
    Command,
    #[error("its PROXY header is not of a stream")]
    Family,
    #[error("its PROXY header is shorter than its addresses or its TLVs")]
    Torn,
}

/// Reads a header from the start of `bytes`. `None`: more bytes are needed; give all of them again then.
///
/// # Errors
/// There is no header, or a wrong one: close the connection.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    if begins_alike(bytes, SIGNATURE) {
        parse_v2(bytes)
    } else if begins_alike(bytes, V1_BEGINNING) {
        parse_v1(bytes)
    } else {
        Err(Malformed::NoHeader)
    }
}

/// Whether the bytes, as far as they came, may begin with this.
fn begins_alike(bytes: &[u8], beginning: &[u8]) -> bool {
    bytes.iter().zip(beginning).all(|(byte, expected)| byte == expected)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let searched = &bytes[..bytes.len().min(MAX_V1_BYTES)];
    let Some(end) = memchr::memchr(b'\r', searched) else {
        return if bytes.len() >= MAX_V1_BYTES { Err(Malformed::TooLong) } else { Ok(None) };
    };
    match searched.get(end + 1) {
        Some(b'\n') => {}
        Some(_) => return Err(Malformed::Line),
        None if searched.len() < bytes.len() || searched.len() == MAX_V1_BYTES => return Err(Malformed::TooLong),
        None => return Ok(None),
    }
    let line = std::str::from_utf8(&searched[V1_BEGINNING.len()..end]).map_err(|_| Malformed::Line)?;
    let mut fields = line.split(' ');
    let source = match fields.next() {
        // "The receiver must ignore anything presented before the CRLF."
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(v1_addresses::<Ipv4Addr>(fields)?),
        Some("TCP6") => Some(v1_addresses::<Ipv6Addr>(fields)?),
        Some(_) | None => return Err(Malformed::Line),
    };
    Ok(Some(Header { length: end + 2, source }))
}

/// Source, destination and their ports, and nothing behind them.
fn v1_addresses<A: FromStr + Into<std::net::IpAddr>>(
    fields: std::str::Split<'_, char>,
) -> Result<SocketAddr, Malformed> {
    let fields: Vec<&str> = fields.take(5).collect();
    let [source, destination, source_port, destination_port] = fields[..] else { return Err(Malformed::Line) };
    let address = |text: &str| text.parse::<A>().map_err(|_| Malformed::Line);
    address(destination)?;
    v1_port(destination_port)?;
    Ok(SocketAddr::new(address(source)?.into(), v1_port(source_port)?))
}

/// Digits without a leading zero.
fn v1_port(text: &str) -> Result<u16, Malformed> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_plain { text.parse().map_err(|_| Malformed::Line) } else { Err(Malformed::Line) }
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((&[version_and_command, family, high, low], _)) =
        bytes.get(SIGNATURE.len()..).and_then(<[u8]>::split_first_chunk::<4>)
    else {
        return Ok(None);
    };
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed::Command),
    };
    // The length of a LOCAL header's addresses is not told by its family.
    let address_bytes = match family {
        _ if is_local => 0,
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => return Err(Malformed::Family),
    };
    if length > MAX_V2_BYTES {
        return Err(Malformed::TooLong);
    }
    if length < V2_FIXED_BYTES + address_bytes {
        return Err(Malformed::Torn);
    }
    let Some(header) = bytes.get(V2_FIXED_BYTES..length) else { return Ok(None) };
    if is_local || family == 0x00 {
        return Ok(Some(Header { length, source: None }));
    }
    let (addresses, tlvs) = header.split_at(address_bytes);
    skip_tlvs(tlvs)?;
    Ok(Some(Header { length, source: v2_source(family, addresses) }))
}

/// Source, destination, source port, destination port; a Unix socket has a path, and no address.
fn v2_source(family: u8, addresses: &[u8]) -> Option<SocketAddr> {
    let port_at = |at: usize| addresses.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
    match family {
        0x11 => Some(SocketAddr::new(Ipv4Addr::from(*addresses.first_chunk::<4>()?).into(), port_at(8)?)),
        0x21 => Some(SocketAddr::new(Ipv6Addr::from(*addresses.first_chunk::<16>()?).into(), port_at(32)?)),
        _ => None,
    }
}

/// What a proxy tells besides. Nothing of it is used; it has to be whole.
fn skip_tlvs(mut tlvs: &[u8]) -> Result<(), Malformed> {
    while !tlvs.is_empty() {
        let (&[_kind, high, low], rest) = tlvs.split_first_chunk::<3>().ok_or(Malformed::Torn)?;
        tlvs = rest.get(usize::from(u16::from_be_bytes([high, low]))..).ok_or(Malformed::Torn)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A header of version 2 with this command, family and content.
    fn v2(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).expect("it fits").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, content].concat()
    }

    fn v4_content(source: [u8; 4], port: u16) -> Vec<u8> {
        [&source[..], &[127, 0, 0, 1], &port.to_be_bytes(), &443_u16.to_be_bytes()].concat()
    }

    fn v6_content(source: Ipv6Addr, port: u16) -> Vec<u8> {
        [&source.octets()[..], &[0; 16], &port.to_be_bytes(), &443_u16.to_be_bytes()].concat()
    }

    /// What comes out when the bytes come one by one; it has to be the same as at once.
    fn one_byte_at_a_time(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
        let mut outcome = Ok(None);
        for end in 0..=bytes.len() {
            outcome = parse(&bytes[..end]);
            if outcome != Ok(None) {
                break;
            }
        }
        outcome
    }

    fn gives(bytes: &[u8], source: Option<&str>) {
        let expected = Header { length: bytes.len(), source: source.map(|source| source.parse().expect("an address")) };
        assert_eq!(one_byte_at_a_time(bytes), Ok(Some(expected)), "{}", bytes.escape_ascii());
        let with_more = [bytes, b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(parse(&with_more), Ok(Some(expected)), "{}", bytes.escape_ascii());
    }

    #[test]
    fn version_1_tells_the_browser_or_that_it_is_not_known() {
        gives(b"PROXY TCP4 203.0.113.7 127.0.0.1 56324 443\r\n", Some("203.0.113.7:56324"));
        gives(b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Some("255.255.255.255:65535"));
        gives(b"PROXY TCP6 2001:db8::7 ::1 0 1\r\n", Some("[2001:db8::7]:0"));
        gives(b"PROXY UNKNOWN\r\n", None);
        gives(b"PROXY UNKNOWN ffff:f...f:ffff anything at all\r\n", None);
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1_BYTES - 16));
        assert_eq!(longest.len(), MAX_V1_BYTES);
        gives(longest.as_bytes(), None);
    }

    #[test]
    fn version_2_tells_the_browser_or_that_the_proxy_speaks_for_itself() {
        gives(&v2(0x21, 0x11, &v4_content([203, 0, 113, 7], 5000)), Some("203.0.113.7:5000"));
        gives(&v2(0x21, 0x21, &v6_content("2001:db8::7".parse().expect("one"), 5000)), Some("[2001:db8::7]:5000"));
        gives(&v2(0x21, 0x31, &[b'/'; 216]), None);
        gives(&v2(0x21, 0x00, b"what nobody knows"), None);
        gives(&v2(0x20, 0x00, b""), None);
        gives(&v2(0x20, 0x11, b"x"), None);
        let tlvs = [&[0x04, 0, 3, 1, 2, 3][..], &[0x20, 0, 0], &[0xee, 0, 1, 9]].concat();
        gives(&v2(0x21, 0x11, &[v4_content([203, 0, 113, 7], 5000), tlvs].concat()), Some("203.0.113.7:5000"));
    }

    #[test]
    fn what_is_no_header_is_refused_as_soon_as_it_can_be_told() {
        let content = v4_content([203, 0, 113, 7], 5000);
        let torn = |tlv: &[u8]| v2(0x21, 0x11, &[&content, tlv].concat());
        let too_long = format!("PROXY UNKNOWN {}", "x".repeat(MAX_V1_BYTES));
        let cases: Vec<(&[u8], Malformed)> = vec![
            (b"GET / HTTP/1.1\r\n", Malformed::NoHeader),
            (b"\x16\x03\x01", Malformed::NoHeader),
            (b"PROXYTCP4", Malformed::NoHeader),
            (b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n", Malformed::NoHeader),
            (b"\r\n\r\n\0\r\nQUIT\r", Malformed::NoHeader),
            (too_long.as_bytes(), Malformed::TooLong),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n\r\n", Malformed::Line),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\rx", Malformed::Line),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", Malformed::Line),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n", Malformed::Line),
            (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n", Malformed::Line),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", Malformed::Line),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n", Malformed::Line),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n", Malformed::Line),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4  1\r\n", Malformed::Line),
            (b"PROXY TCP4 ::1 ::1 1 1\r\n", Malformed::Line),
            (b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n", Malformed::Line),
            (b"PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n", Malformed::Line),
            (b"PROXY TCP4 localhost 1.2.3.4 1 1\r\n", Malformed::Line),
            (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n", Malformed::Line),
            (b"PROXY \r\n", Malformed::Line),
            (b"PROXY TCP4 \xff\xfe 1.2.3.4 1 1\r\n", Malformed::Line),
        ];
        for (bytes, malformed) in cases {
            assert_eq!(one_byte_at_a_time(bytes), Err(malformed), "{}", bytes.escape_ascii());
        }
        for (bytes, malformed) in [
            (v2(0x11, 0x11, &content), Malformed::Command),
            (v2(0x22, 0x11, &content), Malformed::Command),
            (v2(0x31, 0x11, &content), Malformed::Command),
            (v2(0x21, 0x12, &content), Malformed::Family),
            (v2(0x21, 0x41, &content), Malformed::Family),
            (v2(0x21, 0x11, &content[..11]), Malformed::Torn),
            (v2(0x21, 0x21, &[0; 35]), Malformed::Torn),
            (v2(0x21, 0x31, &[0; 215]), Malformed::Torn),
            (v2(0x21, 0x11, &[0; MAX_V2_BYTES]), Malformed::TooLong),
            (v2(0x20, 0x00, &[0; 0xffff]), Malformed::TooLong),
            (torn(&[0x04]), Malformed::Torn),
            (torn(&[0x04, 0]), Malformed::Torn),
            (torn(&[0x04, 0, 2, 1]), Malformed::Torn),
            (torn(&[0x04, 0xff, 0xff]), Malformed::Torn),
        ] {
            assert_eq!(one_byte_at_a_time(&bytes), Err(malformed), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn no_header_may_be_longer_than_its_bound() {
        assert!(parse(&[b"PROXY UNKNOWN ", &[b'x'; MAX_V1_BYTES][..]].concat()).is_err());
        let longest = v2(0x20, 0x00, &vec![0; MAX_V2_BYTES - V2_FIXED_BYTES]);
        gives(&longest, None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_the_same_at_once_and_one_by_one_and_never_a_panic(
            beginning in 0..3_usize,
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [[&b""[..], V1_BEGINNING, SIGNATURE][beginning], &bytes].concat();
            let slowly = one_byte_at_a_time(&bytes);
            match slowly {
                Ok(Some(header)) => {
                    prop_assert!(header.length <= bytes.len());
                    prop_assert_eq!(parse(&bytes), slowly);
                }
                Ok(None) => prop_assert_eq!(parse(&bytes), Ok(None)),
                Err(_) => prop_assert!(parse(&bytes).is_err()),
            }
        }

        #[test]
        fn any_address_arrives_by_both_versions(ip in any::<std::net::IpAddr>(), port in any::<u16>()) {
            let (line, binary) = match ip {
                std::net::IpAddr::V4(ip) => {
                    (format!("PROXY TCP4 {ip} 127.0.0.1 {port} 443\r\n"), v2(0x21, 0x11, &v4_content(ip.octets(), port)))
                }
                std::net::IpAddr::V6(ip) => {
                    (format!("PROXY TCP6 {ip} ::1 {port} 443\r\n"), v2(0x21, 0x21, &v6_content(ip, port)))
                }
            };
            for bytes in [line.into_bytes(), binary] {
                let header = Header { length: bytes.len(), source: Some(SocketAddr::new(ip, port)) };
                prop_assert_eq!(one_byte_at_a_time(&bytes), Ok(Some(header)));
                // Cut anywhere, it is not yet a header and never another one.
                prop_assert!(bytes.iter().enumerate().all(|(end, _)| parse(&bytes[..end]) == Ok(None)));
            }
        }
    }
}
