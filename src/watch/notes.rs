//! Notes on the host's killers during a watch.

use std::path::Path;

use rustix::io::Errno;

use super::config::rule::Rule;
use super::member::Member;
use super::system::System;
use crate::cgroup::killers::{Killers, Unknown};
use crate::kind::Kind;
use crate::size::Percent;

/// A note that isn't about a single cgroup.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// The monitored cgroups were queried: resources of the query aren't needed for a minute.
    Asked,
    /// The set of monitored cgroups isn't known.
    Blind(Unknown),
    /// The host's writes to swap can't be read, and are limited.
    WritesUnknown,
    /// The stalls of a cgroup can't be read, and `--pressure` is to bound them.
    StallsUnknown {
        /// The cgroup.
        cgroup: String,
    },
    /// No thread could be started: this thread writes itself.
    NoWorkers,
    /// A cgroup can't be watched for now, and maybe others. They are tried again.
    NotWatched {
        /// The cgroup.
        cgroup: String,
        /// The system's error.
        error: Errno,
    },
    /// New rules can't be applied to a cgroup, which keeps its old one until the next reload.
    OldRule {
        /// The cgroup.
        cgroup: String,
        /// The system's error.
        error: Errno,
    },
    /// The watch may fill swap to the point where systemd-oomd kills.
    SwapFree {
        /// A cgroup to which this applies.
        cgroup: String,
        /// Share of swap that stays free.
        swap_free: Percent,
        /// Share of swap in use above which it kills, hundredths of a percent.
        limit: u16,
    },
}

/// Notes that were emitted already, each once.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    blind: Option<Unknown>,
    swap_free: bool,
    /// True if it was noted that the stalls of a cgroup can't be read.
    pub stalls: bool,
}

/// Returns the new notes for the watched cgroups.
pub(crate) fn notes<'a, S: System + 'a>(
    killers: &Killers,
    members: impl Iterator<Item = &'a Member<S>>,
    noted: &mut Noted,
) -> Vec<Note> {
    of_rules(
        killers,
        members.map(|member| (&*member.located.path, &*member.located.name, member.rule())),
        noted,
    )
}

fn of_rules<'a>(
    killers: &Killers,
    members: impl Iterator<Item = (&'a Path, &'a str, &'a Rule)>,
    noted: &mut Noted,
) -> Vec<Note> {
    let (mut all, mut needs_pressure) = (Vec::new(), false);
    for (dir, name, rule) in members {
        needs_pressure |= rule.pressure.is_some() || rule.keep.is_some();
        let bounds = &rule.bounds;
        let fills = bounds.kind != Some(Kind::File) && fills(bounds.swap_free, killers.swap_used_limit);
        if fills && !noted.swap_free && killers.swap_monitor(dir).is_some() {
            noted.swap_free = true;
            let (swap_free, limit) = (bounds.swap_free, killers.swap_used_limit);
            all.push(Note::SwapFree { cgroup: name.to_owned(), swap_free, limit });
        }
    }
    if needs_pressure && killers.unknown.is_some() && noted.blind != killers.unknown {
        noted.blind.clone_from(&killers.unknown);
        all.extend(killers.unknown.clone().map(Note::Blind));
    }
    all
}

/// Returns whether a watch that leaves this share of swap free may fill it up to a killer's limit,
/// hundredths of a percent.
#[must_use]
pub(crate) fn fills(swap_free: Percent, limit: u16) -> bool {
    10_000.0 * swap_free.ratio() <= f64::from(10_000_u16.saturating_sub(limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::config::rule::RuleSpec;

    fn rule(swap_free: &str, kind: Option<Kind>) -> Rule {
        let swap_free = Some(swap_free.parse().unwrap());
        RuleSpec { keep: Some(1 << 20), swap_free, kind, ..RuleSpec::default() }.rule().unwrap()
    }

    #[test]
    fn a_rule_that_fills_swap_to_a_killers_limit_is_noted_once() {
        let by_swap = vec!["/sys/fs/cgroup/t.slice".into()];
        let killers = Killers { by_swap, swap_used_limit: 9000, ..Killers::default() };
        let of = |dir: &str, rule: &Rule, noted: &mut Noted| {
            of_rules(&killers, [(Path::new(dir), "a", rule)].into_iter(), noted).len()
        };
        let below = "/sys/fs/cgroup/t.slice/a.service";
        for (free, noted) in [("25%", 0), ("10.1%", 0), ("10%", 1), ("0%", 1)] {
            assert_eq!(of(below, &rule(free, None), &mut Noted::default()), noted, "{free}");
        }
        assert_eq!(of("/sys/fs/cgroup/u.slice", &rule("0%", Some(Kind::All)), &mut Noted::default()), 0);
        assert_eq!(of(below, &rule("0%", Some(Kind::File)), &mut Noted::default()), 0);
        let mut noted = Noted::default();
        assert_eq!(of(below, &rule("0%", Some(Kind::All)), &mut noted), 1);
        assert_eq!(of(below, &rule("0%", Some(Kind::All)), &mut noted), 0);
    }

    #[test]
    fn unknown_killers_are_noted_where_pressure_matters() {
        let killers = Killers { unknown: Some(Unknown::Oomd), ..Killers::default() };
        let keep = rule("25%", Some(Kind::All));
        let headroom =
            RuleSpec { headroom: Some("10%".parse().unwrap()), ..RuleSpec::default() }.rule().unwrap();
        let of = |rule: &Rule, noted: &mut Noted| {
            of_rules(&killers, [(Path::new("/a"), "a", rule)].into_iter(), noted)
        };
        let mut noted = Noted::default();
        assert_eq!(of(&headroom, &mut noted), []);
        assert_eq!(of(&keep, &mut noted), [Note::Blind(Unknown::Oomd)]);
        assert_eq!(of(&keep, &mut noted), []);
    }
}
