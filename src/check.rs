//! The check of a target: whether reclaim will work, and for each missing property its remedy.

use std::ffi::OsStr;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::cgroup::error::{CgroupError, error_text, several as listed};
use crate::cgroup::killers::Killers;
use crate::cgroup::mount::Hidden;
use crate::cgroup::owner::Owner;
use crate::cgroup::stat::MemoryStat;
use crate::cgroup::swap_room::SwapBound;
use crate::cgroup::zswap::Zswap;
use crate::cgroup::{CgroupPath, Conditions, Name, hugetlb, pressure};
use crate::host::{Host, PsiState};
use crate::kind::{Kind, Swappiness};
use crate::reclaim::{
    Goal, Measure, Obstacle, OpenTarget, Reclaimable, Report, Request, RequestEvent, StoppedBy, Target,
};
use crate::select::{Locator, Match, TargetSpec};
use crate::size::Amount;
use crate::{node, select};

mod finding;
mod host;
mod killers;

pub use finding::{Fact, Finding, State};

use host::around;

/// Result of a check.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckReport {
    /// Name of the cgroup or node, or the word given where there is none.
    pub name: Name,
    /// Findings, in order.
    pub findings: Vec<Finding>,
    /// Bytes that could be reclaimed now at most; `None` where nothing can be reclaimed.
    pub reclaimable: Option<u64>,
}

impl CheckReport {
    /// Returns whether reclaim will work.
    #[must_use]
    pub fn works(&self) -> bool {
        self.findings.iter().all(|finding| finding.state != State::Bad)
    }
}

/// Bytes reclaimed to test whether the counters move.
pub(crate) const TRIAL: u64 = 1 << 20;

/// Returns whether a word may name several cgroups; a check is for one.
#[must_use]
pub fn is_several(word: &OsStr) -> bool {
    select::is_glob(word)
}

/// Checks the cgroup or the NUMA node that `word` names. With `write`, also reclaims `TRIAL`
/// bytes from it, and passes the events to `tell`.
#[must_use]
pub fn check(word: &OsStr, write: bool, tell: &mut dyn FnMut(RequestEvent)) -> CheckReport {
    let host = Host::read();
    let mut findings = Vec::new();
    let (wanted, mounts) = match Locator::new() {
        Ok(locator) => (wanted(word, locator.locate(word)), locator.mount_points()),
        Err(why) => (wanted(word, Err(why)), Vec::new()),
    };
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(why) => {
            let of_node = word.to_string_lossy().starts_with(node::PREFIX);
            findings.push(bad(if of_node { "node" } else { "cgroup" }, &why));
            findings.extend(around(&host, host.psi, !of_node));
            return CheckReport {
                // The target doesn't exist, and so has no path.
                name: word.to_string_lossy().into_owned().into(),
                findings,
                reclaimable: None,
            };
        }
    };
    let name = match &wanted {
        TargetSpec::Cgroup(Match { located, .. }) => {
            findings.push(mounted(located, &mounts));
            located.name.clone()
        }
        TargetSpec::Node(number) => format!("{}{number}", node::PREFIX).into(),
    };
    let mut place = match OpenTarget::open(&wanted) {
        Ok(place) => place,
        Err(why) => {
            findings.push(refused(&wanted, &why));
            findings.extend(around(&host, psi_of(&wanted, &host), matches!(wanted, TargetSpec::Cgroup(_))));
            return CheckReport { name, findings, reclaimable: None };
        }
    };
    // Properties that only cgroups have.
    let (owner, huge) = match &place {
        OpenTarget::Cgroup(cgroup) => (Owner::of(cgroup.cgroup()), hugetlb::used(cgroup.cgroup())),
        OpenTarget::Node(_) => (None, None),
    };
    let (hidden, zswap) = match &wanted {
        TargetSpec::Cgroup(Match { located, .. }) => (located.mount.hidden(), Zswap::of(located)),
        TargetSpec::Node(_) => (None, None),
    };
    let of_node = matches!(place, OpenTarget::Node(_));
    let target = place.target();
    let owner = owner.map_or_else(String::new, |owner| format!(": {}", owner.words()));
    let words = format!("{} exists and is writable by this user{owner}", target.subject().file());
    findings.push(Finding::new("reclaim", State::Good, words));
    findings.push(keys(target, &host));
    let stat = target.stat(true);
    findings.push(measure(target, stat.as_ref()));
    let (stat, conditions) = (stat.unwrap_or_default(), target.conditions());
    findings.extend(around(&host, target.psi(), !of_node));
    if let TargetSpec::Cgroup(Match { located, .. }) = &wanted {
        findings.extend(killers::killers(located, &Killers::ask(&located.mount)));
    }
    findings.extend(hidden.map(beyond));
    findings.extend(zswap.and_then(kept_from_swap));
    findings.extend(in_the_way(&stat, &conditions, huge));
    // Without counters neither the measure nor the reclaimable amount is known.
    let reclaimable = Reclaimable::new(Kind::All, &stat, &conditions).bytes();
    findings.push(reclaimable_now(reclaimable));
    if write {
        findings.push(tried(target, tell));
    }
    CheckReport { name, findings, reclaimable: Some(reclaimable) }
}

/// Returns the state of PSI for a target that can't be opened for reclaim.
fn psi_of(wanted: &TargetSpec, host: &Host) -> PsiState {
    match wanted {
        TargetSpec::Cgroup(Match { located, .. }) => {
            located.open().map_or(host.psi, |cgroup| pressure::state(&cgroup))
        }
        TargetSpec::Node(_) => host.psi,
    }
}

/// Returns the target of a word, given the cgroup that it names: a cgroup may be named like a node.
fn wanted(word: &OsStr, located: Result<CgroupPath, CgroupError>) -> Result<TargetSpec, CgroupError> {
    match (located, word.to_str().and_then(node::parse)) {
        (Err(_), Some(number)) => Ok(TargetSpec::Node(number?)),
        (located, _) => Ok(TargetSpec::Cgroup(Match { located: located?, by_glob: false })),
    }
}

fn bad(about: &'static str, why: &CgroupError) -> Finding {
    let finding = Finding::new(about, State::Bad, why.to_string());
    match why.hint() {
        Some(hint) => finding.todo(hint),
        None => finding,
    }
}

/// Describes the mount by which a cgroup was found, of several `mount_points`, the first of which
/// names begin from.
fn mounted(located: &CgroupPath, mount_points: &[PathBuf]) -> Finding {
    let how = if located.mount.read_only { "read-only" } else { "writable" };
    let point = &located.mount.point;
    let words = format!("mounted at {}, {how}", point.display());
    let others = mount_points.iter().filter(|other| *other != point).map(|other| other.display().to_string());
    let several = match (mount_points.first(), others.collect::<Vec<_>>()) {
        (_, others) if others.is_empty() => String::new(),
        (Some(first), others) if first == point => {
            format!("; names begin there, not at {}", listed(&others))
        }
        (Some(first), _) => format!("; names begin at {}", first.display()),
        (None, _) => String::new(),
    };
    Finding::new("cgroup2", State::Good, words + &several)
}

/// Returns the reason why nothing can be reclaimed; where permission is missing, with the owner of
/// the file.
fn refused(wanted: &TargetSpec, why: &CgroupError) -> Finding {
    let about = if matches!(why, CgroupError::NoSuchNode { .. }) { "node" } else { "reclaim" };
    let finding = bad(about, why);
    let TargetSpec::Cgroup(Match { located, .. }) = wanted else { return finding };
    match (why, located.open().ok().as_ref().and_then(Owner::of), &finding.fact) {
        (CgroupError::Permission { .. }, Some(owner), Fact::Words(words)) => {
            Finding { fact: Fact::Words(format!("{words}: {}", owner.words())), ..finding }
        }
        _ => finding,
    }
}

/// Tests each key with a request for nothing, which is exact where version numbers aren't.
fn keys(target: &mut dyn Target, host: &Host) -> Finding {
    let mut knows = |swappiness| target.accepts(swappiness).unwrap_or(false);
    let release = host.release.as_deref().unwrap_or("unknown");
    if knows(Swappiness::Max) {
        let words = format!("Linux {release} supports swappiness=0..200 and max: --type file and anon work");
        return Finding::new("kernel", State::Good, words);
    }
    if knows(Swappiness::Value(0)) {
        let words =
            format!("Linux {release} supports swappiness=0..200: --type file works, anon requires 6.16");
        return Finding::new("kernel", State::Good, words);
    }
    let words = format!("Linux {release} lacks swappiness=: --type and --swappiness require 6.11");
    Finding::new("kernel", State::Note, words)
}

fn measure(target: &mut dyn Target, stat: Result<&MemoryStat, &Errno>) -> Finding {
    match stat {
        Ok(stat) => match target.measures(stat).counter {
            Measure::PgstealProactive => Finding::new(
                "measure",
                State::Good,
                "by pgsteal_proactive, which counts proactive reclaim only",
            ),
            Measure::HostPgstealProactive => {
                let words = "by pgsteal_proactive of the host: this kernel has no counter per node";
                Finding::new("measure", State::Note, words)
            }
            other => {
                let words = format!("by {}, which also counts the application's own reclaim", other.name());
                Finding::new("measure", State::Note, words)
            }
        },
        Err(errno) => Finding::new("measure", State::Bad, format!("the counters can't be read: {errno}")),
    }
}

/// Returns the obstacles in a target's memory, of which `huge` bytes are huge pages.
fn in_the_way(stat: &MemoryStat, conditions: &Conditions, huge: Option<u64>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(room) = &conditions.swap
        && let SwapBound::Limit(level) = &room.bound
    {
        let words = format!("of room in swap, limited by memory.swap.max of {level}");
        let (state, todo) = if room.bytes == 0 {
            (State::Note, Some(format!("raise memory.swap.max of {level}")))
        } else {
            (State::Good, None)
        };
        findings.push(Finding { about: "swap room", state, fact: Fact::Bytes(room.bytes, words), todo });
    }
    if let Some((held, child)) = conditions.held() {
        let words = format!("are protected by memory.min of child cgroups (most by {child})");
        let todo = Some(format!("lower memory.min of {child} to reclaim that memory"));
        findings.push(Finding {
            about: "protection",
            state: State::Note,
            fact: Fact::Bytes(held, words),
            todo,
        });
    }
    let unevictable = stat.unevictable.unwrap_or(0);
    if unevictable > 0 {
        let words = "are unevictable (mlock, a VM's locked memory) and never reclaimed".to_owned();
        let fact = Fact::Bytes(unevictable, words);
        findings.push(Finding { about: "unevictable", state: State::Note, fact, todo: None });
    }
    findings.extend(conditions.node_threshold.map(|gate| {
        let about = "threshold";
        let fact = |words: &str| Fact::Bytes(gate.countable(stat), words.to_owned());
        if gate.is_below(stat) {
            let fact = fact(
                "of clean, unmapped page cache: the kernel reclaims from a node only above vm.min_unmapped_ratio, \
                 or with reclaimable slab above vm.min_slab_ratio",
            );
            let todo = Some("sysctl vm.min_slab_ratio=0 to reclaim anyway".into());
            return Finding { about, state: State::Note, fact, todo };
        }
        let fact = fact("of clean, unmapped page cache; the node is above its threshold (page cache or slab)");
        Finding { about, state: State::Good, fact, todo: None }
    }));
    if let Some(huge) = huge.filter(|&bytes| bytes > 0) {
        let words = "of this cgroup are huge pages (hugetlb), which are never reclaimed";
        findings.push(Finding::bytes("huge pages", State::Note, huge, words));
    }
    findings.extend(kmem(stat));
    findings
}

/// Explains why slab can't be requested: the kernel's interface is for pages on the LRU lists.
/// Reported where slab is more than a tenth of all memory.
fn kmem(stat: &MemoryStat) -> Option<Finding> {
    let (slab, reclaimable) = (stat.slab?, stat.slab_reclaimable?);
    let all = slab + stat.anon? + stat.file?;
    let words = "of slab shrinks along with page cache; the kernel can't reclaim slab alone on request";
    (slab > all / 10 && reclaimable > 0).then(|| Finding::bytes("kmem", State::Good, reclaimable, words))
}

/// Reports memory that zswap can't take any more: it stays in memory, whatever swap there is behind
/// zswap.
fn kept_from_swap(zswap: Zswap) -> Option<Finding> {
    let (level, room) = (zswap.kept.filter(|_| zswap.enabled)?, zswap.room?);
    let words = format!(
        "compressed can still be swapped out: memory.zswap.writeback of {level} is 0, so nothing goes \
         beyond zswap"
    );
    let state = if room == 0 { State::Note } else { State::Good };
    Some(Finding::bytes("writeback", state, room, words))
}

fn reclaimable_now(bytes: u64) -> Finding {
    let words = "can be reclaimed now, at most";
    let state = if bytes == 0 { State::Note } else { State::Good };
    Finding::bytes("reclaimable", state, bytes, words)
}

/// Returns the reason why limits aren't visible: they bind all the same.
fn beyond(hidden: Hidden) -> Finding {
    let words = match hidden {
        Hidden::ByNamespace => "limits and swap room above the root of this cgroup namespace aren't visible",
        Hidden::ByMount => "limits and swap room above the mounted subtree aren't visible",
    };
    Finding::new("beyond", State::Note, words)
}

/// Tests whether a success of the kernel's moves any counter (6.17 and 6.18 without `CONFIG_NUMA`).
fn tried(target: &mut dyn Target, tell: &mut dyn FnMut(RequestEvent)) -> Finding {
    let request = Request {
        timeout: Some(std::time::Duration::from_secs(10)),
        ..Request::new(Goal::Reclaim(Amount::Bytes(TRIAL)), Kind::All)
    };
    match crate::reclaim::run(target, &request, &|| false, tell) {
        Ok(report) => judged(&report),
        Err(errno) => Finding::new("write", State::Bad, format!("sampling failed: {errno}")),
    }
}

fn judged(report: &Report) -> Finding {
    let fact = |words: &str| Fact::Bytes(report.reclaimed, words.to_owned());
    let finding = |state, fact| Finding { about: "write", state, fact, todo: None };
    match report.reclaimed {
        0 if report.kernel_lied() => {
            finding(State::Bad, Fact::Words("the kernel reports success, but no counter moves".into()))
                .todo("use another kernel: Linux 6.17 and 6.18 without CONFIG_NUMA have this bug")
        }
        0 => {
            let unproven = |why: &str| format!("inconclusive, since nothing was freed: {why}");
            let (state, words) = match report.stopped_by {
                StoppedBy::Failed(errno) => {
                    (State::Bad, format!("the kernel refused: {}", error_text(&errno.into())))
                }
                StoppedBy::Removed => {
                    (State::Bad, "removed meanwhile, or its memory controller switched off".into())
                }
                StoppedBy::Timeout => (State::Note, unproven("the kernel was still busy after 10 s")),
                _ => (State::Note, unproven(why_not(&report.obstacles))),
            };
            finding(state, Fact::Words(words))
        }
        _ => finding(State::Good, fact("were reclaimed, and the counters moved")),
    }
}

/// Returns the first obstacle in words, in terms of the earlier findings.
fn why_not(obstacles: &[Obstacle]) -> &'static str {
    match obstacles.first() {
        Some(Obstacle::NodeThreshold(..)) => "the node is below its threshold",
        Some(Obstacle::NoSwapRoom(..)) => "the remaining memory has no room in swap",
        Some(Obstacle::NoSwappiness(_)) => "the remaining memory is anonymous, and vm.swappiness is 0",
        Some(Obstacle::Protected(..) | Obstacle::OwnMin(_)) => "the remaining memory is protected",
        Some(Obstacle::Unevictable(_)) => "the remaining memory is unevictable",
        Some(Obstacle::Writeback(_)) => "the remaining memory is under writeback to swap or disk",
        Some(Obstacle::Busy) => "another process keeps reclaiming from the node",
        Some(Obstacle::InUse(_) | Obstacle::Growing | Obstacle::Slab(_)) => "the remaining memory is in use",
        // Memory that wasn't requested can't be an obstacle: a trial asks for all kinds.
        Some(Obstacle::Empty | Obstacle::NoCache | Obstacle::AnonNotAsked(_) | Obstacle::FileNotAsked(_))
        | None => "nothing is reclaimable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Mount;

    #[test]
    fn of_several_mounts_the_one_taken_is_named() {
        let mount = Mount::whole("/host/cg".into(), true).into();
        let located =
            CgroupPath { path: std::path::Path::new("/host/cg/a").into(), name: "/a".into(), mount, id: 1 };
        let of = |points: &[&str]| {
            let points: Vec<_> = points.iter().map(PathBuf::from).collect();
            match mounted(&located, &points).fact {
                Fact::Words(words) => words,
                Fact::Bytes(..) => String::new(),
            }
        };
        assert_eq!(of(&["/host/cg"]), "mounted at /host/cg, read-only");
        assert_eq!(of(&[]), "mounted at /host/cg, read-only");
        let two = "mounted at /host/cg, read-only; names begin there, not at /sys/fs/cgroup";
        assert_eq!(of(&["/host/cg", "/sys/fs/cgroup"]), two);
        let other = "mounted at /host/cg, read-only; names begin at /sys/fs/cgroup";
        assert_eq!(of(&["/sys/fs/cgroup", "/host/cg"]), other);
    }

    #[test]
    fn what_zswap_keeps_is_told_where_nothing_goes_beyond() {
        let zswap = Zswap { enabled: true, room: Some(9), kept: Some("/a".into()), ..Zswap::default() };
        assert_eq!(kept_from_swap(zswap.clone()).map(|finding| finding.state), Some(State::Good));
        let full = Zswap { room: Some(0), ..zswap.clone() };
        assert_eq!(kept_from_swap(full).map(|finding| finding.state), Some(State::Note));
        assert_eq!(kept_from_swap(Zswap { kept: None, ..zswap.clone() }), None);
        assert_eq!(kept_from_swap(Zswap { enabled: false, ..zswap }), None);
    }

    #[test]
    fn slab_is_told_where_there_is_much_of_it() {
        let stat = |slab, reclaimable| MemoryStat {
            anon: Some(40 << 20),
            file: Some(50 << 20),
            slab: Some(slab),
            slab_reclaimable: reclaimable,
            ..MemoryStat::default()
        };
        let much = kmem(&stat(30 << 20, Some(20 << 20))).unwrap();
        assert_eq!((much.about, much.state), ("kmem", State::Good));
        assert!(matches!(much.fact, Fact::Bytes(bytes, _) if bytes == 20 << 20));
        assert_eq!(kmem(&stat(9 << 20, Some(9 << 20))), None);
        assert_eq!((kmem(&stat(30 << 20, None)), kmem(&MemoryStat::default())), (None, None));
    }
}
