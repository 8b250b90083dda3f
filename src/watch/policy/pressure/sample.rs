//! A sample for the `--pressure` policy.

use std::time::Duration;

use crate::watch::policy::reuse::{Anon, Refaulted, ReuseSample};

/// Reclaimed share of the scanned bytes below which only memory in use is left, or the lists aren't
/// sorted yet. Such memory yields 1 to 3%, other memory all of it (Linux 7.3, MGLRU). Fewer than
/// `MIN_SCANNED` bytes are too few for a conclusion.
const POOR_EFFICIENCY: f64 = 0.2;
pub(super) const MIN_SCANNED: u64 = 1 << 20;

/// Number of times that the kernel may scan page cache that it can't take before it is written.
const UNWRITTEN_SCANS: u64 = 2;

/// One sample of a cgroup. Amounts are bytes, counters run since the cgroup was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PressureSample {
    /// Time of the sample, on the monotonic clock.
    pub at: Duration,
    /// `memory.current`.
    pub current: u64,
    /// Part of it that is compressed copies (zswap).
    pub copies: u64,
    /// Time for which its tasks were stalled on memory (PSI `some`); `None` where it can't be read.
    pub stalled: Option<Duration>,
    /// Time for which its tasks waited for I/O (PSI `some` of IO); `None` where it can't be read.
    pub waited: Option<Duration>,
    /// Refaulted bytes that are in use: restores and swap-ins.
    pub returned: u64,
    /// All refaulted bytes.
    pub refaulted: u64,
    /// Anonymous memory of `refaulted`.
    pub refaulted_anon: u64,
    /// Anonymous memory of `returned`: swap-ins.
    pub returned_anon: u64,
    /// Anonymous memory reclaimed so far; `None` if unknown.
    pub taken_anon: Option<u64>,
    /// Bytes in swap, with those in zswap; `None` if unknown.
    pub in_swap: Option<u64>,
    /// Anonymous memory that counts beside the rest, and could be swapped out.
    pub swappable: Anon,
    /// Page cache that could be evicted now.
    pub file: u64,
    /// Part of it that has to be written first: dirty, or under writeback.
    pub unwritten: u64,
    /// Anonymous memory that could be swapped out now.
    pub anon: u64,
    /// Bytes swapped out.
    pub swapped_out: u64,
    /// Bytes in swap, without those in zswap; `None` if unknown.
    pub on_device: Option<u64>,
    /// Bytes under writeback now, to swap or to disk.
    pub writeback: u64,
    /// Bytes that the host may submit to its swap devices now, see
    /// [`SwapQueue`](crate::watch::policy::swap_queue::SwapQueue); `None` if unknown, or there are none.
    pub queue_room: Option<u64>,
    /// Bytes scanned for reclaim, of which `taken` were reclaimed; 0 where the kernel doesn't
    /// report it.
    pub scanned: u64,
    /// Bytes reclaimed, see `scanned`.
    pub taken: u64,
}

impl PressureSample {
    /// Returns the part of it that a check needs.
    pub(super) fn for_check(&self) -> ReuseSample {
        let PressureSample { at, current, copies, taken_anon, in_swap, swappable: anon, .. } = *self;
        let refaulted = Refaulted { all: self.refaulted, anon: self.refaulted_anon };
        ReuseSample { at, current, copies, refaulted, taken_anon, in_swap, anon }
    }

    /// Returns whether page cache that can be taken at once is less than this many bytes, and less
    /// than what has to be written first.
    pub(super) fn is_unwritten(&self, bytes: f64) -> bool {
        let clean = self.file.saturating_sub(self.unwritten);
        (clean as f64) < bytes && clean < self.unwritten
    }

    /// Returns the page cache that is dirty, and not under writeback yet.
    pub(super) fn dirty(&self) -> u64 {
        self.unwritten.saturating_sub(self.writeback)
    }

    /// Returns the bytes by which what is in swap grew since another sample; `None` if unknown.
    pub(super) fn submitted_since(&self, last: &Self) -> Option<u64> {
        self.on_device.zip(last.on_device).map(|(now, before)| now.saturating_sub(before))
    }

    /// Returns the bytes scanned since another sample, and those of them that were scanned in vain.
    /// What was swapped out to a device was taken, though it is freed later.
    pub(super) fn scanned_since(&self, last: &Self) -> (u64, u64) {
        let scanned = self.scanned.saturating_sub(last.scanned);
        let taken = self.taken.saturating_sub(last.taken);
        let taken = self.submitted_since(last).map_or(taken, |submitted| taken.max(submitted));
        (scanned, scanned.saturating_sub(taken))
    }

    /// Returns whether the kernel scanned much since another sample, and took little of it, beside
    /// page cache that has to be written first: of a writer of 4 MB/s, 25 of 26 MiB in a write (Linux
    /// 7.3).
    pub(super) fn is_poor_since(&self, last: &Self) -> bool {
        let (scanned, in_vain) = self.scanned_since(last);
        let unwritten = (UNWRITTEN_SCANS * self.unwritten.max(last.unwritten)).min(in_vain);
        let (scanned, in_vain) = (scanned - unwritten, in_vain - unwritten);
        scanned >= MIN_SCANNED && in_vain as f64 > (1.0 - POOR_EFFICIENCY) * scanned as f64
    }
}
