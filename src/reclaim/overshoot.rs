//! Writes that take more than they are asked for.

use std::time::Duration;

/// Maximum wait for lagging counters: the kernel folds them every 2 s, by a timer that may be late.
pub(crate) const COUNTER_TIMEOUT: Duration = Duration::from_millis(2500);

/// Minimum bytes of slab that are waited for.
pub(crate) const MIN_SLAB: u64 = 1 << 20;

/// Returns whether a cgroup has so much slab beside its page cache that the kernel may free slab
/// instead of what it is asked for.
pub(super) fn is_much(slab: u64, cache: u64) -> bool {
    slab >= MIN_SLAB && slab >= cache / 4
}

/// Decrease of the usage or of slab within 20 ms, in bytes, below which no more is expected.
pub(super) const MIN_FALL: u64 = 64 << 10;

/// A write that took more than it was asked for. Amounts are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overshot {
    /// Bytes that the write asked for.
    pub asked: u64,
    /// Bytes by which the usage fell, without what the application is known to have freed
    /// meanwhile.
    pub fell: u64,
}

/// The write that overshot most, the last one, and whether the writes went too far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Writes {
    pub(super) worst: Option<Overshot>,
    /// Bytes that the last write asked for, and the decrease of the usage before it.
    pub(super) last: Option<(u64, u64)>,
    /// True if the usage fell by more than was asked for, and that ended the request.
    pub(super) went_beyond: bool,
}
