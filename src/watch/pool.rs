//! The workers who write, so that a write that takes its time delays no other cgroup.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::act::{Acted, Alarm, Early, End, act, lost};
use super::guard::{Allowed, Take};
use crate::cgroup::reclaim::Swappiness;
use crate::cgroup::{Located, MemoryCgroup};
use crate::reclaim::Pace;

/// A worker needs next to no stack.
const STACK: usize = 128 << 10;

/// What a cgroup is reclaimed from through.
#[derive(Debug)]
pub struct Hands {
    target: MemoryCgroup,
    pace: Pace,
    /// Whether the kernel can be told which memory to take.
    pub can_choose: bool,
}

/// What is to be done.
#[derive(Debug)]
pub struct Job {
    /// The cgroup's place in the fleet.
    pub place: usize,
    /// Its id: the place may be another's by the time it is done.
    pub id: u64,
    /// Where it is.
    pub located: Arc<Located>,
    /// What it is reclaimed from through, if that is open.
    pub hands: Option<Box<Hands>>,
    /// To which usage, and which memory.
    pub allowed: Allowed,
    /// Whether to keep off while another memctl is at it.
    pub lock: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Done {
    /// See [`Job::place`].
    pub place: usize,
    /// See [`Job::id`].
    pub id: u64,
    /// See [`Job::hands`].
    pub hands: Option<Box<Hands>>,
    /// What came of it.
    pub acted: Acted,
}

#[derive(Debug, Default)]
struct Queues {
    jobs: VecDeque<Job>,
    done: VecDeque<Done>,
}

#[derive(Debug)]
struct Shared {
    queues: Mutex<Queues>,
    more: Condvar,
    stop: AtomicBool,
    alarm: Alarm,
    /// Tells the control loop that something is done.
    bell: OwnedFd,
}

/// The workers.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    /// Begun when there is something to do for them.
    threads: Vec<JoinHandle<()>>,
    workers: usize,
    /// Jobs given out whose end wasn't heard of yet.
    pub under_way: usize,
}

impl Pool {
    /// So many of them, for up to so many cgroups.
    ///
    /// # Errors
    /// The system's, if there can't be threads.
    pub fn new(workers: usize, cgroups: usize, alarm: Alarm) -> std::io::Result<Self> {
        let queues =
            Queues { jobs: VecDeque::with_capacity(cgroups), done: VecDeque::with_capacity(cgroups) };
        let shared = Arc::new(Shared {
            queues: Mutex::new(queues),
            more: Condvar::new(),
            stop: AtomicBool::new(false),
            alarm,
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        Ok(Self { threads: Vec::with_capacity(workers), shared, workers, under_way: 0 })
    }

    /// How many they are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// What becomes readable when something is done.
    #[must_use]
    pub fn bell(&self) -> &OwnedFd {
        &self.shared.bell
    }

    /// Gives out a job.
    ///
    /// # Errors
    /// The system's, if there can't be a thread for it.
    pub fn give(&mut self, job: Job) -> std::io::Result<()> {
        if self.under_way >= self.threads.len() && self.threads.len() < self.workers {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("reclaim".into()).stack_size(STACK);
            self.threads.push(thread.spawn(move || shared.work())?);
        }
        self.under_way += 1;
        self.shared.lock().jobs.push_back(job);
        self.shared.more.notify_one();
        Ok(())
    }

    /// What came of one that is done.
    pub fn take(&mut self) -> Option<Done> {
        let done = self.shared.lock().done.pop_front()?;
        self.under_way -= 1;
        Some(done)
    }

    /// From now on nothing is begun, and what is under way ends after the write in flight. `nudge` interrupts the system
    /// call that a thread is in.
    pub fn stop(&self, nudge: fn(&JoinHandle<()>)) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.more.notify_all();
        self.threads.iter().for_each(nudge);
    }

    /// Whether all of them have ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(mut job) = self.next() {
            let acted = serve(&mut job, &|| self.stop.load(Ordering::Relaxed), self.alarm);
            let Job { place, id, hands, .. } = job;
            self.lock().done.push_back(Done { place, id, hands, acted });
            // A counter that is full rings already.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queues = self.lock();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(job) = queues.jobs.pop_front() {
                return Some(job);
            }
            queues = self.more.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Does a job in the calling thread, until `stop` says so.
pub fn serve(job: &mut Job, stop: &dyn Fn() -> bool, alarm: Alarm) -> Acted {
    if job.hands.is_none() {
        job.hands = match Hands::open(&job.located, job.id) {
            Ok(hands) => Some(Box::new(hands)),
            Err(errno) => return Acted::nothing(lost(errno)),
        };
    }
    let Some(hands) = &mut job.hands else { return Acted::nothing(End::Removed) };
    let Hands { target, pace, can_choose } = &mut **hands;
    let chooses = matches!(job.allowed.take, Take::File | Take::Anon | Take::Weighed(_));
    if chooses && !*can_choose {
        // Now that it is known, whoever decides will find a guard for it.
        let current = target.usage().unwrap_or(0);
        return Acted { current, ..Acted::nothing(End::Stopped) };
    }
    let swappiness = match job.allowed.take {
        Take::All | Take::Careful => None,
        Take::File => Some(Swappiness::Value(0)),
        Take::Anon => Some(Swappiness::Max),
        Take::Weighed(swappiness) => Some(swappiness),
    };
    // A file system without locks is as good as an unlocked one.
    if job.lock && target.cgroup().try_lock() == Ok(false) {
        return Acted::nothing(End::Locked);
    }
    let early = Early { stop, alarm: job.allowed.waits.then_some(alarm) };
    let acted = act(target, pace, job.allowed.down_to, swappiness, &early);
    if job.lock {
        target.cgroup().unlock();
    }
    acted
}

impl Hands {
    fn open(located: &Located, id: u64) -> Result<Self, Errno> {
        let mut target = MemoryCgroup::open(located).map_err(|_| Errno::NODEV)?;
        // Another cgroup may have taken the name.
        if target.cgroup().id()? != id {
            return Err(Errno::NODEV);
        }
        let can_choose = target.accepts(Swappiness::Value(0)).unwrap_or(false);
        Ok(Self { target, pace: Pace::new(can_choose, 0), can_choose })
    }
}
