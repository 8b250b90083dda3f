//! What the members of a watch share of the host.

use std::time::Duration;

use super::killers::{AboveVerdict, KillerWatch};
use super::policy::guard::Guard;
use super::swap_monitor::SwapMonitor;

/// The host's swap, and its killers.
#[derive(Debug, Default)]
pub struct HostState {
    /// Its swap.
    pub swap: SwapMonitor,
    /// Its killers, and the levels that they monitor.
    pub killers: KillerWatch,
}

/// What the guard `above` could see, for one cgroup.
#[derive(Clone, Copy, Debug, Default)]
pub struct Visibility {
    /// Whether it could not see when it looked last, and whether that was so at any time.
    is_blind: bool,
    was_blind: bool,
}

impl Visibility {
    /// Enters a verdict. Returns the guard, if it holds, and the earliest time of its release, if that is to come.
    pub fn held(&mut self, verdict: AboveVerdict, now: Duration) -> Option<(Guard, Option<Duration>)> {
        self.is_blind = verdict.is_blind;
        self.was_blind |= verdict.is_blind;
        verdict
            .held
            .map(|(pressure, until)| (Guard::Above(pressure), Some(until).filter(|&until| until > now)))
    }

    /// Whether it could not see when it looked last.
    #[must_use]
    pub fn is_blind(self) -> bool {
        self.is_blind
    }

    /// Whether it could not see at some time.
    #[must_use]
    pub fn was_blind(self) -> bool {
        self.was_blind
    }
}
