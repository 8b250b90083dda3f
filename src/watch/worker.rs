//! Workers that write to the kernel, so that a slow write delays no other cgroup.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;

use super::action::{Action, ActionResult, EndReason, Interrupt, LockedBy, lost};
use super::courtesy::Courtesy;
use super::hurry::Hurry;
use super::policy::guard::Allowed;
use super::policy::reuse::Anon;
use crate::cgroup::{CgroupPath, MemoryCgroup};
use crate::kind::{Kind, Swappiness};
use crate::reclaim::pool::Work;
use crate::reclaim::{Alarm, Pace, Target};

/// Stack size of a worker, bytes: workers need next to none.
pub(crate) const STACK: usize = 128 << 10;

/// A target with an advisory lock, which keeps two processes from reclaiming from it at once.
pub(crate) trait LockableTarget: Target {
    /// Takes the lock. A target without locks counts as unlocked.
    ///
    /// # Errors
    /// The holder, if another process holds the lock.
    fn lock(&mut self) -> Result<(), LockedBy>;

    /// Releases the lock.
    fn unlock(&mut self);
}

/// A target opened for reclaim, with the state learned about it.
#[derive(Debug)]
pub(crate) struct ReclaimHandle<T> {
    target: T,
    pace: Pace,
    courtesy: Courtesy,
    can_choose: bool,
    can_take_anon: bool,
}

/// A job for a worker.
#[derive(Debug)]
pub(crate) struct WriteJob<T> {
    /// Slot of the member.
    pub slot: usize,
    /// Cgroup id: the slot may belong to another member by the end of the job.
    pub id: u64,
    /// Path of the cgroup.
    pub located: Arc<CgroupPath>,
    /// Handle for reclaim, if it is open.
    pub handle: Option<Box<ReclaimHandle<T>>>,
    /// Target usage, and kind of memory.
    pub allowed: Allowed,
    /// True to respect the lock of another process.
    pub lock: bool,
    /// Set while others wait.
    pub hurry: Hurry,
}

/// Result of a job.
#[derive(Debug)]
pub(crate) struct Done<T> {
    /// See [`WriteJob::slot`].
    pub slot: usize,
    /// See [`WriteJob::id`].
    pub id: u64,
    /// See [`WriteJob::handle`].
    pub handle: Option<Box<ReclaimHandle<T>>>,
    /// Result of the action.
    pub result: ActionResult,
}

impl<T: LockableTarget> ReclaimHandle<T> {
    fn new(mut target: T) -> Self {
        let can_choose = target.accepts(Swappiness::Value(0)).unwrap_or(false);
        let can_take_anon = can_choose && target.accepts(Swappiness::Max).unwrap_or(false);
        let (pace, courtesy) = (Pace::new(can_choose, 0), Courtesy::default());
        Self { target, pace, courtesy, can_choose, can_take_anon }
    }

    /// Returns the target.
    #[must_use]
    pub(crate) fn target(&self) -> &T {
        &self.target
    }

    /// Returns whether the kernel can reclaim a chosen kind of memory.
    #[must_use]
    pub(crate) fn can_choose(&self) -> bool {
        self.can_choose
    }

    /// Returns how far the kernel prefers anonymous memory if asked to: takes it alone (since 6.16),
    /// or first.
    #[must_use]
    pub(crate) fn preference(&self) -> Anon {
        match (self.can_take_anon, self.can_choose) {
            (true, _) => Anon::Alone,
            (false, true) => Anon::First,
            (false, false) => Anon::Mixed,
        }
    }
}

impl<T: LockableTarget> WriteJob<T> {
    /// Begins the job: opens the target, unless it is open, and takes the lock.
    ///
    /// # Errors
    /// The result, if nothing can be written.
    pub(crate) fn begin(
        &mut self,
        open: impl FnOnce(&CgroupPath, u64) -> Result<T, Errno>,
    ) -> Result<Action, ActionResult> {
        if self.handle.is_none() {
            let target = open(&self.located, self.id).map_err(|errno| ActionResult::nothing(lost(errno)))?;
            self.handle = Some(Box::new(ReclaimHandle::new(target)));
        }
        let Some(handle) = &mut self.handle else { return Err(ActionResult::nothing(EndReason::Removed)) };
        if self.allowed.kind != Kind::All && !handle.can_choose {
            // The kernel's ability is known now, so the next decision will find a guard for it.
            let current = handle.target.usage().map_err(|errno| ActionResult::nothing(lost(errno)))?;
            return Err(ActionResult { current, ..ActionResult::nothing(EndReason::Slice) });
        }
        if self.lock {
            handle.target.lock().map_err(|by| ActionResult::nothing(EndReason::Locked(by)))?;
        }
        let Allowed { down_to, most, kind, .. } = self.allowed;
        Ok(Action::begin(&mut handle.target, down_to, most, kind.swappiness()))
    }

    /// Writes once. Returns false when the action is over.
    pub(crate) fn write(&mut self, action: &mut Action, stop: &dyn Fn() -> bool, alarm: Alarm) -> bool {
        let Some(handle) = &mut self.handle else { return false };
        let early = Interrupt { stop, alarm: self.allowed.waits.then_some(alarm), hurry: &self.hurry };
        action.write(&mut handle.target, (&mut handle.pace, &mut handle.courtesy), &early)
    }

    /// Ends the job.
    pub(crate) fn end(mut self, result: ActionResult) -> Done<T> {
        if self.lock && !matches!(result.end, EndReason::Locked(_)) {
            self.handle.iter_mut().for_each(|handle| handle.target.unlock());
        }
        Done { slot: self.slot, id: self.id, handle: self.handle, result }
    }
}

/// Runs a job in the calling thread, until `stop` returns true.
pub(crate) fn serve<T: LockableTarget>(
    mut job: WriteJob<T>,
    open: impl FnOnce(&CgroupPath, u64) -> Result<T, Errno>,
    stop: &dyn Fn() -> bool,
    alarm: Alarm,
) -> Done<T> {
    let result = match job.begin(open) {
        Ok(mut action) => {
            while job.write(&mut action, stop, alarm) {}
            action.result()
        }
        Err(result) => result,
    };
    job.end(result)
}

/// The work of the pool's threads.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    /// Interrupts the calling thread's own system call after a time.
    pub alarm: OnceLock<Alarm>,
}

impl Worker {
    /// Returns the alarm; without one, a function that does nothing.
    pub(crate) fn alarm(&self) -> Alarm {
        self.alarm.get().copied().unwrap_or(|_| {})
    }
}

impl Work for Worker {
    type Job = WriteJob<MemoryCgroup>;
    type Event = Infallible;
    type Done = Done<MemoryCgroup>;

    fn run(
        &self,
        _: usize,
        job: Self::Job,
        stop: &dyn Fn() -> bool,
        _: &mut dyn FnMut(Infallible),
    ) -> Self::Done {
        serve(job, open, stop, self.alarm())
    }
}

/// Opens a cgroup for reclaim.
///
/// # Errors
/// `ENODEV` if the cgroup is gone, or another one has its path; otherwise the kernel's error.
pub(crate) fn open(located: &CgroupPath, id: u64) -> Result<MemoryCgroup, Errno> {
    let target = MemoryCgroup::reopen(located)?;
    if target.cgroup().id()? == id { Ok(target) } else { Err(Errno::NODEV) }
}

impl LockableTarget for MemoryCgroup {
    fn lock(&mut self) -> Result<(), LockedBy> {
        // A file system without locks counts as unlocked.
        if self.cgroup().try_lock() != Ok(false) {
            return Ok(());
        }
        let holder = self.cgroup().lock_holder();
        // The lock may have been released during the search for its holder.
        match self.cgroup().try_lock() {
            Ok(false) => Err(LockedBy {
                pid: holder.pid,
                is_honoured: holder.is_honoured(rustix::process::geteuid().as_raw()),
            }),
            Ok(true) | Err(_) => Ok(()),
        }
    }

    fn unlock(&mut self) {
        self.cgroup().unlock();
    }
}
