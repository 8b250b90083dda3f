//! The share of recent time in which a cgroup was stalled: a pure function of measured intervals.
//!
//! An average since the start would gather credit: after ten calm minutes a cgroup could stand
//! still for a minute before the average exceeds 10%.

use std::collections::VecDeque;
use std::time::Duration;

/// Time that counts as recent.
const WINDOW: Duration = Duration::from_secs(10);

/// Minimum time of observation before a share is given.
const MIN_OBSERVED: Duration = Duration::from_millis(500);

/// Minimum length of an interval that is kept apart. Shorter ones are added to the one before,
/// which bounds the number of intervals.
const GRAIN: Duration = Duration::from_millis(100);

/// Stall times of the most recent intervals.
#[derive(Clone, Debug, Default)]
pub struct RecentStalls {
    intervals: VecDeque<Interval>,
    /// Sum of the intervals.
    sum: Interval,
}

#[derive(Clone, Copy, Debug, Default)]
struct Interval {
    length: Duration,
    stalled: Duration,
}

impl RecentStalls {
    /// Records an interval, and the part of it in which the cgroup was stalled.
    pub(crate) fn record(&mut self, length: Duration, stalled: Duration) {
        match self.intervals.back_mut() {
            Some(last) if last.length < GRAIN => last.add(length, stalled),
            _ => self.intervals.push_back(Interval { length, stalled }),
        }
        self.sum.add(length, stalled);
        // The rest covers the window without the oldest interval.
        while let Some(&oldest) = self.intervals.front()
            && self.sum.length.saturating_sub(oldest.length) >= WINDOW
        {
            self.sum.length = self.sum.length.saturating_sub(oldest.length);
            self.sum.stalled = self.sum.stalled.saturating_sub(oldest.stalled);
            self.intervals.pop_front();
        }
    }

    /// Returns the share of the recent time in which the cgroup was stalled; `None` until enough
    /// was observed.
    #[must_use]
    pub(crate) fn share(&self) -> Option<f64> {
        let Interval { length, stalled } = self.sum;
        (length >= MIN_OBSERVED).then(|| stalled.as_secs_f64() / length.as_secs_f64())
    }
}

impl Interval {
    fn add(&mut self, length: Duration, stalled: Duration) {
        self.length = self.length.saturating_add(length);
        self.stalled = self.stalled.saturating_add(stalled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    #[test]
    fn calm_gives_no_credit() {
        let mut stalls = RecentStalls::default();
        (0..6000).for_each(|_| stalls.record(STEP, Duration::ZERO));
        let until_noticed = (1..100).find(|_| {
            stalls.record(STEP, STEP);
            stalls.share() > Some(0.1)
        });
        assert!(until_noticed <= Some(12), "{until_noticed:?}");
    }

    #[test]
    fn stalls_of_long_ago_are_forgotten() {
        let mut stalls = RecentStalls::default();
        stalls.record(Duration::from_secs(60), Duration::from_secs(60));
        assert_eq!(stalls.share(), Some(1.0));
        (0..99).for_each(|_| stalls.record(STEP, Duration::ZERO));
        assert!(stalls.share() > Some(0.8));
        stalls.record(STEP, Duration::ZERO);
        assert_eq!(stalls.share(), Some(0.0));
    }

    #[test]
    fn a_moment_is_no_share_and_moments_add_up() {
        let mut stalls = RecentStalls::default();
        for _ in 0..499 {
            stalls.record(Duration::from_millis(1), Duration::from_micros(200));
        }
        assert_eq!(stalls.share(), None);
        for _ in 0..100_000 {
            stalls.record(Duration::from_millis(1), Duration::from_micros(200));
        }
        assert!(stalls.share().is_some_and(|share| (share - 0.2).abs() < 1e-6));
        assert!(stalls.intervals.len() <= 102, "{}", stalls.intervals.len());
    }
}
