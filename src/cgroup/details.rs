//! Details for a report on a single cgroup, beyond a row of the table. None of these files is read
//! for a table.

use super::CgroupPath;
use super::events::Events;
use super::numa::{self, NodeStat};
use super::pressure::Pressure;
use super::zswap::Zswap;

/// Details of a cgroup. Values that this kernel or this cgroup doesn't offer are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// `io.pressure`.
    pub io_pressure: Option<Pressure>,
    /// `memory.events`, of the cgroup and all cgroups below.
    pub events: Option<Events>,
    /// `memory.events.local`, of the cgroup alone (since 5.2).
    pub events_local: Option<Events>,
    /// `memory.numa_stat`.
    pub nodes: Vec<NodeStat>,
    /// State of zswap for the cgroup; `None` where zswap isn't built in.
    pub zswap: Option<Zswap>,
}

impl Details {
    /// Reads the details of a cgroup; all of them are absent if the cgroup is gone.
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
