//! Events at the limit of a watched cgroup, and stalls of its tasks.

use std::time::Duration;

use rustix::io::Errno;

use super::super::context::Context;
use super::super::level::{Outrun, SETTINGS_INTERVAL};
use super::super::system::{Sample, System};
use super::Member;
use crate::cgroup::stat::MemoryStat;

impl<S: System> Member<S> {
    /// Reads whether its own limit was met. Returns the counters if they were read for it.
    pub(super) fn read_outrun(&mut self, cx: &mut Context<'_, S>) -> Result<Option<MemoryStat>, Errno> {
        if !self.rule.keeps_free() {
            return Ok(None);
        }
        let Some(Outrun { what, is_news, stat }) = self.limits.own.outrun(true, cx)? else {
            return Ok(None);
        };
        self.saw(&stat, cx);
        self.outrun();
        // A limit that the user set is below the one that was met.
        if self.limits.own.file.is_some() {
            self.end_hold(cx.now);
        }
        if is_news {
            cx.emit(&self.located.name, what);
        }
        Ok(Some(stat))
    }

    /// Reads the counters.
    pub(super) fn read_stat(&mut self, cx: &mut Context<'_, S>) -> Result<MemoryStat, Errno> {
        let stat = self.limits.own.sampler.stat(&mut cx.text)?;
        self.saw(&stat, cx);
        Ok(stat)
    }

    /// Uses counters for all that they tell: reading them costs more than a small write.
    fn saw(&mut self, stat: &MemoryStat, cx: &Context<'_, S>) {
        self.cache.saw(cx.now, stat.cache_beside_anon());
        self.account.counted(stat, self.is_writing(), cx.system.blind_spot());
    }

    /// Records that a limit above that counts was met.
    pub(crate) fn met_above(&mut self, now: Duration) {
        self.outrun();
        self.end_hold(now);
    }

    /// Ends a hold of the brake: a limit was met, so that holding helps nobody.
    fn end_hold(&mut self, now: Duration) {
        if self.hold.brake.holds(now).is_some() {
            // What was reclaimed before the hold came back.
            self.limits.own.forget_arrivals();
        }
        if self.hold.brake.met(now, self.limits.wanted()) {
            self.hold.over();
        }
    }

    /// Returns whether its stalls can't be read, which `--pressure` is to bound.
    pub(crate) fn is_blind_to_stalls(&self, text: &mut String) -> bool {
        self.probe.is_some() && self.limits.own.sampler.stalled(text).is_none()
    }

    /// Reads the share of the time for which its tasks were stalled, if that is due.
    pub(super) fn read_stall(&mut self, now: Duration, text: &mut String) {
        let due = self.stall.is_none_or(|(at, _)| now.saturating_sub(at) >= SETTINGS_INTERVAL);
        if !due {
            return;
        }
        let stalled = self.limits.own.sampler.stalled(text);
        self.visibility.note_pressure(stalled.is_none());
        let Some(stalled) = stalled else { return };
        if let Some((at, before)) = self.stall.replace((now, stalled)) {
            let time = now.saturating_sub(at).as_micros().max(1) as f64;
            self.stalled_share = stalled.saturating_sub(before) as f64 / time;
        }
    }
}
