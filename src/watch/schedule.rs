//! Times at which members are due, in a compact form: a watch of ten thousand cgroups scans them
//! at every wake-up.

use std::time::Duration;

/// Times by slot, nanoseconds; `NEVER` where nothing is due. As numbers, since a scan of those is
/// several times as fast as one of `Duration`s.
#[derive(Debug, Default)]
pub(crate) struct Schedule(Vec<u64>);

const NEVER: u64 = u64::MAX;

impl Schedule {
    /// Sets the time at which a slot is due.
    pub(crate) fn set(&mut self, slot: usize, due: Duration) {
        if slot >= self.0.len() {
            self.0.resize(slot + 1, NEVER);
        }
        self.0[slot] = nanoseconds(due);
    }

    /// Returns the first slot from `from` on that is due.
    #[must_use]
    pub(crate) fn next_slot(&self, from: usize, now: Duration) -> Option<usize> {
        let now = nanoseconds(now);
        self.0.get(from..)?.iter().position(|&due| due <= now).map(|index| from + index)
    }

    /// Returns the earliest time.
    #[must_use]
    pub(crate) fn earliest(&self) -> Duration {
        match self.0.iter().copied().min() {
            None | Some(NEVER) => Duration::MAX,
            Some(due) => Duration::from_nanos(due),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_found_in_order() {
        let (mut schedule, at) = (Schedule::default(), Duration::from_secs);
        assert_eq!((schedule.earliest(), schedule.next_slot(0, at(9))), (Duration::MAX, None));
        schedule.set(3, at(5));
        schedule.set(1, at(7));
        assert_eq!((schedule.earliest(), schedule.next_slot(0, at(4))), (at(5), None));
        assert_eq!((schedule.next_slot(0, at(7)), schedule.next_slot(2, at(7))), (Some(1), Some(3)));
        assert_eq!(schedule.next_slot(4, at(7)), None);
    }
}
