//! Estimate of the working set from the knees that the [`--pressure` policy](super::pressure)
//! found, and from what came back after them. A pure function of those.

use std::time::Duration;

use super::reuse::BACK_SHARE;

/// Number of knees that are remembered.
const MAX_KNEES: usize = 8;

/// Relative distance from the median beyond which a knee belongs to another working set.
const MAX_DISTANCE: f64 = 0.25;
/// Number of consecutive knees that show a smaller working set, once more than one knee confirmed
/// the larger. Memory that is touched rarely misleads: of a database whose rows are read every 10
/// to 60 s, 148, 48, 93 and 45 MiB were found under the same load. Growth counts at once: a larger
/// estimate ruins nobody.
const SHRUNK_KNEES: usize = 3;
/// Share of a press that came back below which the usage is only a bound: less may do. And that
/// below which nothing of what is left may be in use, as in a service that is quiet for a while.
const CONFIRMED_SHARE: f64 = 0.5;
const IN_USE_SHARE: f64 = BACK_SHARE;
/// Time for which a suggested limit stays above the usage that a cgroup grew back to by itself, and
/// divisor of the usage at a knee that gives the growth from which it did.
const REGROWN_TIME: Duration = Duration::from_secs(300);
/// Time for which it stays above an earlier working set: what a job needed once, it may need again.
const NEED_TIME: Duration = Duration::from_secs(3600);
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
    /// Median usage after the last knees, with what came back within the reuse time. Before the
    /// first such time is over: the usage at the knee, below which memory is touched all the time.
    pub bytes: u64,
    /// True if less may do: most of what was pressed out last stayed away, and no earlier press
    /// showed more. `bytes` is then the usage after the last press.
    pub is_bound: bool,
    /// True if less may do for another reason: memory stays that may be idle, since a guard spares
    /// it, its kind isn't reclaimed, or there is no room for it in swap.
    pub spares: bool,
    /// The least and the most of those usages.
    pub range: (u64, u64),
    /// Compressed copies that the cgroup is charged for besides (zswap), at the last knee. The
    /// suggested limit has room for them.
    pub copies: u64,
    /// Confidence from 0 to 1: rises with the number of knees, their closeness, and the share of
    /// the presses before them that came back; falls with their age.
    pub confidence: f64,
    /// Time since the last knee.
    pub age: Duration,
    /// Reuse time: memory that is touched less often doesn't belong to the working set.
    pub reuse: Duration,
    /// Suggested `memory.max`: a tenth above the largest usage since the first of those knees, plus
    /// their spread. `None` before the first reuse time is over, and while less than a tenth of
    /// what is pressed out comes back.
    pub suggested: Option<u64>,
}

impl WorkingSet {
    /// Returns whether the working set may be smaller.
    #[must_use]
    pub fn is_at_most(&self) -> bool {
        self.is_bound || self.spares
    }
}

/// Usage that shows the size of the working set. Amounts are bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Knee {
    usage: u64,
    /// Part of the usage that is compressed copies (zswap): memory that isn't in use.
    copies: u64,
    /// Share of what was pressed out before that came back; 1 before it could.
    share: f64,
    has_settled: bool,
    /// True if it is a bound whatever came back.
    is_bound: bool,
}

impl Knee {
    /// Returns the knee at the usage below which memory is touched all the time.
    #[must_use]
    pub(crate) fn met(usage: u64) -> Self {
        Self { usage, copies: 0, share: 1.0, has_settled: false, is_bound: false }
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
    fn set(&self) -> u64 {
        self.usage - self.copies
    }

    /// Returns the knee as a bound: some of its usage was never pressed out.
    #[must_use]
    pub(crate) fn as_bound(self) -> Self {
        Self { is_bound: true, ..self }
    }

    /// Returns whether it is more than a bound.
    fn is_confirmed(&self) -> bool {
        self.share >= CONFIRMED_SHARE && !self.is_bound
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

/// Usages that settled after the knees of one working set.
#[derive(Clone, Copy, Debug, Default)]
struct Knees {
    /// The last knees, oldest first.
    all: [Option<Knee>; MAX_KNEES],
    /// Largest usage that the cgroup grew to by itself since the first of them, with copies.
    grown: u64,
}

impl Knees {
    fn new(knee: Knee, grown: u64) -> Self {
        let mut knees = Self { grown, ..Self::default() };
        knees.record(knee);
        knees
    }

    fn all(&self) -> impl Iterator<Item = &Knee> {
        self.all.iter().flatten()
    }

    fn count(&self) -> usize {
        self.all().count()
    }

    fn median(&self) -> Option<u64> {
        let (mut known, count) = ([u64::MAX; MAX_KNEES], self.count());
        for (known, knee) in known.iter_mut().zip(self.all()) {
            *known = knee.set();
        }
        known.sort_unstable();
        known[..count].get(count / 2).copied()
    }

    /// Returns whether this usage belongs to another working set.
    fn differ_from(&self, usage: u64) -> bool {
        self.median().is_some_and(|bytes| is_far(usage, bytes))
    }

    /// Returns whether one of them is more than a bound.
    fn are_confirmed(&self) -> bool {
        self.all().any(Knee::is_confirmed)
    }

    /// Returns the mean share that was in use.
    fn share(&self) -> f64 {
        self.all().map(|knee| knee.share).sum::<f64>() / self.count().max(1) as f64
    }

    /// Returns the largest usage since the first of them.
    fn peak(&self) -> u64 {
        self.all().map(|knee| knee.usage).max().unwrap_or(0).max(self.grown)
    }

    fn record(&mut self, knee: Knee) {
        if self.count() == MAX_KNEES {
            self.all[0] = None;
        }
        self.retain(|_| true);
        let count = self.count();
        self.all[count] = Some(knee);
    }

    /// Forgets the others.
    fn retain(&mut self, keep: impl Fn(&Knee) -> bool) {
        let before = std::mem::take(&mut self.all);
        let kept = before.into_iter().flatten().filter(keep);
        for (place, knee) in self.all.iter_mut().zip(kept) {
            *place = Some(knee);
        }
    }
}

/// Consecutive knees below a confirmed working set.
#[derive(Clone, Copy, Debug, Default)]
struct Smaller {
    /// Those near the last of them.
    knees: Knees,
    /// Number of all, each about as small as the one before, or smaller.
    count: usize,
}

impl Smaller {
    fn record(&mut self, knee: Knee) {
        let set = knee.set();
        if self.knees.all().any(|earlier| is_far(set, earlier.set()) && set > earlier.set()) {
            *self = Self::default();
        }
        self.knees.retain(|earlier| !is_far(set, earlier.set()));
        self.knees.record(knee);
        self.count += 1;
    }

    /// Returns the working set that they show.
    fn into_set(mut self) -> Knees {
        if self.knees.are_confirmed() {
            self.knees.retain(Knee::is_confirmed);
        } else if let Some(last) = self.knees.all().last().copied() {
            self.knees = Knees::new(last, self.knees.grown);
        }
        self.knees
    }
}

fn is_far(usage: u64, from: u64) -> bool {
    from.abs_diff(usage) as f64 > MAX_DISTANCE * from as f64
}

/// The knees of one cgroup.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Estimate {
    /// Reuse time.
    pub reuse: Duration,
    /// True if memory stayed at the last knee that may be idle.
    pub spares: bool,
    /// Knees that confirm the working set; or the last bound, as long as none does.
    knees: Knees,
    /// Knees below it, which may show a smaller one.
    smaller: Smaller,
    /// The last bound near a confirmed working set, and below it.
    lower: Option<u64>,
    /// Usage at the last knee, as long as nothing has settled.
    met: Option<u64>,
    /// Usage at a later knee that is larger than the working set, and hasn't settled.
    doubt: Option<u64>,
    /// Time of the last knee that counted.
    last: Duration,
    /// Usage and copies at the last knee.
    last_usage: u64,
    copies: u64,
    /// Largest usage that the cgroup grew back to after a knee, and when.
    regrown: Option<(u64, Duration)>,
    /// Largest usage of earlier working sets, and the time of their end.
    earlier: Option<(u64, Duration)>,
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
            let Self { spares, last, last_usage, cpu, idle, .. } = *self;
            *self = Self { reuse, spares, last, last_usage, cpu, idle, ..Self::default() };
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
    /// gives reason for doubt if it is larger: less may be pressed out for a moment, and a burst
    /// may be over by the next.
    fn meet(&mut self, now: Duration, knee: Knee) {
        let set = knee.set();
        match self.knees.median() {
            None => {
                self.met = Some(set);
                (self.last, self.last_usage, self.copies) = (now, knee.usage, knee.copies);
            }
            Some(bytes) if set > bytes && self.knees.differ_from(set) => {
                self.knees.grown = self.knees.grown.max(knee.usage);
                self.doubt = Some(set);
            }
            Some(_) => {}
        }
    }

    fn settle(&mut self, now: Duration, knee: Knee) {
        let set = knee.set();
        (self.last_usage, self.copies) = (knee.usage, knee.copies);
        (self.met, self.doubt) = (None, None);
        let Some(bytes) = self.knees.median().filter(|_| self.knees.are_confirmed()) else {
            // The last bound is the one that is still true.
            self.last = now;
            self.knees = Knees::new(knee, self.knees.grown);
            return;
        };
        let (is_smaller, is_far) = (set < bytes, is_far(set, bytes));
        match (is_far, knee.is_confirmed()) {
            (true, _) if is_smaller => {
                self.smaller.record(knee);
                if self.knees.count() == 1 || self.smaller.count >= SHRUNK_KNEES {
                    let peak = self.knees.peak();
                    if self.earlier(now).is_none_or(|earlier| peak >= earlier) {
                        self.earlier = Some((peak, now));
                    }
                    self.knees = std::mem::take(&mut self.smaller).into_set();
                    (self.last, self.lower) = (now, None);
                }
            }
            (true, true) => {
                (self.last, self.knees) = (now, Knees::new(knee, 0));
                (self.smaller, self.lower) = Default::default();
            }
            (false, true) => {
                self.last = now;
                (self.smaller, self.lower) = Default::default();
                self.knees.record(knee);
            }
            // What isn't in use doesn't make the working set larger.
            (_, false) => self.lower = is_smaller.then_some(set),
        }
    }

    /// Records the usage between knees.
    pub(crate) fn used(&mut self, now: Duration, usage: u64) {
        let is_known = self.met.is_some() || self.knees.count() > 0;
        if !is_known || usage <= self.last_usage + self.last_usage / REGROWN_DIVISOR {
            return;
        }
        self.knees.grown = self.knees.grown.max(usage);
        if self.smaller.count > 0 {
            self.smaller.knees.grown = self.smaller.knees.grown.max(usage);
        }
        if self.regrown(now).is_none_or(|regrown| usage >= regrown) {
            self.regrown = Some((usage, now));
        }
    }

    /// Returns the largest usage that the cgroup grew back to recently.
    fn regrown(&self, now: Duration) -> Option<u64> {
        self.regrown.filter(|(_, at)| now.saturating_sub(*at) < REGROWN_TIME).map(|(usage, _)| usage)
    }

    /// Returns the largest usage of earlier working sets of the last hour.
    fn earlier(&self, now: Duration) -> Option<u64> {
        self.earlier.filter(|(_, at)| now.saturating_sub(*at) < NEED_TIME).map(|(usage, _)| usage)
    }

    /// Returns the estimate; `None` before the first knee.
    #[must_use]
    pub(crate) fn working_set(&self, now: Duration) -> Option<WorkingSet> {
        let age = now.saturating_sub(self.last);
        let fresh = 0.5f64.powf(age.as_secs_f64() / HALF_LIFE.as_secs_f64());
        if let Some(bytes) = self.met {
            let confidence = MET_CONFIDENCE * fresh;
            return Some(WorkingSet {
                bytes,
                is_bound: false,
                spares: self.spares,
                range: (bytes, bytes),
                copies: self.copies,
                confidence,
                age,
                reuse: self.reuse,
                suggested: None,
            });
        }
        let (bytes, count) = (self.knees.median()?, self.knees.count());
        let sets = || self.knees.all().map(Knee::set);
        let (least, most) = (sets().min()?, sets().max()?);
        let often = count as f64 / (count + 1) as f64;
        // Smaller ones don't count yet, but they are a reason for doubt.
        let smaller = self.smaller.knees.all().map(Knee::set).chain(self.lower);
        let lowest = smaller.chain([least]).min()?;
        let highest = self.doubt.map_or(most, |usage| usage.max(most));
        let near = 1.0 - ((highest - lowest) as f64 / bytes.max(1) as f64).min(1.0);
        let before = self.regrown(now).max(self.earlier(now));
        let peak = self.knees.peak().max(before.unwrap_or(0));
        let suggested = (peak + peak / MARGIN_DIVISOR + (most - least)).next_multiple_of(1 << 20);
        let is_in_use = self.knees.all().any(|knee| knee.share >= IN_USE_SHARE);
        Some(WorkingSet {
            bytes,
            is_bound: !self.knees.are_confirmed(),
            spares: self.spares,
            range: (least, most),
            copies: self.copies,
            confidence: often * near * fresh * self.knees.share(),
            age,
            reuse: self.reuse,
            suggested: is_in_use.then_some(suggested),
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
        assert_eq!((shrunk.bytes, shrunk.suggested), (60 * M, Some(136 * M)), "it may need them again");
    }

    #[test]
    fn a_limit_is_above_what_grew_back_by_itself() {
        let mut estimate = Estimate::default();
        estimate.used(at(0), 500 * M);
        for (second, knee) in [(0, 60), (10, 60), (20, 60)] {
            estimate.record(at(second), knee * M);
            estimate.used(at(second), if second == 10 { 90 * M } else { 61 * M });
        }
        let suggested = |second| estimate.working_set(at(second)).map(|set| (set.bytes, set.suggested));
        assert_eq!(suggested(31), Some((60 * M, Some(99 * M))));
        assert_eq!(suggested(311), Some((60 * M, Some(99 * M))), "the peak of this set");
    }

    #[test]
    fn a_limit_is_above_what_was_needed_within_the_last_hour() {
        let mut estimate = Estimate::default();
        for (second, knee) in [(0, 100), (600, 260), (660, 100), (720, 100), (1200, 40)] {
            estimate.record(at(second), knee * M);
        }
        let suggested = |second| estimate.working_set(at(second)).map(|set| (set.bytes, set.suggested));
        assert_eq!(suggested(720), Some((100 * M, Some(286 * M))), "a job that runs now and then");
        assert_eq!(suggested(660 + 3599), Some((100 * M, Some(286 * M))));
        assert_eq!(suggested(660 + 3600), Some((100 * M, Some(110 * M))));
        // A smaller need doesn't put off the end of a larger one.
        estimate.record(at(1260), 40 * M);
        estimate.record(at(1320), 40 * M);
        let suggested = |second| estimate.working_set(at(second)).map(|set| (set.bytes, set.suggested));
        assert_eq!(suggested(660 + 3599), Some((40 * M, Some(286 * M))));
        assert_eq!(suggested(660 + 3600), Some((40 * M, Some(44 * M))));
    }

    /// Records the usage, and that it settled there with this share, of a minute later each time.
    fn settling(estimate: &mut Estimate, minute: &mut u64, usage: u64, share: f64) -> WorkingSet {
        *minute += 1;
        estimate.used(at(*minute * 60), usage * M);
        estimate.settle(at(*minute * 60), Knee::settled(usage * M, share));
        estimate.working_set(at(*minute * 60)).expect("it settled")
    }

    #[test]
    fn a_bound_gives_way_to_the_next() {
        let (mut estimate, mut minute) = (Estimate::new(at(60)), 0);
        let mut settle = |usage, share| settling(&mut estimate, &mut minute, usage, share);
        let first = settle(299, 0.22);
        assert!(first.confidence < 0.12 && first.is_bound, "{first:?}");
        assert_eq!(first.suggested, Some(329 * M), "some of what is left is in use");
        for usage in [245, 201, 168, 190] {
            let set = settle(usage, 0.05);
            assert_eq!((set.bytes, set.range, set.is_bound), (usage * M, (usage * M, usage * M), true));
            assert!(set.confidence < 0.05 && set.suggested.is_none(), "a quiet service: {set:?}");
        }
        let confirmed = settle(142, 0.9);
        assert_eq!((confirmed.bytes, confirmed.is_bound), (142 * M, false));
        assert_eq!(confirmed.suggested, Some(209 * M), "it grew to 190 MiB by itself");
        assert!(confirmed.confidence > 0.4, "{confirmed:?}");
    }

    #[test]
    fn bounds_neither_confirm_nor_enlarge_a_working_set() {
        let (mut estimate, mut minute) = (Estimate::new(at(60)), 0);
        let mut settle = |usage, share| settling(&mut estimate, &mut minute, usage, share);
        settle(142, 0.9);
        let twice = settle(142, 0.7);
        assert!((0.53..0.54).contains(&twice.confidence), "{twice:?}");
        // Some of what is confirmed stays away now and then.
        let set = settle(136, 0.1);
        assert_eq!((set.bytes, set.range, set.is_bound), (142 * M, (142 * M, 142 * M), false));
        assert!(
            (0.85..0.96).contains(&(set.confidence / twice.confidence)),
            "a little doubt, a minute on: {set:?}"
        );
        let again = settle(140, 1.0);
        assert!(
            (again.bytes, again.range) == (142 * M, (140 * M, 142 * M)) && again.confidence > 0.6,
            "{again:?}"
        );
        // Memory that isn't in use arrives.
        let set = settle(400, 0.2);
        assert_eq!((set.bytes, set.suggested), (142 * M, Some(442 * M)), "it grew to 400 MiB");
        assert_eq!(settle(400, 0.5).bytes, 400 * M, "it is in use");
        // What came back is known, but not whether what is new is in use.
        estimate.settle(at(900), Knee::settled(900 * M, 1.0).as_bound());
        assert_eq!(estimate.working_set(at(900)).map(|set| set.bytes), Some(400 * M));
    }

    #[test]
    fn what_stays_away_three_times_refutes_a_working_set() {
        let (mut estimate, mut minute) = (Estimate::new(at(60)), 0);
        let mut settle = |usage, share| settling(&mut estimate, &mut minute, usage, share);
        settle(1000, 1.0);
        let before = settle(1000, 1.0);
        for usage in [700, 560] {
            let set = settle(usage, 0.0);
            assert!(set.bytes == 1000 * M && set.confidence < 0.8 * before.confidence, "{set:?}");
            assert_eq!(set.suggested, before.suggested, "a quiet moment, maybe");
        }
        let set = settle(450, 0.0);
        assert_eq!((set.bytes, set.is_bound, set.suggested), (450 * M, true, None));
        let set = settle(400, 1.0);
        assert_eq!(
            (set.bytes, set.is_bound, set.suggested),
            (400 * M, false, Some(1100 * M)),
            "needed before"
        );
        // Of a single one, the first that is smaller.
        assert_eq!(settle(200, 0.0).bytes, 200 * M);
    }

    #[test]
    fn a_burst_between_bounds_is_remembered() {
        let (mut estimate, mut minute) = (Estimate::new(at(60)), 0);
        settling(&mut estimate, &mut minute, 200, 0.3);
        estimate.used(at(90), 400 * M);
        for usage in [190, 170, 150] {
            settling(&mut estimate, &mut minute, usage, 0.2);
        }
        let set = settling(&mut estimate, &mut minute, 142, 0.9);
        estimate.used(at(900), 143 * M);
        assert_eq!((set.bytes, set.suggested), (142 * M, Some(440 * M)));
        let later = estimate.working_set(at(900)).expect("it settled");
        assert_eq!(later.suggested, Some(440 * M), "for as long as the set stays");
    }

    #[test]
    fn copies_are_no_working_set_but_need_room() {
        let mut estimate = Estimate::new(at(60));
        let knee = |has_settled, usage, copies| Knee {
            usage: usage * M,
            copies: copies * M,
            has_settled,
            ..Knee::met(0)
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
