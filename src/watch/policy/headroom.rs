//! The law of `--headroom`: from looks at a cgroup to when to reclaim, how far, and when to look again. A pure function of
//! what it is shown.
//!
//! A level alone is not enough: what matters is what can arrive before the next look. So free memory below the limit is
//! held at the larger of what the user wants and of a *reserve*, which is the most that arrived lately in the time that a
//! look, its lateness and the reclaim itself take (the [arrival curve](super::arrival)). Two watermarks: reclaim starts
//! below the lower one and goes on to the upper one.

use std::time::Duration;

use super::arrival::ArrivalCurve;

/// How often to look when it is near the lower watermark: from where looks are cheap to where they are dear beside what
/// is reclaimed. And how often at rest, near the watermark and far from it.
pub const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// See [`MIN_INTERVAL`].
pub const NEAR_INTERVAL: Duration = Duration::from_millis(400);
const REST: Duration = Duration::from_secs(1);
const MAX_INTERVAL: Duration = Duration::from_secs(5);

/// What may arrive in a second out of the blue, until more is known: one thread that does nothing but touch memory.
const OUT_OF_THE_BLUE: u64 = 1 << 30;

/// When nothing moved for so long, nothing is about to.
const CALM: Duration = Duration::from_secs(30);

/// Less than that between two looks is nothing: the kernel charges by batches of 64 pages a CPU.
const STILL: u64 = 256 << 10;

/// The reserve is no more than this part of the limit: beyond that, free memory costs more than it helps.
const MOST_RESERVED: u64 = 4;

/// The watermarks are that part of the lower one apart, and no less than that.
const BETWEEN: u64 = 8;
const LEAST_BETWEEN: u64 = 1 << 20;

/// Growth is told as it was over about that time.
const OF_LATE: Duration = Duration::from_secs(2);

/// How much is to be free below the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Headroom {
    /// So many bytes.
    Bytes(u64),
    /// That share of the limit, from 0 to 1.
    Share(f64),
}

impl Headroom {
    /// In bytes, below a limit.
    #[must_use]
    pub fn below(self, limit: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Share(share) => (limit as f64 * share) as u64,
        }
    }
}

/// One look at a cgroup. Amounts are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadroomSample {
    /// When, on the monotonic clock.
    pub at: Duration,
    /// `memory.current`.
    pub current: u64,
    /// The limit.
    pub limit: u64,
}

impl HeadroomSample {
    /// What is free below the limit.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.limit.saturating_sub(self.current)
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, until then.
    Rest {
        /// When to look again.
        until: Duration,
    },
    /// Reclaim until no more than that is used.
    Reclaim {
        /// Bytes of `memory.current`.
        down_to: u64,
    },
}

/// How what is used moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motion {
    /// It did between the last two looks.
    Moves,
    /// It didn't.
    Still,
    /// It hasn't for long.
    Calm,
}

/// What is known of one cgroup.
#[derive(Clone, Debug)]
pub struct HeadroomPolicy {
    headroom: Headroom,
    /// How often to look near the watermark.
    near: Duration,
    /// Whether to keep free what may arrive, or just what is wanted.
    reserves: bool,
    curve: ArrivalCurve,
    /// What was reclaimed so far, by us and, as far as known, by others: it had arrived too.
    reclaimed: u64,
    last: Option<HeadroomSample>,
    /// What arrived in a second, of late.
    growth: f64,
    planned: Duration,
    /// How late looks were, of late.
    late: Duration,
    /// How many looks in a row nothing moved, and since when.
    still: u32,
    still_since: Duration,
}

impl HeadroomPolicy {
    /// For a cgroup of which nothing is known yet. Only one that `reserves` keeps free what may arrive.
    #[must_use]
    pub fn new(headroom: Headroom, reserves: bool) -> Self {
        Self {
            headroom,
            near: MIN_INTERVAL,
            reserves,
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

    /// Keeps so much free from now on; what was learned stays.
    pub fn adopt(&mut self, headroom: Headroom, reserves: bool) {
        (self.headroom, self.reserves) = (headroom, reserves);
    }

    /// What the user wants to be free.
    #[must_use]
    pub fn headroom(&self) -> Headroom {
        self.headroom
    }

    /// Looks so often near the watermark from now on: the reserve follows.
    pub fn look_each(&mut self, near: Duration) {
        self.near = near.clamp(MIN_INTERVAL, NEAR_INTERVAL);
    }

    /// Enters what was reclaimed since the last look, by whomever.
    pub fn reclaimed(&mut self, bytes: u64) {
        self.reclaimed = self.reclaimed.saturating_add(bytes);
    }

    /// Enters a look, and decides.
    pub fn decide(&mut self, look: HeadroomSample) -> Decision {
        self.learn(look);
        if let Some(down_to) = self.down_to(look.current, look.limit) {
            self.still = 0;
            // The next look follows the reclaim.
            self.planned = Duration::MAX;
            return Decision::Reclaim { down_to };
        }
        let until = look.at + self.pause(look, self.low(look.limit));
        self.planned = until;
        Decision::Rest { until }
    }

    /// The usage to come down to where `current` bytes leave too little free below a limit.
    #[must_use]
    pub fn down_to(&self, current: u64, limit: u64) -> Option<u64> {
        let low = self.low(limit);
        (limit.saturating_sub(current) < low || current > limit)
            .then(|| limit.saturating_sub(low + (low / BETWEEN).max(LEAST_BETWEEN)))
    }

    /// The lower watermark: how much is kept free below a limit.
    #[must_use]
    pub fn low(&self, limit: u64) -> u64 {
        self.headroom.below(limit).max(self.reserve(limit))
    }

    /// The most that may arrive before anything can be done about it, by what was seen.
    #[must_use]
    pub fn reserve(&self, limit: u64) -> u64 {
        if !self.reserves {
            return 0;
        }
        let soon = self.curve.within(self.near + self.late).unwrap_or(0);
        (soon + soon / 8).min(limit / MOST_RESERVED)
    }

    /// What arrives in a second, of late, bytes; less than nothing where the cgroup shrinks by itself.
    #[must_use]
    pub fn growth(&self) -> f64 {
        self.growth
    }

    /// Whether what is used moves.
    #[must_use]
    pub fn motion(&self, now: Duration) -> Motion {
        match self.still {
            0 => Motion::Moves,
            _ if now.saturating_sub(self.still_since) >= CALM => Motion::Calm,
            _ => Motion::Still,
        }
    }

    /// The last look; `None` before the first.
    #[must_use]
    pub fn last(&self) -> Option<HeadroomSample> {
        self.last
    }

    fn learn(&mut self, look: HeadroomSample) {
        let arrived = look.current.saturating_add(self.reclaimed) as i64;
        if let (Some(last), Some(before)) = (self.last, self.curve.arrived()) {
            let time = look.at.saturating_sub(last.at).as_secs_f64();
            let weight = 1.0 - (-time / OF_LATE.as_secs_f64()).exp();
            if time > 0.0 {
                self.growth += weight * ((arrived - before) as f64 / time - self.growth);
            }
        }
        self.curve.look(look.at, arrived);
        if self.planned > Duration::ZERO && self.planned < Duration::MAX {
            let late = look.at.saturating_sub(self.planned);
            // Slowly forgotten: a machine that was busy once is busy again.
            self.late = late.max(self.late * 63 / 64).min(REST);
        }
        let moved = self.last.map_or(0, |last| last.current.abs_diff(look.current));
        self.still = if moved < STILL { self.still.saturating_add(1) } else { 0 };
        if self.still == 0 {
            self.still_since = look.at;
        }
        self.last = Some(look);
    }

    /// How long it is safe not to look.
    fn pause(&self, look: HeadroomSample, low: u64) -> Duration {
        let (free, room) = (look.free(), look.free() - low);
        let lasts = |bytes| self.curve.lasts(bytes).unwrap_or(self.near);
        let out_of_the_blue = Duration::from_secs_f64(room as f64 / OUT_OF_THE_BLUE as f64);
        // At rest a burst may eat into what is kept free: that is what it is kept for. One larger than that is looked
        // out for as long as it isn't ages ago.
        let calm = self.motion(look.at) == Motion::Calm;
        let at_rest = (self.near * (1 << self.still.min(8))).min(REST);
        let at_rest = if calm { at_rest } else { at_rest.min(lasts(free)) };
        out_of_the_blue.min(lasts(room)).max(at_rest).clamp(self.near, MAX_INTERVAL)
    }
}

#[cfg(test)]
mod tests;
