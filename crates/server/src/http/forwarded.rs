//! Whose request a proxy hands on: `X-Forwarded-For`, or `Forwarded` (RFC 7239).
//!
//! Each proxy writes whom it heard behind what it was sent, so the list is read from its right end, where ours wrote, and only as far as proxies
//! that are trusted wrote it: what stands further left anybody can have written, the browser first of all. Of the two fields one is read, never
//! a mix. What can't be read ends the walk at the proxy that wrote it; it is never skipped.

use std::net::{IpAddr, SocketAddr};

use wootz_protocol::handshake::Request;

use crate::config::ForwardedHeader;

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED: &str = "forwarded";

/// An address that a proxy has told, with the port where it told one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) address: IpAddr,
    pub(super) port: Option<u16>,
}

/// Who sent the request, as far as trusted proxies tell. `None`: the peer itself, as far as is known.
///
/// The peer has to be trusted already.
pub(super) fn sender(
    request: &Request<'_>,
    header: ForwardedHeader,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<Node> {
    match header {
        ForwardedHeader::XForwardedFor => by_x_forwarded_for(request, is_trusted),
        ForwardedHeader::Forwarded => by_forwarded(request, is_trusted),
        // The usual proxies write the first and hand the second on unseen, so the first is theirs where it is there.
        ForwardedHeader::Either if has(request, X_FORWARDED_FOR) => by_x_forwarded_for(request, is_trusted),
        ForwardedHeader::Either => by_forwarded(request, is_trusted),
    }
}

/// Whether a request has one of the two fields.
pub(super) fn is_told(request: &Request<'_>) -> bool {
    has(request, X_FORWARDED_FOR) || has(request, FORWARDED)
}

fn has(request: &Request<'_>, name: &str) -> bool {
    request.all(name).next().is_some()
}

fn by_x_forwarded_for(request: &Request<'_>, is_trusted: impl Fn(IpAddr) -> bool) -> Option<Node> {
    let fields: Vec<&[u8]> = request.all(X_FORWARDED_FOR).collect();
    let elements = fields.into_iter().rev().flat_map(|field| field.rsplit(|&byte| byte == b','));
    walk(elements.map(<[u8]>::trim_ascii), node, is_trusted)
}

fn by_forwarded(request: &Request<'_>, is_trusted: impl Fn(IpAddr) -> bool) -> Option<Node> {
    let fields: Vec<&[u8]> = request.all(FORWARDED).collect();
    let elements = fields.into_iter().rev().flat_map(|field| FromRight { rest: Some(field), separator: b',' });
    walk(elements.map(<[u8]>::trim_ascii), node_of_element, is_trusted)
}

/// Goes from the nearest hop to the first that is not trusted, or can't be read.
fn walk<'e>(
    elements: impl Iterator<Item = &'e [u8]>,
    read: impl Fn(&[u8]) -> Option<Node>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<Node> {
    let mut sender = None;
    // RFC 9110, 5.6.1.2: empty list elements do not count.
    for element in elements.filter(|element| !element.is_empty()) {
        let Some(node) = read(element) else { break };
        sender = Some(node);
        if !is_trusted(node.address) {
            break;
        }
    }
    sender
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`; a port may be hidden as `_abc` (RFC 7239, 6).
fn node(text: &[u8]) -> Option<Node> {
    let text = std::str::from_utf8(text).ok()?;
    let known = |address: IpAddr, port: Option<u16>| Node {
        address: address.to_canonical(),
        port: port.filter(|&port| port > 0),
    };
    if let Ok(address) = text.parse() {
        return Some(known(address, None));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(known(address.ip(), Some(address.port())));
    }
    let (host, hidden_port) = match text.rsplit_once(':') {
        Some((host, port)) if port.starts_with('_') => (host, true),
        _ => (text, false),
    };
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match in_brackets {
        Some(address) => address.parse().ok().map(|address| known(IpAddr::V6(address), None)),
        None if hidden_port => host.parse().ok().map(|address| known(IpAddr::V4(address), None)),
        None => None,
    }
}

/// The node of the one `for=` of an element.
fn node_of_element(element: &[u8]) -> Option<Node> {
    let pairs = FromRight { rest: Some(element), separator: b';' };
    let mut senders = pairs.filter_map(|pair| {
        let at = memchr::memchr(b'=', pair)?;
        pair[..at].trim_ascii().eq_ignore_ascii_case(b"for").then_some(pair[at + 1..].trim_ascii())
    });
    let (value, None) = (senders.next()?, senders.next()) else { return None };
    match value.strip_prefix(b"\"") {
        Some(quoted) => node(quoted.strip_suffix(b"\"")?),
        None => node(value),
    }
}

/// The parts between separators that are in no quoted string, from the right: a quote that a browser left open then spoils its own part only.
struct FromRight<'f> {
    rest: Option<&'f [u8]>,
    separator: u8,
}

impl<'f> Iterator for FromRight<'f> {
    type Item = &'f [u8];

    fn next(&mut self) -> Option<&'f [u8]> {
        let rest = self.rest.take()?;
        let mut in_quotes = false;
        for (at, &byte) in rest.iter().enumerate().rev() {
            if byte == b'"' && !is_escaped(&rest[..at]) {
                in_quotes = !in_quotes;
            } else if byte == self.separator && !in_quotes {
                self.rest = Some(&rest[..at]);
                return Some(&rest[at + 1..]);
            }
        }
        Some(rest)
    }
}

/// Whether what follows these bytes is the second byte of a quoted pair.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::{Network, is_trusted};
    use proptest::prelude::*;
    use wootz_protocol::handshake::{HeadLimits, Parsed, parse};

    /// What comes out where 10.0.0.0/8 and 2001:db8:1::/48 are trusted; as text, without a port where none is known.
    fn by(header: ForwardedHeader, fields: &str) -> String {
        let head = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
        let limits = HeadLimits { max_head_bytes: 64 * 1024, ..HeadLimits::default() };
        let Ok(Parsed::Complete { request, .. }) = parse(head.as_bytes(), &limits) else { panic!("{fields}") };
        let trusted = ["10.0.0.0/8", "2001:db8:1::/48"].map(|network| network.parse::<Network>().expect("one"));
        match sender(&request, header, |address| is_trusted(address, &trusted)) {
            None => "the peer".to_owned(),
            Some(Node { address, port: None }) => address.to_string(),
            Some(Node { address, port: Some(port) }) => SocketAddr::new(address, port).to_string(),
        }
    }

    #[test]
    fn x_forwarded_for_is_read_from_the_right_up_to_the_first_that_is_not_trusted() {
        for (value, expected) in [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7, 10.0.0.1", "203.0.113.7"),
            // What the browser wrote stands left of what the proxies wrote.
            ("1.1.1.1, 203.0.113.7", "203.0.113.7"),
            ("1.1.1.1, 203.0.113.7, 10.0.0.1, 10.0.0.2", "203.0.113.7"),
            ("10.0.0.9, 203.0.113.7", "203.0.113.7"),
            ("127.0.0.1,203.0.113.7", "203.0.113.7"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("203.0.113.7:4711", "203.0.113.7:4711"),
            ("203.0.113.7:0", "203.0.113.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:4711", "[2001:db8::7]:4711"),
            ("203.0.113.7, 2001:db8:1::1", "203.0.113.7"),
            ("203.0.113.7, [2001:db8:1::1]:9", "203.0.113.7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("203.0.113.7, ::ffff:10.0.0.1", "203.0.113.7"),
            (" ,, 203.0.113.7 ,\t", "203.0.113.7"),
            // Not skipped: the proxy that wrote it is the last one that is known.
            ("203.0.113.7, garbage", "the peer"),
            ("203.0.113.7, garbage, 10.0.0.1", "10.0.0.1"),
            ("203.0.113.7, unix:", "the peer"),
            ("unknown", "the peer"),
            ("", "the peer"),
            (",", "the peer"),
            ("203.0.113.7:99999", "the peer"),
            ("203.0.113.7 203.0.113.8", "the peer"),
            ("203.0.113.07", "the peer"),
            ("203.0.113", "the peer"),
            ("[203.0.113.7]", "the peer"),
            ("[2001:db8::7", "the peer"),
            ("2001:db8::7]", "the peer"),
            ("\u{fc}, 10.0.0.1", "10.0.0.1"),
            ("example.com", "the peer"),
            ("\"203.0.113.7\"", "the peer"),
        ] {
            assert_eq!(by(ForwardedHeader::Either, &format!("X-Forwarded-For: {value}")), expected, "{value}");
        }
        let split =
            "X-Forwarded-For: 1.1.1.1\r\nA: b\r\nx-forwarded-for: 203.0.113.7, 10.0.0.1\r\nX-FORWARDED-FOR: 10.0.0.2";
        assert_eq!(by(ForwardedHeader::Either, split), "203.0.113.7");
    }

    #[test]
    fn forwarded_is_read_from_the_right_with_quotes_ports_and_hidden_names() {
        for (value, expected) in [
            ("for=203.0.113.7", "203.0.113.7"),
            ("For=203.0.113.7;proto=https;by=10.0.0.1", "203.0.113.7"),
            ("proto=https; FOR = \"203.0.113.7:4711\" ;by=10.0.0.1", "203.0.113.7:4711"),
            ("for=\"[2001:db8::7]:4711\"", "[2001:db8::7]:4711"),
            ("for=\"[2001:db8::7]\"", "2001:db8::7"),
            ("for=\"[2001:db8::7]:_hidden\"", "2001:db8::7"),
            ("for=\"203.0.113.7:_hidden\"", "203.0.113.7"),
            ("for=1.1.1.1, for=203.0.113.7, for=10.0.0.1", "203.0.113.7"),
            ("for=1.1.1.1,for=\"[2001:db8::7]\",for=\"10.0.0.1:80\"", "2001:db8::7"),
            ("for=203.0.113.7;by=\"a,b;for=1.1.1.1\"", "203.0.113.7"),
            ("for=203.0.113.7;by=\"a\\\",for=1.1.1.1\"", "203.0.113.7"),
            // A quote that the browser left open ends where the proxy's part begins.
            ("for=\"1.1.1.1, for=203.0.113.7", "203.0.113.7"),
            ("for=1.1.1.1;by=\", for=\"[2001:db8::7]\"", "2001:db8::7"),
            ("for=203.0.113.7, for=unknown", "the peer"),
            ("for=203.0.113.7, for=_hidden, for=10.0.0.1", "10.0.0.1"),
            ("for=203.0.113.7, by=10.0.0.1", "the peer"),
            ("for=203.0.113.7;for=203.0.113.8", "the peer"),
            ("for=\"203.0.113.7", "the peer"),
            ("for=", "the peer"),
            ("203.0.113.7", "the peer"),
            ("for", "the peer"),
            (";", "the peer"),
            (", ,", "the peer"),
        ] {
            assert_eq!(by(ForwardedHeader::Either, &format!("Forwarded: {value}")), expected, "{value}");
        }
    }

    #[test]
    fn only_one_of_the_two_fields_is_read() {
        let both = "Forwarded: for=203.0.113.7\r\nX-Forwarded-For: 198.51.100.7";
        assert_eq!(by(ForwardedHeader::Either, both), "198.51.100.7");
        assert_eq!(by(ForwardedHeader::XForwardedFor, both), "198.51.100.7");
        assert_eq!(by(ForwardedHeader::Forwarded, both), "203.0.113.7");
        assert_eq!(by(ForwardedHeader::XForwardedFor, "Forwarded: for=203.0.113.7"), "the peer");
        // One that can't be read does not make the other one true.
        assert_eq!(by(ForwardedHeader::Either, "Forwarded: for=203.0.113.7\r\nX-Forwarded-For: unknown"), "the peer");
        assert_eq!(by(ForwardedHeader::Either, "A: b"), "the peer");
    }

    #[test]
    fn five_hundred_hops_are_walked_as_far_as_they_are_trusted() {
        let forged = "1.1.1.1, ".repeat(500);
        assert_eq!(by(ForwardedHeader::Either, &format!("X-Forwarded-For: {forged}203.0.113.7")), "203.0.113.7");
        let trusted = ", 10.0.0.1".repeat(500);
        assert_eq!(by(ForwardedHeader::Either, &format!("X-Forwarded-For: 203.0.113.7{trusted}")), "203.0.113.7");
        let trusted = ", for=10.0.0.1".repeat(500);
        assert_eq!(by(ForwardedHeader::Either, &format!("Forwarded: for=203.0.113.7{trusted}")), "203.0.113.7");
    }

    proptest! {
        #[test]
        fn whatever_the_browser_wrote_the_proxys_word_counts(forged in "[ -~]{0,60}", ip in any::<IpAddr>()) {
            prop_assume!(!is_trusted(ip, &["10.0.0.0/8".parse().expect("one"), "2001:db8:1::/48".parse().expect("one")]));
            let expected = ip.to_canonical().to_string();
            prop_assert_eq!(by(ForwardedHeader::Either, &format!("X-Forwarded-For: {forged}, {ip}")), expected.clone());
            let quoted = if ip.is_ipv6() { format!("\"[{ip}]\"") } else { ip.to_string() };
            prop_assert_eq!(by(ForwardedHeader::Forwarded, &format!("Forwarded: {forged}, for={quoted}")), expected);
        }
    }
}
