//! Output of `memctl stat` as lines of JSON.

use memctl::cgroup::Details;
use memctl::cgroup::events::Events;
use memctl::cgroup::limit::Ceiling;
use memctl::cgroup::mount::Hidden;
use memctl::cgroup::numa::NodeStat;
use memctl::cgroup::pressure::{Pressure, Stall};
use serde::Serialize;

use super::{NameKeys, usec};
use crate::output::view::Row;

/// A cgroup in `memctl stat`, as a line of JSON.
#[allow(clippy::struct_field_names)]
#[derive(Serialize)]
pub struct Stated<'a> {
    #[serde(flatten)]
    name: NameKeys<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_set_bytes: Option<u64>,
    reclaimable_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    anon_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shmem_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slab_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unevictable_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap_room_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zswap_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zswapped_bytes: Option<u64>,
    /// null without a limit.
    limit_bytes: Option<u64>,
    limit_cgroup: Option<&'a str>,
    limit_file: Option<&'static str>,
    headroom_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    high_bytes: Option<OrMax>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<OrMax>,
    /// null for max.
    #[serde(skip_serializing_if = "Option::is_none")]
    min_bytes: Option<OrMax>,
    #[serde(skip_serializing_if = "Option::is_none")]
    low_bytes: Option<OrMax>,
    protected_bytes: u64,
    /// Reason why limits of ancestors are not visible.
    #[serde(skip_serializing_if = "Option::is_none")]
    hidden_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pressure: Option<PressureKeys>,
    psi: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refaulted_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restored_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reclaimed_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval_usec: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refaulted_bytes_per_sec: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reclaimed_bytes_per_sec: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scan_efficiency_ratio: Option<f64>,
    #[serde(flatten)]
    details: Option<DetailKeys<'a>>,
}

/// Keys that only the view of a single cgroup has.
#[derive(Serialize)]
struct DetailKeys<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    io_pressure: Option<PressureKeys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<EventKeys<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events_local: Option<EventKeys<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<NodeKeys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zswap_enabled: Option<bool>,
    /// null for max.
    #[serde(skip_serializing_if = "Option::is_none")]
    zswap_max_bytes: Option<OrMax>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zswap_room_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zswap_writeback: Option<bool>,
}

impl<'a> From<&'a Details> for DetailKeys<'a> {
    fn from(details: &'a Details) -> Self {
        let zswap = details.zswap.as_ref();
        Self {
            io_pressure: details.io_pressure.map(PressureKeys::from),
            events: details.events.as_ref().map(EventKeys),
            events_local: details.events_local.as_ref().map(EventKeys),
            nodes: details.nodes.iter().copied().map(NodeKeys::from).collect(),
            zswap_enabled: zswap.map(|zswap| zswap.enabled),
            zswap_max_bytes: zswap.and_then(|zswap| zswap.max).map(OrMax::from),
            zswap_room_bytes: zswap.and_then(|zswap| zswap.room),
            zswap_writeback: zswap.and_then(|zswap| zswap.writeback),
        }
    }
}

/// Event counters, by the kernel's names.
struct EventKeys<'a>(&'a Events);

impl Serialize for EventKeys<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

/// Memory on a NUMA node.
#[derive(Serialize)]
struct NodeKeys {
    node: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    anon_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_bytes: Option<u64>,
}

impl From<NodeStat> for NodeKeys {
    fn from(NodeStat { number, anon, file }: NodeStat) -> Self {
        Self { node: number, anon_bytes: anon, file_bytes: file }
    }
}

/// Bytes, or null for max.
#[derive(Serialize)]
struct OrMax(Option<u64>);

impl From<Ceiling> for OrMax {
    fn from(ceiling: Ceiling) -> Self {
        Self(ceiling.bytes())
    }
}

/// Memory pressure (PSI).
#[derive(Serialize)]
struct PressureKeys {
    some_avg10_ratio: f64,
    some_total_usec: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    full_avg10_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    full_total_usec: Option<u64>,
}

impl From<Pressure> for PressureKeys {
    fn from(pressure: Pressure) -> Self {
        let ratio = |stall: Stall| f64::from(stall.avg10) / 10_000.0;
        Self {
            some_avg10_ratio: ratio(pressure.some),
            some_total_usec: pressure.some.total,
            full_avg10_ratio: pressure.full.map(ratio),
            full_total_usec: pressure.full.map(|stall| stall.total),
        }
    }
}

impl<'a> From<&'a Row> for Stated<'a> {
    fn from(Row { reading, reclaimable, rates, hidden, details }: &'a Row) -> Self {
        let (stat, bound) = (reading.stat(), reading.bound.as_ref());
        let page = rustix::param::page_size() as u64;
        Self {
            name: NameKeys::from(&reading.name),
            current_bytes: reading.current,
            working_set_bytes: reading.working_set(),
            reclaimable_bytes: reclaimable.bytes(),
            anon_bytes: stat.anon,
            file_bytes: stat.file,
            shmem_bytes: stat.shmem,
            slab_bytes: stat.slab,
            kernel_bytes: stat.kernel,
            unevictable_bytes: stat.unevictable,
            swap_bytes: reading.swap,
            swap_room_bytes: reclaimable.swap.as_ref().map(|room| room.bytes),
            zswap_bytes: stat.zswap,
            zswapped_bytes: stat.zswapped,
            limit_bytes: bound.map(|bound| bound.limit),
            limit_cgroup: bound.map(|bound| bound.cgroup.as_str()),
            limit_file: bound.map(|bound| bound.file.name()),
            headroom_bytes: bound.map(|bound| bound.headroom),
            high_bytes: reading.high.map(OrMax::from),
            max_bytes: reading.max.map(OrMax::from),
            min_bytes: reading.min.map(OrMax::from),
            low_bytes: reading.low.map(OrMax::from),
            protected_bytes: reclaimable.protected,
            hidden_by: hidden.map(Hidden::word),
            pressure: reading.pressure.map(PressureKeys::from),
            psi: reading.psi.word(),
            refaulted_bytes: stat.refaulted(),
            restored_bytes: stat.restored(),
            reclaimed_bytes: stat.pgsteal.map(|pages| pages * page),
            interval_usec: rates.map(|rates| usec(rates.over)),
            refaulted_bytes_per_sec: rates.and_then(|rates| rates.refaulted),
            reclaimed_bytes_per_sec: rates.and_then(|rates| rates.reclaimed),
            scan_efficiency_ratio: rates.and_then(|rates| rates.efficiency),
            details: details.as_deref().map(DetailKeys::from),
        }
    }
}
