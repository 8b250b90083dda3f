//! A watched cgroup: its state, and the decisions about it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::account::Account;
use super::ancestors::{Ancestors, SharedLevel};
use super::config::rule::{Rule, WatchError};
use super::context::Context;
use super::dispatcher::owner_key;
use super::event::EventKind;
use super::folding::UsageRange;
use super::host::Visibility;
use super::level::Level;
use super::limits::{Limits, Shortage};
use super::meter::Metered;
use super::policy::backoff::Doubling;
use super::policy::cache_seen::CacheSeen;
use super::policy::guard::{Allowed, Guard};
use super::policy::hold::HoldState;
use super::policy::lock::LockPatience;
use super::policy::reuse::Anon;
use super::policy::shares::Offer;
use super::probe::PressureProbe;
use super::system::{Sample, System};
use super::worker::ReclaimHandle;
use crate::cgroup::CgroupPath;
use crate::kind::Kind;

mod acted;
mod activity;
mod allowed;
mod events;
mod report;

pub(crate) use activity::Activity;

/// Sampling interval while a guard holds.
const HOLD_INTERVAL: Duration = Duration::from_millis(250);

/// Delay after a failed sample or action; it doubles up to the longer one.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const MAX_RETRY: Duration = Duration::from_secs(10);

/// Next step for a member.
#[derive(Clone, Copy, Debug, PartialEq)]
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
pub(crate) struct Member<S: System> {
    /// Path of the cgroup.
    pub located: Arc<CgroupPath>,
    /// Handle for reclaim, unless a worker has it or it was never needed.
    pub handle: Option<Box<ReclaimHandle<S::Target>>>,
    /// How far the kernel prefers anonymous memory if asked to, as far as a handle showed.
    preference: Anon,
    pub activity: Activity,
    /// Time of the next sample.
    pub due: Duration,
    /// True if a limit event arrived.
    pub hit: bool,
    /// Its own limit, and those of ancestors that count.
    pub limits: Limits<S::Sampler>,
    /// PSI trigger for stalls of its tasks. Only near a limit.
    pub trigger: Option<S::Trigger>,
    /// Time until which the trigger is kept, and time before which none is set after a failure.
    pub trigger_until: Duration,
    pub trigger_after: Duration,
    /// Set once its watch has ended but a write is still in progress; true if the cgroup was
    /// removed.
    pub closing: Option<bool>,
    /// Key of its owner, between whom the workers are shared.
    pub owner: u64,
    rule: Rc<Rule>,
    /// Search for the working set, with `--pressure`.
    probe: Option<Box<PressureProbe>>,
    /// True if the last decision was due to `--pressure`.
    presses: bool,
    cache: CacheSeen,
    hold: HoldState,
    /// Delay after errors, and the error that was reported.
    blind: Doubling,
    blind_error: Option<Errno>,
    /// Limit in the last report.
    limit_reported: u64,
    would_reported: Option<Duration>,
    lock: LockPatience,
    /// Number of consecutive actions without effect, and of those whose effect isn't confirmed.
    stuck: u32,
    unconfirmed: u32,
    protection: u64,
    settings_read_at: Duration,
    /// Time and usage of the last usage sample, the time of the last that was emitted, and the usage
    /// since.
    sampled_at: Duration,
    sampled_current: u64,
    emitted_at: Duration,
    range: UsageRange,
    stall: Option<(Duration, u64)>,
    stalled_share: f64,
    /// Visibility to the guards.
    visibility: Visibility,
    account: Account,
    /// Its last usage sample and its counters, once a sample was emitted.
    metered: Option<Box<Metered>>,
}

impl<S: System> Member<S> {
    /// Creates a member. Nothing is reclaimed from it before the end of its `grace`.
    ///
    /// # Errors
    /// [`WatchError`], the reason.
    pub(crate) fn new(
        located: Arc<CgroupPath>,
        rule: Rc<Rule>,
        ancestors: &mut Ancestors<S::Sampler>,
        grace: Duration,
        cx: &mut Context<'_, S>,
    ) -> Result<Self, WatchError> {
        let sampler = match cx.system.open(&located) {
            Err(Errno::NOENT) if &*located.name == "/" => return Err(WatchError::Root),
            sampler => sampler?,
        };
        let own = Level::open(sampler, &rule, rule.keep, cx)?;
        let above = if rule.ancestors { ancestors.of(&located, &rule, cx)? } else { Vec::new() };
        can_be_watched(&rule, &own, &above)?;
        Ok(Self {
            protection: own.sampler.protection(&mut cx.text)?,
            account: Account::open(&own.sampler, &located, cx)?,
            owner: owner_key(own.sampler.owner(), &located.name),
            located,
            limit_reported: own.limit,
            limits: Limits::new(own, above),
            trigger: None,
            trigger_until: Duration::ZERO,
            trigger_after: Duration::ZERO,
            closing: None,
            handle: None,
            preference: Anon::Mixed,
            activity: Activity::Idle,
            due: cx.now,
            hit: false,
            probe: rule.pressure.map(|target| Box::new(PressureProbe::new(target, rule.reuse))),
            presses: false,
            cache: CacheSeen::default(),
            rule,
            hold: HoldState::new(cx.now + grace),
            blind: Doubling::default(),
            blind_error: None,
            would_reported: None,
            lock: LockPatience::default(),
            stuck: 0,
            unconfirmed: 0,
            settings_read_at: cx.now,
            sampled_at: Duration::ZERO,
            sampled_current: 0,
            emitted_at: Duration::ZERO,
            range: UsageRange::default(),
            stall: None,
            stalled_share: 0.0,
            visibility: Visibility::default(),
            metered: None,
        })
    }

    /// Sets another rule. Learned state and accounts are kept.
    ///
    /// # Errors
    /// [`WatchError`], if that rule can't be applied.
    pub(crate) fn adopt(
        &mut self,
        rule: Rc<Rule>,
        ancestors: &mut Ancestors<S::Sampler>,
        cx: &mut Context<'_, S>,
    ) -> Result<(), WatchError> {
        let above = if rule.ancestors { ancestors.of(&self.located, &rule, cx)? } else { Vec::new() };
        self.limits.adopt(&rule, above, &mut cx.text)?;
        can_be_watched(&rule, &self.limits.own, &self.limits.above)?;
        match (rule.pressure, &mut self.probe) {
            (Some(target), Some(probe)) => probe.adopt(target, rule.reuse),
            (target, probe) => *probe = target.map(|target| Box::new(PressureProbe::new(target, rule.reuse))),
        }
        if self.rule != rule {
            // Earlier reasons to hold may no longer apply.
            self.hold = HoldState::new(cx.now);
            self.would_reported = None;
        }
        (self.rule, self.due) = (rule, cx.now);
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
        self.limits.own.sampler.id()
    }

    /// Returns whether to respect the lock of another process.
    #[must_use]
    pub(crate) fn locks(&self, now: Duration) -> bool {
        self.rule.lock && self.lock.asks(now)
    }

    /// Returns whether a guard holds back an action.
    #[must_use]
    pub(crate) fn is_held(&self) -> bool {
        self.hold.reason().is_some()
    }

    /// Records that a limit that counts was met.
    fn outrun(&mut self) {
        self.account.outrun();
    }

    /// Returns whether it is near a limit.
    #[must_use]
    pub(crate) fn is_near(&self) -> bool {
        self.limits.room(0).is_some_and(|room| room.free < room.low.saturating_mul(2))
    }

    /// Samples the cgroup, learns, and decides.
    pub(crate) fn sample(&mut self, cx: &mut Context<'_, S>) -> Step {
        match self.try_sample(cx) {
            Ok(step) => {
                self.recover(cx);
                step
            }
            Err(errno) => self.fail(errno, cx),
        }
    }

    fn try_sample(&mut self, cx: &mut Context<'_, S>) -> Result<Step, Errno> {
        // First, since this file is held open: an error on it is about the cgroup itself.
        let current = self.limits.own.sampler.current(&mut cx.text)?;
        self.range.record(current);
        if self.hit {
            self.read_outrun(cx)?;
        }
        self.hit = false;
        self.flush(false, cx);
        if let Some(probe) = &mut self.probe {
            probe.used(cx.now, current);
        }
        self.decide(current, cx)
    }

    /// Handles an error: the cgroup was removed, or it can't be read for now.
    fn fail(&mut self, errno: Errno, cx: &mut Context<'_, S>) -> Step {
        // A file that can't be opened may be due to the removal of the cgroup; reading one that
        // is held open shows whether it is.
        let is_gone =
            errno == Errno::NODEV || self.limits.own.sampler.current(&mut cx.text) == Err(Errno::NODEV);
        if is_gone {
            return Step::Gone;
        }
        self.limits.withdraw();
        self.due = cx.now + self.blind.next(FIRST_RETRY, MAX_RETRY);
        if self.blind_error.replace(errno) != Some(errno) {
            cx.emit(&self.located.name, EventKind::Blind { error: errno });
        }
        Step::Rest
    }

    /// Records that neither sample nor action fails any more.
    fn recover(&mut self, cx: &mut Context<'_, S>) {
        self.blind.reset();
        if self.blind_error.take().is_some() {
            cx.emit(&self.located.name, EventKind::Recovered);
        }
    }

    fn decide(&mut self, current: u64, cx: &mut Context<'_, S>) -> Result<Step, Errno> {
        let now = cx.now;
        // Here and not with the sample: slices of a long reclaim follow each other without one.
        if now.saturating_sub(self.settings_read_at) >= self.limits.own.settings_interval(now) {
            self.protection = self.limits.own.sampler.protection(&mut cx.text)?;
            self.settings_read_at = now;
        }
        self.hold.brake.limited_to(self.limits.lowest());
        self.go_on_with_trial(cx)?;
        let blocked = self.hold.blocked_until(now);
        self.limits.offer(self.offered(current, blocked.is_none(), now));
        let shortage = self.shortage(current, cx)?;
        let (mut until, mut missing) = (shortage.until, shortage.missing);
        let own = &self.limits.own;
        if std::mem::replace(&mut self.limit_reported, own.limit) != own.limit {
            let (limit, file) = (own.limit, own.file);
            cx.emit(&self.located.name, EventKind::Limit { limit, file });
        }
        self.presses = missing == 0;
        let mut pressed = Kind::All;
        if self.presses
            && let Some(probe) = &mut self.probe
        {
            // At each sample: what kswapd did during a rest shows only then.
            let kswapd = cx.kswapd();
            if let Some(at) = kswapd.worked_at {
                probe.disturbed(at);
            }
            let (changes, kind) = (cx.swap_changes(), self.rule.bounds.kind.unwrap_or_default());
            probe.swap_changed(changes, current, || cx.system.can_swap(&self.located, kind));
            if let Some(next) = probe.rests_until(now, current) {
                until = until.min(next);
            } else if let Some((guard, end)) = blocked {
                // A step that isn't done must not make the next one larger.
                probe.interrupted();
                return Ok(self.hold(guard, Some(end), cx));
            } else if let Some((guard, until)) = self.visibility.held(cx.verdict(&self.located), now) {
                probe.interrupted();
                return Ok(self.hold(guard, until, cx));
            } else if let Some((guard, until)) = self.visibility.held_by_kswapd(kswapd) {
                probe.interrupted();
                return Ok(self.hold(guard, until, cx));
            } else {
                if let Some(handle) = &self.handle {
                    self.preference = handle.preference();
                }
                let subject = (&*self.located, self.rule.bounds.kind.unwrap_or_default(), self.preference);
                let probed = probe.sample(&self.limits.own.sampler, subject, current, cx)?;
                (until, missing, pressed) = (until.min(probed.until), probed.missing, probed.kind);
                self.visibility.note_pressure(probed.is_blind);
                probed.report.into_iter().for_each(|what| cx.emit(&self.located.name, what));
            }
        }
        if missing == 0 {
            if shortage.no_room {
                return Ok(self.hold(Guard::NoRoom, Some(until), cx));
            }
            self.due = until;
            return Ok(Step::Rest);
        }
        if let Some((guard, until)) = blocked {
            return Ok(self.hold(guard, Some(until), cx));
        }
        // Reclaim for the headroom goes on: without it the tasks would scan themselves.
        let for_headroom = self.limits.for_headroom();
        if !self.presses
            && for_headroom < missing
            && let Some((guard, until)) = self.visibility.held(cx.verdict(&self.located), now)
        {
            if for_headroom == 0 {
                return Ok(self.hold(guard, until, cx));
            }
            missing = for_headroom;
        }
        if self.rule.bounds.max_pressure.is_some_and(|most| most.ratio() < 1.0) {
            self.read_stall(now, &mut cx.text);
        }
        let swap = cx.swap();
        let answer = self.allowed(current, missing, (pressed, swap), cx);
        if self.presses
            && let Some(probe) = &mut self.probe
        {
            probe.spares(self.rule.bounds.spared(swap, answer == Err(Guard::Floor)));
        }
        match answer {
            Ok(allowed) => {
                self.hold.allowed(allowed.spared_by);
                // No task waits for reclaim with `--pressure`; reclaim for the headroom is needed
                // anyway, but within bounds.
                let ends = self.presses || swap.writable.is_some();
                let most = if self.presses { allowed.most.min(missing) } else { allowed.most };
                Ok(Step::Act(Allowed { waits: allowed.waits && ends, most, ..allowed }))
            }
            Err(guard) => Ok(self.hold(guard, None, cx)),
        }
    }

    /// Samples its limits, within the bound of the brake.
    fn shortage(&mut self, current: u64, cx: &mut Context<'_, S>) -> Result<Shortage, Errno> {
        let kept = self.hold.brake.kept(cx.now, self.limits.wanted());
        self.limits.shortage(current, kept, cx)
    }

    /// Returns what it offers to the limits above.
    fn offered(&self, current: u64, gives: bool, now: Duration) -> Offer {
        let spare = current.saturating_sub(self.protection.max(self.rule.bounds.floor));
        let available = if gives { spare } else { 0 };
        let brake = &self.hold.brake;
        let (comes_back, returns) = (brake.comes_back(now), brake.returns(now));
        Offer { usage: current, available, comes_back, returns }
    }

    /// Offers its reclaimable bytes to limits above: all offers must be known before a share is
    /// requested.
    pub(crate) fn offer(&mut self, cx: &mut Context<'_, S>) {
        if let Ok(current) = self.limits.own.sampler.current(&mut cx.text) {
            let gives = self.hold.blocked_until(cx.now).is_none();
            self.limits.offer(self.offered(current, gives, cx.now));
        }
    }

    /// Records a guard that holds, and emits it once.
    pub(crate) fn hold(&mut self, guard: Guard, until: Option<Duration>, cx: &mut Context<'_, S>) -> Step {
        let now = cx.now;
        self.due = until.map_or(now + HOLD_INTERVAL, |until| until.min(now + HOLD_INTERVAL));
        let (is_another, is_news) = self.hold.hold(now, guard);
        if is_another {
            self.account.held(guard);
        }
        if is_news {
            let wait = until.map(|until| until.saturating_sub(now));
            cx.emit(&self.located.name, EventKind::Hold { guard, wait });
        }
        Step::Rest
    }
}

/// Checks that a rule makes sense for a cgroup with such limits.
fn can_be_watched<F: Sample>(
    rule: &Rule,
    own: &Level<F>,
    above: &[SharedLevel<F>],
) -> Result<(), WatchError> {
    let unlimited = own.limit == u64::MAX && above.iter().all(|level| level.borrow().limit == u64::MAX);
    if rule.pressure.is_none() && unlimited {
        return Err(if rule.ancestors { WatchError::NoLimitAbove } else { WatchError::NoLimit });
    }
    if own.limit == 0 {
        return Err(WatchError::ZeroLimit(own.file));
    }
    if rule.headroom.below(own.limit) >= own.limit {
        return Err(WatchError::NoRoom(own.limit));
    }
    Ok(())
}
