//! How the session module lays serialized values into one file: `php`, `php_serialize`, `php_binary`.

use super::reader::{Key, Reader, Text};
use super::walk::Walk;
use super::{Malformed, Serializer};

/// The high bit of a name's length: no value follows.
const UNDEFINED: u8 = 0x80;

/// One of the formats whose values are PHP's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// `name|value`, again and again.
    Names(Naming),
    /// One array.
    Whole,
    /// A byte with the length of the name, the name, the value, again and again.
    Lengths,
}

/// What a name may be before `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// Anything.
    Known,
    /// Nothing that holds a `"`, a `;` or a control character: then it is another format's value that was mistaken for a name.
    Guessed,
}

/// What the data are, or JSON, which is not framed.
pub(super) fn frame(data: &[u8], serializer: Serializer) -> Option<Frame> {
    match serializer {
        Serializer::Php => Some(Frame::Names(Naming::Known)),
        Serializer::PhpSerialize => Some(Frame::Whole),
        Serializer::PhpBinary => Some(Frame::Lengths),
        Serializer::Json => None,
        Serializer::Auto => match data {
            [b'{' | b'[', ..] => None,
            [0..0x20, ..] => Some(Frame::Lengths),
            _ if begins_like_an_array(data) => Some(Frame::Whole),
            _ => Some(Frame::Names(Naming::Guessed)),
        },
    }
}

/// `a:3:{`
fn begins_like_an_array(data: &[u8]) -> bool {
    let Some(rest) = data.strip_prefix(b"a:") else { return false };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && rest[digits..].starts_with(b":{")
}

impl Frame {
    /// Leads the walk through all values.
    pub(super) fn read<'a>(self, reader: &mut Reader<'a>, walk: &mut Walk<'a, '_>) -> Result<(), Malformed> {
        match self {
            Self::Whole => whole(reader, walk),
            Self::Names(naming) => {
                while !reader.is_at_end() {
                    let name = name_before_bar(reader, naming)?;
                    let defined = !name.starts_with(b"!") || reader.is_at_value();
                    let name = if defined { name } else { &name[1..] };
                    variable(name, defined, reader, walk)?;
                }
                Ok(())
            }
            Self::Lengths => {
                while let Some(length) = reader.peek() {
                    let name = name_of_length(usize::from(length & !UNDEFINED), reader)?;
                    // As of PHP 7.1 a value follows all the same.
                    let defined = length & UNDEFINED == 0 || reader.is_at_value();
                    variable(name, defined, reader, walk)?;
                }
                Ok(())
            }
        }
    }
}

/// Before PHP 7.1 a name could be without a value (`!name|`), and hides one that came before.
fn variable<'a>(name: &[u8], defined: bool, reader: &mut Reader<'a>, walk: &mut Walk<'a, '_>) -> Result<(), Malformed> {
    let wanted = walk.variable(Key::Text(Text { raw: name, escaped: false }));
    if defined { walk.value(reader, wanted) } else { Ok(()) }
}

fn whole<'a>(reader: &mut Reader<'a>, walk: &mut Walk<'a, '_>) -> Result<(), Malformed> {
    if reader.is_at_end() {
        return Ok(());
    }
    if reader.peek() != Some(b'a') {
        return Err(reader.malformed("an array"));
    }
    let wanted = walk.wanted();
    walk.value(reader, wanted)?;
    if reader.is_at_end() { Ok(()) } else { Err(reader.malformed("the end")) }
}

fn name_before_bar<'a>(reader: &mut Reader<'a>, naming: Naming) -> Result<&'a [u8], Malformed> {
    let rest = &reader.data[reader.at..];
    let foreign = |byte: &u8| byte.is_ascii_control() || matches!(byte, b'"' | b';');
    match memchr::memchr(b'|', rest).map(|length| &rest[..length]) {
        Some(name) if naming == Naming::Known || !name.iter().any(foreign) => {
            reader.at += name.len() + 1;
            Ok(name)
        }
        _ if naming == Naming::Known => Err(reader.malformed("a name and `|`")),
        _ => Err(reader.malformed("a name and `|` (if it is another format, the serializer has to be named)")),
    }
}

fn name_of_length<'a>(length: usize, reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let start = reader.at + 1;
    let Some(name) = reader.data.get(start..start + length) else {
        return Err(reader.malformed("as many bytes as the length of the name says"));
    };
    reader.at = start + length;
    Ok(name)
}
