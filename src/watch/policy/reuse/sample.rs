//! A sample for the check of a press.

use std::time::Duration;

/// A sample. Amounts are bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReuseSample {
    /// Time of the sample, on the monotonic clock.
    pub at: Duration,
    /// `memory.current`.
    pub current: u64,
    /// Part of the usage that is compressed copies (zswap).
    pub copies: u64,
    /// All bytes that refaulted since the cgroup was created, in use or not.
    pub refaulted: u64,
}

impl ReuseSample {
    /// Returns the usage without copies.
    pub(super) fn set(&self) -> u64 {
        self.current.saturating_sub(self.copies)
    }
}
