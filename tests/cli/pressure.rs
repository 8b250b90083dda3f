//! `memctl watch --pressure` on real kernels.

use crate::environment::{Case, list};
use crate::followed::Followed;
use crate::harness::{Cgroup, M, assert_fails, number, run};
use crate::net_saving::{Zram, Zswap};
use crate::watch::{Events, after, events, limited, of};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "" => an_estimate_stands_alone;
        "guest reclaim" =>
            a_dry_run_presses_nothing,
            it_holds_while_the_host_is_short_of_memory,
            what_is_to_be_free_comes_first;
        // On one kernel each: they take long.
        "guest reclaim !prompt" => what_is_not_in_use_leaves;
        "guest reclaim !swappiness" => idle_anonymous_memory_leaves_or_makes_a_bound;
        "guest swappiness !prompt" => idle_anonymous_memory_is_taken_first;
        "guest prompt" =>
            an_estimate_is_all_that_is_told,
            an_estimate_is_a_bound_where_memory_is_spared,
            the_floor_holds_here_too,
            what_grows_is_followed;
        "guest prompt zswap" => copies_in_zswap_are_told_apart
    ]
}

fn an_estimate_stands_alone() {
    for other in [&["--headroom", "10%"][..], &["--keep", "1G"], &["--dry-run"]] {
        let words = [&["watch", "app", "--estimate"], other].concat();
        let ran = run(&words);
        assert_eq!(ran.status, Some(2), "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("--estimate"), "{}", ran.stderr);
    }
    let line = "memctl: --reuse: requires --pressure or --estimate";
    assert_fails(&["watch", "app", "--keep", "10M", "--reuse", "5s"], 2, line);
    let line = "memctl: --reuse: must be at least 1s";
    assert_fails(&["watch", "app", "--pressure", "0.1%", "--reuse", "1ms"], 2, line);
    let line = "memctl: invalid value 'much' for '--pressure <PCT>': not a percentage (as in 5%, 0.1%)";
    assert_fails(&["watch", "app", "--pressure", "much"], 2, line);
}

/// Creates a cgroup with `hot` bytes in use and `cold` bytes unused; returns it with the rest of
/// its usage.
fn in_use(name: &str, hot: u64, cold: u64) -> Cgroup {
    let app = Cgroup::new(name);
    app.uses(&Work::File(cold)).uses(&Work::Mapped(hot));
    app
}

fn what_is_not_in_use_leaves() {
    let app = in_use("app", 24 * M, 90 * M);
    let events = events(&["app", "--pressure", "0.1%", "--reuse", "5s", "--duration", "60s"]);
    let current = app.current();
    assert!((22 * M..=40 * M).contains(&current), "{current}: {events:?}");
    let start = of(&events, "start")[0];
    assert!(start["limit_bytes"].is_null() && start.get("limit_bytes").is_some(), "{start}");
    let found = of(&events, "working_set");
    let set = found.last().expect("it was found");
    let bytes = number(set, "estimated_working_set_bytes");
    assert!((22 * M as i64..=40 * M as i64).contains(&bytes), "{set}");
    assert!(number(set, "suggested_max_bytes") > bytes, "{set}");
    assert_eq!(number(set, "reuse_usec"), 5_000_000, "{set}");
    let range = number(set, "estimated_least_bytes")..=number(set, "estimated_most_bytes");
    assert!(range.contains(&bytes), "{set}");
    let first = found[0];
    assert!(first.get("suggested_max_bytes").is_none(), "nothing has had the time to come back: {first}");
    let confidence = set["estimated_confidence_ratio"].as_f64().expect("a ratio");
    assert!(confidence > 0.3 && confidence < 1.0, "{set}");
    let summary = of(&events, "summary")[0];
    assert!(number(summary, "estimated_working_set_bytes") > 0, "{summary}");
    assert!(number(summary, "stalled_usec") < 500_000, "{summary}");
}

/// Presses idle anonymous memory beside page cache in use. Returns what is left of it, the estimate
/// and whether that is a bound, and the events.
fn beside_page_cache() -> (u64, i64, bool, Events) {
    let _zram = Zram::on();
    let app = Cgroup::new("app");
    app.uses(&Work::Mapped(24 * M)).uses(&Work::Anon(60 * M));
    let told = events(&["app", "--pressure", "0.1%", "--reuse", "5s", "--duration", "45s"]);
    let summary = of(&told, "summary")[0];
    let bytes = number(summary, "estimated_working_set_bytes");
    (app.stat("anon"), bytes, summary["estimated_at_most"] == true, told)
}

/// Before 6.11 the kernel can't be asked for anonymous memory, and takes page cache first, also where
/// that is in use.
fn idle_anonymous_memory_leaves_or_makes_a_bound() {
    let (left, bytes, is_bound, told) = beside_page_cache();
    assert!(left < 20 * M || is_bound, "{left}: {told:?}");
    assert!(bytes >= 23 * M as i64, "{told:?}");
}

fn idle_anonymous_memory_is_taken_first() {
    let (left, bytes, _, told) = beside_page_cache();
    assert!(left < 10 * M, "{left}: {told:?}");
    assert!((23 * M as i64..40 * M as i64).contains(&bytes), "{told:?}");
}

fn it_holds_while_the_host_is_short_of_memory() {
    let app = in_use("app", 8 * M, 40 * M);
    let holds =
        |all: &[serde_json::Value]| of(all, "hold").iter().filter(|hold| hold["guard"] == "kswapd").count();
    let words = ["app", "--pressure", "0.1%", "--duration", "8s"];
    {
        // Larger than the guest's memory: kswapd is at work all the time.
        let other = Cgroup::new("other");
        other.uses(&Work::Stream(1200 * M));
        let scanned = || {
            let vmstat = std::fs::read_to_string("/proc/vmstat").expect("read /proc/vmstat");
            let line = vmstat.lines().find_map(|line| line.strip_prefix("pgscan_kswapd "));
            line.and_then(|pages| pages.parse::<u64>().ok()).expect("its counter")
        };
        let before = scanned();
        assert!(
            (0..60).any(|_| {
                after(500);
                scanned() > before + 10_000
            }),
            "kswapd is at work"
        );
        let all = events(&words);
        assert!(holds(&all) > 0, "{all:?}");
    }
    app.uses(&Work::File(40 * M));
    let all = events(&words);
    assert!(holds(&all) == 0 && !of(&all, "reclaim").is_empty(), "{all:?}");
}

fn an_estimate_is_all_that_is_told() {
    let app = in_use("app", 8 * M, 30 * M);
    let ran = run(&["watch", "app", "--estimate", "--duration", "40s"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stderr, "memctl: the estimate really reclaims idle memory to find the working set\n");
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("CGROUP  WORKING SET  CONFIDENCE"), "{}", ran.stdout);
    assert!(lines[1].starts_with("/app") && lines[1].contains('%'), "{}", ran.stdout);
    let early = "no memory.max is suggested before 1m have passed since the first knee: ";
    assert!(lines[2].starts_with(early) && lines[2].ends_with("(--reuse)"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("at most"), "{}", ran.stdout);
    assert!(app.stolen() > 0);
}

fn an_estimate_is_a_bound_where_memory_is_spared() {
    // The guest's swap is on a virtual disk, whose speed is unknown: idle anonymous memory stays.
    let app = in_use("app", 8 * M, 20 * M);
    app.uses(&Work::Anon(30 * M));
    let told = events(&["app", "--pressure", "0.1%", "--duration", "40s"]);
    let summary = of(&told, "summary")[0];
    let bytes = number(summary, "estimated_working_set_bytes");
    assert!((36 * M as i64..=60 * M as i64).contains(&bytes), "{summary}");
    assert_eq!(summary["estimated_at_most"], true, "{told:?}");
    assert!(of(&told, "working_set").iter().all(|set| set["estimated_at_most"] == true), "{told:?}");
    assert!(app.stat("anon") > 29 * M, "{}", app.stat("anon"));
    let ran = run(&["watch", "app", "--estimate", "--duration", "40s"]);
    assert!(ran.stdout.contains("  at most "), "{}", ran.stdout);
    // Where it may be swapped out and has no room, it stays as well.
    app.write("memory.swap.max", "0");
    // Presses of so little memory in large folios may tell nothing for several reuse times.
    let words = ["app", "--pressure", "0.1%", "--type", "all", "--reuse", "5s", "--duration", "80s"];
    let told = events(&words);
    assert_eq!(of(&told, "summary")[0]["estimated_at_most"], true, "{told:?}");
    assert!(app.stat("anon") > 29 * M, "{}", app.stat("anon"));
}

fn copies_in_zswap_are_told_apart() {
    let _zswap = Zswap::on();
    let app = Cgroup::new("app");
    app.uses(&Work::Mapped(16 * M)).uses(&Work::Anon(64 * M));
    let words = ["app", "--pressure", "0.1%", "--type", "all", "--reuse", "5s", "--duration", "60s"];
    let told = events(&words);
    let (current, copies) = (app.current() as i64, app.stat("zswap") as i64);
    let summary = of(&told, "summary")[0];
    let set = number(summary, "estimated_working_set_bytes");
    assert!(copies > M as i64 && app.stat("zswapped") > 32 * M, "{copies} in zswap: {told:?}");
    assert!((15 * M as i64..=30 * M as i64).contains(&set), "{summary}");
    let apart = number(summary, "zswap_copies_bytes");
    assert!((apart - copies).abs() <= copies / 4 + M as i64, "{copies} in zswap: {summary}");
    assert!((set + apart - current).abs() <= current / 4, "{current} used: {summary}");
    assert!(number(summary, "suggested_max_bytes") >= set + apart, "{summary}");
    let ran = run(&[&["watch"], &words[..7], &["--duration", "30s"]].concat());
    assert!(ran.stdout.contains("of compressed copies in zswap"), "{}{}", ran.stdout, ran.stderr);
}

fn the_floor_holds_here_too() {
    let app = in_use("app", 8 * M, 60 * M);
    let events = events(&["app", "--pressure", "0.1%", "--floor", "50M", "--duration", "14s"]);
    let current = app.current();
    assert!((50 * M..=60 * M).contains(&current), "{current}: {events:?}");
    assert!(of(&events, "hold").iter().any(|hold| hold["guard"] == "floor"), "{events:?}");
}

fn what_is_to_be_free_comes_first() {
    let app = limited("app", 128 * M);
    app.uses(&Work::File(110 * M));
    // Sooner than the first reclaim.
    let events = events(&["app", "--pressure", "0.1%", "--headroom", "40M", "--duration", "900ms"]);
    assert!(app.current() <= 88 * M, "{}: {events:?}", app.current());
}

fn a_dry_run_presses_nothing() {
    let app = in_use("app", 8 * M, 30 * M);
    let events = events(&["app", "--pressure", "0.1%", "--dry-run", "--duration", "4s"]);
    assert!(!of(&events, "would_reclaim").is_empty(), "{events:?}");
    assert_eq!(app.stolen(), 0);
}

fn what_grows_is_followed() {
    let app = in_use("app", 16 * M, 30 * M);
    let watch = Followed::begin(&["app", "--pressure", "0.1%", "--json"]);
    let told = |events: &Events| -> Vec<u64> {
        let sets = of(events, "working_set");
        sets.iter().map(|set| number(set, "estimated_working_set_bytes") as u64).collect()
    };
    watch.until("a working set", 120, |events| !told(events).is_empty());
    app.uses(&Work::Mapped(30 * M));
    watch.until("the larger one", 90, |events| told(events).last().is_some_and(|&last| last > 42 * M));
    let all = watch.ended();
    assert!(told(&all)[0] < 34 * M, "{:?}: {all:?}", told(&all));
}
