//! Check of memory that was reclaimed: how much of it comes back within the time in which memory
//! that is in use is touched. A pure function of samples.
//!
//! Refaults in the seconds after a reclaim show only memory that is touched all the time. Of memory
//! that is touched every 10 to 60 s (a database's rows, a cache's keys), a window of 2 s sees a
//! tenth: a policy that believes it goes deeper with each approach (a database with 130 MiB in
//! use was pressed to 37 MiB). So after each press nothing more is reclaimed for the reuse time,
//! and what has come back by its end decides on the depth of the next press.
//!
//! The first approach, most of which is cold memory, would take too long that way. It pauses after
//! each two fifths of the usage: what is touched all the time comes back within `SETTLING`; if more
//! comes back, at a rate that would bring back much of it within the reuse time, the approach ends.

use std::time::Duration;

/// Time within which memory in use is touched, by default.
pub const DEFAULT_REUSE: Duration = Duration::from_secs(60);

/// Share of the usage that a press takes at most after one of which more than `BACK_SHARE` came
/// back, and to which it doubles after others: that much of the memory in use is out if the kernel
/// took all of it from there.
const LEAST_DEPTH: f64 = 0.05;
const MAX_DEPTH: f64 = 0.2;
/// Share of the usage after which the first approach pauses, and the lengths of the two parts of
/// the pause.
const APPROACH_DEPTH: f64 = 0.4;
const SETTLING: Duration = Duration::from_secs(2);
const MEASURING: Duration = Duration::from_secs(2);

const BACK_SHARE: f64 = 0.1;

/// Time after its end from which a check is void.
const MAX_LATENESS: Duration = Duration::from_secs(16);

/// Divisor of the depth that gives the rest which ends a press.
const NEAR_DIVISOR: u64 = 8;

/// Bytes that come back at least for the memory to have been in use.
const NOISE_BYTES: f64 = (256 << 10) as f64;

/// Divisor of the usage that gives the change from which the workload counts as changed, and its
/// minimum.
const CHANGE_DIVISOR: u64 = 8;
const MIN_CHANGE: u64 = 2 << 20;

/// A sample for the check. Amounts are bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReuseSample {
    /// Time of the sample, on the monotonic clock.
    pub at: Duration,
    /// `memory.current`.
    pub current: u64,
    /// All bytes that refaulted since the cgroup was created, in use or not.
    pub refaulted: u64,
}

/// Result of a sample during a check.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Checked {
    /// The check goes on until this time.
    Waiting(Duration),
    /// This many bytes are new, and no refaults: they may be pressed out at once, while the check
    /// goes on. A service that writes a log grows all the time.
    New(u64),
    /// Memory was freed: the check is void.
    Void,
    /// The time is over. `None` if nothing was pressed out, and so nothing is known.
    Over(Option<Settled>),
}

/// Usage at the end of a check: that of the working set, as far as the memory that is left is in use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settled {
    /// Bytes, with what came back.
    pub usage: u64,
    /// Share of what was pressed out that came back, from 0 to 1; 1 at a knee. The less it is, the
    /// more of what is left is likely to be idle as well.
    pub share: f64,
}

/// A check in progress.
#[derive(Clone, Copy, Debug)]
struct Check {
    began: Duration,
    until: Duration,
    /// Usage and refaults at the beginning.
    usage: u64,
    refaulted: u64,
    /// New memory that turned out to be in use.
    accepted: u64,
    /// Usage that is no news, and the largest.
    seen: u64,
    peak: u64,
    /// True if memory in use was met at the beginning.
    at_knee: bool,
    /// True while new memory is pressed out.
    is_pressing: bool,
    stage: Stage,
}

/// Stage of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A pause of the approach: what is touched all the time comes back.
    Settling,
    /// A pause of the approach: what still comes back is counted.
    Measuring,
    /// The check that ends the approach.
    First,
    /// A later check.
    Later,
}

/// State of the check of one cgroup.
#[derive(Clone, Debug)]
pub(crate) struct Reuse {
    time: Duration,
    /// True in the first approach.
    approaches: bool,
    /// Share of the usage that this press may take.
    depth: f64,
    /// Usage at the beginning of this press.
    from: Option<u64>,
    /// Bytes reclaimed since.
    pressed: f64,
    check: Option<Check>,
}

impl Reuse {
    /// Creates the state for memory that is in use if it is touched within `time`.
    #[must_use]
    pub(crate) fn new(time: Duration) -> Self {
        Self { time, approaches: true, depth: APPROACH_DEPTH, from: None, pressed: 0.0, check: None }
    }

    /// Sets another time. What was found by the old one says nothing of it. Returns whether it is
    /// another.
    pub(crate) fn adopt(&mut self, time: Duration) -> bool {
        let is_another = std::mem::replace(&mut self.time, time) != time;
        if is_another && !self.approaches {
            self.next(LEAST_DEPTH);
        }
        is_another
    }

    /// Records that a press was held back for some time: the usage that it began from is outdated.
    pub(crate) fn interrupted(&mut self) {
        if self.check.is_none() {
            self.from = None;
        }
    }

    /// Ends the first approach: there is too little to press. If the check that follows finds
    /// nothing, the next press is as deep as one after an approach.
    pub(crate) fn end_approach(&mut self) {
        if std::mem::take(&mut self.approaches) {
            self.depth = MAX_DEPTH / 2.0;
        }
    }

    /// Returns the time within which memory in use is touched.
    #[must_use]
    pub(crate) fn time(&self) -> Duration {
        self.time
    }

    /// Returns whether this is the first approach.
    #[must_use]
    pub(crate) fn approaches(&self) -> bool {
        self.approaches
    }

    /// Returns whether new memory is pressed out during a check.
    #[must_use]
    pub(crate) fn presses_new(&self) -> bool {
        self.check.is_some_and(|check| check.is_pressing)
    }

    /// Records reclaimed bytes.
    pub(crate) fn reclaimed(&mut self, bytes: u64) {
        // New memory that is pressed out during a check says nothing of the press before.
        if self.check.is_none() {
            self.pressed += bytes as f64;
        }
    }

    /// Returns the bytes reclaimed in this press.
    #[must_use]
    pub(crate) fn pressed(&self) -> f64 {
        self.pressed
    }

    /// Returns the bytes that this press may still take from `current` bytes of usage: none once it
    /// is to be checked. What is new since the press began is taken in addition, as far as the press
    /// takes no more than twice its depth: new memory may be in use as well.
    #[must_use]
    pub(crate) fn left(&mut self, current: u64) -> u64 {
        let from = *self.from.get_or_insert(current);
        let depth = self.depth_of(from);
        let most = (2.0 * depth as f64 - self.pressed).max(0.0) as u64;
        let left = current.saturating_sub(from - depth).min(most);
        // Near its end a press might take just as much as arrives, for ever.
        if left <= depth / NEAR_DIVISOR { 0 } else { left }
    }

    /// Begins a check, and returns its end: that of a pause in the first approach, or else the end of
    /// the reuse time. A check in progress goes on, and new memory counts as in use.
    pub(crate) fn begin(&mut self, sample: ReuseSample, at_knee: bool) -> Duration {
        if let Some(check) = self.check.as_mut().filter(|check| !check.is_pause()) {
            let refaulted = sample.refaulted.saturating_sub(check.refaulted);
            check.accepted = sample.current.saturating_sub(check.usage).saturating_sub(refaulted);
            check.at_knee |= at_knee;
            return check.until;
        }
        let stage = match (self.approaches, at_knee) {
            (true, true) => Stage::First,
            (true, false) => Stage::Settling,
            (false, _) => Stage::Later,
        };
        self.approaches &= !at_knee;
        self.check_from(sample, at_knee, stage)
    }

    fn check_from(&mut self, sample: ReuseSample, at_knee: bool, stage: Stage) -> Duration {
        let ReuseSample { at, current, refaulted } = sample;
        let until = at
            + match stage {
                Stage::Settling => SETTLING,
                Stage::Measuring => MEASURING,
                Stage::First | Stage::Later => self.time,
            };
        self.check = Some(Check {
            began: at,
            until,
            accepted: 0,
            usage: current,
            refaulted,
            seen: current,
            peak: current,
            at_knee,
            is_pressing: false,
            stage,
        });
        until
    }

    /// Records the usage during a check. Returns whether it calls for a sample.
    pub(crate) fn peek(&mut self, current: u64) -> bool {
        let Some(check) = &mut self.check else { return false };
        check.peak = check.peak.max(current);
        current.abs_diff(check.seen) > change_of(check.seen)
    }

    /// Judges a sample; `None` if no check is in progress.
    pub(crate) fn judge(&mut self, sample: ReuseSample) -> Option<Checked> {
        let check = self.check.as_mut()?;
        check.peak = check.peak.max(sample.current);
        let refaulted = sample.refaulted.saturating_sub(check.refaulted);
        if sample.at < check.until {
            let known = check.usage + check.accepted;
            let new = sample.current.saturating_sub(known).saturating_sub(refaulted);
            let (limit, fell) = (change_of(check.usage), check.usage.saturating_sub(sample.current));
            if fell > limit && !check.is_pause() {
                self.next(LEAST_DEPTH);
                return Some(Checked::Void);
            }
            let enough = if check.is_pressing { limit / 4 } else { limit };
            check.is_pressing = new > enough && !check.is_pause();
            check.seen = sample.current;
            return Some(if check.is_pressing { Checked::New(new) } else { Checked::Waiting(check.until) });
        }
        let check = *check;
        if sample.at > check.until + MAX_LATENESS {
            // What came back in the time of a guard didn't come back within the reuse time.
            self.next(if self.approaches { APPROACH_DEPTH } else { LEAST_DEPTH });
            return Some(Checked::Void);
        }
        // Growth by new memory is no refault, and refaults of what the kernel evicted by itself
        // don't make the usage grow.
        let known = check.usage + check.accepted;
        let back = refaulted.min(check.peak.saturating_sub(known));
        if check.is_pause() {
            return Some(self.judge_pause(sample, back, sample.at.saturating_sub(check.began)));
        }
        // An application that frees other memory hides what comes back.
        let used = (back as f64).max((refaulted as f64).min(self.pressed));
        let is_in_use = self.is_much(used);
        let share = if check.at_knee { 1.0 } else { (used / self.pressed_of_old().max(1.0)).min(1.0) };
        // Where nothing was pressed out, nothing could come back.
        let is_known = check.at_knee || self.pressed_of_old() >= NOISE_BYTES;
        let set = is_known.then_some(Settled { usage: known + back, share });
        self.next(match check.stage {
            // The kernel's lists weren't sorted: what was pressed out shows how much is idle of what
            // is left. Later, memory in use leaves last, and all of what is left may be in use.
            Stage::First if is_in_use => (APPROACH_DEPTH * (1.0 - share)).clamp(LEAST_DEPTH, MAX_DEPTH),
            Stage::First => MAX_DEPTH,
            _ if is_in_use => LEAST_DEPTH,
            _ => (2.0 * self.depth).min(MAX_DEPTH),
        });
        Some(Checked::Over(set))
    }

    /// Judges what came `back` in a part of a pause.
    fn judge_pause(&mut self, sample: ReuseSample, back: u64, time: Duration) -> Checked {
        if self.check.is_some_and(|check| check.stage == Stage::Settling) {
            return Checked::Waiting(self.check_from(sample, false, Stage::Measuring));
        }
        let later = back as f64 * self.time.as_secs_f64() / time.max(MEASURING).as_secs_f64();
        if self.is_much(later) {
            self.approaches = false;
            return Checked::Waiting(self.check_from(sample, false, Stage::First));
        }
        self.next(APPROACH_DEPTH);
        Checked::Over(None)
    }

    /// Returns the bytes that a press takes at most from `usage`.
    fn depth_of(&self, usage: u64) -> u64 {
        (self.depth * usage as f64).round() as u64
    }

    /// Returns whether so many bytes are much of what was pressed out.
    fn is_much(&self, back: f64) -> bool {
        back > (BACK_SHARE * self.pressed_of_old()).max(NOISE_BYTES)
    }

    /// Returns the bytes that were pressed out, apart from new memory.
    fn pressed_of_old(&self) -> f64 {
        let most = self.from.map_or(0, |from| self.depth_of(from)) as f64;
        self.pressed.min(most)
    }

    /// Begins a press of this depth.
    fn next(&mut self, depth: f64) {
        (self.depth, self.from, self.pressed, self.check) = (depth, None, 0.0, None);
    }
}

impl Check {
    fn is_pause(&self) -> bool {
        matches!(self.stage, Stage::Settling | Stage::Measuring)
    }
}

fn change_of(usage: u64) -> u64 {
    (usage / CHANGE_DIVISOR).max(MIN_CHANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    fn sample(at: u64, current: u64, refaulted: u64) -> ReuseSample {
        ReuseSample { at: Duration::from_secs(at), current: current * M, refaulted: refaulted * M }
    }

    fn over(usage: u64, share: f64) -> Checked {
        Checked::Over(Some(Settled { usage: usage * M, share }))
    }

    /// Returns a state that checks a press of 90 MiB that ended at 40 MiB, after 3 s.
    fn checking(at_knee: bool) -> Reuse {
        let mut reuse = Reuse::new(Duration::from_secs(60));
        assert_eq!(reuse.judge(sample(0, 130, 0)), None);
        assert_eq!(reuse.left(130 * M), 52 * M, "two fifths");
        reuse.approaches = at_knee;
        reuse.reclaimed(90 * M);
        assert_eq!(reuse.begin(sample(3, 40, 10), at_knee), Duration::from_secs(63));
        reuse
    }

    #[test]
    fn what_comes_back_late_is_in_use() {
        let mut reuse = checking(true);
        assert!(!reuse.peek(42 * M) && reuse.peek(60 * M));
        let waiting = Checked::Waiting(Duration::from_secs(63));
        assert_eq!(reuse.judge(sample(20, 60, 30)), Some(waiting), "refaults are no change");
        assert!(!reuse.peek(60 * M), "and no news");
        assert_eq!(reuse.judge(sample(63, 120, 91)), Some(over(120, 1.0)), "80 of 81 came back");
        assert_eq!(reuse.left(120 * M), 6 * M, "a twentieth");
    }

    #[test]
    fn what_stays_away_lets_the_next_press_go_deeper() {
        let mut reuse = checking(true);
        assert_eq!(reuse.judge(sample(63, 45, 12)), Some(over(42, 1.0)), "2 of 90 MiB");
        for depth in [20, 20, 20] {
            assert_eq!(reuse.left(40 * M), depth * 40 * M / 100);
            reuse.reclaimed(8 * M);
            reuse.begin(sample(100, 32, 12), false);
            assert_eq!(reuse.judge(sample(160, 32, 12)), Some(over(32, 0.0)), "a bound");
        }
        let mut reuse = checking(true);
        assert_eq!(reuse.judge(sample(63, 40, 10)), Some(over(40, 1.0)), "a knee all the same");
    }

    #[test]
    fn the_approach_ends_where_memory_keeps_coming_back() {
        let seconds = |second| Some(Checked::Waiting(Duration::from_secs(second)));
        for (back, end) in [(0, Some(Checked::Over(None))), (1, seconds(64))] {
            let mut reuse = Reuse::new(Duration::from_secs(60));
            assert_eq!(reuse.left(250 * M), 100 * M);
            reuse.reclaimed(100 * M);
            assert_eq!(reuse.begin(sample(0, 200, 0), false), Duration::from_secs(2));
            assert_eq!(reuse.judge(sample(1, 205, 5)), seconds(2));
            assert_eq!(reuse.judge(sample(2, 210, 10)), seconds(4), "at once: touched all the time");
            let after = sample(4, 210 + back, 10 + back);
            assert_eq!(reuse.judge(after), end, "a MiB in 2 s are 30 in a minute");
            if back == 0 {
                assert_eq!(reuse.left(210 * M), 84 * M, "it goes on");
            } else {
                assert_eq!(reuse.judge(sample(64, 240, 40)), Some(over(240, 0.29)));
            }
        }
    }

    #[test]
    fn what_the_approach_shows_sets_the_depth_of_the_next_press() {
        // Of 52 MiB, apart from new memory.
        for (back, depth) in [(6, 20), (13, 20), (39, 10), (52, 5)] {
            let mut reuse = checking(false);
            reuse.check.as_mut().expect("one began").stage = Stage::First;
            let settled = over(40 + back, back as f64 / 52.0);
            assert_eq!(reuse.judge(sample(63, 40 + back, 10 + back)), Some(settled));
            assert_eq!(reuse.left(100 * M), depth * M, "{back} MiB");
        }
        let mut reuse = checking(false);
        reuse.depth = 0.4;
        assert_eq!(reuse.judge(sample(63, 53, 23)), Some(over(53, 0.25)));
        assert_eq!(reuse.left(100 * M), 5 * M, "memory in use leaves last");
    }

    #[test]
    fn what_shrank_before_its_first_press_is_pressed_gently() {
        let mut reuse = Reuse::new(Duration::from_secs(60));
        assert_eq!(reuse.left(100 * M), 40 * M);
        assert_eq!(reuse.left(61 * M), 0, "the application freed nearly as much itself");
        reuse.end_approach();
        assert_eq!(reuse.begin(sample(1, 61, 0), false), Duration::from_secs(61));
        assert_eq!(reuse.judge(sample(61, 61, 0)), Some(Checked::Over(None)));
        assert_eq!(reuse.left(100 * M), 20 * M, "twice a tenth");
    }

    #[test]
    fn a_change_is_pressed_at_once() {
        let mut reuse = checking(true);
        let waiting = Some(Checked::Waiting(Duration::from_secs(63)));
        assert_eq!(reuse.judge(sample(10, 80, 10)), Some(Checked::New(40 * M)));
        reuse.reclaimed(30 * M);
        assert_eq!(reuse.judge(sample(11, 50, 10)), Some(Checked::New(10 * M)));
        reuse.reclaimed(9 * M);
        assert_eq!(reuse.judge(sample(12, 41, 10)), waiting, "the check goes on");
        assert_eq!(reuse.judge(sample(40, 60, 30)), waiting);
        assert_eq!(reuse.judge(sample(63, 115, 85)), Some(over(115, 1.0)), "75 of 90 came back");
        let mut reuse = checking(true);
        assert_eq!(reuse.judge(sample(10, 20, 10)), Some(Checked::Void), "20 MiB were freed");
        assert_eq!(reuse.left(20 * M), M);
    }

    #[test]
    fn neither_new_memory_nor_what_others_evicted_is_counted_as_back() {
        let mut reuse = checking(true);
        assert_eq!(reuse.judge(sample(63, 44, 11)), Some(over(41, 1.0)), "3 MiB are new");
        let mut reuse = checking(true);
        assert_eq!(reuse.judge(sample(63, 40, 910)), Some(over(40, 1.0)), "a loop over a file");
    }
}
