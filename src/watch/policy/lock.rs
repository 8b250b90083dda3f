//! Patience with the lock of another process on a cgroup. Pure functions of time.
//!
//! Anybody who can open a directory can hold a lock on it, for as long as he likes. Root, and the
//! user of this process, could stop the watch anyway, so their locks are waited for each time,
//! within a bound. The lock of a stranger is waited for once, and then passed over.

use std::time::Duration;

use super::backoff::Doubling;

/// Time to wait for a lock.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// First time for which the lock of a stranger is passed over; it doubles each time.
const FIRST_PASS: Duration = Duration::from_secs(600);
const MAX_PASS: Duration = Duration::from_secs(86_400);

/// Patience with the lock on one cgroup.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LockPatience {
    /// Time since which the lock is waited for.
    since: Option<Duration>,
    /// Time until which it is passed over, and for how long.
    passed_until: Duration,
    pass: Doubling,
}

impl LockPatience {
    /// Returns whether to ask for the lock.
    #[must_use]
    pub(crate) fn asks(&self, now: Duration) -> bool {
        now >= self.passed_until
    }

    /// Records that another process holds the lock.
    pub(crate) fn refused(&mut self, now: Duration, is_honoured: bool) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_sub(since) < LOCK_TIMEOUT {
            return;
        }
        let pass = if is_honoured { LOCK_TIMEOUT } else { self.pass.next(FIRST_PASS, MAX_PASS) };
        (self.since, self.passed_until) = (None, now + pass);
    }

    /// Records that the lock was taken.
    pub(crate) fn taken(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the time out of a day, in seconds, for which a lock that is never released is waited
    /// for.
    fn waited(is_honoured: bool) -> u64 {
        let mut patience = LockPatience::default();
        let ask = |second: &u64| {
            let now = Duration::from_secs(*second);
            let asks = patience.asks(now);
            if asks {
                patience.refused(now, is_honoured);
            }
            asks
        };
        (0..86_400).filter(ask).count() as u64
    }

    #[test]
    fn a_stranger_is_waited_for_a_few_seconds_a_day() {
        assert!(waited(false) <= 8 * 3, "{}", waited(false));
        assert!(waited(true) >= 86_400 / 3, "{}", waited(true));
    }

    #[test]
    fn a_lock_that_was_released_begins_anew() {
        let (mut patience, at) = (LockPatience::default(), Duration::from_secs);
        patience.refused(at(1), false);
        patience.taken();
        patience.refused(at(4), false);
        assert!(patience.asks(at(4)));
        patience.refused(at(6), false);
        assert!(!patience.asks(at(605)) && patience.asks(at(606)));
    }
}
