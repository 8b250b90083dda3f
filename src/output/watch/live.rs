//! The table of a watch on a terminal: a row for each cgroup, painted anew in place.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

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
const BAR: usize = 8;

/// From these widths on there is room for the limit and for what is kept free, and for a sparkline.
const WIDE: u16 = 100;
const ROOMY: u16 = 120;

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
    /// For how long it had been stalled when.
    stalled: Option<(Instant, Duration)>,
}

impl Remembered {
    /// The share of the time since the last painting in which it was stalled.
    fn stall(&mut self, now: Instant, stalled: Option<Duration>) -> Option<f64> {
        let (before, stalled) = (self.stalled.take(), stalled?);
        self.stalled = Some((now, stalled));
        let (then, before) = before?;
        let time = now.saturating_duration_since(then).as_secs_f64();
        (time > 0.0).then(|| (stalled.saturating_sub(before).as_secs_f64() / time).min(1.0))
    }
}

impl Table {
    /// Remembers what happened last.
    pub fn remember(&mut self, event: &Event<'_>, brief: String) {
        if event.what == What::Gone {
            self.rows.remove(event.cgroup);
        } else if !brief.is_empty() {
            self.rows.entry(event.cgroup.to_owned()).or_default().last = brief;
        }
    }

    /// The screen as it is now, with what moves the cursor to its top.
    pub fn painted(
        &mut self,
        views: &mut dyn Iterator<Item = View<'_>>,
        now: Instant,
        (width, rows): (u16, u16),
    ) -> String {
        let wide = width >= WIDE;
        // What the other columns need, and the last at the least.
        let others = if wide { 92 } else { 68 };
        let room = usize::from(width).saturating_sub(others).max(12);
        let mut table = plain_table();
        let titles = ["CGROUP", "USED", "LIMIT", "", "FREE", "KEPT", "GROWTH/s", "RECLAIM", "STALL%"];
        let shown = |column: usize| wide || !matches!(titles[column], "LIMIT" | "KEPT");
        let chosen = |cells: [String; 9]| {
            let cells = cells.into_iter().enumerate();
            cells.filter(|(column, _)| shown(*column)).map(|(_, cell)| cell).collect::<Vec<_>>()
        };
        table.set_header(chosen(titles.map(str::to_owned)));
        let mut ends = Vec::new();
        for view in views {
            let remembered = self.rows.entry(view.cgroup.to_owned()).or_default();
            let limit = view.current.saturating_add(view.free);
            let share = view.current as f64 / limit.max(1) as f64;
            remembered.sparks.push(((share * 8.0) as usize).min(7));
            let old = remembered.sparks.len().saturating_sub(SPARKS);
            remembered.sparks.drain(..old);
            let stall = remembered.stall(now, view.stalled);
            table.add_row(chosen([
                shortened(&escaped(view.cgroup), room),
                compact(view.current),
                compact(limit),
                bar(share),
                compact(view.free),
                compact(view.low),
                growth(view.growth),
                compact(view.reclaimed),
                stall.map_or_else(|| "-".to_owned(), |share| format!("{:.1}", 100.0 * share)),
            ]));
            let sparks: String = remembered.sparks.iter().map(|&height| HEIGHTS[height]).collect();
            let sparks = if width < ROOMY { String::new() } else { format!("{sparks:<SPARKS$}  ") };
            ends.push((sparks, remembered.last.clone(), view.held.is_some()));
        }
        for (at, column) in (0..titles.len()).filter(|&column| shown(column)).enumerate() {
            if let Some(cells) = table.column_mut(at).filter(|_| column > 0 && !titles[column].is_empty()) {
                cells.set_cell_alignment(CellAlignment::Right);
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

/// `+12.5M`, `-3M`, `0`. Some hundred KiB are the kernel's batches of charges.
fn growth(a_second: f64) -> String {
    const NOTHING: f64 = 65536.0;
    match a_second {
        rate if rate >= NOTHING => format!("+{}", compact(rate as u64)),
        rate if rate <= -NOTHING => format!("-{}", compact(-rate as u64)),
        _ => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_each_with_a_bar_a_sparkline_and_what_happened_last() {
        let view = View {
            cgroup: "/app",
            current: 192 << 20,
            free: 64 << 20,
            low: 26 << 20,
            growth: 12.5 * f64::from(1 << 20),
            stalled: Some(Duration::ZERO),
            reclaimed: 3 << 30,
            held: None,
        };
        let mut table = Table::default();
        let event = Event { cgroup: "/app", at: Duration::ZERO, what: What::Blocked };
        table.remember(&event, "writes are blocked".into());
        let began = Instant::now();
        let mut painted = |width, millis: u64| {
            let view = View { stalled: Some(Duration::from_millis(millis / 4)), ..view };
            let at = began + Duration::from_millis(millis);
            let painted = table.painted(&mut [view].into_iter(), at, (width, 24));
            let plain = anstream::adapter::strip_str(&painted).to_string();
            plain.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(painted(80, 0)[0], "CGROUP  USED            FREE  GROWTH/s  RECLAIM  STALL%");
        let row = "/app    192M  ██████░░   64M    +12.5M       3G    25.0  ";
        assert_eq!(painted(80, 1000)[1], format!("{row}writes are blocked"));
        assert_eq!(painted(60, 2000)[1], format!("{row}wri"));
        let wide = painted(120, 3000);
        assert_eq!(wide[0], "CGROUP  USED  LIMIT            FREE  KEPT  GROWTH/s  RECLAIM  STALL%");
        let row = "/app    192M   256M  ██████░░   64M   26M    +12.5M       3G    25.0  ";
        assert_eq!(wide[1], format!("{row}▇▇▇▇          writes are blocked"));
        table.remember(&Event { what: What::Gone, ..event }, "gone".into());
        assert!(table.rows.is_empty());
        assert_eq!((growth(-3.0 * f64::from(1 << 20)).as_str(), growth(100.0).as_str()), ("-3M", "0"));
    }
}
