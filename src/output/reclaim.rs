//! The report of `memctl reclaim` for people: a row with the result, and lines with the reasons.

use anstyle::AnsiColor;
use memctl::cgroup::Name;
use memctl::reclaim::{Report, StoppedBy, Verdict};

use super::format::{called, difference, size, time};
use super::json::{Reclaimed, TotalReclaimed};
use super::table::{DIM, cgroup, figures, labelled, plain_table};
use super::{Verbosity, print_stdout, terminal_width};
use crate::error::Result;
use memctl::reclaim::batch::Outcomes;

mod details;
#[cfg(test)]
mod tests;

pub use details::{below_the_gate, removed, writes};
use details::{came_back, details, in_the_way, net_saving, unconfirmed, why};

/// Prints the reports of all requests that were started.
pub fn print(outcomes: &Outcomes, json: bool, loudness: Verbosity) -> Result<()> {
    let begun = outcomes.each.iter().filter_map(|outcome| Some((outcome, outcome.report.as_ref().ok()?)));
    if json {
        let shared = outcomes.total.is_some();
        let lines = begun.map(|(outcome, report)| {
            let line = serde_json::to_string(&Reclaimed::new(&outcome.name, &outcome.path, report, shared))?;
            Ok(line + "\n")
        });
        let mut lines = lines.collect::<Result<String>>()?;
        if let Some(total) = &outcomes.total {
            lines += &(serde_json::to_string(&TotalReclaimed::from(total))? + "\n");
        }
        return print_stdout(&lines);
    }
    let rows: Vec<_> = begun.map(|(outcome, report)| (&outcome.name, report)).collect();
    if loudness == Verbosity::Quiet || rows.is_empty() {
        return Ok(());
    }
    let width = terminal_width();
    print_stdout(&shown(&rows, outcomes.total.as_ref(), width))
}

/// Returns one report in full, or a row for each of several and remarks on incomplete ones.
fn shown(rows: &[(&Name, &Report)], total: Option<&Report>, width: Option<u16>) -> String {
    let table = summary(rows, total, width);
    let width = width.unwrap_or(u16::MAX);
    match rows {
        [(_, report)] if total.is_none() => table + &labelled(&details(report), width),
        _ => table + &labelled(&remarks(rows, total), width),
    }
}

/// Returns the rows: requested, reclaimed, and the verdict, which alone is coloured.
fn summary(rows: &[(&Name, &Report)], total: Option<&Report>, width: Option<u16>) -> String {
    // Maximum width of the other columns and the verdict.
    const OTHERS: usize = 54;
    let named = |name: &Name| cgroup(name, width, OTHERS);
    let row = |name: String, requested: Option<u64>, reclaimed: u64, off: Option<i64>| {
        let requested = requested.map_or_else(|| "max".into(), size);
        [name, requested, size(reclaimed), off.map_or_else(|| "-".into(), difference)]
    };
    let share = |name: String, reclaimed: u64| [name, "-".into(), size(reclaimed), "-".into()];
    let mut table = plain_table();
    table.set_header(["CGROUP", "REQUESTED", "RECLAIMED", "DIFFERENCE"]);
    for (name, report) in rows {
        table.add_row(match total {
            Some(_) => share(named(name), report.reclaimed),
            None => row(named(name), report.requested, report.reclaimed, report.difference()),
        });
    }
    if let Some(total) = total {
        table.add_row(row("total".into(), total.requested, total.reclaimed, total.difference()));
    } else if rows.len() > 1 {
        let requested = rows.iter().map(|(_, report)| report.requested).sum::<Option<u64>>();
        let off = rows.iter().map(|(_, report)| report.difference()).sum();
        table.add_row(row(
            "total".into(),
            requested,
            rows.iter().map(|(_, report)| report.reclaimed).sum(),
            off,
        ));
    }
    // The verdict is last, outside the table: comfy-table would measure a coloured cell with its
    // escape codes.
    let (header, lines) = figures(&mut table);
    // With one amount for all, only the total has a verdict.
    let each = |report: &Report| match total {
        Some(_) if report.chunks == 0 => "not requested".into(),
        Some(_) => report.stopped_by.word().to_owned(),
        None => verdict(report),
    };
    let verdicts = rows.iter().map(|(_, report)| each(report));
    let verdicts = verdicts.chain([total.map_or_else(String::new, verdict)]);
    let body =
        lines.zip(verdicts).map(|(line, verdict)| format!("{line}  {verdict}").trim_end().to_owned() + "\n");
    format!("{DIM}{header}  VERDICT{DIM:#}\n{}", body.collect::<String>())
}

/// Returns labelled lines on several reports: the reasons of incomplete ones, and the total cost.
fn remarks(rows: &[(&Name, &Report)], total: Option<&Report>) -> Vec<(String, String)> {
    let mut lines: Vec<_> = total.map(|total| ("why".into(), why(total))).into_iter().collect();
    for (name, report) in rows {
        let judged = total.is_none() && report.requested.is_some();
        if judged && !matches!(report.verdict(), Some(Verdict::Exact)) {
            let obstacles = report.obstacles.iter().map(in_the_way);
            let why = [why(report)].into_iter().chain(obstacles).collect::<Vec<_>>().join("; ");
            lines.push((called(name), why));
        }
        lines.extend(
            report
                .settled
                .as_ref()
                .map(|settled| (called(name), format!("came back: {}", came_back(settled)))),
        );
        let slab = details::slab::lines(report).into_iter();
        lines.extend(slab.map(|(label, text)| (called(name), format!("{label}: {text}"))));
        lines.extend((report.unconfirmed > 0).then(|| (called(name), unconfirmed(report))));
    }
    let saving = net_saving(rows.iter().map(|(_, report)| *report));
    lines.extend(saving.map(|saving| ("net saving".into(), saving)));
    let cpu: std::time::Duration = rows.iter().map(|(_, report)| report.cpu).sum();
    let reclaimed: u64 = rows.iter().map(|(_, report)| report.reclaimed).sum();
    let per_gib = if reclaimed > 0 {
        format!(" ({:.2} s/GiB)", cpu.as_secs_f64() / (reclaimed as f64 / f64::from(1 << 30)))
    } else {
        String::new()
    };
    let writes = writes(rows.iter().map(|(_, report)| report.chunks).sum());
    lines.push(("cost".into(), format!("{} of CPU in {writes}{per_gib}", time(cpu))));
    lines
}

fn verdict(report: &Report) -> String {
    let (word, colour) = match report.verdict() {
        Some(Verdict::Exact) => ("exact", AnsiColor::Green),
        Some(Verdict::Over) => ("over", AnsiColor::Yellow),
        Some(Verdict::Under) => ("under", AnsiColor::Red),
        None => return report.stopped_by.word().to_owned(),
    };
    let style = colour.on_default().bold();
    let stopped = match report.stopped_by {
        StoppedBy::Reached => String::new(),
        why => format!(", {}", why.word()),
    };
    let warning = AnsiColor::Yellow.on_default().bold();
    let over_swap =
        report.over_swapped().map_or_else(String::new, |_| format!(", {warning}over-swap{warning:#}"));
    format!("{style}{word}{style:#}{stopped}{over_swap}")
}
