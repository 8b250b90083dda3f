//! Table of many cgroups: a row each, in as many columns as fit.

use std::collections::HashSet;
use std::fmt::Write;

use anstyle::Style;
use memctl::cgroup::Reading;
use memctl::cgroup::stat::MemoryStat;
use unicode_width::UnicodeWidthStr;

use crate::cli::{SortKey, Stat};
use crate::output::format::{called, push_compact, shortened};
use crate::output::table::DIM;
use crate::output::view::Row;

/// A column: its title, its priority where there is little room, and its values.
struct Column {
    title: &'static str,
    worth: u8,
    cell: fn(&Row, &MemoryStat) -> Option<u64>,
    unit: Unit,
    /// True if a sum over cgroups is meaningful.
    adds_up: bool,
}

/// The cells of a column, from the first row to the last, in one string: thousands of rows need no
/// allocations of their own.
struct Cells {
    column: &'static Column,
    text: String,
    /// End of each cell in the text, in bytes.
    ends: Vec<usize>,
    /// Length of the longest cell, including the title.
    width: usize,
    /// Sum over the outermost cgroups.
    sum: Option<u64>,
}

impl Cells {
    fn new(column: &'static Column, rows: usize) -> Self {
        let ends = Vec::with_capacity(rows);
        Self { column, text: String::new(), ends, width: column.title.len(), sum: None }
    }

    /// Adds a cell.
    fn push(&mut self, value: Option<u64>, bytes: bool) {
        let _ = match (value, self.column.unit) {
            (None, _) => write!(self.text, "-"),
            (Some(hundredths), Unit::Share) => {
                write!(self.text, "{}.{:02}", hundredths / 100, hundredths % 100)
            }
            (Some(amount), Unit::Bytes | Unit::Rate) if !bytes => {
                push_compact(&mut self.text, amount);
                Ok(())
            }
            (Some(number), _) => write!(self.text, "{number}"),
        };
        self.end();
    }

    /// Ends a cell.
    fn end(&mut self) {
        self.width = self.width.max(self.text.len() - self.ends.last().copied().unwrap_or(0));
        self.ends.push(self.text.len());
    }

    fn cell(&self, row: usize) -> &str {
        let begin = row.checked_sub(1).map_or(0, |above| self.ends[above]);
        &self.text[begin..self.ends[row]]
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Bytes,
    /// Per second between two samples; only shown if there are several.
    Rate,
    /// Share of the time between two samples, in percent.
    RateShare,
    /// Hundredths of a percent.
    Share,
}

const COLUMNS: [Column; 12] = [
    Column {
        title: "CURRENT",
        worth: 9,
        cell: |shown, _| shown.reading.current,
        unit: Unit::Bytes,
        adds_up: true,
    },
    Column {
        title: "WORKSET",
        worth: 7,
        cell: |shown, stat| Some(shown.reading.current?.saturating_sub(stat.inactive_file?)),
        unit: Unit::Bytes,
        adds_up: true,
    },
    Column {
        title: "RECLAIM",
        worth: 8,
        cell: |shown, _| Some(shown.reclaimable.bytes()),
        unit: Unit::Bytes,
        adds_up: true,
    },
    Column { title: "ANON", worth: 4, cell: |_, stat| stat.anon, unit: Unit::Bytes, adds_up: true },
    Column { title: "FILE", worth: 3, cell: |_, stat| stat.file, unit: Unit::Bytes, adds_up: true },
    Column { title: "SWAP", worth: 2, cell: |shown, _| shown.reading.swap, unit: Unit::Bytes, adds_up: true },
    Column {
        title: "LIMIT",
        worth: 5,
        cell: |shown, _| Some(shown.reading.bound.as_ref()?.limit),
        unit: Unit::Bytes,
        adds_up: false,
    },
    Column {
        title: "HEADROOM",
        worth: 6,
        cell: |shown, _| Some(shown.reading.bound.as_ref()?.headroom),
        unit: Unit::Bytes,
        adds_up: false,
    },
    Column {
        title: "STALL%",
        worth: 1,
        cell: |shown, _| Some(u64::from(shown.reading.pressure?.some.avg10)),
        unit: Unit::Share,
        adds_up: false,
    },
    Column {
        title: "REFAULT/s",
        worth: 8,
        cell: |shown, _| shown.rates?.refaulted,
        unit: Unit::Rate,
        adds_up: true,
    },
    Column {
        title: "RECLAIM/s",
        worth: 8,
        cell: |shown, _| shown.rates?.reclaimed,
        unit: Unit::Rate,
        adds_up: true,
    },
    Column {
        title: "EFFIC%",
        worth: 5,
        cell: |shown, _| Some((shown.rates?.efficiency? * 100.0).round() as u64),
        unit: Unit::RateShare,
        adds_up: false,
    },
];

/// Returns the title of the column that rows are sorted by.
fn sorted_by(key: SortKey) -> Option<&'static str> {
    match key {
        SortKey::Current => Some("CURRENT"),
        SortKey::WorkingSet => Some("WORKSET"),
        SortKey::Reclaimable => Some("RECLAIM"),
        SortKey::Pressure => Some("STALL%"),
        SortKey::Headroom => Some("HEADROOM"),
        // Sorted by all refaults so far; the column shows the current rate.
        SortKey::Refaults => Some("REFAULT/s"),
        SortKey::Name => None,
    }
}

/// Returns whether no cgroup shown contains this one.
fn is_outermost(shown: &Row, names: &HashSet<&str>) -> bool {
    let mut above = &*shown.reading.name;
    while let Some((parent, _)) = above.rsplit_once('/') {
        if !parent.is_empty() && names.contains(parent) {
            return false;
        }
        above = parent;
    }
    &*shown.reading.name == "/" || !names.contains("/")
}

/// Indents and shortens names to fit into `room` columns. Half of them are for the names
/// themselves, however deep they are.
fn in_room(names: &[(usize, String)], room: usize) -> Vec<String> {
    let deepest = names.iter().map(|(depth, _)| *depth).max().unwrap_or(0);
    let longest = names.iter().map(|(depth, name)| 2 * depth + name.width()).max().unwrap_or(0);
    let (step, most) = match room / 2 {
        _ if longest <= room => (2, room),
        half if 2 * deepest <= half => (2, half),
        half => (1, half),
    };
    let indented = |(depth, name): &(usize, String)| {
        let indent = (step * depth).min(most);
        format!("{:indent$}{}", "", shortened(name, room - indent))
    };
    names.iter().map(indented).collect()
}

/// Returns the rows, in as many columns as fit.
pub fn table(rows: &[Row], args: &Stat, again: bool, legend: bool, width: Option<u16>) -> String {
    let label = |reading: &Reading| {
        let name = called(&reading.name);
        let is_pod = reading.name.pod().is_some() && name.matches('/').count() == 1;
        let name = match name.rsplit_once('/') {
            // The parent has the rest.
            Some((_, last)) if reading.depth > 0 && !is_pod => last.to_owned(),
            _ => name,
        };
        (reading.depth, name)
    };
    // The total adds the outermost cgroups shown: any below them is part of their figures, however
    // it was named.
    let names_shown: HashSet<&str> = rows.iter().map(|shown| &*shown.reading.name).collect();
    let outermost: Vec<_> = rows.iter().map(|shown| is_outermost(shown, &names_shown)).collect();
    let at_top = rows.iter().filter(|shown| shown.reading.depth == 0).count();
    let with_total = legend
        && match outermost.iter().filter(|&&is| is).count() {
            0 => false,
            1 => at_top > 1,
            _ => true,
        };
    let mut names: Vec<_> = rows.iter().map(|shown| label(&shown.reading)).collect();
    let mut cells: Vec<Cells> = COLUMNS
        .iter()
        .filter(|column| again || !matches!(column.unit, Unit::Rate | Unit::RateShare))
        .map(|column| Cells::new(column, rows.len() + 1))
        .collect();
    for (shown, outermost) in rows.iter().zip(outermost) {
        let stat = shown.reading.stat();
        for cells in &mut cells {
            let value = (cells.column.cell)(shown, &stat);
            if let Some(value) = value.filter(|_| outermost && cells.column.adds_up) {
                cells.sum = Some(cells.sum.unwrap_or(0).saturating_add(value));
            }
            cells.push(value, args.bytes);
        }
    }
    if with_total {
        names.push((0, "total".into()));
        for cells in &mut cells {
            match cells.sum {
                Some(sum) => cells.push(Some(sum), args.bytes),
                None => cells.end(),
            }
        }
    }
    let mut room = usize::MAX;
    if let Some(width) = width {
        // Minimum width of the names; the columns of the lowest priority are left out first.
        const NAMES: usize = 20;
        let wide = |cells: &Cells| 2 + cells.width;
        let longest =
            names.iter().map(|(depth, name)| 2 * depth + name.width()).max().unwrap_or(0).min(NAMES);
        while cells.len() > 1 && longest + cells.iter().map(wide).sum::<usize>() > usize::from(width) {
            // The column that rows are sorted by stays.
            let worth = |cells: &Cells| {
                if sorted_by(args.sort) == Some(cells.column.title) { u8::MAX } else { cells.column.worth }
            };
            let least = cells.iter().enumerate().min_by_key(|(_, cells)| worth(cells));
            let Some(least) = least.map(|(at, _)| at) else { break };
            cells.remove(least);
        }
        room = usize::from(width).saturating_sub(cells.iter().map(wide).sum()).max(NAMES);
    }
    let names = in_room(&names, room);
    let name_width = names.iter().map(|name| name.width()).chain(["CGROUP".len()]).max().unwrap_or(0);
    let mut text = String::new();
    // Right-aligned numbers need no measuring and wrapping of each cell, which in comfy-table took
    // a tenth of the time of reading them, for 500 rows.
    let mut row = |name: &str, cell: &dyn Fn(&Cells) -> &str, style: Style| {
        let begin = text.len();
        let _ = write!(text, "{style}{name}");
        let mut blanks = name_width - name.width();
        for cells in &cells {
            // All cells are ASCII.
            let cell = cell(cells);
            text.extend(std::iter::repeat_n(' ', blanks + cells.width + 2 - cell.len()));
            text.push_str(cell);
            blanks = 0;
        }
        text.truncate(text.trim_end_matches(' ').len().max(begin));
        let _ = writeln!(text, "{style:#}");
    };
    if legend {
        row("CGROUP", &|cells| cells.column.title, DIM);
    }
    for (at, name) in names.iter().enumerate() {
        row(name, &|cells| cells.cell(at), Style::new());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_names_keep_half_of_the_room() {
        let name = |depth: usize| (depth, format!("level-{depth}.service"));
        let names: Vec<_> = [0, 1, 7, 40].map(name).into();
        assert_eq!(
            in_room(&names, 20),
            ["level-0.service", " level-1.service", "       level-…ervice", "          leve…rvice"]
        );
        assert_eq!(in_room(&names[..2], 20), ["level-0.service", "  level-1.service"]);
    }
}
