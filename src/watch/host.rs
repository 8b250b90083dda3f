//! State of the host that the members of a watch share.

use std::time::Duration;

use super::blind::BlindGuards;
use super::killers::{AboveVerdict, KillerWatch};
use super::kswapd::{Kswapd, KswapdVerdict};
use super::policy::guard::Guard;
use super::swap_changes::SwapChangeWatch;
use super::swap_monitor::SwapMonitor;

/// Swap, killers and kswapd of the host.
#[derive(Debug, Default)]
pub(crate) struct HostState {
    /// The host's swap.
    pub swap: SwapMonitor,
    /// Areas that come and go.
    pub swap_changes: SwapChangeWatch,
    /// The host's killers, and the levels that they monitor.
    pub killers: KillerWatch,
    /// The host's own reclaim.
    pub kswapd: Kswapd,
}

/// Visibility to the guards of one cgroup.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Visibility {
    /// Guards that were blind at the last sample, and at any time.
    now: BlindGuards,
    ever: BlindGuards,
}

impl Visibility {
    /// Records a verdict. Returns the guard, if it holds, and the earliest time of its release, if
    /// that is to come.
    pub(crate) fn held(&mut self, verdict: AboveVerdict, now: Duration) -> Option<(Guard, Option<Duration>)> {
        self.note(BlindGuards { above: verdict.is_blind, ..self.now });
        verdict
            .held
            .map(|(pressure, until)| (Guard::Above(pressure), Some(until).filter(|&until| until > now)))
    }

    /// Records the verdict on kswapd. Returns the guard with its end, if it holds.
    pub(crate) fn held_by_kswapd(&mut self, verdict: KswapdVerdict) -> Option<(Guard, Option<Duration>)> {
        self.note(BlindGuards { kswapd: verdict.is_blind, ..self.now });
        verdict.until.map(|until| (Guard::Kswapd, Some(until)))
    }

    /// Records whether the cgroup's stalls are invisible.
    pub(crate) fn note_pressure(&mut self, is_blind: bool) {
        self.note(BlindGuards { pressure: is_blind, ..self.now });
    }

    /// Records whether the host's writes to swap are invisible.
    pub(crate) fn note_writes(&mut self, is_blind: bool) {
        self.note(BlindGuards { swap_writes: is_blind, ..self.now });
    }

    /// Returns the guards that were blind at the last sample.
    #[must_use]
    pub(crate) fn blind(self) -> BlindGuards {
        self.now
    }

    /// Returns the guards that were blind at some time.
    #[must_use]
    pub(crate) fn ever_blind(self) -> BlindGuards {
        self.ever
    }

    fn note(&mut self, now: BlindGuards) {
        self.now = now;
        self.ever.add(now);
    }
}
