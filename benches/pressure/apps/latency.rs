//! Latencies of requests.

use std::time::{Duration, SystemTime};

/// Requests with the times at which they ended.
#[derive(Default)]
pub struct Latencies(Vec<(SystemTime, Duration)>);

impl Latencies {
    pub fn add(&mut self, ended: SystemTime, took: Duration) {
        self.0.push((ended, took));
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns those that ended between two times.
    pub fn within(&self, [from, to]: [SystemTime; 2]) -> Self {
        Self(self.0.iter().copied().filter(|&(ended, _)| from <= ended && ended <= to).collect())
    }

    /// Returns latencies in milliseconds that the given shares of all requests don't exceed.
    pub fn quantiles<const N: usize>(&self, shares: [f64; N]) -> [f64; N] {
        let mut sorted: Vec<_> = self.0.iter().map(|&(_, took)| took).collect();
        sorted.sort_unstable();
        shares.map(|share| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
        })
    }

    /// Returns the longest latency of each second that has one `above` that, with the time of its end.
    pub fn slow(&self, above: Duration) -> Vec<(SystemTime, Duration)> {
        let second = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |at| at.as_secs());
        let mut slow = Vec::<(SystemTime, Duration)>::new();
        for &(ended, took) in self.0.iter().filter(|(_, took)| *took > above) {
            match slow.last_mut().filter(|(last, _)| second(*last) == second(ended)) {
                Some(last) if last.1 < took => *last = (ended, took),
                Some(_) => {}
                None => slow.push((ended, took)),
            }
        }
        slow
    }
}
