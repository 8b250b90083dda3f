//! The main task on a real kernel: requests are met, and every figure of the report is true.

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, assert_close, number, parse, report, run};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest reclaim" =>
            ten_megabytes,
            ten_megabytes_overshoot_no_more_than_that,
            a_quarter,
            down_to,
            down_to_what_is_reached_already,
            more_than_there_is,
            everything,
            nothing_there,
            the_table,
            arithmetic,
            the_root,
            a_stall_is_told,
            growth_is_told_apart;
    ]
}

/// Creates a cgroup with `bytes` of page cache.
fn cached(name: &str, bytes: u64) -> Cgroup {
    let cgroup = Cgroup::new(name);
    cgroup.uses(&Work::File(bytes));
    cgroup
}

fn ten_megabytes() {
    let app = cached("app", 60 * M);
    let before = app.current();
    let report = report(&["reclaim", "/sys/fs/cgroup/app", "10M"], 0);
    assert_eq!(report["cgroup"], "/app");
    assert_eq!(report["path"], "/sys/fs/cgroup/app");
    assert_eq!((number(&report, "requested_bytes"), &report["stopped_by"]), (10 << 20, &"reached".into()));
    assert_eq!(report["verdict"], "exact");
    assert_close("reclaimed", number(&report, "reclaimed_bytes") as u64, 10 * M);
    assert_close("the fall of memory.current", before - app.current(), 10 * M);
    assert_close("the kernel's counter", app.stolen_settled(), 10 * M);
    assert_eq!(number(&report, "unconfirmed_bytes"), 0);
}

/// 6.1 frees 12 MiB and more for a request of 10 in one write.
fn ten_megabytes_overshoot_no_more_than_that() {
    let app = cached("app", 60 * M);
    let report = report(&["reclaim", "app", "10M"], 0);
    let stolen = app.stolen_settled();
    assert!(stolen <= 10 * M + 7 * M / 10, "{stolen} in {report}");
    assert!(stolen >= 10 * M - M / 2, "{stolen} in {report}");
}

fn a_quarter() {
    let app = cached("app", 60 * M);
    let wanted = app.current() / 4;
    let report = report(&["reclaim", "/app", "25%"], 0);
    // The usage moves by the charges that a processor keeps, 64 pages each.
    let requested = number(&report, "requested_bytes") as u64;
    assert!(requested.is_multiple_of(4096) && requested.abs_diff(wanted) <= M / 4, "{wanted}: {report}");
    assert_close("the kernel's counter", app.stolen_settled(), wanted);
}

fn down_to() {
    let app = cached("app", 60 * M);
    let report = report(&["reclaim", "--to", "40M", "app"], 0);
    assert_close("memory.current", app.current(), 40 * M);
    assert_eq!((&report["measured_by"], &report["verdict"]), (&"memory.current".into(), &"exact".into()));
    assert_eq!(number(&report, "target_bytes"), 40 << 20);
    assert!(number(&report, "current_after_bytes") <= 40 << 20);
}

fn down_to_what_is_reached_already() {
    let app = cached("app", 10 * M);
    let before = app.current();
    let report = report(&["reclaim", "app", "--to", "40M"], 0);
    assert_eq!((number(&report, "requested_bytes"), number(&report, "chunks")), (0, 0));
    app.assert_untouched(before);
}

fn more_than_there_is() {
    let app = cached("app", 150 * M);
    let report = report(&["reclaim", "app", "10G"], 3);
    assert_eq!((&report["verdict"], &report["stopped_by"]), (&"under".into(), &"exhausted".into()));
    let (told, stolen) = (number(&report, "reclaimed_bytes") as u64, app.stolen_settled());
    assert!(told.abs_diff(stolen) <= stolen / 20, "{told} told, {stolen} counted");
    assert!(told > 140 * M, "{told}");
    assert_eq!(report["obstacles"][0], "empty", "{report}");
}

fn everything() {
    let app = cached("app", 40 * M);
    let report = report(&["reclaim", "app", "max"], 0);
    assert_eq!(report["requested_bytes"], serde_json::Value::Null);
    assert_eq!(report["verdict"], serde_json::Value::Null);
    assert_eq!(report["stopped_by"], "exhausted");
    assert!(app.stat("file") < 2 * M, "{} left", app.stat("file"));
}

fn nothing_there() {
    let _app = Cgroup::new("app");
    let report = report(&["reclaim", "app", "1M"], 3);
    assert_eq!((number(&report, "reclaimed_bytes"), number(&report, "chunks")), (0, 3));
    assert_eq!(report["verdict"], "under");
}

fn the_table() {
    let _app = cached("app", 60 * M);
    let ran = run(&["reclaim", "app", "10M"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    assert!(!ran.stdout.contains('\u{1b}'), "no colour in a pipe: {}", ran.stdout);
    let rows: Vec<Vec<_>> = ran
        .stdout
        .lines()
        .map(|line| line.split("  ").filter(|s| !s.is_empty()).map(str::trim).collect())
        .collect();
    assert_eq!(rows[0], ["CGROUP", "REQUESTED", "RECLAIMED", "DIFFERENCE", "VERDICT"]);
    assert_eq!((rows[1][0], rows[1][1], rows[1][4]), ("/app", "10 MiB", "exact"));
    for (row, label) in rows[2..].iter().zip(["why", "measured", "usage", "cost"]) {
        assert_eq!(row[0], label);
    }
    assert!(ran.stdout.lines().all(|line| line.len() <= 100 && line == line.trim_end()), "{}", ran.stdout);
}

fn arithmetic() {
    let app = cached("app", 80 * M);
    let (before, stolen) = (app.current(), app.stolen_settled());
    let report = report(&["reclaim", "app", "30M"], 0);
    let of = |key| number(&report, key);
    assert_eq!(of("difference_bytes"), of("reclaimed_bytes") - of("requested_bytes"));
    assert_eq!(of("net_freed_bytes"), of("current_before_bytes") - of("current_after_bytes"));
    assert_eq!(of("grown_bytes"), (of("pgsteal_bytes") - of("net_freed_bytes")).max(0));
    assert_close("before", of("current_before_bytes") as u64, before);
    assert_close("after", of("current_after_bytes") as u64, app.current());
    assert_close("file", of("file_freed_bytes") as u64, 30 * M);
    assert_close("counted", of("pgsteal_bytes") as u64, app.stolen_settled() - stolen);
    assert!(of("cpu_usec") > 0 && of("writing_usec") <= of("elapsed_usec"));
    assert!(
        of("cpu_usec") <= of("elapsed_usec") + 20_000,
        "one thread's CPU is no more than the time: {report}"
    );
    assert!(of("stalled_usec") >= 0);
}

fn the_root() {
    let _app = cached("app", 40 * M);
    let ran = run(&["reclaim", "/sys/fs/cgroup", "5M", "--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    let report = parse(&ran.stdout);
    assert_eq!(report["cgroup"], "/");
    assert!(report.get("current_before_bytes").is_none());
    assert_close("reclaimed", number(&report, "reclaimed_bytes") as u64, 5 * M);
}

/// The write itself adds nothing to the pressure file; the key shows that the file is read at all.
fn a_stall_is_told() {
    let app = cached("app", 20 * M);
    let told = number(&report(&["reclaim", "app", "4M"], 0), "stalled_usec");
    let pressure = app.read("memory.pressure");
    let some = pressure.lines().find(|line| line.starts_with("some ")).expect("a line for some");
    let total: i64 = some.rsplit("total=").next().and_then(|total| total.parse().ok()).expect("a total");
    assert!((0..=total).contains(&told), "{told} told, {pressure}");
}

fn growth_is_told_apart() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(60 * M)).uses(&Work::Stream(80 * M));
    let report = report(&["reclaim", "app", "40M"], 0);
    let (reclaimed, net) = (number(&report, "reclaimed_bytes"), number(&report, "net_freed_bytes"));
    assert_eq!(number(&report, "grown_bytes"), (number(&report, "pgsteal_bytes") - net).max(0));
    assert!(reclaimed >= 39 << 20, "{report}");
}
