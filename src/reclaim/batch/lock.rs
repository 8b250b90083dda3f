//! Waits for the lock of another memctl on the same cgroup.
//!
//! Locks of root and of the same user are honoured. Any other process that can open the directory
//! can hold a lock too, for ever: such locks are waited for once in all, not once for each cgroup.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::geteuid;

use crate::host::LockHolder;
use crate::reclaim::OpenTarget;

/// Time limit for a lock that is honoured, and for all other locks of a batch together.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Interval between attempts.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// Lock on a cgroup.
pub(super) trait Lock {
    /// Acquires the lock, if no other process holds it.
    fn try_lock(&self) -> Result<bool, Errno>;
    /// Returns the process that holds the lock.
    fn holder(&self) -> LockHolder;
}

impl Lock for OpenTarget {
    fn try_lock(&self) -> Result<bool, Errno> {
        Self::try_lock(self)
    }

    fn holder(&self) -> LockHolder {
        self.lock_holder()
    }
}

/// Waits for locks that a batch has left.
#[derive(Debug)]
pub(super) struct LockWaits {
    timeout: Duration,
    /// Number of further waits for processes of other users.
    strangers: AtomicU32,
}

impl LockWaits {
    pub(super) fn new() -> Self {
        Self::of(LOCK_TIMEOUT)
    }

    fn of(timeout: Duration) -> Self {
        let waits = timeout.as_millis() / LOCK_INTERVAL.as_millis();
        Self { timeout, strangers: AtomicU32::new(waits as u32) }
    }

    /// Acquires a lock, or gives up on it after at most `most` and returns the holder. The lock is
    /// a courtesy, and never a reason not to reclaim.
    pub(super) fn acquire(
        &self,
        lock: &impl Lock,
        most: Duration,
        stop: impl Fn() -> bool,
    ) -> Result<(), LockHolder> {
        let until = Instant::now() + most.min(self.timeout);
        // A file system without locks is as good as an unlocked one.
        let is_taken = || lock.try_lock() != Ok(false);
        while !is_taken() {
            let holder = lock.holder();
            let is_worth_it = holder.is_honoured(geteuid().as_raw()) || self.take_wait();
            if !is_worth_it || Instant::now() >= until || stop() {
                // The holder may have ended just before it could be found.
                return if is_taken() { Ok(()) } else { Err(holder) };
            }
            std::thread::sleep(LOCK_INTERVAL);
        }
        Ok(())
    }

    fn take_wait(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        self.strangers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const TIMEOUT: Duration = Duration::from_millis(200);

    /// A lock that is free after some attempts.
    struct Held(Cell<u32>, LockHolder);

    impl Lock for Held {
        fn try_lock(&self) -> Result<bool, Errno> {
            let left = self.0.get();
            self.0.set(left.saturating_sub(1));
            Ok(left == 0)
        }

        fn holder(&self) -> LockHolder {
            self.1
        }
    }

    fn held_by(uid: Option<u32>) -> Held {
        Held(Cell::new(u32::MAX), LockHolder { pid: Some(1234), uid })
    }

    #[test]
    fn strangers_are_waited_for_once_in_all() {
        let stranger = geteuid().as_raw() + 1;
        for uid in [Some(stranger), None] {
            let (waits, began) = (LockWaits::of(TIMEOUT), Instant::now());
            for _ in 0..100 {
                let lock = held_by(uid);
                assert_eq!(waits.acquire(&lock, TIMEOUT, || false), Err(lock.1));
            }
            let elapsed = began.elapsed();
            assert!(elapsed >= TIMEOUT / 2 && elapsed < 10 * TIMEOUT, "{elapsed:?}");
        }
    }

    #[test]
    fn honoured_locks_are_each_waited_for() {
        for uid in [0, geteuid().as_raw()] {
            let waits = LockWaits::of(TIMEOUT);
            for _ in 0..2 {
                let began = Instant::now();
                assert!(waits.acquire(&held_by(Some(uid)), TIMEOUT, || false).is_err());
                assert!(began.elapsed() >= TIMEOUT);
            }
            assert_eq!(waits.acquire(&Held(Cell::new(3), LockHolder::default()), TIMEOUT, || false), Ok(()));
            let began = Instant::now();
            assert!(waits.acquire(&held_by(Some(uid)), TIMEOUT, || true).is_err());
            assert!(waits.acquire(&held_by(Some(uid)), Duration::ZERO, || false).is_err());
            assert!(began.elapsed() < TIMEOUT);
        }
    }

    #[test]
    fn a_lock_that_is_released_while_its_holder_is_sought_is_taken() {
        let waits = LockWaits::of(Duration::ZERO);
        assert_eq!(waits.acquire(&Held(Cell::new(1), LockHolder::default()), TIMEOUT, || false), Ok(()));
    }
}
