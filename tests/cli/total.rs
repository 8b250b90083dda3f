//! `--total`: one amount over several cgroups, cheapest first; and `--max-cost`.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, assert_close, assert_fails, memctl, number, report, run};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "" => a_total_says_how_much_already;
        "guest reclaim" =>
            inactive_cache_in_proportion,
            a_row_each_and_the_total,
            all_of_it_and_no_more,
            in_proportion_even_when_cut_short,
            by_several_threads,
            a_total_takes_no_longer_than_its_timeout,
            a_signal_ends_a_total_with_a_true_report,
            a_total_foretold,
            too_dear;
        "guest swappiness" => page_cache_goes_before_anonymous_memory
    ]
}

/// Returns the report of each cgroup, and that of the total.
fn reports(words: &[&str], status: i32) -> (Vec<Value>, Value) {
    let ran = run(&[words, &["--json"]].concat());
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(status), ""), "{words:?}: {}", ran.stdout);
    parsed(&ran.stdout)
}

/// Parses reports, and checks that the sums agree with any result.
fn parsed(stdout: &str) -> (Vec<Value>, Value) {
    let mut lines: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let total = lines.pop().expect("a line for the total");
    for key in ["reclaimed_bytes", "cpu_usec", "chunks", "net_saved_bytes"] {
        let sum: i64 = lines.iter().map(|line| number(line, key)).sum();
        let told = number(&total, &format!("total_{key}"));
        // Each figure is rounded down to microseconds.
        assert!(
            (sum - told).abs() <= if key == "cpu_usec" { lines.len() as i64 } else { 0 },
            "{key}: {stdout}"
        );
    }
    (lines, total)
}

fn reclaimed(report: &Value) -> u64 {
    number(report, "reclaimed_bytes") as u64
}

fn a_total_says_how_much_already() {
    assert_fails(
        &["reclaim", "--total", "5M", "app", "5M"],
        2,
        "memctl: 5M: SIZE can't be combined with --total",
    );
    let ran = run(&["reclaim", "app", "5M", "--max-cost", "2m"]);
    assert_eq!(ran.status, Some(2));
    assert!(
        ran.stderr.contains("'2m' for '--max-cost <SECONDS>': not a number of seconds"),
        "{}",
        ran.stderr
    );
    let ran = run(&["reclaim", "--total", "5M", "--to", "5M", "app"]);
    assert_eq!(ran.status, Some(2));
    assert!(ran.stderr.contains("'--total <SIZE>' cannot be used with '--to <SIZE>'"), "{}", ran.stderr);
}

fn inactive_cache_in_proportion() {
    let batch = Cgroup::new("batch");
    let (large, small) = (batch.child("large"), batch.child("small"));
    large.uses(&Work::File(90 * M));
    small.uses(&Work::File(30 * M));
    let (each, total) = reports(&["reclaim", "--total", "60M", "batch/*"], 0);
    assert_eq!((&total["total_verdict"], &total["total_stopped_by"]), (&"exact".into(), &"reached".into()));
    assert_close("total", number(&total, "total_reclaimed_bytes") as u64, 60 * M);
    assert_close("large", reclaimed(&each[0]), 45 * M);
    assert_close("small", reclaimed(&each[1]), 15 * M);
    assert_close("large, by the kernel", large.stolen_settled(), 45 * M);
    assert_close("small, by the kernel", small.stolen(), 15 * M);
}

fn a_row_each_and_the_total() {
    let batch = Cgroup::new("batch");
    let (full, empty) = (batch.child("full"), batch.child("empty"));
    full.uses(&Work::File(40 * M));
    let ran = run(&["reclaim", "--total", "10M", "batch/full", "batch/empty"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert!(
        lines[1].starts_with("/batch/full           -") && lines[1].ends_with("  reached"),
        "{}",
        ran.stdout
    );
    assert!(lines[2].starts_with("/batch/empty") && lines[2].ends_with("  not requested"), "{}", ran.stdout);
    assert!(lines[3].starts_with("total ") && lines[3].ends_with("  exact"), "{}", ran.stdout);
    assert!(lines[4].starts_with("why   ") && lines[4].contains("reached, within"), "{}", ran.stdout);
    // Only the total is judged, and an empty share isn't reported as exact.
    let (each, total) = reports(&["reclaim", "--total", "10M", "batch/full", "batch/empty"], 0);
    for key in ["requested_bytes", "difference_bytes", "tolerance_bytes", "verdict"] {
        assert!(each.iter().all(|one| one[key].is_null()), "{key}: {each:?}");
    }
    assert_eq!((&each[0]["stopped_by"], &each[1]["stopped_by"]), (&"reached".into(), &Value::Null));
    assert_eq!(total["total_verdict"], "exact", "{total}");
    drop(empty);
}

fn in_proportion_even_when_cut_short() {
    let batch = Cgroup::new("batch");
    let (large, small) = (batch.child("large"), batch.child("small"));
    large.uses(&Work::File(90 * M));
    small.uses(&Work::File(45 * M));
    let words = ["reclaim", "--total", "120M", "--max-rate", "15M", "--timeout", "4s", "batch/*"];
    let (each, total) = reports(&words, 124);
    let (most, least) = (reclaimed(&each[0]), reclaimed(&each[1]));
    assert!(least >= 9 * M && most >= 3 * least / 2 && most <= 3 * least, "{most} and {least}: {total}");
}

fn page_cache_goes_before_anonymous_memory() {
    let batch = Cgroup::new("batch");
    let (cache, heap) = (batch.child("cache"), batch.child("heap"));
    cache.uses(&Work::File(40 * M));
    heap.uses(&Work::Anon(60 * M));
    let (each, _) = reports(&["reclaim", "--total", "30M", "batch/*"], 0);
    assert_eq!(reclaimed(&each[1]), 0, "anonymous memory wasn't needed: {each:?}");
    let (each, total) = reports(&["reclaim", "--total", "30M", "batch/*"], 0);
    assert!(reclaimed(&each[0]) >= 7 * M && reclaimed(&each[1]) >= 16 * M, "{each:?} {total}");
    assert!(heap.stat("anon") < 45 * M);
}

fn all_of_it_and_no_more() {
    let batch = Cgroup::new("batch");
    let (one, two) = (batch.child("one"), batch.child("two"));
    one.uses(&Work::File(40 * M));
    two.uses(&Work::File(20 * M)).uses(&Work::Locked(8 * M));
    let (_, total) = reports(&["reclaim", "--total", "10G", "batch/*"], 3);
    assert_eq!((&total["total_verdict"], &total["total_stopped_by"]), (&"under".into(), &"exhausted".into()));
    let left = one.current() + two.current();
    assert!(left < 18 * M, "{left} left: {total}");
    one.uses(&Work::File(40 * M));
    let (_, total) = reports(&["reclaim", "--total", "max", "batch/*"], 0);
    assert!(total["total_verdict"].is_null() && total["total_stopped_by"] == "exhausted", "{total}");
    assert!(number(&total, "total_reclaimed_bytes") >= 38 * M as i64, "{total}");
}

fn by_several_threads() {
    let batch = Cgroup::new("batch");
    let ones: Vec<_> = ["one", "two", "three"].iter().map(|name| batch.child(name)).collect();
    for one in &ones {
        one.uses(&Work::File(30 * M));
    }
    let (each, total) = reports(&["reclaim", "--total", "50%", "--jobs", "2", "batch/*"], 0);
    assert_eq!(each.len(), 3);
    let asked = number(&total, "total_requested_bytes") as u64;
    assert_close("asked", asked, 47 * M);
    assert_close("total", number(&total, "total_reclaimed_bytes") as u64, asked);
}

fn a_total_takes_no_longer_than_its_timeout() {
    let batch = Cgroup::new("batch");
    let (one, two) = (batch.child("one"), batch.child("two"));
    one.uses(&Work::File(40 * M));
    two.uses(&Work::File(40 * M));
    let words = ["reclaim", "--total", "60M", "--max-rate", "10M", "--timeout", "2", "batch/*"];
    let (each, total) = reports(&words, 124);
    assert_eq!(total["total_stopped_by"], "timeout");
    assert!(number(&total, "total_elapsed_usec") < 4_000_000, "{total}");
    assert!(reclaimed(&each[0]) + reclaimed(&each[1]) < 30 * M, "{each:?}");
}

fn a_signal_ends_a_total_with_a_true_report() {
    use std::os::unix::process::ExitStatusExt;
    let batch = Cgroup::new("batch");
    let (one, two) = (batch.child("one"), batch.child("two"));
    one.uses(&Work::File(60 * M));
    two.uses(&Work::File(60 * M));
    let words = ["reclaim", "--total", "100M", "--max-rate", "10M", "batch/*", "--json"];
    let child = memctl(words).stdout(Stdio::piped()).spawn().expect("memctl starts");
    std::thread::sleep(std::time::Duration::from_secs(2));
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it is still at it");
    let output = child.wait_with_output().expect("memctl ends");
    assert_eq!(output.status.signal(), Some(Signal::TERM.as_raw()));
    let (_, total) = parsed(&String::from_utf8(output.stdout).expect("UTF-8"));
    assert_eq!(total["total_stopped_by"], "interrupted");
    let told = number(&total, "total_reclaimed_bytes") as u64;
    assert_close("told", told, one.stolen_settled() + two.stolen());
    assert!((M..90 * M).contains(&told), "{told}");
}

fn a_total_foretold() {
    let batch = Cgroup::new("batch");
    let (one, two) = (batch.child("one"), batch.child("two"));
    let (kept, free) = (one.child("kept"), one.child("free"));
    free.uses(&Work::File(60 * M));
    two.uses(&Work::File(20 * M)).uses(&Work::Anon(20 * M));
    let ran = run(&["reclaim", "--total", "40M", "batch/*", "--dry-run", "--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    let lines: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_close("of one", number(&lines[0], "requested_bytes") as u64, 30 * M);
    assert_close("of two", number(&lines[1], "requested_bytes") as u64, 10 * M);
    let there: i64 = lines[..2].iter().map(|line| number(line, "reclaimable_bytes")).sum();
    assert_eq!(
        (number(&lines[2], "total_requested_bytes"), there),
        (40 * M as i64, number(&lines[2], "total_reclaimable_bytes"))
    );
    assert_eq!(lines[2]["total_guards"], serde_json::json!([]));
    let ran = run(&["reclaim", "--total", "90M", "batch/*", "--dry-run"]);
    assert!(
        ran.stdout.contains("more, in slices from the cgroup that yields most per CPU second"),
        "{}",
        ran.stdout
    );
    let ran = run(&["reclaim", "--total", "9G", "batch/*", "--dry-run"]);
    assert_eq!(ran.status, Some(3));
    assert!(ran.stdout.contains("\ntotal ") && ran.stdout.contains("short by 8."), "{}", ran.stdout);
    // Memory protected in a child is requested from no cgroup, and the other child makes up for it:
    // only the total is judged.
    kept.uses(&Work::File(30 * M));
    kept.write("memory.min", &(50 * M).to_string());
    one.write("memory.min", &(100 * M).to_string());
    let ran = run(&["reclaim", "--total", "70M", "batch/*", "--dry-run"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert!(lines[1].starts_with("/batch/one") && !lines[1].contains("short"), "{}", ran.stdout);
    assert!(lines[3].starts_with("total ") && lines[3].ends_with("  enough"), "{}", ran.stdout);
    let slow = ["reclaim", "--total", "40M", "batch/*", "--dry-run", "--max-rate", "1M", "--timeout", "30s"];
    let ran = run(&slow);
    assert_eq!(ran.status, Some(124), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("would stop  --timeout: at --max-rate the request takes at least 40.0 s"),
        "{}",
        ran.stdout
    );
    assert_eq!((one.stolen(), two.stolen()), (0, 0));
}

fn too_dear() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(300 * M));
    // No kernel reclaims a GiB in a millisecond.
    let done = report(&["reclaim", "app", "290M", "--max-cost", "0.001"], 3);
    assert_eq!((&done["stopped_by"], &done["verdict"]), (&"cost".into(), &"under".into()), "{done}");
    assert!(reclaimed(&done) > 0 && reclaimed(&done) < 200 * M, "{done}");
    let ran = run(&["reclaim", "app", "max", "--max-cost", "0.001"]);
    assert_eq!(ran.status, Some(0), "with max the price is all that was asked: {}", ran.stdout);
    assert!(ran.stdout.contains("the CPU cost exceeded --max-cost"), "{}", ran.stdout);
    let done = report(&["reclaim", "app", "5M", "--max-cost", "100"], 0);
    assert_eq!(done["stopped_by"], "reached", "{done}");
    let (_, total) = reports(&["reclaim", "--total", "250M", "app", "--max-cost", "0.001"], 3);
    assert_eq!(total["total_stopped_by"], "cost", "{total}");
}
