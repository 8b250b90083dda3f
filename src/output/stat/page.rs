//! One cgroup in full: composition of its memory, reclaimable amount, limits and protection, and
//! reclaim activity.

use memctl::cgroup::limit::{BindingLimit, Ceiling};
use memctl::cgroup::pressure::{Pressure, Stall};
use memctl::cgroup::swap_room::SwapBound;
use memctl::host::PsiState;

use super::details;
use crate::output::format::{Size, escaped, time};
use crate::output::view::Row;

/// Returns the labelled lines. Values that this kernel doesn't offer have none.
pub fn lines(shown: &Row, size: Size) -> Vec<(String, String)> {
    let reading = &shown.reading;
    let (stat, details) = (&reading.stat(), shown.details.as_deref());
    let part = |what: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{what} {}", size(bytes)));
    let limited =
        |what: &str, limit: Option<Ceiling>| limit.map(|limit| format!("{what} {}", ceiling(limit, size)));
    let joined = |parts: &[Option<String>]| {
        let parts: Vec<_> = parts.iter().flatten().map(String::as_str).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    };
    let usage = reading.current.map_or_else(
        || Some("unknown: the root cgroup has no memory.current".to_owned()),
        |current| {
            let set = reading.working_set();
            let set = set.map_or_else(String::new, |set| format!(", working set {}", size(set)));
            Some(format!("{}{set}", size(current)))
        },
    );
    let lines = [
        ("cgroup", Some(escaped(&reading.name))),
        ("pod", reading.name.pod().map(|pod| escaped(pod.label()))),
        ("usage", usage),
        ("reclaimable", Some(reclaimable(shown, size))),
        (
            "anon",
            joined(&[
                stat.anon.map(size),
                part("active", stat.active_anon),
                part("inactive", stat.inactive_anon),
                part("tmpfs and shared", stat.shmem),
                part("swap cache", stat.swapcached.filter(|&bytes| bytes > 0)),
            ]),
        ),
        (
            "file",
            joined(&[
                stat.file.map(size),
                part("active", stat.active_file),
                part("inactive", stat.inactive_file),
                part("dirty", stat.file_dirty),
                part("mapped", stat.file_mapped),
            ]),
        ),
        (
            "kernel",
            joined(&[
                stat.kernel.map(size),
                part("slab", stat.slab),
                part("reclaimable slab", stat.slab_reclaimable),
                part("page tables", stat.pagetables),
                part("stacks", stat.kernel_stack),
                part("sockets", stat.sock),
            ]),
        ),
        ("unevictable", stat.unevictable.filter(|&bytes| bytes > 0).map(size)),
        ("swap", swap(shown, size)),
        ("zswap", details::zswap(shown, size)),
        ("limits", limits(shown, size)),
        ("headroom", Some(headroom(shown, size))),
        ("beyond", shown.hidden.map(details::beyond)),
        ("protection", joined(&[limited("min", reading.min), limited("low", reading.low)])),
        ("pressure", reading.pressure.map(pressure).or_else(|| no_pressure(reading.psi))),
        ("io pressure", details.and_then(|details| details.io_pressure).map(pressure)),
        ("events", details.and_then(details::events)),
        ("reclaimed", reclaimed(shown, size)),
        ("came back", joined(&[part("refaults", stat.refaulted()), part("in use before", stat.restored())])),
        ("rates", rates(shown, size)),
        ("nodes", details.and_then(|details| details::nodes(&details.nodes, size))),
    ];
    lines.into_iter().filter_map(|(label, text)| Some((label.to_owned(), text?))).collect()
}

fn reclaimable(shown: &Row, size: Size) -> String {
    let there = &shown.reclaimable;
    let anon = if there.unswappable {
        "no anonymous memory, since vm.swappiness is 0".to_owned()
    } else {
        let bound = match there.swap.as_ref().map(|room| &room.bound) {
            _ if there.swappable == there.anon => String::new(),
            Some(SwapBound::NoSwap) => format!(" of {}: no swap", size(there.anon)),
            Some(SwapBound::Free) | None => format!(" of {}: limited by free swap", size(there.anon)),
            Some(SwapBound::Limit(name)) => {
                format!(" of {}: memory.swap.max of {}", size(there.anon), escaped(name))
            }
        };
        format!("{} of anonymous memory and tmpfs{bound}", size(there.swappable))
    };
    let slab = match there.slab {
        0 => String::new(),
        slab => format!(" + {} of slab, at most", size(slab)),
    };
    let protected = there.protector.as_deref().map_or_else(String::new, |child| {
        format!(", less {} under memory.min of children (most by {})", size(there.protected), escaped(child))
    });
    format!("{} = {} of page cache + {anon}{slab}{protected}", size(there.bytes()), size(there.file))
}

fn ceiling(limit: Ceiling, size: Size) -> String {
    limit.bytes().map_or_else(|| "max".into(), size)
}

fn swap(shown: &Row, size: Size) -> Option<String> {
    let reading = &shown.reading;
    let used = match reading.swap {
        Some(used) => size(used),
        // Nothing can be told where there is no swap either.
        None if reading.conditions.swap.as_ref().is_none_or(|room| room.bytes == 0) => return None,
        None => "unknown: no memory.swap.current".to_owned(),
    };
    let max = reading.swap_max.map_or_else(String::new, |max| format!(", limit {}", ceiling(max, size)));
    let room = reading.conditions.swap.as_ref();
    let room = room.map_or_else(String::new, |room| format!(", room for {}", size(room.bytes)));
    Some(format!("{used}{max}{room}"))
}

fn limits(shown: &Row, size: Size) -> Option<String> {
    let reading = &shown.reading;
    Some(format!("high {}, max {}", ceiling(reading.high?, size), ceiling(reading.max?, size)))
}

fn headroom(shown: &Row, size: Size) -> String {
    let without = if shown.hidden.is_some() { "no visible limit" } else { "no limit here or above" };
    shown.reading.bound.as_ref().map_or_else(
        || without.into(),
        |bound| {
            let BindingLimit { limit, headroom, cgroup, file } = bound;
            let over = shown.reading.current.filter(|_| **cgroup == *shown.reading.name);
            let over = over.and_then(|current| current.checked_sub(*limit)).filter(|&bytes| bytes > 0);
            let over = over.map_or_else(String::new, |bytes| format!(", exceeded by {}", size(bytes)));
            format!(
                "{} below {} of {}, {}{over}",
                size(*headroom),
                file.name(),
                escaped(cgroup),
                size(*limit)
            )
        },
    )
}

fn pressure(pressure: Pressure) -> String {
    let told = |what: &str, stall: Stall| {
        let total = time(std::time::Duration::from_micros(stall.total));
        format!("{what} {:.2}% of the last 10 s, {total} in total", f64::from(stall.avg10) / 100.0)
    };
    let full = pressure.full.map_or_else(String::new, |full| format!("; {}", told("full", full)));
    told("some", pressure.some) + &full
}

fn no_pressure(psi: PsiState) -> Option<String> {
    Some(format!("unknown: {}", psi.reason()?))
}

fn rates(shown: &Row, size: Size) -> Option<String> {
    let rates = shown.rates?;
    let efficiency = rates.efficiency.map(|ratio| format!("{:.0}% of scanned pages", 100.0 * ratio));
    let parts = [
        rates.refaulted.map(|bytes| format!("{}/s refaulted", size(bytes))),
        rates.reclaimed.map(|bytes| format!("{}/s reclaimed", size(bytes))),
        efficiency,
    ];
    Some(parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

fn reclaimed(shown: &Row, size: Size) -> Option<String> {
    let stat = &shown.reading.stat();
    let page = rustix::param::page_size() as u64;
    let by = |who: &str, stolen: Option<u64>, scanned: Option<u64>| {
        let (stolen, scanned) = (stolen?, scanned?);
        // The share of scanned pages that were reclaimed.
        let efficiency = if scanned == 0 {
            String::new()
        } else {
            format!(" ({:.0}% of scanned pages)", 100.0 * stolen as f64 / scanned as f64)
        };
        Some(format!("{who} {}{efficiency}", size(stolen * page)))
    };
    let parts = [
        stat.pgsteal.map(|pages| size(pages * page)),
        by("proactive", stat.pgsteal_proactive, stat.pgscan_proactive),
        by("direct", stat.pgsteal_direct, stat.pgscan_direct),
        by("kswapd", stat.pgsteal_kswapd, stat.pgscan_kswapd),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
