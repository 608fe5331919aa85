//! JSON as tokens need it: a name stands once in an object, nesting ends, and numbers are numbers.
//!
//! Parsers that keep the first and parsers that keep the last of two equal names see two different tokens behind one
//! signature, so such a token is none (RFC 7519 section 4).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Objects and arrays in each other, at most. Identity providers nest about four.
const MAX_DEPTH: u32 = 16;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool,
    /// A whole number that is not negative and fits.
    Whole(u64),
    /// Any other number; always finite.
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Object),
}

/// An object's members.
pub(super) type Object = BTreeMap<String, Json>;

/// Why something is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotJson {
    Malformed,
    NoObject,
    Duplicate,
    TooDeep,
}

impl NotJson {
    /// The reason, without a word of what was read.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "is not valid JSON",
            Self::NoObject => "is not a JSON object",
            Self::Duplicate => "has a name twice in one object",
            Self::TooDeep => "is nested more than 16 deep",
        }
    }
}

impl Json {
    pub(super) fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    pub(super) fn as_object(&self) -> Option<&Object> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }
}

/// Reads an object.
///
/// # Errors
/// Also when a name stands twice anywhere in it, or it is nested too deeply.
pub(super) fn object(bytes: &[u8]) -> Result<Object, NotJson> {
    let fault = Cell::new(NotJson::Malformed);
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let value =
        Strict { depth: 0, fault: &fault }.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    match value {
        Ok(Json::Object(object)) => Ok(object),
        Ok(_) => Err(NotJson::NoObject),
        Err(_) => Err(fault.get()),
    }
}

/// Reads one value inside of so many others. The parser's error can only be text, so the fault is left beside it.
#[derive(Clone, Copy)]
struct Strict<'f> {
    depth: u32,
    fault: &'f Cell<NotJson>,
}

impl Strict<'_> {
    fn inside<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(self.fail(NotJson::TooDeep));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    fn fail<E: serde::de::Error>(self, fault: NotJson) -> E {
        self.fault.set(fault);
        E::custom(fault.reason())
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Whole(number))
    }

    #[expect(clippy::cast_precision_loss, reason = "it is negative, and only that matters")]
    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(u64::try_from(number).map_or(Json::Number(number as f64), Json::Whole))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Json, E> {
        if number.is_finite() { Ok(Json::Number(number)) } else { Err(self.fail(NotJson::Malformed)) }
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Json, A::Error> {
        let inside = self.inside()?;
        let mut list = Vec::new();
        while let Some(value) = values.next_element_seed(inside)? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let inside = self.inside()?;
        let mut object = Object::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(inside)?;
            if object.insert(name, value).is_some() {
                return Err(self.fail(NotJson::Duplicate));
            }
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_kinds() {
        let read =
            object(br#"{"a":null,"b":true,"c":7,"d":-1,"e":1.5,"f":"\u00fc","g":[1,{}],"h":{"a":0}}"#).expect("valid");
        assert_eq!(read["a"], Json::Null);
        assert_eq!(read["b"], Json::Bool);
        assert_eq!(read["c"], Json::Whole(7));
        assert_eq!(read["d"], Json::Number(-1.0));
        assert_eq!(read["e"], Json::Number(1.5));
        assert_eq!(read["f"], Json::Text("ü".to_owned()));
        assert_eq!(read["g"], Json::List(vec![Json::Whole(1), Json::Object(Object::new())]));
        assert_eq!(read["h"].as_object().and_then(|object| object.get("a")), Some(&Json::Whole(0)));
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_not_read() {
        let cases: [(&[u8], NotJson); 14] = [
            (br#"{"a":1,"a":1}"#, NotJson::Duplicate),
            (br#"{"a":1,"\u0061":2}"#, NotJson::Duplicate),
            (br#"{"o":{"a":1,"a":2}}"#, NotJson::Duplicate),
            (br#"{"l":[{"a":1,"a":2}]}"#, NotJson::Duplicate),
            (br#"{"a":1e400}"#, NotJson::Malformed),
            (br#"{"a":NaN}"#, NotJson::Malformed),
            (br#"{"a":-Infinity}"#, NotJson::Malformed),
            (br#"{"a":01}"#, NotJson::Malformed),
            (br#"{"a":1}{"#, NotJson::Malformed),
            (b"{\"a\":\"\xff\"}", NotJson::Malformed),
            (br#"{"a":"\ud800"}"#, NotJson::Malformed),
            (b"", NotJson::Malformed),
            (b"[]", NotJson::NoObject),
            (b"\"text\"", NotJson::NoObject),
        ];
        for (bytes, fault) in cases {
            assert_eq!(object(bytes), Err(fault), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn nesting_ends() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(object(nested(15).as_bytes()).is_ok());
        for depth in [16, 17, 200, 100_000] {
            assert_eq!(object(nested(depth).as_bytes()), Err(NotJson::TooDeep), "{depth}");
        }
    }
}
