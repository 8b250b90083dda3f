//! Brake of `--headroom`: decides how much to keep free where reclaimed memory comes back. A pure
//! function of time, refaults and met limits.
//!
//! If usage would stay below the limit by itself, holding costs nothing, and reclaim thrashes:
//! nothing is kept free for some time, and little after that. If it arrives at the limit all the
//! same, holding only moves the reclaim into the application's own time: what the cgroup allocates
//! at once is kept free then, half of that each time memory in use comes back, and a step more
//! after each check without refaults. Which of the two it is shows as soon as reclaim is held: then
//! the limit is met, or it isn't.

use std::time::Duration;

use super::backoff::Backoff;
use super::refaults::{RefaultCounters, RefaultDetector, Verdict};
use super::trial::{Costs, Trial};

/// Minimum bytes kept free beside an application that meets its limit.
const MIN_KEPT: u64 = 1 << 20;

/// Divisor of the full amount that is one step up.
const STEP_DIVISOR: u64 = 8;

/// Divisor of a limit that is a clear change of it.
const LIMIT_DIVISOR: u64 = 8;

/// Minimum time between changes due to checks, and between raises due to met limits: a cgroup at its
/// limit meets it a hundred times a second.
const ADJUST_INTERVAL: Duration = Duration::from_secs(1);

/// Time for which a cgroup gives nothing for the limits above it, once memory in use came back
/// although nothing holds: its own limit is met, the others' need not be. As long, what came back
/// that may have been a stream makes others give first.
const RETURN_TIME: Duration = Duration::from_secs(10);

/// Time without memory in use that comes back, after which what comes back is taken for a stream.
const KNOWN_TIME: Duration = Duration::from_secs(2);

/// Time after which a step more is tried, without evidence.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// Bytes to keep free below a limit, where nothing comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The larger of headroom and reserve.
    pub full: u64,
    /// What the user asked for, and what the kernel charges at once.
    pub asked: u64,
    /// What may arrive before reclaim can react.
    pub reserve: u64,
}

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Checked {
    /// True if memory in use came back since the last check, which isn't what arrived; false if none
    /// did; `None` if that isn't known.
    pub returned: Option<bool>,
    /// Share of the reclaimed bytes that refaulted, if that begins a hold.
    pub hold: Option<f64>,
}

/// The brake of one cgroup.
#[derive(Clone, Debug, Default)]
pub(crate) struct Brake {
    detector: RefaultDetector,
    /// The hold, in which nothing is kept free.
    hold: Backoff<5, 600>,
    /// True if what came back before the hold was surely in use.
    is_sure: bool,
    /// Time for which the cgroup is known to arrive at its limit.
    arrives: Backoff<60, 600>,
    /// Bound on the bytes kept free; `None` for no bound.
    kept: Option<u64>,
    raised_at: Duration,
    /// Times of the last change due to a check, and of the last one due to memory in use.
    adjusted_at: Duration,
    halved_at: Duration,
    /// Time at which memory in use was last seen to come back while nothing holds.
    returned_at: Option<Duration>,
    /// Time at which memory, in use or not, was last seen to come back; `None` once none does.
    came_back_at: Option<Duration>,
    /// Trial of leaving the reclaim to an application that meets its limit.
    trial: Trial,
    /// The lowest limit, when the trials began to count.
    limit: Option<u64>,
    /// True if what is reclaimed is known to stay away, or to be a stream. Before that, no more is
    /// kept free than was asked for: what comes back arrives as well, and so the reserve would grow
    /// by its own effect (from 19 to 48 MiB in 0.4 s, of a mapped file on Linux 7.3).
    is_known: bool,
    /// Time at which memory was last seen to come back that was, or may have been, in use.
    doubted_at: Option<Duration>,
}

impl Brake {
    /// Records bytes reclaimed for a limit.
    pub(crate) fn reclaimed(&mut self, now: Duration, bytes: u64) {
        self.detector.reclaimed(now, bytes);
    }

    /// Records that `--pressure` reclaimed: what comes back may be of that.
    pub(crate) fn pressed(&mut self) {
        self.detector.restart();
    }

    /// Returns whether [`Brake::check`] is due: reading the counters is expensive.
    #[must_use]
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.detector.is_due(now)
    }

    /// Records the counters, and judges them.
    pub(crate) fn check(&mut self, now: Duration, counters: RefaultCounters, wanted: Wanted) -> Checked {
        let opens = !self.detector.is_open() && self.doubted_at.is_none();
        let Some(verdict) = self.detector.check(now, counters) else {
            return Checked { returned: opens.then_some(false), hold: None };
        };
        // A trial is of an application that meets its limit, also after a long hold.
        let arrives = self.arrives.waits(now).is_some() || self.trial.is_in_progress();
        let is_long_ago = self.doubted_at.is_none_or(|at| now.saturating_sub(at) >= KNOWN_TIME);
        self.came_back_at = (verdict != Verdict::Clean).then_some(now);
        let returned = match verdict {
            Verdict::InUse(_) => Some(true),
            Verdict::Doubtful(_) => (arrives && is_long_ago).then_some(false),
            Verdict::Clean => Some(false),
        };
        let hold = match verdict {
            Verdict::InUse(share) if arrives => self.halve(now, wanted, &counters).then_some(share),
            Verdict::InUse(share) => Some(self.begin_hold(now, wanted, share, true)),
            Verdict::Doubtful(share) if !arrives => Some(self.begin_hold(now, wanted, share, false)),
            Verdict::Clean | Verdict::Doubtful(_) => {
                // Many bytes are checked more often than that.
                let is_soon = arrives && now.saturating_sub(self.adjusted_at) < ADJUST_INTERVAL;
                if returned.is_some() && !is_soon {
                    self.adjusted_at = now;
                    self.raise(0, wanted);
                    // The little that is kept free after a hold says nothing of more.
                    if self.kept.is_none() {
                        self.hold.worked();
                    }
                }
                None
            }
        };
        if hold.is_some() {
            self.detector.restart();
        }
        self.is_known = returned == Some(false);
        if returned == Some(true) || hold.is_some() {
            self.doubted_at = Some(now);
        }
        Checked { returned, hold }
    }

    /// Halves what is kept free, since memory in use came back of an application that arrives at its
    /// limit. Returns whether that begins a trial.
    fn halve(&mut self, now: Duration, wanted: Wanted, counters: &RefaultCounters) -> bool {
        if now.saturating_sub(self.halved_at) < ADJUST_INTERVAL {
            return false;
        }
        (self.halved_at, self.adjusted_at, self.returned_at) = (now, now, Some(now));
        let full = self.bounded(wanted).full;
        let kept = self.kept.unwrap_or(full).min(full) / 2;
        self.kept = Some(kept.max(MIN_KEPT));
        self.trial.begin(now, costs(counters))
    }

    /// Begins a hold, since a share of what was reclaimed came back. Returns that share.
    fn begin_hold(&mut self, now: Duration, wanted: Wanted, share: f64, is_sure: bool) -> f64 {
        self.hold.failed(now);
        self.is_sure = is_sure;
        // Usage that leaves that much free afterwards is left alone for good.
        (self.kept, self.raised_at) = (Some(step(self.bounded(wanted))), self.hold.waits(now).unwrap_or(now));
        share
    }

    /// Records that the limit was met. Returns true if that ends a hold.
    pub(crate) fn met(&mut self, now: Duration, wanted: Wanted) -> bool {
        let reserve = self.bounded(wanted).reserve;
        if self.trial.holds(now).is_some() || self.trial.is_due(now) {
            return false;
        }
        if self.hold.waits(now).is_none() {
            if let Some(kept) = self.kept.filter(|_| now.saturating_sub(self.raised_at) >= ADJUST_INTERVAL) {
                self.raised_at = now;
                // What comes back arrives as well, so that the reserve is too much beside memory in use.
                let most = if self.returns(now) { kept.saturating_mul(2) } else { u64::MAX };
                self.raise(reserve.min(most), wanted);
            }
            return false;
        }
        self.hold.worked();
        self.arrives.failed(now);
        self.raised_at = now;
        (self.doubted_at, self.came_back_at) = (Some(now), Some(now));
        self.kept = self.is_sure.then(|| reserve.max(MIN_KEPT));
        true
    }

    /// Returns whether memory in use came back lately, though nothing holds.
    #[must_use]
    pub(crate) fn returns(&self, now: Duration) -> bool {
        self.returned_at.is_some_and(|at| now.saturating_sub(at) < RETURN_TIME)
    }

    /// Returns whether memory came back lately, in use or not.
    #[must_use]
    pub(crate) fn comes_back(&self, now: Duration) -> bool {
        self.came_back_at.is_some_and(|at| now.saturating_sub(at) < RETURN_TIME)
    }

    /// Returns the end of the hold, if there is one.
    #[must_use]
    pub(crate) fn holds(&self, now: Duration) -> Option<Duration> {
        self.hold.waits(now).or(self.trial.holds(now))
    }

    /// Records the limit: what a trial found below a clearly different one doesn't count. Others move
    /// `memory.high` by small steps all the time.
    pub(crate) fn limited_to(&mut self, limit: u64) {
        let before = *self.limit.get_or_insert(limit);
        if limit.abs_diff(before) > before / LIMIT_DIVISOR {
            (self.limit, self.trial) = (Some(limit), Trial::default());
        }
    }

    /// Returns whether a trial leaves the reclaim to the tasks.
    #[must_use]
    pub(crate) fn leaves_to_tasks(&self, now: Duration) -> bool {
        self.hold.waits(now).is_none() && self.trial.holds(now).is_some()
    }

    /// Returns whether [`Brake::tried`] is due.
    #[must_use]
    pub(crate) fn is_trial_due(&self, now: Duration) -> bool {
        self.trial.is_due(now)
    }

    /// Records the counters at the end of a stage of a trial. Returns true if a hold ended by that.
    pub(crate) fn tried(&mut self, now: Duration, counters: &RefaultCounters, wanted: Wanted) -> bool {
        let ended = self.trial.go_on(now, costs(counters));
        if ended {
            // The least that reclaim costs here is compared with the hold.
            let bounded = self.bounded(wanted);
            self.kept = Some(self.kept.unwrap_or(bounded.full).min(step(bounded)));
            (self.raised_at, self.doubted_at, self.returned_at) = (now, Some(now), Some(now));
        }
        ended
    }

    /// Returns the maximum bytes to keep free; `None` for no bound. What was in use once may not be
    /// later, so the bound rises by and by.
    pub(crate) fn kept(&mut self, now: Duration, wanted: Wanted) -> Option<u64> {
        let is_due = now.saturating_sub(self.raised_at) >= RETRY_INTERVAL;
        if self.kept.is_some() && is_due && self.holds(now).is_none() {
            self.raised_at = now;
            self.raise(0, wanted);
        }
        let bounded = self.bounded(wanted).full;
        self.kept.into_iter().chain((bounded < wanted.full).then_some(bounded)).min()
    }

    /// Returns what to keep free with what is known of the memory that is reclaimed.
    fn bounded(&self, wanted: Wanted) -> Wanted {
        if self.is_known || wanted.asked == 0 {
            return wanted;
        }
        let Wanted { full, asked, reserve } = wanted;
        Wanted { full: full.min(asked), asked, reserve: reserve.min(asked) }
    }

    /// Raises the bound by a step of what is kept with what is known, to `least` at least, and drops
    /// it once it bounds nothing, known or not.
    fn raise(&mut self, least: u64, wanted: Wanted) {
        let step = step(self.bounded(wanted));
        self.kept = self.kept.map(|kept| (kept + step).max(least)).filter(|&kept| kept < wanted.full);
    }
}

fn costs(counters: &RefaultCounters) -> Costs {
    Costs { refaulted: counters.refaulted_file + counters.swapped_in, direct: counters.direct }
}

/// Returns one step up.
fn step(wanted: Wanted) -> u64 {
    (wanted.full / STEP_DIVISOR).max(MIN_KEPT)
}

#[cfg(test)]
mod tests;
