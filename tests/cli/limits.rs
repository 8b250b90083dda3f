//! `memctl watch` with limits that are set and removed, cgroups that appear, and reasons that keep
//! it from working.

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, assert_fails, number, root, run};
use crate::watch::{after, begin, ended, events, limited, of, output_of};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "" => a_malformed_glob_to_exclude;
        "guest reclaim" =>
            a_limit_that_goes_and_comes_back,
            a_file_that_is_streamed_again_and_again,
            usage_stays_below_what_is_to_be_kept,
            what_tasks_reclaim_themselves_is_told,
            what_has_no_limit_is_told_of,
            what_is_left_out_by_many_names;
        // On one kernel: they take long.
        "guest prompt" =>
            a_limit_that_is_lowered,
            a_glob_may_match_later,
            // Without multi-generational LRU a file streamed repeatedly counts as memory in use.
            a_share_of_a_cpu_is_spent_on_work,
            the_guard_that_keeps_from_swap_is_named,
            no_more_is_swapped_than_may_be_written
    ]
}

fn a_malformed_glob_to_exclude() {
    let line = "memctl: --exclude: [: malformed glob: unclosed character class; missing ']'";
    assert_fails(&["watch", "app", "--headroom", "10%", "--exclude", "["], 2, line);
    let line = "memctl: --exclude: a cgroup's name can't be empty (the root is called /)";
    assert_fails(&["watch", "app", "--headroom", "10%", "--exclude", ""], 2, line);
}

fn a_limit_that_goes_and_comes_back() {
    let app = limited("app", 64 * M);
    app.uses(&Work::Stream(200 * M));
    let child = begin(&["app", "--headroom", "20M", "--json"]);
    after(1000);
    app.write("memory.max", "max");
    after(5000);
    app.write("memory.max", &(64 * M).to_string());
    after(3000);
    let all = ended(child);
    let limits: Vec<_> = of(&all, "limit").iter().map(|limit| limit["limit_bytes"].clone()).collect();
    assert_eq!(limits, [serde_json::Value::Null, (64 * M).into()], "{all:?}");
    for outrun in of(&all, "outrun") {
        assert!(number(outrun, "headroom_bytes") <= 64 * M as i64, "{outrun}");
    }
}

fn a_limit_that_is_lowered() {
    let app = limited("app", 128 * M);
    app.uses(&Work::File(100 * M));
    let child = begin(&["app", "--headroom", "8M", "--json"]);
    after(1000);
    app.write("memory.high", &(40 * M).to_string());
    after(12000);
    let all = ended(child);
    let limit = of(&all, "limit");
    assert_eq!(limit.last().map(|limit| &limit["limit_file"]), Some(&"memory.high".into()), "{all:?}");
    assert!(app.current() <= 33 * M, "{}: {all:?}", app.current());
}

/// Some kernels count an activation for each refault: that is no use.
fn a_file_that_is_streamed_again_and_again() {
    let app = limited("app", 96 * M);
    let file = "/data/streamed";
    std::fs::File::create(file).and_then(|file| file.set_len(160 * M)).expect("a file");
    let child = begin(&["app", "--headroom", "16M", "--json"]);
    let script = "echo 0 >\"$0\"; for round in 1 2 3 4; do for step in $(seq 0 19); do \
                  dd if=\"$1\" of=/dev/null bs=1M count=8 skip=$((8 * step)) 2>/dev/null; sleep 0.2; done; done";
    let ran = std::process::Command::new("/bin/sh")
        .args(["-c", script])
        .arg(app.path().join("cgroup.procs"))
        .arg(file)
        .status();
    let all = ended(child);
    std::fs::remove_file(file).expect("the file");
    assert!(ran.is_ok_and(|status| status.success()), "the application runs");
    let taken = app.stat("pgsteal") * rustix::param::page_size() as u64;
    let ours = number(of(&all, "summary")[0], "reclaimed_bytes");
    assert!(taken >= 200 * M && ours as u64 >= taken / 4 * 3, "{ours} of {taken}: {all:?}");
}

fn usage_stays_below_what_is_to_be_kept() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(45 * M));
    let child = begin(&["app", "--keep", "50M", "--json"]);
    let mut most = 0;
    for _ in 0..12 {
        app.uses(&Work::File(6 * M));
        after(300);
        most = most.max(app.current());
    }
    let all = ended(child);
    assert!(most <= 50 * M, "{most}: {all:?}");
    assert!(app.current() >= 30 * M, "{}: {all:?}", app.current());
    assert!(!of(&all, "reclaim").is_empty(), "{all:?}");
    for reclaim in of(&all, "reclaim") {
        assert_eq!(number(reclaim, "limit_bytes"), 50 * M as i64, "{reclaim}");
        let free = (50 * M as i64 - number(reclaim, "current_after_bytes")).max(0);
        assert!((number(reclaim, "headroom_bytes") - free).abs() <= M as i64, "{reclaim}");
    }
    // Before 6.9 the kernel reclaims more than it is asked for, and before 6.15 it doesn't tell whose.
    let summary = of(&all, "summary")[0];
    assert_eq!((number(summary, "direct_bytes"), summary.get("direct_at_most")), (0, None), "{summary}");
}

fn a_share_of_a_cpu_is_spent_on_work() {
    let app = limited("app", 128 * M);
    app.uses(&Work::Stream(400 * M));
    let all = events(&["app", "--headroom", "20M", "--cpu", "10%", "--duration", "10s"]);
    let summary = of(&all, "summary")[0];
    let (ours, direct) = (number(summary, "reclaimed_bytes"), summary["direct_bytes"].as_i64().unwrap_or(0));
    assert!(ours > 20 * M as i64 && ours > direct, "{summary}: {all:?}");
}

fn what_tasks_reclaim_themselves_is_told() {
    let app = limited("app", 64 * M);
    app.uses(&Work::Stream(200 * M));
    // Down to the limit: memctl reclaims nothing.
    let all = events(&["app", "--headroom", "1M", "--floor", "64M", "--duration", "4s"]);
    let summary = of(&all, "summary")[0];
    assert_eq!(number(summary, "reclaimed_bytes"), 0, "{summary}");
    assert!(number(summary, "direct_bytes") > 4 * M as i64, "{summary}");
    let is_exact = app.read("memory.stat").contains("pgsteal_proactive ");
    assert_eq!(summary.get("direct_at_most").is_some(), !is_exact, "{summary}");
}

fn a_glob_may_match_later() {
    let slice = Cgroup::new("slice");
    slice.write("cgroup.subtree_control", "+memory");
    let child = begin(&["slice/*", "--keep", "60M", "--json"]);
    after(1000);
    let app = slice.child("app");
    app.uses(&Work::File(80 * M));
    after(9000);
    let output = output_of(child);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said, "memctl: slice/*: no cgroup matches yet; waiting for one\n");
    assert!(app.current() <= 61 * M, "{}: {}", app.current(), String::from_utf8_lossy(&output.stdout));
    let line = "memctl: slize/*: no cgroup matches";
    assert_fails(&["watch", "slize/*", "--keep", "20M"], 1, line);
}

fn what_has_no_limit_is_told_of() {
    let slice = Cgroup::new("slice");
    let (_one, _other) = (slice.child("a"), slice.child("b"));
    let ran = run(&["watch", "slice/*", "--headroom", "10%", "--duration", "100ms"]);
    let why = "not watched yet: no limit: memory.high and memory.max are both max";
    assert_eq!((ran.status, ran.stderr), (Some(0), format!("memctl: /slice/a (and 1 more): {why}\n")));
}

fn what_is_left_out_by_many_names() {
    let slice = Cgroup::new("slice");
    let (one, other) = (slice.child("one.service"), slice.child("other"));
    for child in [&one, &other] {
        child.write("memory.max", &(64 * M).to_string());
    }
    let absolute = format!("{}/slice/one*", root().display());
    for word in ["slice/one*", "/slice/one*", &absolute, "one.service", "**/one*"] {
        let ran = run(&[
            "watch",
            "slice/*",
            "--headroom",
            "10%",
            "--duration",
            "50ms",
            "--json",
            "--exclude",
            word,
        ]);
        assert!(
            !ran.stdout.contains("one.service") && ran.stdout.contains("/slice/other"),
            "{word}: {}",
            ran.stdout
        );
        assert_eq!(ran.stderr, "", "{word}");
    }
    let ran = run(&["watch", "slice/*", "--headroom", "10%", "--duration", "50ms", "--exclude", "one"]);
    assert_eq!(ran.stderr, "memctl: --exclude one: no cgroup matches now\n");
}

/// The guest's swap is a virtual disk, which says nothing of its speed.
fn the_guard_that_keeps_from_swap_is_named() {
    for (words, guard) in [
        (&[][..], "slow_swap"),
        (&["--type", "all", "--swap-free", "100%"], "swap_free"),
        (&["--type", "all", "--swap-writes", "4k"], "swap_writes"),
    ] {
        let app = limited("app", 64 * M);
        app.uses(&Work::Anon(50 * M));
        let swapped = app.stat("anon");
        let words = [&["app", "--headroom", "30M", "--duration", "3s"], words].concat();
        let all = events(&words);
        let guards: Vec<_> = of(&all, "hold").iter().map(|hold| hold["guard"].clone()).collect();
        assert!(guards.contains(&guard.into()), "{words:?}: {all:?}");
        // The kernel reclaims a huge page as a whole, and more of them than requested.
        // The counter lags, and may show less at first.
        let left = app.stat("anon");
        assert!(swapped.saturating_sub(left) <= 8 * M, "{words:?}: {left} of {swapped}");
    }
}

fn no_more_is_swapped_than_may_be_written() {
    let app = limited("app", 256 * M);
    app.uses(&Work::Anon(200 * M));
    let before = app.stat("anon");
    let all =
        events(&["app", "--headroom", "190M", "--type", "all", "--swap-writes", "2M", "--duration", "6s"]);
    // Budget of six seconds, the reserve of one, and the kernel's write-ahead: up to 60 MiB at once
    // (Linux 7.3), after which the cgroup is left alone. Without a limit 130 MiB would leave.
    let swapped = before.saturating_sub(app.stat("anon"));
    assert!((4 * M..=80 * M).contains(&swapped), "{swapped}: {all:?}");
}
