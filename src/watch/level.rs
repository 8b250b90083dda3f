//! A level of the hierarchy that limits what is under watch: a cgroup's own limit, or that of an ancestor, which all below
//! it share.

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

/// A limit is read again so often; and at rest, where a lower one is no less likely but less urgent.
pub(super) const SETTINGS: Duration = Duration::from_secs(2);
const SETTINGS_AT_REST: Duration = Duration::from_secs(10);

/// A limit that is met again and again is told of once in that time, or when more was needed than was told.
const TOLD: Duration = Duration::from_secs(1);

/// A limit was met.
#[derive(Clone, Debug, PartialEq)]
pub struct Outrun {
    /// What there is to tell.
    pub what: EventKind,
    /// Whether that is worth it: one that stays there meets it a hundred times a second.
    pub is_news: bool,
}

/// One level. Amounts are bytes.
#[derive(Debug)]
pub struct Level {
    /// What it is looked at through.
    pub gauge: Sampler,
    /// Its limit; `u64::MAX` if it has none.
    pub limit: u64,
    /// Which file sets it; `None` where the user does.
    pub file: Option<LimitFile>,
    /// The limit without the user's own; `u64::MAX` if there is none.
    kernel_limit: u64,
    law: HeadroomPolicy,
    keep: Option<u64>,
    settings_read: Duration,
    hits: LimitEvents,
    direct: Option<u64>,
    /// When it was told last that it was met, and how much was needed.
    outrun_told: Option<(Duration, u64)>,
    /// Who below it is to give how much of what is missing.
    pub shares: Shares,
}

impl Level {
    /// Opens a level; `keep` is a limit of the user's own.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(
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

    /// Follows another rule from now on; `keep` is a limit of the user's own.
    ///
    /// # Errors
    /// The kernel's.
    pub fn adopt(&mut self, rule: &Rule, keep: Option<u64>, text: &mut String) -> Result<(), Errno> {
        self.keep = keep;
        self.law.adopt(rule.headroom, reserves(rule, keep));
        self.read_limit(text)
    }

    /// Enters what is used now, and decides.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    pub fn decide(&mut self, now: Duration, current: u64, text: &mut String) -> Result<Decision, Errno> {
        if now.saturating_sub(self.settings_read) >= self.settings_each(now) {
            self.settings_read = now;
            self.read_limit(text)?;
        }
        Ok(self.law.decide(HeadroomSample { at: now, current, limit: self.limit }))
    }

    /// How much of `current` bytes is missing for the headroom below the kernel's own limit.
    #[must_use]
    pub fn missing_for_headroom(&self, current: u64) -> u64 {
        let wants = self.law.headroom().below(self.kernel_limit) > 0 && self.kernel_limit < u64::MAX;
        let down_to = wants.then(|| self.law.down_to(current, self.kernel_limit)).flatten();
        current.saturating_sub(down_to.unwrap_or(current))
    }

    /// How often settings are to be read again: its limit, and whatever else an administrator sets.
    #[must_use]
    pub fn settings_each(&self, now: Duration) -> Duration {
        if self.law.motion(now) == Motion::Calm { SETTINGS_AT_REST } else { SETTINGS }
    }

    /// Whether what is used moves.
    #[must_use]
    pub fn motion(&self, now: Duration) -> Motion {
        self.law.motion(now)
    }

    /// What was used when it was looked at last.
    #[must_use]
    pub fn current(&self) -> u64 {
        self.law.last().map_or(0, |look| look.current)
    }

    /// What there is below its limit once `freed` bytes less are used than then, and by how much that is passed; `None`
    /// without one.
    #[must_use]
    pub fn room(&self, freed: u64) -> Option<(Room, u64)> {
        let used = self.current().saturating_sub(freed);
        let room = Room { limit: self.limit, free: self.limit.saturating_sub(used), low: self.low() };
        (self.limit < u64::MAX).then(|| (room, used.saturating_sub(self.limit)))
    }

    /// One more wants so much to be free below it: the most counts.
    fn wants(&mut self, headroom: Headroom) {
        if headroom.below(self.limit) > self.law.headroom().below(self.limit) {
            self.law.adopt(headroom, true);
        }
    }

    /// What is to be free.
    #[must_use]
    pub fn low(&self) -> u64 {
        self.law.low(self.limit)
    }

    /// What arrives in a second, of late.
    #[must_use]
    pub fn growth(&self) -> f64 {
        self.law.growth()
    }

    /// Looks so often near the watermark from now on.
    pub fn look_each(&mut self, near: Duration) {
        self.law.look_each(near);
    }

    /// Enters what was reclaimed from it or from below it.
    pub fn reclaimed(&mut self, bytes: u64) {
        self.law.reclaimed(bytes);
    }

    /// After the kernel said that a limit was met: learns by how much, and tells what headroom would have been needed.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    pub fn outrun(&mut self, now: Duration, text: &mut String) -> Result<Option<Outrun>, Errno> {
        let before = std::mem::replace(&mut self.hits, self.gauge.hits(text));
        if self.hits == before {
            return Ok(None);
        }
        // It may be another limit than at the last look.
        self.settings_read = now;
        self.read_limit(text)?;
        let last = self.law.last();
        let free = last.map_or(0, |last| self.limit.saturating_sub(last.current));
        let current = self.gauge.current(text)?;
        let stat = self.gauge.stat(text)?;
        // Before 6.15 the counter has what we reclaim as well, which was entered already.
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
        // Without a limit there is nothing to do until there is one.
        let own = self.gauge.limit(text)?.map_or((u64::MAX, None), |(limit, file)| (limit, Some(file)));
        self.kernel_limit = own.0;
        (self.limit, self.file) = self.keep.filter(|&keep| keep < own.0).map_or(own, |keep| (keep, None));
        Ok(())
    }
}

/// Who only presses keeps nothing free; whoever keeps below a limit wants what may arrive to fit as well.
fn reserves(rule: &Rule, keep: Option<u64>) -> bool {
    keep.is_some() || Rule { keep: None, ..rule.clone() }.keeps_free()
}

/// The ancestors of what is watched: each is there once, however many are watched below it.
#[derive(Debug, Default)]
pub struct Ancestors(HashMap<u64, Rc<RefCell<Level>>>);

impl Ancestors {
    /// Those of one cgroup, the nearest first, without the root of the hierarchy, which has no limit. One that can't be
    /// read is left out.
    pub fn of(
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
                // Whoever wants most to be free there, gets it.
                Entry::Occupied(level) => level.get().borrow_mut().wants(rule.headroom),
            }
            levels.extend(self.0.get(&id).map(Rc::clone));
        }
        levels
    }

    /// The level of that id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&RefCell<Level>> {
        self.0.get(&id).map(Rc::as_ref)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &RefCell<Level>> {
        self.0.values().map(Rc::as_ref)
    }

    /// Forgets all of them: they are to be found anew.
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// Forgets those below which nothing is watched any more.
    pub fn forget_the_unused(&mut self) {
        self.0.retain(|_, level| Rc::strong_count(level) > 1);
    }
}
