//! From what an application prints to the messages that a browser gets: no IO, no clock.
//!
//! Bytes go in as they are read; messages come out as the mode allows. What is not a whole message by the mode's measure
//! is never given out before [`ReplyAssembler::finish`], so that a call that fails sends nothing half.

use bytes::Bytes;
use thiserror::Error;

use crate::call::{Message, Utf8Bytes};

/// When a reply is sent; `application.reply`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplyMode {
    /// One message when the call has succeeded, all that was printed. One final newline is taken off a text.
    #[default]
    Whole,
    /// Each line at once, without its newline (`\n` or `\r\n`).
    Lines,
    /// Each flush at once: what one read found, but never a part of a UTF-8 character.
    Stream,
}

/// Whether a reply is a text or a binary message; `application.frame`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FrameMode {
    /// Valid UTF-8 is text, anything else binary; each message by itself.
    #[default]
    Auto,
    /// Always text; bytes that are no UTF-8 fail the call.
    Text,
    /// Always binary, byte for byte as printed (of a line: without its newline).
    Binary,
}

/// What is wrong with what an application printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// More than it may print.
    #[error("more than {0} bytes printed")]
    TooMuchOutput(usize),
    /// No UTF-8, where only text may be sent.
    #[error("bytes that are no UTF-8 printed")]
    NotUtf8,
}

/// Assembles the output of one call into messages.
///
/// Memory: what was printed and not yet given out; in whole mode all of it, at most `max_output_bytes` (and as much again
/// while the buffer grows).
#[derive(Debug)]
pub struct ReplyAssembler {
    mode: ReplyMode,
    frame: FrameMode,
    max_output_bytes: usize,
    received_bytes: usize,
    pending: Vec<u8>,
    /// Where in `pending` the bytes begin that were not given out yet.
    start: usize,
    /// Up to where the pending bytes are known to hold no newline.
    scanned: usize,
}

impl ReplyAssembler {
    /// An assembler for one call; `max_output_bytes` counts all that the call prints.
    #[must_use]
    pub const fn new(mode: ReplyMode, frame: FrameMode, max_output_bytes: usize) -> Self {
        Self { mode, frame, max_output_bytes, received_bytes: 0, pending: Vec::new(), start: 0, scanned: 0 }
    }

    /// Takes the bytes of one read. Then ask [`next_message`](Self::next_message) until there is none.
    ///
    /// # Errors
    /// [`ReplyError::TooMuchOutput`]: nothing of these bytes was taken, and the call should end.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), ReplyError> {
        if bytes.len() > self.max_output_bytes - self.received_bytes {
            return Err(ReplyError::TooMuchOutput(self.max_output_bytes));
        }
        self.received_bytes += bytes.len();
        self.drop_given_out();
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    /// The next message that can be sent before the call has ended.
    ///
    /// # Errors
    /// [`ReplyError::NotUtf8`] where only text may be sent.
    pub fn next_message(&mut self) -> Result<Option<Message>, ReplyError> {
        match self.mode {
            ReplyMode::Whole => Ok(None),
            ReplyMode::Lines => self.next_line(),
            ReplyMode::Stream => self.next_piece(),
        }
    }

    /// The last message of a call that has succeeded, after [`next_message`](Self::next_message) gave none.
    ///
    /// # Errors
    /// [`ReplyError::NotUtf8`] where only text may be sent.
    pub fn finish(mut self) -> Result<Option<Message>, ReplyError> {
        self.drop_given_out();
        if self.pending.is_empty() {
            return Ok(None);
        }
        let rest = Bytes::from(self.pending);
        let message = framed(rest, self.frame)?;
        Ok(Some(match (self.mode, message) {
            (ReplyMode::Whole, Message::Text(text)) => Message::Text(without_final_newline(text)),
            (ReplyMode::Whole | ReplyMode::Lines | ReplyMode::Stream, message) => message,
        }))
    }

    /// All bytes received so far.
    #[must_use]
    pub const fn received_bytes(&self) -> usize {
        self.received_bytes
    }

    fn next_line(&mut self) -> Result<Option<Message>, ReplyError> {
        let Some(length) = memchr::memchr(b'\n', &self.pending[self.scanned..]) else {
            self.scanned = self.pending.len();
            return Ok(None);
        };
        let newline = self.scanned + length;
        let line = &self.pending[self.start..newline];
        let line = Bytes::copy_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        self.start = newline + 1;
        self.scanned = self.start;
        framed(line, self.frame).map(Some)
    }

    fn next_piece(&mut self) -> Result<Option<Message>, ReplyError> {
        let piece = &self.pending[self.start..];
        let whole = match self.frame {
            FrameMode::Binary => piece.len(),
            FrameMode::Auto | FrameMode::Text => whole_characters(piece),
        };
        if whole == 0 {
            return Ok(None);
        }
        let piece = Bytes::copy_from_slice(&piece[..whole]);
        self.start += whole;
        framed(piece, self.frame).map(Some)
    }

    fn drop_given_out(&mut self) {
        self.pending.drain(..self.start);
        self.scanned = self.scanned.saturating_sub(self.start);
        self.start = 0;
    }
}

/// How many of the bytes can be judged now: all but a character at their end that may still become whole.
fn whole_characters(bytes: &[u8]) -> usize {
    match simdutf8::compat::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Ok(_) | Err(_) => bytes.len(),
    }
}

fn framed(bytes: Bytes, frame: FrameMode) -> Result<Message, ReplyError> {
    match frame {
        FrameMode::Binary => Ok(Message::Binary(bytes)),
        FrameMode::Auto => Ok(match Utf8Bytes::try_from(bytes) {
            Ok(text) => Message::Text(text),
            Err(bytes) => Message::Binary(bytes),
        }),
        FrameMode::Text => match Utf8Bytes::try_from(bytes) {
            Ok(text) => Ok(Message::Text(text)),
            Err(_) => Err(ReplyError::NotUtf8),
        },
    }
}

/// Takes one newline off the end (`\n` or `\r\n`).
fn without_final_newline(text: Utf8Bytes) -> Utf8Bytes {
    let length = match &text[..] {
        [before @ .., b'\r', b'\n'] | [before @ .., b'\n'] => before.len(),
        all => all.len(),
    };
    text.truncated(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All messages of an application that prints these pieces and succeeds.
    fn messages(mode: ReplyMode, frame: FrameMode, pieces: &[&[u8]]) -> Result<Vec<Message>, ReplyError> {
        let mut assembler = ReplyAssembler::new(mode, frame, usize::MAX);
        let mut messages = Vec::new();
        for piece in pieces {
            assembler.receive(piece)?;
            while let Some(message) = assembler.next_message()? {
                messages.push(message);
            }
        }
        messages.extend(assembler.finish()?);
        Ok(messages)
    }

    #[test]
    fn a_whole_reply_loses_one_final_newline() {
        for (printed, sent) in [("a", "a"), ("a\n", "a"), ("a\n\n", "a\n"), ("a\r\n", "a"), ("\n", ""), ("a\r", "a\r")]
        {
            let whole = messages(ReplyMode::Whole, FrameMode::Auto, &[printed.as_bytes()]);
            assert_eq!(whole, Ok(vec![Message::text(sent)]), "{printed:?}");
        }
    }

    #[test]
    fn binary_replies_are_sent_byte_for_byte() {
        let whole = messages(ReplyMode::Whole, FrameMode::Auto, &[b"\xff\n"]);
        assert_eq!(whole, Ok(vec![Message::binary(&b"\xff\n"[..])]));
        let whole = messages(ReplyMode::Whole, FrameMode::Binary, &[b"a\n"]);
        assert_eq!(whole, Ok(vec![Message::binary(&b"a\n"[..])]));
    }

    #[test]
    fn nothing_printed_is_nothing_sent_in_every_mode() {
        for mode in [ReplyMode::Whole, ReplyMode::Lines, ReplyMode::Stream] {
            assert_eq!(messages(mode, FrameMode::Auto, &[b"", b""]), Ok(vec![]));
        }
    }

    #[test]
    fn lines_are_judged_each_by_itself() {
        let lines = messages(ReplyMode::Lines, FrameMode::Auto, &[b"one\r\n\n\xfe\nlast"]);
        let expected = [Message::text("one"), Message::text(""), Message::binary(&b"\xfe"[..]), Message::text("last")];
        assert_eq!(lines, Ok(expected.to_vec()));
        let lines = messages(ReplyMode::Lines, FrameMode::Text, &[b"one\n\xfe\n"]);
        assert_eq!(lines, Err(ReplyError::NotUtf8));
    }

    #[test]
    fn a_stream_that_ends_within_a_character_sends_its_bytes_as_binary() {
        let stream = messages(ReplyMode::Stream, FrameMode::Auto, &[b"a\xe2", b"\x82"]);
        assert_eq!(stream, Ok(vec![Message::text("a"), Message::binary(&b"\xe2\x82"[..])]));
        let stream = messages(ReplyMode::Stream, FrameMode::Text, &[b"a\xe2", b"\x82"]);
        assert_eq!(stream, Err(ReplyError::NotUtf8));
        let stream = messages(ReplyMode::Stream, FrameMode::Binary, &[b"a\xe2"]);
        assert_eq!(stream, Ok(vec![Message::binary(&b"a\xe2"[..])]));
    }

    #[test]
    fn the_byte_after_the_limit_is_too_much_in_every_mode() {
        for mode in [ReplyMode::Whole, ReplyMode::Lines, ReplyMode::Stream] {
            let mut assembler = ReplyAssembler::new(mode, FrameMode::Auto, 5);
            assert_eq!(assembler.receive(b"abc"), Ok(()));
            assert_eq!(assembler.receive(b"de"), Ok(()));
            assert_eq!(assembler.receive(b"f"), Err(ReplyError::TooMuchOutput(5)));
            assert_eq!(assembler.received_bytes(), 5);
        }
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_output_is_cut(
            output in "[a\u{fc}\n\r]{0,60}", cuts in prop::collection::vec(0usize..60, 0..6)
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(output.len())).collect();
            cuts.extend([0, output.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &output.as_bytes()[cut[0]..cut[1]]).collect();
            let expected: Vec<Message> = output
                .split_inclusive('\n')
                .map(|line| match line.strip_suffix('\n') {
                    Some(line) => Message::text(line.strip_suffix('\r').unwrap_or(line)),
                    None => Message::text(line),
                })
                .collect();
            prop_assert_eq!(messages(ReplyMode::Lines, FrameMode::Text, &pieces), Ok(expected));
        }

        #[test]
        fn a_stream_is_all_of_the_output_in_text_however_it_is_cut(
            output in "[a\u{fc}\u{20ac}\u{1f600}]{0,20}", cuts in prop::collection::vec(0usize..80, 0..8)
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(output.len())).collect();
            cuts.extend([0, output.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &output.as_bytes()[cut[0]..cut[1]]).collect();
            let sent = messages(ReplyMode::Stream, FrameMode::Text, &pieces).expect("valid UTF-8");
            let joined: Vec<u8> = sent.iter().flat_map(|message| message.payload().to_vec()).collect();
            prop_assert_eq!(joined, output.as_bytes());
        }
    }
}
