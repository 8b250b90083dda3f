//! Sums over cgroups.

use std::collections::BTreeMap;

use serde::Serialize;

/// Sums over cgroups. Amounts are bytes; what no record has is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sums {
    /// Number of cgroups. One that comes again counts again.
    pub cgroups: u64,
    /// Time for which they were watched.
    pub watched_usec: u64,
    /// Memory saved at the end of the records, by cgroups that are there at that time.
    pub net_saved_bytes: Option<i64>,
    /// Bytes requested from the kernel.
    pub requested_bytes: u64,
    /// Bytes reclaimed.
    pub reclaimed_bytes: u64,
    /// Bytes that a dry run would have reclaimed at once, at most.
    pub would_reclaim_bytes: u64,
    /// Refaulted bytes.
    pub refaulted_bytes: Option<u64>,
    /// Time for which tasks were stalled on memory.
    pub stalled_usec: Option<u64>,
    /// CPU time of the writes.
    pub cpu_usec: u64,
    /// Number of times that limits were met.
    pub outrun: u64,
}

impl Sums {
    /// Adds other sums. They stay at the largest value instead of overflowing.
    pub fn add(&mut self, other: &Self) {
        self.cgroups = self.cgroups.saturating_add(other.cgroups);
        self.watched_usec = self.watched_usec.saturating_add(other.watched_usec);
        self.net_saved_bytes = either(self.net_saved_bytes, other.net_saved_bytes, i64::saturating_add);
        self.requested_bytes = self.requested_bytes.saturating_add(other.requested_bytes);
        self.reclaimed_bytes = self.reclaimed_bytes.saturating_add(other.reclaimed_bytes);
        self.would_reclaim_bytes = self.would_reclaim_bytes.saturating_add(other.would_reclaim_bytes);
        self.refaulted_bytes = either(self.refaulted_bytes, other.refaulted_bytes, u64::saturating_add);
        self.stalled_usec = either(self.stalled_usec, other.stalled_usec, u64::saturating_add);
        self.cpu_usec = self.cpu_usec.saturating_add(other.cpu_usec);
        self.outrun = self.outrun.saturating_add(other.outrun);
    }

    /// Returns the share of the watched time for which tasks were stalled.
    pub fn stalled_ratio(&self) -> Option<f64> {
        let stalled = self.stalled_usec.filter(|_| self.watched_usec > 0)?;
        Some(stalled as f64 / self.watched_usec as f64)
    }
}

/// Joins two values, or returns the one that is known.
fn either<T>(one: Option<T>, other: Option<T>, join: impl Fn(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(join(one, other)),
        (one, other) => one.or(other),
    }
}

/// Maximum number of names that sums are kept for, and of bytes in these names.
const MAX_NAMES: usize = 10_000;
const MAX_NAME_BYTES: usize = 4 << 20;

/// Sums by name: of a rule, or of a namespace. `None` has the cgroups without one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SumsByName {
    sums: BTreeMap<Option<Box<str>>, Sums>,
    name_bytes: usize,
}

impl SumsByName {
    /// Adds sums under a name, or returns false if that would be a name too many.
    pub fn add(&mut self, name: Option<&str>, sums: &Sums) -> bool {
        let key = name.map(Box::from);
        if !self.sums.contains_key(&key) {
            let bytes = self.name_bytes + name.map_or(0, str::len);
            if self.sums.len() >= MAX_NAMES || bytes > MAX_NAME_BYTES {
                return false;
            }
            self.name_bytes = bytes;
        }
        self.sums.entry(key).or_default().add(sums);
        true
    }

    /// Adds others, or returns false if there were a name too many.
    pub fn add_all(&mut self, others: &Self) -> bool {
        others.iter().all(|(name, sums)| self.add(name, sums))
    }

    /// Returns whether others can be added.
    pub fn has_room(&self, others: &Self) -> bool {
        let new = others.sums.keys().filter(|key| !self.sums.contains_key(*key));
        let (count, bytes) = new.fold((0, 0), |(count, bytes), key| {
            (count + 1, bytes + key.as_ref().map_or(0, |name| name.len()))
        });
        self.sums.len() + count <= MAX_NAMES && self.name_bytes + bytes <= MAX_NAME_BYTES
    }

    /// Forgets the memory saved.
    pub fn forget_saved(&mut self) {
        self.sums.values_mut().for_each(|sums| sums.net_saved_bytes = None);
    }

    /// Iterates over the names, in alphabetical order, and their sums.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&str>, &Sums)> {
        self.sums.iter().map(|(name, sums)| (name.as_deref(), sums))
    }

    /// Returns whether any cgroup has a name.
    pub fn has_names(&self) -> bool {
        self.sums.keys().any(Option::is_some)
    }
}
