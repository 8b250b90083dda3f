//! Who gives how much of what is missing below a limit that several share: each in proportion to what it has.

use std::time::Duration;

/// Who works on its part for longer than this holds the others up no longer: they take it over.
const OVERDUE: Duration = Duration::from_secs(1);

/// What those that are watched below one level have to give, and what they are at work on. Amounts are bytes.
#[derive(Debug, Default)]
pub struct Shares {
    to_give: u64,
    /// Of those at work: how many there are, what they had to give, and what is used once they are done.
    under_way: u32,
    given: u64,
    promised: u64,
    /// When the last of them began.
    since: Duration,
}

impl Shares {
    /// Enters what one has to give, which was `before`.
    pub fn gives(&mut self, before: u64, now: u64) {
        self.to_give = (self.to_give + now).saturating_sub(before);
    }

    /// One that has so much to give is asked for so much, while so much is used in all.
    pub fn asks(&mut self, now: Duration, used: u64, asked: u64, to_give: u64) {
        let promised = if self.under_way == 0 { used } else { self.promised.min(used) };
        self.promised = promised.saturating_sub(asked);
        self.given += to_give;
        self.under_way += 1;
        self.since = now;
    }

    /// It is done with it.
    pub fn answered(&mut self, to_give: u64) {
        self.given = self.given.saturating_sub(to_give);
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// What falls to one that isn't at work, so that no more than `down_to` is used, while others may be at theirs: however
    /// they take turns, each is asked for the same.
    #[must_use]
    pub fn of(&self, now: Duration, used: u64, down_to: u64, to_give: u64) -> u64 {
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
        // However far it has come.
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
