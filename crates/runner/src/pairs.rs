//! Names and values in a row, written as FastCGI wants them (its specification, section 3.4): a length each, then both.
//!
//! What a connection keeps for its calls is kept this way, so that a request copies it as it is.

/// A longer name or value has a length of four bytes, the first bit set.
const MAX_SHORT_LENGTH: usize = 127;

/// One name and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair<'p> {
    pub(crate) name: &'p [u8],
    pub(crate) value: &'p [u8],
    /// Both, as they were written.
    pub(crate) written: &'p [u8],
}

/// Bytes that a pair takes.
pub(crate) const fn length(name: &[u8], value: &[u8]) -> usize {
    length_bytes(name.len()) + length_bytes(value.len()) + name.len() + value.len()
}

/// Writes the lengths of a name and a value, which follow.
pub(crate) fn push_lengths(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if name.len().max(value.len()) <= MAX_SHORT_LENGTH {
        // Nearly all of them.
        return out.extend_from_slice(&[name.len() as u8, value.len() as u8]);
    }
    for length in [name.len(), value.len()] {
        match length {
            0..=MAX_SHORT_LENGTH => out.push(length as u8),
            _ => out.extend_from_slice(&(length as u32 | 1 << 31).to_be_bytes()),
        }
    }
}

/// Writes a pair.
pub(crate) fn push(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    push_lengths(out, name, value);
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

/// Writes a pair whose value comes from elsewhere, at most 127 bytes of it.
pub(crate) fn push_short(out: &mut Vec<u8>, name: &'static str, value: impl FnOnce(&mut Vec<u8>)) {
    let lengths = out.len();
    out.extend_from_slice(&[name.len() as u8, 0]);
    out.extend_from_slice(name.as_bytes());
    let begin = out.len();
    value(out);
    debug_assert!(name.len().max(out.len() - begin) <= MAX_SHORT_LENGTH, "{name} is short");
    out[lengths + 1] = (out.len() - begin) as u8;
}

/// The pairs of a row that was written here.
pub(crate) fn read(mut row: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    std::iter::from_fn(move || {
        let whole = row;
        let (name_length, value_length) = (take_length(&mut row)?, take_length(&mut row)?);
        let (name, rest) = row.split_at(name_length);
        let (value, rest) = rest.split_at(value_length);
        row = rest;
        Some(Pair { name, value, written: &whole[..whole.len() - rest.len()] })
    })
}

fn take_length(row: &mut &[u8]) -> Option<usize> {
    let (&first, rest) = row.split_first()?;
    if usize::from(first) <= MAX_SHORT_LENGTH {
        *row = rest;
        return Some(first.into());
    }
    let (&[high, a, b, c], rest) = row.split_first_chunk()?;
    *row = rest;
    Some(u32::from_be_bytes([high & 0x7f, a, b, c]) as usize)
}

/// How many bytes the length of a name or value takes.
const fn length_bytes(length: usize) -> usize {
    if length <= MAX_SHORT_LENGTH { 1 } else { 4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_whatever_its_lengths() {
        let lengths = [0, 1, 126, 127, 128, 255, 256, 70_000];
        let (mut row, mut expected) = (Vec::new(), Vec::new());
        for name in lengths {
            for value in lengths {
                let (name, value) = (vec![b'N'; name], vec![b'v'; value]);
                let before = row.len();
                push(&mut row, &name, &value);
                assert_eq!(row.len() - before, length(&name, &value));
                expected.push((name, value));
            }
        }
        let pairs: Vec<_> = read(&row).map(|pair| (pair.name.to_vec(), pair.value.to_vec())).collect();
        assert!(pairs == expected);
        assert!(read(&row).flat_map(|pair| pair.written.to_vec()).eq(row.iter().copied()));
    }

    #[test]
    fn value_from_elsewhere_is_written_like_any_other() {
        for value in ["", "a", &"x".repeat(127)] {
            let (mut short, mut plain) = (Vec::new(), Vec::new());
            push_short(&mut short, "NAME", |out| out.extend_from_slice(value.as_bytes()));
            push(&mut plain, b"NAME", value.as_bytes());
            assert_eq!(short, plain);
        }
    }
}
