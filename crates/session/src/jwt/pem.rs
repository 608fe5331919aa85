//! The armour of key files (RFC 7468): labelled base64 between two lines.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// One armoured thing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block<'t> {
    /// What it says it is: `PUBLIC KEY`.
    pub(super) label: &'t str,
    /// What is in it, or `None` if that is no base64.
    pub(super) der: Option<Vec<u8>>,
}

/// Whether there is armour in it at all.
pub(super) fn is_armoured(content: &[u8]) -> bool {
    memchr::memmem::find(content, BEGIN.as_bytes()).is_some()
}

/// All blocks of a text. One that does not end is one without content; text around blocks is a remark.
pub(super) fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(BEGIN) {
        rest = &rest[start + BEGIN.len()..];
        let Some((label, after)) = rest.split_once(DASHES) else {
            blocks.push(Block { label: "", der: None });
            break;
        };
        let end = format!("-----END {label}-----");
        let (body, after) = after.split_once(&end).unwrap_or(("=", ""));
        blocks.push(Block { label, der: decoded(body) });
        rest = after;
    }
    blocks
}

/// The bytes behind base64 that may be broken into lines.
pub(super) fn decoded(body: &str) -> Option<Vec<u8>> {
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).ok().filter(|der| !der.is_empty())
}

/// Whether these bytes are one ASN.1 sequence from end to end: what every key file is below its armour.
pub(super) fn is_der(bytes: &[u8]) -> bool {
    let [0x30, length, rest @ ..] = bytes else { return false };
    let long = usize::from(length & 0x7f);
    if length & 0x80 == 0 {
        return rest.len() == long;
    }
    if long == 0 || long > 3 || rest.len() < long {
        return false;
    }
    let (length, content) = rest.split_at(long);
    content.len() == length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_between_remarks() {
        let text = "a remark\n-----BEGIN A B-----\nAQID\r\nBA==\n-----END A B-----\n\
                    more\n-----BEGIN C-----\n!\n-----END C-----\n";
        let expected = [Block { label: "A B", der: Some(vec![1, 2, 3, 4]) }, Block { label: "C", der: None }];
        assert_eq!(blocks(text), expected);
        assert!(is_armoured(text.as_bytes()));
    }

    #[test]
    fn a_block_that_does_not_end_has_no_content() {
        assert_eq!(blocks("-----BEGIN A-----\nAQID\n"), [Block { label: "A", der: None }]);
        assert_eq!(blocks("-----BEGIN A"), [Block { label: "", der: None }]);
        assert_eq!(blocks("-----BEGIN A-----\n-----END A-----"), [Block { label: "A", der: None }]);
        assert_eq!(blocks("nothing"), []);
    }

    #[test]
    fn der_is_one_sequence_and_nothing_after_it() {
        let long: Vec<u8> = [0x30, 0x82, 0x01, 0x00].into_iter().chain([0; 256]).collect();
        for der in [&[0x30, 0][..], &[0x30, 1, 9], &[0x30, 0x81, 1, 9], &long] {
            assert!(is_der(der), "{der:?}");
            assert!(!is_der(&[der, &[0]].concat()), "{der:?}");
        }
        for not in [&[][..], &[0x30], &[0x31, 0], &[0x30, 0x80], &[0x30, 0x84, 0, 0, 0, 0], b"0000"] {
            assert!(!is_der(not), "{not:?}");
        }
    }
}
