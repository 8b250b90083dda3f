//! The table of a watch on a terminal: a row for each cgroup, repainted in place.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use anstyle::AnsiColor;
use comfy_table::CellAlignment;
use memctl::watch::event::{Event, EventKind, MemberView};

use crate::output::table::{DIM, lines_of, plain_table};
use memctl::cgroup::Name;

use crate::output::format::{called, compact, escaped, shortened};

/// Number of usage samples in a sparkline.
const SPARKS: usize = 12;

/// The eight bar heights of a sparkline.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Width of the usage bar, in columns.
const BAR: usize = 8;

const TITLES: [&str; 10] =
    ["CGROUP", "USED", "LIMIT", "", "FREE", "KEPT", "WORKING SET", "GROWTH/s", "RECLAIM", "STALL%"];

/// Minimum widths of the terminal, in columns, for the limit and the kept amount, and for a
/// sparkline.
const WIDE: u16 = 100;
const ROOMY: u16 = 120;

/// Minimum width of a name, and maximum width of the last event before names are shortened, in
/// columns.
const NAME: usize = 12;
const LAST: usize = 24;

/// State kept between two paintings.
#[derive(Default)]
pub struct Table {
    rows: HashMap<Name, Remembered>,
    /// The most recent notes on the whole watch.
    notes: Vec<String>,
}

/// Maximum number of notes below the rows.
const NOTES: usize = 3;

#[derive(Default)]
struct Remembered {
    /// Recent usage as a share of the limit, in eighths.
    sparks: Vec<usize>,
    /// The largest usage, in bytes.
    largest: u64,
    /// Text of the last event.
    last: String,
    /// Total stall time at the last painting.
    stalled: Option<(Instant, Duration)>,
}

impl Remembered {
    /// Returns the share of the time since the last painting during which the cgroup was stalled.
    fn stall(&mut self, now: Instant, stalled: Option<Duration>) -> Option<f64> {
        let (before, stalled) = (self.stalled.take(), stalled?);
        self.stalled = Some((now, stalled));
        let (then, before) = before?;
        let time = now.saturating_duration_since(then).as_secs_f64();
        (time > 0.0).then(|| (stalled.saturating_sub(before).as_secs_f64() / time).min(1.0))
    }
}

impl Table {
    /// Records the last event of a cgroup.
    pub fn remember(&mut self, event: &Event<'_>, brief: String) {
        if matches!(event.what, EventKind::Gone | EventKind::Released) {
            self.rows.remove(event.cgroup);
        } else if !brief.is_empty() {
            self.rows.entry(event.cgroup.clone()).or_default().last = brief;
        }
    }

    /// Adds a note below the rows.
    pub fn note(&mut self, what: &str) {
        self.notes.push(escaped(what));
        let old = self.notes.len().saturating_sub(NOTES);
        self.notes.drain(..old);
    }

    /// Returns the current screen, with the control sequences that move the cursor to its top.
    pub fn painted(
        &mut self,
        views: &mut dyn Iterator<Item = MemberView<'_>>,
        now: Instant,
        (width, rows): (u16, u16),
    ) -> String {
        let mut cells: Vec<[String; 10]> = Vec::new();
        let mut ends = Vec::new();
        // Usage of each cgroup as a share; blocked cgroups sort first.
        let mut rooms = Vec::new();
        let (mut limited, mut pressed) = (false, false);
        for view in views {
            let remembered = self.rows.entry(view.cgroup.clone()).or_default();
            limited |= view.room.is_some();
            pressed |= view.found.is_some();
            let limit = view.room.map(|room| room.limit);
            // Without a limit, relative to the largest usage so far.
            remembered.largest = remembered.largest.max(view.current);
            let share = match view.room {
                Some(room) => 1.0 - room.free as f64 / room.limit.max(1) as f64,
                None => view.current as f64 / remembered.largest.max(1) as f64,
            };
            rooms.push(if view.held.is_some() { 2.0 } else { share });
            remembered.sparks.push(((share * 8.0) as usize).min(7));
            let old = remembered.sparks.len().saturating_sub(SPARKS);
            remembered.sparks.drain(..old);
            let stall = remembered.stall(now, view.stalled);
            let or_none = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), compact);
            cells.push([
                called(view.cgroup),
                compact(view.current),
                or_none(limit),
                limit.map_or_else(String::new, |_| bar(share)),
                or_none(view.room.map(|room| room.free)),
                or_none(view.room.map(|room| room.low)),
                view.found.and_then(|found| found.set).map_or_else(
                    || "-".to_owned(),
                    |set| {
                        let sign = if set.is_at_most() { "≤" } else { "" };
                        format!("{sign}{} {:>2.0}%", compact(set.bytes), 100.0 * set.confidence)
                    },
                ),
                growth(view.growth),
                compact(view.reclaimed),
                stall.map_or_else(|| "-".to_owned(), |share| format!("{:.1}", 100.0 * share)),
            ]);
            let sparks: String = remembered.sparks.iter().map(|&height| HEIGHTS[height]).collect();
            let sparks = if width < ROOMY { String::new() } else { format!("{sparks:<SPARKS$}  ") };
            ends.push((sparks, remembered.last.clone(), view.held.is_some()));
        }
        let wide = width >= WIDE;
        let shown = |column: usize| match TITLES[column] {
            "LIMIT" | "KEPT" => wide && limited,
            "" | "FREE" => limited || !pressed,
            "WORKING SET" => pressed,
            _ => true,
        };
        let chosen = |cells: [String; 10]| {
            let cells = cells.into_iter().enumerate();
            cells.filter(|(column, _)| shown(*column)).map(|(_, cell)| cell).collect::<Vec<_>>()
        };
        // If not all rows fit, the cgroups with least room are shown.
        let fitting = usize::from(rows).saturating_sub(2 + self.notes.len()).max(1);
        let hidden = if cells.len() > fitting { cells.len() + 1 - fitting } else { 0 };
        if hidden > 0 {
            let mut by_room: Vec<_> = (0..rooms.len()).collect();
            by_room.sort_by(|&a, &b| rooms[b].total_cmp(&rooms[a]));
            let mut kept: Vec<_> = by_room[..cells.len() - hidden].to_vec();
            kept.sort_unstable();
            cells = kept.iter().map(|&row| cells[row].clone()).collect();
            ends = kept.iter().map(|&row| ends[row].clone()).collect();
        }
        let room = usize::from(width).saturating_sub(others(&cells, &ends, &shown)).max(NAME);
        let mut table = plain_table();
        table.set_header(chosen(TITLES.map(str::to_owned)));
        for mut row in cells {
            row[0] = shortened(&row[0], room);
            table.add_row(chosen(row));
        }
        for (at, column) in (0..TITLES.len()).filter(|&column| shown(column)).enumerate() {
            if let Some(cells) = table.column_mut(at).filter(|_| column > 0 && !TITLES[column].is_empty()) {
                cells.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut lines = lines_of(&mut table);
        let header: String = lines.next().unwrap_or_default().chars().take(width.into()).collect();
        let mut painted = format!("\u{1b}[H\u{1b}[J{DIM}{header}{DIM:#}\n");
        for (line, (sparks, last, held)) in lines.zip(ends) {
            let colour = if held { AnsiColor::Yellow } else { AnsiColor::Green };
            let style = colour.on_default();
            let taken = line.chars().count() + 2 + sparks.chars().count();
            if taken > width.into() {
                // No sparkline or event, and not even blanks: they would wrap.
                let _ = writeln!(painted, "{}", line.chars().take(width.into()).collect::<String>());
                continue;
            }
            let last = cut(&escaped(&last), usize::from(width) - taken);
            let _ = writeln!(painted, "{line}  {sparks}{style}{last}{style:#}");
        }
        if hidden > 0 {
            let _ = writeln!(painted, "{DIM}and {hidden} more, with more room{DIM:#}");
        }
        for note in &self.notes {
            let _ = writeln!(painted, "{DIM}{}{DIM:#}", cut(note, width.into()));
        }
        painted
    }
}

/// Cuts a text to `room` characters, with a mark in the place of the rest.
fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(1)).chain(room.checked_sub(1).map(|_| '…')).collect()
}

/// Returns the width of the columns beside the name, including the gaps between them and the
/// minimum width of the last event.
fn others(cells: &[[String; 10]], ends: &[(String, String, bool)], shown: &dyn Fn(usize) -> bool) -> usize {
    let columns = (1..TITLES.len()).filter(|&column| shown(column)).map(|column| {
        let widest = cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        2 + widest.max(TITLES[column].len())
    });
    let ends =
        ends.iter().map(|(sparks, last, _)| 2 + sparks.chars().count() + last.chars().count().min(LAST));
    columns.sum::<usize>() + ends.max().unwrap_or(0)
}

fn bar(share: f64) -> String {
    let full = ((share * BAR as f64).round() as usize).min(BAR);
    "█".repeat(full) + &"░".repeat(BAR - full)
}

/// Formats a growth rate: `+12.5M`, `-3M`, `0`. Some hundred KiB are the kernel's batches of
/// charges.
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
    use memctl::watch::event::{EstimateSummary, Room};
    use memctl::watch::policy::savings::Saved;
    use memctl::watch::policy::working_set::WorkingSet;

    use super::*;

    #[test]
    fn a_row_each_with_a_bar_a_sparkline_and_what_happened_last() {
        let app = Name::from("/app");
        let view = MemberView {
            cgroup: &app,
            current: 192 << 20,
            room: Some(Room { limit: 256 << 20, free: 64 << 20, low: 26 << 20 }),
            growth: 12.5 * f64::from(1 << 20),
            stalled: Some(Duration::ZERO),
            reclaimed: 3 << 30,
            held: None,
            found: None,
        };
        let mut table = Table::default();
        let event = Event { cgroup: &app, at: Duration::ZERO, what: EventKind::Blocked };
        table.remember(&event, "writes are blocked".into());
        let began = Instant::now();
        let mut painted = |width, millis: u64| {
            let view = MemberView { stalled: Some(Duration::from_millis(millis / 4)), ..view };
            let at = began + Duration::from_millis(millis);
            let painted = table.painted(&mut [view].into_iter(), at, (width, 24));
            let plain = anstream::adapter::strip_str(&painted).to_string();
            plain.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(painted(80, 0)[0], "CGROUP  USED            FREE  GROWTH/s  RECLAIM  STALL%");
        let row = "/app    192M  ██████░░   64M    +12.5M       3G    25.0  ";
        assert_eq!(painted(80, 1000)[1], format!("{row}writes are blocked"));
        assert_eq!(painted(60, 2000)[1], format!("{row}wr…"));
        let wide = painted(120, 3000);
        assert_eq!(wide[0], "CGROUP  USED  LIMIT            FREE  KEPT  GROWTH/s  RECLAIM  STALL%");
        let row = "/app    192M   256M  ██████░░   64M   26M    +12.5M       3G    25.0  ";
        assert_eq!(wide[1], format!("{row}▇▇▇▇          writes are blocked"));
        assert!(painted(40, 3500).iter().all(|line| line.chars().count() <= 40));
        let set = WorkingSet {
            bytes: 61 << 20,
            is_bound: true,
            spares: false,
            confidence: 0.8,
            age: Duration::ZERO,
            range: (60 << 20, 62 << 20),
            copies: 0,
            idle_anon: 0,
            reuse: Duration::from_secs(60),
            suggested: Some(70 << 20),
        };
        let found = EstimateSummary { set: Some(set), idle: None, saved: Saved::default() };
        let pressed = MemberView { room: None, found: Some(found), stalled: None, ..view };
        let painted = table.painted(&mut [pressed].into_iter(), began, (80, 24));
        let plain = anstream::adapter::strip_str(&painted).to_string();
        let rows = [
            "CGROUP  USED  WORKING SET  GROWTH/s  RECLAIM  STALL%",
            "/app    192M     ≤61M 80%    +12.5M       3G       -  writes are blocked",
        ];
        assert_eq!(plain.lines().collect::<Vec<_>>(), rows);
        table.remember(&Event { what: EventKind::Gone, ..event }, "gone".into());
        assert!(table.rows.is_empty());
        assert_eq!((growth(-3.0 * f64::from(1 << 20)).as_str(), growth(100.0).as_str()), ("-3M", "0"));
    }

    #[test]
    fn where_not_all_fit_those_with_least_room_are_shown_by_their_whole_names() {
        let names: Vec<_> =
            (0..30).map(|number| Name::from(format!("/kubepods.slice/pod{number:02}"))).collect();
        let mut views = names.iter().enumerate().map(|(number, name)| MemberView {
            cgroup: name,
            current: 50 << 20,
            room: Some(Room {
                limit: 100 << 20,
                free: if number % 10 == 9 { 1 << 20 } else { 50 << 20 },
                low: 10 << 20,
            }),
            growth: 0.0,
            stalled: None,
            reclaimed: 0,
            held: None,
            found: None,
        });
        let painted = Table::default().painted(&mut views, Instant::now(), (80, 10));
        let plain = anstream::adapter::strip_str(&painted).to_string();
        let lines: Vec<_> = plain.lines().collect();
        assert!(lines.len() == 9 && lines.iter().all(|line| line.chars().count() <= 80), "{plain}");
        for name in ["pod09", "pod19", "pod29"] {
            assert!(
                lines.iter().any(|line| line.starts_with(&format!("/kubepods.slice/{name} "))),
                "{name} in {plain}"
            );
        }
        assert_eq!(lines[8], "and 23 more, with more room");
    }
}
