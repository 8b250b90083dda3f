//! Shares of a shortage below a limit that several cgroups have in common: each gives in proportion
//! to its reclaimable bytes.

use std::time::Duration;

/// Time after which a request in progress no longer holds the others up: they take its part over.
const OVERDUE_TIME: Duration = Duration::from_secs(1);

/// A request in progress, or one that has ended while a later one is in progress. Amounts are
/// bytes.
#[derive(Clone, Copy, Debug)]
struct Promise {
    /// Cgroup that is asked.
    id: u64,
    asked_at: Duration,
    /// Usage of the level when the request began.
    used: u64,
    asked: u64,
    /// Reclaimable bytes of the cgroup; 0 once the request has ended.
    available: u64,
    is_open: bool,
}

/// Reclaimable bytes of the watched cgroups below one level, and their requests in progress.
/// Amounts are bytes.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    available: u64,
    /// Requests in the order of their beginning; none once no request is in progress.
    promises: Vec<Promise>,
}

impl Shares {
    /// Records a change of one cgroup's reclaimable bytes, from `before` to `now`.
    pub(crate) fn set_available(&mut self, before: u64, now: u64) {
        self.available = (self.available + now).saturating_sub(before);
    }

    /// Records the start of a request for `asked` bytes to the cgroup `id`, which has `available`
    /// reclaimable bytes, while `used` bytes are used in all.
    pub(crate) fn asks(&mut self, now: Duration, id: u64, used: u64, asked: u64, available: u64) {
        self.promises.retain(|promise| !promise.is_overdue(now));
        self.promises.push(Promise { id, asked_at: now, used, asked, available, is_open: true });
    }

    /// Records the end of the request to the cgroup `id`.
    pub(crate) fn answered(&mut self, id: u64) {
        if let Some(promise) = self.promises.iter_mut().find(|promise| promise.id == id && promise.is_open) {
            (promise.is_open, promise.available) = (false, 0);
        }
        if self.promises.iter().all(|promise| !promise.is_open) {
            self.promises.clear();
        }
    }

    /// Returns the share of an idle cgroup in the reclaim down to `down_to`, while others may be
    /// working on theirs: in any order, each is asked for the same.
    #[must_use]
    pub(crate) fn of(&self, now: Duration, used: u64, down_to: u64, available: u64) -> u64 {
        let in_time = || self.promises.iter().filter(|promise| !promise.is_overdue(now));
        // Usage to expect once all of them are served. The usage shows requests that have ended,
        // unless another was in progress at their end.
        let expected = if in_time().any(|promise| promise.is_open) {
            in_time().fold(u64::MAX, |left, promise| left.min(promise.used).saturating_sub(promise.asked))
        } else {
            used
        };
        let given: u64 = in_time().map(|promise| promise.available).sum();
        let all = self.available.saturating_sub(given).max(available).max(1);
        let missing = expected.min(used).saturating_sub(down_to);
        (missing as f64 * (available as f64 / all as f64)) as u64
    }
}

impl Promise {
    fn is_overdue(&self, now: Duration) -> bool {
        now.saturating_sub(self.asked_at) >= OVERDUE_TIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(60);
    const A: u64 = 1;
    const B: u64 = 2;

    fn three() -> Shares {
        let mut shares = Shares::default();
        for bytes in [900, 300, 0] {
            shares.set_available(0, bytes);
        }
        shares
    }

    #[test]
    fn shares_are_in_proportion() {
        let shares = three();
        assert_eq!([900, 300, 0].map(|bytes| shares.of(NOW, 1200, 1000, bytes)), [150, 50, 0]);
    }

    #[test]
    fn a_share_is_the_same_while_another_cgroup_works() {
        let mut shares = three();
        shares.asks(NOW, A, 1200, 150, 900);
        // At any stage of its work.
        for used in [1200, 1150, 1060] {
            assert_eq!(shares.of(NOW, used, 1000, 300), 50, "{used}");
        }
        shares.asks(NOW, B, 1100, 50, 300);
        shares.answered(A);
        shares.set_available(900, 750);
        assert_eq!(shares.of(NOW, 1040, 1000, 750), 0, "what is missing is the other's");
        shares.answered(B);
        assert_eq!(shares.of(NOW, 1021, 1000, 750), 15);
    }

    #[test]
    fn a_slow_request_delays_no_other() {
        let mut shares = three();
        shares.asks(NOW, A, 1200, 150, 900);
        assert_eq!(shares.of(NOW + OVERDUE_TIME, 1200, 1000, 300), 50);
        shares.asks(NOW + OVERDUE_TIME, B, 1200, 50, 300);
        shares.answered(B);
        shares.answered(A);
        assert_eq!(shares.of(NOW + OVERDUE_TIME, 1200, 1000, 900), 150);
    }

    #[test]
    fn a_slow_request_is_overdue_however_often_others_are_asked() {
        let mut shares = Shares::default();
        shares.set_available(0, 900);
        shares.set_available(0, 300);
        shares.asks(NOW, A, 1200, 150, 900);
        // The other is asked now and then, and answers each time.
        let mut now = NOW;
        for _ in 0..20 {
            now += OVERDUE_TIME / 10;
            let asked = shares.of(now, 1200, 1000, 300);
            shares.asks(now, B, 1200, asked, 300);
            shares.answered(B);
        }
        assert_eq!(shares.of(now, 1200, 1000, 300), 50, "no promise counts any more");
        assert!(shares.promises.len() < 12, "{}", shares.promises.len());
    }

    #[test]
    fn a_cgroup_without_reclaimable_memory_gives_nothing() {
        assert_eq!(Shares::default().of(NOW, 1200, 1000, 0), 0);
        assert_eq!(Shares::default().of(NOW, 1200, 1000, 10), 200);
    }
}
