//! How often a watch reports on a cgroup: densely at first, when somebody may look on; later the
//! reports of a while are folded into one. A record of a busy cgroup takes a sixth of the space that
//! way.

use std::time::Duration;

/// Time since the watch of a cgroup began for which reports are dense, and the interval later.
const DENSE_TIME: Duration = Duration::from_secs(600);
const FOLDED_INTERVAL: Duration = Duration::from_secs(10);

/// Returns the interval between reports on a cgroup that was watched for so long, of which the
/// interval is `dense` at first.
#[must_use]
pub(crate) fn interval(watched: Duration, dense: Duration) -> Duration {
    if watched < DENSE_TIME { dense } else { dense.max(FOLDED_INTERVAL) }
}

/// Usage between two reported samples, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UsageRange(Option<(u64, u64)>);

impl UsageRange {
    /// Records a usage.
    pub(crate) fn record(&mut self, usage: u64) {
        let (least, most) = self.0.unwrap_or((usage, usage));
        self.0 = Some((least.min(usage), most.max(usage)));
    }

    /// Returns the least and the largest usage since the last call, if they differ, for a cgroup that
    /// was watched for so long. `None` while reports are dense.
    pub(crate) fn take(&mut self, watched: Duration) -> Option<(u64, u64)> {
        let range = self.0.take();
        range.filter(|(least, most)| watched >= DENSE_TIME && least < most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_folded_after_a_while() {
        let after = |seconds, dense| interval(Duration::from_secs(seconds), Duration::from_secs(dense));
        assert_eq!(after(0, 2), Duration::from_secs(2));
        assert_eq!(after(599, 2), Duration::from_secs(2));
        assert_eq!(after(600, 2), Duration::from_secs(10));
        assert_eq!(after(600, 60), Duration::from_secs(60), "rarer anyway");
    }

    #[test]
    fn a_range_begins_anew_after_each_sample() {
        let mut range = UsageRange::default();
        let later = DENSE_TIME;
        assert_eq!(range.take(later), None);
        for usage in [5, 3, 9] {
            range.record(usage);
        }
        assert_eq!(range.take(later), Some((3, 9)));
        range.record(4);
        assert_eq!(range.take(later), None, "as the sample says");
        range.record(4);
        range.record(5);
        assert_eq!(range.take(later / 2), None, "a dense one");
    }
}
