//! Page cache of a cgroup as it was lately. Its counters cost more than a small write: the kernel
//! flushes and formats all of `memory.stat`, a tenth of the CPU time of a watch on Linux 7.3.

use std::time::Duration;

/// Time for which a reading serves.
const VALID: Duration = Duration::from_secs(1);

/// The last reading, less what was reclaimed since then. Bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CacheSeen {
    reading: Option<(Duration, u64)>,
    /// True if the last answer came of an old reading.
    is_trusted: bool,
}

impl CacheSeen {
    /// Records a reading. `u64::MAX` isn't an amount, and doesn't last.
    pub(crate) fn saw(&mut self, now: Duration, bytes: u64) {
        self.reading = Some((now, bytes)).filter(|_| bytes < u64::MAX);
        self.is_trusted = false;
    }

    /// Records bytes reclaimed: of page cache at most.
    pub(crate) fn reclaimed(&mut self, bytes: u64) {
        self.reading.iter_mut().for_each(|(_, left)| *left = left.saturating_sub(bytes));
    }

    /// Records that hardly anything could be reclaimed: the reading was wrong. Returns whether an
    /// answer came of it, so that it is worth asking again.
    pub(crate) fn exhausted(&mut self) -> bool {
        self.reading = None;
        std::mem::take(&mut self.is_trusted)
    }

    /// Returns whether so many bytes are known to be there. If not, only a new reading tells.
    #[must_use]
    pub(crate) fn has(&mut self, now: Duration, bytes: u64) -> bool {
        let is_known = self.reading.is_some_and(|(at, left)| now.saturating_sub(at) < VALID && left >= bytes);
        self.is_trusted |= is_known;
        is_known
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
        assert!(seen.exhausted(), "an answer came of it");
        assert!(!seen.has(at(200), 0) && !seen.exhausted());
        seen.saw(at(300), 50);
        assert!(!seen.exhausted(), "it wasn't asked");
        seen.saw(at(400), u64::MAX);
        assert!(!seen.has(at(400), 1), "no amount");
    }
}
