//! The policy of the guard `above`: decides from the memory pressure of one level of the hierarchy
//! whether `--pressure` and `--keep` hold below it. Does no I/O and reads no clock.
//!
//! When the pressure of a level passes its limit, a killer that chooses its victim by `pgscan`
//! takes the cgroup that scans most. Pages scanned by memctl count as the cgroup's own, so a quiet
//! cgroup under reclaim would die for one that thrashes. The policy therefore stops reclaim well
//! before: at half of the limit.

use std::time::Duration;

/// Minimum duration of a hold, from the last time at which the pressure was over the threshold.
const MIN_HOLD: Duration = Duration::from_secs(10);

/// Threshold where the limit isn't known, hundredths of a percent: half of 5%, the lowest limit
/// found in use.
const UNKNOWN_THRESHOLD: u16 = 250;

/// Threshold of the whole host where no killer monitors it, hundredths of a percent. It is above
/// the pressure of one service that reads page cache beyond its own limit (3.4%, measured on two
/// emulated processors, Linux 6.12), and about that of a service that swaps beyond its own limit
/// (17 to 33%), or of tasks that touch more memory than the host has (25.6% after 30 s, and
/// rising). No process is killed there: a needless hold costs nothing but memory that isn't
/// reclaimed yet.
const HOST_THRESHOLD: u16 = 2000;

/// Limit of a level, as far as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A killer monitors the level, with this limit on `full` avg10, hundredths of a percent.
    Known(u16),
    /// A killer may monitor the level.
    Unknown,
    /// The level is the whole host, and no killer is known to monitor it.
    Host,
}

impl Limit {
    /// Returns the `full` avg10 above which the policy holds, hundredths of a percent.
    #[must_use]
    pub fn threshold(self) -> u16 {
        match self {
            Self::Known(limit) => limit / 2,
            Self::Unknown => UNKNOWN_THRESHOLD,
            Self::Host => HOST_THRESHOLD,
        }
    }
}

/// The policy for one level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AbovePolicy {
    threshold: u16,
    over: Option<Over>,
}

/// Pressure for which the policy holds.
#[derive(Clone, Copy, Debug)]
struct Over {
    /// Last time at which the pressure was over the threshold.
    at: Duration,
    /// Highest pressure during the hold, hundredths of a percent.
    peak: u16,
}

impl AbovePolicy {
    /// Creates the policy for a level with this limit.
    #[must_use]
    pub(crate) fn new(limit: Limit) -> Self {
        Self { threshold: limit.threshold(), over: None }
    }

    /// Sets another limit. A hold continues only if the pressure was over the new threshold at some
    /// time during it: until the monitored levels are known, every level counts as monitored, and
    /// holds due to that alone are released.
    pub(crate) fn adopt(&mut self, limit: Limit) {
        self.threshold = limit.threshold();
        self.over = self.over.filter(|over| over.peak > self.threshold);
    }

    /// Records the pressure (`full` avg10, hundredths of a percent).
    pub(crate) fn sample(&mut self, at: Duration, avg10: u16) {
        if avg10 > self.threshold {
            let peak = self.over.map_or(avg10, |over| over.peak.max(avg10));
            self.over = Some(Over { at, peak });
        } else if self.over.is_some_and(|over| at.saturating_sub(over.at) >= MIN_HOLD)
            && (avg10 < self.threshold / 2 || avg10 == 0)
        {
            self.over = None;
        }
    }

    /// Returns the earliest time at which the hold may end; `None` without a hold.
    #[must_use]
    pub(crate) fn holds_until(&self) -> Option<Duration> {
        self.over.map(|over| over.at + MIN_HOLD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::pressure::Pressure;

    /// Marks the samples, one a second, after which the policy held.
    fn held(limit: Limit, samples: &[u16]) -> String {
        let mut policy = AbovePolicy::new(limit);
        let each = samples.iter().zip(100..).map(|(&avg10, second)| {
            policy.sample(Duration::from_secs(second), avg10);
            if policy.holds_until().is_some() { '#' } else { '.' }
        });
        each.collect()
    }

    #[test]
    fn a_hold_lasts_from_half_of_the_limit_to_a_quarter() {
        // With a limit of 5%: over 2.5%, until below 1.25%.
        let mut samples = vec![0, 250, 251, 200];
        samples.extend([125; 12]);
        samples.extend([124, 0]);
        assert_eq!(held(Limit::Known(500), &samples), "..##############..");
        assert_eq!(held(Limit::Known(6000), &[2999, 3000, 3001]), "..#");
    }

    #[test]
    fn a_hold_lasts_at_least_10_s() {
        let mut samples = vec![0; 14];
        samples[1] = 10_000;
        assert_eq!(held(Limit::Known(500), &samples), ".##########...");
        samples[6] = 300;
        assert_eq!(held(Limit::Known(500), &samples), ".#############", "it was over again");
    }

    #[test]
    fn odd_limits_hold_and_are_released() {
        let samples = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(held(Limit::Known(0), &samples), ".##########.");
        assert_eq!(held(Limit::Known(1), &samples), ".##########.");
        assert_eq!(held(Limit::Known(u16::MAX), &[10_000]), ".");
        assert_eq!(held(Limit::Unknown, &[250, 251]), ".#");
        assert_eq!(held(Limit::Host, &[HOST_THRESHOLD, HOST_THRESHOLD + 1]), ".#");
        let mut policy = AbovePolicy::new(Limit::Known(500));
        policy.sample(Duration::from_secs(9), 251);
        // A clock that was set back, as far as a monotonic clock may be.
        policy.sample(Duration::ZERO, 0);
        assert!(policy.holds_until().is_some());
    }

    #[test]
    fn another_limit_applies_to_a_hold() {
        let mut policy = AbovePolicy::new(Limit::Unknown);
        for (second, avg10) in [(7, 2600), (8, 251), (9, 251)] {
            policy.sample(Duration::from_secs(second), avg10);
        }
        // The pressure was over the host's threshold as well, so the hold continues under the
        // host's rules.
        policy.adopt(Limit::Host);
        assert_eq!(policy.holds_until(), Some(Duration::from_secs(19)));
        policy.adopt(Limit::Known(6000));
        assert_eq!(policy.holds_until(), None, "never over 30%");
        policy.adopt(Limit::Unknown);
        assert_eq!(policy.holds_until(), None, "the next sample decides");
        policy.sample(Duration::from_secs(10), 251);
        policy.adopt(Limit::Host);
        assert_eq!(policy.holds_until(), None, "never over 20%");
    }

    #[test]
    fn texts_of_the_kernel_are_followed() {
        let text = |some: &str, full: &str| {
            format!(
                "some avg10={some} avg60=0.00 avg300=0.00 total=9\nfull avg10={full} avg60=0.00 avg300=0.00 total=8\n"
            )
        };
        let holds = |text: &str| {
            let full = Pressure::parse(text).and_then(|pressure| pressure.full);
            full.map(|full| held(Limit::Known(500), &[full.avg10]) == "#")
        };
        assert_eq!(holds(&text("99.00", "2.50")), Some(false), "some doesn't count");
        assert_eq!(holds(&text("2.60", "2.51")), Some(true));
        assert_eq!(holds(&text("100.00", "100.00")), Some(true));
        for odd in ["", "some avg10=1.00 total=9\n", "some avg10=1.00 total=9\nfull avg10=nan total=1\n"] {
            assert_eq!(holds(odd), None, "{odd}");
        }
        assert_eq!(holds(&text("655.99", "655.99")), None, "no share of a time");
    }
}
