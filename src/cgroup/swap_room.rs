//! Room for anonymous memory in swap.
//!
//! The room is the least of the host's free swap and of `memory.swap.max` minus
//! `memory.swap.current` of the cgroup and every ancestor. With none left, anonymous memory and
//! tmpfs can't be reclaimed at all.

use std::path::Path;

use super::{Mount, Name};
use crate::host::proc::{meminfo_bytes, parse_number, read_in, read_system_file};

/// Room for anonymous memory in swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwapRoom {
    /// Room in bytes.
    pub bytes: u64,
    /// Limit that sets the room.
    pub bound: SwapBound,
}

/// Limit on the room in swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwapBound {
    /// No swap at all on the host.
    NoSwap,
    /// Free swap of the host.
    Free,
    /// `memory.swap.max` of the cgroup with this name.
    Limit(String),
}

impl SwapRoom {
    /// Reads the room of the cgroup at `path`, whose ancestors reach up to the mount point.
    #[must_use]
    pub(crate) fn of(path: &Path, mount: &Mount) -> Self {
        let meminfo = read_system_file("/proc/meminfo").unwrap_or_default();
        let levels = path.ancestors().take_while(|dir| dir.starts_with(&mount.point)).map(|dir| {
            let name = mount.name_of(dir).unwrap_or_default();
            (name, file_number(dir, "memory.swap.max"), file_number(dir, "memory.swap.current"))
        });
        Self::from_levels(&meminfo, levels)
    }

    /// Reads the host's free swap, without any cgroup's limits.
    #[must_use]
    pub(crate) fn of_host() -> Self {
        Self::from_levels(&read_system_file("/proc/meminfo").unwrap_or_default(), std::iter::empty())
    }

    /// Returns the room left after applying a level's `memory.swap.max` (`None` for max) and
    /// `memory.swap.current`.
    #[must_use]
    pub(crate) fn within(self, name: &str, max: Option<u64>, current: Option<u64>) -> Self {
        let left = max.map_or(u64::MAX, |max| max.saturating_sub(current.unwrap_or(0)));
        if left < self.bytes { Self { bytes: left, bound: SwapBound::Limit(name.to_owned()) } } else { self }
    }

    fn from_levels(meminfo: &str, levels: impl Iterator<Item = (Name, Option<u64>, Option<u64>)>) -> Self {
        let total = meminfo_bytes(meminfo, "SwapTotal").unwrap_or(0);
        let bound = if total == 0 { SwapBound::NoSwap } else { SwapBound::Free };
        let mut room = Self { bytes: meminfo_bytes(meminfo, "SwapFree").unwrap_or(0), bound };
        for (name, max, current) in levels {
            room = room.within(&name, max, current);
        }
        room
    }
}

fn file_number(dir: &Path, file: &str) -> Option<u64> {
    parse_number(&read_in(dir, file).ok()?).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal: 1000 kB\nSwapTotal:        1000 kB\nSwapFree:          600 kB\n";

    fn level(name: &str, max: Option<u64>, current: u64) -> (Name, Option<u64>, Option<u64>) {
        (Name::from(name), max, Some(current))
    }

    #[test]
    fn the_tightest_level_binds() {
        let levels = [level("/a/b", None, 5), level("/a", Some(4096), 4000), level("/", None, 0)];
        let room = SwapRoom::from_levels(MEMINFO, levels.into_iter());
        assert_eq!(room, SwapRoom { bytes: 96, bound: SwapBound::Limit("/a".into()) });
        let room = SwapRoom::from_levels(MEMINFO, [level("/a", Some(1 << 40), 0)].into_iter());
        assert_eq!(room, SwapRoom { bytes: 600 * 1024, bound: SwapBound::Free });
        let over = SwapRoom::from_levels(MEMINFO, [level("/a", Some(10), 20)].into_iter());
        assert_eq!(over.bytes, 0);
    }

    #[test]
    fn a_host_without_swap_has_no_room() {
        let room = SwapRoom::from_levels("SwapTotal: 0 kB\nSwapFree: 0 kB\n", std::iter::empty());
        assert_eq!(room, SwapRoom { bytes: 0, bound: SwapBound::NoSwap });
        assert_eq!(SwapRoom::from_levels("", std::iter::empty()).bytes, 0);
    }
}
