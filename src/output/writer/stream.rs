//! One of the two outputs: lines that wait, lines that were dropped, and errors of writing.

use std::io::Write as _;
use std::time::Duration;

use rustix::io::Errno;

use super::ring::Ring;
use crate::output::json::{Dropped, usec};

/// Time until writing is tried again after an error: doubled each time, up to a maximum.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(60);

/// The same where the output doesn't block and has no room.
const NO_ROOM: Duration = Duration::from_millis(10);

/// Form of the lines of a stream, in which dropped ones are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON.
    Json,
    /// Text lines that begin with the time.
    Text,
    /// Messages that begin with the name of the program.
    Messages,
}

/// Result of an attempt to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Bytes were written, or the attempt is to be repeated.
    Going,
    /// Writing failed, for the first time since it last succeeded.
    Failed(Errno),
    /// The reader left, and with it the reason to write.
    Closed,
}

/// An error of writing.
#[derive(Clone, Copy)]
struct Failure {
    errno: Errno,
    /// Time of the next attempt.
    until: Duration,
    delay: Duration,
}

/// An output.
pub struct Stream {
    ring: Ring,
    form: Form,
    /// Time from which reports of dropped lines count.
    began: Duration,
    /// Lines dropped in all, and those of them that weren't reported yet.
    dropped: u64,
    unreported: u64,
    /// Bytes written in all.
    written: u64,
    failure: Option<Failure>,
    closed: bool,
}

impl Stream {
    /// Creates an output with a ring of this capacity in bytes.
    pub fn new(form: Form, capacity: usize, began: Duration) -> Self {
        Self {
            ring: Ring::new(capacity),
            form,
            began,
            dropped: 0,
            unreported: 0,
            written: 0,
            failure: None,
            closed: false,
        }
    }

    /// Adds a line, or drops it and counts it.
    pub fn push(&mut self, number: u64, now: Duration, line: &[u8]) {
        if !self.try_push(number, now, line) {
            self.dropped += 1;
            self.unreported += 1;
        }
    }

    /// Adds a line, if there is room. Returns whether there was.
    pub fn try_push(&mut self, number: u64, now: Duration, line: &[u8]) -> bool {
        // After the reader left, nothing is missed.
        self.closed || self.report(number, now) && self.ring.push(number, line)
    }

    /// Reports dropped lines, as soon as half of the ring is free: a slow reader then gets runs of
    /// lines, and not a report after each. Returns whether all are reported.
    fn report(&mut self, number: u64, now: Duration) -> bool {
        if self.unreported == 0 {
            return true;
        }
        if self.ring.used() > self.ring.capacity() / 2 {
            return false;
        }
        let mut line = [0; 160];
        let length = self.dropped_line(now, &mut line).unwrap_or(0);
        if self.ring.push(number, &line[..length]) {
            self.unreported = 0;
        }
        self.unreported == 0
    }

    /// Formats the report of dropped lines. Allocates nothing: the writer's thread needs no heap.
    fn dropped_line(&self, now: Duration, mut line: &mut [u8]) -> Option<usize> {
        let room = line.len();
        let (at, dropped) = (now.saturating_sub(self.began), self.unreported);
        let lines = if dropped == 1 { "line" } else { "lines" };
        match self.form {
            Form::Json => {
                serde_json::to_writer(&mut line, &Dropped::new(usec(at), dropped)).ok()?;
                writeln!(line).ok()?;
            }
            Form::Text => {
                writeln!(line, "{:>8.1}s  {dropped} {lines} dropped here", at.as_secs_f64()).ok()?;
            }
            Form::Messages => writeln!(line, "memctl: {dropped} {lines} dropped here").ok()?,
        }
        Some(room - line.len())
    }

    /// Copies the bytes to write next, at most to the end of the line. Returns their number.
    pub fn peek(&self, into: &mut [u8]) -> usize {
        self.ring.peek(into)
    }

    /// Returns the number of the next line, if one is to be written now.
    pub fn due(&self, now: Duration) -> Option<u64> {
        self.ring.number().filter(|_| self.until().is_none_or(|until| until <= now))
    }

    /// Returns the time of the next attempt, where the last one failed and lines are waiting.
    pub fn until(&self) -> Option<Duration> {
        self.failure.filter(|_| !self.ring.is_empty()).map(|failure| failure.until)
    }

    /// Records the result of a write of what [`peek`](Self::peek) returned. `ends` returns whether
    /// a reader that leaves ends the output for good.
    pub fn wrote(
        &mut self,
        number: u64,
        now: Duration,
        result: Result<usize, Errno>,
        ends: impl FnOnce() -> bool,
    ) -> Attempt {
        let errno = match result {
            Ok(0) => Errno::IO,
            Ok(bytes) => {
                self.ring.take(bytes);
                self.written += bytes as u64;
                self.report(number, now);
                // An output that takes a few bytes now and then still fails.
                self.failure = self.failure.filter(|_| !self.ring.is_empty());
                if let Some(failure) = &mut self.failure {
                    failure.until = now;
                }
                return Attempt::Going;
            }
            Err(Errno::INTR) => return Attempt::Going,
            Err(Errno::PIPE) if ends() => {
                self.ring.clear();
                (self.closed, self.failure, self.unreported) = (true, None, 0);
                return Attempt::Closed;
            }
            Err(errno) => errno,
        };
        let before = self.failure;
        if errno == Errno::AGAIN {
            let delay = before.map_or(FIRST_DELAY / 2, |failure| failure.delay);
            self.failure = Some(Failure { errno, until: now + NO_ROOM, delay });
            return Attempt::Going;
        }
        let delay = before.map_or(FIRST_DELAY, |failure| (failure.delay * 2).min(MAX_DELAY));
        self.failure = Some(Failure { errno, until: now + delay, delay });
        match before {
            Some(before) if before.errno == errno => Attempt::Going,
            _ => Attempt::Failed(errno),
        }
    }

    /// Makes the next attempt due at once.
    pub fn hurry(&mut self) {
        if let Some(failure) = &mut self.failure {
            failure.until = Duration::ZERO;
        }
    }

    /// Returns whether no line is waiting.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Returns the number of lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns the number of bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Returns the error of the last attempt, if it failed.
    pub fn error(&self) -> Option<Errno> {
        self.failure.map(|failure| failure.errno)
    }
}
