//! JSON output: one object per line. Base units, with the unit in the key; values that this kernel
//! doesn't offer are absent.

mod name;
mod stat;
mod watch;

pub use name::NameKeys;
pub use stat::Stated;
pub use watch::{Begun, Dropped, Happened, Reloaded, WatchEnded, WatchSummary};

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use memctl::cgroup::Name;
use memctl::reclaim::{Blocker, Report, Settled, TargetKind, TotalPlan};
use serde::Serialize;

use crate::output::view::DryRun;

/// The report of `memctl reclaim`, as a line of JSON. Keys are only ever added.
#[allow(clippy::struct_field_names)] // The names are the keys.
#[derive(Serialize)]
pub struct Reclaimed<'a> {
    #[serde(flatten)]
    name: NameKeys<'a>,
    path: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<u32>,
    /// null for `max`, and for a share of a total.
    requested_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_bytes: Option<u64>,
    reclaimed_bytes: u64,
    measured_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    slab_reclaimed_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    measure_doubtful: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guards_blind: Option<[&'static str; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overshot_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overshot_asked_bytes: Option<u64>,
    difference_bytes: Option<i64>,
    tolerance_bytes: Option<u64>,
    verdict: Option<&'static str>,
    /// null if nothing was requested from a share of a total.
    stopped_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    obstacles: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_before_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_after_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    net_freed_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grown_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pgsteal_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anon_freed_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_freed_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shmem_freed_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slab_freed_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap_cache_freed_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swapped_out_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zswapped_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zswap_grown_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zram_grown_estimate_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    net_saved_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    over_swapped_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    demoted_bytes: Option<u64>,
    unconfirmed_bytes: u64,
    chunks: u32,
    elapsed_usec: u64,
    writing_usec: u64,
    waited_usec: u64,
    cpu_usec: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stalled_usec: Option<u64>,
    #[serde(flatten)]
    settled: Option<SettledKeys>,
}

/// The total of one amount for several cgroups, as a line of JSON after theirs. Its keys differ
/// from theirs, so that nothing is counted twice when the lines are added up.
#[allow(clippy::struct_field_names)]
#[derive(Serialize)]
pub struct TotalReclaimed {
    total_requested_bytes: Option<u64>,
    total_reclaimed_bytes: u64,
    total_difference_bytes: Option<i64>,
    total_verdict: Option<&'static str>,
    total_stopped_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_net_saved_bytes: Option<i64>,
    total_chunks: u32,
    total_elapsed_usec: u64,
    total_cpu_usec: u64,
}

impl From<&Report> for TotalReclaimed {
    fn from(total: &Report) -> Self {
        Self {
            total_requested_bytes: total.requested,
            total_reclaimed_bytes: total.reclaimed,
            total_difference_bytes: total.difference(),
            total_verdict: total.verdict().map(memctl::reclaim::Verdict::word),
            total_stopped_by: total.stopped_by.word(),
            total_net_saved_bytes: total.saved(),
            total_chunks: total.chunks,
            total_elapsed_usec: usec(total.elapsed),
            total_cpu_usec: usec(total.cpu),
        }
    }
}

/// The forecast of a request by `--dry-run`, as a line of JSON.
#[allow(clippy::struct_field_names)]
#[derive(Serialize)]
pub struct Planned<'a> {
    #[serde(flatten)]
    name: NameKeys<'a>,
    path: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<u32>,
    dry_run: bool,
    requested_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_bytes: Option<u64>,
    reclaimable_bytes: u64,
    expected_bytes: u64,
    file_bytes: u64,
    anon_bytes: u64,
    swappable_bytes: u64,
    slab_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap_room_bytes: Option<u64>,
    protected_bytes: u64,
    unevictable_bytes: u64,
    guards: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guards_blind: Option<[&'static str; 1]>,
}

impl<'a> From<&'a DryRun> for Planned<'a> {
    fn from(foretold: &'a DryRun) -> Self {
        let DryRun { name, path, plan, locked } = foretold;
        let there = &plan.reclaimable;
        Self {
            name: NameKeys::with_path(name, path),
            path: path.to_string_lossy(),
            node: node(plan.subject),
            dry_run: true,
            requested_bytes: plan.requested,
            target_bytes: plan.down_to,
            current_bytes: plan.current,
            reclaimable_bytes: there.bytes(),
            expected_bytes: plan.expected(),
            file_bytes: there.file,
            anon_bytes: there.anon,
            swappable_bytes: there.swappable,
            slab_bytes: there.slab,
            swap_room_bytes: there.swap.as_ref().map(|room| room.bytes),
            protected_bytes: there.protected,
            unevictable_bytes: there.unevictable,
            guards: plan.guards.iter().map(|guard| guard.word()).chain(locked.then_some("lock")).collect(),
            guards_blind: plan.pressure_blind().then_some(["pressure"]),
        }
    }
}

/// The forecast of one amount for several cgroups, as a line of JSON after theirs.
#[allow(clippy::struct_field_names)]
#[derive(Serialize)]
pub struct TotalPlanned {
    dry_run: bool,
    total_requested_bytes: Option<u64>,
    total_reclaimable_bytes: u64,
    total_expected_bytes: u64,
    total_guards: Vec<&'static str>,
}

impl From<&TotalPlan> for TotalPlanned {
    fn from(total: &TotalPlan) -> Self {
        Self {
            dry_run: true,
            total_requested_bytes: total.requested,
            total_reclaimable_bytes: total.reclaimable,
            total_expected_bytes: total.expected(),
            total_guards: total.guards.iter().copied().map(Blocker::word).collect(),
        }
    }
}

/// Keys that `--settle` adds.
#[allow(clippy::struct_field_names)]
#[derive(Serialize)]
struct SettledKeys {
    #[serde(skip_serializing_if = "Option::is_none")]
    refaulted_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restored_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swapped_in_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usual_refaulted_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usual_restored_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usual_swapped_in_bytes: Option<u64>,
    settle_usec: u64,
    baseline_usec: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    settle_stalled_usec: Option<u64>,
}

impl From<&Settled> for SettledKeys {
    fn from(settled: &Settled) -> Self {
        Self {
            refaulted_bytes: settled.came_back.refaulted,
            restored_bytes: settled.came_back.restored,
            swapped_in_bytes: settled.came_back.swapped_in,
            usual_refaulted_bytes: settled.usual.refaulted,
            usual_restored_bytes: settled.usual.restored,
            usual_swapped_in_bytes: settled.usual.swapped_in,
            settle_usec: usec(settled.watched),
            baseline_usec: usec(settled.watched_before),
            settle_stalled_usec: settled.stalled.map(usec),
        }
    }
}

fn node(subject: TargetKind) -> Option<u32> {
    match subject {
        TargetKind::Cgroup => None,
        TargetKind::Node(number) => Some(number),
    }
}

pub fn usec(time: Duration) -> u64 {
    time.as_micros() as u64
}

impl<'a> Reclaimed<'a> {
    /// Converts the report of a request, or of a share in a total. For a share the verdict is left
    /// out: only the total has one.
    pub fn new(name: &'a Name, path: &'a Path, report: &Report, shared: bool) -> Self {
        let judged = (!shared).then_some(report);
        Self {
            name: NameKeys::with_path(name, path),
            path: path.to_string_lossy(),
            node: node(report.subject),
            requested_bytes: judged.and_then(|report| report.requested),
            target_bytes: report.down_to,
            reclaimed_bytes: report.reclaimed,
            measured_by: report.measure(),
            slab_reclaimed_bytes: Some(report.slab_reclaimed).filter(|&slab| slab > 0),
            measure_doubtful: report.measure_doubtful.then_some(true),
            guards_blind: report.pressure_blind.then_some(["pressure"]),
            overshot_bytes: report.overshot.map(|write| write.fell),
            overshot_asked_bytes: report.overshot.map(|write| write.asked),
            difference_bytes: judged.and_then(Report::difference),
            tolerance_bytes: judged.and_then(Report::tolerated),
            verdict: judged.and_then(Report::verdict).map(memctl::reclaim::Verdict::word),
            stopped_by: (report.chunks > 0 || !shared).then(|| report.stopped_by.word()),
            obstacles: report.obstacles.iter().map(memctl::reclaim::Obstacle::word).collect(),
            current_before_bytes: report.current_before,
            current_after_bytes: report.current_after,
            net_freed_bytes: report.net_freed(),
            grown_bytes: report.grown(),
            pgsteal_bytes: report.counted,
            anon_freed_bytes: report.anon_freed,
            file_freed_bytes: report.file_freed,
            shmem_freed_bytes: report.shmem_freed,
            slab_freed_bytes: report.slab_freed,
            swap_cache_freed_bytes: report.swap_cache_freed,
            swapped_out_bytes: report.swapped_out,
            zswapped_bytes: report.zswapped,
            zswap_grown_bytes: report.zswap_grown,
            zram_grown_estimate_bytes: report.zram_grown,
            net_saved_bytes: report.saved(),
            over_swapped_bytes: report.over_swapped(),
            demoted_bytes: report.demoted,
            unconfirmed_bytes: report.unconfirmed,
            chunks: report.chunks,
            elapsed_usec: usec(report.elapsed),
            writing_usec: usec(report.writing),
            waited_usec: usec(report.waited()),
            cpu_usec: usec(report.cpu),
            stalled_usec: report.stalled.map(usec),
            settled: report.settled.as_ref().map(SettledKeys::from),
        }
    }
}
