//! The report of a request: its result and its cost.

use std::time::Duration;

use rustix::io::Errno;

use super::ledger::Measure;
use super::obstacle::Obstacle;
use super::overshoot::Overshot;
use super::request::Tolerance;
use super::settle::Settled;
use super::subject::TargetKind;
use crate::size::Percent;

/// Reason why the request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoppedBy {
    /// The request was met.
    Reached,
    /// Nothing more could be reclaimed.
    Exhausted,
    /// A signal arrived.
    Interrupted,
    /// The timeout expired.
    Timeout,
    /// The cgroup was stalled for more of the time than was allowed.
    Pressure,
    /// Reclaim cost more CPU time than was allowed.
    Cost,
    /// The cgroup was removed meanwhile, or its memory controller switched off.
    Removed,
    /// The kernel returned an error that it shouldn't.
    Failed(Errno),
}

impl StoppedBy {
    /// Returns the word for the reason, in JSON and in sentences.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::Exhausted => "exhausted",
            Self::Interrupted => "interrupted",
            Self::Timeout => "timeout",
            Self::Pressure => "pressure",
            Self::Cost => "cost",
            Self::Removed => "removed",
            Self::Failed(_) => "failed",
        }
    }
}

/// Comparison of the bytes reclaimed with the bytes requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within the tolerance.
    Exact,
    /// More than the tolerance above.
    Over,
    /// More than the tolerance below.
    Under,
}

impl Verdict {
    /// Returns the word for the verdict.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Over => "over",
            Self::Under => "under",
        }
    }
}

/// Report of one request. Amounts are bytes; a value that this kernel doesn't offer is `None`.
#[derive(Clone, Debug)]
pub struct Report {
    /// Kind of the target.
    pub subject: TargetKind,
    /// Requested bytes; `None` for all there is.
    pub requested: Option<u64>,
    /// Target usage, if the request was for one.
    pub down_to: Option<u64>,
    /// Bytes reclaimed, by [`Report::measured_by`].
    pub reclaimed: u64,
    /// Measure of the bytes reclaimed, slab apart.
    pub measured_by: Measure,
    /// Bytes of slab among those reclaimed: dentries and inodes, which no counter contains.
    pub slab_reclaimed: u64,
    /// True if the usage fell by more than was requested, and the application is known to have
    /// freed memory, or the rest is unexplained.
    pub measure_doubtful: bool,
    /// Write that overshot most: no write can be stopped amid it.
    pub overshot: Option<Overshot>,
    /// Bytes reclaimed by the counter alone, less demotions.
    pub counted: Option<u64>,
    /// Bytes that the kernel claimed to have reclaimed and that no measure confirms.
    pub unconfirmed: u64,
    /// Deviation from the request that still counts as exact.
    pub tolerance: Tolerance,
    /// Reason why the request ended.
    pub stopped_by: StoppedBy,
    /// Obstacles, if less was reclaimed than requested.
    pub obstacles: Vec<Obstacle>,
    /// `memory.current` before.
    pub current_before: Option<u64>,
    /// `memory.current` after.
    pub current_after: Option<u64>,
    /// Decrease of anonymous memory; 0 if it grew.
    pub anon_freed: Option<u64>,
    /// Decrease of page cache, tmpfs included; 0 if it grew.
    pub file_freed: Option<u64>,
    /// Decrease of tmpfs and shared anonymous memory, which the kernel counts as page cache and
    /// swaps like anonymous memory; 0 if it grew.
    pub shmem_freed: Option<u64>,
    /// Decrease of slab; 0 if it grew.
    pub slab_freed: Option<u64>,
    /// Decrease of the swap cache; 0 if it grew.
    pub swap_cache_freed: Option<u64>,
    /// Bytes written to swap (`pswpout`; before 6.13 the growth of `memory.swap.current`).
    pub swapped_out: Option<u64>,
    /// Bytes that went to zswap, at full size.
    pub zswapped: Option<u64>,
    /// Growth of the compressed copies in zswap, which are charged to the cgroup.
    pub zswap_grown: Option<u64>,
    /// Memory that the compressed copies in zram took, an estimate; `None` if the host doesn't swap
    /// to zram. They are charged to no cgroup.
    pub zram_grown: Option<u64>,
    /// True if memory went to swap that may be zram, and can't be examined, or if the kernel
    /// doesn't count what went to zram.
    pub copies_unknown: bool,
    /// Bytes demoted to a slower tier: not part of those reclaimed.
    pub demoted: Option<u64>,
    /// Number of writes.
    pub chunks: u32,
    /// Duration of the request.
    pub elapsed: Duration,
    /// Part of the duration inside write(2).
    pub writing: Duration,
    /// CPU time of the reclaiming thread in its writes.
    pub cpu: Duration,
    /// Time that tasks of the cgroup were stalled on memory meanwhile (PSI `some`).
    pub stalled: Option<Duration>,
    /// Time spent waiting for pages on their way to swap.
    pub waited_for_swap: Duration,
    /// Time spent waiting for lagging counters.
    pub waited_for_counters: Duration,
    /// Time spent waiting for other writers that reclaim from the same node.
    pub waited_for_others: Duration,
    /// Time spent waiting for slab to be freed, after a grace period.
    pub waited_for_slab: Duration,
    /// Bound on the share of the time in which the cgroup may be stalled.
    pub max_pressure: Option<Percent>,
    /// True if the stalls that `max_pressure` bounds couldn't be seen at some time.
    pub pressure_blind: bool,
    /// Bound on the cost, in seconds of CPU time per GiB.
    pub max_cost: Option<f64>,
    /// Recent cost, in seconds of CPU time per GiB, if enough was spent for a measurement.
    pub last_cost: Option<f64>,
    /// Refaults afterwards, if the cgroup was watched for them.
    pub settled: Option<Settled>,
}

impl Report {
    /// Merges this report and that of a later request to the same cgroup.
    #[must_use]
    pub(crate) fn then(self, later: Self) -> Self {
        let current_before = self.current_before;
        let current_after = later.current_after;
        Self { current_before, current_after, ..self.plus(later) }
    }

    /// Merges the reports on several cgroups into one, for a request of `requested` bytes, or of
    /// all there is. `None` if there were none.
    #[must_use]
    pub(crate) fn total<'a>(
        reports: impl Iterator<Item = &'a Self>,
        requested: Option<u64>,
        stopped_by: StoppedBy,
        elapsed: Duration,
    ) -> Option<Self> {
        let sum = reports.cloned().reduce(Self::plus)?;
        // The obstacles of one cgroup don't apply to all.
        Some(Self { requested, stopped_by, elapsed, obstacles: Vec::new(), ..sum })
    }

    /// Adds amounts and times; all other values are the later report's.
    fn plus(self, later: Self) -> Self {
        let sum = |one: Option<u64>, other: Option<u64>| Some(one?.saturating_add(other?));
        Self {
            requested: sum(self.requested, later.requested),
            down_to: None,
            reclaimed: self.reclaimed + later.reclaimed,
            slab_reclaimed: self.slab_reclaimed + later.slab_reclaimed,
            measure_doubtful: self.measure_doubtful || later.measure_doubtful,
            overshot: self.overshot.into_iter().chain(later.overshot).max_by_key(|write| write.fell),
            counted: sum(self.counted, later.counted),
            unconfirmed: self.unconfirmed + later.unconfirmed,
            current_before: sum(self.current_before, later.current_before),
            current_after: sum(self.current_after, later.current_after),
            anon_freed: sum(self.anon_freed, later.anon_freed),
            file_freed: sum(self.file_freed, later.file_freed),
            shmem_freed: sum(self.shmem_freed, later.shmem_freed),
            slab_freed: sum(self.slab_freed, later.slab_freed),
            swap_cache_freed: sum(self.swap_cache_freed, later.swap_cache_freed),
            swapped_out: sum(self.swapped_out, later.swapped_out),
            zswapped: sum(self.zswapped, later.zswapped),
            zswap_grown: sum(self.zswap_grown, later.zswap_grown),
            zram_grown: sum(self.zram_grown, later.zram_grown),
            copies_unknown: self.copies_unknown || later.copies_unknown,
            pressure_blind: self.pressure_blind || later.pressure_blind,
            demoted: sum(self.demoted, later.demoted),
            chunks: self.chunks + later.chunks,
            elapsed: self.elapsed + later.elapsed,
            writing: self.writing + later.writing,
            cpu: self.cpu + later.cpu,
            stalled: self.stalled.zip(later.stalled).map(|(one, other)| one + other),
            waited_for_swap: self.waited_for_swap + later.waited_for_swap,
            waited_for_counters: self.waited_for_counters + later.waited_for_counters,
            waited_for_others: self.waited_for_others + later.waited_for_others,
            waited_for_slab: self.waited_for_slab + later.waited_for_slab,
            last_cost: later.last_cost.or(self.last_cost),
            settled: None,
            ..later
        }
    }

    /// Returns the name of the measure. `memory.current` contains slab, the others don't.
    #[must_use]
    pub fn measure(&self) -> &'static str {
        match self.measured_by {
            by if self.slab_reclaimed == 0 => by.name(),
            Measure::PgstealProactive => "pgsteal_proactive + slab",
            Measure::PgstealDirect => "pgsteal_direct + slab",
            Measure::Pgsteal => "pgsteal + slab",
            Measure::HostPgstealProactive => "pgsteal_proactive of the host + slab",
            Measure::LruLists => "lru_lists + slab",
            Measure::MemoryCurrent => "memory.current",
        }
    }

    /// Returns the bytes reclaimed less those requested; `None` without a fixed request.
    #[must_use]
    pub fn difference(&self) -> Option<i64> {
        self.requested.map(|requested| self.reclaimed as i64 - requested as i64)
    }

    /// Returns the deviation that still counts as exact, in bytes, in the direction of the actual
    /// one.
    #[must_use]
    pub fn tolerated(&self) -> Option<u64> {
        let requested = self.requested?;
        // A counter that lags by some pages is no shortfall if the loop had its reasons to be
        // content.
        let lenient =
            self.reclaimed >= requested || self.stopped_by == StoppedBy::Reached && self.unconfirmed == 0;
        Some(if lenient { self.tolerance.over(requested) } else { self.tolerance.under(requested) })
    }

    /// Returns the verdict; `None` without a fixed request.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        let difference = self.difference()?;
        let exact = difference.unsigned_abs() <= self.tolerated()?;
        Some(match difference {
            _ if exact => Verdict::Exact,
            0.. => Verdict::Over,
            _ => Verdict::Under,
        })
    }

    /// Returns the decrease of the usage: negative if it rose.
    #[must_use]
    pub fn net_freed(&self) -> Option<i64> {
        self.current_before.zip(self.current_after).map(|(before, after)| before as i64 - after as i64)
    }

    /// Returns the host's gain in bytes: the bytes reclaimed, less the compressed copies that stay
    /// in memory. `None` if the size of the copies is unknown.
    #[must_use]
    pub fn saved(&self) -> Option<i64> {
        let copies = self.zswap_grown.unwrap_or(0).saturating_add(self.zram_grown.unwrap_or(0));
        (!self.copies_unknown).then(|| self.reclaimed as i64 - copies as i64)
    }

    /// Returns the bytes that the cgroup allocated during the request.
    #[must_use]
    pub fn grown(&self) -> Option<u64> {
        let left = self.left_by_reclaim();
        self.net_freed().map(|net| u64::try_from(left - net).unwrap_or(0))
    }

    /// Returns the decrease of the usage beyond the bytes reclaimed: memory that the cgroup freed
    /// by itself.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        // A decrease that only the usage shows counts as reclaimed, not as freed by the cgroup.
        let by_usage = if self.down_to.is_none() { self.saved_from_usage(self.reclaimed) } else { i64::MIN };
        let left = self.left_by_reclaim().max(by_usage);
        self.net_freed().map(|net| u64::try_from(net - left).unwrap_or(0))
    }

    /// Returns the decrease of the usage by reclaim alone: compressed copies in zswap stay charged.
    fn left_by_reclaim(&self) -> i64 {
        let counted = self.counted.map(|counted| counted.saturating_add(self.slab_reclaimed));
        self.saved_from_usage(counted.unwrap_or(self.reclaimed))
    }

    fn saved_from_usage(&self, reclaimed: u64) -> i64 {
        reclaimed as i64 - self.zswap_grown.unwrap_or(0) as i64
    }

    /// Returns the bytes that went to swap beyond the request, if they exceed the tolerance: the
    /// kernel can push two or three times the request to a slow swap before it counts as reclaimed.
    #[must_use]
    pub fn over_swapped(&self) -> Option<u64> {
        let requested = self.requested?;
        let swapped = self.swapped_out?.saturating_add(self.zswapped.unwrap_or(0));
        let wanted = requested.max(self.reclaimed);
        let over = swapped.saturating_sub(wanted);
        (over > self.tolerance.over(wanted)).then_some(over)
    }

    /// Returns the time spent waiting for swap, counters, others and slab.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited_for_swap + self.waited_for_counters + self.waited_for_others + self.waited_for_slab
    }

    /// Returns whether the kernel claimed success again and again while no measure moved.
    #[must_use]
    pub fn kernel_lied(&self) -> bool {
        let said = self.reclaimed.saturating_add(self.unconfirmed);
        self.unconfirmed > 0 && self.unconfirmed >= said / 2
    }

    /// Returns the cost in seconds of CPU time per GiB; `None` when too little was reclaimed for a
    /// measurement.
    #[must_use]
    pub fn cpu_per_gib(&self) -> Option<f64> {
        let gib = self.reclaimed as f64 / f64::from(1 << 30);
        (self.reclaimed >= 1 << 20).then(|| self.cpu.as_secs_f64() / gib)
    }
}
