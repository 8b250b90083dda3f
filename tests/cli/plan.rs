//! `--dry-run`: the forecast against the kernel's later result, and no writes.

use rustix::fs::{FlockOperation, flock};

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, assert_close, number, report, run};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest reclaim" =>
            it_says_what_would_be_asked_and_touches_nothing,
            what_is_foretold_is_what_the_kernel_gives,
            swap_room_bounds_anonymous_memory,
            protection_of_children_is_taken_off,
            a_host_that_never_swaps_keeps_anonymous_memory,
            guards_are_named,
            a_row_each_in_a_dry_run,
            a_rate_is_shared;
        "guest swappiness" => a_key_that_the_kernel_knows;
        "guest reclaim !swappiness" => a_key_that_the_kernel_does_not_know
    ]
}

fn it_says_what_would_be_asked_and_touches_nothing() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(40 * M)).uses(&Work::Anon(20 * M));
    let before = app.current();
    let ran = run(&["reclaim", "app", "10M", "--dry-run"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    for part in [
        "\n/app       10 MiB",
        "  enough\n",
        "request      10 MiB through /sys/fs/cgroup/app/memory.reclaim, in adaptive chunks",
        " of page cache + ",
        "dry run      nothing was written",
    ] {
        assert!(ran.stdout.contains(part), "{part:?} in {}", ran.stdout);
    }
    let ran = run(&["reclaim", "--to", "1G", "app", "--dry-run"]);
    assert!(
        ran.stdout.contains("nothing through /sys/fs/cgroup/app/memory.reclaim: the usage is low"),
        "{}",
        ran.stdout
    );
    assert_eq!(run(&["reclaim", "app", "10M", "--dry-run", "-q"]).stdout, "");
    app.assert_untouched(before);
}

fn what_is_foretold_is_what_the_kernel_gives() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(60 * M)).uses(&Work::Anon(30 * M)).uses(&Work::Locked(8 * M));
    let foretold = report(&["reclaim", "app", "10G", "--dry-run"], 3);
    let reclaimable = number(&foretold, "reclaimable_bytes") as u64;
    assert_close("reclaimable", reclaimable, 90 * M);
    assert_close("unevictable", number(&foretold, "unevictable_bytes") as u64, 8 * M);
    assert_eq!(foretold["guards"], serde_json::json!(["exhausted"]));
    assert_eq!(number(&foretold, "expected_bytes") as u64, reclaimable);
    let done = report(&["reclaim", "app", "10G"], 3);
    let got = number(&done, "reclaimed_bytes") as u64;
    assert!(got <= reclaimable + 2 * M && got + reclaimable / 8 >= reclaimable, "{foretold} {done}");
    // Afterwards next to nothing is left, and a new forecast shows it.
    let foretold = report(&["reclaim", "app", "max", "--dry-run"], 0);
    assert!(number(&foretold, "reclaimable_bytes") < 12 * M as i64, "{foretold}");
    assert!(foretold["requested_bytes"].is_null());
}

fn swap_room_bounds_anonymous_memory() {
    let app = Cgroup::new("app");
    let inner = app.child("inner");
    inner.uses(&Work::Anon(40 * M));
    app.write("memory.swap.max", &(8 * M).to_string());
    let foretold = report(&["reclaim", "app/inner", "30M", "--dry-run"], 3);
    assert_eq!(number(&foretold, "swap_room_bytes") as u64, 8 * M);
    assert_close("anonymous", number(&foretold, "anon_bytes") as u64, 40 * M);
    assert_close("swappable", number(&foretold, "swappable_bytes") as u64, 8 * M);
    let ran = run(&["reclaim", "app/inner", "30M", "--dry-run"]);
    assert!(ran.stdout.contains("swap is limited by memory.swap.max of /app"), "{}", ran.stdout);
}

fn protection_of_children_is_taken_off() {
    let app = Cgroup::new("app");
    let (kept, free) = (app.child("kept"), app.child("free"));
    kept.uses(&Work::File(40 * M));
    free.uses(&Work::File(30 * M));
    kept.write("memory.min", &(100 * M).to_string());
    let foretold = report(&["reclaim", "app", "50M", "--dry-run"], 3);
    assert_close("protected", number(&foretold, "protected_bytes") as u64, 40 * M);
    assert_close("reclaimable", number(&foretold, "reclaimable_bytes") as u64, 30 * M);
    let ran = run(&["reclaim", "app", "50M", "--dry-run"]);
    assert!(ran.stdout.contains("under memory.min of child cgroups (most by /app/kept)"), "{}", ran.stdout);
    let done = report(&["reclaim", "app", "50M"], 3);
    assert_close("reclaimed", number(&done, "reclaimed_bytes") as u64, 30 * M);
}

fn a_host_that_never_swaps_keeps_anonymous_memory() {
    const SWAPPINESS: &str = "/proc/sys/vm/swappiness";
    let before = std::fs::read_to_string(SWAPPINESS).expect("it is there");
    let app = Cgroup::new("app");
    app.uses(&Work::File(10 * M)).uses(&Work::Anon(30 * M));
    std::fs::write(SWAPPINESS, "0").expect("set it");
    let foretold = report(&["reclaim", "app", "30M", "--dry-run"], 3);
    let done = report(&["reclaim", "app", "30M"], 3);
    std::fs::write(SWAPPINESS, before).expect("set it back");
    assert_close("reclaimable", number(&foretold, "reclaimable_bytes") as u64, 10 * M);
    assert_close("reclaimed", number(&done, "reclaimed_bytes") as u64, 10 * M);
    assert!(done["obstacles"].to_string().contains("no_swappiness"), "{done}");
}

fn guards_are_named() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(40 * M));
    let before = app.current();
    let slow = ["reclaim", "app", "20M", "--max-rate", "1M", "--timeout", "5s", "--dry-run"];
    let foretold = report(&slow, 124);
    assert_eq!(foretold["guards"], serde_json::json!(["timeout"]));
    let ran = run(&slow);
    assert!(
        ran.stdout.contains("--timeout: at --max-rate the request takes at least 20.0 s"),
        "{}",
        ran.stdout
    );
    let dir = std::fs::File::open(app.path()).expect("open the cgroup");
    flock(&dir, FlockOperation::LockExclusive).expect("lock it");
    let foretold = report(&["reclaim", "app", "10M", "--dry-run"], 0);
    assert_eq!(foretold["guards"], serde_json::json!(["lock"]));
    let ran = run(&["reclaim", "app", "max", "--dry-run"]);
    assert!(ran.stdout.contains("a lock held by another process"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("--max-pressure, once stalled for more than 10% of the time"),
        "{}",
        ran.stdout
    );
    app.assert_untouched(before);
}

fn a_key_that_the_kernel_knows() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(40 * M));
    let before = app.current();
    let ran = run(&["reclaim", "app", "10M", "--dry-run", "--type", "file", "--chunk", "1M"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    assert!(ran.stdout.contains("1 MiB per write, swappiness=0\n"), "{}", ran.stdout);
    app.assert_untouched(before);
}

/// The version alone decides: even the empty request with which `memctl check` tries the key is not
/// written.
fn a_key_that_the_kernel_does_not_know() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(40 * M));
    let foretold = report(&["reclaim", "app", "10M", "--dry-run", "--type", "file"], 1);
    assert_eq!(foretold["guards"], serde_json::json!(["unsupported"]));
    let ran = run(&["reclaim", "app", "10M", "--dry-run", "--type", "file"]);
    assert!(
        ran.stdout.contains("would stop   the kernel: swappiness=0 requires Linux 6.11, this is 6.1."),
        "{}",
        ran.stdout
    );
    assert_eq!(run(&["reclaim", "app", "10M", "--type", "file"]).status, Some(1), "and so it is");
}

fn a_rate_is_shared() {
    let batch = Cgroup::new("batch");
    let (one, two) = (batch.child("one"), batch.child("two"));
    one.uses(&Work::File(40 * M));
    two.uses(&Work::File(40 * M));
    let words = ["reclaim", "batch/*", "30M", "--dry-run", "--max-rate", "10M", "--timeout", "5s"];
    assert_eq!(run(&words).status, Some(0), "one after the other");
    let ran = run(&[&words[..], &["--jobs", "2"]].concat());
    assert_eq!(ran.status, Some(124), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("--timeout: at --max-rate the request takes at least 6.0 s"),
        "{}",
        ran.stdout
    );
}

fn a_row_each_in_a_dry_run() {
    let batch = Cgroup::new("batch");
    let (one, two) = (batch.child("one"), batch.child("two"));
    one.uses(&Work::File(40 * M));
    two.uses(&Work::File(10 * M));
    let ran = run(&["reclaim", "batch/*", "20M", "--dry-run"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(3), ""));
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert!(lines[1].starts_with("/batch/one") && lines[1].ends_with("  enough"), "{}", ran.stdout);
    assert!(lines[2].starts_with("/batch/two") && lines[2].contains("  short by "), "{}", ran.stdout);
    assert!(lines[3].starts_with("total          40 MiB"), "{}", ran.stdout);
    assert!(lines[4].starts_with("/batch/two  ") && lines[4].contains("exhaustion"), "{}", ran.stdout);
}
