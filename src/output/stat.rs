//! Output of `memctl stat`: a row for each cgroup, in as many columns as fit, or a page on a single
//! one.

use std::fmt::Write;

use super::json::Stated;
use super::metrics;
use super::table::{DIM, labelled};
use super::{print_exactly, print_more, terminal_rows, terminal_width};
use crate::cli::Stat;
use crate::error::{Error, Result};
use crate::output::view::StatView;

mod details;
mod page;
mod rows;

/// The screen for one or several samples.
pub struct StatScreen<'a> {
    args: &'a Stat,
    /// True if there is more than one sample.
    again: bool,
    /// True if each sample replaces the one before, as on a terminal; otherwise samples are
    /// appended.
    repaint: bool,
    shown: bool,
}

impl<'a> StatScreen<'a> {
    pub fn new(args: &'a Stat, again: bool) -> Self {
        Self { args, again, shown: false, repaint: again && !args.json && terminal_width().is_some() }
    }

    /// Shows a sample. Returns whether the reader is still there.
    pub fn show(&mut self, view: &StatView) -> Result<bool> {
        let text = self.text(view)?;
        self.shown = true;
        if self.args.prometheus {
            return print_exactly(&text);
        }
        if !self.repaint {
            return print_more(&text);
        }
        // Move the cursor home, and clear what follows. Lines that don't fit would scroll the rest
        // away.
        let rows = usize::from(terminal_rows().unwrap_or(24).saturating_sub(1)).max(1);
        let lines: Vec<_> = text.lines().collect();
        let cut = if lines.len() > rows { lines.len() - (rows - 1) } else { 0 };
        let mut fitting = lines[..lines.len() - cut].join("\n");
        if cut > 0 {
            let _ = write!(fitting, "\n{DIM}... {cut} more lines{DIM:#}");
        }
        print_more(&format!("\u{1b}[H\u{1b}[J{fitting}\n"))
    }

    fn text(&self, view: &StatView) -> Result<String> {
        let args = self.args;
        if args.json {
            let lines =
                view.rows().iter().map(|shown| Ok(serde_json::to_string(&Stated::from(shown))? + "\n"));
            return lines.collect();
        }
        if args.prometheus {
            return metrics::stat::text(view.rows()).map_err(|e| Error::io("metrics", &e));
        }
        let width = terminal_width();
        Ok(match view {
            StatView::Page(shown) if !self.again || self.repaint => {
                let size = |bytes| if args.bytes { format!("{bytes}") } else { super::format::size(bytes) };
                labelled(&page::lines(shown, &size), width.unwrap_or(u16::MAX))
            }
            // One line per sample, like vmstat; with several rows, a blank line between samples.
            _ => {
                let rows = view.rows();
                let legend = !(args.no_legend || self.shown && rows.len() == 1);
                let gap = if self.shown && rows.len() > 1 && !self.repaint { "\n" } else { "" };
                gap.to_owned() + &rows::table(rows, args, self.again, legend, width)
            }
        })
    }
}
