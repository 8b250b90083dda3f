//! Several requests at the same time: threads that reclaim, and one that waits for them.
//!
//! The kernel looks at signals of the writing thread only, so each request is written by a thread of its own that does
//! nothing else, and the waiting thread passes on to it what has to end its write: a signal, the end of its time.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use memctl::cgroup::MemoryCgroup;
use memctl::reclaim::{self, Activity, Event, Report, Request};
use rustix::io::Errno;

use super::settle::Watched;
use crate::output::progress::Progress;
use crate::output::{Loudness, notes};
use crate::signal;

/// How often the waiting thread looks for a signal and draws.
const LOOK: Duration = Duration::from_millis(20);

/// How long after a signal a write may stay in flight before that is worth a word.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long to wait for another memctl on the same cgroup, and how often to look.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_LOOK: Duration = Duration::from_millis(20);

/// One request to one cgroup.
pub struct Job {
    pub cgroup: MemoryCgroup,
    pub request: Request,
    /// Whether to keep other memctl off the cgroup meanwhile.
    pub lock: bool,
    /// Two looks at the cgroup, if it is to be watched for what comes back.
    pub usual: Option<(Activity, Activity)>,
}

/// What came of it.
pub struct Outcome {
    pub name: String,
    pub path: PathBuf,
    /// An error only if nothing was begun.
    pub report: Result<Report, Errno>,
    /// The cgroup, if it is to be watched on.
    pub watched: Option<Box<Watched>>,
}

/// A request that is over.
struct Done {
    report: Result<Report, Errno>,
    watched: Option<Box<Watched>>,
}

/// What a reclaiming thread tells the waiting one.
enum Told {
    Event(usize, Event),
    Locked(usize),
    Done(usize, Box<Done>),
}

/// What all threads share.
struct Shared {
    jobs: Vec<Mutex<Option<Job>>>,
    next: AtomicUsize,
    /// Whether anybody wants to hear of every step.
    heard: bool,
    began: Instant,
    threads: Vec<Thread>,
}

/// What a reclaiming thread is doing, for the waiting one to see.
#[derive(Default)]
struct Thread {
    /// The bytes that its write in flight asked for, or 0.
    in_flight: AtomicU64,
    /// When its request's time is up, in milliseconds since the beginning, or 0.
    deadline: AtomicU64,
}

/// Serves all requests, `parallel` of them at a time, and gives the outcomes in the order of the requests. After a
/// signal what is under way is cut short, and the rest is not begun.
pub fn serve(jobs: Vec<Job>, parallel: usize, loudness: Loudness) -> Result<Vec<Outcome>> {
    let mut outcomes: Vec<_> = jobs.iter().map(Outcome::pending).collect();
    let names: Vec<_> = outcomes.iter().map(|outcome| outcome.name.clone()).collect();
    let mut progress = Progress::new(&names, loudness.progress());
    let threads = parallel.clamp(1, jobs.len().max(1));
    let shared = Arc::new(Shared {
        jobs: jobs.into_iter().map(|job| Mutex::new(Some(job))).collect(),
        next: AtomicUsize::new(0),
        heard: loudness.progress() || loudness == Loudness::Verbose,
        began: Instant::now(),
        threads: (0..threads).map(|_| Thread::default()).collect(),
    });
    let (tell, hear) = channel();
    let workers: Result<Vec<_>, _> = (0..threads)
        .map(|number| {
            let (shared, tell) = (Arc::clone(&shared), tell.clone());
            std::thread::Builder::new().name("reclaim".into()).spawn(move || shared.work(number, &tell))
        })
        .collect();
    let workers = workers.context("can't start a thread")?;
    drop(tell);
    attend(&shared, &workers, &hear, &names, &mut progress, loudness, |index, done| {
        outcomes[index].report = done.report;
        outcomes[index].watched = done.watched;
    });
    progress.finish();
    Ok(outcomes)
}

impl Outcome {
    fn pending(job: &Job) -> Self {
        let cgroup = job.cgroup.cgroup();
        // Overwritten by every thread that lives to tell.
        Self {
            name: cgroup.name().to_owned(),
            path: cgroup.path().to_path_buf(),
            report: Err(Errno::CANCELED),
            watched: None,
        }
    }
}

impl Shared {
    /// The reclaiming thread: takes one job after the other.
    fn work(&self, number: usize, tell: &Sender<Told>) {
        let thread = &self.threads[number];
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = self.jobs.get(index) else { return };
            let Some(job) = job.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
            let Job { mut cgroup, request, lock, usual } = job;
            if lock && !locked(&cgroup) {
                let _ = tell.send(Told::Locked(index));
            }
            if let Some(timeout) = request.timeout {
                let deadline = (self.began.elapsed() + timeout).as_millis() as u64;
                thread.deadline.store(deadline.max(1), Ordering::Relaxed);
            }
            let report = reclaim::run(&mut cgroup, &request, &|| signal::pending().is_some(), &mut |event| {
                let asked = if let Event::Asking { bytes } = event { bytes } else { 0 };
                thread.in_flight.store(asked, Ordering::Relaxed);
                if self.heard {
                    // Nobody listens any more only when nobody needs to know.
                    let _ = tell.send(Told::Event(index, event));
                }
            });
            thread.deadline.store(0, Ordering::Relaxed);
            let watched = usual.filter(|_| report.is_ok()).and_then(|(before, began)| {
                let ended = Activity::of(&mut cgroup).ok()?;
                Some(Box::new(Watched { cgroup, before, began, ended }))
            });
            let _ = tell.send(Told::Done(index, Box::new(Done { report, watched })));
        }
    }

    fn is_late(&self, thread: &Thread) -> bool {
        let deadline = thread.deadline.load(Ordering::Relaxed);
        deadline > 0 && self.began.elapsed().as_millis() as u64 >= deadline
    }
}

/// Waits, but not for long, for other memctl on the cgroup. Anybody who can open the directory can hold such a lock, so
/// it is a courtesy, and never a reason not to reclaim.
fn locked(cgroup: &MemoryCgroup) -> bool {
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match cgroup.cgroup().try_lock() {
            // A file system without locks is as good as an unlocked one.
            Ok(true) | Err(_) => return true,
            Ok(false) if Instant::now() >= until || signal::pending().is_some() => return false,
            Ok(false) => std::thread::sleep(LOCK_LOOK),
        }
    }
}

/// Waits for the reclaiming threads: draws what they tell, and passes on to them what has to end a write.
fn attend(
    shared: &Shared,
    workers: &[JoinHandle<()>],
    hear: &Receiver<Told>,
    names: &[String],
    progress: &mut Progress,
    loudness: Loudness,
    mut done: impl FnMut(usize, Done),
) {
    let mut since_signal: Option<Instant> = None;
    let mut said = false;
    loop {
        match hear.recv_timeout(LOOK) {
            Ok(Told::Event(index, event)) => {
                progress.show(index, &event);
                notes::event((names.len() > 1).then(|| names[index].as_str()), &event, loudness);
            }
            Ok(Told::Locked(index)) => progress.suspend(|| notes::locked(&names[index], loudness)),
            Ok(Told::Done(index, outcome)) => {
                progress.done(index);
                done(index, *outcome);
            }
            Err(RecvTimeoutError::Timeout) => progress.tick(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if signal::pending().is_some() && since_signal.is_none() {
            since_signal = Some(Instant::now());
            signal::let_the_next_kill();
        }
        for (thread, worker) in shared.threads.iter().zip(workers) {
            if since_signal.is_some() || shared.is_late(thread) {
                // Again and again: one that comes just before the write would be lost.
                signal::nudge(worker);
            }
        }
        let overdue = since_signal.is_some_and(|since| since.elapsed() >= PATIENCE);
        let in_flight = || shared.threads.iter().map(|thread| thread.in_flight.load(Ordering::Relaxed)).max();
        if let Some(bytes) = in_flight().filter(|&bytes| bytes > 0 && overdue && !said) {
            said = true;
            progress.suspend(|| notes::waiting_for_write(bytes, loudness));
        }
    }
}
