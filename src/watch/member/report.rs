//! Reports of a watched cgroup: samples, actions, and the summary.

use std::time::Duration;

use super::super::event::{EventKind, MemberView, Summary, UsageSample};
use super::super::level::SETTINGS;
use super::super::policy::headroom::Motion;
use super::{HELD, Member};

/// Interval between repeated reports of a dry run.
const WOULD: Duration = Duration::from_secs(10);

/// Maximum delay of a report until the next sample: a wake-up is expensive.
const SOON: Duration = Duration::from_millis(500);

/// Intervals between `sample` events: 2 s while usage changes, longer while it doesn't, longest
/// once it hasn't for a while.
const SAMPLED_STILL: Duration = Duration::from_secs(10);
const SAMPLED_CALM: Duration = Duration::from_secs(60);
const MOVED: u64 = 256 << 10;

impl Member {
    /// Returns its state for display.
    pub(crate) fn view(&mut self, now: Duration, text: &mut String) -> MemberView<'_> {
        let stalled = self.limits.own.gauge.stalled(text).map(Duration::from_micros);
        MemberView {
            cgroup: &self.located.name,
            current: self.limits.own.current(),
            room: self.limits.room(0),
            growth: self.limits.own.growth(),
            stalled,
            reclaimed: self.account.reclaimed(),
            held: self.holding.by(),
            found: self.pressing.as_ref().map(|pressing| pressing.found(now)),
        }
    }

    /// Emits a usage sample, if that is due; `end` says that there is no later time.
    pub(crate) fn sample(
        &mut self,
        now: Duration,
        end: bool,
        text: &mut String,
        tell: &mut dyn FnMut(EventKind),
    ) {
        let current = self.limits.own.current();
        let each = match self.limits.own.motion(now) {
            // Single reclaims of `--pressure` are smaller than what counts as motion, but there are
            // many.
            _ if current.abs_diff(self.sampled_current) >= MOVED => SETTINGS,
            Motion::Moves => SETTINGS,
            Motion::Still => SAMPLED_STILL,
            // Stalls caused by reclaim are of interest all the time.
            Motion::Calm if self.pressing.is_some() => SAMPLED_STILL,
            Motion::Calm => SAMPLED_CALM,
        };
        if !end && self.sampled > Duration::ZERO && now.saturating_sub(self.sampled) < each {
            return;
        }
        (self.sampled, self.sampled_current) = (now, current);
        let found = self.pressing.as_ref().and_then(|pressing| pressing.found(now).set);
        if let Ok(sample) = self.account.sample(&self.limits.own.gauge, text) {
            let (limit, working_set) = (self.limits.own.limit, found.map(|set| set.bytes));
            let above_blind = self.above.is_blind();
            tell(EventKind::Sample(UsageSample { limit, working_set, above_blind, ..sample }));
        }
    }

    /// Emits the reclaim that a dry run omits, at most once per interval.
    pub(crate) fn would(&mut self, now: Duration, down_to: u64, tell: &mut dyn FnMut(EventKind)) {
        self.due = now + HELD;
        self.account.would(self.limits.own.current().saturating_sub(down_to));
        if self.would_told.is_none_or(|told| now.saturating_sub(told) >= WOULD) {
            self.would_told = Some(now);
            let current = self.limits.own.current();
            tell(EventKind::Would { requested: current.saturating_sub(down_to), current, down_to });
        }
    }

    /// Reports the work since the last report, if that is long enough ago, or at the `end`.
    pub(crate) fn flush(&mut self, now: Duration, end: bool, tell: &mut dyn FnMut(EventKind)) {
        self.account.flush(now, end, tell);
    }

    /// Returns the time of a wake-up for a report, if the next sample, which reports as well, isn't
    /// soon enough.
    #[must_use]
    pub(crate) fn to_tell(&self) -> Option<Duration> {
        self.account.to_tell().filter(|&due| self.busy || self.due > due + SOON)
    }

    /// Returns the summary of the watch; `gone` if the cgroup was removed.
    pub(crate) fn summary(&mut self, now: Duration, gone: bool, text: &mut String) -> Summary {
        self.limits.gives(0);
        self.limits.answered();
        let gauge = &self.limits.own.gauge;
        self.pressing.iter_mut().for_each(|pressing| pressing.close(gauge, text));
        let found = self.pressing.as_ref().map(|pressing| pressing.found(now));
        let rule = self.rule.name.as_deref().map(str::to_owned);
        let above_blind = self.above.was_blind();
        Summary { rule, found, above_blind, ..self.account.close(&self.limits.own.gauge, now, gone, text) }
    }
}
