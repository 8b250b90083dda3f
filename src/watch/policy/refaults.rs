//! Detection of refaults of reclaimed memory, and what they are evidence of. Pure functions of time
//! and of counters.
//!
//! The counters of `memory.stat` have no common meaning. On the classic LRU, an activation is a
//! refault after less was evicted than there is memory: evidence of use. The multi-generational LRU
//! of some kernels counts an activation for every refault of its oldest generation, so that a file
//! streamed through the cache activates all of its pages; restores are evidence there. Later kernels
//! count activations in page faults only. What a kernel does is seen in the counters, since
//! distributions backport such changes.

use std::time::Duration;

/// Minimum bytes reclaimed before refaults are judged.
const MIN_JUDGED_BYTES: u64 = 8 << 20;

/// Interval between checks: the kernel folds its counters every 2 s. Reading them is expensive, so
/// after `CLEAN_CHECKS` checks without refaults they are read half as often, unless at least
/// `MANY_BYTES` were reclaimed: beside that, a reading costs little.
const WINDOW: Duration = Duration::from_secs(2);
const CLEAN_CHECKS: u32 = 3;
const MANY_BYTES: u64 = 8 * MIN_JUDGED_BYTES;

/// Time without reclaim after which a window begins anew: what comes back meanwhile has other
/// reasons than what was reclaimed before.
const MAX_GAP: Duration = Duration::from_secs(60);

/// Interval after which many bytes are judged already, as long as they come back: so many updates
/// make the kernel fold its counters when they are read. Of a file that just fits, 48 MiB came back
/// with twice as many, and 27 with these (Linux 7.3).
const QUICK_WINDOW: Duration = Duration::from_millis(500);
const QUICK_BYTES: u64 = 2 * MIN_JUDGED_BYTES;

/// Interval between looks at a quick window before its end. Only refaults end it then: of a hot set
/// of 176 MB below 192 MiB, 147 MiB came back from a disk within a second (Linux 7.3).
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Share of the reclaimed bytes above which refaults of the working set mean that the memory wasn't
/// cold. A file that is streamed again and again has no such refaults; memory that is touched all
/// the time began with 28% and came down to 5% (Linux 7.3, MGLRU).
const MAX_IN_USE_SHARE: f64 = 0.1;

/// Share of the reclaimed bytes above which all refaults count, in use before or not. If tasks are
/// stalled for more than a share `MIN_STALL_SHARE` of the time as well, it was in use. Otherwise it
/// is doubtful: no task waits for what is read ahead, neither of a stream that evicts itself nor of
/// a file that would stay if it were left alone (178 MB read in turn under 192 MiB: 2824 of 3007 MB
/// came back to Linux 6.1 for 19 MiB of headroom, 1635 to Linux 7.3, none without reclaim).
const MAX_REFAULT_SHARE: f64 = 0.5;
const MIN_STALL_SHARE: f64 = 0.01;
/// Least stall that counts, however short the window was.
const MIN_STALL: Duration = Duration::from_millis(20);

/// Share of the refaults of page cache from which activations may mean nothing: the kernel counts
/// one for each.
const ALL_ACTIVATED_SHARE: f64 = 0.9;

/// LRU by which a kernel sorts page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lru {
    /// Two lists: active and inactive.
    #[default]
    Classic,
    /// The multi-generational LRU.
    Generations,
}

/// Counters of a cgroup since its creation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RefaultCounters {
    /// Bytes refaulted in all.
    pub refaulted: u64,
    /// Bytes of page cache refaulted.
    pub refaulted_file: u64,
    /// Bytes of page cache activated at a refault.
    pub activated_file: u64,
    /// Bytes of page cache restored at a refault.
    pub restored_file: u64,
    /// Bytes read back from swap.
    pub swapped_in: u64,
    /// Bytes that tasks reclaimed, perhaps with those reclaimed by request; `None` where that can't be
    /// read.
    pub direct: Option<u64>,
    /// Time for which tasks were stalled on memory (PSI `some`); `None` where it can't be read.
    pub stalled: Option<Duration>,
    /// Number of times that its limit was met; `None` where it can't be read.
    pub met: Option<u64>,
    /// LRU in use.
    pub lru: Lru,
}

/// Meaning of the refaults since the last check, with the share of the reclaimed bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Little of the memory was in use.
    Clean,
    /// Much came back, perhaps because it would have stayed, perhaps because a file larger than the
    /// limit is read again and again.
    Doubtful(f64),
    /// Memory in use was reclaimed.
    InUse(f64),
}

/// Detector of refaults of reclaimed memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct RefaultDetector {
    began: Option<(Duration, RefaultCounters)>,
    /// Bytes reclaimed since then.
    reclaimed: u64,
    /// Bytes reclaimed shortly before then, and not known to be in use: what comes back may be of
    /// these, so that a little of much isn't taken for much of a little. The larger of both counts:
    /// judged by their sum, twice as much of a hot set came back (102 for 51 MiB, Linux 6.1).
    earlier: u64,
    /// Time of the last reclaim.
    reclaimed_at: Duration,
    /// Time of the last look at a window before its end.
    looked_at: Duration,
    /// Number of consecutive checks without refaults.
    clean: u32,
}

impl RefaultDetector {
    /// Records reclaimed bytes.
    pub(crate) fn reclaimed(&mut self, now: Duration, bytes: u64) {
        if now.saturating_sub(std::mem::replace(&mut self.reclaimed_at, now)) > MAX_GAP {
            self.restart();
        }
        self.reclaimed += bytes;
    }

    /// Returns whether [`RefaultDetector::check`] is due: reading the counters is expensive.
    #[must_use]
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        let Some((began, _)) = self.began else { return self.reclaimed > 0 };
        let is_rare = self.clean >= CLEAN_CHECKS && self.reclaimed < MANY_BYTES;
        let (since, window) = match (is_rare, self.is_quick()) {
            (true, _) => (began, 2 * WINDOW),
            (false, true) => (began.max(self.looked_at), LOOK_INTERVAL),
            (false, false) => (began, WINDOW),
        };
        self.reclaimed >= MIN_JUDGED_BYTES && now.saturating_sub(since) >= window
    }

    /// Returns whether a window is in progress.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        self.began.is_some()
    }

    /// Returns whether much was reclaimed where nothing is known to stay away.
    fn is_quick(&self) -> bool {
        self.clean == 0 && self.reclaimed >= QUICK_BYTES
    }

    /// Records the counters, and judges the refaults since the last check. `None` at the first one,
    /// after a switch of the LRU, since a window that spans it has counters of both, and at a look
    /// before the end of a window that shows nothing.
    pub(crate) fn check(&mut self, now: Duration, counters: RefaultCounters) -> Option<Verdict> {
        let Some((began, before)) = self.began.filter(|(_, before)| before.lru == counters.lru) else {
            self.begin(now, counters, true);
            return None;
        };
        let time = now.saturating_sub(began);
        let verdict = judge(self.reclaimed.max(self.earlier), time, &before, &counters);
        if self.is_quick() && time < QUICK_WINDOW && verdict == Verdict::Clean {
            self.looked_at = now;
            return None;
        }
        self.begin(now, counters, time < WINDOW && !matches!(verdict, Verdict::InUse(_)));
        self.clean = if verdict == Verdict::Clean { self.clean.saturating_add(1) } else { 0 };
        Some(verdict)
    }

    /// Begins a window, in which more of what was reclaimed until now may come back if it `is_open`.
    fn begin(&mut self, now: Duration, counters: RefaultCounters, is_open: bool) {
        self.began = Some((now, counters));
        let reclaimed = std::mem::take(&mut self.reclaimed);
        self.earlier = if is_open { reclaimed } else { 0 };
    }

    /// Forgets the last check: refaults during a hold are not due to reclaim before it, and those
    /// after a press of `--pressure` may be due to that.
    pub(crate) fn restart(&mut self) {
        (self.began, self.reclaimed, self.earlier) = (None, 0, 0);
    }
}

/// Returns the meaning of the refaults between two reads of the counters, `time` apart, with
/// `reclaimed` bytes.
fn judge(reclaimed: u64, time: Duration, before: &RefaultCounters, now: &RefaultCounters) -> Verdict {
    let since = |count: fn(&RefaultCounters) -> u64| count(now).saturating_sub(count(before));
    let share = |bytes: u64| bytes as f64 / reclaimed.max(1) as f64;
    let refaulted_file = since(|counters| counters.refaulted_file);
    let activated = since(|counters| counters.activated_file);
    let restored = since(|counters| counters.restored_file);
    let is_blurred = now.lru == Lru::Generations
        && activated as f64 >= ALL_ACTIVATED_SHARE * refaulted_file as f64
        && restored < activated / 2;
    let file = if is_blurred { restored } else { activated.max(restored) };
    let in_use = share(file + since(|counters| counters.swapped_in));
    if in_use > MAX_IN_USE_SHARE {
        return Verdict::InUse(in_use);
    }
    let refaulted = share(since(|counters| counters.refaulted));
    if refaulted <= MAX_REFAULT_SHARE {
        return Verdict::Clean;
    }
    // Where stalls can't be read, refaults alone decide. A limit that is met stalls tasks as well.
    let stalled = now.stalled.zip(before.stalled).is_none_or(|(now, before)| {
        now.saturating_sub(before) > time.mul_f64(MIN_STALL_SHARE).max(MIN_STALL)
    });
    let was_met = now.met.zip(before.met).is_some_and(|(now, before)| now > before);
    if stalled && !was_met { Verdict::InUse(refaulted) } else { Verdict::Doubtful(refaulted) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    /// Counters of a kernel, in MiB: of page cache refaulted, activated and restored.
    fn file(lru: Lru, [refaulted, activated, restored]: [u64; 3]) -> RefaultCounters {
        RefaultCounters {
            refaulted: refaulted * M,
            refaulted_file: refaulted * M,
            activated_file: activated * M,
            restored_file: restored * M,
            stalled: Some(Duration::ZERO),
            met: Some(0),
            lru,
            ..RefaultCounters::default()
        }
    }

    /// Judges a window of 2 s in which 20 MiB were reclaimed.
    fn judged(now: RefaultCounters) -> Verdict {
        let before = RefaultCounters {
            stalled: Some(Duration::ZERO),
            met: Some(0),
            lru: now.lru,
            ..RefaultCounters::default()
        };
        judge(20 * M, 2 * Duration::from_secs(1), &before, &now)
    }

    #[test]
    fn a_stream_is_doubtful_on_every_kernel() {
        let doubtful = Verdict::Doubtful(1.0);
        assert_eq!(judged(file(Lru::Classic, [20, 0, 0])), doubtful);
        assert_eq!(judged(file(Lru::Generations, [20, 20, 0])), doubtful, "each activates");
        assert_eq!(judged(file(Lru::Generations, [20, 0, 0])), doubtful, "only page faults activate");
        assert_eq!(judged(file(Lru::Generations, [8, 8, 0])), Verdict::Clean, "most of it stays away");
    }

    #[test]
    fn memory_in_use_is_noticed_on_every_kernel() {
        assert_eq!(judged(file(Lru::Classic, [16, 16, 0])), Verdict::InUse(0.8));
        assert_eq!(judged(file(Lru::Generations, [16, 16, 4])), Verdict::InUse(0.2));
        assert_eq!(judged(file(Lru::Generations, [16, 8, 0])), Verdict::InUse(0.4));
        assert_eq!(judged(file(Lru::Generations, [16, 0, 12])), Verdict::InUse(0.6));
        let swapped = RefaultCounters { swapped_in: 5 * M, ..file(Lru::Generations, [0, 0, 0]) };
        assert_eq!(judged(swapped), Verdict::InUse(0.25));
        assert_eq!(judged(file(Lru::Classic, [8, 1, 1])), Verdict::Clean, "a twentieth");
    }

    #[test]
    fn stalls_count_only_where_no_limit_caused_them() {
        let stalled = |refaulted, millis, met| {
            judged(RefaultCounters {
                stalled: Some(Duration::from_millis(millis)),
                met: Some(met),
                ..file(Lru::Classic, [refaulted, 0, 0])
            })
        };
        assert_eq!(stalled(16, 100, 0), Verdict::InUse(0.8));
        assert_eq!(stalled(16, 2, 0), Verdict::Doubtful(0.8), "a stream: no task waits");
        assert_eq!(stalled(6, 100, 0), Verdict::Clean, "the stall has other reasons");
        assert_eq!(stalled(16, 100, 1), Verdict::Doubtful(0.8), "the stall of the limit itself");
        let unknown = RefaultCounters { stalled: None, ..file(Lru::Classic, [16, 0, 0]) };
        assert_eq!(judged(unknown), Verdict::InUse(0.8));
    }

    #[test]
    fn checks_without_refaults_are_rare_unless_much_is_reclaimed() {
        let at = Duration::from_secs;
        let mut detector = RefaultDetector::default();
        for check in 0..=u64::from(CLEAN_CHECKS) {
            detector.reclaimed(at(2 * check), MIN_JUDGED_BYTES);
            assert!(detector.is_due(at(2 * check)));
            let verdict = detector.check(at(2 * check), file(Lru::Generations, [0; 3]));
            assert_eq!(verdict, (check > 0).then_some(Verdict::Clean));
        }
        let last = 2 * u64::from(CLEAN_CHECKS);
        detector.reclaimed(at(last), MIN_JUDGED_BYTES);
        assert!(!detector.is_due(at(last + 3)) && detector.is_due(at(last + 4)));
        detector.reclaimed(at(last), MANY_BYTES);
        assert!(!detector.is_due(at(last + 1)) && detector.is_due(at(last + 2)));
    }

    #[test]
    fn many_bytes_are_judged_soon_as_long_as_they_come_back() {
        let at = Duration::from_millis;
        let mut detector = RefaultDetector::default();
        detector.reclaimed(at(0), QUICK_BYTES);
        assert_eq!(detector.check(at(0), file(Lru::Classic, [0; 3])), None);
        detector.reclaimed(at(1), QUICK_BYTES - 1);
        assert!(!detector.is_due(at(500)), "too few");
        detector.reclaimed(at(1), 1);
        assert!(!detector.is_due(at(99)) && detector.is_due(at(100)));
        let streamed = |bytes| file(Lru::Classic, [bytes, 0, 0]);
        assert_eq!(detector.check(at(100), streamed(2)), None, "perhaps later");
        assert!(!detector.is_due(at(199)) && detector.is_due(at(200)));
        detector.reclaimed(at(300), QUICK_BYTES);
        assert_eq!(detector.check(at(500), streamed(12)), Some(Verdict::Clean), "of all since 0");
        detector.reclaimed(at(500), QUICK_BYTES);
        assert!(!detector.is_due(at(1500)) && detector.is_due(at(2500)), "nothing came back");
    }

    #[test]
    fn much_that_comes_back_is_noticed_at_a_look() {
        let at = Duration::from_millis;
        let mut detector = RefaultDetector::default();
        detector.reclaimed(at(0), M);
        assert_eq!(detector.check(at(0), file(Lru::Classic, [0; 3])), None);
        detector.reclaimed(at(50), 2 * QUICK_BYTES);
        assert_eq!(detector.check(at(100), file(Lru::Classic, [8, 8, 0])), Some(Verdict::InUse(0.25)));
        detector.reclaimed(at(150), QUICK_BYTES);
        assert!(!detector.is_due(at(199)) && detector.is_due(at(200)), "of a new window");
        let streamed = file(Lru::Classic, [18, 8, 0]);
        assert_eq!(detector.check(at(200), streamed), Some(Verdict::Doubtful(0.625)));
    }

    #[test]
    fn a_window_needs_time_bytes_and_one_lru() {
        let at = Duration::from_secs;
        let mut detector = RefaultDetector::default();
        detector.reclaimed(at(0), M);
        assert!(detector.is_due(at(0)));
        let counters = |restored| file(Lru::Generations, [restored, 0, restored]);
        assert_eq!(detector.check(at(0), counters(100)), None, "earlier refaults");
        detector.reclaimed(at(0), 15 * M);
        assert!(!detector.is_due(at(1)) && detector.is_due(at(2)));
        assert_eq!(detector.check(at(2), counters(112)), Some(Verdict::InUse(0.8)));
        detector.reclaimed(at(2), 20 * M);
        let switched = file(Lru::Classic, [140, 140, 140]);
        assert_eq!(detector.check(at(4), switched), None, "a switch of the LRU");
        detector.restart();
        detector.reclaimed(at(9), 20 * M);
        assert_eq!(detector.check(at(9), file(Lru::Classic, [200, 200, 200])), None, "a hold");
    }

    #[test]
    fn what_comes_back_between_two_reclaims_long_apart_is_not_judged() {
        let at = Duration::from_secs;
        let mut detector = RefaultDetector::default();
        detector.reclaimed(at(0), 20 * M);
        assert_eq!(detector.check(at(0), file(Lru::Classic, [0; 3])), None);
        detector.reclaimed(at(1800), 20 * M);
        assert!(detector.is_due(at(1800)));
        assert_eq!(detector.check(at(1800), file(Lru::Classic, [300, 300, 300])), None);
        // A trickle is judged, however slow.
        for second in (1830..1890).step_by(30) {
            detector.reclaimed(at(second), 4 * M);
        }
        let verdict = detector.check(at(1890), file(Lru::Classic, [310, 310, 310]));
        assert_eq!(verdict, Some(Verdict::InUse(0.5)));
    }

    #[test]
    fn a_little_that_comes_back_of_much_is_not_much_of_the_last_few() {
        let at = Duration::from_millis;
        let used = |mib| file(Lru::Classic, [mib, mib, 0]);
        let mut detector = RefaultDetector::default();
        // The action that opens the first window, and one of 500 ms.
        detector.reclaimed(at(0), 500 * M);
        assert_eq!(detector.check(at(0), used(0)), None);
        detector.reclaimed(at(400), 8 * M);
        assert_eq!(detector.check(at(2000), used(1)), Some(Verdict::Clean));
        let mut detector = RefaultDetector::default();
        detector.reclaimed(at(0), M);
        assert_eq!(detector.check(at(0), used(0)), None);
        detector.reclaimed(at(100), 500 * M);
        assert_eq!(detector.check(at(500), used(1)), Some(Verdict::Clean));
        detector.reclaimed(at(600), 8 * M);
        assert_eq!(detector.check(at(2500), used(9)), Some(Verdict::Clean));
        detector.reclaimed(at(2600), 8 * M);
        assert_eq!(detector.check(at(4500), used(10)), Some(Verdict::InUse(0.125)), "not of these");
        // What came back, as memory in use, doesn't come back again.
        detector.reclaimed(at(4600), 64 * M);
        assert_eq!(detector.check(at(4700), used(74)), Some(Verdict::InUse(1.0)));
        detector.reclaimed(at(4800), 8 * M);
        assert_eq!(detector.check(at(6700), used(75)), Some(Verdict::InUse(0.125)));
    }
}
