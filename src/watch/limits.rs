//! Limits of a watched cgroup: its own, and those of its ancestors where they count.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use super::config::rule::Rule;
use super::event::{EventKind, Room};
use super::level::Level;
use super::policy::headroom::Decision;

/// Sampling interval while bytes are missing below an ancestor's limit.
const SOON: Duration = Duration::from_millis(250);

/// Limits of one cgroup.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Level of the cgroup itself.
    pub own: Level,
    /// Levels of its ancestors, if they count.
    pub above: Vec<Rc<RefCell<Level>>>,
    /// Reclaimable bytes that it offers to the levels above.
    to_give: u64,
    /// Reclaimable bytes at the beginning of the request in progress.
    asked: Option<u64>,
    /// Missing bytes that are due to the headroom, not to a limit set by the user.
    for_headroom: u64,
}

impl Limits {
    /// Creates the limits of a cgroup that offers nothing yet.
    #[must_use]
    pub(crate) fn new(own: Level, above: Vec<Rc<RefCell<Level>>>) -> Self {
        Self { own, above, to_give: 0, asked: None, for_headroom: 0 }
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

    /// Sets another rule, with other levels above.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn adopt(
        &mut self,
        rule: &Rule,
        above: Vec<Rc<RefCell<Level>>>,
        text: &mut String,
    ) -> Result<(), Errno> {
        self.gives(0);
        self.answered();
        self.above = above;
        self.own.adopt(rule, rule.keep, text)
    }

    /// Returns the event for the beginning of the watch.
    #[must_use]
    pub(crate) fn start(&self, rule: &Rule, text: &mut String) -> EventKind {
        let (headroom, rule) = (rule.headroom, rule.name.as_deref().map(str::to_owned));
        let current = self.own.gauge.current(text).unwrap_or(0);
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
            let level = level.borrow();
            let used = level.gauge.current(text).unwrap_or(0);
            let free = level.limit.saturating_sub(used);
            if free < least {
                least = free;
                start = EventKind::Start {
                    current: used,
                    limit: level.limit,
                    file: level.file,
                    above: Some(level.gauge.cgroup().name().to_string()),
                    headroom: headroom.below(level.limit),
                    rule: rule.clone(),
                };
            }
        }
        start
    }

    /// Returns the bytes to reclaim for the limit that needs most, or the time of the next sample
    /// if none needs any.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    pub(crate) fn missing(
        &mut self,
        now: Duration,
        current: u64,
        text: &mut String,
    ) -> Result<(Duration, u64), Errno> {
        let (mut until, mut missing) = (Duration::MAX, 0);
        match self.own.decide(now, current, text)? {
            Decision::Rest { until: next } => until = next,
            Decision::Reclaim { down_to } => missing = current.saturating_sub(down_to),
        }
        self.for_headroom = if missing > 0 { self.own.missing_for_headroom(current) } else { 0 };
        for level in &self.above {
            let mut level = level.borrow_mut();
            let used = level.gauge.current(text)?;
            match level.decide(now, used, text)? {
                Decision::Rest { until: next } => until = until.min(next),
                // Less than a page can't be requested, and the share of a cgroup with nothing to
                // give is 0.
                Decision::Reclaim { down_to } => {
                    let share = level.shares.of(now, used, down_to, self.to_give);
                    until = until.min(now + SOON);
                    missing = missing.max(share.min(current));
                    self.for_headroom = self.for_headroom.max(share.min(current));
                }
            }
        }
        Ok((until, missing))
    }

    /// Returns the part of the last missing bytes that is due to the headroom: below the kernel's
    /// limits, and not below `--keep`.
    #[must_use]
    pub(crate) fn for_headroom(&self) -> u64 {
        self.for_headroom
    }

    /// Offers reclaimable bytes to the levels above.
    pub(crate) fn gives(&mut self, bytes: u64) {
        let before = std::mem::replace(&mut self.to_give, bytes);
        self.above.iter().for_each(|level| level.borrow_mut().shares.gives(before, bytes));
    }

    /// Records the start of a request for `bytes`.
    pub(crate) fn asks(&mut self, now: Duration, bytes: u64) {
        self.answered();
        self.asked = Some(self.to_give);
        for level in &self.above {
            let mut level = level.borrow_mut();
            let used = level.current();
            level.shares.asks(now, used, bytes, self.to_give);
        }
    }

    /// Records the end of the request.
    pub(crate) fn answered(&mut self) {
        if let Some(to_give) = self.asked.take() {
            self.above.iter().for_each(|level| level.borrow_mut().shares.answered(to_give));
        }
    }

    /// Records reclaimed bytes.
    pub(crate) fn reclaimed(&mut self, bytes: u64) {
        self.own.reclaimed(bytes);
        self.above.iter().for_each(|level| level.borrow_mut().reclaimed(bytes));
    }
}
