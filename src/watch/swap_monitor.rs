//! Monitor of the host's swap, for the guards.

use std::time::Duration;

use super::policy::guard::SwapState;
use crate::host::swap_areas::{SwapOutCounter, SwapSummary};

/// State of the host's swap, sampled at most once a second, unless writes to it are limited.
#[derive(Debug, Default)]
pub(crate) struct SwapMonitor {
    /// Maximum bytes per second written to swap.
    most: Option<u64>,
    /// Time of the last sample, and the bytes written by then, if that was read.
    looked: Option<(Duration, Option<u64>)>,
    swapped_out: SwapOutCounter,
    /// Bytes that may be written now: unused budget is kept for a second.
    writable: f64,
    areas: Option<(Duration, SwapSummary)>,
    swap: SwapState,
}

impl SwapMonitor {
    /// Creates a monitor that limits writes to `most` bytes per second, if given.
    #[must_use]
    pub(crate) fn new(most: Option<u64>) -> Self {
        Self { most, ..Self::default() }
    }

    /// Returns the state at a time.
    pub(crate) fn at(&mut self, now: Duration) -> SwapState {
        const EACH: Duration = Duration::from_secs(1);
        const AREAS: Duration = Duration::from_secs(10);
        if self.areas.is_none_or(|(looked, _)| now.saturating_sub(looked) >= AREAS) {
            self.areas = Some((now, SwapSummary::read()));
        }
        let swaps = self.areas.map_or_else(SwapSummary::default, |(_, swaps)| swaps);
        // Writes are counted only where there is a limit, and then each time: the budget is gone at
        // once.
        let bound = self.most.filter(|_| swaps.wears);
        if bound.is_none() && self.looked.is_some_and(|(looked, _)| now.saturating_sub(looked) < EACH) {
            return self.swap;
        }
        let out = bound.map(|_| self.swapped_out.read());
        if let Some((most, out)) = bound.zip(out) {
            let earned = self.looked.map_or(1.0, |(looked, _)| now.saturating_sub(looked).as_secs_f64());
            // Swap to a disk may have been added only now: earlier writes don't count.
            let before = self.looked.and_then(|(_, before)| before).unwrap_or(out);
            let written = out.saturating_sub(before);
            self.writable = (self.writable + most as f64 * earned).min(most as f64) - written as f64;
        }
        self.looked = Some((now, out));
        self.swap = SwapState {
            total: swaps.total,
            free: SwapSummary::free(),
            writable: bound.map(|_| self.writable.max(0.0) as u64),
            copied: swaps.copied,
            quick: swaps.quick,
            waits: swaps.wears,
        };
        self.swap
    }
}
