//! A watched cgroup: its state, and the decisions about it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::account::Account;
use super::config::rule::{Rule, WatchError};
use super::event::EventKind;
use super::host::{HostState, Visibility};
use super::level::{Ancestors, Level, Outrun, SETTINGS};
use super::limits::Limits;
use super::policy::guard::{Allowed, CgroupState, Guard};
use super::policy::hold::HoldState;
use super::probe::PressureProbe;
use super::worker::ReclaimHandle;
use crate::cgroup::trigger::Trigger;
use crate::cgroup::{CgroupPath, Sampler};

mod acted;
mod report;

/// Sampling interval while a guard holds.
const HELD: Duration = Duration::from_millis(250);

/// Sampling interval while another memctl is reclaiming from it, and time limit for that: any
/// process can hold such a lock.
const LOCKED: Duration = Duration::from_millis(50);
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Next step for a member.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// Wait until it is due.
    Rest,
    /// Reclaim.
    Act(Allowed),
    /// The cgroup was removed.
    Gone,
}

/// One watched cgroup.
#[derive(Debug)]
pub struct Member {
    /// Path of the cgroup.
    pub located: Arc<CgroupPath>,
    /// Handle for reclaim, unless a worker has it or it was never needed.
    pub(crate) hands: Option<Box<ReclaimHandle>>,
    /// True while a worker has a job for it.
    pub busy: bool,
    /// Time of the next sample.
    pub due: Duration,
    /// True if a limit event arrived.
    pub hit: bool,
    /// Its own limit, and those of ancestors that count.
    pub(crate) limits: Limits,
    /// PSI trigger for stalls of its tasks. Only near a limit.
    pub(crate) trigger: Option<Trigger>,
    /// Time until which the trigger is kept.
    pub trigger_until: Duration,
    rule: Rc<Rule>,
    /// Search for the working set, with `--pressure`.
    pressing: Option<Box<PressureProbe>>,
    holding: HoldState,
    /// Limit in the last report.
    limit_told: u64,
    would_told: Option<Duration>,
    /// Time since which another memctl is reclaiming from it; its lock is ignored `LOCK_TIMEOUT`
    /// later.
    locked: Option<Duration>,
    /// Number of consecutive actions that left the usage too high.
    stuck: u32,
    protection: u64,
    settings_read: Duration,
    /// Time of the last usage sample that was emitted.
    sampled: Duration,
    sampled_current: u64,
    stall: Option<(Duration, u64)>,
    stalled_share: f64,
    /// Visibility of pressure to the guard `above`.
    above: Visibility,
    account: Account,
}

impl Member {
    /// Creates a member. Nothing is reclaimed from it before the end of its `grace`.
    ///
    /// # Errors
    /// [`WatchError`], the reason.
    pub fn new(
        located: Arc<CgroupPath>,
        rule: Rc<Rule>,
        ancestors: &mut Ancestors,
        now: Duration,
        grace: Duration,
        text: &mut String,
    ) -> Result<Self, WatchError> {
        let gauge = match Sampler::open(&located) {
            Err(Errno::NOENT) if &*located.name == "/" => return Err(WatchError::Root),
            gauge => gauge?,
        };
        let own = Level::open(gauge, &rule, rule.keep, now, text)?;
        let above = if rule.ancestors { ancestors.of(&located, &rule, now, text) } else { Vec::new() };
        can_be_watched(&rule, &own, &above)?;
        Ok(Self {
            protection: own.gauge.protection(text).unwrap_or(0),
            account: Account::open(&own.gauge, now, text)?,
            located,
            limit_told: own.limit,
            limits: Limits::new(own, above),
            trigger: None,
            trigger_until: Duration::ZERO,
            hands: None,
            busy: false,
            due: now,
            hit: false,
            pressing: rule.pressure.map(|target| Box::new(PressureProbe::new(target))),
            rule,
            holding: HoldState::new(now + grace),
            would_told: None,
            locked: None,
            stuck: 0,
            settings_read: now,
            sampled: Duration::ZERO,
            sampled_current: 0,
            stall: None,
            stalled_share: 0.0,
            above: Visibility::default(),
        })
    }

    /// Sets another rule. Learned state and accounts are kept.
    ///
    /// # Errors
    /// [`WatchError`], if that rule can't be applied.
    pub(crate) fn adopt(
        &mut self,
        rule: Rc<Rule>,
        ancestors: &mut Ancestors,
        now: Duration,
        text: &mut String,
    ) -> Result<(), WatchError> {
        let above = if rule.ancestors { ancestors.of(&self.located, &rule, now, text) } else { Vec::new() };
        self.limits.adopt(&rule, above, text)?;
        can_be_watched(&rule, &self.limits.own, &self.limits.above)?;
        match (rule.pressure, &mut self.pressing) {
            (Some(target), Some(pressing)) => pressing.adopt(target),
            (target, pressing) => *pressing = target.map(|target| Box::new(PressureProbe::new(target))),
        }
        if self.rule != rule {
            // Earlier reasons to hold may no longer apply.
            self.holding = HoldState::new(now);
            self.would_told = None;
        }
        (self.rule, self.due) = (rule, now);
        Ok(())
    }

    /// Returns its rule.
    #[must_use]
    pub(crate) fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Returns its cgroup id.
    #[must_use]
    pub(crate) fn id(&self) -> u64 {
        self.limits.own.gauge.id()
    }

    /// Returns whether to wait while another memctl is reclaiming from it.
    #[must_use]
    pub(crate) fn locks(&self, now: Duration) -> bool {
        self.rule.lock && self.locked.is_none_or(|since| now.saturating_sub(since) < LOCK_TIMEOUT)
    }

    /// Returns whether a guard holds back an action.
    #[must_use]
    pub(crate) fn is_held(&self) -> bool {
        self.holding.by().is_some()
    }

    /// Records that a limit that counts was met.
    pub(crate) fn outrun(&mut self) {
        self.account.outrun();
    }

    /// Returns whether it is near a limit.
    #[must_use]
    pub(crate) fn is_near(&self) -> bool {
        self.limits.room(0).is_some_and(|room| room.free < room.low.saturating_mul(2))
    }

    /// Sets the sampling interval near the watermark.
    pub(crate) fn look_each(&mut self, near: Duration) {
        self.limits.own.look_each(near);
    }

    /// Samples the cgroup, learns, and decides.
    pub(crate) fn look(
        &mut self,
        now: Duration,
        host: &mut HostState,
        text: &mut String,
        tell: &mut dyn FnMut(EventKind),
    ) -> Step {
        // A cgroup that can't be read any more counts as gone: nothing could be done about it.
        self.try_look(now, host, text, tell).unwrap_or(Step::Gone)
    }

    fn try_look(
        &mut self,
        now: Duration,
        host: &mut HostState,
        text: &mut String,
        tell: &mut dyn FnMut(EventKind),
    ) -> Result<Step, Errno> {
        if now.saturating_sub(self.settings_read) >= self.limits.own.settings_each(now) {
            self.settings_read = now;
            self.protection = self.limits.own.gauge.protection(text).unwrap_or(0);
        }
        if std::mem::take(&mut self.hit)
            && self.rule.keeps_free()
            && let Some(Outrun { what, is_news }) = self.limits.own.outrun(now, text)?
        {
            self.outrun();
            if is_news {
                tell(what);
            }
        }
        let current = self.limits.own.gauge.current(text)?;
        self.flush(now, false, tell);
        self.decide(now, current, host, text, tell)
    }

    fn decide(
        &mut self,
        now: Duration,
        current: u64,
        host: &mut HostState,
        text: &mut String,
        tell: &mut dyn FnMut(EventKind),
    ) -> Result<Step, Errno> {
        let held_back = self.holding.back(now);
        self.limits.gives(if held_back.is_some() { 0 } else { self.spare(current) });
        let (mut until, mut missing) = self.limits.missing(now, current, text)?;
        let own = &self.limits.own;
        if std::mem::replace(&mut self.limit_told, own.limit) != own.limit {
            tell(EventKind::Limit { limit: own.limit, file: own.file });
        }
        let presses = missing == 0;
        if presses && let Some(pressing) = &mut self.pressing {
            if let Some(next) = pressing.rests_until(now, current) {
                until = until.min(next);
            } else if let Some((guard, until)) =
                self.above.held(host.killers.verdict(now, &self.located), now)
            {
                pressing.interrupted();
                return Ok(self.hold(now, guard, until, tell));
            } else {
                let swap = &mut || host.swap.at(now);
                let (next, wanted) = pressing.look(&self.limits.own.gauge, now, current, swap, text, tell)?;
                (until, missing) = (until.min(next), wanted);
            }
        }
        if missing == 0 {
            self.due = until;
            return Ok(Step::Rest);
        }
        if let Some((guard, until)) = held_back {
            return Ok(self.hold(now, guard, Some(until), tell));
        }
        // Reclaim for the headroom goes on: without it the tasks would scan themselves.
        let for_headroom = self.limits.for_headroom();
        if !presses
            && for_headroom < missing
            && let Some((guard, until)) = self.above.held(host.killers.verdict(now, &self.located), now)
        {
            if for_headroom == 0 {
                return Ok(self.hold(now, guard, until, tell));
            }
            missing = for_headroom;
        }
        if self.rule.bounds.max_pressure.is_some() {
            self.read_stall(now, text);
        }
        let can_choose = self.hands.as_ref().is_none_or(|hands| hands.can_choose);
        let own = CgroupState { current, protection: self.protection, stalled: self.stalled_share };
        let down_to = current.saturating_sub(missing);
        let gauge = &self.limits.own.gauge;
        let cache = &mut || gauge.stat(text).map_or(0, |stat| stat.cache_beside_anon());
        let swap = host.swap.at(now);
        Ok(match self.rule.bounds.allow(down_to, own, swap, can_choose, cache) {
            Ok(allowed) => {
                self.holding.allowed(allowed.spared_by);
                // No task waits for reclaim with `--pressure`; reclaim for the headroom is needed
                // anyway, but within bounds.
                let ends = presses || swap.writable.is_some();
                Step::Act(Allowed { waits: allowed.waits && ends, ..allowed })
            }
            Err(guard) => self.hold(now, guard, None, tell),
        })
    }

    fn spare(&self, current: u64) -> u64 {
        current.saturating_sub(self.protection.max(self.rule.bounds.floor))
    }

    /// Offers its reclaimable bytes to limits above: all offers must be known before a share is
    /// requested.
    pub(crate) fn offer(&mut self, now: Duration, text: &mut String) {
        if let Ok(current) = self.limits.own.gauge.current(text)
            && self.holding.back(now).is_none()
        {
            self.limits.gives(self.spare(current));
        }
    }

    /// Records a guard that holds, and emits it once.
    pub(crate) fn hold(
        &mut self,
        now: Duration,
        guard: Guard,
        until: Option<Duration>,
        tell: &mut dyn FnMut(EventKind),
    ) -> Step {
        self.due = until.map_or(now + HELD, |until| until.min(now + HELD));
        let (is_another, is_news) = self.holding.hold(now, guard);
        if is_another {
            self.account.held(guard);
        }
        if is_news {
            tell(EventKind::Hold { guard, wait: until.map(|until| until.saturating_sub(now)) });
        }
        Step::Rest
    }

    /// Records that a worker has a job for it.
    pub(crate) fn begins(&mut self, now: Duration, allowed: &Allowed) {
        self.busy = true;
        self.limits.asks(now, self.limits.own.current().saturating_sub(allowed.down_to));
    }

    /// Records that no worker has a job for it any more.
    pub(crate) fn done(&mut self) {
        self.busy = false;
        self.limits.answered();
    }

    fn read_stall(&mut self, now: Duration, text: &mut String) {
        let due = self.stall.is_none_or(|(at, _)| now.saturating_sub(at) >= SETTINGS);
        let Some(stalled) = due.then(|| self.limits.own.gauge.stalled(text)).flatten() else { return };
        if let Some((at, before)) = self.stall.replace((now, stalled)) {
            let time = now.saturating_sub(at).as_micros().max(1) as f64;
            self.stalled_share = stalled.saturating_sub(before) as f64 / time;
        }
    }
}

/// Checks that a rule makes sense for a cgroup with such limits.
fn can_be_watched(rule: &Rule, own: &Level, above: &[Rc<RefCell<Level>>]) -> Result<(), WatchError> {
    let unlimited = own.limit == u64::MAX && above.iter().all(|level| level.borrow().limit == u64::MAX);
    if rule.pressure.is_none() && unlimited {
        return Err(if rule.ancestors { WatchError::NoLimitAbove } else { WatchError::NoLimit });
    }
    if rule.headroom.below(own.limit) >= own.limit {
        return Err(WatchError::NoRoom(own.limit));
    }
    Ok(())
}
