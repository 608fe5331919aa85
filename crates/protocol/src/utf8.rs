//! UTF-8 that arrives in pieces (RFC 6455, section 8.1). A piece is refused at the first byte that no continuation can
//! make valid; a character cut by the end of a piece waits, at most three bytes of it.

use std::str::from_utf8;

/// The text can't become valid UTF-8 whatever follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidUtf8;

/// Checks a whole text at once, at the speed of the vector unit.
pub(crate) fn whole(bytes: &[u8]) -> Result<&str, InvalidUtf8> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| InvalidUtf8)
}

/// The begun character at the end of the pieces so far.
#[derive(Debug, Default)]
pub(crate) struct CutCharacter {
    bytes: [u8; 4],
    length: u8,
}

impl CutCharacter {
    /// Appends `piece` to `text`, but for a character that its end cuts.
    pub(crate) fn append(&mut self, mut piece: &[u8], text: &mut String) -> Result<(), InvalidUtf8> {
        while self.length > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            self.complete(byte, text)?;
        }
        // The `compat` flavour tells, as the standard library does, a cut character from an impossible one.
        match simdutf8::compat::from_utf8(piece) {
            Ok(valid) => text.push_str(valid),
            Err(error) if error.error_len().is_some() => return Err(InvalidUtf8),
            Err(error) => {
                let (valid, cut) = piece.split_at(error.valid_up_to());
                text.push_str(whole(valid)?);
                self.bytes[..cut.len()].copy_from_slice(cut);
                self.length = cut.len() as u8;
            }
        }
        Ok(())
    }

    fn complete(&mut self, byte: u8, text: &mut String) -> Result<(), InvalidUtf8> {
        let length = self.len();
        self.bytes[length] = byte;
        match from_utf8(&self.bytes[..=length]) {
            Ok(character) => {
                text.push_str(character);
                self.length = 0;
            }
            Err(error) if error.error_len().is_some() => return Err(InvalidUtf8),
            Err(_) => self.length += 1,
        }
        Ok(())
    }

    /// Bytes that wait for the rest of their character: 0 to 3.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.length)
    }

    /// At the end of the text: refuses a character that was never completed.
    pub(crate) fn end(&self) -> Result<(), InvalidUtf8> {
        if self.length == 0 { Ok(()) } else { Err(InvalidUtf8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first_refused_byte(bytes: &[u8]) -> Option<usize> {
        let (mut cut, mut text) = (CutCharacter::default(), String::new());
        bytes.iter().position(|byte| cut.append(&[*byte], &mut text).is_err())
    }

    #[test]
    fn impossible_bytes_are_refused_where_they_stand_and_not_later() {
        let cases: [(&[u8], usize); 9] = [
            (b"a\x80", 1),
            (b"\xc0\x80", 0),
            (b"\xc3a", 1),
            (b"\xe0\x80\x80", 1),
            (b"\xed\xa0\x80", 1),
            (b"\xf0\x8f\xbf\xbf", 1),
            (b"\xf4\x90\x80\x80", 1),
            (b"\xf5\x80\x80\x80", 0),
            (b"\xf0\x9f\x98a", 3),
        ];
        for (bytes, expected) in cases {
            assert_eq!(first_refused_byte(bytes), Some(expected), "{bytes:x?}");
        }
    }

    #[test]
    fn a_character_that_is_never_completed_is_refused_at_the_end() {
        let (mut cut, mut text) = (CutCharacter::default(), String::new());
        assert_eq!(cut.append("aé".as_bytes().split_last().unwrap().1, &mut text), Ok(()));
        assert_eq!(text, "a");
        assert_eq!(cut.end(), Err(InvalidUtf8));
        assert_eq!(cut.append(b"\xa9", &mut text), Ok(()));
        assert_eq!((text.as_str(), cut.end()), ("aé", Ok(())));
    }

    proptest! {
        #[test]
        fn any_text_in_any_two_pieces_is_that_text(text in ".{0,200}", cut in any::<prop::sample::Index>()) {
            let (head, tail) = text.as_bytes().split_at(cut.index(text.len() + 1));
            let (mut cut, mut joined) = (CutCharacter::default(), String::new());
            cut.append(head, &mut joined).unwrap();
            cut.append(tail, &mut joined).unwrap();
            prop_assert_eq!(cut.end(), Ok(()));
            prop_assert_eq!(joined, text);
        }

        #[test]
        fn any_bytes_one_at_a_time_are_judged_as_the_standard_library_judges_them(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let expected = match std::str::from_utf8(&bytes) {
                Err(error) if error.error_len().is_some() => {
                    // The standard library counts the bytes that were still possible; the next one was the impossible one,
                    // unless the first byte of the character was.
                    let start = error.valid_up_to();
                    let possible = (1..=3).take_while(|length| {
                        bytes.get(start..start + length).is_some_and(|begun| {
                            std::str::from_utf8(begun).is_err_and(|error| error.error_len().is_none())
                        })
                    }).count();
                    Some(start + possible)
                }
                _ => None,
            };
            prop_assert_eq!(first_refused_byte(&bytes), expected);
        }
    }
}
