//! `memctl check --config`: which cgroups each rule takes, and whether they can be watched now.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use memctl::cgroup::watchlist::Taken;
use memctl::clock;
use memctl::watch::level::Ancestors;
use memctl::watch::member::Member;
use memctl::watch::rule::Rule;
use memctl::watch::rules::HostRule;

use crate::cmd::watch::rules;
use crate::exit::Exit;
use crate::output::{self, Loudness};

/// What a rule takes.
pub struct Takes {
    /// The rule.
    pub rule: HostRule,
    /// Each cgroup, and why it isn't watched now.
    pub cgroups: Vec<(Arc<str>, Option<String>)>,
}

/// Runs it.
pub fn run(file: &Path, json: bool, loudness: Loudness) -> Result<Exit> {
    let read = rules::read(file)?;
    let (taken, _) = rules::plan(&read)?.watchlist.first()?;
    let mut all: Vec<_> =
        read.each.iter().map(|rule| Takes { rule: rule.clone(), cgroups: Vec::new() }).collect();
    let (mut ancestors, mut text) = (Ancestors::default(), String::new());
    for Taken { selected, list } in taken {
        let Some(by) = all.get_mut(list) else { continue };
        let name = Arc::clone(&selected.located.name);
        let why_not = by.rule.rule.as_ref().and_then(|rule: &Rc<Rule>| {
            let located = Arc::new(selected.located);
            let (rule, now) = (Rc::clone(rule), clock::now());
            Member::new(located, rule, &mut ancestors, now, Duration::ZERO, &mut text).err()
        });
        by.cgroups.push((name, why_not.map(|why| why.to_string())));
    }
    if json || loudness != Loudness::Quiet {
        output::check::rules::print(&file.display().to_string(), &all, json)?;
    }
    Ok(Exit::Reached)
}
