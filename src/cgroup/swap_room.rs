//! Room for anonymous memory in swap.
//!
//! The room is the least of the host's free swap and of `memory.swap.max` minus
//! `memory.swap.current` of the cgroup and every ancestor. With none left, anonymous memory and
//! tmpfs can't be reclaimed at all. The host's free swap comes from sysinfo(2), as everywhere.

use std::path::Path;

use super::{Mount, Name};
use crate::host::proc::{parse_number, read_in};
use crate::host::swap_areas::SwapSpace;

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
    /// Reads the room of the cgroup at `path`, whose ancestors reach up to the mount point; `None`
    /// if it is unknown.
    #[must_use]
    pub(crate) fn of(path: &Path, mount: &Mount) -> Option<Self> {
        let levels = path.ancestors().take_while(|dir| dir.starts_with(&mount.point)).map(|dir| {
            let name = mount.name_of(dir).unwrap_or_default();
            (name, file_number(dir, "memory.swap.max"), file_number(dir, "memory.swap.current"))
        });
        Self::from_levels(SwapSpace::read(), levels)
    }

    /// Reads the host's free swap, without any cgroup's limits; `None` if it is unknown.
    #[must_use]
    pub(crate) fn of_host() -> Option<Self> {
        Self::from_levels(SwapSpace::read(), std::iter::empty())
    }

    /// Returns the room left of `room` after applying a level's `memory.swap.max` (`None` for max)
    /// and `memory.swap.current`. A limit of 0 leaves none, however much is free. Below a limit, an
    /// unknown usage leaves an unknown amount.
    #[must_use]
    pub(crate) fn within(
        room: Option<Self>,
        name: &str,
        max: Option<u64>,
        current: Option<u64>,
    ) -> Option<Self> {
        let left = match max {
            None => u64::MAX,
            Some(0) => 0,
            Some(max) => max.saturating_sub(current?),
        };
        let limited = || Self { bytes: left, bound: SwapBound::Limit(name.to_owned()) };
        match room {
            Some(room) if left >= room.bytes => Some(room),
            // Of an unknown amount a limit is no more than a bound, unless nothing is left below it.
            None if left > 0 => None,
            _ => Some(limited()),
        }
    }

    fn from_levels(
        host: Option<SwapSpace>,
        levels: impl Iterator<Item = (Name, Option<u64>, Option<u64>)>,
    ) -> Option<Self> {
        let free = host.map(|SwapSpace { total, free }| {
            let bound = if total == 0 { SwapBound::NoSwap } else { SwapBound::Free };
            Self { bytes: free, bound }
        });
        levels.fold(free, |room, (name, max, current)| Self::within(room, &name, max, current))
    }
}

fn file_number(dir: &Path, file: &str) -> Option<u64> {
    parse_number(&read_in(dir, file).ok()?).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Option<SwapSpace> = Some(SwapSpace { total: 1000 << 10, free: 600 << 10 });

    fn level(name: &str, max: Option<u64>, current: u64) -> (Name, Option<u64>, Option<u64>) {
        (Name::from(name), max, Some(current))
    }

    #[test]
    fn the_tightest_level_binds() {
        let levels = [level("/a/b", None, 5), level("/a", Some(4096), 4000), level("/", None, 0)];
        let room = SwapRoom::from_levels(HOST, levels.into_iter());
        assert_eq!(room, Some(SwapRoom { bytes: 96, bound: SwapBound::Limit("/a".into()) }));
        let room = SwapRoom::from_levels(HOST, [level("/a", Some(1 << 40), 0)].into_iter());
        assert_eq!(room, Some(SwapRoom { bytes: 600 * 1024, bound: SwapBound::Free }));
        let over = SwapRoom::from_levels(HOST, [level("/a", Some(10), 20)].into_iter());
        assert_eq!(over.map(|room| room.bytes), Some(0));
    }

    #[test]
    fn a_host_without_swap_has_no_room() {
        let none = Some(SwapSpace { total: 0, free: 0 });
        let room = SwapRoom::from_levels(none, std::iter::empty());
        assert_eq!(room, Some(SwapRoom { bytes: 0, bound: SwapBound::NoSwap }));
    }

    #[test]
    fn an_unknown_amount_of_swap_is_no_room_and_no_lack_of_it() {
        let of = |max| SwapRoom::from_levels(None, [level("/a", max, 10)].into_iter());
        let uncounted = |host, max| SwapRoom::from_levels(host, [(Name::from("/a"), max, None)].into_iter());
        assert_eq!(uncounted(HOST, Some(1 << 20)), None, "some of the limit is used");
        assert_eq!(uncounted(HOST, Some(0)).map(|room| room.bytes), Some(0));
        let free = SwapRoom { bytes: 600 << 10, bound: SwapBound::Free };
        assert_eq!(uncounted(HOST, None), Some(free), "no accounting, no limit");
        assert_eq!((of(None), of(Some(1 << 30))), (None, None));
        assert_eq!(of(Some(10)), Some(SwapRoom { bytes: 0, bound: SwapBound::Limit("/a".into()) }));
    }
}
