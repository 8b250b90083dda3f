//! Trials of the brake: beside an application that meets its limit, is it better to leave the reclaim
//! to its tasks? A pure function of time and counters.
//!
//! Where memory in use nearly fills the limit, a request of memctl may take what the kernel would
//! spare if it reclaimed for a task, a few pages at a time. Of a mapped file of 176 MiB, read at
//! random beside a stream of 20 MiB/s below 192 MiB, 910 MiB came back in 25 s on Linux 6.12, and
//! nothing where the tasks reclaimed 490 MiB themselves (`bench-watch … over`). Where memory in use
//! doesn't fit at all, as much comes back either way, and the tasks are better off without the work.
//! So nothing is reclaimed for a moment, then a little is kept free, and the costs of both are
//! compared, for as long as that goes on.

use std::time::Duration;

use super::backoff::Backoff;

/// Time for what was reclaimed before to come back, time for reclaim to show its effect, and time of
/// a measurement: the kernel folds its counters every 2 s. On Linux 6.12, 33 MiB came back in the
/// first two seconds of a hold, and next to nothing after that.
const RETURN_TIME: Duration = Duration::from_secs(2);
const SETTLE_TIME: Duration = Duration::from_secs(1);
const MEASURE_TIME: Duration = Duration::from_secs(2);

/// Time of a part of the reclaim. If one costs less than half of the first, the workload is another,
/// and what holding would cost isn't known any more.
const PART_TIME: Duration = Duration::from_secs(30);

/// Cost of a page that comes back, in pages that a task reclaims: a read from a disk, or two copies.
const REFAULT_COST: f64 = 4.0;

/// Share of the cost of reclaim below which holding is better: what tasks reclaim stalls them at
/// once, and two seconds measure no difference that is small.
const CLEAR_SHARE: f64 = 0.75;

/// Counters of a cgroup, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Costs {
    /// Memory that came back.
    pub refaulted: u64,
    /// Memory that tasks reclaimed; `None` where that can't be read. Includes reclaim by request in
    /// some kernels, and counts only while there is none.
    pub direct: Option<u64>,
}

/// Stage of a trial.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Nothing is reclaimed; what was reclaimed before comes back.
    Settles,
    /// Nothing is reclaimed from this time on, with these costs at its beginning.
    Holds(Duration, Costs),
    /// A little is kept free again. Holding cost that much, as of bytes that tasks reclaim per second.
    Resumes(f64),
    /// The same, until this time.
    Reclaims { held: f64, all: Part, part: Part, first: Option<f64>, until: Duration },
}

/// A time of reclaim: its beginning, and the costs at that.
#[derive(Clone, Copy, Debug)]
struct Part {
    began: Duration,
    costs: Costs,
}

impl Part {
    /// Returns the cost of what came back, as of bytes that tasks reclaim per second.
    fn cost(&self, now: Duration, costs: Costs) -> f64 {
        REFAULT_COST * refaults(now.saturating_sub(self.began), self.costs, costs)
    }
}

/// State of one cgroup.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trial {
    /// The stage, and its end.
    stage: Option<(Stage, Duration)>,
    /// Time for which it stays held if that is better, and for which it is reclaimed otherwise. A hold
    /// shows nothing of what reclaim would cost meanwhile, and an application that no longer meets
    /// its limit has no headroom in it.
    spell: Backoff<30, 120>,
    futile: Backoff<60, 600>,
}

impl Trial {
    /// Begins a trial, if none is in progress. Returns whether it did.
    pub(crate) fn begin(&mut self, now: Duration, costs: Costs) -> bool {
        if self.stage.is_some() || costs.direct.is_none() {
            return false;
        }
        self.stage = Some((Stage::Settles, now + RETURN_TIME));
        true
    }

    /// Returns whether it holds or measures, or reclaims while it goes on to compare.
    #[must_use]
    pub(crate) fn is_in_progress(&self) -> bool {
        self.stage.is_some()
    }

    /// Returns the end of the hold, if there is one.
    #[must_use]
    pub(crate) fn holds(&self, now: Duration) -> Option<Duration> {
        let (stage, until) = self.stage.filter(|(_, until)| now < *until)?;
        matches!(stage, Stage::Settles | Stage::Holds(..)).then_some(until)
    }

    /// Returns whether [`Trial::go_on`] is due.
    #[must_use]
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.stage.is_some_and(|(_, until)| now >= until)
    }

    /// Goes on to the next stage. Returns whether a hold ended by that.
    pub(crate) fn go_on(&mut self, now: Duration, costs: Costs) -> bool {
        let Some((stage, _)) = self.stage.take() else { return false };
        let next = |stage, time| Some((stage, now + time));
        match stage {
            Stage::Settles => self.stage = next(Stage::Holds(now, costs), MEASURE_TIME),
            Stage::Holds(began, first) => {
                let held = held_cost(now.saturating_sub(began), first, costs);
                self.stage = held.and_then(|held| next(Stage::Resumes(held), SETTLE_TIME));
                return true;
            }
            Stage::Resumes(held) => {
                let until = now + self.futile.failed(now);
                let part = Part { began: now, costs };
                self.stage =
                    next(Stage::Reclaims { held, all: part, part, first: None, until }, MEASURE_TIME);
            }
            Stage::Reclaims { held, all, mut part, mut first, until } => {
                let mut is_another = false;
                if now.saturating_sub(part.began) >= PART_TIME {
                    let cost = part.cost(now, costs);
                    is_another = cost < *first.get_or_insert(cost) / 2.0;
                    part = Part { began: now, costs };
                }
                if held < CLEAR_SHARE * all.cost(now, costs) {
                    self.futile.worked();
                    self.stage = next(Stage::Holds(now, costs), self.spell.failed(now));
                } else if is_another {
                    (self.futile, self.spell) = Default::default();
                } else if now < until {
                    self.stage = next(Stage::Reclaims { held, all, part, first, until }, MEASURE_TIME);
                } else {
                    self.spell.worked();
                }
            }
        }
        false
    }
}

/// Returns the bytes per second that came back.
fn refaults(time: Duration, first: Costs, last: Costs) -> f64 {
    rate(last.refaulted.saturating_sub(first.refaulted), time)
}

/// Returns the cost of what happened during a hold, as of bytes that tasks reclaim per second.
fn held_cost(time: Duration, first: Costs, last: Costs) -> Option<f64> {
    let (before, direct) = first.direct.zip(last.direct)?;
    Some(REFAULT_COST * refaults(time, first, last) + rate(direct.saturating_sub(before), time))
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

    /// Runs for some seconds: so many MiB/s come back while memctl reclaims, and while it holds,
    /// others, with so much that tasks reclaim. Returns each second: reclaimed or held.
    fn run(seconds: u64, reclaimed: u64, [back, direct]: [u64; 2]) -> String {
        let (mut trial, mut costs) = (Trial::default(), Costs { direct: Some(0), ..Costs::default() });
        let mut each = String::new();
        for second in 0..seconds {
            if trial.is_due(at(second)) {
                trial.go_on(at(second), costs);
            }
            // Each second's check finds memory in use.
            let holds = trial.holds(at(second)).is_some() || second > 0 && trial.begin(at(second), costs);
            each.push(if holds { '#' } else { '.' });
            let rates = if holds { [back, direct] } else { [reclaimed, 0] };
            costs.refaulted += rates[0] * M;
            costs.direct = costs.direct.map(|bytes| bytes + rates[1] * M);
        }
        each
    }

    #[test]
    fn what_the_kernel_would_spare_is_left_to_it() {
        let each = run(300, 20, [0, 20]);
        assert!(each.starts_with(".####...##############################...###"), "{each}");
        assert_eq!(each.matches('.').count(), 13, "three seconds for each measurement: {each}");
    }

    #[test]
    fn what_comes_back_anyway_is_reclaimed_for_the_tasks() {
        for back in [20, 15, 12] {
            let each = run(300, 20, [back, 20]);
            assert!(each.starts_with(".####..............."), "{each}");
            assert_eq!(each.matches('#').count(), 12, "tried again after 1 and 3 minutes: {each}");
        }
    }

    #[test]
    fn a_workload_that_changes_is_measured_anew() {
        let (mut trial, mut costs) = (Trial::default(), Costs { direct: Some(0), ..Costs::default() });
        assert!(trial.begin(at(0), costs) && !trial.begin(at(0), costs));
        assert_eq!((trial.go_on(at(1), costs), trial.go_on(at(3), costs)), (false, true));
        assert_eq!((trial.holds(at(3)), trial.is_due(at(3))), (None, false));
        costs.refaulted += 100 * M;
        trial.go_on(at(4), costs);
        costs.refaulted += 100 * M;
        trial.go_on(at(6), costs);
        assert_eq!(trial.holds(at(6)), Some(at(36)));
        // As much comes back during the hold as did by reclaim.
        costs.refaulted += 1500 * M;
        assert!(trial.go_on(at(36), costs));
        trial.go_on(at(37), costs);
        costs.refaulted += 100 * M;
        trial.go_on(at(39), costs);
        assert_eq!(
            (trial.holds(at(39)), trial.begin(at(39), costs)),
            (None, false),
            "reclaimed, for a minute"
        );
    }

    #[test]
    fn what_holding_cost_for_another_workload_does_not_count() {
        let mut trial = Trial::default();
        let mut costs = Costs { direct: Some(0), ..Costs::default() };
        let (mut began, mut is_held) = (Vec::new(), false);
        for second in 0..400 {
            if trial.is_due(at(second)) {
                trial.go_on(at(second), costs);
            }
            let holds = trial.holds(at(second)).is_some() || second > 0 && trial.begin(at(second), costs);
            if holds && !is_held {
                began.push(second);
            }
            is_held = holds;
            // First all comes back, with or without reclaim. Later nothing would without, if tasks
            // reclaim a little.
            let (back, direct) = match (second < 150, holds) {
                (true, _) => (20, 0),
                (false, true) => (0, 2),
                (false, false) => (5, 0),
            };
            costs.refaulted += back * M;
            costs.direct = costs.direct.map(|bytes| bytes + direct * M);
        }
        // After 150 s: at the end of the next part, and of those that follow 30 s and more of a hold.
        assert_eq!(began[..2], [1, 66], "{began:?}");
        assert!(began[2] > 150 && began[2] < 150 + 65, "{began:?}");
        assert!(began[3] < began[2] + 12, "held at once: {began:?}");
    }

    #[test]
    fn unread_counters_try_nothing() {
        let mut trial = Trial::default();
        for second in 0..9 {
            assert!(!trial.begin(at(second), Costs { refaulted: second * 20 * M, ..Costs::default() }));
        }
    }

    #[test]
    fn counters_that_vanish_end_a_trial() {
        let mut trial = Trial::default();
        let (read, unread) = (Costs { direct: Some(0), ..Costs::default() }, Costs::default());
        assert!(trial.begin(at(0), read));
        trial.go_on(at(1), read);
        assert!(trial.go_on(at(3), unread));
        assert!(trial.holds(at(3)).is_none() && !trial.is_due(at(9)));
    }
}
