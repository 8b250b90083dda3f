//! The request: how much memory, of which kind, and within which bounds.

use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use thiserror::Error;

use super::{Rate, Target, TargetKind};
use crate::cgroup::swap_room::{SwapBound, SwapRoom};
use crate::host::PsiState;
use crate::kind::{Kind, Swappiness};
use crate::size::{Amount, Percent, whole_pages};

/// Function that interrupts the calling thread's system call after a time, and again and again at
/// this interval; `None` cancels it.
pub type Alarm = fn(Option<Duration>);

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Amount to reclaim.
    pub goal: Goal,
    /// Kind of memory.
    pub kind: Kind,
    /// Fixed size of each write in bytes, instead of one that adapts.
    pub chunk: Option<u64>,
    /// Time limit.
    pub timeout: Option<Duration>,
    /// Maximum share of the last 10 s in which the cgroup may be stalled; beyond it the request
    /// stops.
    pub max_pressure: Option<Percent>,
    /// Maximum cost in seconds of CPU time per GiB; beyond it the request stops.
    pub max_cost: Option<f64>,
    /// Bound on the rate, shared with all other requests that hold it.
    pub rate: Option<Arc<Rate>>,
    /// Alarm that ends a write early where it may wait for a swap device; `None` for no limit.
    pub alarm: Option<Alarm>,
    /// Deviation from the request that still counts as exact; by default [`Tolerance::Folio`].
    pub tolerance: Tolerance,
}

impl Request {
    /// Creates a request without any bound, in chunks that adapt.
    #[must_use]
    pub fn new(goal: Goal, kind: Kind) -> Self {
        Self {
            goal,
            kind,
            chunk: None,
            timeout: None,
            max_pressure: None,
            max_cost: None,
            rate: None,
            alarm: None,
            tolerance: Tolerance::Folio,
        }
    }
}

/// Amount to reclaim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// A fixed amount.
    Reclaim(Amount),
    /// The excess over this usage. Never [`Amount::Max`].
    DownTo(Amount),
}

/// Deviation from the request that still counts as exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// 3% of the request, or one large folio where that is more: the kernel frees folios as a
    /// whole.
    Folio,
    /// A share of the request.
    Share(Percent),
}

/// The largest folio on x86-64 and arm64 with 4 KiB pages, in bytes.
pub const LARGE_FOLIO: u64 = 2 << 20;

impl Tolerance {
    /// Returns the bytes above `requested` that are still exact.
    #[must_use]
    pub(crate) fn over(self, requested: u64) -> u64 {
        match self {
            Self::Folio => self.under(requested).max(LARGE_FOLIO),
            Self::Share(share) => share.of(requested),
        }
    }

    /// Returns the bytes below `requested` that are still exact. Folios excuse no shortfall.
    #[must_use]
    pub(crate) fn under(self, requested: u64) -> u64 {
        match self {
            Self::Folio => requested / 100 * 3 + requested % 100 * 3 / 100,
            Self::Share(share) => share.of(requested),
        }
    }
}

/// Reason why a request doesn't even begin. Nothing was changed.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum Refusal {
    #[error("this kernel lacks swappiness= in memory.reclaim, which requires Linux 6.11")]
    NoSwappiness,
    #[error("this kernel lacks swappiness=max in memory.reclaim, which requires Linux 6.16")]
    NoSwappinessMax,
    #[error("anonymous memory can't be reclaimed: {}", no_room(.0))]
    NoSwapRoom(SwapRoom),
    #[error("{} has no memory.current, which a percentage or --to requires", nameless(*.0))]
    NoUsage(TargetKind),
    #[error("max-pressure can't be kept: {}", .0.reason().unwrap_or("no stall figures"))]
    NoPressure(PsiState),
    #[error("{0}")]
    Unreadable(Errno),
}

fn nameless(subject: TargetKind) -> &'static str {
    match subject {
        TargetKind::Cgroup => "the root cgroup",
        TargetKind::Node(_) => "a NUMA node",
    }
}

fn no_room(room: &SwapRoom) -> String {
    match &room.bound {
        SwapBound::NoSwap => "this host has no swap".into(),
        SwapBound::Free => "swap is full".into(),
        SwapBound::Limit(cgroup) => format!("memory.swap.max of {cgroup} leaves no room in swap"),
    }
}

impl Refusal {
    /// Returns advice for the user.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoSwappiness => Some("omit --type and --swappiness: the kernel then uses vm.swappiness"),
            Self::NoSwappinessMax => {
                Some("use --swappiness 200, which prefers anonymous memory, but takes page cache first")
            }
            Self::NoSwapRoom(SwapRoom { bound: SwapBound::Limit(_), .. }) => {
                Some("raise memory.swap.max of that cgroup")
            }
            Self::NoSwapRoom(_) => Some("add swap (zram is enough), or use --type file"),
            Self::NoUsage(_) => Some("give the size in bytes, such as 10M"),
            Self::NoPressure(PsiState::Off) => Some("boot with psi=1, or omit --max-pressure"),
            Self::NoPressure(PsiState::OffHere) => {
                Some("write 1 to its cgroup.pressure, or omit --max-pressure")
            }
            Self::NoPressure(_) => Some("omit --max-pressure"),
            Self::Unreadable(_) => None,
        }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::Unreadable(errno)
    }
}

impl Request {
    /// Checks that this kernel can serve the request at this moment, without changing anything.
    ///
    /// Kernels 6.16 to 7.2 evict page cache and claim success on `swappiness=max` without swap;
    /// that is why the room is checked first.
    ///
    /// # Errors
    /// [`Refusal`], the reason.
    pub fn check(&self, target: &mut (impl Target + ?Sized)) -> Result<(), Refusal> {
        if let Some(swappiness) = self.kind.swappiness()
            && !target.accepts(swappiness)?
        {
            return Err(match swappiness {
                Swappiness::Max if target.accepts(Swappiness::Value(0))? => Refusal::NoSwappinessMax,
                _ => Refusal::NoSwappiness,
            });
        }
        self.check_without_a_write(target)
    }

    /// Checks the same without writing to the kernel's file, not even a request for nothing, as far
    /// as that is possible.
    ///
    /// # Errors
    /// [`Refusal`], the reason.
    pub fn check_without_a_write(&self, target: &mut (impl Target + ?Sized)) -> Result<(), Refusal> {
        if !self.kind.takes_file()
            && let Some(room) = target.conditions().swap.filter(|room| room.bytes == 0)
        {
            return Err(Refusal::NoSwapRoom(room));
        }
        if self.bounds_pressure() && target.stalled().is_none() {
            return Err(Refusal::NoPressure(target.psi()));
        }
        let needs_usage = !matches!(self.goal, Goal::Reclaim(Amount::Bytes(_) | Amount::Max));
        if needs_usage && !target.has_current() {
            return Err(Refusal::NoUsage(target.subject()));
        }
        Ok(())
    }

    /// Returns whether the stalls of the target are bounded: at 100% they aren't.
    #[must_use]
    pub(super) fn bounds_pressure(&self) -> bool {
        self.max_pressure.is_some_and(|most| most.ratio() < 1.0)
    }

    /// Returns the bytes to reclaim from a cgroup with a usage of `used` bytes, in whole pages of
    /// `page` bytes. `None` for all there is.
    pub(super) fn bytes(&self, used: u64, page: u64) -> Option<u64> {
        let bytes = match self.goal {
            Goal::Reclaim(Amount::Bytes(bytes)) => bytes,
            Goal::Reclaim(Amount::Share(share)) => share.of_usage(used),
            Goal::Reclaim(Amount::Max) => return None,
            Goal::DownTo(to) => used.saturating_sub(Self::floor(to, used)),
        };
        Some(whole_pages(bytes, page).unwrap_or(bytes / page * page))
    }

    /// Returns the target usage, for [`Goal::DownTo`].
    pub(super) fn down_to(&self, used: u64) -> Option<u64> {
        match self.goal {
            Goal::DownTo(to) => Some(Self::floor(to, used)),
            Goal::Reclaim(_) => None,
        }
    }

    fn floor(to: Amount, used: u64) -> u64 {
        match to {
            Amount::Bytes(bytes) => bytes,
            Amount::Share(share) => share.of(used),
            Amount::Max => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortfall_is_not_excused_by_folios() {
        assert_eq!(Tolerance::Folio.over(10 << 20), LARGE_FOLIO);
        assert_eq!(Tolerance::Folio.under(1000), 30);
        assert_eq!(Tolerance::Folio.over(1 << 30), ((1 << 30) / 100 * 3));
        let _ = Tolerance::Folio.under(u64::MAX);
        let one: Percent = "1".parse().unwrap();
        assert_eq!(Tolerance::Share(one).over(10_000), 100);
    }
}
