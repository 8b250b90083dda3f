//! Events and summaries of a watch. Amounts are bytes.

use std::time::Duration;

use rustix::io::Errno;

use super::action::ActionResult;
use super::blind::BlindGuards;
use super::policy::guard::Guard;
use super::policy::savings::Saved;
use super::policy::working_set::{Idle, WorkingSet};
use crate::cgroup::Name;
use crate::cgroup::limit::LimitFile;

/// An event of one cgroup.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<'a> {
    /// The cgroup's name.
    pub cgroup: &'a Name,
    /// Time since the watch began.
    pub at: Duration,
    /// Kind of the event.
    pub what: EventKind,
}

/// Kind of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// The watch of the cgroup begins.
    Start {
        /// Usage.
        current: u64,
        /// Limit; `u64::MAX` without one.
        limit: u64,
        /// File that sets the limit; `None` where the user does.
        file: Option<LimitFile>,
        /// Ancestor whose limit and usage are given, if its limit leaves least.
        above: Option<String>,
        /// Memory to keep free below the limit.
        headroom: u64,
        /// Name of the rule, if it has one.
        rule: Option<String>,
    },
    /// The cgroup's own limit changed.
    Limit {
        /// Limit; `u64::MAX` without one.
        limit: u64,
        /// File that sets the limit; `None` where the user does.
        file: Option<LimitFile>,
    },
    /// An action ended. Emitted only on request.
    Acted(ActionResult),
    /// Memory was reclaimed: the sum over a second or so, and from the eleventh minute on over ten.
    Reclaim(ReclaimTally),
    /// Reclaim that a dry run omits. Repeated only after a while.
    Would {
        /// Bytes missing.
        requested: u64,
        /// Usage.
        current: u64,
        /// Target usage.
        down_to: u64,
    },
    /// A guard held back an action. Emitted once, until something else happens.
    Hold {
        /// Guard that held.
        guard: Guard,
        /// Time to wait, where it is known.
        wait: Option<Duration>,
    },
    /// The cgroup met its limit: more arrived at once than was free.
    Outrun {
        /// Bytes that should have been free.
        needed: u64,
        /// Bytes that were free.
        free: u64,
    },
    /// The working set was found, or differs from the last reported one.
    WorkingSet {
        /// Estimate of the working set.
        set: WorkingSet,
        /// Savings so far.
        saved: Saved,
    },
    /// A usage sample. Emitted only on request.
    Sample(UsageSample),
    /// The cgroup can't be read or reclaimed from, but it wasn't removed. It is tried again.
    Blind {
        /// The system's error.
        error: Errno,
    },
    /// The cgroup can be read again, and be reclaimed from.
    Recovered,
    /// The cgroup was removed.
    Gone,
    /// The cgroup is no longer matched by any rule.
    Released,
    /// The watch of the cgroup is over, before the watch of the others: it follows `Gone` or
    /// `Released`, once no write is in progress any more.
    Ended(Box<Summary>),
    /// memctl had joined the cgroup, and left it because no other process was inside any more.
    Left,
    /// No write has ended for a while, and no worker is free.
    Blocked,
}

/// Usage sample of a cgroup. Amounts are bytes, counters run since the watch began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageSample {
    /// Usage.
    pub current: u64,
    /// Least and largest usage since the sample before, where some between them were left out.
    pub range: Option<(u64, u64)>,
    /// Limit; `u64::MAX` without one.
    pub limit: u64,
    /// Bytes in swap; `None` where the kernel doesn't report it.
    pub swapped: Option<u64>,
    /// Estimate of the working set.
    pub working_set: Option<u64>,
    /// True if the estimate is an upper bound: see [`EstimateSummary`].
    pub is_at_most: bool,
    /// Bytes reclaimed.
    pub reclaimed: u64,
    /// Bytes refaulted: page cache and swap-ins; `None` where the kernel doesn't report it.
    pub refaulted: Option<u64>,
    /// Bytes that its own tasks reclaimed; `None` where the kernel doesn't report it, or not apart
    /// (before Linux 6.15).
    pub direct: Option<u64>,
    /// Time for which its tasks were stalled on memory (PSI `some`); `None` where the kernel
    /// doesn't report it.
    pub stalled: Option<Duration>,
    /// Guards that lack information now.
    pub blind: BlindGuards,
}

/// Totals of actions. Amounts are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReclaimTally {
    /// Bytes missing at the beginning of each action.
    pub requested: u64,
    /// Bytes reclaimed.
    pub reclaimed: u64,
    /// True if `reclaimed` was reconciled with the kernel's counter of proactive reclaim
    /// (`pgsteal_proactive` less demotions, since 6.15). Otherwise it is measured by the kernel's
    /// answers and the fall of `memory.current`.
    pub is_counted: bool,
    /// Number of writes.
    pub writes: u32,
    /// Duration of the writes.
    pub writing: Duration,
    /// CPU time of the writing threads.
    pub cpu: Duration,
    /// Usage before the first action and after the last.
    pub current_before: u64,
    /// See `current_before`.
    pub current_after: u64,
    /// Room left after the last action; `None` without a limit.
    pub room: Option<Room>,
}

/// Room below the limit that leaves least. Amounts are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Limit.
    pub limit: u64,
    /// Free bytes below the limit.
    pub free: u64,
    /// Lower watermark: bytes to keep free.
    pub low: u64,
}

/// State of a watched cgroup, for display. Amounts are bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemberView<'a> {
    /// Name.
    pub cgroup: &'a Name,
    /// Usage at the last sample.
    pub current: u64,
    /// Room below the limit that leaves least; `None` without a limit.
    pub room: Option<Room>,
    /// Recent allocations, bytes per second; negative where memory is freed.
    pub growth: f64,
    /// Time for which its tasks were stalled on memory so far (PSI `some`); `None` where the kernel
    /// doesn't report it.
    pub stalled: Option<Duration>,
    /// Bytes reclaimed so far.
    pub reclaimed: u64,
    /// Guard that holds back an action.
    pub held: Option<Guard>,
    /// Estimate of `--pressure`, where there is one.
    pub found: Option<EstimateSummary>,
}

/// Results of `--pressure` so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EstimateSummary {
    /// Estimate of the working set, after the first knee.
    pub set: Option<WorkingSet>,
    /// Reason why nothing was learned of the working set lately.
    pub idle: Option<Idle>,
    /// Savings.
    pub saved: Saved,
}

/// Summary of the watch of one cgroup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// The cgroup's name.
    pub cgroup: Name,
    /// Name of the rule, if it has one.
    pub rule: Option<String>,
    /// Time of the summary, since the watch began.
    pub at: Duration,
    /// Duration of the watch.
    pub watched: Duration,
    /// Totals of all reclaim.
    pub total: ReclaimTally,
    /// The kernel's own counter of proactive reclaim (`pgsteal_proactive`, since 6.15), other
    /// processes' included.
    pub counted: Option<u64>,
    /// Bytes that its own tasks reclaimed meanwhile, in their own time; `None` where the kernel
    /// doesn't report it.
    pub direct: Option<u64>,
    /// True if `direct` is an upper bound: before 6.15 it contains what the kernel reclaimed beyond the
    /// requests, and what other processes reclaimed.
    pub direct_is_at_most: bool,
    /// Time for which its tasks were stalled on memory meanwhile (PSI `some`).
    pub stalled: Option<Duration>,
    /// Share of the five minutes before for which they were stalled.
    pub stalled_before: Option<f64>,
    /// Number of times it met its limit.
    pub outrun: u32,
    /// Number of times a guard held back an action.
    pub held: u32,
    /// Guard that held back an action last.
    pub last_held: Option<Guard>,
    /// Estimate of `--pressure`, where there is one.
    pub found: Option<EstimateSummary>,
    /// Bytes in swap at the end.
    pub swapped: Option<u64>,
    /// Largest single reclaim that a dry run omitted; 0 otherwise.
    pub would: u64,
    /// Guards that lacked information at some time.
    pub blind: BlindGuards,
    /// True if the cgroup was removed meanwhile.
    pub gone: bool,
    /// True if a write was still in progress at the end, whose result isn't known.
    pub unfinished: bool,
}

/// Result of a watch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ended {
    /// Summary of each watched cgroup, in the order of their end; of those that ended before the
    /// watch, the last thousand.
    pub each: Vec<Summary>,
    /// Number of summaries at the beginning of `each` that were emitted as [`EventKind::Ended`].
    pub emitted: usize,
    /// Number of further cgroups that ended before the watch, and the totals of all reclaim from
    /// them.
    pub others: u64,
    /// See `others`.
    pub others_total: ReclaimTally,
    /// Duration of the watch.
    pub watched: Duration,
    /// True for a dry run, which only decides and writes nothing.
    pub dry_run: bool,
    /// CPU time of the whole process, including the kernel's work for it.
    pub cpu: Duration,
}

impl Ended {
    /// Returns the bytes reclaimed from all cgroups.
    #[must_use]
    pub fn total_reclaimed(&self) -> u64 {
        self.each.iter().map(|one| one.total.reclaimed).sum::<u64>() + self.others_total.reclaimed
    }
}
