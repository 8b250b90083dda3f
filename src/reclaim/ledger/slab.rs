//! Slab and the application in the ledger: the share of dentries and inodes, which the kernel frees
//! along with what it is asked for and doesn't count, and the memory that the application freed by
//! itself.

use super::Ledger;
use crate::cgroup::stat::MemoryStat;
use crate::reclaim::LARGE_FOLIO;

/// Share of the counted bytes below which slab isn't reported separately: that much goes with any
/// page cache (the nodes of its trees, 576 bytes for 64 pages). It is the default tolerance, 3%.
const MIN_SHARE: u64 = 32;

impl Ledger {
    /// Returns the bytes by which reclaimable slab shrank since the start; 0 if it grew.
    #[must_use]
    pub(crate) fn slab_fell(&self) -> u64 {
        fall(self.start.1.shrinkable_slab(), self.stat.shrinkable_slab())
    }

    /// Returns the progress in bytes: pages reclaimed or demoted, and slab.
    #[must_use]
    pub(crate) fn moved_with_slab(&self) -> u64 {
        self.moved().saturating_add(self.slab_fell())
    }

    /// Returns the bytes of slab among those reclaimed. `pgsteal` counts pages of the LRU lists on
    /// every kernel; before 6.4 only the kernel's own loop counts slab too (`reclaim_state`,
    /// mm/vmscan.c).
    #[must_use]
    pub(crate) fn slab(&self) -> u64 {
        let fell = self.slab_fell();
        if fell > self.moved() / MIN_SHARE { fell } else { 0 }
    }

    /// Returns the bytes of the counter and of slab together, less demotions; where there is no
    /// counter, the decrease of the usage as of the last read of the counters.
    pub(super) fn counted_with_slab(&self) -> u64 {
        match self.counted() {
            Some(counted) => counted.saturating_add(self.slab()),
            None => self.start.0.saturating_sub(self.at_stat.usage).saturating_add(self.slab_beside_usage()),
        }
    }

    /// Returns the bytes of slab that the usage doesn't contain: `memory.current` does, the LRU
    /// lists don't.
    pub(super) fn slab_beside_usage(&self) -> u64 {
        if self.usage_has_slab() { 0 } else { self.slab() }
    }

    /// Returns the bytes that the application freed by itself: the decrease of the LRU lists beyond
    /// what was reclaimed from them, and of memory that reclaim never takes (socket buffers,
    /// stacks, page tables). 0 where `memory.stat` doesn't show it.
    #[must_use]
    pub(crate) fn given_back(&self) -> u64 {
        // Without a counter, no measure shows how much of the decrease was reclaimed.
        let Some(counted) = self.counted() else { return 0 };
        let (start, now) = (&self.start.1, &self.stat);
        let lru = fall(start.lru_total(), now.lru_total());
        let others = [
            fall(start.sock, now.sock),
            fall(start.kernel_stack, now.kernel_stack),
            fall(start.pagetables, now.pagetables),
        ];
        lru.saturating_sub(counted).saturating_add(others.iter().sum())
    }

    /// Returns the decrease of the usage in bytes, less what the application is known to have
    /// freed.
    #[must_use]
    pub(crate) fn fell_by_reclaim(&self) -> u64 {
        self.fell().saturating_sub(self.given_back())
    }

    /// Returns the bytes of [`Ledger::fell_by_reclaim`] that neither the counter nor slab explains,
    /// beyond a large folio and the lag of the counters. A smaller difference is no reason to doubt
    /// them: the usage is blurred by the CPUs' batches of charges, as much again.
    #[must_use]
    pub(crate) fn unexplained(&self) -> u64 {
        let known = self.counted_with_slab().saturating_add(self.blind).saturating_add(LARGE_FOLIO);
        self.fell_by_reclaim().saturating_sub(known)
    }

    /// Returns the bytes of reclaimable slab that are left, and of page cache on the LRU lists.
    #[must_use]
    pub(crate) fn slab_and_cache(&self) -> (u64, u64) {
        (self.stat.shrinkable_slab().unwrap_or(0), self.stat.evictable_file())
    }
}

fn fall(from: Option<u64>, to: Option<u64>) -> u64 {
    from.zip(to).map_or(0, |(from, to)| from.saturating_sub(to))
}

impl MemoryStat {
    /// Returns the bytes of slab that shrinkers free: dentries, inodes. All slab where the kernel
    /// doesn't separate it.
    #[must_use]
    pub(crate) fn shrinkable_slab(&self) -> Option<u64> {
        self.slab_reclaimable.or(self.slab)
    }

    /// Returns the bytes on the LRU lists, unevictable ones and the swap cache included, each page
    /// once (`file` and `anon` both count a page of the swap cache that is mapped); of older
    /// kernels `anon` and `file`.
    #[must_use]
    pub(crate) fn lru_total(&self) -> Option<u64> {
        let lists =
            [self.inactive_anon, self.active_anon, self.inactive_file, self.active_file, self.unevictable];
        let sum = |amounts: &[Option<u64>]| amounts.iter().copied().sum::<Option<u64>>();
        sum(&lists).or_else(|| sum(&[self.anon, self.file]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Measure, Measured, Measures};
    use super::*;

    const M: u64 = 1 << 20;
    const PAGE: u64 = 4096;

    fn stat(stolen: u64, slab: u64, file: u64) -> MemoryStat {
        MemoryStat {
            pgsteal_proactive: Some(stolen / PAGE),
            slab_reclaimable: Some(slab),
            anon: Some(0),
            file: Some(file),
            ..MemoryStat::default()
        }
    }

    fn ledger(blind: u64) -> Ledger {
        let stat = stat(0, 60 * M, 40 * M);
        Ledger::new(Measures::of_cgroup(&stat, true), 100 * M, stat, blind, PAGE)
    }

    #[test]
    fn slab_that_shrinks_is_reclaimed() {
        let mut book = ledger(M);
        book.enter_usage(50 * M);
        assert!(book.enter_stat(stat(0, 10 * M, 40 * M)), "it is progress");
        assert_eq!((book.estimate(), book.moved(), book.given_back()), (50 * M, 0, 0));
        let taken = Measured {
            reclaimed: 50 * M,
            slab: 50 * M,
            unconfirmed: 0,
            measured_by: Measure::PgstealProactive,
        };
        assert_eq!((book.taken(), book.discrepancy()), (taken, 0));
    }

    #[test]
    fn the_slab_that_goes_with_any_page_cache_is_not_told_apart() {
        let mut book = ledger(0);
        book.credit(32 * M);
        book.enter_usage(67 * M);
        book.enter_stat(stat(32 * M, 59 * M, 8 * M));
        assert_eq!((book.taken().reclaimed, book.taken().slab), (32 * M, 0));
        book.enter_stat(stat(32 * M, 57 * M, 8 * M));
        assert_eq!((book.taken().reclaimed, book.taken().slab), (35 * M, 3 * M));
    }

    #[test]
    fn at_the_root_the_usage_has_no_slab() {
        let stat = |stolen, slab| stat(stolen, slab, 40 * M);
        let mut book =
            Ledger::new(Measures::of_cgroup(&stat(0, 60 * M), false), 40 * M, stat(0, 60 * M), 0, PAGE);
        book.enter_stat(stat(0, 50 * M));
        assert_eq!((book.estimate(), book.taken().reclaimed, book.taken().slab), (10 * M, 10 * M, 10 * M));
    }

    #[test]
    fn what_leaves_the_lru_lists_uncounted_is_the_applications() {
        let mut book = ledger(M);
        book.enter_usage(70 * M);
        book.enter_stat(stat(2 * M, 60 * M, 10 * M));
        assert_eq!((book.given_back(), book.fell_by_reclaim(), book.unexplained()), (28 * M, 2 * M, 0));
        // Neither the lists nor slab nor the counter: the decrease is unexplained.
        let mut book = ledger(M);
        book.enter_usage(70 * M);
        book.enter_stat(stat(2 * M, 60 * M, 38 * M));
        assert_eq!((book.given_back(), book.fell_by_reclaim(), book.unexplained()), (0, 30 * M, 25 * M));
    }

    #[test]
    fn the_lists_count_each_page_once_and_are_all_or_none() {
        let mut stat = MemoryStat { anon: Some(5), file: Some(7), ..MemoryStat::default() };
        assert_eq!(stat.lru_total(), Some(12));
        (stat.inactive_anon, stat.active_anon, stat.inactive_file, stat.active_file) =
            (Some(1), Some(2), Some(3), Some(4));
        assert_eq!(stat.lru_total(), Some(12), "one list isn't known");
        stat.unevictable = Some(0);
        assert_eq!(stat.lru_total(), Some(10));
        assert_eq!(MemoryStat::default().lru_total(), None);
    }
}
