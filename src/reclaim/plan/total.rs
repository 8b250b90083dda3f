//! The forecast of several requests together: the bounds they share, and one amount for all of
//! them.

use std::time::Duration;

use super::{Blocker, Plan};
use crate::reclaim::{Rate, Request, Tolerance};

/// Forecast of one amount for several cgroups. Amounts are bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct TotalPlan {
    /// Requested bytes; `None` for all that can be reclaimed.
    pub requested: Option<u64>,
    /// Reclaimable bytes of all cgroups.
    pub reclaimable: u64,
    /// Part of the request beyond inactive page cache: only trying shows which cgroups get it.
    pub rest: Option<u64>,
    /// Reasons why the request would stop early, by the arithmetic.
    pub guards: Vec<Blocker>,
}

impl TotalPlan {
    /// Makes the forecast of the whole, by the bounds of `request`, which all share. Of the parts'
    /// blockers, only those that would exclude a cgroup stay.
    #[must_use]
    pub fn new(requested: Option<u64>, plans: &mut [Plan], request: &Request) -> Self {
        for plan in &mut *plans {
            plan.guards.retain(|guard| matches!(guard, Blocker::Pressure(_) | Blocker::Unsupported(_)));
        }
        let cache: Option<u64> = plans.iter().map(|plan| plan.requested).sum();
        let there = |plans: &mut dyn Iterator<Item = &Plan>| plans.map(|plan| plan.reclaimable.bytes()).sum();
        let reclaimable: u64 = there(&mut plans.iter());
        let at_ease: u64 = there(&mut plans.iter().filter(|plan| plan.guards.is_empty()));
        let tolerated = requested.map_or(0, |requested| Tolerance::under(request.tolerance, requested));
        let short = |there: u64| requested.map(|requested| requested.saturating_sub(there));
        let guard = match short(at_ease).filter(|&short| short > tolerated) {
            None => None,
            // The cgroups that would be excluded are what the total lacks.
            Some(_) if short(reclaimable) <= Some(tolerated) => {
                plans.iter().find_map(|plan| plan.guards.first().copied())
            }
            Some(_) => short(reclaimable).map(Blocker::Short),
        };
        let expected = requested.unwrap_or(u64::MAX).min(reclaimable);
        let late = request.rate.as_ref().and_then(|rate| late(request.timeout, rate.time_for(expected)));
        Self {
            requested,
            reclaimable,
            rest: requested.zip(cache).map(|(requested, cache)| requested.saturating_sub(cache)),
            guards: guard.into_iter().chain(late).collect(),
        }
    }

    /// Returns the most bytes that the request would reclaim.
    #[must_use]
    pub fn expected(&self) -> u64 {
        self.requested.map_or(self.reclaimable, |requested| requested.min(self.reclaimable))
    }
}

/// Adds the effects of a bound on the rate that the requests share, `parallel` of which are under
/// way at a time.
pub fn share_rate(plans: &mut [Plan], rate: &Rate, parallel: usize) {
    let expected: Vec<_> = plans.iter().map(Plan::expected).collect();
    for (index, plan) in plans.iter_mut().enumerate() {
        let own = expected[index];
        // At best the others are the smallest of all, and the bandwidth they no longer need goes to
        // this request.
        let mut others: Vec<_> = expected.iter().enumerate().filter(|&(other, _)| other != index).collect();
        others.sort_unstable_by_key(|&(_, bytes)| bytes);
        let beside = others.iter().take(parallel.saturating_sub(1)).map(|&(_, bytes)| own.min(*bytes));
        let takes = rate.time_for(beside.fold(own, u64::saturating_add));
        plan.guards.extend(late(plan.timeout, takes));
    }
}

fn late(timeout: Option<Duration>, takes: Duration) -> Option<Blocker> {
    timeout.filter(|&timeout| timeout < takes).map(|_| Blocker::Timeout(takes))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::kind::Kind;
    use crate::reclaim::Goal;
    use crate::reclaim::plan::Reclaimable;
    use crate::size::Amount;

    const M: u64 = 1 << 20;

    fn plan(requested: u64, there: u64, timeout: Option<u64>) -> Plan {
        Plan {
            subject: crate::reclaim::TargetKind::Cgroup,
            requested: Some(requested),
            down_to: None,
            current: None,
            reclaimable: Reclaimable { file: there, ..Reclaimable::default() },
            kind: Kind::All,
            chunk: None,
            timeout: timeout.map(Duration::from_secs),
            max_pressure: None,
            pressure: None,
            guards: Vec::new(),
        }
    }

    fn request(timeout: Option<u64>, rate: Option<u64>) -> Request {
        Request {
            timeout: timeout.map(Duration::from_secs),
            rate: rate.map(|rate| Arc::new(Rate::new(rate))),
            ..Request::new(Goal::Reclaim(Amount::Max), Kind::All)
        }
    }

    #[test]
    fn a_total_is_judged_as_a_whole() {
        // One cgroup can't give its part, the other has more than enough.
        let mut plans = vec![plan(50 * M, 10 * M, None), plan(50 * M, 200 * M, None)];
        plans[0].guards = vec![Blocker::Short(40 * M)];
        let total = TotalPlan::new(Some(120 * M), &mut plans, &request(None, None));
        assert_eq!((total.guards, total.rest, total.reclaimable), (vec![], Some(20 * M), 210 * M));
        assert_eq!(plans[0].guards, []);
        let total = TotalPlan::new(Some(220 * M), &mut plans, &request(None, None));
        assert_eq!(total.guards, [Blocker::Short(10 * M)]);
        let total = TotalPlan::new(Some(100 * M), &mut plans, &request(Some(5), Some(10 * M)));
        assert_eq!(total.guards, [Blocker::Timeout(Duration::from_secs(10))]);
        plans[1].guards = vec![Blocker::Pressure(5000)];
        let total = TotalPlan::new(Some(120 * M), &mut plans, &request(None, None));
        assert_eq!(total.guards, [Blocker::Pressure(5000)], "what is left is too little");
    }

    #[test]
    fn a_rate_is_shared_by_those_that_are_under_way() {
        let slow = |parallel| {
            let mut plans = vec![plan(30 * M, 99 * M, Some(8)), plan(50 * M, 99 * M, Some(8))];
            share_rate(&mut plans, &Rate::new(10 * M), parallel);
            plans.into_iter().map(|plan| plan.guards).collect::<Vec<_>>()
        };
        assert_eq!(slow(1), [[], []], "each has the whole rate for itself");
        assert_eq!(slow(2), [vec![], vec![]], "6 s, and 8 s");
        let mut plans = vec![plan(50 * M, 99 * M, Some(8)), plan(50 * M, 99 * M, Some(8))];
        share_rate(&mut plans, &Rate::new(10 * M), 2);
        assert_eq!(plans[1].guards, [Blocker::Timeout(Duration::from_secs(10))]);
    }
}
