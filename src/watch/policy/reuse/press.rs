//! A press of some of the usage: what it may take, and what it took.

use std::time::Duration;

use super::check::BACK_SHARE;
use super::sample::{Refaulted, ReuseSample};

/// Time after its end from which a check is void, and pause of a press after which it isn't the
/// same any more: what comes back meanwhile took longer than the reuse time.
pub(super) const MAX_LATENESS: Duration = Duration::from_secs(16);

/// A press in progress, or the one that is checked. Amounts are bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Press {
    /// Usage after the last check, or at the beginning of the press, without copies; and refaults
    /// at its beginning. `None` before it has begun.
    pub(super) from: Option<(u64, Refaulted)>,
    /// Anonymous memory that was taken before; `None` if unknown.
    pub(super) taken_anon: Option<u64>,
    /// Usage at which it ends, and the most that it takes; `None` after an interruption.
    pub(super) target: Option<(u64, u64)>,
    pub(super) reclaimed: f64,
    /// The same, apart from what arrived since the last check other than by refaults: that leaves
    /// first, and says nothing of the rest. Set at the end.
    pub(super) of_old: f64,
    /// Time of the last sample, and whether something was reclaimed since.
    pub(super) last: Duration,
    pub(super) goes_on: bool,
    /// True if it paused for too long.
    pub(super) is_void: bool,
}

impl Press {
    /// Records the end of the press.
    pub(super) fn end(&mut self, sample: ReuseSample) {
        let (usage, refaulted) = self.from.unwrap_or((sample.set(), sample.refaulted));
        let came = sample.refaulted.since(refaulted).all as f64;
        let new = sample.set() as f64 + self.reclaimed - usage as f64 - came;
        self.of_old = if self.is_void { 0.0 } else { (self.reclaimed - new.max(0.0)).max(0.0) };
    }

    /// Returns whether hardly anything but page cache was taken, as far as is known.
    pub(super) fn took_file_only(&self, sample: ReuseSample) -> bool {
        let anon = sample.taken_anon.zip(self.taken_anon).map(|(now, before)| now.saturating_sub(before));
        anon.is_none_or(|anon| anon as f64 <= BACK_SHARE * self.reclaimed)
    }

    /// Records a sample during the press.
    pub(super) fn sample(&mut self, at: Duration) {
        if self.goes_on || self.reclaimed == 0.0 {
            self.last = at;
        }
        self.goes_on = false;
        if at.saturating_sub(self.last) > MAX_LATENESS {
            (self.is_void, self.target) = (true, Some((u64::MAX, 0)));
        }
    }
}
