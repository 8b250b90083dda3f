//! What is switched off at boot: it is told as such, and bounds that can't be kept are refused.

use crate::check::finding;
use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, assert_fails, parse, report, run};
use crate::watch::{of, parsed};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "boot psi-off" => pressure_is_off;
        "boot memory-off" => the_memory_controller_is_off
    ]
}

fn pressure_is_off() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(60 * M));
    let before = app.current();
    let line = parse(&run(&["check", "app", "--json"]).stdout);
    assert_eq!(finding(&line, "pressure")["state"], "note", "{line}");
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
