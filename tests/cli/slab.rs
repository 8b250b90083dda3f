//! Slab, which the kernel frees as well without counting it, and an application that frees memory
//! meanwhile.

use serde_json::Value;

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, assert_close, number, parse, report, run};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest reclaim" =>
            eight_megabytes_of_dentries,
            the_table_tells_slab,
            all_dentries,
            dentries_down_to_a_usage,
            page_cache_beside_dentries,
            dentries_of_several,
            a_dry_run_counts_slab,
            a_watch_reclaims_dentries,
            what_the_application_frees_does_not_end_it;
    ]
}

/// Creates a cgroup of mostly dentries.
fn dentries(name: &str, bytes: u64) -> Cgroup {
    let cgroup = Cgroup::new(name);
    cgroup.uses(&Work::Dentries(bytes));
    assert!(cgroup.stat("slab_reclaimable") > bytes / 4 * 3, "{} of slab", cgroup.stat("slab_reclaimable"));
    cgroup
}

/// Checks a report against the fall of the usage, which may exceed the request by the effect of
/// one write: nothing limits that effect.
fn told_truly(report: &Value, asked: u64, fell: u64) {
    let bytes = |key| number(report, key) as u64;
    assert_eq!(report["stopped_by"], "reached", "{report}");
    assert_close("reclaimed, and the fall of memory.current", bytes("reclaimed_bytes"), fell);
    assert!(
        bytes("slab_reclaimed_bytes") + M > bytes("reclaimed_bytes") - bytes("pgsteal_bytes"),
        "{report}"
    );
    let over = bytes("reclaimed_bytes") > asked + 2 * M;
    assert_eq!(report["verdict"], if over { "over" } else { "exact" }, "{report}");
    // Then a single write reclaimed it, and the report says so.
    if fell > asked + 4 * M {
        assert!(bytes("overshot_bytes") + asked + 4 * M > fell, "{report}");
    }
    assert!(report.get("measure_doubtful").is_none(), "{report}");
}

fn eight_megabytes_of_dentries() {
    let app = dentries("app", 40 * M);
    let before = app.current();
    let report = report(&["reclaim", "app", "8M"], 0);
    told_truly(&report, 8 * M, before - app.current());
    let by = report["measured_by"].as_str().expect("a word");
    assert!(by.ends_with(" + slab") || by == "memory.current", "{report}");
    assert!(number(&report, "slab_reclaimed_bytes") as u64 > 7 * M, "{report}");
}

fn the_table_tells_slab() {
    let _app = dentries("app", 20 * M);
    let ran = run(&["reclaim", "app", "4M"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("\nslab ") && ran.stdout.contains(" of the reclaimed memory"),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("not by") && !ran.stdout.contains("doubtful"), "{}", ran.stdout);
}

fn all_dentries() {
    let app = dentries("app", 30 * M);
    let before = app.current();
    let report = report(&["reclaim", "app", "max"], 0);
    assert_eq!(report["stopped_by"], "exhausted");
    assert_close("reclaimed", number(&report, "reclaimed_bytes") as u64, before - app.current());
    assert!(app.stat("slab_reclaimable") < 4 * M, "{} left: {report}", app.stat("slab_reclaimable"));
    assert!(number(&report, "chunks") < 400, "{report}");
}

fn dentries_down_to_a_usage() {
    let app = dentries("app", 30 * M);
    let report = report(&["reclaim", "app", "--to", "20M"], 0);
    assert_eq!(
        (&report["measured_by"], &report["stopped_by"]),
        (&"memory.current".into(), &"reached".into())
    );
    assert!(app.current() <= 20 * M && number(&report, "slab_reclaimed_bytes") > 0, "{report}");
}

/// While there is page cache the kernel reclaims that, and little slab.
fn page_cache_beside_dentries() {
    let app = dentries("app", 20 * M);
    app.uses(&Work::File(40 * M));
    let before = app.current();
    let report = report(&["reclaim", "app", "20M"], 0);
    let fell = before - app.current();
    assert_eq!(report["stopped_by"], "reached");
    assert_close("reclaimed", number(&report, "reclaimed_bytes") as u64, fell);
    assert!(fell < 26 * M, "{fell}: {report}");
}

fn dentries_of_several() {
    let (one, other) = (dentries("one", 16 * M), dentries("other", 16 * M));
    let before = one.current() + other.current();
    let ran = run(&["reclaim", "--total", "6M", "one", "other", "--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    let lines: Vec<_> = ran.stdout.lines().map(|line| parse(&format!("{line}\n"))).collect();
    let fell = before - one.current() - other.current();
    // What a busy kernel frees after the end, a few MiB, isn't in the report.
    let told = number(&lines[2], "total_reclaimed_bytes") as u64;
    assert!(told <= fell + M && told + 6 * M >= fell, "{told} told, {fell} fell: {}", ran.stdout);
    let ran = run(&["reclaim", "one", "other", "2M", "--json"]);
    assert!(matches!(ran.status, Some(0 | 3)), "{}", ran.stdout);
}

fn a_dry_run_counts_slab() {
    let app = dentries("app", 20 * M);
    let foretold = report(&["reclaim", "app", "8M", "--dry-run"], 0);
    let slab = app.stat("slab_reclaimable");
    assert_close("slab", number(&foretold, "slab_bytes") as u64, slab);
    assert!(number(&foretold, "reclaimable_bytes") as u64 + 2 * M > slab, "{foretold}");
    let ran = run(&["reclaim", "app", "8M", "--dry-run"]);
    assert!(ran.stdout.contains(" of slab, at most"), "{}", ran.stdout);
}

/// The watch is guided by the usage, and there is no anonymous memory to be spared.
fn a_watch_reclaims_dentries() {
    let app = dentries("app", 30 * M);
    let ran = run(&["watch", "app", "--keep", "20M", "--duration", "4s", "--json"]);
    assert_eq!(ran.status, Some(0), "{} {}", ran.stdout, ran.stderr);
    assert!(app.current() <= 20 * M, "{} in use: {}", app.current(), ran.stdout);
}

fn what_the_application_frees_does_not_end_it() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(100 * M)).uses(&Work::GivesBack(60 * M));
    let report = report(&["reclaim", "app", "30M", "--max-rate", "30M"], 0);
    assert_eq!((&report["stopped_by"], &report["verdict"]), (&"reached".into(), &"exact".into()), "{report}");
    assert_close("reclaimed", number(&report, "reclaimed_bytes") as u64, 30 * M);
    assert_close("the kernel's counter", app.stolen_settled(), 30 * M);
    assert!(number(&report, "net_freed_bytes") as u64 > 80 * M, "{report}");
    assert_eq!(report["measure_doubtful"], true, "{report}");
}
