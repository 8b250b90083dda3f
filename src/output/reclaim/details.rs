//! One report in labelled lines: reason, measure, sources, cost and obstacles.

use memctl::cgroup::conditions::NodeThreshold;
use memctl::cgroup::swap_room::SwapBound;
use memctl::reclaim::{Obstacle, Refaulted, Report, Settled, StoppedBy, TargetKind, Verdict};

use crate::output::format::{difference, escaped, size, time};

pub mod slab;

/// Returns the lines: reason, measure, sources and cost.
pub fn details(report: &Report) -> Vec<(String, String)> {
    let mut lines = vec![
        ("why", why(report)),
        ("measured", measured(report)),
        ("usage", usage(report)),
        ("cost", cost(report)),
    ];
    lines.extend(report.obstacles.iter().map(|obstacle| ("obstacle", in_the_way(obstacle))));
    if report.unconfirmed > 0 {
        lines.push(("unconfirmed", unconfirmed(report)));
    }
    lines.extend(slab::lines(report));
    if let Some(over) = report.over_swapped() {
        lines.push((
            "over-swap",
            format!("{} more was swapped out than reclaimed: the kernel writes ahead", size(over)),
        ));
    }
    if let Some(demoted) = report.demoted.filter(|&demoted| demoted > 0) {
        lines.push(("demoted", format!("{} to slower memory, not counted as reclaimed", size(demoted))));
    }
    lines.extend(net_saving([report].into_iter()).map(|saving| ("net saving", saving)));
    lines.extend(report.settled.as_ref().map(|settled| ("came back", came_back(settled))));
    lines.into_iter().map(|(label, text)| (label.to_owned(), text)).collect()
}

pub fn why(report: &Report) -> String {
    let short = report.requested.map_or(0, |requested| requested.saturating_sub(report.reclaimed));
    let tolerated = report.tolerated().map_or_else(String::new, size);
    match (report.stopped_by, report.verdict()) {
        (StoppedBy::Reached, Some(Verdict::Exact)) if report.requested == Some(0) => {
            "the usage was low enough already: nothing was requested".into()
        }
        (StoppedBy::Reached, Some(Verdict::Exact)) => format!("reached, within {tolerated} of the request"),
        (StoppedBy::Reached, Some(Verdict::Over)) => {
            format!(
                "reached, but the kernel freed more than {tolerated} over the request{}",
                slab::share(report)
            )
        }
        (StoppedBy::Reached, _) => {
            format!("the kernel reported success, but {} are not accounted for", size(short))
        }
        (StoppedBy::Exhausted, verdict) if verdict != Some(Verdict::Exact) && awaits_swap(report) => {
            format!(
                "gave up waiting for swap after {}, {} short of the request",
                time(report.elapsed),
                size(short)
            )
        }
        (StoppedBy::Exhausted, None) => "nothing more could be reclaimed".into(),
        (StoppedBy::Exhausted, Some(Verdict::Under)) => {
            format!("the kernel found nothing more to free, {} short of the request", size(short))
        }
        (StoppedBy::Exhausted, _) => {
            format!("nothing more could be reclaimed, within {tolerated} of the request")
        }
        (StoppedBy::Interrupted, _) => "interrupted by a signal".into(),
        (StoppedBy::Timeout, _) => format!("--timeout ran out after {}", time(report.elapsed)),
        (StoppedBy::Pressure, _) => {
            let most = report.max_pressure.map_or_else(String::new, |most| format!(" {most}"));
            format!("{} was recently stalled for more than --max-pressure{most}", stalled_one(report))
        }
        (StoppedBy::Cost, _) => {
            let lately = match report.last_cost {
                Some(cost) if cost.is_finite() => format!(": {cost:.2} s/GiB recently"),
                Some(_) => ": nothing was freed recently".into(),
                None => String::new(),
            };
            format!("the CPU cost exceeded --max-cost{lately}")
        }
        (StoppedBy::Removed, _) => removed(report.subject).into(),
        (StoppedBy::Failed(errno), _) => {
            format!("the kernel refused: {}", crate::output::format::errno_text(errno))
        }
    }
}

/// Returns the net saving of one or several reports, where compressed copies of the pages stay in
/// memory.
pub fn net_saving<'a>(reports: impl Iterator<Item = &'a Report> + Clone) -> Option<String> {
    let zswap: u64 = reports.clone().filter_map(|report| report.zswap_grown).sum();
    let zram: u64 = reports.clone().filter_map(|report| report.zram_grown).sum();
    if reports.clone().any(|report| report.copies_unknown) {
        return Some(
            "unknown: the kernel doesn't tell how much went to zram, or to swap that may be zram".into(),
        );
    }
    let copies = match (zswap, zram) {
        (0, 0) => return None,
        (_, 0) => format!("minus {} for compressed copies in zswap", size(zswap)),
        (0, _) => {
            format!("minus about {} for compressed copies in zram (estimated from mm_stat)", size(zram))
        }
        _ => format!(
            "minus {} in zswap and about {} in zram (estimated from mm_stat)",
            size(zswap),
            size(zram)
        ),
    };
    let about = if zram > 0 { "about " } else { "" };
    // Copies can take more than was freed.
    let saved = reports.filter_map(Report::saved).fold(0, i64::saturating_add);
    let sign = if saved < 0 { "-" } else { "" };
    Some(format!("{about}{sign}{}: {copies}", size(saved.unsigned_abs())))
}

/// Returns the line of `--settle`.
pub fn came_back(settled: &Settled) -> String {
    let Refaulted { refaulted, restored, swapped_in } = settled.came_back;
    let usual = settled.usual.refaulted;
    let Some(refaulted) = refaulted else { return "unknown: this kernel doesn't count refaults".into() };
    if refaulted == 0 && swapped_in.unwrap_or(0) == 0 {
        let stalled = settled.stalled.filter(|stalled| !stalled.is_zero());
        let stalled = stalled.map_or_else(String::new, |stalled| format!("; stalled for {}", time(stalled)));
        return format!("nothing within {}{stalled}", time(settled.watched));
    }
    let parts = [
        restored.map(|bytes| format!("{} had been in use", size(bytes))),
        swapped_in.filter(|&bytes| bytes > 0).map(|bytes| format!("{} from swap", size(bytes))),
        usual.map(|bytes| format!("usual for this time: {}", size(bytes))),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    let stalled =
        settled.stalled.map_or_else(String::new, |stalled| format!("; stalled for {}", time(stalled)));
    format!("{} within {} ({}){stalled}", size(refaulted), time(settled.watched), parts.join(", "))
}

/// Returns the text for a target that was removed.
pub fn removed(subject: TargetKind) -> &'static str {
    match subject {
        TargetKind::Cgroup => "the cgroup was removed meanwhile, or its memory controller switched off",
        TargetKind::Node(_) => "the node went offline meanwhile",
    }
}

/// Returns the name of the tasks that were stalled: nodes have no pressure file of their own.
fn stalled_one(report: &Report) -> &'static str {
    match report.subject {
        TargetKind::Cgroup => "the cgroup",
        TargetKind::Node(_) => "the host",
    }
}

/// Returns the reason why the kernel doesn't reclaim from a node.
pub fn below_the_gate(has: u64, gate: &NodeThreshold) -> String {
    let which = if gate.mapped { "clean page cache" } else { "clean, unmapped page cache" };
    format!(
        "{} of {which}: the kernel reclaims from a node only above {} (vm.min_unmapped_ratio), or above {} of \
         reclaimable slab (vm.min_slab_ratio)",
        size(has),
        size(gate.cache),
        size(gate.slab)
    )
}

fn awaits_swap(report: &Report) -> bool {
    report.obstacles.iter().any(|obstacle| matches!(obstacle, Obstacle::Writeback(_)))
}

fn measured(report: &Report) -> String {
    let part = |what: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{what} {}", size(bytes)));
    // memory.stat counts tmpfs as page cache; the report lists it separately.
    let shmem = report.shmem_freed.unwrap_or(0);
    let parts = [
        part("file", report.file_freed.map(|bytes| bytes.saturating_sub(shmem))),
        part("anon", report.anon_freed),
        part("tmpfs", Some(shmem).filter(|&b| b > 0)),
        part("swap cache", report.swap_cache_freed.filter(|&b| b > 0)),
        part("slab", report.slab_freed.filter(|&b| b > 0)),
        part("to swap", report.swapped_out.filter(|&b| b > 0)),
        part("to zswap", report.zswapped.filter(|&b| b > 0)),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    format!("by {}; shrunk: {}", report.measure(), parts.join(", "))
}

fn usage(report: &Report) -> String {
    let (Some(before), Some(after), Some(net)) =
        (report.current_before, report.current_after, report.net_freed())
    else {
        return match report.subject {
            TargetKind::Cgroup => "unknown: the root cgroup has no memory.current".into(),
            TargetKind::Node(_) => "unknown: a NUMA node has no memory.current".into(),
        };
    };
    let grown = report.grown().filter(|&grown| grown > 0);
    let grown = grown.map_or_else(String::new, |grown| format!(", grew by {} meanwhile", size(grown)));
    // A difference of some pages, and the little slab that goes with page cache, isn't worth
    // reporting.
    let left = report.left().filter(|&left| left > (1 << 20) && left > report.reclaimed / 20);
    let left = left.map_or_else(String::new, |left| format!(", {} not by reclaim", size(left)));
    format!("{} -> {} ({}{grown}{left})", size(before), size(after), difference(-net))
}

fn cost(report: &Report) -> String {
    let per_gib = report.cpu_per_gib().map_or_else(String::new, |cost| format!(" ({cost:.2} s/GiB)"));
    let stalled = report.stalled.map_or_else(String::new, |stalled| {
        format!("; {} was stalled for {}", stalled_one(report), time(stalled))
    });
    let waits = [
        ("swap", report.waited_for_swap),
        ("other reclaimers of the node", report.waited_for_others),
        ("the kernel's counters", report.waited_for_counters),
        ("slab to be freed", report.waited_for_slab),
    ];
    let waits = waits.into_iter().filter(|(_, waited)| waited.as_millis() >= 100);
    let waits: Vec<_> = waits.map(|(what, waited)| format!("{} for {what}", time(waited))).collect();
    let waited = if waits.is_empty() { String::new() } else { format!(" (waited {})", waits.join(" and ")) };
    // Too little CPU time was used to calculate the cost.
    let unjudged = report.max_cost.is_some() && report.last_cost.is_none() && report.chunks > 0;
    let unjudged = if unjudged { "; too little CPU time to check --max-cost" } else { "" };
    format!(
        "{}{waited} in {}, {} of CPU{per_gib}{stalled}{unjudged}",
        time(report.elapsed),
        writes(report.chunks),
        time(report.cpu)
    )
}

/// Formats a number of writes: `1 write`, `12 writes`.
pub fn writes(count: u32) -> String {
    format!("{count} {}", if count == 1 { "write" } else { "writes" })
}

pub fn unconfirmed(report: &Report) -> String {
    let fault =
        if report.kernel_lied() { ": a kernel bug, known in 6.17 and 6.18 without CONFIG_NUMA" } else { "" };
    format!(
        "{}: reported as freed by the kernel, but confirmed by no counter{fault}",
        size(report.unconfirmed)
    )
}

pub fn in_the_way(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::NoSwapRoom(bytes, SwapBound::NoSwap) => {
            format!("{} of anonymous memory: this host has no swap", size(*bytes))
        }
        Obstacle::NoSwapRoom(bytes, SwapBound::Free) => {
            format!("{} of anonymous memory: swap is full", size(*bytes))
        }
        Obstacle::NoSwapRoom(bytes, SwapBound::Limit(cgroup)) => {
            format!("{} of anonymous memory: memory.swap.max of {} is reached", size(*bytes), escaped(cgroup))
        }
        Obstacle::AnonNotAsked(bytes) => {
            format!("{} are anonymous memory, which wasn't requested", size(*bytes))
        }
        Obstacle::NoSwappiness(bytes) => {
            format!("{} are anonymous memory, which isn't swapped while vm.swappiness is 0", size(*bytes))
        }
        Obstacle::FileNotAsked(bytes) => format!("{} are page cache, which wasn't requested", size(*bytes)),
        Obstacle::Protected(bytes, child) => {
            format!(
                "{} are protected by memory.min of child cgroups (most by {})",
                size(*bytes),
                escaped(child)
            )
        }
        Obstacle::OwnMin(bytes) => {
            format!(
                "{} of page cache, under the cgroup's own memory.min, which kernels before 6.2 honour by mistake",
                size(*bytes)
            )
        }
        Obstacle::Unevictable(bytes) => format!("{} are locked in memory (unevictable)", size(*bytes)),
        Obstacle::Writeback(bytes) => format!("{} are under writeback to swap or disk", size(*bytes)),
        Obstacle::NoCache => "no page cache is left".into(),
        Obstacle::Empty => "almost nothing reclaimable is left".into(),
        Obstacle::Growing => "memory is allocated as fast as it is reclaimed".into(),
        Obstacle::NodeThreshold(has, gate) => below_the_gate(*has, gate),
        Obstacle::Busy => "another process keeps reclaiming from the node (EBUSY)".into(),
        Obstacle::Slab(bytes) => {
            format!("{} of slab (dentries, inodes): in use, or held by their file system", size(*bytes))
        }
        Obstacle::InUse(bytes) => format!("{} of page cache are in use", size(*bytes)),
    }
}
