//! Refaults, restores and swap-ins after a request, against the rate before, and the stall
//! meanwhile.
//!
//! Memory that was reclaimed and comes back soon was no saving. Of the counters, *refaults* count
//! all pages that come back while the kernel still remembers their eviction; *restores* those among
//! them that were in use when they were evicted, which is the harmful kind; a stream larger than
//! the cache refaults all the time and restores nothing.

use std::time::Duration;

use rustix::io::Errno;

use super::Target;

/// Cumulative refault counters of a cgroup, at one moment. Values that this kernel doesn't offer
/// are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    at: Duration,
    stalled: Option<Duration>,
    came_back: Refaulted,
}

/// Refaulted amounts, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refaulted {
    /// `workingset_refault_anon` and `_file`.
    pub refaulted: Option<u64>,
    /// `workingset_restore_anon` and `_file`.
    pub restored: Option<u64>,
    /// `pswpin` and `zswpin`; before 6.13 `workingset_refault_anon`, the part that the kernel
    /// remembers.
    pub swapped_in: Option<u64>,
}

impl Refaulted {
    fn each(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        let both = |one: Option<u64>, other: Option<u64>| Some(with(one?, other?));
        Self {
            refaulted: both(self.refaulted, other.refaulted),
            restored: both(self.restored, other.restored),
            swapped_in: both(self.swapped_in, other.swapped_in),
        }
    }

    fn since(self, before: Self) -> Self {
        self.each(before, u64::saturating_sub)
    }

    /// Scales the amounts to another time at the same rate.
    fn over(self, seen: Duration, time: Duration) -> Self {
        let ratio = time.as_secs_f64() / seen.as_secs_f64().max(1e-6);
        self.each(self, |bytes, _| (bytes as f64 * ratio) as u64)
    }
}

impl Activity {
    /// Samples the cgroup now.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    pub(crate) fn of(target: &mut (impl Target + ?Sized)) -> Result<Self, Errno> {
        let stat = target.stat(true)?;
        let came_back = Refaulted {
            refaulted: stat.refaulted(),
            restored: stat.restored(),
            swapped_in: stat.swapped_in(),
        };
        Ok(Self { at: target.now(), stalled: target.stalled(), came_back })
    }
}

/// Refaults and stalls of a cgroup after a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Time of observation after the request.
    pub watched: Duration,
    /// Time that tasks of the cgroup were stalled on memory in that time (PSI `some`).
    pub stalled: Option<Duration>,
    /// Refaults from the beginning of the request to the end of that time.
    pub came_back: Refaulted,
    /// Refaults expected in that time at the rate before the request.
    pub usual: Refaulted,
    /// Time of observation before the request, which gave that rate.
    pub watched_before: Duration,
}

impl Settled {
    /// Calculates the difference from samples of the cgroup: two before the request, one right
    /// after it, and one at the end.
    #[must_use]
    pub(crate) fn new(before: &Activity, began: &Activity, ended: &Activity, now: &Activity) -> Self {
        let watched_before = began.at.saturating_sub(before.at);
        let usual = began.came_back.since(before.came_back);
        Self {
            watched: now.at.saturating_sub(ended.at),
            stalled: now.stalled.zip(ended.stalled).map(|(now, ended)| now.saturating_sub(ended)),
            came_back: now.came_back.since(began.came_back),
            usual: usual.over(watched_before, now.at.saturating_sub(began.at)),
            watched_before,
        }
    }

    /// Returns the refaults due to the request, as far as that can be known: those beyond the
    /// usual, in bytes.
    #[must_use]
    pub fn more_than_usual(&self) -> Option<u64> {
        Some(self.came_back.refaulted?.saturating_sub(self.usual.refaulted?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(seconds: u64, stalled_ms: u64, refaulted: u64, restored: u64) -> Activity {
        Activity {
            at: Duration::from_secs(seconds),
            stalled: Some(Duration::from_millis(stalled_ms)),
            came_back: Refaulted { refaulted: Some(refaulted), restored: Some(restored), swapped_in: None },
        }
    }

    #[test]
    fn what_came_back_is_told_against_the_rate_before() {
        let settled = Settled::new(
            &seen(0, 0, 1000, 0),
            &seen(2, 5, 1200, 0),
            &seen(3, 6, 1300, 0),
            &seen(13, 46, 5200, 900),
        );
        assert_eq!(settled.watched, Duration::from_secs(10));
        assert_eq!(settled.stalled, Some(Duration::from_millis(40)));
        assert_eq!(settled.came_back.refaulted, Some(4000), "what came back amid the request too");
        assert_eq!((settled.came_back.restored, settled.came_back.swapped_in), (Some(900), None));
        assert_eq!(settled.usual.refaulted, Some(1100), "100 a second, for eleven seconds");
        assert_eq!(settled.more_than_usual(), Some(2900));
    }

    #[test]
    fn a_rate_from_no_time_at_all_is_no_rate() {
        let same = seen(1, 0, 0, 0);
        let settled = Settled::new(&same, &same, &same, &seen(2, 0, 7, 0));
        assert_eq!((settled.usual.refaulted, settled.came_back.refaulted), (Some(0), Some(7)));
    }
}
