//! What is switched off at boot: it is told as such, and bounds that can't be kept are refused.

use crate::check::finding;
use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, assert_fails, number, parse, report, run};
use crate::hidden::assert_pressure_unknown;
use crate::watch::{of, parsed};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "boot psi-off" => pressure_is_off;
        "boot memory-off" => the_memory_controller_is_off;
        "boot no-swap-accounting" => swap_is_accounted_to_nobody
    ]
}

fn pressure_is_off() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(60 * M));
    let before = app.current();
    let line = parse(&run(&["check", "app", "--json"]).stdout);
    assert_eq!(finding(&line, "pressure")["state"], "note", "{line}");
    assert_pressure_unknown("off", "PSI is off on this host");
    for words in [
        &["reclaim", "app", "5M", "--max-pressure", "5%"][..],
        &["reclaim", "app", "5M", "--max-pressure", "5%", "--dry-run"],
        &["watch", "app", "--keep", "10M", "--max-pressure", "5%", "--duration", "1s"],
    ] {
        let ran = run(words);
        let first = ran.stderr.lines().next().unwrap_or_default();
        assert!(first.starts_with("memctl: /app: max-pressure can't be kept: PSI is off"), "{ran:?}");
        assert!(ran.stderr.contains("\nhint: ") && ran.stderr.contains("psi=1"), "{ran:?}");
        assert_eq!(ran.status, Some(1), "{ran:?}");
    }
    app.assert_untouched(before);
    report(&["reclaim", "app", "5M"], 0);
    let ran = run(&["reclaim", "app", "max", "--json"]);
    assert_eq!(parse(&ran.stdout)["guards_blind"], serde_json::json!(["pressure"]), "{ran:?}");
    // A watch works without it, and its guards say what they can't see.
    app.uses(&Work::File(40 * M));
    let ran = run(&["watch", "app", "--keep", "20M", "--duration", "4s", "--json"]);
    assert!(ran.status == Some(0) && app.current() <= 20 * M, "{}: {ran:?}", app.current());
    let events = parsed(&ran.stdout);
    assert!(of(&events, "summary")[0].get("stalled_usec").is_none(), "{events:?}");
}

fn the_memory_controller_is_off() {
    let app = Cgroup::new("app");
    let line = "memctl: /app: the memory controller is disabled on this host";
    for words in [
        &["reclaim", "app", "5M"][..],
        &["reclaim", "app", "5M", "--dry-run"],
        &["stat", "app"],
        &["watch", "app", "--keep", "10M", "--duration", "1s"],
    ] {
        let ran = run(words);
        assert!(ran.stderr.contains("cgroup_disable=memory"), "{ran:?}");
        assert_fails(words, 1, line);
    }
    let ran = run(&["check", "app"]);
    assert!(ran.status == Some(1) && ran.stdout.contains("disabled on this host"), "{ran:?}");
    assert!(ran.stdout.contains("cgroup_disable=memory"), "{ran:?}");
    assert!(!app.path().join("memory.current").exists());
}

fn swap_is_accounted_to_nobody() {
    let app = Cgroup::new("app");
    app.uses(&Work::Anon(30 * M));
    assert!(!app.path().join("memory.swap.current").exists() && app.path().join("memory.stat").exists());
    let line = parse(&run(&["stat", "app", "--json"]).stdout);
    assert_eq!(line.get("swap_bytes"), None, "{line}");
    // Without accounting there is no limit either: the room is the host's.
    assert!(number(&line, "swap_room_bytes") > 256 * M as i64, "{line}");
    assert!(number(&line, "reclaimable_bytes") > 25 * M as i64, "{line}");
    let page = run(&["stat", "app"]).stdout;
    let swap = page.lines().find_map(|line| line.strip_prefix("swap")).expect("a line").trim();
    assert!(swap.starts_with("unknown: no memory.swap.current, room for "), "{page}");
    let table = run(&["stat", "app", "-n", "1", "-i", "1s"]).stdout;
    let cells: Vec<_> = table.lines().map(|line| line.split_whitespace().nth(6)).collect();
    assert_eq!(cells, [Some("SWAP"), Some("-")], "{table}");
    let line = parse(&run(&["check", "app", "--json"]).stdout);
    let swap = finding(&line, "swap");
    assert!(swap["amount_bytes"].as_u64() > Some(256 * M), "{line}");
    assert!(!line.to_string().contains("no swap") && !line.to_string().contains("swap room"), "{line}");
    // 6.1, the first kernel in the table with memory.reclaim, always accounts for swap.
    for words in [&["reclaim", "app", "5M", "--dry-run"][..], &["watch", "app", "--keep", "10M", "--dry-run"]]
    {
        let ran = run(words);
        assert!(ran.status == Some(1) && ran.stderr.contains("has no memory.reclaim"), "{ran:?}");
    }
}
