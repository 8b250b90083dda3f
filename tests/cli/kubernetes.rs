//! memctl as a `DaemonSet`: its manifests, in a guest with podman, containerd and runc. There is no
//! kubelet: podman plays the pod, and systemd lays out the cgroups of other pods as for the kubelet.

use std::time::{Duration, Instant};

use crate::environment::{Case, list};
use crate::harness::{M, number, parse};
use crate::watch::{of, until};

mod container;
mod pod;
mod qos;
mod task;

use container::{Container, Driver};
use pod::{Manifests, Pod};
use qos::protection_by_the_kubelet_holds;
use task::Task;

pub fn cases() -> Vec<Case> {
    list![
        "pods" =>
            containers_are_kept_below_their_headroom,
            a_config_map_is_followed,
            with_the_hierarchy_elsewhere_and_killed_it_leaves_nothing,
            by_systemds_names_with_containerd_and_runc,
            by_cgroupfs_names_with_containerd_and_runc,
            without_the_hosts_root_it_is_refused;
        // On one kernel: it takes long.
        "guest prompt" => protection_by_the_kubelet_holds
    ]
}

/// Effective capabilities of the manifests: `CAP_DAC_OVERRIDE`, `CAP_IPC_LOCK` and
/// `CAP_SYS_RESOURCE`.
const CAPABILITIES: &str = "CapEff:\t0000000001004002\n";

/// The shipped rules keep a tenth of the limit free.
fn containers_are_kept_below_their_headroom() {
    const LIMIT: u64 = 100 * M;
    let below = |current| current <= LIMIT - LIMIT / 10;
    let first = Container::start(Driver::Systemd, 1, LIMIT, LIMIT - 2 * M);
    let system = Container::start_in("kube-system", Driver::Cgroupfs, 3, LIMIT, LIMIT - 2 * M);
    let pod = Pod::play(&Manifests::read());
    let status = pod.proc("status");
    for line in [CAPABILITIES, "Seccomp:\t2\n", "NoNewPrivs:\t1\n", "Uid:\t0\t0\t0\t0\n"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    assert!(!status.contains("VmLck:\t       0 kB"), "its memory is locked: {status}");
    let later = Container::start(Driver::Cgroupfs, 2, LIMIT, LIMIT - 2 * M);
    first.await_usage("below its headroom", below);
    later.await_usage("below its headroom", below);
    // What a limit that is lowered in place needs, by each name of the container.
    for (word, to) in [("pod:batch/web-1/app", 60), (&*first.word(), 40)] {
        let ran = pod.exec(&["reclaim", "--to", &format!("{to}M"), word, "--json"]);
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{word}: {}", ran.stdout);
        let told = parse(&ran.stdout);
        assert_eq!((&told["cgroup"], &told["pod"]), (&first.name().into(), &"web-1".into()), "{told}");
        assert!(first.current() <= (to + 2) * M, "{word}: {}", first.current());
    }
    assert!(pod.get("/healthz").starts_with("HTTP/1.1 200 "));
    let began = Instant::now();
    assert_eq!(pod.stop(), "0");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let events = pod.events();
    for container in [&first, &later] {
        let summaries = of(&events, "summary");
        let summary = summaries.iter().find(|summary| summary["cgroup"] == container.name());
        let summary = summary.unwrap_or_else(|| panic!("{}: {events:?}", container.name()));
        assert!(number(summary, "reclaimed_bytes") > 0, "{summary}");
        assert_eq!((&summary["namespace"], &summary["container"]), (&"batch".into(), &"app".into()));
    }
    assert!(!of(&events, "start").iter().any(|start| start["cgroup"] == system.name()), "{events:?}");
    assert!(system.current() > LIMIT - 3 * M, "{}", system.current());
    assert_eq!(of(&events, "end").len(), 1, "{events:?}");
}

fn a_config_map_is_followed() {
    let rules = |keep: &str| format!("[[rule]]\nmatch = 'kubepods.slice/**'\nkeep = '{keep}'\n");
    let reload = |pod: &Pod| {
        let metrics = pod.get("/metrics");
        let line =
            metrics.lines().find_map(|line| line.strip_prefix("memctl_config_last_reload_successful "));
        line.unwrap_or_else(|| panic!("{metrics}")).to_owned()
    };
    let container = Container::start(Driver::Systemd, 1, 100 * M, 90 * M);
    let pod = Pod::play(&Manifests::read().with_rules(&rules("70M")));
    pod.replace_rules(&rules("70M"));
    container.await_usage("kept", |current| current <= 71 * M);
    pod.replace_rules(&rules("50M"));
    container.await_usage("kept by the new rules", |current| current <= 51 * M);
    assert_eq!(reload(&pod), "1");
    pod.replace_rules("[[rule]]\nmatch = 'kubepods.slice/**'\nkep = '30M'\n");
    until("a failure to read them", || reload(&pod) == "0");
    container.reads(20 * M);
    container.await_usage("kept by the old rules", |current| current <= 51 * M);
    assert_eq!(pod.stop(), "0");
    let (_, errors) = pod.logs();
    assert!(errors.contains("memctl: /etc/memctl/watch.toml:3:1: unknown key \"kep\""), "{errors}");
}

/// Both mounts are there: the runtime's own at /sys/fs/cgroup, which shows the pod alone.
fn with_the_hierarchy_elsewhere_and_killed_it_leaves_nothing() {
    let container = Container::start(Driver::Systemd, 1, 100 * M, 90 * M);
    let before = container.settings();
    let rules = "[[rule]]\nmatch = '**'\nkeep = '30M'\n";
    let manifests = Manifests::read().with_rules(rules);
    let pod = Pod::play(&manifests.with("mountPath: /sys/fs/cgroup\n", "mountPath: /host/cgroup\n"));
    assert!(pod.proc("status").contains(CAPABILITIES));
    let own = pod.proc("cgroup").trim().trim_start_matches("0::").to_owned();
    container.await_usage("kept", |current| current <= 31 * M);
    pod.kill();
    assert_eq!(container.settings(), before);
    // Nothing keeps it down any longer.
    container.reads(80 * M);
    assert!(container.current() > 70 * M, "{}", container.current());
    let events = pod.events();
    let watched: Vec<_> = of(&events, "start").iter().filter_map(|start| start["cgroup"].as_str()).collect();
    assert!(watched.contains(&&*container.name()) && !watched.contains(&&*own), "{own}: {watched:?}");
}

fn by_systemds_names_with_containerd_and_runc() {
    with_containerd_and_runc(Driver::Systemd, "kubepods.slice/**");
}

fn by_cgroupfs_names_with_containerd_and_runc() {
    with_containerd_and_runc(Driver::Cgroupfs, "kubepods/burstable/*/*");
}

#[track_caller]
fn with_containerd_and_runc(driver: Driver, glob: &str) {
    let first = Container::start(driver, 1, 100 * M, 90 * M);
    let task = Task::watch(driver, &[glob, "--keep", "30M"]);
    let status = task.proc("status");
    for line in [CAPABILITIES, "Seccomp:\t2\n", "NoNewPrivs:\t1\n"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    let later = Container::start(driver, 2, 100 * M, 90 * M);
    for container in [&first, &later] {
        container.await_usage("kept", |current| current <= 31 * M);
    }
    assert_eq!(task.stolen(), 0, "its own pod");
    let own = task.name();
    let events = task.stop();
    let watched: Vec<_> = of(&events, "start").iter().filter_map(|start| start["cgroup"].as_str()).collect();
    assert!(watched.contains(&&*later.name()) && !watched.contains(&&*own), "{own}: {watched:?}");
    let pod = own.rsplit_once('/').map_or("", |(pod, _)| pod);
    let is_own = |name: &&&str| name.starts_with(pod) || pod.starts_with(**name);
    assert_eq!(watched.iter().find(is_own), None, "neither its pod nor what that is in");
    assert_eq!(of(&events, "end").len(), 1, "{events:?}");
}

/// Without the rights of the host's root nothing is possible, whatever the manifests say otherwise.
fn without_the_hosts_root_it_is_refused() {
    let container = Container::start(Driver::Systemd, 1, 100 * M, 90 * M);
    let before = container.current();
    for (option, hint) in [
        ("--user=65534", "run as root (in a pod: runAsUser: 0)"),
        (
            "--uidmap=0:100000:65536",
            "run as root outside of this user namespace (in a pod: without hostUsers: false)",
        ),
    ] {
        let ran = Pod::run(&[option], &["reclaim", &container.name(), "10M"]);
        let line = format!("memctl: /sys/fs/cgroup{}/memory.reclaim: permission denied", container.name());
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""), "{option}: {}", ran.stderr);
        assert_eq!(ran.stderr, format!("{line}\nhint: {hint}\n"), "{option}");
    }
    assert!(container.current() + M > before, "{} of {before}", container.current());
}
