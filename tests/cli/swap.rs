//! Anonymous memory and swap on real kernels: room, none, and a slow device.

use std::process::Command;

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, assert_fails, number, report, run};
use crate::watch::events;
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest reclaim" => without_swap, a_limit_on_swap_is_named, swap_that_runs_out_ends_it;
        "guest reclaim !prompt" => slow_swap;
        "guest swappiness-max" => only_anon_without_swap;
        "guest reclaim pswpout" => fast_swap;
        "guest prompt" => slow_swap_and_prompt_signals, a_watch_does_not_flood_slow_swap,
            cgroups_share_the_queue_of_a_disk
    ]
}

/// The guest's fast and slow swap disks.
const QUICK: &str = "/dev/vdb";
const SLOW: &str = "/dev/vdc";

/// Swap as a case needs it; the earlier state is restored at the end of the case.
struct Swap(Option<&'static str>);

impl Swap {
    fn only(device: Option<&'static str>) -> Self {
        turn("swapoff", QUICK);
        if let Some(device) = device {
            turn("swapon", device);
        }
        Self(device)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        if let Some(device) = self.0 {
            turn("swapoff", device);
        }
        turn("swapon", QUICK);
    }
}

fn turn(how: &str, device: &str) {
    let status = Command::new(format!("/bin/{how}")).arg(device).status().expect("busybox");
    assert!(status.success() || std::thread::panicking(), "{how} {device}");
}

fn without_swap() {
    let _none = Swap::only(None);
    let app = Cgroup::new("app");
    app.uses(&Work::Anon(40 * M));
    let report = report(&["reclaim", "app", "20M"], 3);
    assert_eq!(report["obstacles"][0], "no_swap_room", "{report}");
    assert!(number(&report, "elapsed_usec") < 2_000_000, "{report}");
    let ran = run(&["reclaim", "app", "20M"]);
    assert!(ran.stdout.contains("of anonymous memory: this host has no swap"), "{}", ran.stdout);
    assert!(app.stat("anon") > 39 * M);
}

fn only_anon_without_swap() {
    let _none = Swap::only(None);
    let app = Cgroup::new("app");
    app.uses(&Work::Anon(40 * M)).uses(&Work::File(20 * M));
    let before = app.current();
    let line = "memctl: /app: anonymous memory can't be reclaimed: this host has no swap";
    assert_fails(&["reclaim", "app", "10M", "--type", "anon"], 1, line);
    app.assert_untouched(before);
}

fn a_limit_on_swap_is_named() {
    let app = Cgroup::new("app");
    let job = app.child("job");
    app.write("memory.swap.max", "0");
    job.uses(&Work::Anon(40 * M));
    let ran = run(&["reclaim", "app/job", "20M"]);
    assert_eq!(ran.status, Some(3), "{ran:?}");
    assert!(ran.stdout.contains("of anonymous memory: memory.swap.max of /app is reached"), "{}", ran.stdout);
}

/// Memory swapped out before swap was full stays charged, and is no progress to wait for.
fn swap_that_runs_out_ends_it() {
    for room in ["1M", "3M"] {
        let app = Cgroup::new("app");
        app.write("memory.swap.max", room);
        app.uses(&Work::Anon(40 * M));
        for _ in 0..5 {
            let report = report(&["reclaim", "app", "10M", "--timeout", "20s"], 3);
            assert_eq!(report["stopped_by"], "exhausted", "{report}");
            assert_eq!(report["obstacles"][0], "no_swap_room", "{report}");
            assert!(number(&report, "elapsed_usec") < 6_000_000, "{report}");
        }
    }
}

fn fast_swap() {
    let app = Cgroup::new("app");
    app.uses(&Work::Anon(100 * M));
    let report = report(&["reclaim", "app", "40M"], 0);
    let swapped = number(&report, "swapped_out_bytes") as u64;
    assert_eq!(swapped, app.stat("pswpout") * 4096);
    assert!(swapped >= 36 * M, "{report}");
    assert!(number(&report, "anon_freed_bytes") >= 36 << 20, "{report}");
}

/// Asks for 20 MiB of anonymous memory with swap at 4 MB/s, and returns the report.
fn slowly_swapped() -> serde_json::Value {
    let _slow = Swap::only(Some(SLOW));
    let app = Cgroup::new("app");
    app.uses(&Work::Anon(100 * M));
    let report = report(&["reclaim", "app", "20M", "--timeout", "60s"], 0);
    eprintln!(
        "swapped out {} KiB for {} KiB in {} ms, {} writes",
        number(&report, "swapped_out_bytes") as u64 >> 10,
        number(&report, "reclaimed_bytes") as u64 >> 10,
        number(&report, "elapsed_usec") as u64 / 1000,
        number(&report, "chunks")
    );
    app.rest();
    report
}

/// Returns the amount swapped out for 20 MiB, the smallest of up to five if it is large: where the
/// emulator is short of CPU time, the signals come late. At four megabytes a second the kernel
/// itself queues 95 MiB and more each time.
fn swapped_slowly() -> u64 {
    let mut least = u64::MAX;
    for _ in 0..5 {
        least = least.min(number(&slowly_swapped(), "swapped_out_bytes") as u64);
        if least <= 50 * M {
            break;
        }
    }
    least
}

/// A small request ends as soon as the disk has written its first pages.
fn slow_swap() {
    let swapped = swapped_slowly();
    assert!(swapped <= 50 * M, "{swapped}");
}

/// There the kernel submits huge pages, in writes that only a signal ends.
fn slow_swap_and_prompt_signals() {
    let swapped = swapped_slowly();
    assert!(swapped <= 50 * M, "{swapped}");
}

/// Nothing is freed until the disk has written it, so the kernel would queue more and more.
fn a_watch_does_not_flood_slow_swap() {
    let _slow = Swap::only(Some(SLOW));
    let app = Cgroup::new("app");
    app.uses(&Work::Anon(200 * M));
    let pressed = ["app", "--pressure", "0.1%", "--type", "all", "--swap-writes", "max", "--duration", "6s"];
    let all = events(&pressed);
    let written = app.stat("pswpout") * 4096;
    // Without an early end of such a write all of it would be swapped out.
    assert!(written <= 100 * M, "{written}: {all:?}");
    app.rest();
}

/// What one of them submits keeps the disk from the others.
fn cgroups_share_the_queue_of_a_disk() {
    let _slow = Swap::only(Some(SLOW));
    let top = Cgroup::new("many");
    let apps: Vec<_> = (0..4).map(|number| top.child(&format!("app-{number}"))).collect();
    for app in &apps {
        app.uses(&Work::Anon(80 * M));
    }
    let pressed =
        ["many/*", "--pressure", "0.1%", "--type", "all", "--swap-writes", "max", "--duration", "8s"];
    let all = events(&pressed);
    let written: Vec<_> = apps.iter().map(|app| app.stat("pswpout") * 4096).collect();
    eprintln!("swapped out {written:?}");
    assert!(written.iter().sum::<u64>() <= 90 * M, "{written:?}: {all:?}");
    for app in &apps {
        app.rest();
    }
}
