//! zswap: what leaves for swap is held compressed in memory first, in a pool of the host's that cgroups are charged for.
//!
//! Room is counted compressed, as `memory.zswap.max` and the pool's limit are.

use std::path::Path;

use super::limit::Ceiling;
use super::{Located, parse_number, read_in, read_system_file};

const PARAMETERS: &str = "/sys/module/zswap/parameters";

/// The host's pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Whether it takes pages now. What it holds already stays.
    pub enabled: bool,
    /// How much of the host's memory it may take, percent.
    pub max_percent: Option<u8>,
    /// The same in bytes.
    pub limit: Option<u64>,
    /// What it takes, bytes, compressed (since 5.19).
    pub used: Option<u64>,
}

impl Pool {
    /// Looks at the host's; `None` where zswap isn't built in.
    #[must_use]
    pub fn of_host() -> Option<Self> {
        let enabled = is_on()?;
        let max_percent = parameter("max_pool_percent").and_then(|text| text.trim().parse().ok());
        let meminfo = read_system_file("/proc/meminfo").unwrap_or_default();
        Some(Self::new(enabled, max_percent, &meminfo))
    }

    fn new(enabled: bool, max_percent: Option<u8>, meminfo: &str) -> Self {
        let bytes = |key| super::host::kib(meminfo, key).map(|kib| kib * 1024);
        let limit = bytes("MemTotal:").zip(max_percent);
        let limit = limit.map(|(total, percent)| total * u64::from(percent) / 100);
        Self { enabled, max_percent, limit, used: bytes("Zswap:") }
    }

    /// What it can still take, bytes, compressed.
    #[must_use]
    pub fn room(&self) -> Option<u64> {
        Some(self.limit?.saturating_sub(self.used?))
    }
}

fn parameter(name: &str) -> Option<String> {
    read_system_file(&format!("{PARAMETERS}/{name}")).ok()
}

/// Whether the host's zswap takes pages; `None` where it isn't built in.
#[must_use]
pub fn is_on() -> Option<bool> {
    Some(matches!(parameter("enabled")?.trim(), "Y" | "1"))
}

/// What zswap still does for a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zswap {
    /// Whether the host's zswap takes pages.
    pub enabled: bool,
    /// `memory.zswap.max` (since 5.19).
    pub max: Option<Ceiling>,
    /// How much can still go there, bytes, compressed: the least of the pool's room and, over the cgroup and its
    /// ancestors, of `memory.zswap.max` less `memory.zswap.current`. `None` where it can't be told.
    pub room: Option<u64>,
    /// Which level's `memory.zswap.max` bounds the room; `None` if the pool does.
    pub bound: Option<String>,
    /// Which level's `memory.zswap.writeback` is 0, so that nothing of it is written on to the swap behind
    /// (since 6.8). An ancestor's counts as well.
    pub kept: Option<String>,
    /// `memory.zswap.writeback` of the cgroup itself.
    pub writeback: Option<bool>,
}

/// What one level says.
#[derive(Debug, Default)]
struct Level {
    name: String,
    max: Option<Ceiling>,
    current: Option<u64>,
    writeback: Option<bool>,
}

impl Zswap {
    /// Looks at it for a cgroup; `None` where zswap isn't built in.
    #[must_use]
    pub fn of(located: &Located) -> Option<Self> {
        let top = &located.mount.point;
        let levels = located.path.ancestors().take_while(|dir| dir.starts_with(top));
        let levels =
            levels.map(|dir| Level::read(dir, located.mount.name_of(dir).unwrap_or_default().to_string()));
        Some(Self::new(&Pool::of_host()?, levels))
    }

    /// From the pool, and from the levels, the cgroup's own first.
    fn new(pool: &Pool, levels: impl Iterator<Item = Level>) -> Self {
        let mut zswap = Self { enabled: pool.enabled, room: pool.room(), ..Self::default() };
        for (at, level) in levels.enumerate() {
            if at == 0 {
                (zswap.max, zswap.writeback) = (level.max, level.writeback);
            }
            let left =
                level.max.and_then(Ceiling::bytes).map(|max| max.saturating_sub(level.current.unwrap_or(0)));
            if let Some(left) = left.filter(|&left| zswap.room.is_none_or(|room| left < room)) {
                (zswap.room, zswap.bound) = (Some(left), Some(level.name.clone()));
            }
            if level.writeback == Some(false) && zswap.kept.is_none() {
                zswap.kept = Some(level.name);
            }
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

    const MEMINFO: &str = "MemTotal:  1000 kB\nZswap:   50 kB\nZswapped:  150 kB\n";

    fn level(name: &str, max: Ceiling, current: u64, writeback: bool) -> Level {
        Level { name: name.into(), max: Some(max), current: Some(current), writeback: Some(writeback) }
    }

    #[test]
    fn the_pool_has_a_limit() {
        let pool = Pool::new(true, Some(20), MEMINFO);
        assert_eq!((pool.limit, pool.used, pool.room()), (Some(204_800), Some(51_200), Some(153_600)));
        // Before 5.19 /proc/meminfo doesn't say what it takes.
        assert_eq!(Pool::new(true, Some(20), "MemTotal: 1000 kB\n").room(), None);
    }

    #[test]
    fn the_tightest_level_bounds_the_room() {
        let pool = Pool::new(true, Some(20), MEMINFO);
        let own = || level("/a/b", Ceiling::Max, 0, true);
        let open = Zswap::new(&pool, [own()].into_iter());
        assert_eq!((open.room, open.bound, open.kept), (Some(153_600), None, None));
        let above = level("/a", Ceiling::Bytes(8192), 4096, false);
        let bound = Zswap::new(&pool, [own(), above].into_iter());
        assert_eq!((bound.max, bound.room, bound.writeback), (Some(Ceiling::Max), Some(4096), Some(true)));
        assert_eq!((bound.bound.as_deref(), bound.kept.as_deref()), (Some("/a"), Some("/a")));
        let closed = Zswap::new(&pool, [level("/a", Ceiling::Bytes(0), 4096, true)].into_iter());
        assert_eq!(closed.room, Some(0));
        let unknown = Zswap::new(&Pool::default(), [level("/a", Ceiling::Bytes(10), 4, true)].into_iter());
        assert_eq!((unknown.room, unknown.enabled), (Some(6), false));
    }
}
