//! The sampling interval: samples cost CPU time, which should be small beside the reclaim that they
//! lead to.
//!
//! On most hosts a sample costs some microseconds. In an emulator, or where wake-ups are expensive,
//! it can cost as much as that reclaim: then samples are further apart, and more memory is kept
//! free in between.

use std::time::Duration;

use super::headroom::{MIN_INTERVAL, NEAR_INTERVAL};

/// Target CPU time of everything but the writes, as a share of that of the writes.
const SHARE: f64 = 0.15;

/// Time between two adjustments.
const ADJUST_INTERVAL: Duration = Duration::from_secs(1);

/// Minimum CPU time in writes for an adjustment.
const MIN_SAMPLE_COST: Duration = Duration::from_micros(500);

/// Sampling interval near a watermark, and the CPU time that it is derived from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SamplingInterval {
    /// CPU time spent in writes since the last adjustment.
    pub wrote: Duration,
    adjusted_at: Duration,
    spent: Duration,
    near: Duration,
}

impl SamplingInterval {
    /// Starts from a time at which the process had used `spent` CPU time.
    #[must_use]
    pub(crate) fn new(now: Duration, spent: Duration) -> Self {
        Self { wrote: Duration::ZERO, adjusted_at: now, spent, near: MIN_INTERVAL }
    }

    /// Returns whether an adjustment is due.
    #[must_use]
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        now.saturating_sub(self.adjusted_at) >= ADJUST_INTERVAL
    }

    /// Adjusts the interval to the CPU time `spent` by the whole process so far. Returns the
    /// sampling interval near a watermark.
    pub(crate) fn adjust(&mut self, now: Duration, spent: Duration) -> Duration {
        let wrote = std::mem::take(&mut self.wrote);
        let all = spent.saturating_sub(std::mem::replace(&mut self.spent, spent));
        self.adjusted_at = now;
        if wrote >= MIN_SAMPLE_COST {
            let beside = all.saturating_sub(wrote).as_secs_f64() / (SHARE * wrote.as_secs_f64());
            self.near = self.near.mul_f64(beside.clamp(0.8, 2.0)).clamp(MIN_INTERVAL, NEAR_INTERVAL);
        }
        self.near
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expensive_samples_are_further_apart_than_cheap_ones() {
        let (second, ms) = (Duration::from_secs, Duration::from_millis);
        let mut interval = SamplingInterval::new(second(0), ms(0));
        assert!(!interval.is_due(ms(900)) && interval.is_due(second(1)));
        for number in 1..10u32 {
            interval.wrote = ms(8);
            interval.adjust(second(u64::from(number)), ms(16) * number);
        }
        assert_eq!(interval.near, NEAR_INTERVAL);
        let spent = ms(16) * 9;
        assert_eq!(
            interval.adjust(second(11), spent + ms(1)),
            NEAR_INTERVAL,
            "without writes nothing is learned"
        );
        for number in 12..40u32 {
            interval.wrote = ms(100);
            interval.adjust(second(u64::from(number)), spent + ms(1) + ms(101) * (number - 11));
        }
        assert_eq!(interval.near, MIN_INTERVAL);
    }
}
