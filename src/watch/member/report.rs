//! Reports of a watched cgroup: samples, actions, and the summary.

use std::time::Duration;

use super::super::context::Context;
use super::super::event::{EventKind, MemberView, Summary, UsageSample};
use super::super::folding;
use super::super::level::SETTINGS_INTERVAL;
use super::super::meter::{CgroupFigures, Ledger, Metered};
use super::super::policy::headroom::Motion;
use super::super::policy::shares::Offer;
use super::super::system::{Sample, System};
use super::{HOLD_INTERVAL, Member};

/// Interval between repeated reports of a dry run.
const WOULD_INTERVAL: Duration = Duration::from_secs(10);

/// Maximum delay of a report until the next sample: a wake-up is expensive.
const REPORT_DELAY: Duration = Duration::from_millis(500);

/// Delay of a report while a write is in progress.
const HANG_DELAY: Duration = Duration::from_secs(1);

/// Intervals between `sample` events: 2 s while usage changes, longer while it doesn't, longest
/// once it hasn't for a while.
const STILL_INTERVAL: Duration = Duration::from_secs(10);
const CALM_INTERVAL: Duration = Duration::from_secs(60);

/// Minimum change of the usage that shortens the interval, bytes.
const MIN_CHANGE: u64 = 256 << 10;

impl<S: System> Member<S> {
    /// Returns its state for display.
    pub(crate) fn view(&self, now: Duration, text: &mut String) -> MemberView<'_> {
        let stalled = self.limits.own.sampler.stalled(text).map(Duration::from_micros);
        MemberView {
            cgroup: &self.located.name,
            current: self.limits.own.current(),
            room: self.limits.room(0),
            growth: self.limits.own.growth(),
            stalled,
            reclaimed: self.account.reclaimed(),
            held: self.hold.reason(),
            found: self.probe.as_ref().map(|probe| probe.found(now)),
        }
    }

    /// Takes a usage sample, if that is due, and emits it, unless it is folded into the next; `end`
    /// says that there is no later time.
    pub(crate) fn emit_sample(&mut self, end: bool, cx: &mut Context<'_, S>) {
        let current = self.limits.own.current();
        self.range.record(current);
        let interval = match self.limits.own.motion(cx.now) {
            // Single reclaims of `--pressure` are smaller than what counts as motion, but there are
            // many.
            _ if current.abs_diff(self.sampled_current) >= MIN_CHANGE => SETTINGS_INTERVAL,
            Motion::Moves => SETTINGS_INTERVAL,
            Motion::Still => STILL_INTERVAL,
            // Stalls caused by reclaim are of interest all the time.
            Motion::Calm if self.probe.is_some() => STILL_INTERVAL,
            Motion::Calm => CALM_INTERVAL,
        };
        let is_due =
            |at: Duration, interval| end || at == Duration::ZERO || cx.now.saturating_sub(at) >= interval;
        let folded = folding::interval(self.account.watched(cx.now), interval);
        let is_told = is_due(self.emitted_at, folded);
        // Metrics aren't folded.
        let is_metered = cx.has_meter && is_due(self.sampled_at, interval);
        if !is_told && !is_metered {
            return;
        }
        (self.sampled_at, self.sampled_current) = (cx.now, current);
        self.emitted_at = if is_told { cx.now } else { self.emitted_at };
        let found = self.probe.as_ref().map(|probe| probe.found(cx.now));
        let set = found.and_then(|found| found.set);
        let is_at_most = set.is_some_and(|set| set.is_at_most());
        if let Ok(sample) = self.account.sample(&self.limits.own.sampler, &mut cx.text) {
            let (limit, working_set) = (self.limits.own.limit, set.map(|set| set.bytes));
            let blind = self.visibility.blind();
            let mut sample = UsageSample { limit, working_set, is_at_most, blind, ..sample };
            if cx.has_meter {
                self.metered.get_or_insert_default().set(&sample);
            }
            if is_told {
                self.range.record(sample.current);
                sample.range = self.range.take(self.account.watched(cx.now));
                cx.emit(&self.located.name, EventKind::Sample(sample));
            }
        }
    }

    /// Emits the last usage sample before the end of its watch, if there is something to tell: of a
    /// cgroup that is gone, only what is known of it.
    pub(crate) fn emit_last(&mut self, gone: bool, cx: &mut Context<'_, S>) {
        if !gone {
            return self.emit_sample(true, cx);
        }
        let (current, limit) = (self.limits.own.current(), self.limits.own.limit);
        self.range.record(current);
        let range = self.range.take(self.account.watched(cx.now));
        if range.is_some() {
            let reclaimed = self.account.reclaimed();
            let sample = UsageSample { current, range, limit, reclaimed, ..UsageSample::default() };
            cx.emit(&self.located.name, EventKind::Sample(sample));
        }
    }

    /// Adds to its rule what its counters have beyond those that were added before.
    pub(crate) fn count(&mut self, ledger: &mut Ledger) {
        if let Some(metered) = &mut self.metered {
            metered.count(&self.account, self.rule.name.as_ref(), ledger);
        }
    }

    /// Returns its state for a report, if it is in the reports.
    pub(crate) fn figures(&self, now: Duration) -> Option<CgroupFigures<'_>> {
        let is_told = |metered: &&Metered| metered.is_told && self.closing.is_none();
        let metered = self.metered.as_deref().filter(is_told)?;
        let own = &self.limits.own;
        let found = self.probe.as_ref().map(|probe| probe.found(now));
        Some(CgroupFigures {
            cgroup: &self.located.name,
            rule: self.rule.name.as_deref(),
            current: own.current(),
            limit: Some(own.limit).filter(|limit| *limit < u64::MAX),
            room: self.limits.room(0).filter(|_| self.rule.keeps_free()),
            swapped: metered.swapped(),
            saved: found.map(|found| found.saved),
            set: found.and_then(|found| found.set),
            counters: metered.counters(&self.account),
            held: self.hold.reason(),
        })
    }

    /// Returns whether it is in the reports.
    #[must_use]
    pub(crate) fn is_told(&self) -> bool {
        self.metered.as_ref().is_some_and(|metered| metered.is_told)
    }

    /// Counts itself among those that follow its rule. From its first sample on it is in the
    /// reports, if there is a `place`: returns whether it takes that.
    pub(crate) fn follows(&mut self, place: bool, ledger: &mut Ledger, now: Duration) -> bool {
        let saved = self.probe.as_ref().map(|probe| probe.found(now).saved);
        ledger.follows(self.rule.name.as_ref(), saved);
        let Some(metered) = &mut self.metered else { return false };
        let takes = place && !metered.is_told;
        metered.is_told |= place;
        takes
    }

    /// Emits the reclaim that a dry run omits, at most once per interval.
    pub(crate) fn emit_would(&mut self, down_to: u64, cx: &mut Context<'_, S>) {
        self.due = cx.now + HOLD_INTERVAL;
        let current = self.limits.own.current();
        let requested = current.saturating_sub(down_to);
        self.account.would(requested);
        if self.would_reported.is_none_or(|at| cx.now.saturating_sub(at) >= WOULD_INTERVAL) {
            self.would_reported = Some(cx.now);
            cx.emit(&self.located.name, EventKind::Would { requested, current, down_to });
        }
    }

    /// Reports the work of a cgroup whose watch ends: all of it, unless a write is in progress.
    pub(crate) fn flush_last(&mut self, cx: &mut Context<'_, S>) {
        self.account.hurry();
        self.flush(!self.is_writing(), cx);
    }

    /// Reports the work since the last report, if that is long enough ago, or at the `end`.
    pub(crate) fn flush(&mut self, end: bool, cx: &mut Context<'_, S>) {
        let is_writing = self.is_writing();
        if let Some(report) =
            self.account.flush(&self.limits.own.sampler, end, is_writing, &mut self.cache, cx)
        {
            cx.emit(&self.located.name, report);
        }
    }

    /// Returns the time of a wake-up for a report, if the next sample, which reports as well, isn't
    /// soon enough.
    #[must_use]
    pub(crate) fn report_due(&self) -> Option<Duration> {
        let due = self.account.report_due()?;
        if self.is_idle() {
            return (self.due > due + REPORT_DELAY).then_some(due);
        }
        // The end of the slice reports, with the counters read; unless the write hangs.
        Some(due + HANG_DELAY)
    }

    /// Returns the summary of the watch; `gone` if the cgroup was removed.
    pub(crate) fn summary(&mut self, gone: bool, cx: &mut Context<'_, S>) -> Summary {
        let unfinished = self.is_writing();
        self.limits.offer(Offer::default());
        self.finish(0, false, cx);
        let sampler = &self.limits.own.sampler;
        self.probe.iter_mut().for_each(|probe| probe.close(sampler, &mut cx.text));
        let summary = Summary {
            rule: self.rule.name.as_deref().map(str::to_owned),
            found: self.probe.as_ref().map(|probe| probe.found(cx.now)),
            blind: self.visibility.ever_blind(),
            unfinished,
            ..self.account.close(sampler, &self.located, gone, cx)
        };
        if cx.has_meter {
            self.metered.get_or_insert_default().end(&summary);
        }
        summary
    }
}
