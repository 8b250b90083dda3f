//! `memory.stat`: amounts in bytes, events in pages.
//!
//! Every field is an `Option`: a value that this kernel doesn't offer is absent, not zero. Unknown
//! keys are skipped, since every kernel adds some.

use crate::host::proc::page_size;
use std::cell::RefCell;

mod parse;

pub use parse::{PackedStat, StatParser};

macro_rules! memory_stat {
    ($($(#[$doc:meta])* $field:ident),* $(,)?) => {
        /// Values of one read of `memory.stat`, as far as memctl uses them.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct MemoryStat {
            $($(#[$doc])* pub $field: Option<u64>,)*
        }

        /// Keys, in the order of the fields.
        const KEYS: &[&str] = &[$(stringify!($field)),*];

        impl MemoryStat {
            fn from_fields(mut fields: impl Iterator<Item = Option<u64>>) -> Self {
                Self { $($field: fields.next().flatten(),)* }
            }
        }
    };
}

memory_stat! {
    /// Anonymous memory, bytes.
    anon,
    /// Page cache, shmem included, bytes.
    file,
    /// Swap-backed page cache (tmpfs, shared anonymous), bytes.
    shmem,
    /// Kernel memory of all kinds: stacks, page tables, slab and more, bytes (since 5.18).
    kernel,
    /// Kernel stacks, bytes.
    kernel_stack,
    /// Page tables, bytes (since 5.11).
    pagetables,
    /// Network buffers, bytes.
    sock,
    /// Page cache mapped by processes, bytes.
    file_mapped,
    /// Page cache not yet written back, bytes.
    file_dirty,
    /// Slab that could be reclaimed, bytes: dentries, inodes.
    slab_reclaimable,
    /// Slab that can't be reclaimed, bytes.
    slab_unreclaimable,
    /// Page cache and swap cache being written out now, bytes.
    file_writeback,
    /// Pages swapped out but still in memory, and still charged, bytes (since 5.13).
    swapcached,
    /// Anonymous LRU, cold half, bytes.
    inactive_anon,
    /// Anonymous LRU, warm half, bytes.
    active_anon,
    /// File LRU, cold half, bytes.
    inactive_file,
    /// File LRU, warm half, bytes.
    active_file,
    /// Memory that is locked or otherwise never reclaimed, bytes.
    unevictable,
    /// Slab in total, bytes.
    slab,
    /// Compressed copies in zswap, bytes (since 5.19).
    zswap,
    /// Content of zswap, uncompressed, bytes (since 5.19).
    zswapped,
    /// Pages reclaimed by any means; the only counter of 5.19.
    pgsteal,
    /// Pages reclaimed in a task's own context: by direct reclaim and, before 6.15, by
    /// `memory.reclaim`.
    pgsteal_direct,
    /// Anonymous pages reclaimed by any means (in memory.stat and in a node's vmstat on newer
    /// kernels, 7.3 among them).
    pgsteal_anon,
    /// Pages reclaimed by kswapd.
    pgsteal_kswapd,
    /// Pages scanned by any means.
    pgscan,
    /// Pages scanned by kswapd.
    pgscan_kswapd,
    /// Pages scanned in a task's own context: by direct reclaim and, before 6.15, by
    /// `memory.reclaim`.
    pgscan_direct,
    /// Pages scanned through `memory.reclaim` (since 6.15).
    pgscan_proactive,
    /// Pages reclaimed through `memory.reclaim`, here or above (since 6.15).
    pgsteal_proactive,
    /// Pages demoted to a slower tier in direct reclaim, and counted in `pgsteal_direct` too.
    pgdemote_direct,
    /// Pages demoted through `memory.reclaim`, and counted in `pgsteal_proactive` too (since 6.15).
    pgdemote_proactive,
    /// Pages written to swap (since 6.13).
    pswpout,
    /// Pages read back from swap (since 6.13).
    pswpin,
    /// Pages stored in zswap (since 5.19).
    zswpout,
    /// Pages read back from zswap (since 5.19).
    zswpin,
    /// Refaults of anonymous pages: read back while the kernel remembered their eviction, pages
    /// (since 5.9).
    workingset_refault_anon,
    /// Refaults of page cache: read back while the kernel remembered its eviction, pages (since
    /// 5.9).
    workingset_refault_file,
    /// Refaults of page cache so soon that it belongs to the working set, pages (since 5.9).
    workingset_activate_file,
    /// Refaults of anonymous pages that were in use at eviction, pages (since 5.9).
    workingset_restore_anon,
    /// Refaults of page cache that was in use at eviction, pages (since 5.9).
    workingset_restore_file,
}

impl MemoryStat {
    /// Parses the text of a `memory.stat`. Allocates nothing after a thread's first call.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Self {
        thread_local! {
            static PARSER: RefCell<StatParser> = RefCell::default();
        }
        PARSER.with_borrow_mut(|parser| Self::from_fields(parser.fields(text).into_iter()))
    }

    /// Returns the memory read back while the kernel remembered its eviction, bytes.
    #[must_use]
    pub fn refaulted(&self) -> Option<u64> {
        pages(self.workingset_refault_file, self.workingset_refault_anon)
    }

    /// Returns the part of [`MemoryStat::refaulted`] that had been in use, bytes.
    #[must_use]
    pub fn restored(&self) -> Option<u64> {
        pages(self.workingset_restore_file, self.workingset_restore_anon)
    }

    /// Returns the memory read back from swap, bytes; before 6.13, the part whose eviction the
    /// kernel remembered.
    #[must_use]
    pub(crate) fn swapped_in(&self) -> Option<u64> {
        pages(self.pswpin, self.zswpin).or(pages(self.workingset_refault_anon, None))
    }

    /// Returns the memory read back that belongs to the working set, bytes. Refaults alone would
    /// include a stream larger than the cache, which is read back whatever is done; *activations*
    /// are refaults after less was evicted than there is memory (mm/workingset.c), *restores* are
    /// refaults of pages that had been in use at eviction.
    #[must_use]
    pub(crate) fn back_in_use(&self) -> u64 {
        let file = self.workingset_activate_file.max(self.workingset_restore_file);
        pages(file, None).unwrap_or(0) + self.swapped_in().unwrap_or(0)
    }

    /// Returns the page cache on the LRU lists, bytes: without tmpfs, and without unevictable
    /// memory.
    #[must_use]
    pub(crate) fn evictable_file(&self) -> u64 {
        self.inactive_file.unwrap_or(0) + self.active_file.unwrap_or(0)
    }

    /// Returns the page cache that the kernel would take before anonymous memory, bytes. Where
    /// almost no anonymous memory is left, there is none to spare, and reclaim takes slab: returns
    /// `u64::MAX`.
    #[must_use]
    pub(crate) fn cache_beside_anon(&self) -> u64 {
        const NOTABLE: u64 = 1 << 20;
        let anon = self.inactive_anon.zip(self.active_anon).map(|(inactive, active)| inactive + active);
        if anon.is_some_and(|anon| anon < NOTABLE) { u64::MAX } else { self.evictable_file() }
    }

    /// Returns the swap-backed memory on the LRU lists, bytes: anonymous memory, tmpfs and the swap
    /// cache.
    #[must_use]
    pub(crate) fn evictable_anon(&self) -> u64 {
        self.inactive_anon.unwrap_or(0) + self.active_anon.unwrap_or(0)
    }
}

/// Rates between two samples of `memory.stat`. Values that this kernel doesn't offer are `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Time between the samples.
    pub over: std::time::Duration,
    /// Rate of refaults, bytes per second.
    pub refaulted: Option<u64>,
    /// Rate of reclaim by any means, bytes per second.
    pub reclaimed: Option<u64>,
    /// Ratio of reclaimed to scanned pages, between 0 and 1; `None` also where nothing was scanned.
    pub efficiency: Option<f64>,
}

impl Rates {
    /// Returns the rates from an earlier sample to a later one.
    #[must_use]
    pub fn new(before: &MemoryStat, now: &MemoryStat, over: std::time::Duration) -> Self {
        let since = |before: Option<u64>, now: Option<u64>| Some(now?.saturating_sub(before?));
        let a_second = |bytes: u64| (bytes as f64 / over.as_secs_f64().max(1e-6)) as u64;
        let page = page_size();
        let (stolen, scanned) = (since(before.pgsteal, now.pgsteal), since(before.pgscan, now.pgscan));
        Self {
            over,
            refaulted: since(before.refaulted(), now.refaulted()).map(a_second),
            reclaimed: stolen.map(|pages| a_second(pages * page)),
            efficiency: stolen
                .zip(scanned.filter(|&scanned| scanned > 0))
                .map(|(stolen, scanned)| stolen as f64 / scanned as f64),
        }
    }
}

/// Converts the sum of two counts of pages to bytes; a missing `other` counts as 0.
fn pages(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    Some((one? + other.unwrap_or(0)) * page_size())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_are_of_the_time_between() {
        let look = |refaults, stolen, scanned| MemoryStat {
            workingset_refault_file: Some(refaults),
            pgsteal: Some(stolen),
            pgscan: Some(scanned),
            ..MemoryStat::default()
        };
        let over = std::time::Duration::from_secs(2);
        let rates = Rates::new(&look(10, 0, 0), &look(20, 100, 200), over);
        let page = page_size();
        assert_eq!((rates.refaulted, rates.reclaimed), (Some(5 * page), Some(50 * page)));
        assert_eq!(rates.efficiency, Some(0.5));
        let idle = Rates::new(&look(10, 5, 5), &look(10, 5, 5), over);
        assert_eq!((idle.refaulted, idle.efficiency), (Some(0), None));
        assert_eq!(Rates::new(&MemoryStat::default(), &look(1, 1, 1), over).reclaimed, None);
    }

    #[test]
    fn known_keys_are_read_and_unknown_ones_skipped() {
        let stat =
            MemoryStat::parse("anon 4096\nfile 8192\nnew_in_9_0 7\npgsteal_direct 3\nbroken\nslab x\n");
        let expected = MemoryStat {
            anon: Some(4096),
            file: Some(8192),
            pgsteal_direct: Some(3),
            ..MemoryStat::default()
        };
        assert_eq!(stat, expected);
    }

    #[test]
    fn where_no_anonymous_memory_is_left_there_is_none_to_spare() {
        const M: u64 = 1 << 20;
        let stat = |anon| MemoryStat {
            inactive_anon: anon,
            active_anon: Some(0),
            active_file: Some(3 * M),
            inactive_file: Some(M),
            ..MemoryStat::default()
        };
        assert_eq!(stat(Some(20 * M)).cache_beside_anon(), 4 * M);
        assert_eq!(stat(Some(M / 2)).cache_beside_anon(), u64::MAX);
        assert_eq!(stat(None).cache_beside_anon(), 4 * M, "it isn't known");
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,200}") {
            let _ = MemoryStat::parse(&text);
        }
    }
}
