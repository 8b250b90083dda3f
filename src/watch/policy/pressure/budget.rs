//! The budget of stall: how much memory may come back for it.

use std::time::Duration;

/// Time whose target share is the budget of stall. The first approach, which reclaims mostly cold
/// memory, has a budget of its own: `APPROACH_BUDGET`, refilled at `APPROACH_REFILL` times the
/// target's share of the elapsed time.
const BUDGET_TIME: Duration = Duration::from_secs(60);
pub(super) const APPROACH_BUDGET: Duration = Duration::from_millis(200);
pub(super) const APPROACH_REFILL: f64 = 4.0;

/// Stall per refaulted byte until one was measured, in microseconds: 25 us a page, about the cost
/// of zram.
pub(super) const INITIAL_STALL_PER_BYTE: f64 = 25.0 / 4096.0;

/// Minimum refaulted bytes for an estimate of the stall per byte.
const MIN_MEASURED_BYTES: f64 = 128.0 * 1024.0;

/// Stall that may still be caused, and the measured price of what comes back. Microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) left: f64,
    /// Stall per refaulted byte.
    pub(super) per_byte: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: APPROACH_BUDGET.as_micros() as f64, per_byte: INITIAL_STALL_PER_BYTE }
    }
}

impl Budget {
    /// Charges a time for which others waited.
    pub(super) fn charge(&mut self, waited: Duration) {
        self.left -= waited.as_micros() as f64;
    }

    /// Records the stall in a time in which so many bytes refaulted.
    pub(super) fn measure(&mut self, stalled: f64, refaulted: f64) {
        if refaulted >= MIN_MEASURED_BYTES {
            self.per_byte += 0.5 * (stalled / refaulted - self.per_byte);
        }
    }

    /// Records that seconds passed, with their stall, for a `target` share of stall; `is_found` once
    /// the first approach is over.
    pub(super) fn pass(&mut self, seconds: f64, stalled: f64, target: f64, is_found: bool) {
        let settled = target * BUDGET_TIME.as_micros() as f64;
        let most = if is_found { settled } else { settled.max(APPROACH_BUDGET.as_micros() as f64) };
        self.left = (self.left + refill(target, is_found) * seconds * 1e6 - stalled).clamp(-settled, most);
    }

    /// Returns the time after which the budget is refilled, if it is overdrawn.
    pub(super) fn debt(&self, target: f64, is_found: bool) -> Option<Duration> {
        let seconds = -self.left / (refill(target, is_found) * 1e6);
        (self.left < 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }

    /// Returns the bytes that it could pay for if all of them refaulted.
    pub(super) fn affordable(&self) -> f64 {
        self.left / self.per_byte.max(1e-9)
    }
}

/// Returns the microseconds of stall that each microsecond allows.
fn refill(target: f64, is_found: bool) -> f64 {
    if is_found { target } else { APPROACH_REFILL * target }
}
