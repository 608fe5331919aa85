//! The quick way over what nobody asks for: keys with plain values, and arrays of them, as PHP writes them.
//!
//! The law: it takes only what is surely well-formed and plain. Before anything else it stops, and the reader of tokens judges.

/// Arrays in each other that are skipped at once. What could not be is read again, so often at most.
pub(super) const MAX_DEPTH: usize = 4;

/// What was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skipped {
    /// Keys with their values.
    pub(super) entries: usize,
    /// All values, also those in arrays.
    pub(super) values: usize,
    /// Where the first that is not plain begins.
    pub(super) at: usize,
}

/// Skips keys with plain values that begin at `at`, at most `limit`, with arrays at most `depth` deep.
pub(super) fn plain_entries(data: &[u8], at: usize, limit: usize, depth: usize) -> Skipped {
    let mut skipped = Skipped { entries: 0, values: 0, at };
    while skipped.entries < limit {
        let Some((end, values)) = entry(data, skipped.at, depth) else { break };
        skipped = Skipped { entries: skipped.entries + 1, values: skipped.values + values, at: end };
    }
    skipped
}

/// Where a key's value ends, and how many values it is.
#[inline(always)]
fn entry(data: &[u8], at: usize, depth: usize) -> Option<(usize, usize)> {
    let at = match data.get(at..at + 2)? {
        b"s:" => string(data, at + 2)?,
        b"i:" => integer(data, at + 2)?,
        _ => return None,
    };
    let end = match data.get(at..at + 2)? {
        b"s:" => string(data, at + 2)?,
        b"i:" => integer(data, at + 2)?,
        b"N;" => at + 2,
        b"b:" if matches!(data.get(at + 2..at + 4)?, b"0;" | b"1;") => at + 4,
        b"d:" => decimal(data, at + 2)?,
        b"a:" => return array(data, at + 2, depth),
        _ => return None,
    };
    Some((end, 1))
}

fn array(data: &[u8], at: usize, depth: usize) -> Option<(usize, usize)> {
    let (count, at) = digits(data, at)?;
    if data.get(at..at + 2)? != b":{" || (depth == 0 && count > 0) {
        return None;
    }
    let (mut at, mut values) = (at + 2, 1);
    for _ in 0..count {
        let (end, inner) = entry(data, at, depth - 1)?;
        (at, values) = (end, values + inner);
    }
    (*data.get(at)? == b'}').then_some((at + 1, values))
}

/// Where the digits at `at` end; `None` if there are none, or more than a length needs.
#[inline(always)]
fn digits(data: &[u8], at: usize) -> Option<(usize, usize)> {
    let (mut end, mut value) = (at, 0);
    while let Some(digit) = data.get(end).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        value = value * 10 + usize::from(digit);
        end += 1;
        if end - at > 18 {
            return None;
        }
    }
    (end > at).then_some((value, end))
}

#[inline(always)]
fn string(data: &[u8], at: usize) -> Option<usize> {
    let (length, at) = digits(data, at)?;
    let end = at + 2 + length;
    (data.get(at..at + 2)? == b":\"" && data.get(end..end + 2)? == b"\";").then_some(end + 2)
}

#[inline(always)]
fn integer(data: &[u8], at: usize) -> Option<usize> {
    let (_, end) = digits(data, at + usize::from(*data.get(at)? == b'-'))?;
    (*data.get(end)? == b';').then_some(end + 1)
}

#[inline(always)]
fn decimal(data: &[u8], at: usize) -> Option<usize> {
    let (_, mut end) = digits(data, at + usize::from(*data.get(at)? == b'-'))?;
    if *data.get(end)? == b'.' {
        (_, end) = digits(data, end + 1)?;
    }
    (*data.get(end)? == b';').then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_entries_are_skipped_up_to_the_first_other_one() {
        let skip = |data: &[u8], limit| plain_entries(data, 0, limit, 2);
        let plain = b"i:0;i:-5;s:1:\"a\";N;i:1;b:1;i:2;d:0.5;i:3;d:-7;s:0:\"\";s:2:\"; \";";
        assert_eq!(skip(plain, 6), Skipped { entries: 6, values: 6, at: plain.len() });
        assert_eq!(skip(plain, 2), Skipped { entries: 2, values: 2, at: 19 });
        let arrays = b"i:0;a:2:{i:0;a:1:{i:0;a:0:{}}i:1;N;}i:1;i:5;";
        assert_eq!(skip(arrays, 9), Skipped { entries: 2, values: 5, at: arrays.len() });
        let others = [
            "a:1:{i:0;a:1:{i:0;a:1:{i:0;N;}}}",
            "a:1:{i:0;r:1;}",
            "a:1:{}",
            "a:0:{N;}",
            "a:9999:{i:0;N;}",
            "O:1:\"A\":0:{}",
            "R:1;",
            "S:1:\"a\";",
            "d:1.0E+25;",
            "d:INF;",
            "i:;",
            "i:1",
            "s:2:\"a\";",
            "b:2;",
            "",
        ];
        for other in others {
            let data = format!("i:0;N;i:1;{other}");
            assert_eq!(skip(data.as_bytes(), 9), Skipped { entries: 1, values: 1, at: 6 }, "{other}");
        }
        for key in
            ["i:x;N;", "b:1;N;", "s:99:\"a\";N;", "s:999999999999999999:\"a\";N;", "s:9999999999999999999999:\"a\";N;"]
        {
            assert_eq!(skip(key.as_bytes(), 9), Skipped { entries: 0, values: 0, at: 0 }, "{key}");
        }
    }
}
