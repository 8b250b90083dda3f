//! Limits of a watched cgroup: its own, and those of its ancestors where they count.

use std::time::Duration;

use rustix::io::Errno;

use super::ancestors::SharedLevel;
use super::config::rule::Rule;
use super::context::Context;
use super::event::{EventKind, Room};
use super::level::Level;
use super::policy::brake::Wanted;
use super::policy::headroom::Decision;
use super::policy::shares::Offer;
use super::system::{Sample, System};

/// Sampling interval while bytes are missing below an ancestor's limit.
const SHORTAGE_INTERVAL: Duration = Duration::from_millis(250);

/// Result of a sample below all limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shortage {
    /// Time of the next sample, if nothing is missing.
    pub until: Duration,
    /// Bytes missing below the limit that needs most.
    pub missing: u64,
    /// True if some limit leaves no room for the headroom, and is therefore left alone.
    pub no_room: bool,
}

/// Limits of one cgroup.
#[derive(Debug)]
pub(crate) struct Limits<F> {
    /// Level of the cgroup itself.
    pub own: Level<F>,
    /// Levels of its ancestors, if they count.
    pub above: Vec<SharedLevel<F>>,
    /// What it offers to the levels above.
    offer: Offer,
    /// True while a request is in progress.
    asks: bool,
    /// Missing bytes that are due to the headroom, not to a limit set by the user.
    for_headroom: u64,
}

impl<F: Sample> Limits<F> {
    /// Creates the limits of a cgroup that offers nothing yet.
    #[must_use]
    pub(crate) fn new(own: Level<F>, above: Vec<SharedLevel<F>>) -> Self {
        Self { own, above, offer: Offer::default(), asks: false, for_headroom: 0 }
    }

    /// Returns the room below the limit that leaves least, if usage is `freed` bytes less than at
    /// the last sample; `None` without a limit.
    #[must_use]
    pub(crate) fn room(&self, freed: u64) -> Option<Room> {
        let above = self.above.iter().map(|level| level.borrow().room(freed));
        let rooms = above.chain([self.own.room(freed)]).flatten();
        // Beyond a limit nothing is free, and the limit that is exceeded most counts.
        rooms
            .min_by_key(|(room, over)| i128::from(room.free) - i128::from(room.low) - i128::from(*over))
            .map(|(room, _)| room)
    }

    /// Returns the bytes to keep free below the lowest limit, where nothing bounds them: a tenth of a
    /// limit that is far away, or of none, is no measure. What leaves least changes all the time.
    #[must_use]
    pub(crate) fn wanted(&self) -> Wanted {
        let lowest = self.above.iter().min_by_key(|level| level.borrow().limit);
        match lowest.map(|level| level.borrow()).filter(|level| level.limit < self.own.limit) {
            Some(level) => level.wanted(),
            None => self.own.wanted(),
        }
    }

    /// Returns the lowest limit; `u64::MAX` without one.
    #[must_use]
    pub(crate) fn lowest(&self) -> u64 {
        self.above.iter().map(|level| level.borrow().limit).fold(self.own.limit, u64::min)
    }

    /// Sets another rule, with other levels above.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn adopt(
        &mut self,
        rule: &Rule,
        above: Vec<SharedLevel<F>>,
        text: &mut String,
    ) -> Result<(), Errno> {
        self.offer(Offer::default());
        self.answered(0, false);
        self.above = above;
        self.own.adopt(rule, rule.keep, text)
    }

    /// Returns the event for the beginning of the watch.
    #[must_use]
    pub(crate) fn start(&self, rule: &Rule, cx: &mut Context<'_, impl System>) -> EventKind {
        let (headroom, rule) = (rule.headroom, rule.name.as_deref().map(str::to_owned));
        let current = self.own.sampler.current(&mut cx.text).unwrap_or(0);
        let mut start = EventKind::Start {
            current,
            limit: self.own.limit,
            file: self.own.file,
            above: None,
            headroom: headroom.below(self.own.limit),
            rule: rule.clone(),
        };
        let mut least = self.own.limit.saturating_sub(current);
        for level in &self.above {
            let mut level = level.borrow_mut();
            let used = level.usage(cx);
            let free = level.limit.saturating_sub(used);
            if free < least {
                least = free;
                start = EventKind::Start {
                    current: used,
                    limit: level.limit,
                    file: level.file,
                    above: Some(level.sampler.name().to_string()),
                    headroom: headroom.below(level.limit),
                    rule: rule.clone(),
                };
            }
        }
        start
    }

    /// Samples all limits. Returns the bytes to reclaim for the limit that needs most, or the time
    /// of the next sample if none needs any. At most `kept` bytes are kept free, of this cgroup's
    /// memory: that of others below the limits above may be of less use.
    ///
    /// # Errors
    /// The kernel's error on the cgroup itself. An ancestor that can't be read is left out.
    pub(crate) fn shortage(
        &mut self,
        current: u64,
        kept: Option<u64>,
        cx: &mut Context<'_, impl System>,
    ) -> Result<Shortage, Errno> {
        self.own.bound(kept);
        let mut found = Shortage { until: Duration::MAX, missing: 0, no_room: false };
        match self.own.decide(current, cx)? {
            Decision::Rest { until } => found.until = until,
            Decision::NoRoom { until } => (found.until, found.no_room) = (until, true),
            Decision::Reclaim { down_to } => found.missing = current.saturating_sub(down_to),
        }
        self.for_headroom =
            if found.missing > 0 { self.own.missing_for_headroom(current, found.missing) } else { 0 };
        let id = self.own.sampler.id();
        for level in &self.above {
            let mut level = level.borrow_mut();
            match level.decide_for_all(cx) {
                Err(_) => {}
                Ok(Decision::Rest { until }) => found.until = found.until.min(until),
                Ok(Decision::NoRoom { until }) => {
                    (found.until, found.no_room) = (found.until.min(until), true);
                }
                // Less than a page can't be requested, and the share of a cgroup with nothing to
                // give is 0.
                Ok(Decision::Reclaim { down_to }) => {
                    let used = level.current();
                    let (down_to, until) = match kept.map(|kept| level.decide_to_keep(kept, cx.now)) {
                        Some(Decision::Reclaim { down_to }) => (down_to, Duration::MAX),
                        Some(Decision::Rest { until } | Decision::NoRoom { until }) => (used, until),
                        None => (down_to, Duration::MAX),
                    };
                    let share = level.shares.of(cx.now, id, (used, down_to), &self.offer).min(current);
                    found.until = found.until.min(until).min(cx.now + SHORTAGE_INTERVAL);
                    found.missing = found.missing.max(share);
                    self.for_headroom = self.for_headroom.max(share);
                }
            }
        }
        Ok(found)
    }

    /// Returns the number of times that its limit and those above were met; `None` where one can't be
    /// read.
    #[must_use]
    pub(crate) fn met(&self) -> Option<u64> {
        self.above.iter().try_fold(self.own.met()?, |met, level| Some(met + level.borrow().met()?))
    }

    /// Returns the part of the last missing bytes that is due to the headroom: below the kernel's
    /// limits, and not below `--keep`.
    #[must_use]
    pub(crate) fn for_headroom(&self) -> u64 {
        self.for_headroom
    }

    /// Makes an offer to the levels above.
    pub(crate) fn offer(&mut self, offer: Offer) {
        let before = std::mem::replace(&mut self.offer, offer);
        self.above.iter().for_each(|level| level.borrow_mut().shares.offer(&before, &offer));
    }

    /// Offers nothing for now.
    pub(crate) fn withdraw(&mut self) {
        self.offer(Offer { available: 0, ..self.offer });
    }

    /// Records the start of a request for `bytes`.
    pub(crate) fn asks(&mut self, now: Duration, bytes: u64) {
        self.answered(0, false);
        self.asks = true;
        let id = self.own.sampler.id();
        self.above.iter().for_each(|level| level.borrow_mut().shares.asks(now, id, bytes));
    }

    /// Records the end of the request, which reclaimed `bytes` and `goes_on` if it isn't done.
    pub(crate) fn answered(&mut self, bytes: u64, goes_on: bool) {
        if std::mem::take(&mut self.asks) {
            let id = self.own.sampler.id();
            self.above.iter().for_each(|level| level.borrow_mut().shares.answered(id, bytes, goes_on));
        }
    }

    /// Records that reclaim ended before it came down to its target, and goes on.
    pub(crate) fn go_on(&mut self) {
        self.own.go_on();
        self.above.iter().for_each(|level| level.borrow_mut().go_on());
    }

    /// Records reclaimed bytes, and the CPU time of the writes for them.
    pub(crate) fn reclaimed(&mut self, bytes: u64, cpu: Duration) {
        let record = |level: &mut Level<F>| {
            level.reclaimed(bytes);
            level.interval().wrote(cpu);
        };
        record(&mut self.own);
        self.above.iter().for_each(|level| record(&mut level.borrow_mut()));
    }
}
