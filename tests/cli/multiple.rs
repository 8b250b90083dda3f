//! Several cgroups at once: names and globs, a row each, the worst exit status, signals to every
//! writing thread.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::environment::{Case, list};
use crate::harness::{Cgroup, Finished, M, assert_close, assert_fails, memctl, number, run};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest reclaim" =>
            each_once_however_often_it_is_named,
            globs_cross_levels_with_two_stars,
            a_glob_passes_over_what_can_not_be_reclaimed,
            a_row_each_and_a_total,
            a_mistake_in_one_changes_nothing,
            the_worst_exit_status_is_told,
            a_rate_for_all,
            in_parallel,
            a_lock_is_waited_for,
            a_lock_is_never_fatal;
        "guest prompt" => a_signal_reaches_every_writing_thread
    ]
}

/// Returns the reports, a line of JSON each.
fn reports(words: &[&str], status: i32) -> Vec<Value> {
    let ran = run(&[words, &["--json"]].concat());
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(status), ""), "{words:?}: {}", ran.stdout);
    ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn names(reports: &[Value]) -> Vec<&str> {
    reports.iter().map(|report| report["cgroup"].as_str().expect("a name")).collect()
}

/// Creates a parent and its children, with `bytes` of page cache in each child.
fn family(parent: &str, children: &[&str], bytes: u64) -> (Cgroup, Vec<Cgroup>) {
    let parent = Cgroup::new(parent);
    let children = children.iter().map(|name| {
        let child = parent.child(name);
        child.uses(&Work::File(bytes));
        child
    });
    let children = children.collect();
    (parent, children)
}

fn each_once_however_often_it_is_named() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(20 * M));
    let (_batch, children) = family("batch", &["b", "a"], 20 * M);
    let words = ["reclaim", "batch/b", "batch/*", "/sys/fs/cgroup/app", "app", "5M"];
    let reports = reports(&words, 0);
    assert_eq!(names(&reports), ["/batch/b", "/batch/a", "/app"]);
    for cgroup in children.iter().chain([&app]) {
        assert_close(cgroup.name(), cgroup.stolen_settled(), 5 * M);
    }
}

fn globs_cross_levels_with_two_stars() {
    let (_batch, children) = family("batch", &["a", "b"], 10 * M);
    let inner = children[0].path().join("inner");
    drop(children);
    assert!(!inner.exists());
    let outer = Cgroup::new("outer");
    let middle = outer.child("middle");
    let inner = middle.child("job-1");
    inner.uses(&Work::File(10 * M));
    assert_eq!(names(&reports(&["reclaim", "outer/**/job-?", "1M"], 0)), ["/outer/middle/job-1"]);
    assert_fails(&["reclaim", "outer/job-?", "1M"], 1, "memctl: outer/job-?: no cgroup matches");
    let line = "memctl: outer/[: malformed glob: unclosed character class; missing ']'";
    for words in
        [&["reclaim", "outer/[", "1M"][..], &["stat", "outer/["], &["watch", "outer/[", "--headroom", "1M"]]
    {
        assert_fails(words, 2, line);
    }
}

fn a_glob_passes_over_what_can_not_be_reclaimed() {
    let (batch, children) = family("batch", &["a"], 10 * M);
    let bare = batch.path().join("a/bare");
    children[0].rest();
    std::fs::create_dir(&bare).expect("a cgroup without the controller");
    let found = reports(&["reclaim", "batch/**", "1M"], 0);
    let none = run(&["reclaim", "batch/a/*", "1M"]);
    std::fs::remove_dir(&bare).expect("remove it");
    assert_eq!(names(&found), ["/batch/a"]);
    assert_eq!(none.status, Some(1));
    assert!(
        none.stderr.starts_with("memctl: batch/a/*: no matching cgroup can be reclaimed from"),
        "{}",
        none.stderr
    );
}

fn a_row_each_and_a_total() {
    let (_batch, _children) = family("batch", &["a", "b"], 20 * M);
    let ran = run(&["reclaim", "batch/*", "5M"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    let firsts: Vec<_> = ran.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(firsts, ["CGROUP", "/batch/a", "/batch/b", "total", "cost"]);
    assert!(ran.stdout.contains("total        10 MiB"), "{}", ran.stdout);
}

fn a_mistake_in_one_changes_nothing() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(20 * M));
    let before = app.current();
    assert_fails(&["reclaim", "app", "nowhere", "5M"], 1, "memctl: nowhere: no such cgroup");
    app.assert_untouched(before);
}

fn the_worst_exit_status_is_told() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(200 * M));
    let _empty = Cgroup::new("empty");
    let found = reports(&["reclaim", "empty", "app", "1M"], 3);
    assert_eq!(
        found.iter().map(|report| report["verdict"].as_str().expect("a word")).collect::<Vec<_>>(),
        ["under", "exact"]
    );
    let found = reports(&["reclaim", "empty", "app", "190M", "--chunk", "4K", "--timeout", "50ms"], 124);
    assert_eq!((&found[0]["stopped_by"], &found[1]["stopped_by"]), (&"exhausted".into(), &"timeout".into()));
}

fn a_rate_for_all() {
    let (_batch, _children) = family("batch", &["a", "b"], 20 * M);
    let began = Instant::now();
    let found = reports(&["reclaim", "batch/*", "10M", "--jobs", "2", "--max-rate", "10M"], 0);
    let took = began.elapsed();
    assert!(found.iter().all(|report| report["verdict"] == "exact"));
    assert!(took >= Duration::from_millis(1700), "20 MiB at 10 MiB a second in {took:?}");
}

/// Both are in progress at the same time, regardless of the time saved on this machine.
fn in_parallel() {
    let (_batch, _children) = family("batch", &["a", "b"], 20 * M);
    let ran = run(&["reclaim", "batch/*", "5M", "--jobs", "2", "--max-rate", "5M", "-v", "--json"]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let order: Vec<_> = ran.stderr.lines().filter_map(|line| line.split(": requested").next()).collect();
    let changes = order.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changes > 2, "one after the other: {}", ran.stderr);
}

fn a_signal_reaches_every_writing_thread() {
    let (_batch, children) = family("batch", &["a", "b"], M);
    for child in &children {
        child.uses(&Work::Anon(180 * M));
    }
    let used: Vec<_> = children.iter().map(Cgroup::current).collect();
    let words = ["reclaim", "batch/*", "175M", "--chunk", "175M", "--jobs", "2", "--json"];
    let child = memctl(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("memctl starts");
    let until = Instant::now() + Duration::from_secs(30);
    while children.iter().zip(&used).any(|(child, used)| child.current() + M > *used) {
        assert!(Instant::now() < until, "they never got going both");
        std::thread::sleep(Duration::from_millis(1));
    }
    let sent = Instant::now();
    kill_process(Pid::from_child(&child), Signal::INT).expect("it is still running");
    let ran: Finished = child.wait_with_output().expect("memctl ends").into();
    let took = sent.elapsed();
    assert_eq!(ran.status, None, "{ran:?}");
    assert!(took < Duration::from_secs(1), "it took {took:?} to stop");
    let found: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for (report, child) in found.iter().zip(&children) {
        let (told, stolen) = (number(report, "reclaimed_bytes") as u64, child.stolen_settled());
        assert!(told.abs_diff(stolen) <= stolen / 20 + M, "{stolen} counted, {report}");
    }
    assert!(found.iter().any(|report| report["stopped_by"] == "interrupted"), "{}", ran.stdout);
}

fn lock_on(cgroup: &Cgroup) -> std::fs::File {
    let directory = std::fs::File::open(cgroup.path()).expect("open the directory");
    flock(&directory, FlockOperation::LockExclusive).expect("lock it");
    directory
}

fn a_lock_is_waited_for() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(20 * M));
    let lock = lock_on(&app);
    let child = memctl(["reclaim", "app", "5M"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
    let child = child.expect("memctl starts");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(app.stolen(), 0, "it didn't wait");
    drop(lock);
    let ran: Finished = child.wait_with_output().expect("memctl ends").into();
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
}

fn a_lock_is_never_fatal() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(20 * M));
    let _lock = lock_on(&app);
    let ran = run(&["reclaim", "app", "1M"]);
    let pid = std::process::id();
    let note =
        format!("memctl: /app: locked by process {pid}; reclaiming anyway (--no-lock skips this check)\n");
    assert_eq!((ran.status, ran.stderr), (Some(0), note));
    let began = Instant::now();
    let ran = run(&["reclaim", "app", "1M", "--no-lock"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    assert!(began.elapsed() < Duration::from_secs(2));
}
