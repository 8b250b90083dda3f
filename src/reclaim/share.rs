//! A total shared over several cgroups, cheapest first: a pure policy that decides, from each
//! cgroup's memory and results so far, where the next request goes.
//!
//! First inactive page cache, from all cgroups in proportion to what they have: nothing is cheaper,
//! for the CPU as for the application. Then the cgroup with the most bytes reclaimed per CPU second
//! so far, in slices, so that the cost is learned on the way; cgroups of unknown cost are tried
//! with a small slice. A cgroup that is exhausted, too expensive or under pressure is left alone.

use super::cost::RecentCost;
use super::{RecentStalls, Report, StoppedBy};

/// First slice for a cgroup whose cost beyond page cache isn't known, and the largest slice, in
/// bytes. Slices grow fourfold each time: large enough to be worth the samples around them, small
/// enough to notice when the cost changes.
const TRIAL: u64 = 4 << 20;
const LARGEST: u64 = 256 << 20;

/// Divisor of the missing bytes: a slice is no more than this part of them.
const SLICE: u64 = 8;

/// Minimum page cache for a request of its own, in bytes.
const MIN_AVAILABLE: u64 = 256 << 10;

/// State of one cgroup in the policy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Donor {
    /// Inactive page cache that wasn't requested yet, in bytes.
    inactive_file: u64,
    /// Bytes reclaimed recently, and the CPU seconds they took; the older the result, the less its
    /// weight.
    given: f64,
    cpu: f64,
    price: RecentCost,
    /// Stalls of the cgroup during its requests.
    stalls: RecentStalls,
    asked_now: Option<u64>,
    /// Number of slices requested.
    slices: u32,
    /// Part of this round's page cache that wasn't requested yet, in bytes.
    due: u64,
    /// Reason why the cgroup is excluded.
    out: Option<StoppedBy>,
}

/// Bounds beyond which a cgroup is excluded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CostBounds {
    /// Maximum cost in seconds of CPU time per GiB.
    pub max_cost: Option<f64>,
    /// Maximum share of the time in which the cgroup may be stalled.
    pub max_pressure: Option<f64>,
}

/// The policy's next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextRequest {
    /// Send this request.
    Ask {
        /// Index of the cgroup.
        index: usize,
        /// Bytes to request.
        bytes: u64,
        /// True to request page cache alone, if the kernel can do that.
        file_only: bool,
    },
    /// Wait for the requests under way.
    Wait,
    /// End: no cgroup is left, or nothing is missing.
    Over,
}

impl Donor {
    /// Creates a donor with this much inactive page cache.
    #[must_use]
    pub(crate) fn new(inactive_file: u64) -> Self {
        Self { inactive_file, ..Self::default() }
    }

    /// Records the result of a request, and whether it was for page cache alone.
    pub(crate) fn record(&mut self, report: &Report, file_only: bool, bounds: CostBounds) {
        self.asked_now = None;
        self.slices += u32::from(!file_only);
        self.given = self.given / 2.0 + report.reclaimed as f64;
        self.cpu = self.cpu / 2.0 + report.cpu.as_secs_f64();
        self.price.record(report.reclaimed, report.cpu);
        if let Some(stalled) = report.stalled {
            self.stalls.record(report.elapsed, stalled);
        }
        self.out = match report.stopped_by {
            StoppedBy::Reached => None,
            StoppedBy::Exhausted if file_only => {
                // Other memory may still be reclaimable.
                self.inactive_file = 0;
                None
            }
            why => Some(why),
        };
        if self.out.is_none() && bounds.max_cost.is_some_and(|most| self.price.last() > Some(most)) {
            self.out = Some(StoppedBy::Cost);
        }
        if self.out.is_none() && bounds.max_pressure.is_some_and(|most| self.stalls.share() > Some(most)) {
            self.out = Some(StoppedBy::Pressure);
        }
    }

    /// Excludes the cgroup from further requests.
    pub(crate) fn exclude(&mut self, why: StoppedBy) {
        self.asked_now = None;
        self.out = self.out.or(Some(why));
    }

    /// Returns the inactive page cache that wasn't requested yet, in bytes.
    #[must_use]
    pub(crate) fn inactive_file(&self) -> u64 {
        self.inactive_file
    }

    /// Returns the recent stalls of the cgroup during its requests.
    #[must_use]
    pub(crate) fn stalls(&self) -> &RecentStalls {
        &self.stalls
    }

    /// Returns the reason why the cgroup is excluded, if it is.
    #[must_use]
    pub(crate) fn excluded_by(&self) -> Option<StoppedBy> {
        self.out
    }

    fn is_free(&self) -> bool {
        self.asked_now.is_none() && self.out.is_none()
    }

    /// Returns the page cache that can still be requested, in bytes.
    fn cache(&self) -> u64 {
        if self.out.is_none() && self.inactive_file >= MIN_AVAILABLE { self.inactive_file } else { 0 }
    }

    /// Returns the bytes reclaimed per CPU second; infinite where no cost is known.
    fn worth(&self) -> f64 {
        if self.cpu > 0.0 { self.given / self.cpu } else { f64::INFINITY }
    }
}

/// Splits `missing` bytes over the amounts available: in proportion, and at most each amount.
#[must_use]
pub(crate) fn split(missing: u64, has: &[u64]) -> Vec<u64> {
    let all: u128 = has.iter().map(|&bytes| u128::from(bytes)).sum();
    let part = |bytes: u64| match all {
        all if all <= u128::from(missing) => bytes,
        // Rounded up, so that nothing is left over; the last request is for the bytes missing by
        // then.
        all => (u128::from(missing) * u128::from(bytes)).div_ceil(all) as u64,
    };
    has.iter().map(|&bytes| part(bytes)).collect()
}

/// Returns the most page cache to request in a round, in bytes, where a bound on the rate makes it
/// likely that the whole is cut short: then each cgroup has given its part so far.
#[must_use]
pub(crate) fn round(bytes_per_second: u64, givers: usize) -> u64 {
    bytes_per_second.max(MIN_AVAILABLE.saturating_mul(givers as u64))
}

/// Returns the next request when `missing` bytes are missing, those of the requests under way not
/// deducted. Page cache is requested in rounds of `round` bytes, or all at once.
#[must_use]
pub(crate) fn next(givers: &mut [Donor], missing: u64, round: Option<u64>, page: u64) -> NextRequest {
    let in_flight: u64 = givers.iter().filter_map(|giver| giver.asked_now).sum();
    let missing = missing.saturating_sub(in_flight);
    if missing == 0 {
        return if in_flight > 0 { NextRequest::Wait } else { NextRequest::Over };
    }
    let nothing_due = |givers: &[Donor]| givers.iter().all(|giver| !giver.is_free() || giver.due == 0);
    if in_flight == 0 && nothing_due(givers) {
        // The next round: the first, or a further one, or one after some cgroups gave less than
        // their part.
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

/// Returns the reason why a total with this much missing was not met, or that it was.
#[must_use]
pub(crate) fn ended(givers: &[Donor], missing: u64) -> StoppedBy {
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
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::reclaim::tests::report;

    const M: u64 = 1 << 20;
    const PAGE: u64 = 4096;

    /// Makes the report of a request at a cost of this many CPU seconds per GiB.
    fn gave(bytes: u64, price: f64) -> Report {
        let cpu = Duration::from_secs_f64(price * bytes as f64 / f64::from(1 << 30));
        Report { reclaimed: bytes, cpu, elapsed: cpu, stopped_by: StoppedBy::Reached, ..report() }
    }

    /// Runs the policy to its end; each cgroup has page cache and other memory at its own cost.
    /// Returns the bytes reclaimed from each.
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

        // A calm time before gives no credit.
        let mut giver = Donor::new(0);
        (0..600).for_each(|_| giver.record(&stalled(0.0), false, bounds));
        giver.record(&stalled(0.5), false, bounds);
        assert_eq!(giver.excluded_by(), None);
        giver.record(&stalled(1.0), false, bounds);
        assert_eq!(giver.excluded_by(), Some(StoppedBy::Pressure));

        // A time without figures counts as neither.
        let mut giver = Donor::new(0);
        giver.record(&stalled(0.05), false, bounds);
        (0..100).for_each(|_| giver.record(&Report { stalled: None, ..stalled(0.0) }, false, bounds));
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
