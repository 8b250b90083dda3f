//! The largest usage within a time. A pure function of usages and their times.

use std::time::Duration;

/// Number of usages that are remembered.
const MAX_PEAKS: usize = 8;

/// Usages that may be the largest within some time: each is smaller than those before it, and later.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peaks {
    all: [Option<(u64, Duration)>; MAX_PEAKS],
}

impl Peaks {
    /// Returns the largest usage of the last `time`.
    pub(super) fn within(&self, time: Duration, now: Duration) -> Option<u64> {
        self.all.iter().flatten().find(|(_, at)| now.saturating_sub(*at) < time).map(|&(usage, _)| usage)
    }

    /// Records a usage; those longer ago than `time` are forgotten.
    pub(super) fn record(&mut self, usage: u64, time: Duration, now: Duration) {
        let is_kept = |&(peak, at): &(u64, Duration)| peak > usage && now.saturating_sub(at) < time;
        let mut kept: Vec<_> = self.all.iter().flatten().copied().filter(is_kept).collect();
        kept.push((usage, now));
        if kept.len() > MAX_PEAKS {
            // Two that are near count as the larger of them, until the time of the later.
            let fall = |index: &usize| kept[*index].0 - kept[index + 1].0;
            if let Some(index) = (0..MAX_PEAKS).min_by_key(fall) {
                kept[index].1 = kept[index + 1].1;
                kept.remove(index + 1);
            }
        }
        self.all = std::array::from_fn(|index| kept.get(index).copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn minute(minute: u64) -> Duration {
        Duration::from_secs(60 * minute)
    }

    #[test]
    fn the_largest_that_is_left_counts_when_a_larger_one_is_over() {
        let mut peaks = Peaks::default();
        for (at, usage) in [(0, 260), (10, 100), (50, 200), (55, 40)] {
            peaks.record(usage, HOUR, minute(at));
        }
        let at = |at| peaks.within(HOUR, minute(at));
        assert_eq!([59, 60, 109, 110, 115].map(at), [Some(260), Some(200), Some(200), Some(40), None]);
    }

    #[test]
    fn many_count_as_fewer_that_are_no_less() {
        let mut peaks = Peaks::default();
        let mut all = Vec::new();
        for at in 0..100u64 {
            let usage = 1000 - 3 * at - (at * 7919) % 50;
            peaks.record(usage, HOUR, minute(at));
            all.push((usage, minute(at)));
            for now in at..at + 70 {
                let is_late = |(_, at): &&(u64, Duration)| minute(now).saturating_sub(*at) < HOUR;
                let largest = all.iter().filter(is_late).map(|&(usage, _)| usage).max();
                let told = peaks.within(HOUR, minute(now));
                assert!(told >= largest, "{told:?} of {largest:?} at {now}");
                assert!(told.is_none_or(|told| told <= largest.unwrap_or(0) + 150), "{told:?}, {largest:?}");
            }
        }
    }
}
