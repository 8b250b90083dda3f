//! Keeping a watch out of reclaim, its own included: what is locked can't be taken.

use memctl::cgroup::host::Rights;
use memctl::cgroup::locate;
use rustix::mm::{Advice, MlockAllFlags, madvise, mlockall};

use crate::output::{Loudness, notes};

/// Locks memory as it comes into use, where that can't fail later on: under a limit of locked memory an allocation might.
/// Where it can't be done, and memctl watches the cgroup that it lives in, says so: neither memory.min nor memory.low
/// protects it there from its own writes.
pub fn lock_memory<'a>(mut watched: impl Iterator<Item = &'a str>, loudness: Loudness) {
    let rights = Rights::of_self();
    let unbounded = rights.ipc_lock || rights.memlock.is_none();
    forget_the_start();
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if unbounded && mlockall(flags).is_ok() {
        return;
    }
    let own = locate("self").map(|located| located.name).unwrap_or_default();
    let holds = |name: &str| own == name || own.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    if let Some(name) = watched.find(|name| holds(name)) {
        notes::unlocked(name, loudness);
    }
}

/// Lets go of code that only the start needed: parsing words, finding cgroups. What is needed again is read again, from the
/// page cache. Two megabytes of it would be locked for as long as the watch lasts.
fn forget_the_start() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    let Ok(program) = std::fs::read_link("/proc/self/exe") else { return };
    for (begin, end) in maps.lines().filter_map(|line| code_of(&program.to_string_lossy(), line)) {
        // SAFETY: the range is a private mapping of the program's file that can't be written to, so nothing is lost with
        // its pages: the next access finds the same bytes in the file, which nobody can write to while it runs (ETXTBSY).
        let _ = unsafe { madvise(begin as *mut _, end - begin, Advice::LinuxDontNeed) };
    }
}

/// The range that a line of `/proc/self/maps` tells of, if it is code of that program.
fn code_of(program: &str, line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (begin, end) = fields.next()?.split_once('-')?;
    let is_code = fields.next()? == "r-xp" && fields.nth(3)? == program;
    let address = |digits| usize::from_str_radix(digits, 16).ok();
    is_code.then_some((address(begin)?, address(end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_the_program_and_nothing_else() {
        let of = |line| code_of("/bin/memctl", line);
        let code = "7f0000001000-7f0000003000 r-xp 000b2000 00:02 1234                       /bin/memctl";
        assert_eq!(of(code), Some((0x7f00_0000_1000, 0x7f00_0000_3000)));
        for other in [code.replace("r-xp", "r--p"), code.replace("/bin/memctl", "/lib/libc.so.6")] {
            assert_eq!(code_of("/bin/memctl", &other), None);
        }
        assert_eq!((of("7ffc000-7ffd000 r-xp 00000000 00:00 0  [vdso]"), of("")), (None, None));
        forget_the_start();
    }
}
