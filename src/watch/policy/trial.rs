//! Trials of the brake: beside an application that meets its limit, is it better to leave the reclaim
//! to its tasks? A pure function of time and counters.
//!
//! Where memory in use nearly fills the limit, a request of memctl may take what the kernel would
//! spare if it reclaimed for a task, a few pages at a time. Of a mapped file of 176 MiB, read at
//! random beside a stream of 20 MiB/s below 192 MiB, 910 MiB came back in 25 s on Linux 6.12, and
//! nothing where the tasks reclaimed 490 MiB themselves (`bench-watch … over`). Where memory in use
//! doesn't fit at all, as much comes back either way, and the tasks are better off without the work.
//! So nothing is reclaimed for a moment, and both costs are compared.

use std::time::Duration;

use super::backoff::Backoff;

/// Time for what was reclaimed before to come back, and time of the measurement: the kernel folds
/// its counters every 2 s.
const SETTLE_TIME: Duration = Duration::from_secs(1);
const MEASURE_TIME: Duration = Duration::from_secs(2);

/// Cost of a page that comes back, in pages that a task reclaims: a read from a disk, or two copies.
const REFAULT_COST: f64 = 4.0;

/// Counters of a cgroup, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Costs {
    /// Memory that came back.
    pub refaulted: u64,
    /// Memory that tasks reclaimed; `None` where that can't be read. Includes reclaim by request in
    /// some kernels, and is read while there is none.
    pub direct: Option<u64>,
}

/// Stage of a hold.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Settles,
    /// The costs at its beginning.
    Measures(Duration, Costs),
    /// Holding was better.
    Spell,
}

/// State of one cgroup.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trial {
    /// Time of the last check, and the memory that had come back by then.
    last: Option<(Duration, u64)>,
    /// Cost of the reclaim before the hold, as of bytes that tasks reclaim per second.
    before: f64,
    hold: Option<(Stage, Duration)>,
    /// Time for which it stays held if that is better, and for which it isn't tried again otherwise.
    spell: Backoff<30, 600>,
    futile: Backoff<60, 600>,
}

impl Trial {
    /// Records a check while memory is reclaimed, and begins a hold if memory `in_use` came back.
    /// Returns whether it did.
    pub(crate) fn check(&mut self, now: Duration, costs: Costs, in_use: bool) -> bool {
        let last = self.last.replace((now, costs.refaulted));
        let Some((at, refaulted)) = last.filter(|_| in_use && costs.direct.is_some()) else { return false };
        if self.futile.waits(now).is_some() {
            return false;
        }
        self.before = REFAULT_COST * rate(costs.refaulted.saturating_sub(refaulted), now.saturating_sub(at));
        self.last = None;
        self.hold = Some((Stage::Settles, now + SETTLE_TIME));
        true
    }

    /// Returns the end of the hold, if there is one.
    #[must_use]
    pub(crate) fn holds(&self, now: Duration) -> Option<Duration> {
        self.hold.map(|(_, until)| until).filter(|until| now < *until)
    }

    /// Returns whether [`Trial::go_on`] is due.
    #[must_use]
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.hold.is_some_and(|(_, until)| now >= until)
    }

    /// Goes on to the next stage.
    pub(crate) fn go_on(&mut self, now: Duration, costs: Costs) {
        let Some((stage, _)) = self.hold.take() else { return };
        match stage {
            Stage::Settles => self.hold = Some((Stage::Measures(now, costs), now + MEASURE_TIME)),
            Stage::Measures(began, first) => {
                let cost = held_cost(now.saturating_sub(began), first, costs);
                if cost.is_some_and(|cost| cost < self.before) {
                    self.futile.worked();
                    self.hold = Some((Stage::Spell, now + self.spell.failed(now)));
                } else {
                    self.spell.worked();
                    self.futile.failed(now);
                }
            }
            Stage::Spell => {}
        }
    }
}

/// Returns the cost of what happened during a hold, as of bytes that tasks reclaim per second.
fn held_cost(time: Duration, first: Costs, last: Costs) -> Option<f64> {
    let (before, direct) = first.direct.zip(last.direct)?;
    let back = rate(last.refaulted.saturating_sub(first.refaulted), time);
    Some(REFAULT_COST * back + rate(direct.saturating_sub(before), time))
}

/// Returns the bytes per second.
fn rate(bytes: u64, time: Duration) -> f64 {
    let time = time.as_secs_f64();
    if time > 0.0 { bytes as f64 / time } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Runs for some seconds: 20 MiB/s come back while memctl reclaims, and while it holds, others,
    /// with so much that tasks reclaim. Returns each second: reclaimed or held.
    fn run(seconds: u64, [back, direct]: [u64; 2]) -> String {
        let (mut trial, mut costs) = (Trial::default(), Costs { direct: Some(0), refaulted: 0 });
        let mut each = String::new();
        for second in 0..seconds {
            if trial.is_due(at(second)) {
                trial.go_on(at(second), costs);
            }
            let holds = trial.holds(at(second)).is_some() || trial.check(at(second), costs, second > 0);
            each.push(if holds { '#' } else { '.' });
            let rates = if holds { [back, direct] } else { [20 * M, 0] };
            costs.refaulted += rates[0];
            costs.direct = costs.direct.map(|bytes| bytes + rates[1]);
        }
        each
    }

    #[test]
    fn what_the_kernel_would_spare_is_left_to_it() {
        let each = run(300, [0, 20 * M]);
        assert!(each.starts_with(".###############################"), "{each}");
        assert!(each.matches('.').count() < 12, "{each}");
    }

    #[test]
    fn what_comes_back_anyway_is_reclaimed_for_the_tasks() {
        let each = run(300, [20 * M, 20 * M]);
        assert!(each.starts_with(".###............"), "{each}");
        assert_eq!(each.matches('#').count(), 9, "tried again after 1 and 3 minutes: {each}");
    }

    #[test]
    fn unread_counters_try_nothing() {
        let mut trial = Trial::default();
        for second in 0..9 {
            assert!(!trial.check(at(second), Costs { refaulted: second * 20 * M, direct: None }, true));
        }
    }
}
