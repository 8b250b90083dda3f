//! The `--pressure` policy: decides from samples of a cgroup how much to reclaim from it, and when.
//! Does no I/O and reads no clock.
//!
//! The *knee* is the bend of the miss curve, a term from the literature on working sets: the usage
//! below which misses (here restores and swap-ins) rise steeply, because all memory that is left is
//! in use.
//!
//! The kernel can't distinguish recently touched memory from cold memory until it has scanned both
//! once, some time apart. Each approach therefore begins with a reclaim too small to matter, which
//! makes the kernel sort its lists. Steps double each second as long as nothing refaults.
//!
//! Refaults (restores and swap-ins) are the first sign that the remaining memory is in use. Stall
//! comes later and has a budget: the target's share of the time. Another sign is poor scan
//! efficiency, much scanned for little reclaimed, twice in a row: once may only mean that the lists
//! weren't sorted. At the knee the policy holds for the reuse time, and counts what comes back late
//! (see [reuse](super::reuse)): that decides on the depth of the next press.

mod budget;
mod device;
mod returns;
mod sample;

use std::time::Duration;

use budget::Budget;
use device::Device;
use returns::Returns;
pub(crate) use sample::PressureSample;

use super::backoff::Doubling;
use super::reuse::{Anon, Checked, Margin, Reuse, Settled};
use crate::kind::Kind;

/// Interval between reclaims while nothing refaults.
pub(crate) const STEP_INTERVAL: Duration = Duration::from_millis(250);

/// Minimum and maximum reclaim rate per second, in bytes and as a share of the usage.
const MIN_RATE: u64 = 512 << 10;
const MAX_RATE_SHARE: f64 = 0.1;

/// Factor by which steps grow each second.
const GROWTH: f64 = 2.0;

/// First hold where the lists aren't sorted yet, and pause where a device is slow; it doubles at each
/// further one, up to `MAX_HOLD`.
const FIRST_HOLD: Duration = Duration::from_secs(2);
/// Longest hold, see `FIRST_HOLD`.
pub(crate) const MAX_HOLD: Duration = Duration::from_secs(16);

/// Divisor of the usage that gives the bytes reclaimed for the first knees to count, and number of
/// knees after which every knee counts: the very first reclaims find unsorted lists, and refaults
/// after them say nothing about the rest.
const APPROACH_DIVISOR: u64 = 50;
const SORTING_KNEES: u32 = 2;

/// Number of passes over anonymous memory in which the kernel sorts it. The multi-generational LRU
/// does so a generation at a time: of a Redis of 400 MiB in huge pages, 214, 137 and 70 MiB were
/// scanned in vain, with tens of MiB reclaimed in between (Linux 7.3).
const SORTING_PASSES: u64 = 2;

/// Interval between readings of the usage while the policy holds.
const PEEK_INTERVAL: Duration = Duration::from_secs(2);

/// Number of samples with poor scan efficiency in a press that are a knee even if others are between
/// them: new memory that arrives meanwhile is reclaimed well.
const POOR_IN_ALL: u32 = 4;

/// Duration above which a write is taken to be waiting for a device.
const DEVICE_WAIT: Duration = Duration::from_millis(20);

/// Decision of the policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PressureDecision {
    /// Do nothing until this time.
    Rest(Duration),
    /// Reclaim this many bytes.
    Reclaim(u64),
    /// All memory that is left is touched all the time: do nothing until this time.
    Knee(Duration),
    /// The reuse time after a press is over: this usage is the working set's. The next sample is
    /// due at once.
    Settled(Settled),
}

/// State of swapping during an approach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swapping {
    /// No anonymous memory was reclaimed yet; bytes swapped out at the first sample.
    NotYet(u64),
    Begun,
}

/// The policy for one cgroup, with its state.
#[derive(Clone, Debug)]
pub(crate) struct PressurePolicy {
    target: f64,
    /// Reclaim rate, bytes per second.
    rate: f64,
    /// Bytes of the step that was requested and not reclaimed yet.
    requested: Option<f64>,
    /// Time of the next sample.
    due: Duration,
    last: Option<PressureSample>,
    /// Memory reclaimed and refaulted lately.
    returns: Returns,
    /// Stall that may still be caused, and what it buys.
    budget: Budget,
    /// State of swapping, with the bytes swapped out at the beginning.
    swap: Swapping,
    /// Bytes of anonymous memory that the kernel may still have to scan in vain in order to sort
    /// them; `None` before swapping began for the first time.
    unsorted: Option<u64>,
    /// What was swapped out to a device.
    device: Device,
    /// Check of what was reclaimed.
    reuse: Reuse,
    /// Number of knees, up to `SORTING_KNEES`.
    knees: u32,
    /// True if it paused because the kernel yielded little, and hasn't held since.
    has_paused: bool,
    /// Length of the last short hold.
    hold: Doubling,
    /// True once a hold ended the first approach: at a knee, or with nothing more to reclaim.
    found: bool,
    /// Number of consecutive samples in which much was scanned and little reclaimed.
    poor: u32,
    /// The same since the last hold, consecutive or not.
    poor_in_all: u32,
}

impl PressurePolicy {
    /// Creates the policy for a cgroup that may be stalled for a share `target` of the time, and
    /// whose memory is in use if it is touched within `reuse`.
    #[must_use]
    pub(crate) fn new(target: f64, reuse: Duration) -> Self {
        Self {
            target,
            rate: MIN_RATE as f64,
            requested: None,
            due: Duration::ZERO,
            last: None,
            returns: Returns::default(),
            budget: Budget::default(),
            swap: Swapping::Begun,
            unsorted: None,
            device: Device::default(),
            reuse: Reuse::new(reuse),
            knees: 0,
            has_paused: false,
            hold: Doubling::default(),
            found: false,
            poor: 0,
            poor_in_all: 0,
        }
    }

    /// Sets another target share of stall and another reuse time; learned state is kept.
    pub(crate) fn adopt(&mut self, target: f64, reuse: Duration) {
        self.target = target;
        if self.reuse.adopt(reuse) {
            self.due = Duration::ZERO;
        }
    }

    /// Returns the time at which the policy needs its next sample.
    #[must_use]
    pub(crate) fn due(&self) -> Duration {
        self.due
    }

    /// Returns whether this is the first approach.
    #[must_use]
    pub(crate) fn approaches(&self) -> bool {
        self.reuse.approaches()
    }

    /// Returns the kind of memory to reclaim.
    #[must_use]
    pub(crate) fn kind(&self) -> Kind {
        self.reuse.kind()
    }

    /// Returns the time until which a cgroup with `current` bytes of usage needs nothing; `None` if
    /// a sample is due.
    pub(crate) fn rests_until(&mut self, now: Duration, current: u64) -> Option<Duration> {
        let changed = self.reuse.peek(current);
        (now < self.due && !changed).then(|| self.due.min(now + PEEK_INTERVAL))
    }

    /// Records reclaimed bytes, and the time that the write waited, for example for a slow swap
    /// device.
    pub(crate) fn reclaimed(&mut self, bytes: u64, waited: Duration) {
        self.returns.reclaimed(bytes);
        self.reuse.reclaimed(bytes);
        // Steps grow by the bytes reclaimed, not by those requested: a guard may have held a step
        // back, and the next one must not be larger for that.
        if self.requested.take().is_some() {
            let most = 2.0 * bytes as f64 / STEP_INTERVAL.as_secs_f64();
            self.rate = (self.rate * GROWTH.powf(STEP_INTERVAL.as_secs_f64())).min(most).max(MIN_RATE as f64);
        }
        // Other users of the device wait as well.
        if waited > DEVICE_WAIT {
            self.budget.charge(waited);
        }
    }

    /// Records that others evicted memory of the cgroup at this time.
    pub(crate) fn disturbed(&mut self, at: Duration) {
        self.reuse.disturbed(at);
    }

    /// Records a sample, and decides.
    pub(crate) fn decide(&mut self, sample: PressureSample) -> PressureDecision {
        let Some(last) = self.last.replace(sample) else {
            // The usual rates have to be measured first.
            self.swap = Swapping::NotYet(sample.swapped_out);
            self.due = sample.at + 4 * STEP_INTERVAL;
            return PressureDecision::Rest(self.due);
        };
        self.learn(&sample, &last);
        let for_check = sample.for_check();
        let (goes_on, before) = (self.reuse.presses_new(), self.kind());
        let checked = self.reuse.judge(for_check);
        let presses_new = matches!(checked, Some(Checked::New(_)));
        if !(presses_new && goes_on) && (checked.is_some() || self.reuse.pressed() < 1.0) {
            // It is the check that judges what came back meanwhile; and what comes back before a
            // press has begun isn't the press's.
            self.returns.forget_returned();
            self.poor = 0;
        }
        let is_in_use = self.judge(&sample, &last);
        if matches!(checked, Some(Checked::Over(_))) && self.kind().prefers_anon() && !before.prefers_anon() {
            self.turn_to_anon(&sample);
        }
        let mut new = None;
        match checked {
            Some(Checked::Waiting(until)) => {
                if self.reuse.presses_new() {
                    (self.rate, self.requested) = (self.rate / 2.0, None);
                } else if !self.reuse.approaches() {
                    self.rest_for_long();
                }
                self.due = until;
                return PressureDecision::Rest(until);
            }
            Some(Checked::New(bytes)) => new = Some(bytes),
            Some(Checked::Over(Some(settled))) => {
                self.due = sample.at + STEP_INTERVAL;
                return PressureDecision::Settled(settled);
            }
            Some(Checked::Over(None) | Checked::Void) | None => {}
        }
        if is_in_use {
            return self.knee(&sample);
        }
        let left = new.unwrap_or_else(|| self.reuse.left(for_check));
        if (left as f64) < MIN_RATE as f64 * STEP_INTERVAL.as_secs_f64() {
            if self.reuse.pressed() < 1.0 {
                self.reuse.end_approach();
            }
            self.due = self.reuse.begin(for_check, None);
            if self.reuse.approaches() {
                // The lists stay sorted for a pause.
                (self.rate, self.requested) = (self.rate / 2.0, None);
            } else {
                self.rest_for_long();
            }
            return PressureDecision::Rest(self.due);
        }
        self.step(&sample, left)
    }

    /// Decides on the next step, of at most `left` bytes.
    fn step(&mut self, sample: &PressureSample, left: u64) -> PressureDecision {
        if let Some(until_paid) = self.budget.debt(self.target, self.found) {
            self.due = sample.at + until_paid.clamp(STEP_INTERVAL, MAX_HOLD);
            return PressureDecision::Rest(self.due);
        }
        let soon = 2.0 * self.rate * STEP_INTERVAL.as_secs_f64();
        if sample.is_unwritten(soon) && self.reuse.goes_on_with_anon(sample.for_check()) {
            // The kernel would look for page cache to take in all that the application writes.
            self.turn_to_anon(sample);
            self.due = sample.at + STEP_INTERVAL;
            return PressureDecision::Rest(self.due);
        }
        let cache_ends = (sample.file as f64) < soon;
        if let Swapping::NotYet(before) = self.swap
            && (cache_ends || sample.swapped_out > before)
        {
            self.begin_swapping(sample);
        }
        if let Some(was_behind) = self.device.look(sample.at, sample.writeback, sample.queue_room) {
            // A refault of a page under writeback would wait behind the rest. Once it is written, a
            // second visit frees it: that takes steps of some size.
            if !was_behind {
                self.rate = (self.rate / 2.0).max(MIN_RATE as f64);
            }
            self.due = sample.at + STEP_INTERVAL;
            return PressureDecision::Rest(self.due);
        }
        // At most what the budget could pay for if all of it refaulted.
        let affordable = self.budget.affordable() / STEP_INTERVAL.as_secs_f64();
        let most = (sample.current as f64 * MAX_RATE_SHARE).min(affordable).max(MIN_RATE as f64);
        if self.requested.is_some() {
            // The last step was held back. The lists may have changed meanwhile.
            self.reuse.interrupted();
            self.rate = MIN_RATE as f64;
        }
        self.rate = self.rate.clamp(MIN_RATE as f64, most);
        self.due = sample.at + STEP_INTERVAL;
        let mut step = (self.rate * STEP_INTERVAL.as_secs_f64()).min(left as f64);
        if let Some(room) = sample.queue_room
            && (cache_ends || self.kind().prefers_anon())
            && step > room as f64
        {
            // All of it is swapped out: as much as the devices write soon, and the next part soon.
            step = (room as f64).max(MIN_RATE as f64 * STEP_INTERVAL.as_secs_f64());
            self.due = sample.at + STEP_INTERVAL / 2;
        }
        self.requested = Some(step);
        self.device.asked(step);
        PressureDecision::Reclaim(step as u64)
    }

    /// Begins to take anonymous memory, in small steps: its lists aren't sorted yet, and the stall
    /// per byte isn't known.
    fn begin_swapping(&mut self, sample: &PressureSample) {
        (self.swap, self.rate) = (Swapping::Begun, MIN_RATE as f64);
        self.unsorted.get_or_insert(SORTING_PASSES * sample.anon);
    }

    /// Begins a press of anonymous memory alone, or first.
    fn turn_to_anon(&mut self, sample: &PressureSample) {
        self.begin_swapping(sample);
        self.forget_press();
    }

    /// Learns from the time between two samples: what came back, what is usual, and the stall that
    /// it cost.
    fn learn(&mut self, sample: &PressureSample, last: &PressureSample) {
        let time = sample.at.saturating_sub(last.at).as_secs_f64().max(1e-3);
        let since = |now: Option<Duration>, before: Option<Duration>| match now.zip(before) {
            Some((now, before)) => now.saturating_sub(before).as_micros() as f64,
            // A counter that couldn't be read says nothing of this interval.
            None => 0.0,
        };
        let waited = since(sample.waited, last.waited);
        let interval = self.returns.learn(sample, last, self.reuse.kind(), waited, self.reuse.time());
        let stalled = since(sample.stalled, last.stalled).max(interval.waited);
        if sample.stalled.is_some() && last.stalled.is_some() {
            self.budget.measure(stalled, interval.refaulted);
        }
        self.device.swapped(sample.at, sample.submitted_since(last), sample.dirty(), time);
        self.budget.pass(time, stalled, self.target, self.found);
    }

    /// Judges what was reclaimed until a sample. Returns whether it was in use: much of it came
    /// back at once, or the kernel had to scan much for it.
    fn judge(&mut self, sample: &PressureSample, last: &PressureSample) -> bool {
        let is_in_use = self.returns.judge(sample.at.saturating_sub(last.at).as_secs_f64());
        let (scanned, in_vain) = sample.scanned_since(last);
        if scanned >= sample::MIN_SCANNED {
            // Every page counts as touched until it was scanned once, by as many writes as that
            // takes: one where nothing interrupts it.
            let sorts = self.unsorted.is_some_and(|left| in_vain <= left);
            let is_poor = sample.is_poor_since(last);
            self.poor = if is_poor && !sorts { self.poor + 1 } else { 0 };
            self.poor_in_all += self.poor.min(1);
            if is_poor {
                self.rate = MIN_RATE as f64;
            }
        }
        self.unsorted = self.unsorted.map(|left| left.saturating_sub(in_vain));
        is_in_use || self.poor > 1 || self.poor_in_all >= POOR_IN_ALL
    }

    /// Records that the policy was held back for some time: refaults and stall from that time don't
    /// count for later reclaim. It resumes with small steps, and keeps the usual rates and the
    /// stall per byte.
    pub(crate) fn interrupted(&mut self) {
        self.last = None;
        self.reuse.interrupted();
        (self.rate, self.requested) = (MIN_RATE as f64, None);
        self.returns.forget();
        self.poor = 0;
    }

    /// Records that what was pressed out came back without having been used, or that the kernel can
    /// take memory now that it couldn't before: another approach begins. `is_back` says that it was
    /// what was in swap that came back.
    pub(crate) fn begin_anew(&mut self, is_back: bool) {
        self.interrupted();
        if is_back {
            self.returns.forget_out();
        }
        self.forget_press();
        self.reuse.begin_anew();
        (self.found, self.has_paused, self.unsorted, self.knees) = (false, false, None, 0);
        self.hold.reset();
        self.due = Duration::ZERO;
    }

    /// Records that at this sample nothing more could be reclaimed. Returns whether it is a knee.
    pub(crate) fn exhausted(&mut self, sample: PressureSample) -> bool {
        if self.device.keeps(sample.at) {
            self.pause(sample.at, FIRST_HOLD);
            return false;
        }
        let last = self.last.unwrap_or(sample);
        let is_touched = sample.is_poor_since(&last) || self.poor > 0;
        self.due = self.reuse.begin(sample.for_check(), Some(self.margin(is_touched)));
        self.rest_for_long();
        true
    }

    /// Records that a write had to wait for a device: users of the memory that is left would as
    /// well. Waiting says nothing of what is in use, and the press goes on later.
    pub(crate) fn late(&mut self, now: Duration) {
        let pause = self.device.late(now);
        self.pause(now, pause);
    }

    /// Pauses for a device.
    fn pause(&mut self, now: Duration, time: Duration) {
        self.due = now + time;
        (self.rate, self.requested) = ((self.rate / 2.0).max(MIN_RATE as f64), None);
    }

    /// Holds at a knee: until what was reclaimed would have come back, or, where the lists aren't
    /// sorted yet, for a short time.
    fn knee(&mut self, sample: &PressureSample) -> PressureDecision {
        let counts = self.knees >= SORTING_KNEES || self.pressed_much(sample);
        self.knees = (self.knees + 1).min(SORTING_KNEES);
        if !counts {
            return PressureDecision::Rest(self.hold(sample.at));
        }
        let for_check = sample.for_check();
        let came_back = self.returns.came_back();
        let is_of_file = if came_back { self.returns.is_of_file() } else { self.reuse.is_of_file(for_check) };
        if is_of_file && self.reuse.goes_on_with_anon(for_check) {
            self.turn_to_anon(sample);
            self.due = sample.at + STEP_INTERVAL;
            return PressureDecision::Rest(self.due);
        }
        let nothing_came = self.returns.returned < 1.0 && self.pressed_much(sample);
        let may_sort = self.reuse.approaches() && sample.swappable != Anon::None;
        if may_sort && nothing_came && !self.has_paused {
            // The kernel yields little, and nothing came back: it may have to sort the next
            // generation of anonymous memory. A short pause shows whether it does. After it, that is
            // a knee at once.
            (self.knees, self.has_paused) = (SORTING_KNEES, true);
            self.due = self.reuse.begin(for_check, None);
            self.forget_press();
            return PressureDecision::Rest(self.due);
        }
        self.due = self.reuse.begin(for_check, Some(self.margin(true)));
        self.rest_for_long();
        PressureDecision::Knee(self.due)
    }

    /// Returns whether a press took enough for a knee to count.
    fn pressed_much(&self, sample: &PressureSample) -> bool {
        self.reuse.pressed() >= (sample.current / APPROACH_DIVISOR) as f64
    }

    /// Returns what was pressed out last, and what of it came back.
    fn margin(&self, is_touched: bool) -> Margin {
        Margin { reclaimed: self.returns.reclaimed, returned: self.returns.returned, is_touched }
    }

    fn hold(&mut self, now: Duration) -> Duration {
        self.rest_for_long();
        self.due = now + self.hold.next(FIRST_HOLD, MAX_HOLD);
        self.due
    }

    /// Forgets what belongs to an approach.
    fn rest_for_long(&mut self) {
        (self.found, self.has_paused) = (true, false);
        self.forget_press();
    }

    /// Forgets what belongs to a press.
    fn forget_press(&mut self) {
        (self.poor, self.poor_in_all) = (0, 0);
        (self.rate, self.requested) = (MIN_RATE as f64, None);
        self.returns.forget();
    }
}

#[cfg(test)]
mod tests;
