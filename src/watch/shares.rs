//! Who gives how much of what is missing below a limit that several share: each in proportion to what it has.

use std::time::Duration;

/// Who works on its part for longer than this holds the others up no longer: they take it over.
const OVERDUE: Duration = Duration::from_secs(1);

/// What those that are watched below one level have to give, and what they are at work on. Amounts are bytes.
#[derive(Debug, Default)]
pub struct Shares {
    to_give: u64,
    /// Of those at work: what they were asked for, and what they had to give.
    asked: u64,
    given: u64,
    /// When the last of them began.
    since: Duration,
}

impl Shares {
    /// Enters what one has to give, which was `before`.
    pub fn gives(&mut self, before: u64, now: u64) {
        self.to_give = (self.to_give + now).saturating_sub(before);
    }

    /// One that has so much to give is asked for so much.
    pub fn asks(&mut self, now: Duration, asked: u64, to_give: u64) {
        (self.asked, self.given, self.since) = (self.asked + asked, self.given + to_give, now);
    }

    /// It is done with it.
    pub fn answered(&mut self, asked: u64, to_give: u64) {
        (self.asked, self.given) = (self.asked.saturating_sub(asked), self.given.saturating_sub(to_give));
    }

    /// The part of what is missing that falls to one that isn't at work, while others may be, on theirs: however they take
    /// turns, each is asked for the same.
    #[must_use]
    pub fn of(&self, now: Duration, missing: u64, to_give: u64) -> u64 {
        let overdue = now.saturating_sub(self.since) >= OVERDUE;
        let (asked, given) = if overdue { (0, 0) } else { (self.asked, self.given) };
        let all = self.to_give.saturating_sub(given).max(to_give).max(1);
        (missing.saturating_sub(asked) as f64 * (to_give as f64 / all as f64)) as u64
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
        assert_eq!([900, 300, 0].map(|bytes| shares.of(NOW, 200, bytes)), [150, 50, 0]);
    }

    #[test]
    fn the_same_while_another_is_at_work() {
        let mut shares = three();
        shares.asks(NOW, 150, 900);
        assert_eq!(shares.of(NOW, 200, 300), 50);
        // As far as it has come, less is missing, and nothing more than the rest is its own.
        shares.asks(NOW, 50, 300);
        shares.answered(150, 900);
        shares.gives(900, 750);
        assert_eq!(shares.of(NOW, 50, 750), 0);
        // More is missing by now: that is shared by whoever is free.
        assert_eq!(shares.of(NOW, 80, 750), 30);
    }

    #[test]
    fn who_is_slow_holds_nobody_up() {
        let mut shares = three();
        shares.asks(NOW, 150, 900);
        assert_eq!(shares.of(NOW + OVERDUE, 200, 300), 50);
        shares.asks(NOW + OVERDUE, 50, 300);
        shares.answered(50, 300);
        shares.answered(150, 900);
        assert_eq!(shares.of(NOW + OVERDUE, 200, 900), 150);
    }

    #[test]
    fn nothing_to_give_is_nothing() {
        assert_eq!(Shares::default().of(NOW, 200, 0), 0);
        assert_eq!(Shares::default().of(NOW, 200, 10), 200);
    }
}
