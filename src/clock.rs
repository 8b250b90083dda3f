//! The clocks of the host, read in one place, so that every time is on the same one.

use std::time::Duration;

use rustix::thread::{NanosleepRelativeResult, nanosleep};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Monotonic time since some fixed moment.
#[must_use]
pub fn now() -> Duration {
    read(ClockId::Monotonic)
}

/// CPU time that the calling thread has used.
#[must_use]
pub fn thread_cpu() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// CPU time that the whole process has used.
#[must_use]
pub fn process_cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// Waits. A signal may end it early.
pub fn pause(time: Duration) {
    // The loop that waits looks at signals next.
    let (NanosleepRelativeResult::Ok | NanosleepRelativeResult::Interrupted(_) | _) =
        nanosleep(&timespec(time));
}

/// A time as system calls take it.
#[must_use]
pub fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
