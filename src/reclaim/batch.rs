//! A batch of requests at the same time: threads that write, and the calling thread, which waits
//! for the threads.
//!
//! Each request is written by a thread that does nothing else meanwhile. The calling thread gives
//! out the requests in the order of a [`Scheduler`], emits the events of the threads, and
//! interrupts their writes after a signal or when their time is up.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::pool::{Message, Pool, Work};
use super::{Activity, OpenTarget, RecentStalls, Report, Request, RequestEvent, run_after};
use crate::cgroup::{CgroupPath, Name};
use crate::clock::timespec;
use crate::host::LockHolder;

mod lock;
pub mod scheduler;
pub mod settle;
pub mod total;

use lock::LockWaits;
pub use scheduler::{Completed, InOrder, NextJob, Scheduler};
pub use settle::Watched;
pub use total::Total;

/// Interval between checks for a signal.
const TICK: Duration = Duration::from_millis(20);

/// Time after a signal from which a write that is still in flight is reported.
const WRITE_TIMEOUT: Duration = Duration::from_millis(200);

/// One request to one cgroup or node.
#[derive(Debug)]
pub struct Job {
    /// The cgroup or node.
    pub place: OpenTarget,
    /// The request.
    pub request: Request,
    /// True to lock the cgroup against other memctl processes during the request.
    pub lock: bool,
    /// Two samples of the cgroup from before the request, if refaults are watched afterwards.
    pub usual: Option<(Activity, Activity)>,
    /// Stalls during earlier requests to the cgroup.
    pub stalls: RecentStalls,
}

/// Results of all requests.
#[derive(Debug)]
pub struct Outcomes {
    /// Outcome of each cgroup, in the order of the jobs.
    pub each: Vec<Outcome>,
    /// Cgroups to watch after the requests, in the same order.
    pub watched: Vec<Option<Box<Watched>>>,
    /// Report on all cgroups together, if one total was requested.
    pub total: Option<Report>,
}

/// Result of the requests to one cgroup or node.
#[derive(Debug)]
pub struct Outcome {
    /// Name of the cgroup or node.
    pub name: Name,
    /// Directory of the cgroup or node.
    pub path: PathBuf,
    /// Where the cgroup was found; `None` for a node.
    pub located: Option<CgroupPath>,
    /// Report, or an error if the request never began.
    pub report: Result<Report, Errno>,
}

impl Outcome {
    /// Creates the outcome of a job whose thread hasn't returned.
    #[must_use]
    pub(crate) fn pending(place: &OpenTarget) -> Self {
        Self {
            name: place.name().clone(),
            path: place.path().to_path_buf(),
            located: place.located().cloned(),
            report: Err(Errno::CANCELED),
        }
    }
}

/// Events while requests are under way. Indices are those of the cgroups.
#[derive(Clone, Debug)]
pub enum Progress {
    /// A step of one request.
    Step(usize, RequestEvent),
    /// Another process holds the lock on the cgroup. The request begins all the same.
    Locked(usize, LockHolder),
    /// A request is over; `is_last` if it was the cgroup's last.
    Completed {
        /// Index of the cgroup.
        index: usize,
        /// True if the cgroup gets no further request.
        is_last: bool,
    },
    /// A clock tick: time passed without any other event.
    Tick,
    /// A signal arrived: requests under way are cut short. Emitted once.
    Stopping,
    /// The kernel hasn't returned yet, after a signal, from a write of this many bytes.
    InFlight(u64),
}

/// Settings and callbacks of a batch.
pub struct BatchOptions<'a> {
    /// Number of requests under way at the same time.
    pub parallel: usize,
    /// True to emit an event for each step.
    pub steps: bool,
    /// Returns whether to stop.
    pub stop: fn() -> bool,
    /// Interrupts the system call that a thread is in.
    pub nudge: fn(&JoinHandle<()>),
    /// Receives the events.
    pub emit: &'a mut dyn FnMut(Progress),
}

/// An event of a writing thread.
#[derive(Debug)]
enum Step {
    Event(usize, RequestEvent),
    Locked(usize, LockHolder),
}

impl From<Step> for Progress {
    fn from(step: Step) -> Self {
        match step {
            Step::Event(index, event) => Self::Step(index, event),
            Step::Locked(index, holder) => Self::Locked(index, holder),
        }
    }
}

/// State of a writing thread, shared with the calling thread.
#[derive(Debug, Default)]
struct Thread {
    /// Bytes that the write in flight asked for, or 0.
    in_flight: AtomicU64,
    /// End of the request's time, in microseconds since the beginning, or 0.
    deadline: AtomicU64,
}

/// The work of the threads.
#[derive(Debug)]
struct Writers {
    threads: Vec<Thread>,
    steps: bool,
    stop: fn() -> bool,
    locks: LockWaits,
    began: Instant,
}

/// Serves all requests of a scheduler. After a signal, requests under way are cut short, and the
/// rest ends at once. Where no thread can be started, the calling thread serves the requests.
///
/// # Errors
/// The system's, if no eventfd can be created. No request was begun.
pub fn run(scheduler: impl Scheduler, options: &mut BatchOptions<'_>) -> std::io::Result<Outcomes> {
    let threads = options.parallel.clamp(1, scheduler.cgroups().max(1));
    let writers = Writers {
        threads: (0..threads).map(|_| Thread::default()).collect(),
        steps: options.steps,
        stop: options.stop,
        locks: LockWaits::new(),
        began: Instant::now(),
    };
    Ok(serve(Pool::new(writers, threads, threads)?, scheduler, options))
}

/// Serves all requests of a scheduler with a pool.
fn serve(mut pool: Pool<Writers>, mut scheduler: impl Scheduler, options: &mut BatchOptions<'_>) -> Outcomes {
    let mut stopping: Option<Instant> = None;
    let mut is_told = false;
    loop {
        while pool.under_way() < pool.size()
            && let NextJob::Serve(index, job) = scheduler.next()
        {
            if let Err(job) = pool.give((index, job)) {
                serve_here(pool.work(), job, &mut scheduler, options);
            }
        }
        if (options.stop)() && stopping.is_none() {
            stopping = Some(Instant::now());
            (options.emit)(Progress::Stopping);
        }
        if pool.under_way() == 0 || pool.has_ended() {
            break;
        }
        // Repeated at each tick: a nudge that comes just before the write would be lost.
        pool.nudge(options.nudge, |thread| stopping.is_some() || pool.work().is_late(thread));
        if !receive(&mut pool, &mut scheduler, options.emit) {
            (options.emit)(Progress::Tick);
        }
        let is_overdue = stopping.is_some_and(|since| since.elapsed() >= WRITE_TIMEOUT);
        if let Some(bytes) = pool.work().in_flight().filter(|_| is_overdue && !is_told) {
            is_told = true;
            (options.emit)(Progress::InFlight(bytes));
        }
    }
    pool.stop();
    pool.join();
    scheduler.outcomes()
}

/// Serves a request in the calling thread, whose writes a signal interrupts by itself.
fn serve_here(
    writers: &Writers,
    job: (usize, Box<Job>),
    scheduler: &mut impl Scheduler,
    options: &mut BatchOptions<'_>,
) {
    let completed = writers.run(0, job, &|| false, &mut |step| (options.emit)(step.into()));
    let index = completed.index;
    (options.emit)(Progress::Completed { index, is_last: scheduler.completed(completed) });
}

/// Waits for messages for at most [`TICK`], and takes all that have arrived. Returns whether there
/// were any.
fn receive(pool: &mut Pool<Writers>, scheduler: &mut impl Scheduler, emit: &mut dyn FnMut(Progress)) -> bool {
    let mut arrived = [PollFd::new(pool.arrived(), PollFlags::IN)];
    // A signal ends the poll early, and is checked next.
    let _ = poll(&mut arrived, Some(&timespec(TICK)));
    let _ = rustix::io::read(pool.arrived(), &mut [0; 8]);
    let mut any = false;
    while let Some(message) = pool.take() {
        any = true;
        emit(match message {
            Message::Event(step) => step.into(),
            Message::Done(completed) => {
                let index = completed.index;
                Progress::Completed { index, is_last: scheduler.completed(completed) }
            }
        });
    }
    any
}

impl Work for Writers {
    type Job = (usize, Box<Job>);
    type Event = Step;
    type Done = Completed;

    fn run(
        &self,
        thread: usize,
        (index, mut job): (usize, Box<Job>),
        _: &dyn Fn() -> bool,
        emit: &mut dyn FnMut(Step),
    ) -> Completed {
        let thread = &self.threads[thread];
        if std::mem::take(&mut job.lock)
            && let Err(holder) = self.take_lock(&mut job)
        {
            emit(Step::Locked(index, holder));
        }
        if let Some(timeout) = job.request.timeout {
            let deadline = (self.began.elapsed() + timeout).as_micros() as u64;
            thread.deadline.store(deadline.max(1), Ordering::Relaxed);
        }
        let Job { place, request, stalls, .. } = &mut *job;
        let report = run_after(place.target(), request, stalls, &self.stop, &mut |event| {
            let asked = if let RequestEvent::Asking { bytes } = event { bytes } else { 0 };
            thread.in_flight.store(asked, Ordering::Relaxed);
            if self.steps {
                emit(Step::Event(index, event));
            }
        });
        thread.deadline.store(0, Ordering::Relaxed);
        let ended = job.usual.as_ref().and_then(|_| Activity::of(job.place.target()).ok());
        Completed { index, job: *job, report, ended }
    }
}

impl Writers {
    /// Acquires the lock, or gives up on it. The wait counts towards the timeout, of which at least
    /// half is left.
    fn take_lock(&self, job: &mut Job) -> Result<(), LockHolder> {
        let began = Instant::now();
        let most = job.request.timeout.map_or(Duration::MAX, |timeout| timeout / 2);
        let taken = self.locks.acquire(&job.place, most, self.stop);
        job.request.timeout = job.request.timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
        taken
    }

    fn is_late(&self, thread: usize) -> bool {
        let deadline = self.threads[thread].deadline.load(Ordering::Relaxed);
        deadline > 0 && self.began.elapsed().as_micros() as u64 >= deadline
    }

    /// Returns the bytes that the largest write in flight asked for, if there is one.
    fn in_flight(&self) -> Option<u64> {
        let most = self.threads.iter().map(|thread| thread.in_flight.load(Ordering::Relaxed)).max();
        most.filter(|&bytes| bytes > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;
    use crate::node::Node;
    use crate::reclaim::Goal;
    use crate::size::Amount;

    /// Makes a directory of a node whose memory can be requested, and never shrinks.
    fn job(nodes: &tempfile::TempDir, number: u32) -> Job {
        let dir = nodes.path().join(format!("node{number}"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("reclaim"), "").unwrap();
        std::fs::write(dir.join("meminfo"), format!("Node {number} MemUsed: 1048576 kB\n")).unwrap();
        std::fs::write(dir.join("vmstat"), "nr_inactive_file 1000\nnr_active_file 24\n").unwrap();
        Job {
            place: OpenTarget::Node(Box::new(Node::open_below(nodes.path(), number).unwrap())),
            request: Request {
                timeout: Some(Duration::from_millis(100)),
                ..Request::new(Goal::Reclaim(Amount::Bytes(4096)), Kind::All)
            },
            lock: true,
            usual: None,
            stalls: RecentStalls::default(),
        }
    }

    #[test]
    fn without_threads_the_calling_one_serves_all_requests() {
        let nodes = tempfile::tempdir().unwrap();
        let jobs = (0..3).map(|number| job(&nodes, number)).collect();
        let (mut asked, mut completed) = (0, Vec::new());
        let mut emit = |progress| match progress {
            Progress::Step(_, RequestEvent::Asked { .. }) => asked += 1,
            Progress::Completed { index, is_last: true } => completed.push(index),
            _ => {}
        };
        let mut options =
            BatchOptions { parallel: 2, steps: true, stop: || false, nudge: |_| {}, emit: &mut emit };
        let writers = Writers {
            threads: (0..2).map(|_| Thread::default()).collect(),
            steps: true,
            stop: || false,
            locks: LockWaits::new(),
            began: Instant::now(),
        };
        let pool = Pool::new(writers, 2, 2).unwrap();
        let pool = pool.with_spawn(|_, _| Err(std::io::ErrorKind::WouldBlock.into()));
        let outcomes = serve(pool, InOrder::new(jobs), &mut options);
        assert_eq!(completed, [0, 1, 2]);
        let chunks = outcomes.each.iter().map(|outcome| outcome.report.as_ref().unwrap().chunks);
        assert_eq!(chunks.sum::<u32>(), asked);
    }
}
