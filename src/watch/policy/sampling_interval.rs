//! The sampling interval: samples cost CPU time, which should be small beside the reclaim that they
//! lead to.
//!
//! On most hosts a sample costs some microseconds. In an emulator, or where wake-ups are expensive,
//! it can cost as much as that reclaim: then samples are further apart, and more memory is kept
//! free in between. Each cgroup pays for its own samples, so that one that needs many, or a
//! thousand at rest, make no other's rarer.

use std::time::Duration;

/// Shortest sampling interval near the lower watermark, where samples are cheap.
pub(crate) const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// Longest sampling interval near the lower watermark, where samples are expensive beside the
/// reclaim.
pub(crate) const NEAR_INTERVAL: Duration = Duration::from_millis(400);

/// Target CPU time of samples, as a share of that of the writes.
const SHARE: f64 = 0.15;

/// Time between two adjustments.
const ADJUST_INTERVAL: Duration = Duration::from_secs(1);

/// Minimum CPU time in writes for an adjustment, microseconds.
const MIN_WRITTEN: u32 = 500;

/// Average cost of a sample. It is measured for the whole process, since a thread's clock costs a
/// system call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SampleCost {
    /// CPU time spent in writes since the last measurement.
    pub wrote: Duration,
    measured_at: Duration,
    spent: Duration,
}

impl SampleCost {
    /// Starts from a time at which the process had used `spent` CPU time.
    #[must_use]
    pub(crate) fn new(now: Duration, spent: Duration) -> Self {
        Self { wrote: Duration::ZERO, measured_at: now, spent }
    }

    /// Returns whether a measurement is due.
    #[must_use]
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        now.saturating_sub(self.measured_at) >= ADJUST_INTERVAL
    }

    /// Returns the CPU time of one of the `samples` since the last measurement. The whole process
    /// has used `spent` so far.
    pub(crate) fn measure(&mut self, now: Duration, spent: Duration, samples: u32) -> Duration {
        let wrote = std::mem::take(&mut self.wrote);
        let all = spent.saturating_sub(std::mem::replace(&mut self.spent, spent));
        self.measured_at = now;
        all.saturating_sub(wrote) / samples.max(1)
    }
}

/// Sampling interval near a watermark of one cgroup, and the counts that it is derived from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SamplingInterval {
    near: Duration,
    /// Number of samples since the last adjustment.
    samples: u32,
    /// CPU time spent in writes since the last adjustment, microseconds.
    written: u32,
}

impl Default for SamplingInterval {
    fn default() -> Self {
        Self { near: MIN_INTERVAL, samples: 0, written: 0 }
    }
}

impl SamplingInterval {
    /// Returns the interval near a watermark.
    #[must_use]
    pub(crate) fn near(&self) -> Duration {
        self.near
    }

    /// Records a sample.
    pub(crate) fn sampled(&mut self) {
        self.samples = self.samples.saturating_add(1);
    }

    /// Records the CPU time of writes.
    pub(crate) fn wrote(&mut self, cpu: Duration) {
        self.written = self.written.saturating_add(u32::try_from(cpu.as_micros()).unwrap_or(u32::MAX));
    }

    /// Returns the number of samples since the last adjustment.
    #[must_use]
    pub(crate) fn samples(&self) -> u32 {
        self.samples
    }

    /// Adjusts the interval to the `cost` of a sample.
    pub(crate) fn adjust(&mut self, cost: Duration) {
        let (samples, written) = (std::mem::take(&mut self.samples), std::mem::take(&mut self.written));
        if written >= MIN_WRITTEN {
            let sampling = cost.as_secs_f64() * f64::from(samples);
            let ratio = sampling / (SHARE * f64::from(written) * 1e-6);
            self.near = self.near.mul_f64(ratio.clamp(0.8, 2.0)).clamp(MIN_INTERVAL, NEAR_INTERVAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// Adjusts to a second with so many samples, and so much time in writes.
    fn second(interval: &mut SamplingInterval, samples: u32, wrote: Duration, cost: Duration) -> Duration {
        (0..samples).for_each(|_| interval.sampled());
        interval.wrote(wrote);
        interval.adjust(cost);
        interval.near()
    }

    #[test]
    fn the_cost_is_that_of_everything_but_the_writes() {
        let mut cost = SampleCost::new(MS(0), MS(5));
        assert!(!cost.is_due(MS(900)) && cost.is_due(MS(1000)));
        cost.wrote = MS(8);
        assert_eq!(cost.measure(MS(1000), MS(23), 20), MS(10) / 20);
        assert_eq!(cost.measure(MS(2000), MS(23), 0), MS(0));
        assert!(!cost.is_due(MS(2500)));
    }

    #[test]
    fn expensive_samples_are_further_apart_than_cheap_ones() {
        let mut interval = SamplingInterval::default();
        for _ in 0..10 {
            second(&mut interval, 20, MS(8), MS(8) / 20);
        }
        assert_eq!(interval.near(), NEAR_INTERVAL);
        assert_eq!(
            second(&mut interval, 20, MS(0), MS(1)),
            NEAR_INTERVAL,
            "without writes nothing is learned"
        );
        for _ in 0..30 {
            second(&mut interval, 20, MS(100), MS(1) / 20);
        }
        assert_eq!(interval.near(), MIN_INTERVAL);
    }

    #[test]
    fn others_samples_make_no_cgroups_own_rarer() {
        // Two that cost the same: one is sampled all the time, for little; a thousand others rest.
        let (mut noisy, mut other) = (SamplingInterval::default(), SamplingInterval::default());
        let mut cost = SampleCost::new(MS(0), MS(0));
        for number in 1..=10 {
            (0..400).for_each(|_| noisy.sampled());
            (0..20).for_each(|_| other.sampled());
            noisy.wrote(MS(2));
            other.wrote(MS(4));
            cost.wrote = MS(6);
            let samples = noisy.samples() + other.samples() + 1000;
            let one = cost.measure(MS(1000 * number), MS(34 * number), samples);
            noisy.adjust(one);
            other.adjust(one);
        }
        assert_eq!((noisy.near(), other.near()), (NEAR_INTERVAL, MIN_INTERVAL));
    }
}
