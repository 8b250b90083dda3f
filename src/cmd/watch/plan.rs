//! The plan of a watch: cgroups and rules, from the command line or a file of rules.

use std::mem::{Discriminant, discriminant};
use std::rc::Rc;
use std::sync::Arc;

use memctl::cgroup::CgroupPath;
use memctl::cgroup::error::CgroupError;
use memctl::kind::Kind;
use memctl::select::watchlist::{Assigned, Unresolved, Watchlist, Words};
use memctl::size::Percent;
use memctl::watch::config::rule::{InvalidRule, Rule, RuleSpec, swap_writes};
use memctl::watch::config::{MetricsSpec, Rules};
use memctl::watch::options::RuledCgroup;

use super::rules;
use super::rules_file::Stamp;
use crate::cli::Watch;
use crate::error::{Error, Result};
use crate::output::notes;
use crate::output::status::Purpose;

/// Pressure for `--estimate` if none is given.
const GENTLE: &str = "0.1%";

/// The cgroups to watch and their rules, from the command line or a file of rules.
pub struct WatchPlan {
    /// The cgroups to watch.
    pub watchlist: Watchlist,
    /// The rules for the lists of words.
    pub rules: ListRules,
    /// Maximum share of a CPU to use.
    pub cpu: Option<f64>,
    /// Maximum swap-out to the host's swap, in bytes per second.
    pub swap_writes: Option<u64>,
    /// Where metrics go.
    pub metrics: MetricsSpec,
    /// Version of the file of rules, where that can be looked at again.
    pub stamp: Option<Stamp>,
    /// True if cgroups that can't be watched are waited for; otherwise they are an error.
    pub waits: bool,
}

/// The rule for each list of words.
pub struct ListRules {
    /// The rules; `None` where cgroups are left alone.
    each: Vec<Option<Rc<Rule>>>,
    /// The names of the rules; none on the command line.
    names: Vec<Rc<str>>,
}

impl WatchPlan {
    /// Makes the plan from the command line.
    pub fn of(args: &Watch) -> Result<Self> {
        if let Some(file) = &args.config {
            let (rules, stamp) = rules::read(file)?;
            let plan = Self::by_rules(&rules)?;
            let cpu = args.cpu.map(Percent::ratio).or(plan.cpu);
            let metrics = metrics(args, &plan.metrics);
            return Ok(Self { cpu, metrics, stamp, ..plan });
        }
        let rule = rule(args)?;
        if args.exclude.iter().any(|word| word.is_empty()) {
            return Err(Error::from(CgroupError::NoName).context("--exclude"));
        }
        let words = Words { wanted: args.words.clone(), excluded: args.exclude.clone(), whole_pods: false };
        let watchlist = Watchlist::new(&words).map_err(|why| match why {
            CgroupError::BadGlob { .. } => Error::usage(&why).context("--exclude").with_hint(why.hint()),
            _ => why.into(),
        })?;
        Ok(Self {
            watchlist,
            swap_writes: swap_writes(args.swap_writes.map(|bound| bound.0), rule.pressure.is_some()),
            rules: ListRules { each: vec![Some(Rc::new(rule))], names: Vec::new() },
            cpu: args.cpu.map(Percent::ratio),
            metrics: metrics(args, &MetricsSpec::default()),
            stamp: None,
            waits: false,
        })
    }

    /// Makes the plan from the rules of a file.
    pub fn by_rules(rules: &Rules) -> Result<Self> {
        Ok(Self::with(Watchlist::of(&rules.words())?, rules))
    }

    /// Makes the plan from the rules of a file and their watchlist.
    pub fn with(watchlist: Watchlist, rules: &Rules) -> Self {
        Self {
            watchlist,
            rules: ListRules {
                each: rules.each.iter().map(|rule| rule.rule.clone()).collect(),
                names: rules.each.iter().map(|rule| Rc::clone(&rule.name)).collect(),
            },
            cpu: rules.cpu.map(Percent::ratio),
            swap_writes: rules.swap_writes,
            metrics: rules.metrics.clone(),
            stamp: None,
            waits: true,
        }
    }
}

impl ListRules {
    /// Returns the purpose of all rules together, or of an estimate.
    pub fn purpose(&self, estimate: bool) -> Purpose {
        if estimate { Purpose::Estimate } else { Purpose::of(self.each.iter().map(Option::as_deref)) }
    }

    /// Returns the rule for a list; `None` where cgroups are left alone.
    pub fn get(&self, list: usize) -> Option<&Rc<Rule>> {
        self.each.get(list)?.as_ref()
    }

    /// Returns the names of the rules, but for those that leave their cgroups alone.
    pub fn in_force(&self) -> Vec<Rc<str>> {
        let named = self.names.iter().zip(&self.each);
        named.filter(|(_, rule)| rule.is_some()).map(|(name, _)| Rc::clone(name)).collect()
    }

    /// Returns the rule with this name, if it doesn't leave its cgroups alone.
    pub fn named(&self, name: &str) -> Option<(usize, &Rc<Rule>)> {
        let list = self.names.iter().position(|other| **other == *name)?;
        Some((list, self.get(list)?))
    }

    /// Returns the assigned cgroups that have a rule.
    pub fn ruled(&self, taken: Vec<Assigned>, unresolved: &[Unresolved]) -> Vec<RuledCgroup> {
        let ruled = taken.into_iter().filter_map(|taken| {
            let rule = Rc::clone(self.get(taken.list)?);
            let located = taken.selected.located;
            (!self.may_be_left_alone(&located, unresolved))
                .then(|| RuledCgroup { located: Arc::new(located), rule })
        });
        ruled.collect()
    }

    /// Returns whether a cgroup is one of those that an ambiguous name of a leave-alone rule may
    /// mean.
    pub fn may_be_left_alone(&self, located: &CgroupPath, unresolved: &[Unresolved]) -> bool {
        unresolved.iter().any(|one| match &one.why {
            CgroupError::Ambiguous { candidates, .. } if self.get(one.list).is_none() => {
                candidates.iter().any(|name| **name == *located.name)
            }
            _ => false,
        })
    }

    /// Returns a note for each word that can't be resolved, and for parts that can't be searched.
    pub fn notes(&self, unresolved: &[Unresolved], troubles: &[CgroupError]) -> Vec<SearchNote> {
        let name = |list: usize| self.names.get(list).map(|name| &**name);
        let unresolved = unresolved.iter().map(|one| SearchNote {
            key: (Some(one.list), word_of(&one.why).map(str::to_owned), discriminant(&one.why)),
            text: notes::unresolved(name(one.list), &one.why),
        });
        let troubles = troubles
            .iter()
            .map(|why| SearchNote { key: (None, None, discriminant(why)), text: why.to_string() });
        unresolved.chain(troubles).collect()
    }
}

/// A note on what a search didn't find, or couldn't search.
pub struct SearchNote {
    /// The list, the word, and the reason. The names in the text don't count: a user who makes
    /// cgroups can change them at will, and would fill the log.
    pub key: NoteKey,
    /// The text.
    pub text: String,
}

/// Key of a note that stays the same as long as its reason does.
pub type NoteKey = (Option<usize>, Option<String>, Discriminant<CgroupError>);

/// Returns the word that an error is about, if it is about one.
fn word_of(why: &CgroupError) -> Option<&str> {
    match why {
        CgroupError::Ambiguous { word, .. } => Some(word),
        why => why.word(),
    }
}

/// Returns where metrics go: options go before the keys of the file.
pub fn metrics(args: &Watch, rules: &MetricsSpec) -> MetricsSpec {
    MetricsSpec {
        file: args.metrics.clone().or_else(|| rules.file.clone()),
        listen: args.metrics_listen.clone().or_else(|| rules.listen.clone()),
        cgroups: args.metrics_cgroups.or(rules.cgroups),
    }
}

fn rule(args: &Watch) -> Result<Rule> {
    let gently = || args.estimate.then(|| GENTLE.parse().ok()).flatten();
    let wanted = RuleSpec {
        headroom: args.headroom,
        keep: args.keep,
        pressure: args.pressure.or_else(gently),
        reuse: args.reuse,
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
             to reclaim idle memory, --estimate to find out how much is in use",
        )),
        InvalidRule::NothingLeft => {
            Error::usage("--headroom: must be less than the limit").with_hint(Some("give less than 100%"))
        }
        InvalidRule::NoHeadroom => Error::usage("--ancestors: requires --headroom"),
        InvalidRule::NoPressure => Error::usage("--reuse: requires --pressure or --estimate"),
        InvalidRule::ShortReuse => Error::usage("--reuse: must be at least 1s"),
    })
}
