//! One cgroup under watch: what is known of it, and what to do about it.

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

/// While something holds, look so often.
const HELD: Duration = Duration::from_millis(250);

/// While another memctl is at it, look so often, and for so long: anybody can hold such a lock.
const LOCKED: Duration = Duration::from_millis(50);
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// What to do with it next.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Look again when it is due.
    Rest,
    /// Reclaim.
    Act(Allowed),
    /// It is gone.
    Gone,
}

/// One cgroup under watch.
#[derive(Debug)]
pub struct Member {
    /// Where it is.
    pub located: Arc<CgroupPath>,
    /// What it is reclaimed from through, unless a worker has that or it was never needed.
    pub hands: Option<Box<ReclaimHandle>>,
    /// Whether a worker is at it.
    pub busy: bool,
    /// When to look at it next.
    pub due: Duration,
    /// It said that it met its limit.
    pub hit: bool,
    /// Its own limit, and those above that count.
    pub limits: Limits,
    /// Wakes up when its tasks stall. Only near a limit.
    pub trigger: Option<Trigger>,
    /// Until when it is worth having.
    pub trigger_until: Duration,
    rule: Rc<Rule>,
    /// Finds what is in use, if that is wanted.
    pressing: Option<Box<PressureProbe>>,
    holding: HoldState,
    /// Its limit, as it was told.
    limit_told: u64,
    would_told: Option<Duration>,
    /// Since when another memctl is at it, and whether that was long enough.
    locked: Option<Duration>,
    /// How many actions in a row left the usage too high.
    stuck: u32,
    protection: u64,
    settings_read: Duration,
    /// When it was told last how it stands.
    sampled: Duration,
    sampled_current: u64,
    stall: Option<(Duration, u64)>,
    stalled_share: f64,
    /// What the guard `above` could see.
    above: Visibility,
    account: Account,
}

impl Member {
    /// Begins to watch a cgroup. Until the end of a `grace` nothing is reclaimed from it.
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

    /// Follows another rule from now on. What was learned and done so far stays.
    ///
    /// # Errors
    /// [`WatchError`], if that rule can't be followed.
    pub fn adopt(
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
            // What held it back may do so no longer.
            self.holding = HoldState::new(now);
            self.would_told = None;
        }
        (self.rule, self.due) = (rule, now);
        Ok(())
    }

    /// The rule that it follows.
    #[must_use]
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.limits.own.gauge.id()
    }

    /// Whether to keep off while another memctl is at it.
    #[must_use]
    pub fn locks(&self, now: Duration) -> bool {
        self.rule.lock && self.locked.is_none_or(|since| now.saturating_sub(since) < LOCK_TIMEOUT)
    }

    /// Whether something holds back what should be done.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.holding.by().is_some()
    }

    /// It met a limit that counts.
    pub fn outrun(&mut self) {
        self.account.outrun();
    }

    /// Whether it is near a limit.
    #[must_use]
    pub fn is_near(&self) -> bool {
        self.limits.room(0).is_some_and(|room| room.free < room.low.saturating_mul(2))
    }

    /// Looks so often near the watermark from now on.
    pub fn look_each(&mut self, near: Duration) {
        self.limits.own.look_each(near);
    }

    /// Looks at it, learns, and decides.
    pub fn look(
        &mut self,
        now: Duration,
        host: &mut HostState,
        text: &mut String,
        tell: &mut dyn FnMut(EventKind),
    ) -> Step {
        // Whatever can't be read any more is as good as gone: there is nothing that could be done about it.
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
        // What is to be free goes on: without it the tasks would scan themselves.
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
                // Nobody waits for what is pressed out; what is to be free is wanted all the same, but within bounds.
                let ends = presses || swap.writable.is_some();
                Step::Act(Allowed { waits: allowed.waits && ends, ..allowed })
            }
            Err(guard) => self.hold(now, guard, None, tell),
        })
    }

    fn spare(&self, current: u64) -> u64 {
        current.saturating_sub(self.protection.max(self.rule.bounds.floor))
    }

    /// Enters what it has to give to limits above: before any is asked for a share, all of them are to be known.
    pub fn offer(&mut self, now: Duration, text: &mut String) {
        if let Ok(current) = self.limits.own.gauge.current(text)
            && self.holding.back(now).is_none()
        {
            self.limits.gives(self.spare(current));
        }
    }

    /// Holds, and says so once.
    pub fn hold(
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

    /// A worker has it in hand.
    pub fn begins(&mut self, now: Duration, allowed: &Allowed) {
        self.busy = true;
        self.limits.asks(now, self.limits.own.current().saturating_sub(allowed.down_to));
    }

    /// None has, or no longer.
    pub fn done(&mut self) {
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

/// Whether a rule makes sense for a cgroup with such limits.
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
