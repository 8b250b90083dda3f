//! Output of `memctl reclaim --dry-run` for people: a row with the outlook of each request, and the
//! arithmetic.

use anstyle::AnsiColor;
use memctl::cgroup::Name;
use memctl::cgroup::swap_room::SwapBound;
use memctl::host::kernel::kernel_release;
use memctl::reclaim::{Blocker, Plan, TotalPlan};

use super::format::{called, escaped, size, time};
use super::json::{Planned, TotalPlanned};
use super::reclaim::below_the_gate;
use super::table::{DIM, cgroup, figures, labelled, plain_table};
use super::{Verbosity, print_stdout, terminal_width};
use crate::error::Result;
use crate::output::view::DryRun;

/// Prints the forecasts.
pub fn print(foretold: &[DryRun], total: Option<&TotalPlan>, json: bool, loudness: Verbosity) -> Result<()> {
    if json {
        let lines = foretold.iter().map(|one| Ok(serde_json::to_string(&Planned::from(one))? + "\n"));
        let mut lines = lines.collect::<Result<String>>()?;
        if let Some(total) = total {
            lines += &(serde_json::to_string(&TotalPlanned::from(total))? + "\n");
        }
        return print_stdout(&lines);
    }
    if loudness == Verbosity::Quiet {
        return Ok(());
    }
    let width = terminal_width();
    let lines = match foretold {
        [one] if total.is_none() => arithmetic(one),
        _ => remarks(foretold, total),
    };
    print_stdout(&(rows(foretold, total, width) + &labelled(&lines, width.unwrap_or(u16::MAX))))
}

/// Returns a row for each forecast, and a total for several.
fn rows(foretold: &[DryRun], total: Option<&TotalPlan>, width: Option<u16>) -> String {
    // Maximum width of the other columns and the outlook.
    const OTHERS: usize = 54;
    let named = |name: &Name| cgroup(name, width, OTHERS);
    let requested = |bytes: Option<u64>| bytes.map_or_else(|| "max".into(), size);
    let mut table = plain_table();
    table.set_header(["CGROUP", "REQUESTED", "RECLAIMABLE"]);
    for DryRun { name, plan, .. } in foretold {
        table.add_row([named(name), requested(plan.requested), size(plan.reclaimable.bytes())]);
    }
    if let Some(total) = total {
        table.add_row(["total".into(), requested(total.requested), size(total.reclaimable)]);
    } else if foretold.len() > 1 {
        let plans = || foretold.iter().map(|one| &one.plan);
        let there: u64 = plans().map(|plan| plan.reclaimable.bytes()).sum();
        table.add_row(["total".into(), requested(plans().map(|plan| plan.requested).sum()), size(there)]);
    }
    let (header, lines) = figures(&mut table);
    let each = |DryRun { plan, .. }: &DryRun| match total {
        // With one amount for all, only the total has an outlook.
        Some(_) if plan.guards.is_empty() => String::new(),
        _ => outlook(plan.requested, &plan.guards),
    };
    let whole = total.map_or_else(String::new, |total| outlook(total.requested, &total.guards));
    let outlooks = foretold.iter().map(each).chain([whole]);
    let body =
        lines.zip(outlooks).map(|(line, outlook)| format!("{line}  {outlook}").trim_end().to_owned() + "\n");
    format!("{DIM}{header}  OUTLOOK{DIM:#}\n{}", body.collect::<String>())
}

fn outlook(requested: Option<u64>, guards: &[Blocker]) -> String {
    let (words, colour) = match guards.first() {
        None if requested.is_none() => return "upper bound".into(),
        None => ("enough".to_owned(), AnsiColor::Green),
        Some(Blocker::Short(bytes)) => return short_by(*bytes),
        Some(Blocker::Timeout(_)) => ("timeout".into(), AnsiColor::Red),
        Some(Blocker::Pressure(_)) => ("under pressure".into(), AnsiColor::Red),
        Some(Blocker::Unsupported(_)) => ("unsupported".into(), AnsiColor::Red),
    };
    let style = colour.on_default().bold();
    format!("{style}{words}{style:#}")
}

/// Returns the arithmetic of a single forecast, in labelled lines.
fn arithmetic(foretold: &DryRun) -> Vec<(String, String)> {
    let plan = &foretold.plan;
    let mut lines = vec![("request", would_ask(foretold)), ("reclaimable", reclaimable(plan))];
    lines.extend(left_out(plan).map(|left| ("left out", left)));
    lines.extend(would_stop(foretold).into_iter().map(|stop| ("would stop", stop)));
    let mut lines: Vec<_> = lines.into_iter().map(|(label, text)| (label.to_owned(), text)).collect();
    lines.push(nothing_written());
    lines
}

/// Returns labelled lines on several forecasts.
fn remarks(foretold: &[DryRun], total: Option<&TotalPlan>) -> Vec<(String, String)> {
    let stops = foretold.iter().filter(|one| !one.plan.guards.is_empty() || one.locked);
    let mut lines: Vec<_> = stops
        .map(|one| {
            let text = format!("{}; {}", reclaimable(&one.plan), would_stop(one).join("; "));
            (called(&one.name), text)
        })
        .collect();
    if let Some(rest) = total.and_then(|total| total.rest).filter(|&rest| rest > 0) {
        let text = "more, in slices from the cgroup that yields most per CPU second, known only at run time";
        lines.push(("then".into(), format!("{} {text}", size(rest))));
    }
    let stops = total.into_iter().flat_map(|total| &total.guards);
    lines.extend(stops.map(|guard| ("would stop".into(), guarded_total(*guard))));
    lines.push(nothing_written());
    lines
}

fn guarded_total(guard: Blocker) -> String {
    match guard {
        Blocker::Pressure(_) => {
            "--max-pressure: the cgroups that aren't stalled have less than the request".into()
        }
        Blocker::Unsupported(_) => "the kernel, which is too old for the request".into(),
        Blocker::Short(bytes) => exhaustion(bytes),
        Blocker::Timeout(best) => too_slow(best),
    }
}

fn exhaustion(short: u64) -> String {
    format!("exhaustion, {} short of the request", size(short))
}

fn too_slow(best: std::time::Duration) -> String {
    format!("--timeout: at --max-rate the request takes at least {}", time(best))
}

fn short_by(bytes: u64) -> String {
    let style = AnsiColor::Red.on_default().bold();
    format!("{style}short by {}{style:#}", size(bytes))
}

fn nothing_written() -> (String, String) {
    ("dry run".into(), "nothing was written; dirty and active pages may not be reclaimable".into())
}

fn would_ask(DryRun { path, plan, .. }: &DryRun) -> String {
    let file = escaped(&path.join(plan.subject.file()).display().to_string());
    if plan.requested == Some(0) {
        return format!("nothing through {file}: the usage is low enough already");
    }
    let amount = plan.requested.map_or_else(|| "everything".into(), size);
    let chunk = match plan.chunk {
        Some(bytes) => format!("{} per write", size(bytes)),
        None => "in adaptive chunks".into(),
    };
    let swappiness = plan.kind.swappiness().map_or_else(String::new, |value| format!(", swappiness={value}"));
    format!("{amount} through {file}, {chunk}{swappiness}")
}

fn reclaimable(plan: &Plan) -> String {
    let there = &plan.reclaimable;
    if let Some((has, gate)) = &there.shut {
        return format!("nothing: {}", below_the_gate(*has, gate));
    }
    let mut parts = Vec::new();
    if plan.kind.takes_file() {
        parts.push(format!("{} of page cache", size(there.file)));
    }
    if there.unswappable {
        parts.push("no anonymous memory, since vm.swappiness is 0".into());
    } else if plan.kind.takes_anon() {
        let bound = match there.swap.as_ref().map(|room| &room.bound) {
            _ if there.swappable == there.anon => String::new(),
            Some(SwapBound::NoSwap) => format!(" of {}: this host has no swap", size(there.anon)),
            Some(SwapBound::Limit(name)) => {
                format!(" of {}: swap is limited by memory.swap.max of {}", size(there.anon), escaped(name))
            }
            Some(SwapBound::Free) | None => format!(" of {}: limited by free swap", size(there.anon)),
        };
        parts.push(format!("{} of anonymous memory and tmpfs{bound}", size(there.swappable)));
    }
    if there.slab > 0 {
        parts.push(format!("{} of slab, at most", size(there.slab)));
    }
    let protector = there.protector.as_deref().map_or_else(String::new, |child| {
        format!(
            ", less {} under memory.min of child cgroups (most by {})",
            size(there.protected),
            escaped(child)
        )
    });
    format!("{} = {}{protector}", size(there.bytes()), parts.join(" + "))
}

fn left_out(plan: &Plan) -> Option<String> {
    const MIN_SHOWN: u64 = 256 << 10;
    let there = &plan.reclaimable;
    (there.unevictable >= MIN_SHOWN)
        .then(|| format!("{} are unevictable (locked in memory)", size(there.unevictable)))
}

fn would_stop(DryRun { plan, locked, .. }: &DryRun) -> Vec<String> {
    let mut stops: Vec<String> = plan.guards.iter().map(|guard| guarded(*guard, plan)).collect();
    // A refusal of the kernel's ends the list: nothing after it would be reached.
    if plan.guards.iter().any(|guard| matches!(guard, Blocker::Unsupported(_))) {
        stops.truncate(1);
        return stops;
    }
    let slow = plan.guards.iter().any(|guard| matches!(guard, Blocker::Timeout(_)));
    stops.extend(plan.timeout.filter(|_| !slow).map(|timeout| format!("--timeout, after {}", time(timeout))));
    let pressed = plan.guards.iter().any(|guard| matches!(guard, Blocker::Pressure(_)));
    stops.extend(plan.max_pressure.filter(|_| !pressed && !plan.pressure_blind()).map(|most| {
        let now =
            plan.pressure.map_or_else(String::new, |now| format!(" ({} in the last 10 s)", percent(now)));
        format!("--max-pressure, once stalled for more than {most} of the time{now}")
    }));
    if *locked {
        stops.push("a lock held by another process: memctl waits for up to 2 s".into());
    }
    stops
}

fn guarded(guard: Blocker, plan: &Plan) -> String {
    match guard {
        Blocker::Short(bytes) => exhaustion(bytes),
        Blocker::Timeout(best) => too_slow(best),
        Blocker::Pressure(now) => {
            let most = plan.max_pressure.map_or_else(String::new, |most| most.to_string());
            format!("--max-pressure {most}: already stalled for {} of the last 10 s", percent(now))
        }
        Blocker::Unsupported(since) => {
            let key = plan.kind.swappiness().map_or_else(String::new, |value| format!("swappiness={value}"));
            let release = kernel_release().map_or_else(String::new, |release| escaped(&release));
            format!(
                "the kernel: {key} requires Linux {since}, this is {release} \
                 (memctl check tests for a backport, harmlessly)"
            )
        }
    }
}

fn percent(hundredths: u16) -> String {
    format!("{}%", f64::from(hundredths) / 100.0)
}
