//! The quick way over what nobody asks for: keys with plain values, as PHP writes them.
//!
//! The law: it takes only what is surely well-formed and plain. Before anything else it stops, and the reader of tokens judges.

/// How many keys with plain values begin at `at`, at most `limit`, and where the first of the others does.
pub(super) fn plain_entries(data: &[u8], mut at: usize, limit: usize) -> (usize, usize) {
    for count in 0..limit {
        match entry(data, at) {
            Some(end) => at = end,
            None => return (count, at),
        }
    }
    (limit, at)
}

#[inline(always)]
fn entry(data: &[u8], at: usize) -> Option<usize> {
    let at = match data.get(at..at + 2)? {
        b"s:" => string(data, at + 2)?,
        b"i:" => integer(data, at + 2)?,
        _ => return None,
    };
    match data.get(at..at + 2)? {
        b"s:" => string(data, at + 2),
        b"i:" => integer(data, at + 2),
        b"N;" => Some(at + 2),
        b"b:" => matches!(data.get(at + 2..at + 4)?, b"0;" | b"1;").then_some(at + 4),
        b"d:" => decimal(data, at + 2),
        _ => None,
    }
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
        let plain = b"i:0;i:-5;s:1:\"a\";N;i:1;b:1;i:2;d:0.5;i:3;d:-7;s:0:\"\";s:3:\"\"; \";";
        assert_eq!(plain_entries(plain, 0, 6), (6, plain.len()));
        assert_eq!(plain_entries(plain, 0, 2), (2, 19));
        let others = [
            "a:0:{}",
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
            assert_eq!(plain_entries(format!("i:0;N;i:1;{other}").as_bytes(), 0, 9), (1, 6), "{other}");
        }
        for key in
            ["i:x;N;", "b:1;N;", "s:99:\"a\";N;", "s:999999999999999999:\"a\";N;", "s:9999999999999999999999:\"a\";N;"]
        {
            assert_eq!(plain_entries(key.as_bytes(), 0, 9), (0, 0), "{key}");
        }
    }
}
