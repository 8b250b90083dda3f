//! Many cgroups: a row each, in as many columns as fit.

use std::collections::HashSet;

use comfy_table::CellAlignment;
use memctl::cgroup::Reading;
use memctl::cgroup::stat::MemoryStat;

use crate::cli::Stat;
use crate::cmd::stat::Shown;
use crate::output::table::{DIM, lines_of, plain_table};
use crate::output::words::{compact, escaped, shortened};

/// A column: its title, how much it is worth where there is little room, and its cells.
struct Column {
    title: &'static str,
    worth: u8,
    cell: fn(&Shown, &MemoryStat) -> Option<u64>,
    unit: Unit,
    /// Whether a sum over cgroups means anything.
    adds_up: bool,
}

/// A column's cells, from the first row to the last.
struct Cells {
    column: &'static Column,
    texts: Vec<String>,
    /// Of the outermost cgroups.
    sum: Option<u64>,
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

/// The rows, in as many columns as fit.
pub fn table(rows: &[Shown], args: &Stat, again: bool, legend: bool, width: Option<u16>) -> String {
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
    let outermost: Vec<_> = rows.iter().map(|shown| is_outermost(shown, &names_shown)).collect();
    let at_top = rows.iter().filter(|shown| shown.reading.depth == 0).count();
    let with_total = legend
        && match outermost.iter().filter(|&&is| is).count() {
            0 => false,
            1 => at_top > 1,
            _ => true,
        };
    let mut names: Vec<_> = rows.iter().map(|shown| indented(&shown.reading)).collect();
    let mut cells: Vec<Cells> = COLUMNS
        .iter()
        .filter(|column| again || !matches!(column.unit, Unit::Rate | Unit::RateShare))
        .map(|column| Cells { column, texts: Vec::with_capacity(rows.len() + 1), sum: None })
        .collect();
    for (shown, outermost) in rows.iter().zip(outermost) {
        let stat = shown.reading.stat();
        for Cells { column, texts, sum } in &mut cells {
            let value = (column.cell)(shown, &stat);
            if outermost {
                *sum = value.map_or(*sum, |value| Some(sum.unwrap_or(0).saturating_add(value)));
            }
            texts.push(number(value, column.unit));
        }
    }
    if with_total {
        names.push("total".into());
        for Cells { column, texts, sum } in &mut cells {
            let sum = sum.filter(|_| column.adds_up);
            texts.push(sum.map_or_else(String::new, |sum| number(Some(sum), column.unit)));
        }
    }
    if let Some(width) = width {
        // No narrower than this for names, and the least worthy columns go first.
        const NAMES: usize = 20;
        let wide = |cells: &Cells| {
            2 + cells.texts.iter().map(String::len).chain([cells.column.title.len()]).max().unwrap_or(0)
        };
        let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(NAMES);
        while cells.len() > 1 && longest + cells.iter().map(wide).sum::<usize>() > usize::from(width) {
            let least = cells.iter().enumerate().min_by_key(|(_, cells)| cells.column.worth);
            let Some(least) = least.map(|(at, _)| at) else { break };
            cells.remove(least);
        }
        let room = usize::from(width).saturating_sub(cells.iter().map(wide).sum()).max(NAMES);
        names = names.iter().map(|name| shortened(name, room)).collect();
    }
    let mut table = plain_table();
    table.set_header(std::iter::once("CGROUP").chain(cells.iter().map(|cells| cells.column.title)));
    for (at, name) in names.iter().enumerate() {
        table.add_row(
            std::iter::once(name.as_str()).chain(cells.iter().map(|cells| cells.texts[at].as_str())),
        );
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut lines = lines_of(&mut table);
    let header = lines.next().unwrap_or_default();
    let header = if legend { format!("{DIM}{header}{DIM:#}\n") } else { String::new() };
    header + &lines.map(|line| line + "\n").collect::<String>()
}
