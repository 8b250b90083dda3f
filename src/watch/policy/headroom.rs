//! The `--headroom` policy: decides from samples of a cgroup when to reclaim, down to which usage,
//! and when to take the next sample. Does no I/O and reads no clock.
//!
//! A fixed level isn't enough, since memory may be allocated until the next sample. The free memory
//! below the limit is therefore kept at the larger of the user's headroom and a *reserve*: the most
//! that arrived lately within the time of a sampling interval, its delay and the reclaim itself
//! (the [arrival curve](super::arrival)). There are two watermarks: reclaim starts below the lower
//! one and continues to the upper one.

use std::time::Duration;

use super::arrival::ArrivalCurve;
use super::brake::Wanted;
use super::sampling_interval::SamplingInterval;

/// Sampling intervals at rest, near the watermark and far from it.
const REST_INTERVAL: Duration = Duration::from_secs(1);
const MAX_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum factor of [`crowd`]: `MAX_INTERVAL` by `REST_INTERVAL`.
const MAX_CROWD: u8 = 5;

/// Grid of distant samples, and distance from which a sample is put on it.
const GRID: Duration = Duration::from_millis(100);
const GRID_DISTANCE: Duration = Duration::from_millis(500);

/// Allocation rate to expect before any was observed, in bytes per second: one thread that does
/// nothing but touch memory.
const INITIAL_RATE: u64 = 1 << 30;

/// Time without movement after which no burst is expected.
const CALM_TIME: Duration = Duration::from_secs(30);

/// Change between two samples, in bytes, below which usage counts as unmoved: the kernel charges in
/// batches of 64 pages per CPU.
const MIN_MOVE: u64 = 256 << 10;

/// Divisor of the limit that bounds the reserve: beyond that, free memory costs more than it helps.
const RESERVE_DIVISOR: u64 = 4;

/// Distance between the watermarks: the lower one divided by `WATERMARK_DIVISOR`, at least
/// `MIN_WATERMARK_DISTANCE` bytes.
const WATERMARK_DIVISOR: u64 = 8;
const MIN_WATERMARK_DISTANCE: u64 = 1 << 20;

/// Time constant of the growth average.
const GROWTH_TIME: Duration = Duration::from_secs(2);

/// Memory to keep free below the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Headroom {
    /// An amount in bytes.
    Bytes(u64),
    /// A share of the limit, from 0 to 1.
    Share(f64),
}

impl Headroom {
    /// Returns the bytes to keep free below `limit`.
    #[must_use]
    pub(crate) fn below(self, limit: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Share(share) => (limit as f64 * share) as u64,
        }
    }
}

/// One sample of a cgroup. Amounts are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadroomSample {
    /// Time of the sample, on the monotonic clock.
    pub at: Duration,
    /// `memory.current`.
    pub current: u64,
    /// Limit on the usage.
    pub limit: u64,
}

impl HeadroomSample {
    /// Returns the free bytes below the limit.
    #[must_use]
    pub(crate) fn free(&self) -> u64 {
        self.limit.saturating_sub(self.current)
    }
}

/// Decision of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Do nothing.
    Rest {
        /// Time of the next sample.
        until: Duration,
    },
    /// Do nothing: the headroom is all of the limit, or more.
    NoRoom {
        /// Time of the next sample.
        until: Duration,
    },
    /// Reclaim down to a usage.
    Reclaim {
        /// Target for `memory.current`, bytes.
        down_to: u64,
    },
}

/// Movement of the usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Motion {
    /// Usage changed between the last two samples.
    Moves,
    /// Usage didn't change between the last two samples.
    Still,
    /// Usage hasn't changed for a long time.
    Calm,
}

/// The policy for one cgroup, with its state.
#[derive(Clone, Debug)]
pub(crate) struct HeadroomPolicy {
    headroom: Headroom,
    /// Sampling interval near the watermark.
    pub interval: SamplingInterval,
    /// Factor of intervals while calm: see [`crowd`].
    pub crowd: u8,
    /// True to keep a reserve for expected allocations, false for just the headroom.
    reserves: bool,
    /// True if the last reclaim ended before it came down to the upper watermark, and goes on.
    goes_on: bool,
    /// Bytes by which the processors together may pass the limit at once: they charge `memory.high` in
    /// batches, and it stalls a task for all that is above it (`try_charge_memcg`, mm/memcontrol.c). A
    /// charge that `memory.max` would refuse is tried again without its batch.
    pub batches: u64,
    /// Bound on the bytes kept free, where reclaimed memory comes back; `None` for no bound.
    pub kept: Option<u64>,
    /// True while actions below the level are in progress: usage falls by what they reclaim, which is
    /// recorded at their end.
    pub is_reclaimed_from: bool,
    curve: ArrivalCurve,
    /// Bytes reclaimed so far, by memctl and, as far as known, by others: these bytes had arrived
    /// too.
    reclaimed: u64,
    last: Option<HeadroomSample>,
    /// Recent arrivals, bytes per second.
    growth: f64,
    planned: Duration,
    /// Recent delay of samples.
    late: Duration,
    /// Number of consecutive samples without movement, and the time of the last movement.
    still: u32,
    still_since: Duration,
}

impl HeadroomPolicy {
    /// Creates the policy for a new cgroup. It keeps a reserve for expected allocations only if it
    /// `reserves`.
    #[must_use]
    pub(crate) fn new(headroom: Headroom, reserves: bool) -> Self {
        Self {
            headroom,
            interval: SamplingInterval::default(),
            crowd: 1,
            reserves,
            goes_on: false,
            batches: 0,
            kept: None,
            is_reclaimed_from: false,
            curve: ArrivalCurve::default(),
            reclaimed: 0,
            last: None,
            growth: 0.0,
            planned: Duration::ZERO,
            late: Duration::ZERO,
            still: 0,
            still_since: Duration::ZERO,
        }
    }

    /// Sets another headroom; learned state is kept.
    pub(crate) fn adopt(&mut self, headroom: Headroom, reserves: bool) {
        (self.headroom, self.reserves) = (headroom, reserves);
    }

    /// Returns the headroom that the user asked for.
    #[must_use]
    pub(crate) fn headroom(&self) -> Headroom {
        self.headroom
    }

    /// Returns whether a reserve is kept for expected allocations.
    #[must_use]
    pub(crate) fn reserves(&self) -> bool {
        self.reserves
    }

    /// Records bytes reclaimed since the last sample, by any process.
    pub(crate) fn reclaimed(&mut self, bytes: u64) {
        self.reclaimed = self.reclaimed.saturating_add(bytes);
    }

    /// Forgets what arrived since the last `note_arrivals`, and until the next sample: it came back,
    /// of what was reclaimed.
    pub(crate) fn forget_arrivals(&mut self) {
        self.curve.forget();
    }

    /// Notes what is known of arrivals.
    pub(crate) fn note_arrivals(&mut self) {
        self.curve.note();
    }

    /// Records a sample, and decides.
    pub(crate) fn decide(&mut self, sample: HeadroomSample) -> Decision {
        self.learn(sample);
        // An administrator may lower a limit below the headroom, or to 0 for a moment. The kernel
        // itself would reclaim down to the limit, so reclaiming everything can't be meant.
        if self.has_no_room(sample.limit) {
            let until = on_grid(sample.at, sample.at + REST_INTERVAL);
            self.planned = until;
            return Decision::NoRoom { until };
        }
        let target = self.target(sample.limit);
        let rest = std::mem::take(&mut self.goes_on).then_some(target);
        let rest = rest.filter(|&target| target < sample.current);
        if let Some(down_to) = self.down_to(sample.current, sample.limit).or(rest) {
            self.still = 0;
            // The next sample follows the reclaim.
            self.planned = Duration::MAX;
            return Decision::Reclaim { down_to };
        }
        let until = on_grid(sample.at, sample.at + self.pause(sample, self.low(sample.limit)));
        self.planned = until;
        Decision::Rest { until }
    }

    /// Returns whether the headroom is all of the limit, or more.
    #[must_use]
    pub(crate) fn has_no_room(&self, limit: u64) -> bool {
        limit == 0 || self.headroom.below(limit) >= limit
    }

    /// Returns the usage to reclaim down to where `current` bytes leave too little free below
    /// `limit`.
    #[must_use]
    pub(crate) fn down_to(&self, current: u64, limit: u64) -> Option<u64> {
        let is_low = limit.saturating_sub(current) < self.low(limit) || current > limit;
        (is_low && !self.has_no_room(limit)).then(|| self.target(limit))
    }

    /// Returns the part of the bytes `missing` below a limit that are due to the headroom below the
    /// kernel's own limit, and not to a limit set by the user. If both are the same limit, that is
    /// all of them: also between the watermarks, where the decision was to go on.
    #[must_use]
    pub(crate) fn for_headroom(&self, current: u64, missing: u64, (limit, kernels): (u64, u64)) -> u64 {
        if kernels == u64::MAX || self.headroom.below(kernels) == 0 {
            return 0;
        }
        let own = || current.saturating_sub(self.down_to(current, kernels).unwrap_or(current));
        if limit == kernels { missing } else { own() }
    }

    /// Records that the last reclaim ended before it came down to the upper watermark: the next
    /// decision is to go on.
    pub(crate) fn go_on(&mut self) {
        self.goes_on = true;
    }

    /// Returns the usage that leaves as much free as the upper watermark.
    fn target(&self, limit: u64) -> u64 {
        Self::above(self.low(limit), limit)
    }

    /// Decides anew about a sample, with at most `kept` bytes to keep free: one of several cgroups
    /// below a level may keep less free than the others.
    #[must_use]
    pub(crate) fn decide_to_keep(&self, kept: u64, sample: HeadroomSample) -> Decision {
        let low = self.low(sample.limit).min(kept);
        if sample.free() < low || sample.current > sample.limit {
            return Decision::Reclaim { down_to: Self::above(low, sample.limit) };
        }
        Decision::Rest { until: sample.at + self.pause(sample, low) }
    }

    /// Returns the usage that leaves a bit more than `low` bytes free.
    fn above(low: u64, limit: u64) -> u64 {
        let between =
            (low / WATERMARK_DIVISOR).max(MIN_WATERMARK_DISTANCE).min(limit.saturating_sub(low) / 2);
        limit.saturating_sub(low + between)
    }

    /// Returns the lower watermark: bytes to keep free below `limit`.
    #[must_use]
    pub(crate) fn low(&self, limit: u64) -> u64 {
        let full = self.wanted(limit).full;
        self.kept.map_or(full, |kept| kept.min(full))
    }

    /// Returns the bytes to keep free below `limit` where nothing bounds them.
    #[must_use]
    pub(crate) fn wanted(&self, limit: u64) -> Wanted {
        let (reserve, headroom) = (self.reserve(limit), self.headroom.below(limit));
        let asked = if headroom > 0 { headroom.max(self.batches.min(limit / RESERVE_DIVISOR)) } else { 0 };
        Wanted { full: headroom.max(reserve), asked, reserve }
    }

    /// Returns the maximum bytes that may arrive before reclaim can react, by the arrivals so far.
    #[must_use]
    pub(crate) fn reserve(&self, limit: u64) -> u64 {
        if !self.reserves {
            return 0;
        }
        let soon = self.curve.within(self.interval.near() + self.late).unwrap_or(0);
        (soon + soon / 8 + self.batches).min(limit / RESERVE_DIVISOR)
    }

    /// Returns the recent arrivals in bytes per second; negative where the cgroup shrinks by
    /// itself.
    #[must_use]
    pub(crate) fn growth(&self) -> f64 {
        self.growth
    }

    /// Returns whether the usage moves.
    #[must_use]
    pub(crate) fn motion(&self, now: Duration) -> Motion {
        match self.still {
            0 => Motion::Moves,
            _ if now.saturating_sub(self.still_since) >= CALM_TIME => Motion::Calm,
            _ => Motion::Still,
        }
    }

    /// Returns the last sample; `None` before the first.
    #[must_use]
    pub(crate) fn last(&self) -> Option<HeadroomSample> {
        self.last
    }

    fn learn(&mut self, sample: HeadroomSample) {
        let mut arrived = sample.current.saturating_add(self.reclaimed) as i64;
        if self.is_reclaimed_from {
            // Otherwise what is missing until the action ends would arrive at once then, as a burst.
            arrived = arrived.max(self.curve.arrived().unwrap_or(arrived));
        }
        if let (Some(last), Some(before)) = (self.last, self.curve.arrived()) {
            let time = sample.at.saturating_sub(last.at).as_secs_f64();
            let weight = 1.0 - (-time / GROWTH_TIME.as_secs_f64()).exp();
            if time > 0.0 {
                self.growth += weight * ((arrived - before) as f64 / time - self.growth);
            }
        }
        self.curve.record(sample.at, arrived);
        if self.planned > Duration::ZERO && self.planned < Duration::MAX {
            let late = sample.at.saturating_sub(self.planned);
            // Forgotten slowly: a machine that was busy once will be busy again.
            self.late = late.max(self.late * 63 / 64).min(REST_INTERVAL);
        }
        let moved = self.last.map_or(0, |last| last.current.abs_diff(sample.current));
        self.still = if moved < MIN_MOVE { self.still.saturating_add(1) } else { 0 };
        if self.still == 0 {
            self.still_since = sample.at;
        }
        self.last = Some(sample);
    }

    /// Returns the time until the next sample is needed.
    fn pause(&self, sample: HeadroomSample, low: u64) -> Duration {
        let (free, room) = (sample.free(), sample.free().saturating_sub(low));
        let near = self.interval.near();
        let lasts = |bytes| self.curve.lasts(bytes).unwrap_or(near);
        let at_initial_rate = Duration::from_secs_f64(room as f64 / INITIAL_RATE as f64);
        // At rest a burst may use the reserve; that is its purpose. Until the cgroup is calm,
        // sample often enough that the largest burst seen can't exhaust the free memory in between.
        let calm = self.motion(sample.at) == Motion::Calm;
        let at_rest = (near * (1 << self.still.min(8))).min(REST_INTERVAL);
        let at_rest = if calm { at_rest * u32::from(self.crowd) } else { at_rest.min(lasts(free)) };
        at_initial_rate.min(lasts(room)).max(at_rest).clamp(near, MAX_INTERVAL)
    }
}

/// Returns the factor by which cgroups that are calm are sampled less often, beside so many others:
/// what they cost together stays the same from a thousand on, up to `MAX_INTERVAL`.
#[must_use]
pub(crate) fn crowd(members: usize) -> u8 {
    u8::try_from(members / 1000).unwrap_or(u8::MAX).clamp(1, MAX_CROWD)
}

/// Returns the time of a sample: the planned one if that is near, otherwise the next time on a
/// grid, so that a thousand cgroups at rest don't cause a thousand wake-ups.
#[must_use]
pub(crate) fn on_grid(now: Duration, planned: Duration) -> Duration {
    if planned < now + GRID_DISTANCE {
        return planned;
    }
    let steps = planned.as_millis().div_ceil(GRID.as_millis());
    u32::try_from(steps).map_or(planned, |steps| GRID * steps)
}

#[cfg(test)]
mod tests;
