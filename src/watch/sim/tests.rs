//! Runs of simulated worlds.
//!
//! `make test` runs a few thousand. `make sim FROM=A TO=B` runs a range of seeds in a release build:
//! it prints how often each kind of event occurred, and the smallest plan for each failure.

#![cfg(test)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::check::{Checks, WORKERS};
use super::leaf::Sim;
use super::plan::{CgroupPlan, M, Plan, RulePlan, plans};
use super::system::{Shared, SimSystem, path_of};
use super::world::{BEGIN, World};
use crate::size::Amount;
use crate::watch::ancestors::Ancestors;
use crate::watch::config::rule::{Rule, RuleSpec};
use crate::watch::control;
use crate::watch::event::EventKind;
use crate::watch::options::{Reload, RuledCgroup, WatchOptions};
use crate::watch::rejected::Rejected;

/// Seeds of worlds that failed once.
const CASES: [u64; 4] = [21_252, 106_610, 133_142, 805_613];

/// Result of a run.
pub(super) struct Run {
    pub violations: Vec<String>,
    pub trace: Vec<String>,
    pub kinds: BTreeMap<&'static str, u64>,
    /// Bytes that tasks reclaimed.
    pub direct: u64,
    /// Largest usage of a cgroup at the end.
    pub most: u64,
    /// Bytes that were reclaimed and came back.
    pub refaulted: u64,
}

fn rule_of(plan: &CgroupPlan) -> Option<Rc<Rule>> {
    let tenth = || "0.1%".parse().ok();
    let (headroom, keep, pressure, ancestors) = match plan.rule {
        RulePlan::Headroom { mib, pressure, ancestors } => {
            (Some(Amount::Bytes(mib * M)), None, pressure.then(tenth).flatten(), ancestors)
        }
        RulePlan::Keep { mib, pressure } => (None, Some(mib * M), pressure.then(tenth).flatten(), false),
        RulePlan::Pressure => (None, None, tenth(), false),
        RulePlan::Share(percent) => (format!("{percent}%").parse().ok(), None, None, true),
    };
    let floor = plan.floor * M;
    RuleSpec { headroom, keep, pressure, floor, ancestors, ..RuleSpec::default() }.rule().ok().map(Rc::new)
}

/// Returns the cgroups that exist now, with their rules.
fn found(world: &World, keeps: impl Fn(usize) -> bool) -> Vec<RuledCgroup> {
    let alive = world.ids.iter().enumerate().filter_map(|(index, id)| {
        let id = (*id)?;
        let sim = world.sims.get(&id).filter(|sim| sim.alive && keeps(index))?;
        let rule = rule_of(&world.plan.cgroups[index])?;
        Some(RuledCgroup { located: Arc::new(path_of(id, sim.parent)), rule })
    });
    alive.collect()
}

/// Runs the loop in the world of a plan.
pub(super) fn run(plan: &Plan) -> Run {
    let shared = Rc::new(RefCell::new(Shared { world: World::new(plan), checks: Checks::default() }));
    let dropped = Rc::new(RefCell::new(false));
    let keeps = |index: usize| !*dropped.borrow() || index.is_multiple_of(2);
    let mut select = |_: bool, known: &dyn Fn(u64) -> bool| {
        let all = found(&shared.borrow().world, keeps);
        all.into_iter().filter(|ruled| !known(ruled.located.id)).collect()
    };
    let mut reload = || {
        let drops = shared.borrow_mut().world.reload.take()?;
        *dropped.borrow_mut() = drops;
        Some(Reload {
            all: found(&shared.borrow().world, keeps),
            cpu: None,
            swap_writes: None,
            rules: Vec::new(),
        })
    };
    let stop = || {
        let shared = shared.borrow();
        shared.world.stop_at.is_some_and(|at| at <= shared.world.now)
    };
    let mut emit = |event: crate::watch::event::Event<'_>| {
        let mut shared = shared.borrow_mut();
        let Shared { world, checks } = &mut *shared;
        if event.what == EventKind::Gone {
            checks.gone(world, event.cgroup);
        }
        if let EventKind::Hold { guard, .. } = &event.what {
            world.count(guard.word());
        }
        checks.event(world, &event);
    };
    let options = WatchOptions {
        duration: Some(Duration::from_secs(plan.seconds)),
        each_action: true,
        follows: true,
        workers: WORKERS,
        select: Some(&mut select),
        reload: Some(&mut reload),
        ..WatchOptions::new(&stop, &mut emit)
    };
    let ended = control::run(
        SimSystem::new(Rc::clone(&shared)),
        Vec::new(),
        Ancestors::default(),
        Rejected::default(),
        options,
    );
    let mut shared = shared.borrow_mut();
    let Shared { world, checks } = &mut *shared;
    checks.ended(world, &ended, plan);
    Run {
        violations: std::mem::take(&mut checks.violations),
        trace: std::mem::take(&mut checks.trace),
        kinds: std::mem::take(&mut world.kinds),
        most: world.sims.values().map(Sim::usage).max().unwrap_or(0) / M,
        refaulted: world.sims.values().map(|sim| sim.counters.refaulted).sum(),
        direct: world.sims.values().map(|sim| sim.counters.direct).sum(),
    }
}

/// Returns the plan of a seed.
fn planned(seed: u64) -> Box<dyn ValueTree<Value = Plan>> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    // Not drawn: the seeds of worlds that failed once keep their worlds.
    let crowded = seed.is_multiple_of(7) && !CASES.contains(&seed);
    let plans = plans().prop_map(move |mut plan| {
        plan.kernel.crowded = crowded;
        plan
    });
    Box::new(plans.new_tree(&mut runner).expect("plans are never rejected"))
}

/// Returns the smallest plan found that fails as well, and its violations.
fn shrunk(seed: u64) -> (Plan, Vec<String>) {
    let mut tree = planned(seed);
    let (mut least, mut violations) = (tree.current(), run(&tree.current()).violations);
    for _ in 0..400 {
        if !(if violations.is_empty() { tree.complicate() } else { tree.simplify() }) {
            break;
        }
        violations = run(&tree.current()).violations;
        if !violations.is_empty() {
            least = tree.current();
        }
    }
    let violations = run(&least).violations;
    (least, violations)
}

/// Runs worlds, and reports those that fail.
fn run_all(seeds: impl Iterator<Item = u64>) -> BTreeMap<&'static str, u64> {
    let (mut kinds, mut failed) = (BTreeMap::new(), 0);
    for seed in seeds {
        let Run { violations, kinds: more, .. } = run(&planned(seed).current());
        for (kind, count) in more {
            *kinds.entry(kind).or_insert(0) += count;
        }
        if !violations.is_empty() {
            failed += 1;
            if failed <= 3 {
                let (plan, violations) = shrunk(seed);
                eprintln!("world {seed}: {violations:#?}\nin {plan:#?}");
            } else {
                eprintln!("world {seed}: {}", violations[0]);
            }
        }
    }
    assert_eq!(failed, 0, "worlds failed, out of these events: {kinds:#?}");
    kinds
}

/// Returns a range of seeds from the environment, or the default.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
    number("MEMCTL_SIM_FROM").unwrap_or(0)..number("MEMCTL_SIM_TO").unwrap_or(2000)
}

#[test]
fn a_watch_keeps_its_promises_in_every_world() {
    let kinds = run_all(CASES.into_iter().chain(seeds()));
    println!("{kinds:#?}");
    for kind in [
        "hang",
        "hang of all",
        "limit",
        "closed",
        "protection",
        "unreadable",
        "unwritable",
        "no pressure",
        "freed",
        "burst",
        "growth",
        "lie",
        "lock",
        "removed",
        "no threads",
        "reload",
        "stop",
        "created",
        "limit met",
        "stale counters",
        "read failed",
        "write failed",
        "write hung",
        "write without effect",
        "write fell short",
        "reclaimed too much",
        "locked",
        "refaults",
        "exhausted",
        "paused",
        "floor",
        "grace",
    ] {
        assert!(kinds.get(kind).is_some_and(|&count| count > 0), "{kind} never occurred: {kinds:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let plan = planned(seed).current();
        let (first, second) = (run(&plan).trace, run(&plan).trace);
        assert!(!first.is_empty() && first == second, "{seed}");
    }
    assert!(BEGIN > Duration::ZERO);
}

/// Prints the trace of the world that `MEMCTL_SIM_FROM` names, or of the smallest one found that
/// fails as well, with the violations where they occurred.
#[test]
#[ignore = "for a person: MEMCTL_SIM_FROM=SEED cargo test --lib -- --ignored --nocapture trace_of"]
fn trace_of_a_world() {
    let (plan, _) = shrunk(seeds().start);
    let run = run(&plan);
    println!("{plan:#?}\n{}\n{:#?}", run.trace.join("\n"), run.violations);
}
