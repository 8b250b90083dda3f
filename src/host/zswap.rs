//! Pool of zswap: pages to be swapped out are first held compressed in memory, in a pool of the
//! host's that cgroups are charged for.
//!
//! Room is counted compressed, as in the pool's limit.

use super::proc::{meminfo_bytes, read_system_file};

const PARAMETERS: &str = "/sys/module/zswap/parameters";

/// Pool of the host's zswap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ZswapPool {
    /// True if zswap accepts pages now. Pages already in the pool stay.
    pub enabled: bool,
    /// Maximum share of the host's memory for the pool, percent.
    pub max_percent: Option<u8>,
    /// Maximum size of the pool, bytes.
    pub limit: Option<u64>,
    /// Size of the pool, bytes, compressed (since 5.19).
    pub used: Option<u64>,
}

impl ZswapPool {
    /// Reads the host's pool; `None` where zswap isn't built in.
    #[must_use]
    pub(crate) fn of_host() -> Option<Self> {
        let enabled = is_on()?;
        let max_percent = parameter("max_pool_percent").and_then(|text| text.trim().parse().ok());
        let meminfo = read_system_file("/proc/meminfo").unwrap_or_default();
        Some(Self::new(enabled, max_percent, &meminfo))
    }

    fn new(enabled: bool, max_percent: Option<u8>, meminfo: &str) -> Self {
        let limit = meminfo_bytes(meminfo, "MemTotal").zip(max_percent);
        let limit = limit.map(|(total, percent)| total * u64::from(percent) / 100);
        Self { enabled, max_percent, limit, used: meminfo_bytes(meminfo, "Zswap") }
    }

    /// Returns the room left in the pool, bytes, compressed.
    #[must_use]
    pub(crate) fn room(&self) -> Option<u64> {
        Some(self.limit?.saturating_sub(self.used?))
    }
}

fn parameter(name: &str) -> Option<String> {
    read_system_file(&format!("{PARAMETERS}/{name}")).ok()
}

/// Returns whether the host's zswap accepts pages; `None` where zswap isn't built in.
#[must_use]
pub(crate) fn is_on() -> Option<bool> {
    Some(matches!(parameter("enabled")?.trim(), "Y" | "1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:  1000 kB\nZswap:   50 kB\nZswapped:  150 kB\n";

    #[test]
    fn the_pool_has_a_limit() {
        let pool = ZswapPool::new(true, Some(20), MEMINFO);
        assert_eq!((pool.limit, pool.used, pool.room()), (Some(204_800), Some(51_200), Some(153_600)));
        // Before 5.19 /proc/meminfo doesn't report the size of the pool.
        assert_eq!(ZswapPool::new(true, Some(20), "MemTotal: 1000 kB\n").room(), None);
    }
}
