//! One cgroup under watch: what is known of it, and what to do about it.

use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::act::{Acted, End};
use super::brake::{Backoff, Brake, Seen};
use super::event::{Summary, Tally, View, What};
use super::guard::{Allowed, Guard, Own, Swap};
use super::headroom::{Decision, Law, Look, NEAREST};
use super::pool::Hands;
use super::rule::{Rule, Unwatchable, limit};
use crate::cgroup::gauge::Hits;
use crate::cgroup::limit::LimitFile;
use crate::cgroup::stat::MemoryStat;
use crate::cgroup::{Gauge, Located};

/// Limits and protection are read again so often.
const SETTINGS: Duration = Duration::from_secs(2);

/// What was done in that time is told as one.
const TOLD: Duration = Duration::from_secs(1);

/// A dry run says again so often what would be done.
const WOULD: Duration = Duration::from_secs(10);

/// The wait after an action that isn't to be seen doubles so often: to 0.8 s.
const STUCK: u32 = 4;

/// While something holds, look so often.
const HELD: Duration = Duration::from_millis(250);

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
    pub located: Arc<Located>,
    /// What it is looked at through.
    pub gauge: Gauge,
    /// What it is reclaimed from through, unless a worker has that or it was never needed.
    pub hands: Option<Box<Hands>>,
    /// Whether a worker is at it.
    pub busy: bool,
    /// When to look at it next.
    pub due: Duration,
    /// It said that it met its limit.
    pub hit: bool,
    rule: Rule,
    law: Law,
    brake: Brake,
    exhausted: Backoff,
    /// What holds now, as far as it was told.
    held: Option<Guard>,
    would_told: Option<Duration>,
    /// How many actions in a row left the usage too high.
    stuck: u32,
    began: Duration,
    grace: Duration,
    limit: u64,
    file: Option<LimitFile>,
    protection: u64,
    settings_read: Duration,
    hits: Hits,
    first: MemoryStat,
    last_direct: Option<u64>,
    stall: Option<(Duration, u64)>,
    stalled_share: f64,
    first_stalled: Option<u64>,
    stalled_before: Option<f64>,
    tally: Tally,
    tally_began: Option<Duration>,
    summary: Summary,
}

impl Member {
    /// Begins to watch a cgroup. Until the end of a `grace` nothing is reclaimed from it.
    ///
    /// # Errors
    /// [`Unwatchable`], the reason.
    pub fn new(
        located: Arc<Located>,
        rule: Rule,
        now: Duration,
        grace: Duration,
        text: &mut String,
    ) -> Result<Self, Unwatchable> {
        let gauge = match Gauge::open(&located) {
            Err(Errno::NOENT) if located.name == "/" => return Err(Unwatchable::Root),
            gauge => gauge?,
        };
        let (limit, file) = limit(&gauge, rule.keep, text)?.ok_or(Unwatchable::NoLimit)?;
        if rule.headroom.below(limit) >= limit {
            return Err(Unwatchable::NoRoom(limit));
        }
        let first = gauge.stat(text)?;
        let first_stalled = gauge.stalled(text);
        Ok(Self {
            protection: gauge.protection(text).unwrap_or(0),
            hits: gauge.hits(text),
            stalled_before: gauge.pressure_before(text),
            summary: Summary { cgroup: located.name.clone(), ..Summary::default() },
            last_direct: first.pgsteal_direct,
            located,
            gauge,
            hands: None,
            busy: false,
            due: now,
            hit: false,
            rule,
            law: Law::new(rule.headroom, rule.keep.is_none() || rule.headroom.below(limit) > 0),
            brake: Brake::default(),
            exhausted: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
            held: None,
            would_told: None,
            stuck: 0,
            began: now,
            grace,
            limit,
            file,
            settings_read: now,
            first,
            stall: None,
            stalled_share: 0.0,
            first_stalled,
            tally: Tally::default(),
            tally_began: None,
        })
    }

    /// How it stands, for whoever looks on.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        let last = self.law.last();
        View {
            cgroup: &self.located.name,
            current: last.map_or(0, |look| look.current),
            limit: self.limit,
            low: self.law.low(self.limit),
            reclaimed: self.summary.total.reclaimed,
            held: self.held,
        }
    }

    /// Looks so often near the watermark from now on.
    pub fn look_each(&mut self, near: Duration) {
        self.law.look_each(near);
    }

    /// What there is to tell at the beginning.
    #[must_use]
    pub fn start(&self, text: &mut String) -> What {
        What::Start {
            current: self.gauge.current(text).unwrap_or(0),
            limit: self.limit,
            file: self.file,
            headroom: self.rule.headroom.below(self.limit),
        }
    }

    /// Looks at it, learns, and decides.
    pub fn look(
        &mut self,
        now: Duration,
        swap: &mut dyn FnMut() -> Swap,
        text: &mut String,
        tell: &mut dyn FnMut(What),
    ) -> Step {
        match self.try_look(now, swap, text, tell) {
            Ok(step) => step,
            // Whatever can't be read any more is as good as gone: there is nothing that could be done about it.
            Err(_) => Step::Gone,
        }
    }

    fn try_look(
        &mut self,
        now: Duration,
        swap: &mut dyn FnMut() -> Swap,
        text: &mut String,
        tell: &mut dyn FnMut(What),
    ) -> Result<Step, Errno> {
        if now.saturating_sub(self.settings_read) >= SETTINGS {
            self.read_settings(now, text)?;
        }
        let current = self.gauge.current(text)?;
        let free_before = self.law.last().map_or(0, |last| last.free());
        if std::mem::take(&mut self.hit) {
            self.was_outrun(current, free_before, text, tell)?;
        }
        self.flush(now, false, tell);
        Ok(self.decide(now, current, swap, text, tell))
    }

    fn decide(
        &mut self,
        now: Duration,
        current: u64,
        swap: &mut dyn FnMut() -> Swap,
        text: &mut String,
        tell: &mut dyn FnMut(What),
    ) -> Step {
        let down_to = match self.law.decide(Look { at: now, current, limit: self.limit }) {
            Decision::Rest { until } => {
                self.due = until;
                return Step::Rest;
            }
            Decision::Reclaim { down_to } => down_to,
        };
        if let Some((guard, until)) = self.held_back(now) {
            return self.hold(now, guard, Some(until), tell);
        }
        if self.rule.bounds.max_pressure.is_some() {
            self.read_stall(now, text);
        }
        let can_choose = self.hands.as_ref().is_none_or(|hands| hands.can_choose);
        let cache = if can_choose { None } else { self.gauge.stat(text).ok() };
        let own = Own {
            current,
            protection: self.protection,
            stalled: self.stalled_share,
            cache: cache.map_or(0, |stat| stat.evictable_file()),
        };
        match self.rule.bounds.allow(down_to, own, swap(), can_choose) {
            Ok(allowed) => Step::Act(allowed),
            Err(guard) => self.hold(now, guard, None, tell),
        }
    }

    /// Whatever still holds, and until when.
    fn held_back(&self, now: Duration) -> Option<(Guard, Duration)> {
        let grace = self.began + self.grace;
        if now < grace {
            return Some((Guard::Grace, grace));
        }
        let exhausted = self.exhausted.waits(now).map(|until| (Guard::Exhausted, until));
        exhausted.or_else(|| self.brake.holds(now).map(|until| (self.braking(), until)))
    }

    fn braking(&self) -> Guard {
        match self.held {
            Some(guard @ Guard::Refaults(_)) => guard,
            _ => Guard::Refaults(0.0),
        }
    }

    /// Holds, and says so once.
    pub fn hold(
        &mut self,
        now: Duration,
        guard: Guard,
        until: Option<Duration>,
        tell: &mut dyn FnMut(What),
    ) -> Step {
        self.due = until.map_or(now + HELD, |until| until.min(now + HELD));
        if self.held.map(Guard::word) != Some(guard.word()) {
            self.held = Some(guard);
            self.summary.held += 1;
            tell(What::Hold { guard, wait: until.map(|until| until.saturating_sub(now)) });
        }
        Step::Rest
    }

    /// What would be done, in a dry run. Told once in a while.
    pub fn would(&mut self, now: Duration, down_to: u64, tell: &mut dyn FnMut(What)) {
        self.due = now + HELD;
        if self.would_told.is_none_or(|told| now.saturating_sub(told) >= WOULD) {
            self.would_told = Some(now);
            let current = self.law.last().map_or(0, |look| look.current);
            tell(What::Would { requested: current.saturating_sub(down_to), current, down_to });
        }
    }

    /// Takes what came of an action, and decides anew.
    pub fn acted(
        &mut self,
        now: Duration,
        acted: &Acted,
        swap: &mut dyn FnMut() -> Swap,
        text: &mut String,
        tell: &mut dyn FnMut(What),
    ) -> Step {
        self.busy = false;
        if matches!(acted.end, End::Removed | End::Failed(_)) {
            return Step::Gone;
        }
        if acted.writes > 0 {
            self.enter(now, acted);
        }
        if acted.end == End::Exhausted && acted.reclaimed < acted.requested / 8 {
            let wait = self.exhausted.failed(now);
            let step = self.hold(now, Guard::Exhausted, Some(now + wait), tell);
            // What is there to look at, meanwhile: it may begin to move.
            self.law.decide(Look { at: now, current: acted.current, limit: self.limit });
            return step;
        }
        if acted.reclaimed > 0 {
            self.exhausted.worked();
            self.held = self.held.filter(|guard| matches!(guard, Guard::Refaults(_)));
        }
        if self.brake.wants_to_judge(now)
            && let Ok(stat) = self.gauge.stat(text)
        {
            let stalled = Duration::from_micros(self.gauge.stalled(text).unwrap_or(0));
            let refaulted = stat.refaulted().unwrap_or(0);
            match self.brake.judge(now, Seen { restored: stat.back_in_use(), refaulted, stalled }) {
                Some(share) => {
                    self.held = None;
                    let until = self.brake.holds(now);
                    self.law.decide(Look { at: now, current: acted.current, limit: self.limit });
                    return self.hold(now, Guard::Refaults(share), until, tell);
                }
                None => self.held = None,
            }
        }
        self.flush(now, false, tell);
        // The worker's last look stands for one of our own.
        match self.decide(now, acted.current, swap, text, tell) {
            // What was reclaimed isn't to be seen yet, or as much came meanwhile: on its way to swap, perhaps.
            Step::Act(_) => {
                self.stuck = (self.stuck + 1).min(STUCK);
                self.due = now + NEAREST * (1 << self.stuck);
                Step::Rest
            }
            step => {
                self.stuck = 0;
                step
            }
        }
    }

    fn enter(&mut self, now: Duration, acted: &Acted) {
        self.law.reclaimed(acted.reclaimed);
        self.brake.reclaimed(acted.reclaimed);
        if self.tally_began.is_none() {
            self.tally_began = Some(now);
            self.tally = Tally { current_before: acted.current + acted.reclaimed, ..Tally::default() };
        }
        self.tally.add(acted);
        self.tally.limit = self.limit;
        self.tally.low = self.law.low(self.limit);
        self.summary.total.add(acted);
    }

    /// Tells what was done since it was told last, if that is long enough ago, or at the `end`.
    pub fn flush(&mut self, now: Duration, end: bool, tell: &mut dyn FnMut(What)) {
        if self.tally_began.is_some_and(|began| end || now.saturating_sub(began) >= TOLD) {
            self.tally_began = None;
            tell(What::Reclaim(self.tally));
        }
    }

    /// When there is something to be told.
    #[must_use]
    pub fn to_tell(&self) -> Option<Duration> {
        self.tally_began.map(|began| began + TOLD)
    }

    /// It met its limit: learns by how much.
    fn was_outrun(
        &mut self,
        current: u64,
        free: u64,
        text: &mut String,
        tell: &mut dyn FnMut(What),
    ) -> Result<(), Errno> {
        let before = std::mem::replace(&mut self.hits, self.gauge.hits(text));
        if self.hits == before {
            return Ok(());
        }
        let stat = self.gauge.stat(text)?;
        // Before 6.15 the counter has what we reclaim as well, which was entered already.
        let direct = match (stat.pgsteal_proactive, stat.pgsteal_direct, self.last_direct) {
            (Some(_), Some(now), Some(before)) => now.saturating_sub(before) * page(),
            _ => 0,
        };
        self.last_direct = stat.pgsteal_direct;
        self.law.reclaimed(direct);
        self.summary.outrun += 1;
        let last = self.law.last().map_or(current, |last| last.current);
        let arrived = current.saturating_add(direct).saturating_sub(last);
        let needed = arrived.max(free).max(self.law.low(self.limit));
        tell(What::Outrun { needed, free });
        Ok(())
    }

    fn read_settings(&mut self, now: Duration, text: &mut String) -> Result<(), Errno> {
        self.settings_read = now;
        // Without a limit there is nothing to do until there is one.
        let (limit, file) = limit(&self.gauge, self.rule.keep, text)?.unwrap_or((u64::MAX, None));
        (self.limit, self.file) = (limit, file);
        self.protection = self.gauge.protection(text).unwrap_or(0);
        Ok(())
    }

    fn read_stall(&mut self, now: Duration, text: &mut String) {
        let due = self.stall.is_none_or(|(at, _)| now.saturating_sub(at) >= SETTINGS);
        let Some(stalled) = due.then(|| self.gauge.stalled(text)).flatten() else { return };
        if let Some((at, before)) = self.stall.replace((now, stalled)) {
            let time = now.saturating_sub(at).as_micros().max(1) as f64;
            self.stalled_share = stalled.saturating_sub(before) as f64 / time;
        }
    }

    /// What came of the watch. `gone` if the cgroup is.
    pub fn summary(&mut self, now: Duration, gone: bool, text: &mut String) -> Summary {
        let last_stat = self.gauge.stat(text).ok();
        let direct = last_stat.as_ref().and_then(|last| {
            let both = last.pgsteal_direct?.saturating_sub(self.first.pgsteal_direct?) * page();
            // Before 6.15 it has what we reclaimed as well.
            let ours = if last.pgsteal_proactive.is_some() { 0 } else { self.summary.total.reclaimed };
            Some(both.saturating_sub(ours))
        });
        let stalled = self.gauge.stalled(text).zip(self.first_stalled);
        let counted = |stat: &MemoryStat| Some(stat.pgsteal_proactive? * page());
        let counted = last_stat.as_ref().and_then(counted).zip(counted(&self.first));
        Summary {
            counted: counted.map(|(last, first)| last.saturating_sub(first)),
            watched: now.saturating_sub(self.began),
            direct,
            stalled: stalled.map(|(now, before)| Duration::from_micros(now.saturating_sub(before))),
            stalled_before: self.stalled_before,
            gone,
            ..self.summary.clone()
        }
    }
}

impl Tally {
    fn add(&mut self, acted: &Acted) {
        self.requested += acted.requested;
        self.reclaimed += acted.reclaimed;
        self.writes += acted.writes;
        self.writing += acted.writing;
        self.cpu += acted.cpu;
        self.current_after = acted.current;
    }
}

fn page() -> u64 {
    rustix::param::page_size() as u64
}
