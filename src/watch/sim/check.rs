//! What a watch promises, checked at each step of a simulated world.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::{CgroupPlan, M, Plan, RulePlan};
use super::system::path_of;
use super::world::{BEGIN, BLIND_SPOT, World};
use crate::watch::event::{Ended, Event, EventKind};

/// Time without trouble after which a cgroup must be kept below its limit: a window of the arrival
/// curve, and the longest interval between two samples.
const CALM: Duration = Duration::from_secs(8);

/// Time within which a watch must have ended.
const END: Duration = Duration::from_secs(1);

/// Number of workers.
pub(super) const WORKERS: usize = 4;

/// Bytes that the watch reclaimed from a cgroup, and bytes that refaulted.
type Flows = (u64, u64);

/// Facts about one cgroup.
#[derive(Debug, Default)]
struct Facts {
    plan: Option<CgroupPlan>,
    /// Last time at which something was wrong that excuses a met limit.
    excused: Duration,
    hits: u64,
    /// Bytes reclaimed by the last action due to `--pressure`.
    last_press: Option<u64>,
    /// Beginning of an interval, the flows then, and the number of intervals in a row before it in
    /// which most of what was reclaimed came back.
    interval: Option<(Duration, Flows, u32)>,
    blind: bool,
    /// Time of the last hold.
    held: Duration,
    /// Beginning of a millisecond, and number of samples within it.
    samples: (Duration, u32),
    started: bool,
    ended: bool,
}

/// Violations of promises, and what is needed to find them.
#[derive(Debug, Default)]
pub(super) struct Checks {
    each: BTreeMap<u64, Facts>,
    /// Rounds in the present second.
    rounds: (u64, u64),
    /// Consecutive polls without a timeout and without a reason, and whether something was sampled
    /// since the last poll.
    idle_polls: u32,
    was_active: bool,
    count: u64,
    /// Last time at which the loop wrote itself, and may have hung.
    wrote_itself: Duration,
    pub violations: Vec<String>,
    pub trace: Vec<String>,
    now: Duration,
}

impl Checks {
    #[allow(clippy::needless_pass_by_value)] // Made for this.
    fn fail(&mut self, what: String) {
        if self.violations.len() < 10 {
            let at = (self.now.saturating_sub(BEGIN)).as_secs_f64();
            self.trace.push(format!("violation at {at:.3} s: {what}"));
            self.violations.push(format!("{at:.3} s: {what}"));
        }
    }

    fn facts(&mut self, id: u64) -> &mut Facts {
        self.each.entry(id).or_default()
    }

    pub(super) fn round(&mut self) {
        self.count += 1;
    }

    /// Checks the state of the world after a wait.
    pub(super) fn world(&mut self, world: &World) {
        self.now = world.now;
        let second = world.now.as_secs();
        if self.rounds.0 == second {
            self.rounds.1 += std::mem::take(&mut self.count);
            if self.rounds.1 == 1005 {
                self.fail("more than 1000 rounds in a second".into());
            }
        } else {
            self.rounds = (second, std::mem::take(&mut self.count));
        }
        for (index, id) in world.ids.iter().enumerate() {
            let Some(id) = *id else { continue };
            self.facts(id).plan.get_or_insert(world.plan.cgroups[index]);
            self.limits(world, id, &world.plan.cgroups[index]);
            self.thrashing(world, id, &world.plan.cgroups[index]);
        }
        for tenant in 1..=world.plan.tenants.len() as u64 {
            self.shared_limit(world, tenant);
        }
    }

    /// Checks that a cgroup stays below its limit, as long as nothing excuses it.
    fn limits(&mut self, world: &World, id: u64, plan: &CgroupPlan) {
        let (sim, now) = (&world.sims[&id], world.now);
        let RulePlan::Headroom { mib, .. } = plan.rule else { return };
        let wrote_itself = self.wrote_itself;
        let speed = (world.plan.kernel.speed * M) as f64;
        let tenant_limited = sim.parent.is_some_and(|parent| world.sims[&parent].limit < u64::MAX);
        let least = (plan.floor.max(sim.low / M) * M) as f64 + (8 * M) as f64;
        // An owner with a hanging write waits for the last worker, which others may need. When all
        // workers hang, further ones stay away from cgroups below the same parent.
        let hanging = || world.sims.values().filter(|one| one.hangs_until > now);
        let is_avoided = hanging().count() + 1 >= WORKERS && hanging().any(|one| one.parent == sim.parent);
        let facts = self.facts(id);
        // Growth that reclaim can't keep up with, or memory that can't be reclaimed.
        let is_hard = sim.growth > speed * 0.4
            || sim.growth * 0.2 > (mib * M) as f64
            || tenant_limited
            || sim.limit < 4 * mib * M
            || sim.limit as f64 * 0.7 < sim.hot + sim.outside + least
            || world.plan.kernel.asynchronous && sim.anon > 0;
        let is_troubled = now.saturating_sub(sim.troubled.max(sim.changed)) < CALM;
        let is_excused = is_hard || is_troubled || is_avoided || facts.blind || !sim.alive;
        if is_excused || now < wrote_itself + CALM {
            // A write that hangs may excuse it for longer.
            facts.excused = facts.excused.max(now);
        }
        let met = sim.hits > facts.hits;
        facts.hits = sim.hits;
        if met && now.saturating_sub(facts.excused) > CALM && facts.started && !facts.ended {
            let usage = sim.usage();
            facts.excused = now;
            self.fail(format!("job{id} met its limit without an excuse, at {usage}"));
        }
    }

    /// Checks that a tenant's cgroups stay below their common limit, as long as one of them can give
    /// what is missing. Writes to the others may hang.
    fn shared_limit(&mut self, world: &World, tenant: u64) {
        let (sim, now) = (&world.sims[&tenant], world.now);
        if sim.limit == u64::MAX {
            return;
        }
        let below: Vec<_> = world
            .ids
            .iter()
            .zip(&world.plan.cgroups)
            .filter_map(|(id, plan)| Some((((*id)?), plan)))
            .filter(|(id, _)| world.sims[id].parent == Some(tenant))
            .collect();
        let growth: f64 = below.iter().map(|(id, _)| world.sims[id].growth).sum();
        let speed = (world.plan.kernel.speed * M) as f64;
        let wants = |plan: &CgroupPlan| match plan.rule {
            RulePlan::Headroom { mib, ancestors: true, .. } => mib,
            _ => 0,
        };
        let least = below.iter().map(|(_, plan)| wants(plan)).filter(|&mib| mib > 0).min().unwrap_or(0);
        let most = below.iter().map(|(_, plan)| wants(plan)).max().unwrap_or(0);
        let gives = |id: u64, plan: &CgroupPlan| {
            let one = &world.sims[&id];
            let floor = (plan.floor * M).max(one.low) as f64 + (8 * M) as f64;
            wants(plan) > 0 && now > one.hung + CALM && one.cold > (2 * most * M) as f64 + floor
        };
        let is_hard = least < 4
            || growth > speed / 16.0
            || growth > (least * M) as f64 / 2.0
            || sim.limit < 4 * most * M
            || world.plan.kernel.asynchronous
            || !below.iter().any(|&(id, plan)| gives(id, plan));
        let is_troubled = below.iter().any(|(id, _)| {
            let (one, facts) = (&world.sims[id], &self.each[id]);
            let other = one.troubled > one.hung && now.saturating_sub(one.troubled) < CALM;
            !one.alive || other || facts.blind || now.saturating_sub(facts.held) < CALM || facts.ended
        });
        let (wrote_itself, facts) = (self.wrote_itself, self.each.entry(tenant).or_default());
        if is_hard || is_troubled || now < wrote_itself + CALM {
            facts.excused = now;
        }
        let met = sim.hits > facts.hits;
        facts.hits = sim.hits;
        if met && now.saturating_sub(facts.excused) > CALM {
            facts.excused = now;
            self.fail(format!("tenant{tenant} met its limit without an excuse"));
        }
    }

    /// Checks that a poll without a timeout has a reason.
    pub(super) fn poll(&mut self, timeout: Duration, is_ready: bool) {
        let is_idle = timeout < Duration::from_micros(10) && !is_ready && !self.was_active;
        self.idle_polls = if is_idle { self.idle_polls + 1 } else { 0 };
        self.was_active = false;
        if self.idle_polls == 20 {
            self.fail("20 rounds in a row did nothing".into());
        }
    }

    /// Checks that memory in use isn't reclaimed again and again.
    fn thrashing(&mut self, world: &World, id: u64, plan: &CgroupPlan) {
        const INTERVAL: Duration = Duration::from_secs(2);
        // The watch compares what it reclaimed with what came back every 2 s, and every 4 s where
        // nothing did so far; then it holds for at least 5 s. Up to four intervals may pass before
        // it can know, the first and the last in part.
        const MOST: u32 = 4;
        let (sim, now) = (&world.sims[&id], world.now);
        let flows = (sim.counters.ours, sim.counters.refaulted);
        let facts = self.facts(id);
        let (began, before, count) = *facts.interval.get_or_insert((now, flows, 0));
        if now.saturating_sub(began) < INTERVAL {
            return;
        }
        let (reclaimed, back) = (flows.0 - before.0, flows.1 - before.1);
        let wants_below = !matches!(plan.rule, RulePlan::Pressure);
        // The watch holds from a half on, over intervals of its own.
        let most_came_back = wants_below && reclaimed > 20 * M && back > reclaimed / 5 * 3;
        // Memory in use that doesn't fit below the limit comes back whoever reclaims it: a little
        // is kept free then, so that the application reclaims less by itself.
        let fits = sim.hot + sim.outside + M as f64 <= sim.limit as f64;
        let most_came_back = most_came_back && fits;
        let count = if most_came_back { count + 1 } else { 0 };
        facts.interval = Some((now, flows, count));
        if count == MOST + 1 {
            self.fail(format!("job{id} thrashes: {back} of {reclaimed} bytes came back within 2 s"));
        }
    }

    /// Checks a sample of `memory.current`: a level that many cgroups share is sampled once for them
    /// all, and a few times more at a start
    /// and after a limit event.
    pub(super) fn sampled(&mut self, world: &World, id: u64) {
        (self.now, self.was_active) = (world.now, true);
        let is_shared = world.sims[&id].parent.is_none();
        let facts = self.facts(id);
        match &mut facts.samples {
            (began, count) if world.now.saturating_sub(*began) < Duration::from_millis(1) => *count += 1,
            samples => *samples = (world.now, 1),
        }
        if is_shared && facts.samples.1 == 6 {
            self.fail(format!("tenant{id} is sampled for each cgroup below it"));
        }
    }

    pub(super) fn wrote_itself(&mut self, now: Duration) {
        self.wrote_itself = now;
    }

    /// Checks a write before it is served.
    pub(super) fn write(&mut self, world: &World, id: u64, bytes: u64) {
        self.was_active = true;
        let Some(plan) = self.facts(id).plan else { return };
        let (sim, now) = (&world.sims[&id], world.now);
        self.now = now;
        if bytes == 0 || !bytes.is_multiple_of(4096) {
            self.fail(format!("job{id}: a request for {bytes} bytes"));
        }
        let is_known = now.saturating_sub(sim.changed) > Duration::from_secs(16);
        let least = (plan.floor * M).max(if is_known { sim.low } else { 0 });
        if least > 0 && sim.told < least + bytes {
            self.fail(format!("job{id}: {bytes} of {} bytes are requested, {least} are to stay", sim.told));
        }
        // What was begun before it was told may go on for a slice, or for as long as a write hangs.
        let (limit, told_at) = sim.told_limit;
        let is_known = now.saturating_sub(told_at.max(sim.hung)) > Duration::from_secs(1);
        if let RulePlan::Headroom { mib, pressure: false, .. } = plan.rule
            && is_known
            && limit <= mib * M
            && sim.parent.is_none_or(|parent| world.sims[&parent].limit == u64::MAX)
        {
            self.fail(format!("job{id}: reclaimed for a headroom that is all of the limit"));
        }
    }

    /// Checks a write after it was served.
    pub(super) fn wrote(&mut self, world: &World, id: u64, at: Duration, took: Duration) {
        if took > Duration::from_secs(1) {
            let facts = self.facts(id);
            facts.excused = facts.excused.max(at + took + CALM);
        }
        self.now = world.now;
    }

    /// Checks an event.
    pub(super) fn event(&mut self, world: &World, event: &Event<'_>) {
        let now = world.now;
        self.now = now;
        self.trace.push(format!("{:?} {} {:?}", event.at, &**event.cgroup, event.what));
        let Some(id) = event.cgroup.rsplit("job").next().and_then(|id| id.parse().ok()) else { return };
        let presses = matches!(self.facts(id).plan.map(|plan| plan.rule), Some(RulePlan::Pressure));
        match &event.what {
            // Beyond the limit it isn't the pressure that counts.
            EventKind::Acted(result)
                if presses
                    && (result.current + result.requested + BLIND_SPOT > world.sims[&id].limit
                        || now.saturating_sub(world.sims[&id].changed) < Duration::from_secs(16)) =>
            {
                self.facts(id).last_press = Some(u64::MAX / 4);
            }
            EventKind::Acted(result) if presses => {
                let last = self.facts(id).last_press;
                let most = last.map_or(0, |last| 2 * last).max(128 << 10) + 4096;
                // A step that goes on in its next slice isn't another one.
                if result.requested > most {
                    self.fail(format!("job{id}: a step of {} bytes after {last:?}", result.requested));
                }
                self.facts(id).last_press = Some(result.reclaimed);
            }
            EventKind::Hold { .. } => {
                let facts = self.facts(id);
                (facts.excused, facts.held) = (facts.excused.max(now), now);
            }
            EventKind::Blind { .. } => self.facts(id).blind = true,
            EventKind::Recovered => {
                let facts = self.facts(id);
                (facts.blind, facts.excused) = (false, facts.excused.max(now));
            }
            EventKind::Start { .. } => {
                let facts = self.facts(id);
                (facts.excused, facts.started, facts.ended, facts.blind) = (now, true, false, false);
            }
            EventKind::Gone | EventKind::Released => self.facts(id).ended = true,
            _ => {}
        }
    }

    /// Checks that what is gone isn't there, and what is there isn't gone.
    pub(super) fn gone(&mut self, world: &World, name: &str) {
        let Some(id) = name.rsplit("job").next().and_then(|id| id.parse::<u64>().ok()) else { return };
        if world.sims.get(&id).is_some_and(|sim| sim.alive) {
            self.fail(format!("{name} is reported as gone, and lives"));
        }
    }

    /// Checks the results of a watch.
    pub(super) fn ended(&mut self, world: &World, ended: &Ended, plan: &Plan) {
        self.now = world.now;
        if let Some(stop) = world.stop_at
            && world.now > stop.max(self.wrote_itself) + END
        {
            self.fail(format!("stopped {:?} ago", world.now.saturating_sub(stop)));
        }
        let mut told: BTreeMap<String, (u64, u64, bool, bool)> = BTreeMap::new();
        for summary in &ended.each {
            let one = told.entry(summary.cgroup.to_string()).or_default();
            one.0 += summary.total.reclaimed;
            one.1 += u64::from(summary.total.writes);
            one.2 |= summary.gone;
            one.3 |= summary.unfinished;
        }
        for (&id, sim) in &world.sims {
            let Some(parent) = sim.parent else { continue };
            let name = path_of(id, Some(parent)).name.to_string();
            let (reclaimed, writes, gone, unfinished) = told.get(&name).copied().unwrap_or_default();
            let truth = sim.counters.ours;
            // What a cgroup freed in its last second can't be read any more, and is an estimate.
            let unread = sim.unreadable.is_some_and(|(until, _)| world.now < until + Duration::from_secs(2));
            let blurred = gone || !sim.alive || unread || !plan.kernel.proactive;
            let slack = 2 * BLIND_SPOT + truth / 100 + if blurred { truth / 4 + 4 * M } else { 0 };
            // The counter of all reclaim has what tasks took in the pauses of an action as well.
            let in_pauses = if blurred && plan.kernel.crowded { sim.counters.direct } else { 0 };
            let slack = slack + in_pauses;
            // Without a counter of its own, and with one that can't be read any more, what the
            // application took at the same time isn't seen.
            let is_wrong =
                if blurred { reclaimed > truth + slack } else { reclaimed.abs_diff(truth) > slack };
            let lies = plan.troubles.iter().any(|trouble| matches!(trouble.what, super::plan::What::Lie(_)));
            let is_excused = unfinished || (blurred && lies);
            if writes != sim.writes && !unfinished {
                self.violations.push(format!("{name}: {writes} writes counted of {}", sim.writes));
            }
            if is_wrong && !is_excused {
                self.violations
                    .push(format!("{name}: {reclaimed} bytes told, {truth} reclaimed, {writes} writes"));
            }
        }
    }
}
