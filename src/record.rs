//! A record of a watch, read again: the output of `memctl watch --json`, a line for each event.
//!
//! A record comes from the user, and may contain anything: it is read line by line, the data kept
//! is bounded, and JSON that can't be parsed is refused with its position. Lines that were cut
//! off, by a full disk or a sudden end of the watch, are passed over and counted, and so is text that
//! isn't JSON.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

mod course;
mod error;
mod line;

pub use course::{Course, Point, RecordedOutcome};
pub use error::RecordError;
use line::RecordLine;
pub use line::{Read, read as read_line};

/// Version of the format that is written. 0 had neither `begin` nor `sample`.
pub const VERSION: u64 = 1;

/// Maximum number of cgroups in a record, and of points kept for all of them together.
const MOST_CGROUPS: usize = 20_000;
const MOST_POINTS: usize = 400_000;

/// Maximum number of bytes in the names of cgroups and rules, and of marks for met limits, kept for
/// all cgroups together.
const MOST_NAME_BYTES: usize = 64 << 20;
const MOST_MARKS: usize = 400_000;

/// Initial distance between points, in seconds, below which they are merged when too many are kept;
/// then twice that.
const FIRST_GAP: f64 = 0.25;

/// Record of a watch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Version of the format.
    pub version: u64,
    /// Start of the watch in seconds since 1970, if recorded.
    pub started: Option<f64>,
    /// Course of each cgroup, in order of appearance.
    pub courses: Vec<Course>,
    /// Duration of the watch in seconds.
    pub span: f64,
    /// CPU time of the whole process in seconds, if the watch ran to its end.
    pub cpu: Option<f64>,
    /// True for a dry run, which writes nothing.
    pub dry_run: bool,
    /// Number of watches recorded one after the other. This is the last of them.
    pub runs: u32,
    /// True if the last line is cut off.
    pub is_cut: bool,
    /// Number of other lines that are cut off.
    pub torn: u32,
    /// Number of lines of text that aren't JSON, in the whole file.
    pub foreign: u32,
    /// Number of events that the watch dropped, because they weren't read in time.
    pub dropped: u64,
}

/// Opens a record, or standard input for `-`.
///
/// # Errors
/// The system's.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(BufReader::new(File::open(path)?)))
}

/// Reader of a record.
#[derive(Default)]
struct Reader {
    record: Record,
    /// Index of each cgroup by name, and by path where the name isn't UTF-8: several such names may
    /// look alike.
    places: HashMap<(String, Option<String>), usize>,
    points: usize,
    name_bytes: usize,
    marks: usize,
    gap: f64,
}

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn read(mut from: impl BufRead) -> Result<Self, RecordError> {
        let mut reader = Reader::default();
        let (mut number, mut foreign) = (0, 0u32);
        loop {
            number += 1;
            match read_line(&mut from, number)? {
                Read::End => break,
                Read::Blank => {}
                Read::Text => foreign = foreign.saturating_add(1),
                Read::Cut => reader.record.is_cut = true,
                Read::Torn => reader.record.torn = reader.record.torn.saturating_add(1),
                // The end of an earlier watch, which doesn't count, is often cut off.
                Read::AfterTorn(line) => {
                    reader.record.torn = reader.record.torn.saturating_add(1);
                    reader.enter(&line, number)?;
                }
                Read::Line(line) => reader.enter(&line, number)?,
            }
        }
        let mut record = reader.record;
        record.foreign = foreign;
        record.courses.retain(|course| !course.points.is_empty());
        for course in &record.courses {
            record.span = record.span.max(course.points.last().map_or(0.0, |point| point.at));
        }
        match record.courses.is_empty() {
            true if number == 1 => Err(RecordError::Empty),
            true if foreign > 0 => Err(RecordError::Text),
            true => Err(RecordError::Nothing),
            false => Ok(record),
        }
    }

    /// Returns the course of all cgroups together, at `looks` points in time: their usage and
    /// counts in all. The stall is that of the cgroup stalled most at the time; there is a limit
    /// only if each cgroup has one.
    #[must_use]
    pub fn together(&self, looks: usize) -> Course {
        course::together(&self.courses, self.span, looks)
    }
}

impl Reader {
    fn enter(&mut self, line: &RecordLine, number: usize) -> Result<(), RecordError> {
        let at = line.at_usec as f64 / 1e6;
        match line.event.as_str() {
            "begin" => {
                *self = Self {
                    record: Record { runs: self.record.runs, ..Record::default() },
                    ..Self::default()
                };
                self.record.runs = self.record.runs.saturating_add(1);
                self.record.version = line.version.unwrap_or(VERSION);
                self.record.started = line.started_usec.map(|usec| usec as f64 / 1e6);
                return Ok(());
            }
            "end" => {
                self.record.span = self.record.span.max(at);
                self.record.cpu = line.total_cpu_usec.map(|usec| usec as f64 / 1e6);
                self.record.dry_run = line.dry_run.unwrap_or(false);
                return Ok(());
            }
            "dropped" => {
                let more = line.dropped_events.unwrap_or(0);
                self.record.dropped = self.record.dropped.saturating_add(more);
                return Ok(());
            }
            _ => {}
        }
        // Lines without a cgroup concern the watch as a whole, or are of a later version.
        let Some(name) = &line.cgroup else { return Ok(()) };
        let key = (name.clone(), line.path_bytes.clone());
        let refused = |what: String| Err(RecordError::Line { line: number, column: 1, what });
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        if line.event == "start" {
            self.name_bytes += length(&line.rule);
        }
        let place = match self.places.get(&key) {
            Some(&place) => place,
            None if self.places.len() >= MOST_CGROUPS => {
                return refused(format!("the record has more than {MOST_CGROUPS} cgroups"));
            }
            None => {
                // As a key, too.
                let pod = line.pod_names();
                self.name_bytes += 2 * (name.len() + length(&line.path_bytes)) + length(&pod);
                let mut course = Course::named(name.clone());
                course.pod = pod;
                course.path_bytes.clone_from(&line.path_bytes);
                self.record.courses.push(course);
                self.places.insert(key, self.record.courses.len() - 1);
                self.record.courses.len() - 1
            }
        };
        if self.name_bytes > MOST_NAME_BYTES {
            return refused(format!("the names in the record have more than {} MiB", MOST_NAME_BYTES >> 20));
        }
        let course = &mut self.record.courses[place];
        let marks = course.outrun.len();
        self.points += course.enter(line, at, self.gap);
        self.marks += course.outrun.len() - marks;
        if self.marks > MOST_MARKS {
            self.marks -= course.outrun.pop().iter().count();
        }
        while self.points > MOST_POINTS {
            self.gap = (self.gap * 2.0).max(FIRST_GAP);
            self.points = self.record.courses.iter_mut().map(|course| course.thin(self.gap)).sum();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
