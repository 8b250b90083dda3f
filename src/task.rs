//! Work in a thread of its own, which may hang or take long: whoever started it asks for the result
//! now and then. The thread ends with the work, and so do its stack and the memory that it took.

use std::cell::Cell;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Size of the thread's stack. Only what is used of it takes memory.
const STACK: usize = 256 << 10;

/// Time for which the first poll waits for a result: small work is done by then.
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
            let builder = std::thread::Builder::new().name("task".into()).stack_size(STACK);
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
                if let Some(work) = work.lock().unwrap_or_else(PoisonError::into_inner).take() {
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
        self.wait(wait)
    }

    /// Returns the result once the work is done, and waits for it at most that long.
    ///
    /// # Errors
    /// The work ended without a result.
    pub fn wait(&self, most: Duration) -> Result<Option<T>, Panicked> {
        match self.done.recv_timeout(most) {
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

#[cfg(test)]
mod tests {
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
}
