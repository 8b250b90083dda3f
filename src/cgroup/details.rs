//! What a page on one cgroup tells beyond a row of the table. None of these files is read for a table.

use super::CgroupPath;
use super::events::Events;
use super::numa::{self, NodeStat};
use super::pressure::Pressure;
use super::zswap::Zswap;

/// What was found. What this kernel or this cgroup doesn't offer is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// `io.pressure`.
    pub io_pressure: Option<Pressure>,
    /// `memory.events`: of the cgroup and of all below it.
    pub events: Option<Events>,
    /// `memory.events.local`: of the cgroup alone (since 5.2).
    pub events_local: Option<Events>,
    /// `memory.numa_stat`.
    pub nodes: Vec<NodeStat>,
    /// What zswap still does for it; `None` where it isn't built in.
    pub zswap: Option<Zswap>,
}

impl Details {
    /// Looks at a cgroup. One that is gone has none.
    #[must_use]
    pub fn of(located: &CgroupPath) -> Self {
        let Ok(cgroup) = located.open() else { return Self::default() };
        let read = |file: &str| cgroup.read(file).ok();
        let events = |file: &str| read(file).as_deref().map(Events::parse);
        Self {
            io_pressure: read("io.pressure").as_deref().and_then(Pressure::parse),
            events: events("memory.events"),
            events_local: events("memory.events.local"),
            nodes: read("memory.numa_stat").as_deref().map(numa::parse).unwrap_or_default(),
            zswap: Zswap::of(located),
        }
    }
}
