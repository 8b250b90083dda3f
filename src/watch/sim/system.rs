//! The simulated host, as a watch uses it.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::check::Checks;
use super::plan::{M, Refaults};
use super::world::{BLIND_SPOT, World};
use crate::cgroup::killers::Killers;
use crate::cgroup::limit::LimitFile;
use crate::cgroup::sampler::LimitEvents;
use crate::cgroup::stat::MemoryStat;
use crate::cgroup::{CgroupPath, Conditions, Mount, Name};
use crate::host::PsiState;
use crate::host::disk_stat::DiskStat;
use crate::host::swap_areas::{Speed, SwapSpace};
use crate::host::swap_summary::SwapSummary;
use crate::host::zram::Zram;
use crate::kind::{Kind, Swappiness};
use crate::reclaim::Target;
use crate::watch::action::{Action, LockedBy};
use crate::watch::config::rule::WatchError;
use crate::watch::policy::guard::Bounds;
use crate::watch::policy::refaults::Lru;
use crate::watch::policy::working_set::Activity;
use crate::watch::system::{Answer, DONE, Sample, System};
use crate::watch::worker::{Done, LockableTarget, WriteJob};

/// Time that a system call takes.
const CALL: Duration = Duration::from_micros(4);

/// The world, and what is checked of it.
#[derive(Debug)]
pub(super) struct Shared {
    pub world: World,
    pub checks: Checks,
}

/// A reference to the world.
pub(super) type Handle = Rc<RefCell<Shared>>;

/// Files of a simulated cgroup.
#[derive(Debug)]
pub(super) struct SimSampler {
    shared: Handle,
    id: u64,
    name: Name,
}

/// A simulated cgroup, opened for reclaim.
#[derive(Debug)]
pub(super) struct SimTarget {
    shared: Handle,
    id: u64,
    /// Time of the thread that writes.
    time: Rc<Cell<Duration>>,
}

/// A job in progress.
#[derive(Debug)]
struct Running {
    job: WriteJob<SimTarget>,
    action: Action,
    /// Time of the next write, or of the end.
    next: Duration,
    is_over: bool,
}

/// The host.
pub(super) struct SimSystem {
    pub shared: Handle,
    time: Rc<Cell<Duration>>,
    running: Vec<Running>,
    done: Vec<Done<SimTarget>>,
    is_stopped: bool,
    waits: u32,
}

impl SimSystem {
    pub(super) fn new(shared: Handle) -> Self {
        Self {
            shared,
            time: Rc::default(),
            running: Vec::new(),
            done: Vec::new(),
            is_stopped: false,
            waits: 0,
        }
    }

    fn call(&self) {
        call(&self.shared);
    }

    /// Opens a target for the job, and begins it at the present time.
    fn begin(&mut self, job: &mut WriteJob<SimTarget>) -> Result<Action, crate::watch::action::ActionResult> {
        self.time.set(self.now());
        let (shared, time) = (Rc::clone(&self.shared), Rc::clone(&self.time));
        job.begin(|located, id| {
            let found = shared.borrow().world.sims.get(&id).is_some_and(|sim| sim.alive);
            if found && located.id == id {
                Ok(SimTarget { shared: Rc::clone(&shared), id, time })
            } else {
                Err(Errno::NODEV)
            }
        })
    }

    /// Does the next write of a job, at its time.
    fn step(&mut self, index: usize) {
        let running = &mut self.running[index];
        if running.is_over {
            let Running { job, action, .. } = self.running.swap_remove(index);
            self.done.push(job.end(action.result()));
            return;
        }
        self.time.set(running.next);
        let stopped = self.is_stopped;
        running.is_over = !running.job.write(&mut running.action, &|| stopped, |_| {});
        running.next = self.time.get();
    }

    /// Lets time pass until `until`, or until something is ready if `polls`.
    fn pass(&mut self, until: Duration, polls: bool) {
        loop {
            if polls && !self.done.is_empty() {
                return;
            }
            let next = (0..self.running.len()).min_by_key(|&index| self.running[index].next);
            let at = next.map_or(until, |index| self.running[index].next.min(until));
            self.shared.borrow_mut().world.pass(at, polls);
            let shared = self.shared.borrow();
            let (now, is_ready) = (shared.world.now, !shared.world.ready.is_empty());
            let is_stopping = shared.world.stop_at.is_some_and(|at| at <= now) && !self.is_stopped;
            drop(shared);
            if polls && (is_ready || is_stopping) {
                return;
            }
            match next {
                Some(index) if self.running[index].next <= now => self.step(index),
                _ if now >= until => return,
                _ => {}
            }
        }
    }
}

fn call(shared: &Handle) {
    let mut shared = shared.borrow_mut();
    shared.world.now += CALL;
    shared.world.cpu += CALL;
}

impl System for SimSystem {
    type Sampler = SimSampler;
    type Target = SimTarget;
    type Trigger = ();

    fn now(&self) -> Duration {
        self.shared.borrow().world.now
    }

    fn cpu(&self) -> Duration {
        self.shared.borrow().world.cpu
    }

    fn pause(&mut self, time: Duration) {
        self.pass(self.now() + time, false);
    }

    fn blind_spot(&self) -> u64 {
        BLIND_SPOT
    }

    fn open(&mut self, located: &CgroupPath) -> Result<SimSampler, Errno> {
        self.call();
        let mut shared = self.shared.borrow_mut();
        match shared.world.read_error(located.id) {
            Some(Errno::NODEV) => Err(Errno::NOENT),
            Some(errno) => Err(errno),
            None => {
                Ok(SimSampler { shared: Rc::clone(&self.shared), id: located.id, name: located.name.clone() })
            }
        }
    }

    fn above(&mut self, located: &CgroupPath, _: usize) -> Vec<CgroupPath> {
        let parent = self.shared.borrow().world.sims.get(&located.id).and_then(|sim| sim.parent);
        parent.map(|id| path_of(id, None)).into_iter().collect()
    }

    fn check(&mut self, located: &CgroupPath, _: &Bounds, _: bool) -> Result<(), WatchError> {
        self.call();
        match self.shared.borrow_mut().world.read_error(located.id) {
            Some(errno) => Err(WatchError::Errno(errno)),
            None => Ok(()),
        }
    }

    fn lru(&self) -> Lru {
        match self.shared.borrow().world.plan.kernel.refaults {
            Refaults::Activations | Refaults::Streams => Lru::Classic,
            Refaults::Restores | Refaults::SwapIns => Lru::Generations,
        }
    }

    fn swap_areas(&mut self) -> SwapSummary {
        SwapSummary { space: self.swap_space(), speed: Speed::Fast, copied: Some(0.25), wears: false }
    }

    fn swap_disks(&mut self) -> Option<DiskStat> {
        None
    }

    fn swap_space(&self) -> Option<SwapSpace> {
        Some(SwapSpace { total: 8192 * M, free: 8192 * M })
    }

    fn swapped_out(&mut self) -> Option<u64> {
        Some(0)
    }

    fn memory(&self) -> u64 {
        8192 * M
    }

    fn kswapd_scanned(&mut self) -> Option<u64> {
        Some(0)
    }

    fn can_swap(&mut self, _: &CgroupPath, _: Kind) -> bool {
        true
    }

    fn shortages(&mut self, located: &CgroupPath) -> Option<u64> {
        Some(self.shared.borrow().world.sims.get(&located.id)?.counters.direct)
    }

    fn ask_killers(&mut self, _: &Arc<Mount>) -> bool {
        true
    }

    fn killers(&mut self, _: Duration) -> Answer {
        Answer::Known(Killers::default())
    }

    fn full_avg10(&mut self, _: &Path, _: &mut String) -> Option<u16> {
        Some(0)
    }

    fn set_trigger(&mut self, _: &SimSampler, _: u64) -> Result<(), Errno> {
        Ok(())
    }

    fn listen(&mut self, sampler: &SimSampler, id: u64) {
        self.shared.borrow_mut().world.listen(sampler.id, id);
    }

    fn rearm(&mut self, sampler: &SimSampler, id: u64) {
        self.shared.borrow_mut().world.listen(sampler.id, id);
    }

    fn wait(&mut self, timeout: Duration, ready: &mut Vec<u64>) {
        self.call();
        self.waits += 1;
        assert!(self.waits < 1_000_000, "an endless world");
        self.shared.borrow_mut().checks.round();
        let until = self.now() + timeout;
        if self.done.is_empty() {
            self.pass(until, true);
        }
        ready.clear();
        let mut shared = self.shared.borrow_mut();
        ready.append(&mut shared.world.ready);
        if !self.done.is_empty() {
            ready.push(DONE);
        }
        let Shared { world, checks } = &mut *shared;
        checks.world(world);
        checks.poll(timeout, !ready.is_empty());
    }

    fn start(&mut self, mut job: WriteJob<SimTarget>) -> Result<(), WriteJob<SimTarget>> {
        self.call();
        if self.shared.borrow().world.no_threads > self.now() {
            let now = self.now();
            self.shared.borrow_mut().checks.wrote_itself(now);
            return Err(job);
        }
        match self.begin(&mut job) {
            Ok(action) => {
                let next = self.time.get();
                self.running.push(Running { job, action, next, is_over: false });
            }
            Err(result) => self.done.push(job.end(result)),
        }
        Ok(())
    }

    fn run_here(&mut self, mut job: WriteJob<SimTarget>, _: &dyn Fn() -> bool) -> Done<SimTarget> {
        let mut action = match self.begin(&mut job) {
            Ok(action) => action,
            Err(result) => return job.end(result),
        };
        while job.write(&mut action, &|| false, |_| {}) {
            let until = self.time.get();
            self.pause(until.saturating_sub(self.now()));
            self.time.set(self.now());
        }
        let until = self.time.get();
        self.pause(until.saturating_sub(self.now()));
        let now = self.now();
        self.shared.borrow_mut().checks.wrote_itself(now);
        job.end(action.result())
    }

    fn finished(&mut self) -> Option<Done<SimTarget>> {
        (!self.done.is_empty()).then(|| self.done.remove(0))
    }

    fn stop(&mut self) {
        self.is_stopped = true;
        // A signal ends a write between two batches, but not one that hangs.
    }

    fn has_ended(&self) -> bool {
        self.running.is_empty()
    }
}

impl Sample for SimSampler {
    fn id(&self) -> u64 {
        self.id
    }

    fn name(&self) -> &Name {
        &self.name
    }

    fn owner(&self) -> u32 {
        let parent = self.shared.borrow().world.sims.get(&self.id).and_then(|sim| sim.parent);
        1000 + parent.unwrap_or(self.id) as u32
    }

    fn current(&self, _: &mut String) -> Result<u64, Errno> {
        self.readable()?;
        let mut shared = self.shared.borrow_mut();
        let Shared { world, checks } = &mut *shared;
        checks.sampled(world, self.id);
        Ok(world.usage(self.id))
    }

    fn limit(&self, _: &mut String) -> Result<Option<(u64, LimitFile)>, Errno> {
        self.readable()?;
        let world = &mut self.shared.borrow_mut().world;
        let now = world.now;
        let Some(sim) = world.sims.get_mut(&self.id) else { return Err(Errno::NODEV) };
        let is_closed = now < sim.closed_until;
        let limit = if is_closed { 0 } else { sim.limit };
        if sim.told_limit.0 != limit {
            sim.told_limit = (limit, now);
        }
        if is_closed {
            return Ok(Some((0, LimitFile::High)));
        }
        Ok((sim.limit < u64::MAX).then_some((sim.limit, LimitFile::Max)))
    }

    fn protection(&self, _: &mut String) -> Result<u64, Errno> {
        self.readable()?;
        Ok(self.shared.borrow().world.sims[&self.id].low)
    }

    fn hits(&self, _: &mut String) -> Option<LimitEvents> {
        self.readable().ok()?;
        Some(LimitEvents { high: 0, max: self.shared.borrow().world.sims[&self.id].hits })
    }

    fn stat(&self, _: &mut String) -> Result<MemoryStat, Errno> {
        self.readable()?;
        Ok(self.shared.borrow_mut().world.stat(self.id, false))
    }

    fn swapped(&self, _: &mut String) -> Option<u64> {
        self.readable().ok()?;
        Some(0)
    }

    fn stalled(&self, _: &mut String) -> Option<u64> {
        self.readable().ok()?;
        let shared = self.shared.borrow();
        let sim = &shared.world.sims[&self.id];
        // The life of the cgroup before the watch.
        let before = 3600.0 * 1e6;
        (shared.world.now >= sim.no_pressure).then_some((before + sim.stalled) as u64)
    }

    fn waited(&self, _: &mut String) -> Option<u64> {
        self.readable().ok()?;
        Some(0)
    }

    fn activity(&self, _: &mut String) -> Activity {
        let cpu = self.readable().ok().map(|()| self.shared.borrow().world.now);
        Activity { is_frozen: false, cpu }
    }

    fn pressure_before(&self, _: &mut String) -> Option<f64> {
        Some(0.0)
    }
}

impl SimSampler {
    fn readable(&self) -> Result<(), Errno> {
        call(&self.shared);
        self.shared.borrow_mut().world.read_error(self.id).map_or(Ok(()), Err)
    }
}

impl Target for SimTarget {
    fn usage(&mut self) -> Result<u64, Errno> {
        let mut shared = self.shared.borrow_mut();
        let sim = shared.world.sims.get_mut(&self.id).filter(|sim| sim.alive).ok_or(Errno::NODEV)?;
        sim.told = sim.usage();
        Ok(sim.told)
    }

    fn has_current(&self) -> bool {
        true
    }

    fn stat(&mut self, flush: bool) -> Result<MemoryStat, Errno> {
        Ok(self.shared.borrow_mut().world.stat(self.id, flush))
    }

    fn blind_spot(&self) -> u64 {
        BLIND_SPOT
    }

    fn stalled(&mut self) -> Option<Duration> {
        None
    }

    fn swap_usage(&mut self) -> Option<u64> {
        None
    }

    fn zram(&mut self) -> Option<Zram> {
        None
    }

    fn psi(&self) -> PsiState {
        PsiState::On
    }

    fn sees_zram(&self) -> bool {
        true
    }

    fn conditions(&mut self) -> Conditions {
        Conditions::default()
    }

    fn reclaim(&mut self, bytes: u64, _: Option<Swappiness>) -> Result<(), Errno> {
        let mut shared = self.shared.borrow_mut();
        let Shared { world, checks } = &mut *shared;
        let at = self.time.get();
        checks.write(world, self.id, bytes);
        let (answer, took) = world.reclaim(self.id, bytes, at);
        checks.wrote(world, self.id, at, took);
        self.time.set(at + took);
        answer
    }

    fn accepts(&mut self, _: Swappiness) -> Result<bool, Errno> {
        Ok(self.shared.borrow().world.plan.kernel.overshoot == 100)
    }

    fn now(&self) -> Duration {
        self.time.get()
    }

    fn cpu(&self) -> Duration {
        let crowd = if self.shared.borrow().world.plan.kernel.crowded { 2 } else { 1 };
        self.time.get() / crowd
    }

    fn pause(&mut self, time: Duration) {
        self.shared.borrow_mut().world.count("paused");
        self.time.set(self.time.get() + time);
    }
}

impl LockableTarget for SimTarget {
    fn lock(&mut self) -> Result<(), LockedBy> {
        let mut shared = self.shared.borrow_mut();
        let locked = shared.world.sims[&self.id].locked.filter(|&(until, _)| self.time.get() < until);
        match locked {
            Some((_, is_honoured)) => {
                shared.world.count("locked");
                Err(LockedBy { pid: Some(7), is_honoured })
            }
            None => Ok(()),
        }
    }

    fn unlock(&mut self) {}
}

/// Returns the path of a simulated cgroup: a tenant's, or one below it.
pub(super) fn path_of(id: u64, tenant: Option<u64>) -> CgroupPath {
    let name = match tenant {
        Some(tenant) => format!("/tenant{tenant}/job{id}"),
        None => format!("/tenant{id}"),
    };
    let path: PathBuf = format!("/sim{name}").into();
    let mount = Arc::new(Mount::whole("/sim".into(), false));
    CgroupPath { path: path.into(), name: name.as_str().into(), mount, id }
}
