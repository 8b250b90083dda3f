//! Changes of the host's swap while a watch runs: swapoff(2) and swapon(2).

use std::time::Duration;

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
    /// Size of all swap, as of the last look; `None` if unknown.
    total: Option<u64>,
    changes: SwapChanges,
}

impl SwapChangeWatch {
    /// Returns the changes by now, with this much swap in all; `None` if that is unknown. While
    /// swapoff(2) empties an area, the total falls: the kernel counts what is still used of it
    /// (`si_swapinfo`).
    pub(crate) fn at(&mut self, now: Duration, total: Option<u64>) -> SwapChanges {
        if let Some((before, total)) = self.total.zip(total) {
            if total < before {
                self.changes.removed_at = Some(now);
            }
            if total > before {
                self.changes.added_at = Some(now);
            }
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
        let mut look = |second, total| {
            let changes = watch.at(at(second), total);
            (changes.removed_at, changes.added_at)
        };
        assert_eq!(look(1, Some(200)), (None, None));
        assert_eq!(look(2, Some(150)), (Some(at(2)), None));
        assert_eq!(look(5, Some(100)), (Some(at(5)), None), "it goes on");
        assert_eq!(look(6, Some(100)), (Some(at(5)), None));
        assert_eq!(look(7, None), (Some(at(5)), None), "unknown is no change");
        assert_eq!(look(8, Some(150)), (Some(at(5)), Some(at(8))));
    }
}
