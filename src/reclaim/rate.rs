//! A bound on the rate of reclaim, shared by all requests at the same time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Rate limit for all requests together. A write may start as soon as those before it are paid for.
#[derive(Debug)]
pub struct Rate {
    bytes_per_second: u64,
    /// Time at which all writes allowed so far will be paid for, on the clock of
    /// [`super::Target::now`].
    paid_at: Mutex<Duration>,
}

impl Rate {
    /// Creates a bound in bytes per second; at least one.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_at: Mutex::default() }
    }

    /// Returns the bound in bytes per second.
    #[must_use]
    pub(crate) fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// Returns the most bytes that one write should ask for, so that the rate holds over tenths of
    /// a second and not only on average.
    #[must_use]
    pub(crate) fn chunk(&self) -> u64 {
        self.bytes_per_second / 10
    }

    /// Reserves a turn for `bytes`, and returns the time to wait for it.
    pub(crate) fn turn(&self, bytes: u64, now: Duration) -> Duration {
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*paid_at).max(now);
        *paid_at = turn + self.time_for(bytes);
        turn.saturating_sub(now)
    }

    /// Charges `bytes` that were freed beyond the reserved turn.
    pub(crate) fn charge(&self, bytes: u64, now: Duration) {
        let _ = self.turn(bytes, now);
    }

    /// Returns the time that this many bytes take at the rate.
    #[must_use]
    pub(crate) fn time_for(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spaced_by_what_they_take() {
        let rate = Rate::new(1000);
        let at = Duration::from_secs;
        assert_eq!(rate.turn(1000, at(10)), Duration::ZERO);
        assert_eq!(rate.turn(500, at(10)), at(1));
        assert_eq!(rate.turn(1, at(11)), Duration::from_millis(500));
        assert_eq!(rate.turn(1, at(100)), Duration::ZERO, "idle time isn't saved up");
    }
}
