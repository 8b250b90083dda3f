//! What `memctl stat` shows: a row for each cgroup, in as many columns as fit, or a page on one.

use anyhow::Result;
use comfy_table::CellAlignment;
use memctl::cgroup::Reading;

use super::json::Stated;
use super::table::{DIM, labelled, lines_of, plain_table};
use super::words::{compact, escaped, shortened};
use super::{answer, terminal_width};
use crate::cli::Stat;
use crate::cmd::stat::{Shown, View};

mod page;

/// Prints it.
pub fn print(view: &View, args: &Stat) -> Result<()> {
    let rows = match view {
        View::Page(shown) => std::slice::from_ref(&**shown),
        View::Rows(rows) => rows,
    };
    if args.json {
        let lines = rows.iter().map(|shown| Ok(serde_json::to_string(&Stated::from(shown))? + "\n"));
        return answer(&lines.collect::<Result<String>>()?);
    }
    let width = terminal_width();
    match view {
        View::Page(shown) => {
            let size = |bytes| if args.bytes { format!("{bytes}") } else { super::words::size(bytes) };
            answer(&labelled(&page::lines(shown, &size), width.unwrap_or(u16::MAX)))
        }
        View::Rows(rows) => answer(&table(rows, args, width)),
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
    /// Hundredths of a percent.
    Share,
}

const COLUMNS: [Column; 9] = [
    Column { title: "CURRENT", worth: 9, cell: |shown| shown.reading.current, unit: Unit::Bytes },
    Column { title: "WORKSET", worth: 7, cell: |shown| shown.reading.working_set(), unit: Unit::Bytes },
    Column { title: "RECLAIM", worth: 8, cell: |shown| Some(shown.reclaimable.bytes()), unit: Unit::Bytes },
    Column { title: "ANON", worth: 4, cell: |shown| shown.reading.stat.anon, unit: Unit::Bytes },
    Column { title: "FILE", worth: 3, cell: |shown| shown.reading.stat.file, unit: Unit::Bytes },
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
];

fn table(rows: &[Shown], args: &Stat, width: Option<u16>) -> String {
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
        (Some(bytes), Unit::Bytes) if args.bytes => bytes.to_string(),
        (Some(bytes), Unit::Bytes) => compact(bytes),
    };
    // Of what is shown at the outermost level: what is below is part of that.
    let total = |column: &Column| {
        let own = matches!(column.title, "LIMIT" | "HEADROOM" | "STALL%");
        let outermost = rows.iter().filter(|shown| shown.reading.depth == 0);
        if own { None } else { Some(outermost.filter_map(column.cell).sum()) }
    };
    let with_total = !args.no_legend && rows.iter().filter(|shown| shown.reading.depth == 0).count() > 1;
    let mut names: Vec<_> = rows.iter().map(|shown| indented(&shown.reading)).collect();
    let mut cells: Vec<(&Column, Vec<String>)> = COLUMNS
        .iter()
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
    let header = if args.no_legend { String::new() } else { format!("{DIM}{header}{DIM:#}\n") };
    header + &lines.map(|line| line + "\n").collect::<String>()
}
