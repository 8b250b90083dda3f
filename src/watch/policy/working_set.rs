//! Estimate of the working set from the knees that the [`--pressure` policy](super::pressure)
//! found. A pure function of those knees.

use std::time::Duration;

/// Number of knees that are remembered.
const MAX_KNEES: usize = 8;

/// Relative distance from the median beyond which a knee belongs to another working set.
const MAX_DISTANCE: f64 = 0.25;

/// Time without a knee in which confidence halves.
const HALF_LIFE: Duration = Duration::from_secs(600);

/// Divisor of the largest usage that gives the margin of a suggested limit above it.
const MARGIN_DIVISOR: u64 = 10;

/// Estimate of a working set. Amounts are bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WorkingSet {
    /// Median usage at the last knees.
    pub bytes: u64,
    /// Confidence from 0 to 1: rises with the number of knees and their closeness, falls with their
    /// age.
    pub confidence: f64,
    /// Time since the last knee.
    pub age: Duration,
    /// Suggested `memory.max`: a tenth above the largest usage since the first of those knees, plus
    /// their spread.
    pub suggested: u64,
}

/// What shows whether the tasks of a cgroup run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Activity {
    /// True if all tasks are frozen (`frozen` of `cgroup.events`): paused.
    pub is_frozen: bool,
    /// CPU time used so far (`usage_usec` of `cpu.stat`); `None` where it can't be read.
    pub cpu: Option<Duration>,
}

/// Reason why a knee says nothing of the working set: no task ran, so that nothing could refault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// The cgroup is frozen (paused).
    Frozen,
    /// Its tasks used no CPU since the last knee.
    NoCpu,
}

impl Idle {
    /// Returns its name in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::NoCpu => "idle",
        }
    }
}

/// The knees of one cgroup.
#[derive(Clone, Debug, Default)]
pub(crate) struct Estimate {
    /// Usage at the last knees, oldest first.
    knees: [u64; MAX_KNEES],
    count: usize,
    last: Duration,
    /// Largest usage since the first knee.
    peak: u64,
    /// CPU time that the tasks had used at the last knee, or at the first sample.
    cpu: Option<Duration>,
    /// Reason why the latest knee didn't count.
    idle: Option<Idle>,
}

impl Estimate {
    /// Records the activity at a sample.
    pub(crate) fn observe(&mut self, activity: Activity) {
        self.cpu = self.cpu.or(activity.cpu);
        if activity.is_frozen {
            self.idle = Some(Idle::Frozen);
        } else if self.idle == Some(Idle::Frozen) {
            self.idle = None;
        }
    }

    /// Returns the reason why the latest knee didn't count.
    #[must_use]
    pub(crate) fn idle(&self) -> Option<Idle> {
        self.idle
    }

    /// Records a knee. Returns whether it counts: memory that no task could have used is no working
    /// set.
    pub(crate) fn knee(&mut self, now: Duration, usage: u64, activity: Activity) -> bool {
        let ran = activity.cpu.zip(self.cpu).is_none_or(|(now, before)| now > before);
        self.idle = if activity.is_frozen { Some(Idle::Frozen) } else { (!ran).then_some(Idle::NoCpu) };
        if self.idle.is_some() {
            return false;
        }
        self.cpu = activity.cpu.or(self.cpu);
        self.record(now, usage);
        true
    }

    fn record(&mut self, now: Duration, usage: u64) {
        let differs = |bytes: u64| bytes.abs_diff(usage) as f64 > MAX_DISTANCE * bytes as f64;
        if self.median().is_some_and(differs) {
            (self.count, self.peak) = (0, 0);
        }
        if self.count == MAX_KNEES {
            self.knees.rotate_left(1);
            self.count -= 1;
        }
        self.knees[self.count] = usage;
        self.count += 1;
        (self.last, self.peak) = (now, self.peak.max(usage));
    }

    /// Records the usage between knees.
    pub(crate) fn used(&mut self, usage: u64) {
        if self.count > 0 {
            self.peak = self.peak.max(usage);
        }
    }

    /// Returns the estimate; `None` before the first knee.
    #[must_use]
    pub(crate) fn working_set(&self, now: Duration) -> Option<WorkingSet> {
        let bytes = self.median()?;
        let known = &self.knees[..self.count];
        let (least, most) = (known.iter().min()?, known.iter().max()?);
        let age = now.saturating_sub(self.last);
        let often = self.count as f64 / (self.count + 1) as f64;
        let near = 1.0 - ((most - least) as f64 / bytes.max(1) as f64).min(1.0);
        let fresh = 0.5f64.powf(age.as_secs_f64() / HALF_LIFE.as_secs_f64());
        let suggested = self.peak + self.peak / MARGIN_DIVISOR + (most - least);
        Some(WorkingSet {
            bytes,
            confidence: often * near * fresh,
            age,
            suggested: suggested.next_multiple_of(1 << 20),
        })
    }

    fn median(&self) -> Option<u64> {
        let mut known = self.knees;
        let known = &mut known[..self.count];
        known.sort_unstable();
        known.get(self.count / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn estimated(knees: &[u64]) -> WorkingSet {
        let mut estimate = Estimate::default();
        for (time, knee) in knees.iter().enumerate() {
            estimate.record(at(time as u64), knee * M);
        }
        estimate.working_set(at(knees.len() as u64)).expect("there was a knee")
    }

    #[test]
    fn confidence_grows_with_each_knee_and_fades() {
        assert_eq!(Estimate::default().working_set(at(1)), None);
        let (once, often) = (estimated(&[60]), estimated(&[60; 12]));
        assert_eq!((once.bytes, often.bytes, often.age), (60 * M, 60 * M, at(1)));
        assert!((0.45..0.5).contains(&once.confidence) && (0.85..0.9).contains(&often.confidence));
        assert!(
            estimated(&[50, 60, 60, 60]).confidence < estimated(&[60; 4]).confidence,
            "the nearer the better"
        );
        let mut estimate = Estimate::default();
        estimate.record(at(0), 60 * M);
        let later = estimate.working_set(at(600)).expect("there was a knee");
        assert!((0.24..0.26).contains(&later.confidence), "{later:?}");
    }

    #[test]
    fn a_limit_leaves_a_margin_above_the_largest_usage() {
        assert_eq!(estimated(&[60]).suggested, 66 * M);
        assert_eq!(estimated(&[60, 64, 60]).suggested, 75 * M, "70.4, and 4 for the spread");
        let mut estimate = Estimate::default();
        estimate.used(500 * M);
        estimate.record(at(0), 60 * M);
        estimate.used(80 * M);
        assert_eq!(estimate.working_set(at(1)).map(|set| set.suggested), Some(88 * M));
    }

    #[test]
    fn another_working_set_begins_anew() {
        let changed = estimated(&[60, 60, 60, 120]);
        assert_eq!((changed.bytes, changed.suggested), (120 * M, 132 * M));
        assert!(changed.confidence < 0.5);
        assert_eq!(estimated(&[60, 62, 64, 66, 68]).bytes, 64 * M, "a drift is none");
    }

    #[test]
    fn silence_is_no_evidence() {
        let running = |cpu| Activity { is_frozen: false, cpu: Some(at(cpu)) };
        let mut estimate = Estimate::default();
        estimate.observe(running(5));
        assert!(!estimate.knee(at(1), 60 * M, running(5)));
        assert_eq!((estimate.working_set(at(1)), estimate.idle()), (None, Some(Idle::NoCpu)));
        let frozen = Activity { is_frozen: true, ..running(6) };
        assert!(!estimate.knee(at(2), 60 * M, frozen), "it ran, and was frozen before the knee");
        assert_eq!((estimate.working_set(at(2)), estimate.idle()), (None, Some(Idle::Frozen)));
        estimate.observe(running(6));
        assert_eq!(estimate.idle(), None);
        estimate.observe(frozen);
        assert_eq!(estimate.idle(), Some(Idle::Frozen), "without a knee as well");
        assert!(estimate.knee(at(3), 60 * M, running(6)));
        let set = estimate.working_set(at(3)).expect("a knee");
        assert_eq!(estimate.idle(), None);
        // Knees of an idle cgroup neither confirm nor move the estimate.
        assert!(!estimate.knee(at(4), 10 * M, running(6)) && !estimate.knee(at(5), 10 * M, frozen));
        let later = estimate.working_set(at(5)).expect("a knee");
        assert!(later.bytes == set.bytes && later.confidence < set.confidence && later.age == at(2));
        // Where CPU time can't be read, nothing is known of it.
        assert!(Estimate::default().knee(at(1), M, Activity::default()));
    }
}
