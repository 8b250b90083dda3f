//! The report of `memctl reclaim` for people: a row that says what came of it, and lines that say why.

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use memctl::cgroup::swap::SwapBound;
use memctl::reclaim::{Obstacle, Report, StoppedBy, Verdict};

use super::json::Reclaimed;
use super::words::{difference, escaped, shortened, size, time};
use super::{Loudness, answer, terminal_width};
use crate::cmd::reclaim::Outcome;

const DIM: Style = Style::new().dimmed();

/// Prints the reports of those that were begun.
pub fn print(outcomes: &[Outcome], json: bool, loudness: Loudness) -> Result<()> {
    let begun = outcomes.iter().filter_map(|outcome| Some((outcome, outcome.report.as_ref().ok()?)));
    if json {
        let lines = begun.map(|(outcome, report)| {
            let line = serde_json::to_string(&Reclaimed::new(&outcome.name, &outcome.path, report))?;
            Ok(line + "\n")
        });
        return answer(&lines.collect::<Result<String>>()?);
    }
    let rows: Vec<_> = begun.map(|(outcome, report)| (outcome.name.as_str(), report)).collect();
    if loudness == Loudness::Quiet || rows.is_empty() {
        return Ok(());
    }
    let width = terminal_width();
    answer(&shown(&rows, width))
}

/// One report in full; several as a row each, with what there is to say of those that fell short.
fn shown(rows: &[(&str, &Report)], width: Option<u16>) -> String {
    let table = summary(rows, width);
    let width = width.unwrap_or(u16::MAX);
    match rows {
        [(_, report)] => table + &labelled(&details(report), width),
        _ => table + &labelled(&remarks(rows), width),
    }
}

/// The rows: what was asked, what was got, and the verdict, which alone is coloured.
fn summary(rows: &[(&str, &Report)], width: Option<u16>) -> String {
    // What the other columns and the verdict need at most.
    const OTHERS: usize = 54;
    let named = |name: &str| match width {
        Some(width) => shortened(&escaped(name), usize::from(width).saturating_sub(OTHERS).max(16)),
        None => escaped(name),
    };
    let row = |name: String, requested: Option<u64>, reclaimed: u64, off: Option<i64>| {
        let requested = requested.map_or_else(|| "max".into(), size);
        [name, requested, size(reclaimed), off.map_or_else(|| "-".into(), difference)]
    };
    let mut table = plain_table();
    table.set_header(["CGROUP", "REQUESTED", "RECLAIMED", "DIFFERENCE"]);
    for (name, report) in rows {
        table.add_row(row(named(name), report.requested, report.reclaimed, report.difference()));
    }
    if rows.len() > 1 {
        let requested = rows.iter().map(|(_, report)| report.requested).sum::<Option<u64>>();
        let off = rows.iter().map(|(_, report)| report.difference()).sum();
        table.add_row(row(
            "total".into(),
            requested,
            rows.iter().map(|(_, report)| report.reclaimed).sum(),
            off,
        ));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    // The verdict stands last, outside of the table: a coloured cell would be measured with its escape codes.
    let mut lines = lines_of(&mut table);
    let header = lines.next().unwrap_or_default();
    let verdicts = rows.iter().map(|(_, report)| verdict(report)).chain([String::new()]);
    let body =
        lines.zip(verdicts).map(|(line, verdict)| format!("{line}  {verdict}").trim_end().to_owned() + "\n");
    format!("{DIM}{header}  VERDICT{DIM:#}\n{}", body.collect::<String>())
}

/// What there is to say of several: why some fell short, and what it all cost.
fn remarks(rows: &[(&str, &Report)]) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for (name, report) in rows {
        if !matches!(report.verdict(), Some(Verdict::Exact)) && report.requested.is_some() {
            let obstacles = report.obstacles.iter().map(in_the_way);
            let why = [why(report)].into_iter().chain(obstacles).collect::<Vec<_>>().join("; ");
            lines.push((escaped(name), why));
        }
        lines.extend((report.unconfirmed > 0).then(|| (escaped(name), unconfirmed(report))));
    }
    let cpu: std::time::Duration = rows.iter().map(|(_, report)| report.cpu).sum();
    let reclaimed: u64 = rows.iter().map(|(_, report)| report.reclaimed).sum();
    let per_gib = if reclaimed > 0 {
        format!(" ({:.2} s/GiB)", cpu.as_secs_f64() / (reclaimed as f64 / f64::from(1 << 30)))
    } else {
        String::new()
    };
    let writes: u32 = rows.iter().map(|(_, report)| report.chunks).sum();
    lines.push(("cost".into(), format!("{} of CPU in {writes} writes{per_gib}", time(cpu))));
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

/// The lines: why, by which measure, from what, and at which cost.
fn details(report: &Report) -> Vec<(String, String)> {
    let mut lines = vec![
        ("why", why(report)),
        ("measured", measured(report)),
        ("usage", usage(report)),
        ("cost", cost(report)),
    ];
    lines.extend(report.obstacles.iter().map(|obstacle| ("in the way", in_the_way(obstacle))));
    if report.unconfirmed > 0 {
        lines.push(("unconfirmed", unconfirmed(report)));
    }
    if let Some(over) = report.over_swapped() {
        lines.push((
            "over-swap",
            format!("{} more went to swap than was reclaimed: the kernel writes ahead", size(over)),
        ));
    }
    if let Some(demoted) = report.demoted.filter(|&demoted| demoted > 0) {
        lines.push(("demoted", format!("{} to slower memory, not counted as reclaimed", size(demoted))));
    }
    lines.into_iter().map(|(label, text)| (label.to_owned(), text)).collect()
}

/// Lines with a label each, wrapped to the width.
fn labelled(lines: &[(String, String)], width: u16) -> String {
    let mut table = plain_table();
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    table.add_rows(lines.iter().map(|(label, text)| [label, text]));
    let dimmed = |line: String| match line.find("  ").filter(|&end| end > 0) {
        Some(end) => format!("{DIM}{}{DIM:#}{}\n", &line[..end], &line[end..]),
        None => format!("{line}\n"),
    };
    lines_of(&mut table).map(dimmed).collect()
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Two blanks between columns, none before the first. For a table that has its rows: it knows its columns by them.
fn lines_of(table: &mut Table) -> impl Iterator<Item = String> {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().into_iter()
}

fn why(report: &Report) -> String {
    let short = report.requested.map_or(0, |requested| requested.saturating_sub(report.reclaimed));
    let tolerated = report.tolerated().map_or_else(String::new, size);
    match (report.stopped_by, report.verdict()) {
        (StoppedBy::Reached, Some(Verdict::Exact)) if report.requested == Some(0) => {
            "the usage was low enough already: nothing was asked of the kernel".into()
        }
        (StoppedBy::Reached, Some(Verdict::Exact)) => format!("reached, within {tolerated} of the request"),
        (StoppedBy::Reached, Some(Verdict::Over)) => {
            format!("reached, but the kernel freed more than {tolerated} over the request")
        }
        (StoppedBy::Reached, _) => {
            format!("the kernel said success, but {} are not accounted for", size(short))
        }
        (StoppedBy::Exhausted, verdict) if verdict != Some(Verdict::Exact) && awaits_swap(report) => {
            format!(
                "gave up waiting for swap after {}, {} short of the request",
                time(report.elapsed),
                size(short)
            )
        }
        (StoppedBy::Exhausted, None) => "nothing more was to be had".into(),
        (StoppedBy::Exhausted, Some(Verdict::Under)) => {
            format!("the kernel found nothing more to free, {} short of the request", size(short))
        }
        (StoppedBy::Exhausted, _) => format!("nothing more was to be had, within {tolerated} of the request"),
        (StoppedBy::Interrupted, _) => "a signal came".into(),
        (StoppedBy::Timeout, _) => format!("the time was up after {}", time(report.elapsed)),
        (StoppedBy::Pressure, _) => {
            let stalled = report.stalled.map_or(0.0, |stalled| stalled.as_secs_f64());
            let share = 100.0 * stalled / report.elapsed.as_secs_f64();
            let most = report.max_pressure.map_or_else(String::new, |most| most.to_string());
            format!("the cgroup was stalled for {share:.0}% of the time, and --max-pressure is {most}")
        }
        (StoppedBy::Removed, _) => "the cgroup was removed meanwhile".into(),
        (StoppedBy::Failed(errno), _) => format!("the kernel refused: {}", super::error::plain(errno)),
    }
}

fn awaits_swap(report: &Report) -> bool {
    report.obstacles.iter().any(|obstacle| matches!(obstacle, Obstacle::Writeback(_)))
}

fn measured(report: &Report) -> String {
    let part = |what: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{what} {}", size(bytes)));
    let parts = [
        part("file", report.file_freed),
        part("anon", report.anon_freed),
        part("swap cache", report.swap_cache_freed.filter(|&b| b > 0)),
        part("slab", report.slab_freed.filter(|&b| b > 0)),
        part("to swap", report.swapped_out.filter(|&b| b > 0)),
        part("to zswap", report.zswapped.filter(|&b| b > 0)),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    format!("by {}; shrunk: {}", report.measured_by.name(), parts.join(", "))
}

fn usage(report: &Report) -> String {
    let (Some(before), Some(after), Some(net)) =
        (report.current_before, report.current_after, report.net_freed())
    else {
        return "unknown: the root cgroup has no memory.current".into();
    };
    let grown = report.grown().filter(|&grown| grown > 0);
    let grown = grown.map_or_else(String::new, |grown| format!(", grew by {} meanwhile", size(grown)));
    // A blur of some pages, and the slab that goes with what is reclaimed, aren't worth a word.
    let left = report.left().filter(|&left| left > (1 << 20) && left > report.reclaimed / 20);
    let left = left.map_or_else(String::new, |left| format!(", {} of it not by reclaim", size(left)));
    format!("{} -> {} ({}{grown}{left})", size(before), size(after), difference(-net))
}

fn cost(report: &Report) -> String {
    let per_gib = report.cpu_per_gib().map_or_else(String::new, |cost| format!(" ({cost:.2} s/GiB)"));
    let stalled = report
        .stalled
        .map_or_else(String::new, |stalled| format!("; the cgroup was stalled for {}", time(stalled)));
    let waited = if report.waited.as_millis() < 100 {
        String::new()
    } else {
        format!(" (waited for {})", time(report.waited))
    };
    let writes = if report.chunks == 1 { "write" } else { "writes" };
    format!(
        "{}{waited} in {} {writes}, {} of CPU{per_gib}{stalled}",
        time(report.elapsed),
        report.chunks,
        time(report.cpu)
    )
}

fn unconfirmed(report: &Report) -> String {
    let fault = if report.kernel_lied() {
        ": a fault of this kernel, known of 6.17 and 6.18 without CONFIG_NUMA"
    } else {
        ""
    };
    format!(
        "{}: the kernel said that it freed that, but nothing moved with it{fault}",
        size(report.unconfirmed)
    )
}

fn in_the_way(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::NoSwapRoom(bytes, SwapBound::NoSwap) => {
            format!("{} of anonymous memory: this host has no swap", size(*bytes))
        }
        Obstacle::NoSwapRoom(bytes, SwapBound::Free) => {
            format!("{} of anonymous memory: the swap is full", size(*bytes))
        }
        Obstacle::NoSwapRoom(bytes, SwapBound::Limit(cgroup)) => {
            format!("{} of anonymous memory: memory.swap.max of {} is reached", size(*bytes), escaped(cgroup))
        }
        Obstacle::AnonNotAsked(bytes) => {
            format!("{} are anonymous memory, which wasn't to be taken", size(*bytes))
        }
        Obstacle::FileNotAsked(bytes) => format!("{} are page cache, which wasn't to be taken", size(*bytes)),
        Obstacle::Protected(bytes, child) => {
            format!(
                "{} are protected by memory.min of child cgroups (most by {})",
                size(*bytes),
                escaped(child)
            )
        }
        Obstacle::OwnMin(bytes) => {
            format!(
                "{} of page cache, under its own memory.min, which kernels before 6.2 honour by mistake",
                size(*bytes)
            )
        }
        Obstacle::Unevictable(bytes) => format!("{} are locked in memory (unevictable)", size(*bytes)),
        Obstacle::Writeback(bytes) => format!("{} are still being written to swap or disk", size(*bytes)),
        Obstacle::NoCache => "no page cache is left".into(),
        Obstacle::Empty => "next to nothing is left that could be reclaimed".into(),
        Obstacle::Growing => "the cgroup grows as fast as it is reclaimed from".into(),
        Obstacle::InUse(bytes) => format!("{} of page cache are in use", size(*bytes)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use memctl::reclaim::{Measure, Tolerance};
    use rustix::io::Errno;

    use super::*;

    const M: u64 = 1 << 20;

    /// Ten MiB asked and got.
    fn report() -> Report {
        Report {
            requested: Some(10 * M),
            down_to: None,
            reclaimed: 10 * M,
            measured_by: Measure::PgstealProactive,
            counted: Some(10 * M),
            unconfirmed: 0,
            tolerance: Tolerance::Folio,
            stopped_by: StoppedBy::Reached,
            obstacles: Vec::new(),
            current_before: Some(50 * M),
            current_after: Some(40 * M),
            anon_freed: Some(0),
            file_freed: Some(10 * M),
            slab_freed: None,
            swapped_out: Some(0),
            zswapped: None,
            demoted: None,
            chunks: 12,
            elapsed: Duration::from_millis(41),
            writing: Duration::from_millis(40),
            cpu: Duration::from_millis(39),
            stalled: Some(Duration::ZERO),
            waited: Duration::ZERO,
            max_pressure: None,
            swap_cache_freed: Some(0),
        }
    }

    fn shown(report: &Report) -> String {
        super::shown(&[("/app", report)], None)
    }

    fn has(report: &Report, parts: &[&str]) {
        let shown = shown(report);
        for part in parts {
            assert!(shown.contains(part), "{part:?} in:\n{shown}");
        }
    }

    #[test]
    fn what_was_asked_for_was_got() {
        let parts =
            ["/app       10 MiB     10 MiB         0 B  ", "exact", "reached, within 2 MiB of the request"];
        has(&report(), &parts);
        has(&report(), &["50 MiB -> 40 MiB (-10 MiB)\n", "41 ms in 12 writes, 39 ms of CPU (3.99 s/GiB)"]);
    }

    #[test]
    fn a_success_that_moved_nothing_is_called_the_kernels_fault() {
        let lied = Report { reclaimed: 0, counted: Some(0), unconfirmed: 10 * M, ..report() };
        has(
            &lied,
            &[
                "under",
                "10 MiB: the kernel said that it freed that, but nothing moved",
                "a fault of this kernel",
            ],
        );
        let lagging = Report { reclaimed: 9 * M, unconfirmed: M, ..report() };
        assert!(!shown(&lagging).contains("fault"));
    }

    #[test]
    fn over_reclaim_over_swap_growth_and_demotion_are_told() {
        has(
            &Report { reclaimed: 20 * M, ..report() },
            &["+10 MiB", "over", "more than 2 MiB over the request"],
        );
        has(
            &Report { swapped_out: Some(40 * M), ..report() },
            &["to swap 40 MiB", "over-swap", "30 MiB more went"],
        );
        has(&Report { current_after: Some(45 * M), ..report() }, &["(-5 MiB, grew by 5 MiB meanwhile)"]);
        has(&Report { demoted: Some(3 * M), ..report() }, &["demoted", "3 MiB to slower memory"]);
    }

    #[test]
    fn every_end_has_its_words() {
        let ends = [
            (StoppedBy::Exhausted, "the kernel found nothing more to free, 6 MiB short of the request"),
            (StoppedBy::Interrupted, "a signal came"),
            (StoppedBy::Timeout, "the time was up after 41 ms"),
            (StoppedBy::Pressure, "the cgroup was stalled for 0% of the time, and --max-pressure is"),
            (StoppedBy::Removed, "the cgroup was removed meanwhile"),
            (StoppedBy::Failed(Errno::INVAL), "the kernel refused: invalid argument"),
        ];
        for (stopped_by, words) in ends {
            has(&Report { stopped_by, reclaimed: 4 * M, ..report() }, &["under", stopped_by.word(), words]);
        }
        let all = Report { requested: None, stopped_by: StoppedBy::Exhausted, ..report() };
        has(&all, &["max", " -  exhausted", "nothing more was to be had"]);
    }

    #[test]
    fn several_get_a_row_each_and_a_total() {
        let short = Report {
            reclaimed: 4 * M,
            stopped_by: StoppedBy::Exhausted,
            obstacles: vec![Obstacle::NoCache],
            ..report()
        };
        let shown = super::shown(&[("/app", &report()), ("/batch/one", &short)], None);
        let plain = anstream::adapter::strip_str(&shown).to_string();
        let lines: Vec<_> = plain.lines().collect();
        assert_eq!(lines[0], "CGROUP      REQUESTED  RECLAIMED  DIFFERENCE  VERDICT");
        assert_eq!(lines[2], "/batch/one     10 MiB      4 MiB      -6 MiB  under, exhausted");
        assert_eq!(lines[3], "total          20 MiB     14 MiB      -6 MiB");
        assert!(
            lines[4].starts_with("/batch/one  the kernel found nothing more")
                && lines[4].contains("; no page cache")
        );
        assert_eq!(lines[5], "cost        78 ms of CPU in 24 writes (5.71 s/GiB)");
    }

    #[test]
    fn names_of_other_cgroups_are_escaped_too() {
        let obstacles = vec![Obstacle::Protected(M, "/app/\u{1b}[2J".into())];
        let report = Report { obstacles, stopped_by: StoppedBy::Exhausted, reclaimed: 0, ..report() };
        has(&report, &["most by /app/\\u{1b}[2J"]);
    }
}
