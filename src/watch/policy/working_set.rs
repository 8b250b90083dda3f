//! Estimate of the working set from the knees that the [`--pressure` policy](super::pressure)
//! found. A pure function of those knees.

use std::time::Duration;

/// Number of knees that are remembered.
const MAX_KNEES: usize = 8;

/// Relative distance from the median beyond which a knee belongs to another working set.
const MAX_DISTANCE: f64 = 0.25;
/// Number of consecutive knees that show a smaller working set, once more than one knee confirmed
/// the larger. Memory that is touched rarely misleads: of a database whose rows are read every 10
/// to 60 s, 148, 48, 93 and 45 MiB were found under the same load. Growth counts at once: a larger
/// estimate ruins nobody.
const SHRUNK_KNEES: usize = 3;
/// Time for which a suggested limit stays above the usage that a cgroup grew back to by itself, and
/// divisor of the usage at a knee that gives the growth from which it did.
const REGROWN_TIME: Duration = Duration::from_secs(300);
const REGROWN_DIVISOR: u64 = 50;

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

/// Knees of one working set.
#[derive(Clone, Copy, Debug, Default)]
struct Knees {
    /// Usage at the last knees, oldest first.
    usages: [u64; MAX_KNEES],
    count: usize,
    /// Largest usage since the first knee.
    peak: u64,
}

impl Knees {
    fn all(&self) -> &[u64] {
        &self.usages[..self.count]
    }

    fn median(&self) -> Option<u64> {
        let mut known = self.usages;
        let known = &mut known[..self.count];
        known.sort_unstable();
        known.get(self.count / 2).copied()
    }

    /// Returns whether this usage belongs to another working set.
    fn differ_from(&self, usage: u64) -> bool {
        self.median().is_some_and(|bytes| bytes.abs_diff(usage) as f64 > MAX_DISTANCE * bytes as f64)
    }

    fn record(&mut self, usage: u64) {
        if self.count == MAX_KNEES {
            self.usages.rotate_left(1);
            self.count -= 1;
        }
        self.usages[self.count] = usage;
        self.count += 1;
        self.peak = self.peak.max(usage);
    }
}

/// The knees of one cgroup.
#[derive(Clone, Debug, Default)]
pub(crate) struct Estimate {
    knees: Knees,
    /// Last knees of another working set, if more follow.
    other: Knees,
    /// Time of the last knee, and the usage then.
    last: Duration,
    last_usage: u64,
    /// Largest usage that the cgroup grew back to after a knee, and when.
    regrown: Option<(u64, Duration)>,
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
        (self.last, self.last_usage) = (now, usage);
        if !self.knees.differ_from(usage) {
            self.other = Knees::default();
            self.knees.record(usage);
            return;
        }
        if self.other.differ_from(usage) {
            self.other = Knees::default();
        }
        self.other.record(usage);
        let is_larger = self.knees.median().is_some_and(|bytes| usage > bytes);
        if is_larger || self.knees.count == 1 || self.other.count >= SHRUNK_KNEES {
            self.knees = std::mem::take(&mut self.other);
        }
    }

    /// Records the usage between knees.
    pub(crate) fn used(&mut self, now: Duration, usage: u64) {
        for knees in [&mut self.knees, &mut self.other] {
            if knees.count > 0 {
                knees.peak = knees.peak.max(usage);
            }
        }
        let grew = usage > self.last_usage + self.last_usage / REGROWN_DIVISOR;
        if self.knees.count > 0 && grew && self.regrown(now).is_none_or(|regrown| usage >= regrown) {
            self.regrown = Some((usage, now));
        }
    }

    /// Returns the largest usage that the cgroup grew back to recently.
    fn regrown(&self, now: Duration) -> Option<u64> {
        self.regrown.filter(|(_, at)| now.saturating_sub(*at) < REGROWN_TIME).map(|(usage, _)| usage)
    }

    /// Returns the estimate; `None` before the first knee.
    #[must_use]
    pub(crate) fn working_set(&self, now: Duration) -> Option<WorkingSet> {
        let bytes = self.knees.median()?;
        let known = self.knees.all();
        let (least, most) = (known.iter().min()?, known.iter().max()?);
        let age = now.saturating_sub(self.last);
        let often = known.len() as f64 / (known.len() + 1) as f64;
        // Smaller ones don't count yet, but they are a reason for doubt.
        let lowest = self.other.all().iter().min().unwrap_or(least).min(least);
        let near = 1.0 - ((most - lowest) as f64 / bytes.max(1) as f64).min(1.0);
        let fresh = 0.5f64.powf(age.as_secs_f64() / HALF_LIFE.as_secs_f64());
        let peak = self.knees.peak.max(self.regrown(now).unwrap_or(0));
        let suggested = peak + peak / MARGIN_DIVISOR + (most - least);
        Some(WorkingSet {
            bytes,
            confidence: often * near * fresh,
            age,
            suggested: suggested.next_multiple_of(1 << 20),
        })
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
        estimate.used(at(0), 500 * M);
        estimate.record(at(0), 60 * M);
        estimate.used(at(0), 80 * M);
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
    fn a_smaller_working_set_takes_several_knees() {
        assert_eq!(estimated(&[300, 60]).bytes, 60 * M, "a single knee is no working set yet");
        let once = estimated(&[148, 148, 148, 48]);
        assert_eq!((once.bytes, once.suggested), (148 * M, 163 * M));
        assert!(once.confidence < 0.3, "but there is doubt: {once:?}");
        assert_eq!(estimated(&[148, 148, 48, 93, 45]).bytes, 148 * M, "they contradict each other");
        assert_eq!(estimated(&[120, 120, 60, 120, 60, 60]).bytes, 120 * M);
        let shrunk = estimated(&[120, 120, 120, 60, 62, 58]);
        assert_eq!((shrunk.bytes, shrunk.suggested), (60 * M, 73 * M), "68.2, and 4 for the spread");
    }

    #[test]
    fn a_limit_is_above_what_grew_back_by_itself() {
        let mut estimate = Estimate::default();
        estimate.used(at(0), 500 * M);
        for (second, knee) in [(0, 120), (10, 60), (20, 60), (30, 60)] {
            estimate.record(at(second), knee * M);
            estimate.used(at(second), if second == 10 { 90 * M } else { 61 * M });
        }
        let suggested = |second| estimate.working_set(at(second)).map(|set| (set.bytes, set.suggested));
        assert_eq!(suggested(31), Some((60 * M, 99 * M)));
        assert_eq!(suggested(311), Some((60 * M, 99 * M)), "the peak of this set");
        let mut estimate = Estimate::default();
        for (second, knee) in [(0, 148), (10, 48), (20, 30)] {
            estimate.record(at(second), knee * M);
            estimate.used(at(second + 5), if second == 10 { 93 * M } else { knee * M });
        }
        let suggested = |second| estimate.working_set(at(second)).map(|set| (set.bytes, set.suggested));
        assert_eq!(suggested(30), Some((30 * M, 103 * M)), "93 came back after the second knee");
        assert_eq!(suggested(400), Some((30 * M, 33 * M)), "long ago");
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
