//! Monitor of the host's swap, for the guards.

use std::time::Duration;

use super::policy::guard::{SwapSpeed, SwapState};
use super::policy::swap_queue::{QueueSample, SwapQueue};
use super::system::System;
use crate::host::swap_areas::Speed;
use crate::host::swap_summary::SwapSummary;

/// Interval between samples, unless writes to swap are limited.
const INTERVAL: Duration = Duration::from_secs(1);

/// Interval between reads of the list of swap areas.
const AREAS_INTERVAL: Duration = Duration::from_secs(10);

/// State of the host's swap, sampled at most once a second, unless writes to it are limited.
#[derive(Debug, Default)]
pub(crate) struct SwapMonitor {
    /// Maximum rate of writes to swap, bytes per second.
    max_rate: Option<u64>,
    sampled_at: Option<Duration>,
    /// Bytes swapped out by the time of the last sample that was read.
    counted: Option<u64>,
    /// Bytes that may be written now: unused budget is kept for a second.
    writable: f64,
    /// Bytes of the requests in progress, which the counter doesn't show yet.
    reserved: u64,
    areas: Option<(Duration, SwapSummary)>,
    state: SwapState,
    /// Queue of its devices.
    queue: SwapQueue,
    /// True if it was noted that writes can't be counted.
    is_noted: bool,
}

impl SwapMonitor {
    /// Creates a monitor that limits writes to `max_rate` bytes per second, if given.
    #[must_use]
    pub(crate) fn new(max_rate: Option<u64>) -> Self {
        Self { max_rate, ..Self::default() }
    }

    /// Sets another limit. Requests in progress still count.
    pub(crate) fn adopt(&mut self, max_rate: Option<u64>) {
        *self = Self { reserved: self.reserved, queue: self.queue, ..Self::new(max_rate) };
    }

    /// Returns whether writes are limited, as they are on a device that wears out.
    #[must_use]
    pub(crate) fn is_limited(&self) -> bool {
        self.state.writable.is_some()
    }

    /// Returns whether writes are limited and can't be counted; true only once.
    pub(crate) fn is_news_that_writes_are_unknown(&mut self) -> bool {
        self.state.is_uncounted && !std::mem::replace(&mut self.is_noted, true)
    }

    /// Records that up to `bytes` of anonymous memory are requested.
    pub(crate) fn reserve(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_add(bytes);
    }

    /// Records the end of such a request.
    pub(crate) fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
        if self.state.is_uncounted {
            // No counter will show them.
            self.writable -= bytes as f64;
        }
    }

    /// Returns the bytes that may be swapped out now by the whole host, so that its devices have
    /// written them soon; `None` if that isn't known, or they needn't be written to a device, by the
    /// last state.
    pub(crate) fn room(&mut self, system: &mut impl System) -> Option<u64> {
        if !self.state.waits {
            return None;
        }
        // The disks first: what is submitted meanwhile isn't written.
        let disks = system.swap_disks()?;
        self.queue.record(QueueSample {
            submitted: system.swapped_out()?,
            written: disks.written,
            busy: disks.busy,
            in_flight: disks.in_flight,
        });
        Some(self.queue.room())
    }

    /// Returns the state at a time.
    pub(crate) fn at(&mut self, now: Duration, system: &mut impl System) -> SwapState {
        let space = system.swap_space();
        let total = space.map(|space| space.total);
        let areas = match self.areas {
            Some((at, areas))
                if now.saturating_sub(at) < INTERVAL
                    || now.saturating_sub(at) < AREAS_INTERVAL
                        && areas.space.map(|space| space.total) == total =>
            {
                areas
            }
            _ => {
                let areas = system.swap_areas();
                self.areas = Some((now, areas));
                areas
            }
        };
        // Writes are counted only where there is a limit, and then at each sample: the budget can
        // be used up at once.
        let limit = self.max_rate.filter(|_| areas.wears);
        if limit.is_none() && self.sampled_at.is_some_and(|at| now.saturating_sub(at) < INTERVAL) {
            return self.state;
        }
        let mut is_counted = true;
        if let Some(limit) = limit {
            let earned = self.sampled_at.map_or(1.0, |at| now.saturating_sub(at).as_secs_f64());
            self.writable = (self.writable + limit as f64 * earned).min(limit as f64);
            // Swap to a disk may have been added only now: earlier writes don't count. A counter
            // that can't be read now is read later; until then no writes are known.
            let counted = system.swapped_out();
            is_counted = counted.is_some();
            if let Some(counted) = counted {
                self.writable -= counted.saturating_sub(self.counted.unwrap_or(counted)) as f64;
                self.counted = Some(counted);
            }
        } else {
            self.counted = None;
        }
        self.sampled_at = Some(now);
        let writable = (self.writable.max(0.0) as u64).saturating_sub(self.reserved);
        self.state = SwapState {
            // Of unknown size, swap counts as full.
            total: space.map_or(u64::MAX, |space| space.total),
            free: space.map_or(0, |space| space.free),
            writable: limit.map(|_| writable),
            copied: areas.copied,
            speed: match areas.speed {
                Speed::Fast => SwapSpeed::Fast,
                Speed::Slow => SwapSpeed::Slow,
                Speed::Unknown => SwapSpeed::Unknown,
            },
            waits: areas.wears,
            is_uncounted: limit.is_some() && !is_counted,
        };
        self.state
    }
}
