//! Worlds of a shape in which something shows that is rare in worlds of chance.

use proptest::prelude::*;
use proptest::sample::select;

use super::plan::{CgroupPlan, KernelPlan, Plan, Refaults, RulePlan, Spares, Trouble, What};

/// Returns a strategy for worlds in which one tenant's many cgroups have more to give than the
/// workers can take at a time, beside another tenant's single cgroup, whose headroom is filled
/// within a quarter of a second or two.
pub(super) fn crowds() -> impl Strategy<Value = Plan> {
    let crowd = (8usize..30, 100u64..170, 16u64..64);
    let single = (4u64..12, 2048u64..4096);
    (kernels(), crowd, single).prop_map(|(kernel, (count, cold, keep), (mib, growth))| {
        let busy = CgroupPlan {
            limit: 3 * cold,
            cold,
            growth: 16_384,
            rule: RulePlan::Keep { mib: keep, pressure: false },
            ..CgroupPlan::QUIET
        };
        let single = CgroupPlan {
            limit: 100,
            cold: 70,
            growth: growth * mib,
            rule: RulePlan::Headroom { mib, pressure: false, ancestors: false },
            tenant: 1,
            ..CgroupPlan::QUIET
        };
        // Reclaim keeps up with that.
        let kernel = KernelPlan { speed: kernel.speed.max(mib * 12), ..kernel };
        let cgroups = std::iter::once(single).chain(vec![busy; count]).collect();
        Plan { seconds: 30, kernel, tenants: vec![None, None], cgroups, troubles: Vec::new() }
    })
}

/// Returns a strategy for worlds in which a write to one of several cgroups below a common limit
/// hangs, while the others can give all that is missing.
pub(super) fn slow_siblings() -> impl Strategy<Value = Plan> {
    let hang = (1000u64..12_000, 5000u64..18_000);
    (kernels(), 2usize..6, 8u64..24, 512u64..1500, hang).prop_map(
        |(kernel, count, mib, growth, (at, time))| {
            let one = CgroupPlan {
                limit: 4096,
                cold: 6 * mib,
                growth: growth / count as u64,
                rule: RulePlan::Headroom { mib, pressure: false, ancestors: true },
                ..CgroupPlan::QUIET
            };
            let tenants = vec![Some(6 * mib * count as u64 + 1)];
            let what = What::Hang { within: 8000, time };
            let troubles = vec![Trouble { at, who: 0, what }];
            Plan { seconds: 36, kernel, tenants, cgroups: vec![one; count], troubles }
        },
    )
}

/// Returns a strategy for kernels without surprises, on which reclaim takes its time.
fn kernels() -> impl Strategy<Value = KernelPlan> {
    let refaults = select(vec![Refaults::Restores, Refaults::Activations, Refaults::SwapIns]);
    (any::<bool>(), refaults, 50u64..200).prop_map(|(proactive, refaults, speed)| KernelPlan {
        proactive,
        refaults,
        overshoot: 100,
        speed,
        asynchronous: false,
        crowded: false,
        spares: Spares::Always,
    })
}
