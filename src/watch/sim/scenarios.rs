//! Simulated worlds made for one promise each, where those of chance show it too rarely.

#![cfg(test)]

use super::plan::{CgroupPlan, KernelPlan, M, Plan, Refaults, RulePlan, Spares, Trouble, What};
use super::tests::{Run, run};

/// A quick kernel that reclaims as much as it is asked for.
const EXACT: KernelPlan = KernelPlan {
    proactive: true,
    refaults: Refaults::Restores,
    overshoot: 100,
    speed: 800,
    asynchronous: false,
    crowded: false,
    spares: Spares::Always,
};

#[test]
fn a_suggested_limit_has_room_for_bursts_that_the_headroom_takes_back() {
    let kernel = EXACT;
    let cgroup = CgroupPlan {
        limit: 2000,
        hot: 60,
        cold: 40,
        rule: RulePlan::Keep { mib: 100, pressure: true },
        ..CgroupPlan::QUIET
    };
    let burst = |n: u64| Trouble { at: n * 50_000 + 7_000, who: 0, what: What::Burst(400) };
    let troubles = (1..20).map(burst).collect();
    let run = run(&Plan { seconds: 1000, kernel, tenants: vec![None], cgroups: vec![cgroup], troubles });
    let suggested = |line: &String| {
        let (_, bytes) = line.split_once("suggested: Some(")?;
        bytes.split(')').next()?.parse::<u64>().ok()
    };
    let told: Vec<_> = run.trace.iter().filter_map(suggested).collect();
    assert!(!told.is_empty() && told.iter().all(|&bytes| bytes > 400 * M), "{told:?}");
}

/// Runs cgroups below a limit of 200 MiB for 300 s: their parent's, or the own one of each.
fn below_200_mib(refaults: Refaults, loads: &[Load], is_above: bool) -> Run {
    below_200_mib_of(KernelPlan { refaults, speed: 400, ..EXACT }, loads, is_above)
}

fn below_200_mib_of(kernel: KernelPlan, loads: &[Load], is_above: bool) -> Run {
    let cgroup = |load: &Load| CgroupPlan {
        // None, as good as.
        limit: if is_above { u64::MAX >> 20 } else { 200 },
        hot: load.hot,
        growth: load.growth,
        rule: RulePlan::Share(10),
        ..CgroupPlan::QUIET
    };
    let (tenants, cgroups) = (vec![is_above.then_some(200)], loads.iter().map(cgroup).collect());
    run(&Plan { seconds: 300, kernel, tenants, cgroups, troubles: Vec::new() })
}

/// Memory of a cgroup that is used all the time, MiB, and growth beside it, KiB per second.
struct Load {
    hot: u64,
    growth: u64,
}

const REFAULTS: [Refaults; 4] =
    [Refaults::Streams, Refaults::Restores, Refaults::Activations, Refaults::SwapIns];

#[test]
fn below_a_limit_above_tasks_reclaim_little_more_than_below_their_own() {
    let loads = [(300, 0), (190, 8 << 10), (150, 8 << 10), (250, 2 << 10), (190, 64 << 10), (250, 64 << 10)];
    for refaults in REFAULTS {
        for (hot, growth) in loads {
            let load = [Load { hot, growth }];
            let [own, above] = [false, true].map(|is_above| below_200_mib(refaults, &load, is_above));
            let [own, above] = [own, above].map(|run| (run.direct / M, run.refaulted / M));
            assert!(
                above.0 <= 2 * own.0 + 50 && above.1 <= own.1 + own.1 / 2 + 100,
                "{refaults:?}, {hot} MiB + {growth} KiB/s: {above:?} MiB below the parent's limit, {own:?}"
            );
        }
    }
}

#[test]
fn beside_a_sibling_that_grows_tasks_reclaim_no_more_than_alone() {
    for refaults in REFAULTS {
        for (hot, growth) in
            [(100, 8 << 10), (150, 64 << 10), (190, 8 << 10), (190, 64 << 10), (250, 64 << 10)]
        {
            let siblings = [Load { hot, growth: 0 }, Load { hot: 0, growth }];
            let direct = |loads: &[Load], is_above| below_200_mib(refaults, loads, is_above).direct / M;
            let (both, alone) = (direct(&siblings, true), direct(&[Load { hot, growth }], false));
            assert!(
                both <= 2 * alone + 50,
                "{refaults:?}, {hot} MiB beside {growth} KiB/s: {both} MiB, {alone} in one cgroup"
            );
        }
    }
}

#[test]
fn memory_in_use_stays_where_a_sibling_has_enough_that_is_not() {
    for (refaults, crowded) in REFAULTS.into_iter().flat_map(|refaults| [(refaults, false), (refaults, true)])
    {
        for (hot, growth) in [(100, 8 << 10), (150, 8 << 10), (100, 64 << 10), (150, 64 << 10)] {
            let kernel = KernelPlan { refaults, speed: 400, crowded, ..EXACT };
            let run = below_200_mib_of(kernel, &[Load { hot, growth: 0 }, Load { hot: 0, growth }], true);
            let back = run.refaulted / M;
            // Of a file that is read in turn nothing tells use, so that it is asked again.
            let most = if refaults == Refaults::Streams { 500 } else { 300 };
            assert!(
                back < most,
                "{refaults:?}, crowded {crowded}, {hot} MiB beside {growth} KiB/s: {back} MiB came back"
            );
        }
    }
}

/// Runs a cgroup of 176 MiB in use that grows by 20 MiB/s beside it, below a limit of 192 MiB, for
/// 300 s. Returns what its tasks reclaimed and what came back, MiB.
fn over(spares: Spares, refaults: Refaults, is_above: bool) -> (u64, u64) {
    let kernel = KernelPlan { refaults, spares, speed: 400, ..EXACT };
    let cgroup = CgroupPlan {
        limit: if is_above { u64::MAX >> 20 } else { 192 },
        hot: 176,
        growth: 20 << 10,
        rule: RulePlan::Share(10),
        ..CgroupPlan::QUIET
    };
    let tenants = vec![is_above.then_some(192)];
    let run = run(&Plan { seconds: 300, kernel, tenants, cgroups: vec![cgroup], troubles: Vec::new() });
    (run.direct / M, run.refaulted / M)
}

#[test]
fn tasks_reclaim_where_they_spare_what_requests_take() {
    // Of a file that is read in turn nothing shows use.
    for refaults in REFAULTS.into_iter().filter(|&refaults| refaults != Refaults::Streams) {
        for is_above in [false, true] {
            let (direct, back) = over(Spares::ForTasks, refaults, is_above);
            assert!(
                direct > 4000 && back < 1500,
                "{refaults:?}, {is_above}: tasks reclaimed {direct} of 6000 MiB, {back} MiB came back"
            );
        }
    }
}

#[test]
fn tasks_do_not_reclaim_where_they_spare_nothing_either() {
    for refaults in REFAULTS {
        for is_above in [false, true] {
            let (direct, back) = over(Spares::Nothing, refaults, is_above);
            assert!(
                direct < 3000,
                "{refaults:?}, {is_above}: tasks reclaimed {direct} MiB, {back} MiB came back"
            );
        }
    }
}

/// Runs cgroups that grow, each by so many MiB per second beside a limit of 200 MiB, on a crowded
/// processor.
fn crowded(cgroups: usize, growth: u64) -> Run {
    let kernel = KernelPlan { crowded: true, ..EXACT };
    let cgroup = |n| CgroupPlan {
        tenant: n,
        hot: 20,
        growth: growth << 10,
        rule: RulePlan::Keep { mib: 200, pressure: false },
        ..CgroupPlan::QUIET
    };
    let cgroups = (0..cgroups).map(cgroup).collect();
    run(&Plan { seconds: 40, kernel, tenants: vec![None; 3], cgroups, troubles: Vec::new() })
}

#[test]
fn pauses_leave_the_workers_to_those_that_wait() {
    for (cgroups, growth) in [(2, 60), (4, 100), (8, 30), (12, 60)] {
        let run = crowded(cgroups, growth);
        let pauses = run.kinds.get("paused").copied().unwrap_or(0);
        assert!(run.most <= 204, "{cgroups} cgroups of {growth} MiB/s each: up to {} MiB", run.most);
        assert!(pauses > 1000, "{cgroups} cgroups of {growth} MiB/s each: {pauses} pauses");
    }
}

#[test]
fn nobody_pauses_below_a_limit_that_a_sibling_fills() {
    let direct = |crowded| {
        let kernel = KernelPlan { crowded, ..EXACT };
        let cgroup = |cold, floor| CgroupPlan {
            cold,
            rule: RulePlan::Headroom { mib: 40, pressure: false, ancestors: true },
            floor,
            ..CgroupPlan::QUIET
        };
        let grows = |at, mib: u64| Trouble { at, who: 1, what: What::Growth(mib << 10) };
        let plan = Plan {
            seconds: 20,
            kernel,
            tenants: vec![Some(400)],
            cgroups: vec![cgroup(300, 0), cgroup(10, 4096)],
            troubles: vec![grows(10_000, 300), grows(10_750, 0)],
        };
        run(&plan).direct / M
    };
    let (alone, crowded) = (direct(false), direct(true));
    assert!(crowded <= alone + 10, "{crowded} MiB on a crowded processor, {alone} otherwise");
}

#[test]
fn memory_in_use_is_left_alone_after_a_burst_that_the_reserve_learned() {
    let cgroup = CgroupPlan {
        limit: 200,
        hot: 185,
        growth: 2 << 10,
        rule: RulePlan::Headroom { mib: 4, pressure: false, ancestors: false },
        ..CgroupPlan::QUIET
    };
    let troubles = vec![Trouble { at: 100_000, who: 0, what: What::Burst(150) }];
    let run =
        run(&Plan { seconds: 600, kernel: EXACT, tenants: vec![None], cgroups: vec![cgroup], troubles });
    // Without a controller nothing comes back, and tasks reclaim 1335 MiB.
    let (direct, back) = (run.direct / M, run.refaulted / M);
    assert!(back < 1000, "tasks reclaimed {direct} MiB, {back} MiB came back");
}

#[test]
fn what_holding_cost_before_the_workload_changed_does_not_count() {
    let refaulted = |seconds| {
        let kernel = KernelPlan { refaults: Refaults::Activations, spares: Spares::ForTasks, ..EXACT };
        let cgroup = CgroupPlan {
            limit: 200,
            hot: 250,
            growth: 2 << 10,
            rule: RulePlan::Share(10),
            ..CgroupPlan::QUIET
        };
        // From now on all that is in use fits.
        let troubles = vec![Trouble { at: 960_000, who: 0, what: What::Limit(260) }];
        let tenants = vec![None];
        run(&Plan { seconds, kernel, tenants, cgroups: vec![cgroup], troubles }).refaulted / M
    };
    // Without a controller nothing comes back, and tasks reclaim 2 MiB/s.
    let back = refaulted(1500) - refaulted(1000);
    assert!(back < 2000, "{back} MiB came back within 500 s, 40 s after the change");
}

#[test]
fn a_hold_below_another_limit_ends() {
    let kernel = KernelPlan { refaults: Refaults::SwapIns, proactive: false, speed: 400, ..EXACT };
    let cgroup = CgroupPlan {
        limit: 200,
        hot: 195,
        growth: 2 << 10,
        rule: RulePlan::Headroom { mib: 20, pressure: false, ancestors: false },
        ..CgroupPlan::QUIET
    };
    // Amid a hold: all has room from now on.
    let troubles = vec![Trouble { at: 620_000, who: 0, what: What::Limit(300) }];
    let run = run(&Plan { seconds: 1100, kernel, tenants: vec![None], cgroups: vec![cgroup], troubles });
    assert!(run.violations.is_empty(), "{:#?}", run.violations);
}

#[test]
fn a_hold_says_what_share_came_back() {
    let kernel = KernelPlan { spares: Spares::ForTasks, speed: 400, ..EXACT };
    let cgroup =
        CgroupPlan { limit: 192, hot: 176, growth: 20 << 10, rule: RulePlan::Share(10), ..CgroupPlan::QUIET };
    let run =
        run(&Plan { seconds: 300, kernel, tenants: vec![None], cgroups: vec![cgroup], troubles: vec![] });
    assert!(run.trace.iter().any(|line| line.contains("LeftToTasks")), "it is held");
    let nothing: Vec<_> = run.trace.iter().filter(|line| line.contains("Refaults(0.0)")).collect();
    assert!(nothing.is_empty(), "{nothing:#?}");
}
