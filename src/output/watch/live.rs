//! The table of a watch on a terminal: a row for each cgroup, painted anew in place.

use std::collections::HashMap;
use std::fmt::Write;

use anstyle::AnsiColor;
use comfy_table::CellAlignment;
use memctl::watch::event::{Event, View, What};

use crate::output::table::{DIM, lines_of, plain_table};
use crate::output::words::{compact, escaped, shortened};

/// How many looks at the usage a sparkline has.
const SPARKS: usize = 12;

/// Eight heights.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// How wide the bar of the usage is.
const BAR: usize = 10;

/// What is remembered between two paintings.
#[derive(Default)]
pub struct Table {
    rows: HashMap<String, Remembered>,
}

#[derive(Default)]
struct Remembered {
    /// The usage as a share of the limit, of late, in eighths.
    sparks: Vec<usize>,
    /// What happened last.
    last: String,
}

impl Table {
    /// Remembers what happened last.
    pub fn remember(&mut self, event: &Event, brief: String) {
        if event.what == What::Gone {
            self.rows.remove(&event.cgroup);
        } else if !brief.is_empty() {
            self.rows.entry(event.cgroup.clone()).or_default().last = brief;
        }
    }

    /// The screen as it is now, with what moves the cursor to its top.
    pub fn painted(&mut self, views: &mut dyn Iterator<Item = View<'_>>, width: u16, rows: u16) -> String {
        // What the other columns need at most, and where there is room for a sparkline.
        const OTHERS: usize = 68;
        const ROOMY: u16 = 100;
        let room = usize::from(width).saturating_sub(OTHERS).max(12);
        let mut table = plain_table();
        table.set_header(["CGROUP", "USED", "LIMIT", "", "FREE", "KEPT", "RECLAIMED"]);
        let mut ends = Vec::new();
        for view in views {
            let remembered = self.rows.entry(view.cgroup.to_owned()).or_default();
            let share = view.current as f64 / view.limit.max(1) as f64;
            remembered.sparks.push(((share * 8.0) as usize).min(7));
            let old = remembered.sparks.len().saturating_sub(SPARKS);
            remembered.sparks.drain(..old);
            let free = view.limit.saturating_sub(view.current);
            table.add_row([
                shortened(&escaped(view.cgroup), room),
                compact(view.current),
                compact(view.limit),
                bar(share),
                compact(free),
                compact(view.low),
                compact(view.reclaimed),
            ]);
            let sparks: String = remembered.sparks.iter().map(|&height| HEIGHTS[height]).collect();
            let sparks = if width < ROOMY { String::new() } else { format!("{sparks:<SPARKS$}  ") };
            ends.push((sparks, remembered.last.clone(), view.held.is_some()));
        }
        for column in [1, 2, 4, 5, 6] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut lines = lines_of(&mut table);
        let header = lines.next().unwrap_or_default();
        let mut painted = format!("\u{1b}[H\u{1b}[J{DIM}{header}{DIM:#}\n");
        // What doesn't fit would scroll the rest away.
        let fitting = usize::from(rows).saturating_sub(2).max(1);
        for (line, (sparks, last, held)) in lines.zip(ends).take(fitting) {
            let colour = if held { AnsiColor::Yellow } else { AnsiColor::Green };
            let style = colour.on_default();
            let taken = line.chars().count() + 2 + sparks.chars().count();
            let last: String = last.chars().take(usize::from(width).saturating_sub(taken)).collect();
            let _ = writeln!(painted, "{line}  {sparks}{style}{}{style:#}", escaped(&last));
        }
        painted
    }
}

fn bar(share: f64) -> String {
    let full = ((share * BAR as f64).round() as usize).min(BAR);
    "█".repeat(full) + &"░".repeat(BAR - full)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_row_each_with_a_bar_a_sparkline_and_what_happened_last() {
        let view = View {
            cgroup: "/app",
            current: 192 << 20,
            limit: 256 << 20,
            low: 26 << 20,
            reclaimed: 3 << 30,
            held: None,
        };
        let mut table = Table::default();
        let event = Event { cgroup: "/app".into(), at: Duration::ZERO, what: What::Blocked };
        table.remember(&event, "writes are blocked".into());
        let mut painted = |width| {
            let painted = table.painted(&mut [view].into_iter(), width, 24);
            let plain = anstream::adapter::strip_str(&painted).to_string();
            plain.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(painted(80)[0], "CGROUP  USED  LIMIT              FREE  KEPT  RECLAIMED");
        let row = "/app    192M   256M  ████████░░   64M   26M         3G  ";
        assert_eq!(painted(80)[1], format!("{row}writes are blocked"));
        assert_eq!(painted(60)[1], format!("{row}writ"));
        assert_eq!(painted(120)[1], format!("{row}▇▇▇▇          writes are blocked"));
        table.remember(&Event { what: What::Gone, ..event }, "gone".into());
        assert!(table.rows.is_empty());
    }
}
