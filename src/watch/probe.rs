//! The probe of a cgroup under `--pressure`: feeds samples to its
//! [policy](super::policy::pressure), and estimates the working set.

use std::time::Duration;

use rustix::io::Errno;

use super::action::ActionResult;
use super::context::Context;
use super::event::{EstimateSummary, EventKind};
use super::policy::guard::Spared;
use super::policy::pressure::{PressureDecision, PressurePolicy, PressureSample};
use super::policy::reuse::Anon;
use super::policy::savings::{Saving, SavingsSample};
use super::policy::working_set::{Estimate, Knee, WorkingSet};
use super::swap_changes::SwapChanges;
use super::system::{Sample, System};
use crate::cgroup::CgroupPath;
use crate::cgroup::stat::MemoryStat;
use crate::host::proc::page_size;
use crate::kind::Kind;

/// Relative difference from the last reported working set, and change of confidence, from which it
/// is reported again.
const MIN_DIFFERENCE: f64 = 0.1;
const MIN_CHANGE: f64 = 0.2;

/// Interval between readings of the activity of tasks, beside those at a knee: before 6.16 or so,
/// the kernel folds the counters of all controllers for each.
const ACTIVITY_INTERVAL: Duration = Duration::from_secs(2);

/// Time for which it is known whether there is room in swap.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of a kind that count beside the rest of a usage: that may be idle and stay, from which an
/// estimate is an upper bound. Also as a divisor of the usage.
const MIN_SPARED: u64 = 1 << 20;
const SPARED_DIVISOR: u64 = 10;

/// The policy for one cgroup, and its results.
#[derive(Debug)]
pub(crate) struct PressureProbe {
    policy: PressurePolicy,
    estimate: Estimate,
    reported: Option<WorkingSet>,
    /// Time at which the activity of its tasks was last read.
    observed_at: Option<Duration>,
    saving: Saving,
    /// Memory taken by a byte in swap, as a share of it; `None` if unknown.
    copied: Option<f64>,
    /// Memory that stayed in the last decision although it may be idle.
    spared: Option<Spared>,
    /// Whether anonymous memory had room in swap, and when that was found out.
    room: Option<(Duration, bool)>,
    /// True if there was some that had none, at the last sample.
    lacks_room: bool,
    /// True if much of the cgroup was in swap at the last sample, or that is unknown.
    was_in_swap: bool,
    /// Changes of the host's swap that were seen.
    swap_changes: SwapChanges,
}

/// Result of a sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Probed {
    /// Time of the next sample.
    pub until: Duration,
    /// Bytes to reclaim.
    pub missing: u64,
    /// Kind of memory to reclaim, where a rule and its guards allow any.
    pub kind: Kind,
    /// Event to emit.
    pub report: Option<EventKind>,
    /// True if the cgroup's stalls can't be read.
    pub is_blind: bool,
}

impl PressureProbe {
    /// Creates a probe for a cgroup that may be stalled for a share `target` of the time, and whose
    /// memory is in use if it is touched within `reuse`.
    #[must_use]
    pub(crate) fn new(target: f64, reuse: Duration) -> Self {
        Self {
            policy: PressurePolicy::new(target, reuse),
            estimate: Estimate::new(reuse),
            reported: None,
            observed_at: None,
            saving: Saving::default(),
            copied: None,
            spared: None,
            room: None,
            lacks_room: false,
            was_in_swap: false,
            swap_changes: SwapChanges::default(),
        }
    }

    /// Sets another target share of stall and another reuse time.
    pub(crate) fn adopt(&mut self, target: f64, reuse: Duration) {
        self.policy.adopt(target, reuse);
        self.estimate.adopt(reuse);
    }

    /// Records a usage, at each sample, whether or not the cgroup is pressed.
    pub(crate) fn used(&mut self, now: Duration, current: u64) {
        if !self.policy.approaches() {
            self.estimate.approached(current);
        }
        self.estimate.used(now, current);
        self.saving.used(current);
    }

    /// Returns the time until which a cgroup with `current` bytes of usage needs nothing; `None` if
    /// it is due.
    pub(crate) fn rests_until(&mut self, now: Duration, current: u64) -> Option<Duration> {
        self.policy.rests_until(now, current)
    }

    /// Records the memory that stays in a decision although it may be idle.
    pub(crate) fn spares(&mut self, spared: Option<Spared>) {
        self.spared = spared;
    }

    /// Records that others evicted memory of the cgroup at this time.
    pub(crate) fn disturbed(&mut self, at: Duration) {
        self.policy.disturbed(at);
    }

    /// Records the changes of the host's swap, with `current` bytes of usage. `can_swap` returns
    /// whether there is room in swap for the cgroup now.
    pub(crate) fn swap_changed(
        &mut self,
        changes: SwapChanges,
        current: u64,
        can_swap: impl FnOnce() -> bool,
    ) {
        let before = std::mem::replace(&mut self.swap_changes, changes);
        let came_back = changes.removed_at > before.removed_at && self.was_in_swap;
        if came_back {
            self.estimate.disturbed(current);
        }
        let has_room = changes.added_at > before.added_at && self.lacks_room && can_swap();
        if came_back || has_room {
            self.room = None;
            self.policy.begin_anew(came_back);
        }
    }

    /// Records that due reclaim is held back.
    pub(crate) fn interrupted(&mut self) {
        self.policy.interrupted();
    }

    /// Samples the cgroup, with `current` bytes of usage, when that is due. `kind` is the kind that
    /// requests are for; `preference` says how far the kernel prefers anonymous memory if asked to.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    pub(crate) fn sample(
        &mut self,
        sampler: &impl Sample,
        (located, kind, preference): (&CgroupPath, Kind, Anon),
        current: u64,
        cx: &mut Context<'_, impl System>,
    ) -> Result<Probed, Errno> {
        let (copied, queue_room) = (cx.swap().copied, cx.swap_room());
        let (now, text) = (cx.now, &mut cx.text);
        let stat = sampler.stat(text)?;
        if self.observed_at.is_none_or(|at| now.saturating_sub(at) >= ACTIVITY_INTERVAL) {
            self.observed_at = Some(now);
            self.estimate.observe(sampler.activity(text));
        }
        let on_device = on_device(sampler, &stat, text);
        let in_swap = on_device.map(|bytes| bytes + stat.zswapped.unwrap_or(0));
        self.record_savings(current, &stat, on_device, copied);
        let mut sample = pressure_sample(sampler, &stat, (now, current), on_device, text);
        sample.queue_room = queue_room;
        self.was_in_swap = in_swap.is_none_or(|bytes| counts(bytes, current));
        let takes_anon = kind.takes_anon() && counts(sample.anon, current);
        let has_room = takes_anon && self.has_room(now, || cx.system.can_swap(located, kind));
        // What a guard spares makes the estimate a bound anyway.
        if has_room && kind.takes_file() && self.spared.is_none() {
            sample.swappable = if kind == Kind::All { preference } else { Anon::Mixed };
        }
        self.lacks_room = takes_anon && !has_room;
        let is_blind = sample.stalled.is_none();
        let decision = self.policy.decide(sample);
        let knee = match decision {
            PressureDecision::Knee(_) => Some(Knee::met(current).with_copies(stat.zswap.unwrap_or(0))),
            PressureDecision::Settled(settled) => Some(Knee::from(settled)),
            PressureDecision::Reclaim(_) | PressureDecision::Rest(_) => None,
        };
        let report = knee.and_then(|knee| {
            let spares = self.spares_memory(current, &stat, || cx.system.can_swap(located, kind));
            self.knee(sampler, knee.sparing(spares), now, text)
        });
        let (until, missing) = match decision {
            PressureDecision::Rest(until) | PressureDecision::Knee(until) => (until, 0),
            PressureDecision::Settled(_) => (self.policy.due(), 0),
            PressureDecision::Reclaim(bytes) => (self.policy.due(), bytes.min(current)),
        };
        Ok(Probed { until, missing, kind: self.policy.kind(), report, is_blind })
    }

    /// Records the result of an action.
    pub(crate) fn acted(&mut self, acted: &ActionResult) {
        self.saving.reclaimed(acted.reclaimed);
        self.policy.reclaimed(acted.reclaimed, acted.waited());
    }

    /// Records bytes that were reclaimed for another reason.
    pub(crate) fn saved(&mut self, bytes: u64) {
        self.saving.reclaimed(bytes);
    }

    /// Records that nothing more could be reclaimed: the memory that is left is taken to be in use,
    /// unless a device was waited for lately. Returns the event for it, if the working set is news.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    pub(crate) fn exhausted(
        &mut self,
        sampler: &impl Sample,
        (located, kind): (&CgroupPath, Kind),
        current: u64,
        cx: &mut Context<'_, impl System>,
    ) -> Result<Option<EventKind>, Errno> {
        let stat = sampler.stat(&mut cx.text)?;
        let on_device = on_device(sampler, &stat, &mut cx.text);
        let sample = pressure_sample(sampler, &stat, (cx.now, current), on_device, &mut cx.text);
        if !self.policy.exhausted(sample) {
            return Ok(None);
        }
        let spares = self.spares_memory(current, &stat, || cx.system.can_swap(located, kind));
        let knee = Knee::met(current).with_copies(stat.zswap.unwrap_or(0)).sparing(spares);
        Ok(self.knee(sampler, knee, cx.now, &mut cx.text))
    }

    /// Returns whether anonymous memory has room in swap, as of a moment ago: finding out reads files
    /// of all levels.
    fn has_room(&mut self, now: Duration, can_swap: impl FnOnce() -> bool) -> bool {
        match self.room {
            Some((at, has_room)) if now.saturating_sub(at) < ROOM_INTERVAL => has_room,
            _ => self.room.insert((now, can_swap())).1,
        }
    }

    /// Returns whether memory stays that may be idle, and so isn't part of the working set.
    fn spares_memory(&self, current: u64, stat: &MemoryStat, can_swap: impl FnOnce() -> bool) -> bool {
        let (file, anon) = (counts(stat.evictable_file(), current), counts(stat.evictable_anon(), current));
        match self.spared {
            Some(Spared::All) => true,
            Some(Spared::Anon) => anon,
            Some(Spared::File) => file || anon && !can_swap(),
            None => anon && !can_swap(),
        }
    }

    /// Records that a writer had to wait for a device: users of the remaining memory would as well.
    pub(crate) fn late(&mut self, now: Duration) {
        self.policy.late(now);
    }

    /// Updates the savings for the last time.
    pub(crate) fn close(&mut self, sampler: &impl Sample, text: &mut String) {
        if let (Ok(current), Ok(stat)) = (sampler.current(text), sampler.stat(text)) {
            let on_device = on_device(sampler, &stat, text);
            self.record_savings(current, &stat, on_device, self.copied);
        }
    }

    fn record_savings(
        &mut self,
        current: u64,
        stat: &MemoryStat,
        on_device: Option<u64>,
        copied: Option<f64>,
    ) {
        self.copied = copied;
        let demoted = stat.pgdemote_proactive.unwrap_or(0) * page_size();
        self.saving.record(SavingsSample { current, swapped: on_device, copied, demoted });
    }

    /// Returns the time of the next sample.
    #[must_use]
    pub(crate) fn due(&self) -> Duration {
        self.policy.due()
    }

    /// Returns the results so far.
    #[must_use]
    pub(crate) fn found(&self, now: Duration) -> EstimateSummary {
        EstimateSummary {
            set: self.estimate.working_set(now),
            idle: self.estimate.idle(),
            saved: self.saving.saved(),
        }
    }

    /// Records a knee. Returns the event for it, if the working set is news.
    fn knee(
        &mut self,
        sampler: &impl Sample,
        knee: Knee,
        now: Duration,
        text: &mut String,
    ) -> Option<EventKind> {
        if !self.estimate.knee(now, knee, sampler.activity(text)) {
            return None;
        }
        let set = self.estimate.working_set(now)?;
        let is_news = self.reported.is_none_or(|reported| {
            let differs = reported.bytes.abs_diff(set.bytes) as f64 > MIN_DIFFERENCE * reported.bytes as f64;
            let suggests_otherwise = set.suggested.is_some() != reported.suggested.is_some();
            let sureness = (set.confidence - reported.confidence).abs();
            let is_other = set.is_at_most() != reported.is_at_most();
            is_other || differs || suggests_otherwise || sureness >= MIN_CHANGE
        });
        is_news.then(|| {
            self.reported = Some(set);
            EventKind::WorkingSet { set, saved: self.saving.saved() }
        })
    }
}

/// Returns whether so many bytes count, see `MIN_SPARED`.
fn counts(bytes: u64, current: u64) -> bool {
    bytes >= (current / SPARED_DIVISOR).max(MIN_SPARED)
}

/// Returns the bytes in swap without those in zswap; `None` if unknown.
fn on_device(sampler: &impl Sample, stat: &MemoryStat, text: &mut String) -> Option<u64> {
    sampler.swapped(text).map(|bytes| bytes.saturating_sub(stat.zswapped.unwrap_or(0)))
}

/// Returns the sample of the policy at this time and usage.
fn pressure_sample(
    sampler: &impl Sample,
    stat: &MemoryStat,
    (at, current): (Duration, u64),
    on_device: Option<u64>,
    text: &mut String,
) -> PressureSample {
    let swapped_in = stat.swapped_in().unwrap_or(0);
    let refaulted_anon = swapped_in.max(stat.workingset_refault_anon.unwrap_or(0) * page_size());
    // Before 6.13, what is in swap: at least that was taken.
    let in_swap = on_device.map(|bytes| bytes + stat.zswapped.unwrap_or(0));
    let written = stat.pswpout.map(|out| (out + stat.zswpout.unwrap_or(0)) * page_size());
    let taken_anon = written.or(in_swap);
    let swapped_out = stat.pswpout.unwrap_or(0) + stat.zswpout.unwrap_or(0);
    PressureSample {
        at,
        current,
        stalled: sampler.stalled(text).map(Duration::from_micros),
        waited: sampler.waited(text).map(Duration::from_micros),
        returned: stat.back_in_use(),
        copies: stat.zswap.unwrap_or(0),
        refaulted: stat.refaulted().unwrap_or(0).max(stat.back_in_use()),
        refaulted_anon,
        returned_anon: swapped_in,
        taken_anon,
        in_swap,
        swappable: Anon::None,
        file: stat.evictable_file(),
        unwritten: stat.file_dirty.unwrap_or(0) + stat.file_writeback.unwrap_or(0),
        anon: stat.evictable_anon(),
        swapped_out: swapped_out * page_size(),
        on_device,
        writeback: stat.file_writeback.unwrap_or(0),
        queue_room: None,
        scanned: stat.pgscan_proactive.or(stat.pgscan).unwrap_or(0) * page_size(),
        taken: stat.pgsteal_proactive.or(stat.pgsteal).unwrap_or(0) * page_size(),
    }
}
