//! What `memctl watch` tells: a line for everything that happens, and at the end what came of it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use memctl::watch::act::{Acted, End};
use memctl::watch::estimate::WorkingSet;
use memctl::watch::event::{Event, Tally, View, What};
use memctl::watch::guard::Guard;
use memctl::watch::saving::Saved;

use super::json::{Begun, Happened, Reloaded, usec};
use super::table::DIM;
use super::words::{compact, counted, escaped, hundredths, size, time};
use super::{Loudness, answer_on, terminal_rows, terminal_width};

mod dry;
mod end;
mod live;

use end::net;
pub use end::print;
use live::Table;

/// Set once nobody reads any more.
static DEAF: AtomicBool = AtomicBool::new(false);

/// Whether the reader of stdout has gone.
pub fn nobody_reads() -> bool {
    DEAF.load(Ordering::Relaxed)
}

/// Where events are told: in lines, or on a terminal in a table that is painted anew.
pub struct Screen {
    began: Instant,
    json: bool,
    silent: bool,
    table: Option<Table>,
}

impl Screen {
    /// With `estimate` nothing is told but that.
    pub fn new(json: bool, estimate: bool, loudness: Loudness) -> Self {
        let live = !json && loudness == Loudness::Normal && terminal_width().is_some();
        if json {
            heard(&answer_on(&(serde_json::to_string(&Begun::now()).unwrap_or_default() + "\n")));
        }
        Self {
            began: Instant::now(),
            json,
            silent: !json && (estimate || loudness == Loudness::Quiet),
            table: live.then(Table::default),
        }
    }

    /// Whether it wants to show how all of them stand.
    pub fn is_live(&self) -> bool {
        self.table.is_some()
    }

    /// Shows how all of them stand.
    pub fn show(&mut self, rows: &mut dyn Iterator<Item = View<'_>>) {
        if let Some(table) = &mut self.table {
            let screen = (terminal_width().unwrap_or(80), terminal_rows().unwrap_or(24));
            heard(&answer_on(&table.painted(rows, Instant::now(), screen)));
        }
    }

    /// Tells that the rules were read again: how many there are now, or why the old ones stay.
    pub fn reloaded(&mut self, file: &Path, rules: Result<usize, &anyhow::Error>, loudness: Loudness) {
        let config = file.display().to_string();
        if self.json {
            let error = rules.err().map(|why| format!("{why:#}"));
            let (at_usec, rules) = (usec(self.began.elapsed()), rules.ok());
            let told = Reloaded { event: "reload", at_usec, config: &config, rules, error };
            heard(&answer_on(&(serde_json::to_string(&told).unwrap_or_default() + "\n")));
        }
        match rules {
            Ok(count) if !self.json => {
                self.note(&format!("{config}: read again: {}", counted(count, "rule")), loudness);
            }
            Ok(_) => {}
            Err(why) if self.table.is_some() => {
                self.note(&format!("{why:#}; the old rules stay"), loudness);
            }
            Err(why) => {
                super::error::print(why);
                super::remark("memctl: the old rules stay");
            }
        }
    }

    /// Tells something that isn't of one cgroup: below the table, which would be painted over it, or on standard error.
    pub fn note(&mut self, what: &str, loudness: Loudness) {
        match &mut self.table {
            Some(table) => table.note(what),
            None if loudness != Loudness::Quiet => super::remark(&format!("memctl: {}", escaped(what))),
            None => {}
        }
    }

    /// Shows an event.
    pub fn event(&mut self, event: &Event<'_>) {
        if let What::Acted(_) = event.what {
            return super::remark(&line(event));
        }
        if let Some(table) = &mut self.table {
            return table.remember(event, brief(&event.what));
        }
        if self.silent {
            return;
        }
        let line = if self.json {
            serde_json::to_string(&Happened::from(event)).unwrap_or_default()
        } else {
            line(event)
        };
        heard(&answer_on(&(line + "\n")));
    }
}

fn heard(written: &Result<bool>) {
    if !matches!(written, Ok(true)) {
        DEAF.store(true, Ordering::Relaxed);
    }
}

fn line(event: &Event<'_>) -> String {
    let at = format!("{DIM}{:>8.1}s{DIM:#}", event.at.as_secs_f64());
    format!("{at}  {}  {}", escaped(event.cgroup), what(&event.what))
}

fn what(what: &What) -> String {
    match what {
        What::Start { current, limit, file, above, headroom, rule } => {
            let by = rule.as_ref().map_or_else(String::new, |rule| format!(" (rule {})", escaped(rule)));
            let file = file.map_or("--keep", |file| file.name());
            let of = above.as_ref().map_or_else(String::new, |above| format!(" of {}", escaped(above)));
            if *limit == u64::MAX {
                return format!("watched{by}: {} used, without a limit", size(*current));
            }
            if *headroom == 0 && file != "--keep" {
                return format!("watched{by}: {} of {} used ({file}{of})", size(*current), size(*limit));
            }
            if *headroom == 0 {
                return format!(
                    "watched{by}: {} used, to stay below {} ({file}{of})",
                    size(*current),
                    size(*limit)
                );
            }
            format!(
                "watched{by}: {} of {} used ({file}{of}), keeping {} free",
                size(*current),
                size(*limit),
                size(*headroom)
            )
        }
        What::Limit { limit: u64::MAX, .. } => "limit removed".into(),
        What::Limit { limit, file } => {
            format!("limit changed to {} ({})", size(*limit), file.map_or("--keep", |file| file.name()))
        }
        What::Acted(acted) => action(acted),
        What::Reclaim(tally) => reclaimed(tally),
        What::Hold { guard, wait } => {
            let wait = wait.map_or_else(String::new, |wait| format!("; waits {}", time(wait)));
            format!("held: {}{wait}", guarded(*guard))
        }
        What::Outrun { needed, free } if needed > free => {
            format!("outrun: {} free, {} needed", size(*free), size(*needed))
        }
        What::Outrun { free, .. } => {
            format!("outrun: {} free, more needed", size(*free))
        }
        What::Would { requested, .. } => format!("would reclaim {}", size(*requested)),
        What::WorkingSet { set, saved } => found(set, saved),
        // Only a record has them.
        What::Sample(sample) => format!("{} used", size(sample.current)),
        What::Gone => "gone".into(),
        What::Released => "no rule applies any more".into(),
        What::Left => "left the cgroup: no other process was in it".into(),
        What::Blocked => "no write has returned for 5 s, and all worker threads are blocked".into(),
    }
}

/// What happened, in as few words as a column has room for.
fn brief(what: &What) -> String {
    match what {
        What::Start { .. } | What::Acted(_) | What::Sample(_) => String::new(),
        What::Limit { limit: u64::MAX, .. } => "limit removed".into(),
        What::Limit { limit, .. } => format!("limit {}", compact(*limit)),
        What::Reclaim(tally) => format!("reclaimed {}", compact(tally.reclaimed)),
        What::Hold { guard, .. } => format!("held: {}", guard.word().replace('_', " ")),
        What::Outrun { needed, .. } => format!("outrun: needed {}", compact(*needed)),
        What::Would { requested, .. } => format!("would reclaim {}", compact(*requested)),
        What::WorkingSet { set, .. } => format!("working set {}", compact(set.bytes)),
        What::Gone | What::Released => "gone".into(),
        What::Left => "left".into(),
        What::Blocked => "writes blocked".into(),
    }
}

fn reclaimed(tally: &Tally) -> String {
    format!(
        "reclaimed {} of {} in {}, {} of CPU; {}",
        size(tally.reclaimed),
        size(tally.requested),
        super::reclaim::writes(tally.writes),
        time(tally.cpu),
        tally.room.map_or_else(
            || format!("{} used", size(tally.current_after)),
            |room| format!("{} free", size(room.free))
        )
    )
}

fn found(set: &WorkingSet, saved: &Saved) -> String {
    format!(
        "working set: {} (confidence {:.0}%); suggested memory.max {}; saved {}",
        size(set.bytes),
        100.0 * set.confidence,
        size(set.suggested),
        net(saved, &size)
    )
}

/// What `-v` tells of each action.
fn action(acted: &Acted) -> String {
    let end = match acted.end {
        End::Done => "done",
        End::Exhausted => "nothing more could be reclaimed",
        End::Late => "waiting for a device",
        End::Stopped => "stopped",
        End::Locked => "locked",
        End::Removed => "the cgroup was removed",
        End::Failed(_) => "the kernel refused",
    };
    let (asked, got, took) = (size(acted.requested), size(acted.reclaimed), time(acted.writing));
    format!("requested {asked} in {}: {got} after {took}, {end}", super::reclaim::writes(acted.writes))
}

fn guarded(guard: Guard) -> String {
    match guard {
        Guard::Floor => "down to the floor or the cgroup's protection".into(),
        Guard::Pressure => "stalled more than --max-pressure allows".into(),
        Guard::SwapFree => "only anonymous memory is left, and --swap-free prevents swapping".into(),
        Guard::SwapWrites => "only anonymous memory is left, and --swap-writes prevents swapping".into(),
        Guard::SlowSwap => {
            "only anonymous memory is left, and swap is a rotating disk (--type all swaps anyway)".into()
        }
        Guard::Refaults(share) => format!(
            "{:.0}% of the reclaimed memory was in use and came back: the limit is too low for the usage",
            100.0 * share
        ),
        Guard::Exhausted => "nothing more could be reclaimed".into(),
        Guard::Cpu => "the --cpu budget is used up".into(),
        Guard::Grace => "it started less than 5 s ago".into(),
        Guard::Lock => "another memctl is reclaiming from it".into(),
        Guard::Above(pressure) => format!(
            "memory pressure above the cgroup (full avg10 {}): scanning could trigger an OOM killer",
            hundredths(pressure)
        ),
    }
}
