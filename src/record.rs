//! A record of a watch, read again: what `memctl watch --json` wrote, a line for each event.
//!
//! A record is somebody's, and may be anything: it is read line by line, what is kept is bounded, and what can't be
//! understood is refused with its place. What a full disk cut off in the middle of its last line is read as far as it goes.

use std::collections::HashMap;
use std::io::BufRead;

mod course;
mod error;
mod line;

pub use course::{Course, Point, RecordedOutcome};
pub use error::RecordError;
use line::{Read, RecordLine};

/// The version of the format that is written. 0 had neither `begin` nor `sample`.
pub const VERSION: u64 = 1;

/// How many cgroups a record may have, and how many points are kept of all of them together.
const MOST_CGROUPS: usize = 20_000;
const MOST_POINTS: usize = 400_000;

/// When too many points are kept, those that are so near to each other become one; then twice that. Seconds.
const FIRST_GAP: f64 = 0.25;

/// What a watch did and saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The version of its format.
    pub version: u64,
    /// When it began, seconds since 1970, if it says so.
    pub started: Option<f64>,
    /// What became of each cgroup, in the order in which they came.
    pub courses: Vec<Course>,
    /// How long it watched, seconds.
    pub span: f64,
    /// CPU time of the whole process, seconds, if it came to its end.
    pub cpu: Option<f64>,
    /// Nothing was written.
    pub dry_run: bool,
    /// How many watches were recorded one after the other. This is the last of them.
    pub runs: u32,
    /// Its last line is cut off.
    pub is_cut: bool,
}

/// Reads a record as it comes.
#[derive(Default)]
struct Reader {
    record: Record,
    /// By name, and by the path where the name is no text: then others may read alike.
    places: HashMap<(String, Option<String>), usize>,
    points: usize,
    gap: f64,
}

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn read(mut from: impl BufRead) -> Result<Self, RecordError> {
        let mut reader = Reader::default();
        let mut number = 0;
        loop {
            number += 1;
            match line::read(&mut from, number)? {
                Read::End => break,
                Read::Blank => {}
                Read::Cut => reader.record.is_cut = true,
                Read::Line(line) => reader.enter(&line, number)?,
            }
        }
        let mut record = reader.record;
        record.courses.retain(|course| !course.points.is_empty());
        for course in &record.courses {
            record.span = record.span.max(course.points.last().map_or(0.0, |point| point.at));
        }
        match record.courses.is_empty() {
            true if number == 1 => Err(RecordError::Empty),
            true => Err(RecordError::Nothing),
            false => Ok(record),
        }
    }

    /// All of its cgroups together, looked at so many times: what they use and what was done in all. They are stalled as
    /// much as the one that is most at the time; a limit of all there is only if each has one.
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
            _ => {}
        }
        // Without a cgroup: of the watch as a whole, or of a later version.
        let Some(name) = &line.cgroup else { return Ok(()) };
        let key = (name.clone(), line.path_bytes.clone());
        let place = match self.places.get(&key) {
            Some(&place) => place,
            None if self.places.len() >= MOST_CGROUPS => {
                let what = format!("the record has more than {MOST_CGROUPS} cgroups");
                return Err(RecordError::Line { line: number, column: 1, what });
            }
            None => {
                let mut course = Course::named(name.clone());
                course.path_bytes.clone_from(&line.path_bytes);
                self.record.courses.push(course);
                self.places.insert(key, self.record.courses.len() - 1);
                self.record.courses.len() - 1
            }
        };
        self.points += self.record.courses[place].enter(line, at, self.gap);
        while self.points > MOST_POINTS {
            self.gap = (self.gap * 2.0).max(FIRST_GAP);
            self.points = self.record.courses.iter_mut().map(|course| course.thin(self.gap)).sum();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
