//! Memory locking for a watch: locked pages can't be reclaimed, not even by memctl's own writes.

use memctl::host::{self, Rights};
use memctl::select::locate;
use rustix::mm::{Advice, MlockAllFlags, madvise, mlockall};

use crate::output::{Verbosity, notes};

/// Locks memory as it comes into use, unless this can fail later: under a limit of locked memory an
/// allocation might. If locking isn't possible and memctl watches its own cgroup, prints a note:
/// neither memory.min nor memory.low protects memctl there from its own writes.
pub fn lock_memory<'a>(mut watched: impl Iterator<Item = &'a str>, loudness: Verbosity) {
    let rights = Rights::of_self();
    let unbounded = rights.ipc_lock || rights.memlock.is_none();
    forget_the_start();
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if unbounded && mlockall(flags).is_ok() {
        return;
    }
    let own = locate("self").map(|located| located.name).unwrap_or_default();
    let holds =
        |name: &str| *own == *name || own.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    if let Some(name) = watched.find(|name| holds(name)) {
        notes::unlocked(name, loudness);
    }
}

/// Releases memory that only the start needed: the code that parses words and finds cgroups, and
/// its heap. Code that is needed again is read again, from the page cache. Otherwise two megabytes
/// would be locked for as long as the watch lasts.
pub fn forget_the_start() {
    give_memory_back();
    for (begin, end) in host::code_of_self() {
        // SAFETY: the range is a private mapping of the program's file that can't be written to, so
        // nothing is lost with its pages: the next access finds the same bytes in the file, which
        // can't be written to while it runs (ETXTBSY).
        let _ = unsafe { madvise(begin as *mut _, end - begin, Advice::LinuxDontneedLocked) };
    }
}

/// Returns the allocator's free memory to the kernel.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the allocator's locks itself, and may be called at any time by any
    // thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_forgotten_is_found_again() {
        super::forget_the_start();
    }
}
