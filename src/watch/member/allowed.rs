//! What the guards allow of a reclaim from a watched cgroup.

use super::super::context::Context;
use super::super::policy::guard::{Allowed, Bounds, CgroupState, Guard, Need, SwapState};
use super::super::system::{Sample, System};
use super::Member;
use crate::kind::Kind;

impl<S: System> Member<S> {
    /// Returns the part of a reclaim of `missing` bytes, of the kind that `--pressure` takes, that is
    /// allowed in this state of swap.
    ///
    /// # Errors
    /// The guard that holds.
    pub(super) fn allowed(
        &mut self,
        current: u64,
        missing: u64,
        (pressed, swap): (Kind, SwapState),
        cx: &mut Context<'_, S>,
    ) -> Result<Allowed, Guard> {
        let now = cx.now;
        let can_choose = self.handle.as_ref().is_none_or(|handle| handle.can_choose());
        let own = CgroupState { current, protection: self.protection, stalled: self.stalled_share };
        let down_to = current.saturating_sub(missing);
        self.visibility.note_writes(swap.is_uncounted && self.rule.bounds.kind != Some(Kind::File));
        let is_needed = !self.presses && self.limits.own.file.is_some();
        let need = if is_needed { self.limits.own.need(now) } else { Need::default() };
        let (sampler, text) = (&self.limits.own.sampler, &mut cx.text);
        let seen = &mut self.cache;
        let has_cache = &mut |bytes| {
            // An old reading can only make the request one of page cache alone.
            (can_choose && seen.has(now, bytes))
                || sampler.stat(text).is_ok_and(|stat| {
                    let there = stat.cache_beside_anon();
                    seen.saw(now, there);
                    there >= bytes
                })
        };
        // A press of anonymous memory takes nothing else, whatever a guard would prefer.
        let kind = if pressed.prefers_anon() { Some(Kind::Anon) } else { self.rule.bounds.kind };
        let bounds = Bounds { kind, ..self.rule.bounds };
        bounds.allow(down_to, own, swap, need, can_choose, has_cache).map(|allowed| allowed.asking(pressed))
    }
}
