//! Estimate of the working set from the knees that the [`--pressure` policy](super::pressure)
//! found, and from what came back after them. A pure function of those.

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
/// Share of a press that came back below which the usage is only a bound: the first smaller one
/// takes its place.
const BOUND_SHARE: f64 = 0.5;
/// Time for which a suggested limit stays above the usage that a cgroup grew back to by itself, and
/// divisor of the usage at a knee that gives the growth from which it did.
const REGROWN_TIME: Duration = Duration::from_secs(300);
const REGROWN_DIVISOR: u64 = 50;

/// Time without a knee in which confidence halves.
const HALF_LIFE: Duration = Duration::from_secs(600);

/// Confidence in a knee before it is known what comes back.
const MET_CONFIDENCE: f64 = 0.25;

/// Divisor of the largest usage that gives the margin of a suggested limit above it.
const MARGIN_DIVISOR: u64 = 10;

/// Estimate of a working set. Amounts are bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WorkingSet {
    /// Median usage after the last knees, with what came back within the reuse time. Before the first
    /// such time is over: the usage at the knee, below which memory is touched all the time.
    pub bytes: u64,
    /// The least and the most of those usages.
    pub range: (u64, u64),
    /// Compressed copies that the cgroup is charged for besides (zswap), at the last knee. The
    /// suggested limit has room for them.
    pub copies: u64,
    /// Confidence from 0 to 1: rises with the number of knees, their closeness, and the share of the
    /// last press that came back; falls with their age.
    pub confidence: f64,
    /// Time since the last knee.
    pub age: Duration,
    /// Reuse time: memory that is touched less often doesn't belong to the working set.
    pub reuse: Duration,
    /// Suggested `memory.max`: a tenth above the largest usage since the first of those knees, plus
    /// their spread. `None` before the first reuse time is over.
    pub suggested: Option<u64>,
}

/// Usage that shows the size of the working set. Amounts are bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Knee {
    usage: u64,
    /// Part of the usage that is compressed copies (zswap): memory that isn't in use.
    copies: u64,
    /// Share of what was pressed out before that was in use.
    share: f64,
    has_settled: bool,
}

impl Knee {
    /// Returns the knee at the usage below which memory is touched all the time.
    #[must_use]
    pub(crate) fn met(usage: u64) -> Self {
        Self { usage, copies: 0, share: 1.0, has_settled: false }
    }

    /// Returns the knee at the usage after the reuse time, with what came back: that share of what
    /// was pressed out before.
    #[must_use]
    pub(crate) fn settled(usage: u64, share: f64) -> Self {
        Self { share, has_settled: true, ..Self::met(usage) }
    }

    /// Returns the knee with that part of its usage being compressed copies.
    #[must_use]
    pub(crate) fn with_copies(self, copies: u64) -> Self {
        Self { copies: copies.min(self.usage), ..self }
    }

    /// Returns the usage without copies.
    fn set(self) -> u64 {
        self.usage - self.copies
    }
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

/// A knee of which it isn't known yet what comes back.
#[derive(Clone, Copy, Debug)]
struct Met {
    set: u64,
    /// Largest usage since.
    peak: u64,
}

/// Usages that settled after the knees of one working set.
#[derive(Clone, Copy, Debug, Default)]
struct Knees {
    /// The last usages without copies, oldest first.
    usages: [u64; MAX_KNEES],
    count: usize,
    /// Largest usage since the first knee, with copies.
    peak: u64,
    /// True if one of them is more than a bound.
    is_confirmed: bool,
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

    fn record(&mut self, knee: Knee) {
        if self.count == MAX_KNEES {
            self.usages.rotate_left(1);
            self.count -= 1;
        }
        self.usages[self.count] = knee.set();
        self.count += 1;
        self.peak = self.peak.max(knee.usage);
        self.is_confirmed |= knee.share >= BOUND_SHARE;
    }
}

/// The knees of one cgroup.
#[derive(Clone, Debug, Default)]
pub(crate) struct Estimate {
    /// Reuse time.
    pub reuse: Duration,
    knees: Knees,
    /// Last knees of another working set, if more follow.
    other: Knees,
    /// The last knee, as long as nothing has settled.
    met: Option<Met>,
    /// Usage at a later knee that is larger than the working set, and hasn't settled.
    doubt: Option<u64>,
    /// Time of the last knee, and the usage and the copies then.
    last: Duration,
    last_usage: u64,
    copies: u64,
    /// Share of the last press that was in use.
    share: f64,
    /// Largest usage that the cgroup grew back to after a knee, and when.
    regrown: Option<(u64, Duration)>,
    /// CPU time that the tasks had used at the last knee, or at the first sample.
    cpu: Option<Duration>,
    /// Reason why the latest knee didn't count.
    idle: Option<Idle>,
}

impl Estimate {
    /// Creates the estimate for memory that is in use if it is touched within `reuse`.
    #[must_use]
    pub(crate) fn new(reuse: Duration) -> Self {
        Self { reuse, ..Self::default() }
    }

    /// Sets another reuse time. What settled within the old one is another working set.
    pub(crate) fn adopt(&mut self, reuse: Duration) {
        if std::mem::replace(&mut self.reuse, reuse) != reuse {
            (self.knees, self.other, self.met, self.regrown) = Default::default();
            self.doubt = None;
        }
    }

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
    pub(crate) fn knee(&mut self, now: Duration, knee: Knee, activity: Activity) -> bool {
        let ran = activity.cpu.zip(self.cpu).is_none_or(|(now, before)| now > before);
        self.idle = if activity.is_frozen { Some(Idle::Frozen) } else { (!ran).then_some(Idle::NoCpu) };
        if self.idle.is_some() {
            return false;
        }
        self.cpu = activity.cpu.or(self.cpu);
        if knee.has_settled {
            self.settle(now, knee);
        } else {
            self.meet(now, knee);
        }
        true
    }

    /// Records a knee, of which it isn't known yet what comes back. Once something settled, it only
    /// gives reason for doubt if it is larger: less may be pressed out for a moment, and a burst may
    /// be over by the next.
    fn meet(&mut self, now: Duration, knee: Knee) {
        let set = knee.set();
        match self.knees.median() {
            None => {
                self.met = Some(Met { set, peak: knee.usage });
                (self.last, self.last_usage, self.copies) = (now, knee.usage, knee.copies);
            }
            Some(bytes) if set > bytes && self.knees.differ_from(set) => {
                self.knees.peak = self.knees.peak.max(knee.usage);
                self.doubt = Some(set);
            }
            Some(_) => {}
        }
    }

    fn settle(&mut self, now: Duration, knee: Knee) {
        let set = knee.set();
        (self.last, self.last_usage, self.copies) = (now, knee.usage, knee.copies);
        (self.share, self.doubt) = (knee.share, None);
        if !self.knees.is_confirmed && self.knees.median().is_some_and(|bytes| set < bytes) {
            (self.knees, self.other) = Default::default();
        }
        if !self.knees.differ_from(set) {
            self.other = Knees::default();
            self.knees.record(knee);
            let peak = self.met.take().map_or(0, |met| met.peak);
            self.knees.peak = self.knees.peak.max(peak);
            return;
        }
        if self.other.differ_from(set) {
            self.other = Knees::default();
        }
        self.other.record(knee);
        let is_larger = self.knees.median().is_some_and(|bytes| set > bytes);
        if is_larger || self.knees.count == 1 || self.other.count >= SHRUNK_KNEES {
            self.knees = std::mem::take(&mut self.other);
        }
    }

    /// Records the usage between knees.
    pub(crate) fn used(&mut self, now: Duration, usage: u64) {
        if let Some(met) = &mut self.met {
            met.peak = met.peak.max(usage);
        }
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
        let age = now.saturating_sub(self.last);
        let fresh = 0.5f64.powf(age.as_secs_f64() / HALF_LIFE.as_secs_f64());
        if let Some(Met { set: bytes, .. }) = self.met {
            let confidence = MET_CONFIDENCE * fresh;
            return Some(WorkingSet {
                bytes,
                range: (bytes, bytes),
                copies: self.copies,
                confidence,
                age,
                reuse: self.reuse,
                suggested: None,
            });
        }
        let bytes = self.knees.median()?;
        let known = self.knees.all();
        let (least, most) = (known.iter().min()?, known.iter().max()?);
        let often = known.len() as f64 / (known.len() + 1) as f64;
        // Smaller ones don't count yet, but they are a reason for doubt.
        let lowest = self.other.all().iter().min().unwrap_or(least).min(least);
        let highest = self.doubt.map_or(*most, |usage| usage.max(*most));
        let near = 1.0 - ((highest - lowest) as f64 / bytes.max(1) as f64).min(1.0);
        let peak = self.knees.peak.max(self.regrown(now).unwrap_or(0));
        let suggested = peak + peak / MARGIN_DIVISOR + (most - least);
        Some(WorkingSet {
            bytes,
            range: (*least, *most),
            copies: self.copies,
            confidence: often * near * fresh * self.share,
            age,
            reuse: self.reuse,
            suggested: Some(suggested.next_multiple_of(1 << 20)),
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

    impl Estimate {
        fn record(&mut self, now: Duration, usage: u64) {
            self.settle(now, Knee::settled(usage, 1.0));
        }
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
        assert_eq!(estimated(&[60]).suggested, Some(66 * M));
        assert_eq!(estimated(&[60, 64, 60]).suggested, Some(75 * M), "70.4, and 4 for the spread");
        let mut estimate = Estimate::default();
        estimate.used(at(0), 500 * M);
        estimate.record(at(0), 60 * M);
        estimate.used(at(0), 80 * M);
        assert_eq!(estimate.working_set(at(1)).and_then(|set| set.suggested), Some(88 * M));
    }

    #[test]
    fn another_working_set_begins_anew() {
        let changed = estimated(&[60, 60, 60, 120]);
        assert_eq!((changed.bytes, changed.suggested), (120 * M, Some(132 * M)));
        assert!(changed.confidence < 0.5);
        assert_eq!(estimated(&[60, 62, 64, 66, 68]).bytes, 64 * M, "a drift is none");
    }

    #[test]
    fn a_smaller_working_set_takes_several_knees() {
        assert_eq!(estimated(&[300, 60]).bytes, 60 * M, "a single knee is no working set yet");
        let once = estimated(&[148, 148, 148, 48]);
        assert_eq!((once.bytes, once.suggested), (148 * M, Some(163 * M)));
        assert!(once.confidence < 0.3, "but there is doubt: {once:?}");
        assert_eq!(estimated(&[148, 148, 48, 93, 45]).bytes, 148 * M, "they contradict each other");
        assert_eq!(estimated(&[120, 120, 60, 120, 60, 60]).bytes, 120 * M);
        let shrunk = estimated(&[120, 120, 120, 60, 62, 58]);
        assert_eq!((shrunk.bytes, shrunk.suggested), (60 * M, Some(73 * M)), "68.2, and 4 for the spread");
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
        assert_eq!(suggested(31), Some((60 * M, Some(99 * M))));
        assert_eq!(suggested(311), Some((60 * M, Some(99 * M))), "the peak of this set");
        let mut estimate = Estimate::default();
        for (second, knee) in [(0, 148), (10, 48), (20, 30)] {
            estimate.record(at(second), knee * M);
            estimate.used(at(second + 5), if second == 10 { 93 * M } else { knee * M });
        }
        let suggested = |second| estimate.working_set(at(second)).map(|set| (set.bytes, set.suggested));
        assert_eq!(suggested(30), Some((30 * M, Some(103 * M))), "93 came back after the second knee");
        assert_eq!(suggested(400), Some((30 * M, Some(33 * M))), "long ago");
    }

    #[test]
    fn a_bound_gives_way_to_a_smaller_one() {
        let mut estimate = Estimate::new(at(60));
        let mut settle = |second, usage, share| {
            estimate.used(at(second), usage * M);
            estimate.settle(at(second), Knee::settled(usage * M, share));
            estimate.working_set(at(second)).expect("it settled")
        };
        let first = settle(60, 299, 0.22);
        assert!(first.confidence < 0.12, "{first:?}");
        for (second, usage) in [(120, 245), (180, 201), (240, 168)] {
            let set = settle(second, usage, 0.05);
            assert_eq!((set.bytes, set.range), (usage * M, (usage * M, usage * M)));
            assert!(set.confidence < 0.05, "{set:?}");
        }
        let confirmed = settle(300, 142, 0.9);
        assert_eq!((confirmed.bytes, confirmed.suggested), (142 * M, Some(157 * M)));
        assert!(confirmed.confidence > 0.4, "{confirmed:?}");
        // Some of what is confirmed stays away now and then.
        let set = settle(360, 136, 0.1);
        assert_eq!((set.bytes, set.range), (142 * M, (136 * M, 142 * M)));
        let set = settle(420, 140, 1.0);
        assert_eq!(set.bytes, 140 * M);
    }

    #[test]
    fn copies_are_no_working_set_but_need_room() {
        let mut estimate = Estimate::new(at(60));
        let knee = |has_settled, usage, copies| Knee {
            usage: usage * M,
            copies: copies * M,
            share: 1.0,
            has_settled,
        };
        estimate.knee(at(0), knee(false, 88, 27), Activity::default());
        let met = estimate.working_set(at(0)).expect("a knee");
        assert_eq!((met.bytes, met.copies), (61 * M, 27 * M));
        estimate.knee(at(60), knee(true, 90, 28), Activity::default());
        let set = estimate.working_set(at(60)).expect("it settled");
        assert_eq!((set.bytes, set.copies, set.suggested), (62 * M, 28 * M, Some(99 * M)));
        // All copies were written to the device meanwhile: the same working set.
        estimate.knee(at(120), knee(true, 62, 0), Activity::default());
        let set = estimate.working_set(at(120)).expect("it settled");
        assert_eq!((set.bytes, set.copies, set.range), (62 * M, 0, (62 * M, 62 * M)));
        assert_eq!(Knee::met(M).with_copies(2 * M).set(), 0, "two files that were read one after the other");
    }

    #[test]
    fn before_the_reuse_time_is_over_no_limit_is_suggested() {
        let activity = Activity::default();
        let mut estimate = Estimate::new(at(60));
        assert!(estimate.knee(at(0), Knee::met(40 * M), activity));
        let met = estimate.working_set(at(0)).expect("a knee");
        assert_eq!((met.bytes, met.suggested, met.reuse), (40 * M, None, at(60)));
        assert!(met.confidence < 0.3, "{met:?}");
        estimate.used(at(30), 125 * M);
        estimate.knee(at(60), Knee::settled(120 * M, 1.0), activity);
        let set = estimate.working_set(at(60)).expect("it settled");
        assert_eq!((set.bytes, set.range, set.suggested), (120 * M, (120 * M, 120 * M), Some(138 * M)));
        // Less may be pressed out for a moment; more is a larger working set.
        estimate.knee(at(70), Knee::met(40 * M), activity);
        assert_eq!(estimate.working_set(at(60)), Some(set));
        estimate.knee(at(80), Knee::met(200 * M), activity);
        let larger = estimate.working_set(at(80)).expect("a knee");
        assert_eq!((larger.bytes, larger.suggested), (120 * M, Some(220 * M)), "a burst, maybe");
        assert!(larger.confidence < 0.5 * set.confidence, "{larger:?}");
        estimate.knee(at(120), Knee::settled(200 * M, 1.0), activity);
        let larger = estimate.working_set(at(120)).expect("it settled");
        assert_eq!((larger.bytes, larger.suggested), (200 * M, Some(220 * M)));
        estimate.adopt(at(3600));
        assert_eq!(estimate.working_set(at(121)), None, "another question");
    }

    #[test]
    fn silence_is_no_evidence() {
        let running = |cpu| Activity { is_frozen: false, cpu: Some(at(cpu)) };
        let mut estimate = Estimate::default();
        estimate.observe(running(5));
        assert!(!estimate.knee(at(1), Knee::settled(60 * M, 1.0), running(5)));
        assert_eq!((estimate.working_set(at(1)), estimate.idle()), (None, Some(Idle::NoCpu)));
        let frozen = Activity { is_frozen: true, ..running(6) };
        assert!(
            !estimate.knee(at(2), Knee::settled(60 * M, 1.0), frozen),
            "it ran, and was frozen before the knee"
        );
        assert_eq!((estimate.working_set(at(2)), estimate.idle()), (None, Some(Idle::Frozen)));
        estimate.observe(running(6));
        assert_eq!(estimate.idle(), None);
        estimate.observe(frozen);
        assert_eq!(estimate.idle(), Some(Idle::Frozen), "without a knee as well");
        assert!(estimate.knee(at(3), Knee::settled(60 * M, 1.0), running(6)));
        let set = estimate.working_set(at(3)).expect("a knee");
        assert_eq!(estimate.idle(), None);
        // Knees of an idle cgroup neither confirm nor move the estimate.
        assert!(
            !estimate.knee(at(4), Knee::settled(10 * M, 1.0), running(6))
                && !estimate.knee(at(5), Knee::settled(10 * M, 1.0), frozen)
        );
        let later = estimate.working_set(at(5)).expect("a knee");
        assert!(later.bytes == set.bytes && later.confidence < set.confidence && later.age == at(2));
        // Where CPU time can't be read, nothing is known of it.
        assert!(Estimate::default().knee(at(1), Knee::settled(M, 1.0), Activity::default()));
    }
}
