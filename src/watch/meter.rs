//! Figures of a running watch for monitoring: counters of each rule, which include cgroups that
//! are gone and so never fall, and the state of each cgroup at its last sample.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::account::Account;
use super::counters::Counters;
use super::event::{Room, Summary, UsageSample};
use super::policy::guard::Guard;
use super::policy::savings::Saved;
use super::policy::working_set::WorkingSet;
use crate::cgroup::Name;

/// Receiver of the figures of a watch.
pub trait Meter {
    /// Returns the time of the next report, on the clock of [`crate::clock::now`].
    fn due(&self) -> Duration;

    /// Returns the maximum number of cgroups in a report.
    fn most_cgroups(&self) -> usize;

    /// Takes a report.
    fn report(&mut self, figures: &Figures<'_>);
}

/// Calls back with the state of each cgroup.
pub type Each<'a> = dyn Fn(&mut dyn FnMut(&CgroupFigures<'_>)) + 'a;

/// The figures of a watch.
#[allow(missing_debug_implementations)] // A callback has nothing to show.
pub struct Figures<'a> {
    /// The rules, in the order of their names. On the command line there is one without a name.
    pub rules: &'a BTreeMap<Option<Rc<str>>, RuleFigures>,
    /// Number of cgroups that are watched.
    pub watched: usize,
    /// Calls back with the state of each cgroup, in the same order each time.
    pub cgroups: &'a Each<'a>,
    /// Age of the oldest write in progress.
    pub blocked: Option<Duration>,
    /// Time since the watch began.
    pub elapsed: Duration,
    /// CPU time of the whole process, including the kernel's work for it.
    pub cpu: Duration,
    /// True for a dry run, which writes nothing.
    pub dry_run: bool,
}

/// The figures of a rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleFigures {
    /// Counters of all cgroups that followed the rule, as far as they did.
    pub counters: Counters,
    /// Number of cgroups that follow it now.
    pub cgroups: usize,
    /// Bytes that they save, as far as it is known; `None` if it is known of none.
    pub saved: Option<i64>,
}

/// The state of one cgroup. Amounts are bytes.
#[derive(Clone, Debug)]
pub struct CgroupFigures<'a> {
    /// Name.
    pub cgroup: &'a Name,
    /// Name of the rule, if it has one.
    pub rule: Option<&'a str>,
    /// Usage.
    pub current: u64,
    /// Its own limit; `None` without one.
    pub limit: Option<u64>,
    /// Room below the limit that leaves least, where memory is kept free.
    pub room: Option<Room>,
    /// Bytes in swap; `None` where the kernel doesn't report it.
    pub swapped: Option<u64>,
    /// Savings of `--pressure`.
    pub saved: Option<Saved>,
    /// Estimate of the working set, if it was found.
    pub set: Option<WorkingSet>,
    /// Counters since the watch of the cgroup began.
    pub counters: &'a Counters,
    /// Guard that holds back an action.
    pub held: Option<Guard>,
}

/// Figures of one member.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metered {
    /// Counters at the last sample.
    counters: Counters,
    /// Those of them that a rule has already.
    counted: Counters,
    /// The last sample.
    pub sample: UsageSample,
    /// True if the cgroup is one of those in the reports.
    pub is_told: bool,
}

impl Metered {
    /// Takes a sample.
    pub(crate) fn set(&mut self, account: &Account, sample: &UsageSample) {
        self.sample = *sample;
        self.renew(account);
    }

    /// Takes what the summary has, instead of another sample.
    pub(crate) fn end(&mut self, summary: &Summary) {
        // The kernel's own counter of proactive reclaim came with that of the tasks.
        let direct = summary.direct.filter(|_| summary.counted.is_some());
        self.sample.direct = direct.or(self.sample.direct);
        self.sample.stalled = summary.stalled.or(self.sample.stalled);
    }

    /// Takes what memctl itself counts, without another sample.
    pub(crate) fn renew(&mut self, account: &Account) {
        self.raise(account.counters(&self.sample));
    }

    fn raise(&mut self, mut counters: Counters) {
        counters.at_least(&self.counters);
        self.counters = counters;
    }

    /// Returns the counters.
    #[must_use]
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// The counters of all rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    rules: BTreeMap<Option<Rc<str>>, RuleFigures>,
}

impl Ledger {
    /// Keeps the rules with these names, and no other.
    pub(crate) fn keep(&mut self, names: &[Rc<str>]) {
        self.rules.retain(|name, _| name.as_ref().is_none_or(|name| names.contains(name)));
        for name in names {
            self.rules.entry(Some(Rc::clone(name))).or_default();
        }
    }

    /// Adds what a member's counters have beyond those that were added before to a rule.
    pub(crate) fn count(&mut self, rule: Option<&Rc<str>>, metered: &mut Metered) {
        if metered.counted == metered.counters {
            return;
        }
        let rule = self.rules.entry(rule.cloned()).or_default();
        rule.counters.add(&metered.counters.since(&metered.counted));
        metered.counted.clone_from(&metered.counters);
    }

    /// Begins to count the cgroups that follow each rule.
    pub(crate) fn begin(&mut self) {
        for rule in self.rules.values_mut() {
            (rule.cgroups, rule.saved) = (0, None);
        }
    }

    /// Counts a cgroup that follows a rule, and what it saves.
    pub(crate) fn follows(&mut self, rule: Option<&Rc<str>>, saved: Option<Saved>) {
        let rule = self.rules.entry(rule.cloned()).or_default();
        rule.cgroups += 1;
        if let Some(net) = saved.and_then(|saved| saved.net()) {
            *rule.saved.get_or_insert_default() += net;
        }
    }

    /// Returns the figures of each rule.
    #[must_use]
    pub(crate) fn rules(&self) -> &BTreeMap<Option<Rc<str>>, RuleFigures> {
        &self.rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(reclaimed: u64, direct: Option<u64>, floor: u64) -> Counters {
        let held = if floor > 0 { vec![("floor", floor)] } else { Vec::new() };
        Counters { reclaimed, direct, held, ..Counters::default() }
    }

    #[test]
    fn a_rule_keeps_what_gone_cgroups_added() {
        let (mut ledger, mut one, mut other) = (Ledger::default(), Metered::default(), Metered::default());
        let rule: Rc<str> = "web".into();
        one.raise(counters(10, Some(5), 1));
        ledger.count(Some(&rule), &mut one);
        drop(one);
        other.raise(counters(7, None, 0));
        ledger.count(Some(&rule), &mut other);
        ledger.count(Some(&rule), &mut other);
        let told = &ledger.rules()[&Some(rule)];
        assert_eq!(told.counters, counters(17, Some(5), 1));
    }

    #[test]
    fn another_rule_has_only_what_comes_after_the_change() {
        let (mut ledger, mut one) = (Ledger::default(), Metered::default());
        let [old, new] = ["old", "new"].map(Rc::<str>::from);
        one.raise(counters(10, None, 2));
        ledger.count(Some(&old), &mut one);
        one.raise(counters(14, Some(3), 3));
        ledger.count(Some(&new), &mut one);
        assert_eq!(ledger.rules()[&Some(old.clone())].counters, counters(10, None, 2));
        assert_eq!(ledger.rules()[&Some(new.clone())].counters, counters(4, Some(3), 1));
        ledger.keep(&[new.clone(), "later".into()]);
        let names: Vec<_> = ledger.rules().keys().flatten().map(|name| &**name).collect();
        assert_eq!(names, ["later", "new"]);
    }

    #[test]
    fn no_counter_falls() {
        let mut one = Metered::default();
        one.raise(counters(10, Some(5), 2));
        one.raise(counters(8, None, 1));
        assert_eq!(*one.counters(), counters(10, Some(5), 2));
    }

    #[test]
    fn what_is_saved_is_known_once_one_cgroup_tells() {
        let mut ledger = Ledger::default();
        ledger.begin();
        ledger.follows(None, None);
        assert_eq!((ledger.rules()[&None].cgroups, ledger.rules()[&None].saved), (1, None));
        ledger.follows(None, Some(Saved { gross: 9, zram: Some(2), demoted: 0 }));
        assert_eq!((ledger.rules()[&None].cgroups, ledger.rules()[&None].saved), (2, Some(7)));
        ledger.begin();
        assert_eq!((ledger.rules()[&None].cgroups, ledger.rules()[&None].saved), (0, None));
    }
}
