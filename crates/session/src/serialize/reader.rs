//! The tokens of PHP's serialization, one at a time, by the grammar of `unserialize()`. Strings are skipped by their length.

use std::borrow::Cow;

use super::Malformed;

/// The bytes, and how far they are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) data: &'a [u8],
    pub(super) at: usize,
}

/// A value, or the beginning of one that holds others.
#[derive(Debug, Clone, Copy)]
pub(super) enum Token<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// As written.
    Float(&'a [u8]),
    Text(Text<'a>),
    /// `Class:Case`.
    Enum(&'a [u8]),
    /// `R`: the same variable as the value of this number, counted from 1. It has no number of its own.
    Same(usize),
    /// `r`: the same object; it has a number of its own.
    SameObject(usize),
    /// So many keys and values follow, and `}`.
    Array(usize),
    /// So many names and values follow, and `}`.
    Object(usize),
    /// What a class wrote itself follows, so many bytes, and `}`.
    Custom(usize),
}

/// A string.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) raw: &'a [u8],
    /// `S`: `\41` is a byte.
    pub(super) escaped: bool,
}

/// A key of an array, or a property's name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key<'a> {
    Integer(i64),
    Text(Text<'a>),
}

impl<'a> Text<'a> {
    pub(super) fn bytes(self) -> Cow<'a, [u8]> {
        if !self.escaped {
            return Cow::Borrowed(self.raw);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
        let mut bytes = Vec::with_capacity(self.raw.len());
        let mut rest = self.raw;
        loop {
            match rest {
                [b'\\', high, low, after @ ..] => {
                    bytes.push(digit(*high) << 4 | digit(*low));
                    rest = after;
                }
                [byte, after @ ..] => {
                    bytes.push(*byte);
                    rest = after;
                }
                [] => return Cow::Owned(bytes),
            }
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.data.get(self.at).copied()
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.data.len()
    }

    pub(super) fn malformed(&self, expected: &'static str) -> Malformed {
        Malformed { at: self.at, expected }
    }

    /// Whether a value could begin here.
    pub(super) fn is_at_value(&self) -> bool {
        match self.data[self.at..] {
            [b'N', second, ..] => second == b';',
            [first, b':', ..] => b"bidsSaOCERr".contains(&first),
            _ => false,
        }
    }

    #[inline]
    pub(super) fn expect(&mut self, byte: u8, name: &'static str) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(self.malformed(name));
        }
        self.at += 1;
        Ok(())
    }

    /// The next value, or what opens one. Its end, `;` or `{`, has been read.
    #[inline]
    pub(super) fn token(&mut self) -> Result<Token<'a>, Malformed> {
        let Some(kind) = self.peek() else { return Err(self.malformed("a value")) };
        if !self.is_at_value() {
            return Err(self.malformed("a value"));
        }
        self.at += 2;
        Ok(match kind {
            b'N' => Token::Null,
            b'b' => Token::Bool(self.bool()?),
            b'i' => Token::Int(self.int()?),
            b'd' => Token::Float(self.float()?),
            b's' => Token::Text(Text { raw: self.string(b';', "`;`")?, escaped: false }),
            b'S' => Token::Text(self.escaped_string()?),
            b'E' => Token::Enum(self.string(b';', "`;`")?),
            b'R' => Token::Same(self.reference()?),
            b'r' => Token::SameObject(self.reference()?),
            b'a' => Token::Array(self.count()?),
            b'O' => {
                self.class()?;
                Token::Object(self.count()?)
            }
            _ => {
                self.class()?;
                Token::Custom(self.content()?)
            }
        })
    }

    /// The next key.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Key<'a>, Malformed> {
        let kind = match self.data[self.at..] {
            [kind @ (b'i' | b's' | b'S'), b':', ..] => kind,
            _ => return Err(self.malformed("a key: an integer or a string")),
        };
        self.at += 2;
        Ok(match kind {
            b'i' => Key::Integer(self.int()?),
            b's' => Key::Text(Text { raw: self.string(b';', "`;`")?, escaped: false }),
            _ => Key::Text(self.escaped_string()?),
        })
    }

    fn bool(&mut self) -> Result<bool, Malformed> {
        let value = match self.peek() {
            Some(b'0') => false,
            Some(b'1') => true,
            _ => return Err(self.malformed("`0` or `1`")),
        };
        self.at += 1;
        self.expect(b';', "`;`")?;
        Ok(value)
    }

    /// What is too large is the largest, as in PHP.
    #[inline]
    fn int(&mut self) -> Result<i64, Malformed> {
        let negative = self.sign();
        let start = self.at;
        let mut value = 0_i64;
        while let Some(byte @ b'0'..=b'9') = self.peek() {
            let digit = i64::from(byte - b'0');
            value = value.saturating_mul(10);
            value = if negative { value.saturating_sub(digit) } else { value.saturating_add(digit) };
            self.at += 1;
        }
        if self.at == start {
            return Err(self.malformed("a digit"));
        }
        self.expect(b';', "a digit or `;`")?;
        Ok(value)
    }

    fn sign(&mut self) -> bool {
        let sign = self.peek();
        self.at += usize::from(matches!(sign, Some(b'+' | b'-')));
        sign == Some(b'-')
    }

    fn float(&mut self) -> Result<&'a [u8], Malformed> {
        let start = self.at;
        let named = [&b"NAN"[..], b"INF", b"-INF"].into_iter().find(|name| self.data[start..].starts_with(name));
        match named {
            Some(name) => self.at += name.len(),
            None => self.decimal()?,
        }
        let written = &self.data[start..self.at];
        self.expect(b';', "`;`")?;
        Ok(written)
    }

    fn decimal(&mut self) -> Result<(), Malformed> {
        self.sign();
        let mut digits = self.skip_digits();
        if self.peek() == Some(b'.') {
            self.at += 1;
            digits += self.skip_digits();
        }
        if digits == 0 {
            return Err(self.malformed("a digit"));
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.sign();
            if self.skip_digits() == 0 {
                return Err(self.malformed("a digit"));
            }
        }
        Ok(())
    }

    fn skip_digits(&mut self) -> usize {
        let digits = self.data[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        digits
    }

    /// A length, a count or a number of a value.
    #[inline]
    fn unsigned(&mut self) -> Result<usize, Malformed> {
        let start = self.at;
        let mut value = 0_usize;
        while let Some(byte @ b'0'..=b'9') = self.peek() {
            // Saturated, it is more than there can be, and refused as that.
            value = value.saturating_mul(10).saturating_add(usize::from(byte - b'0'));
            self.at += 1;
        }
        if self.at == start { Err(self.malformed("a digit")) } else { Ok(value) }
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        let start = self.at;
        let length = self.unsigned()?;
        if length > self.data.len() - self.at {
            return Err(Malformed { at: start, expected: "no more than there is" });
        }
        Ok(length)
    }

    fn reference(&mut self) -> Result<usize, Malformed> {
        let start = self.at;
        let number = self.unsigned()?;
        self.expect(b';', "a digit or `;`")?;
        if number == 0 { Err(Malformed { at: start, expected: "the number of a value, from 1" }) } else { Ok(number) }
    }

    /// `3:"abc"` and what has to follow.
    #[inline]
    fn string(&mut self, end: u8, end_name: &'static str) -> Result<&'a [u8], Malformed> {
        let length = self.length()?;
        self.expect(b':', "a digit or `:`")?;
        self.expect(b'"', "`\"`")?;
        let start = self.at;
        if length > self.data.len() - start {
            return Err(self.malformed("as many bytes as their length says"));
        }
        self.at += length;
        let raw = &self.data[start..self.at];
        self.expect(b'"', "`\"` after as many bytes as their length says")?;
        self.expect(end, end_name)?;
        Ok(raw)
    }

    fn escaped_string(&mut self) -> Result<Text<'a>, Malformed> {
        let length = self.length()?;
        self.expect(b':', "a digit or `:`")?;
        self.expect(b'"', "`\"`")?;
        let start = self.at;
        for _ in 0..length {
            match self.data[self.at..] {
                [b'\\', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => self.at += 3,
                [b'\\', ..] => return Err(self.malformed("two hexadecimal digits after `\\`")),
                [_, ..] => self.at += 1,
                [] => return Err(self.malformed("as many bytes as their length says")),
            }
        }
        let raw = &self.data[start..self.at];
        self.expect(b'"', "`\"` after as many bytes as their length says")?;
        self.expect(b';', "`;`")?;
        Ok(Text { raw, escaped: true })
    }

    fn class(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        let name = self.string(b':', "`:`")?;
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'\\' | 0x7f..);
        if name.is_empty() || !name.iter().all(allowed) {
            return Err(Malformed { at: start, expected: "the name of a class" });
        }
        Ok(())
    }

    /// `2:{`
    #[inline]
    fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.length()?;
        self.expect(b':', "a digit or `:`")?;
        self.expect(b'{', "`{`")?;
        Ok(count)
    }

    fn content(&mut self) -> Result<usize, Malformed> {
        let length = self.count()?;
        if length > self.data.len() - self.at {
            return Err(self.malformed("as many bytes as their length says"));
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(data: &[u8]) -> Result<Token<'_>, Malformed> {
        let mut reader = Reader::new(data);
        let token = reader.token()?;
        assert!(reader.is_at_end(), "{:?} is read only to {}", data.escape_ascii().to_string(), reader.at);
        Ok(token)
    }

    #[test]
    fn numbers_are_read_as_php_reads_them() {
        for (data, expected) in [
            (&b"i:5;"[..], 5),
            (b"i:+5;", 5),
            (b"i:-0;", 0),
            (b"i:00012;", 12),
            (b"i:9223372036854775807;", i64::MAX),
            (b"i:9223372036854775808;", i64::MAX),
            (b"i:-9223372036854775808;", i64::MIN),
            (b"i:-9223372036854775809;", i64::MIN),
            (b"i:99999999999999999999999;", i64::MAX),
        ] {
            assert!(matches!(token(data), Ok(Token::Int(value)) if value == expected), "{}", data.escape_ascii());
        }
        for data in [
            "d:1;",
            "d:1.;",
            "d:.5;",
            "d:-.5;",
            "d:1e5;",
            "d:1E+5;",
            "d:+1;",
            "d:INF;",
            "d:-INF;",
            "d:NAN;",
            "d:1.0E-10;",
        ] {
            assert!(matches!(token(data.as_bytes()), Ok(Token::Float(_))), "{data}");
        }
        let wrong = [
            "i:;", "i:-;", "i: 5;", "i:5 ;", "i:5", "b:2;", "b:01;", "b:;", "d:;", "d:-;", "d:.;", "d:1e;", "d:inf;",
            "d:+INF;", "d:0x1;", "n;", "N:",
        ];
        for data in wrong {
            assert!(token(data.as_bytes()).is_err(), "{data}");
        }
    }

    #[test]
    fn escapes_of_the_old_string_form_are_bytes() {
        let Ok(Token::Text(text)) = token(br#"S:4:"a\42c\fF";"#) else { panic!("no string") };
        assert_eq!(text.bytes().as_ref(), b"aBc\xff");
        for data in [r#"S:1:"\4";"#, r#"S:1:"\4g";"#, r#"S:2:"a";"#, r#"S:1:"ab";"#, r#"S:1:"\"#] {
            assert!(token(data.as_bytes()).is_err(), "{data}");
        }
    }

    #[test]
    fn an_error_names_the_byte_and_what_had_to_be_there() {
        for (data, at, expected) in [
            ("", 0, "a value"),
            ("x:1;", 0, "a value"),
            ("i:1x", 3, "a digit or `;`"),
            ("s:9999999999999999999999:\"a\";", 2, "no more than there is"),
            ("s:2:\"a\";", 7, "`\"` after as many bytes as their length says"),
            ("s:4:\"a\";", 5, "as many bytes as their length says"),
            ("a:1000000000:{i:0;", 2, "no more than there is"),
            ("O:3:\"a b\":0:{}", 2, "the name of a class"),
            ("R:0;", 2, "the number of a value, from 1"),
        ] {
            assert_eq!(token(data.as_bytes()).map(|_| ()), Err(Malformed { at, expected }), "{data}");
        }
    }
}
