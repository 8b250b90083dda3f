//! A bound on the rate of reclaim, shared by all that reclaim at the same time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// So many bytes a second, for everybody together. A write is let go as soon as those before it are paid for.
#[derive(Debug)]
pub struct Rate {
    bytes_per_second: u64,
    /// When all that was let go so far will be paid for, on the clock of [`super::Target::now`].
    paid_at: Mutex<Duration>,
}

impl Rate {
    /// A bound of so many bytes a second; at least one.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_at: Mutex::default() }
    }

    /// The bound.
    #[must_use]
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// The most that one write should ask for, so that the rate holds over tenths of a second and not only on average.
    #[must_use]
    pub fn chunk(&self) -> u64 {
        self.bytes_per_second / 10
    }

    /// Takes its turn for `bytes`, and says how long to wait for it.
    pub fn turn(&self, bytes: u64, now: Duration) -> Duration {
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*paid_at).max(now);
        *paid_at = turn + self.time_for(bytes);
        turn.saturating_sub(now)
    }

    /// Accounts for `bytes` that were freed beyond what a turn was taken for.
    pub fn charge(&self, bytes: u64, now: Duration) {
        let _ = self.turn(bytes, now);
    }

    /// How long so many bytes take at that rate.
    #[must_use]
    pub fn time_for(&self, bytes: u64) -> Duration {
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
