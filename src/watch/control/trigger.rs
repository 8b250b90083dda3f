//! Triggers for stalls of members near their limits.

use std::time::Duration;

use rustix::io::Errno;

use super::Control;
use crate::watch::system::System;

/// Time for which a trigger is kept after the limit was near, and time after a failure before the
/// next attempt for the same cgroup.
const TRIGGER_TIME: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(60);

impl<S: System> Control<'_, S> {
    /// Sets a trigger where a limit is near, and removes it once no limit has been near for
    /// `TRIGGER_TIME`: each trigger costs a kernel thread.
    pub(super) fn keep_trigger(&mut self, slot: usize) {
        let now = self.cx.now;
        let Some(member) = self.members[slot].as_mut().filter(|_| !self.no_triggers) else { return };
        if member.is_near() {
            member.trigger_until = now + TRIGGER_TIME;
        }
        let wanted = now < member.trigger_until;
        if !wanted {
            member.trigger = None;
        } else if member.trigger.is_none() && now >= member.trigger_after {
            match self.cx.system.set_trigger(&member.limits.own.sampler, slot as u64) {
                Ok(trigger) => member.trigger = Some(trigger),
                // This process may not create triggers.
                Err(Errno::PERM | Errno::INVAL) => self.no_triggers = true,
                // Pressure is off for this cgroup, or it is being removed, or files are short.
                Err(_) => member.trigger_after = now + RETRY,
            }
        }
    }
}
