//! The metrics of `memctl stat`.

use std::io;
use std::time::Duration;

use memctl::cgroup::Reading;

use super::labels::{more_labels, path_of};
use super::names::{self, Metric};
use super::text::{Encoder, Value};
use crate::output::view::Row;

type OfRow = fn(&Row) -> Option<Value>;

/// Metrics of a row, and their values.
const METRICS: &[(&Metric, OfRow)] = &[
    (&names::STAT_USAGE, |row| row.reading.current.map(Value::from)),
    (&names::STAT_WORKING_SET, |row| row.reading.working_set().map(Value::from)),
    (&names::STAT_RECLAIMABLE, |row| Some(row.reclaimable.bytes().into())),
    (&names::STAT_PROTECTED, |row| Some(row.reclaimable.protected.into())),
    (&names::STAT_LIMIT, |row| row.reading.bound.as_ref().map(|bound| bound.limit.into())),
    (&names::STAT_HEADROOM, |row| row.reading.bound.as_ref().map(|bound| bound.headroom.into())),
    (&names::STAT_SWAP, |row| row.reading.swap.map(Value::from)),
    (&names::STAT_STALLED, |row| stalled(&row.reading).map(Value::from)),
    (&names::STAT_REFAULTED, |row| row.reading.stat().refaulted().map(Value::from)),
    (&names::STAT_RECLAIMED, |row| reclaimed(&row.reading).map(Value::from)),
];

fn stalled(reading: &Reading) -> Option<Duration> {
    reading.pressure.map(|pressure| Duration::from_micros(pressure.some.total))
}

fn reclaimed(reading: &Reading) -> Option<u64> {
    reading.stat().pgsteal?.checked_mul(rustix::param::page_size() as u64)
}

/// Returns the text for some cgroups.
///
/// # Errors
/// None: the text is in memory.
pub fn text(rows: &[Row]) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut to = Encoder::new(&mut bytes);
    for (metric, value) in METRICS {
        for row in rows {
            if let Some(value) = value(row) {
                let name = &row.reading.name;
                let path = path_of(name);
                to.sample(metric, &[name], &more_labels(name, path.as_deref()), value)?;
            }
        }
    }
    String::from_utf8(bytes).map_err(io::Error::other)
}
