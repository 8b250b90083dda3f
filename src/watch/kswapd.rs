//! Watch over kswapd: while it reclaims from the whole host, pressure holds.
//!
//! It takes what is coldest anywhere. A press beside it would say nothing of the cgroup: what comes
//! back may have been evicted by kswapd.

use std::time::Duration;

/// Interval between readings, and age from which the last one says nothing of the present.
const READ_INTERVAL: Duration = Duration::from_secs(1);
const MAX_READING_AGE: Duration = Duration::from_secs(3);

/// Bytes per second that it scans at least while it is at work, also as a divisor of the host's
/// memory: it wakes up for a few pages as well, and for a file that is streamed through a large host.
const MIN_SCANNED: u64 = 4 << 20;
const MEMORY_DIVISOR: u64 = 100;

/// Number of consecutive readings at work before pressure holds: a file that is copied ends sooner.
const MIN_READINGS: u32 = 2;

/// Time for which pressure holds afterwards.
const REST_TIME: Duration = Duration::from_secs(5);

/// State of kswapd, read while a cgroup is under pressure.
#[derive(Debug, Default)]
pub(crate) struct Kswapd {
    read_at: Option<Duration>,
    /// Bytes scanned by then; `None` if they couldn't be read.
    scanned: Option<u64>,
    /// Number of consecutive readings in which it was at work.
    times: u32,
    worked_at: Option<Duration>,
}

/// Verdict on kswapd at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KswapdVerdict {
    /// Time until which pressure holds, if it does.
    pub until: Option<Duration>,
    /// Time of the last reading in which it was at work for some time.
    pub worked_at: Option<Duration>,
    /// True if its work can't be seen.
    pub is_blind: bool,
}

impl Kswapd {
    /// Returns the verdict at a time. `read` returns the bytes that kswapd scanned so far; `memory`
    /// is that of the host, bytes.
    pub(crate) fn at(
        &mut self,
        now: Duration,
        memory: u64,
        read: impl FnOnce() -> Option<u64>,
    ) -> KswapdVerdict {
        let age = self.read_at.map(|at| now.saturating_sub(at));
        if age.is_none_or(|age| age >= READ_INTERVAL) {
            let scanned = read();
            let since = scanned.zip(self.scanned).map(|(now, before)| now.saturating_sub(before));
            let least = MIN_SCANNED.max(memory / MEMORY_DIVISOR) as f64;
            let works = age
                .filter(|&age| age < MAX_READING_AGE)
                .zip(since)
                .is_some_and(|(age, bytes)| bytes as f64 > least * age.as_secs_f64());
            self.times = if works { self.times + 1 } else { 0 };
            if self.times >= MIN_READINGS {
                self.worked_at = Some(now);
            }
            (self.read_at, self.scanned) = (Some(now), scanned);
        }
        let until = self.worked_at.map(|at| at + REST_TIME).filter(|&until| until > now);
        KswapdVerdict { until, worked_at: self.worked_at, is_blind: self.scanned.is_none() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    /// Returns whether pressure holds after readings of MiB scanned in all, each some milliseconds
    /// after the one before, on a host of so many GiB.
    fn holds(gib: u64, readings: &[(u64, Option<u64>)]) -> bool {
        let (mut kswapd, mut now, mut verdict) = (Kswapd::default(), Duration::ZERO, None);
        for &(millis, scanned) in readings {
            now += Duration::from_millis(millis);
            verdict = Some(kswapd.at(now, gib << 30, || scanned.map(|scanned| scanned * M)));
        }
        verdict.is_some_and(|verdict| verdict.until.is_some())
    }

    #[test]
    fn kswapd_is_at_work_while_it_scans_much_for_some_seconds() {
        let work = [(0, Some(900)), (1000, Some(920)), (1000, Some(940))];
        assert!(holds(1, &work) && !holds(4, &work), "a hundredth of the memory each second");
        assert!(!holds(1, &work[..2]), "once");
        assert!(!holds(0, &[(0, Some(0)), (1000, Some(3)), (1000, Some(6)), (1000, Some(9))]), "few");
        assert!(!holds(1, &[(0, Some(0)), (60_000, Some(900)), (1000, Some(920))]), "some time before");
        assert!(!holds(1, &[(0, Some(0)), (1000, None), (1000, Some(900)), (1000, Some(920))]), "unknown");
        assert!(!holds(1, &[(0, Some(0)), (900, Some(900)), (90, Some(990))]), "read once a second");
    }

    #[test]
    fn pressure_goes_on_after_a_rest() {
        let work = [(0, Some(0)), (1000, Some(20)), (1000, Some(40))];
        let after = |seconds| holds(1, &[&work[..], &vec![(1000, Some(40)); seconds]].concat());
        assert!(after(4) && !after(5));
    }

    #[test]
    fn a_counter_that_cant_be_read_is_told() {
        let mut kswapd = Kswapd::default();
        assert!(kswapd.at(Duration::ZERO, M, || None).is_blind);
        assert!(!kswapd.at(Duration::from_secs(1), M, || Some(0)).is_blind);
    }
}
