//! Hold state of a watched cgroup: the reason that holds it back, the end of the hold, and whether
//! a report is due.

use std::time::Duration;

use super::backoff::Backoff;
use super::brake::Brake;
use super::guard::Guard;

/// Minimum time between reports of the same guard: it may hold again and again, with a little
/// reclaimed in between.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Hold state of one cgroup.
#[derive(Debug)]
pub(crate) struct HoldState {
    /// Brake for memory that comes back.
    pub brake: Brake,
    exhausted: Backoff<1, 60>,
    /// End of the grace period, before which nothing is reclaimed.
    grace: Duration,
    /// Current reason.
    reason: Option<Guard>,
    /// Share that came back, before the last hold of the brake.
    came_back: f64,
    /// Reason for which anonymous memory was spared in the last allowed reclaim.
    spared_by: Option<Guard>,
    /// Guard in the last report, and its time.
    reported: Option<(&'static str, Duration)>,
}

impl HoldState {
    /// Creates a state that holds until the end of the grace period.
    #[must_use]
    pub(crate) fn new(grace: Duration) -> Self {
        Self {
            brake: Brake::default(),
            exhausted: Backoff::default(),
            grace,
            reason: None,
            came_back: 0.0,
            spared_by: None,
            reported: None,
        }
    }

    /// Returns the current reason.
    #[must_use]
    pub(crate) fn reason(&self) -> Option<Guard> {
        self.reason
    }

    /// Returns a reason that holds for some time, and the end of that time.
    #[must_use]
    pub(crate) fn blocked_until(&self, now: Duration) -> Option<(Guard, Duration)> {
        if now < self.grace {
            return Some((Guard::Grace, self.grace));
        }
        let exhausted = self.exhausted.waits(now).map(|until| (self.nothing_left(), until));
        exhausted.or_else(|| self.brake.holds(now).map(|until| (self.refaulting(now), until)))
    }

    /// Records that a reclaim was allowed, perhaps without anonymous memory.
    pub(crate) fn allowed(&mut self, spared_by: Option<Guard>) {
        self.spared_by = spared_by;
    }

    /// Records the share that came back, which begins a hold of the brake. Returns the reason.
    pub(crate) fn refaulted(&mut self, now: Duration, share: f64) -> Guard {
        self.came_back = share;
        self.refaulting(now)
    }

    /// Records a reason. Returns whether it is a new one, and whether a report is due.
    pub(crate) fn hold(&mut self, now: Duration, reason: Guard) -> (bool, bool) {
        if self.reason.map(Guard::word) == Some(reason.word()) {
            return (false, false);
        }
        self.reason = Some(reason);
        let is_old = self
            .reported
            .is_some_and(|(word, at)| word == reason.word() && now.saturating_sub(at) < REPORT_INTERVAL);
        if !is_old {
            self.reported = Some((reason.word(), now));
        }
        (true, !is_old)
    }

    /// Records that nothing more could be reclaimed. Returns the reason and the time to wait.
    pub(crate) fn exhausted(&mut self, now: Duration) -> (Guard, Duration) {
        (self.nothing_left(), self.exhausted.failed(now))
    }

    /// Records that something could be reclaimed.
    pub(crate) fn worked(&mut self) {
        self.exhausted.worked();
        self.reason = self.reason.filter(|guard| matches!(guard, Guard::Refaults(_) | Guard::LeftToTasks));
    }

    /// Records that no reason holds any more.
    pub(crate) fn over(&mut self) {
        self.reason = None;
    }

    /// Returns the reason why nothing is left: where only page cache was allowed, the reason for
    /// that.
    fn nothing_left(&self) -> Guard {
        self.spared_by.unwrap_or(Guard::Exhausted)
    }

    fn refaulting(&self, now: Duration) -> Guard {
        if self.brake.leaves_to_tasks(now) { Guard::LeftToTasks } else { Guard::Refaults(self.came_back) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn a_guard_is_reported_once_in_a_while() {
        let mut hold = HoldState::new(Duration::ZERO);
        assert_eq!(hold.hold(NOW, Guard::Floor), (true, true));
        assert_eq!(hold.hold(NOW, Guard::Floor), (false, false));
        hold.worked();
        assert_eq!(hold.hold(NOW, Guard::Floor), (true, false), "again, a little later");
        assert_eq!(hold.hold(NOW, Guard::Cpu), (true, true));
        hold.over();
        assert_eq!((hold.reason(), hold.hold(NOW + REPORT_INTERVAL, Guard::Cpu)), (None, (true, true)));
    }

    #[test]
    fn the_share_that_came_back_is_remembered() {
        let mut hold = HoldState::new(NOW);
        assert_eq!(hold.refaulted(NOW, 0.8), Guard::Refaults(0.8));
        hold.over();
        assert_eq!(hold.refaulting(NOW), Guard::Refaults(0.8));
    }

    #[test]
    fn spared_anonymous_memory_is_the_reason_given() {
        let mut hold = HoldState::new(NOW);
        assert_eq!(hold.blocked_until(Duration::ZERO), Some((Guard::Grace, NOW)));
        assert_eq!(hold.blocked_until(NOW), None);
        hold.allowed(Some(Guard::SwapFree));
        let (why, wait) = hold.exhausted(NOW);
        assert_eq!((why, hold.blocked_until(NOW)), (Guard::SwapFree, Some((Guard::SwapFree, NOW + wait))));
        hold.allowed(None);
        hold.worked();
        assert_eq!((hold.blocked_until(NOW), hold.exhausted(NOW).0), (None, Guard::Exhausted));
    }
}
