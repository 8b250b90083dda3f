//! `memctl watch` on real kernels.

use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, assert_fails, memctl, number, run, status_kib};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "" => without_a_mode;
        "guest reclaim" =>
            a_file_that_fits_is_left_alone,
            a_limit_is_needed,
            headroom_is_kept,
            a_limit_of_ones_own,
            the_floor_is_not_undercut,
            nothing_to_be_had_is_said_once,
            what_is_missing_above_is_shared;
        // The oldest kernel that can, and the newest: all of them together take long.
        "guest reclaim !swappiness" =>
            outrun_it_says_what_was_needed,
            its_own_memory_is_locked_and_little,
            a_limit_above_counts_only_if_asked_for,
            lines_in_a_pipe;
        "guest prompt" =>
            outrun_it_says_what_was_needed,
            its_own_memory_is_locked_and_little,
            a_limit_above_counts_only_if_asked_for,
            lines_in_a_pipe,
            a_dry_run_writes_nothing,
            told_to_stop_it_ends_well,
            interrupted_it_dies_by_that,
            a_cgroup_that_goes,
            cgroups_that_come,
            another_memctl_is_waited_for,
            reclaim_that_takes_what_is_in_use_is_left_to_the_tasks,
            each_action_is_told;
        "guest swappiness" => page_cache_alone, hot_memory_pulls_the_brake, weighed_as_asked;
        "guest reclaim !swappiness" => page_cache_alone_can_not_be_had
    ]
}

/// Events of a watch, a line of JSON each. Shown briefly when an assertion fails.
pub struct Events(Vec<Value>);

impl std::ops::Deref for Events {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.0
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for one in &self.0 {
            let word = |key: &str| if one[key].is_null() { String::new() } else { format!(" {}", one[key]) };
            let words = ["cgroup", "event", "guard"];
            let numbers = ["requested_bytes", "reclaimed_bytes", "needed_bytes", "headroom_bytes"];
            writeln!(f, "{}{}", words.map(word).concat(), numbers.map(word).concat())?;
        }
        Ok(())
    }
}

/// Returns the events of a watch that ended with 0.
pub fn events(words: &[&str]) -> Events {
    let words: Vec<_> = ["watch"].iter().chain(words).chain(&["--json"]).copied().collect();
    let ran = run(&words);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{words:?}: {}", ran.stdout);
    parsed(&ran.stdout)
}

pub fn parsed(stdout: &str) -> Events {
    let parsed = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    Events(stdout.lines().map(parsed).collect())
}

pub fn of<'a>(events: &'a [Value], event: &str) -> Vec<&'a Value> {
    events.iter().filter(|one| one["event"] == event).collect()
}

pub fn limited(name: &str, limit: u64) -> Cgroup {
    let app = Cgroup::new(name);
    app.write("memory.max", &limit.to_string());
    app
}

/// Starts memctl watch in the background.
pub fn begin(words: &[&str]) -> Child {
    let words: Vec<_> = ["watch"].iter().chain(words).copied().collect();
    memctl(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("memctl starts")
}

/// Stops a watch, and returns its output.
pub fn output_of(child: Child) -> Output {
    signal(&child, Signal::TERM);
    let output = child.wait_with_output().expect("memctl ends");
    assert!(output.status.success(), "{output:?}");
    output
}

/// Stops a watch that was started with `--json`, and returns its events.
pub fn ended(child: Child) -> Events {
    parsed(&String::from_utf8_lossy(&output_of(child).stdout))
}

pub fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("it is still running");
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "{what} never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn after(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

fn without_a_mode() {
    let ran = assert_fails(
        &["watch", "app"],
        2,
        "memctl: watch: one of --headroom, --keep, --pressure, --estimate or --config is required",
    );
    assert!(ran.stderr.contains("hint: use --headroom 10% to keep"), "{}", ran.stderr);
    assert_fails(&["watch", "--headroom", "10%"], 2, "memctl: a CGROUP is required");
    let leaves_nothing = "memctl: --headroom: must be less than the limit";
    assert_fails(&["watch", "app", "--headroom", "100%"], 2, leaves_nothing);
    let line = "memctl: --ancestors: requires --headroom";
    assert_fails(&["watch", "app", "--ancestors", "--keep", "10M"], 2, line);
    let line = "memctl: invalid value '0%' for '--cpu <PCT>': must be more than 0";
    assert_fails(&["watch", "app", "--headroom", "10%", "--cpu", "0%"], 2, line);
    let line = "memctl: invalid value '10MB' for '--headroom <SIZE|PCT>': MB is ambiguous: write M or MiB (a power of 1024), or the number of bytes";
    assert_fails(&["watch", "app", "--headroom", "10MB"], 2, line);
}

fn a_limit_is_needed() {
    let line = "memctl: /: the root cgroup has neither memory.current nor a limit";
    assert_fails(&["watch", "/", "--headroom", "10M"], 1, line);
    let app = Cgroup::new("app");
    let line = "memctl: /app: no limit: memory.high and memory.max are both max";
    let ran = assert_fails(&["watch", "app", "--headroom", "10M"], 1, line);
    assert!(ran.stderr.contains("hint: set a limit for memctl to keep"), "{}", ran.stderr);
    app.write("memory.high", &(32 * M).to_string());
    let line = "memctl: /app: the headroom must be less than the limit of 33554432 bytes";
    assert_fails(&["watch", "app", "--headroom", "40M"], 1, line);
}

fn headroom_is_kept() {
    let app = limited("app", 128 * M);
    app.uses(&Work::File(110 * M));
    let events = events(&["app", "--headroom", "40M", "--duration", "3s"]);
    let current = app.current();
    assert!((70 * M..=88 * M).contains(&current), "{current}: {events:?}");
    let start = of(&events, "start")[0];
    assert_eq!((number(start, "limit_bytes"), &start["limit_file"]), (128 * M as i64, &"memory.max".into()));
    let reclaimed: i64 = of(&events, "reclaim").iter().map(|one| number(one, "reclaimed_bytes")).sum();
    let summary = of(&events, "summary")[0];
    assert_eq!(number(summary, "reclaimed_bytes"), reclaimed);
    let stolen = app.stolen_settled();
    assert!(stolen.abs_diff(reclaimed as u64) <= stolen / 8 + M, "{stolen} by the kernel: {events:?}");
    assert!(reclaimed as u64 >= 20 * M && number(summary, "outrun") == 0, "{summary}");
    assert!(!app.read("memory.events").contains("max 1"), "it never met its limit");
    assert_eq!(events.last().map(|last| &last["event"]), Some(&"end".into()));
}

fn a_limit_of_ones_own() {
    let app = Cgroup::new("app");
    app.uses(&Work::File(60 * M));
    let events = events(&["app", "--keep", "40M", "--duration", "2s"]);
    let current = app.current();
    assert!((30 * M..=40 * M).contains(&current), "{current}: {events:?}");
    assert!(of(&events, "start")[0].get("limit_file").is_none());
}

fn the_floor_is_not_undercut() {
    let app = limited("app", 128 * M);
    app.uses(&Work::File(110 * M));
    let events = events(&["app", "--headroom", "60M", "--floor", "90M", "--duration", "3s"]);
    let current = app.current();
    assert!((90 * M..=95 * M).contains(&current), "{current}: {events:?}");
    let holds = of(&events, "hold");
    assert_eq!((holds.len(), &holds[0]["guard"]), (1, &"floor".into()), "once: {events:?}");
    app.write("memory.low", &(100 * M).to_string());
    app.uses(&Work::File(20 * M));
    let before = app.current();
    crate::harness::run(&["watch", "app", "--headroom", "60M", "--duration", "1s"]);
    assert!(app.current() >= 100 * M, "{} of {before}", app.current());
}

fn a_dry_run_writes_nothing() {
    let app = limited("app", 64 * M);
    app.uses(&Work::File(50 * M));
    let before = app.current();
    let events = events(&["app", "--headroom", "30M", "--duration", "1s", "--dry-run"]);
    app.assert_untouched(before);
    let would = of(&events, "would_reclaim");
    assert!(!would.is_empty(), "{events:?}");
    assert!(number(would[0], "requested_bytes") as u64 > 15 * M, "{events:?}");
}

fn told_to_stop_it_ends_well() {
    let app = limited("app", 64 * M);
    app.uses(&Work::File(50 * M));
    let child = begin(&["app", "--headroom", "20M", "--json"]);
    until("the first reclaim", || app.stolen() > 0);
    after(200);
    signal(&child, Signal::TERM);
    let sent = Instant::now();
    let output = child.wait_with_output().expect("memctl ends");
    assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &[][..]));
    let events = parsed(&String::from_utf8_lossy(&output.stdout));
    assert_eq!((of(&events, "summary").len(), of(&events, "end").len()), (1, 1));
}

fn interrupted_it_dies_by_that() {
    use std::os::unix::process::ExitStatusExt;
    let app = limited("app", 64 * M);
    let child = begin(&["app", "--headroom", "20M"]);
    after(700);
    signal(&child, Signal::INT);
    let output = child.wait_with_output().expect("memctl ends");
    assert_eq!(output.status.signal(), Some(Signal::INT.as_raw()));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("\nwatched for ") && stdout.contains("CGROUP  REQUESTED"), "{stdout}");
    drop(app);
}

fn a_cgroup_that_goes() {
    let app = limited("app", 64 * M);
    let child = begin(&["app", "--headroom", "20M", "--json", "--duration", "9s"]);
    after(1500);
    std::fs::remove_dir(app.path()).expect("remove it");
    after(2500);
    // The same name, but another cgroup: watched as well, after a grace period.
    std::fs::create_dir(app.path()).expect("make it anew");
    app.write("memory.max", &(64 * M).to_string());
    let output = child.wait_with_output().expect("memctl ends");
    assert_eq!(output.status.code(), Some(0));
    let events = parsed(&String::from_utf8_lossy(&output.stdout));
    assert_eq!((of(&events, "start").len(), of(&events, "gone").len()), (2, 1), "{events:?}");
    let gone: Vec<_> = of(&events, "summary").iter().map(|one| one["gone"].clone()).collect();
    assert_eq!(gone, [true, false], "{events:?}");
    // The summary of the first one precedes the start of the second.
    let summary = events.iter().position(|one| one["event"] == "summary");
    let start = events.iter().rposition(|one| one["event"] == "start");
    assert!(summary < start, "{events:?}");
    assert_eq!(of(&events, "end")[0]["ended_earlier"], 1, "{events:?}");
}

fn cgroups_that_come() {
    let batch = Cgroup::new("batch");
    let one = batch.child("one");
    one.write("memory.max", &(64 * M).to_string());
    let skipped = batch.child("skipped");
    skipped.write("memory.max", &(64 * M).to_string());
    // Only the one below system.slice is spared.
    let another = batch.child("sshd.service");
    another.write("memory.max", &(64 * M).to_string());
    let child =
        begin(&["batch/*", "--headroom", "20M", "--exclude", "batch/skip*", "--json", "--duration", "12s"]);
    after(1000);
    let two = batch.child("two");
    two.write("memory.max", &(64 * M).to_string());
    two.uses(&Work::File(60 * M));
    let output = child.wait_with_output().expect("memctl ends");
    let events = parsed(&String::from_utf8_lossy(&output.stdout));
    let started: Vec<_> = of(&events, "start").iter().map(|one| one["cgroup"].clone()).collect();
    assert_eq!(started, ["/batch/one", "/batch/sshd.service", "/batch/two"], "{events:?}");
    assert!(of(&events, "hold").iter().any(|hold| hold["guard"] == "grace"), "{events:?}");
    assert!(two.current() <= 44 * M, "{}: {events:?}", two.current());
}

fn nothing_to_be_had_is_said_once() {
    let app = limited("app", 64 * M);
    app.uses(&Work::Locked(50 * M));
    let events = events(&["app", "--headroom", "30M", "--type", "all", "--duration", "6s"]);
    let holds = of(&events, "hold");
    assert_eq!((holds.len(), &holds[0]["guard"]), (1, &"exhausted".into()), "{events:?}");
    let chunks = number(of(&events, "summary")[0], "chunks");
    assert!(chunks <= 12, "it waits longer each time: {chunks}");
}

fn outrun_it_says_what_was_needed() {
    let app = limited("app", 64 * M);
    app.uses(&Work::File(30 * M));
    let child = begin(&["app", "--headroom", "4M", "--json"]);
    after(1500);
    // A stopped memctl can't be fast enough.
    signal(&child, Signal::STOP);
    app.uses(&Work::File(120 * M));
    signal(&child, Signal::CONT);
    after(2500);
    signal(&child, Signal::TERM);
    let output = child.wait_with_output().expect("memctl ends");
    let events = parsed(&String::from_utf8_lossy(&output.stdout));
    let outrun = of(&events, "outrun");
    assert!(!outrun.is_empty(), "{events:?}");
    let needed = outrun.iter().map(|one| number(one, "needed_bytes")).max().unwrap_or(0) as u64;
    assert!(needed > 4 * M, "{events:?}");
}

/// The old lists of active and inactive pages (6.1) can't distinguish hot memory from a stream.
fn hot_memory_pulls_the_brake() {
    let app = limited("app", 128 * M);
    app.uses(&Work::Mapped(110 * M));
    let events = events(&["app", "--headroom", "60M", "--duration", "14s"]);
    let holds = of(&events, "hold");
    let held: Vec<_> = holds.iter().map(|hold| hold["guard"].clone()).collect();
    assert!(
        held.iter().any(|guard| guard == "refaults"),
        "what is in use isn't pushed against for ever: {events:?}"
    );
}

/// Below the limit there is little but memory in use, and a stream arrives at it: a trial of the
/// brake holds although the limit is met, which nothing else does for longer than a moment.
fn reclaim_that_takes_what_is_in_use_is_left_to_the_tasks() {
    let app = limited("app", 128 * M);
    app.uses(&Work::Mapped(112 * M));
    app.uses(&Work::Trickle(600 * M));
    let child = begin(&["app", "--headroom", "10%", "--json"]);
    let counters = || (Instant::now(), app.stat("pgsteal_direct") * 4096, app.stolen());
    let mut first = counters();
    until("a hold beside a limit that is met", || {
        let last = counters();
        if last.2 > first.2 {
            first = last;
        }
        last.0 - first.0 > Duration::from_secs(2) && last.1 - first.1 > 16 * M
    });
    let events = ended(child);
    assert!(of(&events, "hold").iter().any(|hold| hold["guard"] == "refaults"), "{events:?}");
}

fn a_file_that_fits_is_left_alone() {
    let app = limited("app", 128 * M);
    app.uses(&Work::Stream(100 * M));
    let events = events(&["app", "--headroom", "60M", "--duration", "14s"]);
    let holds = of(&events, "hold");
    assert!(holds.iter().any(|hold| hold["guard"] == "refaults"), "it would stay in memory: {events:?}");
    assert!(app.read("memory.events").contains("\nmax 0\n"), "{}", app.read("memory.events"));
}

fn its_own_memory_is_locked_and_little() {
    let app = limited("app", 64 * M);
    app.uses(&Work::File(50 * M));
    let child = begin(&["app", "--headroom", "30M", "--json"]);
    until("the first reclaim", || app.stolen() > 0);
    let [locked, resident] = ["VmLck", "VmRSS"].map(|key| status_kib(child.id(), key));
    assert!(locked > 0 && resident < 6 << 10, "{locked} KiB locked, {resident} resident");
    signal(&child, Signal::TERM);
    assert!(child.wait_with_output().expect("memctl ends").status.success());
}

fn another_memctl_is_waited_for() {
    let app = limited("app", 64 * M);
    app.uses(&Work::File(60 * M));
    let dir = std::fs::File::open(app.path()).expect("open the cgroup");
    rustix::fs::flock(&dir, rustix::fs::FlockOperation::LockExclusive).expect("lock it");
    let before = app.current();
    let short = events(&["app", "--headroom", "20M", "--duration", "1s"]);
    app.assert_untouched(before);
    let guards: Vec<_> = of(&short, "hold").iter().map(|hold| hold["guard"].clone()).collect();
    assert_eq!(guards, ["lock"], "{short:?}");
    // Not for ever: any process could hold the lock.
    let long = events(&["app", "--headroom", "20M", "--duration", "4s"]);
    assert!(app.current() <= 46 * M, "{}: {long:?}", app.current());
    app.uses(&Work::File(15 * M));
    let unheld = events(&["app", "--headroom", "20M", "--duration", "1s", "--no-lock"]);
    assert!(app.current() <= 46 * M && of(&unheld, "hold").is_empty(), "{}: {unheld:?}", app.current());
    drop(dir);
    // And no lock is left from the earlier runs.
    let dir = std::fs::File::open(app.path()).expect("open the cgroup");
    rustix::fs::flock(&dir, rustix::fs::FlockOperation::NonBlockingLockExclusive).expect("it is free");
}

fn a_limit_above_counts_only_if_asked_for() {
    let slice = limited("slice", 64 * M);
    let app = slice.child("app");
    app.uses(&Work::File(58 * M));
    let line = "memctl: /slice/app: no limit: memory.high and memory.max are both max";
    assert_fails(&["watch", "slice/app", "--headroom", "20M"], 1, line);
    app.write("memory.max", &(60 * M).to_string());
    let before = app.current();
    let own = events(&["slice/app", "--headroom", "1M", "--duration", "1s"]);
    app.assert_untouched(before);
    assert!(of(&own, "reclaim").is_empty(), "{own:?}");
    let above = events(&["slice/app", "--headroom", "20M", "--ancestors", "--duration", "3s"]);
    assert!(slice.current() <= 46 * M, "{}: {above:?}", slice.current());
    app.write("memory.max", "max");
    app.uses(&Work::File(15 * M));
    let above = events(&["slice/app", "--headroom", "20M", "--ancestors", "--duration", "3s"]);
    let start = of(&above, "start")[0];
    assert_eq!((&start["limit_cgroup"], number(start, "limit_bytes")), (&"/slice".into(), 64 * M as i64));
    assert!(slice.current() <= 46 * M, "{}: {above:?}", slice.current());
}

fn what_is_missing_above_is_shared() {
    let slice = limited("slice", 160 * M);
    let (large, small, idle) = (slice.child("large"), slice.child("small"), slice.child("idle"));
    large.uses(&Work::File(90 * M));
    small.uses(&Work::File(30 * M));
    idle.uses(&Work::Locked(20 * M));
    // 40M should be free, and 20M are: the missing bytes come from both at a ratio of 3 to 1.
    let words = ["slice/*", "--headroom", "40M", "--ancestors", "--type", "all", "--duration", "6s"];
    let events = events(&words);
    assert!(slice.current() <= 121 * M, "{}: {events:?}", slice.current());
    assert!(slice.current() >= 100 * M, "each gives its part, not the whole: {events:?}");
    // Measured by the requests: the kernel may reclaim more than that.
    let asked = |of: &Cgroup| -> i64 {
        let its = events.iter().filter(|event| event["cgroup"] == format!("/{}", of.name()));
        its.filter(|event| event["event"] == "reclaim").map(|event| number(event, "requested_bytes")).sum()
    };
    let (of_large, of_small) = (asked(&large), asked(&small));
    let times = of_large as f64 / of_small.max(1) as f64;
    assert!((1.8..=4.5).contains(&times), "{of_large} and {of_small}: {events:?}");
}

fn each_action_is_told() {
    let app = limited("app", 64 * M);
    app.uses(&Work::File(60 * M));
    let ran = run(&["watch", "app", "--headroom", "20M", "--duration", "1s", "--json", "-v"]);
    assert!(ran.stderr.contains("s  /app  requested ") && ran.stderr.contains(", done\n"), "{}", ran.stderr);
    assert!(!ran.stdout.contains("action"), "{}", ran.stdout);
}

fn weighed_as_asked() {
    let app = limited("app", 128 * M);
    app.uses(&Work::Anon(60 * M)).uses(&Work::File(50 * M));
    let anon = app.stat("anon");
    let _ = events(&["app", "--headroom", "50M", "--swappiness", "0", "--duration", "3s"]);
    assert!(app.current() <= 80 * M, "{}", app.current());
    assert!(app.stat("anon") + M >= anon, "{} of {anon}", app.stat("anon"));
    let _ = events(&[
        "app",
        "--headroom",
        "70M",
        "--swappiness",
        "200",
        "--swap-writes",
        "max",
        "--duration",
        "4s",
    ]);
    assert!(app.stat("anon") + 10 * M <= anon, "{} of {anon}", app.stat("anon"));
    assert_fails(
        &["watch", "app", "--headroom", "50M", "--swappiness", "0", "--type", "file"],
        2,
        "memctl: the argument '--swappiness <N>' cannot be used with '--type <TYPE>'",
    );
}

fn lines_in_a_pipe() {
    let app = limited("app", 64 * M);
    app.uses(&Work::File(60 * M));
    let ran = run(&["watch", "app", "--headroom", "20M", "--duration", "2s"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert!(
        lines[0].contains("s  /app  watched: ")
            && lines[0].contains("of 64 MiB used (memory.max), keeping 20 MiB"),
        "{lines:?}"
    );
    assert!(lines[1].contains("s  /app  reclaimed ") && lines[1].contains(" free"), "{lines:?}");
    assert!(ran.stdout.contains("\nCGROUP  REQUESTED  RECLAIMED"), "{}", ran.stdout);
    assert!(!ran.stdout.contains('\u{1b}'), "{}", ran.stdout);
    assert_eq!(run(&["watch", "app", "--headroom", "20M", "--duration", "1s", "-q"]).stdout, "");
}

fn page_cache_alone() {
    let app = limited("app", 128 * M);
    app.uses(&Work::Anon(60 * M)).uses(&Work::File(50 * M));
    let anon = app.stat("anon");
    let _ = events(&["app", "--headroom", "50M", "--type", "file", "--duration", "3s"]);
    assert!(app.current() <= 80 * M, "{}", app.current());
    assert!(app.stat("anon") + M >= anon, "{} of {anon}", app.stat("anon"));
}

fn page_cache_alone_can_not_be_had() {
    let app = limited("app", 64 * M);
    app.uses(&Work::File(50 * M));
    let before = app.current();
    let line =
        "memctl: --type file: this kernel lacks swappiness= in memory.reclaim, which requires Linux 6.11";
    assert_fails(&["watch", "app", "--headroom", "30M", "--type", "file"], 1, line);
    app.assert_untouched(before);
}
