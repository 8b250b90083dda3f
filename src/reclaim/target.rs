//! The interface between the loop and its target.

use std::time::Duration;

use rustix::io::Errno;

use crate::cgroup::stat::MemoryStat;
use crate::cgroup::{Conditions, MemoryCgroup};
use crate::clock;
use crate::host::PsiState;
use crate::host::zram::Zram;
use crate::kind::Swappiness;
use crate::node::Node;

use super::{Measures, TargetKind};

/// A target that can be sampled and asked to reclaim: a cgroup, a NUMA node, and in tests a
/// simulated kernel.
///
/// Time is part of the interface too, so that a simulation has its own.
pub trait Target {
    /// Returns the kind of the target.
    fn subject(&self) -> TargetKind {
        TargetKind::Cgroup
    }

    /// Returns the measures of the amount reclaimed, given the counters.
    fn measures(&mut self, stat: &MemoryStat) -> Measures {
        Measures::of_cgroup(stat, self.has_current())
    }

    /// Returns the usage in bytes: always fresh, if blurred by some pages a CPU. The usage is
    /// `memory.current`, or at the root and of a node, which have none, the total on the LRU lists.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    fn usage(&mut self) -> Result<u64, Errno>;

    /// Returns whether the usage is `memory.current`.
    fn has_current(&self) -> bool;

    /// Returns the counters. They may lag by [`Target::blind_spot`]; `flush` makes the kernel fold
    /// them first, where there is a way to do so.
    ///
    /// # Errors
    /// `ENODEV` when the cgroup was removed.
    fn stat(&mut self, flush: bool) -> Result<MemoryStat, Errno>;

    /// Returns the bytes by which the counters can lag behind while nothing folds them.
    fn blind_spot(&self) -> u64;

    /// Returns the time that tasks of the cgroup have been stalled on memory (PSI `some`), if the
    /// kernel counts it.
    fn stalled(&mut self) -> Option<Duration>;

    /// Returns the time that tasks of the cgroup have waited for a processor (PSI `some`), if the
    /// kernel counts it. It does so every 2 s.
    fn waited(&mut self) -> Option<Duration> {
        None
    }

    /// Returns the cgroup's `memory.swap.current` in bytes.
    fn swap_usage(&mut self) -> Option<u64>;

    /// Returns the contents of the host's zram swap, if the host swaps to zram.
    fn zram(&mut self) -> Option<Zram>;

    /// Returns the state of PSI for the target. For a node, that is the host's.
    fn psi(&self) -> PsiState;

    /// Returns whether all memory that swap takes in zram is visible: every swap area could be
    /// examined.
    fn sees_zram(&self) -> bool;

    /// Returns the conditions that could limit reclaim. Slow to gather: read when reclaim fell
    /// short, and before forecasts.
    fn conditions(&mut self) -> Conditions;

    /// Asks once, with one write(2), for `bytes`.
    ///
    /// # Errors
    /// The kernel's. `Ok` is the kernel's claim that it freed at least that much, and no proof.
    fn reclaim(&mut self, bytes: u64, swappiness: Option<Swappiness>) -> Result<(), Errno>;

    /// Returns whether the target accepts `swappiness=` with this value.
    ///
    /// # Errors
    /// The kernel's.
    fn accepts(&mut self, swappiness: Swappiness) -> Result<bool, Errno>;

    /// Returns the monotonic time since some fixed moment.
    fn now(&self) -> Duration {
        clock::now()
    }

    /// Returns the CPU time that the calling thread has used.
    fn cpu(&self) -> Duration {
        clock::thread_cpu()
    }

    /// Waits. A signal may end it early.
    fn pause(&mut self, time: Duration) {
        clock::pause(time);
    }
}

/// Forwards what a cgroup and a node do under the same names, and adds the rest.
macro_rules! forward {
    ($target:ty { $($rest:item)* }) => {
        impl Target for $target {
            fn usage(&mut self) -> Result<u64, Errno> {
                <$target>::usage(self)
            }

            fn stat(&mut self, flush: bool) -> Result<MemoryStat, Errno> {
                <$target>::stat(self, flush)
            }

            fn blind_spot(&self) -> u64 {
                <$target>::blind_spot(self)
            }

            fn stalled(&mut self) -> Option<Duration> {
                <$target>::stalled(self)
            }

            fn zram(&mut self) -> Option<Zram> {
                <$target>::zram(self)
            }

            fn psi(&self) -> PsiState {
                <$target>::psi(self)
            }

            fn sees_zram(&self) -> bool {
                <$target>::sees_zram(self)
            }

            fn conditions(&mut self) -> Conditions {
                <$target>::conditions(self)
            }

            fn reclaim(&mut self, bytes: u64, swappiness: Option<Swappiness>) -> Result<(), Errno> {
                <$target>::reclaim(self, bytes, swappiness)
            }

            fn accepts(&mut self, swappiness: Swappiness) -> Result<bool, Errno> {
                <$target>::accepts(self, swappiness)
            }

            $($rest)*
        }
    };
}

forward!(MemoryCgroup {
    fn has_current(&self) -> bool {
        MemoryCgroup::has_current(self)
    }

    fn waited(&mut self) -> Option<Duration> {
        MemoryCgroup::waited(self)
    }

    fn swap_usage(&mut self) -> Option<u64> {
        MemoryCgroup::swap_usage(self)
    }
});

forward!(Node {
    fn subject(&self) -> TargetKind {
        TargetKind::Node(self.number())
    }

    fn measures(&mut self, _: &MemoryStat) -> Measures {
        Measures::of_node(self.counts_for_itself().unwrap_or(false))
    }

    fn has_current(&self) -> bool {
        false
    }

    /// `None`: swap-outs of a node's memory are counted for the host alone.
    fn swap_usage(&mut self) -> Option<u64> {
        None
    }
});
