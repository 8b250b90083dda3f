//! State of the host that the members of a watch share.

use std::time::Duration;

use super::killers::{AboveVerdict, KillerWatch};
use super::policy::guard::Guard;
use super::swap_monitor::SwapMonitor;

/// Swap and killers of the host.
#[derive(Debug, Default)]
pub(crate) struct HostState {
    /// The host's swap.
    pub swap: SwapMonitor,
    /// The host's killers, and the levels that they monitor.
    pub killers: KillerWatch,
}

/// Visibility of pressure to the guard `above`, for one cgroup.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Visibility {
    /// State at the last sample, and at any time.
    is_blind: bool,
    was_blind: bool,
}

impl Visibility {
    /// Records a verdict. Returns the guard, if it holds, and the earliest time of its release, if
    /// that is to come.
    pub(crate) fn held(&mut self, verdict: AboveVerdict, now: Duration) -> Option<(Guard, Option<Duration>)> {
        self.is_blind = verdict.is_blind;
        self.was_blind |= verdict.is_blind;
        verdict
            .held
            .map(|(pressure, until)| (Guard::Above(pressure), Some(until).filter(|&until| until > now)))
    }

    /// Returns whether the pressure was invisible at the last sample.
    #[must_use]
    pub(crate) fn is_blind(self) -> bool {
        self.is_blind
    }

    /// Returns whether the pressure was invisible at some time.
    #[must_use]
    pub(crate) fn was_blind(self) -> bool {
        self.was_blind
    }
}
