//! `memctl check` on hosts that can and that can't reclaim.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;

use serde_json::Value;

use crate::environment::{Case, list};
use crate::harness::{Cgroup, Finished, M, memctl, parse, root, run};
use crate::namespace::run_inside;
use crate::net_saving::Zswap;
use crate::terminal::{show, without_escapes};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest reclaim" => it_works_here, a_megabyte_is_tried, swap_that_is_closed_is_named,
            whose_the_file_is, a_namespace_hides_limits, huge_pages_of_the_cgroup;
        "guest reclaim zswap" => zswap_in_front_of_swap, nothing_goes_beyond_zswap;
        "guest reclaim !swappiness" => an_older_interface_is_named;
        "guest swappiness-max" => the_newest_interface_is_named;
        "guest !reclaim" => the_kernel_is_too_old;
        "guest" => a_controller_that_is_off, a_name_that_is_not_there_is_missing
    ]
}

/// Returns the findings: the state and text of each.
fn check(words: &[&str], status: i32) -> Value {
    let words: Vec<_> = ["check", "--json"].iter().chain(words).copied().collect();
    let ran = run(&words);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(status), ""), "{}", ran.stdout);
    let line = parse(&ran.stdout);
    assert_eq!(line["works"], status == 0, "{line}");
    line
}

#[track_caller]
pub fn finding<'a>(line: &'a Value, about: &str) -> &'a Value {
    let checks = line["checks"].as_array().expect("a list");
    checks.iter().find(|check| check["check"] == about).unwrap_or_else(|| panic!("{about} in {line}"))
}

fn it_works_here() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(20 * M));
    let before = app.current();
    for words in [&["app"][..], &[]] {
        let line = check(words, 0);
        assert_eq!(finding(&line, "reclaim")["state"], "ok", "{line}");
        assert_eq!(finding(&line, "swap")["state"], "ok", "{line}");
    }
    // All lines fit, and there are about a dozen.
    let screen = without_escapes(&show(&["check", "app"], 80));
    let lines = || screen.lines().map(|line| line.chars().count());
    assert!(lines().all(|width| width <= 80), "{screen}");
    let ran = run(&["check", "app"]);
    assert!((9..=14).contains(&ran.stdout.lines().count()), "{}", ran.stdout);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    assert!(
        ran.stdout.starts_with("cgroup2     ok      mounted at /sys/fs/cgroup, writable\n"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.ends_with("\nreclaim will work: /app\n"), "{}", ran.stdout);
    assert_eq!(run(&["check", "app", "-q"]).stdout, "");
    app.assert_untouched(before);
}

fn a_megabyte_is_tried() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(20 * M));
    let line = check(&["app", "--write"], 0);
    let tried = finding(&line, "write");
    assert_eq!(tried["state"], "ok", "{line}");
    assert!(tried["amount_bytes"].as_u64().is_some_and(|bytes| (M..4 * M).contains(&bytes)), "{line}");
    assert!((M..4 * M).contains(&app.stolen_settled()));
    let told = run(&["check", "app", "--write", "-v"]);
    assert!(told.stderr.starts_with("requested "), "{}", told.stderr);
    assert_eq!(run(&["check", "app", "--write"]).stderr, "");
    // An empty cgroup proves nothing, and is no failure.
    let empty = Cgroup::new("empty");
    let line = check(&[empty.name(), "--write"], 0);
    assert_eq!(finding(&line, "write")["state"], "note", "{line}");
    assert_eq!(finding(&line, "reclaimable")["amount_bytes"], 0, "{line}");
    let ran = run(&["check", empty.name()]);
    assert!(
        ran.stdout.ends_with("\nreclaim will work, but nothing is reclaimable now: /empty\n"),
        "{}",
        ran.stdout
    );
    // The cgroup has memory, which may not leave.
    empty.write("memory.swap.max", "0");
    empty.uses(&Work::Anon(10 * M));
    let line = check(&[empty.name(), "--write"], 0);
    let says = finding(&line, "write")["says"].to_string();
    assert!(says.contains("the remaining memory has no room in swap"), "{line}");
}

fn swap_that_is_closed_is_named() {
    let app = Cgroup::new("app");
    let inner = app.child("inner");
    inner.write("memory.min", "0");
    app.write("memory.swap.max", "0");
    let line = check(&["app/inner"], 0);
    let room = finding(&line, "swap room");
    assert_eq!(
        (&room["state"], &room["todo"]),
        (&"note".into(), &"raise memory.swap.max of /app".into()),
        "{line}"
    );
    inner.uses(&Work::File(10 * M)).uses(&Work::Locked(4 * M));
    inner.write("memory.min", &(5 * M).to_string());
    assert!(finding(&check(&["app"], 0), "protection")["says"].to_string().contains("/app/inner"));
    // Small pages are moved to the unevictable list in batches (mm/mlock.c): some of the last may
    // not be there yet.
    let line = check(&["app"], 0);
    assert!(finding(&line, "unevictable")["amount_bytes"].as_u64() >= Some(4 * M - M / 4), "{line}");
}

fn whose_the_file_is() {
    let app = Cgroup::new("app");
    let says = |line: &Value| finding(line, "reclaim")["says"].to_string();
    let alone = "owned by root, not delegated";
    assert!(says(&check(&["app"], 0)).contains(alone));
    let as_app = || -> Finished {
        let mut command = memctl(["check", "app", "--json"]);
        command.uid(1000).gid(1000).output().expect("memctl runs").into()
    };
    let line = parse(&as_app().stdout);
    assert!(says(&line).contains("permission denied") && says(&line).contains(alone), "{line}");
    for (about, state) in [("reclaim", "missing"), ("locking", "note"), ("triggers", "note")] {
        assert_eq!(finding(&line, about)["state"], state, "{line}");
    }
    chown(app.path().join("memory.reclaim"), Some(1000), Some(1000)).expect("delegate");
    let line = parse(&as_app().stdout);
    assert_eq!((&finding(&line, "reclaim")["state"], &line["works"]), (&"ok".into(), &true.into()), "{line}");
    assert!(says(&line).contains("delegated to uid 1000"), "{line}");
    let line = check(&["app"], 0);
    assert_eq!(
        (&finding(&line, "locking")["state"], &finding(&line, "triggers")["state"]),
        (&"ok".into(), &"ok".into())
    );
}

fn a_namespace_hides_limits() {
    let app = Cgroup::new("app");
    let about =
        |line: &Value| line["checks"].as_array().expect("a list").iter().any(|one| one["check"] == "beyond");
    assert!(!about(&check(&["app"], 0)));
    let ran = run_inside(app.path(), &["check", "/", "--json"]);
    let line = parse(&ran.stdout);
    assert_eq!(finding(&line, "beyond")["state"], "note", "{line}");
}

fn huge_pages_of_the_cgroup() {
    let pages = "/proc/sys/vm/nr_hugepages";
    std::fs::write(pages, "4").expect("set huge pages aside");
    std::fs::write(root().join("cgroup.subtree_control"), "+hugetlb").expect("count them");
    let app = Cgroup::new("app");
    app.uses(&Work::Huge(4 * M));
    let line = check(&["app"], 0);
    drop(app);
    std::fs::write(root().join("cgroup.subtree_control"), "-hugetlb").expect("count them no more");
    std::fs::write(pages, "0").expect("give them back");
    assert_eq!(finding(&line, "huge pages")["amount_bytes"], 4 * M, "{line}");
    assert_eq!(finding(&line, "hugetlb")["amount_bytes"], 8 * M, "{line}");
}

fn zswap_in_front_of_swap() {
    assert_eq!(finding(&check(&[], 0), "zswap")["says"], "off");
    let _zswap = Zswap::on();
    let line = check(&[], 0);
    assert_eq!(finding(&line, "zswap")["state"], "ok", "{line}");
    // 20% of the guest's memory, minus the current contents.
    let room = finding(&line, "zswap")["amount_bytes"].as_u64().expect("an amount");
    assert!((100 * M..210 * M).contains(&room), "{line}");
}

fn nothing_goes_beyond_zswap() {
    let _zswap = Zswap::on();
    let app = Cgroup::new("app");
    app.write("memory.zswap.writeback", "0");
    let line = check(&["app"], 0);
    assert_eq!(finding(&line, "writeback")["state"], "ok", "{line}");
    app.write("memory.zswap.max", "0");
    let line = check(&["app"], 0);
    let found = finding(&line, "writeback");
    assert_eq!((&found["state"], &found["amount_bytes"]), (&"note".into(), &0.into()), "{line}");
}

fn an_older_interface_is_named() {
    let line = check(&[], 0);
    assert_eq!(finding(&line, "kernel")["state"], "note", "{line}");
    assert!(finding(&line, "kernel")["says"].to_string().contains("require 6.11"), "{line}");
    assert_eq!(finding(&line, "measure")["state"], "note", "{line}");
}

fn the_newest_interface_is_named() {
    let line = check(&[], 0);
    assert_eq!(finding(&line, "kernel")["state"], "ok", "{line}");
    assert!(finding(&line, "measure")["says"].to_string().contains("pgsteal_proactive"), "{line}");
}

fn the_kernel_is_too_old() {
    let app = Cgroup::new("app");
    let line = check(&[app.name()], 1);
    let missing = finding(&line, "reclaim");
    assert_eq!(missing["state"], "missing");
    assert!(missing["says"].to_string().contains("which requires Linux 5.19"), "{line}");
}

fn a_controller_that_is_off() {
    let app = Cgroup::new("app");
    let inner = app.path().join("inner");
    std::fs::create_dir(&inner).expect("make it");
    let line = check(&["app/inner"], 1);
    std::fs::remove_dir(inner).expect("remove it");
    let todo = finding(&line, "reclaim")["todo"].as_str().unwrap_or_default().to_owned();
    assert_eq!(todo, "echo +memory > /sys/fs/cgroup/app/cgroup.subtree_control", "{line}");
}

fn a_name_that_is_not_there_is_missing() {
    let line = check(&["nonesuch"], 1);
    assert_eq!(finding(&line, "cgroup")["state"], "missing", "{line}");
    crate::harness::assert_fails(&["check", "*"], 2, "memctl: *: check takes a single cgroup");
    crate::harness::assert_fails(
        &["check", ""],
        2,
        "memctl: a cgroup's name can't be empty (the root is called /)",
    );
    let ran = run(&["check", "nonesuch"]);
    assert!(ran.stdout.ends_with("\nreclaim will not work: nonesuch\n"), "{}", ran.stdout);
}
