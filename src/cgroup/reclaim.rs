//! `memory.reclaim`: the kernel's interface for proactive reclaim, and the purpose of memctl.
//!
//! A request is one raw write(2) of plain decimal bytes. The standard library's writers would
//! repeat the whole request on `EINTR`; this module never does. The result of the call never gives
//! the amount freed.

use std::fmt::{self, Write};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::Cgroup;
use crate::kind::Swappiness;

/// Name of the file.
pub(crate) const FILE: &str = "memory.reclaim";

/// Line on the stack: a request allocates nothing, since memory may be short.
struct Line {
    text: [u8; 48],
    length: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = self.text.get_mut(self.length..self.length + more.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(more.as_bytes());
        self.length += more.len();
        Ok(())
    }
}

/// Open `memory.reclaim`.
#[derive(Debug)]
pub(crate) struct ReclaimFile(OwnedFd);

impl AsFd for ReclaimFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl ReclaimFile {
    /// Opens the cgroup's file for writing.
    ///
    /// # Errors
    /// The kernel's error: `ENOENT`, `EACCES`, `EROFS`. [`super::diagnose`] turns these into
    /// reasons.
    pub(crate) fn open(cgroup: &Cgroup) -> Result<Self, Errno> {
        Self::open_in(cgroup, FILE)
    }

    /// Opens a file of the same format in another directory.
    pub(crate) fn open_in(dir: impl AsFd, file: &str) -> Result<Self, Errno> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(dir, file, flags, Mode::empty()).map(Self)
    }

    /// Requests reclaim of `bytes`, a multiple of the page size, with a single write.
    ///
    /// # Errors
    /// `EAGAIN`: less was freed, perhaps nothing. `EINTR`: a signal came, some may have been freed.
    /// `ENODEV`: the cgroup was removed. `EINVAL`: this kernel doesn't know the key.
    pub(crate) fn request(&self, bytes: u64, swappiness: Option<Swappiness>) -> Result<(), Errno> {
        let mut line = Line { text: [0; 48], length: 0 };
        // The longest line fits: 20 digits, and 15 bytes more.
        let _ = match swappiness {
            None => writeln!(line, "{bytes}"),
            Some(value) => writeln!(line, "{bytes} swappiness={value}"),
        };
        rustix::io::write(&self.0, &line.text[..line.length]).map(drop)
    }

    /// Returns whether this kernel knows `swappiness=` with this value. A request for 0 bytes is a
    /// no-op where the key is known and `EINVAL` where it isn't, so this is exact where version
    /// numbers, with all that distributions backport, are not.
    ///
    /// # Errors
    /// The kernel's error, except `EINVAL`, for which this returns false.
    pub(crate) fn accepts(&self, swappiness: Swappiness) -> Result<bool, Errno> {
        match self.request(0, Some(swappiness)) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_request_fits_a_line() {
        let mut line = Line { text: [0; 48], length: 0 };
        writeln!(line, "{} swappiness={}", u64::MAX, Swappiness::Value(200)).unwrap();
        assert_eq!(&line.text[..line.length], b"18446744073709551615 swappiness=200\n");
        assert!(write!(line, "{}", u64::MAX).is_err());
    }
}
