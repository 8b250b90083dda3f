//! The simulated kernel, and the applications in its cgroups.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::io::Errno;

use super::leaf::{PAGE, Sim};
use super::plan::{CgroupPlan, Error, M, Plan, Refaults, Spares, What};
use crate::cgroup::stat::MemoryStat;

/// Bytes by which counters may lag: 64 pages on each of two processors.
pub(super) const BLIND_SPOT: u64 = 2 * 64 * PAGE;

/// Time for which counters may lag.
const STALE: Duration = Duration::from_secs(2);

/// Beginning of the simulated time.
pub(super) const BEGIN: Duration = Duration::from_secs(100);

/// The simulated host.
#[derive(Debug)]
pub(super) struct World {
    pub now: Duration,
    pub cpu: Duration,
    pub plan: Plan,
    pub sims: BTreeMap<u64, Sim>,
    /// Ids of the planned cgroups, in their order; `None` before their creation.
    pub ids: Vec<Option<u64>>,
    pub troubles: Vec<(Duration, usize, What)>,
    pub no_threads: Duration,
    pub reload: Option<bool>,
    pub stop_at: Option<Duration>,
    /// Ids of limit events that are ready.
    pub ready: Vec<u64>,
    /// Number of each kind of event so far.
    pub kinds: BTreeMap<&'static str, u64>,
    next_id: u64,
}

impl World {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut world = Self {
            now: BEGIN,
            cpu: Duration::ZERO,
            sims: BTreeMap::new(),
            ids: vec![None; plan.cgroups.len()],
            troubles: Vec::new(),
            no_threads: Duration::ZERO,
            reload: None,
            stop_at: None,
            ready: Vec::new(),
            kinds: BTreeMap::new(),
            next_id: 1000,
            plan: plan.clone(),
        };
        for (tenant, limit) in plan.tenants.iter().enumerate() {
            let limit = limit.map_or(u64::MAX, |mib| mib * M);
            world.sims.insert(1 + tenant as u64, Sim::new(None, limit, BEGIN));
        }
        let mut troubles: Vec<_> = plan
            .troubles
            .iter()
            .map(|trouble| {
                let at = BEGIN + Duration::from_millis(trouble.at.min(plan.seconds * 1000));
                (at, trouble.who % plan.cgroups.len(), trouble.what)
            })
            .collect();
        troubles.sort_by_key(|(at, who, _)| (*at, *who));
        world.troubles = troubles;
        world.create();
        world
    }

    pub(super) fn count(&mut self, kind: &'static str) {
        *self.kinds.entry(kind).or_insert(0) += 1;
    }

    /// Returns the top-level cgroup of a planned one.
    fn tenant(&self, plan: &CgroupPlan) -> u64 {
        1 + (plan.tenant % self.plan.tenants.len()) as u64
    }

    /// Creates the cgroups that are due.
    fn create(&mut self) {
        for index in 0..self.ids.len() {
            let plan = self.plan.cgroups[index];
            if self.ids[index].is_some() || self.now < BEGIN + Duration::from_secs(plan.from) {
                continue;
            }
            let mut sim = Sim::new(Some(self.tenant(&plan)), plan.limit * M, self.now);
            (sim.hot, sim.cold) = ((plan.hot * M) as f64, (plan.cold * M) as f64);
            sim.growth = (plan.growth << 10) as f64;
            sim.low = plan.low * M;
            sim.anon = plan.anon;
            self.sims.insert(self.next_id, sim);
            self.ids[index] = Some(self.next_id);
            self.next_id += 1;
            if plan.from > 0 {
                self.count("created");
            }
        }
    }

    /// Returns the usage of a cgroup and all below it.
    pub(super) fn usage(&self, id: u64) -> u64 {
        let own = self.sims[&id].usage();
        let below = self.sims.values().filter(|sim| sim.alive && sim.parent == Some(id));
        own + below.map(Sim::usage).sum::<u64>()
    }

    /// Lets time pass until `until`, in small steps. If `polls`, it ends early once a limit event is
    /// ready.
    pub(super) fn pass(&mut self, until: Duration, polls: bool) {
        const STEP: Duration = Duration::from_millis(5);
        while self.now < until {
            self.now = (self.now + STEP).min(until);
            self.step();
            // A signal ends a poll as well.
            if polls && (!self.ready.is_empty() || self.stop_at == Some(self.now)) {
                return;
            }
        }
    }

    fn step(&mut self) {
        let now = self.now;
        while self.troubles.first().is_some_and(|&(at, ..)| at <= now) {
            let (_, who, what) = self.troubles.remove(0);
            self.befall(who, what);
        }
        self.create();
        let ids: Vec<u64> = self.sims.keys().copied().collect();
        let kernel = self.plan.kernel;
        for &id in &ids {
            let met = self.sims.get_mut(&id).is_some_and(|sim| sim.alive && sim.advance(now, kernel));
            if met {
                self.hit(id);
            }
        }
        for tenant in 1..=self.plan.tenants.len() as u64 {
            let (limit, usage) = (self.sims[&tenant].limit, self.usage(tenant));
            let Some(over) = usage.checked_sub(limit).filter(|&over| over > 0) else { continue };
            let mut left = over as f64 + (32 * PAGE) as f64;
            let below = self.sims.values_mut().filter(|sim| sim.alive && sim.parent == Some(tenant));
            for sim in below {
                let freed = sim.take(left.min(sim.cold.max(left / 4.0)), kernel.spares != Spares::Nothing);
                sim.counters.direct += freed as u64;
                left -= freed;
            }
            if let Some(sim) = self.sims.get_mut(&tenant) {
                sim.hits += 1;
            }
            self.hit(tenant);
        }
    }

    fn hit(&mut self, id: u64) {
        self.count("limit met");
        let Some(sim) = self.sims.get_mut(&id) else { return };
        match &mut sim.listener {
            Some((event, armed)) if *armed => {
                *armed = false;
                self.ready.push(*event);
            }
            _ => sim.missed = true,
        }
    }

    /// Arms the listener of a cgroup.
    pub(super) fn listen(&mut self, id: u64, event: u64) {
        let Some(sim) = self.sims.get_mut(&id) else { return };
        sim.listener = Some((event, true));
        if std::mem::take(&mut sim.missed) {
            sim.listener = Some((event, false));
            self.ready.push(event);
        }
    }

    fn befall(&mut self, who: usize, what: What) {
        let now = self.now;
        let after = |ms: u64| now + Duration::from_millis(ms);
        let errno = |error: Error| match error {
            Error::Files => Errno::MFILE,
            Error::Access => Errno::ACCESS,
            Error::Memory => Errno::NOMEM,
            Error::Io => Errno::IO,
        };
        match what {
            What::NoThreads(ms) => {
                self.no_threads = after(ms);
                return self.count("no threads");
            }
            What::Reload(drops) => {
                self.reload = Some(drops);
                return self.count("reload");
            }
            What::Stop => {
                self.stop_at = Some(now);
                return self.count("stop");
            }
            _ => {}
        }
        let Some(id) = self.ids[who] else { return };
        if let What::HangAll { within, time } = what {
            let parent = self.sims[&id].parent;
            for sim in self.sims.values_mut().filter(|sim| sim.parent == parent) {
                sim.hangs = Some((after(within), Duration::from_millis(time)));
                (sim.troubled, sim.hung) = (after(within + time), after(within + time));
            }
            return self.count("hang of all");
        }
        let Some(sim) = self.sims.get_mut(&id).filter(|sim| sim.alive) else { return };
        // A hang that was announced may last for longer.
        sim.troubled = sim.troubled.max(now);
        let kind = match what {
            What::Hang { within, time } => {
                sim.hangs = Some((after(within), Duration::from_millis(time)));
                (sim.troubled, sim.hung) = (after(within + time), after(within + time));
                "hang"
            }
            What::Limit(mib) => {
                (sim.limit, sim.changed) = (mib * M, now);
                "limit"
            }
            What::Closed => {
                (sim.closed_until, sim.changed) = (after(1000), after(1000));
                "closed"
            }
            What::Protect(mib) => {
                (sim.low, sim.changed) = (mib * M, now);
                "protection"
            }
            What::Unreadable { time, errno: error } => {
                sim.unreadable = Some((after(time), errno(error)));
                sim.troubled = after(time);
                "unreadable"
            }
            What::Unwritable { time, errno: error } => {
                sim.unwritable = Some((after(time), errno(error)));
                sim.troubled = after(time);
                "unwritable"
            }
            What::NoPressure(time) => {
                sim.no_pressure = after(time);
                "no pressure"
            }
            What::Free(mib) => {
                let freed = ((mib * M) as f64).min(sim.cold);
                sim.cold -= freed;
                "freed"
            }
            What::Burst(mib) => {
                sim.cold += (mib * M) as f64;
                "burst"
            }
            What::Growth(kib) => {
                sim.growth = (kib << 10) as f64;
                "growth"
            }
            What::Lie(time) => {
                sim.lies = after(time);
                sim.troubled = after(time);
                "lie"
            }
            What::Lock { time, honoured } => {
                sim.locked = Some((after(time), honoured));
                sim.troubled = after(time);
                "lock"
            }
            What::Remove => {
                sim.alive = false;
                "removed"
            }
            What::NoThreads(_) | What::Reload(_) | What::Stop | What::HangAll { .. } => return,
        };
        self.count(kind);
    }

    /// Returns the error of a read, if reads fail.
    pub(super) fn read_error(&mut self, id: u64) -> Option<Errno> {
        let now = self.now;
        let sim = self.sims.get(&id)?;
        if !sim.alive {
            return Some(Errno::NODEV);
        }
        let errno = sim.unreadable.filter(|&(until, _)| now < until).map(|(_, errno)| errno);
        if errno.is_some() {
            self.count("read failed");
        }
        errno
    }

    /// Reads `memory.stat`. The counters lag, as the kernel folds them only now and then.
    pub(super) fn stat(&mut self, id: u64, flush: bool) -> MemoryStat {
        let (now, kernel) = (self.now, self.plan.kernel);
        let Some(sim) = self.sims.get_mut(&id) else { return MemoryStat::default() };
        let (at, folded) = sim.folded;
        let behind = sim.counters.ours - folded.ours + sim.counters.direct - folded.direct;
        let is_stale = !flush && now.saturating_sub(at) < STALE && behind < BLIND_SPOT;
        if !is_stale {
            sim.folded = (now, sim.counters);
        }
        let (counters, usage, anon) = (sim.folded.1, sim.usage(), sim.anon);
        if is_stale && behind > 0 {
            self.count("stale counters");
        }
        let pages = |bytes: u64| Some(bytes / PAGE);
        let file = usage / 100 * (100 - anon);
        let mut stat = MemoryStat {
            anon: Some(usage - file),
            file: Some(file),
            inactive_file: Some(file),
            active_file: Some(0),
            inactive_anon: Some(usage - file),
            active_anon: Some(0),
            pgsteal: pages(counters.ours + counters.direct),
            pgscan: pages(counters.scanned),
            ..MemoryStat::default()
        };
        if kernel.proactive {
            stat.pgsteal_direct = pages(counters.direct);
            stat.pgsteal_proactive = pages(counters.ours);
            stat.pgscan_proactive = pages(counters.scanned);
        } else {
            stat.pgsteal_direct = pages(counters.direct + counters.ours);
        }
        match kernel.refaults {
            Refaults::Restores => {
                stat.workingset_refault_file = pages(counters.refaulted);
                stat.workingset_restore_file = pages(counters.refaulted);
            }
            Refaults::Activations => {
                stat.workingset_refault_file = pages(counters.refaulted);
                stat.workingset_activate_file = pages(counters.refaulted);
            }
            Refaults::SwapIns => {
                stat.workingset_refault_anon = pages(counters.refaulted);
                stat.pswpin = pages(counters.refaulted);
            }
            Refaults::Streams => {
                stat.workingset_refault_file = pages(counters.refaulted);
                stat.workingset_activate_file = Some(0);
                stat.workingset_restore_file = Some(0);
            }
        }
        stat
    }

    /// Serves a request for `bytes` that begins at a time. Returns the answer and the time it
    /// takes.
    pub(super) fn reclaim(&mut self, id: u64, bytes: u64, at: Duration) -> (Result<(), Errno>, Duration) {
        let kernel = self.plan.kernel;
        let quick = Duration::from_micros(20);
        let Some(sim) = self.sims.get_mut(&id) else { return (Err(Errno::NODEV), quick) };
        sim.writes += 1;
        sim.advance(at, kernel);
        if !sim.alive {
            return (Err(Errno::NODEV), quick);
        }
        if let Some((_, errno)) = sim.unwritable.filter(|&(until, _)| at < until) {
            self.count("write failed");
            return (Err(errno), quick);
        }
        if at < sim.lies {
            self.count("write without effect");
            return (Ok(()), quick);
        }
        let whole = bytes as f64 * kernel.overshoot as f64 / 100.0;
        // Pages on their way to swap are freed by a later visit.
        let share = if kernel.asynchronous { 1.0 - sim.anon as f64 / 200.0 } else { 1.0 };
        let freed = sim.take(whole * share, kernel.spares == Spares::Always) as u64 / PAGE * PAGE;
        sim.counters.ours += freed;
        let speed = (kernel.speed * M) as f64;
        let mut took = quick + Duration::from_secs_f64(whole / speed);
        let hangs = sim.hangs.filter(|&(until, _)| at < until).map(|(_, time)| time);
        if let Some(time) = hangs {
            took += time;
            sim.hangs_until = at + took;
            self.count("write hung");
        }
        if kernel.overshoot > 100 && freed > bytes {
            self.count("reclaimed too much");
        }
        if freed >= bytes {
            (Ok(()), took)
        } else {
            self.count("write fell short");
            (Err(Errno::AGAIN), took)
        }
    }
}
