//! Sums of records, beside those of their summaries.

use std::path::PathBuf;

use serde_json::Value;

use crate::{all, events, fleet, lines, records, summed, text, write};

/// Keys of a summary that are summed up.
const SUMMED: [&str; 6] =
    ["requested_bytes", "reclaimed_bytes", "stalled_usec", "cpu_usec", "outrun", "watched_usec"];

/// Fails unless two sums differ by at most 2%.
fn assert_near(what: &str, got: &Value, want: f64) {
    let got = got.as_f64().unwrap_or_else(|| panic!("{what}: {got}"));
    assert!((got - want).abs() <= want.abs() * 0.02, "{what}: {got} instead of {want}");
}

/// Returns the sum of a key over the summaries in the records.
fn of_summaries(paths: &[PathBuf], key: &str, counts: impl Fn(&Value) -> bool) -> f64 {
    let summaries = paths.iter().flat_map(|path| events(path)).filter(|event| event["event"] == "summary");
    summaries.filter(|summary| counts(summary)).filter_map(|summary| summary[key].as_f64()).sum()
}

#[test]
fn fifty_records_have_the_sums_of_their_summaries() {
    let paths = records(1..=50);
    let lines = summed(&paths);
    let all = all(&lines);
    for key in SUMMED {
        let want = of_summaries(&paths, key, |_| true);
        assert!(want > 0.0, "{key}: the records show nothing");
        assert_near(key, &all[key], want);
    }
    assert_near("would", &all["would_reclaim_bytes"], of_summaries(&paths, "would_reclaim_bytes", |_| true));
    let saved = of_summaries(&paths, "net_saved_bytes", |summary| summary["gone"] == false);
    assert!(saved > 0.0, "the records save nothing");
    assert_near("saved", &all["net_saved_bytes"], saved);
    let counts = ["records", "ended_records", "dry_runs", "left_out"].map(|key| all[key].as_u64());
    assert_eq!(counts, [50, 50, 20, 0].map(Some));
}

#[test]
fn a_rule_has_the_sums_of_its_summaries() {
    let paths = records(1..=50);
    let lines = summed(&paths);
    for rule in ["services", "caches"] {
        let line = lines.iter().find(|line| line["name"] == rule).expect("the rule");
        for key in ["reclaimed_bytes", "cpu_usec"] {
            assert_near(rule, &line[key], of_summaries(&paths, key, |summary| summary["rule"] == rule));
        }
    }
    assert!(lines.iter().all(|line| line["sum"] != "namespace"), "{lines:?}");
}

/// A node that dies leaves no summary. What dies here had told all but that.
#[test]
fn without_summaries_the_events_have_the_same_sums() {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = records(1..=50);
    let cut: Vec<PathBuf> = paths
        .iter()
        .map(|path| {
            let cut = folder.path().join(path.file_name().expect("a name"));
            let mut events = events(path);
            events.retain(|event| event["event"] != "summary" && event["event"] != "end");
            write(&cut, &events);
            cut
        })
        .collect();
    let (whole, cut) = (summed(&paths), summed(&cut));
    let (whole, cut) = (all(&whole), all(&cut));
    let keys =
        ["requested_bytes", "reclaimed_bytes", "refaulted_bytes", "stalled_usec", "cpu_usec", "cgroups"];
    for key in keys {
        assert_near(key, &cut[key], whole[key].as_f64().expect("a sum"));
    }
    assert_eq!((&cut["ended_records"], &cut["records"]), (&0.into(), &50.into()));
}

#[test]
fn a_watch_that_was_killed_counts_by_its_events() {
    let paths = records(51..=52);
    let lines = summed(&paths);
    let mut reclaimed = 0.0;
    for events in paths.iter().map(|path| events(path)) {
        assert!(events.iter().all(|event| event["event"] != "end"), "it was killed");
        let is_over =
            |name: &Value| events.iter().any(|event| event["event"] == "gone" && event["cgroup"] == *name);
        for event in &events {
            // The summary of a cgroup that is gone has all its reclaim.
            let counts = if is_over(&event["cgroup"]) { "summary" } else { "reclaim" };
            if event["event"] == counts {
                reclaimed += event["reclaimed_bytes"].as_f64().expect("a number");
            }
        }
    }
    assert!(reclaimed > 0.0, "nothing was reclaimed");
    assert_near("reclaimed", &all(&lines)["reclaimed_bytes"], reclaimed);
    assert_eq!(all(&lines)["ended_records"], 0);
}

/// In a pod, memctl writes the namespace of each cgroup beside its name.
#[test]
fn namespaces_are_summed_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let spaces = ["batch", "web"];
    let paths: Vec<PathBuf> = records(21..=30)
        .iter()
        .enumerate()
        .map(|(at, path)| {
            let mut events = events(path);
            for event in events.iter_mut().filter(|event| event.get("cgroup").is_some()) {
                let is_cache = event["cgroup"].as_str().is_some_and(|name| name.ends_with("/cache"));
                // A cgroup outside of the pods has none.
                if !is_cache {
                    event["namespace"] = spaces[at % 2].into();
                }
            }
            let named = folder.path().join(path.file_name().expect("a name"));
            write(&named, &events);
            named
        })
        .collect();
    let lines = summed(&paths);
    let sum = |name: Value| {
        let line = lines.iter().find(|line| line["sum"] == "namespace" && line["name"] == name);
        line.unwrap_or_else(|| panic!("{name}: no sum"))["reclaimed_bytes"].as_f64().expect("a number")
    };
    for space in spaces {
        let want = of_summaries(&paths, "reclaimed_bytes", |summary| summary["namespace"] == space);
        assert_near(space, &sum(space.into()).into(), want);
    }
    let sums = sum(spaces[0].into()) + sum(spaces[1].into()) + sum(Value::Null);
    assert_near("all", &all(&lines)["reclaimed_bytes"], sums);
    let shown = fleet().args(&paths).output().expect("fleet runs");
    assert!(
        text(&shown.stdout).contains("\nNAMESPACE") && text(&shown.stdout).contains("\nbatch "),
        "{shown:?}"
    );
}

#[test]
fn a_dry_run_is_compared_with_a_live_pool() {
    let (base, versus) = (records(1..=20), records(21..=50));
    let compare = |json: &[&str]| {
        fleet().args(json).args(&base).arg("--versus").args(&versus).output().expect("fleet runs")
    };
    let output = compare(&[]);
    assert!(output.status.success(), "{output:?}");
    let shown = text(&output.stdout);
    let row = |what: &str| -> Vec<String> {
        let row = shown.lines().find(|line| line.trim_start().starts_with(what));
        let row = row.unwrap_or_else(|| panic!("{what}: no row in {shown}"));
        row.split_whitespace().rev().take(2).map(String::from).collect()
    };
    assert_eq!(
        (row("records"), row("of dry runs")),
        (vec!["30".into(), "20".into()], vec!["0".into(), "20".into()])
    );
    assert_eq!(row("reclaimed")[1], "0");
    assert_ne!(row("reclaimed")[0], "0");
    assert!(row("stalled").iter().all(|cell| cell.ends_with('%')), "{shown}");
    let lines = lines(&compare(&["--json"]));
    let stalled = |group: &str| {
        let line = lines.iter().find(|line| line["sum"] == "all" && line["group"] == group).expect("a group");
        line["stalled_usec"].as_f64().expect("stalls") / line["watched_usec"].as_f64().expect("a time")
    };
    let percent = |ratio: f64| format!("{:.2}%", ratio * 100.0);
    assert_eq!(row("stalled"), [percent(stalled("versus")), percent(stalled("base"))]);
    // memctl's purpose: tasks wait less.
    assert!(stalled("versus") < stalled("base"), "{shown}");
}
