//! Notes on standard error while memctl works.

use std::ffi::OsStr;
use std::time::Duration;

use memctl::cgroup::Name;
use memctl::cgroup::error::CgroupError;
use memctl::host::LockHolder;
use memctl::reclaim::RequestEvent;
use memctl::record::{Record, VERSION};
use memctl::size::Percent;
use memctl::watch::notes::Note;
use memctl::watch::policy::above::Limit;
use rustix::io::Errno;

use super::format::{called, counted, escaped, hundredths, size, time};
use super::{Verbosity, eprint_line};
use crate::output::format::errno_text;
use crate::output::view::{Row, Waiting};

/// Prints the line of `-v` for a step of a request, with the cgroup's name where several are in
/// progress.
pub fn event(cgroup: Option<&str>, event: &RequestEvent, loudness: Verbosity) {
    if loudness != Verbosity::Verbose {
        return;
    }
    let of = cgroup.map_or_else(String::new, |name| format!("{}: ", escaped(name)));
    match event {
        RequestEvent::Asked { bytes, answer, took, reclaimed, .. } => {
            let said = match answer {
                Ok(()) => "done".into(),
                Err(Errno::AGAIN) => "fell short".into(),
                Err(errno) => errno_text(*errno),
            };
            eprint_line(&format!(
                "{of}requested {}: {said} after {}; {} so far",
                size(*bytes),
                time(*took),
                size(*reclaimed)
            ));
        }
        RequestEvent::AwaitingWriteback { bytes } => {
            eprint_line(&format!("{of}waiting for {} under writeback to swap", size(*bytes)));
        }
        RequestEvent::AwaitingCounters => {
            eprint_line(&format!("{of}waiting for the kernel's counters to catch up"));
        }
        RequestEvent::Asking { .. } => {}
    }
}

/// Prints the note of `-v` for a time spent only on measuring.
pub fn watching(what: &str, span: Duration, loudness: Verbosity) {
    if loudness == Verbosity::Verbose {
        eprint_line(&format!("{what} for {}", time(span)));
    }
}

/// Prints a note that refaults can't be measured, because the cgroup is gone.
pub fn unwatched(cgroup: &str, loudness: Verbosity) {
    if loudness != Verbosity::Quiet {
        eprint_line(&format!("memctl: {}: the cgroup was removed during --settle", escaped(cgroup)));
    }
}

/// Prints a note after a signal, while the write in progress hasn't returned.
pub fn waiting_for_write(bytes: u64, loudness: Verbosity) {
    if loudness != Verbosity::Quiet {
        eprint_line(&format!(
            "memctl: stopping: waiting for a write of {} to return (a second signal kills memctl)",
            size(bytes)
        ));
    }
}

/// Prints a note that another process holds the lock on a cgroup.
pub fn locked(cgroup: &str, holder: LockHolder, loudness: Verbosity) {
    if loudness != Verbosity::Quiet {
        let by = holder.pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"));
        eprint_line(&format!(
            "memctl: {}: locked by {by}; reclaiming anyway (--no-lock skips this check)",
            escaped(cgroup)
        ));
    }
}

/// Prints a note that the default bound on stalls can't be kept.
pub fn unbounded(name: &str, most: Percent, why: &str, loudness: Verbosity) {
    if loudness != Verbosity::Quiet {
        eprint_line(&format!(
            "memctl: {}: the default --max-pressure of {most} can't be kept: {why}; nothing else stops the request",
            escaped(name)
        ));
    }
}

/// Prints a note that some cgroups below another one aren't shown, since they are nested too deeply.
pub fn left_out(cgroup: &str, count: usize, loudness: Verbosity) {
    if loudness != Verbosity::Quiet {
        let cgroups = super::format::counted(count, "cgroup");
        let name = escaped(cgroup);
        eprint_line(&format!("memctl: {name}: {cgroups} nested too deeply below, not shown"));
    }
}

/// Returns notes on cgroups without figures of pressure, one for each reason.
pub fn without_pressure(rows: &[Row]) -> Vec<String> {
    let without = rows.iter().filter_map(|shown| Some((&shown.reading.name, shown.reading.psi.reason()?)));
    let note = |(names, why): (String, &str)| format!("memctl: {names}: STALL% is unknown: {why}");
    by_reason(without).map(note).collect()
}

/// Returns the warning that a watch of memctl's own cgroup might reclaim memctl itself.
pub fn unlocked(cgroup: &str) -> String {
    format!(
        "{cgroup}: memctl runs in this cgroup, but can't lock its memory (CAP_IPC_LOCK, LimitMEMLOCK=infinity)"
    )
}

/// Returns notes on cgroups that may be watched later.
pub fn not_watched(waiting: &Waiting) -> Vec<String> {
    let unmatched =
        waiting.unmatched.iter().map(|word| format!("{word}: no cgroup matches yet; waiting for one"));
    let unlimited = by_reason(waiting.unlimited.iter().map(|(name, why)| (name, &**why)))
        .map(|(names, why)| format!("{names}: not watched yet: {why}"));
    unmatched.chain(unlimited).collect()
}

/// Returns each reason once, with the first of the names that it is for and the number of others.
fn by_reason<'a>(each: impl Iterator<Item = (&'a Name, &'a str)>) -> impl Iterator<Item = (String, &'a str)> {
    let mut reasons: Vec<(&Name, &str, usize)> = Vec::new();
    for (name, why) in each {
        match reasons.iter_mut().find(|(_, reason, _)| *reason == why) {
            Some((_, _, more)) => *more += 1,
            None => reasons.push((name, why, 0)),
        }
    }
    reasons.into_iter().map(|(name, why, more)| {
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        (format!("{}{more}", called(name)), why)
    })
}

/// Returns the text of a note on a word that can't be resolved now, of a rule if it has a name.
pub fn unresolved(rule: Option<&str>, why: &CgroupError) -> String {
    let of = rule.map_or_else(String::new, |rule| format!("rule {rule}: "));
    format!("{of}{why}; not watched until this is resolved")
}

/// Prints a note that a part of the hierarchy couldn't be searched.
pub fn not_searched(why: &str, loudness: Verbosity) {
    if loudness != Verbosity::Quiet {
        eprint_line(&format!("memctl: {}", escaped(why)));
    }
}

/// Returns the text of a note that isn't about a single watched cgroup.
pub fn of_watch(note: &Note) -> Option<String> {
    Some(match note {
        Note::Asked => return None,
        Note::Blind(why) => format!(
            "can't check for OOM killers: {why}; --pressure and --keep hold while any cgroup above is stalled for more than {} \
             (memory full avg10)",
            hundredths(Limit::Unknown.threshold())
        ),
        Note::WritesUnknown => {
            "the host's writes to swap can't be read (/proc/vmstat): --swap-writes counts \
             what this watch reclaims alone"
                .to_owned()
        }
        Note::StallsUnknown { cgroup } => format!(
            "{cgroup}: memory pressure can't be read, so --pressure goes by refaults alone (why: memctl check)"
        ),
        Note::NoWorkers => {
            "no thread can be started: cgroups are reclaimed from one after the other".to_owned()
        }
        Note::NotWatched { cgroup, error } => {
            format!("{cgroup}: not watched yet: {}", errno_text(*error))
        }
        Note::OldRule { cgroup, error } => {
            format!("{cgroup}: the old rule stays until the next reload: {}", errno_text(*error))
        }
        Note::SwapFree { cgroup, swap_free, limit } => format!(
            "{cgroup}: --swap-free {swap_free} lets swap fill up to SwapUsedLimit= ({}), where \
             systemd-oomd kills the largest user of swap; keep more than {} free",
            hundredths(*limit),
            hundredths(10_000_u16.saturating_sub(*limit))
        ),
    })
}

/// Prints notes on anything unexpected in a record.
pub fn read(file: &str, record: &Record, loudness: Verbosity) {
    if loudness == Verbosity::Quiet {
        return;
    }
    let file = escaped(file);
    if record.version > VERSION {
        let version = record.version;
        eprint_line(&format!(
            "memctl: {file}: record version {version} is newer than {VERSION}; drawing only the known parts"
        ));
    }
    if record.runs > 1 {
        eprint_line(&format!("memctl: {file}: the record has {} watches; drawing the last", record.runs));
    }
    if record.is_cut {
        eprint_line(&format!("memctl: {file}: the last line is cut off; drawing the lines before"));
    }
    if record.torn > 0 {
        let lines = counted(record.torn as usize, "line");
        eprint_line(&format!("memctl: {file}: {lines} cut off; drawing the others"));
    }
    if record.foreign > 0 {
        let lines = counted(record.foreign as usize, "line");
        eprint_line(&format!("memctl: {file}: {lines} of other text skipped"));
    }
    if record.dropped > 0 {
        let events = counted(usize::try_from(record.dropped).unwrap_or(usize::MAX), "event");
        eprint_line(&format!("memctl: {file}: {events} missing: the watch had to drop them"));
    }
}

/// Prints a note for each `--exclude` glob that excludes nothing.
pub fn nothing_excluded(globs: &[&OsStr], loudness: Verbosity) {
    for glob in globs.iter().filter(|_| loudness != Verbosity::Quiet) {
        eprint_line(&format!(
            "memctl: --exclude {}: no cgroup matches now",
            escaped(&glob.to_string_lossy())
        ));
    }
}

/// Prints the note of `-v` for a cgroup that matches a glob and can't be reclaimed from.
pub fn passed_over(why: &str, loudness: Verbosity) {
    if loudness == Verbosity::Verbose {
        eprint_line(&format!("skipped: {}", escaped(why)));
    }
}
