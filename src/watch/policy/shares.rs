//! Shares of a shortage below a limit that several cgroups have in common: each gives in proportion
//! to its reclaimable bytes.

use std::time::Duration;

/// Time after which a request in progress no longer holds the others up: they take its part over.
const OVERDUE: Duration = Duration::from_secs(1);

/// Reclaimable bytes of the watched cgroups below one level, and their requests in progress.
/// Amounts are bytes.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    to_give: u64,
    /// Requests in progress: their number, the reclaimable bytes of their cgroups, and the usage
    /// expected at their end.
    under_way: u32,
    given: u64,
    promised: u64,
    /// Time at which the latest of them began.
    since: Duration,
}

impl Shares {
    /// Records a change of one cgroup's reclaimable bytes, from `before` to `now`.
    pub(crate) fn gives(&mut self, before: u64, now: u64) {
        self.to_give = (self.to_give + now).saturating_sub(before);
    }

    /// Records the start of a request for `asked` bytes to a cgroup with `to_give` reclaimable
    /// bytes, while `used` bytes are used in all.
    pub(crate) fn asks(&mut self, now: Duration, used: u64, asked: u64, to_give: u64) {
        let promised = if self.under_way == 0 { used } else { self.promised.min(used) };
        self.promised = promised.saturating_sub(asked);
        self.given += to_give;
        self.under_way += 1;
        self.since = now;
    }

    /// Records the end of a request.
    pub(crate) fn answered(&mut self, to_give: u64) {
        self.given = self.given.saturating_sub(to_give);
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Returns the share of an idle cgroup in the reclaim down to `down_to`, while others may be
    /// working on theirs: in any order, each is asked for the same.
    #[must_use]
    pub(crate) fn of(&self, now: Duration, used: u64, down_to: u64, to_give: u64) -> u64 {
        let counts = self.under_way > 0 && now.saturating_sub(self.since) < OVERDUE;
        let (used, given) = if counts { (self.promised.min(used), self.given) } else { (used, 0) };
        let all = self.to_give.saturating_sub(given).max(to_give).max(1);
        (used.saturating_sub(down_to) as f64 * (to_give as f64 / all as f64)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(60);

    fn three() -> Shares {
        let mut shares = Shares::default();
        for bytes in [900, 300, 0] {
            shares.gives(0, bytes);
        }
        shares
    }

    #[test]
    fn each_gives_in_proportion() {
        let shares = three();
        assert_eq!([900, 300, 0].map(|bytes| shares.of(NOW, 1200, 1000, bytes)), [150, 50, 0]);
    }

    #[test]
    fn the_same_while_another_is_at_work() {
        let mut shares = three();
        shares.asks(NOW, 1200, 150, 900);
        // At any stage of its work.
        for used in [1200, 1150, 1060] {
            assert_eq!(shares.of(NOW, used, 1000, 300), 50, "{used}");
        }
        shares.asks(NOW, 1100, 50, 300);
        shares.answered(900);
        shares.gives(900, 750);
        assert_eq!(shares.of(NOW, 1040, 1000, 750), 0, "what is missing is the other's");
        shares.answered(300);
        assert_eq!(shares.of(NOW, 1021, 1000, 750), 15);
    }

    #[test]
    fn who_is_slow_holds_nobody_up() {
        let mut shares = three();
        shares.asks(NOW, 1200, 150, 900);
        assert_eq!(shares.of(NOW + OVERDUE, 1200, 1000, 300), 50);
        shares.asks(NOW + OVERDUE, 1200, 50, 300);
        shares.answered(300);
        shares.answered(900);
        assert_eq!(shares.of(NOW + OVERDUE, 1200, 1000, 900), 150);
    }

    #[test]
    fn nothing_to_give_is_nothing() {
        assert_eq!(Shares::default().of(NOW, 1200, 1000, 0), 0);
        assert_eq!(Shares::default().of(NOW, 1200, 1000, 10), 200);
    }
}
