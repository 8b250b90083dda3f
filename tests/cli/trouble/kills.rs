//! A watch that is killed at any moment leaves nothing behind.

use std::fs::File;

use rustix::fs::{FlockOperation, flock};

use super::{Random, Watch, of, setting};
use crate::environment::{Case, list};
use crate::harness::{Cgroup, M};
use crate::watch::{after, until};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list!["guest prompt" => killed_at_any_moment_it_leaves_nothing]
}

/// Files that decide on the memory of a cgroup, and its processes.
const FILES: [&str; 6] =
    ["memory.high", "memory.max", "memory.min", "memory.low", "memory.swap.max", "cgroup.procs"];

/// Returns the contents of these files of each cgroup.
fn contents(cgroups: &[&Cgroup]) -> Vec<[String; FILES.len()]> {
    cgroups.iter().map(|cgroup| FILES.map(|file| cgroup.read(file))).collect()
}

#[track_caller]
fn nothing_is_left(cgroups: &[&Cgroup], before: &[[String; FILES.len()]], when: &str) {
    for cgroup in cgroups {
        let dir = File::open(cgroup.path()).expect("open the cgroup");
        let lock = flock(&dir, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(lock, Ok(()), "{when}: the lock of {}", cgroup.name());
    }
    assert_eq!(contents(cgroups), before, "{when}");
}

fn killed_at_any_moment_it_leaves_nothing() {
    let (kills, mut random) = (setting("MEMCTL_KILLS", 20), Random::seeded());
    let parent = Cgroup::new("killed");
    let apps: Vec<_> = (0..20).map(|number| parent.child(&format!("app-{number:02}"))).collect();
    let joined = Cgroup::new("joined");
    for (app, number) in apps.iter().zip(0..) {
        app.write("memory.max", &(24 * M).to_string());
        app.write("memory.low", &(M * (number % 3)).to_string());
        // Some are always at it.
        if number < 3 {
            app.uses(&Work::Stream(40 * M));
        } else if number < 8 {
            app.uses(&Work::File(16 * M));
        }
    }
    let all: Vec<_> = apps.iter().chain([&joined]).collect();
    let before = contents(&all);
    let modes: [&[&str]; 4] = [
        &["killed/*", "--headroom", "8M"],
        &["killed/*", "--keep", "12M"],
        &["killed/*", "--headroom", "8M", "--keep", "20M"],
        &["killed/*", "--keep", "12M", "--join", "joined"],
    ];
    let started = |watch: &Watch, count| of(&watch.events(), "start").len() >= count;
    let (mut early, mut has_started) = (0, true);
    for number in 1..=kills {
        let words = modes[(number % 4) as usize];
        let mut watch = Watch::begin(words);
        // Some are killed as they start; the next one must start all the same.
        if has_started && random.below(3) == 0 {
            after(random.below(400));
        } else {
            until("the first event after a kill", || started(&watch, 1));
            after(random.below(1200));
        }
        let when = format!("kill {number} of {kills}, {words:?}");
        watch.child.kill().expect("it is still running");
        watch.child.wait().expect("it is killed");
        has_started = started(&watch, 1);
        early += u64::from(!has_started);
        nothing_is_left(&all, &before, &when);
    }
    println!("{kills} kills, {early} of them before the first event");
    let watch = Watch::begin(modes[1]);
    until("all started again", || started(&watch, apps.len()));
    let kept = || apps.iter().skip(3).all(|app| app.current() <= 12 * M);
    until("all kept", kept);
    let (events, notes, _) = watch.terminated();
    assert_eq!((of(&events, "summary").len(), &*notes), (apps.len(), ""), "{events:?}");
    nothing_is_left(&all, &before, "at the end");
}
