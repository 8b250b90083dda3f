//! The host's swap, as the guards want to know of it.

use std::time::Duration;

use super::policy::guard::SwapState;
use crate::host::swap_areas::{SwapOutCounter, SwapSummary};

/// The host's swap, looked at no more often than each second, unless writes to it are bounded.
#[derive(Debug, Default)]
pub struct SwapMonitor {
    /// How much may be written there in a second.
    most: Option<u64>,
    /// When, and what had been written by then, if that was looked at.
    looked: Option<(Duration, Option<u64>)>,
    swapped_out: SwapOutCounter,
    /// What may be written now: what isn't is kept for a second.
    writable: f64,
    areas: Option<(Duration, SwapSummary)>,
    swap: SwapState,
}

impl SwapMonitor {
    /// No more than `most` bytes a second may be written there, if there is such a bound.
    #[must_use]
    pub fn new(most: Option<u64>) -> Self {
        Self { most, ..Self::default() }
    }

    /// How it stands.
    pub fn at(&mut self, now: Duration) -> SwapState {
        const EACH: Duration = Duration::from_secs(1);
        const AREAS: Duration = Duration::from_secs(10);
        if self.areas.is_none_or(|(looked, _)| now.saturating_sub(looked) >= AREAS) {
            self.areas = Some((now, SwapSummary::read()));
        }
        let swaps = self.areas.map_or_else(SwapSummary::default, |(_, swaps)| swaps);
        // What is written is counted only where somebody wants to know, and then each time: it is gone at once.
        let bound = self.most.filter(|_| swaps.wears);
        if bound.is_none() && self.looked.is_some_and(|(looked, _)| now.saturating_sub(looked) < EACH) {
            return self.swap;
        }
        let out = bound.map(|_| self.swapped_out.read());
        if let Some((most, out)) = bound.zip(out) {
            let earned = self.looked.map_or(1.0, |(looked, _)| now.saturating_sub(looked).as_secs_f64());
            // A disk may be swapped to only from now on: what was written before it is no concern.
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
