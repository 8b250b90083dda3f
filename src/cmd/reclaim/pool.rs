//! Several requests at the same time: threads that reclaim, and one that waits for them.
//!
//! The kernel looks at signals of the writing thread only, so each request is written by a thread of its own that does
//! nothing else, and the waiting thread passes on to it what has to end its write: a signal, the end of its time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use memctl::reclaim::{self, Activity, Event, Place};

use super::feed::{Feed, Job, Next, Outcomes, Served};
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

/// What a reclaiming thread tells the waiting one.
enum Told {
    Event(usize, Event),
    Locked(usize),
    /// A request is over, and perhaps the cgroup done with.
    Served(usize, bool),
}

/// What all threads share.
struct Shared {
    feed: Mutex<Box<dyn Feed>>,
    /// Something was served: it may be another one's turn.
    turn: Condvar,
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

/// Serves all that it is fed with, `parallel` requests at a time, to the cgroups of these names. After a signal what is
/// under way is cut short, and the rest is not begun.
pub fn serve(
    feed: Box<dyn Feed>,
    names: &[String],
    mut progress: Progress,
    parallel: usize,
    loudness: Loudness,
) -> Result<Outcomes> {
    let threads = parallel.clamp(1, names.len().max(1));
    let shared = Arc::new(Shared {
        feed: Mutex::new(feed),
        turn: Condvar::new(),
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
    attend(&shared, &workers, &hear, names, &mut progress, loudness);
    progress.finish();
    for worker in workers {
        // One that panicked has said so; what it was at stays without a report.
        let _ = worker.join();
    }
    let shared = Arc::into_inner(shared).context("a reclaim thread is still running")?;
    Ok(shared.feed.into_inner().unwrap_or_else(PoisonError::into_inner).outcomes())
}

impl Shared {
    /// The reclaiming thread: takes one request after the other.
    fn work(&self, number: usize, tell: &Sender<Told>) {
        let thread = &self.threads[number];
        while let Some((index, mut job)) = self.next() {
            if std::mem::take(&mut job.lock) && !take_lock(&mut job) {
                let _ = tell.send(Told::Locked(index));
            }
            if let Some(timeout) = job.request.timeout {
                let deadline = (self.began.elapsed() + timeout).as_millis() as u64;
                thread.deadline.store(deadline.max(1), Ordering::Relaxed);
            }
            let Job { place, request, .. } = &mut *job;
            let report =
                reclaim::run(place.target(), request, &|| signal::pending().is_some(), &mut |event| {
                    let asked = if let Event::Asking { bytes } = event { bytes } else { 0 };
                    thread.in_flight.store(asked, Ordering::Relaxed);
                    if self.heard {
                        // Nobody listens any more only when nobody needs to know.
                        let _ = tell.send(Told::Event(index, event));
                    }
                });
            thread.deadline.store(0, Ordering::Relaxed);
            let ended = job.usual.as_ref().and_then(|_| Activity::of(job.place.target()).ok());
            let served = Served { index, job: *job, report, ended };
            let done = self.feed.lock().unwrap_or_else(PoisonError::into_inner).served(served);
            self.turn.notify_all();
            let _ = tell.send(Told::Served(index, done));
        }
    }

    /// The next request; `None` when there are no more.
    fn next(&self) -> Option<(usize, Box<Job>)> {
        let mut feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match feed.next() {
                Next::Serve(index, job) => return Some((index, job)),
                Next::Over => return None,
                // Not for ever: the thread that it waits for may have panicked.
                Next::Wait => {
                    let waited = self.turn.wait_timeout(feed, LOOK);
                    feed = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn is_late(&self, thread: &Thread) -> bool {
        let deadline = thread.deadline.load(Ordering::Relaxed);
        deadline > 0 && self.began.elapsed().as_millis() as u64 >= deadline
    }
}

/// Takes the lock, or gives up on it. The wait counts towards the timeout, of which at least half is left.
fn take_lock(job: &mut Job) -> bool {
    let began = Instant::now();
    let most = job.request.timeout.map_or(LOCK_WAIT, |timeout| LOCK_WAIT.min(timeout / 2));
    let taken = locked(&job.place, most);
    job.request.timeout = job.request.timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
    taken
}

/// Waits, but not for long, for other memctl on the cgroup. Anybody who can open the directory can hold such a lock, so
/// it is a courtesy, and never a reason not to reclaim.
fn locked(place: &Place, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    loop {
        match place.try_lock() {
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
            Ok(Told::Served(index, done)) => progress.served(index, done),
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
