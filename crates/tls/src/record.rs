//! Where a TLS record ends (RFC 8446, section 5.1). Its header is never encrypted.

/// Type, version and length.
pub(crate) const HEADER_BYTES: usize = 5;

/// The most that one record carries (RFC 8446, section 5.1: MUST NOT exceed 2^14 bytes).
pub(crate) const MAX_PLAINTEXT_BYTES: usize = 1 << 14;

/// How many bytes the first record of `bytes` lacks, as far as can be told: those of its header, then the rest.
pub(crate) fn missing(bytes: &[u8]) -> usize {
    match length(bytes) {
        Some(length) => length.saturating_sub(bytes.len()),
        None => HEADER_BYTES - bytes.len(),
    }
}

/// Where the last whole record of `bytes` ends; 0 where there is none.
pub(crate) fn whole(bytes: &[u8]) -> usize {
    let mut end = 0;
    while let Some(length) = length(&bytes[end..]) {
        if length > bytes.len() - end {
            break;
        }
        end += length;
    }
    end
}

fn length(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    Some(HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: [u8; 13] = [22, 3, 3, 0, 1, 9, 23, 3, 3, 0, 2, 8, 8];

    #[test]
    fn whole_records_end_where_their_headers_say() {
        for (given, end) in [(0, 0), (4, 0), (5, 0), (6, 6), (7, 6), (11, 6), (12, 6), (13, 13)] {
            assert_eq!(whole(&TWO[..given]), end, "of {given} bytes");
        }
    }

    #[test]
    fn a_cut_record_tells_what_it_lacks() {
        for (given, lacks) in [(0, 5), (1, 4), (4, 1), (5, 1), (6, 0), (7, 0)] {
            assert_eq!(missing(&TWO[..given]), lacks, "of {given} bytes");
        }
    }
}
