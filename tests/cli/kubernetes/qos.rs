//! Protection and limits that the kubelet sets by the class of a pod, as bare values: those of
//! `TieredReservation` (1.36 on), of the gate `MemoryQoS` up to 1.35, and of `LimitedSwap`.

use std::time::Duration;

use crate::harness::{Cgroup, M};
use crate::watch::{Events, begin, ended, of};
use crate::workload::{Work, Workload};

/// Memory that each container uses but for the best-effort one, and limit of each, in bytes.
const USED: u64 = 30 * M;
const LIMIT: u64 = 32 * M;

/// Memory that a Burstable container requests, in bytes.
const REQUEST: u64 = 15 * M;

const RULES: &str = "
[[rule]]
match = 'kubepods/guaranteed/app'
headroom = '10M'
[[rule]]
match = ['kubepods/low/app', 'kubepods/min/app']
keep = '5M'
[[rule]]
match = 'kubepods/best/app'
pressure = '0.1%'
reuse = '5s'
";

/// Creates a pod and a container in it; the kubelet sets `file` for both.
fn container(pods: &Cgroup, pod: &str, file: &str, value: u64) -> [Cgroup; 2] {
    let pod = pods.child(pod);
    let app = pod.child("app");
    for cgroup in [&pod, &app] {
        cgroup.write(file, &value.to_string());
    }
    [pod, app]
}

fn of_cgroup<'a>(all: &'a Events, event: &str, cgroup: &Cgroup) -> Vec<&'a serde_json::Value> {
    let name = format!("/{}", cgroup.name());
    of(all, event).into_iter().filter(|event| event["cgroup"] == *name).collect()
}

pub fn protection_by_the_kubelet_holds() {
    let pods = Cgroup::new("kubepods");
    pods.write("memory.min", &(LIMIT + REQUEST).to_string());
    pods.write("memory.low", &REQUEST.to_string());
    let [_pod, guaranteed] = container(&pods, "guaranteed", "memory.min", LIMIT);
    guaranteed.write("memory.max", &LIMIT.to_string());
    // As TieredReservation has it, and as it was up to 1.35.
    let [_low_pod, low] = container(&pods, "low", "memory.low", REQUEST);
    let [_min_pod, min] = container(&pods, "min", "memory.min", REQUEST);
    let [_best_pod, best] = container(&pods, "best", "memory.swap.max", 0);
    let mut work = Vec::new();
    for cgroup in [&guaranteed, &low, &min] {
        work.push(Workload::start(&Work::File(USED), cgroup.path()));
    }
    for kind in [Work::Anon(30 * M), Work::File(30 * M), Work::Mapped(8 * M)] {
        work.push(Workload::start(&kind, best.path()));
    }
    let before = guaranteed.current();
    let rules = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(rules.path(), RULES).expect("write the rules");
    let child = begin(&["--config", rules.path().to_str().expect("a path"), "--json"]);
    std::thread::sleep(Duration::from_secs(35));
    let all = ended(child);
    let guards = of_cgroup(&all, "hold", &guaranteed);
    assert!(guards.iter().any(|hold| hold["guard"] == "floor"), "{all:?}");
    assert!(of_cgroup(&all, "reclaim", &guaranteed).is_empty(), "{all:?}");
    guaranteed.assert_untouched(before);
    for cgroup in [&low, &min] {
        let current = cgroup.current();
        // On a busy machine, not all of it has left yet.
        assert!((REQUEST - 2 * M..REQUEST + 6 * M).contains(&current), "{}: {current}", cgroup.name());
    }
    // Without room in swap only page cache leaves, though the rest may be idle as well.
    assert!(best.stat("anon") > 29 * M && best.stat("file") < 20 * M, "{}", best.read("memory.stat"));
    for one in &work {
        // Not each kind has a file.
        let _ = std::fs::remove_file(one.file());
    }
    let summary = of_cgroup(&all, "summary", &best);
    assert_eq!(summary[0]["estimated_at_most"], true, "{all:?}");
}
