//! A group of nodes: the sums of their records.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::reader::{self, RecordSums, TOO_MANY_NAMES};
use crate::sums::{Sums, SumsByName};

/// Watches counted so far, and the record that each was in.
pub type Counted = HashMap<u64, PathBuf>;

/// Sums of the records of a group of nodes.
#[derive(Debug, Default)]
pub struct Pool {
    /// Number of records, of those whose last watch ran to its end, and of dry runs.
    pub records: u64,
    pub ended_records: u64,
    pub dry_runs: u64,
    /// Number of files that couldn't be read, or contain nothing that wasn't counted.
    pub left_out: u64,
    pub all: Sums,
    pub rules: SumsByName,
    pub namespaces: SumsByName,
    pub span_usec: u64,
    pub total_cpu_usec: u64,
    pub ended_usec: u64,
    pub dropped: u64,
    /// Share of the time for which the cgroups of each record were stalled.
    pub stalled_ratios: Vec<f64>,
    /// Record with the largest share, and that share.
    pub most_stalled: Option<(f64, PathBuf)>,
}

impl Pool {
    /// Adds a record. Reports on `note` what is no error, such as a watch that was counted before.
    ///
    /// # Errors
    /// The file can't be read, or not in whole: nothing of it is added.
    pub fn add(
        &mut self,
        path: &Path,
        counted: &mut Counted,
        note: &mut dyn FnMut(&str),
    ) -> Result<(), String> {
        let name = path.display();
        let read = memctl::record::open(path)
            .map_err(|why| format!("{name}: {}", without_number(&why)))
            .and_then(|open| {
                reader::read(open, &|run| counted.contains_key(&run)).map_err(|why| match why {
                    memctl::record::RecordError::Line { .. } => format!("{name}:{why}"),
                    memctl::record::RecordError::Io(why) => format!("{name}: {}", without_number(&why)),
                    _ => format!("{name}: {why}"),
                })
            });
        let record = read.inspect_err(|_| self.left_out += 1)?;
        for run in &record.repeated {
            let earlier = counted.get(run).map_or(path, PathBuf::as_path).display();
            note(&format!("{name}: has a watch of {earlier}, which counts once"));
        }
        if record.runs.is_empty() {
            self.left_out += 1;
            return Ok(());
        }
        self.merge(path, &record)
            .map_err(|why| format!("{name}: {why}"))
            .inspect_err(|_| self.left_out += 1)?;
        if record.torn > 0 {
            note(&format!("{name}: {} lines are cut off", record.torn));
        }
        counted.extend(record.runs.iter().map(|&run| (run, path.to_owned())));
        Ok(())
    }

    /// Adds the sums of a record.
    fn merge(&mut self, path: &Path, record: &RecordSums) -> Result<(), &'static str> {
        if !self.rules.has_room(&record.rules) || !self.namespaces.has_room(&record.namespaces) {
            return Err(TOO_MANY_NAMES);
        }
        self.rules.add_all(&record.rules);
        self.namespaces.add_all(&record.namespaces);
        self.all.add(&record.all);
        self.records += 1;
        self.ended_records += u64::from(record.has_end);
        self.dry_runs += u64::from(record.is_dry_run);
        self.span_usec = self.span_usec.saturating_add(record.span_usec);
        self.total_cpu_usec = self.total_cpu_usec.saturating_add(record.total_cpu_usec);
        self.ended_usec = self.ended_usec.saturating_add(record.ended_usec);
        self.dropped = self.dropped.saturating_add(record.dropped);
        if let Some(ratio) = record.all.stalled_ratio() {
            self.stalled_ratios.push(ratio);
            if self.most_stalled.as_ref().is_none_or(|(most, _)| ratio > *most) {
                self.most_stalled = Some((ratio, path.to_owned()));
            }
        }
        Ok(())
    }

    /// Returns the median of the records' shares of stalled time.
    pub fn median_stalled(&self) -> Option<f64> {
        let mut ratios = self.stalled_ratios.clone();
        ratios.sort_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied()
    }
}

/// Returns the text of an error without the system's number.
fn without_number(why: &std::io::Error) -> String {
    let text = why.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
