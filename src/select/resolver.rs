//! Search for the cgroups of a watchlist beside the control loop: each search runs in a thread of
//! its own, which ends with it, and so do its stack and the memory that it took.

use std::cell::Cell;
use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::watchlist::{Found, Watchlist};

/// Size of the thread's stack. A walk keeps its way in a list.
const STACK: usize = 256 << 10;

/// Time for which the first poll waits for a result: a search of a small hierarchy is done by then.
const FIRST_WAIT: Duration = Duration::from_millis(5);

/// Work in a thread of its own.
#[derive(Debug)]
pub struct Task<T> {
    done: Receiver<T>,
    /// True once a poll has waited.
    waited: Cell<bool>,
}

impl<T: Send + 'static> Task<T> {
    /// Starts the work in a thread. If no thread can be started, does it now.
    pub fn start(work: impl FnOnce() -> T + Send + 'static) -> Self {
        Self::start_by(work, |thread| {
            let builder = std::thread::Builder::new().name("resolve".into()).stack_size(STACK);
            builder.spawn(thread).map(drop)
        })
    }

    fn start_by<F>(work: F, spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>) -> Self
    where
        F: FnOnce() -> T + Send + 'static,
    {
        let (send, done) = sync_channel(1);
        // A thread that doesn't start takes its closure along.
        let work = Arc::new(Mutex::new(Some(work)));
        let run = {
            let work = Arc::clone(&work);
            move || {
                if let Some(work) = lock(&work).take() {
                    // The receiver may be gone: nobody wants the result any more.
                    let _ = send.send(work());
                }
            }
        };
        let run = Arc::new(run);
        let thread = {
            let run = Arc::clone(&run);
            Box::new(move || run())
        };
        if spawn(thread).is_err() {
            run();
        }
        Self { done, waited: Cell::new(false) }
    }

    /// Returns the result once the work is done. Only the first call waits for it, a few
    /// milliseconds at most.
    ///
    /// # Errors
    /// The work ended without a result.
    pub fn poll(&self) -> Result<Option<T>, Panicked> {
        let wait = if self.waited.replace(true) { Duration::ZERO } else { FIRST_WAIT };
        match self.done.recv_timeout(wait) {
            Ok(result) => Ok(Some(result)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Panicked),
        }
    }
}

/// Error of work that ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the thread ended without a result")]
pub struct Panicked;

/// Watchlist that is searched for beside the caller.
#[derive(Debug)]
pub struct Resolver {
    watchlist: Arc<Mutex<Watchlist>>,
    task: Option<Task<Found>>,
    /// True if a cgroup was lost since the last search began.
    lost: bool,
    /// Called in the thread at the end of each search.
    after: fn(),
}

impl Resolver {
    /// Returns a resolver. `after` is called in the thread at the end of each search: it may give
    /// memory back.
    #[must_use]
    pub fn new(watchlist: Watchlist, after: fn()) -> Self {
        Self { watchlist: Arc::new(Mutex::new(watchlist)), task: None, lost: false, after }
    }

    /// Replaces the watchlist. The result of a search in progress is dropped.
    pub fn replace(&mut self, watchlist: Watchlist) {
        *self = Self::new(watchlist, self.after);
    }

    /// Returns the result of the last search, once, and begins the next one if it is due: every
    /// time while the number of cgroups changes or some are lost, and now and then otherwise. `lost` is true if a cgroup was lost since the last call. Cgroups
    /// whose ids are `known` aren't searched for.
    pub fn next(&mut self, now: Duration, lost: bool, known: impl IntoIterator<Item = u64>) -> Option<Found> {
        self.lost |= lost;
        if self.task.is_none() && lock(&self.watchlist).is_due(now, std::mem::take(&mut self.lost)) {
            let (watchlist, known) = (Arc::clone(&self.watchlist), known.into_iter().collect::<HashSet<_>>());
            let after = self.after;
            self.task = Some(Task::start(move || {
                let found = lock(&watchlist).search(&|id| known.contains(&id));
                drop((known, watchlist));
                after();
                found
            }));
        }
        let found = self.task.as_ref()?.poll().transpose()?;
        self.task = None;
        found.ok()
    }
}

/// Locks a mutex. A panic of its last holder leaves a watchlist as it was.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::watchlist::Words;
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_result_is_returned_when_it_is_there() {
        let (go, gone) = channel();
        let task = Task::start(move || gone.recv().map(|()| 7));
        let began = std::time::Instant::now();
        assert_eq!(task.poll(), Ok(None));
        assert!(began.elapsed() < Duration::from_secs(1), "it doesn't wait for the work");
        go.send(()).unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(10);
        let mut result = Ok(None);
        while result == Ok(None) && std::time::Instant::now() < until {
            result = task.poll();
        }
        assert_eq!(result, Ok(Some(Ok(7))));
    }

    #[test]
    fn without_a_thread_the_work_is_done_at_once() {
        let task = Task::start_by(|| 7, |_| Err(io::Error::from_raw_os_error(11)));
        assert_eq!(task.poll(), Ok(Some(7)));
    }

    #[test]
    fn what_is_lost_while_a_search_runs_is_searched_for_afterwards() {
        let Ok(watchlist) = Watchlist::of(&[Words::default()]) else { return };
        let mut resolver = Resolver::new(watchlist, || {});
        let (go, gone) = channel::<()>();
        resolver.task = Some(Task::start(move || {
            let _ = gone.recv();
            Found::default()
        }));
        assert!(resolver.next(Duration::ZERO, true, []).is_none() && resolver.lost);
        drop(go);
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while resolver.task.is_some() && std::time::Instant::now() < until {
            resolver.next(Duration::ZERO, false, []);
        }
        assert!(resolver.task.is_none() && resolver.lost);
        resolver.next(Duration::ZERO, false, []);
        assert!(!resolver.lost, "the next search knows of it");
    }
}
