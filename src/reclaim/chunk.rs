//! The size of one write: a pure function of the missing bytes and of the measured speed.
//!
//! A chunk is the smaller of two bounds. *In time*: some tens of milliseconds at the measured
//! speed, so that a signal is answered promptly (before 6.6 the kernel checks for signals only at
//! the end of a write) and `rmdir` of the cgroup, which waits for the write with `cgroup_mutex`
//! held, isn't held up. *In size*: an eighth of the missing bytes, but no less than [`SMALLEST`],
//! so that a kernel which frees more than was asked can't overshoot far.
//!
//! Kernels from 6.9 on size their own batches by the rest of the request and meet it exactly, and
//! every write has its cost: with an eighth, 64 MiB of page cache cost 14% more than one bare write
//! on 7.3, most of it inside the writes. There a chunk is half of the missing bytes, so that even
//! one which a stop signal makes the kernel begin anew can't overshoot; and a rest is requested at
//! once if it is at most a sixteenth of the request, or takes some milliseconds only, in which a
//! stop signal is most unlikely.

use std::time::Duration;

use super::overshoot::is_much;

/// Target duration of one write.
const TIME: Duration = Duration::from_millis(30);

/// Part of [`TIME`] up to which a write is short: a sixth, 5 ms.
const SHORT: u64 = 6;

/// Smallest chunk, in bytes: the kernel's own batch, `SWAP_CLUSTER_MAX` pages. Asking for less
/// costs the kernel as much work.
pub(crate) const SMALLEST: u64 = 128 << 10;

/// First chunk, in bytes, while no speed is known yet.
const FIRST: u64 = SMALLEST;

/// Maximum ratio of a chunk to the one before it, for a kernel that overshoots and for an exact
/// one.
const STEP: u64 = 16;
const EXACT_STEP: u64 = 64;

/// Speed of the writes so far, and the chunk size that follows from the speed.
#[derive(Clone, Debug)]
pub struct Pace {
    in_time: u64,
    exactly: bool,
    /// Bytes that are requested at once when no more is missing.
    rest: u64,
}

impl Pace {
    /// Creates the pace of a request of `whole` bytes, to a kernel that meets requests `exactly` or
    /// to one that overshoots.
    #[must_use]
    pub(crate) fn new(exactly: bool, whole: u64) -> Self {
        let rest = if exactly { whole / 16 } else { 0 };
        Self { in_time: FIRST, exactly, rest }
    }

    /// Records a write that asked for `bytes` and took `time`.
    pub(crate) fn record(&mut self, bytes: u64, time: Duration) {
        let nanos = time.as_nanos().max(1);
        let fitting = u128::from(bytes) * TIME.as_nanos() / nanos;
        let fitting = u64::try_from(fitting).unwrap_or(u64::MAX);
        // Upwards only by steps: one quick write, served from pages at hand, promises little for
        // the next. Downwards at once, but only as far as this write shows: the chunk of a nearly
        // met request says nothing about larger ones.
        let step = if self.exactly { EXACT_STEP } else { STEP };
        self.in_time =
            if fitting >= self.in_time { fitting.min(self.in_time.saturating_mul(step)) } else { fitting }
                .max(SMALLEST);
    }

    /// Returns the next chunk, at most `missing` bytes, in whole pages of `page` bytes. `ready` is
    /// the number of bytes that can be reclaimed at once where asking for more would write ahead to
    /// swap.
    #[must_use]
    pub(crate) fn chunk(&self, missing: u64, ready: u64, page: u64) -> u64 {
        let in_size = match self.exactly {
            false => missing / 8,
            true if missing <= self.rest.max(self.in_time / SHORT) => missing,
            true => missing / 2,
        };
        let in_size = in_size.min(ready).max(SMALLEST);
        in_pages(in_size.min(self.in_time), missing, page)
    }

    /// Returns the most bytes to request at once from a cgroup with this much slab and page cache,
    /// while `missing` bytes are missing.
    ///
    /// Slab is freed along with what is requested, and more of it the harder the kernel has to
    /// search. On a kernel that overshoots, 1 MiB took 9 MiB of a cgroup with 6 MiB of page cache
    /// and 25 MiB of dentries and inodes, and 128 KiB 0.1 to 1.5 MiB (6.1). An exact one takes next
    /// to no slab as long as page cache is left, and then all at once (6.12, 7.3): so the bound is
    /// half of the page cache.
    #[must_use]
    pub(crate) fn beside_slab(&self, missing: u64, slab: u64, cache: u64) -> u64 {
        if !is_much(slab, cache) {
            return u64::MAX;
        }
        if self.exactly { (cache / 2).max(missing / 8) } else { missing / 64 }
    }
}

/// Returns `bytes` in whole pages, at most `missing` rounded up to whole pages, and at least one
/// page.
#[must_use]
pub(crate) fn in_pages(bytes: u64, missing: u64, page: u64) -> u64 {
    let down = |bytes: u64| bytes / page * page;
    down(bytes).min(down(missing.saturating_add(page - 1))).max(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: u64 = 4096;

    #[test]
    fn the_first_chunk_is_small_whatever_is_asked() {
        assert_eq!(Pace::new(false, 0).chunk(u64::MAX, u64::MAX, PAGE), FIRST);
        assert_eq!(Pace::new(false, 0).chunk(1 << 20, u64::MAX, PAGE), SMALLEST);
        assert_eq!(Pace::new(false, 0).chunk(5000, u64::MAX, PAGE), 8192);
        assert_eq!(Pace::new(false, 0).chunk(1, u64::MAX, PAGE), PAGE);
    }

    #[test]
    fn a_fast_kernel_is_asked_for_more_and_a_slow_one_for_less() {
        let mut pace = Pace::new(false, 0);
        for _ in 0..10 {
            let chunk = pace.chunk(10 << 30, u64::MAX, PAGE);
            pace.record(chunk, Duration::from_millis(chunk / (1 << 20))); // 1 GiB a second
        }
        let fast = pace.chunk(10 << 30, u64::MAX, PAGE);
        assert!((28 << 20..=31 << 20).contains(&fast), "{fast}");
        pace.record(fast, Duration::from_secs(30)); // 1 MiB a second: slow swap
        assert_eq!(pace.chunk(10 << 30, u64::MAX, PAGE), SMALLEST);
    }

    #[test]
    fn an_exact_kernel_is_asked_for_half_and_then_for_the_rest() {
        let mut pace = Pace::new(true, 64 << 20);
        let mut writes = 0;
        let mut missing = 64 << 20;
        while missing > 0 {
            let chunk = pace.chunk(missing, u64::MAX, PAGE);
            pace.record(chunk, Duration::from_millis(chunk / (2 << 20))); // 2 GiB a second
            missing -= chunk;
            writes += 1;
        }
        assert!(writes <= 7, "{writes}");
    }

    #[test]
    fn slab_makes_for_small_chunks() {
        const M: u64 = 1 << 20;
        assert_eq!(Pace::new(true, 0).beside_slab(100 * M, M / 2, 0), u64::MAX, "too little to matter");
        assert_eq!(
            Pace::new(false, 0).beside_slab(100 * M, 20 * M, 100 * M),
            u64::MAX,
            "page cache is scanned first"
        );
        assert_eq!(Pace::new(false, 0).beside_slab(64 * M, 26 * M, 100 * M), M);
        assert_eq!(Pace::new(true, 0).beside_slab(8 * M, 24 * M, 6 * M), 3 * M);
        assert_eq!(Pace::new(true, 0).beside_slab(800 * M, 24 * M, 0), 100 * M, "but not for ever");
    }

    proptest! {
        #[test]
        fn a_chunk_is_whole_pages_and_never_more_than_is_missing(
            missing in 1u64..1 << 50, asked in 1u64..1 << 40, nanos in 0u64..1 << 40,
        ) {
            let mut pace = Pace::new(false, 0);
            pace.record(asked, Duration::from_nanos(nanos));
            let chunk = pace.chunk(missing, u64::MAX, PAGE);
            prop_assert!(chunk >= PAGE && chunk.is_multiple_of(PAGE));
            prop_assert!(chunk < missing.saturating_add(PAGE));
            prop_assert!(chunk <= (missing / 8).max(SMALLEST));
        }
    }
}
