//! The workers who write, so that a write that takes its time delays no other cgroup.

use std::convert::Infallible;
use std::sync::Arc;

use rustix::io::Errno;

use super::action::{ActionResult, Alarm, EndReason, Interrupt, lost, reclaim_down_to};
use super::policy::guard::Allowed;
use crate::cgroup::{CgroupPath, MemoryCgroup};
use crate::kind::{Kind, Swappiness};
use crate::reclaim::Pace;
use crate::reclaim::pool::Work;

/// A worker needs next to no stack.
pub const STACK: usize = 128 << 10;

/// What a cgroup is reclaimed from through.
#[derive(Debug)]
pub struct ReclaimHandle {
    target: MemoryCgroup,
    pace: Pace,
    /// Whether the kernel can be told which memory to take.
    pub can_choose: bool,
}

/// What is to be done.
#[derive(Debug)]
pub struct WriteJob {
    /// The cgroup's place in the fleet.
    pub place: usize,
    /// Its id: the place may be another's by the time it is done.
    pub id: u64,
    /// Where it is.
    pub located: Arc<CgroupPath>,
    /// What it is reclaimed from through, if that is open.
    pub hands: Option<Box<ReclaimHandle>>,
    /// To which usage, and which memory.
    pub allowed: Allowed,
    /// Whether to keep off while another memctl is at it.
    pub lock: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Done {
    /// See [`WriteJob::place`].
    pub place: usize,
    /// See [`WriteJob::id`].
    pub id: u64,
    /// See [`WriteJob::hands`].
    pub hands: Option<Box<ReclaimHandle>>,
    /// What came of it.
    pub acted: ActionResult,
}

/// The work of the pool's threads.
#[derive(Debug)]
pub struct Worker {
    /// Interrupts the calling thread's own system call after a while.
    pub alarm: Alarm,
}

impl Work for Worker {
    type Job = WriteJob;
    type Event = Infallible;
    type Done = Done;

    fn run(
        &self,
        _: usize,
        mut job: WriteJob,
        stop: &dyn Fn() -> bool,
        _: &mut dyn FnMut(Infallible),
    ) -> Done {
        let acted = serve(&mut job, stop, self.alarm);
        let WriteJob { place, id, hands, .. } = job;
        Done { place, id, hands, acted }
    }
}

/// Does a job in the calling thread, until `stop` says so.
pub fn serve(job: &mut WriteJob, stop: &dyn Fn() -> bool, alarm: Alarm) -> ActionResult {
    if job.hands.is_none() {
        job.hands = match ReclaimHandle::open(&job.located, job.id) {
            Ok(hands) => Some(Box::new(hands)),
            Err(errno) => return ActionResult::nothing(lost(errno)),
        };
    }
    let Some(hands) = &mut job.hands else { return ActionResult::nothing(EndReason::Removed) };
    let ReclaimHandle { target, pace, can_choose } = &mut **hands;
    let chooses = job.allowed.kind != Kind::All;
    if chooses && !*can_choose {
        // Now that it is known, whoever decides will find a guard for it.
        let current = target.usage().unwrap_or(0);
        return ActionResult { current, ..ActionResult::nothing(EndReason::Stopped) };
    }
    let swappiness = job.allowed.kind.swappiness();
    // A file system without locks is as good as an unlocked one.
    if job.lock && target.cgroup().try_lock() == Ok(false) {
        return ActionResult::nothing(EndReason::Locked);
    }
    let early = Interrupt { stop, alarm: job.allowed.waits.then_some(alarm) };
    let acted = reclaim_down_to(target, pace, job.allowed.down_to, swappiness, &early);
    if job.lock {
        target.cgroup().unlock();
    }
    acted
}

impl ReclaimHandle {
    fn open(located: &CgroupPath, id: u64) -> Result<Self, Errno> {
        let mut target = MemoryCgroup::open(located).map_err(|_| Errno::NODEV)?;
        // Another cgroup may have taken the name.
        if target.cgroup().id()? != id {
            return Err(Errno::NODEV);
        }
        let can_choose = target.accepts(Swappiness::Value(0)).unwrap_or(false);
        Ok(Self { target, pace: Pace::new(can_choose, 0), can_choose })
    }
}
