//! `--settle`: refaults, by the kernel's own counters.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, memctl, number, parse, report, run};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest reclaim" =>
            a_workload_takes_its_pages_back,
            what_nobody_uses_stays_away,
            several_are_watched_together,
            a_signal_ends_the_watch
    ]
}

/// Returns the refaulted bytes that had been in use, by the kernel's own counters.
fn restored(app: &Cgroup) -> u64 {
    (app.stat("workingset_restore_file") + app.stat("workingset_restore_anon")) * 4096
}

fn a_workload_takes_its_pages_back() {
    let app = Cgroup::new("app");
    app.uses(&Work::Mapped(60 * M));
    std::thread::sleep(Duration::from_secs(3));
    let before = restored(&app);
    let report = report(&["reclaim", "app", "30M", "--settle", "4s"], 0);
    app.rest();
    std::thread::sleep(Duration::from_millis(2600));
    let truth = restored(&app) - before;
    let told = number(&report, "restored_bytes") as u64;
    assert!(truth > 4 * M, "the workload was to take its pages back, and took {truth}: {report}");
    assert!(told.abs_diff(truth) <= truth / 10, "{truth} counted, {report}");
    assert!(number(&report, "refaulted_bytes") as u64 >= told, "{report}");
    assert!(number(&report, "usual_restored_bytes") < 3 * M as i64, "{report}");
    assert!(number(&report, "settle_usec") >= 4_000_000 && number(&report, "baseline_usec") >= 2_000_000);
    assert!(report["settle_stalled_usec"].is_u64(), "{report}");
}

fn what_nobody_uses_stays_away() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(40 * M));
    let ran = run(&["reclaim", "app", "10M", "--settle", "1"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    assert!(ran.stdout.contains("\ncame back  nothing within 1.0 s"), "{}", ran.stdout);
    let report = report(&["reclaim", "app", "10M", "--settle", "1"], 0);
    assert_eq!((number(&report, "refaulted_bytes"), number(&report, "usual_refaulted_bytes")), (0, 0));
    // Without the option memctl doesn't wait, and reports no refaults.
    assert!(crate::harness::report(&["reclaim", "app", "4M"], 0).get("refaulted_bytes").is_none());
}

fn several_are_watched_together() {
    let batch = Cgroup::new("batch");
    let ones: Vec<_> = ["one", "two", "three"].iter().map(|name| batch.child(name)).collect();
    for one in &ones {
        one.uses(&Work::File(20 * M));
    }
    let began = Instant::now();
    let ran = run(&["reclaim", "batch/*", "5M", "--settle", "2", "--json"]);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!((ran.status, ran.stdout.matches("\"settle_usec\":").count()), (Some(0), 3), "{}", ran.stdout);
    let ran = run(&["reclaim", "batch/*", "5M", "--settle", "100ms"]);
    assert_eq!(ran.stdout.matches("came back: ").count(), 3, "{}", ran.stdout);
}

fn a_signal_ends_the_watch() {
    use std::os::unix::process::ExitStatusExt;
    let app = Cgroup::new("app");
    app.uses(&Work::File(40 * M));
    let child = memctl(["reclaim", "app", "10M", "--settle", "30s", "--json"]).stdout(Stdio::piped()).spawn();
    let child = child.expect("memctl starts");
    let used = app.current();
    let until = Instant::now() + Duration::from_secs(20);
    while app.current() + 5 * M > used {
        assert!(Instant::now() < until, "nothing was reclaimed");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    kill_process(Pid::from_child(&child), Signal::INT).expect("it is still watching");
    let output = child.wait_with_output().expect("memctl ends");
    assert_eq!(output.status.signal(), Some(Signal::INT.as_raw()));
    let report = parse(&String::from_utf8(output.stdout).expect("UTF-8"));
    assert_eq!(report["stopped_by"], "reached", "{report}");
    assert!(
        number(&report, "settle_usec") < 20_000_000 && number(&report, "refaulted_bytes") == 0,
        "{report}"
    );
}
