//! What must not happen, whatever the law wants: pure functions of samples.

use crate::cgroup::reclaim::Swappiness;
use crate::size::Percent;

/// Page cache of so many times what is wanted is plenty.
const PLENTY: u64 = 2;

/// The bounds within which a law may act.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Usage that is never undercut, bytes.
    pub floor: u64,
    /// The share of the host's swap that must be free for anonymous memory to be taken.
    pub swap_free: Percent,
    /// How much may go to the host's swap in a second, bytes; `None` for as much as there is.
    pub swap_writes: Option<u64>,
    /// The share of the time in which the cgroup may be stalled.
    pub max_pressure: Option<Percent>,
    /// Which memory may be taken.
    pub take: Take,
}

/// Which memory may be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Take {
    /// Page cache, and anonymous memory where swap is quick: zram, zswap, no rotating disk.
    #[default]
    Careful,
    /// Whatever is coldest.
    All,
    /// Page cache alone.
    File,
    /// Anonymous memory alone.
    Anon,
    /// Whatever is coldest, weighed by the user.
    Weighed(Swappiness),
}

/// What the host's swap is like. Amounts are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Swap {
    /// All of it.
    pub total: u64,
    /// What is free.
    pub free: u64,
    /// How much went there in the last second, from the whole host.
    pub written_per_second: u64,
    /// What a byte there takes in memory after all: in zram, as a share of it. An average over the host.
    pub copied: f64,
    /// It takes no rotating disk, and what it writes wears nothing out at once.
    pub quick: bool,
}

/// What is known of the cgroup. Amounts are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Own {
    /// `memory.current`.
    pub current: u64,
    /// The larger of `memory.min` and `memory.low`.
    pub protection: u64,
    /// The share of the last second or so in which it was stalled.
    pub stalled: f64,
    /// Its page cache that could be evicted; looked at only where the kernel can't be told to take that alone.
    pub cache: u64,
}

/// What held a law back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Guard {
    /// It uses no more than the floor, or than its own protection.
    Floor,
    /// It is stalled more than allowed.
    Pressure,
    /// Only anonymous memory would be taken, and swap runs short.
    SwapFree,
    /// Only anonymous memory would be taken, and too much goes to swap already.
    SwapWrites,
    /// The host's swap is slow, and the kernel can't be told to leave anonymous memory alone.
    SlowSwap,
    /// What is reclaimed comes back: that share of it.
    Refaults(f64),
    /// There was nothing to be had.
    Exhausted,
    /// The share of a CPU that may be spent is spent.
    Cpu,
    /// It began to run only now.
    Grace,
    /// Another memctl is at it.
    Lock,
}

impl Guard {
    /// The word for it in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Pressure => "pressure",
            Self::SwapFree => "swap_free",
            Self::SwapWrites => "swap_writes",
            Self::SlowSwap => "slow_swap",
            Self::Refaults(_) => "refaults",
            Self::Exhausted => "exhausted",
            Self::Cpu => "cpu",
            Self::Grace => "grace",
            Self::Lock => "lock",
        }
    }
}

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// To which usage, bytes.
    pub down_to: u64,
    /// Which memory.
    pub take: Take,
}

impl Bounds {
    /// What of a wish to come down to some usage may be done. `can_choose` says whether the kernel can be told to take page
    /// cache alone.
    ///
    /// # Errors
    /// What holds it back.
    pub fn allow(&self, down_to: u64, own: Own, swap: Swap, can_choose: bool) -> Result<Allowed, Guard> {
        let down_to = down_to.max(self.floor).max(own.protection);
        if own.current <= down_to {
            return Err(Guard::Floor);
        }
        if self.max_pressure.is_some_and(|most| own.stalled > most.ratio()) {
            return Err(Guard::Pressure);
        }
        let take = match self.anon(swap) {
            _ if self.take == Take::File => Take::File,
            Ok(take) => take,
            // Without any swap nothing goes there, whatever is asked for.
            Err(_) if swap.total == 0 && self.take == Take::Careful => Take::All,
            Err(_) if swap.total == 0 && self.take != Take::Anon => self.take,
            Err(_) if can_choose && self.take != Take::Anon => Take::File,
            // The kernel can't be told, but it prefers page cache where there is plenty.
            Err(_) if self.take == Take::Careful && own.cache >= PLENTY * (own.current - down_to) => {
                Take::All
            }
            Err(guard) => return Err(guard),
        };
        Ok(Allowed { down_to, take })
    }

    /// Whether anonymous memory may be taken, and what to take then.
    fn anon(&self, swap: Swap) -> Result<Take, Guard> {
        if (swap.free as f64) < self.swap_free.ratio() * swap.total as f64 {
            return Err(Guard::SwapFree);
        }
        if self.swap_writes.is_some_and(|most| swap.written_per_second > most) {
            return Err(Guard::SwapWrites);
        }
        match self.take {
            Take::Careful if swap.total > 0 && !swap.quick => Err(Guard::SlowSwap),
            Take::Careful => Ok(Take::All),
            take => Ok(take),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    fn bounds(take: Take) -> Bounds {
        Bounds {
            floor: 50 * M,
            swap_free: "25%".parse().unwrap(),
            swap_writes: Some(M),
            max_pressure: Some("10%".parse().unwrap()),
            take,
        }
    }

    const OWN: Own = Own { current: 100 * M, protection: 20 * M, stalled: 0.0, cache: 0 };
    const SWAP: Swap =
        Swap { total: 400 * M, free: 300 * M, written_per_second: 0, copied: 0.0, quick: true };

    #[test]
    fn the_floor_and_protection_are_never_undercut() {
        let allow = |down_to, own| bounds(Take::All).allow(down_to, own, SWAP, true);
        assert_eq!(allow(10 * M, OWN).map(|allowed| allowed.down_to), Ok(50 * M));
        assert_eq!(
            allow(10 * M, Own { protection: 70 * M, ..OWN }).map(|allowed| allowed.down_to),
            Ok(70 * M)
        );
        assert_eq!(allow(10 * M, Own { current: 50 * M, ..OWN }), Err(Guard::Floor));
        assert_eq!(allow(10 * M, Own { stalled: 0.2, ..OWN }), Err(Guard::Pressure));
    }

    #[test]
    fn anonymous_memory_is_spared_where_swap_is_scarce_busy_or_slow() {
        let take = |take, swap, can_choose| {
            bounds(take).allow(60 * M, OWN, swap, can_choose).map(|allowed| allowed.take)
        };
        assert_eq!(take(Take::Careful, SWAP, true), Ok(Take::All));
        let short = Swap { free: 90 * M, ..SWAP };
        assert_eq!(take(Take::All, short, true), Ok(Take::File));
        assert_eq!(take(Take::All, short, false), Err(Guard::SwapFree));
        assert_eq!(take(Take::Anon, short, true), Err(Guard::SwapFree));
        let busy = Swap { written_per_second: 2 * M, ..SWAP };
        assert_eq!(take(Take::Anon, busy, true), Err(Guard::SwapWrites));
        let slow = Swap { quick: false, ..SWAP };
        assert_eq!(take(Take::Careful, slow, true), Ok(Take::File));
        assert_eq!(take(Take::Careful, slow, false), Err(Guard::SlowSwap));
        let plenty = Own { cache: 80 * M, ..OWN };
        let allowed = bounds(Take::Careful).allow(60 * M, plenty, slow, false);
        assert_eq!(allowed.map(|allowed| allowed.take), Ok(Take::All));
        assert_eq!(take(Take::All, slow, false), Ok(Take::All), "as asked");
        assert_eq!(take(Take::File, short, false), Ok(Take::File));
        let weighed = Take::Weighed(Swappiness::Value(100));
        assert_eq!((take(weighed, slow, true), take(weighed, short, true)), (Ok(weighed), Ok(Take::File)));
        assert_eq!(take(weighed, Swap::default(), true), Ok(weighed));
        // No swap at all: nothing can go wrong there.
        assert_eq!(take(Take::Careful, Swap::default(), false), Ok(Take::All));
    }
}
