//! The kernel's own tests of `memory.reclaim` (in its selftests, `test_memcontrol.c`:
//! `test_memcg_reclaim` and the reclaim in `test_memcg_protection`), with memctl in place of the
//! raw write.

use std::time::{Duration, Instant};

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, run};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list!["guest reclaim" => reclaim; "guest fresh-protection" => protection_min, protection_low; "guest reclaim !fresh-protection" => stale_protection_is_named]
}

/// Returns whether two values are close by the kernel's measure: `percent` of the sum.
fn values_close(a: u64, b: u64, percent: u64) -> bool {
    a.abs_diff(b) <= (a + b) / 100 * percent
}

/// Reclaims down to `goal`, in five attempts, each for the bytes missing then: a shortfall may be
/// retried, other errors may not, and success with the goal unmet is a failure.
fn reclaim_until(cgroup: &Cgroup, goal: u64) -> bool {
    for _ in 0..5 {
        let current = cgroup.current();
        if current < goal || values_close(current, goal, 3) {
            return true;
        }
        let ran = run(&["reclaim", cgroup.name(), &(current - goal).to_string(), "-q"]);
        match ran.status {
            Some(0) => {
                let current = cgroup.current();
                return current < goal || values_close(current, goal, 3);
            }
            Some(3) => {}
            other => panic!("{other:?}: {}", ran.stderr),
        }
    }
    false
}

fn reclaim() {
    let cgroup = Cgroup::new("memcg_test");
    assert_eq!(cgroup.current(), 0);
    cgroup.uses(&Work::File(50 * M)).uses(&Work::Anon(50 * M));
    let expected = 100 * M;
    let until = Instant::now() + Duration::from_secs(5);
    while !values_close(cgroup.current(), expected, 10) {
        assert!(Instant::now() < until, "it never came to use {expected}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(reclaim_until(&cgroup, 30 * M), "{} left", cgroup.current());
}

/// Creates the tree of the kernel's test: four children, three protected to different degrees, and
/// pressure from a sibling.
fn protection(file: &str) -> (Cgroup, Cgroup, Vec<Cgroup>) {
    let grandparent = Cgroup::new("parent_0");
    grandparent.write("memory.max", "200M");
    grandparent.write("memory.swap.max", "0");
    let parent = grandparent.child("parent_1");
    let hog = grandparent.child("parent_2");
    let children: Vec<_> = [("child_0", "75M"), ("child_1", "25M"), ("child_2", "0"), ("child_3", "500M")]
        .iter()
        .map(|(name, protection)| {
            let child = parent.child(name);
            child.write(file, protection);
            child
        })
        .collect();
    parent.write(file, "50M");
    for child in children.iter().take(3) {
        child.uses(&Work::File(50 * M));
    }
    hog.uses(&Work::Anon(148 * M));
    hog.rest();
    // More than there is without the protected memory: min holds, low is broken as a last resort.
    if file == "memory.low" {
        hog.uses(&Work::Anon(170 * M));
        hog.rest();
    }
    (grandparent, parent, children)
}

fn protection_min() {
    let (_grandparent, parent, children) = protection("memory.min");
    assert!(children[0].current() > 20 * M, "the kernel protected {}", children[0].current());
    assert!(reclaim_until(&children[0], 10 * M), "its own protection doesn't count");
    drop((children, parent));
}

/// Before 6.2 the kernel uses its last computed value of the target's own protection, and the
/// reclaim falls short.
fn stale_protection_is_named() {
    let (_grandparent, parent, children) = protection("memory.min");
    let ran = run(&["reclaim", children[0].name(), "max"]);
    assert!(ran.stdout.contains("under the cgroup's own memory.min"), "{}", ran.stdout);
    drop((children, parent));
}

fn protection_low() {
    let (_grandparent, parent, children) = protection("memory.low");
    assert!(reclaim_until(&children[0], 10 * M), "its own protection doesn't count");
    for (child, protected) in children.iter().zip([true, true, false]) {
        let events = child.read("memory.events");
        let low: u64 =
            events.lines().find_map(|l| l.strip_prefix("low ")).and_then(|n| n.parse().ok()).expect("low");
        assert!(!protected || low > 0, "{}: {events}", child.name());
        assert!(events.contains("oom 0\n"), "{events}");
    }
    drop((children, parent));
}
