//! Sums of one record, which is read line by line: only cgroups without a summary so far are kept.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::BufRead;

use memctl::record::{Read, RecordError, VERSION, read_line};

use crate::life::{Life, Line};
use crate::sums::{Sums, SumsByName};

/// Maximum number of cgroups without a summary, of bytes in their names, and of watches in a record.
const MAX_CGROUPS: usize = 20_000;
const MAX_NAME_BYTES: usize = 64 << 20;
const MAX_RUNS: usize = 100_000;

/// Sums of a record, or of one watch in it.
#[derive(Debug, Default)]
pub struct RecordSums {
    pub all: Sums,
    pub rules: SumsByName,
    pub namespaces: SumsByName,
    /// Duration of the watches.
    pub span_usec: u64,
    /// CPU time of memctl and the duration of the watches that ran to their end.
    pub total_cpu_usec: u64,
    pub ended_usec: u64,
    /// True if the last watch ran to its end.
    pub has_end: bool,
    pub is_dry_run: bool,
    /// Number of lines that are cut off, and of events that the watch dropped.
    pub torn: u64,
    pub dropped: u64,
    /// Watches, each by a hash of its beginning.
    pub runs: HashSet<u64>,
    /// Hashes of watches that were counted already.
    pub repeated: Vec<u64>,
}

/// One watch while its lines are read.
#[derive(Default)]
struct Run {
    has_begun: bool,
    started_usec: Option<u64>,
    /// First line of a cgroup, hashed.
    first: Option<u64>,
    sums: RecordSums,
    living: HashMap<Key, Life>,
    /// Cgroups that are over, whose name others have by now: their summaries are still to come.
    leaving: HashMap<Key, Life>,
    name_bytes: usize,
}

/// Name of a cgroup, and its path where the name isn't UTF-8.
type Key = (String, Option<String>);

/// Reads a record. `is_counted` tells whether a watch was in an earlier record.
pub fn read(mut from: impl BufRead, is_counted: &dyn Fn(u64) -> bool) -> Result<RecordSums, RecordError> {
    let mut record = RecordSums::default();
    let mut run = Run::default();
    let (mut number, mut has_text, mut has_lines) = (0, false, false);
    loop {
        number += 1;
        let line = match read_line::<Line>(&mut from, number)? {
            Read::End => break,
            Read::Blank => continue,
            Read::Text => {
                has_text = true;
                continue;
            }
            Read::Cut | Read::Torn => {
                record.torn += 1;
                continue;
            }
            Read::AfterTorn(line) => {
                record.torn += 1;
                line
            }
            Read::Line(line) => line,
        };
        has_lines |= line.event == "begin" || line.cgroup.is_some();
        let entered = if line.event == "begin" {
            let next = Run { has_begun: true, started_usec: line.started_usec, ..Run::default() };
            let earlier = std::mem::replace(&mut run, next);
            record.close(earlier, is_counted).and_then(|()| check_version(line.version.unwrap_or(VERSION)))
        } else {
            run.enter(&line)
        };
        entered.map_err(|what| RecordError::Line { line: number, column: 1, what })?;
    }
    let closed = record.close(run, is_counted);
    closed.map_err(|what| RecordError::Line { line: number, column: 1, what })?;
    match has_lines {
        true => Ok(record),
        false if number == 1 => Err(RecordError::Empty),
        false if has_text => Err(RecordError::Text),
        false => Err(RecordError::Nothing),
    }
}

impl RecordSums {
    /// Adds a watch that is over, unless it was counted.
    fn close(&mut self, mut run: Run, is_counted: &dyn Fn(u64) -> bool) -> Result<(), String> {
        if !run.has_begun && run.first.is_none() {
            return Ok(());
        }
        let lives: Vec<Life> = run.living.drain().chain(run.leaving.drain()).map(|(_, life)| life).collect();
        for life in lives {
            run.sums.add(&life.cut())?;
        }
        let mut hasher = DefaultHasher::new();
        (run.started_usec, run.first).hash(&mut hasher);
        if run.started_usec.is_none() {
            // Without a time, watches of two hosts may begin alike.
            let all = &run.sums.all;
            (run.sums.span_usec, all.reclaimed_bytes, all.stalled_usec, all.cpu_usec).hash(&mut hasher);
        }
        let identity = hasher.finish();
        if is_counted(identity) || self.runs.contains(&identity) {
            self.repeated.push(identity);
            return Ok(());
        }
        if self.runs.len() >= MAX_RUNS {
            return Err(format!("the record has more than {MAX_RUNS} watches"));
        }
        self.runs.insert(identity);
        // An earlier watch saves nothing any more.
        self.all.net_saved_bytes = None;
        self.rules.forget_saved();
        self.namespaces.forget_saved();
        self.merge(&run.sums)
    }

    /// Adds the sums of a watch.
    fn merge(&mut self, run: &Self) -> Result<(), String> {
        self.all.add(&run.all);
        if !self.rules.add_all(&run.rules) || !self.namespaces.add_all(&run.namespaces) {
            return Err(TOO_MANY_NAMES.into());
        }
        self.span_usec = self.span_usec.saturating_add(run.span_usec);
        self.total_cpu_usec = self.total_cpu_usec.saturating_add(run.total_cpu_usec);
        self.ended_usec = self.ended_usec.saturating_add(run.ended_usec);
        self.has_end = run.has_end;
        self.is_dry_run |= run.is_dry_run;
        self.dropped = self.dropped.saturating_add(run.dropped);
        Ok(())
    }

    /// Adds a cgroup whose watch is over.
    fn add(&mut self, life: &Life) -> Result<(), String> {
        self.all.add(life.sums());
        let is_added = self.rules.add(life.rule.as_deref(), life.sums())
            && self.namespaces.add(life.namespace.as_deref(), life.sums());
        is_added.then_some(()).ok_or_else(|| TOO_MANY_NAMES.into())
    }
}

/// Description of an error.
pub const TOO_MANY_NAMES: &str = "too many names of rules or namespaces";

/// Refuses a later version of the format: within a version, keys keep their meaning.
fn check_version(version: u64) -> Result<(), String> {
    match version {
        ..=VERSION => Ok(()),
        _ => Err(format!("version {version} of the format is newer than {VERSION}")),
    }
}

impl Run {
    /// Enters a line other than the first.
    fn enter(&mut self, line: &Line) -> Result<(), String> {
        self.sums.span_usec = self.sums.span_usec.max(line.at_usec);
        match line.event.as_str() {
            "end" => {
                self.sums.has_end = true;
                self.sums.is_dry_run |= line.dry_run.unwrap_or(false);
                self.sums.total_cpu_usec = line.total_cpu_usec.unwrap_or(0);
                self.sums.ended_usec = line.total_watched_usec.unwrap_or(line.at_usec);
                self.sums.dropped = line.dropped_events.unwrap_or(0).max(self.sums.dropped);
                return Ok(());
            }
            "dropped" => {
                let more = line.dropped_events.unwrap_or(0);
                self.sums.dropped = self.sums.dropped.saturating_add(more);
                return Ok(());
            }
            "would_reclaim" => self.sums.is_dry_run = true,
            _ => {}
        }
        let Some(cgroup) = &line.cgroup else { return Ok(()) };
        if self.first.is_none() {
            let mut hasher = DefaultHasher::new();
            (&line.event, line.at_usec, cgroup, line.current_bytes).hash(&mut hasher);
            self.first = Some(hasher.finish());
        }
        let key = (cgroup.clone(), line.path_bytes.clone());
        if line.event == "summary" {
            let known = self.leaving.remove(&key).or_else(|| self.living.remove(&key));
            if known.is_some() {
                self.name_bytes -= bytes(&key);
            }
            return self.sums.add(&known.unwrap_or_else(|| Life::begin(line)).summed(line));
        }
        if line.event == "start" && self.living.get(&key).is_some_and(|life| life.is_over) {
            let over = self.living.remove(&key);
            if let Some(earlier) = over.and_then(|over| self.leaving.insert(key.clone(), over)) {
                self.name_bytes -= bytes(&key);
                self.sums.add(&earlier.cut())?;
            }
        }
        if !self.living.contains_key(&key) {
            self.name_bytes += bytes(&key);
            if self.living.len() + self.leaving.len() >= MAX_CGROUPS || self.name_bytes > MAX_NAME_BYTES {
                return Err(format!("more than {MAX_CGROUPS} cgroups, or too long names, without a summary"));
            }
        }
        self.living.entry(key).or_insert_with(|| Life::begin(line)).enter(line);
        Ok(())
    }
}

/// Returns the size of a name in bytes.
fn bytes((cgroup, path): &Key) -> usize {
    cgroup.len() + path.as_ref().map_or(0, String::len)
}
