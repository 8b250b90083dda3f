//! State of zswap for a cgroup.
//!
//! Room is counted compressed, as in `memory.zswap.max` and the pool's limit.

use std::path::Path;

use super::CgroupPath;
use super::limit::Ceiling;
use crate::host::proc::{parse_number, read_in};
use crate::host::zswap::ZswapPool;

/// State of zswap for a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zswap {
    /// True if the host's zswap accepts pages.
    pub enabled: bool,
    /// `memory.zswap.max` (since 5.19).
    pub max: Option<Ceiling>,
    /// Room left in zswap, bytes, compressed: the least of the pool's room and, over the cgroup and
    /// its ancestors, of `memory.zswap.max` minus `memory.zswap.current`. `None` if unknown.
    pub room: Option<u64>,
    /// Name of the level whose `memory.zswap.max` bounds the room; `None` if the pool does.
    pub bound: Option<String>,
    /// Name of the level whose `memory.zswap.writeback` is 0, so that zswap's content isn't written
    /// on to the swap device behind (since 6.8). An ancestor's setting counts as well.
    pub kept: Option<String>,
    /// `memory.zswap.writeback` of the cgroup itself.
    pub writeback: Option<bool>,
}

/// Settings of one level.
#[derive(Debug, Default)]
struct Level {
    name: String,
    max: Option<Ceiling>,
    current: Option<u64>,
    writeback: Option<bool>,
}

impl Zswap {
    /// Reads the state of zswap for a cgroup; `None` where zswap isn't built in.
    #[must_use]
    pub(crate) fn of(located: &CgroupPath) -> Option<Self> {
        let top = &located.mount.point;
        let levels = located.path.ancestors().take_while(|dir| dir.starts_with(top));
        let levels =
            levels.map(|dir| Level::read(dir, located.mount.name_of(dir).unwrap_or_default().to_string()));
        Some(Self::new(&ZswapPool::of_host()?, levels))
    }

    /// Computes the state from the pool and the levels, the cgroup's own level first.
    fn new(pool: &ZswapPool, levels: impl Iterator<Item = Level>) -> Self {
        let mut zswap = Self { enabled: pool.enabled, room: pool.room(), ..Self::default() };
        // Below a limit, an unknown usage leaves an unknown amount, unless another leaves none.
        let mut is_known = true;
        for (at, level) in levels.enumerate() {
            if at == 0 {
                (zswap.max, zswap.writeback) = (level.max, level.writeback);
            }
            let left = |max: u64| if max == 0 { Some(0) } else { Some(max.saturating_sub(level.current?)) };
            match level.max.and_then(Ceiling::bytes).map(left) {
                Some(Some(left)) if zswap.room.is_none_or(|room| left < room) => {
                    (zswap.room, zswap.bound) = (Some(left), Some(level.name.clone()));
                }
                Some(None) => is_known = false,
                _ => {}
            }
            if level.writeback == Some(false) && zswap.kept.is_none() {
                zswap.kept = Some(level.name);
            }
        }
        if !is_known && zswap.room != Some(0) {
            (zswap.room, zswap.bound) = (None, None);
        }
        zswap
    }
}

impl Level {
    fn read(dir: &Path, name: String) -> Self {
        let number = |file: &str| parse_number(&read_in(dir, file).ok()?).ok();
        Self {
            name,
            max: number("memory.zswap.max").map(|max| max.map_or(Ceiling::Max, Ceiling::Bytes)),
            current: number("memory.zswap.current").flatten(),
            writeback: number("memory.zswap.writeback").flatten().map(|flag| flag != 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pool with 153,600 bytes of room.
    const POOL: ZswapPool =
        ZswapPool { enabled: true, max_percent: Some(20), limit: Some(204_800), used: Some(51_200) };

    fn level(name: &str, max: Ceiling, current: u64, writeback: bool) -> Level {
        Level { name: name.into(), max: Some(max), current: Some(current), writeback: Some(writeback) }
    }

    #[test]
    fn the_tightest_level_bounds_the_room() {
        let own = || level("/a/b", Ceiling::Max, 0, true);
        let open = Zswap::new(&POOL, [own()].into_iter());
        assert_eq!((open.room, open.bound, open.kept), (Some(153_600), None, None));
        let above = level("/a", Ceiling::Bytes(8192), 4096, false);
        let bound = Zswap::new(&POOL, [own(), above].into_iter());
        assert_eq!((bound.max, bound.room, bound.writeback), (Some(Ceiling::Max), Some(4096), Some(true)));
        assert_eq!((bound.bound.as_deref(), bound.kept.as_deref()), (Some("/a"), Some("/a")));
        let closed = Zswap::new(&POOL, [level("/a", Ceiling::Bytes(0), 4096, true)].into_iter());
        assert_eq!(closed.room, Some(0));
        let uncounted = |max| Level { current: None, ..level("/a", Ceiling::Bytes(max), 0, true) };
        let of = |max| Zswap::new(&POOL, [uncounted(max)].into_iter()).room;
        assert_eq!((of(4096), of(0)), (None, Some(0)));
        let unknown =
            Zswap::new(&ZswapPool::default(), [level("/a", Ceiling::Bytes(10), 4, true)].into_iter());
        assert_eq!((unknown.room, unknown.enabled), (Some(6), false));
    }
}
