//! How much of what was written to a Unix socket its peer has not read yet.
//!
//! Unsafe, because no safe library asks the kernel for it.
#![allow(unsafe_code)]

use std::os::fd::AsFd;

use rustix::ioctl::{Getter, Opcode, ioctl};

/// Also known as SIOCOUTQ.
const UNREAD: Opcode = libc::TIOCOUTQ as Opcode;

/// The kernel counts the memory of what is unread, hundreds of bytes for the shortest write. It tells the writer of a read a moment before it
/// has counted off the last byte of each buffer, so that less than this is nothing.
const LEAST_BUFFER_BYTES: libc::c_int = 64;

/// Whether something that was written is still unread.
pub(super) fn has_unread(socket: impl AsFd) -> rustix::io::Result<bool> {
    // SAFETY: of a socket this opcode reads nothing, and writes one `int`, which is the type given here; of anything else it fails or does
    // the same.
    let bytes = unsafe { ioctl(socket, Getter::<UNREAD, libc::c_int>::new()) }?;
    Ok(bytes >= LEAST_BUFFER_BYTES)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_a_peer_has_not_read_is_counted_until_it_reads_or_closes() {
        let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
        assert_eq!(has_unread(&ours), Ok(false));
        ours.write_all(b"ab").expect("written");
        assert_eq!(has_unread(&ours), Ok(true));
        theirs.read_exact(&mut [0]).expect("a byte");
        assert_eq!(has_unread(&ours), Ok(true));
        theirs.read_exact(&mut [0]).expect("a byte");
        assert_eq!(has_unread(&ours), Ok(false));
        ours.write_all(b"c").expect("written");
        drop(theirs);
        assert_eq!(has_unread(&ours), Ok(false));
        assert!(ours.write_all(b"d").is_err(), "closed before it was forgotten");
    }
}
