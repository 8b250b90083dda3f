//! Courtesy on a processor that tasks want as well: how much one write may request, and the pause
//! before the next. A pure function of the times of earlier writes.
//!
//! A write keeps a processor for some milliseconds. The scheduler gives a task that becomes
//! runnable meanwhile every second slice only, so that an operation of 3 ms takes 6: longer than
//! with the reclaim that it would have had to do for itself. After a write that had to wait for the
//! processor, and while the cgroup's tasks wait for one (PSI), writes are therefore short, and
//! operations end in the pauses between them. A task that waits until the end of a write doesn't
//! delay it, so the first alone doesn't show all: p99 of a file read in a loop on Linux 6.1 was 5.7
//! ms with it, 3.9 ms with both, and 3.6 ms without memctl. Until the waits are known, tasks are
//! taken to want the processor: on Linux 6.12 half of the slow operations of such a run were those
//! of its first 3 s.

use std::time::Duration;

/// Part of a write's duration that it may wait for the processor, and the least wait that counts:
/// less is an interrupt.
const CROWDED: u32 = 4;
const MIN_WAIT: Duration = Duration::from_micros(250);

/// Minimum time between looks at the cgroup's waits, and the part of it from which its tasks want the
/// processor. A read of the file sums them up to that moment (`psi_show`, kernel/sched/psi.c).
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
const CROWDED_PART: u32 = 500;

/// Time after such a write or look for which others are taken to want the processor.
const MEMORY: Duration = Duration::from_secs(10);

/// The same after the first look, with which no other can be compared yet.
const UNKNOWN: Duration = Duration::from_secs(3);

/// CPU time of a short write, and the least that one requests, in bytes: on a slow processor a write
/// takes as long whatever it requests, and too small ones would never come down to their target.
const SHORT: Duration = Duration::from_micros(300);
const MIN_SHORT: u64 = 1 << 20;

/// Pause before the next write, in multiples of the last one's CPU time, and at most.
const PAUSE: u32 = 10;
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// Share of the requested bytes that arrive meanwhile, from which there is no time for pauses: the
/// cgroup allocates about as fast as it is reclaimed, and a pause would let it meet its limit. Up to
/// there pauses get shorter: one length until then, and none from there on, would have every few
/// writes end in a long one. Weight of the last write, and the most that it counts.
const URGENT: f64 = 0.75;
const NEW_SHARE: f64 = 0.25;
const MOST_ARRIVED: f64 = 4.0;

/// One write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    /// Bytes requested.
    pub bytes: u64,
    /// Duration.
    pub took: Duration,
    /// CPU time.
    pub cpu: Duration,
    /// Bytes by which the usage fell, in the pause before it as well; negative if it rose.
    pub fell: i64,
}

/// State for one cgroup.
#[derive(Debug, Default)]
pub(crate) struct Courtesy {
    /// End of the time for which others are taken to want the processor.
    crowded_until: Duration,
    /// The same, as long as two looks can't be compared.
    unknown_until: Duration,
    /// Recent share of the requested bytes that arrived meanwhile, in writes and pauses.
    arrived: f64,
    /// Time of the last look, and for how long tasks had waited by then; `None` if that isn't known.
    looked: Option<(Duration, Option<Duration>)>,
    /// Bytes that take [`SHORT`].
    short: u64,
    pause: Duration,
}

impl Courtesy {
    /// Records a write that ended `now`.
    pub(crate) fn record(&mut self, now: Duration, write: Write) {
        let waited = write.took.saturating_sub(write.cpu);
        if waited > MIN_WAIT.max(write.took / CROWDED) {
            self.crowded_until = now + MEMORY;
        }
        // What grows by far more than is requested counts at once, one operation in a pause doesn't.
        let arrived = 1.0 - write.fell as f64 / write.bytes.max(1) as f64;
        self.arrived += NEW_SHARE * (arrived.clamp(0.0, MOST_ARRIVED) - self.arrived);
        let short = u128::from(write.bytes) * SHORT.as_nanos() / write.cpu.as_nanos().max(1);
        self.short = u64::try_from(short).unwrap_or(u64::MAX);
        self.pause = write.cpu.saturating_mul(PAUSE).min(LONGEST_PAUSE);
    }

    /// Returns whether [`Courtesy::look`] is due.
    #[must_use]
    pub(crate) fn is_look_due(&self, now: Duration) -> bool {
        self.looked.is_none_or(|(at, _)| now.saturating_sub(at) >= LOOK_INTERVAL)
    }

    /// Records for how long tasks of the cgroup have waited for a processor so far; `None` if that
    /// isn't known.
    pub(crate) fn look(&mut self, now: Duration, waited: Option<Duration>) {
        let last = self.looked.replace((now, waited));
        if last.is_none() {
            self.unknown_until = now + UNKNOWN;
        }
        let (Some((at, Some(before))), Some(waited)) = (last, waited) else { return };
        self.unknown_until = Duration::ZERO;
        if waited.saturating_sub(before) >= now.saturating_sub(at) / CROWDED_PART {
            self.crowded_until = now + MEMORY;
        }
    }

    /// Returns the most to request in the next write.
    #[must_use]
    pub(crate) fn most(&self, now: Duration) -> u64 {
        if self.holds(now) { self.short.max(MIN_SHORT) } else { u64::MAX }
    }

    /// Returns the pause before the next write of the same action.
    #[must_use]
    pub(crate) fn pause(&self, now: Duration) -> Duration {
        if self.holds(now) { self.pause.mul_f64(1.0 - self.arrived / URGENT) } else { Duration::ZERO }
    }

    fn holds(&self, now: Duration) -> bool {
        now < self.crowded_until.max(self.unknown_until) && self.arrived < URGENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;
    const FELL: i64 = 1 << 20;
    const MS: Duration = Duration::from_millis(1);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_write_that_waits_for_the_processor_makes_the_next_ones_short() {
        let mut courtesy = Courtesy::default();
        let alone = Write { bytes: 20 * M, took: 3 * MS, cpu: 3 * MS, fell: 20 * FELL };
        courtesy.record(at(1), alone);
        assert_eq!((courtesy.most(at(1)), courtesy.pause(at(1))), (u64::MAX, Duration::ZERO));
        courtesy.record(at(1), Write { took: 5 * MS, ..alone });
        assert_eq!((courtesy.most(at(1)), courtesy.pause(at(1))), (2 * M, 5 * MS));
        courtesy.record(at(2), Write { bytes: 2 * M, took: MS * 3 / 10, cpu: MS * 3 / 10, fell: 2 * FELL });
        assert_eq!((courtesy.most(at(2)), courtesy.pause(at(2))), (2 * M, 3 * MS), "as fast as before");
        assert_eq!(courtesy.most(at(11)), u64::MAX, "10 s later");
    }

    #[test]
    fn tasks_that_wait_for_the_processor_make_writes_short() {
        let mut courtesy = Courtesy::default();
        courtesy.record(at(0), Write { bytes: 20 * M, took: 3 * MS, cpu: 3 * MS, fell: 20 * FELL });
        assert!(courtesy.is_look_due(at(0)));
        courtesy.look(at(0), Some(at(7)));
        assert_eq!((courtesy.most(at(1)), courtesy.pause(at(1))), (2 * M, 5 * MS), "not known yet");
        assert!(!courtesy.is_look_due(at(1)) && courtesy.is_look_due(at(2)));
        courtesy.look(at(2), Some(at(7) + MS));
        assert_eq!((courtesy.most(at(2)), courtesy.pause(at(2))), (u64::MAX, Duration::ZERO), "hardly");
        for unknown in [None, Some(at(9))] {
            courtesy.look(at(4), unknown);
            assert_eq!(courtesy.most(at(4)), u64::MAX, "unknown: {unknown:?}");
        }
        courtesy.look(at(6), Some(at(9) + 4 * MS));
        assert_eq!((courtesy.most(at(15)), courtesy.pause(at(15))), (2 * M, 5 * MS));
        courtesy.look(at(15), Some(at(9) + 4 * MS));
        assert_eq!(courtesy.most(at(16)), u64::MAX, "10 s later");
    }

    #[test]
    fn waits_that_stay_unknown_do_not_count() {
        let mut courtesy = Courtesy::default();
        courtesy.look(at(0), None);
        assert_eq!(courtesy.most(at(1)), M, "not known yet");
        courtesy.look(at(2), None);
        assert_eq!((courtesy.most(at(2)), courtesy.most(at(3))), (M, u64::MAX));
    }

    #[test]
    fn an_interrupt_is_no_crowd() {
        let mut courtesy = Courtesy::default();
        courtesy.record(at(1), Write { bytes: M, took: MS / 5, cpu: MS / 20, fell: FELL });
        assert_eq!(courtesy.most(at(1)), u64::MAX);
    }

    #[test]
    fn usage_that_grows_as_fast_is_urgent() {
        let crowded = Write { bytes: 10 * M, took: 8 * MS, cpu: 3 * MS, fell: 10 * FELL };
        let most = |falls: &[i64]| {
            let mut courtesy = Courtesy::default();
            courtesy.record(at(1), crowded);
            for fell in falls {
                courtesy.record(at(1), Write { fell: fell * FELL, ..crowded });
            }
            (courtesy.most(at(1)), courtesy.pause(at(1)))
        };
        let at_once = (u64::MAX, Duration::ZERO);
        assert_eq!(most(&[]), (M, LONGEST_PAUSE));
        for (falls, pause, why) in [
            (&[5, 5, 5, 5, 5, 5, 5, 5][..], 1..=3, "it keeps falling"),
            (&[10, -5, 10, -5, 10, -5, 10], 1..=3, "an operation now and then"),
            (&[-20, 10, 10], 1..=3, "no longer"),
            (&[-20, 10, 10, 10, 10, 10, 10, 10, 10, 10], 4..=5, "long ago"),
        ] {
            let (bytes, paused) = most(falls);
            assert!(bytes == M && pause.contains(&paused.as_millis()), "{why}: {bytes} bytes, {paused:?}");
        }
        assert_eq!(most(&[-20]), at_once, "far faster");
        assert_eq!(most(&[0, 0, 0, 0, 0]), at_once, "as fast");
    }

    #[test]
    fn a_slow_processor_is_not_asked_for_next_to_nothing() {
        let mut courtesy = Courtesy::default();
        courtesy.record(at(1), Write { bytes: M / 8, took: at(2), cpu: at(1), fell: FELL / 8 });
        assert_eq!((courtesy.most(at(1)), courtesy.pause(at(1))), (M, LONGEST_PAUSE));
        courtesy.record(at(1), Write { bytes: u64::MAX, took: at(1), cpu: Duration::ZERO, fell: i64::MAX });
        assert_eq!(courtesy.most(at(1)), u64::MAX);
    }
}
