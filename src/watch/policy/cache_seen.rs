//! Page cache of a cgroup as it was lately. Its counters cost more than a small write: the kernel
//! flushes and formats all of `memory.stat`, a tenth of the CPU time of a watch on Linux 7.3.

use std::time::Duration;

/// Time for which a reading serves.
const VALID: Duration = Duration::from_secs(1);

/// The last reading, less what was reclaimed since then. Bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CacheSeen(Option<(Duration, u64)>);

impl CacheSeen {
    /// Records a reading.
    pub(crate) fn saw(&mut self, now: Duration, bytes: u64) {
        self.0 = Some((now, bytes));
    }

    /// Records bytes reclaimed: of page cache at most.
    pub(crate) fn reclaimed(&mut self, bytes: u64) {
        self.0.iter_mut().for_each(|(_, left)| *left = left.saturating_sub(bytes));
    }

    /// Forgets the reading: it was wrong.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }

    /// Returns whether so many bytes are known to be there. If not, only a new reading tells.
    #[must_use]
    pub(crate) fn has(&self, now: Duration, bytes: u64) -> bool {
        self.0.is_some_and(|(at, left)| now.saturating_sub(at) < VALID && left >= bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_serves_for_a_second_less_what_was_reclaimed() {
        let at = Duration::from_millis;
        let mut seen = CacheSeen::default();
        assert!(!seen.has(at(0), 0), "nothing is known");
        seen.saw(at(100), 50);
        assert!(seen.has(at(1099), 50) && !seen.has(at(1100), 50) && !seen.has(at(200), 51));
        seen.reclaimed(20);
        assert!(seen.has(at(200), 30) && !seen.has(at(200), 31));
        seen.reclaimed(40);
        assert!(seen.has(at(200), 0) && !seen.has(at(200), 1));
        seen.forget();
        assert!(!seen.has(at(200), 0));
    }
}
