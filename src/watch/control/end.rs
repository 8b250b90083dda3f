//! The end of a watch.

use std::time::Duration;

use super::Control;
use crate::watch::event::Ended;
use crate::watch::system::System;

/// Time limit at the end for writes in flight, and interval between checks for their end.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);
const STOP_INTERVAL: Duration = Duration::from_millis(2);

impl<S: System> Control<'_, S> {
    /// Waits for writes in progress, which count, and returns the summaries.
    pub(super) fn end(mut self) -> Ended {
        self.cx.system.stop();
        let until = self.cx.refresh() + STOP_TIMEOUT;
        while !self.cx.system.has_ended() && self.cx.refresh() < until {
            self.cx.system.pause(STOP_INTERVAL);
            // Repeated: an interrupt just before the write would be lost.
            self.cx.system.stop();
        }
        // Actions in progress count.
        while let Some(done) = self.cx.system.finished() {
            self.cx.refresh();
            if let Some(Some(member)) = self.members.get_mut(done.slot)
                && member.id() == done.id
            {
                member.acted(&done.result, &mut self.cx);
            }
        }
        let emitted = self.ended.len();
        for slot in 0..self.members.len() {
            let Some(mut member) = self.members[slot].take() else { continue };
            member.flush(true, &mut self.cx);
            if self.settings.samples && member.closing.is_none() {
                member.emit_sample(true, &mut self.cx);
            }
            let gone = member.closing.unwrap_or(false);
            self.ended.push_back(member.summary(gone, &mut self.cx));
        }
        Ended {
            each: self.ended.into(),
            emitted,
            others: self.others.count,
            others_total: self.others.total,
            watched: self.cx.elapsed(),
            dry_run: self.settings.dry_run,
            cpu: self.cx.system.cpu(),
        }
    }
}
