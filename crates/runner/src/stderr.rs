//! The end of what an application says on standard error: what the log shows of a call.

/// How much of it is kept.
const STDERR_TAIL_BYTES: usize = 4 * 1024;

/// The end of standard error.
#[derive(Debug, Default)]
pub(crate) struct StderrTail(Vec<u8>);

impl StderrTail {
    /// Takes what was read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(STDERR_TAIL_BYTES)..];
        let too_many = (self.0.len() + bytes.len()).saturating_sub(STDERR_TAIL_BYTES);
        self.0.drain(..too_many);
        self.0.extend_from_slice(bytes);
    }

    /// What is kept of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As text, without the rest of a character at its beginning and the newline at its end.
    pub(crate) fn into_text(self) -> String {
        let continued = self.0.iter().take(3).take_while(|&&byte| byte & 0xC0 == 0x80).count();
        String::from_utf8_lossy(&self.0[continued..]).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_four_kilobytes_of_standard_error_are_kept() {
        let mut tail = StderrTail::default();
        tail.push(&[b'a'; 5000]);
        tail.push(b"b");
        tail.push(&[b'c'; 10]);
        let text = tail.into_text();
        assert_eq!(text.len(), STDERR_TAIL_BYTES);
        assert!(text.starts_with("aaa") && text.ends_with(&format!("ab{}", "c".repeat(10))));
    }

    #[test]
    fn standard_error_that_begins_within_a_character_begins_with_the_next() {
        let mut tail = StderrTail::default();
        tail.push(&"ü".as_bytes()[1..]);
        tail.push("ber\n".as_bytes());
        assert_eq!(tail.into_text(), "ber");
    }
}
