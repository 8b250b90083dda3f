//! Conditions that can prevent reclaim: swap room, protection, swappiness, pressure. Gathered on
//! demand only.

use std::path::Path;

use super::mount::Mount;
use super::pressure::Pressure;
use super::stat::MemoryStat;
use super::swap_room::SwapRoom;
use super::{Cgroup, tree};
use crate::host::kernel::Version;
use crate::host::proc::{parse_number, read_in, read_system_file, swappiness};

/// Conditions that can prevent reclaim from a cgroup. Unknown values are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Amount of anonymous memory that can still be swapped out; `None` if unknown.
    pub swap: Option<SwapRoom>,
    /// Direct children that have a `memory.min`. Deeper protection counts only within theirs.
    pub protected: Vec<Protected>,
    /// The cgroup's own `memory.min`, bytes. It doesn't protect from reclaim here, but kernels
    /// before 6.2 are mistaken about that.
    pub own_min: Option<u64>,
    /// `vm.swappiness`, which applies to a request without a value of its own. With 0, the kernel
    /// takes no anonymous memory.
    pub swappiness: Option<u8>,
    /// PSI `some` over the last 10 s, hundredths of a percent.
    pub pressure: Option<u16>,
    /// Version of the kernel.
    pub kernel: Option<Version>,
    /// Thresholds below which the kernel doesn't reclaim from a NUMA node; `None` for a cgroup.
    pub node_threshold: Option<NodeThreshold>,
}

/// Child under `memory.min`. Amounts are bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    /// Name, from the mount point.
    pub name: String,
    /// `memory.min`.
    pub min: u64,
    /// `memory.current`.
    pub current: u64,
    /// Page cache that could be evicted without protection.
    pub file: u64,
    /// Anonymous memory and tmpfs that could be evicted without protection.
    pub anon: u64,
    /// Slab that could be reclaimed without protection.
    pub slab: u64,
}

impl Protected {
    /// Returns the amount of memory under protection.
    #[must_use]
    pub(crate) fn held(&self) -> u64 {
        self.min.min(self.current)
    }

    /// Returns the part of the child on one node, from `memory.numa_stat`. On that node the child
    /// can give up what it uses beyond its protection, wherever the rest is.
    fn on_node(self, numa_stat: &str, node: u32) -> Self {
        let field = format!(" N{node}=");
        let bytes = |key: &str| {
            let line = numa_stat
                .lines()
                .find_map(|line| line.strip_prefix(key)?.starts_with(' ').then_some(line))?;
            line.split_once(&field)?.1.split(' ').next()?.parse::<u64>().ok()
        };
        let sum = |one, other| bytes(one).unwrap_or(0) + bytes(other).unwrap_or(0);
        let (file, anon) = (sum("inactive_file", "active_file"), sum("inactive_anon", "active_anon"));
        let slab = bytes("slab_reclaimable").unwrap_or(0);
        let current = file + anon + slab;
        let min = current.saturating_sub(self.current - self.held());
        Self { name: self.name, min, current, file, anon, slab }
    }
}

/// Thresholds of a node, one of which must be exceeded before the kernel reclaims
/// (`__node_reclaim`, mm/vmscan.c). Amounts are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeThreshold {
    /// Threshold for unmapped and clean page cache (`vm.min_unmapped_ratio`).
    pub cache: u64,
    /// Threshold for reclaimable slab (`vm.min_slab_ratio`).
    pub slab: u64,
    /// True if mapped page cache and tmpfs count too (`vm.zone_reclaim_mode` has 4).
    pub mapped: bool,
}

impl NodeThreshold {
    /// Returns the page cache that counts towards the threshold.
    #[must_use]
    pub(crate) fn countable(&self, stat: &MemoryStat) -> u64 {
        let cache = if self.mapped {
            stat.file.unwrap_or(0)
        } else {
            stat.evictable_file().saturating_sub(stat.file_mapped.unwrap_or(0))
        };
        cache.saturating_sub(stat.file_dirty.unwrap_or(0))
    }

    /// Returns whether the kernel reclaims nothing from a node with these counters.
    #[must_use]
    pub(crate) fn is_below(&self, stat: &MemoryStat) -> bool {
        self.countable(stat) <= self.cache && stat.slab_reclaimable.unwrap_or(0) <= self.slab
    }
}

impl Conditions {
    /// Gathers the conditions of a cgroup below a mount.
    #[must_use]
    pub(crate) fn of(cgroup: &Cgroup, mount: &Mount) -> Self {
        Self {
            swap: SwapRoom::of(cgroup.path(), mount),
            protected: protected(cgroup.path(), mount, None),
            own_min: cgroup.number("memory.min").ok().map(|min| min.unwrap_or(u64::MAX)),
            pressure: cgroup.read("memory.pressure").ok().as_deref().and_then(some_avg10),
            ..Self::of_host()
        }
    }

    /// Gathers the conditions of a NUMA node: the host's, and the protected memory of top-level
    /// cgroups there.
    pub(crate) fn of_node(number: u32) -> Self {
        let mount = Mount::find().ok().flatten();
        let pressure = read_system_file("/proc/pressure/memory").ok();
        Self {
            swap: SwapRoom::of_host(),
            protected: mount.map_or_else(Vec::new, |mount| protected(&mount.point, &mount, Some(number))),
            pressure: pressure.as_deref().and_then(some_avg10),
            ..Self::of_host()
        }
    }

    /// Gathers the conditions that are the same everywhere on the host.
    fn of_host() -> Self {
        Self { swappiness: swappiness(), kernel: Version::running(), ..Self::default() }
    }

    /// Returns the sum of the memory that children hold under their `memory.min`, bytes, and the
    /// name of the child that holds most.
    #[must_use]
    pub(crate) fn held(&self) -> Option<(u64, &str)> {
        let most = self.protected.iter().max_by_key(|child| child.held())?;
        Some((self.protected.iter().map(Protected::held).sum(), &most.name))
    }
}

fn some_avg10(text: &str) -> Option<u16> {
    Pressure::parse(text).map(|pressure| pressure.some.avg10)
}

/// Returns the children under protection. With a node, counts only the protected memory on that
/// node.
fn protected(path: &Path, mount: &Mount, node: Option<u32>) -> Vec<Protected> {
    let read = |dir: &Path, file: &str| read_in(dir, file).ok();
    let number = |dir: &Path, file: &str| Some(parse_number(&read(dir, file)?).ok()?.unwrap_or(u64::MAX));
    let children = tree::children(path).filter_map(|child| {
        let (min, current) = (number(&child, "memory.min")?, number(&child, "memory.current")?);
        if min.min(current) == 0 {
            return None;
        }
        let stat = MemoryStat::parse(&read(&child, "memory.stat")?);
        let name = mount.name_of(&child).unwrap_or_default().to_string();
        let (file, anon, slab) =
            (stat.evictable_file(), stat.evictable_anon(), stat.slab_reclaimable.unwrap_or(0));
        let all = Protected { name, min, current, file, anon, slab };
        match node {
            None => Some(all),
            Some(node) => {
                Some(all.on_node(&read(&child, "memory.numa_stat")?, node)).filter(|here| here.min > 0)
            }
        }
    });
    children.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protection_counts_on_a_node_as_far_as_the_rest_is_too_little() {
        let child = |min| Protected { name: "/db".into(), min, current: 100, file: 60, anon: 40, slab: 0 };
        let numa_stat = "anon N0=40 N1=0\ninactive_anon N0=10 N1=0\nactive_anon N0=30 N1=0\nfile N0=20 N1=40\n\
            inactive_file N0=15 N1=40\nactive_file N0=5 N1=0\n";
        let on = |min, node| child(min).on_node(numa_stat, node);
        assert_eq!(
            on(100, 0),
            Protected { name: "/db".into(), min: 60, current: 60, file: 20, anon: 40, slab: 0 }
        );
        assert_eq!(on(u64::MAX, 1).held(), 40);
        assert_eq!((on(70, 0).held(), on(70, 1).held()), (30, 10), "30 can go, from either");
        assert_eq!((on(40, 0).held(), on(90, 7).held()), (0, 0));
    }
}
