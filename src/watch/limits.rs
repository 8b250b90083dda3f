//! The limits that a cgroup under watch is to stay below: its own, and those of its ancestors where they count.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use super::config::rule::Rule;
use super::event::{EventKind, Room};
use super::level::Level;
use super::policy::headroom::Decision;

/// While something is missing above, look so often.
const SOON: Duration = Duration::from_millis(250);

/// One cgroup's limits.
#[derive(Debug)]
pub struct Limits {
    /// Its own.
    pub own: Level,
    /// Those of its ancestors, if they count.
    pub above: Vec<Rc<RefCell<Level>>>,
    /// What it has to give of what is missing above.
    to_give: u64,
    /// While it is at work: what it had to give when it was asked.
    asked: Option<u64>,
    /// Bytes of what is missing that the headroom asks for, and not a limit of the user's own.
    for_headroom: u64,
}

impl Limits {
    /// Of a cgroup that has nothing to give yet.
    #[must_use]
    pub fn new(own: Level, above: Vec<Rc<RefCell<Level>>>) -> Self {
        Self { own, above, to_give: 0, asked: None, for_headroom: 0 }
    }

    /// What there is below the limit that leaves least, once `freed` bytes less are used than at the last look; `None`
    /// without a limit.
    #[must_use]
    pub fn room(&self, freed: u64) -> Option<Room> {
        let above = self.above.iter().map(|level| level.borrow().room(freed));
        let rooms = above.chain([self.own.room(freed)]).flatten();
        // Beyond a limit nothing is free, and the one that is passed by most counts.
        rooms
            .min_by_key(|(room, over)| i128::from(room.free) - i128::from(room.low) - i128::from(*over))
            .map(|(room, _)| room)
    }

    /// Follows another rule from now on, with those levels above.
    ///
    /// # Errors
    /// The kernel's.
    pub fn adopt(
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

    /// What there is to tell at the beginning.
    #[must_use]
    pub fn start(&self, rule: &Rule, text: &mut String) -> EventKind {
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

    /// How much of it is to be reclaimed, for whatever limit asks for most; and when to look again if for none.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    pub fn missing(
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
                // Less than a page can't be asked for, and the share of what has nothing to give is nothing.
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

    /// How much of what was missing last the headroom asks for: below the kernel's limits, and not below `--keep`.
    #[must_use]
    pub fn for_headroom(&self) -> u64 {
        self.for_headroom
    }

    /// Tells the levels above what it has to give.
    pub fn gives(&mut self, bytes: u64) {
        let before = std::mem::replace(&mut self.to_give, bytes);
        self.above.iter().for_each(|level| level.borrow_mut().shares.gives(before, bytes));
    }

    /// It is asked for so much.
    pub fn asks(&mut self, now: Duration, bytes: u64) {
        self.answered();
        self.asked = Some(self.to_give);
        for level in &self.above {
            let mut level = level.borrow_mut();
            let used = level.current();
            level.shares.asks(now, used, bytes, self.to_give);
        }
    }

    /// It is done with what it was asked for.
    pub fn answered(&mut self) {
        if let Some(to_give) = self.asked.take() {
            self.above.iter().for_each(|level| level.borrow_mut().shares.answered(to_give));
        }
    }

    /// Enters what was reclaimed.
    pub fn reclaimed(&mut self, bytes: u64) {
        self.own.reclaimed(bytes);
        self.above.iter().for_each(|level| level.borrow_mut().reclaimed(bytes));
    }
}
