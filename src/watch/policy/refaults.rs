//! Detection of refaults, which keeps a policy from reclaiming memory in use. Pure functions of time
//! and of the refaults.

use std::time::Duration;

use super::backoff::Backoff;

/// Minimum bytes reclaimed before refaults are judged.
const MIN_JUDGED_BYTES: u64 = 8 << 20;

/// Interval between checks: the kernel folds its counters every 2 s. Reading them is expensive, so
/// after `CLEAN_CHECKS` checks without refaults they are read half as often.
const WINDOW: Duration = Duration::from_secs(2);
const CLEAN_CHECKS: u32 = 3;

/// Share of the reclaimed bytes above which refaults of the working set mean that the memory wasn't
/// cold. A file that is streamed again and again has no such refaults; memory that is touched all
/// the time began with 28% and came down to 5% (Linux 7.3, MGLRU).
const MAX_RESTORE_SHARE: f64 = 0.1;

/// Share of the reclaimed bytes above which all refaults count, in use before or not, if tasks are
/// stalled for more than a share `MIN_STALL_SHARE` of the time as well. A stream with read-ahead
/// refaults, too, but no task waits for it.
const MAX_REFAULT_SHARE: f64 = 0.5;
const MIN_STALL_SHARE: f64 = 0.01;

/// Counters of a cgroup since its creation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RefaultCounters {
    /// Bytes refaulted that belong to the working set: restores, activations, swap-ins.
    pub restored: u64,
    /// Bytes refaulted in all.
    pub refaulted: u64,
    /// Time for which tasks were stalled on memory (PSI `some`); `None` where it can't be read.
    pub stalled: Option<Duration>,
}

/// Detector of refaults of reclaimed memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct RefaultDetector {
    began: Option<(Duration, RefaultCounters)>,
    reclaimed: u64,
    /// Number of consecutive checks without refaults.
    clean: u32,
    backoff: Backoff<5, 600>,
}

impl RefaultDetector {
    /// Records reclaimed bytes.
    pub(crate) fn reclaimed(&mut self, bytes: u64) {
        self.reclaimed += bytes;
    }

    /// Returns whether [`RefaultDetector::check`] is due: reading the counters is expensive.
    #[must_use]
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        match self.began {
            None => self.reclaimed > 0,
            Some((began, _)) => {
                let window = if self.clean >= CLEAN_CHECKS { 2 * WINDOW } else { WINDOW };
                self.reclaimed >= MIN_JUDGED_BYTES && now.saturating_sub(began) >= window
            }
        }
    }

    /// Records the counters. Returns the share of the reclaimed bytes that refaulted, if that is
    /// too much; the detector then holds for some time.
    pub(crate) fn check(&mut self, now: Duration, counters: RefaultCounters) -> Option<f64> {
        let began = self.began.replace((now, counters));
        let reclaimed = std::mem::take(&mut self.reclaimed);
        let (began, before) = began?;
        let share = |now: u64, before: u64| now.saturating_sub(before) as f64 / reclaimed.max(1) as f64;
        let restored = share(counters.restored, before.restored);
        let refaulted = share(counters.refaulted, before.refaulted);
        let time = now.saturating_sub(began).as_secs_f64();
        // Where it can't be read, refaults alone decide.
        let stalled = counters
            .stalled
            .zip(before.stalled)
            .is_none_or(|(now, before)| now.saturating_sub(before).as_secs_f64() > MIN_STALL_SHARE * time);
        let share = match restored {
            restored if restored > MAX_RESTORE_SHARE => restored,
            _ if refaulted > MAX_REFAULT_SHARE && stalled => refaulted,
            _ => {
                self.backoff.worked();
                self.clean = self.clean.saturating_add(1);
                return None;
            }
        };
        self.backoff.failed(now);
        self.clean = 0;
        // Refaults during the hold are not due to its reclaim.
        self.began = None;
        Some(share)
    }

    /// Returns the end of the hold, if there is one.
    #[must_use]
    pub(crate) fn holds(&self, now: Duration) -> Option<Duration> {
        self.backoff.waits(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn counters(restored: u64) -> RefaultCounters {
        RefaultCounters { restored: restored * M, refaulted: restored * M, stalled: Some(Duration::ZERO) }
    }

    #[test]
    fn refaults_with_stalls_hold_reclaim_back() {
        let judged = |refaulted: u64, stalled: u64| {
            let mut detector = RefaultDetector::default();
            detector.check(
                at(0),
                RefaultCounters { stalled: Some(Duration::ZERO), ..RefaultCounters::default() },
            );
            detector.reclaimed(20 * M);
            let stalled = Some(Duration::from_millis(stalled));
            detector.check(at(2), RefaultCounters { restored: 0, refaulted: refaulted * M, stalled })
        };
        assert_eq!(judged(16, 100), Some(0.8));
        assert_eq!(judged(16, 2), None, "a stream: no task waits");
        assert_eq!(judged(6, 100), None, "the stall has other reasons");
    }

    #[test]
    fn restores_hold_reclaim_back_longer_each_time() {
        let mut detector = RefaultDetector::default();
        detector.reclaimed(M);
        assert!(detector.is_due(at(0)));
        assert_eq!(detector.check(at(0), counters(100)), None, "earlier refaults have other causes");
        detector.reclaimed(20 * M);
        assert!(!detector.is_due(at(1)) && detector.is_due(at(2)));
        assert_eq!(
            (detector.check(at(2), counters(101)), detector.holds(at(2))),
            (None, None),
            "a twentieth"
        );
        detector.reclaimed(20 * M);
        assert_eq!(detector.check(at(4), counters(117)), Some(0.8));
        assert_eq!((detector.holds(at(8)), detector.holds(at(9))), (Some(at(9)), None));
        detector.reclaimed(M);
        assert_eq!(detector.check(at(10), counters(200)), None);
        detector.reclaimed(20 * M);
        assert_eq!(detector.check(at(12), counters(220)), Some(1.0));
        assert!(detector.holds(at(21)).is_some(), "twice as long");
    }
}
