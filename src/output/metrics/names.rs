//! The metrics: names, types, labels and help, in one place. docs/metrics.md is made from it.

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// It only grows, but for restarts.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Type {
    /// Returns the word of the text format.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name.
    pub name: &'static str,
    /// Type.
    pub kind: Type,
    /// Names of the labels.
    pub labels: &'static [&'static str],
    /// Help text.
    pub help: &'static str,
}

/// Metrics that are about the same, under a heading.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Heading.
    pub title: &'static str,
    /// The metrics.
    pub metrics: &'static [Metric],
}

macro_rules! groups {
    ($($title:literal { $($id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)* })*) => {
        $($(
            pub const $id: Metric = Metric { name: $name, kind: Type::$kind, labels: &[$($label),*], help: $help };
        )*)*
        /// All metrics.
        #[cfg(test)]
        pub const GROUPS: &[Group] = &[$(Group { title: $title, metrics: &[$($id),*] }),*];
    };
}

groups! {
    "The watch itself" {
        BUILD_INFO = Gauge "memctl_build_info" ["version"] "Version of memctl; always 1.";
        START_TIME = Gauge "memctl_watch_start_time_seconds" [] "Start of the watch, in seconds since 1970.";
        DRY_RUN = Gauge "memctl_watch_dry_run" [] "1 for a dry run, which reclaims nothing.";
        BLOCKED = Gauge "memctl_watch_blocked_seconds" [] "Age of the oldest write to memory.reclaim in progress; 0 if there is none.";
        LAST_LOOK = Gauge "memctl_watch_last_look_timestamp_seconds" [] "Last turn of the control loop, in seconds since 1970.";
        CPU = Counter "memctl_process_cpu_seconds_total" [] "CPU time of memctl, including the kernel's work for it.";
        RESIDENT = Gauge "memctl_process_resident_memory_bytes" [] "Resident memory of memctl.";
        RELOADED = Gauge "memctl_config_last_reload_successful" [] "1 if the last attempt to read the file of rules succeeded, 0 if the old rules stay.";
        RELOADED_AT = Gauge "memctl_config_last_reload_success_timestamp_seconds" [] "Last time that the file of rules was read successfully, in seconds since 1970.";
        RULES = Gauge "memctl_config_rules" [] "Number of rules in force.";
        DIFFERS = Gauge "memctl_config_file_differs" [] "1 if the file of rules has changed since the rules in force were read, or is gone.";
        TOLD = Gauge "memctl_metrics_cgroups" [] "Number of watched cgroups with series of their own.";
        LEFT_OUT = Gauge "memctl_metrics_cgroups_left_out" [] "Number of watched cgroups without series of their own: see metrics-cgroups in watch.toml(5).";
    }
    "Each rule" {
        RULE_CGROUPS = Gauge "memctl_rule_cgroups" ["rule"] "Number of cgroups that follow the rule.";
        RULE_REQUESTED = Counter "memctl_rule_requested_bytes_total" ["rule"] "Bytes that were missing at the beginning of each action.";
        RULE_RECLAIMED = Counter "memctl_rule_reclaimed_bytes_total" ["rule"] "Bytes reclaimed by memctl.";
        RULE_REFAULTED = Counter "memctl_rule_refaulted_bytes_total" ["rule"] "Bytes refaulted by the cgroups: page cache and swap-ins.";
        RULE_DIRECT = Counter "memctl_rule_direct_reclaimed_bytes_total" ["rule"] "Bytes that tasks of the cgroups reclaimed in their own time (Linux 6.15 or newer).";
        RULE_WRITES = Counter "memctl_rule_writes_total" ["rule"] "Number of writes to memory.reclaim.";
        RULE_WRITE_CPU = Counter "memctl_rule_write_cpu_seconds_total" ["rule"] "CPU time of these writes.";
        RULE_WRITE = Counter "memctl_rule_write_seconds_total" ["rule"] "Duration of these writes.";
        RULE_STALLED = Counter "memctl_rule_stalled_seconds_total" ["rule"] "Time for which tasks of the cgroups were stalled on memory (PSI some), in sum over the cgroups.";
        RULE_LIMIT_HITS = Counter "memctl_rule_limit_hits_total" ["rule"] "Number of samples of the cgroups that found the limit met since the sample before; memory.events counts each time.";
        RULE_HELD = Counter "memctl_rule_held_total" ["rule", "guard"] "Number of times that a guard began to hold back actions.";
        RULE_SAVED = Gauge "memctl_rule_net_saved_bytes" ["rule"] "Bytes that the cgroups save by --pressure, less compressed copies of them.";
    }
    "Each cgroup" {
        USAGE = Gauge "memctl_cgroup_usage_bytes" ["cgroup", "rule"] "Usage (memory.current).";
        LIMIT = Gauge "memctl_cgroup_limit_bytes" ["cgroup", "rule"] "The cgroup's own limit: the lowest of memory.high, memory.max and --keep; absent without one.";
        KEPT_FREE = Gauge "memctl_cgroup_kept_free_bytes" ["cgroup", "rule"] "Bytes that memctl keeps free below the limit that leaves least room: the cgroup's own, or an ancestor's (--ancestors).";
        SWAP = Gauge "memctl_cgroup_swap_bytes" ["cgroup", "rule"] "Bytes in swap (memory.swap.current).";
        SAVED = Gauge "memctl_cgroup_net_saved_bytes" ["cgroup", "rule"] "Bytes that the cgroup saves by --pressure, less compressed copies of them.";
        WORKING_SET = Gauge "memctl_cgroup_working_set_bytes" ["cgroup", "rule"] "Estimate of the working set, or an upper bound of it (--pressure, --estimate); absent until it is found.";
        CONFIDENCE = Gauge "memctl_cgroup_working_set_confidence_ratio" ["cgroup", "rule"] "Confidence in the estimate of the working set, 0 to 1.";
        SUGGESTED = Gauge "memctl_cgroup_suggested_limit_bytes" ["cgroup", "rule"] "Suggested memory.max; absent until there is one.";
        RECLAIMED = Counter "memctl_cgroup_reclaimed_bytes_total" ["cgroup", "rule"] "Bytes reclaimed by memctl.";
        REFAULTED = Counter "memctl_cgroup_refaulted_bytes_total" ["cgroup", "rule"] "Bytes refaulted: page cache and swap-ins.";
        DIRECT = Counter "memctl_cgroup_direct_reclaimed_bytes_total" ["cgroup", "rule"] "Bytes that its tasks reclaimed in their own time (Linux 6.15 or newer).";
        STALLED = Counter "memctl_cgroup_stalled_seconds_total" ["cgroup", "rule"] "Time for which its tasks were stalled on memory (PSI some).";
        LIMIT_HITS = Counter "memctl_cgroup_limit_hits_total" ["cgroup", "rule"] "Number of samples that found the limit met since the one before; memory.events counts each time.";
        HELD = Gauge "memctl_cgroup_held" ["cgroup", "rule", "guard"] "1 while this guard holds back actions; absent otherwise.";
    }
    "Of memctl stat --prometheus" {
        STAT_USAGE = Gauge "memctl_stat_usage_bytes" ["cgroup"] "Usage (memory.current).";
        STAT_WORKING_SET = Gauge "memctl_stat_working_set_bytes" ["cgroup"] "Usage less inactive page cache, as kubectl top has it.";
        STAT_RECLAIMABLE = Gauge "memctl_stat_reclaimable_bytes" ["cgroup"] "Memory that can be reclaimed, as far as is known: page cache, slab, and anonymous memory that has room in swap.";
        STAT_PROTECTED = Gauge "memctl_stat_protected_bytes" ["cgroup"] "Reclaimable memory that the children keep under their memory.min.";
        STAT_LIMIT = Gauge "memctl_stat_limit_bytes" ["cgroup"] "Limit that leaves least room, the cgroup's own or that of an ancestor; absent without one.";
        STAT_HEADROOM = Gauge "memctl_stat_headroom_bytes" ["cgroup"] "Room below that limit.";
        STAT_SWAP = Gauge "memctl_stat_swap_bytes" ["cgroup"] "Bytes in swap (memory.swap.current).";
        STAT_STALLED = Counter "memctl_stat_stalled_seconds_total" ["cgroup"] "Time for which tasks were stalled on memory (PSI some).";
        STAT_REFAULTED = Counter "memctl_stat_refaulted_bytes_total" ["cgroup"] "Bytes refaulted: page cache and swap-ins.";
        STAT_RECLAIMED = Counter "memctl_stat_reclaimed_bytes_total" ["cgroup"] "Bytes reclaimed by anybody (pgsteal in memory.stat).";
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::GROUPS;

    /// Begin of docs/metrics.md, before the tables.
    const BEGIN: &str = include_str!("names/begin.md");

    /// Returns the text of docs/metrics.md.
    fn page() -> String {
        let mut text = BEGIN.to_owned();
        for group in GROUPS {
            let _ = write!(text, "\n## {}\n\n| metric | type | labels | |\n|---|---|---|---|\n", group.title);
            for metric in group.metrics {
                let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
                let (name, kind, labels) = (metric.name, metric.kind.word(), labels.join(", "));
                let _ = writeln!(text, "| `{name}` | {kind} | {labels} | {} |", metric.help);
            }
        }
        text
    }

    #[test]
    fn the_sample_of_the_tests_has_what_a_watch_tells() {
        let sample = include_str!("../../../tests/prometheus/sample.prom");
        let of_a_watch = GROUPS.iter().flat_map(|group| group.metrics);
        for metric in of_a_watch.filter(|metric| !metric.name.starts_with("memctl_stat_")) {
            let kind = format!("\n# TYPE {} {}\n", metric.name, metric.kind.word());
            assert!(sample.contains(&kind), "{}", metric.name);
        }
    }

    #[test]
    fn the_page_has_what_is_here() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        if std::env::var_os("MEMCTL_BLESS").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let is = std::fs::read(path).unwrap();
        assert!(
            is == page().into_bytes(),
            "docs/metrics.md: outdated: MEMCTL_BLESS=1 cargo test --bin memctl names::"
        );
    }
}
