//! What lies in a session under a key, and whether it is a user.

use std::borrow::Cow;

use thiserror::Error;

use crate::MAX_USER_BYTES;

/// Up to here every whole number has a float of its own.
const MAX_WHOLE_FLOAT: f64 = 9_007_199_254_740_992.0;

/// What lies under a key. Strings are those of the session's bytes, not copies of them, as far as they are written plainly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer; what is too large for PHP is the largest, as there.
    Int(i64),
    /// A float as it is written: `0.1`, `1.0E+25`, `-INF`, `NAN`.
    Float(&'a [u8]),
    /// A string of bytes, which need not be text.
    Bytes(Cow<'a, [u8]>),
    /// The case of an enum, as `Class:Case`.
    Enum(&'a [u8]),
    /// An array (JSON: also one of `[…]`). What it holds is not looked at.
    Array,
    /// An object (JSON: `{…}`). What it holds is not looked at.
    Object,
    /// A reference to a value that nobody but the site can number: behind an object whose class serializes in a format of its own (`C:`).
    Unresolved,
}

/// Why a value is no user's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotAnId {
    /// Neither string nor whole number.
    #[error("it is {0}, and no string or whole number")]
    Kind(&'static str),
    /// A float with a fraction, too large to be exact, infinite, or no number.
    #[error("it is a float that is no exact whole number")]
    Inexact,
    /// Bytes that are no text.
    #[error("it is not valid UTF-8")]
    NotUtf8,
    /// Over 128 bytes.
    #[error("it is longer than {MAX_USER_BYTES} bytes")]
    TooLong,
    /// Could break a log line or a pipe's name.
    #[error("it contains a control character")]
    ControlCharacter,
    /// See [`Value::Unresolved`].
    #[error("it is a reference behind an object with a serialization of its own, which cannot be followed")]
    Unresolved,
}

impl<'a> Value<'a> {
    /// The user's id, or `None` where the value says that nobody is logged in: null, false, 0, `"0"` and the empty string.
    ///
    /// ```
    /// use wootz_session::serialize::Value;
    ///
    /// assert_eq!(Value::Int(42).user_id().expect("an id").as_deref(), Some("42"));
    /// assert_eq!(Value::Int(0).user_id(), Ok(None));
    /// assert!(Value::Bool(true).user_id().is_err());
    /// ```
    ///
    /// # Errors
    /// When it is set but can't be an id: a kind without a name (`true`, arrays, objects, enums), a fraction, or a string that is no
    /// UTF-8, longer than 128 bytes or with control characters. That is nobody's either, and says so.
    pub fn user_id(&self) -> Result<Option<Cow<'a, str>>, NotAnId> {
        match self {
            Self::Null | Self::Bool(false) | Self::Int(0) => Ok(None),
            Self::Bool(true) => Err(NotAnId::Kind("`true`")),
            Self::Int(number) => Ok(Some(number.to_string().into())),
            Self::Float(written) => whole(written),
            Self::Bytes(bytes) if matches!(&**bytes, b"" | b"0") => Ok(None),
            Self::Bytes(Cow::Borrowed(bytes)) => text(bytes).map(|text| Some(text.into())),
            Self::Bytes(Cow::Owned(bytes)) => text(bytes).map(|text| Some(text.to_owned().into())),
            Self::Enum(_) => Err(NotAnId::Kind("an enum")),
            Self::Array => Err(NotAnId::Kind("an array")),
            Self::Object => Err(NotAnId::Kind("an object")),
            Self::Unresolved => Err(NotAnId::Unresolved),
        }
    }
}

fn whole(written: &[u8]) -> Result<Option<Cow<'static, str>>, NotAnId> {
    let number = std::str::from_utf8(written).ok().and_then(|text| text.parse::<f64>().ok()).ok_or(NotAnId::Inexact)?;
    if number == 0.0 {
        return Ok(None);
    }
    if number.fract() != 0.0 || number.abs() >= MAX_WHOLE_FLOAT {
        return Err(NotAnId::Inexact);
    }
    Ok(Some((number as i64).to_string().into()))
}

fn text(bytes: &[u8]) -> Result<&str, NotAnId> {
    if bytes.len() > MAX_USER_BYTES {
        return Err(NotAnId::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| NotAnId::NotUtf8)?;
    if text.chars().any(char::is_control) { Err(NotAnId::ControlCharacter) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &[u8]) -> Value<'_> {
        Value::Bytes(text.into())
    }

    #[test]
    fn strings_and_whole_numbers_are_ids() {
        let cases = [
            (Value::Int(7), "7"),
            (Value::Int(-7), "-7"),
            (Value::Int(i64::MAX), "9223372036854775807"),
            (Value::Float(b"5.0"), "5"),
            (Value::Float(b"1.0E+3"), "1000"),
            (Value::Float(b"9007199254740991"), "9007199254740991"),
            (bytes(b"alice"), "alice"),
            (bytes("Zoë".as_bytes()), "Zoë"),
            (bytes(b"00"), "00"),
            (bytes(b" "), " "),
            (bytes(&[b'x'; 128]), &"x".repeat(128)),
        ];
        for (value, id) in cases {
            assert_eq!(value.user_id(), Ok(Some(id.into())), "{value:?}");
        }
    }

    #[test]
    fn what_says_that_nobody_is_logged_in_is_nobody() {
        let nobody = [
            Value::Null,
            Value::Bool(false),
            Value::Int(0),
            Value::Float(b"0"),
            Value::Float(b"-0"),
            bytes(b""),
            bytes(b"0"),
        ];
        for value in nobody {
            assert_eq!(value.user_id(), Ok(None), "{value:?}");
        }
    }

    #[test]
    fn what_can_be_nobodys_id_is_refused_with_the_reason() {
        let cases = [
            (Value::Bool(true), NotAnId::Kind("`true`")),
            (Value::Array, NotAnId::Kind("an array")),
            (Value::Object, NotAnId::Kind("an object")),
            (Value::Enum(b"Role:Admin"), NotAnId::Kind("an enum")),
            (Value::Unresolved, NotAnId::Unresolved),
            (Value::Float(b"0.5"), NotAnId::Inexact),
            (Value::Float(b"NAN"), NotAnId::Inexact),
            (Value::Float(b"-INF"), NotAnId::Inexact),
            (Value::Float(b"9007199254740992"), NotAnId::Inexact),
            (bytes(b"\xff"), NotAnId::NotUtf8),
            (bytes(b"a\nb"), NotAnId::ControlCharacter),
            (bytes(b"a\0"), NotAnId::ControlCharacter),
            (bytes("\u{85}".as_bytes()), NotAnId::ControlCharacter),
            (bytes(&[b'x'; 129]), NotAnId::TooLong),
        ];
        for (value, reason) in cases {
            assert_eq!(value.user_id(), Err(reason), "{value:?}");
        }
    }
}
