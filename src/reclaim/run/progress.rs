//! Progress of a request: what the answer to a write is worth, by the measures that moved since.

use std::time::Duration;

use rustix::io::Errno;

use super::{Run, Step};
use crate::reclaim::{StoppedBy, Target};

impl<T: Target + ?Sized> Run<'_, T> {
    /// Credits the kernel's claim on a chunk, as long as a measure moves now and then.
    pub(super) fn believe(&mut self, chunk: u64) -> Result<Step, StoppedBy> {
        self.ledger.credit(chunk);
        let before = self.ledger.usage();
        self.sample_usage()?;
        let fell = before.saturating_sub(self.ledger.usage());
        if fell >= chunk / 2 {
            self.progress.prove(self.ledger.moved_with_slab());
        } else {
            self.progress.unproven = self.progress.unproven.saturating_add(chunk);
        }
        if self.progress.unproven <= self.target.blind_spot() {
            return Ok(Step::Full);
        }
        // More was promised than the counters can be blind to: they must have moved by now.
        self.sample_counters(false)?;
        if !self.progress.counted_since {
            return Ok(Step::Nothing);
        }
        // A kernel that always claims success (September 2020) keeps its promise in part.
        let moved = self.ledger.moved_with_slab();
        let kept = moved.saturating_sub(self.progress.proven_at) >= self.progress.unproven / 2;
        self.progress.prove(moved);
        Ok(if kept { Step::Full } else { Step::Partial })
    }

    /// Returns whether a write that failed made progress all the same: [`Step::Partial`] if so,
    /// else `otherwise`.
    pub(super) fn progress_or(&mut self, otherwise: Step) -> Result<Step, StoppedBy> {
        self.sample_usage()?;
        self.sample_counters(false)?;
        let moved = self.progress.has_fallen || self.progress.has_counted;
        Ok(if moved { Step::Partial } else { otherwise })
    }

    /// Samples the usage, and returns whether it fell below all earlier ones.
    pub(super) fn sample_usage(&mut self) -> Result<bool, StoppedBy> {
        let usage = self.target.usage().map_err(lost)?;
        let fell = self.ledger.enter_usage(usage);
        self.progress.has_fallen |= fell;
        Ok(fell)
    }

    /// Samples the counters, and returns whether they moved.
    pub(super) fn sample_counters(&mut self, flush: bool) -> Result<bool, StoppedBy> {
        let before = self.target.now();
        let stat = self.target.stat(flush).map_err(lost)?;
        self.stat_cost = self.target.now().saturating_sub(before);
        self.since_stat = Duration::ZERO;
        self.stat_is_fresh = flush;
        let moved = self.ledger.enter_stat(stat);
        self.progress.has_counted |= moved;
        self.progress.counted_since |= moved;
        self.judge_swap();
        Ok(moved)
    }
}

/// Returns the reason for a sample that can't be read any more: the cgroup is gone, or the kernel
/// returned an error that it shouldn't.
fn lost(errno: Errno) -> StoppedBy {
    match errno {
        Errno::NODEV | Errno::NOENT => StoppedBy::Removed,
        errno => StoppedBy::Failed(errno),
    }
}
