//! The host's swap, as the guards want to know of it.

use std::time::Duration;

use super::guard::Swap;
use crate::cgroup::swaps::{Swaps, swapped_out};

/// The host's swap, looked at no more often than each second.
#[derive(Debug, Default)]
pub struct SwapWatch {
    /// Whether anybody wants to know how much goes there.
    counts_writes: bool,
    looked: Option<(Duration, u64)>,
    areas: Option<(Duration, Swaps)>,
    swap: Swap,
}

impl SwapWatch {
    /// What is written there is counted only where somebody wants to know.
    #[must_use]
    pub fn new(counts_writes: bool) -> Self {
        Self { counts_writes, ..Self::default() }
    }

    /// How it stands.
    pub fn at(&mut self, now: Duration) -> Swap {
        const EACH: Duration = Duration::from_secs(1);
        const AREAS: Duration = Duration::from_secs(10);
        if self.looked.is_some_and(|(looked, _)| now.saturating_sub(looked) < EACH) {
            return self.swap;
        }
        if self.areas.is_none_or(|(looked, _)| now.saturating_sub(looked) >= AREAS) {
            self.areas = Some((now, Swaps::look()));
        }
        let swaps = self.areas.map_or_else(Swaps::default, |(_, swaps)| swaps);
        let swaps = Swaps { free: Swaps::free(), ..swaps };
        let out = if self.counts_writes { swapped_out() } else { 0 };
        let written = self.looked.map_or(0.0, |(looked, before)| {
            out.saturating_sub(before) as f64 / now.saturating_sub(looked).as_secs_f64()
        });
        self.looked = Some((now, out));
        self.swap = Swap {
            total: swaps.total,
            free: swaps.free,
            written_per_second: if swaps.wears { written as u64 } else { 0 },
            copied: swaps.copied,
            quick: swaps.quick,
        };
        self.swap
    }
}
