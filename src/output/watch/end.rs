//! Results of a watch, as tables at its end.

use memctl::watch::event::{Ended, Summary};
use memctl::watch::policy::working_set::Idle;

use serde::Serialize;

use super::super::format::{called, compact, counted, size, time};
use super::super::json::{WatchEnded, WatchSummary};
use super::super::table::{DIM, figures, plain_table};
use super::super::{Verbosity, terminal_width};
use super::WatchScreen;
use super::dry_run::foretold;
use super::event::{at_most, guarded, net};
use crate::output::table::cgroup;

impl WatchScreen {
    /// Prints the results, and waits for the reader as long as it goes on; after a signal, which
    /// `hurry` reports, for a moment only. Returns whether all that is left of the output was
    /// written.
    pub fn end(&self, ended: &Ended, estimate: bool, loudness: Verbosity, hurry: &dyn Fn() -> bool) -> bool {
        let (writer, json) = (&self.writer, self.json);
        let dropped = writer.dropped();
        if dropped > 0 && !json && loudness != Verbosity::Quiet {
            let events = counted(usize::try_from(dropped).unwrap_or(usize::MAX), "event");
            self.message(&format!("memctl: {events} dropped: standard output wasn't read in time"));
        }
        let written = if json {
            let summary = |summary| to_line(&WatchSummary::from(summary));
            // The others were printed when their cgroups ended.
            let each = ended.each.iter().skip(ended.emitted);
            let end = std::iter::once_with(|| to_line(&WatchEnded::new(ended, writer.dropped())));
            writer.end(each.map(summary).chain(end), hurry)
        } else {
            let text = tables(ended, estimate, loudness);
            writer.end(text.split_inclusive('\n').map(str::to_owned), hurry)
        };
        if let Err(why) = &written {
            self.message(&format!("memctl: standard output: the end wasn't written: {why}"));
            writer.flush_messages();
        }
        written.is_ok()
    }
}

fn to_line(line: &impl Serialize) -> String {
    serde_json::to_string(line).unwrap_or_default() + "\n"
}

/// Returns the results as tables; nothing where they aren't wanted.
fn tables(ended: &Ended, estimate: bool, loudness: Verbosity) -> String {
    let width = terminal_width();
    match loudness {
        Verbosity::Quiet => String::new(),
        _ if ended.each.is_empty() => String::new(),
        _ if ended.dry_run => foretold(ended, width),
        _ if estimate => estimates(ended, width),
        _ => summary(ended, width),
    }
}

/// Maximum width of the other columns of these tables.
const OTHERS: usize = 64;

/// Returns a table of the working sets and the memory saved.
fn estimates(ended: &Ended, width: Option<u16>) -> String {
    let mut table = plain_table();
    table.set_header(["CGROUP", "WORKING SET", "CONFIDENCE", "AGE", "MEMORY.MAX", "SWAP", "SAVED"]);
    let (mut zram, mut demoted, mut missing, mut idle) = (0, 0, None, Vec::new());
    let (mut spares, mut is_bound, mut stays, mut early) = (false, false, false, None);
    let (mut zswap, mut unused) = (0, 0);
    for one in &ended.each {
        let Some(found) = one.found else { continue };
        let or_none = |bytes: Option<u64>| bytes.map_or_else(|| "-".into(), compact);
        let set = found.set;
        (zram, demoted) = (zram + found.saved.zram.unwrap_or(0), demoted + found.saved.demoted);
        let unsuggested = set.filter(|set| set.suggested.is_none());
        early = early.or(unsuggested.filter(|set| !set.is_bound).map(|set| set.reuse));
        stays |= unsuggested.is_some_and(|set| set.is_bound);
        is_bound |= set.is_some_and(|set| set.is_bound);
        spares |= set.is_some_and(|set| set.spares);
        unused += set.filter(|set| set.suggested.is_some()).map_or(0, |set| set.idle_anon);
        zswap += set.filter(|set| set.suggested.is_some()).map_or(0, |set| set.copies);
        if let Some(why) = found.idle {
            idle.push(format!("{}: {}", called(&one.cgroup), silent(why)));
        } else if set.is_none() && !one.gone {
            missing = missing.or(Some(one.last_held));
        }
        table.add_row([
            cgroup(&one.cgroup, width, OTHERS),
            set.map_or_else(|| "not found".into(), |set| at_most(&set).to_owned() + &compact(set.bytes)),
            set.map_or_else(|| "-".into(), |set| format!("{:.0}%", 100.0 * set.confidence)),
            set.map_or_else(|| "-".into(), |set| time(set.age)),
            or_none(set.and_then(|set| set.suggested)),
            or_none(one.swapped),
            net(&found.saved, &compact),
        ]);
    }
    let (header, lines) = figures(&mut table);
    let copies =
        || format!("~ minus about {} for compressed copies in zram (estimated from mm_stat)", size(zram));
    let notes = [
        spares.then(|| "at most: some memory that may be idle can't be reclaimed, or is spared".to_owned()),
        is_bound.then(|| "at most: the last reclaim doesn't prove that all remaining memory is in use".to_owned()),
        early.map(|reuse| {
            format!(
                "no memory.max is suggested before {0} have passed since the first knee: what is touched every {0} \
                 must have come back (--reuse)",
                time(reuse)
            )
        }),
        stays.then(|| {
            "no memory.max is suggested as long as hardly any of what is reclaimed is used again".to_owned()
        }),
        (zram > 0).then(copies),
        (zswap > 0).then(|| {
            format!(
                "MEMORY.MAX has room for {} of compressed copies in zswap, which aren't part of the working set",
                size(zswap)
            )
        }),
        (unused > 0).then(|| {
            format!(
                "MEMORY.MAX has room for {} of idle anonymous memory: under a limit the kernel may keep it, and take \
                 page cache in use instead",
                size(unused)
            )
        }),
        (demoted > 0).then(|| format!("in addition, {} demoted to slower memory", size(demoted))),
        missing.map(|held| match held {
            Some(guard) => format!("not found: {}", guarded(guard)),
            None => "not found: too few refaults so far; try a longer --duration".to_owned(),
        }),
    ];
    let body: String = lines.chain(notes.into_iter().flatten()).chain(idle).map(|line| line + "\n").collect();
    format!("{DIM}{header}{DIM:#}\n{body}")
}

/// Returns the text for a cgroup of which nothing was learned, since no task ran.
fn silent(why: Idle) -> &'static str {
    match why {
        Idle::Frozen => "frozen (paused): nothing can be learned of its working set until it runs",
        Idle::NoCpu => "used no CPU lately: nothing can be learned of its working set until it does",
    }
}

/// Returns the line on the guards that blocked actions.
fn held(one: &Summary) -> Option<String> {
    let times = match one.held {
        0 => return None,
        1 => "once".to_owned(),
        times => format!("{times} times"),
    };
    Some(format!("{}  held {times}, last: {}\n", called(&one.cgroup), guarded(one.last_held?)))
}

/// Returns a table of the actions for each cgroup, and their cost.
fn summary(ended: &Ended, width: Option<u16>) -> String {
    let mut table = plain_table();
    table.set_header(["CGROUP", "REQUESTED", "RECLAIMED", "DIRECT", "STALLED", "BEFORE", "OUTRUN", "CPU"]);
    let share =
        |share: Option<f64>| share.map_or_else(|| "-".into(), |share| format!("{:.2}%", 100.0 * share));
    let sign = |one: &Summary| if one.direct_is_at_most { "≤" } else { "" };
    for one in &ended.each {
        let stalled = one.stalled.map(|stalled| stalled.as_secs_f64() / one.watched.as_secs_f64().max(1e-3));
        table.add_row([
            cgroup(&one.cgroup, width, OTHERS),
            compact(one.total.requested),
            compact(one.total.reclaimed),
            one.direct.map_or_else(|| "-".into(), |direct| sign(one).to_owned() + &compact(direct)),
            share(stalled),
            share(one.stalled_before),
            one.outrun.to_string(),
            time(one.total.cpu),
        ]);
    }
    let (header, lines) = figures(&mut table);
    let body: String = lines.map(|line| line + "\n").collect();
    let reclaimed = ended.total_reclaimed();
    let gib = reclaimed as f64 / f64::from(1 << 30);
    let per_gib =
        if reclaimed > 0 { format!(" ({:.2} s/GiB)", ended.cpu.as_secs_f64() / gib) } else { String::new() };
    let held: String = ended.each.iter().filter_map(held).collect();
    let found = if ended.each.iter().any(|one| one.found.is_some()) {
        estimates(ended, width)
    } else {
        String::new()
    };
    let others = match ended.others {
        0 => String::new(),
        count => format!(
            "{} reclaimed from {} that ended earlier\n",
            size(ended.others_total.reclaimed),
            counted(count as usize, "more cgroup")
        ),
    };
    format!(
        "{DIM}{header}{DIM:#}\n{body}{others}{held}{found}watched for {}, with {} of CPU in total{per_gib}\n",
        time(ended.watched),
        time(ended.cpu)
    )
}
