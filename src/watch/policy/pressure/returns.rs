//! What comes back of a press: more than is usual, and at once. Amounts are bytes.

use std::time::Duration;

use super::sample::PressureSample;
use crate::kind::Kind;

/// Time constant within which reclaimed memory that is touched all the time refaults.
const WINDOW: Duration = Duration::from_secs(2);

/// Share of the reclaimed bytes above which refaults mean that the memory was in use.
const KNEE_SHARE: f64 = 0.1;

/// Refaults up to this many bytes are noise.
const NOISE_BYTES: f64 = (64 << 10) as f64;

/// Time in which the usual rates are learned, in seconds.
const LEARNING_TIME: f64 = 10.0;

/// Rates while nothing is reclaimed, a second: bytes that refault, anonymous memory of them, and
/// microseconds of waiting for I/O.
#[derive(Clone, Copy, Debug, Default)]
struct Usual {
    all: f64,
    anon: f64,
    wait: f64,
}

/// Memory reclaimed and refaulted lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Returns {
    /// Bytes reclaimed and refaulted; both decay over `WINDOW`.
    pub(super) reclaimed: f64,
    pub(super) returned: f64,
    /// Anonymous memory of the refaulted bytes.
    anon: f64,
    /// Bytes reclaimed that haven't come back.
    out: f64,
    usual: Usual,
}

/// Refaults of an interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval {
    /// Bytes that can come from the press.
    pub(super) refaulted: f64,
    /// Microseconds of waiting for I/O beyond what is usual, for what refaulted.
    pub(super) waited: f64,
}

impl Returns {
    /// Records reclaimed bytes.
    pub(super) fn reclaimed(&mut self, bytes: u64) {
        self.reclaimed += bytes as f64;
        self.out += bytes as f64;
    }

    /// Records the refaults between two samples, during a press of this kind, and the microseconds
    /// for which tasks `waited` for I/O. What was touched within the `reuse` time is in use.
    pub(super) fn learn(
        &mut self,
        sample: &PressureSample,
        last: &PressureSample,
        kind: Kind,
        waited: f64,
        reuse: Duration,
    ) -> Interval {
        let time = sample.at.saturating_sub(last.at).as_secs_f64().max(1e-3);
        let since_last = |of: fn(&PressureSample) -> u64| of(sample).saturating_sub(of(last)) as f64;
        let (all, anon) = (since_last(|one| one.returned), since_last(|one| one.returned_anon));
        let is_anon = kind == Kind::Anon;
        let (refaulted, usual) = if is_anon { (anon, self.usual.anon) } else { (all, self.usual.all) };
        // More than was reclaimed can't come back from it.
        let excess = (refaulted - usual * time).max(0.0).min(self.out);
        let excess_anon = (anon - self.usual.anon * time).max(0.0).min(excess);
        self.returned = self.returned * fade(time) + excess;
        self.anon = self.anon * fade(time) + excess_anon;
        // The I/O of the cgroup itself doesn't count; but when memory refaults, the tasks wait for
        // that I/O.
        let beyond = if excess > NOISE_BYTES { (waited - self.usual.wait * time).max(0.0) } else { 0.0 };
        // What may still come back from earlier presses isn't usual, however late it comes. What
        // hasn't within several reuse times is forgotten.
        self.out *= (-time / reuse.as_secs_f64()).exp();
        let others = (all - self.out).max(0.0);
        if self.out < 1.0 || others > 0.0 {
            let weight = (time / LEARNING_TIME).min(1.0);
            self.usual.all += weight * (others / time - self.usual.all);
            self.usual.anon += weight * (others.min(anon) / time - self.usual.anon);
            self.usual.wait += weight * (waited / time - self.usual.wait);
        }
        self.out = (self.out - since_last(|one| one.refaulted)).max(0.0);
        Interval { refaulted, waited: beyond }
    }

    /// Lets `seconds` pass for what was reclaimed. Returns whether much of it came back at once.
    pub(super) fn judge(&mut self, seconds: f64) -> bool {
        let share = self.returned / self.reclaimed.max(1.0);
        let rest = self.reclaimed * fade(seconds);
        self.reclaimed = if rest < 4096.0 { 0.0 } else { rest };
        self.came_back() && share > KNEE_SHARE
    }

    /// Returns whether more than noise came back.
    pub(super) fn came_back(&self) -> bool {
        self.returned > NOISE_BYTES
    }

    /// Returns whether the anonymous memory that came back would be no reason to hold.
    pub(super) fn is_of_file(&self) -> bool {
        self.anon <= KNEE_SHARE * self.reclaimed
    }

    /// Forgets what came back: it isn't the press's.
    pub(super) fn forget_returned(&mut self) {
        (self.returned, self.anon) = (0.0, 0.0);
    }

    /// Forgets what was reclaimed earlier: it is back.
    pub(super) fn forget_out(&mut self) {
        self.out = 0.0;
    }

    /// Forgets a press.
    pub(super) fn forget(&mut self) {
        self.reclaimed = 0.0;
        self.forget_returned();
    }
}

/// Returns the weight of what was seen `seconds` ago.
fn fade(seconds: f64) -> f64 {
    (-seconds / WINDOW.as_secs_f64()).exp()
}
