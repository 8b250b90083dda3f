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

/// Minimum time between changes due to checks, and between raises due to met limits: a cgroup at its
/// limit meets it a hundred times a second.
const ADJUST_INTERVAL: Duration = Duration::from_secs(1);

/// Time for which a cgroup gives nothing for the limits above it, once memory in use came back
/// although nothing holds: its own limit is met, the others' need not be.
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
    /// Trial of leaving the reclaim to an application that meets its limit.
    trial: Trial,
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
        let returned = match verdict {
            Verdict::InUse(_) => Some(true),
            Verdict::Doubtful(_) => (arrives && is_long_ago).then_some(false),
            Verdict::Clean => Some(false),
        };
        let wanted = self.bounded(wanted);
        let hold = match verdict {
            Verdict::InUse(share) if arrives => self.halve(now, wanted, &counters).then_some(share),
            Verdict::InUse(share) => Some(self.begin_hold(now, wanted, share, true)),
            Verdict::Doubtful(share) if !arrives => Some(self.begin_hold(now, wanted, share, false)),
            Verdict::Clean | Verdict::Doubtful(_) => {
                // Many bytes are checked more often than that.
                let is_soon = arrives && now.saturating_sub(self.adjusted_at) < ADJUST_INTERVAL;
                if returned.is_some() && !is_soon {
                    self.adjusted_at = now;
                    self.hold.worked();
                    self.raise(0, wanted);
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
        let kept = self.kept.unwrap_or(wanted.full).min(wanted.full) / 2;
        self.kept = Some(kept.max(MIN_KEPT));
        self.trial.begin(now, costs(counters))
    }

    /// Begins a hold, since a share of what was reclaimed came back. Returns that share.
    fn begin_hold(&mut self, now: Duration, wanted: Wanted, share: f64, is_sure: bool) -> f64 {
        self.hold.failed(now);
        self.is_sure = is_sure;
        // Usage that leaves that much free afterwards is left alone for good.
        (self.kept, self.raised_at) = (Some(step(wanted)), self.hold.waits(now).unwrap_or(now));
        share
    }

    /// Records that the limit was met. Returns true if that ends a hold.
    pub(crate) fn met(&mut self, now: Duration, wanted: Wanted) -> bool {
        let wanted = self.bounded(wanted);
        if self.trial.holds(now).is_some() || self.trial.is_due(now) {
            return false;
        }
        if self.hold.waits(now).is_none() {
            if let Some(kept) = self.kept.filter(|_| now.saturating_sub(self.raised_at) >= ADJUST_INTERVAL) {
                self.raised_at = now;
                // What comes back arrives as well, so that the reserve is too much beside memory in use.
                let most = if self.returns(now) { kept.saturating_mul(2) } else { u64::MAX };
                self.raise(wanted.reserve.min(most), wanted);
            }
            return false;
        }
        self.hold.worked();
        self.arrives.failed(now);
        self.raised_at = now;
        self.doubted_at = Some(now);
        self.kept = self.is_sure.then(|| wanted.reserve.max(MIN_KEPT));
        true
    }

    /// Returns whether memory in use came back lately, though nothing holds.
    #[must_use]
    pub(crate) fn returns(&self, now: Duration) -> bool {
        self.returned_at.is_some_and(|at| now.saturating_sub(at) < RETURN_TIME)
    }

    /// Returns the end of the hold, if there is one.
    #[must_use]
    pub(crate) fn holds(&self, now: Duration) -> Option<Duration> {
        self.hold.waits(now).or(self.trial.holds(now))
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
            let wanted = self.bounded(wanted);
            self.kept = Some(self.kept.unwrap_or(wanted.full).min(step(wanted)));
            (self.raised_at, self.doubted_at, self.returned_at) = (now, Some(now), Some(now));
        }
        ended
    }

    /// Returns the maximum bytes to keep free; `None` for no bound. What was in use once may not be
    /// later, so the bound rises by and by.
    pub(crate) fn kept(&mut self, now: Duration, wanted: Wanted) -> Option<u64> {
        let bounded = self.bounded(wanted);
        let is_due = now.saturating_sub(self.raised_at) >= RETRY_INTERVAL;
        if self.kept.is_some() && is_due && self.holds(now).is_none() {
            self.raised_at = now;
            self.raise(0, bounded);
        }
        self.kept.or((bounded.full < wanted.full).then_some(bounded.full))
    }

    /// Returns what to keep free with what is known of the memory that is reclaimed.
    fn bounded(&self, wanted: Wanted) -> Wanted {
        if self.is_known || wanted.asked == 0 {
            return wanted;
        }
        let Wanted { full, asked, reserve } = wanted;
        Wanted { full: full.min(asked), asked, reserve: reserve.min(asked) }
    }

    /// Raises the bound by a step, to `least` at least, and drops it once it bounds nothing.
    fn raise(&mut self, least: u64, wanted: Wanted) {
        self.kept = self.kept.map(|kept| (kept + step(wanted)).max(least)).filter(|&kept| kept < wanted.full);
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
mod tests {
    use super::super::refaults::Lru;
    use super::*;

    const M: u64 = 1 << 20;
    const WANTED: Wanted = Wanted { full: 32 * M, asked: 32 * M, reserve: 12 * M };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Counters of which `refaulted` MiB came back so far, and `restored` of these are known to be in
    /// use.
    fn counters(refaulted: u64, restored: u64) -> RefaultCounters {
        RefaultCounters {
            refaulted: refaulted * M,
            refaulted_file: refaulted * M,
            activated_file: refaulted * M,
            restored_file: restored * M,
            stalled: Some(Duration::ZERO),
            met: Some(0),
            lru: Lru::Generations,
            ..RefaultCounters::default()
        }
    }

    /// Creates a brake with a window that begins at 0 s.
    fn opened() -> Brake {
        let mut brake = Brake::default();
        let opened = Checked { returned: Some(false), hold: None };
        assert_eq!(brake.check(at(0), counters(0, 0), WANTED), opened);
        brake
    }

    /// Reclaims 20 MiB, and checks.
    fn check(brake: &mut Brake, now: u64, refaulted: u64, restored: u64) -> Option<f64> {
        brake.reclaimed(at(now), 20 * M);
        brake.check(at(now), counters(refaulted, restored), WANTED).hold
    }

    #[test]
    fn usage_that_stays_below_the_limit_is_left_alone_longer_each_time() {
        let mut brake = opened();
        assert_eq!(check(&mut brake, 2, 16, 16), Some(0.8));
        assert_eq!((brake.holds(at(6)), brake.holds(at(7))), (Some(at(7)), None));
        assert_eq!(check(&mut brake, 8, 30, 30), None, "not due to reclaim");
        assert_eq!(check(&mut brake, 10, 46, 46), Some(0.8));
        assert_eq!(brake.holds(at(19)), Some(at(20)), "twice as long");
        assert_eq!(brake.kept, Some(4 * M), "a step, which may be free without reclaim");
    }

    #[test]
    fn an_application_that_meets_its_limit_is_not_left_alone() {
        let mut brake = opened();
        check(&mut brake, 2, 16, 16);
        assert!(brake.met(at(3), WANTED), "the hold ends");
        assert_eq!((brake.holds(at(3)), brake.kept), (None, Some(12 * M)));
        check(&mut brake, 4, 16, 16);
        check(&mut brake, 5, 16, 16);
        assert_eq!(brake.kept, Some(16 * M), "a step more");
        assert_eq!((check(&mut brake, 6, 36, 36), brake.holds(at(6))), (None, None));
        assert_eq!(brake.kept, Some(8 * M), "half of it");
        for (now, refaulted) in (8..20).step_by(2).zip((52..).step_by(16)) {
            assert_eq!(check(&mut brake, now, refaulted, refaulted), None);
        }
        assert_eq!(brake.kept, Some(M), "never nothing");
        assert!(brake.returns(at(27)) && !brake.returns(at(28)), "the last check was at 18 s");
        assert!(!brake.met(at(21), WANTED));
        assert_eq!(brake.kept, Some(5 * M), "a step, or twice as much");
        assert!(!brake.met(at(21), WANTED));
        assert_eq!(brake.kept, Some(5 * M), "once a second");
        assert!(!brake.met(at(22), WANTED) && !brake.met(at(23), WANTED));
        assert_eq!(brake.kept, Some(14 * M), "10, and a step");
        brake.kept = Some(M);
        assert!(!brake.met(at(28), WANTED));
        assert_eq!(brake.kept, Some(12 * M), "what arrives at once: nothing came back lately");
        for now in (30..48).step_by(2) {
            check(&mut brake, now, 200, 200);
        }
        assert_eq!(brake.kept, None, "nothing comes back");
    }

    #[test]
    fn a_stream_is_told_from_use_by_a_hold() {
        let mut brake = opened();
        assert_eq!(check(&mut brake, 2, 20, 0), Some(1.0));
        assert!(brake.met(at(3), WANTED));
        assert_eq!(brake.kept, None, "all of the headroom");
        for now in 2..30 {
            assert_eq!(check(&mut brake, 2 * now, 20 * now, 0), None, "{now}");
        }
        assert_eq!(check(&mut brake, 64, 20 * 30, 0), Some(1.0), "asked again");
        assert!(brake.met(at(65), WANTED));
        assert_eq!(check(&mut brake, 66, 20 * 41, 0), None);
        assert_eq!(check(&mut brake, 180, 20 * 42, 0), None, "known for twice as long");
    }

    #[test]
    fn no_more_than_asked_for_is_kept_until_reclaim_is_known_to_be_clean() {
        let wanted = Wanted { full: 32 * M, asked: 16 * M, reserve: 32 * M };
        let mut brake = opened();
        let check = |brake: &mut Brake, now: u64, refaulted: u64, restored: u64| {
            brake.reclaimed(at(now), 20 * M);
            brake.check(at(now), counters(refaulted, restored), wanted)
        };
        assert_eq!(brake.kept(at(0), wanted), Some(16 * M));
        assert_eq!(check(&mut brake, 2, 1, 0).returned, Some(false));
        assert_eq!(brake.kept(at(2), wanted), None);
        let checked = check(&mut brake, 4, 17, 16);
        assert_eq!((checked.returned, checked.hold), (Some(true), Some(0.8)));
        assert_eq!(brake.kept(at(4), wanted), Some(4 * M), "a step");
        assert!(brake.met(at(5), wanted));
        assert_eq!(brake.kept(at(5), wanted), Some(16 * M), "of the reserve, as much as asked for");
        // Without headroom, as with --keep, nothing else was asked for.
        let kept = Wanted { asked: 0, ..wanted };
        assert_eq!(Brake::default().kept(at(0), kept), None);
    }

    #[test]
    fn what_comes_back_for_some_time_without_use_is_a_stream() {
        let mut brake = opened();
        assert_eq!(check(&mut brake, 2, 20, 0), Some(1.0));
        assert!(brake.met(at(3), WANTED));
        brake.reclaimed(at(3), 20 * M);
        let mut returned = |now: u64| {
            brake.reclaimed(at(now), 20 * M);
            brake.check(at(now), counters(20 * now, 0), WANTED).returned
        };
        assert_eq!([4, 6, 8].map(&mut returned), [None, Some(false), Some(false)]);
        assert!(brake.is_known);
    }

    #[test]
    fn what_is_left_alone_is_tried_again_by_and_by() {
        let mut brake = opened();
        check(&mut brake, 2, 16, 16);
        assert_eq!(brake.kept(at(66), WANTED), Some(4 * M), "a minute after the hold");
        assert_eq!(brake.kept(at(67), WANTED), Some(8 * M));
        assert_eq!(brake.kept(at(68), WANTED), Some(8 * M));
        let later: Vec<_> = (3..9).map(|minute| brake.kept(at(60 * minute), WANTED)).collect();
        assert_eq!(later.last(), Some(&None), "{later:?}");
    }

    #[test]
    fn what_comes_back_of_a_press_holds_no_headroom() {
        let mut brake = opened();
        brake.pressed();
        assert_eq!(check(&mut brake, 30, 300, 300), None);
        assert_eq!(check(&mut brake, 32, 316, 316), Some(0.8));
    }
}
