//! JSON sessions. What is not asked for is skipped, not built.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Malformed;
use super::path::Segment;
use super::value::Value;

/// What lies at the end of each way.
pub(super) fn find<'a>(data: &'a [u8], ways: &[&[Segment]]) -> Result<Vec<Option<Value<'a>>>, Malformed> {
    let mut found = vec![None; ways.len()];
    let Some(at) = data.iter().position(|byte| !byte.is_ascii_whitespace()) else { return Ok(found) };
    if !matches!(data[at], b'{' | b'[') {
        return Err(Malformed { at, expected: "an object or an array" });
    }
    let wanted: Vec<usize> = (0..ways.len()).collect();
    let mut deserializer = serde_json::Deserializer::from_slice(data);
    let read = Inside { ways, wanted: &wanted, depth: 0, found: &mut found }.deserialize(&mut deserializer);
    let read = read.and_then(|()| deserializer.end());
    read.map_err(|error| Malformed { at: offset(data, &error), expected: "valid JSON" })?;
    Ok(found)
}

/// serde counts lines, from 1, and columns.
fn offset(data: &[u8], error: &serde_json::Error) -> usize {
    let lines = data.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    let before: usize = lines.map(<[u8]>::len).sum();
    (before + error.column().saturating_sub(1)).min(data.len())
}

/// An array or object that ways lead into.
struct Inside<'a, 'p, 'f> {
    ways: &'p [&'p [Segment]],
    wanted: &'f [usize],
    depth: usize,
    found: &'f mut [Option<Value<'a>>],
}

impl<'a> Inside<'a, '_, '_> {
    /// Those that go on through a key or index. What they had found is forgotten: the last of equal keys wins.
    fn through(&mut self, fits: impl Fn(&Segment) -> bool) -> Vec<usize> {
        let fits = |way: &usize| self.ways[*way].get(self.depth).is_some_and(&fits);
        let through: Vec<usize> = self.wanted.iter().copied().filter(fits).collect();
        for way in &through {
            self.found[*way] = None;
        }
        through
    }

    fn settle(&mut self, through: &[usize], raw: &'a RawValue) -> Result<(), serde_json::Error> {
        let (value, depth) = (value(raw)?, self.depth + 1);
        let mut deeper = Vec::new();
        for &way in through {
            if self.ways[way].len() == depth {
                self.found[way] = Some(value.clone());
            } else {
                deeper.push(way);
            }
        }
        if deeper.is_empty() || !matches!(value, Value::Array | Value::Object) {
            return Ok(());
        }
        let inside = Inside { ways: self.ways, wanted: &deeper, depth, found: self.found };
        inside.deserialize(&mut serde_json::Deserializer::from_str(raw.get()))
    }
}

impl<'a> DeserializeSeed<'a> for Inside<'a, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Inside<'a, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Name<'a>>()? {
            let through = self.through(|segment| segment.is_text(&key.0));
            if through.is_empty() {
                map.next_value::<IgnoredAny>()?;
            } else {
                self.settle(&through, map.next_value()?).map_err(A::Error::custom)?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut seq: A) -> Result<(), A::Error> {
        for index in 0.. {
            let through = self.through(|segment| segment.is_index(index));
            if through.is_empty() {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    break;
                }
            } else {
                let Some(raw) = seq.next_element()? else { break };
                self.settle(&through, raw).map_err(A::Error::custom)?;
            }
        }
        Ok(())
    }
}

/// A string, borrowed where it holds no escape.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

fn value(raw: &RawValue) -> Result<Value<'_>, serde_json::Error> {
    let text = raw.get();
    Ok(match text.as_bytes().first() {
        Some(b'{') => Value::Object,
        Some(b'[') => Value::Array,
        Some(b'n') => Value::Null,
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'"') => match serde_json::from_str::<Name<'_>>(text)?.0 {
            Cow::Borrowed(text) => Value::Bytes(Cow::Borrowed(text.as_bytes())),
            Cow::Owned(text) => Value::Bytes(Cow::Owned(text.into_bytes())),
        },
        // As in PHP, an integer that is too large is a float.
        _ => text.parse().map_or(Value::Float(text.as_bytes()), Value::Int),
    })
}
