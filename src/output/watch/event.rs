//! Text of watch events.

use memctl::watch::action::{ActionResult, EndReason};
use memctl::watch::event::{Event, EventKind, ReclaimTally};
use memctl::watch::policy::guard::Guard;
use memctl::watch::policy::savings::Saved;
use memctl::watch::policy::working_set::WorkingSet;

use super::super::format::{called, compact, errno_text, escaped, hundredths, size, time};
use super::super::table::DIM;

/// Returns the line for an event.
pub fn line(event: &Event<'_>) -> String {
    let at = format!("{DIM}{:>8.1}s{DIM:#}", event.at.as_secs_f64());
    format!("{at}  {}  {}", called(event.cgroup), what(&event.what))
}

fn what(what: &EventKind) -> String {
    match what {
        EventKind::Start { current, limit, file, above, headroom, rule } => {
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
        EventKind::Limit { limit: u64::MAX, .. } => "limit removed".into(),
        EventKind::Limit { limit, file } => {
            format!("limit changed to {} ({})", size(*limit), file.map_or("--keep", |file| file.name()))
        }
        EventKind::Acted(acted) => action(acted),
        EventKind::Reclaim(tally) => reclaimed(tally),
        EventKind::Hold { guard, wait } => {
            // Where tasks reclaim by themselves, to hold helps nobody.
            let sooner = if matches!(guard, Guard::Refaults(_)) { ", or until the limit is met" } else { "" };
            let wait = wait.map_or_else(String::new, |wait| format!("; waits {}{sooner}", time(wait)));
            format!("held: {}{wait}", guarded(*guard))
        }
        EventKind::Outrun { needed, free } if needed > free => {
            format!("outrun: {} free, {} needed", size(*free), size(*needed))
        }
        EventKind::Outrun { free, .. } => {
            format!("outrun: {} free, more needed", size(*free))
        }
        EventKind::Would { requested, .. } => format!("would reclaim {}", size(*requested)),
        EventKind::WorkingSet { set, saved } => found(set, saved),
        // Only a record has samples.
        EventKind::Sample(sample) => format!("{} used", size(sample.current)),
        EventKind::Blind { error } => format!("can't be watched for now: {}", errno_text(*error)),
        EventKind::Recovered => "watched again".into(),
        EventKind::Gone => "gone".into(),
        EventKind::Released => "no rule applies any more".into(),
        // Only a record has it, and the tables at the end.
        EventKind::Ended(summary) => format!("{} reclaimed in all", size(summary.total.reclaimed)),
        EventKind::Left => "left the cgroup: no other process was in it".into(),
        EventKind::Blocked => "no write has returned for 5 s, and all worker threads are blocked".into(),
    }
}

/// Returns a short text of an event, to fit into a column.
pub fn brief(what: &EventKind) -> String {
    match what {
        EventKind::Start { .. } | EventKind::Acted(_) | EventKind::Sample(_) | EventKind::Ended(_) => {
            String::new()
        }
        EventKind::Limit { limit: u64::MAX, .. } => "limit removed".into(),
        EventKind::Limit { limit, .. } => format!("limit {}", compact(*limit)),
        EventKind::Reclaim(tally) => format!("reclaimed {}", compact(tally.reclaimed)),
        EventKind::Hold { guard, .. } => format!("held: {}", guard.word().replace('_', " ")),
        EventKind::Outrun { needed, .. } => format!("outrun: needed {}", compact(*needed)),
        EventKind::Would { requested, .. } => format!("would reclaim {}", compact(*requested)),
        EventKind::WorkingSet { set, .. } => {
            format!("working set {}{}", at_most(set), compact(set.bytes))
        }
        EventKind::Blind { .. } => "can't be read".into(),
        EventKind::Recovered => "watched again".into(),
        EventKind::Gone | EventKind::Released => "gone".into(),
        EventKind::Left => "left".into(),
        EventKind::Blocked => "writes blocked".into(),
    }
}

fn reclaimed(tally: &ReclaimTally) -> String {
    format!(
        "reclaimed {} of {} in {}, {} of CPU; {}",
        size(tally.reclaimed),
        size(tally.requested),
        crate::output::reclaim::writes(tally.writes),
        time(tally.cpu),
        tally.room.map_or_else(
            || format!("{} used", size(tally.current_after)),
            |room| format!("{} free", size(room.free))
        )
    )
}

/// Returns the words in front of an estimate that is an upper bound; nothing for others.
pub fn at_most(set: &WorkingSet) -> &'static str {
    if set.is_at_most() { "at most " } else { "" }
}

fn found(set: &WorkingSet, saved: &Saved) -> String {
    let suggested = match set.suggested {
        Some(bytes) if set.idle_anon > 0 => {
            let idle = size(set.idle_anon);
            format!("suggested memory.max {}, with room for {idle} of idle anonymous memory", size(bytes))
        }
        Some(bytes) => format!("suggested memory.max {}", size(bytes)),
        None if set.is_bound => "hardly any of what was reclaimed is used again".to_owned(),
        None => format!("what is touched less than all the time has {} to come back", time(set.reuse)),
    };
    let copies = if set.copies > 0 {
        format!(", and {} of compressed copies in zswap", size(set.copies))
    } else {
        String::new()
    };
    format!(
        "working set: {}{}{copies} (confidence {:.0}%); {suggested}; saved {}",
        at_most(set),
        size(set.bytes),
        100.0 * set.confidence,
        net(saved, &size)
    )
}

/// Returns the line of `-v` for an action.
fn action(acted: &ActionResult) -> String {
    let end = match acted.end {
        EndReason::Done => "done",
        EndReason::Exhausted => "nothing more could be reclaimed",
        EndReason::Late => "ended after 5 ms, since swap may be slow",
        EndReason::Stopped => "stopped",
        EndReason::Slice => "goes on in its next turn",
        EndReason::Locked(_) => "locked",
        EndReason::Removed => "the cgroup was removed",
        EndReason::Failed(_) => "the kernel refused",
    };
    let (asked, got, took) = (size(acted.requested), size(acted.reclaimed), time(acted.writing));
    format!(
        "requested {asked} in {}: {got} after {took}, {end}",
        crate::output::reclaim::writes(acted.writes)
    )
}

/// Returns the reason for which a guard blocks.
pub fn guarded(guard: Guard) -> String {
    match guard {
        Guard::Floor => "down to the floor or the cgroup's protection".into(),
        Guard::Pressure => "stalled more than --max-pressure allows".into(),
        Guard::SwapFree => "only anonymous memory is left, and --swap-free prevents swapping".into(),
        Guard::SwapWrites => "only anonymous memory is left, and --swap-writes prevents swapping".into(),
        Guard::SlowSwap { is_known: false } => {
            "only anonymous memory is left, and the speed of swap is unknown (--type all swaps anyway)".into()
        }
        Guard::SlowSwap { is_known: true } => {
            "only anonymous memory is left, and swap is a rotating disk (--type all swaps anyway)".into()
        }
        Guard::Refaults(share) => refaults(share),
        Guard::LeftToTasks => {
            "what was reclaimed came back: reclaim is left to the tasks, which may take less".into()
        }
        Guard::Exhausted => "nothing more could be reclaimed".into(),
        Guard::Cpu => "the --cpu budget is used up".into(),
        Guard::Grace => "it started less than 5 s ago".into(),
        Guard::Lock(None) => "another process holds a lock on it".into(),
        Guard::Lock(Some(pid)) => format!("process {pid} holds a lock on it"),
        Guard::NoRoom => "the headroom is all of the limit, or more".into(),
        Guard::Above(pressure) => format!(
            "memory pressure above the cgroup (full avg10 {}): scanning could trigger an OOM killer",
            hundredths(pressure)
        ),
        Guard::Kswapd => "kswapd is at work, and reclaims from all cgroups".into(),
    }
}

/// Returns the reason for which refaults block, by the share of the reclaimed memory. What comes
/// back may have been reclaimed earlier, so the share can be more than one.
fn refaults(share: f64) -> String {
    let came = match share {
        ..1.0 => format!("{:.0}% of what was reclaimed came back", 100.0 * share),
        _ => format!("{share:.1} times as much came back as was reclaimed"),
    };
    format!("{came}: reclaim would only repeat that")
}

/// Returns the net saving, formatted by `unit`; negative if copies take more than that.
pub fn net(saved: &Saved, unit: &dyn Fn(u64) -> String) -> String {
    let Some(net) = saved.net() else { return "unknown".into() };
    let about = if saved.zram > Some(0) { "~" } else { "" };
    let sign = if net < 0 { "-" } else { "" };
    format!("{about}{sign}{}", unit(net.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_suggestion_says_what_it_has_room_for() {
        let mut set = WorkingSet {
            bytes: 70 << 20,
            is_bound: false,
            spares: false,
            range: (70 << 20, 70 << 20),
            copies: 0,
            idle_anon: 0,
            confidence: 0.8,
            age: Duration::ZERO,
            reuse: Duration::from_secs(60),
            suggested: Some(77 << 20),
        };
        let saved = Saved::default();
        let line = "working set: 70 MiB (confidence 80%); suggested memory.max 77 MiB; saved 0 B";
        assert_eq!(found(&set, &saved), line);
        (set.idle_anon, set.suggested) = (30 << 20, Some(110 << 20));
        let room = "suggested memory.max 110 MiB, with room for 30 MiB of idle anonymous memory; saved 0 B";
        assert_eq!(found(&set, &saved), format!("working set: 70 MiB (confidence 80%); {room}"));
    }
}
