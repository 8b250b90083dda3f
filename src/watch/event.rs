//! What a watch tells while it runs, and at its end. Amounts are bytes.

use std::time::Duration;

use super::action::ActionResult;
use super::policy::guard::Guard;
use super::policy::savings::Saved;
use super::policy::working_set::WorkingSet;
use crate::cgroup::Name;
use crate::cgroup::limit::LimitFile;

/// Something that happened to one cgroup.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<'a> {
    /// The cgroup's name.
    pub cgroup: &'a Name,
    /// When, since the watch began.
    pub at: Duration,
    /// What.
    pub what: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// It is watched from now on.
    Start {
        /// What it uses.
        current: u64,
        /// Its limit; `u64::MAX` without one.
        limit: u64,
        /// Which file sets the limit; `None` where the user does.
        file: Option<LimitFile>,
        /// Whose limit that is and whose usage, if an ancestor's leaves least.
        above: Option<String>,
        /// What is to be free below it.
        headroom: u64,
        /// The rule's name, if it has one.
        rule: Option<String>,
    },
    /// Its own limit is another one now.
    Limit {
        /// The limit; `u64::MAX` without one.
        limit: u64,
        /// Which file sets it; `None` where the user does.
        file: Option<LimitFile>,
    },
    /// One action is done. Only told if that was asked for.
    Acted(ActionResult),
    /// Memory was reclaimed from it: all that was in a second or so.
    Reclaim(ReclaimTally),
    /// So much would be reclaimed now, were it not for a dry run. Told again only after a while.
    Would {
        /// What is missing.
        requested: u64,
        /// What is used.
        current: u64,
        /// To what that is to come down.
        down_to: u64,
    },
    /// Something held back what should have been done. Told once, not again until something else happens.
    Hold {
        /// What held.
        guard: Guard,
        /// For how long, where that is known.
        wait: Option<Duration>,
    },
    /// It met its limit: more arrived at once than was free.
    Outrun {
        /// What should have been free.
        needed: u64,
        /// What was.
        free: u64,
    },
    /// Its working set was found, or another one than was told of last.
    WorkingSet {
        /// What is known of it.
        set: WorkingSet,
        /// What was saved by then.
        saved: Saved,
    },
    /// How it stands. Only told if that was asked for.
    Sample(UsageSample),
    /// It is gone.
    Gone,
    /// No rule takes it any more.
    Released,
    /// memctl had joined it, and left, since nobody else was inside any more.
    Left,
    /// No write has come back for a while, and there is nobody left to write.
    Blocked,
}

/// How a cgroup stands. Amounts are bytes, and what is counted is counted since the watch began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageSample {
    /// What it uses.
    pub current: u64,
    /// Its limit; `u64::MAX` without one.
    pub limit: u64,
    /// What of it is in swap; `None` where the kernel doesn't tell.
    pub swapped: Option<u64>,
    /// What is known of its working set.
    pub working_set: Option<u64>,
    /// What was reclaimed from it.
    pub reclaimed: u64,
    /// What came back: refaults of page cache and of what was in swap.
    pub refaulted: u64,
    /// How long its tasks were stalled for want of memory (PSI `some`); `None` where the kernel doesn't tell.
    pub stalled: Option<Duration>,
    /// Whether the guard `above` can't see now.
    pub above_blind: bool,
}

/// What came of actions. Amounts are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReclaimTally {
    /// What was missing when each action began.
    pub requested: u64,
    /// What was reclaimed, by the kernel's word and the fall of `memory.current`.
    pub reclaimed: u64,
    /// In how many writes.
    pub writes: u32,
    /// How long those took.
    pub writing: Duration,
    /// The CPU time of those who wrote.
    pub cpu: Duration,
    /// What was used before the first and after the last.
    pub current_before: u64,
    /// See `current_before`.
    pub current_after: u64,
    /// What is left after the last; `None` without a limit.
    pub room: Option<Room>,
}

/// What there is below the limit that leaves least. Amounts are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// That limit.
    pub limit: u64,
    /// What is free below it.
    pub free: u64,
    /// The lower watermark: what is to be free.
    pub low: u64,
}

/// How a cgroup under watch stands. Amounts are bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemberView<'a> {
    /// Its name.
    pub cgroup: &'a Name,
    /// What it used when it was looked at last.
    pub current: u64,
    /// What there is below the limit that leaves least; `None` without a limit.
    pub room: Option<Room>,
    /// What it takes in a second, of late; less than nothing where it gives memory back.
    pub growth: f64,
    /// How long its tasks were stalled for want of memory so far (PSI `some`); `None` where the kernel doesn't tell.
    pub stalled: Option<Duration>,
    /// What was reclaimed from it so far.
    pub reclaimed: u64,
    /// What holds back what should be done.
    pub held: Option<Guard>,
    /// What pressing found, where there is any.
    pub found: Option<EstimateSummary>,
}

/// What pressing found so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EstimateSummary {
    /// What is known of the working set, once there was a knee.
    pub set: Option<WorkingSet>,
    /// What was saved.
    pub saved: Saved,
}

/// What came of a watch, for one cgroup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// The cgroup's name.
    pub cgroup: Name,
    /// The rule's name, if it has one.
    pub rule: Option<String>,
    /// When that was told, since the watch began.
    pub at: Duration,
    /// How long it was watched.
    pub watched: Duration,
    /// All that was reclaimed from it.
    pub total: ReclaimTally,
    /// What the kernel's own counter of proactive reclaim says (`pgsteal_proactive`, since 6.15), others' included.
    pub counted: Option<u64>,
    /// What its own tasks had to reclaim meanwhile, in their own time; `None` where the kernel doesn't tell.
    pub direct: Option<u64>,
    /// How long its tasks were stalled for want of memory meanwhile (PSI `some`).
    pub stalled: Option<Duration>,
    /// The share of the five minutes before in which they were.
    pub stalled_before: Option<f64>,
    /// How often it met its limit.
    pub outrun: u32,
    /// How often something held back what should have been done.
    pub held: u32,
    /// What did last.
    pub last_held: Option<Guard>,
    /// What pressing found, where there was any.
    pub found: Option<EstimateSummary>,
    /// What of it is in swap at the end.
    pub swapped: Option<u64>,
    /// In a dry run, the most that would have been reclaimed at once; 0 elsewhere.
    pub would: u64,
    /// Whether the guard `above` could not see at some time.
    pub above_blind: bool,
    /// It was removed meanwhile.
    pub gone: bool,
}

/// The end of a watch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ended {
    /// A row for each cgroup that was watched, in the order in which they came.
    pub each: Vec<Summary>,
    /// How long it watched.
    pub watched: Duration,
    /// It only decided, and wrote nothing.
    pub dry_run: bool,
    /// CPU time of the whole process, the kernel's work for it included.
    pub cpu: Duration,
}
