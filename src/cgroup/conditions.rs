//! What could stand in the way of reclaim: swap room, protection, swappiness, pressure. Gathered on demand only.

use std::path::Path;

use super::pressure::Pressure;
use super::stat::MemoryStat;
use super::swap::SwapRoom;
use super::{Cgroup, Version, parse_number, read_system_file, tree};

/// What could stand in the way of reclaim from a cgroup. What can't be told is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// How much anonymous memory can still go to swap.
    pub swap: Option<SwapRoom>,
    /// The direct children that have a `memory.min`. Deeper protection counts only within theirs.
    pub protected: Vec<Protected>,
    /// The cgroup's own `memory.min`, bytes. It doesn't count, but kernels before 6.2 are mistaken about that.
    pub own_min: Option<u64>,
    /// `vm.swappiness`, which a request without its own follows. With 0, no anonymous memory is taken.
    pub swappiness: Option<u8>,
    /// PSI `some` over the last 10 s, hundredths of a percent.
    pub pressure: Option<u16>,
    /// The kernel's version.
    pub kernel: Option<Version>,
}

/// A child under `memory.min`. Amounts are bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    /// Its name, from the mount point.
    pub name: String,
    /// Its `memory.min`.
    pub min: u64,
    /// Its `memory.current`.
    pub current: u64,
    /// Its page cache that could be evicted, were it not protected.
    pub file: u64,
    /// Its anonymous memory and tmpfs that could be, likewise.
    pub anon: u64,
}

impl Protected {
    /// How much of it is under protection.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.min.min(self.current)
    }
}

impl Conditions {
    /// Looks at them for a cgroup below the mount at `top`.
    #[must_use]
    pub fn of(cgroup: &Cgroup, top: &Path) -> Self {
        let swappiness = read_system_file("/proc/sys/vm/swappiness").ok();
        let pressure = cgroup.read("memory.pressure").ok();
        Self {
            swap: Some(SwapRoom::of(cgroup.path(), top)),
            protected: protected(cgroup.path(), top),
            own_min: cgroup.number("memory.min").ok().map(|min| min.unwrap_or(u64::MAX)),
            swappiness: swappiness.and_then(|text| text.trim().parse().ok()),
            pressure: pressure.as_deref().and_then(Pressure::parse).map(|pressure| pressure.some.avg10),
            kernel: Version::running(),
        }
    }

    /// What children hold under their `memory.min`, bytes, and the name of the one that holds most.
    #[must_use]
    pub fn held(&self) -> Option<(u64, &str)> {
        let most = self.protected.iter().max_by_key(|child| child.held())?;
        Some((self.protected.iter().map(Protected::held).sum(), &most.name))
    }
}

fn protected(path: &Path, top: &Path) -> Vec<Protected> {
    let read = |dir: &Path, file: &str| std::fs::read_to_string(dir.join(file)).ok();
    let number = |dir: &Path, file: &str| Some(parse_number(&read(dir, file)?).ok()?.unwrap_or(u64::MAX));
    let children = tree::children(path).filter_map(|child| {
        let (min, current) = (number(&child, "memory.min")?, number(&child, "memory.current")?);
        if min.min(current) == 0 {
            return None;
        }
        let stat = MemoryStat::parse(&read(&child, "memory.stat")?);
        let name = Path::new("/").join(child.strip_prefix(top).unwrap_or(&child));
        let name = name.to_string_lossy().into_owned();
        Some(Protected { name, min, current, file: stat.evictable_file(), anon: stat.evictable_anon() })
    });
    children.collect()
}
