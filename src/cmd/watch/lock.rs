//! Keeping a watch out of reclaim, its own included: what is locked can't be taken.

use memctl::cgroup::host::Rights;
use memctl::cgroup::locate;
use rustix::mm::{MlockAllFlags, mlockall};

use crate::output::{Loudness, notes};

/// Locks memory as it comes into use, where that can't fail later on: under a limit of locked memory an allocation might.
/// Where it can't be done, and memctl watches the cgroup that it lives in, says so: neither memory.min nor memory.low
/// protects it there from its own writes.
pub fn lock_memory<'a>(mut watched: impl Iterator<Item = &'a str>, loudness: Loudness) {
    let rights = Rights::of_self();
    let unbounded = rights.ipc_lock || rights.memlock.is_none();
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
