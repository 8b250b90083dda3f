//! What `memctl check --config` says: each rule, and the cgroups that it takes.

use std::fmt::Write;

use anyhow::Result;
use memctl::watch::guard::Take;
use memctl::watch::headroom::Headroom;
use memctl::watch::rule::Rule;
use serde::Serialize;

use super::super::answer;
use super::super::table::DIM;
use super::super::words::{compact, escaped};
use crate::cmd::check::config::Takes;

/// A cgroup, as JSON.
#[allow(clippy::struct_field_names)]
#[derive(Serialize)]
struct Cgroup<'a> {
    cgroup: &'a str,
    watched: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

/// A rule.
#[derive(Serialize)]
struct Key<'a> {
    rule: &'a str,
    line: usize,
    r#match: &'a [String],
    leave_alone: bool,
    cgroups: Vec<Cgroup<'a>>,
}

/// All of them.
#[derive(Serialize)]
struct Line<'a> {
    config: &'a str,
    works: bool,
    rules: Vec<Key<'a>>,
}

/// Prints them.
pub fn print(file: &str, all: &[Takes], json: bool) -> Result<()> {
    if json {
        let rules = all.iter().map(|takes| Key {
            rule: &takes.rule.name,
            line: takes.rule.line,
            r#match: &takes.rule.words.wanted,
            leave_alone: takes.rule.rule.is_none(),
            cgroups: takes.cgroups.iter().map(|(name, why)| cgroup(takes, name, why.as_deref())).collect(),
        });
        let line = Line { config: file, works: true, rules: rules.collect() };
        return answer(&(serde_json::to_string(&line)? + "\n"));
    }
    let mut text = String::new();
    let mut watched = 0;
    for takes in all {
        let wants = takes.rule.rule.as_ref().map_or_else(|| "leaves alone".to_owned(), |rule| wants(rule));
        let name = escaped(&takes.rule.name);
        let _ = writeln!(text, "{name} {DIM}(line {}){DIM:#}: {wants}", takes.rule.line);
        if takes.cgroups.is_empty() {
            let _ = writeln!(text, "{DIM}  no cgroup now{DIM:#}");
        }
        for (name, why) in &takes.cgroups {
            let why =
                why.as_ref().map_or_else(String::new, |why| format!("  {DIM}not watched yet: {why}{DIM:#}"));
            watched += u32::from(why.is_empty() && takes.rule.rule.is_some());
            let _ = writeln!(text, "  {}{why}", escaped(name));
        }
    }
    let (rules, cgroups) = (counted(all.len(), "rule"), counted(watched as usize, "cgroup"));
    let verb = if all.len() == 1 { "takes" } else { "take" };
    answer(&format!("{text}{}: {rules} {verb} {cgroups}\n", escaped(file)))
}

fn cgroup<'a>(takes: &Takes, name: &'a str, why: Option<&'a str>) -> Cgroup<'a> {
    Cgroup { cgroup: name, watched: why.is_none() && takes.rule.rule.is_some(), why }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What a rule wants, in the words of the file.
fn wants(rule: &Rule) -> String {
    let share = |share: f64| format!("{}%", (share * 1e8).round() / 1e6);
    let bounds = &rule.bounds;
    let parts = [
        match rule.headroom {
            Headroom::Bytes(0) => None,
            Headroom::Bytes(bytes) => Some(format!("headroom {}", compact(bytes))),
            Headroom::Share(of_it) => Some(format!("headroom {}", share(of_it))),
        },
        rule.keep.map(|bytes| format!("keep {}", compact(bytes))),
        rule.pressure.map(|of_it| format!("pressure {}", share(of_it))),
        (bounds.floor > 0).then(|| format!("floor {}", compact(bounds.floor))),
        bounds.max_pressure.map(|most| format!("max-pressure {most}")),
        match bounds.take {
            Take::Careful => None,
            Take::All => Some("type all".to_owned()),
            Take::File => Some("type file".to_owned()),
            Take::Anon => Some("type anon".to_owned()),
            Take::Weighed(swappiness) => Some(format!("swappiness {swappiness}")),
        },
        rule.ancestors.then(|| "ancestors".to_owned()),
        (!rule.lock).then(|| "no lock".to_owned()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
