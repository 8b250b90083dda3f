//! Accounting of one request: the amount reclaimed so far, kept between the writes, all in numbers
//! and without I/O.
//!
//! Three sources of evidence, none of which is enough alone:
//!
//! - a **counter** in `memory.stat` gives the exact amount reclaimed, but may lag by a blind spot
//!   (64 pages a CPU) until the kernel folds it;
//! - the **usage** (`memory.current`) is fresh, but contains all other changes of the same time;
//! - a successful **write** is the kernel's claim that it freed what was asked: credit, and no
//!   proof.
//!
//! The counter is right to within its blind spot; what it can't show yet is filled in from the
//! other two. It counts pages of the LRU lists only: slab, which is freed along with them, is added
//! to it.

mod slab;

use crate::cgroup::stat::MemoryStat;

/// Measure of the amount reclaimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// `pgsteal_proactive` less `pgdemote_proactive`: every proactive writer's, here or above (6.15
    /// on).
    PgstealProactive,
    /// `pgsteal_direct` less `pgdemote_direct`: proactive writers' and the application's own direct
    /// reclaim.
    PgstealDirect,
    /// `pgsteal`: all reclaim of this cgroup (5.19).
    Pgsteal,
    /// `pgsteal_proactive` less `pgdemote_proactive` of the whole host, for a NUMA node whose own
    /// counters lack the pair (6.17): every proactive writer's, anywhere on the host.
    HostPgstealProactive,
    /// Decrease of `memory.current`.
    MemoryCurrent,
    /// Decrease of the total on the LRU lists, at the root and of a node, which have no
    /// `memory.current`.
    LruLists,
}

impl Measure {
    /// Returns the best measure that this kernel's `memory.stat` offers.
    #[must_use]
    pub(crate) fn best(stat: &MemoryStat) -> Self {
        if stat.pgsteal_proactive.is_some() {
            Self::PgstealProactive
        } else if stat.pgsteal_direct.is_some() {
            Self::PgstealDirect
        } else if stat.pgsteal.is_some() {
            Self::Pgsteal
        } else {
            Self::MemoryCurrent
        }
    }

    /// Returns the name of the counter or file.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PgstealProactive => "pgsteal_proactive",
            Self::PgstealDirect => "pgsteal_direct",
            Self::Pgsteal => "pgsteal",
            Self::HostPgstealProactive => "pgsteal_proactive of the host",
            Self::MemoryCurrent => "memory.current",
            Self::LruLists => "lru_lists",
        }
    }

    /// Returns whether the measure is a counter of reclaimed pages, not a usage.
    fn counts(self) -> bool {
        !matches!(self, Self::MemoryCurrent | Self::LruLists)
    }

    /// Returns the pages reclaimed, demotions included, and the pages demoted.
    fn pages(self, stat: &MemoryStat) -> (u64, u64) {
        let (stolen, demoted) = match self {
            Self::PgstealProactive | Self::HostPgstealProactive => {
                (stat.pgsteal_proactive, stat.pgdemote_proactive)
            }
            Self::PgstealDirect => (stat.pgsteal_direct, stat.pgdemote_direct),
            Self::Pgsteal => (stat.pgsteal, None),
            Self::MemoryCurrent | Self::LruLists => (None, None),
        };
        (stolen.unwrap_or(0), demoted.unwrap_or(0))
    }
}

/// Measures of the amount reclaimed: a counter, and the usage where the counter lags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measures {
    /// Counter; where there is none, the usage.
    pub counter: Measure,
    /// Usage.
    pub usage: Measure,
}

impl Measures {
    /// Returns the measures of a cgroup with this `memory.stat`, and with or without a
    /// `memory.current`.
    #[must_use]
    pub(crate) fn of_cgroup(stat: &MemoryStat, has_current: bool) -> Self {
        let usage = if has_current { Measure::MemoryCurrent } else { Measure::LruLists };
        let counter = Measure::best(stat);
        Self { counter: if counter.counts() { counter } else { usage }, usage }
    }

    /// Returns the measures of a NUMA node, with or without counters of its own.
    #[must_use]
    pub(crate) fn of_node(for_itself: bool) -> Self {
        let counter = if for_itself { Measure::PgstealProactive } else { Measure::HostPgstealProactive };
        Self { counter, usage: Measure::LruLists }
    }
}

/// Ledger of one request. All amounts are bytes.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    measures: Measures,
    page: u64,
    blind: u64,
    start: (u64, MemoryStat),
    /// Counters as last read, and the other evidence as of that moment.
    stat: MemoryStat,
    at_stat: Witnesses,
    now: Witnesses,
    lowest: u64,
    /// Most bytes that the counters showed as freed or demoted, and the largest decrease of slab.
    moved_most: u64,
    slab_fell_most: u64,
}

/// Pages by which the kernel's batches of charges blur the usage.
const BLUR_PAGES: u64 = 32;

#[derive(Clone, Copy, Debug)]
struct Witnesses {
    credit: u64,
    usage: u64,
}

/// Final measurement of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Bytes reclaimed, as far as a counter, slab or the usage moved with them.
    pub reclaimed: u64,
    /// Bytes of slab among those reclaimed.
    pub slab: u64,
    /// Bytes that the kernel claimed beyond those, and that no measure confirms.
    pub unconfirmed: u64,
    /// Measure that gave the result.
    pub measured_by: Measure,
}

impl Ledger {
    /// Opens the ledger.
    #[must_use]
    pub(crate) fn new(measures: Measures, usage: u64, stat: MemoryStat, blind: u64, page: u64) -> Self {
        let now = Witnesses { credit: 0, usage };
        let opened = (usage, stat.clone());
        Self {
            measures,
            page,
            blind,
            start: opened,
            stat,
            at_stat: now,
            now,
            lowest: usage,
            moved_most: 0,
            slab_fell_most: 0,
        }
    }

    /// Returns the usage and the counters at the start.
    #[must_use]
    pub(crate) fn start(&self) -> (u64, &MemoryStat) {
        (self.start.0, &self.start.1)
    }

    /// Returns the counters as last read.
    #[must_use]
    pub(crate) fn stat(&self) -> &MemoryStat {
        &self.stat
    }

    /// Returns the usage as last read.
    #[must_use]
    pub(crate) fn usage(&self) -> u64 {
        self.now.usage
    }

    /// Records a write that the kernel claimed to have fulfilled.
    pub(crate) fn credit(&mut self, bytes: u64) {
        self.now.credit = self.now.credit.saturating_add(bytes);
    }

    /// Records a fresh usage. Returns whether it is below all earlier ones, by more than the
    /// kernel's batch of charges blurs.
    pub(crate) fn enter_usage(&mut self, usage: u64) -> bool {
        self.now.usage = usage;
        let fell = usage + BLUR_PAGES * self.page < self.lowest;
        if fell {
            self.lowest = usage;
        }
        fell
    }

    /// Records fresh counters. Returns whether they moved: they are above all earlier values, or
    /// slab is below, by more than the kernel's batch of charges blurs.
    pub(crate) fn enter_stat(&mut self, stat: MemoryStat) -> bool {
        self.stat = stat;
        self.at_stat = self.now;
        let slab_fell = self.slab_fell() > self.slab_fell_most + BLUR_PAGES * self.page;
        if slab_fell {
            self.slab_fell_most = self.slab_fell();
        }
        let has_counted = self.moved() > self.moved_most;
        self.moved_most = self.moved_most.max(self.moved());
        slab_fell || has_counted
    }

    /// Returns the bytes freed or demoted since the start, by the counters: progress, if not all of
    /// it saving.
    #[must_use]
    pub(crate) fn moved(&self) -> u64 {
        let (stolen, _) = self.pages_since_start();
        stolen.saturating_mul(self.page)
    }

    /// Returns the bytes demoted to a slower tier of memory since the start.
    #[must_use]
    pub(crate) fn demoted(&self) -> u64 {
        let (_, demoted) = self.pages_since_start();
        demoted.saturating_mul(self.page)
    }

    /// Returns whether the kernel counts demotions separately.
    #[must_use]
    pub(crate) fn tells_demotions(&self) -> bool {
        match self.measures.counter {
            Measure::PgstealProactive | Measure::HostPgstealProactive => {
                self.stat.pgdemote_proactive.is_some()
            }
            Measure::PgstealDirect => self.stat.pgdemote_direct.is_some(),
            Measure::Pgsteal | Measure::MemoryCurrent | Measure::LruLists => false,
        }
    }

    /// Returns the bytes reclaimed since the start by the counter, less demotions. `None` where
    /// there is no counter.
    #[must_use]
    pub(crate) fn counted(&self) -> Option<u64> {
        self.measures.counter.counts().then(|| self.moved().saturating_sub(self.demoted()))
    }

    /// Returns the decrease of the usage since the start; 0 if it rose.
    #[must_use]
    pub(crate) fn fell(&self) -> u64 {
        self.start.0.saturating_sub(self.now.usage)
    }

    /// Returns the best estimate of the bytes reclaimed so far: the counter, filled in from the
    /// fresh evidence as far as the counter can be blind, and the evidence since the counter was
    /// read.
    #[must_use]
    pub(crate) fn estimate(&self) -> u64 {
        let counted = self.counted_with_slab();
        let witnessed = self.word(self.at_stat).max(self.start.0.saturating_sub(self.at_stat.usage));
        let so_far = witnessed.clamp(counted, counted.saturating_add(self.blind));
        let credited = self.now.credit - self.at_stat.credit;
        so_far.saturating_add(credited.max(self.at_stat.usage.saturating_sub(self.now.usage)))
    }

    /// Returns the most bytes that can have been reclaimed: without a counter, all that the kernel
    /// claimed.
    #[must_use]
    pub(crate) fn most(&self) -> u64 {
        let word = if self.counted().is_none() { self.now.credit } else { 0 };
        self.estimate().max(word)
    }

    /// Returns the discrepancy between the counters and the other evidence, in bytes, as far as it
    /// can be due to lag and is worth waiting for.
    #[must_use]
    pub(crate) fn discrepancy(&self) -> u64 {
        self.counted().map_or(0, |_| self.doubt_of(self.counted_with_slab()))
    }

    fn doubt_of(&self, counted: u64) -> u64 {
        let word = self.word(self.now);
        let unproven = word.saturating_sub(self.taken().reclaimed);
        // Freed on the way to an EAGAIN: the usage shows it, the counter can't yet, and the kernel
        // made no claim on it.
        let unsaid = self.fell().saturating_sub(counted.max(word));
        let unsaid = if unsaid <= self.blind && unsaid > BLUR_PAGES * self.page + self.fell() / 32 {
            unsaid
        } else {
            0
        };
        let unproven = if unproven > word / 100 { unproven } else { 0 };
        unproven.max(unsaid)
    }

    /// Returns the final measurement. The kernel's claims count only as far as a measure moved with
    /// them.
    #[must_use]
    pub(crate) fn taken(&self) -> Measured {
        let word = self.word(self.now);
        let slab = self.slab();
        if self.counted().is_none() {
            let reclaimed = self.fell().saturating_add(self.slab_beside_usage());
            let unconfirmed = word.saturating_sub(reclaimed);
            return Measured { reclaimed, slab, unconfirmed, measured_by: self.measures.usage };
        }
        let counted = self.counted_with_slab();
        let witnessed = word.min(self.fell()).min(counted.saturating_add(self.blind));
        let measured_by = if counted >= witnessed { self.measures.counter } else { self.measures.usage };
        let reclaimed = counted.max(witnessed);
        Measured { reclaimed, slab, unconfirmed: word.saturating_sub(reclaimed), measured_by }
    }

    /// Returns whether the usage contains slab: `memory.current` does.
    fn usage_has_slab(&self) -> bool {
        self.measures.usage == Measure::MemoryCurrent
    }

    /// Returns the bytes that the kernel claimed, less those that it only demoted.
    fn word(&self, at: Witnesses) -> u64 {
        at.credit.saturating_sub(self.demoted())
    }

    fn pages_since_start(&self) -> (u64, u64) {
        let (stolen, demoted) = self.measures.counter.pages(&self.stat);
        let (stolen_before, demoted_before) = self.measures.counter.pages(&self.start.1);
        (stolen.saturating_sub(stolen_before), demoted.saturating_sub(demoted_before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;
    const PAGE: u64 = 4096;

    fn stat(stolen: u64, demoted: u64) -> MemoryStat {
        MemoryStat {
            pgsteal_proactive: Some(stolen / PAGE),
            pgdemote_proactive: Some(demoted / PAGE),
            ..MemoryStat::default()
        }
    }

    fn ledger(blind: u64) -> Ledger {
        let stat = stat(0, 0);
        Ledger::new(Measures::of_cgroup(&stat, true), 100 * M, stat, blind, PAGE)
    }

    #[test]
    fn a_lagging_counter_is_filled_in_as_far_as_it_can_be_blind() {
        let mut book = ledger(2 * M);
        book.credit(10 * M);
        book.enter_usage(90 * M);
        book.enter_stat(stat(9 * M, 0));
        assert_eq!(book.estimate(), 10 * M);
        let taken =
            Measured { reclaimed: 10 * M, slab: 0, unconfirmed: 0, measured_by: Measure::MemoryCurrent };
        assert_eq!(book.taken(), taken);
        book.enter_stat(stat(3 * M, 0));
        assert_eq!(book.estimate(), 5 * M, "beyond the blind spot the counter is believed");
    }

    #[test]
    fn what_the_application_frees_is_not_reclaim() {
        let mut book = ledger(M);
        book.credit(M);
        book.enter_usage(20 * M);
        assert_eq!(book.estimate(), 80 * M, "until the counter is read");
        book.enter_stat(stat(M, 0));
        assert_eq!(book.estimate(), 2 * M, "to within the blind spot");
        assert_eq!(book.taken().reclaimed, M);
    }

    #[test]
    fn a_lying_kernel_gets_no_credit() {
        let mut book = ledger(M);
        book.credit(50 * M);
        book.enter_usage(100 * M);
        book.enter_stat(stat(0, 0));
        assert_eq!(
            book.taken(),
            Measured { reclaimed: 0, slab: 0, unconfirmed: 50 * M, measured_by: Measure::PgstealProactive }
        );
        assert_eq!(book.discrepancy(), 50 * M);
    }

    #[test]
    fn a_node_says_by_what_it_was_measured() {
        let book = |own| {
            let mut book = Ledger::new(Measures::of_node(own), 100 * M, stat(0, 0), M, PAGE);
            book.credit(10 * M);
            book.enter_usage(90 * M);
            book
        };
        let by = |mut book: Ledger, counted| {
            book.enter_stat(stat(counted, 0));
            book.taken().measured_by.name()
        };
        assert_eq!(by(book(true), 10 * M), "pgsteal_proactive");
        assert_eq!(by(book(false), 10 * M), "pgsteal_proactive of the host");
        assert_eq!(by(book(true), 9 * M), "lru_lists", "filled in, since the counter can lag");
    }

    #[test]
    fn growth_does_not_hide_what_the_counter_saw() {
        let mut book = ledger(M);
        book.credit(10 * M);
        book.enter_usage(130 * M);
        book.enter_stat(stat(10 * M, 0));
        assert_eq!((book.taken().reclaimed, book.fell(), book.discrepancy()), (10 * M, 0, 0));
    }

    #[test]
    fn demotion_is_progress_but_not_reclaim() {
        let mut book = ledger(0);
        book.credit(10 * M);
        assert!(book.enter_stat(stat(10 * M, 8 * M)));
        assert_eq!((book.moved(), book.demoted(), book.estimate()), (10 * M, 8 * M, 2 * M));
        assert_eq!(book.taken().unconfirmed, 0);
    }

    #[test]
    fn partial_progress_unseen_by_the_counter_raises_a_doubt() {
        let mut book = ledger(M);
        book.enter_usage(100 * M - M / 2);
        book.enter_stat(stat(0, 0));
        assert_eq!(book.discrepancy(), M / 2);
        book.enter_stat(stat(M / 2, 0));
        assert_eq!(book.discrepancy(), 0);
    }

    #[test]
    fn only_a_new_low_of_the_usage_is_a_fall() {
        let mut book = ledger(0);
        assert!(book.enter_usage(99 * M));
        assert!(!book.enter_usage(105 * M));
        assert!(!book.enter_usage(99 * M), "back to where it was");
        assert!(book.enter_usage(98 * M));
    }
}
