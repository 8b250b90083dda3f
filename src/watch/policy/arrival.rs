//! How much can arrive within a time: the arrival curve of network calculus (Cruz, "A calculus for network delay", 1991),
//! learned from looks at what a cgroup uses.
//!
//! For windows of 10 ms, 20 ms, and so on, it keeps the most that ever arrived within one, of late. *Arrived* is what the
//! application took, whether it was reclaimed meanwhile or not. A burst and a steady stream are told apart by that: a
//! stream of 60 MB/s has 0.6 MB in the shortest window, an allocation of 60 MB at once has all of it.

use std::time::Duration;

/// The shortest window, and how many there are, each twice as long as the one before: up to 10 s.
const SHORTEST: Duration = Duration::from_millis(10);
const WINDOWS: usize = 11;

/// What was learned halves in that time.
const HALF_LIFE: Duration = Duration::from_secs(600);

/// How often it is let fade.
const FADES: Duration = Duration::from_secs(1);

/// How a window fares: two adjacent halves of it are kept, so that nothing is lost where one ends and another begins.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    began: Duration,
    /// What had arrived when it began.
    from: i64,
    /// What came in the half before.
    before: u64,
    /// The most that came in both; `None` until it was seen that finely.
    most: Option<u64>,
}

/// The most that arrived within any time of a given length, of late.
#[derive(Clone, Debug, Default)]
pub struct ArrivalCurve {
    /// Made when something first arrives: a thousand cgroups at rest would take half a megabyte for them.
    windows: Option<Box<[Window; WINDOWS]>>,
    /// When it was looked at last, and what had arrived by then.
    looked: Option<(Duration, i64)>,
    faded: Duration,
    /// How close to each other two looks were before anything arrived: within as much, nothing did.
    finest: Option<Duration>,
}

fn length(window: usize) -> Duration {
    SHORTEST * (1 << window)
}

impl ArrivalCurve {
    /// Enters a look: `arrived` is all that the application took so far, less what it gave back by itself.
    ///
    /// A window is learned only from looks that are as close to each other: a look after a second can't tell a burst from
    /// a stream.
    pub fn look(&mut self, now: Duration, arrived: i64) {
        let Some((looked, last)) = self.looked.replace((now, arrived)) else {
            self.faded = now;
            return;
        };
        let apart = now.saturating_sub(looked);
        if self.windows.is_none() && arrived <= last {
            self.finest = Some(self.finest.map_or(apart, |finest| finest.min(apart)));
            return;
        }
        let finest = self.finest;
        let windows = self.windows.get_or_insert_with(|| {
            let nothing = |index| finest.filter(|&finest| finest <= length(index)).map(|_| 0);
            let window = |index| Window { began: looked, from: last, before: 0, most: nothing(index) };
            Box::new(std::array::from_fn(window))
        });
        for (index, window) in windows.iter_mut().enumerate() {
            let half = length(index) / 2;
            if apart > length(index) {
                // No less than the share of an even stream: it may have been more, which nobody saw.
                let came = u64::try_from(arrived - last).unwrap_or(0);
                let even = (came as f64 * length(index).as_secs_f64() / apart.as_secs_f64()) as u64;
                let most = window.most.map(|most| most.max(even));
                *window = Window { began: now, from: arrived, before: 0, most };
                continue;
            }
            let came = u64::try_from(arrived - window.from).unwrap_or(0);
            window.most = window.most.max(Some(came.saturating_add(window.before)));
            if now.saturating_sub(window.began) >= half {
                *window = Window { began: now, from: arrived, before: came, most: window.most };
            }
        }
        self.fade(now);
    }

    /// What had arrived at the last look.
    #[must_use]
    pub fn arrived(&self) -> Option<i64> {
        self.looked.map(|(_, arrived)| arrived)
    }

    /// At most how much may arrive within `time`, by what was seen. Where that was never seen so finely, the next coarser
    /// window that was bounds it: four times its rate, but no more than all of it. `None` where nothing was seen.
    #[must_use]
    pub fn within(&self, time: Duration) -> Option<u64> {
        let Some(windows) = &self.windows else { return self.looked.map(|_| 0) };
        let fitting = (0..WINDOWS).find(|&window| length(window) >= time).unwrap_or(WINDOWS - 1);
        let (window, most) = (fitting..WINDOWS).find_map(|window| Some((window, windows[window].most?)))?;
        if window == fitting {
            return Some(most);
        }
        let share = 4.0 * time.as_secs_f64() / length(window).as_secs_f64();
        Some((most as f64 * share.min(1.0)) as u64)
    }

    /// The longest of the windows within which no more than `bytes` arrive; `None` if more do within the shortest.
    #[must_use]
    pub fn lasts(&self, bytes: u64) -> Option<Duration> {
        let fits = |&window: &usize| self.within(length(window)).is_none_or(|most| most <= bytes);
        (0..WINDOWS).take_while(fits).last().map(length)
    }

    fn fade(&mut self, now: Duration) {
        let since = now.saturating_sub(self.faded);
        if since < FADES {
            return;
        }
        self.faded = now;
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

    /// Looks every so often at something that arrived as a function of milliseconds.
    fn learned(every: u64, until: u64, arrived: impl Fn(u64) -> u64) -> ArrivalCurve {
        let mut curve = ArrivalCurve::default();
        (0..=until).step_by(every as usize).for_each(|at| curve.look(ms(at), arrived(at) as i64));
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
    fn a_coarse_look_teaches_only_of_long_times() {
        // A stream seen every second must not be taken for bursts of 60M.
        let curve = learned(1000, 20_000, |at| at * 60 * M / 1000);
        let soon = curve.within(ms(10)).unwrap();
        assert!(soon <= 8 * M, "{soon}");
        assert!(curve.within(ms(1280)).unwrap() >= 60 * M);
    }

    #[test]
    fn what_was_learned_fades() {
        let mut curve = learned(10, 4000, |at| at / 3000 * 32 * M);
        for second in 5..=1204 {
            curve.look(Duration::from_secs(second), 32 * M as i64);
        }
        let left = curve.within(ms(10)).unwrap();
        assert!((7 * M..9 * M).contains(&left), "{left} after two half-lives");
    }

    #[test]
    fn what_the_application_gives_back_is_no_arrival() {
        let curve = learned(10, 1000, |at| if at < 500 { 100 * M } else { 0 });
        assert_eq!(curve.within(ms(10)), Some(0));
        assert_eq!(ArrivalCurve::default().within(ms(10)), None);
    }
}
