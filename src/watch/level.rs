//! A level of the hierarchy that limits watched cgroups: a cgroup's own limit, or that of an
//! ancestor, shared by all cgroups below it.

use std::time::Duration;

use rustix::io::Errno;

use super::config::rule::Rule;
use super::context::Context;
use super::event::{EventKind, Room};
use super::policy::brake::Wanted;
use super::policy::guard::Need;
use super::policy::headroom::{Decision, Headroom, HeadroomPolicy, HeadroomSample, Motion};
use super::policy::sampling_interval::SamplingInterval;
use super::policy::shares::Shares;
use super::system::{Sample, System};
use crate::cgroup::limit::LimitFile;
use crate::cgroup::sampler::LimitEvents;
use crate::cgroup::stat::MemoryStat;
use crate::host::proc::page_size;

/// Interval between reads of a limit; the longer one applies at rest, where a lower limit is no
/// less likely but less urgent.
pub(super) const SETTINGS_INTERVAL: Duration = Duration::from_secs(2);
const SETTINGS_INTERVAL_AT_REST: Duration = Duration::from_secs(10);

/// Minimum interval between reports of a limit that is met repeatedly, unless over a quarter more
/// was needed than reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Time for which a limit counts as met lately.
const MET_TIME: Duration = Duration::from_secs(60);

/// Time for which a decision on an ancestor serves all cgroups below it: the shortest window of
/// the arrival curve.
const SHARED: Duration = Duration::from_millis(10);

/// A limit that was met.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outrun {
    /// Event to emit.
    pub what: EventKind,
    /// True if a report is due: a cgroup that stays at its limit meets it a hundred times a second.
    pub is_news: bool,
    /// Counters that were read for it.
    pub stat: MemoryStat,
}

/// One level. Amounts are bytes.
#[derive(Debug)]
pub(crate) struct Level<F> {
    /// Sampler of its files.
    pub sampler: F,
    /// Limit; `u64::MAX` without one.
    pub limit: u64,
    /// File that sets the limit; `None` where the user does.
    pub file: Option<LimitFile>,
    /// Limit without the user's own; `u64::MAX` without one.
    kernel_limit: u64,
    policy: HeadroomPolicy,
    keep: Option<u64>,
    /// Bytes that all processors together charge in a batch each.
    batches: u64,
    settings_read_at: Duration,
    hits: Option<LimitEvents>,
    /// Pages reclaimed directly at the last met limit. Before 6.15 that includes the reclaim of
    /// watches; `ours` are the bytes of these since then.
    direct: Option<u64>,
    ours: u64,
    /// Time at which the limit was met last.
    met_at: Option<Duration>,
    /// Time of the last report of a met limit, and the bytes needed then.
    outrun_reported: Option<(Duration, u64)>,
    /// Decision of the last sample, its time, and the usage since then as far as it is known.
    decision: Option<(Duration, Decision)>,
    current: u64,
    usage_read_at: Option<Duration>,
    /// Shares of the cgroups below it in missing bytes.
    pub shares: Shares,
}

impl<F: Sample> Level<F> {
    /// Opens a level; `keep` is a limit set by the user.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn open(
        sampler: F,
        rule: &Rule,
        keep: Option<u64>,
        cx: &mut Context<'_, impl System>,
    ) -> Result<Self, Errno> {
        let mut level = Self {
            limit: u64::MAX,
            kernel_limit: u64::MAX,
            file: None,
            policy: HeadroomPolicy::new(rule.headroom, reserves(rule, keep)),
            keep,
            batches: cx.system.blind_spot(),
            settings_read_at: cx.now,
            hits: sampler.hits(&mut cx.text),
            direct: sampler.stat(&mut cx.text)?.pgsteal_direct,
            ours: 0,
            met_at: None,
            outrun_reported: None,
            decision: None,
            current: 0,
            usage_read_at: None,
            sampler,
            shares: Shares::default(),
        };
        level.read_limit(&mut cx.text)?;
        Ok(level)
    }

    /// Sets another rule; `keep` is a limit set by the user.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn adopt(&mut self, rule: &Rule, keep: Option<u64>, text: &mut String) -> Result<(), Errno> {
        self.keep = keep;
        self.policy.adopt(rule.headroom, reserves(rule, keep));
        self.decision = None;
        self.read_limit(text)
    }

    /// Records the usage `current`, and decides.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn decide(
        &mut self,
        current: u64,
        cx: &mut Context<'_, impl System>,
    ) -> Result<Decision, Errno> {
        if cx.now.saturating_sub(self.settings_read_at) >= self.settings_interval(cx.now) {
            self.read_limit(&mut cx.text)?;
            self.settings_read_at = cx.now;
        }
        self.policy.interval.sampled();
        self.policy.is_reclaimed_from = self.shares.is_asked();
        let decision = self.policy.decide(HeadroomSample { at: cx.now, current, limit: self.limit });
        self.decision = Some((cx.now, decision));
        (self.current, self.usage_read_at) = (current, Some(cx.now));
        Ok(decision)
    }

    /// Samples the usage and decides, for one of several cgroups below it. A decision serves them
    /// all for a moment.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn decide_for_all(&mut self, cx: &mut Context<'_, impl System>) -> Result<Decision, Errno> {
        if let Some((at, decision)) = self.decision
            && cx.now.saturating_sub(at) < SHARED
        {
            return Ok(decision);
        }
        let current = self.sampler.current(&mut cx.text)?;
        self.decide(current, cx)
    }

    /// Returns the usage, sampled at most once in a moment for all cgroups below it; 0 if it can't
    /// be read.
    pub(crate) fn usage(&mut self, cx: &mut Context<'_, impl System>) -> u64 {
        if self.usage_read_at.is_none_or(|at| cx.now.saturating_sub(at) >= SHARED)
            && let Ok(current) = self.sampler.current(&mut cx.text)
        {
            (self.current, self.usage_read_at) = (current, Some(cx.now));
        }
        self.current
    }

    /// Returns the part of the bytes that the last decision found `missing` that are due to the
    /// headroom below the kernel's own limit.
    #[must_use]
    pub(crate) fn missing_for_headroom(&self, current: u64, missing: u64) -> u64 {
        self.policy.for_headroom(current, missing, (self.limit, self.kernel_limit))
    }

    /// Returns the interval between reads of settings: the limit, and others that an administrator
    /// sets.
    #[must_use]
    pub(crate) fn settings_interval(&self, now: Duration) -> Duration {
        if self.policy.motion(now) == Motion::Calm {
            SETTINGS_INTERVAL_AT_REST * u32::from(self.policy.crowd)
        } else {
            SETTINGS_INTERVAL
        }
    }

    /// Returns whether the usage moves.
    #[must_use]
    pub(crate) fn motion(&self, now: Duration) -> Motion {
        self.policy.motion(now)
    }

    /// Returns the usage at the last sample, less the bytes reclaimed since then.
    #[must_use]
    pub(crate) fn current(&self) -> u64 {
        self.current
    }

    /// Returns the number of times that the limit was met so far; `None` where that can't be read.
    #[must_use]
    pub(crate) fn met(&self) -> Option<u64> {
        self.hits.map(|hits| hits.high + hits.max)
    }

    /// Records counters: what was reclaimed since the last met limit wasn't reclaimed by tasks.
    pub(crate) fn rebase(&mut self, stat: &MemoryStat, text: &mut String) {
        if self.sampler.hits(text) == self.hits {
            (self.direct, self.ours) = (stat.pgsteal_direct.or(self.direct), 0);
        }
    }

    /// Returns the room below the limit if usage is `freed` bytes less than at the last sample, and
    /// the bytes by which the limit is exceeded; `None` without a limit.
    #[must_use]
    pub(crate) fn room(&self, freed: u64) -> Option<(Room, u64)> {
        let used = self.current.saturating_sub(freed);
        let room = Room { limit: self.limit, free: self.limit.saturating_sub(used), low: self.low() };
        (self.limit < u64::MAX).then(|| (room, used.saturating_sub(self.limit)))
    }

    /// Raises the headroom for another member below it: the largest counts.
    pub(super) fn raise(&mut self, rule: &Rule) {
        let mine = self.policy.headroom();
        let is_larger = rule.headroom.below(self.limit) > mine.below(self.limit);
        let reserves = self.policy.reserves() || reserves(rule, None);
        self.policy.adopt(if is_larger { rule.headroom } else { mine }, reserves);
    }

    /// Lowers the headroom to nothing, before it is raised for each member below.
    pub(super) fn lower(&mut self) {
        self.policy.adopt(Headroom::Bytes(0), false);
    }

    /// Returns the bytes to keep free.
    #[must_use]
    pub(crate) fn low(&self) -> u64 {
        self.policy.low(self.limit)
    }

    /// Returns the bytes to keep free where nothing bounds them.
    #[must_use]
    pub(crate) fn wanted(&self) -> Wanted {
        self.policy.wanted(self.limit)
    }

    /// Returns the need of reclaim, for the headroom alone.
    #[must_use]
    pub(crate) fn need(&self, now: Duration) -> Need {
        let free = self.limit.saturating_sub(self.current);
        Need {
            lacks: self.wanted().reserve.min(self.low()).saturating_sub(free),
            was_met: self.met_at.is_some_and(|at| now.saturating_sub(at) < MET_TIME),
        }
    }

    /// Decides anew for a cgroup of whose memory at most `kept` bytes are kept free.
    #[must_use]
    pub(crate) fn decide_to_keep(&self, kept: u64, now: Duration) -> Decision {
        self.policy.decide_to_keep(kept, HeadroomSample { at: now, current: self.current, limit: self.limit })
    }

    /// Forgets what arrived since the last `note_arrivals`: it came back, of what was reclaimed.
    pub(crate) fn forget_arrivals(&mut self) {
        self.policy.forget_arrivals();
    }

    /// Notes what is known of arrivals.
    pub(crate) fn note_arrivals(&mut self) {
        self.policy.note_arrivals();
    }

    /// Sets the bound on the bytes kept free.
    pub(crate) fn bound(&mut self, kept: Option<u64>) {
        self.policy.kept = kept;
    }

    /// Returns the recent arrivals in bytes per second.
    #[must_use]
    pub(crate) fn growth(&self) -> f64 {
        self.policy.growth()
    }

    /// Sets the factor of its intervals while it is calm.
    pub(crate) fn set_crowd(&mut self, crowd: u8) {
        self.policy.crowd = crowd;
    }

    /// Returns the sampling interval near the watermark.
    pub(crate) fn interval(&mut self) -> &mut SamplingInterval {
        &mut self.policy.interval
    }

    /// Records that reclaim for it goes on down to the upper watermark.
    pub(crate) fn go_on(&mut self) {
        self.policy.go_on();
    }

    /// Records bytes reclaimed from it or from below it.
    pub(crate) fn reclaimed(&mut self, bytes: u64) {
        self.policy.reclaimed(bytes);
        self.ours = self.ours.saturating_add(bytes);
        self.current = self.current.saturating_sub(bytes);
    }

    /// Handles a limit event: learns by how much the limit was exceeded, and returns the headroom
    /// that would have been needed. `is_quiet` says that no write is in progress below it.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn outrun(
        &mut self,
        is_quiet: bool,
        cx: &mut Context<'_, impl System>,
    ) -> Result<Option<Outrun>, Errno> {
        let Some(hits) = self.sampler.hits(&mut cx.text) else { return Ok(None) };
        if self.hits.replace(hits) == Some(hits) {
            return Ok(None);
        }
        self.met_at = Some(cx.now);
        // The limit may have changed since the last sample.
        self.read_limit(&mut cx.text)?;
        self.settings_read_at = cx.now;
        let last = self.policy.last();
        let free = last.map_or(0, |last| self.limit.saturating_sub(last.current));
        let current = self.sampler.current(&mut cx.text)?;
        let stat = self.sampler.stat(&mut cx.text)?;
        let direct = match stat.pgsteal_direct.zip(self.direct) {
            Some((now, before)) => now.saturating_sub(before) * page_size(),
            None => 0,
        };
        // Before 6.15 the counter includes proactive reclaim, which was recorded already. It may lag.
        let ours = std::mem::take(&mut self.ours);
        let direct = if stat.pgsteal_proactive.is_some() {
            direct
        } else {
            self.ours = ours.saturating_sub(direct).min(cx.system.blind_spot());
            if is_quiet { direct.saturating_sub(ours) } else { 0 }
        };
        self.direct = stat.pgsteal_direct.or(self.direct);
        self.policy.reclaimed(direct);
        let arrived =
            current.saturating_add(direct).saturating_sub(last.map_or(current, |last| last.current));
        let needed = arrived.max(free).max(self.low());
        let is_old = |(at, reported): (Duration, u64)| {
            cx.now.saturating_sub(at) >= REPORT_INTERVAL || needed > reported + reported / 4
        };
        let is_news = self.outrun_reported.is_none_or(is_old);
        if is_news {
            self.outrun_reported = Some((cx.now, needed));
        }
        Ok(Some(Outrun { what: EventKind::Outrun { needed, free }, is_news, stat }))
    }

    fn read_limit(&mut self, text: &mut String) -> Result<(), Errno> {
        // Without a limit there is nothing to do until one is set.
        let own = self.sampler.limit(text)?.map_or((u64::MAX, None), |(limit, file)| (limit, Some(file)));
        self.kernel_limit = own.0;
        (self.limit, self.file) = self.keep.filter(|&keep| keep < own.0).map_or(own, |keep| (keep, None));
        self.policy.batches = if self.file == Some(LimitFile::High) { self.batches } else { 0 };
        Ok(())
    }
}

/// Returns whether to keep a reserve for expected allocations: with `keep` or `headroom`, not with
/// `pressure` alone.
fn reserves(rule: &Rule, keep: Option<u64>) -> bool {
    keep.is_some() || Rule { keep: None, ..rule.clone() }.keeps_free()
}
