//! State of a watched cgroup with respect to the workers.

use super::super::context::Context;
use super::super::policy::guard::Allowed;
use super::super::system::System;
use super::Member;
use crate::kind::Kind;

/// State of a member with respect to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activity {
    /// The member is sampled when it is due.
    Idle,
    /// Reclaim is due, and waits for a worker.
    Queued,
    /// A worker has a job for the member.
    Writing {
        /// True if the reclaim is due to `--pressure`.
        presses: bool,
        /// Bytes of the limit on writes to swap that are set aside for it.
        reserved: u64,
    },
}

impl<S: System> Member<S> {
    /// Returns whether it is sampled when it is due.
    #[must_use]
    pub(crate) fn is_idle(&self) -> bool {
        self.activity == Activity::Idle
    }

    /// Returns whether a worker has a job for it.
    #[must_use]
    pub(crate) fn is_writing(&self) -> bool {
        matches!(self.activity, Activity::Writing { .. })
    }

    /// Records that it waits for a worker.
    pub(crate) fn queue(&mut self) {
        self.activity = Activity::Queued;
    }

    /// Records that it no longer waits for a worker.
    pub(crate) fn unqueue(&mut self) {
        self.activity = Activity::Idle;
    }

    /// Records that a worker has a job for it.
    pub(crate) fn begin(&mut self, allowed: &Allowed, cx: &mut Context<'_, S>) {
        let bytes = self.limits.own.current().saturating_sub(allowed.down_to);
        let may_swap = allowed.kind != Kind::File && cx.host.swap.is_limited();
        let reserved = if may_swap { bytes } else { 0 };
        cx.host.swap.reserve(reserved);
        self.activity = Activity::Writing { presses: self.presses, reserved };
        self.limits.asks(cx.now, bytes);
    }

    /// Records that no worker has a job for it any more, which reclaimed `bytes` and `goes_on` if it
    /// isn't done. Returns whether the job was due to `--pressure`.
    pub(crate) fn finish(&mut self, bytes: u64, goes_on: bool, cx: &mut Context<'_, S>) -> bool {
        self.limits.answered(bytes, goes_on);
        match std::mem::replace(&mut self.activity, Activity::Idle) {
            Activity::Writing { presses, reserved } => {
                cx.host.swap.release(reserved);
                presses
            }
            Activity::Idle | Activity::Queued => false,
        }
    }
}
