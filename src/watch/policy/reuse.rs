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
//!
//! Presses that find the same working set again and again cost CPU time, and their refaults cost the
//! application. So each rests longer than the one before, as long as the usage stays as it is.

mod check;
mod press;
mod rests;
mod sample;

use std::time::Duration;

pub(crate) use check::{BACK_SHARE, CONFIRMED_SHARE, Checked, Margin, Settled};
use check::{Check, MEASURING, NOISE_BYTES, SETTLING, Stage, change_of, would_come_back};
use press::{MAX_LATENESS, Press};
use rests::Rests;
pub(crate) use sample::{Anon, Refaulted, ReuseSample};

use crate::kind::Kind;

/// Time within which memory in use is touched, by default.
pub const DEFAULT_REUSE: Duration = Duration::from_secs(60);

/// Share of the usage that a press takes after one of which more than `BACK_SHARE` came back, and
/// to which it doubles after others: that much of the memory in use is out if the kernel took all
/// of it from there. Memory that arrived since the last check is taken besides, up to `MAX_DEPTH`.
const LEAST_DEPTH: f64 = 0.05;
const MAX_DEPTH: f64 = 0.2;
/// Share of the usage after which the first approach pauses.
const APPROACH_DEPTH: f64 = 0.4;

/// Maximum number of consecutive presses of anonymous memory alone, or first: page cache has its turn.
const MAX_ANON_PRESSES: u32 = 3;

/// Multiple of the pressed bytes above which refaults that don't make the usage grow aren't the
/// press's: the kernel evicts by itself, for example in a loop over a file.
const OTHERS_FACTOR: f64 = 4.0;

/// Divisor of the depth that gives the remainder which ends a press.
const NEAR_DIVISOR: u64 = 8;

/// How much of what was pressed out came back.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Back {
    Share(f64),
    /// Too little was pressed out for a measurement.
    TooLittle,
    /// Refaults of what the kernel evicts by itself hide it.
    Hidden,
}

/// State of the check of one cgroup.
#[derive(Clone, Debug)]
pub(crate) struct Reuse {
    time: Duration,
    /// True in the first approach.
    approaches: bool,
    /// Kind of memory that the press takes: anonymous memory before page cache after one that page
    /// cache ended.
    kind: Kind,
    /// Share of the usage that this press may take.
    depth: f64,
    /// Usage at the end of the last check, without copies; `None` if unknown.
    settled: Option<u64>,
    press: Press,
    check: Option<Check>,
    /// What was taken where anonymous memory leaves alone, or first, and hasn't come back, and the refaults so far.
    alone: f64,
    refaulted_anon: Option<u64>,
    /// Number of consecutive presses of anonymous memory alone, or first.
    anon_presses: u32,
    /// Time at which others evicted memory of the cgroup last.
    disturbed_at: Option<Duration>,
    rests: Rests,
}

impl Reuse {
    /// Creates the state for memory that is in use if it is touched within `time`.
    #[must_use]
    pub(crate) fn new(time: Duration) -> Self {
        let (press, check) = (Press::default(), None);
        Self {
            time,
            approaches: true,
            kind: Kind::All,
            depth: APPROACH_DEPTH,
            settled: None,
            press,
            check,
            alone: 0.0,
            refaulted_anon: None,
            anon_presses: 0,
            disturbed_at: None,
            rests: Rests::default(),
        }
    }

    /// Sets another time. What was found by the old one says nothing of it. Returns whether it is
    /// another.
    pub(crate) fn adopt(&mut self, time: Duration) -> bool {
        let is_another = std::mem::replace(&mut self.time, time) != time;
        if is_another && !self.approaches {
            self.rests = Rests::default();
            self.next(LEAST_DEPTH);
        }
        is_another
    }

    /// Records that others evicted memory of the cgroup at this time.
    pub(crate) fn disturbed(&mut self, at: Duration) {
        self.disturbed_at = Some(at);
    }

    /// Records that a press was held back for some time: the usage that it began from is outdated.
    pub(crate) fn interrupted(&mut self) {
        if self.check.is_none() {
            self.press.target = None;
        }
    }

    /// Begins the first approach anew.
    pub(crate) fn begin_anew(&mut self) {
        let Self { time, disturbed_at, alone, refaulted_anon, .. } = *self;
        *self = Self { alone, refaulted_anon, disturbed_at, ..Self::new(time) };
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

    /// Returns the kind of memory to take: of new memory, any.
    #[must_use]
    pub(crate) fn kind(&self) -> Kind {
        if self.presses_new() { Kind::All } else { self.kind }
    }

    /// Decides at a knee of page cache whether the first approach goes on with anonymous memory
    /// before page cache. Most of what a service keeps in memory is anonymous, and the kernel takes the few
    /// pages of its program's files first.
    pub(crate) fn goes_on_with_anon(&mut self, sample: ReuseSample) -> bool {
        let turns_to = sample.anon.before_cache().filter(|_| self.approaches && self.kind == Kind::All);
        if let Some(kind) = turns_to {
            self.kind = kind;
            self.next(APPROACH_DEPTH);
        }
        turns_to.is_some()
    }

    /// Returns whether a knee is one of page cache alone: hardly anything else was pressed out, or
    /// came back.
    #[must_use]
    pub(crate) fn is_of_file(&self, sample: ReuseSample) -> bool {
        let came = self.press.from.map(|(_, refaulted)| sample.refaulted.since(refaulted));
        let came_back = came.is_some_and(|came| came.all as f64 > NOISE_BYTES && came.is_mostly_file());
        came_back || self.press.took_file_only(sample)
    }

    /// Returns whether new memory is pressed out during a check.
    #[must_use]
    pub(crate) fn presses_new(&self) -> bool {
        self.check.is_some_and(|check| check.is_pressing)
    }

    /// Records reclaimed bytes.
    pub(crate) fn reclaimed(&mut self, bytes: u64) {
        // New memory that is pressed out during a check says nothing of the press before.
        match &mut self.check {
            None => {
                self.press.reclaimed += bytes as f64;
                self.press.goes_on |= bytes > 0;
                self.alone += if self.kind.prefers_anon() { bytes as f64 } else { 0.0 };
            }
            Some(Check { slice: Some(slice), .. }) => slice.left = slice.left.saturating_sub(bytes),
            Some(_) => {}
        }
    }

    /// Returns the bytes reclaimed in this press.
    #[must_use]
    pub(crate) fn pressed(&self) -> f64 {
        self.press.reclaimed
    }

    /// Returns the bytes that this press may still take: none once it is to be checked. What
    /// arrives meanwhile is taken in addition, as far as the press takes no more than twice its
    /// depth: new memory may be in use as well.
    #[must_use]
    pub(crate) fn left(&mut self, sample: ReuseSample) -> u64 {
        let current = sample.current;
        if self.kind != Kind::All && sample.anon.before_cache() != Some(self.kind) {
            // Nothing is left of it, or no room for it.
            (self.kind, self.press) = (Kind::All, Press::default());
        }
        let usage = self.settled.map_or(sample.set(), |settled| settled.min(sample.set()));
        let begins = self.press.from.is_none();
        if begins {
            self.press.taken_anon = sample.taken_anon;
        }
        self.press.sample(sample.at);
        self.press.from.get_or_insert((usage, sample.refaulted));
        let depth = |share: f64| (share * current as f64).round() as u64;
        let (target, most) = *self.press.target.get_or_insert_with(|| {
            let new = if begins { sample.set() - usage } else { 0 };
            let most = (depth(self.depth) + new).min(depth(self.depth.max(MAX_DEPTH)));
            (current - most, 2 * most)
        });
        let left = current.saturating_sub(target).min((most as f64 - self.press.reclaimed).max(0.0) as u64);
        // Near its end a press might take just as much as arrives, for ever.
        if left <= most / 2 / NEAR_DIVISOR { 0 } else { left }
    }

    /// Begins a check, and returns its end: that of a pause in the first approach, or else the end
    /// of the reuse time. A check in progress goes on, and new memory counts as in use.
    pub(crate) fn begin(&mut self, sample: ReuseSample, knee: Option<Margin>) -> Duration {
        if let Some(check) = self.check.as_mut().filter(|check| !check.is_pause()) {
            // A knee in new memory says nothing of the press before.
            check.accepted = check.arrived(sample);
            let until = check.until;
            return self.cut_rest(sample.at).unwrap_or(until);
        }
        let stage = match (self.approaches, knee) {
            (true, Some(_)) => Stage::First,
            (true, None) => Stage::Settling,
            (false, _) => Stage::Later,
        };
        self.approaches &= knee.is_none();
        self.press.end(sample);
        self.check_from(sample, knee, stage)
    }

    fn check_from(&mut self, sample: ReuseSample, knee: Option<Margin>, stage: Stage) -> Duration {
        let ReuseSample { at, current, copies, refaulted, .. } = sample;
        let until = at
            + match stage {
                Stage::Settling => SETTLING,
                Stage::Measuring => MEASURING,
                Stage::First | Stage::Later => self.time,
                Stage::Resting(rest) => rest,
            };
        self.check = Some(Check {
            began: at,
            until,
            accepted: 0,
            usage: current,
            copies,
            refaulted,
            seen: current,
            peak: current,
            knee,
            is_pressing: false,
            slice: None,
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
        let before = self.refaulted_anon.replace(sample.refaulted.anon).unwrap_or(sample.refaulted.anon);
        self.alone = (self.alone - sample.refaulted.anon.saturating_sub(before) as f64).max(0.0);
        // The application frees some of it in swap.
        self.alone = sample.in_swap.map_or(self.alone, |bytes| self.alone.min(bytes as f64));
        let check = self.check.as_mut()?;
        check.peak = check.peak.max(sample.current);
        if sample.at < check.until {
            let new = check.arrived(sample).saturating_sub(check.accepted);
            let (limit, fell) = (change_of(check.usage), check.usage.saturating_sub(sample.current));
            if fell > limit && !check.is_pause() {
                self.rests = Rests::default();
                self.next(LEAST_DEPTH);
                return Some(Checked::Void);
            }
            check.seen = sample.current;
            let grew = sample.current > check.usage + limit && new <= limit;
            let enough = if check.is_pressing { limit / 4 } else { limit };
            check.is_pressing = new > enough && !check.is_pause();
            let (until, accepted) = (check.until, check.accepted);
            if !check.is_pressing {
                let cut = if grew { self.cut_rest(sample.at) } else { None };
                return Some(Checked::Waiting(cut.unwrap_or(until)));
            }
            let pressed = check.press_new(sample, new, self.time);
            if check.accepted > accepted
                && let Some(until) = self.cut_rest(sample.at)
            {
                return Some(Checked::Waiting(until));
            }
            return Some(pressed);
        }
        let check = *check;
        if matches!(check.stage, Stage::Resting(_)) {
            // What came back meanwhile, later than within the reuse time, isn't new.
            let known = self.settled.unwrap_or(0) + sample.refaulted.since(check.refaulted).all;
            self.settled = Some((known + check.accepted).min(sample.set()));
            self.check = None;
            return Some(Checked::Over(None));
        }
        let is_disturbed = self.disturbed_at.is_some_and(|at| at > check.began);
        if sample.at > check.until + MAX_LATENESS || is_disturbed {
            // What came back in the time of a guard didn't come back within the reuse time, and what
            // others evicted wasn't pressed out.
            self.next(if self.approaches { APPROACH_DEPTH } else { LEAST_DEPTH });
            return Some(Checked::Void);
        }
        // The application may have freed it meanwhile.
        let accepted = check.accepted.min(check.arrived(sample));
        let known = check.usage + accepted;
        // What came back from zswap freed its copy: without copies, the usage grew by all of it.
        let before = known.saturating_sub(check.copies);
        let growth = check.peak.saturating_sub(known).max(sample.set().saturating_sub(before));
        // Growth by new memory is no refault, and refaults of what the kernel evicted by itself
        // don't make the usage grow.
        let refaulted = sample.refaulted.since(check.refaulted);
        let back = refaulted.all.min(growth);
        if check.is_pause() {
            let back = Refaulted { all: back, anon: refaulted.anon.min(growth) };
            return Some(self.judge_pause(sample, back, sample.at.saturating_sub(check.began)));
        }
        let came = self.came_back(&check, sample.refaulted, back as f64);
        let told = match (came, check.knee) {
            (Back::Share(share), _) => Some(share),
            // What the kernel didn't take was touched since it was last scanned: in the first
            // approach, that is at any time; later, within the reuse time.
            (Back::TooLittle, Some(knee)) => {
                Some(if knee.is_touched && check.stage == Stage::Later { 1.0 } else { 0.0 })
            }
            (Back::TooLittle, None) | (Back::Hidden, _) => None,
        };
        let (usage, copies, has_new) = (known + back, check.copies, accepted > change_of(check.usage));
        // What looked like a knee was none: the kernel's lists weren't sorted.
        self.approaches =
            check.stage == Stage::First && matches!(came, Back::Share(share) if share <= BACK_SHARE);
        let next = if self.approaches { self.kind } else { self.kind_after(came, told, sample) };
        // Anonymous memory stayed: nothing is known of it.
        let has_anon = sample.anon != Anon::None && self.kind != Kind::Anon;
        let is_bound = has_new || has_anon && self.press.took_file_only(sample);
        let depth = self.depth_after(&check, came);
        self.next(match (self.kind.prefers_anon(), next.prefers_anon()) {
            (false, true) => MAX_DEPTH / 2.0,
            (true, false) => LEAST_DEPTH,
            _ => depth,
        });
        self.anon_presses = if next.prefers_anon() { self.anon_presses + 1 } else { 0 };
        self.kind = next;
        self.settled = Some(usage.saturating_sub(copies));
        let confirms = told.is_some_and(|share| share >= CONFIRMED_SHARE) && !is_bound && !self.approaches;
        if let Some(rest) = self.rests.confirm(self.settled.filter(|_| confirms), self.time) {
            self.check_from(sample, None, Stage::Resting(rest));
        }
        Some(Checked::Over(told.map(|share| Settled {
            usage,
            copies,
            alone: self.alone as u64,
            share,
            is_bound,
        })))
    }

    /// Ends a rest within a reuse time: more is in use than before, and is soon measured. Returns its
    /// end, if there is one.
    fn cut_rest(&mut self, at: Duration) -> Option<Duration> {
        let check = self.check.as_mut().filter(|check| matches!(check.stage, Stage::Resting(_)))?;
        check.until = check.until.min(at + self.time);
        self.rests = Rests::default();
        Some(check.until)
    }

    /// Returns the depth of the next press after a check.
    fn depth_after(&self, check: &Check, came: Back) -> f64 {
        let is_first = check.stage == Stage::First;
        match came {
            // The kernel's lists weren't sorted: what was pressed out shows how much is idle of
            // what is left.
            Back::Share(share) if share > BACK_SHARE && is_first && check.knee.is_none() => {
                (APPROACH_DEPTH * (1.0 - share)).clamp(LEAST_DEPTH, MAX_DEPTH)
            }
            // Of huge pages a part of each may be in use, and the rest idle, whatever is left.
            Back::Share(share) if share > BACK_SHARE && self.kind.prefers_anon() => {
                (MAX_DEPTH * (1.0 - share) * (1.0 - share)).max(LEAST_DEPTH)
            }
            // Memory in use leaves last: all of what is left may be in use.
            Back::Share(share) if share > BACK_SHARE => LEAST_DEPTH,
            Back::Hidden => LEAST_DEPTH,
            Back::TooLittle if self.press.is_void => self.depth.min(MAX_DEPTH),
            _ if is_first => MAX_DEPTH,
            Back::TooLittle if check.knee.is_some_and(|knee| knee.is_touched) => LEAST_DEPTH,
            _ => (2.0 * self.depth).min(MAX_DEPTH),
        }
    }

    /// Returns the kind of the next press after a check with this result: anonymous memory before
    /// page cache after a press in which only page cache turned out to be in use, and as long as most of what
    /// that takes stays away.
    fn kind_after(&self, came: Back, told: Option<f64>, sample: ReuseSample) -> Kind {
        let goes_on = if self.kind.prefers_anon() {
            self.anon_presses < MAX_ANON_PRESSES
                && matches!(came, Back::Share(share) if share < CONFIRMED_SHARE)
        } else {
            told.is_none_or(|share| share > BACK_SHARE) && self.is_of_file(sample)
        };
        sample.anon.before_cache().filter(|_| goes_on).unwrap_or(Kind::All)
    }

    /// Judges what came `back` in a part of a pause.
    fn judge_pause(&mut self, sample: ReuseSample, back: Refaulted, time: Duration) -> Checked {
        if self.check.is_some_and(|check| check.stage == Stage::Settling) {
            return Checked::Waiting(self.check_from(sample, None, Stage::Measuring));
        }
        let of_old = self.press.of_old;
        let is_in_use = |back: u64| would_come_back(back as f64, time.max(MEASURING), self.time, of_old);
        if is_in_use(back.of(self.kind)) {
            if !is_in_use(back.anon) && self.goes_on_with_anon(sample) {
                return Checked::Over(None);
            }
            self.approaches = false;
            return Checked::Waiting(self.check_from(sample, None, Stage::First));
        }
        self.next(APPROACH_DEPTH);
        Checked::Over(None)
    }

    /// Returns how much of what was pressed out came back, by `refaulted`, of which `back` made the
    /// usage grow.
    fn came_back(&self, check: &Check, refaulted: Refaulted, back: f64) -> Back {
        let since = |before: Refaulted| refaulted.since(before).of(self.kind) as f64;
        let all = since(self.press.from.map_or(check.refaulted, |(_, refaulted)| refaulted));
        let (pressed, came) = match check.knee {
            // A long approach takes mostly cold memory: what it took last shows what is left. If
            // more than that comes back, a part of each huge page may be in use.
            Some(Margin { reclaimed, returned, .. }) => {
                let came = all.min(returned + since(check.refaulted));
                let is_mixed = self.kind.prefers_anon() && came > reclaimed;
                (if is_mixed { self.press.of_old } else { self.press.of_old.min(reclaimed) }, came)
            }
            None => (self.press.of_old, all),
        };
        // A small difference of large amounts is as good as nothing.
        if pressed < NOISE_BYTES || self.press.of_old < self.press.reclaimed / 8.0 {
            return Back::TooLittle;
        }
        // An application that frees other memory hides what comes back: refaults count without
        // growth, unless most of them can't be of this press.
        if all > OTHERS_FACTOR * self.press.reclaimed && back < pressed / 2.0 {
            return Back::Hidden;
        }
        Back::Share(if came > NOISE_BYTES { (came / pressed).min(1.0) } else { 0.0 })
    }

    /// Begins a press of this depth.
    fn next(&mut self, depth: f64) {
        (self.depth, self.settled, self.press, self.check) = (depth, None, Press::default(), None);
    }
}

#[cfg(test)]
mod tests;
