//! `memctl reclaim`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use memctl::cgroup::diagnose::Unreclaimable;
use memctl::cgroup::{MemoryCgroup, Selected, select};
use memctl::reclaim::{self, Goal, Plan, Rate, Request, Tolerance};
use memctl::size::{Amount, Percent, looks_like_size};

use crate::cli::{Global, Kind, Reclaim};
use crate::exit::{Exit, UsageError};
use crate::output::{self, Loudness, notes};
use crate::signal;

mod pool;
mod settle;

use pool::Job;
pub use pool::Outcome;

/// The bound on pressure where nothing else would hold a request back: the root, and `max`.
const DEFAULT_MAX_PRESSURE: &str = "10%";

/// A request that was only foretold.
pub struct Foretold {
    pub name: String,
    pub path: PathBuf,
    pub plan: Plan,
    /// Whether somebody else holds the lock.
    pub locked: bool,
}

/// Runs the subcommand.
pub fn run(args: &Reclaim, global: &Global) -> Result<Exit> {
    let loudness = Loudness::new(global)?;
    let (words, goal) = split(args)?;
    // All of them before the first: a mistake in one changes nothing anywhere.
    let mut jobs = prepare(args, &words, goal, loudness)?;
    if args.dry_run {
        return foretell(jobs, args.json, loudness);
    }
    signal::install();
    if let Some(time) = args.settle {
        let usual = settle::baseline(&mut jobs, time, loudness);
        jobs.iter_mut().zip(usual).for_each(|(job, usual)| job.usual = usual);
    }
    let mut outcomes = pool::serve(jobs, usize::from(args.jobs), loudness)?;
    if let Some(time) = args.settle {
        settle::settle(&mut outcomes, time, loudness);
    }
    output::reclaim::print(&outcomes, args.json, loudness)?;
    // Even if it came too late to cut anything short: a shell that runs memctl in a loop must see it.
    if let Some(signal) = signal::pending() {
        signal::die_by(signal);
    }
    for outcome in &outcomes {
        output::error::print_outcome(outcome);
    }
    Ok(outcomes.iter().map(Exit::from).max().unwrap_or(Exit::Reached))
}

/// Opens the cgroups and makes sure that they can serve what is asked of them.
fn prepare(args: &Reclaim, words: &[String], goal: Goal, loudness: Loudness) -> Result<Vec<Job>> {
    let rate = args.max_rate.map(|rate| Arc::new(Rate::new(rate)));
    let mut jobs = Vec::new();
    for Selected { located, by_glob } in select(words)? {
        let mut cgroup = match MemoryCgroup::open(&located) {
            Ok(cgroup) => cgroup,
            // Nobody promised anything of what a glob happens to match, or of how long it lives.
            Err(why) if by_glob => {
                notes::passed_over(&why.to_string(), loudness);
                continue;
            }
            Err(why) => return Err(why.into()),
        };
        let request = request(args, goal, rate.clone(), cgroup.cgroup().is_root());
        let check = if args.dry_run { Request::check_without_a_write } else { Request::check };
        check(&request, &mut cgroup).with_context(|| located.name.clone())?;
        jobs.push(Job { cgroup, request, lock: !args.no_lock, usual: None });
    }
    if jobs.is_empty() {
        return Err(Unreclaimable::NoneReclaimable { word: words.join(" ") }.into());
    }
    Ok(jobs)
}

/// Says what the requests would come to, without a write.
fn foretell(jobs: Vec<Job>, json: bool, loudness: Loudness) -> Result<Exit> {
    let mut foretold = Vec::new();
    for Job { mut cgroup, request, lock, .. } in jobs {
        let name = cgroup.cgroup().name().to_owned();
        let plan = Plan::of(&mut cgroup, &request).map_err(std::io::Error::from).context(name.clone())?;
        let path = cgroup.cgroup().path().to_path_buf();
        let locked = lock && matches!(cgroup.cgroup().try_lock(), Ok(false));
        foretold.push(Foretold { name, path, plan, locked });
    }
    output::plan::print(&foretold, json, loudness)?;
    Ok(foretold.iter().map(|foretold| Exit::from(&foretold.plan)).max().unwrap_or(Exit::Reached))
}

/// Splits the words into the cgroups and how much is asked of each.
fn split(args: &Reclaim) -> Result<(Vec<String>, Goal)> {
    let usage = |what: String, hint: &str| anyhow::Error::from(UsageError { what, hint: Some(hint.into()) });
    let mut words = args.words.clone();
    if let Some(to) = args.to {
        if let Some(last) = words.last().filter(|last| words.len() > 1 && looks_like_size(last)) {
            let what = format!("{last}: --to already says how much");
            return Err(usage(what, "give either SIZE or --to SIZE"));
        }
        return Ok((words, Goal::DownTo(to)));
    }
    let last = words.pop().unwrap_or_default();
    if words.is_empty() {
        return Err(if looks_like_size(&last) {
            usage(format!("{last}: of which cgroup?"), "memctl reclaim CGROUP SIZE")
        } else {
            usage(format!("{last}: how much is to be reclaimed?"), "memctl reclaim CGROUP SIZE, such as 10M")
        });
    }
    let amount: Amount = match last.parse() {
        Ok(amount) => amount,
        Err(why) => {
            let swapped = looks_like_size(&words[0]) && !looks_like_size(&last);
            let hint = swapped.then(|| "the cgroup comes first: memctl reclaim CGROUP SIZE".to_owned());
            let what = if last.is_empty() { why.to_string() } else { format!("{last}: {why}") };
            return Err(UsageError { what, hint }.into());
        }
    };
    Ok((words, Goal::Reclaim(amount)))
}

fn request(args: &Reclaim, goal: Goal, rate: Option<Arc<Rate>>, is_root: bool) -> Request {
    let unbounded = is_root || goal == Goal::Reclaim(Amount::Max);
    let default: Option<Percent> = DEFAULT_MAX_PRESSURE.parse().ok().filter(|_| unbounded);
    let kind = match (args.kind, args.swappiness) {
        (Some(Kind::Anon), _) => reclaim::Kind::Anon,
        (Some(Kind::File), _) => reclaim::Kind::File,
        (_, Some(swappiness)) => reclaim::Kind::Weighed(swappiness),
        _ => reclaim::Kind::All,
    };
    Request {
        goal,
        kind,
        chunk: args.chunk,
        timeout: args.timeout,
        max_pressure: args.max_pressure.or(default),
        rate,
        tolerance: args.tolerance.map_or(Tolerance::Folio, Tolerance::Share),
    }
}
