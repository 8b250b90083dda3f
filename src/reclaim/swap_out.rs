//! What a request knows about the memory that it sends to swap, and about the device.

use std::time::Duration;

use super::chunk;

/// Bytes that must have gone to swap, and left memory at once, to show a fast swap.
pub(crate) const MIN_FAST_SWAP: u64 = 2 << 20;

/// Time in which the device should write what one request submits: requests grow below the first,
/// and shrink above the second.
const SHORT_DRAIN: Duration = Duration::from_millis(20);
const LONG_DRAIN: Duration = Duration::from_millis(100);

/// Shortest and longest pause before a request that submits. A device that writes something every
/// few samples needs none.
const MIN_PAUSE: Duration = Duration::from_millis(60);
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// First time limit for a write while swap isn't known to be fast, and the longest. From 7.2 on an
/// interrupted write ends amid a batch, before that after one.
const FIRST_WRITE_TIMEOUT: Duration = Duration::from_millis(2);
const MAX_WRITE_TIMEOUT: Duration = Duration::from_millis(2048);

/// Speed of swap, as far as the request has found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speed {
    Unknown,
    /// Pages left memory at once.
    Fast,
    /// Pages were observed on their way.
    Slow,
}

/// Knowledge about memory on its way to swap. Amounts are bytes.
#[derive(Debug)]
pub(crate) struct SwapOut {
    pub speed: Speed,
    /// Swap usage at the start and at the latest sample; `None` where it can't be read.
    started: Option<u64>,
    pub usage: Option<u64>,
    /// True if the latest write swapped anything out.
    pub has_moved: bool,
    /// Pages that are written and that reclaim doesn't take: in use again, for example. Those that
    /// were there before count as such.
    pub kept: u64,
    /// Fewest pages that were on their way so far.
    pub lowest: u64,
    /// True after a request that tests whether what seems to be written still is being written.
    pub has_probed: bool,
    /// Bytes under writeback that aren't on their way to swap: the application writes files.
    pub foreign: u64,
    /// Size of a request that submits, and whether any submitted since that was set.
    submit: u64,
    pub has_submitted: bool,
    /// Bytes submitted since the start, as far as that was noticed.
    pub submitted: u64,
    /// Time spent waiting since anything was reclaimed.
    pub idle: Duration,
    /// Time for which the device wrote what the latest request submitted.
    drain: Duration,
    /// Time since the device last made progress, and the time that the step before it took.
    step: Duration,
    latest_step: Duration,
    /// Time limit for a write.
    pub timeout: Duration,
    /// Time spent waiting.
    pub waited: Duration,
}

impl SwapOut {
    /// Creates the state of a request that begins with this usage of swap, and with `cached` bytes
    /// in the swap cache.
    pub(crate) fn new(usage: Option<u64>, cached: u64) -> Self {
        Self {
            speed: Speed::Unknown,
            started: usage,
            usage,
            has_moved: false,
            kept: cached,
            lowest: cached,
            has_probed: false,
            foreign: 0,
            submit: chunk::SMALLEST,
            has_submitted: false,
            submitted: 0,
            idle: Duration::ZERO,
            drain: Duration::ZERO,
            step: Duration::ZERO,
            latest_step: Duration::ZERO,
            timeout: FIRST_WRITE_TIMEOUT,
            waited: Duration::ZERO,
        }
    }

    /// Returns whether pages were observed on their way.
    #[must_use]
    pub(crate) fn is_slow(&self) -> bool {
        self.speed == Speed::Slow
    }

    /// Records that something was reclaimed, while `writeback` bytes were under writeback.
    pub(crate) fn succeeded(&mut self, writeback: u64) {
        self.idle = Duration::ZERO;
        if std::mem::take(&mut self.has_probed) {
            self.foreign = writeback;
        }
    }

    /// Records the bytes on their way, those of them in flight, and those under writeback in all.
    pub(crate) fn sampled(&mut self, on_its_way: u64, in_flight: u64, writeback: u64) {
        self.kept = self.kept.min(on_its_way.saturating_sub(in_flight));
        self.lowest = self.lowest.min(on_its_way);
        self.foreign = self.foreign.min(writeback);
    }

    /// Records that a write was interrupted before anything moved. Returns whether the next one has
    /// more time.
    pub(crate) fn allow_more_time(&mut self) -> bool {
        let allowed = self.timeout;
        self.timeout = (2 * self.timeout).min(MAX_WRITE_TIMEOUT);
        self.timeout > allowed
    }

    /// Returns the bytes swapped out since the start, where swap is accounted for.
    #[must_use]
    pub(crate) fn swapped(&self) -> Option<u64> {
        self.usage.zip(self.started).map(|(now, start)| now.saturating_sub(start))
    }

    /// Records time spent waiting for the device.
    pub(crate) fn add_wait(&mut self, time: Duration) {
        for waited in [&mut self.waited, &mut self.drain, &mut self.step, &mut self.idle] {
            *waited += time;
        }
    }

    /// Records that the device made progress.
    pub(crate) fn progressed(&mut self) {
        self.latest_step = std::mem::take(&mut self.step);
    }

    /// Returns the time to wait before the next request that submits, once.
    pub(crate) fn pause(&mut self) -> Duration {
        self.step = Duration::ZERO;
        let step = std::mem::take(&mut self.latest_step);
        if step < MIN_PAUSE { Duration::ZERO } else { step.min(MAX_PAUSE) }
    }

    /// Returns the size of the next request that submits, by the time that the device took for the
    /// latest one. If that found enough that was written, it shows nothing about the device.
    pub(crate) fn next_submit(&mut self) -> u64 {
        if !std::mem::take(&mut self.has_submitted) {
            return self.submit;
        }
        if self.drain > LONG_DRAIN {
            self.submit = (self.submit / 2).max(chunk::SMALLEST);
        } else if self.drain < SHORT_DRAIN {
            self.submit = self.submit.saturating_mul(2);
        }
        self.drain = Duration::ZERO;
        self.submit
    }
}
