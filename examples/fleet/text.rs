//! The sums as text of at most 80 columns.

use std::fmt::Write;
use std::time::Duration;

use humansize::{BINARY, FormatSizeOptions, SizeFormatter};
use unicode_width::UnicodeWidthChar;

use crate::pool::Pool;
use crate::sums::{Sums, SumsByName};

/// Maximum width of a line in columns.
const WIDTH: usize = 80;

/// Returns the sums of one group: by rule, by namespace where the records have any, and in all.
pub fn sums(pool: &Pool) -> String {
    let mut text = String::new();
    table(&mut text, "RULE", &pool.rules, &pool.all);
    if pool.namespaces.has_names() {
        text.push('\n');
        table(&mut text, "NAMESPACE", &pool.namespaces, &pool.all);
    }
    text.push('\n');
    let _ = writeln!(
        text,
        "{} records, {} with their end, {} in all; {} of dry runs; {} left out",
        pool.records,
        pool.ended_records,
        time(pool.span_usec),
        pool.dry_runs,
        pool.left_out
    );
    let _ = writeln!(
        text,
        "CPU of memctl, in records with their end: {}, {} of a CPU",
        time(pool.total_cpu_usec),
        percent(ratio(pool.total_cpu_usec, pool.ended_usec))
    );
    if pool.dropped > 0 {
        let _ = writeln!(text, "{} events were dropped: sums without a summary are too low", pool.dropped);
    }
    text
}

/// A column: its title, its width, and the value of a cell.
type Column = (&'static str, usize, fn(&Sums) -> String);

/// Columns after the name. A size has at most seven characters.
const COLUMNS: [Column; 8] = [
    ("CGROUPS", 8, |sums| count(sums.cgroups)),
    ("SAVED", 8, |sums| signed_size(sums.net_saved_bytes)),
    (WOULD, 8, |sums| size(Some(sums.would_reclaim_bytes))),
    ("RECLAIM", 8, |sums| size(Some(sums.reclaimed_bytes))),
    ("REFAULT", 8, |sums| size(sums.refaulted_bytes)),
    ("STALL", 6, |sums| sums.stalled_usec.map_or("-".into(), time)),
    ("CPU", 6, |sums| time(sums.cpu_usec)),
    ("HITS", 6, |sums| count(sums.outrun)),
];

/// Title of the column that only dry runs fill.
const WOULD: &str = "WOULD";

/// Appends a table with a row for each name, and one for all cgroups.
fn table(text: &mut String, what: &str, by_name: &SumsByName, all: &Sums) {
    let columns: Vec<Column> =
        COLUMNS.into_iter().filter(|(title, ..)| *title != WOULD || all.would_reclaim_bytes > 0).collect();
    let room = WIDTH - columns.iter().map(|(_, width, _)| width).sum::<usize>();
    let mut row = |name: &str, cell: &dyn Fn(&Column) -> String| {
        let (name, used) = fitted(name, room);
        let mut line = name + &" ".repeat(room - used);
        for column in &columns {
            let _ = write!(line, "{:>width$}", cell(column), width = column.1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    row(what, &|(title, ..)| (*title).into());
    for (name, sums) in by_name.iter().map(|(name, sums)| (name.unwrap_or("-"), sums)).chain([("all", all)]) {
        row(name, &|(_, _, value)| value(sums));
    }
}

/// Returns a comparison of two groups.
pub fn comparison(base: &Pool, other: &Pool) -> String {
    let mut text = String::new();
    let mut row = |what: &str, value: &dyn Fn(&Pool) -> String| {
        let _ = writeln!(text, "{what:<46}{:>16}{:>16}", value(base), value(other));
    };
    row("", &|pool| if std::ptr::eq(pool, base) { "BASE".into() } else { "VERSUS".into() });
    row("records", &|pool| count(pool.records));
    row("of dry runs", &|pool| count(pool.dry_runs));
    row("cgroups", &|pool| count(pool.all.cgroups));
    row("watched, in sum of the records", &|pool| time(pool.span_usec));
    let each = |bytes: i64, pool: &Pool| bytes / pool.records.max(1) as i64;
    row("saved, per record", &|pool| signed_size(pool.all.net_saved_bytes.map(|bytes| each(bytes, pool))));
    row("would be reclaimed at once, per record", &|pool| {
        size(Some(pool.all.would_reclaim_bytes / pool.records.max(1)))
    });
    let hourly = |bytes: Option<u64>, pool: &Pool| {
        bytes
            .filter(|_| pool.span_usec > 0)
            .map(|bytes| (bytes as f64 * 3.6e9 / pool.span_usec as f64) as u64)
    };
    row("reclaimed, per record and hour", &|pool| size(hourly(Some(pool.all.reclaimed_bytes), pool)));
    row("refaulted, per record and hour", &|pool| size(hourly(pool.all.refaulted_bytes, pool)));
    row("limits met, per record and hour", &|pool| {
        hourly(Some(pool.all.outrun), pool).map_or("-".into(), count)
    });
    row("stalled, of the time of a cgroup", &|pool| percent(pool.all.stalled_ratio()));
    row("  median of the records", &|pool| percent(pool.median_stalled()));
    row("  largest of a record", &|pool| percent(pool.most_stalled.as_ref().map(|(ratio, _)| *ratio)));
    row("CPU of writes, of a CPU", &|pool| percent(ratio(pool.all.cpu_usec, pool.span_usec)));
    row("CPU of memctl, of a CPU", &|pool| percent(ratio(pool.total_cpu_usec, pool.ended_usec)));
    for (what, pool) in [("base", base), ("versus", other)] {
        if let Some((_, path)) = &pool.most_stalled {
            let _ = writeln!(text, "most stalled, {what}: {}", fitted(&path.display().to_string(), 58).0);
        }
    }
    text
}

/// Returns `part / whole`, unless the whole is 0.
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn percent(ratio: Option<f64>) -> String {
    ratio.map_or("-".into(), |ratio| format!("{:.2}%", ratio * 100.0))
}

/// Formats a count in at most five characters: `99999`, `100k`.
fn count(count: u64) -> String {
    let scales = [(1, ""), (1_000, "k"), (1_000_000, "M"), (1_000_000_000, "G"), (1_000_000_000_000, "T")];
    let fits = scales.iter().find(|(scale, letter)| count / scale < 10u64.pow(5 - letter.len() as u32));
    fits.map_or(">9999T".into(), |(scale, letter)| format!("{}{letter}", count / scale))
}

/// Formats a size in at most seven characters: `10.1M`, `0`.
fn size(bytes: Option<u64>) -> String {
    let Some(bytes) = bytes else { return "-".into() };
    let options = FormatSizeOptions::from(BINARY).decimal_places(1).space_after_value(false);
    let text = SizeFormatter::new(bytes, options).to_string();
    text.trim_end_matches('B').trim_end_matches('i').to_owned()
}

fn signed_size(bytes: Option<i64>) -> String {
    let Some(bytes) = bytes else { return "-".into() };
    format!("{}{}", if bytes < 0 { "-" } else { "" }, size(Some(bytes.unsigned_abs())))
}

/// Formats a time in at most five characters: `3ms`, `1.2s`, `12m`, `200h`, `50d`.
fn time(usec: u64) -> String {
    let time = Duration::from_micros(usec);
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{}ms", (usec + 500) / 1000),
        1..10 => format!("{:.1}s", time.as_secs_f64()),
        10..600 => format!("{seconds}s"),
        600..36_000 => format!("{}m", seconds / 60),
        36_000..3_600_000 => format!("{}h", seconds / 3600),
        _ => format!("{}d", count(seconds / 86_400)),
    }
}

/// Returns a name that is safe to print and at most that wide, and its width. A longer one loses its
/// end, which an ellipsis stands for.
fn fitted(name: &str, width: usize) -> (String, usize) {
    let safe = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let columns = |c: char| c.width().unwrap_or(0);
    let all: usize = name.chars().map(|c| columns(safe(c))).sum();
    let mut text = String::new();
    let mut used = 0;
    for c in name.chars().map(safe) {
        if used + columns(c) > if all > width { width - 1 } else { width } {
            text.push('…');
            used += 1;
            break;
        }
        text.push(c);
        used += columns(c);
    }
    (text, used)
}
