//! State of a swap device, as far as one cgroup's swap-outs show it. A pure function of samples.
//!
//! A press only submits pages. They stay charged until the device has written them, and the kernel
//! frees them when it looks at them again.

use std::time::Duration;

use crate::watch::policy::backoff::Doubling;

/// Pause while more than this many bytes that were swapped out are under writeback.
const MAX_WRITEBACK: u64 = 256 << 10;

/// Bytes per second that a device is expected to write at least, where the cgroup itself writes files:
/// its writeback is also that of files, at any rate. Beyond what was swapped out and may not be written
/// yet, it is none of the policy's.
const LEAST_RATE: f64 = (4 << 20) as f64;

/// Time constant of the most that was dirty lately, in seconds: the kernel writes back what has been
/// dirty for 30 s. What of the writeback is beyond that isn't the files': on a disk of 1 MB/s, 174 MiB
/// would be under way otherwise, and a refault would wait for two minutes (Linux 7.3).
const DIRTY_TIME: f64 = 30.0;

/// Bytes beyond four times the request from which a write swapped out far more than was asked for:
/// the device is behind, and the kernel queued whatever it found.
const FLOOD: f64 = (8 << 20) as f64;
/// Time until the kernel's counter of writeback is up to date: it folds its counters every 2 s.
const WRITEBACK_DELAY: Duration = Duration::from_millis(2500);

/// Time after a wait for a device within which nothing to be had is no knee: what was swapped out
/// is still in memory, where the kernel keeps it like memory in use until it looks at it again (60
/// MiB after one write, on a disk of 4 MB/s, Linux 7.3).
const COLLECTED_AFTER: Duration = Duration::from_secs(32);

/// Pause after a wait for a device; it doubles, up to the longer one, while others keep it busy.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const MAX_PAUSE: Duration = Duration::from_secs(16);

/// What was swapped out, and may not be written yet.
#[derive(Clone, Debug)]
pub(super) struct Device {
    /// Bytes that it may not have written yet; `None` if unknown.
    in_flight: Option<f64>,
    /// Bytes submitted since little was under writeback last.
    submitted: f64,
    /// Most bytes of files that were dirty lately.
    dirty: f64,
    /// Bytes of the last step.
    asked: f64,
    /// Time at which far more than that was swapped out.
    flooded_at: Option<Duration>,
    /// Time of the last wait for it, and the pause after it, which doubles while others keep it busy.
    late_at: Option<Duration>,
    pause: Doubling,
    /// True if it was behind since the last wait, with what was swapped out.
    was_behind: bool,
    /// True if it was behind at the last look.
    is_behind: bool,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            in_flight: Some(0.0),
            submitted: 0.0,
            dirty: 0.0,
            asked: 0.0,
            flooded_at: None,
            late_at: None,
            pause: Doubling::default(),
            was_behind: false,
            is_behind: false,
        }
    }
}

impl Device {
    /// Records a step, in bytes.
    pub(super) fn asked(&mut self, bytes: f64) {
        self.asked = bytes;
    }

    /// Records the bytes submitted within the last `seconds`; `None` if unknown. So many bytes of
    /// files are `dirty`.
    pub(super) fn swapped(&mut self, at: Duration, submitted: Option<u64>, dirty: u64, seconds: f64) {
        self.dirty = (self.dirty * (-seconds / DIRTY_TIME).exp()).max(dirty as f64);
        let Some(submitted) = submitted.map(|bytes| bytes as f64) else {
            self.in_flight = None;
            return;
        };
        let left = self.in_flight.map_or(0.0, |bytes| (bytes - LEAST_RATE * seconds).max(0.0));
        self.in_flight = Some(left + submitted);
        self.submitted += submitted;
        if submitted > 4.0 * self.asked + FLOOD {
            self.flooded_at = Some(at);
        }
    }

    /// Looks whether it still has to write much, with `writeback` bytes under writeback by the
    /// kernel's counter, and `room` for more in the queue of all cgroups, if that is known. If nothing
    /// is known of swap, all of these may be swap's. Returns whether it was so at the last look, if it
    /// is so.
    #[must_use]
    pub(super) fn look(&mut self, now: Duration, writeback: u64, room: Option<u64>) -> Option<bool> {
        let is_outdated = self.flooded_at.is_some_and(|at| now.saturating_sub(at) < WRITEBACK_DELAY);
        let is_busy = is_outdated || writeback > MAX_WRITEBACK;
        if !is_busy {
            self.submitted = 0.0;
        }
        let of_swap = (writeback as f64 - self.dirty).min(self.submitted);
        let is_much = |bytes: f64| bytes > MAX_WRITEBACK as f64;
        // What the device wrote is known, or a least rate is taken.
        let may_be_in_flight = room.is_none() && self.in_flight.is_none_or(is_much);
        let is_behind = is_busy && (may_be_in_flight || is_much(of_swap));
        self.was_behind |= is_behind;
        let is_behind = is_behind || room == Some(0);
        let before = std::mem::replace(&mut self.is_behind, is_behind);
        is_behind.then_some(before)
    }

    /// Records a wait for it. Returns how long to pause. If what was swapped out kept it busy, it is
    /// looked at soon: it may have written that. Otherwise others did.
    pub(super) fn late(&mut self, now: Duration) -> Duration {
        if self.was_behind || !self.keeps(now) {
            self.pause.reset();
        }
        (self.late_at, self.was_behind) = (Some(now), false);
        self.pause.next(FIRST_PAUSE, MAX_PAUSE)
    }

    /// Returns whether it was waited for lately, so that memory that was swapped out may not be
    /// freed yet.
    #[must_use]
    pub(super) fn keeps(&self, now: Duration) -> bool {
        self.late_at.is_some_and(|at| now.saturating_sub(at) < COLLECTED_AFTER)
    }
}
