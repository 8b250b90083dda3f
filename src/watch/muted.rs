//! Ids of limit events that are muted for a while: a cgroup that stays at its limit causes a
//! hundred a second.

use std::time::Duration;

/// Muted ids, each with the time at which it is due again.
#[derive(Debug, Default)]
pub(crate) struct Muted(Vec<(Duration, u64)>);

impl Muted {
    /// Mutes an id until a time, unless it is muted already.
    pub(crate) fn mute(&mut self, id: u64, until: Duration) {
        if self.0.iter().all(|(_, muted)| *muted != id) {
            self.0.push((until, id));
        }
    }

    /// Removes an id that is due, and returns it.
    pub(crate) fn next_due(&mut self, now: Duration) -> Option<u64> {
        let due = self.0.iter().position(|&(until, _)| until <= now)?;
        Some(self.0.swap_remove(due).1)
    }

    /// Returns the earliest time at which an id is due.
    #[must_use]
    pub(crate) fn due(&self) -> Option<Duration> {
        self.0.iter().map(|&(until, _)| until).min()
    }
}
