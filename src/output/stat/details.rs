//! Lines of a page that have no column in the table: zswap, events, NUMA nodes, and hidden limits.

use memctl::cgroup::Details;
use memctl::cgroup::mount::Hidden;
use memctl::cgroup::numa::NodeStat;
use memctl::cgroup::zswap::Zswap;

use crate::output::format::{Size, escaped};
use crate::output::view::Row;

/// Returns the amount that zswap holds and still accepts; nothing if it is off and empty.
pub fn zswap(shown: &Row, size: Size) -> Option<String> {
    let stat = &shown.reading.stat();
    let held = stat.zswapped.zip(stat.zswap).filter(|&(held, _)| held > 0);
    let held = held.map(|(held, takes)| {
        let ratio = 100.0 * takes as f64 / held as f64;
        format!("{} in {}, compressed to {ratio:.0}%", size(held), size(takes))
    });
    let room = shown.details.as_deref().and_then(|details| details.zswap.as_ref());
    let room = room.and_then(|zswap| room_in(zswap, size));
    match (held, room) {
        (None, None | Some((_, false))) => None,
        (None, Some((room, true))) => Some(format!("empty, {room}")),
        (Some(held), None) => Some(held),
        (Some(held), Some((room, _))) => Some(format!("{held}, {room}")),
    }
}

/// Returns the text on the room in zswap, and whether it accepts pages at all.
fn room_in(zswap: &Zswap, size: Size) -> Option<(String, bool)> {
    if !zswap.enabled {
        return Some(("off, accepts no more pages".into(), false));
    }
    let room = zswap.room.map(|room| {
        let bound = zswap.bound.as_deref().map_or_else(
            || " in the host's pool".into(),
            |level| format!(" below memory.zswap.max of {}", escaped(level)),
        );
        format!("room for {} compressed{bound}", size(room))
    });
    let kept = zswap.kept.as_deref();
    let kept =
        kept.map(|level| format!("no writeback to swap (memory.zswap.writeback of {})", escaped(level)));
    let parts: Vec<_> = room.into_iter().chain(kept).collect();
    (!parts.is_empty()).then(|| (parts.join(", "), true))
}

/// Returns the counters that aren't 0, with the number of events in this cgroup alone where it
/// differs.
pub fn events(details: &Details) -> Option<String> {
    let (all, local) = (details.events.as_ref()?, details.events_local.as_ref());
    let counted = all.iter().filter(|&(_, count)| count > 0).map(|(name, count)| {
        let here = local.and_then(|local| local.get(name));
        match here.filter(|&here| here != count) {
            Some(0) => format!("{name} {count} (none here, all below)"),
            Some(here) => format!("{name} {count} ({here} here, the rest below)"),
            None => format!("{name} {count}"),
        }
    });
    let counted: Vec<_> = counted.collect();
    Some(if counted.is_empty() { "none".into() } else { counted.join(", ") })
}

/// Returns the memory on each node, if there is more than one.
pub fn nodes(nodes: &[NodeStat], size: Size) -> Option<String> {
    let told = |node: &NodeStat| {
        let parts = [("anon", node.anon), ("file", node.file)];
        let parts = parts.into_iter().filter_map(|(what, bytes)| Some(format!("{what} {}", size(bytes?))));
        format!("{}: {}", node.number, parts.collect::<Vec<_>>().join(", "))
    };
    (nodes.len() > 1).then(|| nodes.iter().map(told).collect::<Vec<_>>().join("; "))
}

/// Returns the text on unknown limits of ancestors.
pub fn beyond(hidden: Hidden) -> String {
    let root = match hidden {
        Hidden::ByNamespace => "the root of this cgroup namespace",
        Hidden::ByMount => "the mounted subtree",
    };
    format!("unknown: limits above {root} aren't visible")
}

#[cfg(test)]
mod tests {
    use memctl::cgroup::events::Events;

    use super::*;

    fn size(bytes: u64) -> String {
        format!("{bytes} B")
    }

    #[test]
    fn events_that_happened_are_told_with_their_place() {
        let of = |all: &str, local: Option<&str>| {
            let (all, local) = (Events::parse(all), local.map(Events::parse));
            events(&Details { events: Some(all), events_local: local, ..Details::default() })
        };
        assert_eq!(of("low 0\nmax 0\n", Some("low 0\nmax 0\n")).as_deref(), Some("none"));
        assert_eq!(of("high 3\nmax 2\n", None).as_deref(), Some("high 3, max 2"));
        assert_eq!(
            of("low 4\nhigh 0\nmax 12\noom_kill 1\n", Some("low 4\nhigh 0\nmax 5\noom_kill 0\n")).as_deref(),
            Some("low 4, max 12 (5 here, the rest below), oom_kill 1 (none here, all below)")
        );
        assert_eq!(events(&Details::default()), None);
    }

    #[test]
    fn one_node_alone_tells_nothing() {
        let node = |number, anon, file| NodeStat { number, anon, file };
        assert_eq!(nodes(&[node(0, Some(1), Some(2))], &size), None);
        assert_eq!(
            nodes(&[node(0, Some(1), Some(2)), node(3, Some(0), None)], &size).as_deref(),
            Some("0: anon 1 B, file 2 B; 3: anon 0 B")
        );
    }

    #[test]
    fn room_in_zswap_names_what_bounds_it() {
        let open = Zswap { enabled: true, room: Some(9), ..Zswap::default() };
        assert_eq!(room_in(&open, &size).unwrap().0, "room for 9 B compressed in the host's pool");
        let bound = Zswap { bound: Some("/a".into()), kept: Some("/b".into()), ..open };
        assert_eq!(
            room_in(&bound, &size).unwrap().0,
            "room for 9 B compressed below memory.zswap.max of /a, \
             no writeback to swap (memory.zswap.writeback of /b)"
        );
        assert!(!room_in(&Zswap::default(), &size).unwrap().1);
        assert_eq!(room_in(&Zswap { enabled: true, ..Zswap::default() }, &size), None);
    }
}
