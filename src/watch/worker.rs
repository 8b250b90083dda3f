//! Workers that write to the kernel, so that a slow write delays no other cgroup.

use std::convert::Infallible;
use std::sync::Arc;

use rustix::io::Errno;

use super::action::{ActionResult, Alarm, EndReason, Interrupt, lost, reclaim_down_to};
use super::policy::guard::Allowed;
use crate::cgroup::{CgroupPath, MemoryCgroup};
use crate::kind::{Kind, Swappiness};
use crate::reclaim::Pace;
use crate::reclaim::pool::Work;

/// Stack size of a worker, bytes: workers need next to none.
pub(crate) const STACK: usize = 128 << 10;

/// Handle for reclaim from a cgroup.
#[derive(Debug)]
pub(crate) struct ReclaimHandle {
    target: MemoryCgroup,
    pace: Pace,
    /// True if the kernel can reclaim a chosen kind of memory.
    pub can_choose: bool,
}

/// A job for a worker.
#[derive(Debug)]
pub(crate) struct WriteJob {
    /// Slot of the member in the fleet.
    pub place: usize,
    /// Cgroup id: the slot may belong to another member by the end of the job.
    pub id: u64,
    /// Path of the cgroup.
    pub located: Arc<CgroupPath>,
    /// Handle for reclaim, if it is open.
    pub hands: Option<Box<ReclaimHandle>>,
    /// Target usage, and kind of memory.
    pub allowed: Allowed,
    /// True to wait while another memctl is reclaiming from the cgroup.
    pub lock: bool,
}

/// Result of a job.
#[derive(Debug)]
pub(crate) struct Done {
    /// See [`WriteJob::place`].
    pub place: usize,
    /// See [`WriteJob::id`].
    pub id: u64,
    /// See [`WriteJob::hands`].
    pub hands: Option<Box<ReclaimHandle>>,
    /// Result of the action.
    pub acted: ActionResult,
}

/// The work of the pool's threads.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Interrupts the calling thread's own system call after a time.
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

/// Runs a job in the calling thread, until `stop` returns true.
pub(crate) fn serve(job: &mut WriteJob, stop: &dyn Fn() -> bool, alarm: Alarm) -> ActionResult {
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
        // The kernel's ability is known now, so the next decision will find a guard for it.
        let current = target.usage().unwrap_or(0);
        return ActionResult { current, ..ActionResult::nothing(EndReason::Stopped) };
    }
    let swappiness = job.allowed.kind.swappiness();
    // A file system without locks counts as unlocked.
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
