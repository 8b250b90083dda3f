//! The set of watched cgroups: additions, removals, and changes of the rules.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rustix::io::Errno;

use super::Control;
use crate::host::files::is_shortage;
use crate::watch::config::rule::WatchError;
use crate::watch::event::{EventKind, Summary};
use crate::watch::member::Member;
use crate::watch::notes::Note;
use crate::watch::options::{Reload, RuledCgroup};
use crate::watch::policy::cpu_budget::CpuBudget;
use crate::watch::rejected::Rejected;
use crate::watch::system::{ANCESTOR, Sample, System};

/// Maximum number of cgroups added at a time.
const MAX_ADDED: usize = 32;

/// Maximum number of summaries kept of cgroups that ended before the watch.
const MAX_ENDED: usize = 1000;

/// Grace period of a new cgroup, in which nothing is reclaimed from it.
const GRACE: Duration = Duration::from_secs(5);

impl<S: System> Control<'_, S> {
    /// Searches for new cgroups.
    pub(super) fn renew(&mut self) {
        if !self.settings.follows && self.members.iter().flatten().count() >= self.expected {
            return;
        }
        let now = self.cx.now;
        // A cgroup that was recreated under the same name is first reported as gone.
        let known: HashSet<u64> = self.members.iter().flatten().map(Member::id).collect();
        let (Some(select), rejected) = (&mut self.select, &self.rejected) else { return };
        let skip = |id| known.contains(&id) || rejected.is_waiting(id, now);
        let found = select(std::mem::take(&mut self.lost), &skip);
        // Cgroups that are still pending are found again.
        self.pending = found.into_iter().filter(|ruled| !skip(ruled.located.id)).collect();
    }

    /// Adds some of the cgroups that were found. Each takes a dozen system calls, and the others
    /// mustn't wait for hundreds.
    pub(super) fn add_pending(&mut self) {
        for _ in 0..MAX_ADDED {
            let Some(ruled) = self.pending.pop_front() else { return };
            self.cx.refresh();
            self.add(ruled, GRACE);
        }
    }

    /// Adds a cgroup, if it can be watched. A cgroup without a limit may get one later: until then
    /// there is nothing to watch.
    fn add(&mut self, RuledCgroup { located, rule }: RuledCgroup, grace: Duration) {
        let id = located.id;
        let name = located.name.clone();
        let checked = self.cx.system.check(&located, &rule.bounds, self.settings.dry_run);
        let member =
            checked.and_then(|()| Member::new(located, rule, &mut self.ancestors, grace, &mut self.cx));
        let member = match member {
            Ok(member) => member,
            Err(why) => {
                self.rejected.add(id, self.cx.now);
                return self.note_rejected(&name, &why);
            }
        };
        self.rejected.remove(id);
        let slot = self.members.iter().position(Option::is_none).unwrap_or(self.members.len());
        if slot == self.members.len() {
            self.members.push(None);
        }
        self.members[slot] = Some(member);
        self.begin(slot);
    }

    /// Emits a note on a cgroup that can't be watched for a reason that isn't the cgroup's own: a
    /// lack of descriptors, for example. Each reason is noted once.
    fn note_rejected(&mut self, name: &str, why: &WatchError) {
        if let WatchError::Errno(errno) = *why
            && !matches!(errno, Errno::NOENT | Errno::NODEV | Errno::STALE)
            && self.rejected.failed(errno)
        {
            self.emit_note(&Note::NotWatched { cgroup: name.to_owned(), error: errno });
        }
    }

    /// Applies new rules. Cgroups that stay watched keep their learned state.
    pub(super) fn reload(&mut self, reload: Reload) {
        // Reading the rules took some time.
        let now = self.cx.refresh();
        self.budget = CpuBudget::new(reload.cpu, now, self.cx.system.cpu());
        self.cx.host.swap.adopt(reload.swap_writes);
        self.rejected = Rejected::default();
        self.pending.clear();
        let rules = reload.rules;
        let mut wanted: HashMap<u64, RuledCgroup> =
            reload.all.into_iter().map(|ruled| (ruled.located.id, ruled)).collect();
        for slot in 0..self.members.len() {
            let Some(member) = &mut self.members[slot] else { continue };
            let rule = wanted.remove(&member.id()).map(|ruled| ruled.rule);
            if member.closing.is_some() {
                continue;
            }
            member.count(&mut self.ledger);
            let changed = rule.as_deref() != Some(member.rule());
            let adopted = rule.map(|rule| member.adopt(rule, &mut self.ancestors, &mut self.cx));
            match adopted {
                Some(Ok(())) if changed => self.begin(slot),
                Some(Ok(())) => {}
                Some(Err(WatchError::Errno(error))) if is_shortage(error) => {
                    let cgroup = member.located.name.to_string();
                    self.emit_note(&Note::OldRule { cgroup, error });
                }
                Some(Err(_)) | None => self.end_of(slot, EventKind::Released, false),
            }
            self.plan(slot);
        }
        // A cgroup new to the rules isn't one that has just started.
        let mut others: Vec<_> = wanted.into_values().collect();
        others.sort_by(|a, b| a.located.name.cmp(&b.located.name));
        for ruled in others {
            self.add(ruled, Duration::ZERO);
        }
        self.ancestors_changed = true;
        self.update_ancestors();
        self.ledger.keep(&rules);
    }

    /// Adapts the ancestors to the members, if any member went or has another rule.
    pub(super) fn update_ancestors(&mut self) {
        if std::mem::take(&mut self.ancestors_changed) {
            let members = self.members.iter().flatten().filter(|member| member.closing.is_none());
            self.ancestors.update(members.map(|member| (member.rule(), &*member.limits.above)));
        }
    }

    /// Emits the start of the member in this slot, and listens to its events from now on.
    pub(super) fn begin(&mut self, slot: usize) {
        self.cx.refresh();
        let Some(member) = &mut self.members[slot] else { return };
        if member.rule().ancestors {
            member.offer(&mut self.cx);
        }
        self.cx.host.killers.added(&member.located);
        let start = member.limits.start(member.rule(), &mut self.cx);
        self.cx.emit(&member.located.name, start);
        if !self.noted.stalls && member.is_blind_to_stalls(&mut self.cx.text) {
            self.noted.stalls = true;
            let cgroup = member.located.name.to_string();
            self.emit_note(&Note::StallsUnknown { cgroup });
        }
        self.listen(slot);
        self.plan(slot);
    }

    /// Listens to limit events of the member and of its ancestors.
    fn listen(&mut self, slot: usize) {
        let Some(member) = &self.members[slot] else { return };
        self.cx.system.listen(&member.limits.own.sampler, slot as u64);
        for level in &member.limits.above {
            let level = level.borrow();
            self.cx.system.listen(&level.sampler, ANCESTOR | level.sampler.id());
        }
    }

    pub(super) fn gone(&mut self, slot: usize) {
        self.lost = true;
        self.end_of(slot, EventKind::Gone, true);
    }

    /// Ends the watch of the member in this slot. A write in progress is waited for, since it
    /// counts.
    fn end_of(&mut self, slot: usize, what: EventKind, gone: bool) {
        let Some(member) = &mut self.members[slot] else { return };
        self.dispatcher.remove(slot);
        let is_writing = member.is_writing();
        if member.closing.is_none() {
            member.flush_last(&mut self.cx);
            if self.settings.samples {
                member.emit_last(gone, &mut self.cx);
            }
            self.cx.emit(&member.located.name, what);
        }
        member.closing = Some(gone);
        if !is_writing {
            self.close(slot, gone);
        }
    }

    /// Removes the member in this slot, and keeps its summary.
    pub(super) fn close(&mut self, slot: usize, gone: bool) {
        let Some(mut member) = self.members[slot].take() else { return };
        member.flush(true, &mut self.cx);
        let summary = member.summary(gone, &mut self.cx);
        member.count(&mut self.ledger);
        self.cx.emit(&member.located.name, EventKind::Ended(Box::new(summary.clone())));
        drop(member);
        self.keep(summary);
        self.ancestors_changed = true;
        self.rejected.freed();
        self.plan(slot);
    }

    /// Keeps a summary; the oldest ones are added up.
    fn keep(&mut self, summary: Summary) {
        if self.ended.len() >= MAX_ENDED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.others.count += 1;
            self.others.total.add_total(&oldest.total);
        }
        self.ended.push_back(summary);
    }
}
