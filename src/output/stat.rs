//! What `memctl stat` shows: a row for each cgroup, in as many columns as fit, or a page on one.

use std::fmt::Write;

use super::json::Stated;
use super::table::{DIM, labelled};
use super::{print_more, terminal_rows, terminal_width};
use crate::cli::Stat;
use crate::error::Result;
use crate::output::view::StatView;

mod details;
mod page;
mod rows;

/// Where one look after the other is shown.
pub struct StatScreen<'a> {
    args: &'a Stat,
    /// There is more than one look.
    again: bool,
    /// A terminal is repainted; anything else is written on.
    repaint: bool,
    shown: bool,
}

impl<'a> StatScreen<'a> {
    pub fn new(args: &'a Stat, again: bool) -> Self {
        Self { args, again, shown: false, repaint: again && !args.json && terminal_width().is_some() }
    }

    /// Shows a look. Says whether anybody still reads.
    pub fn show(&mut self, view: &StatView) -> Result<bool> {
        let text = self.text(view)?;
        self.shown = true;
        if !self.repaint {
            return print_more(&text);
        }
        // Home, and clear what follows. What doesn't fit would scroll the rest away.
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
        let width = terminal_width();
        Ok(match view {
            StatView::Page(shown) if !self.again || self.repaint => {
                let size = |bytes| if args.bytes { format!("{bytes}") } else { super::format::size(bytes) };
                labelled(&page::lines(shown, &size), width.unwrap_or(u16::MAX))
            }
            // One line a look, like vmstat; where there are several, a blank line between looks.
            _ => {
                let rows = view.rows();
                let legend = !(args.no_legend || self.shown && rows.len() == 1);
                let gap = if self.shown && rows.len() > 1 && !self.repaint { "\n" } else { "" };
                gap.to_owned() + &rows::table(rows, args, self.again, legend, width)
            }
        })
    }
}
