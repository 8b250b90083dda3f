//! The real host of a watch: the kernel's files, an epoll, and a pool of writing threads.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::Errno;

use super::config::rule::WatchError;
use super::policy::guard::Bounds;
use super::policy::refaults::Lru;
use super::policy::working_set::Activity;
use super::poller::Poller;
use super::system::{Answer, DONE, Sample, System};
use super::worker::{Done, STACK, Worker, WriteJob, open, serve};
use crate::cgroup::error::CgroupError;
use crate::cgroup::killers::Killers;
use crate::cgroup::limit::LimitFile;
use crate::cgroup::memory::blind_spot;
use crate::cgroup::sampler::LimitEvents;
use crate::cgroup::shortages::shortages;
use crate::cgroup::stat::MemoryStat;
use crate::cgroup::swap_room::SwapRoom;
use crate::cgroup::trigger::Trigger;
use crate::cgroup::{CgroupPath, MemoryCgroup, Mount, Name, Sampler, pressure};
use crate::clock;
use crate::host::Mglru;
use crate::host::disk_stat::DiskStat;
use crate::host::files::{is_shortage, may_stay_open};
use crate::host::proc::{memory_total, swappiness};
use crate::host::swap_areas::{SwapAreas, SwapSpace};
use crate::host::swap_summary::SwapSummary;
use crate::host::vmstat::HostCounters;
use crate::kind::Kind;
use crate::reclaim::pool::{Message, Pool};
use crate::reclaim::{Alarm, Goal, Request};
use crate::size::Amount;

/// Maximum number of worker threads. As many are used as jobs run at the same time, and hardly ever
/// more than [`super::dispatcher::Dispatcher`] lets run.
pub(crate) const MAX_WORKERS: usize = 16;

/// Id of the event that says that a signal arrived.
const SIGNAL: u64 = DONE - 1;

/// Stack size of the thread that queries killers, bytes: room for a child process, and little more.
const KILLERS_STACK: usize = 256 << 10;

/// The real host.
pub(crate) struct Kernel {
    poller: Poller,
    pool: Pool<Worker>,
    nudge: fn(&JoinHandle<()>),
    signals: Option<BorrowedFd<'static>>,
    counters: HostCounters,
    memory: u64,
    /// Directories in sysfs of the disks with swap areas; `None` if some aren't known, or are zram.
    swap_disks: Option<Vec<PathBuf>>,
    killers: Option<Receiver<Killers>>,
    blind_spot: u64,
}

impl Kernel {
    /// Creates the access to this host.
    ///
    /// # Errors
    /// The system's, if there can be neither an epoll nor an eventfd.
    pub(crate) fn new() -> std::io::Result<Self> {
        let pool = Pool::new(Worker::default(), MAX_WORKERS, MAX_WORKERS)?.with_stack(STACK);
        let poller = Poller::new()?;
        poller.while_readable(pool.arrived().as_fd(), DONE)?;
        Ok(Self {
            poller,
            pool,
            nudge: |_| {},
            signals: None,
            counters: HostCounters::default(),
            memory: memory_total(),
            swap_disks: None,
            killers: None,
            blind_spot: blind_spot(),
        })
    }

    /// Sets the functions that interrupt the system calls of other threads, and of the calling
    /// thread after a time; and the descriptor that becomes readable when a signal arrives.
    pub(crate) fn set_signals(
        &mut self,
        nudge: fn(&JoinHandle<()>),
        alarm: Alarm,
        signals: Option<BorrowedFd<'static>>,
    ) {
        (self.nudge, self.signals) = (nudge, signals);
        if let Some(signals) = signals {
            // Without it, a signal that arrives just before a wait is noticed after the wait.
            let _ = self.poller.while_readable(signals, SIGNAL);
        }
        // Set once; a second watch with the same workers doesn't exist.
        let _ = self.pool.work().alarm.set(alarm);
    }
}

impl System for Kernel {
    type Sampler = Sampler;
    type Target = MemoryCgroup;
    type Trigger = Trigger;

    fn now(&self) -> Duration {
        clock::now()
    }

    fn cpu(&self) -> Duration {
        clock::process_cpu()
    }

    fn pause(&mut self, time: Duration) {
        clock::pause(time);
    }

    fn blind_spot(&self) -> u64 {
        self.blind_spot
    }

    fn open(&mut self, located: &CgroupPath) -> Result<Sampler, Errno> {
        let sampler = Sampler::open(located)?;
        if may_stay_open(sampler.descriptors()) { Ok(sampler) } else { Err(Errno::MFILE) }
    }

    fn above(&mut self, located: &CgroupPath, most: usize) -> Vec<CgroupPath> {
        located.above().take(most).collect()
    }

    fn check(&mut self, located: &CgroupPath, bounds: &Bounds, dry_run: bool) -> Result<(), WatchError> {
        // The reason isn't looked for: in a deep hierarchy that takes hundreds of system calls for
        // each cgroup, and its owner can make a thousand.
        let mut target = MemoryCgroup::reopen(located).map_err(|errno| match errno {
            errno if is_shortage(errno) => WatchError::Errno(errno),
            errno => WatchError::Cgroup(CgroupError::io(&located.path, &errno.into())),
        })?;
        let request = Request {
            max_pressure: bounds.max_pressure,
            ..Request::new(Goal::Reclaim(Amount::Max), bounds.kind.unwrap_or_default())
        };
        let check = if dry_run { Request::check_without_a_write } else { Request::check };
        Ok(check(&request, &mut target)?)
    }

    fn lru(&self) -> Lru {
        if Mglru::is_on() { Lru::Generations } else { Lru::Classic }
    }

    fn swap_areas(&mut self) -> SwapSummary {
        let areas = SwapAreas::read();
        self.swap_disks = areas.disk_dirs();
        SwapSummary::of(&areas)
    }

    fn swap_disks(&mut self) -> Option<DiskStat> {
        let mut all = self.swap_disks.as_ref()?.iter().map(|dir| DiskStat::read(dir));
        all.try_fold(DiskStat::default(), |sum, disk| Some(sum.plus(disk?)))
    }

    fn swap_space(&self) -> Option<SwapSpace> {
        SwapSpace::read()
    }

    fn swapped_out(&mut self) -> Option<u64> {
        self.counters.swapped_out()
    }

    fn memory(&self) -> u64 {
        self.memory
    }

    fn kswapd_scanned(&mut self) -> Option<u64> {
        self.counters.kswapd_scanned()
    }

    fn can_swap(&mut self, located: &CgroupPath, kind: Kind) -> bool {
        /// Room that counts, bytes: some pages are freed all the time.
        const MIN_ROOM: u64 = 1 << 20;
        let is_off = kind == Kind::All && swappiness() == Some(0);
        !is_off && SwapRoom::of(&located.path, &located.mount).is_none_or(|room| room.bytes >= MIN_ROOM)
    }

    fn shortages(&mut self, located: &CgroupPath) -> Option<u64> {
        shortages(located)
    }

    fn ask_killers(&mut self, mount: &Arc<Mount>) -> bool {
        let (sender, receiver) = sync_channel(1);
        let mount = Arc::clone(mount);
        let thread = std::thread::Builder::new().name("killers".into()).stack_size(KILLERS_STACK);
        let is_asking = thread.spawn(move || sender.send(Killers::ask(&mount))).is_ok();
        self.killers = is_asking.then_some(receiver);
        is_asking
    }

    fn killers(&mut self, timeout: Duration) -> Answer {
        let Some(receiver) = &self.killers else { return Answer::Lost };
        match receiver.recv_timeout(timeout) {
            Ok(killers) => {
                self.killers = None;
                Answer::Known(killers)
            }
            Err(RecvTimeoutError::Timeout) => Answer::Pending,
            Err(RecvTimeoutError::Disconnected) => {
                self.killers = None;
                Answer::Lost
            }
        }
    }

    fn full_avg10(&mut self, file: &Path, text: &mut String) -> Option<u16> {
        pressure::full_avg10(file, text)
    }

    fn set_trigger(&mut self, sampler: &Sampler, id: u64) -> Result<Trigger, Errno> {
        let trigger = Trigger::set(sampler.cgroup())?;
        if !may_stay_open([trigger.as_fd()].into_iter()) {
            return Err(Errno::MFILE);
        }
        self.poller.each_time(trigger.as_fd(), id);
        Ok(trigger)
    }

    fn listen(&mut self, sampler: &Sampler, id: u64) {
        sampler.events().into_iter().for_each(|events| self.poller.once(events, id));
    }

    fn rearm(&mut self, sampler: &Sampler, id: u64) {
        sampler.events().into_iter().for_each(|events| self.poller.rearm(events, id));
    }

    fn wait(&mut self, timeout: Duration, ready: &mut Vec<u64>) {
        self.poller.wait(timeout, ready);
        let mut count = [0; 8];
        if ready.contains(&DONE) {
            let _ = rustix::io::read(self.pool.arrived(), &mut count);
        }
        if let Some(signals) = self.signals
            && ready.contains(&SIGNAL)
        {
            let _ = rustix::io::read(signals, &mut count);
            ready.retain(|&id| id != SIGNAL);
        }
    }

    fn start(&mut self, job: WriteJob<MemoryCgroup>) -> Result<(), WriteJob<MemoryCgroup>> {
        self.pool.give(job)
    }

    fn run_here(&mut self, job: WriteJob<MemoryCgroup>, stop: &dyn Fn() -> bool) -> Done<MemoryCgroup> {
        kept(serve(job, open, stop, self.pool.work().alarm()))
    }

    fn finished(&mut self) -> Option<Done<MemoryCgroup>> {
        self.pool.take().map(|message| match message {
            Message::Done(done) => kept(done),
        })
    }

    fn stop(&mut self) {
        self.pool.stop();
        self.pool.nudge(self.nudge, |_| true);
    }

    fn has_ended(&self) -> bool {
        self.pool.has_ended()
    }
}

/// Closes the files of a finished job, where descriptors are short: they are opened anew for the
/// next one.
fn kept(mut done: Done<MemoryCgroup>) -> Done<MemoryCgroup> {
    done.handle.take_if(|handle| !may_stay_open(handle.target().descriptors()));
    done
}

impl Sample for Sampler {
    fn id(&self) -> u64 {
        Self::id(self)
    }

    fn name(&self) -> &Name {
        self.cgroup().name()
    }

    fn owner(&self) -> u32 {
        Self::owner(self)
    }

    fn current(&self, text: &mut String) -> Result<u64, Errno> {
        Self::current(self, text)
    }

    fn limit(&self, text: &mut String) -> Result<Option<(u64, LimitFile)>, Errno> {
        Self::limit(self, text)
    }

    fn protection(&self, text: &mut String) -> Result<u64, Errno> {
        Self::protection(self, text)
    }

    fn hits(&self, text: &mut String) -> Option<LimitEvents> {
        Self::hits(self, text)
    }

    fn stat(&self, text: &mut String) -> Result<MemoryStat, Errno> {
        Self::stat(self, text)
    }

    fn swapped(&self, text: &mut String) -> Option<u64> {
        Self::swapped(self, text)
    }

    fn stalled(&self, text: &mut String) -> Option<u64> {
        Self::stalled(self, text)
    }

    fn waited(&self, text: &mut String) -> Option<u64> {
        Self::waited(self, text)
    }

    fn activity(&self, text: &mut String) -> Activity {
        Activity { is_frozen: self.is_frozen(text), cpu: self.cpu(text).map(Duration::from_micros) }
    }

    fn pressure_before(&self, text: &mut String) -> Option<f64> {
        Self::pressure_before(self, text)
    }
}
