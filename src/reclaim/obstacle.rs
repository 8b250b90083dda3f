//! Obstacles to reclaiming more.

use crate::cgroup::Conditions;
use crate::cgroup::conditions::NodeThreshold;
use crate::cgroup::stat::MemoryStat;
use crate::cgroup::swap_room::SwapBound;
use crate::kind::Kind;

/// Reason why the kernel didn't reclaim more. Amounts are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Anonymous memory and tmpfs that are left and have no room in swap.
    NoSwapRoom(u64, SwapBound),
    /// Anonymous memory that is left, but wasn't requested.
    AnonNotAsked(u64),
    /// Anonymous memory that is left since `vm.swappiness` is 0, and the request followed it.
    NoSwappiness(u64),
    /// Page cache that is left, but wasn't requested.
    FileNotAsked(u64),
    /// Memory that children hold under their `memory.min`; the name of the child that holds most.
    Protected(u64, String),
    /// Page cache that is left under the cgroup's own `memory.min`, which kernels before 6.2 honour
    /// by mistake.
    OwnMin(u64),
    /// Memory that is locked or otherwise unevictable.
    Unevictable(u64),
    /// Memory that is still on its way to slow swap or disk.
    Writeback(u64),
    /// Next to no page cache is left.
    NoCache,
    /// Next to no reclaimable memory is left.
    Empty,
    /// The cgroup grows as fast as it is reclaimed from.
    Growing,
    /// Page cache of the node that counts towards the kernel's threshold, and the threshold, which
    /// is higher.
    NodeThreshold(u64, NodeThreshold),
    /// Another process reclaims from the node all the time.
    Busy,
    /// Bytes of reclaimable slab that stay all the same: in use, or held by a file system.
    Slab(u64),
    /// Evictable memory that is in use: the kernel, which scans pages in use last, gave up on it.
    InUse(u64),
}

impl Obstacle {
    /// Returns the word for the obstacle in JSON.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoSwapRoom(..) => "no_swap_room",
            Self::AnonNotAsked(_) => "anon_not_asked",
            Self::NoSwappiness(_) => "no_swappiness",
            Self::FileNotAsked(_) => "file_not_asked",
            Self::Protected(..) => "protected",
            Self::OwnMin(_) => "own_min",
            Self::Unevictable(_) => "unevictable",
            Self::Writeback(_) => "writeback",
            Self::NoCache => "no_cache",
            Self::Empty => "empty",
            Self::Growing => "growing",
            Self::NodeThreshold(..) => "node_threshold",
            Self::Busy => "busy",
            Self::Slab(_) => "slab",
            Self::InUse(_) => "in_use",
        }
    }
}

/// Minimum amount to report, in bytes.
const MIN_OBSTACLE: u64 = 256 << 10;

/// Minimum amount of slab to report, in bytes: some slab is always in use.
const NOTABLE_SLAB: u64 = 4 * MIN_OBSTACLE;

/// Returns the obstacles to reclaiming more memory of that kind, given the memory left. Unless the
/// kernel found the cgroup `exhausted`, memory that merely wasn't reached yet is no obstacle.
#[must_use]
pub(crate) fn obstacles(
    kind: Kind,
    left: &MemoryStat,
    conditions: &Conditions,
    exhausted: bool,
) -> Vec<Obstacle> {
    let mut found = Vec::new();
    // Without the swap cache: its pages have left `anon` already, and are reported as writeback.
    let anon = left.anon.unwrap_or(0) + left.shmem.unwrap_or(0);
    let file = left.evictable_file();
    if let Some(gate) = conditions.node_threshold.filter(|gate| exhausted && gate.is_below(left)) {
        found.push(Obstacle::NodeThreshold(gate.countable(left), gate));
    }
    let unswappable = kind == Kind::All && conditions.swappiness == Some(0);

    if anon >= MIN_OBSTACLE {
        if !kind.takes_anon() {
            found.push(Obstacle::AnonNotAsked(anon));
        } else if unswappable {
            found.push(Obstacle::NoSwappiness(anon));
        } else if let Some(room) = &conditions.swap
            && room.bytes < MIN_OBSTACLE
        {
            found.push(Obstacle::NoSwapRoom(anon, room.bound.clone()));
        }
    }
    if file >= MIN_OBSTACLE && !kind.takes_file() {
        found.push(Obstacle::FileNotAsked(file));
    }
    if let Some((bytes, child)) = conditions.held() {
        found.push(Obstacle::Protected(bytes, child.to_owned()));
    }
    found.extend(left.unevictable.filter(|&bytes| bytes >= MIN_OBSTACLE).map(Obstacle::Unevictable));
    found.extend(left.file_writeback.filter(|&bytes| bytes >= MIN_OBSTACLE).map(Obstacle::Writeback));
    if !exhausted {
        return found;
    }
    // A node has the whole host's slab, most of it in use.
    let slab = left.shrinkable_slab().filter(|_| conditions.node_threshold.is_none());
    let slab = slab.filter(|&slab| slab >= NOTABLE_SLAB && slab > file);
    found.extend(slab.map(Obstacle::Slab));
    if anon + file < MIN_OBSTACLE && found.is_empty() {
        found.push(Obstacle::Empty);
    } else if file < MIN_OBSTACLE && kind.takes_file() && !kind.takes_anon() {
        found.push(Obstacle::NoCache);
    }
    let protected = conditions.held().map_or(0, |(bytes, _)| bytes);
    let in_use = if kind.takes_file() { file.saturating_sub(protected) } else { 0 };
    if found.is_empty() && in_use >= MIN_OBSTACLE {
        let own = conditions.own_min.is_some_and(|min| min > 0);
        found.push(if own { Obstacle::OwnMin(in_use) } else { Obstacle::InUse(in_use) });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Protected;
    use crate::cgroup::swap_room::SwapRoom;

    const M: u64 = 1 << 20;

    fn left(anon: u64, file: u64) -> MemoryStat {
        MemoryStat {
            anon: Some(anon),
            inactive_file: Some(file),
            active_file: Some(0),
            ..MemoryStat::default()
        }
    }

    fn room(bytes: u64, bound: SwapBound) -> Conditions {
        Conditions { swap: Some(SwapRoom { bytes, bound }), ..Conditions::default() }
    }

    #[test]
    fn anon_without_swap_is_named() {
        let found = obstacles(Kind::All, &left(40 * M, 0), &room(0, SwapBound::NoSwap), true);
        assert_eq!(found, [Obstacle::NoSwapRoom(40 * M, SwapBound::NoSwap)]);
    }

    #[test]
    fn a_host_that_never_swaps_is_named() {
        let conditions = Conditions { swappiness: Some(0), ..room(1 << 30, SwapBound::Free) };
        let found = obstacles(Kind::All, &left(40 * M, 0), &conditions, true);
        assert_eq!(found, [Obstacle::NoSwappiness(40 * M)]);
        let own = Kind::Weighed(crate::kind::Swappiness::Value(60));
        assert_eq!(obstacles(own, &left(40 * M, 0), &conditions, true), []);
    }

    #[test]
    fn what_was_not_asked_for_is_named() {
        let plenty = room(1 << 30, SwapBound::Free);
        let file = Kind::File;
        assert_eq!(
            obstacles(file, &left(40 * M, 0), &plenty, true),
            [Obstacle::AnonNotAsked(40 * M), Obstacle::NoCache]
        );
        assert_eq!(obstacles(Kind::Anon, &left(0, 9 * M), &plenty, true), [Obstacle::FileNotAsked(9 * M)]);
    }

    #[test]
    fn protection_and_locked_memory_are_named() {
        let mut rest = left(0, 50 * M);
        rest.unevictable = Some(8 * M);
        let mut conditions = room(1 << 30, SwapBound::Free);
        let (min, current) = (60 * M, 50 * M);
        let child = Protected { name: "/app/db".into(), min, current, file: current, anon: 0, slab: 0 };
        conditions.protected = vec![child];
        let found = obstacles(Kind::All, &rest, &conditions, true);
        assert_eq!(found, [Obstacle::Protected(50 * M, "/app/db".into()), Obstacle::Unevictable(8 * M)]);
    }

    #[test]
    fn a_node_below_its_threshold_is_named_and_not_called_empty() {
        let gate = NodeThreshold { cache: 10 * M, slab: 50 * M, mapped: false };
        let conditions = Conditions { node_threshold: Some(gate), ..room(1 << 30, SwapBound::Free) };
        let of = |file| obstacles(Kind::All, &left(40 * M, file), &conditions, true);
        assert_eq!(of(4 * M), [Obstacle::NodeThreshold(4 * M, gate)]);
        assert_eq!(of(0), [Obstacle::NodeThreshold(0, gate)]);
        assert_eq!(of(11 * M), [Obstacle::InUse(11 * M)]);
        assert_eq!(obstacles(Kind::All, &left(40 * M, 0), &conditions, false), [], "not what ended it");
    }

    #[test]
    fn slab_that_stays_is_named_and_not_called_empty() {
        let rest = |slab| MemoryStat { slab_reclaimable: Some(slab), ..left(0, 0) };
        let of = |slab| obstacles(Kind::All, &rest(slab), &room(1 << 30, SwapBound::Free), true);
        assert_eq!((of(18 * M), of(M / 2)), (vec![Obstacle::Slab(18 * M)], vec![Obstacle::Empty]));
    }

    #[test]
    fn when_nothing_explains_it_the_pages_are_in_use() {
        let found = obstacles(Kind::All, &left(0, 50 * M), &room(1 << 30, SwapBound::Free), true);
        assert_eq!(found, [Obstacle::InUse(50 * M)]);
    }
}
