//! The clocks of the host, read in one place, so that all times are on the same clock.

use std::time::Duration;

use rustix::thread::{NanosleepRelativeResult, nanosleep};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Returns the monotonic time since some fixed moment.
#[must_use]
pub fn now() -> Duration {
    read(ClockId::Monotonic)
}

/// Returns the CPU time that the calling thread has used.
#[must_use]
pub(crate) fn thread_cpu() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// Returns the CPU time that the whole process has used.
#[must_use]
pub(crate) fn process_cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// Waits. A signal may end it early.
pub(crate) fn pause(time: Duration) {
    // The loop that waits checks for signals next.
    let (NanosleepRelativeResult::Ok | NanosleepRelativeResult::Interrupted(_) | _) =
        nanosleep(&timespec(time));
}

/// Converts a time to the form of system calls.
#[must_use]
pub(crate) fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
