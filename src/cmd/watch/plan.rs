//! The plan of a watch: cgroups and rules, from the command line or a file of rules.

use std::rc::Rc;
use std::sync::Arc;

use memctl::kind::Kind;
use memctl::select::watchlist::{Assigned, Watchlist, Words};
use memctl::size::Percent;
use memctl::watch::config::Rules;
use memctl::watch::config::rule::{InvalidRule, Rule, RuleSpec, swap_writes};
use memctl::watch::options::RuledCgroup;

use super::rules;
use crate::cli::Watch;
use crate::error::{Error, Result};

/// Pressure for `--estimate` if none is given.
const GENTLE: &str = "0.1%";

/// The cgroups to watch and their rules, from the command line or a file of rules.
pub struct WatchPlan {
    /// The cgroups to watch.
    pub watchlist: Watchlist,
    /// The rule for each list of words; `None` where cgroups are left alone.
    pub rules: Vec<Option<Rc<Rule>>>,
    /// Maximum share of a CPU to use.
    pub cpu: Option<f64>,
    /// Maximum swap-out to the host's swap, in bytes per second.
    pub swap_writes: Option<u64>,
    /// True if cgroups that can't be watched are waited for; otherwise they are an error.
    pub waits: bool,
}

impl WatchPlan {
    /// Makes the plan from the command line.
    pub fn of(args: &Watch) -> Result<Self> {
        if let Some(file) = &args.config {
            let plan = Self::by_rules(&rules::read(file)?)?;
            return Ok(Self { cpu: args.cpu.map(Percent::ratio).or(plan.cpu), ..plan });
        }
        let rule = rule(args)?;
        let words = Words { wanted: args.words.clone(), excluded: args.exclude.clone() };
        let watchlist = Watchlist::new(&words).map_err(|why| {
            Error::usage(why)
                .context("--exclude")
                .with_hint(Some("use *, ?, [...], {a,b}; ** crosses levels"))
        })?;
        Ok(Self {
            watchlist,
            swap_writes: swap_writes(args.swap_writes.map(|bound| bound.0), rule.pressure.is_some()),
            rules: vec![Some(Rc::new(rule))],
            cpu: args.cpu.map(Percent::ratio),
            waits: false,
        })
    }

    /// Makes the plan from the rules of a file.
    pub fn by_rules(rules: &Rules) -> Result<Self> {
        Ok(Self {
            watchlist: Watchlist::of(&rules.words())?,
            rules: rules.each.iter().map(|rule| rule.rule.clone()).collect(),
            cpu: rules.cpu.map(Percent::ratio),
            swap_writes: rules.swap_writes,
            waits: true,
        })
    }

    /// Returns the assigned cgroups that have a rule.
    pub fn ruled(&self, taken: Vec<Assigned>) -> impl Iterator<Item = RuledCgroup> {
        taken.into_iter().filter_map(|taken| {
            let rule = Rc::clone(self.rules.get(taken.list)?.as_ref()?);
            Some(RuledCgroup { located: Arc::new(taken.selected.located), rule })
        })
    }
}

fn rule(args: &Watch) -> Result<Rule> {
    let gently = || args.estimate.then(|| GENTLE.parse().ok()).flatten();
    let wanted = RuleSpec {
        headroom: args.headroom,
        keep: args.keep,
        pressure: args.pressure.or_else(gently),
        floor: args.floor,
        swap_free: Some(args.swap_free),
        max_pressure: args.max_pressure,
        kind: Kind::of(args.kind.map(Into::into), args.swappiness),
        ancestors: args.ancestors,
        no_lock: args.no_lock,
    };
    wanted.rule().map_err(|why| match why {
        InvalidRule::NothingToDo => Error::usage(
            "watch: one of --headroom, --keep, --pressure, --estimate or --config is required",
        )
        .with_hint(Some(
            "use --headroom 10% to keep that share of the limit free, --keep SIZE to set a limit, --pressure 0.1% \
             to reclaim idle memory",
        )),
        InvalidRule::NothingLeft => {
            Error::usage("--headroom: must be less than the limit").with_hint(Some("give less than 100%"))
        }
        InvalidRule::NoHeadroom => Error::usage("--ancestors: requires --headroom"),
    })
}
