//! Overhead of `memctl watch` while it runs, and the cgroup that is charged for it.

use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, assert_fails, number};
use crate::watch::{after, begin, events, limited, of, parsed, signal, until};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest reclaim" =>
            whoever_is_joined_pays,
            no_more_than_a_share_of_a_cpu,
            looking_and_reclaiming_allocate_nothing,
            a_stall_wakes_it_near_the_limit_only,
            writes_that_do_not_come_back_are_told_of
    ]
}

fn whoever_is_joined_pays() {
    let app = limited("app", 64 * M);
    app.uses(&Work::File(60 * M));
    let child = begin(&["app", "--headroom", "20M", "--join", "app", "--json", "--duration", "12s"]);
    let inside = || app.read("cgroup.procs").lines().any(|pid| pid == child.id().to_string());
    until("memctl inside", inside);
    until("the first reclaim", || app.stolen() > 0);
    // The application ends: memctl doesn't keep its cgroup alive.
    app.rest();
    until("memctl outside", || !inside());
    std::fs::remove_dir(app.path()).expect("nobody is inside");
    let output = child.wait_with_output().expect("memctl ends");
    let events = parsed(&String::from_utf8_lossy(&output.stdout));
    assert_eq!((of(&events, "left").len(), of(&events, "gone").len()), (1, 1), "{events:?}");
    let slice = limited("slice", 64 * M);
    let _job = slice.child("job");
    let line = "memctl: /slice: can't join: a cgroup with controllers in cgroup.subtree_control can't contain processes";
    assert_fails(&["watch", "slice", "--headroom", "20M", "--join", "slice"], 1, line);
}

/// Runs the engine within this process, with an allocator that counts.
fn looking_and_reclaiming_allocate_nothing() {
    use memctl::watch::config::rule;
    use memctl::watch::{members, options};
    let (one, two) = (limited("one", 64 * M), limited("two", 64 * M));
    one.uses(&Work::Stream(200 * M));
    two.uses(&Work::Anon(20 * M));
    // Independent of the emulated disk: anonymous memory that is allocated and freed is fast.
    two.uses(&Work::Sawtooth(40 * M));
    let wanted = rule::RuleSpec {
        headroom: Some("20M".parse().expect("a size")),
        max_pressure: Some("90%".parse().expect("a share")),
        ..rule::RuleSpec::default()
    };
    let rule = std::rc::Rc::new(wanted.rule().expect("it makes sense"));
    let mut members = members::Members::new(false).expect("it can watch");
    for name in ["one", "two"] {
        let located = std::sync::Arc::new(memctl::select::locate(name).expect("it is there"));
        members.add(located, rule.clone()).expect("it has a limit");
    }
    // A cgroup's account is allocated at its first action.
    let (acted, settled) =
        (std::cell::RefCell::new(std::collections::BTreeSet::new()), std::cell::Cell::new(None));
    let mut emit = |event: memctl::watch::event::Event<'_>| {
        if settled.get().is_none() && matches!(event.what, memctl::watch::event::EventKind::Acted(_)) {
            acted.borrow_mut().insert(event.cgroup.to_string());
            settled.set((acted.borrow().len() == 2).then(Instant::now));
        }
    };
    // Allocations in each interval of two seconds. In one of them each thread may learn the layout
    // of memory.stat, once.
    let since = || settled.get().map_or(0, |at| at.elapsed().as_secs());
    let intervals = std::cell::RefCell::new(Vec::with_capacity(8));
    let stop = || {
        let begun = (since() / 2) as usize;
        if intervals.borrow().len() < begun {
            intervals.borrow_mut().push(crate::allocations::counted());
        }
        crate::allocations::count(begun > 0);
        begun >= 6
    };
    let ended = members.watch(options::WatchOptions {
        workers: 2,
        duration: Some(Duration::from_secs(60)),
        each_action: true,
        ..options::WatchOptions::new(&stop, &mut emit)
    });
    let (counts, origins): (Vec<_>, Vec<_>) = intervals.into_inner().into_iter().skip(1).unzip();
    let chunks = ended.expect("it can watch").each.iter().map(|one| one.total.writes).sum::<u32>();
    assert!(chunks > 10, "it had much to do: {chunks}");
    let origins = || origins.iter().map(|traces| traces.join("\n")).collect::<Vec<_>>().join("\n\n");
    assert!(counts.contains(&0), "allocations in each interval: {counts:?}: {}", origins());
}

fn no_more_than_a_share_of_a_cpu() {
    let app = limited("app", 64 * M);
    app.uses(&Work::Stream(200 * M));
    let watch = ["app", "--headroom", "20M", "--duration", "8s"];
    let reclaimed =
        |events: &[serde_json::Value]| number(events.last().expect("the end"), "total_reclaimed_bytes");
    // CPU time of a guest contains time in which it didn't run: an amount would be a timed test.
    let free = reclaimed(&events(&watch));
    let bounded = events(&[&watch[..], &["--cpu", "1%"]].concat());
    let all = || bounded.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(of(&bounded, "hold").iter().any(|hold| hold["guard"] == "cpu"), "{}", all());
    assert!(reclaimed(&bounded) < free / 2, "{free} bytes without a bound: {bounded:?}");
}

/// Returns the number of kernel threads for triggers: one for each trigger on a cgroup's pressure.
pub fn triggers() -> usize {
    let comm = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("comm"));
    let all = std::fs::read_dir("/proc").expect("list /proc").flatten();
    all.filter_map(|entry| comm(entry).ok()).filter(|comm| comm.starts_with("psimon")).count()
}

fn a_stall_wakes_it_near_the_limit_only() {
    let app = limited("app", 128 * M);
    app.uses(&Work::File(20 * M));
    assert_eq!(triggers(), 0);
    let child = begin(&["app", "--headroom", "20M"]);
    after(1500);
    assert_eq!(triggers(), 0, "far from the limit there is none");
    app.uses(&Work::File(75 * M));
    until("a trigger", || triggers() == 1);
    signal(&child, Signal::TERM);
    assert!(child.wait_with_output().expect("memctl ends").status.success());
    until("the end of the trigger", || triggers() == 0);
}

/// Holds each thread that a process starts from now on before it does anything, as a hung kernel
/// would hold it in its first write.
struct Held {
    process: nix::unistd::Pid,
    threads: Vec<nix::unistd::Pid>,
}

impl Held {
    fn those_of(child: &Child) -> Self {
        use nix::sys::ptrace;
        let process = nix::unistd::Pid::from_raw(child.id().try_into().expect("an id"));
        ptrace::seize(process, ptrace::Options::PTRACE_O_TRACECLONE).expect("trace memctl");
        Self { process, threads: Vec::new() }
    }

    /// Searches for more of them, and returns their number so far.
    fn count(&mut self) -> usize {
        use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
        use nix::sys::{ptrace, signal::Signal};
        let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
        loop {
            match waitpid(nix::unistd::Pid::from_raw(-1), Some(flags)).expect("wait for memctl") {
                WaitStatus::PtraceEvent(process, Signal::SIGTRAP, event)
                    if process == self.process && event == ptrace::Event::PTRACE_EVENT_CLONE as i32 =>
                {
                    ptrace::cont(process, None).expect("let the others go on");
                }
                WaitStatus::PtraceEvent(thread, ..) => self.threads.push(thread),
                WaitStatus::StillAlive => return self.threads.len(),
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        use nix::sys::ptrace;
        // Only a stopped thread can be released.
        let _ = ptrace::interrupt(self.process);
        let _ = nix::sys::wait::waitpid(self.process, Some(nix::sys::wait::WaitPidFlag::__WALL));
        for &thread in std::iter::once(&self.process).chain(&self.threads) {
            let _ = ptrace::detach(thread, None);
        }
    }
}

fn writes_that_do_not_come_back_are_told_of() {
    let parent = Cgroup::new("parent");
    let apps: Vec<_> = (0..6).map(|number| parent.child(&format!("app-{number}"))).collect();
    for app in &apps {
        app.write("memory.max", &(32 * M).to_string());
    }
    // By name: a glob would search in a thread now and then, which is held as well.
    let names: Vec<_> = (0..6).map(|number| format!("parent/app-{number}")).collect();
    let words = names.iter().map(String::as_str).chain(["--headroom", "10M", "--json"]);
    let child = begin(&words.collect::<Vec<_>>());
    // The first threads start with the first job.
    after(1500);
    let mut held = Held::those_of(&child);
    for app in &apps {
        app.uses(&Work::File(28 * M));
    }
    until("all workers at it", || held.count() == 4);
    after(7000);
    // Further workers stay away from cgroups below the same parent.
    assert_eq!(held.count(), 4, "no more than that");
    assert!(apps.iter().all(|app| app.stolen() == 0), "and none got anything done");
    drop(held);
    until("all of them served", || apps.iter().all(|app| app.current() < 24 * M));
    signal(&child, Signal::TERM);
    let output = child.wait_with_output().expect("memctl ends");
    let events = parsed(&String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success() && of(&events, "blocked").len() == 1, "{events:?}");
}
