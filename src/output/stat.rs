//! What `memctl stat` shows: a row for each cgroup, in as many columns as fit, or a page on one.

use std::collections::HashSet;

use anyhow::Result;
use comfy_table::CellAlignment;
use memctl::cgroup::Reading;

use super::json::Stated;
use super::table::{DIM, labelled, lines_of, plain_table};
use super::words::{compact, escaped, shortened};
use super::{answer_on, terminal_rows, terminal_width};
use crate::cli::Stat;
use crate::cmd::stat::{Shown, View};

mod details;
mod page;

/// Where one look after the other is shown.
pub struct Screen<'a> {
    args: &'a Stat,
    /// There is more than one look.
    again: bool,
    /// A terminal is repainted; anything else is written on.
    repaint: bool,
    shown: bool,
}

impl<'a> Screen<'a> {
    pub fn new(args: &'a Stat, again: bool) -> Self {
        Self { args, again, shown: false, repaint: again && !args.json && terminal_width().is_some() }
    }

    /// Shows a look. Says whether anybody still reads.
    pub fn show(&mut self, view: &View) -> Result<bool> {
        let text = self.text(view)?;
        self.shown = true;
        if !self.repaint {
            return answer_on(&text);
        }
        // Home, and clear what follows. What doesn't fit would scroll the rest away.
        let rows = usize::from(terminal_rows().unwrap_or(24).saturating_sub(1)).max(1);
        let fitting: Vec<_> = text.lines().take(rows).collect();
        answer_on(&format!("\u{1b}[H\u{1b}[J{}\n", fitting.join("\n")))
    }

    fn text(&self, view: &View) -> Result<String> {
        let args = self.args;
        if args.json {
            let lines =
                view.rows().iter().map(|shown| Ok(serde_json::to_string(&Stated::from(shown))? + "\n"));
            return lines.collect();
        }
        let width = terminal_width();
        Ok(match view {
            View::Page(shown) if !self.again || self.repaint => {
                let size = |bytes| if args.bytes { format!("{bytes}") } else { super::words::size(bytes) };
                labelled(&page::lines(shown, &size), width.unwrap_or(u16::MAX))
            }
            // One line a look, like vmstat; where there are several, a blank line between looks.
            _ => {
                let rows = view.rows();
                let legend = !(args.no_legend || self.shown && rows.len() == 1);
                let gap = if self.shown && rows.len() > 1 && !self.repaint { "\n" } else { "" };
                gap.to_owned() + &table(rows, args, self.again, legend, width)
            }
        })
    }
}

/// A column: its title, how much it is worth where there is little room, and its cells.
struct Column {
    title: &'static str,
    worth: u8,
    cell: fn(&Shown) -> Option<u64>,
    unit: Unit,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Bytes,
    /// Of the time between two looks: only shown where there are several.
    Rate,
    /// The same in percent.
    RateShare,
    /// Hundredths of a percent.
    Share,
}

const COLUMNS: [Column; 12] = [
    Column { title: "CURRENT", worth: 9, cell: |shown| shown.reading.current, unit: Unit::Bytes },
    Column { title: "WORKSET", worth: 7, cell: |shown| shown.reading.working_set(), unit: Unit::Bytes },
    Column { title: "RECLAIM", worth: 8, cell: |shown| Some(shown.reclaimable.bytes()), unit: Unit::Bytes },
    Column { title: "ANON", worth: 4, cell: |shown| shown.reading.stat().anon, unit: Unit::Bytes },
    Column { title: "FILE", worth: 3, cell: |shown| shown.reading.stat().file, unit: Unit::Bytes },
    Column { title: "SWAP", worth: 2, cell: |shown| shown.reading.swap, unit: Unit::Bytes },
    Column {
        title: "LIMIT",
        worth: 5,
        cell: |shown| Some(shown.reading.bound.as_ref()?.limit),
        unit: Unit::Bytes,
    },
    Column {
        title: "HEADROOM",
        worth: 6,
        cell: |shown| Some(shown.reading.bound.as_ref()?.headroom),
        unit: Unit::Bytes,
    },
    Column {
        title: "STALL%",
        worth: 1,
        cell: |shown| Some(u64::from(shown.reading.pressure?.some.avg10)),
        unit: Unit::Share,
    },
    Column { title: "REFAULT/s", worth: 8, cell: |shown| shown.rates?.refaulted, unit: Unit::Rate },
    Column { title: "RECLAIM/s", worth: 8, cell: |shown| shown.rates?.reclaimed, unit: Unit::Rate },
    Column {
        title: "EFFIC%",
        worth: 5,
        cell: |shown| Some((shown.rates?.efficiency? * 100.0).round() as u64),
        unit: Unit::RateShare,
    },
];

/// Whether none of what is shown contains it.
fn is_outermost(shown: &Shown, names: &HashSet<&str>) -> bool {
    let mut above = shown.reading.name.as_str();
    while let Some((parent, _)) = above.rsplit_once('/') {
        if !parent.is_empty() && names.contains(parent) {
            return false;
        }
        above = parent;
    }
    shown.reading.name == "/" || !names.contains("/")
}

fn table(rows: &[Shown], args: &Stat, again: bool, legend: bool, width: Option<u16>) -> String {
    let indented = |reading: &Reading| {
        let name = if reading.depth == 0 {
            reading.name.as_str()
        } else {
            reading.name.rsplit('/').next().unwrap_or_default()
        };
        format!("{}{}", "  ".repeat(reading.depth), escaped(name))
    };
    let number = |value: Option<u64>, unit: Unit| match (value, unit) {
        (None, _) => "-".to_owned(),
        (Some(hundredths), Unit::Share) => format!("{:.2}", hundredths as f64 / 100.0),
        (Some(share), Unit::RateShare) => share.to_string(),
        (Some(bytes), Unit::Bytes | Unit::Rate) if args.bytes => bytes.to_string(),
        (Some(bytes), Unit::Bytes | Unit::Rate) => compact(bytes),
    };
    // Of what is shown at the outermost level: what is below is part of that, however it was named.
    let names_shown: HashSet<&str> = rows.iter().map(|shown| shown.reading.name.as_str()).collect();
    let at_top = rows.iter().filter(|shown| shown.reading.depth == 0).count();
    let total = |column: &Column| {
        let own = matches!(column.title, "LIMIT" | "HEADROOM" | "STALL%" | "EFFIC%");
        let outermost = rows.iter().filter(|shown| is_outermost(shown, &names_shown));
        let values = outermost.filter_map(column.cell).reduce(u64::saturating_add);
        if own { None } else { values }
    };
    let outermost = rows.iter().filter(|shown| is_outermost(shown, &names_shown)).count();
    let with_total = legend && (outermost > 1 || outermost == 1 && at_top > 1);
    let mut names: Vec<_> = rows.iter().map(|shown| indented(&shown.reading)).collect();
    let mut cells: Vec<(&Column, Vec<String>)> = COLUMNS
        .iter()
        .filter(|column| again || !matches!(column.unit, Unit::Rate | Unit::RateShare))
        .map(|column| {
            let mut cells: Vec<_> =
                rows.iter().map(|shown| number((column.cell)(shown), column.unit)).collect();
            if with_total {
                cells.push(total(column).map_or_else(String::new, |sum| number(Some(sum), column.unit)));
            }
            (column, cells)
        })
        .collect();
    if with_total {
        names.push("total".into());
    }
    if let Some(width) = width {
        // No narrower than this for names, and the least worthy columns go first.
        const NAMES: usize = 20;
        let wide = |(column, cells): &(&Column, Vec<String>)| {
            2 + cells.iter().map(String::len).chain([column.title.len()]).max().unwrap_or(0)
        };
        let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(NAMES);
        while cells.len() > 1 && longest + cells.iter().map(wide).sum::<usize>() > usize::from(width) {
            let least = cells.iter().enumerate().min_by_key(|(_, (column, _))| column.worth);
            let Some(least) = least.map(|(at, _)| at) else { break };
            cells.remove(least);
        }
        let room = usize::from(width).saturating_sub(cells.iter().map(wide).sum()).max(NAMES);
        names = names.iter().map(|name| shortened(name, room)).collect();
    }
    let mut table = plain_table();
    table.set_header(std::iter::once("CGROUP").chain(cells.iter().map(|(column, _)| column.title)));
    for (at, name) in names.iter().enumerate() {
        table
            .add_row(std::iter::once(name.as_str()).chain(cells.iter().map(|(_, cells)| cells[at].as_str())));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut lines = lines_of(&mut table);
    let header = lines.next().unwrap_or_default();
    let header = if legend { format!("{DIM}{header}{DIM:#}\n") } else { String::new() };
    header + &lines.map(|line| line + "\n").collect::<String>()
}
