//! `memctl check --config`: the cgroups assigned to each rule, and any reason why they can't be
//! watched now.

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use memctl::select::watchlist::{Assigned, Found, Unresolved, Watchlist};
use memctl::watch::config::rule::Rule;
use memctl::watch::members::Members;

use crate::cmd::watch::plan::WatchPlan;
use crate::cmd::watch::rules;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::view::Takes;
use crate::output::{self, Verbosity};

/// Reason why a cgroup isn't watched that an ambiguous name may mean.
const LEFT_ALONE: &str = "an ambiguous name of a leave-alone rule may mean it";

/// Runs the subcommand.
pub fn run(file: &Path, json: bool, loudness: Verbosity) -> Result<Exit> {
    let (read, _) = rules::read(file).inspect_err(|why| {
        if json {
            // The reader of the JSON gets the error as well.
            let _ = output::check::rules::refuse(&file.display().to_string(), why);
        }
    })?;
    let plan = WatchPlan::by_rules(&read)?;
    let Found { taken, unresolved, troubles, .. } = plan.watchlist.first()?;
    let mut all: Vec<_> = read
        .each
        .iter()
        .map(|rule| Takes { rule: rule.clone(), cgroups: Vec::new(), lost: Vec::new() })
        .collect();
    let mut members = Members::new(true).map_err(|e| Error::io("can't watch", &e))?;
    for Assigned { selected, list } in taken {
        let Some(by) = all.get_mut(list) else { continue };
        let name = selected.located.name.clone();
        let left_alone = plan.rules.may_be_left_alone(&selected.located, &unresolved);
        let why_not = by
            .rule
            .rule
            .as_ref()
            .and_then(|rule: &Rc<Rule>| members.add(Arc::new(selected.located), Rc::clone(rule)).err());
        let why_not = why_not.map(|why| why.to_string());
        by.cgroups.push((name, why_not.or_else(|| left_alone.then(|| LEFT_ALONE.to_owned()))));
    }
    // A word in place of the cgroup that it doesn't lead to.
    for Unresolved { list, why } in &unresolved {
        let Some(by) = all.get_mut(*list) else { continue };
        let why = why.to_string();
        let (word, why) = why.split_once(": ").unwrap_or(("", &why));
        by.cgroups.push((word.into(), Some(why.to_owned())));
    }
    for why in &troubles {
        output::notes::not_searched(&why.to_string(), loudness);
    }
    lose(&mut all)?;
    if json || loudness != Verbosity::Quiet {
        output::check::rules::print(&file.display().to_string(), &read, &all, json)?;
    }
    Ok(Exit::Success)
}

/// Finds, for rules without any cgroup, the cgroups that they match and the rules that have them.
fn lose(all: &mut [Takes]) -> Result<()> {
    let mut taken = HashMap::new();
    for takes in all.iter() {
        let names = takes.cgroups.iter().map(|(name, _)| (name.clone(), Rc::clone(&takes.rule.name)));
        taken.extend(names);
    }
    for takes in all.iter_mut().filter(|takes| takes.cgroups.is_empty()) {
        let alone = Watchlist::of(std::slice::from_ref(&takes.rule.words))?.first()?.taken;
        let by = |one: Assigned| {
            let name = one.selected.located.name;
            let rule = Rc::clone(taken.get(&name)?);
            Some((name, rule))
        };
        takes.lost = alone.into_iter().filter_map(by).collect();
    }
    Ok(())
}
