//! `memory.stat`: amounts in bytes, events in pages.
//!
//! Every field is an `Option`: what this kernel doesn't offer is absent, not zero. Unknown keys are
//! skipped, since every kernel adds some.

use crate::host::proc::page_size;
use std::cell::RefCell;

mod parse;

pub use parse::{PackedStat, StatParser};

macro_rules! memory_stat {
    ($($(#[$doc:meta])* $field:ident),* $(,)?) => {
        /// What one read of `memory.stat` gave, as far as memctl looks at it.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct MemoryStat {
            $($(#[$doc])* pub $field: Option<u64>,)*
        }

        /// The keys, in the order of the fields.
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
    /// All kernel memory: stacks, page tables, slab and more, bytes (since 5.18).
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
    /// Slab that can't, bytes.
    slab_unreclaimable,
    /// Page cache and swap cache being written out now, bytes.
    file_writeback,
    /// Swapped out but still in memory, and still charged, bytes (since 5.13).
    swapcached,
    /// Anonymous LRU, cold half, bytes.
    inactive_anon,
    /// Anonymous LRU, warm half, bytes.
    active_anon,
    /// File LRU, cold half, bytes.
    inactive_file,
    /// File LRU, warm half, bytes.
    active_file,
    /// What is locked or otherwise never reclaimed, bytes.
    unevictable,
    /// All slab, bytes.
    slab,
    /// Compressed copies in zswap, bytes (since 5.19).
    zswap,
    /// What zswap holds, uncompressed, bytes (since 5.19).
    zswapped,
    /// Pages reclaimed by anyone; the only counter of 5.19.
    pgsteal,
    /// Pages reclaimed in someone's own context: by direct reclaim and, before 6.15, by
    /// `memory.reclaim`.
    pgsteal_direct,
    /// Anonymous pages reclaimed by anyone (in memory.stat and in a node's vmstat on newer kernels,
    /// 7.3 among them).
    pgsteal_anon,
    /// Pages reclaimed by kswapd.
    pgsteal_kswapd,
    /// Pages looked at for reclaim by anyone.
    pgscan,
    /// Pages looked at by kswapd.
    pgscan_kswapd,
    /// Pages looked at in someone's own context: direct reclaim and, before 6.15, `memory.reclaim`.
    pgscan_direct,
    /// Pages looked at through `memory.reclaim` (since 6.15).
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
    /// Anonymous pages that came back while the kernel remembered their eviction (since 5.9).
    workingset_refault_anon,
    /// The same for page cache (since 5.9).
    workingset_refault_file,
    /// Those among the refaults that came back so soon that they belong to the working set, page
    /// cache (since 5.9).
    workingset_activate_file,
    /// Those among the refaults that were in use when they were evicted, anonymous (since 5.9).
    workingset_restore_anon,
    /// The same for page cache (since 5.9).
    workingset_restore_file,
}

impl MemoryStat {
    /// Reads the text of a `memory.stat`. Allocates nothing once a thread has read one.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        thread_local! {
            static PARSER: RefCell<StatParser> = RefCell::default();
        }
        PARSER.with_borrow_mut(|parser| Self::from_fields(parser.fields(text).into_iter()))
    }

    /// What came back while the kernel remembered its eviction, bytes.
    #[must_use]
    pub fn refaulted(&self) -> Option<u64> {
        pages(self.workingset_refault_file, self.workingset_refault_anon)
    }

    /// What of that had been in use, bytes.
    #[must_use]
    pub fn restored(&self) -> Option<u64> {
        pages(self.workingset_restore_file, self.workingset_restore_anon)
    }

    /// What was read back from swap, bytes; before 6.13, what of it the kernel remembered.
    #[must_use]
    pub fn swapped_in(&self) -> Option<u64> {
        pages(self.pswpin, self.zswpin).or(pages(self.workingset_refault_anon, None))
    }

    /// What came back that belongs to the working set, bytes. Refaults alone would count a stream
    /// larger than the cache as well, which comes back whatever is done; *activations* are those
    /// that came back after less was evicted than there is memory (mm/workingset.c), *restores*
    /// those that had been in use when they left.
    #[must_use]
    pub fn back_in_use(&self) -> u64 {
        let file = self.workingset_activate_file.max(self.workingset_restore_file);
        pages(file, None).unwrap_or(0) + self.swapped_in().unwrap_or(0)
    }

    /// Page cache on the LRU lists, bytes: without tmpfs, and without what is unevictable.
    #[must_use]
    pub fn evictable_file(&self) -> u64 {
        self.inactive_file.unwrap_or(0) + self.active_file.unwrap_or(0)
    }

    /// Page cache that the kernel would take before anonymous memory, bytes. Where next to none of
    /// that is left, there is nothing to spare: what is reclaimed then is slab.
    #[must_use]
    pub fn cache_beside_anon(&self) -> u64 {
        const NOTABLE: u64 = 1 << 20;
        let anon = self.inactive_anon.zip(self.active_anon).map(|(inactive, active)| inactive + active);
        if anon.is_some_and(|anon| anon < NOTABLE) { u64::MAX } else { self.evictable_file() }
    }

    /// What is backed by swap, on the LRU lists, bytes: anonymous memory, tmpfs and the swap cache.
    #[must_use]
    pub fn evictable_anon(&self) -> u64 {
        self.inactive_anon.unwrap_or(0) + self.active_anon.unwrap_or(0)
    }
}

/// What happened between two looks at a `memory.stat`. What this kernel doesn't offer is `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The time between them.
    pub over: std::time::Duration,
    /// What came back, bytes a second.
    pub refaulted: Option<u64>,
    /// What was reclaimed by anyone, bytes a second.
    pub reclaimed: Option<u64>,
    /// What was reclaimed of what was looked at for it, between 0 and 1; `None` also where nothing
    /// was.
    pub efficiency: Option<f64>,
}

impl Rates {
    /// From an earlier look to a later one.
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

/// Two counts of pages in bytes; the other one is taken for none where it isn't there.
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
