//! The arrival curve of network calculus (Cruz, "A calculus for network delay", 1991): the most
//! that can arrive within a time, learned from samples of a cgroup's usage.
//!
//! For windows of 10 ms, 20 ms, and so on, it keeps the most that arrived within any such window
//! recently. *Arrivals* are the bytes that the application allocated, reclaimed meanwhile or not.
//! This distinguishes a burst from a steady stream: a stream of 60 MB/s has 0.6 MB in the shortest
//! window, a single allocation of 60 MB has all of it.

use std::time::Duration;

/// Length of the shortest window, and number of windows, each twice as long as the one before: up
/// to 10 s.
const MIN_WINDOW: Duration = Duration::from_millis(10);
const WINDOWS: usize = 11;

/// Time in which learned maxima halve.
const HALF_LIFE: Duration = Duration::from_secs(600);

/// Interval between decays of the maxima.
const DECAY_INTERVAL: Duration = Duration::from_secs(1);

/// State of a window: two adjacent halves are kept, so that nothing is lost at the border between
/// two windows.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    began: Duration,
    /// Bytes that had arrived at its beginning.
    from: i64,
    /// Bytes that arrived in the half before.
    before: u64,
    /// Maximum over both halves, bytes; `None` until there were samples that fine.
    most: Option<u64>,
    /// The maximum when it was noted last.
    noted: Option<u64>,
}

/// The most that arrived recently within any time of a given length.
#[derive(Clone, Debug, Default)]
pub(crate) struct ArrivalCurve {
    /// Allocated at the first arrival: a thousand cgroups at rest would take half a megabyte for
    /// them.
    windows: Option<Box<[Window; WINDOWS]>>,
    /// Time of the last sample, and the bytes that had arrived by then.
    last: Option<(Duration, i64)>,
    decayed_at: Duration,
    /// Shortest interval between two samples before the first arrival: within that long, nothing
    /// arrived.
    finest: Option<Duration>,
    /// True if what arrives until the next sample is to be forgotten.
    forgets: bool,
}

fn length(window: usize) -> Duration {
    MIN_WINDOW * (1 << window)
}

impl ArrivalCurve {
    /// Records a sample: `arrived` is all that the application allocated so far, minus the memory
    /// that it freed by itself.
    ///
    /// A window is learned only from samples that are at most its length apart: samples a second
    /// apart can't distinguish a burst from a stream.
    pub(crate) fn record(&mut self, now: Duration, arrived: i64) {
        let Some((sampled_at, last)) = self.last.replace((now, arrived)) else {
            self.decayed_at = now;
            return;
        };
        let apart = now.saturating_sub(sampled_at);
        if self.windows.is_none() && arrived <= last {
            self.finest = Some(self.finest.map_or(apart, |finest| finest.min(apart)));
            // Nothing was learned that could be forgotten.
            self.decayed_at = now;
            return;
        }
        let finest = self.finest;
        let windows = self.windows.get_or_insert_with(|| {
            let nothing = |index| finest.filter(|&finest| finest <= length(index)).map(|_| 0);
            let window = |index| Window {
                began: sampled_at,
                from: last,
                before: 0,
                most: nothing(index),
                noted: None,
            };
            Box::new(std::array::from_fn(window))
        });
        for (index, window) in windows.iter_mut().enumerate() {
            let half = length(index) / 2;
            if apart > length(index) {
                // At least the share of an even stream: it may have been more, unobserved.
                let arrived_since = u64::try_from(arrived - last).unwrap_or(0);
                let even = (arrived_since as f64 * length(index).as_secs_f64() / apart.as_secs_f64()) as u64;
                let most = window.most.map(|most| most.max(even));
                *window = Window { began: now, from: arrived, before: 0, most, ..*window };
                continue;
            }
            let arrived_since = u64::try_from(arrived - window.from).unwrap_or(0);
            window.most = window.most.max(Some(arrived_since.saturating_add(window.before)));
            if now.saturating_sub(window.began) >= half {
                *window = Window { began: now, from: arrived, before: arrived_since, ..*window };
            }
        }
        if std::mem::take(&mut self.forgets) {
            self.revert();
        }
        self.decay(now);
    }

    /// Notes what was learned so far.
    pub(crate) fn note(&mut self) {
        for window in self.windows.iter_mut().flat_map(|windows| windows.iter_mut()) {
            window.noted = window.most;
        }
    }

    /// Forgets what was learned since it was noted, what arrived in the windows in progress, and what
    /// arrives until the next sample.
    pub(crate) fn forget(&mut self) {
        self.forgets = true;
        self.revert();
    }

    fn revert(&mut self) {
        let Some((now, arrived)) = self.last else { return };
        for window in self.windows.iter_mut().flat_map(|windows| windows.iter_mut()) {
            let most = window.most.map(|most| most.min(window.noted.unwrap_or(0)));
            *window = Window { began: now, from: arrived, before: 0, most, noted: most };
        }
    }

    /// Returns the bytes that had arrived at the last sample.
    #[must_use]
    pub(crate) fn arrived(&self) -> Option<i64> {
        self.last.map(|(_, arrived)| arrived)
    }

    /// Returns the maximum bytes that may arrive within `time`, by the arrivals so far. Where no
    /// samples were that fine, the next coarser window with a maximum bounds it: four times its
    /// rate, but no more than all of it. `None` before the first sample.
    #[must_use]
    pub(crate) fn within(&self, time: Duration) -> Option<u64> {
        let Some(windows) = &self.windows else { return self.last.map(|_| 0) };
        let fitting = (0..WINDOWS).find(|&window| length(window) >= time).unwrap_or(WINDOWS - 1);
        let (window, most) = (fitting..WINDOWS).find_map(|window| Some((window, windows[window].most?)))?;
        // What a collector frees and allocates again arrives within a short window, and hardly
        // within a longer one.
        let finer = windows[..fitting].iter().filter_map(|window| window.most).max().unwrap_or(0);
        if window == fitting {
            return Some(most.max(finer));
        }
        let share = 4.0 * time.as_secs_f64() / length(window).as_secs_f64();
        Some(finer.max((most as f64 * share.min(1.0)) as u64))
    }

    /// Returns the longest window within which at most `bytes` arrive; `None` if more arrive within
    /// the shortest.
    #[must_use]
    pub(crate) fn lasts(&self, bytes: u64) -> Option<Duration> {
        let fits = |&window: &usize| self.within(length(window)).is_none_or(|most| most <= bytes);
        (0..WINDOWS).take_while(fits).last().map(length)
    }

    fn decay(&mut self, now: Duration) {
        let since = now.saturating_sub(self.decayed_at);
        if since < DECAY_INTERVAL {
            return;
        }
        self.decayed_at = now;
        let kept = 0.5f64.powf(since.as_secs_f64() / HALF_LIFE.as_secs_f64());
        for window in self.windows.iter_mut().flat_map(|windows| windows.iter_mut()) {
            window.most = window.most.map(|most| (most as f64 * kept) as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Samples an arrival function of milliseconds at a fixed interval.
    fn learned(every: u64, until: u64, arrived: impl Fn(u64) -> u64) -> ArrivalCurve {
        let mut curve = ArrivalCurve::default();
        (0..=until).step_by(every as usize).for_each(|at| curve.record(ms(at), arrived(at) as i64));
        curve
    }

    #[test]
    fn a_stream_arrives_in_proportion_to_time() {
        let curve = learned(10, 20_000, |at| at * 60 * M / 1000);
        for window in [10, 160, 2560] {
            let most = curve.within(ms(window)).unwrap();
            let stream = window * 60 * M / 1000;
            assert!(most >= stream * 9 / 10 && most <= stream * 2, "{window}: {most}");
        }
        let lasts = curve.lasts(30 * M).unwrap();
        assert!((ms(160)..=ms(640)).contains(&lasts), "{lasts:?}");
    }

    #[test]
    fn a_burst_arrives_at_once() {
        let curve = learned(10, 20_000, |at| at / 3000 * 30 * M);
        assert_eq!(curve.within(ms(10)).unwrap() / M, 29);
        let two = curve.within(ms(5000)).unwrap() / M;
        assert!((58..=90).contains(&two), "{two}");
        assert_eq!(curve.lasts(10 * M), None);
    }

    #[test]
    fn coarse_samples_are_learned_for_long_windows_only() {
        // A stream sampled every second must not be taken for bursts of 60M.
        let curve = learned(1000, 20_000, |at| at * 60 * M / 1000);
        let soon = curve.within(ms(10)).unwrap();
        assert!(soon <= 8 * M, "{soon}");
        assert!(curve.within(ms(1280)).unwrap() >= 60 * M);
    }

    #[test]
    fn learned_maxima_decay() {
        let mut curve = learned(10, 4000, |at| at / 3000 * 32 * M);
        for second in 5..=1204 {
            curve.record(Duration::from_secs(second), 32 * M as i64);
        }
        let left = curve.within(ms(10)).unwrap();
        assert!((7 * M..9 * M).contains(&left), "{left} after two half-lives");
    }

    #[test]
    fn freed_memory_is_no_arrival() {
        let curve = learned(10, 1000, |at| if at < 500 { 100 * M } else { 0 });
        assert_eq!(curve.within(ms(10)), Some(0));
        assert_eq!(ArrivalCurve::default().within(ms(10)), None);
    }

    #[test]
    fn the_first_burst_is_not_forgotten_for_the_rest_before_it() {
        let learned = |rest: u64| {
            let mut curve = ArrivalCurve::default();
            (0..=1000).step_by(50).for_each(|at| curve.record(ms(at), 0));
            (2..=rest).for_each(|second| curve.record(ms(1000 * second), 0));
            let burst = |at| (ms(1000 * (rest + 1) + at), 64 << 20);
            (0..2000).step_by(50).map(burst).for_each(|(at, arrived)| curve.record(at, arrived));
            [80, 640, 1280].map(|window| curve.within(ms(window)).unwrap() >> 10)
        };
        assert_eq!(learned(10), learned(86_400));
    }

    #[test]
    fn a_longer_time_has_no_less() {
        let mut curve = ArrivalCurve::default();
        for at in (0..45_000u64).step_by(10) {
            // A collector frees 400 MiB, which are allocated again.
            let mib = if (30_100..30_150).contains(&at) { 600 } else { 1000 };
            let early = if at < 30_000 { at as i64 } else { 0 };
            curve.record(ms(at), (mib << 20) + early);
        }
        let all: Vec<_> = (0..WINDOWS).map(|window| curve.within(length(window)).unwrap()).collect();
        assert!(all.is_sorted() && all[0] > 300 << 20, "{all:?}");
    }
}
