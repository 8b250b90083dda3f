//! The forecast of a request: what it would ask for, what is reclaimable, and what would stop it.
//! Arithmetic on the kernel's figures, without a single write.
//!
//! The forecast is an upper bound: pages that are dirty, in use or mapped may stay all the same,
//! which only the kernel can know, and only by trying. This is all the more true of slab: dentries
//! and inodes go only if nothing uses them, and a page goes only with the last of its objects.

use std::time::Duration;

use rustix::io::Errno;

pub use total::{TotalPlan, share_rate};

use super::{Request, Target, TargetKind, Tolerance};
use crate::cgroup::conditions::NodeThreshold;
use crate::cgroup::stat::MemoryStat;
use crate::cgroup::swap_room::SwapRoom;
use crate::cgroup::{Conditions, Protected};
use crate::host::kernel::Version;
use crate::host::proc::page_size;
use crate::kind::{Kind, Swappiness};
use crate::size::Percent;

mod total;

/// Minimum bytes of slab to count: every running process has some in use.
const MIN_SLAB: u64 = 1 << 20;

/// Reclaimable memory by kind. Amounts are bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reclaimable {
    /// Page cache that could be evicted, without tmpfs and unevictable pages; 0 if it isn't
    /// requested.
    pub file: u64,
    /// Anonymous memory and tmpfs that could go to swap; 0 if they aren't requested.
    pub anon: u64,
    /// Part of `anon` that has room in swap, or lies there already.
    pub swappable: u64,
    /// Bound on the room in swap.
    pub swap: Option<SwapRoom>,
    /// Slab that shrinkers could free along (dentries, inodes); 0 if it is too little to matter.
    pub slab: u64,
    /// Part of all this that the children hold under their `memory.min`.
    pub protected: u64,
    /// Name of the child that holds most.
    pub protector: Option<String>,
    /// Memory that is locked or otherwise unevictable. Not included in the others.
    pub unevictable: u64,
    /// True if anonymous memory is left out since `vm.swappiness` is 0.
    pub unswappable: bool,
    /// Page cache of the node that counts towards the kernel's threshold, and the threshold, if it
    /// is higher: the kernel then won't begin.
    pub shut: Option<(u64, NodeThreshold)>,
}

impl Reclaimable {
    /// Calculates the reclaimable memory for a request of that kind.
    #[must_use]
    pub fn new(kind: Kind, stat: &MemoryStat, conditions: &Conditions) -> Self {
        let unswappable = kind == Kind::All && conditions.swappiness == Some(0);
        let file = if kind.takes_file() { stat.evictable_file() } else { 0 };
        let anon = if kind.takes_anon() && !unswappable { stat.evictable_anon() } else { 0 };
        let room = conditions.swap.as_ref().map_or(u64::MAX, |room| room.bytes);
        let swappable = anon.min(room.saturating_add(stat.swapcached.unwrap_or(0)));
        // A child gives no more than its usage beyond its protection, whatever else it has.
        let held = |child: &Protected| {
            let has = child.file.min(file) + child.anon.min(swappable) + child.slab;
            has.saturating_sub(child.current.saturating_sub(child.held()))
        };
        let most =
            conditions.protected.iter().filter(|child| held(child) > 0).max_by_key(|child| held(child));
        Self {
            file,
            anon,
            swappable,
            swap: conditions.swap.clone(),
            slab: stat.slab_reclaimable.filter(|&slab| slab >= MIN_SLAB).unwrap_or(0),
            protected: conditions.protected.iter().map(held).sum(),
            protector: most.map(|child| child.name.clone()),
            unevictable: stat.unevictable.unwrap_or(0),
            unswappable,
            shut: conditions
                .node_threshold
                .filter(|gate| gate.is_below(stat))
                .map(|gate| (gate.countable(stat), gate)),
        }
    }

    /// Returns the most that could be reclaimed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        if self.shut.is_some() {
            return 0;
        }
        (self.file + self.swappable + self.slab).saturating_sub(self.protected)
    }
}

/// Reason why a request would stop before it is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocker {
    /// Too little reclaimable memory: the missing bytes.
    Short(u64),
    /// Minimum duration of the request at the bound on the rate, longer than its timeout.
    Timeout(Duration),
    /// Pressure of the cgroup, already above the bound: hundredths of a percent of the last 10 s.
    Pressure(u16),
    /// Version that introduced what would be written. The running kernel is older and will refuse
    /// it, unless its distributor ported it back.
    Unsupported(Version),
}

impl Blocker {
    /// Returns the word for the reason in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Short(_) => "exhausted",
            Self::Timeout(_) => "timeout",
            Self::Pressure(_) => "pressure",
            Self::Unsupported(_) => "unsupported",
        }
    }
}

/// Forecast of a request. Amounts are bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Kind of the target.
    pub subject: TargetKind,
    /// Requested bytes; `None` for all there is.
    pub requested: Option<u64>,
    /// Target usage, if the request is for one.
    pub down_to: Option<u64>,
    /// `memory.current`, where there is one.
    pub current: Option<u64>,
    /// Reclaimable memory.
    pub reclaimable: Reclaimable,
    /// Kind of memory requested.
    pub kind: Kind,
    /// Fixed size of each write.
    pub chunk: Option<u64>,
    /// Time limit of the request.
    pub timeout: Option<Duration>,
    /// Pressure at which the request would end.
    pub max_pressure: Option<Percent>,
    /// PSI `some` over the last 10 s, hundredths of a percent.
    pub pressure: Option<u16>,
    /// Reasons why the request would stop early, by the arithmetic.
    pub guards: Vec<Blocker>,
}

impl Plan {
    /// Makes the forecast of a request to a target.
    ///
    /// # Errors
    /// The kernel's, if the target can't be sampled.
    pub fn of(target: &mut (impl Target + ?Sized), request: &Request) -> Result<Self, Errno> {
        let page = page_size();
        let usage = target.usage()?;
        let stat = target.stat(true)?;
        let conditions = target.conditions();
        let reclaimable = Reclaimable::new(request.kind, &stat, &conditions);
        let requested = request.bytes(usage, page);
        let guards = guards(request, requested, &reclaimable, &conditions);
        Ok(Self {
            subject: target.subject(),
            requested,
            down_to: request.down_to(usage),
            current: target.has_current().then_some(usage),
            reclaimable,
            kind: request.kind,
            chunk: request.chunk,
            timeout: request.timeout,
            max_pressure: request.max_pressure,
            pressure: conditions.pressure,
            guards,
        })
    }

    /// Returns whether the stalls that the request bounds can't be seen.
    #[must_use]
    pub fn pressure_blind(&self) -> bool {
        self.max_pressure.is_some_and(|most| most.ratio() < 1.0) && self.pressure.is_none()
    }

    /// Returns the most bytes that the request would reclaim.
    #[must_use]
    pub fn expected(&self) -> u64 {
        let there = self.reclaimable.bytes();
        self.requested.map_or(there, |requested| requested.min(there))
    }
}

/// Returns the version from which the kernel accepts such a key in `memory.reclaim`.
#[must_use]
pub(crate) fn since(swappiness: Swappiness) -> Version {
    if swappiness == Swappiness::Max { Version(6, 16) } else { Version(6, 11) }
}

/// Returns the blockers except the bound on the rate, which other requests may share.
fn guards(
    request: &Request,
    requested: Option<u64>,
    there: &Reclaimable,
    conditions: &Conditions,
) -> Vec<Blocker> {
    let Conditions { pressure, kernel, .. } = *conditions;
    let needs = request.kind.swappiness().map(since);
    let short = requested.map_or(0, |requested| requested.saturating_sub(there.bytes()));
    let tolerated = requested.map_or(0, |requested| Tolerance::under(request.tolerance, requested));
    let stalled = |most: Percent| pressure.filter(|&now| f64::from(now) / 10_000.0 > most.ratio());
    let found = [
        needs.filter(|&since| kernel.is_some_and(|kernel| kernel < since)).map(Blocker::Unsupported),
        (short > tolerated).then_some(Blocker::Short(short)),
        request.max_pressure.and_then(stalled).map(Blocker::Pressure),
    ];
    found.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::swap_room::SwapBound;

    const M: u64 = 1 << 20;

    fn stat(file: u64, anon: u64) -> MemoryStat {
        MemoryStat {
            inactive_file: Some(file / 2),
            active_file: Some(file - file / 2),
            inactive_anon: Some(0),
            active_anon: Some(anon),
            unevictable: Some(3 * M),
            ..MemoryStat::default()
        }
    }

    fn conditions(room: u64) -> Conditions {
        let swap = Some(SwapRoom { bytes: room, bound: SwapBound::Free });
        Conditions { swap, ..Conditions::default() }
    }

    fn child(min: u64, current: u64, file: u64, anon: u64) -> Protected {
        Protected { name: format!("/app/{min}"), min, current, file, anon, slab: 0 }
    }

    #[test]
    fn anonymous_memory_counts_as_far_as_swap_goes() {
        let of = |kind, room| Reclaimable::new(kind, &stat(100 * M, 60 * M), &conditions(room));
        assert_eq!(of(Kind::All, 40 * M).bytes(), 140 * M);
        assert_eq!(of(Kind::All, 0).bytes(), 100 * M);
        assert_eq!(of(Kind::All, u64::MAX).bytes(), 160 * M);
        assert_eq!(of(Kind::File, 40 * M).bytes(), 100 * M);
        assert_eq!(of(Kind::Anon, 40 * M).bytes(), 40 * M);
        let never = Conditions { swappiness: Some(0), ..conditions(40 * M) };
        assert_eq!(Reclaimable::new(Kind::All, &stat(100 * M, 60 * M), &never).bytes(), 100 * M);
        assert_eq!(Reclaimable::new(Kind::Anon, &stat(0, 60 * M), &never).bytes(), 40 * M);
    }

    #[test]
    fn slab_counts_but_for_what_is_protected() {
        let stat = MemoryStat { slab_reclaimable: Some(30 * M), ..stat(10 * M, 0) };
        let of = |children| {
            let conditions = Conditions { protected: children, ..conditions(0) };
            Reclaimable::new(Kind::All, &stat, &conditions)
        };
        assert_eq!((of(Vec::new()).bytes(), of(Vec::new()).slab), (40 * M, 30 * M));
        let inside = Protected { slab: 20 * M, ..child(M << 10, 24 * M, 4 * M, 0) };
        assert_eq!((of(vec![inside]).bytes(), stat.evictable_file()), (16 * M, 10 * M));
    }

    #[test]
    fn a_node_gives_nothing_below_its_threshold() {
        let there = |cache| {
            let gate = NodeThreshold { cache, slab: M, mapped: false };
            Reclaimable::new(
                Kind::All,
                &stat(10 * M, 60 * M),
                &Conditions { node_threshold: Some(gate), ..conditions(M) },
            )
        };
        assert_eq!((there(10 * M).bytes(), there(10 * M - 1).bytes()), (0, 11 * M));
        assert_eq!(there(10 * M).shut.map(|(has, _)| has), Some(10 * M));
    }

    #[test]
    fn protection_holds_what_a_child_can_not_spare_otherwise() {
        let with = |children: Vec<Protected>| {
            let conditions = Conditions { protected: children, ..conditions(0) };
            Reclaimable::new(Kind::All, &stat(100 * M, 60 * M), &conditions)
        };
        // 50M of page cache, all of it protected.
        assert_eq!(with(vec![child(60 * M, 50 * M, 50 * M, 0)]).bytes(), 50 * M);
        // 30M of 80M protected, and 50M of them page cache: the cache can go, the rest is
        // anonymous.
        let spare = with(vec![child(30 * M, 80 * M, 50 * M, 30 * M)]);
        assert_eq!((spare.bytes(), spare.protector), (100 * M, None));
        let two = with(vec![child(10 * M, 20 * M, 20 * M, 0), child(30 * M, 40 * M, 40 * M, 0)]);
        assert_eq!((two.protected, two.protector.as_deref()), (40 * M, Some("/app/31457280")));
    }
}
