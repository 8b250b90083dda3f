//! A NUMA node's own reclaim file: requests are met, by the node's own counters, read by this test.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::check::finding;
use crate::environment::{Case, list};
use crate::harness::{
    Cgroup, Finished, M, assert_close, assert_fails, memctl, number, parse, refused, report, run,
};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest node-reclaim" =>
            ten_megabytes_of_a_node,
            the_table_of_a_node,
            a_node_has_no_usage_to_measure_by,
            keys_of_a_node,
            a_node_among_cgroups_and_twice,
            a_total_with_a_node,
            a_node_foretold,
            below_the_threshold,
            the_slab_threshold_opens_it_too,
            a_dirty_page_does_not_count,
            protection_holds_on_a_node,
            a_busy_node_is_waited_for,
            the_lock_of_a_node,
            pressure_of_a_node_is_the_hosts,
            counted_for_the_host_where_the_node_does_not,
            a_node_is_for_root,
            nodes_are_completed,
            a_node_is_checked;
        "guest reclaim" => no_such_node, no_figures_of_nodes;
        "guest !node-reclaim" => a_kernel_that_is_too_old
    ]
}

fn directory() -> PathBuf {
    PathBuf::from("/sys/devices/system/node/node0")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(directory().join(file)).expect("read a file of the node")
}

/// Returns a counter of the node's vmstat.
fn counter(key: &str) -> u64 {
    // Each CPU keeps part of its counts for up to a second; this read folds them all.
    std::fs::read("/proc/sys/vm/stat_refresh").expect("refresh the counters");
    let text = read("vmstat");
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{key} in {text}")).parse().expect("a number")
}

/// Returns the bytes that proactive writers reclaimed from the node.
fn stolen() -> u64 {
    (counter("pgsteal_proactive") - counter("pgdemote_proactive")) * 4096
}

/// Returns the size of the LRU lists, bytes.
fn lists() -> u64 {
    let keys = ["nr_inactive_file", "nr_active_file", "nr_inactive_anon", "nr_active_anon", "nr_unevictable"];
    keys.into_iter().map(counter).sum::<u64>() * 4096
}

/// Creates a cgroup with `bytes` of page cache, on the only node there is.
fn cached(bytes: u64) -> Cgroup {
    drop_caches();
    let cgroup = Cgroup::new("app");
    cgroup.uses(&Work::File(bytes));
    cgroup
}

fn drop_caches() {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").expect("drop the caches");
}

/// A setting of the host that is restored on drop.
struct Sysctl(&'static str, String);

impl Sysctl {
    fn set(name: &'static str, value: &str) -> Self {
        let path = format!("/proc/sys/vm/{name}");
        let before = std::fs::read_to_string(&path).expect("read a sysctl");
        std::fs::write(path, value).expect("write a sysctl");
        Self(name, before)
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        let _ = std::fs::write(format!("/proc/sys/vm/{}", self.0), &self.1);
    }
}

fn ten_megabytes_of_a_node() {
    let _app = cached(60 * M);
    let before = (stolen(), lists());
    let report = report(&["reclaim", "node:0", "10M"], 0);
    let got = (stolen() - before.0, before.1 - lists());
    assert_eq!((&report["cgroup"], &report["node"]), (&"node:0".into(), &0.into()), "{report}");
    assert_eq!(report["path"], "/sys/devices/system/node/node0");
    assert_eq!((&report["verdict"], &report["stopped_by"]), (&"exact".into(), &"reached".into()));
    assert_eq!(report["measured_by"], "pgsteal_proactive");
    assert_close("reclaimed", number(&report, "reclaimed_bytes") as u64, 10 * M);
    assert_eq!(number(&report, "pgsteal_bytes") as u64, got.0, "the node's own counter: {report}");
    assert_close("the node's own counter", got.0, 10 * M);
    assert_close("the fall of its LRU lists", got.1, 10 * M);
    assert_eq!(number(&report, "unconfirmed_bytes"), 0, "{report}");
    assert!(report.get("current_before_bytes").is_none(), "{report}");
    let freed = number(&report, "file_freed_bytes") + number(&report, "anon_freed_bytes");
    assert_close("page cache and anonymous memory", freed as u64, 10 * M);
    // Counters that exist only for the host aren't reported for the node.
    assert!(report.get("swapped_out_bytes").is_none(), "{report}");
}

fn the_table_of_a_node() {
    let _app = cached(40 * M);
    let ran = run(&["reclaim", "node:0", "10M"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    for part in
        ["\nnode:0     10 MiB ", "measured  by pgsteal_proactive; shrunk: file ", "the host was stalled for"]
    {
        assert!(ran.stdout.contains(part), "{part:?} in {}", ran.stdout);
    }
    assert!(!ran.stdout.contains("cgroup"), "{}", ran.stdout);
}

fn a_node_has_no_usage_to_measure_by() {
    let before = stolen();
    for words in [["reclaim", "node:0", "25%"], ["reclaim", "node:0", "--to=64M"]] {
        let ran = assert_fails(
            &words,
            1,
            "memctl: node:0: a NUMA node has no memory.current, which a percentage or --to requires",
        );
        assert!(ran.stderr.contains("hint: give the size in bytes"), "{}", ran.stderr);
    }
    assert_eq!(stolen(), before);
}

fn keys_of_a_node() {
    let app = cached(60 * M);
    app.uses(&Work::Anon(30 * M));
    let anon = counter("pgsteal_anon");
    let file = report(&["reclaim", "node:0", "10M", "--type", "file"], 0);
    assert_close("page cache", number(&file, "file_freed_bytes") as u64, 10 * M);
    assert_eq!(counter("pgsteal_anon"), anon);
    let before = stolen();
    let taken = report(&["reclaim", "node:0", "5M", "--type", "anon"], 0);
    assert!(counter("pgsteal_anon") - anon > 1000, "{taken}");
    assert_close("the node's own counter", stolen() - before, 5 * M);
    let ran = run(&["reclaim", "node:0", "5M", "--swappiness", "0", "-v"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
}

fn a_node_among_cgroups_and_twice() {
    let app = cached(60 * M);
    let (before, of_app) = (stolen(), app.stolen());
    let ran = run(&["reclaim", "app", "node:0", "/app", "node:0", "5M", "--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    let lines: Vec<_> = ran.stdout.lines().map(|line| parse(&format!("{line}\n"))).collect();
    let names: Vec<_> = lines.iter().map(|line| line["cgroup"].as_str().expect("a name")).collect();
    assert_eq!(names, ["/app", "node:0"]);
    assert!(lines[0].get("node").is_none() && lines[1]["node"] == 0);
    assert_close("both", stolen() - before, 10 * M);
    assert!(app.stolen_settled() - of_app >= 5 * M);
    let ran = run(&["reclaim", "node:0", "app", "5M"]);
    assert!(ran.stdout.contains("\nnode:0 ") && ran.stdout.contains("\ntotal "), "{}", ran.stdout);
}

fn a_total_with_a_node() {
    let _app = cached(60 * M);
    let before = stolen();
    let ran = run(&["reclaim", "--total", "12M", "node:0", "app", "--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    let total = parse(&format!("{}\n", ran.stdout.lines().last().expect("a line")));
    assert_eq!(total["total_verdict"], "exact", "{total}");
    assert_close("the node's own counter", stolen() - before, 12 * M);
}

fn a_node_foretold() {
    let _app = cached(60 * M);
    let before = stolen();
    let foretold = report(&["reclaim", "node:0", "10M", "--dry-run"], 0);
    assert_eq!((&foretold["node"], &foretold["guards"]), (&0.into(), &serde_json::json!([])));
    let there = (counter("nr_inactive_file") + counter("nr_active_file")) * 4096;
    assert_close("page cache", number(&foretold, "file_bytes") as u64, there);
    assert!(foretold.get("current_bytes").is_none(), "{foretold}");
    let ran = run(&["reclaim", "node:0", "10M", "--dry-run"]);
    let part = "request      10 MiB through /sys/devices/system/node/node0/reclaim, in adaptive chunks";
    assert!(ran.stdout.contains(part) && ran.stdout.contains("--max-pressure"), "{}", ran.stdout);
    assert_eq!(stolen(), before, "nothing was written");
}

fn below_the_threshold() {
    drop_caches();
    let app = Cgroup::new("app");
    app.uses(&Work::Anon(30 * M));
    let before = stolen();
    let foretold = report(&["reclaim", "node:0", "5M", "--dry-run"], 3);
    assert_eq!((number(&foretold, "reclaimable_bytes"), &foretold["guards"][0]), (0, &"exhausted".into()));
    let asked = report(&["reclaim", "node:0", "5M"], 3);
    assert_eq!((number(&asked, "reclaimed_bytes"), number(&asked, "chunks")), (0, 3), "{asked}");
    assert_eq!(
        (&asked["stopped_by"], &asked["obstacles"][0]),
        (&"exhausted".into(), &"node_threshold".into())
    );
    for more in [&["--dry-run"][..], &[]] {
        let ran = run(&[&["reclaim", "node:0", "5M"], more].concat());
        let part = "the kernel reclaims from a node only above 9.6";
        assert!(ran.stdout.contains(part) && ran.stdout.contains("vm.min_unmapped_ratio"), "{}", ran.stdout);
    }
    let checked = parse(&run(&["check", "node:0", "--write", "--json"]).stdout);
    let says = |about| finding(&checked, about)["says"].to_string();
    assert!(says("write").contains("the node is below its threshold"), "{checked}");
    assert!(says("reclaimable").contains("0 B can be"), "{checked}");
    assert_eq!(stolen(), before, "the kernel did nothing");
}

fn the_slab_threshold_opens_it_too() {
    drop_caches();
    let app = Cgroup::new("app");
    app.uses(&Work::Anon(30 * M));
    let _open = Sysctl::set("min_slab_ratio", "0");
    let foretold = report(&["reclaim", "node:0", "5M", "--dry-run"], 0);
    assert!(number(&foretold, "reclaimable_bytes") as u64 > 20 * M, "{foretold}");
    let anon = counter("pgsteal_anon");
    let report = report(&["reclaim", "node:0", "5M"], 0);
    assert!(counter("pgsteal_anon") > anon, "{report}");
}

fn a_dirty_page_does_not_count() {
    drop_caches();
    let path = "/data/dirty";
    let _later = [
        Sysctl::set("dirty_expire_centisecs", "100000"),
        Sysctl::set("dirty_writeback_centisecs", "0"),
        Sysctl::set("dirty_background_ratio", "80"),
    ];
    let mut file = File::create(path).expect("a file");
    file.write_all(&vec![1; 30 << 20]).expect("write it");
    assert!(counter("nr_dirty") * 4096 > 20 * M, "dirty");
    let asked = report(&["reclaim", "node:0", "5M"], 3);
    assert_eq!(asked["obstacles"][0], "node_threshold", "{asked}");
    file.sync_all().expect("written back");
    assert_eq!(report(&["reclaim", "node:0", "5M"], 0)["verdict"], "exact");
    std::fs::remove_file(path).expect("remove it");
}

fn protection_holds_on_a_node() {
    let app = cached(60 * M);
    app.write("memory.min", "1G");
    let foretold = report(&["reclaim", "node:0", "40M", "--type", "file", "--dry-run"], 3);
    assert_close("protected", number(&foretold, "protected_bytes") as u64, 60 * M);
    let report = report(&["reclaim", "node:0", "40M", "--type", "file"], 3);
    let obstacles = report["obstacles"].as_array().expect("a list");
    assert!(obstacles.contains(&"protected".into()), "{report}");
    assert!(app.stat("file") > 55 * M, "{} left", app.stat("file"));
}

/// Other processes hold the node, and free nothing, since there is no swap: the kernel returns
/// EBUSY to memctl.
fn a_busy_node_is_waited_for() {
    let app = cached(80 * M);
    app.uses(&Work::Anon(20 * M));
    turn("swapoff");
    let before = stolen();
    let ran = with_others_there(Duration::from_secs(1));
    turn("swapon");
    assert!(ran.stderr.contains(": device or resource busy after "), "nobody was in the way: {}", ran.stderr);
    let report = parse(&ran.stdout);
    assert_eq!((ran.status, &report["verdict"]), (Some(0), &"exact".into()), "{report}");
    assert!(number(&report, "waited_usec") >= 20_000, "{report}");
    assert_close("the node's own counter", stolen() - before, 20 * M);
}

/// Runs memctl while others reclaim from the node, for at most `most`, without a moment in between.
fn with_others_there(most: Duration) -> Finished {
    let (began, over) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let others: Vec<_> = (0..3)
        .map(|_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                let path = directory().join("reclaim");
                let mut file = std::fs::OpenOptions::new().write(true).open(path).expect("open");
                while !over.load(Ordering::Relaxed) && began.elapsed() < most {
                    assert!(file.write(b"1G swappiness=max\n").is_err(), "there is no swap");
                }
            })
        })
        .collect();
    let ran = run(&["reclaim", "node:0", "20M", "--json", "-v"]);
    over.store(true, Ordering::Relaxed);
    for other in others {
        other.join().expect("it wrote");
    }
    ran
}

fn turn(how: &str) {
    let status = Command::new(format!("/bin/{how}")).arg("/dev/vdb").status().expect("busybox");
    assert!(status.success() || std::thread::panicking(), "{how}");
}

fn the_lock_of_a_node() {
    let _app = cached(40 * M);
    let dir = File::open(directory()).expect("open the node's directory");
    flock(&dir, FlockOperation::NonBlockingLockExclusive).expect("lock it");
    assert_eq!(report(&["reclaim", "node:0", "5M", "--dry-run"], 0)["guards"][0], "lock");
    let ran = run(&["reclaim", "node:0", "5M"]);
    assert_eq!(ran.status, Some(0));
    let note = format!("memctl: node:0: locked by process {}", std::process::id());
    assert!(ran.stderr.contains(&note), "{}", ran.stderr);
    assert_eq!(run(&["reclaim", "node:0", "5M", "--no-lock"]).stderr, "");
}

fn pressure_of_a_node_is_the_hosts() {
    let _app = cached(40 * M);
    let told = number(&report(&["reclaim", "node:0", "5M"], 0), "stalled_usec");
    let text = std::fs::read_to_string("/proc/pressure/memory").expect("PSI is on");
    let total: i64 =
        text.lines().next().and_then(|line| line.rsplit("total=").next()?.parse().ok()).expect("a total");
    assert!((0..=total).contains(&told), "{told} told, {text}");
}

/// Linux 6.17 keeps pgsteal for the host alone. Its vmstat of a node replaces the real one.
fn counted_for_the_host_where_the_node_does_not() {
    let _app = cached(40 * M);
    let text = read("vmstat");
    let old: Vec<_> = text.lines().filter(|line| !line.starts_with("pgsteal_")).collect();
    let old = old.join("\n") + "\n";
    std::fs::write("/run/vmstat", old).expect("write it");
    let before = stolen();
    let place = directory().join("vmstat");
    rustix::mount::mount_bind("/run/vmstat", &place).expect("bind it there");
    let ran = run(&["reclaim", "node:0", "10M", "--json"]);
    rustix::mount::unmount(&place, rustix::mount::UnmountFlags::empty()).expect("take it away");
    let report = parse(&ran.stdout);
    assert_eq!(
        (ran.status, &report["measured_by"]),
        (Some(0), &"pgsteal_proactive of the host".into()),
        "{report}"
    );
    assert_eq!(number(&report, "pgsteal_bytes") as u64, stolen() - before, "{report}");
}

fn a_node_is_for_root() {
    use std::os::unix::process::CommandExt;
    let mut command = memctl(["reclaim", "node:0", "5M"]);
    let ran: Finished = command.uid(1000).gid(1000).output().expect("memctl runs").into();
    let line = "memctl: /sys/devices/system/node/node0/reclaim: permission denied";
    let ran = refused(ran, &["reclaim", "node:0", "5M"], 1, line);
    assert!(ran.stderr.contains("hint: run as root: only root"), "{}", ran.stderr);
}

fn nodes_are_completed() {
    let offered = |verb: &str, typed: &str| {
        let mut command: Command = memctl(["--", "memctl", verb, typed]);
        command.env("MEMCTL_COMPLETE", "fish");
        Finished::from(command.output().expect("memctl runs")).stdout
    };
    assert!(offered("reclaim", "no").starts_with("node:"), "{}", offered("reclaim", "no"));
    let nodes = offered("reclaim", "node:");
    assert!(nodes.starts_with("node:0\t") && nodes.contains("MiB"), "{nodes}");
    assert_eq!(offered("stat", "node:"), "");
}

fn a_node_is_checked() {
    let app = cached(40 * M);
    let before = stolen();
    let ran = run(&["check", "node:0", "--write"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    for part in [
        "reclaim     ok      reclaim exists",
        "measure     ok      by pgsteal_proactive",
        "threshold   ok ",
        "write       ok ",
        "reclaim will work: node:0",
    ] {
        assert!(ran.stdout.contains(part), "{part:?} in {}", ran.stdout);
    }
    assert_close("the trial", stolen() - before, M);
    drop(app);
    drop_caches();
    let ran = run(&["check", "node:0"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    let part = "of clean, unmapped page cache: the kernel reclaims from a node only above";
    assert!(ran.stdout.contains("threshold   note ") && ran.stdout.contains(part), "{}", ran.stdout);
    let ran = run(&["check", "node:7"]);
    assert!(ran.status == Some(1) && ran.stdout.contains("node:7: no such NUMA node"), "{}", ran.stdout);
}

fn no_such_node() {
    for word in ["node:7", "node:x", "node:", "node:00", "node:-1"] {
        let ran = assert_fails(&["reclaim", word, "5M"], 1, &format!("memctl: {word}: no such NUMA node"));
        assert!(ran.stderr.ends_with("hint: this host has node:0\n"), "{}", ran.stderr);
    }
}

fn no_figures_of_nodes() {
    let ran = assert_fails(&["stat", "node:0"], 1, "memctl: node:0: a NUMA node, not a cgroup");
    assert!(
        ran.stderr.contains(
            "hint: use reclaim or check; the node's figures are in /sys/devices/system/node/node0/meminfo"
        ),
        "{}",
        ran.stderr
    );
}

fn a_kernel_that_is_too_old() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let line = format!(
        "memctl: node:0: this kernel ({}) has no reclaim file for NUMA nodes, which requires Linux 6.17",
        release.trim()
    );
    let ran = assert_fails(&["reclaim", "node:0", "5M"], 1, &line);
    let instead = if crate::harness::root().join("memory.reclaim").exists() {
        "hint: use the root cgroup, which covers all nodes"
    } else {
        "hint: upgrade to Linux 6.17 or later"
    };
    assert!(ran.stderr.contains(instead), "{}", ran.stderr);
    let ran = run(&["check", "node:0"]);
    assert_eq!(ran.status, Some(1));
    assert!(ran.stdout.contains("which requires Linux 6.17"), "{}", ran.stdout);
}
