//! One cgroup, from its `start` to its `summary`, or to the end of what was recorded.

use serde::Deserialize;

use crate::sums::Sums;

/// Keys of a line of a record that matter to the sums.
#[derive(Debug, Default, Deserialize)]
pub struct Line {
    #[serde(default)]
    pub event: String,
    #[serde(default)]
    pub at_usec: u64,
    pub cgroup: Option<String>,
    pub path_bytes: Option<String>,
    pub namespace: Option<String>,
    pub rule: Option<String>,
    pub version: Option<u64>,
    pub started_usec: Option<u64>,
    pub current_bytes: Option<u64>,
    pub requested_bytes: Option<u64>,
    pub reclaimed_bytes: Option<u64>,
    pub would_reclaim_bytes: Option<u64>,
    pub refaulted_bytes: Option<u64>,
    pub stalled_usec: Option<u64>,
    pub cpu_usec: Option<u64>,
    pub outrun: Option<u64>,
    pub net_saved_bytes: Option<i64>,
    pub watched_usec: Option<u64>,
    pub dry_run: Option<bool>,
    pub total_cpu_usec: Option<u64>,
    pub total_watched_usec: Option<u64>,
    pub dropped_events: Option<u64>,
}

/// One cgroup while it is watched.
#[derive(Debug)]
pub struct Life {
    /// Rule and namespace, if it has them.
    pub rule: Option<Box<str>>,
    pub namespace: Option<Box<str>>,
    /// True once the cgroup was removed or released.
    pub is_over: bool,
    begun_usec: u64,
    /// Bytes reclaimed by the last sample, which may have some that no `reclaim` has yet.
    sampled_bytes: u64,
    sums: Sums,
}

impl Life {
    /// Returns a cgroup that the record has its first line of.
    pub fn begin(line: &Line) -> Self {
        Self {
            rule: None,
            namespace: None,
            is_over: false,
            begun_usec: line.at_usec,
            sampled_bytes: 0,
            sums: Sums { cgroups: 1, ..Sums::default() },
        }
    }

    /// Adds a line other than the summary.
    pub fn enter(&mut self, line: &Line) {
        self.name(line);
        let sums = &mut self.sums;
        let known = |value: Option<u64>| value.unwrap_or(0);
        match line.event.as_str() {
            "reclaim" => {
                sums.requested_bytes = sums.requested_bytes.saturating_add(known(line.requested_bytes));
                sums.reclaimed_bytes = sums.reclaimed_bytes.saturating_add(known(line.reclaimed_bytes));
                sums.cpu_usec = sums.cpu_usec.saturating_add(known(line.cpu_usec));
            }
            // Counters since the watch began, which also have what dropped events had.
            "sample" => {
                self.sampled_bytes = self.sampled_bytes.max(known(line.reclaimed_bytes));
                sums.refaulted_bytes = sums.refaulted_bytes.max(line.refaulted_bytes);
                sums.stalled_usec = sums.stalled_usec.max(line.stalled_usec);
            }
            "would_reclaim" => {
                sums.would_reclaim_bytes = sums.would_reclaim_bytes.max(known(line.requested_bytes));
            }
            "working_set" => sums.net_saved_bytes = line.net_saved_bytes,
            "outrun" => sums.outrun = sums.outrun.saturating_add(1),
            "gone" | "released" => self.is_over = true,
            _ => {}
        }
        // A summary of a cgroup that is gone may come later.
        if line.event != "gone" {
            self.sums.watched_usec = line.at_usec.saturating_sub(self.begun_usec).max(self.sums.watched_usec);
        }
    }

    /// Returns the sums by the events alone: the watch didn't run to its end.
    pub fn cut(mut self) -> Self {
        self.sums.reclaimed_bytes = self.sums.reclaimed_bytes.max(self.sampled_bytes);
        if self.is_over {
            self.sums.net_saved_bytes = None;
        }
        self
    }

    /// Returns the sums by the summary. Only the events have what the summary lacks.
    pub fn summed(mut self, line: &Line) -> Self {
        self.name(line);
        let known = |value: Option<u64>| value.unwrap_or(0);
        self.sums = Sums {
            cgroups: 1,
            watched_usec: line.watched_usec.unwrap_or(self.sums.watched_usec),
            net_saved_bytes: line.net_saved_bytes.filter(|_| !self.is_over),
            requested_bytes: known(line.requested_bytes),
            reclaimed_bytes: known(line.reclaimed_bytes),
            would_reclaim_bytes: known(line.would_reclaim_bytes),
            refaulted_bytes: self.sums.refaulted_bytes,
            stalled_usec: line.stalled_usec.or(self.sums.stalled_usec),
            cpu_usec: known(line.cpu_usec),
            outrun: known(line.outrun),
        };
        self
    }

    /// Returns the sums.
    pub fn sums(&self) -> &Sums {
        &self.sums
    }

    /// Takes the names in the line, the rule from the lines that have it.
    fn name(&mut self, line: &Line) {
        if matches!(line.event.as_str(), "start" | "summary") {
            self.rule = line.rule.as_deref().map(Box::from);
        }
        if self.namespace.as_deref() != line.namespace.as_deref() && line.namespace.is_some() {
            self.namespace = line.namespace.as_deref().map(Box::from);
        }
    }
}
