//! Shares of a shortage below a limit that several cgroups have in common: each gives in proportion
//! to its reclaimable bytes.

use std::time::Duration;

/// Time after which a cgroup that is still at its part no longer holds the others up: they take the
/// rest of it over.
const OVERDUE_TIME: Duration = Duration::from_secs(1);

/// Divisor of what a cgroup offers while its memory comes back: as good as nothing beside the offers
/// of others, and all that is asked for where they offer nothing.
const REST_DIVISOR: u64 = 1024;

/// Part of the usage below a level, by this divisor, that may be of cgroups that aren't watched. Where
/// more is theirs, they may have memory that isn't in use, and the kernel will find it.
const UNKNOWN_DIVISOR: u64 = 8;

/// What a cgroup offers to the limits above it. Amounts are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Its usage.
    pub usage: u64,
    /// Reclaimable bytes.
    pub available: u64,
    /// True while its memory comes back, in use or not: it gives what others leave.
    pub comes_back: bool,
    /// True while memory in use comes back: it gives nothing where there are others that aren't
    /// known.
    pub returns: bool,
}

/// Part of one cgroup in the reclaim in progress: its requests, one after the other. Amounts are
/// bytes.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// Cgroup that is asked.
    id: u64,
    asked_at: Duration,
    /// Bytes that its requests have reclaimed so far.
    given: u64,
    /// Bytes of the request in progress; 0 without one.
    asked: u64,
    /// True while a request is in progress, or has ended before it was done and goes on.
    is_open: bool,
}

/// Reclaimable bytes of the watched cgroups below one level, and the reclaim in progress. Amounts
/// are bytes.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    available: u64,
    /// The part of those of which nothing comes back.
    stays_away: u64,
    usage: u64,
    /// Parts of which at least one is open; otherwise none.
    parts: Vec<Part>,
    /// Bytes that all parts come to.
    total: u64,
}

impl Shares {
    /// Records a change of one cgroup's offer, from `before` to `now`.
    pub(crate) fn offer(&mut self, before: &Offer, now: &Offer) {
        self.available = (self.available + now.counted()).saturating_sub(before.counted());
        self.stays_away = (self.stays_away + now.first()).saturating_sub(before.first());
        self.usage = (self.usage + now.usage).saturating_sub(before.usage);
    }

    /// Records the start of a request for `asked` bytes to the cgroup `id`.
    pub(crate) fn asks(&mut self, now: Duration, id: u64, asked: u64) {
        self.parts.retain(|part| !part.is_overdue(now));
        match self.parts.iter_mut().find(|part| part.id == id) {
            Some(part) => (part.asked, part.is_open) = (asked, true),
            None => self.parts.push(Part { id, asked_at: now, given: 0, asked, is_open: true }),
        }
    }

    /// Records the end of the request to the cgroup `id`, after which it `goes_on` if it isn't done.
    pub(crate) fn answered(&mut self, id: u64, given: u64, goes_on: bool) {
        if let Some(part) = self.parts.iter_mut().find(|part| part.id == id) {
            *part = Part { given: part.given.saturating_add(given), asked: 0, is_open: goes_on, ..*part };
        }
        self.close();
    }

    /// Returns the share of the idle cgroup `id` with this offer in the reclaim from `used` bytes
    /// down to `down_to`, while others may be working on theirs: in any order, and however quickly
    /// each of them is done, each is asked for the same.
    pub(crate) fn of(&mut self, now: Duration, id: u64, (used, down_to): (u64, u64), offer: &Offer) -> u64 {
        let unknown = used.saturating_sub(self.usage.max(offer.usage));
        if offer.returns && unknown > used / UNKNOWN_DIVISOR {
            return 0;
        }
        let available = offer.counted();
        self.parts.retain(|part| !part.is_overdue(now));
        self.close();
        let missing = used.saturating_sub(down_to);
        if offer.is_last() && self.stays_away >= missing {
            return 0;
        }
        let sum = |of: fn(&Part) -> u64| self.parts.iter().map(of).fold(0, u64::saturating_add);
        let given = sum(|part| part.given);
        // The usage shows what requests in progress have reclaimed, and `given` not yet. It also
        // shows what arrived meanwhile.
        let total = missing.saturating_add(given);
        self.total = self.total.clamp(total, total.saturating_add(sum(|part| part.asked)));
        let own = self.parts.iter().find(|part| part.id == id).map_or(0, |part| part.given);
        let all = self.available.max(available).saturating_add(given).max(1);
        let part = self.total as f64 * (available.saturating_add(own) as f64 / all as f64);
        (part as u64).saturating_sub(own).min(missing)
    }

    /// Returns whether some cgroup has a request in progress.
    #[must_use]
    pub(crate) fn is_asked(&self) -> bool {
        self.parts.iter().any(|part| part.asked > 0)
    }

    /// Forgets the parts once none is open: all that they gave shows in the usage.
    fn close(&mut self) {
        if self.parts.iter().all(|part| !part.is_open) {
            self.parts.clear();
        }
    }
}

impl Offer {
    /// Returns the reclaimable bytes as they count beside those of others.
    fn counted(&self) -> u64 {
        if self.is_last() { self.available / REST_DIVISOR } else { self.available }
    }

    /// Returns the reclaimable bytes of which nothing comes back.
    fn first(&self) -> u64 {
        if self.is_last() { 0 } else { self.available }
    }

    /// Returns whether it gives what others leave.
    fn is_last(&self) -> bool {
        self.returns || self.comes_back
    }
}

impl Part {
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
            shares.offer(&Offer::default(), &offer(bytes));
        }
        shares
    }

    fn offer(bytes: u64) -> Offer {
        Offer { usage: bytes, available: bytes, ..Offer::default() }
    }

    #[test]
    fn shares_are_in_proportion() {
        let mut shares = three();
        assert_eq!([900, 300, 0].map(|bytes| shares.of(NOW, A, (1200, 1000), &offer(bytes))), [150, 50, 0]);
    }

    #[test]
    fn a_share_is_the_same_while_another_cgroup_works() {
        let mut shares = three();
        assert_eq!(shares.of(NOW, A, (1200, 1000), &offer(900)), 150);
        shares.asks(NOW, A, 150);
        // At any stage of its work.
        for used in [1200, 1150, 1060] {
            assert_eq!(shares.of(NOW, B, (used, 1000), &offer(300)), 50, "{used}");
        }
        shares.asks(NOW, B, 50);
        shares.answered(A, 150, false);
        shares.offer(&offer(900), &offer(750));
        assert_eq!(shares.of(NOW, A, (1040, 1000), &offer(750)), 0, "what is missing is the other's");
        assert_eq!(shares.of(NOW, A, (1080, 1000), &offer(750)), 22, "but for what arrived");
        shares.answered(B, 50, false);
        shares.offer(&offer(300), &offer(250));
        assert_eq!(shares.of(NOW, A, (1021, 1000), &offer(750)), 15);
    }

    #[test]
    fn memory_freed_meanwhile_is_requested_from_nobody() {
        let mut shares = three();
        assert_eq!(shares.of(NOW, A, (1200, 1000), &offer(900)), 150);
        shares.asks(NOW, A, 150);
        shares.answered(A, 10, true);
        // The application freed 150.
        assert_eq!(shares.of(NOW, A, (1040, 1000), &offer(890)), 27);
        assert_eq!(shares.of(NOW, B, (1040, 1000), &offer(300)), 12);
    }

    /// Two cgroups at work at once, in turns of `slices` bytes. Returns what each gave.
    fn worked(slices: [u64; 2]) -> [u64; 2] {
        let (mut shares, mut used) = (three(), 1200);
        let (mut available, mut given) = ([900, 300], [0, 0]);
        for turn in 0.. {
            let now = NOW + Duration::from_millis(turn);
            let mut asked = [0, 0];
            for (who, id) in [A, B].into_iter().enumerate() {
                asked[who] = shares.of(now, id, (used, 1000), &offer(available[who]));
                if asked[who] > 0 {
                    shares.asks(now, id, asked[who]);
                }
            }
            if asked == [0, 0] {
                break;
            }
            for (who, id) in [A, B].into_iter().enumerate().filter(|&(who, _)| asked[who] > 0) {
                let bytes = asked[who].min(slices[who]);
                used -= bytes;
                given[who] += bytes;
                shares.offer(&offer(available[who]), &offer(available[who] - bytes));
                available[who] -= bytes;
                shares.answered(id, bytes, bytes < asked[who]);
            }
        }
        given
    }

    #[test]
    fn the_speed_of_each_changes_no_share() {
        for slices in [[150, 50], [4, 40], [40, 4], [1, 1], [200, 1]] {
            let [large, small] = worked(slices);
            assert!(
                (140..=156).contains(&large) && (44..=52).contains(&small),
                "{slices:?}: {large}, {small}"
            );
        }
    }

    #[test]
    fn a_slow_request_delays_no_other() {
        let mut shares = three();
        assert_eq!(shares.of(NOW, A, (1200, 1000), &offer(900)), 150);
        shares.asks(NOW, A, 150);
        shares.asks(NOW, B, 50);
        shares.answered(B, 50, false);
        shares.offer(&offer(300), &offer(250));
        assert_eq!(
            shares.of(NOW + OVERDUE_TIME / 2, B, (1150, 1000), &offer(250)),
            0,
            "the rest is the other's"
        );
        assert_eq!(shares.of(NOW + OVERDUE_TIME, B, (1150, 1000), &offer(250)), 32);
        shares.asks(NOW + OVERDUE_TIME, B, 32);
        shares.answered(B, 32, false);
        shares.answered(A, 0, true);
        assert_eq!(shares.of(NOW + OVERDUE_TIME, A, (1118, 1000), &offer(900)), 92);
    }

    #[test]
    fn a_slow_request_is_overdue_however_often_others_are_asked() {
        let mut shares = three();
        shares.asks(NOW, A, 150);
        // The other is asked now and then, and answers each time.
        let mut now = NOW;
        for _ in 0..20 {
            now += OVERDUE_TIME / 10;
            let asked = shares.of(now, B, (1200, 1000), &offer(300));
            shares.asks(now, B, asked);
            shares.answered(B, 0, false);
        }
        assert_eq!(shares.of(now, B, (1200, 1000), &offer(300)), 50, "the other no longer counts");
        assert!(shares.parts.is_empty(), "{:?}", shares.parts);
    }

    #[test]
    fn a_cgroup_without_reclaimable_memory_gives_nothing() {
        assert_eq!(Shares::default().of(NOW, A, (1200, 1000), &offer(0)), 0);
        assert_eq!(Shares::default().of(NOW, A, (1200, 1000), &offer(10)), 200);
    }

    #[test]
    fn memory_that_comes_back_is_the_last_to_be_given() {
        let used = |usage| Offer { usage, available: usage, ..Offer::default() };
        let returns = |usage| Offer { returns: true, ..used(usage) };
        let comes_back = |usage| Offer { comes_back: true, ..used(usage) };
        let [down_to, one, two] = [800 << 20, 910 << 20, 1200 << 20];
        for (ours, theirs, beside_unknown) in [
            (returns(900 << 20), returns(300 << 20), 0),
            (comes_back(900 << 20), comes_back(300 << 20), two - down_to),
        ] {
            let mut shares = Shares::default();
            shares.offer(&Offer::default(), &ours);
            assert_eq!(shares.of(NOW, A, (one, down_to), &ours), one - down_to, "nobody else is there");
            assert_eq!(shares.of(NOW, A, (two, down_to), &ours), beside_unknown, "a quarter is of others");
            let others = used(300 << 20);
            shares.offer(&Offer::default(), &others);
            let asked = |shares: &mut Shares, down_to| {
                [&ours, &others].map(|offer| shares.of(NOW, A, (two, down_to), offer) >> 20)
            };
            assert_eq!(asked(&mut shares, 900 << 20), [0, 299], "these are known, and have enough");
            assert_eq!(asked(&mut shares, down_to), [1, 398], "they have less than that");
            shares.offer(&others, &Offer { available: 0, ..others });
            assert_eq!(shares.of(NOW, A, (two, down_to), &ours), two - down_to, "they can't give any");
            // Both come back: in proportion.
            shares.offer(&Offer { available: 0, ..others }, &theirs);
            assert_eq!(shares.of(NOW, A, (two, down_to), &ours) >> 20, 300);
        }
    }
}
