//! The recent cost of reclaim, not its average: cold memory is cheap and goes first, and the cost
//! rises as it runs out.

use std::time::Duration;

/// Minimum CPU time for a measurement of the cost.
const JUDGED: Duration = Duration::from_millis(20);

/// Bytes freed recently, and the CPU time spent on them.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecentCost {
    freed: u64,
    cpu: Duration,
    last: Option<f64>,
}

impl RecentCost {
    /// Records a write that freed some bytes.
    pub(crate) fn record(&mut self, freed: u64, cpu: Duration) {
        self.freed += freed;
        self.cpu += cpu;
        if self.cpu >= JUDGED {
            self.last = Some(self.cpu.as_secs_f64() * f64::from(1 << 30) / self.freed as f64);
            (self.freed, self.cpu) = (0, Duration::ZERO);
        }
    }

    /// Returns the cost in seconds of CPU time per GiB, over the most recent period with enough CPU
    /// time; infinite if nothing was freed.
    #[must_use]
    pub(crate) fn last(&self) -> Option<f64> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_price_is_of_late() {
        let mut price = RecentCost::default();
        price.record(1 << 20, Duration::from_millis(1));
        assert_eq!(price.last(), None, "too little to tell");
        price.record(19 << 20, Duration::from_millis(19));
        let first = price.last().unwrap();
        assert!((first - 1.024).abs() < 0.001, "{first}");
        price.record(0, Duration::from_millis(30));
        assert_eq!(price.last(), Some(f64::INFINITY));
    }
}
