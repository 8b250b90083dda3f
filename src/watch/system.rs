//! The seam between the control loop and its host: clock, cgroups, workers and events.
//!
//! In production it is the [kernel](super::kernel). In tests it is a simulated host with a clock
//! of its own, so that the loop itself, not a model of it, runs through years of trouble.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::config::rule::WatchError;
use super::policy::guard::Bounds;
use super::policy::refaults::Lru;
use super::policy::working_set::Activity;
use super::worker::{Done, LockableTarget, WriteJob};
use crate::cgroup::killers::Killers;
use crate::cgroup::limit::LimitFile;
use crate::cgroup::sampler::LimitEvents;
use crate::cgroup::stat::MemoryStat;
use crate::cgroup::{CgroupPath, Mount, Name};
use crate::host::disk_stat::DiskStat;
use crate::host::swap_areas::SwapSpace;
use crate::host::swap_summary::SwapSummary;
use crate::kind::Kind;

/// Id of an event that says that a worker has finished. Members have their slot as id, and
/// ancestors their cgroup id with the bit `ANCESTOR` set.
pub(crate) const DONE: u64 = u64::MAX;
/// Bit of an ancestor's id, see [`DONE`].
pub(crate) const ANCESTOR: u64 = 1 << 63;

/// Files of one cgroup, held open for sampling. `text` is a reusable buffer.
pub(crate) trait Sample: Debug {
    /// Returns the cgroup's id, which no other cgroup has while the host runs.
    fn id(&self) -> u64;

    /// Returns the cgroup's name.
    fn name(&self) -> &Name;

    /// Returns the owner of the cgroup's directory.
    fn owner(&self) -> u32;

    /// Reads `memory.current`, bytes.
    ///
    /// # Errors
    /// The kernel's: `ENODEV` when the cgroup was removed.
    fn current(&self, text: &mut String) -> Result<u64, Errno>;

    /// Reads the lower of `memory.high` and `memory.max`, bytes, if there is a limit.
    ///
    /// # Errors
    /// The kernel's: `ENODEV` or `ENOENT` when the cgroup was removed.
    fn limit(&self, text: &mut String) -> Result<Option<(u64, LimitFile)>, Errno>;

    /// Reads the larger of `memory.min` and `memory.low`, bytes.
    ///
    /// # Errors
    /// As for [`Sample::limit`].
    fn protection(&self, text: &mut String) -> Result<u64, Errno>;

    /// Reads the counts of limits met so far; `None` where they can't be read.
    fn hits(&self, text: &mut String) -> Option<LimitEvents>;

    /// Reads `memory.stat`.
    ///
    /// # Errors
    /// As for [`Sample::limit`].
    fn stat(&self, text: &mut String) -> Result<MemoryStat, Errno>;

    /// Reads `memory.swap.current`, bytes; `None` without swap, or without a controller for it.
    fn swapped(&self, text: &mut String) -> Option<u64>;

    /// Reads the `some` total of `memory.pressure`, microseconds; `None` where it can't be read.
    fn stalled(&self, text: &mut String) -> Option<u64>;

    /// Reads the `some` total of `io.pressure`, microseconds; `None` where it can't be read.
    fn waited(&self, text: &mut String) -> Option<u64>;

    /// Reads what shows whether its tasks run.
    fn activity(&self, text: &mut String) -> Activity;

    /// Reads the share of the last five minutes, from 0 to 1, for which tasks were stalled.
    fn pressure_before(&self, text: &mut String) -> Option<f64>;
}

/// A host, as a watch uses it.
pub(crate) trait System {
    /// Files of one cgroup, for sampling.
    type Sampler: Sample;
    /// A cgroup opened for reclaim.
    type Target: LockableTarget;
    /// A trigger for stalls, as long as it lives.
    type Trigger: Debug;

    /// Returns the monotonic time since some fixed moment.
    fn now(&self) -> Duration;

    /// Returns the CPU time that the whole process has used.
    fn cpu(&self) -> Duration;

    /// Waits. A signal may end it early.
    fn pause(&mut self, time: Duration);

    /// Returns the bytes by which the counters of `memory.stat` can lag behind.
    fn blind_spot(&self) -> u64;

    /// Opens the files of a cgroup.
    ///
    /// # Errors
    /// The kernel's: `ENOENT` where there is no such cgroup, `ESTALE` where another one has its
    /// path.
    fn open(&mut self, located: &CgroupPath) -> Result<Self::Sampler, Errno>;

    /// Returns the `most` nearest ancestors of a cgroup that could be found, the nearest first.
    fn above(&mut self, located: &CgroupPath, most: usize) -> Vec<CgroupPath>;

    /// Checks that memory can be reclaimed from a cgroup within such bounds: of that kind, and with
    /// the stalls in sight, if they are bounded. A dry run writes nothing for it.
    ///
    /// # Errors
    /// [`WatchError`], the reason why not.
    fn check(&mut self, located: &CgroupPath, bounds: &Bounds, dry_run: bool) -> Result<(), WatchError>;

    /// Reads which LRU the kernel uses: an administrator may switch it.
    fn lru(&self) -> Lru;

    /// Reads the state of the host's swap areas.
    fn swap_areas(&mut self) -> SwapSummary;

    /// Returns the counters of the disks with the areas that were read last; `None` if some aren't
    /// known, or are zram.
    fn swap_disks(&mut self) -> Option<DiskStat>;

    /// Returns the size of all swap; `None` if the system's figures can't be true.
    fn swap_space(&self) -> Option<SwapSpace>;

    /// Returns the memory swapped out since the host was started, bytes; `None` where it can't be
    /// read.
    fn swapped_out(&mut self) -> Option<u64>;

    /// Returns the memory of the host, bytes.
    fn memory(&self) -> u64;

    /// Returns the memory that kswapd scanned so far, bytes; `None` if unknown.
    fn kswapd_scanned(&mut self) -> Option<u64>;

    /// Returns whether the kernel can swap out memory of this cgroup for a request of that kind, as
    /// far as is known: there is room in swap below each `memory.swap.max`.
    fn can_swap(&mut self, located: &CgroupPath, kind: Kind) -> bool;

    /// Returns how often tasks had to reclaim the cgroup's memory in their own time so far; `None`
    /// if unknown.
    fn shortages(&mut self, located: &CgroupPath) -> Option<u64>;

    /// Begins a query for the cgroups that OOM killers monitor. Returns false if it can't.
    fn ask_killers(&mut self, mount: &Arc<Mount>) -> bool;

    /// Waits for the answer to the query for at most `timeout`.
    fn killers(&mut self, timeout: Duration) -> Answer;

    /// Reads `full` avg10 of a pressure file, hundredths of a percent; `None` where it can't be
    /// read.
    fn full_avg10(&mut self, file: &Path, text: &mut String) -> Option<u16>;

    /// Sets a trigger for stalls of a cgroup, with `id` for its events.
    ///
    /// # Errors
    /// The kernel's, as from [`crate::cgroup::trigger::Trigger::set`].
    fn set_trigger(&mut self, sampler: &Self::Sampler, id: u64) -> Result<Self::Trigger, Errno>;

    /// Listens to one limit event of a cgroup, until [`System::rearm`].
    fn listen(&mut self, sampler: &Self::Sampler, id: u64);

    /// Listens again after an event. An event that arrived meanwhile is reported at once.
    fn rearm(&mut self, sampler: &Self::Sampler, id: u64);

    /// Waits for events for at most `timeout`, and stores their ids in `ready`. A signal ends the
    /// wait early.
    fn wait(&mut self, timeout: Duration, ready: &mut Vec<u64>);

    /// Hands a job to a worker that is idle, or to a new one.
    ///
    /// # Errors
    /// The job, if no worker can be had.
    fn start(&mut self, job: WriteJob<Self::Target>) -> Result<(), WriteJob<Self::Target>>;

    /// Does a job in the calling thread, until `stop` returns true.
    fn run_here(&mut self, job: WriteJob<Self::Target>, stop: &dyn Fn() -> bool) -> Done<Self::Target>;

    /// Returns the next finished job.
    fn finished(&mut self) -> Option<Done<Self::Target>>;

    /// Lets no further write begin, and interrupts those in progress.
    fn stop(&mut self);

    /// Returns whether all workers have ended.
    fn has_ended(&self) -> bool;
}

/// Answer to the query for monitored cgroups.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The monitored cgroups.
    Known(Killers),
    /// The answer is still to come.
    Pending,
    /// There will be no answer.
    Lost,
}
