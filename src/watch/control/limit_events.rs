//! Limit events and stalls: which members are sampled for them, and when they are heard again.

use std::time::Duration;

use super::{Control, HURRY_TIME};
use crate::watch::level::Outrun;
use crate::watch::system::{ANCESTOR, Sample, System};

/// Time for which a limit event is muted after it arrived: a cgroup that stays at its limit causes
/// a hundred a second, a bound set by the kernel. The longer time applies while a guard holds.
const MUTE: Duration = Duration::from_millis(50);
const LONG_MUTE: Duration = Duration::from_millis(250);

impl<S: System> Control<'_, S> {
    /// Listens again to limit events that were muted until now.
    pub(super) fn rearm(&mut self) {
        while let Some(id) = self.muted.next_due(self.cx.now) {
            if id & ANCESTOR != 0 {
                if let Some(level) = self.ancestors.get(id & !ANCESTOR) {
                    self.cx.system.rearm(&level.borrow().sampler, id);
                }
            } else if let Some(Some(member)) = self.members.get(id as usize) {
                self.cx.system.rearm(&member.limits.own.sampler, id);
            }
        }
    }

    /// Handles a limit event or a stall of a member.
    pub(super) fn member_hit(&mut self, id: u64) {
        let slot = id as usize;
        let Some(Some(member)) = self.members.get_mut(slot) else { return };
        (member.hit, member.due) = (true, Duration::ZERO);
        let mute = if member.is_held() { LONG_MUTE } else { MUTE };
        self.muted.mute(id, self.cx.now + mute);
        self.plan(slot);
    }

    /// Handles a limit event of an ancestor: all members below it are sampled.
    pub(super) fn ancestor_hit(&mut self, id: u64) {
        self.muted.mute(ANCESTOR | id, self.cx.now + MUTE);
        let Some(level) = self.ancestors.get(id) else { return };
        let outrun = level.borrow_mut().outrun(false, &mut self.cx).ok().flatten();
        let was_met = outrun.is_some();
        if was_met {
            // What takes its time below it moves the reclaim to the tasks.
            self.hurries_until = self.cx.now + HURRY_TIME;
        }
        if let Some(Outrun { what, is_news: true, .. }) = outrun {
            self.cx.emit(level.borrow().sampler.name(), what);
        }
        for slot in 0..self.members.len() {
            let Some(member) = &mut self.members[slot] else { continue };
            if member.limits.above.iter().any(|level| level.borrow().sampler.id() == id) {
                member.due = Duration::ZERO;
                if was_met {
                    member.met_above(self.cx.now);
                }
                self.plan(slot);
            }
        }
    }
}
