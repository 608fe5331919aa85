//! What a column may hold, in words that all three databases share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The value of one column of one row.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Value {
    /// The query does not return such a column.
    #[default]
    Absent,
    Null,
    Integer(i128),
    Float(f64),
    Text(Vec<u8>),
    Binary(Vec<u8>),
    /// A type that can't be used, by the database's name for it.
    Other(String),
}

/// What is said of a column that has a type of no use.
pub(super) struct Unusable<'a>(pub(super) &'a str);

impl Value {
    /// A user's id: `None` for none, an empty one and 0, as PHP's `empty()` has it. 16 bytes that are no text are
    /// hexadecimal digits then, in capitals as SQL's `HEX` writes them.
    pub(super) fn user(&self) -> Result<Option<String>, Unusable<'_>> {
        let user = match self {
            Self::Absent | Self::Null => None,
            Self::Integer(number) => Some(number.to_string()),
            Self::Text(text) => Some(trimmed(text)),
            Self::Binary(bytes) => Some(text_in(bytes).unwrap_or_else(|| hexadecimal(bytes))),
            Self::Float(_) => return Err(Unusable("a floating point number")),
            Self::Other(name) => return Err(Unusable(name)),
        };
        Ok(user.filter(|user| !user.is_empty() && user != "0"))
    }

    /// An address, as text or as `INET6_ATON` packs it.
    pub(super) fn address(&self) -> Result<Option<String>, Unusable<'_>> {
        let address = match self {
            Self::Absent | Self::Null => None,
            Self::Text(text) => Some(trimmed(text)),
            Self::Binary(bytes) => Some(packed(bytes).unwrap_or_else(|| trimmed(bytes))),
            Self::Integer(_) | Self::Float(_) => return Err(Unusable("a number")),
            Self::Other(name) => return Err(Unusable(name)),
        };
        Ok(address.filter(|address| !address.is_empty()))
    }

    /// Unix seconds.
    pub(super) fn seconds(&self) -> Result<Option<i128>, Unusable<'_>> {
        match self {
            Self::Absent | Self::Null => Ok(None),
            Self::Integer(seconds) => Ok(Some(*seconds)),
            #[expect(clippy::cast_possible_truncation, reason = "fractions of a second; beyond i128 it saturates")]
            Self::Float(seconds) => Ok(Some(seconds.floor() as i128)),
            Self::Text(text) => {
                let text = trimmed(text);
                let whole = text.split_once('.').map_or(text.as_str(), |(whole, _)| whole);
                whole.parse().map(Some).map_err(|_| Unusable("a text that is no number"))
            }
            Self::Binary(_) => Err(Unusable("binary")),
            Self::Other(name) => Err(Unusable(name)),
        }
    }

    /// Bytes as they are.
    pub(super) fn bytes(self) -> Result<Option<Vec<u8>>, String> {
        match self {
            Self::Absent | Self::Null => Ok(None),
            Self::Text(bytes) | Self::Binary(bytes) => Ok(Some(bytes)),
            Self::Integer(_) | Self::Float(_) => Err("a number".to_owned()),
            Self::Other(name) => Err(name),
        }
    }
}

/// Fixed columns are filled up with blanks or NULs.
fn trimmed(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim_matches([' ', '\0']).to_owned()
}

/// The text in a binary column, if it is text: a full 16 bytes are an UUID.
fn text_in(bytes: &[u8]) -> Option<String> {
    let text = trimmed(bytes);
    let is_text = text.bytes().all(|byte| byte.is_ascii_graphic());
    (is_text && text.len() != 16).then_some(text)
}

fn packed(bytes: &[u8]) -> Option<String> {
    if text_in(bytes).is_some_and(|text| text.parse::<IpAddr>().is_ok()) || trimmed(bytes).parse::<IpAddr>().is_ok() {
        return None;
    }
    let address = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => match bytes {
            // A column of 16 bytes fills an IPv4 address up.
            [a, b, c, d, rest @ ..] if rest.iter().all(|byte| *byte == 0) => IpAddr::V4(Ipv4Addr::new(*a, *b, *c, *d)),
            _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        },
        _ => return None,
    };
    (!address.is_unspecified()).then(|| address.to_string())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(value: Value) -> Option<String> {
        value.user().ok().expect("a usable type")
    }

    #[test]
    fn a_user_is_a_number_a_text_or_the_digits_of_what_is_neither() {
        for nobody in
            [Value::Absent, Value::Null, Value::Integer(0), Value::Text(b"".to_vec()), Value::Text(b"0".to_vec())]
        {
            assert_eq!(user(nobody), None);
        }
        assert_eq!(user(Value::Binary(vec![0; 16])), None);
        assert_eq!(user(Value::Integer(u64::MAX.into())).as_deref(), Some("18446744073709551615"));
        assert_eq!(user(Value::Text(b"alice   ".to_vec())).as_deref(), Some("alice"));
        assert_eq!(user(Value::Binary(b"42\0\0\0\0\0\0".to_vec())).as_deref(), Some("42"));
        let uuid = *b"\x11\xed\xa0\0\x80\xff\x01\x02\x03\x04\x05\x06\x07\x08\x09\0";
        assert_eq!(user(Value::Binary(uuid.to_vec())).as_deref(), Some("11EDA00080FF01020304050607080900"));
        assert!(Value::Other("DATETIME".to_owned()).user().is_err_and(|type_of| type_of.0 == "DATETIME"));
    }

    #[test]
    fn an_address_is_text_or_packed() {
        let address = |value: Value| value.address().ok().expect("a usable type");
        for text in ["127.0.0.1", "255.255.255.255", "2001:db8::1", "2001:db8:aaaa::1"] {
            assert_eq!(address(Value::Text(text.as_bytes().to_vec())).as_deref(), Some(text));
            let mut filled = text.as_bytes().to_vec();
            filled.resize(filled.len().max(16), 0);
            assert_eq!(address(Value::Binary(filled)).as_deref(), Some(text));
        }
        assert_eq!(address(Value::Binary(vec![10, 0, 0, 1])).as_deref(), Some("10.0.0.1"));
        let packed = Ipv6Addr::from(0x2001_0db8_0000_0000_0000_0000_0000_0001);
        assert_eq!(address(Value::Binary(packed.octets().to_vec())).as_deref(), Some("2001:db8::1"));
        assert_eq!(address(Value::Null), None);
    }

    #[test]
    fn seconds_may_be_any_number_but_no_date() {
        let seconds = |value: Value| value.seconds().ok();
        assert_eq!(seconds(Value::Integer(7)), Some(Some(7)));
        assert_eq!(seconds(Value::Float(7.9)), Some(Some(7)));
        assert_eq!(seconds(Value::Text(b"1700000000.250000".to_vec())), Some(Some(1_700_000_000)));
        assert_eq!(seconds(Value::Null), Some(None));
        assert_eq!(seconds(Value::Text(b"2026-01-01 00:00:00".to_vec())), None);
    }
}
