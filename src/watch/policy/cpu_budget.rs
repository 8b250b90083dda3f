//! A limit on the share of a CPU that a watch uses, including the kernel's work for it.

use std::time::Duration;

/// Time for which unused budget is kept, to be used in a burst.
const MAX_SAVED_TIME: Duration = Duration::from_secs(1);

/// Minimum length of a pause.
const MIN_PAUSE: Duration = Duration::from_millis(1);

/// Time whose budget is saved before a pause ends. A wake-up costs CPU time as well: a pause that
/// ended with nothing saved would be followed by the next one, for ever (1% of a CPU in an emulator,
/// where a wake-up costs 0.5 ms).
const REFILL_TIME: Duration = Duration::from_millis(250);

/// CPU budget of a watch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuBudget {
    /// Share of a CPU; `None` without a limit.
    share: Option<f64>,
    /// Remaining budget, seconds; negative when overdrawn.
    left: f64,
    sampled_at: Duration,
    spent: Duration,
}

impl CpuBudget {
    /// Creates a budget from a time at which the process had used `spent` CPU time.
    #[must_use]
    pub(crate) fn new(share: Option<f64>, now: Duration, spent: Duration) -> Self {
        let left = share.unwrap_or(0.0) * MAX_SAVED_TIME.as_secs_f64();
        Self { share, left, sampled_at: now, spent }
    }

    /// Returns the time until which to do nothing, if more than the share was used: a sample costs
    /// CPU time, too. `spent` returns the CPU time used by the process so far; it isn't called
    /// without a limit.
    pub(crate) fn over(&mut self, now: Duration, spent: impl Fn() -> Duration) -> Option<Duration> {
        let (share, spent) = (self.share?, spent());
        let earned = share * now.saturating_sub(self.sampled_at).as_secs_f64();
        let paid = spent.saturating_sub(self.spent).as_secs_f64();
        self.left = (self.left + earned).min(share * MAX_SAVED_TIME.as_secs_f64()) - paid;
        (self.sampled_at, self.spent) = (now, spent);
        // For a tiny share the wait would exceed the range of the clock.
        let wait = |owed: f64| Duration::try_from_secs_f64(owed / share).unwrap_or(Duration::MAX / 2);
        let refilled = share * REFILL_TIME.as_secs_f64();
        (self.left < 0.0).then(|| now.saturating_add(wait(refilled - self.left).max(MIN_PAUSE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overdrawn_budget_causes_a_wait() {
        let ms = Duration::from_millis;
        let mut budget = CpuBudget::new(Some(0.1), ms(1000), ms(50));
        assert_eq!(budget.over(ms(1000), || ms(150)), None, "the budget of a second may be used at once");
        let until = budget.over(ms(1100), || ms(180)).expect("20 ms too much");
        assert!((ms(1549)..ms(1551)).contains(&until), "for 20 ms, and 25 ms of reserve: {until:?}");
        assert_eq!(budget.over(ms(1551), || ms(180)), None);
        // Unused budget is kept for one second, no longer.
        assert_eq!(budget.over(ms(60_000), || ms(280)), None);
        assert!(budget.over(ms(60_000), || ms(290)).is_some());
        assert!(CpuBudget::new(Some(0.0), ms(0), ms(0)).over(ms(1), || ms(900)).is_some());
        assert_eq!(CpuBudget::new(None, ms(0), ms(0)).over(ms(1), || ms(900)), None);
    }

    #[test]
    fn wake_ups_dont_use_up_what_a_pause_saved() {
        let (mut budget, mut spent, mut now) =
            (CpuBudget::new(Some(0.01), Duration::ZERO, Duration::ZERO), Duration::ZERO, Duration::ZERO);
        let mut worked = 0;
        while now < Duration::from_secs(60) {
            // Half a millisecond for each round, and five for work.
            spent += Duration::from_micros(500);
            let until = budget.over(now, || spent);
            now = until
                .map_or(now + Duration::from_millis(5), |until| until.min(now + Duration::from_millis(250)));
            if until.is_none() {
                (worked, spent) = (worked + 1, spent + Duration::from_millis(5));
            }
        }
        assert!(worked > 50, "{worked}");
        assert!(spent < Duration::from_millis(620), "{spent:?}");
    }

    #[test]
    fn cpu_time_stays_within_the_share() {
        let (mut budget, mut spent, mut now) =
            (CpuBudget::new(Some(0.03), Duration::ZERO, Duration::ZERO), Duration::ZERO, Duration::ZERO);
        while now < Duration::from_secs(60) {
            let until = budget.over(now, || spent);
            now = until.unwrap_or(now + Duration::from_millis(3));
            spent += if until.is_some() { Duration::ZERO } else { Duration::from_millis(2) };
        }
        assert!(spent < Duration::from_millis(1800 + 40), "{spent:?}");
        assert!(spent > Duration::from_millis(1700), "{spent:?}");
    }
}
