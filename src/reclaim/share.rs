//! A total shared over several cgroups, cheapest first: a pure policy, from what each has and gave to whom to ask next.
//!
//! First inactive page cache, from all in proportion to what they have: nothing is cheaper, for the CPU as for the
//! application. Then whoever gave most for a CPU second so far, in slices, so that the price is learned on the way; those
//! of whom nothing is known yet are tried with a small one. Who is exhausted, too dear or under pressure is left alone.

use std::time::Duration;

use super::cost::RecentCost;
use super::{Report, StoppedBy};

/// What one is tried with whose price beyond page cache isn't known, and the most of a slice, to which it grows fourfold
/// each time: large enough to be worth the samples around it, small enough to notice when the price changes.
const TRIAL: u64 = 4 << 20;
const LARGEST: u64 = 256 << 20;

/// A slice is no more than this part of what is missing.
const SLICE: u64 = 8;

/// Less page cache than that isn't worth a request of its own.
const MIN_AVAILABLE: u64 = 256 << 10;

/// How long a cgroup must have been watched before its stalls weigh.
const PRESSURE_WINDOW: Duration = Duration::from_millis(500);

/// What is known of one cgroup.
#[derive(Clone, Debug, Default)]
pub struct Donor {
    /// Its inactive page cache, as far as it wasn't asked for yet, bytes.
    inactive_file: u64,
    /// What it gave lately, and the CPU seconds that took; the older the less it weighs.
    given: f64,
    cpu: f64,
    price: RecentCost,
    /// How long it was reclaimed from, and how long of that it was stalled.
    busy_for: Duration,
    stalled: Duration,
    asked_now: Option<u64>,
    /// How often it was asked for a slice.
    slices: u32,
    /// Its part of this round's page cache, as far as it wasn't asked for yet.
    due: u64,
    /// Why it isn't asked any more.
    out: Option<StoppedBy>,
}

/// The bounds beyond which a cgroup isn't asked any more.
#[derive(Clone, Copy, Debug, Default)]
pub struct CostBounds {
    /// Seconds of CPU time a GiB.
    pub max_cost: Option<f64>,
    /// The share of the time in which it may be stalled.
    pub max_pressure: Option<f64>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextRequest {
    /// Ask that cgroup for so much.
    Ask {
        /// The cgroup's place.
        index: usize,
        /// How many bytes.
        bytes: u64,
        /// Of page cache alone, if the kernel can do that.
        file_only: bool,
    },
    /// Wait for those that are being asked.
    Wait,
    /// Nobody is left to ask, or nothing is missing.
    Over,
}

impl Donor {
    /// A cgroup with so much inactive page cache.
    #[must_use]
    pub fn new(inactive_file: u64) -> Self {
        Self { inactive_file, ..Self::default() }
    }

    /// Enters what it gave when it was asked, and whether it was asked for page cache alone.
    pub fn record(&mut self, report: &Report, file_only: bool, bounds: CostBounds) {
        self.asked_now = None;
        self.slices += u32::from(!file_only);
        self.given = self.given / 2.0 + report.reclaimed as f64;
        self.cpu = self.cpu / 2.0 + report.cpu.as_secs_f64();
        self.price.record(report.reclaimed, report.cpu);
        self.busy_for += report.elapsed;
        self.stalled += report.stalled.unwrap_or_default();
        self.out = match report.stopped_by {
            StoppedBy::Reached => None,
            StoppedBy::Exhausted if file_only => {
                // Something else may still be had.
                self.inactive_file = 0;
                None
            }
            why => Some(why),
        };
        if self.out.is_none() && bounds.max_cost.is_some_and(|most| self.price.last() > Some(most)) {
            self.out = Some(StoppedBy::Cost);
        }
        if self.out.is_none() && self.busy_for >= PRESSURE_WINDOW {
            let share = self.stalled.as_secs_f64() / self.busy_for.as_secs_f64();
            self.out = bounds.max_pressure.filter(|&most| share > most).map(|_| StoppedBy::Pressure);
        }
    }

    /// It isn't to be asked any more.
    pub fn exclude(&mut self, why: StoppedBy) {
        self.asked_now = None;
        self.out = self.out.or(Some(why));
    }

    /// Its inactive page cache, as far as it wasn't asked for yet.
    #[must_use]
    pub fn inactive_file(&self) -> u64 {
        self.inactive_file
    }

    /// Why it isn't asked any more, if so.
    #[must_use]
    pub fn excluded_by(&self) -> Option<StoppedBy> {
        self.out
    }

    fn is_free(&self) -> bool {
        self.asked_now.is_none() && self.out.is_none()
    }

    /// The page cache that it can still be asked for.
    fn cache(&self) -> u64 {
        if self.out.is_none() && self.inactive_file >= MIN_AVAILABLE { self.inactive_file } else { 0 }
    }

    /// Bytes for a CPU second; more than any price where nothing is known.
    fn worth(&self) -> f64 {
        if self.cpu > 0.0 { self.given / self.cpu } else { f64::INFINITY }
    }
}

/// How `missing` bytes are split over what each has: in proportion, and no more than all of it.
#[must_use]
pub fn split(missing: u64, has: &[u64]) -> Vec<u64> {
    let all: u128 = has.iter().map(|&bytes| u128::from(bytes)).sum();
    let part = |bytes: u64| match all {
        all if all <= u128::from(missing) => bytes,
        // Rounded up, so that nothing is left over; the last to be asked gets what is missing by then.
        all => (u128::from(missing) * u128::from(bytes)).div_ceil(all) as u64,
    };
    has.iter().map(|&bytes| part(bytes)).collect()
}

/// The most page cache to ask for in a round, where a bound on the rate makes it likely that the whole is cut short: then
/// each has given its part so far.
#[must_use]
pub fn round(bytes_per_second: u64, givers: usize) -> u64 {
    bytes_per_second.max(MIN_AVAILABLE.saturating_mul(givers as u64))
}

/// Whom to ask next when so many bytes are missing still, those that are being asked for not deducted. Page cache is
/// asked for in rounds of so many bytes, or all at once.
#[must_use]
pub fn next(givers: &mut [Donor], missing: u64, round: Option<u64>, page: u64) -> NextRequest {
    let in_flight: u64 = givers.iter().filter_map(|giver| giver.asked_now).sum();
    let missing = missing.saturating_sub(in_flight);
    if missing == 0 {
        return if in_flight > 0 { NextRequest::Wait } else { NextRequest::Over };
    }
    let nothing_due = |givers: &[Donor]| givers.iter().all(|giver| !giver.is_free() || giver.due == 0);
    if in_flight == 0 && nothing_due(givers) {
        // The next round: the first, or there are more, or some gave less than their part.
        let has: Vec<_> = givers.iter().map(Donor::cache).collect();
        for (giver, part) in givers.iter_mut().zip(split(missing.min(round.unwrap_or(u64::MAX)), &has)) {
            giver.due = part;
        }
    } else if round.is_some() && nothing_due(givers) && givers.iter().any(|giver| giver.cache() > 0) {
        return NextRequest::Wait;
    }
    let free = || givers.iter().enumerate().filter(|(_, giver)| giver.is_free());
    let (index, bytes, file_only) = match free().max_by_key(|(_, giver)| giver.due) {
        Some((index, giver)) if giver.due > 0 => (index, giver.due.min(missing).max(page), true),
        _ => match free().max_by(|(_, one), (_, other)| one.worth().total_cmp(&other.worth())) {
            Some((index, giver)) => {
                let slice = (missing / SLICE).min(TRIAL << (2 * giver.slices).min(16)).clamp(TRIAL, LARGEST);
                (index, slice.min(missing), false)
            }
            None if in_flight > 0 => return NextRequest::Wait,
            None => return NextRequest::Over,
        },
    };
    let giver = &mut givers[index];
    giver.asked_now = Some(bytes);
    if file_only {
        giver.due = 0;
        giver.inactive_file = giver.inactive_file.saturating_sub(bytes);
    }
    NextRequest::Ask { index, bytes, file_only }
}

/// Why a total of which so much is missing was not met, or that it was.
#[must_use]
pub fn ended(givers: &[Donor], missing: u64) -> StoppedBy {
    let any =
        |wanted: fn(StoppedBy) -> bool| givers.iter().filter_map(Donor::excluded_by).find(|&why| wanted(why));
    let interrupted = any(|why| matches!(why, StoppedBy::Interrupted | StoppedBy::Timeout));
    let bound = any(|why| why == StoppedBy::Cost).or(any(|why| why == StoppedBy::Pressure));
    match missing {
        0 => StoppedBy::Reached,
        _ => interrupted.or(bound).unwrap_or(StoppedBy::Exhausted),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reclaim::tests::report;

    const M: u64 = 1 << 20;
    const PAGE: u64 = 4096;

    /// What came of asking for some memory at a price of so many CPU seconds a GiB.
    fn gave(bytes: u64, price: f64) -> Report {
        let cpu = Duration::from_secs_f64(price * bytes as f64 / f64::from(1 << 30));
        Report { reclaimed: bytes, cpu, elapsed: cpu, stopped_by: StoppedBy::Reached, ..report() }
    }

    /// Asks until it is over; each has so much cache and so much else, at its own price. Gives what each gave.
    fn play(has: &[(u64, u64, f64)], total: u64, bounds: CostBounds) -> (Vec<u64>, StoppedBy, Vec<usize>) {
        play_in_rounds(has, total, bounds, None)
    }

    fn play_in_rounds(
        has: &[(u64, u64, f64)],
        total: u64,
        bounds: CostBounds,
        round: Option<u64>,
    ) -> (Vec<u64>, StoppedBy, Vec<usize>) {
        let mut left: Vec<_> = has.to_vec();
        let mut givers: Vec<_> = has.iter().map(|&(cache, _, _)| Donor::new(cache)).collect();
        let (mut given, mut order) = (vec![0; has.len()], Vec::new());
        loop {
            let missing = total.saturating_sub(given.iter().sum());
            match next(&mut givers, missing, round, PAGE) {
                NextRequest::Over => return (given, ended(&givers, missing), order),
                NextRequest::Wait => unreachable!("one at a time"),
                NextRequest::Ask { index, bytes, file_only } => {
                    assert!(bytes > 0 && bytes <= missing.max(PAGE));
                    order.push(index);
                    let (cache, rest, price) = &mut left[index];
                    let from_cache = bytes.min(*cache);
                    let from_rest = if file_only { 0 } else { (bytes - from_cache).min(*rest) };
                    *cache -= from_cache;
                    *rest -= from_rest;
                    let got = from_cache + from_rest;
                    given[index] += got;
                    let price = if from_rest > 0 { *price } else { 0.1 };
                    let stopped_by = if got < bytes { StoppedBy::Exhausted } else { StoppedBy::Reached };
                    let report = Report { stopped_by, ..gave(got, price) };
                    givers[index].record(&report, file_only, bounds);
                }
            }
            assert!(order.len() < 10_000, "it never ends");
        }
    }

    #[test]
    fn inactive_cache_comes_first_from_all_in_proportion() {
        let (given, why, order) =
            play(&[(300 * M, 0, 1.0), (100 * M, 0, 1.0)], 200 * M, CostBounds::default());
        assert_eq!((given, why, order), (vec![150 * M, 50 * M], StoppedBy::Reached, vec![0, 1]));
    }

    #[test]
    fn in_rounds_each_gives_its_part_all_the_time() {
        let has = [(300 * M, 0, 1.0), (100 * M, 0, 1.0)];
        let (given, _, order) = play_in_rounds(&has, 200 * M, CostBounds::default(), Some(40 * M));
        assert_eq!((given, &order[..4], order.len()), (vec![150 * M, 50 * M], &[0, 1, 0, 1][..], 10));
        assert_eq!((round(10 * M, 3), round(10, 3)), (10 * M, 3 * MIN_AVAILABLE));
    }

    #[test]
    fn then_whoever_is_cheapest() {
        let has = [(10 * M, 1000 * M, 5.0), (10 * M, 1000 * M, 0.5), (10 * M, 1000 * M, 3.0)];
        let (given, why, _) = play(&has, 500 * M, CostBounds::default());
        assert_eq!(why, StoppedBy::Reached);
        assert!(given[1] > 350 * M && given[0] < 80 * M && given[2] < 100 * M, "{given:?}");
    }

    #[test]
    fn a_price_ends_it() {
        let has = [(50 * M, 500 * M, 5.0), (50 * M, 100 * M, 0.5)];
        let bounds = CostBounds { max_cost: Some(1.0), max_pressure: None };
        let (given, why, _) = play(&has, 1000 * M, bounds);
        assert_eq!((given[1], why), (150 * M, StoppedBy::Cost), "all that is cheap");
        assert!((50 * M..110 * M).contains(&given[0]), "{given:?}");
    }

    #[test]
    fn all_that_there_is_and_no_more() {
        let (given, why, _) = play(&[(10 * M, 5 * M, 1.0), (0, 7 * M, 1.0)], 100 * M, CostBounds::default());
        assert_eq!((given, why), (vec![15 * M, 7 * M], StoppedBy::Exhausted));
    }

    #[test]
    fn pressure_takes_a_cgroup_out() {
        let mut giver = Donor::new(0);
        let bounds = CostBounds { max_cost: None, max_pressure: Some(0.1) };
        let stalled = |share: f64| Report {
            elapsed: Duration::from_secs(1),
            stalled: Some(Duration::from_secs_f64(share)),
            ..gave(M, 0.1)
        };
        giver.record(&stalled(0.05), false, bounds);
        assert_eq!(giver.excluded_by(), None);
        giver.record(&stalled(0.3), false, bounds);
        assert_eq!(giver.excluded_by(), Some(StoppedBy::Pressure));
    }

    proptest! {
        #[test]
        fn a_split_covers_what_is_missing_and_takes_nothing_that_is_not_there(
            missing in 0u64..1 << 50, has in prop::collection::vec(0u64..1 << 45, 1..20),
        ) {
            let parts = split(missing, &has);
            prop_assert!(parts.iter().zip(&has).all(|(part, has)| part <= has));
            let sum: u64 = parts.iter().sum();
            let all: u64 = has.iter().sum();
            prop_assert!(sum >= missing.min(all) && sum <= missing.min(all) + has.len() as u64);
        }

        #[test]
        fn it_always_ends_with_what_was_to_be_had(
            has in prop::collection::vec((0u64..1 << 28, 0u64..1 << 28, 0.01f64..10.0), 1..8), total in 1u64..1 << 31,
            round in prop::option::of(1u64 << 20..1 << 30),
        ) {
            let all: u64 = has.iter().map(|(cache, rest, _)| cache + rest).sum();
            let (given, why, _) = play_in_rounds(&has, total, CostBounds::default(), round);
            let got: u64 = given.iter().sum();
            prop_assert!(got >= total.min(all), "{got} of {total}");
            prop_assert!(got <= total + PAGE * has.len() as u64);
            prop_assert_eq!(why == StoppedBy::Reached, got >= total);
        }
    }
}
