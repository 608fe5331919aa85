//! The header block in front of a CGI answer (RFC 3875 section 6), without IO.
//!
//! Only its status matters here: the body is the reply, whatever its type, and cookies or redirects have nobody to follow them. What is
//! no header block is an error, and never guessed to be a body: a PHP warning in front of it must not be sent as a reply.

use thiserror::Error;

/// Header fields and the line that ends them are at most so long.
pub(super) const MAX_HEADER_BYTES: usize = 64 * 1024;

/// The status of an answer that names none.
const OK: u16 = 200;

/// The status of an answer that names none, but a place to go (RFC 3875 section 6.2.3).
const FOUND: u16 = 302;

/// Reads a header block line by line. Memory: a line that is not whole yet.
#[derive(Debug, Default)]
pub(super) struct HeaderBlock {
    /// What is there of the current line.
    line: Vec<u8>,
    /// Lines that were whole.
    lines: usize,
    received_bytes: usize,
    status: Option<u16>,
    redirects: bool,
}

/// What is wrong with a header block. Each begins with a verb, after the name of the server. None quotes it: it may hold cookies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum HeaderError {
    #[error("sent a header block longer than {MAX_HEADER_BYTES} bytes")]
    TooLong,
    #[error(
        "sent no header block: its first line is no header field \
         (a FastCGI answer begins with fields like Content-Type and an empty line)"
    )]
    NoBlock,
    #[error("sent a header block whose line {0} is no header field")]
    NoField(usize),
    #[error("sent a header block with a Status that is no number from 200 to 999")]
    Status,
    #[error("sent a header block with two Status fields")]
    TwoStatuses,
    #[error("ended its answer within the header block")]
    Cut,
    #[error("ended its answer without a header block, or any output (did the script run?)")]
    Nothing,
}

impl HeaderBlock {
    /// Takes the next bytes; once the block is whole, its status and the rest of the bytes, which belong to the body.
    ///
    /// # Errors
    /// This is no header block.
    pub(super) fn receive<'b>(&mut self, mut bytes: &'b [u8]) -> Result<Option<(u16, &'b [u8])>, HeaderError> {
        loop {
            let newline = memchr::memchr(b'\n', bytes);
            self.received_bytes += newline.map_or(bytes.len(), |at| at + 1);
            if self.received_bytes > MAX_HEADER_BYTES {
                return Err(if self.lines == 0 { HeaderError::NoBlock } else { HeaderError::TooLong });
            }
            let Some(newline) = newline else {
                self.line.extend_from_slice(bytes);
                return Ok(None);
            };
            let (line, rest) = (&bytes[..newline], &bytes[newline + 1..]);
            bytes = rest;
            self.lines += 1;
            if self.line.is_empty() {
                if self.take_line(line)? == Line::Last {
                    return Ok(Some((self.final_status(), rest)));
                }
                continue;
            }
            let mut whole = std::mem::take(&mut self.line);
            whole.extend_from_slice(line);
            if self.take_line(&whole)? == Line::Last {
                return Ok(Some((self.final_status(), rest)));
            }
        }
    }

    /// Why an answer that ended here has no whole header block.
    pub(super) const fn cut(&self) -> HeaderError {
        match (self.received_bytes, self.lines) {
            (0, _) => HeaderError::Nothing,
            (_, 0) => HeaderError::NoBlock,
            (_, _) => HeaderError::Cut,
        }
    }

    fn final_status(&self) -> u16 {
        self.status.unwrap_or(if self.redirects { FOUND } else { OK })
    }

    fn take_line(&mut self, line: &[u8]) -> Result<Line, HeaderError> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Ok(Line::Last);
        }
        let colon = memchr::memchr(b':', line).filter(|&at| at > 0 && line[..at].iter().all(|&byte| is_token(byte)));
        let Some(colon) = colon else {
            return Err(if self.lines == 1 { HeaderError::NoBlock } else { HeaderError::NoField(self.lines) });
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"status") {
            let status = parse_status(value).ok_or(HeaderError::Status)?;
            if self.status.replace(status).is_some() {
                return Err(HeaderError::TwoStatuses);
            }
        } else if name.eq_ignore_ascii_case(b"location") {
            self.redirects = true;
        }
        Ok(Line::Field)
    }
}

#[derive(PartialEq, Eq)]
enum Line {
    Field,
    Last,
}

/// `404` or `404 Not Found`.
fn parse_status(value: &[u8]) -> Option<u16> {
    let (digits, reason) = value.split_first_chunk::<3>()?;
    if !digits.iter().all(u8::is_ascii_digit) || reason.first().is_some_and(|&byte| byte != b' ') {
        return None;
    }
    let status = digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    (status >= 200).then_some(status)
}

/// A character of a field's name (RFC 9110 section 5.6.2).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Status and body of an answer that is read in these pieces.
    fn read(pieces: &[&[u8]]) -> Result<Option<(u16, Vec<u8>)>, HeaderError> {
        let mut block = HeaderBlock::default();
        let mut answer: Option<(u16, Vec<u8>)> = None;
        for piece in pieces {
            match &mut answer {
                Some((_, body)) => body.extend_from_slice(piece),
                none => *none = block.receive(piece)?.map(|(status, rest)| (status, rest.to_vec())),
            }
        }
        Ok(answer)
    }

    #[test]
    fn the_body_begins_behind_the_first_empty_line() {
        for (printed, status, body) in [
            ("Content-type: text/html\r\n\r\nbody", 200, "body"),
            ("Content-type: text/html\n\nbody\n\nmore", 200, "body\n\nmore"),
            ("Status: 404 Not Found\r\nX-Empty:\r\n\r\n", 404, ""),
            ("status:503\r\n\r\nx", 503, "x"),
            ("Status: 201\r\nLocation: /a\r\n\r\nx", 201, "x"),
            ("Location: /a\r\n\r\nx", 302, "x"),
            ("\r\nx", 200, "x"),
        ] {
            let answer = read(&[printed.as_bytes()]);
            assert_eq!(answer, Ok(Some((status, body.as_bytes().to_vec()))), "{printed:?}");
        }
    }

    #[test]
    fn what_is_no_header_block_is_never_taken_for_a_body() {
        for (printed, error) in [
            ("hello\n", HeaderError::NoBlock),
            ("<br>\nWarning: x\n\n", HeaderError::NoBlock),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", HeaderError::NoBlock),
            (": x\n\n", HeaderError::NoBlock),
            ("A: b\nno field\n\n", HeaderError::NoField(2)),
            ("A: b\n folded: x\n\n", HeaderError::NoField(2)),
            ("Status: OK\n\n", HeaderError::Status),
            ("Status: 20\n\n", HeaderError::Status),
            ("Status: 2000\n\n", HeaderError::Status),
            ("Status: 100 Continue\n\n", HeaderError::Status),
            ("Status: 200\nStatus: 500\n\n", HeaderError::TwoStatuses),
        ] {
            assert_eq!(read(&[printed.as_bytes()]), Err(error), "{printed:?}");
        }
    }

    #[test]
    fn an_answer_that_ends_too_early_says_what_it_lacks() {
        for (printed, error) in
            [("", HeaderError::Nothing), ("hello", HeaderError::NoBlock), ("A: b\r\nC: d", HeaderError::Cut)]
        {
            let mut block = HeaderBlock::default();
            assert_eq!(block.receive(printed.as_bytes()), Ok(None));
            assert_eq!(block.cut(), error, "{printed:?}");
        }
    }

    #[test]
    fn a_header_block_has_at_most_64_kibibytes() {
        let fits = format!("A: {}\n\n", "x".repeat(MAX_HEADER_BYTES - 5));
        assert_eq!(read(&[fits.as_bytes(), b"body"]), Ok(Some((200, b"body".to_vec()))));
        let line = "A: b\n".repeat(MAX_HEADER_BYTES / 5 + 1);
        assert_eq!(read(&[line.as_bytes()]), Err(HeaderError::TooLong));
        assert_eq!(read(&[&[b'x'; MAX_HEADER_BYTES], b"x"]), Err(HeaderError::NoBlock));
    }

    proptest! {
        #[test]
        fn an_answer_is_the_same_however_it_is_cut(
            fields in prop::collection::vec("[A-Za-z-]{1,8}: [ -~]{0,20}\r?\n", 0..5),
            body in "[a-z\r\n:]{0,40}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let printed = format!("{}\r\n{body}", fields.concat());
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(printed.len() + 1)).collect();
            cuts.extend([0, printed.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &printed.as_bytes()[cut[0]..cut[1]]).collect();
            let whole = read(&[printed.as_bytes()]);
            prop_assert_eq!(&read(&pieces), &whole);
            if let Ok(answer) = whole {
                prop_assert_eq!(answer.map(|(_, body)| body), Some(body.into_bytes()));
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((status, body))) = read(&[&bytes]) {
                prop_assert!(status >= 200 && body.len() < bytes.len());
            }
        }
    }
}
