//! Bounds on every policy: checks of floor, protection, pressure and swap that precede each
//! reclaim. Pure functions of samples.

use crate::kind::Kind;
use crate::size::Percent;

/// Page cache is plentiful from this multiple of the missing bytes on.
const PLENTY_FACTOR: u64 = 2;

/// Minimum amount that can be reclaimed, bytes: a page.
const MIN_ROOM: u64 = 4096;

/// Bytes that the kernel may reclaim beyond the request: a large folio is reclaimed as a whole.
/// Floors are kept with this much distance.
const OVERSHOOT: u64 = 2 << 20;

/// Bounds within which a policy may act.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Minimum usage, bytes.
    pub floor: u64,
    /// Share of the host's swap that must be free for anonymous memory to be reclaimed.
    pub swap_free: Percent,
    /// Maximum share of the time for which the cgroup may be stalled.
    pub max_pressure: Option<Percent>,
    /// Kind of memory to reclaim. `None` means page cache, and anonymous memory as well where swap
    /// is known to be fast: zram, zswap, no rotating disk.
    pub kind: Option<Kind>,
}

/// Speed of swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SwapSpeed {
    /// Memory, or disks that don't rotate.
    Fast,
    /// A rotating disk among them.
    Slow,
    /// Unknown, and so not known to be fast.
    #[default]
    Unknown,
}

/// State of the host's swap. Amounts are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct SwapState {
    /// Size of all swap.
    pub total: u64,
    /// Free swap.
    pub free: u64,
    /// Bytes that may be swapped out now under the limit on writes per second, for the whole host;
    /// `None` without such a limit, or where no device wears out.
    pub writable: Option<u64>,
    /// Memory taken by a swapped-out byte, as a share of it: in zram. An average over the host.
    /// `None` if some of the swap can't be examined.
    pub copied: Option<f64>,
    /// Speed of the slowest area.
    pub speed: SwapSpeed,
    /// True if some of the swap may be a device with slow writes: neither zram, nor behind zswap.
    pub waits: bool,
    /// True if writes are limited, but can't be counted.
    pub is_uncounted: bool,
}

/// State of the cgroup. Amounts are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CgroupState {
    /// `memory.current`.
    pub current: u64,
    /// The larger of `memory.min` and `memory.low`.
    pub protection: u64,
    /// Share of the last second or so for which it was stalled.
    pub stalled: f64,
}

/// Need of reclaim for the headroom: none of `--pressure` and `--keep`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    /// Bytes by which the free memory falls short of what may arrive before reclaim can react.
    pub lacks: u64,
    /// True if the limit was met lately.
    pub was_met: bool,
}

/// Reason for which a policy was held back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Guard {
    /// Usage is at or below the floor, or the cgroup's own protection.
    Floor,
    /// The cgroup is stalled more than allowed.
    Pressure,
    /// Only anonymous memory would be reclaimed, and free swap is short.
    SwapFree,
    /// Only anonymous memory would be reclaimed, and too much is written to swap already.
    SwapWrites,
    /// The host's swap is slow, or its speed is unknown, and the kernel has no way to spare
    /// anonymous memory.
    SlowSwap {
        /// True if the speed is known.
        is_known: bool,
    },
    /// Reclaimed memory refaults: the refaulted share.
    Refaults(f64),
    /// The same of an application that meets its limit: a trial leaves the reclaim to its tasks.
    LeftToTasks,
    /// Nothing more could be reclaimed.
    Exhausted,
    /// The CPU budget is used up.
    Cpu,
    /// The cgroup started only recently.
    Grace,
    /// Another process holds the lock on the cgroup.
    Lock(Option<u32>),
    /// The headroom is all of a limit, or more: the cgroup's own, or an ancestor's.
    NoRoom,
    /// A level of the hierarchy that a killer may monitor is under memory pressure: its `full`
    /// avg10, hundredths of a percent.
    Above(u16),
    /// The kernel's own reclaim is at work on the whole host.
    Kswapd,
}

impl Guard {
    /// Returns its name in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Pressure => "pressure",
            Self::SwapFree => "swap_free",
            Self::SwapWrites => "swap_writes",
            Self::SlowSwap { .. } => "slow_swap",
            Self::Refaults(_) | Self::LeftToTasks => "refaults",
            Self::Exhausted => "exhausted",
            Self::Cpu => "cpu",
            Self::Grace => "grace",
            Self::Lock(_) => "lock",
            Self::NoRoom => "no_room",
            Self::Above(_) => "above",
            Self::Kswapd => "kswapd",
        }
    }
}

/// Memory that stays in the cgroup although it may be idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spared {
    /// Page cache.
    File,
    /// Anonymous memory and tmpfs.
    Anon,
    /// Memory of any kind, below the usage at which a guard holds.
    All,
}

/// Reclaim that the bounds allow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Allowed {
    /// Target usage, bytes.
    pub down_to: u64,
    /// Maximum bytes to reclaim, however much the usage grows until the action begins.
    pub most: u64,
    /// Kind of memory to reclaim.
    pub kind: Kind,
    /// Reason for which anonymous memory is spared, if it is.
    pub spared_by: Option<Guard>,
    /// True if a write may have to wait for a device, and must end then.
    pub waits: bool,
}

impl Allowed {
    /// Returns it with the kind that a press asks for, where that takes anonymous memory first and the
    /// kernel can't take it alone.
    pub(crate) fn asking(self, pressed: Kind) -> Self {
        match self.kind {
            Kind::Anon if pressed.prefers_anon() => Self { kind: pressed, ..self },
            _ => self,
        }
    }
}

impl Bounds {
    /// Returns the part of a reclaim down to a usage of `down_to` that is allowed. `can_choose`
    /// says whether the kernel can reclaim page cache alone; `has_cache` returns whether so many bytes
    /// of page cache could be evicted, and is called only if that matters.
    ///
    /// Swap that isn't known to be fast gives way to a `need`, since the application would swap in
    /// its own time: where page cache can't be chosen, or where there isn't enough of it.
    ///
    /// # Errors
    /// The reason for which nothing is allowed.
    pub(crate) fn allow(
        &self,
        down_to: u64,
        own: CgroupState,
        swap: SwapState,
        need: Need,
        can_choose: bool,
        has_cache: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Allowed, Guard> {
        let down_to = match self.floor.max(own.protection) {
            0 => down_to,
            least => down_to.max(least.saturating_add(OVERSHOOT)),
        };
        if own.current <= down_to {
            return Err(Guard::Floor);
        }
        if self.max_pressure.is_some_and(|most| own.stalled > most.ratio()) {
            return Err(Guard::Pressure);
        }
        let missing = own.current - down_to;
        let mut plenty = || has_cache(PLENTY_FACTOR * missing);
        let waits = swap.waits && swap.total > 0;
        let all = |kind| {
            Ok(Allowed { down_to, most: u64::MAX, kind, spared_by: None, waits: waits && kind != Kind::File })
        };
        let spared =
            |kind, guard, waits| Ok(Allowed { down_to, most: u64::MAX, kind, spared_by: Some(guard), waits });
        let needed = need.lacks.min(missing);
        match self.anon(swap) {
            _ if self.kind == Some(Kind::File) => all(Kind::File),
            // Without swap no anonymous memory is reclaimed, whatever the request.
            _ if swap.total == 0 && self.kind.is_none() => all(Kind::All),
            _ if swap.total == 0 && self.kind != Some(Kind::Anon) => all(self.kind.unwrap_or_default()),
            Ok((kind, room)) if room >= missing => all(kind),
            // Where page cache suffices, only page cache is reclaimed; otherwise in small steps.
            Ok(_) if can_choose && self.kind != Some(Kind::Anon) && plenty() => all(Kind::File),
            Ok((kind, room)) => {
                Ok(Allowed { down_to: own.current - room, most: room, kind, spared_by: None, waits })
            }
            Err(guard) if can_choose && self.kind != Some(Kind::Anon) => {
                match self.give_way(guard, swap, if need.was_met { needed } else { 0 }) {
                    Some(most) if !has_cache(needed) => {
                        let down_to = own.current - most;
                        Ok(Allowed { down_to, most, kind: Kind::All, spared_by: Some(guard), waits })
                    }
                    _ => spared(Kind::File, guard, false),
                }
            }
            // The kernel can't be restricted to page cache, but prefers it where there is plenty.
            Err(guard) if self.kind.is_none() && plenty() => spared(Kind::All, guard, waits),
            Err(guard) => {
                let most = self.give_way(guard, swap, needed).ok_or(guard)?;
                let down_to = own.current - most;
                Ok(Allowed { down_to, most, kind: Kind::All, spared_by: Some(guard), waits })
            }
        }
    }

    /// Returns the memory that stays although it may be idle, in this state of swap; `is_at_floor`
    /// if the floor or the cgroup's protection holds.
    #[must_use]
    pub(crate) fn spared(&self, swap: SwapState, is_at_floor: bool) -> Option<Spared> {
        match (self.kind, self.anon(swap)) {
            _ if is_at_floor => Some(Spared::All),
            (Some(Kind::Anon), Ok(_)) => Some(Spared::File),
            (Some(Kind::Anon), Err(_)) => Some(Spared::All),
            (Some(Kind::File), _) | (_, Err(_)) => Some(Spared::Anon),
            (_, Ok(_)) => None,
        }
    }

    /// Returns the bytes to reclaim of any kind, though a guard would spare anonymous memory.
    fn give_way(&self, guard: Guard, swap: SwapState, needed: u64) -> Option<u64> {
        let is_default = matches!(guard, Guard::SlowSwap { .. });
        self.room(swap).ok().map(|room| room.min(needed)).filter(|&most| is_default && most >= MIN_ROOM)
    }

    /// Returns the kind to reclaim and the maximum bytes at a time, if anonymous memory is allowed.
    fn anon(&self, swap: SwapState) -> Result<(Kind, u64), Guard> {
        if self.kind.is_none() && swap.total > 0 && swap.speed != SwapSpeed::Fast {
            return Err(Guard::SlowSwap { is_known: swap.speed == SwapSpeed::Slow });
        }
        Ok((self.kind.unwrap_or_default(), self.room(swap)?))
    }

    /// Returns the maximum bytes that may be swapped out at a time.
    fn room(&self, swap: SwapState) -> Result<u64, Guard> {
        let room = swap.free.saturating_sub((self.swap_free.ratio() * swap.total as f64) as u64);
        if room < MIN_ROOM {
            return Err(Guard::SwapFree);
        }
        let writable = swap.writable.unwrap_or(u64::MAX);
        if writable < MIN_ROOM {
            return Err(Guard::SwapWrites);
        }
        Ok(room.min(writable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Swappiness;

    const M: u64 = 1 << 20;

    fn bounds(kind: Option<Kind>) -> Bounds {
        Bounds {
            floor: 50 * M,
            swap_free: "25%".parse().unwrap(),
            max_pressure: Some("10%".parse().unwrap()),
            kind,
        }
    }

    const OWN: CgroupState = CgroupState { current: 100 * M, protection: 20 * M, stalled: 0.0 };
    const SWAP: SwapState = SwapState {
        total: 400 * M,
        free: 300 * M,
        writable: Some(50 * M),
        copied: Some(0.0),
        speed: SwapSpeed::Fast,
        waits: true,
        is_uncounted: false,
    };

    #[test]
    fn the_floor_and_protection_are_never_undercut() {
        let allow = |down_to, own| {
            bounds(Some(Kind::All)).allow(down_to, own, SWAP, Need::default(), true, &mut |_| false)
        };
        assert_eq!(allow(10 * M, OWN).map(|allowed| allowed.down_to), Ok(52 * M));
        assert_eq!(
            allow(10 * M, CgroupState { protection: 70 * M, ..OWN }).map(|allowed| allowed.down_to),
            Ok(72 * M)
        );
        assert_eq!(allow(60 * M, OWN).map(|allowed| allowed.down_to), Ok(60 * M));
        assert_eq!(allow(10 * M, CgroupState { current: 52 * M, ..OWN }), Err(Guard::Floor));
        let unprotected = Bounds { floor: 0, ..bounds(Some(Kind::All)) };
        let own = CgroupState { protection: 0, ..OWN };
        assert_eq!(
            unprotected
                .allow(51 * M, own, SWAP, Need::default(), true, &mut |_| false)
                .map(|allowed| allowed.down_to),
            Ok(51 * M)
        );
        assert_eq!(allow(10 * M, CgroupState { stalled: 0.2, ..OWN }), Err(Guard::Pressure));
    }

    #[test]
    fn anonymous_memory_is_spared_where_swap_is_scarce_busy_or_slow() {
        let kind_of = |kind, swap, can_choose| {
            bounds(kind)
                .allow(60 * M, OWN, swap, Need::default(), can_choose, &mut |_| false)
                .map(|allowed| allowed.kind)
        };
        assert_eq!(kind_of(None, SWAP, true), Ok(Kind::All));
        let short = SwapState { free: 90 * M, ..SWAP };
        assert_eq!(kind_of(Some(Kind::All), short, true), Ok(Kind::File));
        assert_eq!(kind_of(Some(Kind::All), short, false), Err(Guard::SwapFree));
        assert_eq!(kind_of(Some(Kind::Anon), short, true), Err(Guard::SwapFree));
        let busy = SwapState { writable: Some(0), ..SWAP };
        assert_eq!(kind_of(Some(Kind::Anon), busy, true), Err(Guard::SwapWrites));
        let slow = SwapState { speed: SwapSpeed::Slow, ..SWAP };
        let silent = SwapState { speed: SwapSpeed::Unknown, ..SWAP };
        assert_eq!(kind_of(None, slow, true), Ok(Kind::File));
        assert_eq!(kind_of(None, slow, false), Err(Guard::SlowSwap { is_known: true }));
        assert_eq!(kind_of(None, silent, true), Ok(Kind::File), "unknown is not fast");
        assert_eq!(kind_of(None, silent, false), Err(Guard::SlowSwap { is_known: false }));
        let allowed =
            bounds(None).allow(60 * M, OWN, slow, Need::default(), false, &mut |bytes| 80 * M >= bytes);
        assert_eq!(allowed.map(|allowed| allowed.kind), Ok(Kind::All));
        let why = |swap| {
            bounds(None)
                .allow(60 * M, OWN, swap, Need::default(), true, &mut |_| false)
                .map(|allowed| allowed.spared_by)
        };
        assert_eq!(
            [SWAP, slow, short, busy].map(why),
            [None, Some(Guard::SlowSwap { is_known: true }), Some(Guard::SwapFree), Some(Guard::SwapWrites)]
                .map(Ok)
        );
        assert_eq!(kind_of(Some(Kind::All), slow, false), Ok(Kind::All), "as asked");
        assert_eq!(kind_of(Some(Kind::File), short, false), Ok(Kind::File));
        let weighed = Kind::Weighed(Swappiness::Value(100));
        assert_eq!(
            (kind_of(Some(weighed), slow, true), kind_of(Some(weighed), short, true)),
            (Ok(weighed), Ok(Kind::File))
        );
        assert_eq!(kind_of(Some(weighed), SwapState::default(), true), Ok(weighed));
        // Without any swap: nothing can go wrong there.
        assert_eq!(kind_of(None, SwapState::default(), false), Ok(Kind::All));
    }

    #[test]
    fn a_press_of_anonymous_memory_asks_in_the_words_that_the_kernel_has() {
        let allowed = |kind: Kind, swap| {
            bounds(Some(kind)).allow(60 * M, OWN, swap, Need::default(), true, &mut |bytes| 80 * M >= bytes)
        };
        let asked = |kind, swap, pressed| allowed(kind, swap).map(|allowed| allowed.asking(pressed).kind);
        assert_eq!(asked(Kind::Anon, SWAP, Kind::Anon), Ok(Kind::Anon));
        assert_eq!(asked(Kind::Anon, SWAP, Kind::MOSTLY_ANON), Ok(Kind::MOSTLY_ANON));
        assert_eq!(asked(Kind::Anon, SWAP, Kind::All), Ok(Kind::Anon), "the rule's own kind");
        let short = SwapState { free: 90 * M, ..SWAP };
        assert_eq!(asked(Kind::All, short, Kind::MOSTLY_ANON), Ok(Kind::File), "a guard's choice");
    }

    #[test]
    fn what_may_be_idle_and_stays_is_known() {
        let of = |kind, swap| bounds(kind).spared(swap, false);
        assert_eq!((of(None, SWAP), of(Some(Kind::All), SWAP)), (None, None));
        let slow = SwapState { speed: SwapSpeed::Slow, ..SWAP };
        let unknown = SwapState { speed: SwapSpeed::Unknown, ..SWAP };
        let busy = SwapState { writable: Some(0), ..SWAP };
        let short = SwapState { free: 90 * M, ..SWAP };
        for swap in [slow, unknown, busy, short, SwapState::default()] {
            assert_eq!(of(None, swap), Some(Spared::Anon), "{swap:?}");
            assert_eq!(of(Some(Kind::File), swap), Some(Spared::Anon), "{swap:?}");
        }
        assert_eq!(of(Some(Kind::All), slow), None, "as asked");
        assert_eq!(of(Some(Kind::File), SWAP), Some(Spared::Anon));
        let anon = [SWAP, short].map(|swap| of(Some(Kind::Anon), swap));
        assert_eq!(anon, [Some(Spared::File), Some(Spared::All)]);
        assert_eq!(bounds(None).spared(SWAP, true), Some(Spared::All));
    }

    #[test]
    fn swap_outs_are_bounded_at_a_time() {
        let allow = |kind, swap, cache| {
            bounds(kind).allow(60 * M, OWN, swap, Need::default(), true, &mut |bytes| cache >= bytes)
        };
        let down_to =
            |kind, swap, cache| allow(kind, swap, cache).map(|allowed| (allowed.down_to, allowed.kind));
        let little = SwapState { writable: Some(M), ..SWAP };
        assert_eq!(down_to(Some(Kind::All), little, 0), Ok((99 * M, Kind::All)));
        assert_eq!(down_to(Some(Kind::All), little, 80 * M), Ok((60 * M, Kind::File)), "page cache will do");
        assert_eq!(down_to(Some(Kind::Anon), little, 80 * M), Ok((99 * M, Kind::Anon)));
        let nearly_full = SwapState { free: 110 * M, ..SWAP };
        assert_eq!(down_to(Some(Kind::All), nearly_full, 0), Ok((90 * M, Kind::All)), "a quarter stays free");
        let unbounded = SwapState { writable: None, ..SWAP };
        assert_eq!(down_to(Some(Kind::All), unbounded, 0), Ok((60 * M, Kind::All)));
    }

    #[test]
    fn slow_swap_gives_way_to_a_need() {
        let slow = SwapState { speed: SwapSpeed::Slow, ..SWAP };
        let allow = |kind, swap, (lacks, was_met), can_choose, cache| {
            let need = Need { lacks: lacks * M, was_met };
            let allowed =
                bounds(kind).allow(60 * M, OWN, swap, need, can_choose, &mut |bytes| cache * M >= bytes);
            allowed.map(|allowed| (allowed.kind, allowed.most))
        };
        let file = Ok((Kind::File, u64::MAX));
        assert_eq!(allow(None, slow, (10, true), true, 20), file, "page cache first");
        assert_eq!(allow(None, slow, (10, false), true, 5), file, "the limit isn't met");
        assert_eq!(allow(None, slow, (10, true), true, 5), Ok((Kind::All, 10 * M)));
        assert_eq!(allow(None, slow, (10, false), false, 20), Ok((Kind::All, 10 * M)));
        assert_eq!(allow(None, slow, (90, false), false, 20), Ok((Kind::All, 40 * M)), "what is missing");
        let short = SwapState { free: 90 * M, ..slow };
        assert_eq!(allow(None, short, (10, true), false, 20), Err(Guard::SlowSwap { is_known: true }));
        assert_eq!(allow(Some(Kind::All), short, (10, true), false, 20), Err(Guard::SwapFree), "as given");
    }
}
