//! Output of `memctl watch`: a line for each event, and the results at the end.

use std::path::Path;
use std::time::Instant;

use memctl::watch::event::{Event, EventKind, MemberView};
use rustix::fd::BorrowedFd;
use serde::Serialize;

use super::format::{counted, escaped};
use super::json::{Begun, Happened, Reloaded, WatchSummary, usec};
use super::writer::{Form, To, Writer};
use super::{Verbosity, terminal_rows, terminal_width};
use crate::error::Error;

mod dry_run;
mod end;
mod event;
mod live;

use event::{brief, line};
use live::Table;

/// Event output: in lines, or on a terminal in a table that is repainted in place. Nothing here
/// waits for a reader, except at the end.
pub struct WatchScreen {
    began: Instant,
    json: bool,
    silent: bool,
    table: Option<Table>,
    writer: Writer<BorrowedFd<'static>>,
}

impl WatchScreen {
    /// Creates the screen. With `estimate`, only the result is printed.
    pub fn new(json: bool, estimate: bool, loudness: Verbosity) -> Self {
        let live = !json && loudness == Verbosity::Normal && terminal_width().is_some();
        let screen = Self {
            began: Instant::now(),
            json,
            silent: !json && (estimate || loudness == Verbosity::Quiet),
            table: live.then(Table::default),
            writer: Writer::new(if json { Form::Json } else { Form::Text }),
        };
        if json {
            screen.json_line(&Begun::now());
        }
        screen
    }

    /// Returns whether the reader of stdout left, and with it the reason for the watch. To be
    /// called repeatedly: writes what is still waiting, where there is no thread for it.
    pub fn nobody_reads(&self) -> bool {
        self.writer.advance();
        self.writer.is_closed()
    }

    /// Returns whether the screen is a table, which [`show`](Self::show) repaints.
    pub fn is_live(&self) -> bool {
        self.table.is_some()
    }

    /// Repaints the table with the state of all cgroups.
    pub fn show(&mut self, rows: &mut dyn Iterator<Item = MemberView<'_>>) {
        if let Some(table) = &mut self.table {
            let screen = (terminal_width().unwrap_or(80), terminal_rows().unwrap_or(24));
            self.writer.paint(&table.painted(rows, Instant::now(), screen));
        }
    }

    /// Reports a reload of the rules: their number, or the error for which the old ones stay.
    pub fn reloaded(&mut self, file: &Path, rules: Result<usize, &Error>, loudness: Verbosity) {
        let config = file.display().to_string();
        if self.json {
            let error = rules.err().map(|why| format!("{why}"));
            let (at_usec, rules) = (usec(self.began.elapsed()), rules.ok());
            let told = Reloaded { event: "reload", at_usec, config: &config, rules, error };
            self.json_line(&told);
        }
        match rules {
            Ok(count) if !self.json => {
                self.note(&format!("{config}: read again: {}", counted(count, "rule")), loudness);
            }
            Ok(_) => {}
            Err(why) if self.table.is_some() => {
                self.note(&format!("{why}; the old rules stay"), loudness);
            }
            Err(why) => {
                for line in super::error::lines(&why.to_string(), why.hint()) {
                    self.message(&line);
                }
                self.message("memctl: the old rules stay");
            }
        }
    }

    /// Prints a note on no particular cgroup: below the table, which would otherwise be painted
    /// over it, or on standard error.
    pub fn note(&mut self, what: &str, loudness: Verbosity) {
        match &mut self.table {
            Some(table) => table.note(what),
            None if loudness != Verbosity::Quiet => self.message(&format!("memctl: {}", escaped(what))),
            None => {}
        }
    }

    /// Shows an event.
    pub fn event(&mut self, event: &Event<'_>) {
        match &event.what {
            EventKind::Acted(_) => return self.message(&line(event)),
            EventKind::Ended(summary) if self.json => return self.json_line(&WatchSummary::from(&**summary)),
            // The tables at the end have it.
            EventKind::Ended(_) => return,
            _ => {}
        }
        if let Some(table) = &mut self.table {
            return table.remember(event, brief(&event.what));
        }
        if self.silent {
            return;
        }
        if self.json {
            self.json_line(&Happened::from(event));
        } else {
            self.writer.push(To::Stdout, &(line(event) + "\n"));
        }
    }

    fn json_line(&self, event: &impl Serialize) {
        self.writer.push(To::Stdout, &(serde_json::to_string(event).unwrap_or_default() + "\n"));
    }

    fn message(&self, line: &str) {
        self.writer.push(To::Stderr, &format!("{line}\n"));
    }
}
