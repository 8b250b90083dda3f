//! The metrics of a watch, as text.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memctl::host;
use memctl::watch::meter::{CgroupFigures, Figures, RuleFigures};

use super::labels::{more_labels, path_of};
use super::names::{self, Metric};
use super::text::{Encoder, Value};

/// Value of the label `rule` of a watch that has no file of rules.
const COMMAND_LINE: &str = "command line";

/// How the last attempt went to read the rules again.
#[derive(Clone, Copy, Debug)]
pub struct Reloads {
    /// True if it succeeded.
    pub is_successful: bool,
    /// Time of the last success.
    pub at: SystemTime,
    /// Number of rules in force.
    pub rules: usize,
    /// True if the file has changed since; `None` if that can't be seen.
    pub differs: Option<bool>,
}

/// What the engine doesn't know of the watch.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Time of its start.
    pub began: SystemTime,
    /// `None` without a file of rules.
    pub reloads: Option<Reloads>,
}

/// Returns the seconds since 1970.
fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Writes all metrics.
///
/// # Errors
/// The writer's.
pub fn write(to: impl Write, figures: &Figures<'_>, about: About) -> io::Result<()> {
    let mut to = Encoder::new(to);
    let unlike = unlike(figures);
    let told = unlike.iter().filter(|is_told| **is_told).count();
    to.sample(&names::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], &[], true)?;
    to.sample(&names::START_TIME, &[], &[], since_epoch(about.began))?;
    to.sample(&names::DRY_RUN, &[], &[], figures.dry_run)?;
    to.sample(&names::BLOCKED, &[], &[], figures.blocked.unwrap_or_default())?;
    to.sample(&names::LAST_LOOK, &[], &[], since_epoch(SystemTime::now()))?;
    to.sample(&names::CPU, &[], &[], figures.cpu)?;
    if let Some(bytes) = host::resident_of_self() {
        to.sample(&names::RESIDENT, &[], &[], bytes)?;
    }
    if let Some(reloads) = about.reloads {
        to.sample(&names::RELOADED, &[], &[], reloads.is_successful)?;
        to.sample(&names::RELOADED_AT, &[], &[], since_epoch(reloads.at))?;
        to.sample(&names::RULES, &[], &[], reloads.rules)?;
        if let Some(differs) = reloads.differs {
            to.sample(&names::DIFFERS, &[], &[], differs)?;
        }
    }
    to.sample(&names::TOLD, &[], &[], told)?;
    to.sample(&names::LEFT_OUT, &[], &[], figures.watched.saturating_sub(told))?;
    for (metric, value) in RULE_METRICS {
        for (name, rule) in figures.rules {
            if let Some(value) = value(rule) {
                to.sample(metric, &[name.as_deref().unwrap_or(COMMAND_LINE)], &[], value)?;
            }
        }
    }
    for (name, rule) in figures.rules {
        for &(guard, count) in &rule.counters.held {
            to.sample(&names::RULE_HELD, &[name.as_deref().unwrap_or(COMMAND_LINE), guard], &[], count)?;
        }
    }
    for (metric, value) in CGROUP_METRICS {
        each(figures, &unlike, &mut |cgroup, rule, more| {
            let Some(value) = value(cgroup) else { return Ok(()) };
            to.sample(metric, &[cgroup.cgroup, rule], more, value)
        })?;
    }
    each(figures, &unlike, &mut |cgroup, rule, more| {
        let Some(guard) = cgroup.held else { return Ok(()) };
        to.sample(&names::HELD, &[cgroup.cgroup, rule, guard.word()], more, true)
    })?;
    to.flush()
}

type OfRule = fn(&RuleFigures) -> Option<Value>;
type OfCgroup = fn(&CgroupFigures<'_>) -> Option<Value>;

/// Metrics of a rule, and their values.
const RULE_METRICS: &[(&Metric, OfRule)] = &[
    (&names::RULE_CGROUPS, |rule| Some(rule.cgroups.into())),
    (&names::RULE_REQUESTED, |rule| Some(rule.counters.requested.into())),
    (&names::RULE_RECLAIMED, |rule| Some(rule.counters.reclaimed.into())),
    (&names::RULE_REFAULTED, |rule| rule.counters.refaulted.map(Value::from)),
    (&names::RULE_DIRECT, |rule| rule.counters.direct.map(Value::from)),
    (&names::RULE_WRITES, |rule| Some(rule.counters.writes.into())),
    (&names::RULE_WRITE_CPU, |rule| Some(rule.counters.cpu.into())),
    (&names::RULE_WRITE, |rule| Some(rule.counters.writing.into())),
    (&names::RULE_STALLED, |rule| rule.counters.stalled.map(Value::from)),
    (&names::RULE_LIMIT_HITS, |rule| Some(rule.counters.limit_hits.into())),
    (&names::RULE_SAVED, |rule| rule.saved.map(Value::from)),
];

/// Metrics of a cgroup, and their values.
const CGROUP_METRICS: &[(&Metric, OfCgroup)] = &[
    (&names::USAGE, |cgroup| Some(cgroup.current.into())),
    (&names::LIMIT, |cgroup| cgroup.limit.map(Value::from)),
    (&names::KEPT_FREE, |cgroup| cgroup.room.map(|room| room.low.into())),
    (&names::SWAP, |cgroup| cgroup.swapped.map(Value::from)),
    (&names::SAVED, |cgroup| cgroup.saved.and_then(|saved| saved.net()).map(Value::from)),
    (&names::WORKING_SET, |cgroup| cgroup.set.map(|set| set.bytes.into())),
    (&names::CONFIDENCE, |cgroup| cgroup.set.map(|set| set.confidence.into())),
    (&names::SUGGESTED, |cgroup| cgroup.set.and_then(|set| set.suggested).map(Value::from)),
    (&names::RECLAIMED, |cgroup| Some(cgroup.counters.reclaimed.into())),
    (&names::REFAULTED, |cgroup| cgroup.counters.refaulted.map(Value::from)),
    (&names::DIRECT, |cgroup| cgroup.counters.direct.map(Value::from)),
    (&names::STALLED, |cgroup| cgroup.counters.stalled.map(Value::from)),
    (&names::LIMIT_HITS, |cgroup| Some(cgroup.counters.limit_hits.into())),
];

/// Maximum length of the labels of all cgroups, bytes: users who make cgroups choose their names, of
/// up to 4096 bytes, and each is in a dozen series.
const MOST_LABELS: usize = 256 << 10;

/// Returns for each cgroup whether it has series: if no earlier one has the same labels, and these
/// aren't too long. A cgroup that was removed may
/// not be missed yet when another one has its name, and two such series would spoil the whole text.
fn unlike(figures: &Figures<'_>) -> Vec<bool> {
    let (mut seen, mut unlike, state) = (HashSet::new(), Vec::new(), RandomState::new());
    let mut room = MOST_LABELS;
    (figures.cgroups)(&mut |cgroup| {
        // The labels themselves would take much memory.
        let is_unlike = seen.insert(state.hash_one((cgroup.cgroup, cgroup.rule)));
        let path = cgroup.cgroup.path_not_utf8().map_or(0, |path| 3 * path.as_os_str().len());
        let pod = cgroup.cgroup.pod().map_or(0, |pod| pod.label().len());
        let length = cgroup.cgroup.len() + path + pod + cgroup.rule.map_or(0, str::len);
        unlike.push(is_unlike && length <= room);
        room = room.saturating_sub(length);
    });
    unlike
}

/// A cgroup's figures, its rule, and further labels.
type Take<'a> = dyn FnMut(&CgroupFigures<'_>, &str, &[(&str, &str)]) -> io::Result<()> + 'a;

/// Calls back with each cgroup whose labels are unlike those of the others.
fn each(figures: &Figures<'_>, unlike: &[bool], take: &mut Take<'_>) -> io::Result<()> {
    let (mut result, mut unlike) = (Ok(()), unlike.iter());
    (figures.cgroups)(&mut |cgroup| {
        if result.is_ok() && unlike.next() == Some(&true) {
            let path = path_of(cgroup.cgroup);
            let more = more_labels(cgroup.cgroup, path.as_deref());
            result = take(cgroup, cgroup.rule.unwrap_or(COMMAND_LINE), &more);
        }
    });
    result
}
