//! Watch over kswapd: while it reclaims from the whole host, pressure holds.
//!
//! The host is short of memory then and takes what is coldest anywhere. A press beside it would say
//! nothing of the cgroup: what comes back may have been evicted by kswapd.

use std::time::Duration;

use super::system::System;

/// Interval between readings, and age from which the last one says nothing of now.
const INTERVAL: Duration = Duration::from_secs(1);
const MAX_AGE: Duration = Duration::from_secs(3);

/// Bytes per second that it scans at least while it is at work: it also wakes up for a few pages.
const MIN_SCANNED: f64 = (4 << 20) as f64;

/// Number of consecutive readings in which it was at work before pressure holds: a file that is
/// copied ends sooner.
const TIMES: u32 = 2;

/// Time for which pressure holds afterwards.
const REST: Duration = Duration::from_secs(5);

/// State of kswapd, read while a cgroup is under pressure.
#[derive(Debug, Default)]
pub(crate) struct Kswapd {
    read_at: Option<Duration>,
    /// Bytes scanned by then; `None` if they couldn't be read.
    scanned: Option<u64>,
    /// Number of consecutive readings in which it was at work.
    times: u32,
    rests_until: Option<Duration>,
}

/// What is known of kswapd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KswapdVerdict {
    /// Time until which pressure holds, if it does.
    pub until: Option<Duration>,
    /// True if its work can't be seen.
    pub is_blind: bool,
}

impl Kswapd {
    /// Returns what is known at a time.
    pub(crate) fn at(&mut self, now: Duration, system: &mut impl System) -> KswapdVerdict {
        let age = self.read_at.map(|at| now.saturating_sub(at));
        if age.is_none_or(|age| age >= INTERVAL) {
            self.read(now, age.filter(|&age| age < MAX_AGE), system.kswapd_scanned());
        }
        let until = self.rests_until.filter(|&until| until > now);
        KswapdVerdict { until, is_blind: self.scanned.is_none() }
    }

    /// Records a reading, `age` after the last one if that counts.
    fn read(&mut self, now: Duration, age: Option<Duration>, scanned: Option<u64>) {
        let since = scanned.zip(self.scanned).map(|(now, before)| now.saturating_sub(before) as f64);
        let works = age.zip(since).is_some_and(|(age, bytes)| bytes > MIN_SCANNED * age.as_secs_f64());
        self.times = if works { self.times + 1 } else { 0 };
        if self.times >= TIMES {
            self.rests_until = Some(now + REST);
        }
        (self.read_at, self.scanned) = (Some(now), scanned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    /// Returns whether pressure holds after readings of MiB scanned in all, each a time after the
    /// one before.
    fn holds(readings: &[(u64, Option<u64>)]) -> bool {
        let (mut kswapd, mut now) = (Kswapd::default(), Duration::ZERO);
        for &(millis, scanned) in readings {
            let age = Duration::from_millis(millis);
            now += age;
            let counts = kswapd.read_at.is_some() && age < MAX_AGE;
            kswapd.read(now, counts.then_some(age), scanned.map(|scanned| scanned * M));
        }
        kswapd.rests_until.is_some_and(|until| until > now)
    }

    #[test]
    fn kswapd_is_at_work_while_it_scans_much_for_some_seconds() {
        assert!(holds(&[(0, Some(900)), (1000, Some(910)), (1000, Some(920))]));
        assert!(!holds(&[(0, Some(900)), (1000, Some(950))]), "once");
        assert!(!holds(&[(0, Some(0)), (1000, Some(3)), (1000, Some(6)), (1000, Some(9))]), "few");
        assert!(!holds(&[(0, Some(0)), (60_000, Some(900)), (1000, Some(910))]), "at some time before");
        assert!(!holds(&[(0, Some(0)), (1000, None), (1000, Some(900)), (1000, Some(910))]), "unknown");
    }

    #[test]
    fn pressure_goes_on_after_a_rest() {
        let work = [(0, Some(0)), (1000, Some(10)), (1000, Some(20))];
        let after = |seconds| holds(&[&work[..], &vec![(1000, Some(20)); seconds]].concat());
        assert!(after(4) && !after(5));
    }
}
