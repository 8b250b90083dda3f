//! A bound on the share of a CPU that a watch spends, the kernel's work for it included.

use std::time::Duration;

/// The share is held over such a time.
const BUDGET: Duration = Duration::from_secs(1);

/// What may be spent, and what was since the count began.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// `None` without a bound.
    share: Option<f64>,
    since: Duration,
    before: Duration,
}

impl Budget {
    /// From a moment at which the process had spent so much CPU time.
    #[must_use]
    pub fn new(share: Option<f64>, now: Duration, spent: Duration) -> Self {
        Self { share, since: now, before: spent }
    }

    /// Until when to wait, if more than the share was spent since the count began. `spent` tells how much the process
    /// has by now; it isn't asked without a bound.
    pub fn over(&mut self, now: Duration, spent: impl Fn() -> Duration) -> Option<Duration> {
        let (share, spent) = (self.share?, spent());
        let spent_since = spent.saturating_sub(self.before).as_secs_f64();
        // A share of next to nothing asks for more than a clock has.
        let wait = Duration::try_from_secs_f64(spent_since / share).unwrap_or(Duration::MAX / 2);
        let fair_at = self.since.saturating_add(wait);
        if fair_at > now {
            return Some(fair_at);
        }
        if now.saturating_sub(self.since) >= BUDGET {
            (self.since, self.before) = (now, spent);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_spent_has_to_be_waited_for() {
        let ms = Duration::from_millis;
        let mut budget = Budget::new(Some(0.1), ms(1000), ms(50));
        assert_eq!(budget.over(ms(1100), || ms(60)), None, "10 ms of 100");
        assert_eq!(budget.over(ms(1100), || ms(80)), Some(ms(1300)));
        // The count begins anew: what wasn't spent is no credit.
        assert_eq!(budget.over(ms(2500), || ms(80)), None);
        assert_eq!(budget.over(ms(2500), || ms(100)), Some(ms(2700)));
        assert!(Budget::new(Some(0.0), ms(0), ms(0)).over(ms(1), || ms(900)).is_some());
        assert_eq!(Budget::new(None, ms(0), ms(0)).over(ms(1), || ms(900)), None);
    }
}
