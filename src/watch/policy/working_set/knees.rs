//! The knees of one working set.

use crate::watch::policy::reuse::{CONFIRMED_SHARE, Settled};

/// Number of knees that are remembered.
const MAX_KNEES: usize = 8;

/// Relative distance from the median beyond which a knee belongs to another working set.
const MAX_DISTANCE: f64 = 0.25;

/// Usage that shows the size of the working set. Amounts are bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Knee {
    pub(super) usage: u64,
    /// Part of the usage that is compressed copies (zswap): memory that isn't in use.
    pub(super) copies: u64,
    /// Memory besides that only left because it was taken alone.
    pub(super) alone: u64,
    /// Share of what was pressed out before that came back; 1 before it could.
    pub(super) share: f64,
    pub(super) has_settled: bool,
    /// True if it is a bound whatever came back.
    pub(super) is_bound: bool,
    /// True if it is one since memory stayed that may be idle.
    pub(super) spares: bool,
}

impl Knee {
    /// Returns the knee at the usage below which memory is touched all the time.
    #[must_use]
    pub(crate) fn met(usage: u64) -> Self {
        Self { usage, copies: 0, alone: 0, share: 1.0, has_settled: false, is_bound: false, spares: false }
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
    pub(super) fn set(&self) -> u64 {
        self.usage - self.copies
    }

    /// Returns the knee as a bound: some of its usage was never pressed out.
    #[must_use]
    pub(crate) fn as_bound(self) -> Self {
        Self { is_bound: true, ..self }
    }

    /// Returns the knee with whether memory stayed that may be idle.
    #[must_use]
    pub(crate) fn sparing(self, spares: bool) -> Self {
        Self { spares, ..self }
    }

    /// Returns whether most of what was pressed out came back, and nothing else hides more.
    pub(super) fn came_back(&self) -> bool {
        self.share >= CONFIRMED_SHARE && !self.is_bound
    }
}

impl From<Settled> for Knee {
    fn from(settled: Settled) -> Self {
        let knee = Self::settled(settled.usage, settled.share).with_copies(settled.copies);
        let knee = Self { alone: settled.alone, ..knee };
        if settled.is_bound { knee.as_bound() } else { knee }
    }
}

/// Usages that settled after the knees of one working set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Knees {
    /// The last knees, oldest first.
    all: [Option<Knee>; MAX_KNEES],
    /// Largest usage that the cgroup grew to by itself since the first of them, with copies.
    pub(super) grown: u64,
}

impl Knees {
    pub(super) fn new(knee: Knee, grown: u64) -> Self {
        let mut knees = Self { grown, ..Self::default() };
        knees.record(knee);
        knees
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Knee> {
        self.all.iter().flatten()
    }

    pub(super) fn count(&self) -> usize {
        self.all().count()
    }

    pub(super) fn median(&self) -> Option<u64> {
        let (mut known, count) = ([u64::MAX; MAX_KNEES], self.count());
        for (known, knee) in known.iter_mut().zip(self.all()) {
            *known = knee.set();
        }
        known.sort_unstable();
        known[..count].get(count / 2).copied()
    }

    /// Returns whether one of them is more than a bound, apart from memory that couldn't leave.
    pub(super) fn are_confirmed(&self) -> bool {
        self.all().any(Knee::came_back)
    }

    /// Returns the mean share that was in use.
    pub(super) fn share(&self) -> f64 {
        self.all().map(|knee| knee.share).sum::<f64>() / self.count().max(1) as f64
    }

    /// Returns the largest usage since the first of them.
    pub(super) fn peak(&self) -> u64 {
        self.all().map(|knee| knee.usage).max().unwrap_or(0).max(self.grown)
    }

    pub(super) fn record(&mut self, knee: Knee) {
        if self.count() == MAX_KNEES {
            self.all[0] = None;
        }
        self.retain(|_| true);
        let count = self.count();
        self.all[count] = Some(knee);
    }

    /// Forgets the others.
    pub(super) fn retain(&mut self, keep: impl Fn(&Knee) -> bool) {
        let before = std::mem::take(&mut self.all);
        let kept = before.into_iter().flatten().filter(keep);
        for (place, knee) in self.all.iter_mut().zip(kept) {
            *place = Some(knee);
        }
    }
}

/// Consecutive knees below a confirmed working set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Smaller {
    /// Those near the last of them.
    pub(super) knees: Knees,
    /// Number of all, each about as small as the one before, or smaller.
    pub(super) count: usize,
}

impl Smaller {
    pub(super) fn record(&mut self, knee: Knee) {
        let set = knee.set();
        if self.knees.all().any(|earlier| is_far(set, earlier.set()) && set > earlier.set()) {
            *self = Self::default();
        }
        self.knees.retain(|earlier| !is_far(set, earlier.set()));
        self.knees.record(knee);
        self.count += 1;
    }

    /// Returns the working set that they show.
    pub(super) fn into_set(mut self) -> Knees {
        if self.knees.are_confirmed() {
            self.knees.retain(Knee::came_back);
        } else if let Some(last) = self.knees.all().last().copied() {
            self.knees = Knees::new(last, self.knees.grown);
        }
        self.knees
    }
}

/// Returns whether this usage belongs to another working set than that of `from` bytes.
pub(super) fn is_far(usage: u64, from: u64) -> bool {
    from.abs_diff(usage) as f64 > MAX_DISTANCE * from as f64
}
