//! A pool of threads that write, so that a slow write delays neither another write nor the thread
//! that gives out the work.
//!
//! The kernel checks for signals of the writing thread only. The thread that waits for the pool
//! ends the writes of its threads with `Pool::nudge`.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;

/// Work that the threads do.
pub(crate) trait Work: Send + Sync + 'static {
    /// A piece of work.
    type Job: Send;
    /// An event while a job is under way.
    type Event: Send;
    /// The result of a job.
    type Done: Send;

    /// Does a job in the thread of that number, until `stop` returns true.
    fn run(
        &self,
        thread: usize,
        job: Self::Job,
        stop: &dyn Fn() -> bool,
        emit: &mut dyn FnMut(Self::Event),
    ) -> Self::Done;
}

/// Messages of the threads.
#[derive(Debug)]
pub(crate) enum Message<E, D> {
    /// An event during a job.
    Event(E),
    /// The result of a finished job.
    Done(D),
}

struct Queues<W: Work> {
    jobs: VecDeque<W::Job>,
    messages: VecDeque<Message<W::Event, W::Done>>,
}

struct Shared<W: Work> {
    work: W,
    queues: Mutex<Queues<W>>,
    more: Condvar,
    stop: AtomicBool,
    /// Eventfd that counts messages.
    arrived: OwnedFd,
}

/// Starts a thread.
type Spawn = fn(Builder, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>;

/// Threads, and the jobs given to them.
pub(crate) struct Pool<W: Work> {
    shared: Arc<Shared<W>>,
    /// Threads, started when there is work for them.
    threads: Vec<JoinHandle<()>>,
    size: usize,
    stack: Option<usize>,
    spawn: Spawn,
    /// Jobs given out whose result wasn't received yet.
    under_way: usize,
}

impl<W: Work> Pool<W> {
    /// Creates a pool of at most `size` threads, with room for `jobs` jobs before it allocates
    /// more.
    ///
    /// # Errors
    /// The system's, from eventfd(2).
    pub(crate) fn new(work: W, size: usize, jobs: usize) -> io::Result<Self> {
        let queues = Queues { jobs: VecDeque::with_capacity(jobs), messages: VecDeque::with_capacity(jobs) };
        let shared = Arc::new(Shared {
            work,
            queues: Mutex::new(queues),
            more: Condvar::new(),
            stop: AtomicBool::new(false),
            arrived: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let spawn: Spawn = |thread, serve| thread.spawn(serve);
        Ok(Self { threads: Vec::with_capacity(size), shared, size, stack: None, spawn, under_way: 0 })
    }

    /// Sets the function that starts threads.
    #[cfg(test)]
    pub(crate) fn with_spawn(self, spawn: Spawn) -> Self {
        Self { spawn, ..self }
    }

    /// Sets the stack size of the threads, in bytes.
    #[must_use]
    pub(crate) fn with_stack(self, bytes: usize) -> Self {
        Self { stack: Some(bytes), ..self }
    }

    /// Returns the maximum number of threads.
    #[must_use]
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Returns the number of jobs given out whose result wasn't received yet.
    #[must_use]
    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Returns the work, which the threads share.
    #[must_use]
    pub(crate) fn work(&self) -> &W {
        &self.shared.work
    }

    /// Returns the descriptor that becomes readable when a message arrives.
    #[must_use]
    pub(crate) fn arrived(&self) -> &OwnedFd {
        &self.shared.arrived
    }

    /// Gives out a job.
    ///
    /// # Errors
    /// The job, if no thread at all can be started for it: the caller may run it by itself, with
    /// [`Pool::work`]. Where some threads run already, they will serve it.
    pub(crate) fn give(&mut self, job: W::Job) -> Result<(), W::Job> {
        if self.under_way >= self.threads.len() && self.threads.len() < self.size {
            let (shared, number) = (Arc::clone(&self.shared), self.threads.len());
            let thread = Builder::new().name("reclaim".into());
            let thread = match self.stack {
                Some(bytes) => thread.stack_size(bytes),
                None => thread,
            };
            match (self.spawn)(thread, Box::new(move || shared.serve(number))) {
                Ok(thread) => self.threads.push(thread),
                Err(_) if self.threads.is_empty() => return Err(job),
                Err(_) => {}
            }
        }
        self.under_way += 1;
        self.shared.lock().jobs.push_back(job);
        self.shared.more.notify_one();
        Ok(())
    }

    /// Returns the oldest message, if one has arrived.
    pub(crate) fn take(&mut self) -> Option<Message<W::Event, W::Done>> {
        let message = self.shared.lock().messages.pop_front()?;
        if matches!(message, Message::Done(_)) {
            self.under_way -= 1;
        }
        Some(message)
    }

    /// Lets no further job begin; jobs under way end after the write in flight.
    pub(crate) fn stop(&self) {
        // Under the lock: a thread between its look at `stop` and its wait would miss both.
        let queues = self.shared.lock();
        self.shared.stop.store(true, Ordering::Relaxed);
        drop(queues);
        self.shared.more.notify_all();
    }

    /// Interrupts, by `nudge`, the system calls of the threads whose numbers `which` selects.
    pub(crate) fn nudge(&self, nudge: fn(&JoinHandle<()>), which: impl Fn(usize) -> bool) {
        self.threads
            .iter()
            .enumerate()
            .filter(|&(number, _)| which(number))
            .for_each(|(_, thread)| nudge(thread));
    }

    /// Returns whether all threads that were started have ended.
    #[must_use]
    pub(crate) fn has_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for the threads to end, as they do after [`Pool::stop`].
    pub(crate) fn join(self) {
        for thread in self.threads {
            // A thread that panicked has reported so; its job stays without a result.
            let _ = thread.join();
        }
    }
}

impl<W: Work> Shared<W> {
    fn lock(&self) -> MutexGuard<'_, Queues<W>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, message: Message<W::Event, W::Done>) {
        self.lock().messages.push_back(message);
        // A counter that is full is readable already.
        let _ = rustix::io::write(&self.arrived, &1u64.to_ne_bytes());
    }

    fn serve(&self, number: usize) {
        while let Some(job) = self.next() {
            let stop = || self.stop.load(Ordering::Relaxed);
            let done = self.work.run(number, job, &stop, &mut |event| self.report(Message::Event(event)));
            self.report(Message::Done(done));
        }
    }

    fn next(&self) -> Option<W::Job> {
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Work that reports each job before its result.
    struct Echo;

    impl Work for Echo {
        type Job = u32;
        type Event = u32;
        type Done = u32;

        fn run(&self, _: usize, job: u32, _: &dyn Fn() -> bool, emit: &mut dyn FnMut(u32)) -> u32 {
            emit(job);
            job * 10
        }
    }

    #[test]
    fn every_job_is_reported_once_and_then_done() {
        let mut pool = Pool::new(Echo, 3, 4).unwrap();
        (0..20).for_each(|job| pool.give(job).unwrap());
        assert_eq!((pool.under_way(), pool.size()), (20, 3));
        let (mut reported, mut done) = (Vec::new(), Vec::new());
        while pool.under_way() > 0 {
            match pool.take() {
                Some(Message::Event(job)) => reported.push(job),
                Some(Message::Done(job)) => {
                    assert!(reported.contains(&(job / 10)), "{job} was done before it was reported");
                    done.push(job);
                }
                None => std::thread::yield_now(),
            }
        }
        done.sort_unstable();
        assert_eq!(done, (0..20).map(|job| job * 10).collect::<Vec<_>>());
        assert!(!pool.has_ended());
        pool.stop();
        pool.join();
    }

    #[test]
    fn jobs_come_back_only_where_no_thread_serves_them() {
        use std::sync::atomic::AtomicUsize;
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let mut none =
            Pool::new(Echo, 3, 4).unwrap().with_spawn(|_, _| Err(io::ErrorKind::WouldBlock.into()));
        assert_eq!((none.give(7), none.under_way()), (Err(7), 0));
        let mut one = Pool::new(Echo, 3, 4).unwrap().with_spawn(|thread, serve| {
            match STARTED.fetch_add(1, Ordering::Relaxed) {
                0 => thread.spawn(serve),
                _ => Err(io::ErrorKind::WouldBlock.into()),
            }
        });
        (0..20).for_each(|job| one.give(job).unwrap());
        while one.under_way() > 0 {
            if one.take().is_none() {
                std::thread::yield_now();
            }
        }
        assert!(STARTED.load(Ordering::Relaxed) > 1);
        one.stop();
        one.join();
    }

    /// Stops threads at all moments on the way from a job to the wait for the next one.
    #[test]
    fn no_thread_misses_a_stop() {
        for round in 0..20_000u32 {
            let mut pool = Pool::new(Echo, 1, 1).unwrap();
            pool.give(1).unwrap();
            while pool.under_way() > 0 {
                if pool.take().is_none() {
                    std::thread::yield_now();
                }
            }
            (0..round % 64).for_each(|_| std::hint::spin_loop());
            pool.stop();
            let until = Instant::now() + Duration::from_secs(30);
            while !pool.has_ended() {
                assert!(Instant::now() < until, "a thread waits for ever");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn after_a_stop_nothing_begins() {
        let mut pool = Pool::new(Echo, 1, 4).unwrap();
        pool.stop();
        pool.give(1).unwrap();
        while !pool.has_ended() {
            std::thread::yield_now();
        }
        assert!(pool.take().is_none());
    }
}
