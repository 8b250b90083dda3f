//! What came of a request, and what it cost.

use std::time::Duration;

use rustix::io::Errno;

use super::ledger::Measure;
use super::obstacle::Obstacle;
use super::overshoot::Overshot;
use super::request::Tolerance;
use super::settle::Settled;
use super::subject::TargetKind;
use crate::size::Percent;

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoppedBy {
    /// What was asked for was reclaimed.
    Reached,
    /// Nothing more was to be had.
    Exhausted,
    /// A signal came.
    Interrupted,
    /// The time was up.
    Timeout,
    /// The cgroup was stalled for more of the time than was allowed.
    Pressure,
    /// It cost more CPU time than was allowed.
    Cost,
    /// The cgroup was removed meanwhile.
    Removed,
    /// The kernel refused in a way that it shouldn't.
    Failed(Errno),
}

impl StoppedBy {
    /// The word for it, in JSON and in sentences.
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

/// How what was reclaimed compares with what was requested.
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
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Over => "over",
            Self::Under => "under",
        }
    }
}

/// What came of one request. Amounts are bytes; what this kernel doesn't offer is `None`.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whose memory it was for.
    pub subject: TargetKind,
    /// What was asked for; `None` for all there is.
    pub requested: Option<u64>,
    /// The usage to come down to, if that was the request.
    pub down_to: Option<u64>,
    /// What was reclaimed, by [`Report::measured_by`].
    pub reclaimed: u64,
    /// What tells how much was reclaimed, slab apart.
    pub measured_by: Measure,
    /// Bytes of slab among what was reclaimed: dentries and inodes, which no counter contains.
    pub slab_reclaimed: u64,
    /// The usage fell by more than was asked for, and the application is seen to have freed it, or nothing tells who did.
    pub measure_doubtful: bool,
    /// The write that took most beyond what it was asked for: no write can be stopped amid it.
    pub overshot: Option<Overshot>,
    /// What the counter alone says was reclaimed, less demotions.
    pub counted: Option<u64>,
    /// What the kernel said it reclaimed and nothing confirms.
    pub unconfirmed: u64,
    /// How far off still counts as exact.
    pub tolerance: Tolerance,
    /// Why it ended.
    pub stopped_by: StoppedBy,
    /// What stood in the way, when less was reclaimed than was asked.
    pub obstacles: Vec<Obstacle>,
    /// `memory.current` before.
    pub current_before: Option<u64>,
    /// `memory.current` after.
    pub current_after: Option<u64>,
    /// By how much anonymous memory shrank; 0 if it grew.
    pub anon_freed: Option<u64>,
    /// By how much page cache shrank, tmpfs included; 0 if it grew.
    pub file_freed: Option<u64>,
    /// By how much tmpfs and shared anonymous memory shrank, which the kernel counts as page cache and swaps like
    /// anonymous memory; 0 if it grew.
    pub shmem_freed: Option<u64>,
    /// By how much slab shrank; 0 if it grew.
    pub slab_freed: Option<u64>,
    /// By how much the swap cache shrank; 0 if it grew.
    pub swap_cache_freed: Option<u64>,
    /// What was written to swap (`pswpout`; before 6.13 the growth of `memory.swap.current`).
    pub swapped_out: Option<u64>,
    /// What went to zswap, at full size.
    pub zswapped: Option<u64>,
    /// By how much the compressed copies in zswap, which are charged to the cgroup, grew.
    pub zswap_grown: Option<u64>,
    /// How much memory the compressed copies in zram took, by estimate; `None` if the host doesn't swap to zram. They are
    /// charged to nobody.
    pub zram_grown: Option<u64>,
    /// What was demoted to a slower tier: not part of what was reclaimed.
    pub demoted: Option<u64>,
    /// How many writes it took.
    pub chunks: u32,
    /// How long it all took.
    pub elapsed: Duration,
    /// How much of that was inside write(2).
    pub writing: Duration,
    /// CPU time of the reclaiming thread in its writes.
    pub cpu: Duration,
    /// How long tasks of the cgroup stood still for want of memory meanwhile (PSI `some`).
    pub stalled: Option<Duration>,
    /// How much of the time it waited for pages on their way to swap.
    pub waited_for_swap: Duration,
    /// How much of the time it waited for lagging counters.
    pub waited_for_counters: Duration,
    /// How much of the time it waited for others that reclaim from the same node.
    pub waited_for_others: Duration,
    /// How much of the time it waited for slab to be freed, after a grace period.
    pub waited_for_slab: Duration,
    /// The bound on the share of the time in which the cgroup might be stalled.
    pub max_pressure: Option<Percent>,
    /// The bound on what a GiB might cost, in seconds of CPU time.
    pub max_cost: Option<f64>,
    /// What a GiB cost lately, as far as enough was spent to tell.
    pub last_cost: Option<f64>,
    /// What came back afterwards, if the cgroup was watched for that.
    pub settled: Option<Settled>,
}

impl Report {
    /// This and a later request to the same cgroup as one.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        let current_before = self.current_before;
        let current_after = later.current_after;
        Self { current_before, current_after, ..self.plus(later) }
    }

    /// The requests to several cgroups as one, which was for `requested` bytes, or for all there is. `None` if there were
    /// none.
    #[must_use]
    pub fn total<'a>(
        reports: impl Iterator<Item = &'a Self>,
        requested: Option<u64>,
        stopped_by: StoppedBy,
        elapsed: Duration,
    ) -> Option<Self> {
        let sum = reports.cloned().reduce(Self::plus)?;
        // What stood in the way of one is no word on all.
        Some(Self { requested, stopped_by, elapsed, obstacles: Vec::new(), ..sum })
    }

    /// Amounts and times add up; of the rest the later one's word stands.
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

    /// The name of what tells how much was reclaimed. `memory.current` contains slab, the others don't.
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

    /// What was reclaimed less what was requested; `None` without a fixed request.
    #[must_use]
    pub fn difference(&self) -> Option<i64> {
        self.requested.map(|requested| self.reclaimed as i64 - requested as i64)
    }

    /// How far off, in the direction in which it is off, still counts as exact.
    #[must_use]
    pub fn tolerated(&self) -> Option<u64> {
        let requested = self.requested?;
        // A counter that lags by some pages is no shortfall as long as the loop had its reasons to be content.
        let lenient =
            self.reclaimed >= requested || self.stopped_by == StoppedBy::Reached && self.unconfirmed == 0;
        Some(if lenient { self.tolerance.over(requested) } else { self.tolerance.under(requested) })
    }

    /// The verdict; `None` without a fixed request.
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

    /// By how much the usage fell: negative if it rose.
    #[must_use]
    pub fn net_freed(&self) -> Option<i64> {
        self.current_before.zip(self.current_after).map(|(before, after)| before as i64 - after as i64)
    }

    /// What the host has more of in the end: what was reclaimed, less the compressed copies that stay in memory.
    #[must_use]
    pub fn saved(&self) -> i64 {
        let copies = self.zswap_grown.unwrap_or(0).saturating_add(self.zram_grown.unwrap_or(0));
        self.reclaimed as i64 - copies as i64
    }

    /// What the cgroup took anew while it was reclaimed from.
    #[must_use]
    pub fn grown(&self) -> Option<u64> {
        let left = self.left_by_reclaim();
        self.net_freed().map(|net| u64::try_from(left - net).unwrap_or(0))
    }

    /// By how much the usage fell beyond what was reclaimed: what the cgroup gave back by itself.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        // What the usage alone tells was reclaimed is nobody else's doing.
        let by_usage = if self.down_to.is_none() { self.saved_from_usage(self.reclaimed) } else { i64::MIN };
        let left = self.left_by_reclaim().max(by_usage);
        self.net_freed().map(|net| u64::try_from(net - left).unwrap_or(0))
    }

    /// By how much reclaim alone brought the usage down: what stays in zswap, compressed, stays charged.
    fn left_by_reclaim(&self) -> i64 {
        let counted = self.counted.map(|counted| counted.saturating_add(self.slab_reclaimed));
        self.saved_from_usage(counted.unwrap_or(self.reclaimed))
    }

    fn saved_from_usage(&self, reclaimed: u64) -> i64 {
        reclaimed as i64 - self.zswap_grown.unwrap_or(0) as i64
    }

    /// What went to swap beyond what was asked for, if it is more than the tolerance: the kernel can push two or
    /// three times the request to a slow swap before it counts as reclaimed.
    #[must_use]
    pub fn over_swapped(&self) -> Option<u64> {
        let requested = self.requested?;
        let swapped = self.swapped_out?.saturating_add(self.zswapped.unwrap_or(0));
        let wanted = requested.max(self.reclaimed);
        let over = swapped.saturating_sub(wanted);
        (over > self.tolerance.over(wanted)).then_some(over)
    }

    /// Time spent on waiting for swap, counters, others and slab.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited_for_swap + self.waited_for_counters + self.waited_for_others + self.waited_for_slab
    }

    /// Whether the kernel said success again and again while nothing moved.
    #[must_use]
    pub fn kernel_lied(&self) -> bool {
        let said = self.reclaimed.saturating_add(self.unconfirmed);
        self.unconfirmed > 0 && self.unconfirmed >= said / 2
    }

    /// Seconds of CPU time that a GiB cost; `None` when too little was reclaimed to tell.
    #[must_use]
    pub fn cpu_per_gib(&self) -> Option<f64> {
        let gib = self.reclaimed as f64 / f64::from(1 << 30);
        (self.reclaimed >= 1 << 20).then(|| self.cpu.as_secs_f64() / gib)
    }
}
