//! A level of the hierarchy that limits watched cgroups: a cgroup's own limit, or that of an
//! ancestor, shared by all cgroups below it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use super::config::rule::Rule;
use super::event::{EventKind, Room};
use super::policy::headroom::{Decision, Headroom, HeadroomPolicy, HeadroomSample, Motion};
use super::policy::shares::Shares;
use crate::cgroup::limit::LimitFile;
use crate::cgroup::sampler::LimitEvents;
use crate::cgroup::{CgroupPath, Sampler};
use crate::host::proc::page_size;

/// Interval between reads of a limit; the longer one applies at rest, where a lower limit is no
/// less likely but less urgent.
pub(super) const SETTINGS: Duration = Duration::from_secs(2);
const SETTINGS_AT_REST: Duration = Duration::from_secs(10);

/// Minimum interval between reports of a limit that is met repeatedly, unless over a quarter more
/// was needed than reported.
const TOLD: Duration = Duration::from_secs(1);

/// A limit that was met.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outrun {
    /// Event to emit.
    pub what: EventKind,
    /// True if a report is due: a cgroup that stays at its limit meets it a hundred times a second.
    pub is_news: bool,
}

/// One level. Amounts are bytes.
#[derive(Debug)]
pub(crate) struct Level {
    /// Sampler of its files.
    pub gauge: Sampler,
    /// Limit; `u64::MAX` without one.
    pub limit: u64,
    /// File that sets the limit; `None` where the user does.
    pub file: Option<LimitFile>,
    /// Limit without the user's own; `u64::MAX` without one.
    kernel_limit: u64,
    law: HeadroomPolicy,
    keep: Option<u64>,
    settings_read: Duration,
    hits: LimitEvents,
    direct: Option<u64>,
    /// Time of the last report of a met limit, and the bytes needed then.
    outrun_told: Option<(Duration, u64)>,
    /// Shares of the cgroups below it in missing bytes.
    pub shares: Shares,
}

impl Level {
    /// Opens a level; `keep` is a limit set by the user.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn open(
        gauge: Sampler,
        rule: &Rule,
        keep: Option<u64>,
        now: Duration,
        text: &mut String,
    ) -> Result<Self, Errno> {
        let mut level = Self {
            limit: u64::MAX,
            kernel_limit: u64::MAX,
            file: None,
            law: HeadroomPolicy::new(rule.headroom, reserves(rule, keep)),
            keep,
            settings_read: now,
            hits: gauge.hits(text),
            direct: gauge.stat(text)?.pgsteal_direct,
            outrun_told: None,
            gauge,
            shares: Shares::default(),
        };
        level.read_limit(text)?;
        Ok(level)
    }

    /// Sets another rule; `keep` is a limit set by the user.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn adopt(&mut self, rule: &Rule, keep: Option<u64>, text: &mut String) -> Result<(), Errno> {
        self.keep = keep;
        self.law.adopt(rule.headroom, reserves(rule, keep));
        self.read_limit(text)
    }

    /// Records the current usage, and decides.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    pub(crate) fn decide(
        &mut self,
        now: Duration,
        current: u64,
        text: &mut String,
    ) -> Result<Decision, Errno> {
        if now.saturating_sub(self.settings_read) >= self.settings_each(now) {
            self.settings_read = now;
            self.read_limit(text)?;
        }
        Ok(self.law.decide(HeadroomSample { at: now, current, limit: self.limit }))
    }

    /// Returns the bytes of `current` that exceed the headroom below the kernel's own limit.
    #[must_use]
    pub(crate) fn missing_for_headroom(&self, current: u64) -> u64 {
        let wants = self.law.headroom().below(self.kernel_limit) > 0 && self.kernel_limit < u64::MAX;
        let down_to = wants.then(|| self.law.down_to(current, self.kernel_limit)).flatten();
        current.saturating_sub(down_to.unwrap_or(current))
    }

    /// Returns the interval between reads of settings: the limit, and others that an administrator
    /// sets.
    #[must_use]
    pub(crate) fn settings_each(&self, now: Duration) -> Duration {
        if self.law.motion(now) == Motion::Calm { SETTINGS_AT_REST } else { SETTINGS }
    }

    /// Returns whether the usage moves.
    #[must_use]
    pub(crate) fn motion(&self, now: Duration) -> Motion {
        self.law.motion(now)
    }

    /// Returns the usage at the last sample.
    #[must_use]
    pub(crate) fn current(&self) -> u64 {
        self.law.last().map_or(0, |look| look.current)
    }

    /// Returns the room below the limit if usage is `freed` bytes less than at the last sample, and
    /// the bytes by which the limit is exceeded; `None` without a limit.
    #[must_use]
    pub(crate) fn room(&self, freed: u64) -> Option<(Room, u64)> {
        let used = self.current().saturating_sub(freed);
        let room = Room { limit: self.limit, free: self.limit.saturating_sub(used), low: self.low() };
        (self.limit < u64::MAX).then(|| (room, used.saturating_sub(self.limit)))
    }

    /// Raises the headroom for another member below it: the largest counts.
    fn wants(&mut self, headroom: Headroom) {
        if headroom.below(self.limit) > self.law.headroom().below(self.limit) {
            self.law.adopt(headroom, true);
        }
    }

    /// Returns the bytes to keep free.
    #[must_use]
    pub(crate) fn low(&self) -> u64 {
        self.law.low(self.limit)
    }

    /// Returns the recent arrivals in bytes per second.
    #[must_use]
    pub(crate) fn growth(&self) -> f64 {
        self.law.growth()
    }

    /// Sets the sampling interval near the watermark.
    pub(crate) fn look_each(&mut self, near: Duration) {
        self.law.look_each(near);
    }

    /// Records bytes reclaimed from it or from below it.
    pub(crate) fn reclaimed(&mut self, bytes: u64) {
        self.law.reclaimed(bytes);
    }

    /// Handles a limit event: learns by how much the limit was exceeded, and returns the headroom
    /// that would have been needed.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    pub(crate) fn outrun(&mut self, now: Duration, text: &mut String) -> Result<Option<Outrun>, Errno> {
        let before = std::mem::replace(&mut self.hits, self.gauge.hits(text));
        if self.hits == before {
            return Ok(None);
        }
        // The limit may have changed since the last sample.
        self.settings_read = now;
        self.read_limit(text)?;
        let last = self.law.last();
        let free = last.map_or(0, |last| self.limit.saturating_sub(last.current));
        let current = self.gauge.current(text)?;
        let stat = self.gauge.stat(text)?;
        // Before 6.15 the counter includes proactive reclaim, which was recorded already.
        let direct = match (stat.pgsteal_proactive, stat.pgsteal_direct, self.direct) {
            (Some(_), Some(now), Some(before)) => now.saturating_sub(before) * page_size(),
            _ => 0,
        };
        self.direct = stat.pgsteal_direct;
        self.law.reclaimed(direct);
        let arrived =
            current.saturating_add(direct).saturating_sub(last.map_or(current, |last| last.current));
        let needed = arrived.max(free).max(self.low());
        let is_old = |(at, told): (Duration, u64)| now.saturating_sub(at) >= TOLD || needed > told + told / 4;
        let is_news = self.outrun_told.is_none_or(is_old);
        if is_news {
            self.outrun_told = Some((now, needed));
        }
        Ok(Some(Outrun { what: EventKind::Outrun { needed, free }, is_news }))
    }

    fn read_limit(&mut self, text: &mut String) -> Result<(), Errno> {
        // Without a limit there is nothing to do until one is set.
        let own = self.gauge.limit(text)?.map_or((u64::MAX, None), |(limit, file)| (limit, Some(file)));
        self.kernel_limit = own.0;
        (self.limit, self.file) = self.keep.filter(|&keep| keep < own.0).map_or(own, |keep| (keep, None));
        Ok(())
    }
}

/// Returns whether to keep a reserve for expected allocations: with `keep` or `headroom`, not with
/// `pressure` alone.
fn reserves(rule: &Rule, keep: Option<u64>) -> bool {
    keep.is_some() || Rule { keep: None, ..rule.clone() }.keeps_free()
}

/// Ancestors of the watched cgroups, each once for all cgroups below it.
#[derive(Debug, Default)]
pub struct Ancestors(HashMap<u64, Rc<RefCell<Level>>>);

impl Ancestors {
    /// Returns the ancestors of one cgroup, the nearest first, without the root of the hierarchy,
    /// which has no limit. Unreadable ancestors are left out.
    pub(crate) fn of(
        &mut self,
        located: &CgroupPath,
        rule: &Rule,
        now: Duration,
        text: &mut String,
    ) -> Vec<Rc<RefCell<Level>>> {
        let mut levels = Vec::new();
        for above in located.above() {
            let Ok(gauge) = Sampler::open(&above) else { continue };
            let id = gauge.id();
            match self.0.entry(id) {
                Entry::Vacant(place) => {
                    let Ok(level) = Level::open(gauge, rule, None, now, text) else { continue };
                    place.insert(Rc::new(RefCell::new(level)));
                }
                // The largest headroom of all members below counts.
                Entry::Occupied(level) => level.get().borrow_mut().wants(rule.headroom),
            }
            levels.extend(self.0.get(&id).map(Rc::clone));
        }
        levels
    }

    /// Returns the level with this id.
    #[must_use]
    pub(crate) fn get(&self, id: u64) -> Option<&RefCell<Level>> {
        self.0.get(&id).map(Rc::as_ref)
    }

    /// Iterates over all levels.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &RefCell<Level>> {
        self.0.values().map(Rc::as_ref)
    }

    /// Forgets all levels: they have to be found anew.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }

    /// Forgets levels without watched cgroups below.
    pub(crate) fn forget_the_unused(&mut self) {
        self.0.retain(|_, level| Rc::strong_count(level) > 1);
    }
}
