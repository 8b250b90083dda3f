//! Plans of simulated worlds, generated from seeds and shrunk where they fail.

use proptest::prelude::*;
use proptest::sample::select;

use super::shapes;

pub(super) const M: u64 = 1 << 20;

/// A world: its cgroups, and the troubles that befall them.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Simulated seconds.
    pub seconds: u64,
    pub kernel: KernelPlan,
    /// Limits of the tenants' top-level cgroups, MiB.
    pub tenants: Vec<Option<u64>>,
    pub cgroups: Vec<CgroupPlan>,
    pub troubles: Vec<Trouble>,
}

/// Ways of a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct KernelPlan {
    /// True if it counts proactive reclaim for itself (since 6.15).
    pub proactive: bool,
    /// Keys in which refaults are counted.
    pub refaults: Refaults,
    /// Percent that are reclaimed of each request: 100, or more before 6.9.
    pub overshoot: u64,
    /// Speed of reclaim, MiB per second.
    pub speed: u64,
    /// True if anonymous memory leaves asynchronously.
    pub asynchronous: bool,
    /// True if others want the processors: each write waits for one for half of its time.
    pub crowded: bool,
    pub spares: Spares,
}

/// Reclaim that takes memory that isn't in use first, and else both in proportion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spares {
    Always,
    /// Only if a task reclaims for itself, a few pages at a time.
    ForTasks,
    Nothing,
}

impl KernelPlan {
    /// Returns whether tasks stall for what comes back.
    pub(super) fn stalls(&self) -> bool {
        self.refaults != Refaults::Streams
    }
}

/// Keys in which a kernel counts refaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refaults {
    Restores,
    Activations,
    SwapIns,
    /// Neither activated nor restored, as of a file that is read in turn. No task stalls for that.
    Streams,
}

/// A cgroup, what runs in it, and what is wanted for it. Amounts are MiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct CgroupPlan {
    pub tenant: usize,
    /// Second of its creation.
    pub from: u64,
    pub limit: u64,
    pub hot: u64,
    pub cold: u64,
    /// Share of the memory that is anonymous, percent.
    pub anon: u64,
    /// Growth per second, KiB.
    pub growth: u64,
    pub low: u64,
    pub rule: RulePlan,
    pub floor: u64,
}

impl CgroupPlan {
    /// A cgroup without memory, far from its limit, in which nothing happens.
    pub(super) const QUIET: Self = Self {
        tenant: 0,
        from: 0,
        limit: 4096,
        hot: 0,
        cold: 0,
        anon: 0,
        growth: 0,
        low: 0,
        rule: RulePlan::Pressure,
        floor: 0,
    };
}

/// What is wanted for a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RulePlan {
    Headroom {
        mib: u64,
        pressure: bool,
        ancestors: bool,
    },
    Keep {
        mib: u64,
        pressure: bool,
    },
    /// Headroom in percent of the limit, the cgroup's own or one above.
    Share(u64),
    Pressure,
}

/// A trouble, at a time in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    pub at: u64,
    /// Index of a cgroup, modulo their number.
    pub who: usize,
    pub what: What,
}

/// Kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Writes that begin within a time hang for a time, in milliseconds.
    Hang { within: u64, time: u64 },
    /// Writes to all cgroups of the tenant hang likewise.
    HangAll { within: u64, time: u64 },
    /// The limit is set, MiB.
    Limit(u64),
    /// `memory.high` is 0 for a second.
    Closed,
    /// The protection is set, MiB.
    Protect(u64),
    /// Files can't be read for a time in milliseconds.
    Unreadable { time: u64, errno: Error },
    /// Writes fail for a time in milliseconds.
    Unwritable { time: u64, errno: Error },
    /// Pressure can't be read for a time in milliseconds.
    NoPressure(u64),
    /// The application frees memory, MiB.
    Free(u64),
    /// The application allocates at once, MiB.
    Burst(u64),
    /// The application grows by so many KiB per second from now on.
    Growth(u64),
    /// Writes succeed and do nothing for a time in milliseconds.
    Lie(u64),
    /// Another process holds the lock for a time in milliseconds.
    Lock { time: u64, honoured: bool },
    /// The cgroup is removed, at the end of a write if it has one in progress.
    Remove,
    /// No thread can be started for a time in milliseconds.
    NoThreads(u64),
    /// The rules are read again; every other cgroup's rule goes if true.
    Reload(bool),
    /// The watch is to end.
    Stop,
}

/// Errors of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Error {
    Files,
    Access,
    Memory,
    Io,
}

/// Returns a strategy for plans.
pub(super) fn plans() -> impl Strategy<Value = Plan> {
    prop_oneof![16 => plans_of_chance(), 1 => shapes::crowds(), 1 => shapes::slow_siblings()]
}

fn plans_of_chance() -> impl Strategy<Value = Plan> {
    let kernel = (
        any::<bool>(),
        select(vec![Refaults::Restores, Refaults::Activations, Refaults::SwapIns]),
        select(vec![100, 100, 180]),
        select(vec![50, 200, 800]),
        any::<bool>(),
    )
        .prop_map(|(proactive, refaults, overshoot, speed, asynchronous)| KernelPlan {
            proactive,
            refaults,
            // Kernels from 6.9 on are exact.
            overshoot: if proactive { 100 } else { overshoot },
            speed,
            asynchronous,
            crowded: false,
            spares: Spares::Always,
        });
    let tenants = prop::collection::vec(prop::option::weighted(0.4, 64u64..512), 1..4);
    let cgroups = prop::collection::vec(cgroups(), 1..12);
    let troubles = prop::collection::vec(troubles(), 0..8);
    (10u64..40, kernel, tenants, cgroups, troubles).prop_map(
        |(seconds, kernel, tenants, cgroups, troubles)| Plan { seconds, kernel, tenants, cgroups, troubles },
    )
}

fn cgroups() -> impl Strategy<Value = CgroupPlan> {
    let memory = (32u64..512, 0u64..60, 0u64..100, 0u64..100);
    let growth = prop_oneof![3 => Just(0u64), 3 => 64u64..8192, 1 => 8192u64..65_536];
    let rule =
        prop_oneof![
            (2u64..64, any::<bool>(), any::<bool>())
                .prop_map(|(mib, pressure, ancestors)| RulePlan::Headroom { mib, pressure, ancestors }),
            (16u64..400, any::<bool>()).prop_map(|(mib, pressure)| RulePlan::Keep { mib, pressure }),
            Just(RulePlan::Pressure),
        ];
    let from = prop_oneof![3 => Just(0u64), 1 => 1u64..20];
    let least = prop_oneof![3 => Just((0u64, 0u64)), 1 => (0u64..32, 0u64..32)];
    (0usize..3, from, memory, growth, least, rule).prop_map(
        |(tenant, from, (limit, hot, cold, anon), growth, (low, floor), rule)| CgroupPlan {
            tenant,
            from,
            limit,
            hot: hot.min(limit / 2),
            cold: cold.min(limit / 3),
            anon,
            growth,
            low,
            rule,
            floor,
        },
    )
}

fn troubles() -> impl Strategy<Value = Trouble> {
    let errno = || select(vec![Error::Files, Error::Access, Error::Memory, Error::Io]);
    let what = prop_oneof![
        3 => (500u64..8000, 300u64..18_000).prop_map(|(within, time)| What::Hang { within, time }),
        2 => (500u64..8000, 300u64..18_000).prop_map(|(within, time)| What::HangAll { within, time }),
        1 => (8u64..300).prop_map(What::Limit),
        1 => Just(What::Closed),
        1 => (0u64..100).prop_map(What::Protect),
        1 => (50u64..6000, errno()).prop_map(|(time, errno)| What::Unreadable { time, errno }),
        1 => (50u64..6000, errno()).prop_map(|(time, errno)| What::Unwritable { time, errno }),
        1 => (50u64..6000).prop_map(What::NoPressure),
        1 => (1u64..100).prop_map(What::Free),
        1 => (1u64..60).prop_map(What::Burst),
        1 => (0u64..16_384).prop_map(What::Growth),
        1 => (500u64..8000).prop_map(What::Lie),
        1 => (100u64..8000, any::<bool>()).prop_map(|(time, honoured)| What::Lock { time, honoured }),
        1 => Just(What::Remove),
        1 => (100u64..4000).prop_map(What::NoThreads),
        1 => any::<bool>().prop_map(What::Reload),
        1 => Just(What::Stop),
    ];
    (1000u64..38_000, 0usize..12, what).prop_map(|(at, who, what)| Trouble { at, who, what })
}
