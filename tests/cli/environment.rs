//! The environment of the tests, its features, and the cases that apply to it.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use crate::harness::{Cgroup, root};

/// The checked-in table of kernels and their features.
const KERNELS: &str = include_str!("../vm/kernels.tsv");

/// A test and its needs, in words: `host`, `guest`, features of tests/vm/kernels.tsv; with a `!`,
/// their absence. A guest whose cgroups systemd manages is no `guest`, where a case may do as it
/// likes with cgroups: it has `systemd`, or `pods` where it runs containers, for the cases of pods
/// alone. A guest in which something is switched off at boot has `boot`, and runs the cases for that
/// alone.
#[derive(Clone)]
pub struct Case {
    pub name: &'static str,
    pub needs: &'static str,
    pub run: fn(),
}

/// Lists the cases of a module: `list!["guest reclaim" => first, second; "host" => third]`.
macro_rules! list {
    ($($needs:literal => $($name:ident),+);+ $(;)?) => {
        vec![$($(crate::environment::Case {
            name: concat!(module_path!(), "::", stringify!($name)),
            needs: $needs,
            run: $name,
        }),+),+]
    };
}
pub(crate) use list;

/// An environment for tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    name: String,
    has: BTreeSet<String>,
}

impl Place {
    /// Returns the current environment. In a guest, tests/vm/run names the kernel of the table.
    pub fn here() -> Self {
        match std::env::var("MEMCTL_KERNEL") {
            Ok(name) => {
                Self::all().into_iter().find(|place| place.name == name).expect("a kernel of the table")
            }
            Err(_) => Self::host(),
        }
    }

    fn host() -> Self {
        Self { name: "host".into(), has: ["host".into()].into() }
    }

    /// Returns all environments.
    fn all() -> Vec<Self> {
        let rows = KERNELS.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let guests = rows.map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let features = fields[3].split(',').filter(|&feature| feature != "-").map(str::to_owned);
            let mut has: BTreeSet<_> = features.collect();
            if !["systemd", "boot", "pods"].iter().any(|&feature| has.contains(feature)) {
                has.insert("guest".into());
            }
            Self { name: fields[0].to_owned(), has }
        });
        guests.chain([Self::host()]).collect()
    }

    /// Returns the first need of the case that this environment doesn't meet.
    pub fn missing(&self, case: &Case) -> Option<&'static str> {
        case.needs.split(' ').filter(|need| !need.is_empty()).find(|&need| match need.strip_prefix('!') {
            Some(unwanted) => self.has.contains(unwanted),
            None => !self.has.contains(need),
        })
    }
}

/// Waits until the host is no longer stalled by an earlier case: a watch holds back while all of
/// the host is stalled for a fifth of the time, and the average takes some 10 s to decay.
pub fn await_calm() {
    let full = || -> Option<f64> {
        let text = std::fs::read_to_string("/proc/pressure/memory").ok()?;
        text.lines().find_map(|line| line.strip_prefix("full avg10=")?.split(' ').next()?.parse().ok())
    };
    let until = Instant::now() + Duration::from_secs(60);
    while full().is_some_and(|full| full >= 5.0) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(200));
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has: Vec<_> = self.has.iter().map(String::as_str).collect();
        write!(f, "{} ({})", self.name, has.join(", "))
    }
}

/// Checks that each case applies somewhere: otherwise a mistake in its needs would never be
/// noticed.
pub fn every_case_applies_somewhere(cases: &[Case]) {
    for case in cases {
        let somewhere = Place::all().iter().any(|place| place.missing(case).is_none());
        assert!(somewhere, "{} applies nowhere: {:?}", case.name, case.needs);
    }
}

pub fn cases() -> Vec<Case> {
    list![
        "guest" => the_table_tells_the_truth;
        "systemd" => the_table_tells_the_truth_of_systemd
    ]
}

fn the_table_tells_the_truth_of_systemd() {
    the_table_tells_the_truth();
}

/// Checks the table's row for this kernel against the kernel itself.
fn the_table_tells_the_truth() {
    let manager = if std::path::Path::new("/run/systemd/system").exists() { "systemd" } else { "guest" };
    let mut seen: BTreeSet<String> = [manager.to_owned()].into();
    let cgroup = Cgroup::new("probe");
    if cgroup.path().join("memory.reclaim").exists() {
        seen.insert("reclaim".into());
        for (key, feature) in [("60", "swappiness"), ("max", "swappiness-max")] {
            if cgroup.try_write("memory.reclaim", &format!("0 swappiness={key}\n")).is_ok() {
                seen.insert(feature.into());
            }
        }
    }
    let stat = std::fs::read_to_string(root().join("memory.stat")).unwrap_or_default();
    for (key, feature) in [("pgsteal_proactive", "pgsteal-proactive"), ("pswpout", "pswpout")] {
        if stat.lines().any(|line| line.split(' ').next() == Some(key)) {
            seen.insert(feature.into());
        }
    }
    if std::path::Path::new("/sys/module/zswap").exists() {
        seen.insert("zswap".into());
    }
    if std::path::Path::new("/sys/devices/system/node/node0/reclaim").exists() {
        seen.insert("node-reclaim".into());
    }
    // Features that can't be probed for free are tested by the cases that need them: whether a
    // signal ends a write, whether the controller may go to a hierarchy of version 1, and whether
    // stale protection is honoured; the shells are no part of the kernel.
    let mut told = Place::here().has;
    for tried in ["prompt", "memory-v1", "fresh-protection", "shells"] {
        told.remove(tried);
    }
    assert_eq!(seen, told);
}
