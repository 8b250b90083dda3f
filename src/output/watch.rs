//! Output of `memctl watch`: a line for each event, and the results at the end.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use memctl::watch::event::{Event, EventKind, MemberView};

use super::format::{counted, escaped};
use super::json::{Begun, Happened, Reloaded, usec};
use super::{Verbosity, print_more, terminal_rows, terminal_width};
use crate::error::{Error, Result};

mod dry_run;
mod end;
mod event;
mod live;

pub use end::print;
use event::{brief, line};
use live::Table;

/// Set once stdout has no reader any more.
static DEAF: AtomicBool = AtomicBool::new(false);

/// Returns whether the reader of stdout is gone.
pub fn nobody_reads() -> bool {
    DEAF.load(Ordering::Relaxed)
}

/// Event output: in lines, or on a terminal in a table that is repainted in place.
pub struct WatchScreen {
    began: Instant,
    json: bool,
    silent: bool,
    table: Option<Table>,
}

impl WatchScreen {
    /// Creates the screen. With `estimate`, only the result is printed.
    pub fn new(json: bool, estimate: bool, loudness: Verbosity) -> Self {
        let live = !json && loudness == Verbosity::Normal && terminal_width().is_some();
        if json {
            heard(&print_more(&(serde_json::to_string(&Begun::now()).unwrap_or_default() + "\n")));
        }
        Self {
            began: Instant::now(),
            json,
            silent: !json && (estimate || loudness == Verbosity::Quiet),
            table: live.then(Table::default),
        }
    }

    /// Returns whether the screen is a table, which [`show`](Self::show) repaints.
    pub fn is_live(&self) -> bool {
        self.table.is_some()
    }

    /// Repaints the table with the state of all cgroups.
    pub fn show(&mut self, rows: &mut dyn Iterator<Item = MemberView<'_>>) {
        if let Some(table) = &mut self.table {
            let screen = (terminal_width().unwrap_or(80), terminal_rows().unwrap_or(24));
            heard(&print_more(&table.painted(rows, Instant::now(), screen)));
        }
    }

    /// Reports a reload of the rules: their number, or the error for which the old ones stay.
    pub fn reloaded(&mut self, file: &Path, rules: Result<usize, &Error>, loudness: Verbosity) {
        let config = file.display().to_string();
        if self.json {
            let error = rules.err().map(|why| format!("{why}"));
            let (at_usec, rules) = (usec(self.began.elapsed()), rules.ok());
            let told = Reloaded { event: "reload", at_usec, config: &config, rules, error };
            heard(&print_more(&(serde_json::to_string(&told).unwrap_or_default() + "\n")));
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
                super::error::print(why);
                super::eprint_line("memctl: the old rules stay");
            }
        }
    }

    /// Prints a note on no particular cgroup: below the table, which would otherwise be painted
    /// over it, or on standard error.
    pub fn note(&mut self, what: &str, loudness: Verbosity) {
        match &mut self.table {
            Some(table) => table.note(what),
            None if loudness != Verbosity::Quiet => super::eprint_line(&format!("memctl: {}", escaped(what))),
            None => {}
        }
    }

    /// Shows an event.
    pub fn event(&mut self, event: &Event<'_>) {
        if let EventKind::Acted(_) = event.what {
            return super::eprint_line(&line(event));
        }
        if let Some(table) = &mut self.table {
            return table.remember(event, brief(&event.what));
        }
        if self.silent {
            return;
        }
        let line = if self.json {
            serde_json::to_string(&Happened::from(event)).unwrap_or_default()
        } else {
            line(event)
        };
        heard(&print_more(&(line + "\n")));
    }
}

fn heard(written: &Result<bool>) {
    if !matches!(written, Ok(true)) {
        DEAF.store(true, Ordering::Relaxed);
    }
}
