//! Memory locking for a watch: locked pages can't be reclaimed, not even by memctl's own writes.

use memctl::host::{self, Rights};
use memctl::select::locate;
use rustix::mm::{Advice, MlockAllFlags, madvise, mlockall};

use crate::output::notes;

/// Locks memory as it comes into use, unless this can fail later: under a limit of locked memory an
/// allocation might. If locking isn't possible and memctl watches its own cgroup, returns a note:
/// neither memory.min nor memory.low protects memctl there from its own writes.
pub fn lock_memory<'a>(mut watched: impl Iterator<Item = &'a str>) -> Option<String> {
    keep_one_heap();
    let rights = Rights::of_self();
    let unbounded = rights.ipc_lock || rights.memlock.is_none();
    forget_the_start();
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if unbounded && mlockall(flags).is_ok() {
        return None;
    }
    let own = locate("self").map(|located| located.name).unwrap_or_default();
    let holds =
        |name: &str| *own == *name || own.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    watched.find(|name| holds(name)).map(notes::unlocked)
}

/// Makes all threads use the one heap: each would reserve 64 MiB of addresses for another, which
/// count as locked, and keep some of its memory.
fn keep_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt sets a number of the allocator's, and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Releases memory that only the start needed: the code that parses words and finds cgroups, its
/// constants, and its heap. What is needed again is read again, from the page cache. Otherwise
/// nearly three megabytes would be locked for as long as the watch lasts.
pub fn forget_the_start() {
    give_memory_back();
    for (begin, end) in host::file_of_self() {
        // SAFETY: the range is a private, read-only mapping of the program's file without a page that
        // was written to (`file_of_self`), and the loader, which alone makes such a page, is done;
        // so its pages are those of the file's page cache, and nothing is lost with them: the next
        // access maps them again, with the same bytes as long as the file isn't changed in place.
        // A local file system refuses such a change while the program runs (ETXTBSY). A network
        // file system may not, nor keep the pages; but there the change shows in a page that was
        // never released as well, or in one that any reclaim evicted, so the call adds no risk.
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
