//! Context of a step of the watch: the host, the time, and the receiver of events.

use std::time::Duration;

use super::event::{Event, EventKind};
use super::host::HostState;
use super::killers::AboveVerdict;
use super::kswapd::KswapdVerdict;
use super::policy::guard::SwapState;
use super::swap_changes::SwapChanges;
use super::system::System;
use crate::cgroup::{CgroupPath, Name};

/// State that all members of a watch share during a step.
pub(crate) struct Context<'a, S: System> {
    /// The host.
    pub system: S,
    /// State of the host's swap and killers.
    pub host: HostState,
    /// Buffer for the text of files.
    pub text: String,
    /// Time of the step.
    pub now: Duration,
    /// Beginning of the watch.
    pub began: Duration,
    /// True if figures for monitoring are wanted.
    pub has_meter: bool,
    /// Receiver of events.
    pub emit: &'a mut dyn FnMut(Event<'_>),
}

#[cfg(test)]
impl<'a, S: System> Context<'a, S> {
    /// Creates the context of a watch that begins at time 0.
    pub(crate) fn at_start(system: S, emit: &'a mut dyn FnMut(Event<'_>)) -> Self {
        let (host, zero) = (HostState::default(), Duration::ZERO);
        Self { system, host, text: String::new(), now: zero, began: zero, has_meter: false, emit }
    }
}

impl<S: System> Context<'_, S> {
    /// Sets the time of the step to the current time, and returns it.
    pub(crate) fn refresh(&mut self) -> Duration {
        self.now = self.system.now();
        self.now
    }

    /// Emits an event of a cgroup, with the time of the step.
    pub(crate) fn emit(&mut self, cgroup: &Name, what: EventKind) {
        let at = self.elapsed();
        (self.emit)(Event { cgroup, at, what });
    }

    /// Returns the time since the beginning of the watch.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now.saturating_sub(self.began)
    }

    /// Returns whether the pressure of some level holds back reclaim from a cgroup.
    pub(crate) fn verdict(&mut self, located: &CgroupPath) -> AboveVerdict {
        self.host.killers.verdict(self.now, located, &mut self.system)
    }

    /// Returns the verdict on kswapd.
    pub(crate) fn kswapd(&mut self) -> KswapdVerdict {
        let Self { system, host, now, .. } = self;
        let memory = system.memory();
        host.kswapd.at(*now, memory, || system.kswapd_scanned())
    }

    /// Returns the state of the host's swap.
    pub(crate) fn swap(&mut self) -> SwapState {
        self.host.swap.at(self.now, &mut self.system)
    }

    /// Returns when areas of the host's swap were removed and added.
    pub(crate) fn swap_changes(&mut self) -> SwapChanges {
        let total = self.system.swap_space().map(|space| space.total);
        self.host.swap_changes.at(self.now, total)
    }

    /// Returns the bytes that may be swapped out now, by the state of [`Context::swap`], see
    /// [`SwapMonitor::room`].
    ///
    /// [`SwapMonitor::room`]: super::swap_monitor::SwapMonitor::room
    pub(crate) fn swap_room(&mut self) -> Option<u64> {
        self.host.swap.room(&mut self.system)
    }
}
