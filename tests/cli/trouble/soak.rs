//! A watch of many cgroups that come and go: its figures are true, and it doesn't grow.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Random, Watch, of, setting};
use crate::environment::{Case, list};
use crate::harness::{Cgroup, M, number};
use crate::watch::after;
use crate::workload::{Work, Workload};

pub fn cases() -> Vec<Case> {
    list!["guest pgsteal-proactive prompt" => a_soak_counts_right_and_grows_by_nothing]
}

/// Interval between measurements of the watch.
const INTERVAL: Duration = Duration::from_secs(10);

/// A cgroup of the soak, and its processes.
struct Job {
    work: Option<Workload>,
    /// Time of its end.
    until: Instant,
    /// Dropped last: it can be removed once its processes ended.
    _cgroup: Cgroup,
}

impl Job {
    /// Starts some work in a new cgroup, for a random time.
    fn start(parent: &Cgroup, count: u64, busy: bool, random: &mut Random) -> Self {
        let cgroup = parent.child(&format!("job-{count:05}"));
        let bytes = (4 + random.below(12)) * M;
        let work = match random.below(if busy { 9 } else { 6 }) {
            0 => None,
            1 | 2 => Some(Work::File(bytes)),
            3 => Some(Work::Folios(bytes)),
            4 => Some(Work::Anon(bytes)),
            5 => Some(Work::GivesBack(bytes)),
            6 => Some(Work::Stream(2 * bytes)),
            7 => Some(Work::Sawtooth(bytes / 2)),
            _ => Some(Work::Mapped(bytes)),
        };
        let work = work.map(|work| Workload::start(&work, cgroup.path()));
        let until = Instant::now() + Duration::from_millis(5000 + random.below(40_000));
        Self { work, until, _cgroup: cgroup }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            let file = work.file();
            drop(work);
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Resources that the watch uses.
#[derive(Clone, Copy, Debug)]
struct Resources {
    rss_kib: u64,
    descriptors: u64,
    cpu_ms: u64,
    /// Time since the watch began.
    at: Duration,
}

impl Resources {
    fn of(pid: u32, at: Duration) -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("it runs");
        let status = read("status");
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let stat = read("stat");
        let fields: Vec<_> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        let ticks = |field: usize| fields[field].parse::<u64>().expect("ticks");
        Self {
            rss_kib: rss.trim().trim_end_matches(" kB").parse().expect("a number"),
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count() as u64,
            // utime and stime in ticks of 10 ms.
            cpu_ms: (ticks(11) + ticks(12)) * 10,
            at,
        }
    }

    /// Returns the CPU time since an earlier measurement, less that of the writes that were reported
    /// meanwhile.
    fn overhead_ms(&self, earlier: &Self, events: &[Value]) -> i64 {
        let between = earlier.at.as_micros() as i64..self.at.as_micros() as i64;
        let writes =
            of(events, "reclaim").into_iter().filter(|one| between.contains(&number(one, "at_usec")));
        let writing: i64 = writes.map(|one| number(one, "cpu_usec")).sum();
        self.cpu_ms as i64 - earlier.cpu_ms as i64 - writing / 1000
    }
}

fn a_soak_counts_right_and_grows_by_nothing() {
    let (seconds, cgroups) = (setting("MEMCTL_SOAK_SECONDS", 120), setting("MEMCTL_SOAK_CGROUPS", 40));
    let mut random = Random::seeded();
    let parent = Cgroup::new("soak");
    parent.write("cgroup.subtree_control", "+memory");
    let before = parent.stolen_settled();
    let mut count = 0;
    let mut start = |random: &mut Random, busy: bool| {
        count += 1;
        Job::start(&parent, count, busy, random)
    };
    // A few busy ones at a time: the guest has two processors.
    let mut jobs: Vec<_> = (0..cgroups).map(|slot| start(&mut random, slot < 4)).collect();
    let watch = Watch::begin(&["soak/*", "--keep", "6M", "--type", "all", "--swap-writes", "max"]);
    let began = Instant::now();
    let mut measured = Vec::new();
    while began.elapsed() < Duration::from_secs(seconds) {
        if began.elapsed() >= INTERVAL * (measured.len() as u32 + 1) {
            measured.push(Resources::of(watch.child.id(), began.elapsed()));
        }
        for (slot, job) in jobs.iter_mut().enumerate() {
            if job.until <= Instant::now() {
                *job = start(&mut random, slot < 4);
                break;
            }
        }
        after(50);
    }
    measured.push(Resources::of(watch.child.id(), began.elapsed()));
    let (events, notes, took) = watch.terminated();
    let by_kernel = parent.stolen_settled() - before;
    drop(jobs);
    let end = of(&events, "end");
    let total = number(end[0], "total_reclaimed_bytes") as u64;
    let sum = |event: &str| -> u64 {
        of(&events, event).iter().map(|one| number(one, "reclaimed_bytes") as u64).sum()
    };
    let (summaries, reclaims) = (sum("summary"), sum("reclaim"));
    let (gone, stay): (Vec<_>, Vec<_>) =
        of(&events, "summary").into_iter().partition(|one| one["gone"] == true);
    let difference = (total as f64 - by_kernel as f64) / by_kernel as f64;
    println!(
        "{count} cgroups, {} gone, {} stay; kernel {by_kernel}, reported {total} ({:+.3}%), summaries {summaries}, \
         reclaim events {reclaims}; {} of those gone; the end took {took:?}",
        gone.len(),
        stay.len(),
        100.0 * difference,
        gone.iter().map(|one| number(one, "reclaimed_bytes")).sum::<i64>(),
    );
    let counted: i64 = stay.iter().filter_map(|one| one["pgsteal_bytes"].as_i64()).sum();
    let of_stay: i64 = stay.iter().map(|one| number(one, "reclaimed_bytes")).sum();
    println!("those that stay: {of_stay} reported, {counted} by their own counters");
    // CPU time beside the writes, which take as long as there is much to reclaim, for a hundred
    // descriptors: at first there are few cgroups.
    let spent =
        |pair: &[Resources]| pair[1].overhead_ms(&pair[0], &events) * 100 / pair[1].descriptors.max(1) as i64;
    let spent: Vec<_> = measured.windows(2).map(spent).collect();
    println!("resources: {measured:?}\nCPU ms beside writes in each 10 s, of 100 files: {spent:?}");
    assert_eq!(notes, "");
    assert!(by_kernel > 100 * M && count > cgroups, "{by_kernel} bytes, {count} cgroups");
    assert_eq!(reclaims, total, "all is in the record");
    // The oldest summaries aren't kept.
    assert!(summaries == total || gone.len() >= 1000, "{summaries} of {total}");
    assert!(
        difference.abs() <= 0.01,
        "{total} reported, {by_kernel} by the kernel: {:+.3}%",
        100.0 * difference
    );
    // A slow machine takes minutes until there are as many cgroups as there should be.
    let most = |of: &dyn Fn(&Resources) -> u64, all: &[Resources]| all.iter().map(of).max().unwrap_or(0);
    let files = most(&|one| one.descriptors, &measured);
    let full = measured.iter().position(|one| one.descriptors * 5 >= files * 4).unwrap_or(0);
    let full = if measured.len() - full < 4 { 0 } else { full };
    let (measured, spent) = (&measured[full..], &spent[full.min(spent.len())..]);
    let (first, second) = measured.split_at(measured.len() / 2);
    let (rss, more) = (most(&|one| one.rss_kib, first), most(&|one| one.rss_kib, second));
    // The summaries of the last thousand that are gone are kept, at most 1 KiB each.
    let kept = gone.len().min(1000) as u64 / 2;
    assert!(more <= rss + 256 + kept, "{more} KiB after {rss}: {measured:?}");
    let median = |all: &[i64]| {
        let mut sorted = all.to_vec();
        sorted.sort_unstable();
        sorted.get(all.len() / 2).copied().unwrap_or_default()
    };
    // The cgroups at a time vary: some end, and some are removed. Descriptors for a hundred of them.
    let watched = |at: Duration| {
        let until = |event: &str| {
            of(&events, event).iter().filter(|one| number(one, "at_usec") <= at.as_micros() as i64).count()
        };
        until("start").saturating_sub(until("gone")).max(1) as i64
    };
    let files = |all: &[Resources]| -> Vec<_> {
        all.iter().map(|one| one.descriptors as i64 * 100 / watched(one.at)).collect()
    };
    println!("descriptors of 100 cgroups: {:?}", files(measured));
    let (files, more) = (median(&files(first)), median(&files(second)));
    // One for each cgroup that is gone would be more than half as much again.
    assert!(more <= files + files / 4, "{more} descriptors after {files}: {measured:?}");
    let (first, second) = spent.split_at(spent.len() / 2);
    assert!(median(second) <= 2 * median(first) + 200, "{spent:?}");
}
