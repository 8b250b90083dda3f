//! Notes and events of the watch as a whole.

use std::time::Duration;

use super::Control;
use crate::watch::event::EventKind;
use crate::watch::notes::{Note, notes};
use crate::watch::system::System;

/// Time without a finished worker after which the watch is reported as blocked.
const BLOCKED: Duration = Duration::from_secs(5);

impl<S: System> Control<'_, S> {
    /// Handles an answer to the query for monitored cgroups, if one has arrived: emits the
    /// resulting notes.
    pub(super) fn learn_killers(&mut self, answer: Option<bool>) {
        let Some(is_news) = answer else { return };
        self.emit_note(&Note::Asked);
        if !is_news {
            return;
        }
        let Some(killers) = self.cx.host.killers.killers() else { return };
        for note in notes(killers, self.members.iter().flatten(), &mut self.noted) {
            if let Some(receive) = &mut self.note {
                receive(&note);
            }
        }
    }

    pub(super) fn emit_note(&mut self, note: &Note) {
        if let Some(receive) = &mut self.note {
            receive(note);
        }
    }

    pub(super) fn leave_if_alone(&mut self) {
        if let Some(joined) = self.joined.take_if(|joined| joined.leave_if_alone()) {
            self.cx.emit(joined.name(), EventKind::Left);
        }
    }

    pub(super) fn report_if_blocked(&mut self) {
        if let Some(located) = self.dispatcher.blocked_for(self.cx.now, BLOCKED)
            && !std::mem::replace(&mut self.is_blocked, true)
        {
            self.cx.emit(&located.name, EventKind::Blocked);
        }
    }
}
