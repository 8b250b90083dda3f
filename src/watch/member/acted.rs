//! Reaction of a watched cgroup to the result of an action.

use std::time::Duration;

use rustix::io::Errno;

use super::super::action::{ActionResult, EndReason, WRITE_TIMEOUT};
use super::super::context::Context;
use super::super::policy::guard::Guard;
use super::super::policy::refaults::RefaultCounters;
use super::super::policy::sampling_interval::MIN_INTERVAL;
use super::super::system::{Sample, System};
use super::{Member, Step};
use crate::cgroup::stat::MemoryStat;
use crate::host::proc::page_size;

/// Maximum number of times the delay after an action without visible effect doubles (to 0.8 s).
const MAX_STUCK: u32 = 4;

/// Number of consecutive actions after which the kernel's claims alone count as no effect.
const MAX_UNCONFIRMED: u32 = 8;

/// Interval between attempts while another process holds the lock.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

impl<S: System> Member<S> {
    /// Records the result of an action, and decides anew.
    pub(crate) fn acted(&mut self, result: &ActionResult, cx: &mut Context<'_, S>) -> Step {
        let presses = self.finish(result.reclaimed, result.end == EndReason::Slice, cx);
        if result.writes > 0 {
            self.record(result, presses, cx.now);
        }
        if let EndReason::Failed(errno) = result.end {
            // The next action opens the cgroup anew.
            self.handle = None;
            return self.fail(errno, cx);
        }
        match self.try_acted(result, presses, cx) {
            Ok(step) => {
                self.recover(cx);
                step
            }
            Err(errno) => self.fail(errno, cx),
        }
    }

    fn try_acted(
        &mut self,
        result: &ActionResult,
        presses: bool,
        cx: &mut Context<'_, S>,
    ) -> Result<Step, Errno> {
        let now = cx.now;
        match result.end {
            EndReason::Removed => return Ok(Step::Gone),
            EndReason::Locked(holder) => {
                self.lock.refused(now, holder.is_honoured);
                return Ok(self.hold(Guard::Lock(holder.pid), Some(now + LOCK_INTERVAL), cx));
            }
            _ => self.lock.taken(),
        }
        // A write that used the CPU all the time waited for no device: it submitted much, or sorted
        // lists.
        if result.end == EndReason::Late
            && result.waited() >= WRITE_TIMEOUT / 2
            && let Some(probe) = &mut self.probe
        {
            probe.late(now);
        }
        // The next decision reads anew what cache there is.
        let may_be_old = result.end == EndReason::Exhausted && self.cache.exhausted();
        if result.end == EndReason::Exhausted && !may_be_old && result.reclaimed < result.requested / 8 {
            return self.exhausted(result, cx);
        }
        if result.reclaimed > 0 {
            self.hold.worked();
        }
        if !presses && let Some(step) = self.check_refaults(result, cx)? {
            return Ok(step);
        }
        if result.end == EndReason::Slice && !presses {
            self.limits.go_on();
        }
        self.flush(false, cx);
        // The worker's last reading replaces a sample.
        self.range.record(result.current);
        let step = self.decide(result.current, cx)?;
        let is_unconfirmed = result.unconfirmed > 0 && result.unconfirmed == result.reclaimed;
        self.unconfirmed = if is_unconfirmed { self.unconfirmed.saturating_add(1) } else { 0 };
        let had_effect = result.reclaimed > 0
            && result.reclaimed >= result.requested / 8
            && self.unconfirmed < MAX_UNCONFIRMED;
        if !matches!(step, Step::Act(_)) || had_effect || result.end == EndReason::Slice {
            self.stuck = 0;
            return Ok(step);
        }
        // The effect isn't visible yet: pages may be on their way to swap.
        self.stuck = (self.stuck + 1).min(MAX_STUCK);
        self.due = now + MIN_INTERVAL * (1 << self.stuck);
        Ok(Step::Rest)
    }

    /// Handles an action after which nothing more can be reclaimed.
    fn exhausted(&mut self, result: &ActionResult, cx: &mut Context<'_, S>) -> Result<Step, Errno> {
        let shortage = self.shortage(result.current, cx)?;
        if shortage.missing == 0
            && let Some(probe) = &mut self.probe
        {
            let subject = (&*self.located, self.rule.bounds.kind.unwrap_or_default());
            let report = probe.exhausted(&self.limits.own.sampler, subject, result.current, cx)?;
            self.due = shortage.until.min(probe.due());
            if let Some(what) = report {
                cx.emit(&self.located.name, what);
            }
            return Ok(Step::Rest);
        }
        let (guard, wait) = self.hold.exhausted(cx.now);
        let step = self.hold(guard, Some(cx.now + wait), cx);
        // Sampling goes on meanwhile: the usage may begin to move.
        self.limits.withdraw();
        Ok(step)
    }

    /// Checks the refaults of memory reclaimed for a limit, if that is due. Returns the step, if
    /// they are too many.
    fn check_refaults(
        &mut self,
        result: &ActionResult,
        cx: &mut Context<'_, S>,
    ) -> Result<Option<Step>, Errno> {
        if !self.hold.brake.is_due(cx.now) {
            return Ok(None);
        }
        // A limit that was met before a hold must not end it.
        let stat = match self.read_outrun(cx)? {
            Some(stat) => stat,
            None => self.read_stat(cx)?,
        };
        let stalled = self.limits.own.sampler.stalled(&mut cx.text).map(Duration::from_micros);
        self.limits.own.rebase(&stat, &mut cx.text);
        let counters = RefaultCounters { stalled, met: self.limits.met(), ..counters(&stat, cx) };
        let checked = self.hold.brake.check(cx.now, counters, self.limits.wanted());
        match checked.returned {
            Some(true) => self.limits.own.forget_arrivals(),
            Some(false) => self.limits.own.note_arrivals(),
            None => {}
        }
        self.hold.over();
        let Some(share) = checked.hold else { return Ok(None) };
        let until = self.hold.brake.holds(cx.now);
        self.limits.withdraw();
        self.shortage(result.current, cx)?;
        let guard = self.hold.refaulted(cx.now, share);
        Ok(Some(self.hold(guard, until, cx)))
    }

    /// Reads the counters at the end of a stage of a trial of the brake, if that is due.
    pub(super) fn go_on_with_trial(&mut self, cx: &mut Context<'_, S>) -> Result<(), Errno> {
        if self.hold.brake.is_trial_due(cx.now) {
            let stat = self.read_stat(cx)?;
            if self.hold.brake.tried(cx.now, &counters(&stat, cx), self.limits.wanted()) {
                self.limits.own.forget_arrivals();
                self.hold.over();
            }
        }
        Ok(())
    }

    fn record(&mut self, result: &ActionResult, presses: bool, now: Duration) {
        // The room is that of the samples before the action: each level is sampled after this.
        let fell = self.limits.own.current().saturating_sub(result.current);
        self.account.record(now, result, self.limits.room(fell));
        self.limits.reclaimed(result.reclaimed, result.cpu);
        self.cache.reclaimed(result.reclaimed);
        if presses {
            self.hold.brake.pressed();
        } else {
            self.hold.brake.reclaimed(now, result.reclaimed);
        }
        match &mut self.probe {
            Some(probe) if presses => probe.acted(result),
            Some(probe) => probe.saved(result.reclaimed),
            None => {}
        }
    }
}

/// Returns the counters of refaults. Stalls and limits are read for themselves.
fn counters(stat: &MemoryStat, cx: &Context<'_, impl System>) -> RefaultCounters {
    let bytes = |pages: Option<u64>| pages.unwrap_or(0) * page_size();
    RefaultCounters {
        refaulted: stat.refaulted().unwrap_or(0),
        refaulted_file: bytes(stat.workingset_refault_file),
        activated_file: bytes(stat.workingset_activate_file),
        restored_file: bytes(stat.workingset_restore_file),
        swapped_in: stat.swapped_in().unwrap_or(0),
        direct: stat.pgsteal_direct.map(|pages| pages * page_size()),
        stalled: None,
        met: None,
        lru: cx.system.lru(),
    }
}
