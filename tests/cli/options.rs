//! Options that change requests to the kernel or the output, on real kernels.

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, assert_close, assert_fails, number, report, run};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest reclaim !swappiness" => swappiness_fails_with_the_reason;
        "guest swappiness" => only_page_cache, swappiness_zero_is_page_cache;
        "guest swappiness !swappiness-max" => anon_fails_with_the_reason;
        "guest swappiness-max" => only_anon, anon_needs_room_in_swap;
        "guest reclaim" =>
            a_fixed_chunk,
            a_timeout,
            a_tolerance,
            quiet,
            verbose,
            protection_is_named,
            locked_memory_is_named,
            frozen_tasks_are_no_obstacle,
            two_writers,
            on_a_terminal
    ]
}

/// Creates a cgroup with page cache and anonymous memory.
fn mixed() -> Cgroup {
    let app = Cgroup::new("app");
    app.uses(&Work::File(60 * M)).uses(&Work::Anon(60 * M));
    app
}

fn swappiness_fails_with_the_reason() {
    let app = mixed();
    let before = app.current();
    let line = "memctl: /app: this kernel lacks swappiness= in memory.reclaim, which requires Linux 6.11";
    for option in ["--swappiness=60", "--swappiness=max", "--type=file", "--type=anon"] {
        let ran = assert_fails(&["reclaim", "app", "10M", option], 1, line);
        assert!(ran.stderr.contains("\nhint: "), "{}", ran.stderr);
    }
    app.assert_untouched(before);
    // Requests that need no key continue.
    report(&["reclaim", "app", "10M", "--type=all"], 0);
}

fn only_page_cache() {
    let app = mixed();
    let anon = app.stat("anon");
    let report = report(&["reclaim", "app", "20M", "--type", "file"], 0);
    assert_eq!(report["verdict"], "exact");
    assert_close("the kernel's counter", app.stolen_settled(), 20 * M);
    assert_close("page cache", app.stat("file"), 40 * M);
    assert_eq!(app.stat("anon").abs_diff(anon) / M, 0, "anonymous memory was touched");
}

fn swappiness_zero_is_page_cache() {
    let app = mixed();
    let report = report(&["reclaim", "app", "100M", "--swappiness", "0"], 3);
    assert_eq!(report["obstacles"][0], "anon_not_asked", "{report}");
    assert!(app.stat("anon") > 58 * M);
}

fn anon_fails_with_the_reason() {
    let app = mixed();
    let before = app.current();
    let line = "memctl: /app: this kernel lacks swappiness=max in memory.reclaim, which requires Linux 6.16";
    assert_fails(&["reclaim", "app", "10M", "--type=anon"], 1, line);
    assert_fails(&["reclaim", "app", "10M", "--swappiness=max"], 1, line);
    app.assert_untouched(before);
}

fn only_anon() {
    let app = mixed();
    let file = app.stat("file");
    let report = report(&["reclaim", "app", "20M", "--type", "anon"], 0);
    assert_eq!(report["verdict"], "exact", "{report}");
    assert_close("the kernel's counter", app.stolen_settled(), 20 * M);
    assert!(app.stat("file") + M > file, "page cache was touched");
    let swapped = number(&report, "swapped_out_bytes") as u64;
    assert_eq!(swapped, app.stat("pswpout") * 4096);
    assert!(swapped >= 18 * M, "{report}");
    // The kernel writes ahead to slow swap, even for a small request. The excess must be reported,
    // though.
    let told = report["over_swapped_bytes"].as_u64().unwrap_or(0);
    let reclaimed = number(&report, "reclaimed_bytes") as u64;
    assert!(swapped - told <= reclaimed.max(20 * M) + 2 * M, "{report}");
}

fn anon_needs_room_in_swap() {
    let app = Cgroup::new("app");
    let inner = app.child("inner");
    inner.uses(&Work::File(20 * M)).uses(&Work::Anon(20 * M));
    app.write("memory.swap.max", "0");
    let before = app.current();
    for name in ["app", "app/inner"] {
        let line = format!(
            "memctl: /{name}: anonymous memory can't be reclaimed: memory.swap.max of /app leaves no room in swap"
        );
        assert_fails(&["reclaim", name, "10M", "--type=anon"], 1, &line);
    }
    app.assert_untouched(before);
    drop(inner);
}

fn a_fixed_chunk() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(40 * M));
    let report = report(&["reclaim", "app", "8M", "--chunk", "1M"], 0);
    assert!((1..=8).contains(&number(&report, "chunks")), "{report}");
    assert_eq!(report["verdict"], "exact", "{report}");
}

fn a_timeout() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(200 * M));
    let report = report(&["reclaim", "app", "190M", "--chunk", "4K", "--timeout", "50ms"], 124);
    assert_eq!((&report["stopped_by"], &report["verdict"]), (&"timeout".into(), &"under".into()));
    let (elapsed, reclaimed) = (number(&report, "elapsed_usec"), number(&report, "reclaimed_bytes") as u64);
    // Chunks of a page would take many times as long for all of it; scheduling delays of memctl are
    // another matter. The alarm is set a moment before the request begins.
    assert!((49_000..5_000_000).contains(&elapsed) && reclaimed < 180 * M, "{report}");
    let stolen = app.stolen_settled();
    assert!(reclaimed > 0 && reclaimed.abs_diff(stolen) <= stolen / 20 + M, "{stolen} and {report}");
}

fn a_tolerance() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(40 * M));
    // Half of the request is available: short by the usual tolerance, exact by the one given.
    report(&["reclaim", "app", "80M", "--tolerance", "60%"], 0);
    report(&["reclaim", "app", "80M", "--tolerance", "60"], 3);
}

fn quiet() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(20 * M));
    let ran = run(&["reclaim", "-q", "app", "5M"]);
    assert_eq!((ran.status, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", ""));
    let ran = run(&["-q", "reclaim", "app", "500M"]);
    assert_eq!((ran.status, ran.stdout.as_str(), ran.stderr.as_str()), (Some(3), "", ""));
    assert_eq!(run(&["reclaim", "-q", "app", "5M", "--json"]).stdout.lines().count(), 1);
}

fn verbose() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(40 * M));
    let ran = run(&["reclaim", "-v", "app", "5M", "--json"]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let chunks = number(&crate::harness::parse(&ran.stdout), "chunks") as usize;
    let told = ran
        .stderr
        .lines()
        .filter(|line| line.starts_with("requested ") && line.contains("done after"))
        .count();
    assert_eq!(told, chunks, "{}", ran.stderr);
}

fn protection_is_named() {
    let app = Cgroup::new("app");
    let database = app.child("db");
    database.write("memory.min", "50M");
    database.uses(&Work::File(40 * M));
    let report = report(&["reclaim", "app", "30M"], 3);
    assert_eq!(report["obstacles"][0], "protected", "{report}");
    let ran = run(&["reclaim", "app", "30M"]);
    assert!(
        ran.stdout.contains("protected by memory.min of child cgroups (most by /app/db)"),
        "{}",
        ran.stdout
    );
    assert!(database.stat("file") > 38 * M);
}

fn locked_memory_is_named() {
    let app = Cgroup::new("app");
    app.uses(&Work::Locked(30 * M));
    let report = report(&["reclaim", "app", "20M"], 3);
    let obstacles = report["obstacles"].to_string();
    assert!(obstacles.contains("unevictable"), "{report}");
}

fn frozen_tasks_are_no_obstacle() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(40 * M));
    app.write("cgroup.freeze", "1");
    let report = report(&["reclaim", "app", "10M"], 0);
    app.write("cgroup.freeze", "0");
    assert_eq!(report["verdict"], "exact");
}

fn two_writers() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(120 * M));
    let start = || {
        crate::harness::memctl(["reclaim", "app", "20M", "--json"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("memctl starts")
    };
    let both = [start(), start()];
    for child in both {
        let output = child.wait_with_output().expect("memctl ends");
        assert_eq!(output.status.code(), Some(0));
    }
    // The counter includes every writer: together they free the bytes that one or both
    // requested, and no more.
    let stolen = app.stolen_settled();
    assert!((19 * M..46 * M).contains(&stolen), "{stolen}");
}

fn on_a_terminal() {
    let app = Cgroup::new(
        "a-container-with-a-name-that-is-longer-than-a-line-of-the-terminal-could-ever-hold.scope",
    );
    app.uses(&Work::File(100 * M));
    let screen = crate::terminal::show(&["reclaim", app.name(), "60M", "--max-rate", "60M"], 80);
    assert!(screen.contains("\u{1b}[") && screen.contains("exact"), "{screen}");
    let (progress, table) = screen.split_once("CGROUP").expect("a table");
    assert!(progress.contains("/60.00 MiB") && progress.contains("MiB/s"), "{progress:?}");
    for line in crate::terminal::without_escapes(&format!("CGROUP{table}")).lines() {
        assert!(line.chars().count() <= 80, "{} wide: {line}", line.chars().count());
    }
}
