//! Counters of reclaim and its consequences, of a cgroup or of all cgroups of a rule.

use std::time::Duration;

/// Counters since a watch began. Amounts are bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes missing at the beginning of each action.
    pub requested: u64,
    /// Bytes reclaimed.
    pub reclaimed: u64,
    /// Bytes refaulted: page cache and swap-ins; `None` where the kernel doesn't report it.
    pub refaulted: Option<u64>,
    /// Bytes that its own tasks reclaimed; `None` where the kernel doesn't report it, or not apart
    /// (before Linux 6.15).
    pub direct: Option<u64>,
    /// Number of writes.
    pub writes: u64,
    /// Duration of the writes.
    pub writing: Duration,
    /// CPU time of the writing threads.
    pub cpu: Duration,
    /// Time for which its tasks were stalled on memory (PSI `some`); `None` where the kernel
    /// doesn't report it.
    pub stalled: Option<Duration>,
    /// Number of samples that found its limit met since the one before.
    pub limit_hits: u64,
    /// Number of times that each guard held back an action, by the guard's word.
    pub held: Vec<(&'static str, u64)>,
}

impl Counters {
    /// Returns what was added since `before`.
    #[must_use]
    pub(crate) fn since(&self, before: &Self) -> Self {
        let held = |word: &str| before.held.iter().find(|one| one.0 == word).map_or(0, |one| one.1);
        Self {
            requested: self.requested.saturating_sub(before.requested),
            reclaimed: self.reclaimed.saturating_sub(before.reclaimed),
            refaulted: self
                .refaulted
                .map(|refaulted| refaulted.saturating_sub(before.refaulted.unwrap_or(0))),
            direct: self.direct.map(|direct| direct.saturating_sub(before.direct.unwrap_or(0))),
            writes: self.writes.saturating_sub(before.writes),
            writing: self.writing.saturating_sub(before.writing),
            cpu: self.cpu.saturating_sub(before.cpu),
            stalled: self.stalled.map(|stalled| stalled.saturating_sub(before.stalled.unwrap_or_default())),
            limit_hits: self.limit_hits.saturating_sub(before.limit_hits),
            held: self.held.iter().map(|&(word, count)| (word, count.saturating_sub(held(word)))).collect(),
        }
    }

    /// Adds others. What is known of neither stays unknown.
    pub(crate) fn add(&mut self, more: &Self) {
        self.requested += more.requested;
        self.reclaimed += more.reclaimed;
        self.writes += more.writes;
        self.writing += more.writing;
        self.cpu += more.cpu;
        self.limit_hits += more.limit_hits;
        if let Some(refaulted) = more.refaulted {
            *self.refaulted.get_or_insert_default() += refaulted;
        }
        if let Some(direct) = more.direct {
            *self.direct.get_or_insert_default() += direct;
        }
        if let Some(stalled) = more.stalled {
            *self.stalled.get_or_insert_default() += stalled;
        }
        for &(word, count) in &more.held {
            match self.held.iter_mut().find(|one| one.0 == word) {
                Some(one) => one.1 += count,
                None => self.held.push((word, count)),
            }
        }
    }
}
