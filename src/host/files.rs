//! File descriptors of this process: their limit, and the part of it set aside for files that are
//! open only for a moment.
//!
//! The kernel gives out the lowest free number (POSIX, open(2)). So if files that stay open have
//! numbers below a bound, the numbers from there up to the limit are free for others.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Number of descriptors set aside: four writes at a time open nine files each, and beside them a
/// few are needed to read `memory.stat`, to walk the hierarchy and to query a killer. Where the
/// limit is low, half of it.
const RESERVE: u64 = 48;

/// Raises the limit of open files to its maximum. The default of 1024 is kept low for programs that
/// use select(2), and memctl doesn't.
pub fn open_many_files() {
    let limit = getrlimit(Resource::Nofile);
    // If raising fails, the limit stays as it was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Returns whether these files may stay open: none of them has a number that is set aside.
#[must_use]
pub(crate) fn may_stay_open<'fd>(mut files: impl Iterator<Item = BorrowedFd<'fd>>) -> bool {
    let end = end_of_lasting(getrlimit(Resource::Nofile).current);
    files.all(|file| u64::try_from(file.as_raw_fd()).is_ok_and(|number| number < end))
}

/// Returns the first number that is set aside below a limit of open files.
fn end_of_lasting(limit: Option<u64>) -> u64 {
    limit.map_or(u64::MAX, |limit| limit - RESERVE.min(limit / 2))
}

/// Returns whether an error says that this process or the host lacks something for now, and nothing
/// about the file.
#[must_use]
pub(crate) fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS)
}

/// Returns a file that not every cgroup or kernel has.
///
/// # Errors
/// The kernel's error, if that doesn't mean that the file is absent or off limits.
pub(crate) fn optional<T>(opened: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match opened {
        Err(errno) if is_shortage(errno) => Err(errno),
        opened => Ok(opened.ok()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_part_of_the_limit_is_set_aside() {
        assert_eq!(end_of_lasting(None), u64::MAX);
        assert_eq!(end_of_lasting(Some(1024)), 976);
        assert_eq!(end_of_lasting(Some(64)), 32);
        assert_eq!(end_of_lasting(Some(1)), 1);
        assert_eq!(end_of_lasting(Some(0)), 0);
    }

    #[test]
    fn files_with_low_numbers_stay_open() {
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        assert!(may_stay_open([file.as_fd()].into_iter()));
        let end = end_of_lasting(getrlimit(Resource::Nofile).current);
        // Without a limit worth the name no number can be reached that is set aside.
        let Ok(end) = i32::try_from(end) else { return };
        let high = rustix::io::fcntl_dupfd_cloexec(&file, end).unwrap();
        assert!(!may_stay_open([file.as_fd(), high.as_fd()].into_iter()));
    }

    #[test]
    fn a_shortage_is_no_absence() {
        assert_eq!(optional::<u8>(Err(Errno::NOENT)), Ok(None));
        assert_eq!(optional::<u8>(Err(Errno::ACCESS)), Ok(None));
        assert_eq!(optional::<u8>(Err(Errno::MFILE)), Err(Errno::MFILE));
        assert_eq!(optional(Ok(1)), Ok(Some(1)));
    }
}
