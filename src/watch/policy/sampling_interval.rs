//! How often to look: looks have a price, and it should be small beside what they are for.
//!
//! On most hosts a look costs some microseconds. In an emulator, or where waking up is dear, it can cost as much as the
//! reclaim that it leads to: then looks are further apart, and more is kept free meanwhile.

use std::time::Duration;

use super::headroom::{MIN_INTERVAL, NEAR_INTERVAL};

/// What everything but the writes may cost beside them.
const SHARE: f64 = 0.15;

/// Weighed so often.
const WEIGHED: Duration = Duration::from_secs(1);

/// Less CPU time than that in writes tells nothing.
const MIN_SAMPLE_COST: Duration = Duration::from_micros(500);

/// What is spent, and how often to look for it.
#[derive(Clone, Copy, Debug)]
pub struct SamplingInterval {
    /// CPU time spent in writes since it was weighed last.
    pub wrote: Duration,
    weighed: Duration,
    spent: Duration,
    near: Duration,
}

impl SamplingInterval {
    /// From a moment at which the process had spent so much CPU time.
    #[must_use]
    pub fn new(now: Duration, spent: Duration) -> Self {
        Self { wrote: Duration::ZERO, weighed: now, spent, near: MIN_INTERVAL }
    }

    /// Whether it is time to weigh.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        now.saturating_sub(self.weighed) >= WEIGHED
    }

    /// Weighs what was spent, the whole process having spent so much CPU time by now. Gives how often to look near a
    /// watermark.
    pub fn weigh(&mut self, now: Duration, spent: Duration) -> Duration {
        let wrote = std::mem::take(&mut self.wrote);
        let all = spent.saturating_sub(std::mem::replace(&mut self.spent, spent));
        self.weighed = now;
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
    fn dear_looks_are_further_apart_and_cheap_ones_closer() {
        let (second, ms) = (Duration::from_secs, Duration::from_millis);
        let mut price = SamplingInterval::new(second(0), ms(0));
        assert!(!price.is_due(ms(900)) && price.is_due(second(1)));
        for look in 1..10u32 {
            price.wrote = ms(8);
            price.weigh(second(u64::from(look)), ms(16) * look);
        }
        assert_eq!(price.near, NEAR_INTERVAL);
        let spent = ms(16) * 9;
        assert_eq!(
            price.weigh(second(11), spent + ms(1)),
            NEAR_INTERVAL,
            "without writes nothing is learned"
        );
        for look in 12..40u32 {
            price.wrote = ms(100);
            price.weigh(second(u64::from(look)), spent + ms(1) + ms(101) * (look - 11));
        }
        assert_eq!(price.near, MIN_INTERVAL);
    }
}
