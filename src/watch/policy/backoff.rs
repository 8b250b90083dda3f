//! Delays that double after each failure, up to a bound. Pure functions of time.

use std::time::Duration;

/// A delay that doubles.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Doubling(Duration);

impl Doubling {
    /// Returns the next delay: at first `first`, then twice the last one, up to `most`.
    pub(crate) fn next(&mut self, first: Duration, most: Duration) -> Duration {
        self.0 = (2 * self.0).clamp(first, most);
        self.0
    }

    /// Makes the next delay the first one again.
    pub(crate) fn reset(&mut self) {
        self.0 = Duration::ZERO;
    }
}

/// A delay that doubles from `FIRST` seconds up to `MOST`, and its end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff<const FIRST: u64, const MOST: u64> {
    delay: Doubling,
    until: Duration,
}

impl<const FIRST: u64, const MOST: u64> Backoff<FIRST, MOST> {
    /// Records a failure. Returns the delay.
    pub(crate) fn failed(&mut self, now: Duration) -> Duration {
        let delay = self.delay.next(Duration::from_secs(FIRST), Duration::from_secs(MOST));
        self.until = now + delay;
        delay
    }

    /// Records a success: the next delay is short again.
    pub(crate) fn worked(&mut self) {
        *self = Self::default();
    }

    /// Returns the end of the delay, if it is still to come.
    #[must_use]
    pub(crate) fn waits(&self, now: Duration) -> Option<Duration> {
        (now < self.until).then_some(self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_bound() {
        let mut backoff = Backoff::<1, 5>::default();
        assert_eq!(backoff.waits(Duration::ZERO), None);
        let waits: Vec<_> = (0..4).map(|_| backoff.failed(Duration::from_secs(10)).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5]);
        assert_eq!(
            (backoff.waits(Duration::from_secs(14)), backoff.waits(Duration::from_secs(15))),
            (Some(Duration::from_secs(15)), None)
        );
        backoff.worked();
        assert_eq!(
            (backoff.waits(Duration::from_secs(14)), backoff.failed(Duration::from_secs(20))),
            (None, Duration::from_secs(1))
        );
    }
}
