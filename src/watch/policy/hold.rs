//! What holds a cgroup under watch back, for how long, and whether that is news.

use std::time::Duration;

use super::guard::Guard;
use super::refaults::{Backoff, RefaultDetector};

/// A guard that was told of isn't told of again within that time: it may hold again and again, with a little done in
/// between.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// What holds one cgroup back.
#[derive(Debug)]
pub struct HoldState {
    /// What comes back.
    pub brake: RefaultDetector,
    exhausted: Backoff<1, 60>,
    /// Until then nothing is done at all.
    grace: Duration,
    /// What holds now.
    by: Option<Guard>,
    /// Why anonymous memory was spared when something was allowed last.
    spared_by: Option<Guard>,
    /// Which guard was told of last, and when.
    told: Option<(&'static str, Duration)>,
}

impl HoldState {
    /// Holds until the end of the grace.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self {
            brake: RefaultDetector::default(),
            exhausted: Backoff::default(),
            grace,
            by: None,
            spared_by: None,
            told: None,
        }
    }

    /// What holds now.
    #[must_use]
    pub fn by(&self) -> Option<Guard> {
        self.by
    }

    /// Whatever holds for some time, and until when.
    #[must_use]
    pub fn back(&self, now: Duration) -> Option<(Guard, Duration)> {
        if now < self.grace {
            return Some((Guard::Grace, self.grace));
        }
        let exhausted = self.exhausted.waits(now).map(|until| (self.nothing_left(), until));
        exhausted.or_else(|| self.brake.holds(now).map(|until| (self.braking(), until)))
    }

    /// Something was allowed, perhaps without anonymous memory.
    pub fn allowed(&mut self, spared_by: Option<Guard>) {
        self.spared_by = spared_by;
    }

    /// Enters what holds. Tells whether another one did before, and whether that is worth telling.
    pub fn hold(&mut self, now: Duration, by: Guard) -> (bool, bool) {
        if self.by.map(Guard::word) == Some(by.word()) {
            return (false, false);
        }
        self.by = Some(by);
        let is_old =
            self.told.is_some_and(|(told, at)| told == by.word() && now.saturating_sub(at) < REPORT_INTERVAL);
        if !is_old {
            self.told = Some((by.word(), now));
        }
        (true, !is_old)
    }

    /// There was nothing to be had: the reason, and how long to wait.
    pub fn exhausted(&mut self, now: Duration) -> (Guard, Duration) {
        (self.nothing_left(), self.exhausted.failed(now))
    }

    /// Something was to be had.
    pub fn worked(&mut self) {
        self.exhausted.worked();
        self.by = self.by.filter(|guard| matches!(guard, Guard::Refaults(_)));
    }

    /// Nothing holds any more.
    pub fn over(&mut self) {
        self.by = None;
    }

    /// If page cache alone was to be had, that has a reason.
    fn nothing_left(&self) -> Guard {
        self.spared_by.unwrap_or(Guard::Exhausted)
    }

    fn braking(&self) -> Guard {
        match self.by {
            Some(guard @ Guard::Refaults(_)) => guard,
            _ => Guard::Refaults(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn the_same_guard_is_told_of_once_in_a_while() {
        let mut holding = HoldState::new(Duration::ZERO);
        assert_eq!(holding.hold(NOW, Guard::Floor), (true, true));
        assert_eq!(holding.hold(NOW, Guard::Floor), (false, false));
        holding.worked();
        assert_eq!(holding.hold(NOW, Guard::Floor), (true, false), "again, a little later");
        assert_eq!(holding.hold(NOW, Guard::Cpu), (true, true));
        holding.over();
        assert_eq!((holding.by(), holding.hold(NOW + REPORT_INTERVAL, Guard::Cpu)), (None, (true, true)));
    }

    #[test]
    fn where_anonymous_memory_is_spared_that_is_the_reason() {
        let mut holding = HoldState::new(NOW);
        assert_eq!(holding.back(Duration::ZERO), Some((Guard::Grace, NOW)));
        assert_eq!(holding.back(NOW), None);
        holding.allowed(Some(Guard::SwapFree));
        let (why, wait) = holding.exhausted(NOW);
        assert_eq!((why, holding.back(NOW)), (Guard::SwapFree, Some((Guard::SwapFree, NOW + wait))));
        holding.allowed(None);
        holding.worked();
        assert_eq!((holding.back(NOW), holding.exhausted(NOW).0), (None, Guard::Exhausted));
    }
}
