//! `X-Request-Id`: unguessable, so that none of one connection tells of another's.

use std::cell::RefCell;
use std::io;

use crate::error::EnvironmentFault;

const ID_BYTES: usize = size_of::<u128>();

/// So many are drawn at once: a system call for each costs more than all else that makes a request.
const DRAWN: usize = 64;

/// Random ids of one shard, from the kernel's generator.
pub(super) struct RequestIds(RefCell<Drawn>);

struct Drawn {
    bytes: [u8; DRAWN * ID_BYTES],
    unused: usize,
}

impl RequestIds {
    pub(super) const fn new() -> Self {
        Self(RefCell::new(Drawn { bytes: [0; DRAWN * ID_BYTES], unused: 0 }))
    }

    /// An id that no other request has.
    pub(super) fn next(&self) -> Result<u128, EnvironmentFault> {
        let Drawn { bytes, unused } = &mut *self.0.borrow_mut();
        if *unused == 0 {
            getrandom::fill(bytes)
                .map_err(|error| EnvironmentFault::System { what: "random bytes", source: io::Error::other(error) })?;
            *unused = DRAWN;
        }
        *unused -= 1;
        let (ids, _) = bytes.as_chunks::<ID_BYTES>();
        Ok(u128::from_ne_bytes(ids[*unused]))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_id_comes_twice() {
        let ids = RequestIds::new();
        let drawn: HashSet<u128> = (0..DRAWN * 3).map(|_| ids.next().expect("random bytes")).collect();
        assert_eq!(drawn.len(), DRAWN * 3);
        assert!(!drawn.contains(&0), "an id that was never drawn");
    }
}
