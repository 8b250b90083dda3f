//! Shortages: how often tasks had to reclaim memory of a cgroup in their own time.

use super::CgroupPath;
use super::events::Events;
use crate::host::vmstat::allocation_stalls;

/// Returns how often tasks had to reclaim memory of a cgroup so far: limits met in it or below it,
/// limits met above it, and shortages of the host. `None` where any of these can't be seen, as in a
/// container, whose mount ends below the levels above.
///
/// Before Linux 6.15 `pgsteal_direct` contains what was reclaimed through `memory.reclaim` as well.
/// As long as this number stays the same, it contains nothing else.
#[must_use]
pub(crate) fn shortages(located: &CgroupPath) -> Option<u64> {
    if located.mount.hidden().is_some() || located.mount.local_events {
        return None;
    }
    let met = |events: &Events| Some(events.get("high")? + events.get("max")?);
    let of = |at: &CgroupPath, file| met(&Events::parse(&at.open_to_read().ok()?.read(file).ok()?));
    let mut all = allocation_stalls()? + of(located, "memory.events")?;
    for above in located.above() {
        all += of(&above, "memory.events.local")?;
    }
    Some(all)
}
