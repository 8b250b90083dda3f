//! Estimate of the working set from the knees that the [`--pressure` policy](super::pressure)
//! found, and from what came back after them. A pure function of those.

mod knees;
mod peaks;

use std::time::Duration;

pub(crate) use knees::Knee;
use knees::{Knees, Smaller, is_far};
use peaks::Peaks;

use super::reuse::{BACK_SHARE, CONFIRMED_SHARE};

/// Number of consecutive knees that show a smaller working set, once more than one knee confirmed
/// the larger. Memory that is touched rarely misleads: of a database whose rows are read every 10
/// to 60 s, 148, 48, 93 and 45 MiB were found under the same load. Growth counts at once: a larger
/// estimate ruins nobody.
const SHRUNK_KNEES: usize = 3;
/// Time for which a suggested limit stays above the usage that a cgroup grew back to by itself, and
/// divisor of the usage at a knee that gives the growth from which it did.
const REGROWN_TIME: Duration = Duration::from_secs(300);
const REGROWN_DIVISOR: u64 = 50;
/// Time for which it stays above an earlier working set: what a job needed once, it may need again.
const NEED_TIME: Duration = Duration::from_secs(3600);

/// Time without a knee in which confidence halves, in reuse times, and at least: several times the
/// longest rest between presses that find the same, see [`reuse`](super::reuse).
const HALF_LIFE: u32 = 30;
const MIN_HALF_LIFE: Duration = Duration::from_secs(600);

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
    /// Anonymous memory besides that isn't in use, and only left since it was taken before page cache.
    /// The suggested limit has room for it.
    pub idle_anon: u64,
    /// Confidence from 0 to 1: rises with the number of knees, their closeness, and the share of
    /// the presses before them that came back; falls with their age.
    pub confidence: f64,
    /// Time since the last knee.
    pub age: Duration,
    /// Reuse time: memory that is touched less often doesn't belong to the working set.
    pub reuse: Duration,
    /// Suggested `memory.max`: a tenth above the largest usage since the first of those knees, with
    /// anonymous memory that only left because it was taken alone, plus their spread. `None` before
    /// the first reuse time is over, and while less than a tenth of what is pressed out comes back.
    pub suggested: Option<u64>,
}

impl WorkingSet {
    /// Returns whether the working set may be smaller.
    #[must_use]
    pub fn is_at_most(&self) -> bool {
        self.is_bound || self.spares
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

/// The knees of one cgroup.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Estimate {
    /// Reuse time.
    pub reuse: Duration,
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
    /// Usage, copies and memory taken alone at the last knee.
    last_usage: u64,
    copies: u64,
    alone: u64,
    /// True if the first approach is over: what the cgroup grows to from then on is its own doing.
    has_approached: bool,
    /// Usages that the cgroup grew back to after a knee, or after the first approach.
    regrown: Peaks,
    /// Largest usages of earlier working sets, at their end.
    earlier: Peaks,
    /// CPU time that the tasks had used at the last knee, or at the first sample.
    cpu: Option<Duration>,
    /// Reason why the latest knee didn't count.
    idle: Option<Idle>,
    /// True if memory stayed at the knee that was met, and may be idle.
    met_spares: bool,
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
            let Self { last, last_usage, cpu, idle, has_approached, .. } = *self;
            *self = Self { reuse, last, last_usage, has_approached, cpu, idle, ..Self::default() };
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
                (self.met, self.met_spares) = (Some(set), knee.spares);
                (self.last, self.last_usage, self.copies) = (now, knee.usage, knee.copies);
            }
            Some(bytes) if set > bytes && is_far(set, bytes) && self.is_growth(knee.usage) => {
                self.knees.grown = self.knees.grown.max(knee.usage);
                self.doubt = Some(set);
            }
            Some(_) => {}
        }
    }

    fn settle(&mut self, now: Duration, knee: Knee) {
        let set = knee.set();
        (self.last_usage, self.copies, self.alone) = (knee.usage, knee.copies, knee.alone);
        (self.met, self.doubt) = (None, None);
        // Where some memory can never leave, such knees are all there are. The first that is more
        // shows what they were worth.
        let all_spare = self.knees.count() > 0 && self.knees.all().all(|knee| knee.spares);
        let gives_way = all_spare && !knee.spares;
        let known = self.knees.median().filter(|_| self.knees.are_confirmed() && !gives_way);
        let confirms = knee.came_back() && (all_spare || !knee.spares);
        let Some(bytes) = known else {
            let mut grown = self.knees.grown;
            if gives_way && grown > 0 {
                self.earlier.record(std::mem::take(&mut grown), NEED_TIME, now);
            }
            // The last bound is the one that is still true.
            self.last = now;
            self.knees = Knees::new(knee, grown);
            (self.smaller, self.lower) = Default::default();
            return;
        };
        let (is_smaller, is_far) = (set < bytes, is_far(set, bytes));
        match (is_far, confirms) {
            // Nothing confirmed the only one, and what was pressed out of it since stayed away.
            (false, false)
                if is_smaller && self.knees.count() == 1 && knee.share < CONFIRMED_SHARE && !knee.spares =>
            {
                self.earlier.record(self.knees.peak(), NEED_TIME, now);
                (self.last, self.knees) = (now, Knees::new(knee, 0));
            }
            // It grew, and as long as some of it can't leave, nobody knows how much is in use.
            (true, false) if !is_smaller && knee.spares => {
                self.earlier.record(self.knees.peak(), NEED_TIME, now);
                (self.last, self.knees) = (now, Knees::new(knee, 0));
                (self.smaller, self.lower) = Default::default();
            }
            (true, _) if is_smaller => {
                self.smaller.record(knee);
                if self.knees.count() == 1 || self.smaller.count >= SHRUNK_KNEES {
                    self.earlier.record(self.knees.peak(), NEED_TIME, now);
                    self.knees = std::mem::take(&mut self.smaller).into_set();
                    (self.last, self.lower) = (now, None);
                }
            }
            (true, true) => {
                self.earlier.record(self.knees.peak(), NEED_TIME, now);
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

    /// Records that what was pressed out came back by now, or part of it, though the cgroup doesn't
    /// use it: only what it grows beyond this usage until the next knee is its own doing.
    pub(crate) fn disturbed(&mut self, usage: u64) {
        self.last_usage = self.last_usage.max(usage);
    }

    /// Returns whether the cgroup grew to this usage by itself since the last knee.
    fn is_growth(&self, usage: u64) -> bool {
        usage > self.last_usage + self.last_usage / REGROWN_DIVISOR
    }

    /// Records that the first approach is over, which may have ended without a knee: only what the
    /// cgroup grows beyond this usage until the next knee is its own doing.
    pub(crate) fn approached(&mut self, usage: u64) {
        if !std::mem::replace(&mut self.has_approached, true) && self.met.is_none() && self.knees.count() == 0
        {
            self.last_usage = usage;
        }
    }

    /// Records the usage between knees.
    pub(crate) fn used(&mut self, now: Duration, usage: u64) {
        let is_known = self.met.is_some() || self.knees.count() > 0 || self.has_approached;
        if !is_known || !self.is_growth(usage) {
            return;
        }
        self.knees.grown = self.knees.grown.max(usage);
        if self.smaller.count > 0 {
            self.smaller.knees.grown = self.smaller.knees.grown.max(usage);
        }
        self.regrown.record(usage, REGROWN_TIME, now);
    }

    /// Returns the estimate; `None` before the first knee.
    #[must_use]
    pub(crate) fn working_set(&self, now: Duration) -> Option<WorkingSet> {
        let age = now.saturating_sub(self.last);
        let half_life = (HALF_LIFE * self.reuse).max(MIN_HALF_LIFE);
        let fresh = 0.5f64.powf(age.as_secs_f64() / half_life.as_secs_f64());
        if let Some(bytes) = self.met {
            let confidence = MET_CONFIDENCE * fresh;
            return Some(WorkingSet {
                bytes,
                is_bound: false,
                spares: self.met_spares,
                range: (bytes, bytes),
                copies: self.copies,
                idle_anon: 0,
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
        let before = self.regrown.within(REGROWN_TIME, now).max(self.earlier.within(NEED_TIME, now));
        let peak = self.knees.peak().max(before.unwrap_or(0)) + self.alone;
        let suggested = (peak + peak / MARGIN_DIVISOR + (most - least)).next_multiple_of(1 << 20);
        let spares = self.knees.all().any(|knee| knee.spares);
        // A service that is quiet for a while takes nothing back, and will need more.
        let is_in_use = self.knees.all().any(|knee| knee.share >= BACK_SHARE);
        Some(WorkingSet {
            bytes,
            is_bound: !self.knees.are_confirmed(),
            spares,
            range: (least, most),
            copies: self.copies,
            idle_anon: self.alone,
            confidence: often * near * fresh * self.knees.share(),
            age,
            reuse: self.reuse,
            suggested: is_in_use.then_some(suggested),
        })
    }
}

#[cfg(test)]
mod tests;
