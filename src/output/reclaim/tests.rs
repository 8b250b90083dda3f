use std::time::Duration;

use memctl::reclaim::{Measure, Obstacle, Overshot, Tolerance};
use rustix::io::Errno;

use super::*;

const M: u64 = 1 << 20;

/// Returns a report of 10 MiB requested and reclaimed.
fn report() -> Report {
    Report {
        subject: memctl::reclaim::TargetKind::Cgroup,
        requested: Some(10 * M),
        down_to: None,
        reclaimed: 10 * M,
        measured_by: Measure::PgstealProactive,
        slab_reclaimed: 0,
        measure_doubtful: false,
        overshot: None,
        counted: Some(10 * M),
        unconfirmed: 0,
        tolerance: Tolerance::Folio,
        stopped_by: StoppedBy::Reached,
        obstacles: Vec::new(),
        current_before: Some(50 * M),
        current_after: Some(40 * M),
        anon_freed: Some(0),
        file_freed: Some(10 * M),
        shmem_freed: None,
        slab_freed: None,
        swapped_out: Some(0),
        zswapped: None,
        zswap_grown: None,
        zram_grown: None,
        copies_unknown: false,
        pressure_blind: false,
        demoted: None,
        chunks: 12,
        elapsed: Duration::from_millis(41),
        writing: Duration::from_millis(40),
        cpu: Duration::from_millis(39),
        stalled: Some(Duration::ZERO),
        waited_for_swap: Duration::ZERO,
        waited_for_counters: Duration::ZERO,
        waited_for_others: Duration::ZERO,
        waited_for_slab: Duration::ZERO,
        max_pressure: None,
        max_cost: None,
        last_cost: None,
        settled: None,
        swap_cache_freed: Some(0),
    }
}

fn shown(report: &Report) -> String {
    super::shown(&[(&"/app".into(), report)], None, None)
}

fn has(report: &Report, parts: &[&str]) {
    let shown = shown(report);
    for part in parts {
        assert!(shown.contains(part), "{part:?} in:\n{shown}");
    }
}

#[test]
fn what_was_asked_for_was_got() {
    let parts =
        ["/app       10 MiB     10 MiB         0 B  ", "exact", "reached, within 2 MiB of the request"];
    has(&report(), &parts);
    has(&report(), &["50 MiB -> 40 MiB (-10 MiB)\n", "41 ms in 12 writes, 39 ms of CPU (3.99 s/GiB)"]);
}

#[test]
fn a_success_that_moved_nothing_is_called_the_kernels_fault() {
    let lied = Report { reclaimed: 0, counted: Some(0), unconfirmed: 10 * M, ..report() };
    has(&lied, &["under", "10 MiB: reported as freed by the kernel, but confirmed by no", "a kernel bug"]);
    let lagging = Report { reclaimed: 9 * M, unconfirmed: M, ..report() };
    assert!(!shown(&lagging).contains("bug"));
}

#[test]
fn over_reclaim_over_swap_growth_and_demotion_are_told() {
    has(&Report { reclaimed: 20 * M, ..report() }, &["+10 MiB", "over", "more than 2 MiB over the request"]);
    has(
        &Report { swapped_out: Some(40 * M), ..report() },
        &["to swap 40 MiB", "over-swap", "30 MiB more was swapped out"],
    );
    has(&Report { current_after: Some(45 * M), ..report() }, &["(-5 MiB, grew by 5 MiB meanwhile)"]);
    has(
        &Report { zswap_grown: Some(3 * M), current_after: Some(43 * M), ..report() },
        &["net saving", "7 MiB: minus 3 MiB for compressed copies in zswap", "(-7 MiB)"],
    );
    has(
        &Report { zram_grown: Some(2 * M), ..report() },
        &["about 8 MiB: minus about 2 MiB for compressed copies in zram (estimated from mm_stat)"],
    );
    has(&Report { demoted: Some(3 * M), ..report() }, &["demoted", "3 MiB to slower memory"]);
}

#[test]
fn slab_and_the_write_that_took_it_are_told() {
    let overshot = Some(Overshot { asked: M / 8, fell: 27 * M });
    let dentries = Report {
        reclaimed: 30 * M,
        slab_reclaimed: 28 * M,
        slab_freed: Some(28 * M),
        counted: Some(2 * M),
        overshot,
        current_after: Some(20 * M),
        ..report()
    };
    has(
        &dentries,
        &["over the request; 28 MiB of the total are slab", "by pgsteal_proactive + slab; shrunk"],
    );
    has(&dentries, &["28 MiB of the reclaimed memory: dentries", "requested 128 KiB, freed 27 MiB before"]);
    has(&dentries, &["50 MiB -> 20 MiB (-30 MiB)\n"]);
    assert!(!shown(&dentries).contains("doubtful"));
    let exact = Report { reclaimed: 10 * M, counted: Some(10 * M), slab_reclaimed: 0, overshot, ..report() };
    assert!(!shown(&exact).contains("overshoot"), "it did no harm");
}

#[test]
fn a_measure_in_doubt_is_told() {
    let freed = Report { current_after: Some(0), measure_doubtful: true, ..report() };
    has(
        &freed,
        &["the usage fell by 50 MiB, more than requested; the counters attribute 40 MiB to the application"],
    );
    has(&freed, &["(-50 MiB, 40 MiB not by reclaim)"]);
    let unknown =
        Report { reclaimed: 50 * M, measured_by: Measure::MemoryCurrent, counted: Some(2 * M), ..freed };
    has(&unknown, &["more than requested, and no counter shows why", "(-50 MiB)\n"]);
}

#[test]
fn what_was_waited_for_is_named_and_tmpfs_is_no_page_cache() {
    let waited = Report {
        waited_for_swap: Duration::from_millis(1500),
        waited_for_counters: Duration::from_millis(400),
        ..report()
    };
    has(&waited, &["(waited 1.5 s for swap and 400 ms for the kernel's counters)"]);
    has(
        &Report { file_freed: Some(10 * M), shmem_freed: Some(4 * M), anon_freed: Some(0), ..report() },
        &["shrunk: file 6 MiB, anon 0 B, tmpfs 4 MiB"],
    );
    has(
        &Report { max_cost: Some(1.0), chunks: 1, ..report() },
        &["in 1 write, ", "; too little CPU time to check --max-cost"],
    );
}

#[test]
fn every_end_has_its_words() {
    let ends = [
        (StoppedBy::Exhausted, "the kernel found nothing more to free, 6 MiB short of the request"),
        (StoppedBy::Interrupted, "interrupted by a signal"),
        (StoppedBy::Timeout, "--timeout ran out after 41 ms"),
        (StoppedBy::Pressure, "the cgroup was recently stalled for more than --max-pressure"),
        (StoppedBy::Cost, "the CPU cost exceeded --max-cost"),
        (StoppedBy::Removed, "the cgroup was removed meanwhile, or its memory controller switched off"),
        (StoppedBy::Failed(Errno::INVAL), "the kernel refused: invalid argument"),
    ];
    for (stopped_by, words) in ends {
        has(&Report { stopped_by, reclaimed: 4 * M, ..report() }, &["under", stopped_by.word(), words]);
    }
    let all = Report { requested: None, stopped_by: StoppedBy::Exhausted, ..report() };
    has(&all, &["max", " -  exhausted", "nothing more could be reclaimed"]);
}

#[test]
fn several_get_a_row_each_and_a_total() {
    let short = Report {
        reclaimed: 4 * M,
        stopped_by: StoppedBy::Exhausted,
        obstacles: vec![Obstacle::NoCache],
        ..report()
    };
    let shown = super::shown(&[(&"/app".into(), &report()), (&"/batch/one".into(), &short)], None, None);
    let plain = anstream::adapter::strip_str(&shown).to_string();
    let lines: Vec<_> = plain.lines().collect();
    assert_eq!(lines[0], "CGROUP      REQUESTED  RECLAIMED  DIFFERENCE  VERDICT");
    assert_eq!(lines[2], "/batch/one     10 MiB      4 MiB      -6 MiB  under, exhausted");
    assert_eq!(lines[3], "total          20 MiB     14 MiB      -6 MiB");
    assert!(
        lines[4].starts_with("/batch/one  the kernel found nothing more")
            && lines[4].contains("; no page cache")
    );
    assert_eq!(lines[5], "cost        78 ms of CPU in 24 writes (5.71 s/GiB)");
}

#[test]
fn names_of_other_cgroups_are_escaped_too() {
    let obstacles = vec![Obstacle::Protected(M, "/app/\u{1b}[2J".into())];
    let report = Report { obstacles, stopped_by: StoppedBy::Exhausted, reclaimed: 0, ..report() };
    has(&report, &["most by /app/\\u{1b}[2J"]);
}
