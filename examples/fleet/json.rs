//! The sums as JSON: an object per line.

use std::path::Path;

use serde::Serialize;

use crate::pool::Pool;
use crate::sums::Sums;

/// A line: the sums of a rule, of a namespace, or of all cgroups of a group of nodes.
#[derive(Serialize)]
struct Line<'a> {
    /// `rule`, `namespace` or `all`.
    sum: &'static str,
    /// `base` or `versus`.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'static str>,
    /// Null for the cgroups without a rule or namespace, and for all.
    name: Option<&'a str>,
    #[serde(flatten)]
    sums: &'a Sums,
    #[serde(flatten)]
    of: Option<Records<'a>>,
}

/// Keys of all cgroups.
#[allow(clippy::struct_field_names, reason = "the names are the keys")]
#[derive(Serialize)]
struct Records<'a> {
    records: u64,
    ended_records: u64,
    dry_runs: u64,
    left_out: u64,
    dropped_events: u64,
    span_usec: u64,
    /// CPU time of memctl, and duration of the watches that it is known of.
    total_cpu_usec: u64,
    ended_usec: u64,
    median_stalled_ratio: Option<f64>,
    most_stalled_ratio: Option<f64>,
    most_stalled_record: Option<std::borrow::Cow<'a, str>>,
}

/// Returns the lines of a group of nodes.
pub fn lines(pool: &Pool, group: Option<&'static str>) -> serde_json::Result<String> {
    let mut text = String::new();
    let mut push = |line: &Line<'_>| -> serde_json::Result<()> {
        text += &serde_json::to_string(line)?;
        text.push('\n');
        Ok(())
    };
    for (name, sums) in pool.rules.iter() {
        push(&Line { sum: "rule", group, name, sums, of: None })?;
    }
    for (name, sums) in pool.namespaces.iter().filter(|_| pool.namespaces.has_names()) {
        push(&Line { sum: "namespace", group, name, sums, of: None })?;
    }
    let most = pool.most_stalled.as_ref();
    let of = Records {
        records: pool.records,
        ended_records: pool.ended_records,
        dry_runs: pool.dry_runs,
        left_out: pool.left_out,
        dropped_events: pool.dropped,
        span_usec: pool.span_usec,
        total_cpu_usec: pool.total_cpu_usec,
        ended_usec: pool.ended_usec,
        median_stalled_ratio: pool.median_stalled(),
        most_stalled_ratio: most.map(|(ratio, _)| *ratio),
        most_stalled_record: most.map(|(_, path)| Path::to_string_lossy(path)),
    };
    push(&Line { sum: "all", group, name: None, sums: &pool.all, of: Some(of) })?;
    Ok(text)
}
