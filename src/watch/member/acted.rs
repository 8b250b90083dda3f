//! Reaction of a watched cgroup to the result of an action.

use std::time::Duration;

use rustix::io::Errno;

use super::super::action::{ActionResult, EndReason};
use super::super::event::EventKind;
use super::super::host::HostState;
use super::super::policy::guard::Guard;
use super::super::policy::headroom::MIN_INTERVAL;
use super::super::policy::refaults::RefaultCounters;
use super::{LOCK_TIMEOUT, LOCKED, Member, Step};

/// Maximum number of times the delay after an action without visible effect doubles (to 0.8 s).
const STUCK: u32 = 4;

impl Member {
    /// Records the result of an action, and decides anew.
    pub(crate) fn acted(
        &mut self,
        now: Duration,
        acted: &ActionResult,
        host: &mut HostState,
        text: &mut String,
        tell: &mut dyn FnMut(EventKind),
    ) -> Step {
        self.done();
        self.try_acted(now, acted, host, text, tell).unwrap_or(Step::Gone)
    }

    fn try_acted(
        &mut self,
        now: Duration,
        acted: &ActionResult,
        host: &mut HostState,
        text: &mut String,
        tell: &mut dyn FnMut(EventKind),
    ) -> Result<Step, Errno> {
        if matches!(acted.end, EndReason::Removed | EndReason::Failed(_)) {
            return Ok(Step::Gone);
        }
        if acted.end == EndReason::Locked {
            self.locked = self.locked.or(Some(now));
            return Ok(self.hold(now, Guard::Lock, Some(now + LOCKED), tell));
        }
        self.locked = self.locked.filter(|&since| now.saturating_sub(since) < 2 * LOCK_TIMEOUT);
        if acted.writes > 0 {
            self.enter(now, acted);
        }
        if acted.end == EndReason::Late
            && let Some(pressing) = &mut self.pressing
        {
            pressing.late(now);
        }
        if acted.end == EndReason::Exhausted && acted.reclaimed < acted.requested / 8 {
            if let (until, 0) = self.limits.missing(now, acted.current, text)?
                && let Some(pressing) = &mut self.pressing
            {
                pressing.exhausted(now, acted.current, tell);
                self.due = until.min(pressing.due());
                return Ok(Step::Rest);
            }
            let (guard, wait) = self.holding.exhausted(now);
            let step = self.hold(now, guard, Some(now + wait), tell);
            // Samples meanwhile: the usage may begin to move.
            self.limits.gives(0);
            self.limits.missing(now, acted.current, text)?;
            return Ok(step);
        }
        if acted.reclaimed > 0 {
            self.holding.worked();
        }
        if self.pressing.is_none()
            && self.holding.brake.wants_to_judge(now)
            && let Ok(stat) = self.limits.own.gauge.stat(text)
        {
            let stalled = Duration::from_micros(self.limits.own.gauge.stalled(text).unwrap_or(0));
            let refaulted = stat.refaulted().unwrap_or(0);
            match self
                .holding
                .brake
                .judge(now, RefaultCounters { restored: stat.back_in_use(), refaulted, stalled })
            {
                Some(share) => {
                    self.holding.over();
                    let until = self.holding.brake.holds(now);
                    self.limits.gives(0);
                    self.limits.missing(now, acted.current, text)?;
                    return Ok(self.hold(now, Guard::Refaults(share), until, tell));
                }
                None => self.holding.over(),
            }
        }
        self.flush(now, false, tell);
        // The worker's last reading replaces a sample.
        Ok(match self.decide(now, acted.current, host, text, tell)? {
            // The effect isn't visible yet, or as much was allocated meanwhile: pages may be on
            // their way to swap.
            Step::Act(_) => {
                self.stuck = (self.stuck + 1).min(STUCK);
                self.due = now + MIN_INTERVAL * (1 << self.stuck);
                Step::Rest
            }
            step => {
                self.stuck = 0;
                step
            }
        })
    }

    fn enter(&mut self, now: Duration, acted: &ActionResult) {
        self.limits.reclaimed(acted.reclaimed);
        self.holding.brake.reclaimed(acted.reclaimed);
        self.pressing.iter_mut().for_each(|pressing| pressing.acted(acted));
        // By the samples before the action: each level is sampled anew only after this.
        let fell = self.limits.own.current().saturating_sub(acted.current);
        self.account.enter(now, acted, self.limits.room(fell));
    }
}
