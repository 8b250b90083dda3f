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
    fn report(&self, figures: &Figures<'_>);
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
    pub counters: Counters,
    /// Guard that holds back an action.
    pub held: Option<Guard>,
}

/// A number that may be unknown, in the size of one: a host has thousands of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known(u64);

impl Default for Known {
    fn default() -> Self {
        Self(u64::MAX)
    }
}

impl Known {
    fn get(self) -> Option<u64> {
        Some(self.0).filter(|number| *number < u64::MAX)
    }

    /// Sets it to a counter of the kernel's, which may fall, or not be readable any more: then it
    /// stays.
    fn raise(&mut self, counter: Option<u64>) {
        if let Some(counter) = counter {
            *self = Self(self.get().map_or(counter, |before| before.max(counter)));
        }
    }
}

/// Counters of the kernel since a watch began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sampled {
    refaulted: Known,
    direct: Known,
    /// Microseconds.
    stalled: Known,
}

impl Sampled {
    fn counters(self, own: Option<Counters>) -> Counters {
        Counters {
            refaulted: self.refaulted.get(),
            direct: self.direct.get(),
            stalled: self.stalled.get().map(Duration::from_micros),
            ..own.unwrap_or_default()
        }
    }
}

/// Figures of one member.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metered {
    /// Those of the last sample.
    sampled: Sampled,
    swapped: Known,
    /// Those of them that a rule has already, and the other counters that it has, if any.
    counted: Sampled,
    counted_own: Option<Box<Counters>>,
    /// True if the cgroup is one of those in the reports.
    pub is_told: bool,
}

impl Metered {
    /// Takes a sample.
    pub(crate) fn set(&mut self, sample: &UsageSample) {
        self.sampled.refaulted.raise(sample.refaulted);
        self.raise(sample.direct, sample.stalled);
        self.swapped = Known(sample.swapped.unwrap_or(u64::MAX));
    }

    /// Takes what the summary has, instead of another sample.
    pub(crate) fn end(&mut self, summary: &Summary) {
        // The kernel's own counter of proactive reclaim came with that of the tasks.
        self.raise(summary.direct.filter(|_| summary.counted.is_some()), summary.stalled);
    }

    fn raise(&mut self, direct: Option<u64>, stalled: Option<Duration>) {
        self.sampled.direct.raise(direct);
        self.sampled.stalled.raise(stalled.map(|stalled| stalled.as_micros() as u64));
    }

    /// Returns the bytes in swap.
    #[must_use]
    pub(crate) fn swapped(&self) -> Option<u64> {
        self.swapped.get()
    }

    /// Returns the counters.
    #[must_use]
    pub(crate) fn counters(&self, account: &Account) -> Counters {
        self.sampled.counters(account.counters())
    }

    /// Adds to a rule what the counters have beyond those that were added before.
    pub(crate) fn count(&mut self, account: &Account, rule: Option<&Rc<str>>, ledger: &mut Ledger) {
        self.add(account.counters(), rule, ledger);
    }

    fn add(&mut self, own: Option<Counters>, rule: Option<&Rc<str>>, ledger: &mut Ledger) {
        if own.is_none() && self.sampled == self.counted {
            return;
        }
        let before = self.counted.counters(self.counted_own.take().map(|counters| *counters));
        ledger.add(rule, &self.sampled.counters(own.clone()).since(&before));
        (self.counted, self.counted_own) = (self.sampled, own.map(Box::new));
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

    /// Returns the figures of a rule. A rule that is no longer in force has none, although cgroups
    /// may still follow it: while a write is in progress, or the new rule can't be applied.
    fn rule(&mut self, rule: Option<&Rc<str>>) -> Option<&mut RuleFigures> {
        match rule {
            Some(_) => self.rules.get_mut(&rule.cloned()),
            None => Some(self.rules.entry(None).or_default()),
        }
    }

    /// Adds counters to those of a rule.
    fn add(&mut self, rule: Option<&Rc<str>>, more: &Counters) {
        if let Some(rule) = self.rule(rule) {
            rule.counters.add(more);
        }
    }

    /// Begins to count the cgroups that follow each rule.
    pub(crate) fn begin(&mut self) {
        for rule in self.rules.values_mut() {
            (rule.cgroups, rule.saved) = (0, None);
        }
    }

    /// Counts a cgroup that follows a rule, and what it saves.
    pub(crate) fn follows(&mut self, rule: Option<&Rc<str>>, saved: Option<Saved>) {
        let Some(rule) = self.rule(rule) else { return };
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

    fn own(reclaimed: u64, floor: u64) -> Counters {
        let held = if floor > 0 { vec![("floor", floor)] } else { Vec::new() };
        Counters { reclaimed, held, ..Counters::default() }
    }

    fn sample(refaulted: u64, direct: Option<u64>) -> UsageSample {
        UsageSample { refaulted: Some(refaulted), direct, ..UsageSample::default() }
    }

    fn told(ledger: &Ledger, rule: &Rc<str>) -> (u64, u64, Option<u64>, Vec<(&'static str, u64)>) {
        let counters = &ledger.rules()[&Some(Rc::clone(rule))].counters;
        (counters.reclaimed, counters.refaulted.unwrap(), counters.direct, counters.held.clone())
    }

    #[test]
    fn a_rule_keeps_what_gone_cgroups_added() {
        let (mut ledger, mut one, mut other) = (Ledger::default(), Metered::default(), Metered::default());
        let rule: Rc<str> = "web".into();
        ledger.keep(&[Rc::clone(&rule)]);
        one.set(&sample(3, Some(5)));
        one.add(Some(own(10, 1)), Some(&rule), &mut ledger);
        drop(one);
        other.set(&sample(4, None));
        for _ in 0..2 {
            other.add(Some(own(7, 0)), Some(&rule), &mut ledger);
        }
        assert_eq!(told(&ledger, &rule), (17, 7, Some(5), vec![("floor", 1)]));
    }

    #[test]
    fn another_rule_has_only_what_comes_after_the_change() {
        let (mut ledger, mut one) = (Ledger::default(), Metered::default());
        let [old, new] = ["old", "new"].map(Rc::<str>::from);
        ledger.keep(&[old.clone(), new.clone()]);
        one.set(&sample(1, None));
        one.add(Some(own(10, 2)), Some(&old), &mut ledger);
        one.set(&sample(6, Some(3)));
        one.add(Some(own(14, 3)), Some(&new), &mut ledger);
        assert_eq!(told(&ledger, &old), (10, 1, None, vec![("floor", 2)]));
        assert_eq!(told(&ledger, &new), (4, 5, Some(3), vec![("floor", 1)]));
        ledger.keep(&[new.clone(), "later".into()]);
        let names: Vec<_> = ledger.rules().keys().flatten().map(|name| &**name).collect();
        assert_eq!(names, ["later", "new"]);
        // What is still under way for the dropped rule doesn't bring it back.
        one.add(Some(own(20, 3)), Some(&old), &mut ledger);
        ledger.follows(Some(&old), None);
        assert_eq!(ledger.rules().len(), 2);
    }

    #[test]
    fn no_counter_falls() {
        let (mut ledger, mut one) = (Ledger::default(), Metered::default());
        let rule: Rc<str> = "web".into();
        ledger.keep(&[Rc::clone(&rule)]);
        for (refaulted, direct) in [(10, Some(5)), (8, None), (9, Some(4)), (11, Some(6))] {
            one.set(&sample(refaulted, direct));
            one.add(None, Some(&rule), &mut ledger);
        }
        assert_eq!(told(&ledger, &rule), (0, 11, Some(6), vec![]));
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
