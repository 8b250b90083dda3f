//! Changes of the host's swap while a watch runs: swapoff(2) and swapon(2).

use std::time::Duration;

/// Interval between looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Times of the last changes, as far as they were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SwapChanges {
    /// Time at which an area was seen to be removed last: the kernel took back what was in it, in
    /// use or not.
    pub removed_at: Option<Duration>,
    /// Time at which one was seen to be added last.
    pub added_at: Option<Duration>,
}

/// Watch over changes.
#[derive(Debug, Default)]
pub(crate) struct SwapChangeWatch {
    looked_at: Option<Duration>,
    /// Size of all swap at the last look; `None` if unknown.
    total: Option<u64>,
    /// True while an area is being emptied, which takes a while.
    leaves: bool,
    changes: SwapChanges,
}

impl SwapChangeWatch {
    /// Returns the changes by now. Looks at most once a second: `total` returns the size of all swap,
    /// and `leaves` whether an area is being emptied.
    pub(crate) fn at(
        &mut self,
        now: Duration,
        total: impl FnOnce() -> Option<u64>,
        leaves: impl FnOnce() -> bool,
    ) -> SwapChanges {
        if self.looked_at.is_some_and(|at| now.saturating_sub(at) < INTERVAL) {
            return self.changes;
        }
        self.looked_at = Some(now);
        let total = total();
        // An area counts no more as soon as swapoff begins.
        let (fell, grew) = match (self.total, total) {
            (Some(before), Some(now)) => (now < before, now > before),
            _ => (false, false),
        };
        self.leaves = (self.leaves || fell) && leaves();
        if fell || self.leaves {
            self.changes.removed_at = Some(now);
        }
        if grew {
            self.changes.added_at = Some(now);
        }
        self.total = total.or(self.total);
        self.changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_lasts_until_the_area_is_empty() {
        let at = Duration::from_secs;
        let mut watch = SwapChangeWatch::default();
        let mut look = |second, total, leaves| {
            let changes = watch.at(at(second), || total, || leaves);
            (changes.removed_at, changes.added_at)
        };
        assert_eq!(look(1, Some(200), false), (None, None));
        assert_eq!(look(2, Some(100), true), (Some(at(2)), None));
        assert_eq!(look(5, Some(100), true), (Some(at(5)), None), "it goes on");
        assert_eq!(look(6, Some(100), false), (Some(at(5)), None));
        assert_eq!(look(7, None, false), (Some(at(5)), None), "unknown is no change");
        assert_eq!(look(8, Some(150), false), (Some(at(5)), Some(at(8))));
        assert_eq!(look(9, Some(150), true), (Some(at(5)), Some(at(8))), "of another size than it says");
    }
}
