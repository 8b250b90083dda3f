//! Events of `memctl watch`, as lines of JSON.

use memctl::watch::blind::BlindGuards;
use memctl::watch::event::{Ended, EstimateSummary, Event, EventKind, ReclaimTally, Summary, UsageSample};
use memctl::watch::policy::guard::Guard;
use memctl::watch::policy::savings::Saved;
use memctl::watch::policy::working_set::{Idle, WorkingSet};
use serde::Serialize;

use super::super::format::errno_text;
use super::{NameKeys, usec};

/// An event.
#[allow(clippy::struct_field_names)]
#[derive(Default, Serialize)]
pub struct Happened<'a> {
    event: &'static str,
    #[serde(flatten)]
    name: NameKeys<'a>,
    at_usec: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_bytes: Option<Limit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_file: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_cgroup: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headroom_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_bytes: Option<u64>,
    #[serde(flatten)]
    reclaimed: Option<Reclaimed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap_speed: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    working_set: Option<WorkingSetFound>,
    #[serde(flatten)]
    saved: Option<WhatWasSaved>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_usec: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    needed_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(flatten)]
    sample: Option<Sampled>,
}

/// State of a cgroup in a `sample` event, beside its usage and its limit.
#[allow(clippy::struct_field_names)]
#[derive(Serialize)]
struct Sampled {
    /// Least and largest usage since the sample before, where this one stands for several.
    #[serde(skip_serializing_if = "Option::is_none")]
    current_least_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_most_bytes: Option<u64>,
    reclaimed_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refaulted_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stalled_usec: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_working_set_bytes: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    estimated_at_most: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    guards_blind: Option<Vec<&'static str>>,
}

/// Returns the list of blind guards, if there are any.
fn guards_blind(blind: BlindGuards) -> Option<Vec<&'static str>> {
    Some(blind.words()).filter(|words| !words.is_empty())
}

impl From<&UsageSample> for Sampled {
    fn from(sample: &UsageSample) -> Self {
        Self {
            current_least_bytes: sample.range.map(|range| range.0),
            current_most_bytes: sample.range.map(|range| range.1),
            reclaimed_bytes: sample.reclaimed,
            refaulted_bytes: sample.refaulted,
            stalled_usec: sample.stalled.map(usec),
            swap_bytes: sample.swapped,
            estimated_working_set_bytes: sample.working_set,
            estimated_at_most: sample.working_set.is_some() && sample.is_at_most,
            guards_blind: guards_blind(sample.blind),
        }
    }
}

/// The first line of a record.
#[derive(Serialize)]
pub struct Begun {
    event: &'static str,
    at_usec: u64,
    version: u64,
    memctl: &'static str,
    /// Microseconds since 1970.
    started_usec: u64,
}

impl Begun {
    /// Returns the line for the current time.
    pub fn now() -> Self {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self {
            event: "begin",
            at_usec: 0,
            version: memctl::record::VERSION,
            memctl: env!("CARGO_PKG_VERSION"),
            started_usec: usec(since),
        }
    }
}

/// A reload of the rules.
#[derive(Serialize)]
pub struct Reloaded<'a> {
    /// `reload`.
    pub event: &'static str,
    /// Time of the reload, in microseconds.
    pub at_usec: u64,
    /// Name of the file.
    pub config: &'a str,
    /// Number of rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<usize>,
    /// Error in the rules; the old ones stay in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Number of events that were dropped at this place of the record.
#[allow(clippy::struct_field_names)]
#[derive(Serialize)]
pub struct Dropped {
    event: &'static str,
    at_usec: u64,
    dropped_events: u64,
}

impl Dropped {
    /// Returns the line for this many events.
    pub fn new(at_usec: u64, dropped_events: u64) -> Self {
        Self { event: "dropped", at_usec, dropped_events }
    }
}

/// A limit in bytes; null without one.
#[derive(Serialize)]
#[serde(untagged)]
enum Limit {
    Bytes(u64),
    Max,
}

impl Limit {
    fn of(bytes: u64) -> Self {
        if bytes == u64::MAX { Self::Max } else { Self::Bytes(bytes) }
    }
}

/// Estimate of a working set.
#[allow(clippy::struct_field_names)]
#[derive(Serialize)]
struct WorkingSetFound {
    estimated_working_set_bytes: u64,
    /// True if the working set may be smaller: less may do, or memory stayed that may be idle.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    estimated_at_most: bool,
    estimated_confidence_ratio: f64,
    estimated_age_usec: u64,
    estimated_least_bytes: u64,
    estimated_most_bytes: u64,
    reuse_usec: u64,
    /// Compressed copies in zswap that the cgroup is charged for besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    zswap_copies_bytes: Option<u64>,
    /// Absent before the first reuse time is over, and while less than a tenth comes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    suggested_max_bytes: Option<u64>,
    /// Part of it that is room for idle anonymous memory; absent without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    suggested_idle_bytes: Option<u64>,
}

impl WorkingSetFound {
    fn new(set: &WorkingSet) -> Self {
        Self {
            estimated_working_set_bytes: set.bytes,
            estimated_at_most: set.is_at_most(),
            estimated_confidence_ratio: set.confidence,
            estimated_age_usec: usec(set.age),
            estimated_least_bytes: set.range.0,
            estimated_most_bytes: set.range.1,
            reuse_usec: usec(set.reuse),
            zswap_copies_bytes: (set.copies > 0).then_some(set.copies),
            suggested_max_bytes: set.suggested,
            suggested_idle_bytes: set.suggested.and((set.idle_anon > 0).then_some(set.idle_anon)),
        }
    }
}

/// Amount of memory saved.
#[allow(clippy::struct_field_names)]
#[derive(Serialize)]
struct WhatWasSaved {
    #[serde(skip_serializing_if = "Option::is_none")]
    net_saved_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zram_estimate_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    demoted_bytes: Option<u64>,
}

impl From<&Saved> for WhatWasSaved {
    fn from(saved: &Saved) -> Self {
        Self {
            net_saved_bytes: saved.net(),
            zram_estimate_bytes: saved.zram.filter(|&bytes| bytes > 0),
            demoted_bytes: (saved.demoted > 0).then_some(saved.demoted),
        }
    }
}

/// Amounts reclaimed since the last report.
#[allow(clippy::struct_field_names)]
#[derive(Serialize)]
struct Reclaimed {
    requested_bytes: u64,
    reclaimed_bytes: u64,
    measured_by: &'static str,
    difference_bytes: i64,
    current_before_bytes: u64,
    current_after_bytes: u64,
    low_bytes: u64,
    chunks: u32,
    writing_usec: u64,
    cpu_usec: u64,
}

impl From<&ReclaimTally> for Reclaimed {
    fn from(tally: &ReclaimTally) -> Self {
        Self {
            requested_bytes: tally.requested,
            reclaimed_bytes: tally.reclaimed,
            measured_by: if tally.is_counted { "pgsteal_proactive" } else { "memory.current" },
            difference_bytes: tally.reclaimed as i64 - tally.requested as i64,
            current_before_bytes: tally.current_before,
            current_after_bytes: tally.current_after,
            low_bytes: tally.room.map_or(0, |room| room.low),
            chunks: tally.writes,
            writing_usec: usec(tally.writing),
            cpu_usec: usec(tally.cpu),
        }
    }
}

impl<'a> From<&'a Event<'a>> for Happened<'a> {
    fn from(event: &'a Event<'a>) -> Self {
        let mut happened =
            Self { name: NameKeys::from(event.cgroup), at_usec: usec(event.at), ..Self::default() };
        match &event.what {
            EventKind::Start { current, limit, file, above, headroom, rule } => {
                happened.event = "start";
                happened.rule = rule.as_deref();
                happened.limit_cgroup = above.as_deref();
                happened.current_bytes = Some(*current);
                happened.limit_bytes = Some(Limit::of(*limit));
                happened.limit_file = file.map(memctl::cgroup::limit::LimitFile::name);
                happened.headroom_bytes = Some(*headroom);
            }
            EventKind::Limit { limit, file } => {
                happened.event = "limit";
                happened.limit_bytes = Some(Limit::of(*limit));
                happened.limit_file = file.map(memctl::cgroup::limit::LimitFile::name);
            }
            EventKind::Reclaim(tally) => {
                happened.event = "reclaim";
                happened.limit_bytes = Some(tally.room.map_or(Limit::Max, |room| Limit::Bytes(room.limit)));
                happened.headroom_bytes = tally.room.map(|room| room.free);
                happened.reclaimed = Some(Reclaimed::from(tally));
            }
            EventKind::Hold { guard, wait } => {
                happened.event = "hold";
                happened.guard = Some(guard.word());
                match guard {
                    Guard::Lock(pid) => happened.lock_pid = *pid,
                    Guard::SlowSwap { is_known } => {
                        happened.swap_speed = Some(if *is_known { "slow" } else { "unknown" });
                    }
                    _ => {}
                }
                happened.wait_usec = wait.map(usec);
            }
            EventKind::Outrun { needed, free } => {
                happened.event = "outrun";
                happened.headroom_bytes = Some(*free);
                happened.needed_bytes = Some(*needed);
            }
            EventKind::Would { requested, current, down_to } => {
                happened.event = "would_reclaim";
                happened.current_bytes = Some(*current);
                happened.requested_bytes = Some(*requested);
                happened.target_bytes = Some(*down_to);
            }
            EventKind::WorkingSet { set, saved } => {
                happened.event = "working_set";
                happened.saved = Some(WhatWasSaved::from(saved));
                happened.working_set = Some(WorkingSetFound::new(set));
            }
            EventKind::Sample(sample) => {
                happened.event = "sample";
                happened.current_bytes = Some(sample.current);
                happened.limit_bytes = Some(Limit::of(sample.limit));
                happened.sample = Some(Sampled::from(sample));
            }
            // It has a line of its own: `WatchSummary`.
            EventKind::Ended(_) => happened.event = "summary",
            EventKind::Acted(_) => happened.event = "action",
            EventKind::Blind { error } => {
                happened.event = "blind";
                happened.error = Some(errno_text(*error));
            }
            EventKind::Recovered => happened.event = "recovered",
            EventKind::Released => happened.event = "released",
            EventKind::Gone => happened.event = "gone",
            EventKind::Left => happened.event = "left",
            EventKind::Blocked => happened.event = "blocked",
        }
        happened
    }
}

/// Result for one cgroup.
#[allow(clippy::struct_field_names)]
#[derive(Serialize)]
pub struct WatchSummary<'a> {
    event: &'static str,
    #[serde(flatten)]
    name: NameKeys<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    at_usec: u64,
    requested_bytes: u64,
    reclaimed_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    would_reclaim_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pgsteal_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    direct_bytes: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    direct_at_most: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stalled_usec: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stalled_before_ratio: Option<f64>,
    outrun: u32,
    held: u32,
    /// The guard that blocked last.
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guards_blind: Option<Vec<&'static str>>,
    chunks: u32,
    writing_usec: u64,
    cpu_usec: u64,
    watched_usec: u64,
    gone: bool,
    /// True if a write was in progress at the end, whose result isn't known.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unfinished: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap_bytes: Option<u64>,
    #[serde(flatten)]
    working_set: Option<WorkingSetFound>,
    /// Reason why nothing was learned of the working set lately.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_estimated: Option<&'static str>,
    #[serde(flatten)]
    saved: Option<WhatWasSaved>,
}

impl<'a> From<&'a Summary> for WatchSummary<'a> {
    fn from(summary: &'a Summary) -> Self {
        Self {
            event: "summary",
            name: NameKeys::from(&summary.cgroup),
            rule: summary.rule.as_deref(),
            would_reclaim_bytes: (summary.would > 0).then_some(summary.would),
            at_usec: usec(summary.at),
            requested_bytes: summary.total.requested,
            reclaimed_bytes: summary.total.reclaimed,
            pgsteal_bytes: summary.counted,
            direct_bytes: summary.direct,
            direct_at_most: summary.direct_is_at_most,
            stalled_usec: summary.stalled.map(usec),
            stalled_before_ratio: summary.stalled_before,
            outrun: summary.outrun,
            held: summary.held,
            guard: summary.last_held.map(Guard::word),
            guards_blind: guards_blind(summary.blind),
            chunks: summary.total.writes,
            writing_usec: usec(summary.total.writing),
            cpu_usec: usec(summary.total.cpu),
            watched_usec: usec(summary.watched),
            gone: summary.gone,
            unfinished: summary.unfinished,
            swap_bytes: summary.swapped,
            working_set: summary
                .found
                .and_then(|found: EstimateSummary| Some(WorkingSetFound::new(&found.set?))),
            not_estimated: summary.found.and_then(|found| found.idle).map(Idle::word),
            saved: summary.found.map(|found| WhatWasSaved::from(&found.saved)),
        }
    }
}

/// Result of the whole watch.
#[allow(clippy::struct_field_names)]
#[derive(Serialize)]
pub struct WatchEnded {
    event: &'static str,
    at_usec: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    total_reclaimed_bytes: u64,
    total_watched_usec: u64,
    /// CPU time of the whole process, including the kernel's work for it.
    total_cpu_usec: u64,
    /// Number of cgroups that ended before the watch: their summaries came then.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_earlier: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped_events: Option<u64>,
}

impl WatchEnded {
    /// Returns the line for a watch of which this many events were dropped.
    pub fn new(ended: &Ended, dropped: u64) -> Self {
        let ended_earlier = ended.emitted as u64 + ended.others;
        Self {
            ended_earlier: (ended_earlier > 0).then_some(ended_earlier),
            dropped_events: (dropped > 0).then_some(dropped),
            event: "end",
            at_usec: usec(ended.watched),
            dry_run: ended.dry_run,
            total_reclaimed_bytes: ended.total_reclaimed(),
            total_watched_usec: usec(ended.watched),
            total_cpu_usec: usec(ended.cpu),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the object that a value is printed as.
    fn printed(value: &impl Serialize) -> serde_json::Value {
        serde_json::to_value(value).expect("it can be serialised")
    }

    #[test]
    fn the_end_counts_the_summaries_before_it() {
        let ended = Ended { each: vec![Summary::default(); 3], emitted: 2, others: 7, ..Ended::default() };
        assert_eq!(printed(&WatchEnded::new(&ended, 0))["ended_earlier"], 9);
        let none = printed(&WatchEnded::new(&Ended::default(), 0));
        assert!(none.get("ended_earlier").is_none(), "{none}");
    }

    #[test]
    fn the_measure_is_the_counter_where_there_is_one() {
        let measure = |is_counted| {
            let tally = ReclaimTally { is_counted, ..ReclaimTally::default() };
            printed(&Reclaimed::from(&tally))["measured_by"].clone()
        };
        assert_eq!((measure(true), measure(false)), ("pgsteal_proactive".into(), "memory.current".into()));
    }

    #[test]
    fn an_unfinished_write_is_named_in_the_summary() {
        let summary =
            |unfinished| printed(&WatchSummary::from(&Summary { unfinished, ..Summary::default() }));
        assert_eq!(summary(true)["unfinished"], true);
        assert!(summary(false).get("unfinished").is_none());
    }

    #[test]
    fn a_lock_is_reported_with_its_holder() {
        let cgroup = "/app".into();
        let hold = |guard| {
            let what = EventKind::Hold { guard, wait: None };
            printed(&Happened::from(&Event { cgroup: &cgroup, at: std::time::Duration::ZERO, what }))
        };
        let lock = hold(Guard::Lock(Some(42)));
        assert_eq!((&lock["guard"], &lock["lock_pid"]), (&"lock".into(), &42.into()));
        assert!(hold(Guard::NoRoom).get("lock_pid").is_none());
        for (is_known, speed) in [(true, "slow"), (false, "unknown")] {
            let slow = hold(Guard::SlowSwap { is_known });
            assert_eq!((&slow["guard"], &slow["swap_speed"]), (&"slow_swap".into(), &speed.into()));
        }
    }
}
