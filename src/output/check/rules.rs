//! Output of `memctl check --config`: each rule, and the cgroups assigned to it.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write;

use memctl::cgroup::Name;
use memctl::kind::Kind;
use memctl::size::Percent;
use memctl::watch::config::Rules;
use memctl::watch::config::rule::Rule;
use memctl::watch::policy::headroom::Headroom;
use memctl::watch::policy::reuse::DEFAULT_REUSE;
use serde::Serialize;

use super::super::format::{called, compact, counted, escaped};
use super::super::json::NameKeys;
use super::super::print_stdout;
use super::super::table::DIM;
use crate::error::{Error, Result};
use crate::output::view::Takes;

/// A cgroup, as JSON.
#[allow(clippy::struct_field_names)]
#[derive(Serialize)]
struct Cgroup<'a> {
    #[serde(flatten)]
    name: NameKeys<'a>,
    watched: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

/// A rule, as JSON.
#[derive(Serialize)]
struct Key<'a> {
    rule: &'a str,
    line: usize,
    r#match: Vec<Cow<'a, str>>,
    leave_alone: bool,
    cgroups: Vec<Cgroup<'a>>,
}

/// All rules, as JSON.
#[derive(Serialize)]
struct Line<'a> {
    config: &'a str,
    works: bool,
    rules: Vec<Key<'a>>,
}

/// Prints the rules and their cgroups.
pub fn print(file: &str, read: &Rules, all: &[Takes], json: bool) -> Result<()> {
    if json {
        let rules = all.iter().map(|takes| Key {
            rule: &takes.rule.name,
            line: takes.rule.line,
            r#match: takes.rule.words.wanted.iter().map(|word| word.to_string_lossy()).collect(),
            leave_alone: takes.rule.rule.is_none(),
            cgroups: takes.cgroups.iter().map(|(name, why)| cgroup(takes, name, why.as_deref())).collect(),
        });
        let line = Line { config: file, works: true, rules: rules.collect() };
        return print_stdout(&(serde_json::to_string(&line)? + "\n"));
    }
    let mut text = of_the_host(read);
    let mut watched = 0;
    for takes in all {
        let mut wants = takes.rule.rule.as_ref().map_or_else(|| "leave-alone".to_owned(), |rule| wants(rule));
        if !takes.rule.words.excluded.is_empty() {
            let _ = write!(
                wants,
                "; exclude {}",
                escaped(&takes.rule.words.excluded.join(OsStr::new(", ")).to_string_lossy())
            );
        }
        let name = escaped(&takes.rule.name);
        let _ = writeln!(text, "{name} {DIM}(line {}){DIM:#}: {wants}", takes.rule.line);
        if let Some((name, rule)) = takes.lost.first() {
            let more = if takes.lost.len() > 1 {
                format!(" (and {} more)", takes.lost.len() - 1)
            } else {
                String::new()
            };
            let (name, rule) = (called(name), escaped(rule));
            let _ =
                writeln!(text, "{DIM}  none: {name}{more} belongs to the more specific rule {rule}{DIM:#}");
        } else if takes.cgroups.is_empty() {
            let _ = writeln!(text, "{DIM}  no cgroup matches now{DIM:#}");
        }
        for (name, why) in &takes.cgroups {
            let why =
                why.as_ref().map_or_else(String::new, |why| format!("  {DIM}not watched yet: {why}{DIM:#}"));
            watched += u32::from(why.is_empty() && takes.rule.rule.is_some());
            let _ = writeln!(text, "  {}{why}", called(name));
        }
    }
    let (rules, cgroups) = (counted(all.len(), "rule"), counted(watched as usize, "cgroup"));
    let verb = if all.len() == 1 { "applies to" } else { "apply to" };
    print_stdout(&format!("{text}{}: {rules} {verb} {cgroups}\n", escaped(file)))
}

/// Prints that a file is invalid, as JSON.
pub fn refuse(file: &str, why: &Error) -> Result<()> {
    #[derive(Serialize)]
    struct Refused<'a> {
        config: &'a str,
        works: bool,
        error: String,
    }
    let line = Refused { config: file, works: false, error: why.to_string() };
    print_stdout(&(serde_json::to_string(&line)? + "\n"))
}

/// Returns a line with the settings for memctl itself.
fn of_the_host(read: &Rules) -> String {
    let cpu = read.cpu.map(|share| format!("cpu {share}"));
    let writes = read.swap_writes.map(|bytes| format!("swap-writes {} a second", compact(bytes)));
    let parts: Vec<_> = cpu.into_iter().chain(writes).collect();
    if parts.is_empty() { String::new() } else { format!("the host: {}\n", parts.join(", ")) }
}

fn cgroup<'a>(takes: &Takes, name: &'a Name, why: Option<&'a str>) -> Cgroup<'a> {
    Cgroup { name: NameKeys::from(name), watched: why.is_none() && takes.rule.rule.is_some(), why }
}

/// Returns the settings of a rule, spelled as in the file.
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
        (rule.reuse != DEFAULT_REUSE).then(|| format!("reuse {}", humantime::format_duration(rule.reuse))),
        (bounds.floor > 0).then(|| format!("floor {}", compact(bounds.floor))),
        (bounds.swap_free != Percent::QUARTER).then(|| format!("swap-free {}", bounds.swap_free)),
        bounds.max_pressure.map(|most| format!("max-pressure {most}")),
        match bounds.kind {
            None => None,
            Some(Kind::All) => Some("type all".to_owned()),
            Some(Kind::File) => Some("type file".to_owned()),
            Some(Kind::Anon) => Some("type anon".to_owned()),
            Some(Kind::Weighed(swappiness)) => Some(format!("swappiness {swappiness}")),
        },
        rule.ancestors.then(|| "ancestors".to_owned()),
        (!rule.lock).then(|| "no lock".to_owned()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
