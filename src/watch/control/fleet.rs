//! The set of watched cgroups: additions, removals, and changes of the rules.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::super::event::{EventKind, Summary};
use super::super::member::Member;
use super::super::options::{Reload, RuledCgroup};
use super::super::policy::cpu_budget::CpuBudget;
use super::super::swap_monitor::SwapMonitor;
use super::{ANCESTOR, Control, event, teller};
use crate::clock::{now, process_cpu};

/// Grace period of a new cgroup, in which nothing is reclaimed from it.
const GRACE: Duration = Duration::from_secs(5);

impl Control<'_> {
    /// Searches for new cgroups.
    pub(super) fn renew(&mut self, now: Duration) {
        if !self.options.follows && self.fleet.iter().flatten().count() >= self.expected {
            return;
        }
        // A cgroup that was recreated under the same name is first reported as gone.
        let known: HashSet<u64> = self.fleet.iter().flatten().map(Member::id).collect();
        let Some(select) = &mut self.options.select else { return };
        let found = select(std::mem::take(&mut self.lost), &|id| known.contains(&id));
        for ruled in found {
            self.take_on(ruled, now, GRACE);
        }
    }

    /// Adds a cgroup, if it can be watched. A cgroup without a limit may get one later: until then
    /// there is nothing to watch.
    fn take_on(&mut self, RuledCgroup { located, rule }: RuledCgroup, now: Duration, grace: Duration) {
        let Ok(member) = Member::new(located, rule, &mut self.options.ancestors, now, grace, &mut self.text)
        else {
            return;
        };
        let place = self.fleet.iter().position(Option::is_none).unwrap_or(self.fleet.len());
        if place == self.fleet.len() {
            self.fleet.push(None);
        }
        self.fleet[place] = Some(member);
        self.begin(place);
    }

    /// Applies new rules. Cgroups that stay watched keep their learned state.
    pub(super) fn reload(&mut self, reload: Reload) {
        // Reading the rules took some time.
        let now = now();
        self.budget = CpuBudget::new(reload.cpu, now, process_cpu());
        self.host.swap = SwapMonitor::new(reload.swap_writes);
        self.options.ancestors.forget();
        let mut wanted: HashMap<u64, RuledCgroup> =
            reload.all.into_iter().map(|ruled| (ruled.located.id, ruled)).collect();
        for place in 0..self.fleet.len() {
            let Some(member) = &mut self.fleet[place] else { continue };
            let rule = wanted.remove(&member.id()).map(|ruled| ruled.rule);
            let changed = rule.as_deref() != Some(member.rule());
            let follows = rule.is_some_and(|rule| {
                member.adopt(rule, &mut self.options.ancestors, now, &mut self.text).is_ok()
            });
            if !follows {
                self.end_of(place, now, EventKind::Released, false);
            } else if changed {
                self.begin(place);
            } else if !member.limits.above.is_empty() {
                self.listen(place);
            }
        }
        // A cgroup new to the rules isn't one that has just started.
        let mut others: Vec<_> = wanted.into_values().collect();
        others.sort_by(|a, b| a.located.name.cmp(&b.located.name));
        for ruled in others {
            self.take_on(ruled, now, Duration::ZERO);
        }
    }

    /// Emits the start of the member in this slot, and listens to its events from now on.
    pub(super) fn begin(&mut self, place: usize) {
        let Some(member) = &mut self.fleet[place] else { return };
        if member.rule().ancestors {
            member.offer(now(), &mut self.text);
        }
        self.host.killers.added(&member.located);
        let start = member.limits.start(member.rule(), &mut self.text);
        (self.options.tell)(event(&member.located.name, now(), self.began, start));
        self.listen(place);
    }

    /// Listens to limit events of the member and of its ancestors.
    fn listen(&mut self, place: usize) {
        let Some(member) = &self.fleet[place] else { return };
        member
            .limits
            .own
            .gauge
            .events()
            .into_iter()
            .for_each(|events| self.wakeups.once(events, place as u64));
        for level in &member.limits.above {
            let level = level.borrow();
            let id = level.gauge.id();
            level.gauge.events().into_iter().for_each(|events| self.wakeups.once(events, ANCESTOR | id));
        }
    }

    pub(super) fn gone(&mut self, place: usize, now: Duration) {
        self.lost = true;
        self.end_of(place, now, EventKind::Gone, true);
    }

    /// Ends the watch of the member in this slot.
    fn end_of(&mut self, place: usize, now: Duration, what: EventKind, gone: bool) {
        let Some(mut member) = self.fleet[place].take() else { return };
        let mut say = teller(self.options.tell, &member.located, now, self.began);
        member.flush(now, true, &mut say);
        say(what);
        drop(say);
        let at = now.saturating_sub(self.began);
        self.ended.push(Summary { at, ..member.summary(now, gone, &mut self.text) });
        drop(member);
        self.options.ancestors.forget_the_unused();
    }
}
